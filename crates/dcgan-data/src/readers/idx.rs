//! Reader for MNIST idx files, plain or gzipped: two zero bytes, the type (8: u8), the number of dimensions,
//! big-endian u32 sizes, then the data. Format: Yann LeCun, Corinna Cortes, Christopher Burges, "The MNIST database".

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::bytes::{Bytes, read_inflated};
use crate::error::DataError;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

/// Types of idx files: u8, and i32 for the labels of QMNIST.
const U8: u8 = 0x08;
const I32: u8 = 0x0c;

/// Whether a file that starts with `head` contains u8 data of one (labels) to three (images) dimensions.
pub(crate) fn is_idx(head: &[u8]) -> bool {
    matches!(head, [0, 0, U8, 1..=3, ..])
}

/// The image file of `split` in `folder`, under the name of MNIST (`train-images-idx3-ubyte`, `t10k-...`) or of a
/// dataset in its form (`emnist-letters-train-images-idx3-ubyte`); `None` if the folder has no such file.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there are only files of other splits; several datasets in the folder.
pub(crate) fn images_in(folder: &Path, split: Split) -> Result<Option<PathBuf>, DataError> {
    let files = image_files(folder);
    let names =
        |files: &[ImageFile]| files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>().join(", ");
    let (of_split, others): (Vec<ImageFile>, Vec<ImageFile>) =
        files.into_iter().partition(|file| file.split == split);
    let Some(first) = of_split.first() else {
        let Some(other) = others.first() else { return Ok(None) };
        let expected = match split {
            Split::Val => "train or test, the splits that were published".to_owned(),
            _ => other.name_of(split),
        };
        return Err(DataError::NoSplit { path: folder.to_owned(), split, expected, found: names(&others) });
    };
    if of_split.iter().any(|file| file.dataset != first.dataset) {
        let problem = format!("contains several datasets ({}): open one of these files", names(&of_split));
        return Err(DataError::invalid_file(folder, problem));
    }
    // A plain file before a .gz of the same dataset.
    Ok(of_split
        .into_iter()
        .min_by_key(|file| (file.name.ends_with(".gz"), file.name.clone()))
        .map(|file| folder.join(file.name)))
}

/// Whether a folder has image files in the form of MNIST.
pub(crate) fn has_images(folder: &Path) -> bool {
    !image_files(folder).is_empty()
}

/// A file of images in the form of MNIST.
struct ImageFile {
    name: String,
    split: Split,
    /// The name of the dataset, such as `emnist-letters-`; empty for MNIST.
    dataset: String,
}

impl ImageFile {
    /// The name that the file of `split` has.
    fn name_of(&self, split: Split) -> String {
        let test = if self.dataset.is_empty() { "t10k" } else { "test" };
        let (from, to) = if split == Split::Train { (test, "train") } else { ("train", test) };
        self.name.replacen(from, to, 1)
    }
}

/// The files of images in `folder`, sorted by name.
fn image_files(folder: &Path) -> Vec<ImageFile> {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<ImageFile> = names
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let prefix = plain
                .strip_suffix("-images-idx3-ubyte")
                .or_else(|| plain.strip_suffix("-images.idx3-ubyte"))?;
            let ends = [("train", Split::Train), ("t10k", Split::Test), ("test", Split::Test)];
            let (dataset, split) =
                ends.iter().find_map(|(end, split)| Some((prefix.strip_suffix(end)?, *split)))?;
            let file = ImageFile { dataset: dataset.to_owned(), split, name: name.clone() };
            folder.join(&name).is_file().then_some(file)
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
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

/// Maximum number of classes whose numbers become names.
const MAX_NAMED_CLASSES: u32 = 1 << 16;

/// An array with its sizes, slowest axis first.
struct Array {
    sizes: Vec<usize>,
    bytes: Bytes,
    /// Offset of the data in `bytes`.
    first: usize,
    /// Bytes of a value: 1 (u8) or 4 (i32, big-endian).
    value_bytes: usize,
}

impl Array {
    /// Labels: a vector, or the first column of a matrix. In QMNIST the other columns are the writer and others.
    fn labels(&self, count: usize) -> Result<Vec<u32>, String> {
        let columns = self.sizes.get(1).copied().unwrap_or(1).max(1);
        let rows = self.bytes[self.first..].chunks_exact(columns * self.value_bytes);
        let label =
            |row: &[u8]| row[..self.value_bytes].iter().fold(0, |value, byte| value << 8 | u32::from(*byte));
        let labels: Vec<u32> = rows.map(label).collect();
        if labels.len() != count {
            return Err(format!("contains {} labels, expected {count} (one per image)", labels.len()));
        }
        if labels.iter().any(|label| *label > i32::MAX.unsigned_abs()) {
            return Err("contains a label below 0".to_owned());
        }
        Ok(labels)
    }
}

fn scan(
    path: &Path,
    images: Array,
    labels: Option<(Array, PathBuf)>,
    format: Format,
) -> Result<Scan, DataError> {
    let ([count, height, width], 1) = (&images.sizes[..], images.value_bytes) else {
        let problem = format!(
            "contains labels or vectors ({} dimensions), expected images (3 dimensions)",
            images.sizes.len()
        );
        return Err(DataError::invalid_file(path, problem));
    };
    let (count, height, width) = (*count, *height, *width);
    let shape = ImageShape { height, width, channels: 1 };
    shape
        .check()
        .map_err(|_| DataError::invalid_file(path, format!("declares images of {height}x{width} pixels")))?;
    let mut digest = Digest::default();
    digest.field(&images.bytes);
    let mut report = ScanReport::new(path, format);
    report.scanned_files = 1;
    if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("emnist-")) {
        report
            .notes
            .push("EMNIST stores images with rows and columns exchanged; they are read as stored".to_owned());
    }
    let labels = match labels {
        Some((array, label_path)) => {
            report.scanned_files = 2;
            if array.sizes.first() != Some(&count) || array.sizes.len() > 2 {
                let problem = format!("contains {:?} labels, expected {count} (one per image)", array.sizes);
                return Err(DataError::invalid_file(&label_path, problem));
            }
            digest.field(&array.bytes);
            Some(array.labels(count).map_err(|problem| DataError::invalid_file(&label_path, problem))?)
        }
        None => {
            report.notes.push("no labels: there is no label file".to_owned());
            None
        }
    };
    // The letters a to z of EMNIST are numbered from 1.
    let is_letters = path.file_name().is_some_and(|name| name.to_string_lossy().contains("emnist-letters"))
        && labels.as_ref().is_some_and(|labels| labels.iter().all(|label| (1..=26).contains(label)));
    let labels: Option<Vec<u32>> = match is_letters {
        true => labels.map(|labels| labels.into_iter().map(|label| label - 1).collect()),
        false => labels,
    };
    let class_names = labels.as_ref().map(|labels| {
        let classes = labels.iter().max().map_or(0, |last| last.saturating_add(1)).min(MAX_NAMED_CLASSES);
        let name = |class| char::from_digit(class + 10, 36).filter(|_| is_letters);
        (0..classes).map(|class| name(class).map_or_else(|| class.to_string(), String::from)).collect()
    });
    let chunk = Chunk {
        path: path.to_owned(),
        bytes: images.bytes,
        first: images.first,
        stride: shape.bytes(),
        count,
    };
    Ok(Scan {
        labels,
        class_names,
        ..Scan::new(
            Source::Raw(RawImages::of_chunks(shape, PixelOrder::Hwc, vec![chunk])?),
            report,
            digest.hex(),
        )
    })
}

/// The label file of an image file, with or without `.gz`: `train-images-idx3-ubyte` -> `train-labels-idx1-ubyte`.
fn label_file_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let qmnist = labels.replace("idx1-ubyte", "idx2-int");
    let other = |name: &str| name.strip_suffix(".gz").map_or_else(|| format!("{name}.gz"), str::to_owned);
    [other(&labels), other(&qmnist)]
        .into_iter()
        .zip([labels, qmnist])
        .flat_map(|(other, labels)| [labels, other])
        .map(|labels| images.with_file_name(labels))
        .find(|path| path != images && path.is_file())
}

/// Reads the header, inflates gzip data, and checks the length.
fn parse(bytes: Bytes) -> Result<Array, String> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut inflated = GzDecoder::new(&*bytes);
        let (header, sizes, length) = header(&mut inflated)?;
        let value_bytes = value_bytes(&header);
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
        Ok(Array { sizes, bytes: whole.into(), first, value_bytes })
    } else {
        let (header, sizes, length) = header(&mut &*bytes)?;
        let found = bytes.len() - header.len();
        if found != length {
            return Err(format!("expected {length} bytes of data from its header {sizes:?}, found {found}"));
        }
        Ok(Array { sizes, bytes, first: header.len(), value_bytes: value_bytes(&header) })
    }
}

fn value_bytes(header: &[u8]) -> usize {
    if header.get(2) == Some(&I32) { 4 } else { 1 }
}

/// The bytes of the header, the sizes, and the length of the data.
fn header(from: &mut impl Read) -> Result<(Vec<u8>, Vec<usize>, usize), String> {
    let truncated = |error| format!("is truncated in its header: {error}");
    let mut header = vec![0; 4];
    from.read_exact(&mut header).map_err(truncated)?;
    if !is_idx(&header) && !matches!(header[..], [0, 0, I32, 1 | 2]) {
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
    let length = sizes.iter().try_fold(value_bytes(&header), |product, size| product.checked_mul(*size));
    let length = length.ok_or_else(|| format!("declares an invalid size {sizes:?}"))?;
    Ok((header, sizes, length))
}
