//! What can be wrong with data on disk, with its position.

use std::io;
use std::path::{Path, PathBuf};

use crate::options::ImageShape;

/// Formats that [`crate::Dataset::open`] understands, for messages about input that is none of them.
pub(crate) const UNDERSTOOD: &str = "understood are: a folder or zip of PNG, JPEG or WebP images (flat or one folder \
     a class, optionally with dataset.json), a CIFAR-10/100 binary folder, MNIST idx files (.gz or not), SVHN cropped \
     .mat files, a cache written by `dcgan-data pack`";

/// An error of reading images and labels.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system refused while a file was written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The path is readable and holds no images.
    #[error("found 0 images in {} ({scanned}); {UNDERSTOOD}", .path.display())]
    NothingFound {
        /// What was scanned.
        path: PathBuf,
        /// How much was scanned and why it was skipped.
        scanned: String,
    },
    /// The file is in no format that is understood.
    #[error("{} is {found}; {UNDERSTOOD}", .path.display())]
    Unrecognized {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: String,
    },
    /// No manifest names any of the files.
    #[error("{} has no file of a known dataset; known are: {known}", .path.display())]
    NoManifest {
        /// The folder or file.
        path: PathBuf,
        /// The names of the manifests.
        known: String,
    },
    /// A file as a whole is damaged or contradicts itself.
    #[error("{}: {problem}", .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong: expected and found.
        problem: String,
    },
    /// One record of a file or folder is damaged.
    #[error("{}, image {record}: {problem} (--skip-bad leaves such images out)", .path.display())]
    BadRecord {
        /// The file, zip or folder.
        path: PathBuf,
        /// The record's name, or its number from zero.
        record: String,
        /// What is wrong.
        problem: String,
    },
    /// A size in a file is beyond what is read.
    #[error("{}: {what} of {bytes} bytes exceeds the limit of {limit}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The cap.
        limit: u64,
    },
    /// A cache holds images of another shape or crop than asked for.
    #[error(
        "{} holds images of {found}, asked for are {expected}: ask for {found}, or pack the data again",
        .path.display()
    )]
    CacheMismatch {
        /// The cache file.
        path: PathBuf,
        /// Shape and crop asked for.
        expected: String,
        /// Shape and crop in the cache.
        found: String,
    },
    /// The image shape asked for is out of range.
    #[error("an image shape of {0} is not possible: height and width are 1 to 8192, channels 1, 3 or 4")]
    Shape(ImageShape),
    /// An option is out of range.
    #[error("{0}")]
    Option(String),
    /// A batch cannot be filled from the dataset.
    #[error(
        "a batch of {batch_size} images is larger than the dataset of {images}: use --batch-size {images} or less"
    )]
    BatchTooLarge {
        /// Images a batch.
        batch_size: usize,
        /// Images in the dataset.
        images: usize,
    },
    /// A position lies behind the end of its epoch, as after the dataset changed.
    #[error(
        "batch {batch} does not exist: an epoch of this dataset has {batches_per_epoch} batches; did the data change?"
    )]
    Position {
        /// The batch asked for, from zero.
        batch: u64,
        /// Batches in an epoch.
        batches_per_epoch: u64,
    },
    /// An image index is out of range.
    #[error("image {index} does not exist: the dataset has {len}")]
    NoSuchImage {
        /// The index asked for, from zero.
        index: usize,
        /// Images in the dataset.
        len: usize,
    },
    /// The caller's buffer does not fit the image shape.
    #[error("an image takes {expected} bytes, the buffer has {found}")]
    BufferSize {
        /// Bytes of one image.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A thread that prepares batches ended by a panic: a defect of this program or of a decoder.
    #[error("preparing batch {batch} of epoch {epoch} panicked; this is a defect, please report it")]
    WorkerPanicked {
        /// The epoch, from zero.
        epoch: u64,
        /// The batch in the epoch, from zero.
        batch: u64,
    },
}

impl DataError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Write { path, source }
    }

    pub(crate) fn bad_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_owned(), problem: problem.into() }
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "numbers and names alike are handed over by value or reference"
    )]
    pub(crate) fn bad_record(
        path: &Path,
        record: impl std::fmt::Display,
        problem: impl Into<String>,
    ) -> Self {
        Self::BadRecord { path: path.to_owned(), record: record.to_string(), problem: problem.into() }
    }
}
