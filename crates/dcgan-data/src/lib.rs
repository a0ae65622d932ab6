//! Images and labels from disk as bytes: readers for the common formats, one transform, a seeded loader.
//!
//! [`Dataset::open`] takes a publisher's folder (CIFAR, MNIST, SVHN), a folder or zip of images, one file of these,
//! or a cache written by [`pack`]; [`Dataset::read`] gives one image as u8, rows of interleaved channels. [`Loader`]
//! hands out shuffled batches whose bytes depend on the seed and the position alone, not on the number of threads.
//! This crate knows no tensor library.
//!
//! # Hostile input
//!
//! Every size in a file is checked against a cap and against the bytes that are there before memory is taken for it.
//! Bad input is an error that names the file and the record, or is skipped and counted under [`OnBad::Skip`].

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
pub use cache::{Packed, pack};
pub use dataset::{Dataset, ImageInfo};
pub use error::DataError;
pub use loader::{Batch, Loader, LoaderConfig, LoaderPosition};
pub use manifest::{FileEntry, Finding, Manifest, Verified, manifests, verify};
pub use options::{ImageShape, OnBad, OpenOptions, Split};
pub use report::{Format, ScanReport, Skipped};
