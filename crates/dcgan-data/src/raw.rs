//! Raw images of one shape at a regular stride in files: CIFAR, idx, SVHN, caches.

use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};

use crate::bytes::Bytes;
use crate::error::DataError;
use crate::shape::{ImageShape, InvalidShape};

/// The axis order of a stored image, slowest axis first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PixelOrder {
    /// Row, column, channel.
    Hwc,
    /// Channel, row, column: planar, as in CIFAR.
    Chw,
    /// Channel, column, row: column-major (row, column, channel) arrays of MATLAB, as in SVHN.
    Cwh,
}

/// Images at byte offsets `first + i * stride` of one file.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
    pub(crate) first: usize,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

/// Images of one shape in one or several files.
#[derive(Debug)]
pub(crate) struct RawImages {
    pub(crate) shape: ImageShape,
    pub(crate) order: PixelOrder,
    pub(crate) chunks: Vec<Chunk>,
}

impl RawImages {
    pub(crate) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.count).sum()
    }

    /// The file of a record, and its index in that file.
    pub(crate) fn locate(&self, mut index: usize) -> Option<(&Chunk, usize)> {
        for chunk in &self.chunks {
            if index < chunk.count {
                return Some((chunk, index));
            }
            index -= chunk.count;
        }
        None
    }

    /// Copies one image to `into` as `(h, w, c)`; `into` has `self.shape.bytes()` bytes.
    pub(crate) fn copy(&self, index: usize, into: &mut [u8]) -> Result<(), DataError> {
        let missing = || DataError::IndexOutOfRange { index, len: self.len() };
        let (chunk, record) = self.locate(index).ok_or_else(missing)?;
        let start = chunk.first + record * chunk.stride;
        let Some(stored) = chunk.bytes.get(start..start + self.shape.bytes()) else {
            return Err(DataError::invalid_record(&chunk.path, record, "is past the end of the file"));
        };
        let ImageShape { height, width, channels } = self.shape;
        let (by_row, by_column, by_channel) = match self.order {
            PixelOrder::Hwc => {
                into.copy_from_slice(stored);
                return Ok(());
            }
            PixelOrder::Chw => (width, 1, height * width),
            PixelOrder::Cwh => (1, height, height * width),
        };
        for (i, byte) in into.iter_mut().enumerate() {
            let (pixel, channel) = (i / channels, i % channels);
            *byte = stored[pixel / width * by_row + pixel % width * by_column + channel * by_channel];
        }
        Ok(())
    }

    /// One image as input of a transform.
    pub(crate) fn image(&self, index: usize) -> Result<DynamicImage, DataError> {
        let mut pixels = vec![0; self.shape.bytes()];
        self.copy(index, &mut pixels)?;
        let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
        let (width, height) = (side(self.shape.width), side(self.shape.height));
        match self.shape.channels {
            1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
            3 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
            _ => RgbaImage::from_raw(width, height, pixels).map(DynamicImage::from),
        }
        .ok_or(InvalidShape(self.shape).into())
    }

    /// Checks the shape, and that all images are within their files.
    pub(crate) fn check(self) -> Result<Self, DataError> {
        self.shape.check()?;
        for Chunk { path, bytes, first, stride, count } in &self.chunks {
            let end = count.checked_sub(1).map_or(Some(0), |last| {
                last.checked_mul(*stride)?.checked_add(*first)?.checked_add(self.shape.bytes())
            });
            if end.is_none_or(|end| end > bytes.len()) {
                let problem = format!("is truncated: {count} images of {} exceed its length", self.shape);
                return Err(DataError::invalid_file(path, problem));
            }
        }
        Ok(self)
    }
}

/// The name of record `record` of the file at `path`, such as `train.bin[7]`.
pub(crate) fn record_name(path: &Path, record: usize) -> String {
    let file = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy());
    format!("{file}[{record}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 2 x 3 RGB image in all three orders: byte = 100 * channel + 10 * row + column.
    #[test]
    fn all_axis_orders_give_the_same_image() {
        let shape = ImageShape { height: 2, width: 3, channels: 3 };
        let value = |row: u8, column: u8, channel: u8| 100 * channel + 10 * row + column;
        let mut expected = Vec::new();
        let (mut chw, mut cwh) = (vec![0; 18], vec![0; 18]);
        for row in 0..2_u8 {
            for column in 0..3_u8 {
                for channel in 0..3_u8 {
                    let (r, c, k) = (usize::from(row), usize::from(column), usize::from(channel));
                    expected.push(value(row, column, channel));
                    chw[k * 6 + r * 3 + c] = value(row, column, channel);
                    cwh[k * 6 + c * 2 + r] = value(row, column, channel);
                }
            }
        }
        for (order, stored) in
            [(PixelOrder::Hwc, expected.clone()), (PixelOrder::Chw, chw), (PixelOrder::Cwh, cwh)]
        {
            let mut bytes = vec![0xee; 5];
            bytes.extend(stored);
            let chunk = Chunk { path: "x".into(), bytes: bytes.into(), first: 5, stride: 18, count: 1 };
            let frames = RawImages { shape, order, chunks: vec![chunk] }.check().unwrap();
            let mut out = vec![0; 18];
            frames.copy(0, &mut out).unwrap();
            assert_eq!(out, expected, "{order:?}");
            assert_eq!(frames.image(0).unwrap().into_rgb8().into_raw(), expected);
            assert!(frames.copy(1, &mut out).is_err());
        }
    }
}
