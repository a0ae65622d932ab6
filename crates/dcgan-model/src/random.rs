//! The project's random streams ([`dcgan_base::random`]), and latent vectors drawn from them.

use crate::{Distribution, LatentConfig};
pub use dcgan_base::random::{Purpose, choose, normal, shuffle, stream};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// `n` latent vectors one after the other, `(n, z)`.
pub fn latent(rng: &mut ChaCha8Rng, n: usize, latent: &LatentConfig) -> Vec<f32> {
    let len = n * latent.size;
    match latent.distribution {
        Distribution::Uniform => (0..len).map(|_| rng.random_range(-1.0..1.0)).collect(),
        Distribution::Normal => normal(rng, len, 0.0, 1.0),
    }
}

/// `n` latent vectors `(n, z)`, the i-th from the stream of index `i`: n of them are the first n of any more.
pub fn latent_each(seed: u64, purpose: Purpose, n: usize, config: &LatentConfig) -> Vec<f32> {
    latent_range(seed, purpose, 0..n, config)
}

/// The latent vectors of `range` among those of [`latent_each`].
pub fn latent_range(seed: u64, purpose: Purpose, range: Range<usize>, config: &LatentConfig) -> Vec<f32> {
    range.flat_map(|i| latent(&mut stream(seed, purpose, i as u64), 1, config)).collect()
}
