//! Reader for MNIST idx files, plain or gzipped: two zero bytes, the type (8: u8), the number of dimensions,
//! big-endian u32 sizes, then the data. Format: Yann LeCun, Corinna Cortes, Christopher Burges, "The MNIST database".

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::bytes::{Bytes, read_inflated};
use crate::error::DataError;
use crate::options::Split;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Whether a file that starts with `head` contains u8 data of one (labels) to three (images) dimensions.
pub(crate) fn is_idx(head: &[u8]) -> bool {
    matches!(head, [0, 0, 8, 1..=3, ..])
}

/// The image file of `split` in `folder`, under its published name.
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

/// Reads a file of images, and the file of labels in the same folder, if there is one.
pub(crate) fn scan_file(path: &Path) -> Result<Scan, DataError> {
    let images = parse(Bytes::map(path)?).map_err(|problem| DataError::invalid_file(path, problem))?;
    let labels = match label_file_of(path) {
        Some(label_path) => Some((
            parse(Bytes::map(&label_path)?)
                .map_err(|problem| DataError::invalid_file(&label_path, problem))?,
            label_path,
        )),
        None => None,
    };
    scan(path, images, labels, Format::Idx)
}

/// Reads images and labels from idx bytes in memory.
pub(crate) fn scan_bytes(
    name: &Path,
    images: Bytes,
    labels: Bytes,
    format: Format,
) -> Result<Scan, DataError> {
    let invalid = |problem| DataError::invalid_file(name, problem);
    let labels = parse(labels).map_err(invalid)?;
    scan(name, parse(images).map_err(invalid)?, Some((labels, name.to_owned())), format)
}

/// A u8 array with its sizes, slowest axis first.
struct Array {
    sizes: Vec<usize>,
    bytes: Bytes,
    /// Offset of the data in `bytes`.
    first: usize,
}

fn scan(
    path: &Path,
    images: Array,
    labels: Option<(Array, PathBuf)>,
    format: Format,
) -> Result<Scan, DataError> {
    let [count, height, width] = images.sizes[..] else {
        let problem = format!(
            "contains labels or vectors ({} dimensions), expected images (3 dimensions)",
            images.sizes.len()
        );
        return Err(DataError::invalid_file(path, problem));
    };
    let shape = ImageShape { height, width, channels: 1 };
    shape
        .check()
        .map_err(|_| DataError::invalid_file(path, format!("declares images of {height}x{width} pixels")))?;
    let mut digest = Digest::default();
    digest.field(&images.bytes);
    let mut report = ScanReport::new(path, format);
    report.scanned_files = 1;
    let labels = match labels {
        Some((array, label_path)) => {
            report.scanned_files = 2;
            if array.sizes != [count] {
                let problem = format!("contains {:?} labels, expected {count} (one per image)", array.sizes);
                return Err(DataError::invalid_file(&label_path, problem));
            }
            digest.field(&array.bytes);
            Some(array.bytes[array.first..].iter().map(|label| u32::from(*label)).collect::<Vec<_>>())
        }
        None => {
            report.notes.push("no labels: there is no label file".to_owned());
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
        source: Source::Raw(RawImages { shape, order: PixelOrder::Hwc, chunks: vec![chunk] }.check()?),
        labels,
        class_names,
        invalid: Vec::new(),
        report,
        identity: digest.hex(),
        fingerprint: None,
    })
}

/// The label file of an image file, with or without `.gz`: `train-images-idx3-ubyte` -> `train-labels-idx1-ubyte`.
fn label_file_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let other = labels.strip_suffix(".gz").map_or_else(|| format!("{labels}.gz"), str::to_owned);
    [labels, other]
        .into_iter()
        .map(|labels| images.with_file_name(labels))
        .find(|path| path != images && path.is_file())
}

/// Reads the header, inflates gzip data, and checks the length.
fn parse(bytes: Bytes) -> Result<Array, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut inflated = GzDecoder::new(&*bytes);
        let (header, sizes, length) = header(&mut inflated)?;
        let mut whole = read_inflated(&mut inflated, length as u64, bytes.len())?;
        // Reading past the data checks the gzip trailer (CRC and length), and that no data follows.
        match inflated.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => {
                return Err(format!("contains more data than the {length} bytes declared in its header"));
            }
            Err(error) => return Err(format!("is a damaged gzip file: {error}")),
        }
        let first = header.len();
        whole.splice(0..0, header);
        Ok(Array { sizes, bytes: whole.into(), first })
    } else {
        let (header, sizes, length) = header(&mut &*bytes)?;
        let found = bytes.len() - header.len();
        if found != length {
            return Err(format!("expected {length} bytes of data from its header {sizes:?}, found {found}"));
        }
        Ok(Array { sizes, bytes, first: header.len() })
    }
}

/// The bytes of the header, the sizes, and their product.
fn header(from: &mut impl Read) -> Result<(Vec<u8>, Vec<usize>, usize), String> {
    let truncated = |error| format!("is truncated in its header: {error}");
    let mut header = vec![0; 4];
    from.read_exact(&mut header).map_err(truncated)?;
    if !is_idx(&header) {
        return Err(format!(
            "is not an idx file of u8: it starts with {header:02x?}, expected 00 00 08 01 to 03"
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
    let length = length.ok_or_else(|| format!("declares an invalid size {sizes:?}"))?;
    Ok((header, sizes, length))
}
