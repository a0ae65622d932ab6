//! The embedded digits: the first 10,000 images of MNIST's training set (see `datasets/digits`).

use std::path::Path;

use crate::bytes::Bytes;
use crate::error::DataError;
use crate::readers::idx;
use crate::report::Format;
use crate::source::Scan;

static IMAGES: &[u8] = include_bytes!("../../assets/digits/images-idx3-ubyte.gz");
static LABELS: &[u8] = include_bytes!("../../assets/digits/labels-idx1-ubyte.gz");

/// Inflates and reads the embedded images and labels.
pub(crate) fn scan() -> Result<Scan, DataError> {
    let (images, labels) = (Bytes::from(IMAGES.to_vec()), Bytes::from(LABELS.to_vec()));
    let mut scan = idx::scan_bytes(Path::new("the embedded digits"), images, labels, Format::EmbeddedDigits)?;
    scan.report.notes.push("the first 10,000 images of MNIST's training set".to_owned());
    Ok(scan)
}
