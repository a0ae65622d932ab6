//! Reader for SVHN cropped digits (<http://ufldl.stanford.edu/housenumbers>, "format 2"): a MATLAB v5 file with
//! `X`, u8 `(32, 32, 3, n)` in column-major order, and `y`, where 10 is the digit 0.

use std::path::{Path, PathBuf};

use crate::bytes::Bytes;
use crate::error::DataError;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::readers::cifar::published_files;
use crate::readers::matlab;
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

/// The file of `split` in `folder`, under its published name; `None` if there is none of either split.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there is only the file of the other split.
pub(crate) fn file_in(folder: &Path, split: Split) -> Result<Option<PathBuf>, DataError> {
    Ok(published_files(folder, split, &["train_32x32.mat"], "test_32x32.mat")?
        .and_then(|mut files| files.pop()))
}

/// Reads a .mat file.
pub(crate) fn scan(path: &Path) -> Result<Scan, DataError> {
    let invalid = |problem: String| DataError::invalid_file(path, problem);
    let file = Bytes::map(path)?;
    let mut arrays = matlab::arrays(&file, &["X", "y"]).map_err(invalid)?;
    let mut take = |name: &str| {
        let index = arrays.iter().position(|array| array.name == name);
        index
            .map(|index| arrays.swap_remove(index))
            .ok_or_else(|| invalid(format!("contains no array {name}")))
    };
    let (images, labels) = (take("X")?, take("y")?);
    let (height, width, channels, count) = match images.sizes[..] {
        [height, width, channels, count] => (height, width, channels, count),
        // MATLAB omits a last size of one.
        [height, width, channels] => (height, width, channels, 1),
        _ => {
            return Err(invalid(format!(
                "array X has sizes {:?}, expected (height, width, 3, n)",
                images.sizes
            )));
        }
    };
    let shape = ImageShape { height, width, channels };
    shape.check().map_err(|_| invalid(format!("array X declares images of {shape}")))?;
    let labels = labels.numbers().map_err(invalid)?;
    if labels.len() != count {
        return Err(invalid(format!("contains {} labels, expected {count} (one per image)", labels.len())));
    }
    let digit = |(record, label): (usize, f64)| {
        let digit = (0..=10_u32).find(|digit| f64::from(*digit) == label);
        let digit = digit.ok_or_else(|| {
            DataError::invalid_record(path, record, format!("label {label} is not a digit, expected 0 to 10"))
        })?;
        Ok(digit % 10)
    };
    let labels = labels.into_iter().enumerate().map(digit).collect::<Result<Vec<_>, DataError>>()?;
    let bytes: Bytes = images.into_bytes().map_err(invalid)?.into();
    let mut report = ScanReport::new(path, Format::Svhn);
    report.scanned_files = 1;
    let identity = Digest::default().field(&file).hex();
    let chunk = Chunk { path: path.to_owned(), bytes, first: 0, stride: shape.bytes(), count };
    Ok(Scan {
        labels: Some(labels),
        class_names: Some((0..10).map(|digit| digit.to_string()).collect()),
        ..Scan::new(Source::Raw(RawImages::of_chunks(shape, PixelOrder::Cwh, vec![chunk])?), report, identity)
    })
}
