//! What a scan found, and what it skipped and why.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Names kept for each reason of skipping.
const EXAMPLES: usize = 3;

/// The format that a dataset was recognized as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version (labels are the fine ones).
    Cifar100,
    /// MNIST's idx files.
    Idx,
    /// SVHN's cropped digits, MATLAB v5.
    Svhn,
    /// A folder of images.
    ImageFolder,
    /// A zip of images.
    ImageZip,
    /// One image.
    Image,
    /// A cache written by `pack`.
    Cache,
    /// The digits compiled into the program.
    EmbeddedDigits,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cifar10 => "CIFAR-10 binary",
            Self::Cifar100 => "CIFAR-100 binary",
            Self::Idx => "MNIST idx",
            Self::Svhn => "SVHN cropped digits",
            Self::ImageFolder => "folder of images",
            Self::ImageZip => "zip of images",
            Self::Image => "single image",
            Self::Cache => "cache",
            Self::EmbeddedDigits => "embedded digits",
        })
    }
}

/// Files or images left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Why.
    pub reason: String,
    /// How many.
    pub count: usize,
    /// The first few names.
    pub examples: Vec<String>,
}

/// What was read from where, and what was left out.
#[derive(Clone, Debug, Serialize)]
pub struct ScanReport {
    /// The folder or file that was read.
    pub path: PathBuf,
    /// What it was recognized as.
    pub format: Format,
    /// Files (or zip entries) looked at.
    pub scanned_files: usize,
    /// Images in the dataset.
    pub images: usize,
    /// What was left out, one entry for each reason.
    pub skipped: Vec<Skipped>,
    /// Remarks: where labels come from, which parts are missing.
    pub notes: Vec<String>,
}

impl ScanReport {
    pub(crate) fn new(path: impl Into<PathBuf>, format: Format) -> Self {
        Self {
            path: path.into(),
            format,
            scanned_files: 0,
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

    /// How much was looked at and why it was left out, on one line.
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
        write!(f, "{} images from {} ({})", self.images, self.path.display(), self.format)?;
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        for skipped in &self.skipped {
            write!(f, "; skipped {skipped}")?;
        }
        Ok(())
    }
}
