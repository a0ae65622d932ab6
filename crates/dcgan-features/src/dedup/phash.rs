//! Perceptual hashes: the signs of the low frequencies of the discrete cosine transform of a grey image (pHash, Zauner
//! 2010), a baseline for semantic hashing.

use super::{SHAPE, tables::Code};
use std::f32::consts::PI;
use std::sync::LazyLock;

const SIDE: usize = 32;
/// Frequencies in each direction.
const LOW: usize = 8;

/// Row u: cos(pi / 32 (x + 1/2) u) for x from 0 to 31.
static COSINES: LazyLock<Vec<[f32; SIDE]>> = LazyLock::new(|| {
    let cosine = |u: usize, x: usize| (PI / SIDE as f32 * (x as f32 + 0.5) * u as f32).cos();
    (0..LOW).map(|u| std::array::from_fn(|x| cosine(u, x))).collect()
});

/// The hash of an image `(32, 32, 3)`: 64 bits, one for each frequency above the median; that of the mean is zero.
pub fn hash(image: &[u8]) -> Code {
    let grey: Vec<f32> = image
        .chunks_exact(SHAPE.channels)
        .map(|pixel| 0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2]))
        .collect();
    let cosines = &*COSINES;
    let product =
        |row: &[f32], cosines: &[f32; SIDE]| row.iter().zip(cosines).map(|(a, b)| a * b).sum::<f32>();
    // Rows, then columns.
    let rows: Vec<[f32; LOW]> =
        grey.chunks_exact(SIDE).map(|row| std::array::from_fn(|u| product(row, &cosines[u]))).collect();
    let mut low = [0.0; LOW * LOW];
    for (i, value) in low.iter_mut().enumerate() {
        *value = rows.iter().zip(&cosines[i / LOW]).map(|(row, cosine)| row[i % LOW] * cosine).sum();
    }
    let mut sorted = low[1..].to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let median = sorted[sorted.len() / 2];
    let bits = (1..low.len()).filter(|&i| low[i] > median).fold(0, |bits, i| bits | 1 << i);
    Code::from_bits(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::tables::distance;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn brightness_does_not_change_a_hash() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let image: Vec<u8> = (0..SHAPE.bytes()).map(|_| rng.random_range(20..200)).collect();
        let brighter: Vec<u8> = image.iter().map(|value| value + 20).collect();
        let mirrored: Vec<u8> = image.chunks(96).flat_map(|row| row.iter().rev().copied()).collect();
        assert_eq!(distance(hash(&image), hash(&brighter)), 0);
        assert!(distance(hash(&image), hash(&mirrored)) > 8);
    }
}
