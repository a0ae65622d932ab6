//! Image datasets: readers for common formats, a transform to one shape, a deterministic data loader.
//!
//! [`Dataset::open`] takes the folder of a published dataset (CIFAR, MNIST, SVHN, STL-10, CelebA, downsampled
//! ImageNet), a folder, zip or tar archive of images, LMDB databases, Parquet files, numpy or HDF5 arrays, a single
//! file of these, or a cache written by [`pack`]. [`Dataset::read`] returns one image as u8
//! `(h, w, c)`. [`Loader`] returns shuffled batches that depend only on the seed and the position, not on the number of
//! threads. This crate does not depend on a tensor library.
//!
//! # Example
//!
//! Opens a folder with one folder of images per class, and reads a batch:
//!
//! ```
//! use std::sync::Arc;
//!
//! use dcgan_data::{BatchPart, Dataset, ImageShape, Loader, LoaderConfig, LoaderPosition, OpenOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # for (class, side) in [("cat", 40), ("dog", 50)] {
//! #     std::fs::create_dir(folder.path().join(class))?;
//! #     image::RgbImage::new(side, side).save(folder.path().join(class).join("1.png"))?;
//! # }
//! # let path = folder.path();
//! // Every image is resized to 32 x 32 RGB.
//! let shape = ImageShape { height: 32, width: 32, channels: 3 };
//! let dataset = Arc::new(Dataset::open(path, &OpenOptions::new(shape))?);
//! assert_eq!(dataset.class_names().unwrap(), ["cat", "dog"]);
//! assert_eq!(dataset.labels().unwrap(), [0, 1]);
//!
//! let part = BatchPart::WHOLE;
//! let config = LoaderConfig { batch_size: 2, seed: 7, mirror: true, threads: 2, prefetch_bytes: 1 << 20, part };
//! let mut loader = Loader::new(dataset, config, LoaderPosition::default())?;
//! let batch = loader.next_batch()?;
//! assert_eq!(batch.pixels.len(), 2 * 32 * 32 * 3); // (n, h, w, c)
//! assert_eq!(batch.labels.unwrap().len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `cli` (default) builds the binary `dcgan-data`: `inspect`, `pack`, `verify` and `bench`. The library does not use
//! it. `remote` reads datasets at URLs: `https://`, `s3://` ([`local_path`]). `formats` (part of `cli`) reads the
//! formats that need a library of their own: `parquet` and `hdf5`. `clap` adds `arguments`: options of reading images
//! for the command lines of other programs.
//!
//! # Untrusted input
//!
//! Every size in a file is checked against a limit and against the available bytes before memory is allocated. Invalid
//! input is an error that names the file and the record, or is skipped and counted with [`UnreadableImages::Skip`].
//!
//! # Modules
//!
//! Modules form layers. A module uses only modules before it in this list:
//!
//! 1. types and errors: `background`, `block`, `shape`, `split`, `error`, `names`, `name_list`, `options`, `report`,
//!    `journal`
//! 2. files and images: `bytes`, `gif_blocks`, `jpeg`, `kind`, `tiff_palette`, `decode`, `resize`, `transform`,
//!    `encoded`, `raw`, `pixel_cache`, `source`
//! 3. formats: `readers`, `index`
//! 4. datasets: `remote`, `open`, `dataset`
//! 5. uses of datasets: `order`, `loader`, `probe`, `partial_file`, `pack`, `manifest`
//! 6. image files to write: `image_file`, `image_grid`, `gif`, `zip_writer`, `image_writer`
//! 7. command lines: `arguments`

#[cfg(feature = "clap")]
pub mod arguments;
mod background;
mod block;
mod bytes;
mod dataset;
mod decode;
mod encoded;
mod error;
pub mod gif;
mod gif_blocks;
pub mod image_file;
pub mod image_grid;
mod image_writer;
mod index;
mod journal;
mod jpeg;
mod kind;
mod loader;
mod manifest;
mod name_list;
mod names;
mod open;
mod options;
mod order;
mod pack;
mod partial_file;
mod pixel_cache;
mod probe;
mod raw;
mod readers;
mod remote;
mod report;
mod resize;
mod shape;
mod source;
mod split;
mod tiff_palette;
mod transform;
mod zip_writer;

pub use background::Background;
pub use bytes::Bytes;
pub use dataset::{Dataset, DecodeProgress};
pub use error::DataError;
pub use image_writer::{ImageWriter, ImageWriterError, image_name};
pub use loader::{Batch, BatchImage, BatchPart, KeptImages, Loader, LoaderConfig, LoaderPosition};
pub use manifest::{FileEntry, FileStatus, Manifest, VerifiedFile, manifests, verify};
pub use name_list::{list_column, listed_names};
pub use options::{OpenOptions, SkippedImage, UnreadableImages};
pub use pack::{PackReport, pack};
pub use pixel_cache::{CACHE_VARIABLE, default_cache_folder};
pub use probe::{Probe, probe};
pub use readers::cache::cache_shape;
pub use remote::{is_remote, local_path};
pub use report::{Format, ScanReport, Skipped};
pub use shape::{ImageShape, InvalidShape};
pub use source::ImageInfo;
pub use split::Split;
