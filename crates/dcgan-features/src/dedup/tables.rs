//! Hash tables of codes: images with equal bits in a subset are candidates, and groups of those that agree.

use super::Duplicate;
use dcgan_base::random::{Purpose, shuffle, stream};
use rayon::prelude::*;

/// A code of up to 128 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code([u64; 2]);

impl Code {
    /// A code of 64 bits.
    pub fn from_bits(bits: u64) -> Self {
        Self([bits, 0])
    }

    /// The same with a bit set.
    pub fn with_bit(mut self, bit: usize) -> Self {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
        self
    }

    fn bit(self, bit: usize) -> u64 {
        self.0.get(bit / 64).map_or(0, |word| word >> (bit % 64) & 1)
    }
}

/// Bits in which two codes differ.
pub fn distance(a: Code, b: Code) -> u32 {
    (a.0[0] ^ b.0[0]).count_ones() + (a.0[1] ^ b.0[1]).count_ones()
}

/// Bits of a table beyond those that number the images: buckets have few images by chance.
const SPARE_BITS: usize = 2;

/// Images of a bucket that one is compared with: a bucket of many equal codes takes linear time too.
const NEIGHBOURS: usize = 16;

/// Hash tables, each over a subset of the bits.
#[derive(Debug)]
pub struct Tables(Vec<Vec<usize>>);

impl Tables {
    /// `tables` tables for codes of `bits` bits of `images` images, over subsets drawn by `seed`.
    pub fn new(bits: usize, images: usize, tables: usize, seed: u64) -> Self {
        let numbers = usize::try_from(images.max(2).next_power_of_two().ilog2()).unwrap_or(bits);
        let used = (numbers + SPARE_BITS).min(bits);
        let subset = |table: usize| {
            let mut all: Vec<usize> = (0..bits).collect();
            shuffle(&mut stream(seed, Purpose::DedupTables, table as u64), &mut all);
            all.truncate(used);
            all
        };
        Self((0..tables).map(subset).collect())
    }

    /// One table over all bits.
    pub fn whole(bits: usize) -> Self {
        Self(vec![(0..bits).collect()])
    }

    /// Number of tables.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no table.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Pairs of images in one bucket of a table, the smaller number first: each with the next ones of its bucket in the
    /// order of their codes.
    pub fn candidates(&self, table: usize, codes: &[Code]) -> Vec<(u32, u32)> {
        let Some(subset) = self.0.get(table) else { return Vec::new() };
        let key = |code: Code| subset.iter().fold(0_u128, |key, bit| key << 1 | u128::from(code.bit(*bit)));
        let mut sorted: Vec<(u128, Code, u32)> =
            codes.par_iter().enumerate().map(|(i, code)| (key(*code), *code, narrow(i))).collect();
        sorted.par_sort_unstable();
        let of_place = |place: usize| {
            let (key, _, number) = sorted[place];
            let next =
                sorted[place + 1..].iter().take(NEIGHBOURS).take_while(move |(other, ..)| *other == key);
            next.map(move |(.., other)| (number.min(*other), number.max(*other)))
        };
        (0..sorted.len()).into_par_iter().flat_map_iter(of_place).collect()
    }
}

/// The number of an image: a dataset has fewer than 2^32.
fn narrow(image: usize) -> u32 {
    u32::try_from(image).unwrap_or(u32::MAX)
}

/// Groups of near-duplicates.
#[derive(Debug)]
pub struct Groups {
    /// The image before it in its group, itself for the first.
    parents: Vec<u32>,
    /// What joined an image that is not the first of its group.
    joined: Vec<(u32, u32, u32, f32)>,
}

impl Groups {
    /// Each image in a group of its own.
    pub fn new(images: usize) -> Self {
        Self { parents: (0..narrow(images)).collect(), joined: Vec::new() }
    }

    fn first(&self, mut image: u32) -> u32 {
        while let Some(parent) = self.parents.get(image as usize).filter(|parent| **parent != image) {
            image = *parent;
        }
        image
    }

    /// Whether two images are in one group.
    pub fn are_joined(&self, a: u32, b: u32) -> bool {
        self.first(a) == self.first(b)
    }

    /// Joins the groups of two images. The first image of the joined group is the smaller number.
    pub fn join(&mut self, a: u32, b: u32, bits: u32, correlation: f32) {
        let (first, second) = (self.first(a), self.first(b));
        if first == second {
            return;
        }
        let (kept, removed) = (first.min(second), first.max(second));
        // Short paths: both images point to the first of their group.
        for image in [a, b, removed] {
            if let Some(parent) = self.parents.get_mut(image as usize) {
                *parent = kept;
            }
        }
        self.joined.push((a, b, bits, correlation));
    }

    /// Every image that is not the first of its group, with the pair that joined it.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        let mut with = std::collections::HashMap::new();
        for &(a, b, bits, correlation) in &self.joined {
            for (image, like) in [(a, b), (b, a)] {
                with.entry(image).or_insert((like, bits, correlation));
            }
        }
        let all = 0..narrow(self.parents.len());
        let duplicate = |image: u32| {
            let kept = self.first(image);
            let &(like, bits, correlation) = with.get(&image)?;
            let number = |image: u32| image as usize;
            (kept != image).then_some(Duplicate {
                removed: number(image),
                kept: number(kept),
                like: number(like),
                bits,
                correlation,
            })
        };
        all.filter_map(duplicate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bits: &[usize]) -> Code {
        bits.iter().fold(Code::default(), |code, bit| code.with_bit(*bit))
    }

    #[test]
    fn equal_codes_are_candidates_of_every_table() {
        let codes = [code(&[1, 70]), code(&[2]), code(&[1, 70]), code(&[1, 71]), code(&[2])];
        assert_eq!(distance(codes[0], codes[3]), 2);
        let mut found = Tables::whole(128).candidates(0, &codes);
        found.sort_unstable();
        assert_eq!(found, [(0, 2), (1, 4)]);
        let tables = Tables::new(128, codes.len(), 3, 7);
        assert_eq!(tables.len(), 3);
        for table in 0..3 {
            let found = tables.candidates(table, &codes);
            assert!(found.contains(&(0, 2)) && found.contains(&(1, 4)), "{found:?}");
        }
    }

    #[test]
    fn groups_keep_their_first_image() {
        let mut groups = Groups::new(7);
        for (a, b) in [(5, 6), (1, 4), (4, 6), (0, 3), (6, 5)] {
            groups.join(a, b, 2, 0.9);
        }
        let kept: Vec<(usize, usize)> = groups.duplicates().iter().map(|d| (d.removed, d.kept)).collect();
        assert_eq!(kept, [(3, 0), (4, 1), (5, 1), (6, 1)]);
        assert!(groups.are_joined(5, 1) && !groups.are_joined(0, 1) && !groups.are_joined(2, 0));
    }
}
