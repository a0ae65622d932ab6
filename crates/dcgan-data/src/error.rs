//! Errors of reading datasets, with file and record.

use std::io;
use std::path::{Path, PathBuf};

use crate::shape::InvalidShape;
use crate::split::Split;

/// The formats of [`crate::Dataset::open`], for error messages.
pub(crate) const SUPPORTED: &str = "supported formats: a folder or zip of PNG, JPEG, WebP, GIF, BMP, TIFF or PNM images \
     (flat or one folder per class, optionally with dataset.json; folders train, val and test are splits), tar archives \
     (WebDataset, ILSVRC), LMDB databases (LSUN), Parquet files (Hugging Face), CIFAR-10/100 (binary or python version), \
     downsampled ImageNet, STL-10, CelebA, MNIST and EMNIST idx files (plain or .gz), SVHN cropped digits (.mat), u8 \
     arrays (.npy, .npz, HDF5), a cache written by `dcgan-data pack`";

/// Errors of opening, reading, packing and loading datasets.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// An I/O error while reading.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// An I/O error while writing.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// A dataset at a URL cannot be copied.
    #[error(transparent)]
    Remote(#[from] dcgan_remote::RemoteError),
    /// A dataset at a URL has no folder to be copied to.
    #[error("a dataset at a URL is copied to the cache folder, but there is none: set DCGAN_CACHE")]
    NoCacheFolder,
    /// A dataset at a URL that is not on the local disk yet.
    #[error("{address} is not copied yet: `dcgan-data inspect {address}` copies it")]
    NotCopied {
        /// The URL.
        address: String,
    },
    /// The path is readable but contains no images.
    #[error("found 0 images in {} ({scanned}); {SUPPORTED}", .path.display())]
    NoImages {
        /// The scanned file or folder.
        path: PathBuf,
        /// Number of scanned files, and what was skipped.
        scanned: String,
    },
    /// The dataset has splits, but not the requested one.
    #[error("{} has no {split} split: expected {expected}, found {found}", .path.display())]
    NoSplit {
        /// The folder or zip.
        path: PathBuf,
        /// The requested split.
        split: Split,
        /// The files or folder of the split.
        expected: String,
        /// The files or folders of other splits.
        found: String,
    },
    /// The images of the requested split are those of training: the dataset has no splits.
    #[error("{} has no {split} images of its own: omit --split to use all images", .path.display())]
    NoOwnSplit {
        /// The dataset.
        path: PathBuf,
        /// The requested split.
        split: Split,
    },
    /// The format of the file is not supported.
    #[error("{} is {found}; {SUPPORTED}", .path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What the file appears to be.
        found: String,
    },
    /// No manifest lists any of the files.
    #[error("{} has no file of a known dataset; known datasets: {known}", .path.display())]
    NoManifest {
        /// The folder or file.
        path: PathBuf,
        /// The names of the manifests.
        known: String,
    },
    /// A file is damaged or inconsistent.
    #[error("{}: {problem}", .path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// The problem, with expected and found values.
        problem: String,
    },
    /// One image of a file or folder is damaged.
    #[error("{}, image {record}: {problem} (--skip-bad skips unreadable images)", .path.display())]
    InvalidRecord {
        /// The file, zip or folder.
        path: PathBuf,
        /// The name of the image, or its index from zero.
        record: String,
        /// The problem.
        problem: String,
    },
    /// Images that cannot be read or decoded.
    #[error("{}: {count} of {images} images cannot be read: {examples}; {}", .path.display(), unreadable_fix(*.limit))]
    Unreadable {
        /// The file, zip or folder.
        path: PathBuf,
        /// Images of the dataset.
        images: usize,
        /// How many cannot be read.
        count: usize,
        /// How many may be skipped, if images are skipped.
        limit: Option<u64>,
        /// The first of them, each with its problem.
        examples: String,
    },
    /// The caller cancelled the decoding of a dataset.
    #[error("decoding the dataset was cancelled")]
    Cancelled,
    /// A size exceeds a limit.
    #[error("{}: {what} of {bytes} bytes exceeds the limit of {limit}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large.
        what: String,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A cache contains images of another shape or crop than requested.
    #[error(
        "{} contains images of {found}, expected {expected}: request {found}, or pack the dataset again",
        .path.display()
    )]
    CacheMismatch {
        /// The cache file.
        path: PathBuf,
        /// Requested shape and crop.
        expected: String,
        /// Shape and crop of the cache.
        found: String,
    },
    /// The requested image shape is out of range.
    #[error(transparent)]
    InvalidShape(#[from] InvalidShape),
    /// An option is out of range.
    #[error("{0}")]
    InvalidOption(String),
    /// The batch size exceeds the size of the dataset.
    #[error(
        "a batch of {batch_size} images is larger than the dataset of {images}: use --batch-size {images} or less"
    )]
    BatchTooLarge {
        /// Images per batch.
        batch_size: usize,
        /// Images in the dataset.
        images: usize,
    },
    /// A position is past the end of its epoch, for example because the dataset changed.
    #[error(
        "batch {batch} is out of range: an epoch has {batches_per_epoch} batches; did the dataset change?"
    )]
    PositionOutOfRange {
        /// The requested batch, from zero.
        batch: u64,
        /// Batches per epoch.
        batches_per_epoch: u64,
    },
    /// An image index is out of range.
    #[error("image index {index} is out of range: the dataset has {len} images")]
    IndexOutOfRange {
        /// The requested index, from zero.
        index: usize,
        /// Images in the dataset.
        len: usize,
    },
    /// The buffer of the caller has the wrong length.
    #[error("a buffer for one image has {found} bytes, expected {expected}")]
    BufferSize {
        /// Bytes of one image.
        expected: usize,
        /// Bytes of the buffer.
        found: usize,
    },
    /// A worker thread panicked: a bug of this crate or of a decoder.
    #[error("preparing batch {batch} of epoch {epoch} panicked; this is a bug, please report it")]
    WorkerPanicked {
        /// The epoch, from zero.
        epoch: u64,
        /// The batch in the epoch, from zero.
        batch: u64,
    },
}

fn unreadable_fix(limit: Option<u64>) -> String {
    match limit {
        None => "repair or remove them, or skip unreadable images with --skip-bad".to_owned(),
        Some(limit) => format!("--skip-bad={limit} allows {limit}: repair or remove them, or allow more"),
    }
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

    pub(crate) fn invalid_file(path: &Path, problem: impl Into<String>) -> Self {
        Self::InvalidFile { path: path.to_owned(), problem: problem.into() }
    }

    #[allow(clippy::needless_pass_by_value, reason = "callers pass numbers by value and names by reference")]
    pub(crate) fn invalid_record(
        path: &Path,
        record: impl std::fmt::Display,
        problem: impl Into<String>,
    ) -> Self {
        Self::InvalidRecord { path: path.to_owned(), record: record.to_string(), problem: problem.into() }
    }
}
