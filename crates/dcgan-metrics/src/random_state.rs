//! numpy's `RandomState`: the Mersenne Twister MT19937 (Matsumoto and Nishimura 1998) and its legacy shuffle, by which
//! other programs choose subsets of features. All random numbers of metrics come from it, so that subsets are theirs.

#![allow(clippy::cast_possible_truncation, reason = "the state has 624 numbers")]

const N: usize = 624;
const M: usize = 397;

/// The generator.
#[derive(Clone, Debug)]
pub struct RandomState {
    state: [u32; N],
    position: usize,
}

impl RandomState {
    /// `numpy.random.RandomState(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [0; N];
        let mut value = seed;
        for (i, slot) in state.iter_mut().enumerate() {
            *slot = value;
            value = 1_812_433_253_u32.wrapping_mul(value ^ (value >> 30)).wrapping_add(i as u32 + 1);
        }
        Self { state, position: N }
    }

    fn next(&mut self) -> u32 {
        if self.position == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.position = 0;
        }
        let mut y = self.state[self.position];
        self.position += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number from 0 to `max`, by rejection.
    fn interval(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// `permutation(n)`; at most 2^32 numbers.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut values: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let other = self.interval(u32::try_from(i).unwrap_or(u32::MAX)) as usize;
            values.swap(i, other);
        }
        values
    }

    /// `choice(n, count, replace=False)`.
    pub fn choice(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut values = self.permutation(n);
        values.truncate(count);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERMUTATION: [usize; 10] = [2, 4, 9, 1, 5, 7, 6, 3, 8, 0];
    const CHOICE: [usize; 5] = [358, 763, 430, 530, 677];

    #[test]
    fn numbers_are_those_of_numpy() {
        // numpy 2: r = numpy.random.RandomState(2020); r.permutation(10); r.choice(1000, 5, replace=False)
        let mut random = RandomState::new(2020);
        assert_eq!(random.permutation(10), PERMUTATION);
        assert_eq!(random.choice(1000, 5), CHOICE);
        // r = RandomState(5489); r.randint(0, 2**32, 3, dtype=numpy.uint32) gives the reference's first outputs.
        let mut random = RandomState::new(5489);
        assert_eq!(
            [random.next(), random.next(), random.next()],
            [3_499_211_612, 581_869_302, 3_890_346_734]
        );
    }
}
