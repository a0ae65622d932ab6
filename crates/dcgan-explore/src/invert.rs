//! z of given images, by gradient descent through the generator.
//!
//! G is not invertible, and most real images are not among those it draws; what is left of the error after several
//! starts says how far this one is from them.

use crate::latent::{LatentError, Latents};
use candle_core::{Device, Tensor};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Distribution, Generator, LatentConfig, Model, NetworkError, pixels};
use dcgan_ops::{Keep, Mode, Want};

/// z that go through G at once. Always as many, so that the z found of an image do not depend on which others are searched with
/// it: products of few rows are summed in another order than those of many.
const BATCH: usize = 64;
/// Adam's decay rates, and the number that keeps its division finite (Kingma and Ba, 2015).
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPS: f32 = 1e-8;
/// Part of the first step size that the last step has.
const LAST_STEP: f64 = 0.1;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// z to start from, the same for every image; the best end is kept.
    pub starts: usize,
    /// Steps of Adam from each.
    pub steps: usize,
    /// Step size at the beginning; it falls evenly to a tenth.
    pub learning_rate: f64,
    /// Seed of the starts.
    pub seed: u64,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum InvertError {
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An image or start that is none, or a z that did not stay finite.
    #[error(transparent)]
    Latent(#[from] LatentError),
}

impl From<candle_core::Error> for InvertError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Inverted {
    /// One z an image.
    pub z: Latents,
    /// Mean squared error of each image, over pixels and channels, in the range that the network sees.
    pub errors: Vec<f32>,
    /// The same of every end, start after start for each image, `(n, starts)`.
    pub ends: Vec<f32>,
}

/// Searches z of `images`, u8 `(n, h, w, c)`: from each start, Adam on the mean squared error of the image drawn. Uniform z
/// are kept within \[-1, 1\]. `progress` hears how many of [`total_steps`] are done.
///
/// # Errors
/// A generator without statistics; no image or start; z that do not stay finite; memory.
pub fn invert(
    generator: &mut Generator,
    model: &Model,
    images: &[u8],
    search: &Search,
    progress: &mut dyn FnMut(usize),
) -> Result<Inverted, InvertError> {
    let config = model.config();
    let size = config.latent.size;
    let targets = pixels::to_tensor(images, config, &Device::Cpu)?.contiguous()?;
    let n = targets.dim(0)?;
    let starts = random::latent_each(search.seed, Purpose::InversionLatent, search.starts, &config.latent);
    let starts = Latents::new(starts, size, "a search from 0 starts")?;
    let all = n * starts.len();
    let (mut ends, mut found) = (Vec::with_capacity(all), Vec::with_capacity(all * size));
    for first in (0..all).step_by(BATCH) {
        // Each row of a batch is one start of one image; the last batch is filled up with the first start.
        let n = BATCH.min(all - first);
        let rows: Vec<usize> = (first..first + n).chain(std::iter::repeat_n(0, BATCH - n)).collect();
        let z: Vec<f32> = rows
            .iter()
            .flat_map(|row| starts.rows().nth(row % starts.len()).unwrap_or(&[]))
            .copied()
            .collect();
        let which: Vec<u32> = rows.iter().filter_map(|row| u32::try_from(row / starts.len()).ok()).collect();
        let which = Tensor::from_slice(&which, which.len(), &Device::Cpu)?;
        let targets = targets.index_select(&which, 0)?;
        let mut step = |done: usize| progress(first / BATCH * search.steps + done);
        let (z, errors) = descend(generator, &config.latent, z, &targets, search, &mut step)?;
        found.extend(z.into_iter().take(n * size));
        ends.extend(errors.into_iter().take(n));
    }
    let mut best = Vec::with_capacity(n);
    for errors in ends.chunks_exact(starts.len()) {
        let least = errors.iter().enumerate().min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(i, _)| i);
        best.push(best.len() * starts.len() + least);
    }
    let z = Latents::new(found, size, "the search's end")?.select(&best, "the search's end")?;
    let errors = best.iter().filter_map(|&row| ends.get(row).copied()).collect();
    Ok(Inverted { z, errors, ends })
}

/// Steps in all that `progress` of [`invert`] counts to.
pub fn total_steps(images: usize, search: &Search) -> usize {
    (images * search.starts).div_ceil(BATCH) * search.steps
}

/// Adam on each row of `z` by itself; gives the rows at the end and their errors.
fn descend(
    generator: &mut Generator,
    latent: &LatentConfig,
    mut z: Vec<f32>,
    targets: &Tensor,
    search: &Search,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<f32>, Vec<f32>), InvertError> {
    let (mut first, mut second) = (vec![0.0_f32; z.len()], vec![0.0_f32; z.len()]);
    let (mut decayed1, mut decayed2) = (1.0_f32, 1.0_f32);
    for step in 0..search.steps {
        let gradient = gradient(generator, latent.size, &z, targets)?;
        let gone = step as f64 / search.steps.saturating_sub(1).max(1) as f64;
        let rate = crate::series::narrowed(search.learning_rate * (1.0 - (1.0 - LAST_STEP) * gone));
        decayed1 *= BETA1;
        decayed2 *= BETA2;
        for (((z, g), m), v) in z.iter_mut().zip(&gradient).zip(&mut first).zip(&mut second) {
            *m = BETA1 * *m + (1.0 - BETA1) * g;
            *v = BETA2 * *v + (1.0 - BETA2) * g * g;
            *z -= rate * (*m / (1.0 - decayed1)) / ((*v / (1.0 - decayed2)).sqrt() + EPS);
            if latent.distribution == Distribution::Uniform {
                *z = z.clamp(-1.0, 1.0);
            }
        }
        progress(step + 1);
    }
    let errors = errors(generator, latent.size, &z, targets)?;
    Ok((z, errors))
}

/// Derivative of each row's mean squared error by its z, `(n, size)`; `targets` `(n, c, h, w)`, z `(n, size)`.
///
/// # Errors
/// A generator without statistics; shapes; memory.
pub fn gradient(
    generator: &mut Generator,
    size: usize,
    z: &[f32],
    targets: &Tensor,
) -> Result<Vec<f32>, NetworkError> {
    let network = &mut generator.0;
    let statistics = network.statistics().cloned().ok_or(NetworkError::NoStatistics)?;
    let device = network.executor.device().clone();
    let x = Tensor::from_slice(z, (z.len() / size.max(1), size, 1, 1), &device)?;
    let drawn = network.executor.forward(&x, Mode::Eval(&statistics), Keep::Tape)?.output;
    let targets = targets.to_device(&device)?;
    let values = targets.elem_count() / targets.dim(0)?.max(1);
    let d_drawn = ((&drawn - &targets)? * (2.0 / values as f64))?;
    let d_z = network.executor.backward(&d_drawn, Want::Input)?;
    let flat = d_z.map(|d_z| d_z.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()).transpose()?;
    Ok(flat.unwrap_or_default())
}

/// Mean squared error of each row's image, `(n)`; shapes as of [`gradient`].
///
/// # Errors
/// Those of [`gradient`].
pub fn errors(
    generator: &mut Generator,
    size: usize,
    z: &[f32],
    targets: &Tensor,
) -> Result<Vec<f32>, NetworkError> {
    let device = generator.0.executor.device().clone();
    let drawn = generator.sample(&Tensor::from_slice(z, (z.len() / size.max(1), size), &device)?)?;
    let difference = (&drawn - targets.to_device(&device)?)?;
    Ok(difference.sqr()?.flatten_from(1)?.mean(1)?.to_device(&Device::Cpu)?.to_vec1()?)
}
