//! Every random number of the project: drawn on the host, from streams keyed by seed, purpose and index.
//!
//! A stream depends on nothing that was drawn before, so a run resumed at step k draws what the undisturbed run
//! would have drawn.

use rand::{Rng, RngCore, SeedableRng};
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
    /// z of images drawn to look at; index = image, so that n images are the first n of more.
    SampleLatent = 4,
    /// z of the random-feature Fréchet distance; index = image.
    FrechetLatent = 5,
    /// z from which batch-norm statistics are recalibrated; index = batch.
    StatisticsLatent = 6,
    /// Which real images the random-feature Fréchet distance sees.
    FrechetImages = 7,
    /// Weights of the random network of the random-feature Fréchet distance; index = tensor.
    FrechetWeights = 8,
    /// Synthetic images of a benchmark; index = batch.
    SyntheticImages = 9,
    /// Labeled images that a classifier is chosen by; index = draw.
    SelectionDraw = 10,
    /// Labeled images whose classifier is tested; index = draw.
    LabelDraw = 11,
    /// A classifier's initial weights; index = tensor.
    ClassifierWeights = 12,
    /// Hyperparameters of a trial of random search; index = trial.
    Trial = 13,
    /// The order of labeled images; index = epoch.
    ClassifierOrder = 14,
    /// The order in which a linear SVM visits rows; index = sweep.
    SvmOrder = 15,
    /// Noise added to a z to see what lies around it; index = neighbour.
    LatentNoise = 16,
    /// z that a search for the z of an image starts from; index = start.
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

/// Shuffles `values`: Fisher-Yates from the end.
///
/// Written out instead of `rand`'s shuffle, whose draws may change between releases: an order is part of what a seed
/// promises.
pub fn shuffle<T>(rng: &mut impl RngCore, values: &mut [T]) {
    for last in (1..values.len()).rev() {
        // A 64-bit draw scaled to 0..=last; its bias is below 2^-32 for any slice of fewer than 2^32 values.
        let scaled = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        if let Ok(other) = usize::try_from(scaled) {
            values.swap(last, other);
        }
    }
}
