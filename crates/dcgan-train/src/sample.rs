//! Pictures from a model: what `dcgan-train sample` writes.

use crate::grid::Grid;
use crate::pixels::{self, PixelRange};
use candle_core::Tensor;
use dcgan_data::PictureShape;
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Model, NetworkError};

/// Pictures drawn at once.
const BATCH: usize = 64;

/// Draws `n` pictures in evaluation mode: the same for the same model and seed, and the first n of any more.
///
/// # Errors
/// A generator without statistics; memory.
pub fn sample_grid(
    generator: &mut Generator,
    model: &Model,
    seed: u64,
    n: usize,
) -> Result<Grid, NetworkError> {
    let config = model.config();
    let size = config.latent.size;
    let z = random::latent_each(seed, Purpose::SampleLatent, n, &config.latent);
    let mut bytes = Vec::new();
    for z in z.chunks(BATCH * size) {
        let z = Tensor::from_slice(z, (z.len() / size, size), generator.0.executor.device())?;
        let pictures = generator.sample(&z)?;
        bytes.extend(pixels::to_bytes(&pictures, PixelRange::of(config.generator.output))?);
    }
    let shape = PictureShape { height: config.height, width: config.width, channels: config.channels };
    Ok(Grid::new(&bytes, shape))
}
