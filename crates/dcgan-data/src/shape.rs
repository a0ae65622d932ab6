//! The shape of images.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Largest height or width of an image shape, in pixels. Buffer sizes stay far from overflow.
const MAX_SIDE: usize = 8192;

/// Height, width and channels of an image, stored as `(h, w, c)` u8.
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
    /// Bytes of one image: height * width * channels.
    pub fn bytes(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The shape itself, if its height, width and channels are in range.
    pub(crate) fn check(self) -> Result<Self, InvalidShape> {
        let side = 1..=MAX_SIDE;
        if side.contains(&self.height) && side.contains(&self.width) && matches!(self.channels, 1 | 3 | 4) {
            Ok(self)
        } else {
            Err(InvalidShape(self))
        }
    }
}

/// From `(height, width, channels)`.
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

/// An image shape out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid image shape {0}: expected height and width from 1 to 8192 and 1, 3 or 4 channels")]
pub struct InvalidShape(pub ImageShape);
