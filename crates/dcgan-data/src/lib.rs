//! Image datasets: readers for common formats, a transform to one shape, a deterministic data loader.
//!
//! [`Dataset::open`] takes the folder of a published dataset (CIFAR, MNIST, SVHN), a folder or zip of images, a single
//! file of these, or a cache written by [`pack`]. [`Dataset::read`] returns one image as u8 `(h, w, c)`. [`Loader`]
//! returns shuffled batches that depend only on the seed and the position, not on the number of threads. This crate
//! does not depend on a tensor library.
//!
//! # Untrusted input
//!
//! Every size in a file is checked against a limit and against the available bytes before memory is allocated. Invalid
//! input is an error that names the file and the record, or is skipped and counted with [`UnreadableImages::Skip`].

mod bytes;
mod cache;
mod dataset;
mod decode;
mod error;
mod files;
mod frames;
pub mod image_grid;
mod loader;
mod manifest;
mod open;
mod options;
mod order;
mod readers;
mod report;
mod source;
mod transform;

pub use bytes::Bytes;
pub use cache::{PackReport, pack};
pub use dataset::{Dataset, ImageInfo};
pub use error::DataError;
pub use loader::{Batch, Loader, LoaderConfig, LoaderPosition};
pub use manifest::{FileEntry, FileStatus, Manifest, VerifiedFile, manifests, verify};
pub use options::{ImageShape, OpenOptions, Split, UnreadableImages};
pub use report::{Format, ScanReport, Skipped};
