//! Metrics of generated images: Fréchet Inception distance (FID), its limit for many images, kernel Inception distance
//! (KID), Inception score, precision and recall, density and coverage.
//!
//! They are computed from features of the Inception network of 2015-12-05, whose weights the user has
//! ([`InceptionWeights::read`]). Programs prepare images in different ways; a [`Convention`] names one of them, and a
//! value without its convention means nothing.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dcgan_metrics::{Convention, INPUT_LEN, Inception, InceptionWeights};
//!
//! let weights = InceptionWeights::read("pt_inception-2015-12-05-6726825d.pth".as_ref())?;
//! let mut inception = Inception::new(&weights, dcgan_ops::Device::Cpu)?;
//! let image = vec![0_u8; 32 * 32 * 3];
//! let mut input = vec![0.0; INPUT_LEN];
//! Convention::TorchFidelity.prepare(&image, 32, 32, 3, &mut input);
//! let features = inception.features(input, 1)?.features; // 2048 values
//! # Ok(())
//! # }
//! ```
//!
//! Random numbers are those of numpy's `RandomState` ([`RandomState`]), so that subsets are those of other programs.
//! Results do not depend on the number of threads.

mod convention;
mod error;
mod feature_file;
mod frechet;
mod inception;
mod inception_score;
mod kernel_distance;
mod neighbours;
mod npz;
mod random_state;
mod statistics;

pub use convention::{Convention, INPUT_LEN, Image};
pub use error::MetricsError;
pub use feature_file::FeatureFile;
pub use frechet::Reference;
pub use inception::{
    BATCH, CLASSES, ConvolutionShape, FEATURES, Features, Inception, InceptionWeights, WEIGHTS_SOURCE,
    WEIGHTS_VARIABLE, convolution_shapes, default_weights,
};
pub use inception_score::{SPLITS, inception_score};
pub use kernel_distance::{SUBSET_SEED, SUBSET_SIZE, SUBSETS, Spread, kernel_distance};
pub use neighbours::{DENSITY_K, Neighbours, PRECISION_K, neighbours};
pub use random_state::RandomState;
pub use statistics::{Moments, Statistics};
