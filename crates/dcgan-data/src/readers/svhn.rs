//! SVHN's cropped digits (<http://ufldl.stanford.edu/housenumbers>, "format 2"): a MATLAB v5 file with
//! `X`, u8 (32, 32, 3, n) in MATLAB's order, and `y`, where 10 means the digit 0.

use std::path::{Path, PathBuf};

use crate::bytes::Bytes;
use crate::error::DataError;
use crate::frames::{Chunk, Frames, PixelOrder};
use crate::options::{ImageShape, Split};
use crate::readers::matlab;
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// The file of `split` in a folder with the publisher's names.
pub(crate) fn file_in(folder: &Path, split: Split) -> Option<PathBuf> {
    let name = match split {
        Split::Train => "train_32x32.mat",
        Split::Test => "test_32x32.mat",
    };
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// Reads one .mat file.
pub(crate) fn scan(path: &Path) -> Result<Scan, DataError> {
    let bad = |problem: String| DataError::bad_file(path, problem);
    let file = Bytes::map(path)?;
    let mut arrays = matlab::arrays(&file, &["X", "y"]).map_err(bad)?;
    let mut take = |name: &str| {
        let place = arrays.iter().position(|array| array.name == name);
        place.map(|place| arrays.swap_remove(place)).ok_or_else(|| bad(format!("holds no array {name}")))
    };
    let (images, labels) = (take("X")?, take("y")?);
    let (height, width, channels, count) = match images.sizes[..] {
        [height, width, channels, count] => (height, width, channels, count),
        // MATLAB drops a last size of one.
        [height, width, channels] => (height, width, channels, 1),
        _ => {
            return Err(bad(format!("array X has sizes {:?}, expected (height, width, 3, n)", images.sizes)));
        }
    };
    let shape = ImageShape { height, width, channels };
    shape.check().map_err(|_| bad(format!("array X claims images of {shape}")))?;
    let labels = labels.numbers().map_err(bad)?;
    if labels.len() != count {
        return Err(bad(format!("holds {} labels for {count} images", labels.len())));
    }
    let digit = |(record, label): (usize, f64)| {
        let digit = (0..=10_u32).find(|digit| f64::from(*digit) == label);
        let digit = digit
            .ok_or_else(|| DataError::bad_record(path, record, format!("label {label} is not a digit")))?;
        Ok(digit % 10)
    };
    let labels = labels.into_iter().enumerate().map(digit).collect::<Result<Vec<_>, DataError>>()?;
    let bytes: Bytes = images.into_bytes().map_err(bad)?.into();
    let mut report = ScanReport::new(path, Format::Svhn);
    report.scanned_files = 1;
    let identity = Digest::default().field(&file).hex();
    let chunk = Chunk { path: path.to_owned(), bytes, first: 0, stride: shape.bytes(), count };
    Ok(Scan {
        source: Source::Frames(Frames { shape, order: PixelOrder::Cwh, chunks: vec![chunk] }.check()?),
        labels: Some(labels),
        class_names: Some((0..10).map(|digit| digit.to_string()).collect()),
        bad: Vec::new(),
        report,
        identity,
        fingerprint: None,
    })
}
