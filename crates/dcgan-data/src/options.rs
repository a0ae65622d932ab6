//! Options of opening a dataset.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::shape::ImageShape;

/// How to handle images that cannot be read or decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnreadableImages {
    /// Reading an unreadable image returns an error that names it.
    #[default]
    Fail,
    /// Decode every image when the dataset is opened, skip the unreadable ones and count them in the report.
    Skip,
}

/// An image that is left out because it cannot be read or decoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedImage {
    /// Its number among all images of the dataset, from zero.
    pub record: usize,
    /// Its name.
    pub name: String,
    /// Why it cannot be read.
    pub problem: String,
}

/// The split of a published dataset. Formats without splits (folders, zips, caches, single files) ignore it and return
/// all images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The training images.
    #[default]
    Train,
    /// The test images.
    Test,
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "train" => Ok(Self::Train),
            "test" => Ok(Self::Test),
            _ => Err(format!("split is {text:?}, expected train or test")),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// Options of [`crate::Dataset::open`].
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The output shape: every image is cropped and resized to it.
    pub shape: ImageShape,
    /// Side in pixels of a center crop of the original image, before resizing. Smaller sides are not cropped.
    pub crop: Option<usize>,
    /// How to handle unreadable images; default: fail.
    pub unreadable_images: UnreadableImages,
    /// The most images that may be skipped; default: no limit.
    pub max_skipped: Option<u64>,
    /// With [`UnreadableImages::Skip`]: the images that an earlier opening of the same dataset skipped
    /// ([`crate::Dataset::skipped`]). They are skipped again, and no image is decoded; default: none.
    pub skipped_before: Option<Vec<SkippedImage>>,
    /// The split of a published dataset; default: train.
    pub split: Split,
    /// Transformed images are cached in memory on first read if all of them together fit into this many bytes;
    /// default: 1 GiB.
    pub memory_limit_bytes: u64,
}

impl OpenOptions {
    /// Default options for images of `shape`.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            crop: None,
            unreadable_images: UnreadableImages::Fail,
            max_skipped: None,
            skipped_before: None,
            split: Split::Train,
            memory_limit_bytes: 1 << 30,
        }
    }

    pub(crate) fn check(&self) -> Result<(), DataError> {
        self.shape.check()?;
        if self.crop == Some(0) {
            return Err(DataError::InvalidOption("--crop is 0, expected 1 pixel or more".to_owned()));
        }
        Ok(())
    }
}
