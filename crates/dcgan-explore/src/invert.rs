//! Inversion of the generator: z of given images, by gradient descent.
//!
//! G generates few of all images. The remaining error after several restarts is the distance of an image to those it
//! generates.

use crate::interpolation::to_f32;
use crate::latent::{LatentError, LatentSet};
use crate::subnetwork::backward;
use candle_core::{Device, Tensor};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Distribution, Generator, LatentConfig, Latents, Model, NetworkError, pixels};
use dcgan_ops::Keep;

/// Batch size. Every batch is full, so that the result for an image does not depend on the other images: matrix
/// products of few rows are summed in another order than those of many.
const BATCH: usize = 64;
/// Adam's decay rates and epsilon (Kingma and Ba, 2015).
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;
/// Ratio of the last learning rate to the first.
const FINAL_LEARNING_RATE: f64 = 0.1;

/// Hyperparameters of an inversion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InversionConfig {
    /// Initial z, the same for every image; the result with the least error is kept.
    pub restarts: usize,
    /// Adam steps per restart.
    pub steps: usize,
    /// Initial learning rate; it decays linearly to a tenth.
    pub learning_rate: f64,
    /// Seed of the initial z.
    pub seed: u64,
}

/// Why an inversion failed.
#[derive(Debug, thiserror::Error)]
pub enum InvertError {
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// No image, no restart, or a z that is not finite.
    #[error(transparent)]
    Latent(#[from] LatentError),
}

impl From<candle_core::Error> for InvertError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// The result of an inversion of n images.
#[derive(Clone, Debug, PartialEq)]
pub struct Inversion {
    /// One z per image, `(n, size)`.
    pub z: LatentSet,
    /// Mean squared error of each image, over pixels and channels, in the value range of the networks, `(n)`.
    pub errors: Vec<f32>,
    /// The errors of all restarts, `(n, restarts)`.
    pub restart_errors: Vec<f32>,
}

/// Finds z of `images`, u8 `(n, h, w, c)`: for each restart, Adam on the mean squared error of the generated image.
/// Uniform z are clamped to \[-1, 1\]. `progress` is called with the number of steps done, of [`total_steps`].
///
/// # Errors
/// A generator without statistics; no image, no restart; z that are not finite; memory.
pub fn invert(
    generator: &mut Generator,
    model: &Model,
    images: &[u8],
    inversion: &InversionConfig,
    progress: &mut dyn FnMut(usize),
) -> Result<Inversion, InvertError> {
    let config = model.config();
    let size = config.latent.size;
    let targets =
        pixels::to_tensor(images, config, &Device::Cpu).map_err(NetworkError::from)?.contiguous()?;
    let n = targets.dim(0)?;
    let initial =
        random::latent_each(inversion.seed, Purpose::InversionLatent, inversion.restarts, &config.latent);
    let initial = LatentSet::new(initial, size, "an inversion with 0 restarts")?;
    let all = n * initial.len();
    let (mut restart_errors, mut optimized) = (Vec::with_capacity(all), Vec::with_capacity(all * size));
    for first in (0..all).step_by(BATCH) {
        // A row of a batch is one restart of one image; row 0 pads the last batch.
        let n = BATCH.min(all - first);
        let rows: Vec<usize> = (first..first + n).chain(std::iter::repeat_n(0, BATCH - n)).collect();
        let z: Vec<f32> = rows
            .iter()
            .flat_map(|row| initial.rows().nth(row % initial.len()).unwrap_or(&[]))
            .copied()
            .collect();
        let images: Vec<u32> =
            rows.iter().filter_map(|row| u32::try_from(row / initial.len()).ok()).collect();
        let images = Tensor::from_slice(&images, images.len(), &Device::Cpu)?;
        let targets = targets.index_select(&images, 0)?;
        let mut step = |done: usize| progress(first / BATCH * inversion.steps + done);
        let (z, errors) = minimize(generator, &config.latent, z, &targets, inversion, &mut step)?;
        optimized.extend(z.into_iter().take(n * size));
        restart_errors.extend(errors.into_iter().take(n));
    }
    let mut best = Vec::with_capacity(n);
    for errors in restart_errors.chunks_exact(initial.len()) {
        let least = errors.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i);
        best.push(best.len() * initial.len() + least);
    }
    let z = LatentSet::new(optimized, size, "the result")?.select(&best, "the result")?;
    let errors = best.iter().filter_map(|&row| restart_errors.get(row).copied()).collect();
    Ok(Inversion { z, errors, restart_errors })
}

/// The total of the steps that [`invert`] reports to `progress`.
pub fn total_steps(images: usize, inversion: &InversionConfig) -> usize {
    (images * inversion.restarts).div_ceil(BATCH) * inversion.steps
}

/// Adam on each row of `z` independently; returns the final rows and their errors.
fn minimize(
    generator: &mut Generator,
    latent: &LatentConfig,
    mut z: Vec<f32>,
    targets: &Tensor,
    inversion: &InversionConfig,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<f32>, Vec<f32>), InvertError> {
    let (mut first_moments, mut second_moments) = (vec![0.0_f32; z.len()], vec![0.0_f32; z.len()]);
    let (mut beta1_power, mut beta2_power) = (1.0_f32, 1.0_f32);
    for step in 0..inversion.steps {
        let gradient = gradient(generator, latent.size, &z, targets)?;
        let fraction = step as f64 / inversion.steps.saturating_sub(1).max(1) as f64;
        let learning_rate = to_f32(inversion.learning_rate * (1.0 - (1.0 - FINAL_LEARNING_RATE) * fraction));
        beta1_power *= BETA1;
        beta2_power *= BETA2;
        for (((z, g), m), v) in z.iter_mut().zip(&gradient).zip(&mut first_moments).zip(&mut second_moments) {
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            *z -= learning_rate * (*m / (1.0 - beta1_power)) / ((*v / (1.0 - beta2_power)).sqrt() + EPS);
            if latent.distribution == Distribution::Uniform {
                *z = z.clamp(-1.0, 1.0);
            }
        }
        progress(step + 1);
    }
    let errors = errors(generator, latent.size, &z, targets)?;
    Ok((z, errors))
}

/// The gradient of each row's mean squared error with respect to its z, `(n, size)`; `targets` `(n, c, h, w)`, z `(n,
/// size)`.
///
/// # Errors
/// A generator without statistics; shapes; memory.
pub fn gradient(
    generator: &mut Generator,
    size: usize,
    z: &[f32],
    targets: &Tensor,
) -> Result<Vec<f32>, NetworkError> {
    let network = generator.network_mut();
    let latents = Latents::new(z.to_vec(), size)?;
    let generated = network.eval(latents.input(), Keep::Tape)?.output.to_tensor()?;
    let values = targets.elem_count() / targets.dim(0)?.max(1);
    let grad_output = ((&generated - targets)? * (2.0 / values as f64))?;
    let grad_input = backward(network, &grad_output)?;
    Ok(grad_input.flatten_all()?.to_vec1::<f32>()?)
}

/// The mean squared error of each row's image, `(n)`; shapes as in [`gradient`].
///
/// # Errors
/// Those of [`gradient`].
pub fn errors(
    generator: &mut Generator,
    size: usize,
    z: &[f32],
    targets: &Tensor,
) -> Result<Vec<f32>, NetworkError> {
    let generated = generator.sample(&Latents::new(z.to_vec(), size)?)?.to_tensor()?;
    let difference = (&generated - targets)?;
    Ok(difference.sqr()?.flatten_from(1)?.mean(1)?.to_vec1()?)
}
