//! De-duplication of a dataset by semantic hashing (paper, section 4.1).
//!
//! A denoising autoencoder of 3072-128-3072 values with ReLU is trained on 32x32 center crops ([`autoencoder`]). The
//! signs of its hidden layer are a code of 128 bits. Images whose codes are equal in one of several subsets of the bits
//! are in one bucket of a hash table ([`tables`]), which takes linear time; images of a bucket are near-duplicates if
//! their pixels agree ([`pixels`]). The paper's own rule, all bits equal, is [`Rule::EqualCodes`]; perceptual hashes
//! ([`phash`]) are a baseline.
//!
//! Differences to the paper, which states no details: images are normalized to mean 0 and standard deviation 1, so that
//! brightness and contrast do not matter; a bit is whether a unit is above its median, where the paper has zero: with
//! zero many units are always on, and different images share codes; pixels are compared.

pub mod autoencoder;
pub mod phash;
pub mod pixels;
pub mod tables;

use autoencoder::Autoencoder;
use dcgan_data::{DataError, Dataset, ImageShape};
use dcgan_model::Device;
use dcgan_ops::OpsError;
use rayon::prelude::*;
use serde::Serialize;
use tables::{Code, Groups, Tables};

/// The shape of the images that are compared.
pub const SHAPE: ImageShape = ImageShape { height: 32, width: 32, channels: 3 };

/// Images that are read and hashed together.
const BATCH: usize = 512;

/// Maximum number of bits in which the codes of two images differ whose pixels are compared.
const MAX_BITS: u32 = 28;

/// Maximum number of bits in which the perceptual hashes of near-duplicates differ: usual values are 4 to 10.
const MAX_PHASH_BITS: u32 = 6;

/// Why a de-duplication failed.
#[derive(Debug, thiserror::Error)]
pub enum DedupError {
    /// An image.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The autoencoder.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Images of another shape.
    #[error("the dataset has images of {0}, expected {SHAPE}")]
    Shape(ImageShape),
}

/// Options of [`find`].
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of the autoencoder and of the tables.
    pub seed: u64,
    /// Training steps of the autoencoder, of 128 images.
    pub steps: usize,
    /// Hash tables.
    pub tables: usize,
    /// Minimum pixel correlation of near-duplicates.
    pub min_correlation: f32,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 0, steps: 2000, tables: 24, min_correlation: 0.75 }
    }
}

/// How near-duplicates are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Codes that are equal in one of several subsets of bits, and pixels that agree.
    Tables,
    /// Codes that are equal in all bits: the paper.
    EqualCodes,
    /// Perceptual hashes that differ in few bits.
    Phash,
}

/// A near-duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Duplicate {
    /// The image to remove.
    pub removed: usize,
    /// The image of its group that is kept: the first in the dataset.
    pub kept: usize,
    /// The image that it was compared with.
    pub like: usize,
    /// Bits in which the codes of both differ.
    pub bits: u32,
    /// Correlation of the pixels of both.
    pub correlation: f32,
}

/// The codes of all images of a dataset.
#[derive(Debug)]
pub struct Codes {
    /// Of the autoencoder.
    pub semantic: Vec<Code>,
    /// Perceptual hashes.
    pub phash: Vec<Code>,
    /// Mean squared error of the autoencoder on the last training batches; images have variance 1.
    pub loss: f64,
}

impl Codes {
    /// Trains the autoencoder and hashes all images. `progress` gets the number of images done.
    ///
    /// # Errors
    /// [`DedupError`].
    pub fn of(
        dataset: &Dataset,
        device: &Device,
        options: &Options,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, DedupError> {
        if dataset.shape() != SHAPE {
            return Err(DedupError::Shape(dataset.shape()));
        }
        let mut autoencoder = Autoencoder::train(dataset, device, options.seed, options.steps)?;
        let (mut semantic, mut phash) =
            (Vec::with_capacity(dataset.len()), Vec::with_capacity(dataset.len()));
        for first in (0..dataset.len()).step_by(BATCH) {
            let count = BATCH.min(dataset.len() - first);
            let images = read(dataset, first..first + count)?;
            phash.par_extend(images.par_chunks_exact(SHAPE.bytes()).map(phash::hash));
            semantic.extend(autoencoder.codes(&images)?);
            progress(first + count);
        }
        Ok(Self { semantic, phash, loss: autoencoder.loss() })
    }
}

/// The near-duplicates of a dataset by a rule, in the order of their numbers. `progress` gets how many of the tables
/// are done.
///
/// # Errors
/// [`DedupError`].
pub fn find(
    dataset: &Dataset,
    codes: &Codes,
    rule: Rule,
    options: &Options,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Duplicate>, DedupError> {
    let (codes, tables) = match rule {
        Rule::Tables => (&codes.semantic, Tables::new(128, dataset.len(), options.tables, options.seed)),
        Rule::EqualCodes => (&codes.semantic, Tables::whole(128)),
        Rule::Phash => (&codes.phash, Tables::new(64, dataset.len(), options.tables, options.seed)),
    };
    let mut groups = Groups::new(codes.len());
    for table in 0..tables.len() {
        let candidates = tables.candidates(table, codes);
        // Pairs of a table are independent of each other.
        let agree = |&(a, b): &(u32, u32)| -> Result<Option<(u32, u32, u32, f32)>, DedupError> {
            let bits = tables::distance(codes[a as usize], codes[b as usize]);
            let max = if rule == Rule::Phash { MAX_PHASH_BITS } else { MAX_BITS };
            if bits > max {
                return Ok(None);
            }
            let correlation = correlation(dataset, a as usize, b as usize)?;
            let is_near = rule != Rule::Tables || correlation >= options.min_correlation;
            Ok(is_near.then_some((a, b, bits, correlation)))
        };
        let new: Vec<&(u32, u32)> = candidates.iter().filter(|(a, b)| !groups.are_joined(*a, *b)).collect();
        let found: Vec<_> = new.into_par_iter().map(agree).collect::<Result<_, _>>()?;
        found
            .into_iter()
            .flatten()
            .for_each(|(a, b, bits, correlation)| groups.join(a, b, bits, correlation));
        progress(table + 1);
    }
    Ok(groups.duplicates())
}

/// The correlation of the pixels of two images ([`pixels::correlation`]).
///
/// # Errors
/// An image that cannot be read.
pub fn correlation(dataset: &Dataset, a: usize, b: usize) -> Result<f32, DedupError> {
    let (mut first, mut second) = (vec![0; SHAPE.bytes()], vec![0; SHAPE.bytes()]);
    dataset.read(a, &mut first)?;
    dataset.read(b, &mut second)?;
    Ok(pixels::correlation(&first, &second))
}

/// Images `(n, h, w, c)`, read by all threads.
fn read(dataset: &Dataset, range: std::ops::Range<usize>) -> Result<Vec<u8>, DataError> {
    let mut images = vec![0; range.len() * SHAPE.bytes()];
    let first = range.start;
    images
        .par_chunks_exact_mut(SHAPE.bytes())
        .enumerate()
        .try_for_each(|(i, image)| dataset.read(first + i, image))?;
    Ok(images)
}
