//! Random mutations of seeds: the operators of libFuzzer that do not need coverage.

use crate::MAX_INPUT;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values at which sizes and counts overflow, as little-endian bytes of 1 to 8.
const INTERESTING: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// An endless source of mutated seeds.
pub(crate) struct Mutator {
    rng: ChaCha8Rng,
    seeds: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl Mutator {
    /// Mutations of `seeds`, the same for the same `seed`.
    pub(crate) fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), seeds, current: Vec::new() }
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    fn seed(&mut self) -> Vec<u8> {
        let index = self.below(self.seeds.len());
        self.seeds.get(index).cloned().unwrap_or_default()
    }

    /// A seed after one to eight mutations.
    pub(crate) fn next(&mut self) -> &[u8] {
        self.current = self.seed();
        for _ in 0..=self.below(8) {
            self.mutate();
        }
        self.current.truncate(MAX_INPUT);
        &self.current
    }

    fn mutate(&mut self) {
        let len = self.current.len();
        // Most structure is at the start and at the end of a file.
        let at = match self.below(4) {
            0 => self.below(len.min(64)),
            1 => len.saturating_sub(1 + self.below(len.min(64))),
            _ => self.below(len),
        };
        let longest = 1 << self.below(8);
        let chunk = 1 + self.below(longest);
        let end = (at + chunk).min(len);
        match self.below(9) {
            _ if len == 0 => self.current = (0..chunk).map(|_| self.rng.random()).collect(),
            0 => self.current[at] ^= 1 << self.below(8),
            1 => self.current[at] = self.rng.random(),
            2 | 3 => {
                let value = INTERESTING[self.below(INTERESTING.len())];
                let width = 1 << self.below(4);
                let mut bytes = value.to_le_bytes();
                if self.rng.random() {
                    bytes[..width].reverse();
                }
                let end = (at + width).min(len);
                self.current[at..end].copy_from_slice(&bytes[..end - at]);
            }
            4 => drop(self.current.drain(at..end)),
            5 => {
                let copied = self.current[at..end].to_vec();
                let to = self.below(len + 1);
                self.current.splice(to..to, copied);
            }
            6 => {
                let other = self.seed();
                let from = self.below(other.len());
                let until = (from + chunk).min(other.len());
                self.current.splice(at..at, other[from.min(until)..until].iter().copied());
            }
            7 => self.current.truncate(at),
            _ => {
                let value = self.current[at].wrapping_add(if self.rng.random() { 1 } else { 255 });
                self.current[at] = value;
            }
        }
    }
}
