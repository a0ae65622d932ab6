//! Raw images of one shape at a regular stride in files: CIFAR, idx, SVHN, caches.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, RgbImage, RgbaImage};

use crate::block::Block;
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
    order: PixelOrder,
    storage: RawStorage,
}

#[derive(Debug)]
enum RawStorage {
    Chunks(Vec<Chunk>),
    #[cfg_attr(not(feature = "hdf5"), allow(dead_code, reason = "of formats that are features"))]
    Records(Box<dyn RawRecords>),
}

/// Raw images that have to be looked up in a format of its own.
pub(crate) trait RawRecords: fmt::Debug + Send + Sync {
    fn len(&self) -> usize;

    fn path(&self) -> &Path;

    /// The bytes of an image in the order of the file, or a message without its name.
    fn read(&self, index: usize) -> Result<Vec<u8>, String>;

    fn blocks(&self) -> Vec<Block>;
}

impl RawImages {
    /// Images at regular strides. Checks the shape, and that all images are within their files.
    pub(crate) fn of_chunks(
        shape: ImageShape,
        order: PixelOrder,
        chunks: Vec<Chunk>,
    ) -> Result<Self, DataError> {
        shape.check()?;
        for Chunk { path, bytes, first, stride, count } in &chunks {
            let end = count.checked_sub(1).map_or(Some(0), |last| {
                last.checked_mul(*stride)?.checked_add(*first)?.checked_add(shape.bytes())
            });
            if end.is_none_or(|end| end > bytes.len()) {
                let problem = format!("is truncated: {count} images of {shape} exceed its length");
                return Err(DataError::invalid_file(path, problem));
            }
        }
        Ok(Self { shape, order, storage: RawStorage::Chunks(chunks) })
    }

    #[cfg_attr(not(feature = "hdf5"), allow(dead_code, reason = "of formats that are features"))]
    pub(crate) fn of_records(
        shape: ImageShape,
        order: PixelOrder,
        records: Box<dyn RawRecords>,
    ) -> Result<Self, DataError> {
        shape.check()?;
        Ok(Self { shape, order, storage: RawStorage::Records(records) })
    }

    pub(crate) fn len(&self) -> usize {
        match &self.storage {
            RawStorage::Chunks(chunks) => chunks.iter().map(|chunk| chunk.count).sum(),
            RawStorage::Records(records) => records.len(),
        }
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match &self.storage {
            RawStorage::Chunks(chunks) => chunks.iter().map(|chunk| chunk.path.clone()).collect(),
            RawStorage::Records(records) => vec![records.path().to_owned()],
        }
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        match &self.storage {
            RawStorage::Chunks(_) => Vec::new(),
            RawStorage::Records(records) => records.blocks(),
        }
    }

    /// The name of an image for reports; `None` if there is no such image.
    pub(crate) fn name(&self, index: usize) -> Option<String> {
        match &self.storage {
            RawStorage::Chunks(chunks) => {
                locate(chunks, index).map(|(chunk, number)| record_name(&chunk.path, number))
            }
            RawStorage::Records(records) => {
                (index < records.len()).then(|| record_name(records.path(), index))
            }
        }
    }

    /// The bytes of an image in the order of the file.
    fn stored(&self, index: usize) -> Result<Cow<'_, [u8]>, DataError> {
        let missing = || DataError::IndexOutOfRange { index, len: self.len() };
        match &self.storage {
            RawStorage::Chunks(chunks) => {
                let (chunk, record) = locate(chunks, index).ok_or_else(missing)?;
                let start = chunk.first + record * chunk.stride;
                let stored = chunk.bytes.get(start..start + self.shape.bytes());
                stored.map(Cow::Borrowed).ok_or_else(|| {
                    DataError::invalid_record(&chunk.path, record, "is past the end of the file")
                })
            }
            RawStorage::Records(_) if index >= self.len() => Err(missing()),
            RawStorage::Records(records) => {
                let stored = records.read(index).and_then(|stored| match stored.len() {
                    length if length == self.shape.bytes() => Ok(stored),
                    length => Err(format!("has {length} bytes, expected {}", self.shape.bytes())),
                });
                stored
                    .map(Cow::Owned)
                    .map_err(|problem| DataError::invalid_record(records.path(), index, problem))
            }
        }
    }

    /// Copies one image to `into` as `(h, w, c)`; `into` has `self.shape.bytes()` bytes.
    pub(crate) fn copy(&self, index: usize, into: &mut [u8]) -> Result<(), DataError> {
        let stored = self.stored(index)?;
        let ImageShape { height, width, channels } = self.shape;
        let (by_row, by_column, by_channel) = match self.order {
            PixelOrder::Hwc => {
                into.copy_from_slice(&stored);
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
}

/// The chunk of an image, and the image's index in it.
fn locate(chunks: &[Chunk], mut index: usize) -> Option<(&Chunk, usize)> {
    for chunk in chunks {
        if index < chunk.count {
            return Some((chunk, index));
        }
        index -= chunk.count;
    }
    None
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
            let frames = RawImages::of_chunks(shape, order, vec![chunk]).unwrap();
            let mut out = vec![0; 18];
            frames.copy(0, &mut out).unwrap();
            assert_eq!(out, expected, "{order:?}");
            assert_eq!(frames.image(0).unwrap().into_rgb8().into_raw(), expected);
            assert!(frames.copy(1, &mut out).is_err());
        }
    }
}
