//! Reader for STL-10, binary version (<https://cs.stanford.edu/~acoates/stl10>): 96x96 color images in planes, each in
//! column-major order, and labels from 1 to 10.

use std::path::{Path, PathBuf};

use crate::bytes::{Bytes, read_bounded};
use crate::error::DataError;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::readers::cifar::published_files;
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

const SHAPE: ImageShape = ImageShape { height: 96, width: 96, channels: 3 };

/// File of the training images, of the test images, and of images without labels.
const IMAGES: [&str; 3] = ["train_X.bin", "test_X.bin", "unlabeled_X.bin"];

const CLASSES: u8 = 10;

/// Maximum bytes of the labels and of the class names: the published labels are 8,000 bytes.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// The images of `split` in `folder`; `None` if there are none of either split.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there is only the file of the other split.
pub(crate) fn file_in(folder: &Path, split: Split) -> Result<Option<PathBuf>, DataError> {
    let files = published_files(folder, split, &IMAGES[..1], IMAGES[1])?;
    Ok(files.and_then(|mut files| files.pop()))
}

/// Whether `path` is a file of images, by its name and length.
pub(crate) fn is_file(path: &Path, length: u64) -> bool {
    path.file_name().is_some_and(|name| IMAGES.iter().any(|published| name == *published))
        && length.is_multiple_of(SHAPE.bytes() as u64)
}

/// Reads a file of images with the labels and class names beside it, if there are any.
pub(crate) fn scan(path: &Path) -> Result<Scan, DataError> {
    let bytes = Bytes::map(path)?;
    let stride = SHAPE.bytes();
    if bytes.is_empty() || !bytes.len().is_multiple_of(stride) {
        let problem =
            format!("{} bytes are not a whole number of images of {stride} (truncated?)", bytes.len());
        return Err(DataError::invalid_file(path, problem));
    }
    let count = bytes.len() / stride;
    let mut report = ScanReport::new(path, Format::Stl10);
    report.scanned_files = 1;
    let mut digest = Digest::default();
    digest.field(&bytes);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let label_path = path.with_file_name(name.replace("_X", "_y"));
    let mut labels = None;
    if label_path != path && label_path.is_file() {
        report.scanned_files = 2;
        let stored = read_bounded(&label_path, MAX_LABEL_BYTES)?;
        digest.field(&stored);
        labels = Some(labels_of(&label_path, &stored, count)?);
    } else {
        report.notes.push("no labels".to_owned());
    }
    let names = read_bounded(&path.with_file_name("class_names.txt"), MAX_LABEL_BYTES).ok();
    let names = names.and_then(|text| String::from_utf8(text).ok()).map(|text| {
        text.lines().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect::<Vec<_>>()
    });
    let chunk = Chunk { path: path.to_owned(), bytes, first: 0, stride, count };
    Ok(Scan {
        class_names: names.filter(|names| labels.is_some() && names.len() == usize::from(CLASSES)),
        labels,
        ..Scan::new(
            Source::Raw(RawImages::of_chunks(SHAPE, PixelOrder::Cwh, vec![chunk])?),
            report,
            digest.hex(),
        )
    })
}

fn labels_of(path: &Path, stored: &[u8], count: usize) -> Result<Vec<u32>, DataError> {
    if stored.len() != count {
        let problem = format!("contains {} labels, expected {count} (one per image)", stored.len());
        return Err(DataError::invalid_file(path, problem));
    }
    let class = |(record, label): (usize, &u8)| match label {
        1..=CLASSES => Ok(u32::from(label - 1)),
        _ => Err(DataError::invalid_record(
            path,
            record,
            format!("label {label} is not one of 1 to {CLASSES}"),
        )),
    };
    stored.iter().enumerate().map(class).collect()
}
