//! Pictures from a model: what `dcgan-train sample` writes.

use crate::grid::Grid;
use crate::pixels::{self, PixelRange, shape_of};
use candle_core::Tensor;

use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Model, NetworkError};

/// Pictures drawn at once.
const BATCH: usize = 64;

/// A grid of pictures from [`draw`].
///
/// # Errors
/// A generator without statistics; memory.
pub fn sample_grid(
    generator: &mut Generator,
    model: &Model,
    seed: u64,
    n: usize,
) -> Result<Grid, NetworkError> {
    Ok(Grid::new(&draw(generator, model, seed, n)?, shape_of(model.config())))
}

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
        bytes.extend(pixels::to_bytes(&pictures, PixelRange::of(config.generator.output))?);
    }
    Ok(bytes)
}
