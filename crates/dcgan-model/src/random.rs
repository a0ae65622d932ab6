//! Every random number of the project: drawn on the host, from streams keyed by seed, purpose and index.
//!
//! A stream depends on nothing that was drawn before, so a run resumed at step k draws what the undisturbed run
//! would have drawn.

use crate::{Distribution, LatentConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// What numbers are drawn for. The discriminants are part of the format of a run: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The generator's initial weights; index = tensor.
    GeneratorWeights = 1,
    /// The discriminator's initial weights; index = tensor.
    DiscriminatorWeights = 2,
    /// z of a training step; index = step.
    TrainingLatent = 3,
    /// z of pictures drawn to look at; index = picture, so that n pictures are the first n of more.
    SampleLatent = 4,
    /// z of the quality measure; index = picture.
    QualityLatent = 5,
    /// z from which batch-norm statistics are re-estimated; index = batch.
    StatisticsLatent = 6,
    /// Which real pictures the quality measure sees.
    QualityPictures = 7,
    /// Weights of the random network of the quality measure; index = tensor.
    QualityWeights = 8,
    /// Synthetic pictures of a benchmark; index = batch.
    SyntheticPictures = 9,
    /// Labelled pictures that a classifier is chosen by; index = draw.
    SelectionDraw = 10,
    /// Labelled pictures whose classifier is tested; index = draw.
    LabelDraw = 11,
    /// A classifier's initial weights; index = tensor.
    ClassifierWeights = 12,
    /// Hyperparameters of a trial of random search; index = trial.
    Trial = 13,
    /// The order of labelled pictures; index = epoch.
    ClassifierOrder = 14,
    /// The order in which a linear SVM visits rows; index = sweep.
    SvmOrder = 15,
    /// Noise added to a z to see what lies around it; index = neighbour.
    LatentNoise = 16,
    /// z that a search for the z of a picture starts from; index = start.
    InversionLatent = 17,
    /// Places on feature maps that are taken as examples without an object; index = sample.
    BackgroundPlaces = 18,
}

/// The stream of `(seed, purpose, index)`: ChaCha with these three as its key.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// `n` values of N(mean, std^2).
pub fn normal(rng: &mut ChaCha8Rng, n: usize, mean: f32, std: f32) -> Vec<f32> {
    (0..n).map(|_| mean + std * rng.sample::<f32, _>(StandardNormal)).collect()
}

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
    (0..n as u64).flat_map(|i| latent(&mut stream(seed, purpose, i), 1, config)).collect()
}
