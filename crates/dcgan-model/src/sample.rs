//! Pictures from a model by seed.

use crate::random::{self, Purpose};
use crate::{Generator, Model, NetworkError, pixels};
use candle_core::Tensor;

/// Pictures drawn at once.
const BATCH: usize = 64;

/// Draws `n` pictures in evaluation mode, bytes `(n, h, w, c)`: the same for the same model and seed, and the first n of any
/// more.
///
/// # Errors
/// A generator without statistics; memory.
pub fn draw(generator: &mut Generator, model: &Model, seed: u64, n: usize) -> Result<Vec<u8>, NetworkError> {
    let config = model.config();
    let size = config.latent.size;
    let z = random::latent_each(seed, Purpose::SampleLatent, n, &config.latent);
    let mut bytes = Vec::new();
    for z in z.chunks(BATCH * size) {
        let z = Tensor::from_slice(z, (z.len() / size, size), generator.0.executor.device())?;
        let pictures = generator.sample(&z)?;
        bytes.extend(pixels::to_bytes(&pictures, config)?);
    }
    Ok(bytes)
}
