//! Images from a model by seed, and of given z.

use crate::random::{self, Purpose};
use crate::{Generator, Model, NetworkError, pixels};
use candle_core::Tensor;
use dcgan_ops::give_back;

/// Images drawn at once at most.
const BATCH: usize = 64;

/// Images drawn at once are a multiple of these, so that an image is the same to the last bit whatever is drawn beside it: products
/// of fewer rows are summed in another order.
const ROUND: usize = 16;

/// Draws `n` images in evaluation mode, bytes `(n, h, w, c)`: the same for the same model and seed, and the first n of any
/// more.
///
/// # Errors
/// A generator without statistics; memory.
pub fn draw(generator: &mut Generator, model: &Model, seed: u64, n: usize) -> Result<Vec<u8>, NetworkError> {
    let z = random::latent_each(seed, Purpose::SampleLatent, n, &model.config().latent);
    draw_latents(generator, model, &z, &mut |_| ())
}

/// Draws the images of `z`, `(n, z)` one after the other, in evaluation mode, bytes `(n, h, w, c)`: each the same whatever the
/// others are. `progress` hears how many are done.
///
/// # Errors
/// Values that do not make whole z; a generator without statistics; memory.
pub fn draw_latents(
    generator: &mut Generator,
    model: &Model,
    z: &[f32],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<u8>, NetworkError> {
    let config = model.config();
    let size = config.latent.size;
    if !z.len().is_multiple_of(size) {
        return Err(NetworkError::Latents { len: z.len(), size });
    }
    let mut bytes = Vec::new();
    let mut done = 0;
    for z in z.chunks(BATCH * size) {
        let n = z.len() / size;
        let rows = n.next_multiple_of(ROUND);
        let mut whole = z.to_vec();
        whole.resize(rows * size, 0.0);
        let whole = Tensor::from_vec(whole, (rows, size), generator.0.executor.device())?;
        let images = generator.sample(&whole)?;
        bytes.extend(pixels::to_bytes(&images.narrow(0, 0, n)?, config)?);
        give_back(images);
        done += n;
        progress(done);
    }
    Ok(bytes)
}
