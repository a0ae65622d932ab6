//! Writers for every format, with images of distinct pixels.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use dcgan_data::{Dataset, ImageShape, OpenOptions};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use image::{GrayImage, ImageFormat, RgbImage};
use zip::write::SimpleFileOptions;

pub(crate) const fn shape(height: usize, width: usize, channels: usize) -> ImageShape {
    ImageShape { height, width, channels }
}

/// Opens a dataset with default options.
pub(crate) fn open(path: &Path, shape: ImageShape) -> Dataset {
    Dataset::open(path, &OpenOptions::new(shape)).unwrap()
}

pub(crate) fn read(dataset: &Dataset, index: usize) -> Vec<u8> {
    let mut pixels = vec![0; dataset.shape().bytes()];
    dataset.read(index, &mut pixels).unwrap();
    pixels
}

/// The value of a pixel of image `index`. It differs between neighbouring pixels and between images.
pub(crate) fn value(index: usize, row: usize, column: usize, channel: usize) -> u8 {
    u8::try_from((index * 97 + row * 31 + column * 7 + channel * 59) % 256).unwrap()
}

/// Image `index` as `(h, w, c)`.
pub(crate) fn pixels(index: usize, shape: ImageShape) -> Vec<u8> {
    let mut pixels = Vec::new();
    for row in 0..shape.height {
        for column in 0..shape.width {
            pixels.extend((0..shape.channels).map(|channel| value(index, row, column, channel)));
        }
    }
    pixels
}

/// Image `index` in another axis order: `offset` maps (row, column, channel) to the offset of the value.
pub(crate) fn reordered(
    index: usize,
    shape: ImageShape,
    offset: impl Fn(usize, usize, usize) -> usize,
) -> Vec<u8> {
    let mut pixels = vec![0; shape.bytes()];
    for row in 0..shape.height {
        for column in 0..shape.width {
            for channel in 0..shape.channels {
                pixels[offset(row, column, channel)] = value(index, row, column, channel);
            }
        }
    }
    pixels
}

pub(crate) const CIFAR: ImageShape = shape(32, 32, 3);

/// CIFAR records `first..first + count`; label i is i modulo 10.
pub(crate) fn cifar10(first: usize, count: usize) -> Vec<u8> {
    (first..first + count).flat_map(|index| cifar_record(&[index % 10], index)).collect()
}

pub(crate) fn cifar_record(labels: &[usize], index: usize) -> Vec<u8> {
    let mut record: Vec<u8> = labels.iter().map(|label| u8::try_from(*label).unwrap()).collect();
    record.extend(reordered(index, CIFAR, |row, column, channel| channel * 1024 + row * 32 + column));
    record
}

/// An idx file of u8.
pub(crate) fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(sizes.len()).unwrap()];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(data);
    bytes
}

/// `count` images of 5 x 4 as an idx file.
pub(crate) fn idx_images(count: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..count as usize).flat_map(|index| pixels(index, shape(5, 4, 1))).collect();
    idx(&[count, 5, 4], &data)
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Element types of MATLAB v5.
pub(crate) const MI_UINT8: u32 = 2;
pub(crate) const MI_DOUBLE: u32 = 9;

/// A MATLAB v5 file of numeric arrays: name, sizes, element type, raw values.
pub(crate) fn mat5(arrays: &[(&str, &[i32], u32, Vec<u8>)], compressed: bool) -> Vec<u8> {
    let mut file = b"MATLAB 5.0 MAT-file, written by a test".to_vec();
    file.resize(124, b' ');
    file.extend(*b"\x00\x01IM");
    for (name, sizes, kind, values) in arrays {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        // Array flags: class uint8 (9). Short names are small data elements.
        let parts = [
            element(6, &[9, 0, 0, 0, 0, 0, 0, 0]),
            element(5, &sizes),
            element(1, name.as_bytes()),
            element(*kind, values),
        ];
        let matrix = element(14, &parts.concat());
        if compressed {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&matrix).unwrap();
            let deflated = encoder.finish().unwrap();
            file.extend(15_u32.to_le_bytes());
            file.extend(u32::try_from(deflated.len()).unwrap().to_le_bytes());
            file.extend(deflated);
        } else {
            file.extend(matrix);
        }
    }
    file
}

/// An element, padded to eight bytes; a small data element if it has at most four bytes of data.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let mut bytes = if length <= 4 {
        (length << 16 | kind).to_le_bytes().to_vec()
    } else {
        [kind, length].map(u32::to_le_bytes).concat()
    };
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The layout of SVHN: column-major X `(h, w, 3, n)`, and y with 10 for the digit 0; label i is i modulo 10.
pub(crate) fn svhn(count: usize, shape: ImageShape, label_kind: u32, compressed: bool) -> Vec<u8> {
    let offset = |row, column, channel| row + shape.height * (column + shape.width * channel);
    let images = (0..count).flat_map(|index| reordered(index, shape, offset)).collect();
    let label = |index: usize| u8::try_from(if index.is_multiple_of(10) { 10 } else { index % 10 }).unwrap();
    let labels = match label_kind {
        MI_DOUBLE => (0..count).flat_map(|index| f64::from(label(index)).to_le_bytes()).collect(),
        _ => (0..count).map(label).collect(),
    };
    let [height, width, count] = [shape.height, shape.width, count].map(|size| i32::try_from(size).unwrap());
    let sizes = [height, width, 3, count];
    // Other arrays, before and between X and y, are skipped.
    let other = ("meta", &[3, 1][..], MI_UINT8, vec![1, 2, 3]);
    mat5(
        &[other.clone(), ("X", &sizes, MI_UINT8, images), other, ("y", &[count, 1], label_kind, labels)],
        compressed,
    )
}

/// Image `index` of `shape` (grey or RGB) as an encoded file.
pub(crate) fn encoded(index: usize, shape: ImageShape, format: ImageFormat) -> Vec<u8> {
    let side = |side: usize| u32::try_from(side).unwrap();
    let (width, height, data) = (side(shape.width), side(shape.height), pixels(index, shape));
    let mut out = Cursor::new(Vec::new());
    match shape.channels {
        1 => GrayImage::from_raw(width, height, data).unwrap().write_to(&mut out, format),
        _ => RgbImage::from_raw(width, height, data).unwrap().write_to(&mut out, format),
    }
    .unwrap();
    out.into_inner()
}

pub(crate) fn png(index: usize) -> Vec<u8> {
    encoded(index, shape(5, 4, 3), ImageFormat::Png)
}

/// A zip of files, deflated.
pub(crate) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A temporary folder of files, removed on drop.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(name, content)| folder.write(name, content));
        folder
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}
