//! The report of a scan: what was found, and what was skipped and why.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Example names per reason.
const EXAMPLES: usize = 3;

/// The format of a dataset, detected from its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version; the labels are the fine labels.
    Cifar100,
    /// CIFAR-10, python version.
    Cifar10Python,
    /// CIFAR-100, python version; the labels are the fine labels.
    Cifar100Python,
    /// Numpy arrays of u8: .npy or .npz.
    Npy,
    /// MNIST idx files.
    Idx,
    /// SVHN cropped digits (format 2), MATLAB v5.
    Svhn,
    /// A folder of images.
    ImageFolder,
    /// A zip of images.
    ImageZip,
    /// A single image.
    Image,
    /// LMDB databases of images, such as LSUN's.
    Lmdb,
    /// Tar archives of images.
    Tar,
    /// WebDataset shards: tar archives of samples with labels.
    WebDataset,
    /// Parquet files of images, as Hugging Face writes them.
    Parquet,
    /// Downsampled ImageNet (ImageNet32, ImageNet64): batches as .npz or pickles.
    ImageNetBatches,
    /// STL-10, binary version.
    Stl10,
    /// CelebA as published: images, attributes and partition.
    CelebA,
    /// Arrays of u8 in an HDF5 file.
    Hdf5,
    /// A cache written by `pack`.
    Cache,
    /// The MNIST digits compiled into this crate.
    EmbeddedDigits,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cifar10 => "CIFAR-10 binary",
            Self::Cifar100 => "CIFAR-100 binary",
            Self::Cifar10Python => "CIFAR-10 python",
            Self::Cifar100Python => "CIFAR-100 python",
            Self::Npy => "numpy array",
            Self::Idx => "MNIST idx",
            Self::Svhn => "SVHN cropped digits",
            Self::ImageFolder => "folder of images",
            Self::ImageZip => "zip of images",
            Self::Image => "single image",
            Self::Lmdb => "LMDB database",
            Self::Tar => "tar archive",
            Self::WebDataset => "WebDataset shards",
            Self::Parquet => "Parquet files",
            Self::ImageNetBatches => "downsampled ImageNet",
            Self::Stl10 => "STL-10 binary",
            Self::CelebA => "CelebA",
            Self::Hdf5 => "HDF5 arrays",
            Self::Cache => "cache",
            Self::EmbeddedDigits => "embedded digits",
        })
    }
}

/// Files or images that were skipped for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The reason.
    pub reason: String,
    /// How many were skipped.
    pub count: usize,
    /// The first few of their names.
    pub examples: Vec<String>,
}

/// What a dataset was read from, and what was skipped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScanReport {
    /// The dataset's folder or file.
    pub path: PathBuf,
    /// The detected format.
    pub format: Format,
    /// Number of scanned files (or zip entries).
    pub scanned_files: usize,
    /// Bytes of the files with images, on disk.
    pub bytes: u64,
    /// Number of images in the dataset.
    pub images: usize,
    /// Skipped files and images, one entry per reason.
    pub skipped: Vec<Skipped>,
    /// Notes such as the source of the labels, or missing files.
    pub notes: Vec<String>,
}

impl ScanReport {
    pub(crate) fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self {
            path: path.into(),
            format,
            scanned_files: 0,
            bytes: 0,
            images: 0,
            skipped: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn skip(&mut self, reason: impl Into<String>, name: impl Into<String>) {
        let (reason, name) = (reason.into(), name.into());
        match self.skipped.iter_mut().find(|skipped| skipped.reason == reason) {
            Some(skipped) => {
                skipped.count += 1;
                if skipped.examples.len() < EXAMPLES {
                    skipped.examples.push(name);
                }
            }
            None => self.skipped.push(Skipped { reason, count: 1, examples: vec![name] }),
        }
    }

    /// The number of scanned files and all reasons for skipping, on one line.
    pub(crate) fn scanned(&self) -> String {
        let mut text = format!("scanned {} files", self.scanned_files);
        for skipped in &self.skipped {
            text.push_str(&format!("; skipped {}", skipped));
        }
        text
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.count > self.examples.len() { ", ..." } else { "" };
        write!(f, "{}: {} ({}{more})", self.count, self.reason, self.examples.join(", "))
    }
}

impl fmt::Display for ScanReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} images from ", self.images)?;
        match self.format {
            // Its path is the name of the format.
            Format::EmbeddedDigits => f.write_str("the embedded digits")?,
            _ => write!(f, "{} ({})", self.path.display(), self.format)?,
        }
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        for skipped in &self.skipped {
            write!(f, "; skipped {skipped}")?;
        }
        Ok(())
    }
}
