//! Options of opening a dataset.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::background::Background;
use crate::error::DataError;
use crate::shape::ImageShape;
use crate::split::Split;

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

/// Options of [`crate::Dataset::open`].
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The output shape: every image is cropped and resized to it.
    pub shape: ImageShape,
    /// Side in pixels of a center crop of the original image, before resizing. Smaller sides are not cropped.
    pub crop: Option<usize>,
    /// What images with alpha are composited on for 1 and 3 channels; default: black.
    pub background: Background,
    /// How to handle unreadable images; default: fail.
    pub unreadable_images: UnreadableImages,
    /// Maximum number of skipped images; default: no limit.
    pub max_skipped: Option<u64>,
    /// With [`UnreadableImages::Skip`]: the images that an earlier opening of the same dataset skipped
    /// ([`crate::Dataset::skipped`]). They are skipped again, and no image is decoded; default: none.
    pub skipped_before: Option<Vec<SkippedImage>>,
    /// Names of images that are left out, such as near-duplicates; default: none. At least one of them must be there.
    pub excluded_names: Vec<String>,
    /// The split of a published dataset; default: train.
    pub split: Split,
    /// Transformed images are cached in memory on first read if all of them together fit into this many bytes;
    /// default: 1 GiB.
    pub memory_limit_bytes: u64,
    /// Folder of decoded images on disk, for datasets that exceed the memory limit ([`crate::default_cache_folder`]);
    /// default: none, every image is decoded again in each epoch.
    pub cache_folder: Option<PathBuf>,
    /// Folder of indexes: the listing of a large dataset is kept there for later openings
    /// ([`crate::default_cache_folder`]); default: none, every opening lists the dataset.
    pub index_folder: Option<PathBuf>,
    /// Minimum number of images for an index; default: 50,000.
    pub index_from: usize,
}

impl OpenOptions {
    /// Default options for images of `shape`.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            crop: None,
            background: Background::BLACK,
            unreadable_images: UnreadableImages::Fail,
            max_skipped: None,
            skipped_before: None,
            excluded_names: Vec::new(),
            split: Split::Train,
            memory_limit_bytes: 1 << 30,
            cache_folder: None,
            index_folder: None,
            index_from: 50_000,
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
