//! The discriminator of a DCGAN as feature extractor, and the classification experiments of Radford, Metz and Chintala
//! (ICLR 2016, sections 5.1 and 5.2 and supplement).
//!
//! [`extract`] computes feature vectors of images: the activations of every block of the discriminator, max-pooled to
//! 4x4. [`svm`], the crate dcgan-svm, fits a linear classifier to them:
//!
//! ```
//! use dcgan_data::Dataset;
//! use dcgan_features::extract::Extractor;
//! use dcgan_features::features::Precision;
//! use dcgan_features::svm::{ParamGuard, SvmParams};
//! use dcgan_model::ModelFiles;
//!
//! let files = ModelFiles::embedded_digits()?;
//! let weights = files.discriminator.ok_or("the model has no discriminator")?;
//! let mut extractor = Extractor::new(&files.model, &weights, &candle_core::Device::Cpu)?;
//!
//! let digits = Dataset::embedded_digits(files.model.config().image_shape().into())?;
//! let features = extractor.to_memory((&digits, 0..200), Precision::F32, &mut |_| {})?;
//! let labels = digits.labels().ok_or("the digits have no labels")?;
//! let labels: Vec<usize> = labels[..200].iter().map(|&label| label as usize).collect();
//!
//! let model = SvmParams::new().c(1e-3).check()?.fit_rows(&features, &labels)?;
//! assert_eq!(model.weights.dim(), (10, extractor.width()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules
//!
//! - Features: [`extract`] and [`pool`] compute them, [`features`] is the matrix, [`file`](mod@file) the file format,
//!   [`origin`] the record of network, weights and images in a file.
//! - Experiments: a [`subset`] is a split; [`experiment`] runs a [`task`] of the paper with its baselines and returns
//!   a [`report`]. [`protocol`] defines the splits and the choice of C, [`learner`] the classifiers, [`supervised`] the
//!   supervised baseline, [`claim`] recorded results.
//! - De-duplication: [`dedup`], semantic hashing of section 4.1.
//! - Comparisons of images: [`inception`], features for the metrics of dcgan-metrics.
//! - Nearest neighbours: [`nearest`] is an exact search, [`neighbours`] scores real and generated images with it.
//!
//! The feature `cli` (default) builds the binary `dcgan-eval`; the library does not need it.

mod cache;
pub mod claim;
pub mod dedup;
pub mod experiment;
pub mod extract;
pub mod file;
pub mod inception;
pub mod learner;
pub mod nearest;
pub mod neighbours;
pub mod origin;
pub mod pixel_search;
pub mod pool;
pub mod protocol;
pub mod report;
pub mod subset;
pub mod supervised;
pub mod task;

pub use dcgan_svm as svm;
pub use dcgan_svm::features;
