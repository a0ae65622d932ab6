//! Random streams keyed by seed, purpose and index, drawn on the host. All random numbers of the project are drawn from
//! them, but for the shuffles of dcgan-data and the subsets of dcgan-metrics, which have generators of their own.
//!
//! A stream does not depend on earlier draws: a run resumed at step k draws the same numbers as an uninterrupted run.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// What random numbers are used for. The discriminants are part of the format of a run: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// The generator's initial weights; index = tensor.
    GeneratorWeights = 1,
    /// The discriminator's initial weights; index = tensor.
    DiscriminatorWeights = 2,
    /// z of a training step; index = step.
    TrainingLatent = 3,
    /// z of generated samples; index = image, so the first n of N samples do not depend on N.
    SampleLatent = 4,
    /// z of the random-feature Fréchet distance; index = image.
    FrechetLatent = 5,
    /// z for recalibrating batch norm; index = batch.
    StatisticsLatent = 6,
    /// Choice of real images for the random-feature Fréchet distance.
    FrechetImages = 7,
    /// Weights of the random network that computes the features of that distance; index = tensor.
    FrechetWeights = 8,
    /// Synthetic images of a benchmark; index = batch.
    SyntheticImages = 9,
    /// Labeled images for model selection; index = draw.
    SelectionDraw = 10,
    /// Labeled images that a tested classifier is trained on; index = draw.
    LabelDraw = 11,
    /// A classifier's initial weights; index = tensor.
    ClassifierWeights = 12,
    /// Hyperparameters of a random search; index = trial.
    Trial = 13,
    /// The order of labeled images; index = epoch.
    ClassifierOrder = 14,
    /// The order of rows in coordinate descent for a linear SVM; index = sweep.
    SvmOrder = 15,
    /// Noise added to a z to sample its neighbourhood; index = neighbour.
    LatentNoise = 16,
    /// Initial z of an inversion; index = start.
    InversionLatent = 17,
    /// Positions on feature maps used as negative examples (no object); index = sample.
    BackgroundPlaces = 18,
    /// Images and dropout of the autoencoder of a de-duplication; index = step.
    Dedup = 19,
    /// Its initial weights; index = tensor.
    DedupWeights = 20,
    /// The bits of its hash tables; index = table.
    DedupTables = 21,
    /// Choice and order of the images that a metric or a search compares.
    ComparedImages = 22,
}

/// The stream of `(seed, purpose, index)`: ChaCha8 with these three numbers as its key.
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// `n` values from N(mean, std^2).
pub fn normal(rng: &mut ChaCha8Rng, n: usize, mean: f32, std: f32) -> Vec<f32> {
    (0..n).map(|_| mean + std * rng.sample::<f32, _>(StandardNormal)).collect()
}

/// At most `count` different indices below `n`, in the order in which they are drawn: the first k do not depend on
/// `count`.
pub fn choose(rng: &mut impl Rng, n: usize, count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..n).collect();
    let count = count.min(n);
    for i in 0..count {
        indices.swap(i, rng.random_range(i..n));
    }
    indices.truncate(count);
    indices
}

/// Shuffles `values`: Fisher-Yates from the end.
///
/// Implemented here because `rand`'s shuffle may draw differently in another release, and a seed must keep giving the
/// same order.
pub fn shuffle<T>(rng: &mut impl RngCore, values: &mut [T]) {
    for last in (1..values.len()).rev() {
        // A 64-bit draw scaled to 0..=last; its bias is below 2^-32 for any slice of fewer than 2^32 values.
        let scaled = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        if let Ok(other) = usize::try_from(scaled) {
            values.swap(last, other);
        }
    }
}
