//! What the caller asks for: the shape of images and how to treat the data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Largest height or width asked for, in pixels; keeps sizes of buffers far from overflow.
const MAX_SIDE: usize = 8192;

/// Height, width and channels of every image that a [`crate::Dataset`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageShape {
    /// Rows, in pixels.
    pub height: usize,
    /// Columns, in pixels.
    pub width: usize,
    /// 1 (grey), 3 (RGB) or 4 (RGB and alpha).
    pub channels: usize,
}

impl ImageShape {
    /// Bytes of one image: height x width x channels.
    pub fn bytes(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub(crate) fn check(self) -> Result<Self, DataError> {
        let side = 1..=MAX_SIDE;
        if side.contains(&self.height) && side.contains(&self.width) && matches!(self.channels, 1 | 3 | 4) {
            Ok(self)
        } else {
            Err(DataError::Shape(self))
        }
    }
}

/// Height, width, channels.
impl From<(usize, usize, usize)> for ImageShape {
    fn from((height, width, channels): (usize, usize, usize)) -> Self {
        Self { height, width, channels }
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.height, self.width, self.channels)
    }
}

/// What to do with an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBad {
    /// Reading it is an error that names it.
    #[default]
    Fail,
    /// Every image is decoded at open; the bad ones are left out and counted in the report.
    Skip,
}

/// Which part of a publisher's dataset to read. Formats without parts (folders, zips, caches, single files) give
/// everything for either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The training images.
    #[default]
    Train,
    /// The test images.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Test => "test",
        })
    }
}

/// How [`crate::Dataset::open`] reads.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The shape that every image is brought to.
    pub shape: ImageShape,
    /// Side in pixels of a centre crop of the original, taken before resizing; an image smaller than it stays whole.
    pub crop: Option<usize>,
    /// What to do with images that cannot be read; default: fail.
    pub on_bad: OnBad,
    /// Part of a publisher's dataset; default: train.
    pub split: Split,
    /// Transformed images are kept in memory as they are first read when all of them together take at most this many
    /// bytes; default 1 GiB.
    pub memory_limit_bytes: u64,
}

impl OpenOptions {
    /// The defaults for images of `shape`.
    pub fn new(shape: ImageShape) -> Self {
        Self { shape, crop: None, on_bad: OnBad::Fail, split: Split::Train, memory_limit_bytes: 1 << 30 }
    }

    pub(crate) fn check(&self) -> Result<(), DataError> {
        self.shape.check()?;
        if self.crop == Some(0) {
            return Err(DataError::Option("--crop 0 leaves no image: use 1 or more pixels".to_owned()));
        }
        Ok(())
    }
}
