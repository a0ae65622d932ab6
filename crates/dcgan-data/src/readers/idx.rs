//! MNIST's idx files: two zero bytes, the type (8: u8), the number of dimensions, big-endian u32 sizes, then the data;
//! plain or gzipped. Format: Yann LeCun, Corinna Cortes, Christopher Burges, "The MNIST database".

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::bytes::{Bytes, read_inflated};
use crate::error::DataError;
use crate::frames::{Chunk, Frames, PixelOrder};
use crate::options::{ImageShape, Split};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Whether a file that begins with `head` holds u8 data of one (labels) to three (images) dimensions.
pub(crate) fn is_idx(head: &[u8]) -> bool {
    matches!(head, [0, 0, 8, 1..=3, ..])
}

/// The image file of `split` in a folder with the publisher's names.
pub(crate) fn images_in(folder: &Path, split: Split) -> Option<PathBuf> {
    let prefix = match split {
        Split::Train => "train",
        Split::Test => "t10k",
    };
    ["-images-idx3-ubyte", "-images-idx3-ubyte.gz", "-images.idx3-ubyte", "-images.idx3-ubyte.gz"]
        .into_iter()
        .map(|rest| folder.join(format!("{prefix}{rest}")))
        .find(|path| path.is_file())
}

/// Reads a file of images, and the labels beside it where they are.
pub(crate) fn scan_file(path: &Path) -> Result<Scan, DataError> {
    let images = parse(Bytes::map(path)?).map_err(|problem| DataError::bad_file(path, problem))?;
    let labels = match labels_beside(path) {
        Some(beside) => Some((
            parse(Bytes::map(&beside)?).map_err(|problem| DataError::bad_file(&beside, problem))?,
            beside,
        )),
        None => None,
    };
    scan(path, images, labels, Format::Idx)
}

/// Reads images and labels from bytes in memory, both of them idx.
pub(crate) fn scan_bytes(
    name: &Path,
    images: Bytes,
    labels: Bytes,
    format: Format,
) -> Result<Scan, DataError> {
    let bad = |problem| DataError::bad_file(name, problem);
    let labels = parse(labels).map_err(bad)?;
    scan(name, parse(images).map_err(bad)?, Some((labels, name.to_owned())), format)
}

/// An array of u8 with its sizes, slowest axis first.
struct Array {
    sizes: Vec<usize>,
    bytes: Bytes,
    /// Where the data begins.
    first: usize,
}

fn scan(
    path: &Path,
    images: Array,
    labels: Option<(Array, PathBuf)>,
    format: Format,
) -> Result<Scan, DataError> {
    let [count, height, width] = images.sizes[..] else {
        let problem = format!("holds labels or vectors ({} dimensions), not images", images.sizes.len());
        return Err(DataError::bad_file(path, problem));
    };
    let shape = ImageShape { height, width, channels: 1 };
    shape
        .check()
        .map_err(|_| DataError::bad_file(path, format!("claims images of {height}x{width} pixels")))?;
    let mut digest = Digest::default();
    digest.field(&images.bytes);
    let mut report = ScanReport::new(path, format);
    report.scanned_files = 1;
    let labels = match labels {
        Some((array, beside)) => {
            report.scanned_files = 2;
            if array.sizes != [count] {
                let problem = format!("holds {:?} labels for {count} images", array.sizes);
                return Err(DataError::bad_file(&beside, problem));
            }
            digest.field(&array.bytes);
            Some(array.bytes[array.first..].iter().map(|label| u32::from(*label)).collect::<Vec<_>>())
        }
        None => {
            report.notes.push("no labels beside it".to_owned());
            None
        }
    };
    let class_names = labels.as_ref().map(|labels| {
        let classes = labels.iter().max().map_or(0, |last| last + 1);
        (0..classes).map(|class| class.to_string()).collect()
    });
    let chunk = Chunk {
        path: path.to_owned(),
        bytes: images.bytes,
        first: images.first,
        stride: shape.bytes(),
        count,
    };
    Ok(Scan {
        source: Source::Frames(Frames { shape, order: PixelOrder::Hwc, chunks: vec![chunk] }.check()?),
        labels,
        class_names,
        bad: Vec::new(),
        report,
        identity: digest.hex(),
        fingerprint: None,
    })
}

/// `train-images-idx3-ubyte.gz` -> `train-labels-idx1-ubyte.gz`, or the same without or with `.gz`.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let other = labels.strip_suffix(".gz").map_or_else(|| format!("{labels}.gz"), str::to_owned);
    [labels, other]
        .into_iter()
        .map(|labels| images.with_file_name(labels))
        .find(|path| path != images && path.is_file())
}

/// Reads the header, inflates if need be, and checks the length.
fn parse(bytes: Bytes) -> Result<Array, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut inflated = GzDecoder::new(&*bytes);
        let (header, sizes, length) = header(&mut inflated)?;
        let mut whole = read_inflated(&mut inflated, length as u64, bytes.len())?;
        // Reading on checks the gzip trailer (CRC and length), and that nothing follows.
        match inflated.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(format!("holds more data than the {length} bytes its header says")),
            Err(error) => return Err(format!("is a damaged gzip file: {error}")),
        }
        let first = header.len();
        whole.splice(0..0, header);
        Ok(Array { sizes, bytes: whole.into(), first })
    } else {
        let (header, sizes, length) = header(&mut &*bytes)?;
        let found = bytes.len() - header.len();
        if found != length {
            return Err(format!("{length} bytes of data expected from its header {sizes:?}, {found} found"));
        }
        Ok(Array { sizes, bytes, first: header.len() })
    }
}

/// The header's bytes, the sizes, and their product.
fn header(from: &mut impl Read) -> Result<(Vec<u8>, Vec<usize>, usize), String> {
    let truncated = |error| format!("is truncated within its header: {error}");
    let mut header = vec![0; 4];
    from.read_exact(&mut header).map_err(truncated)?;
    if !is_idx(&header) {
        return Err(format!(
            "is not an idx file of bytes: it begins with {header:02x?}, expected 00 00 08 01 to 03"
        ));
    }
    let dimensions = usize::from(header[3]);
    header.resize(4 + 4 * dimensions, 0);
    from.read_exact(&mut header[4..]).map_err(truncated)?;
    let mut sizes = Vec::new();
    for size in header[4..].chunks_exact(4) {
        let size = size.iter().fold(0, |value: usize, byte| value << 8 | usize::from(*byte));
        sizes.push(size);
    }
    let length = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    let length = length.ok_or_else(|| format!("claims an impossible size of {sizes:?}"))?;
    Ok((header, sizes, length))
}
