//! Reader for numpy arrays of u8 images: one array in a .npy file, or several in a .npz, which is a zip of them.

use std::io::Read;
use std::path::{Path, PathBuf};

use zip::CompressionMethod;

use crate::bytes::{Bytes, read_bounded, read_inflated};
use crate::encoded::{Archive, read_entry_head};
use crate::error::DataError;
use crate::options::OpenOptions;
use crate::raw::{Chunk, RawImages};
use crate::readers::array::{Header, Layout, MAGIC};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

/// Length of the prefix that contains the header of an array.
const HEADER_BYTES: u64 = 4096;

/// Maximum bytes of an array of labels.
const MAX_LABEL_BYTES: u64 = 1 << 28;

/// Names of the images of each split in a .npz, and of images without splits, in the order of preference.
const TRAIN: &[&str] = &["x_train", "train_images", "train_x", "train_data"];
const VAL: &[&str] = &["x_val", "val_images", "x_valid", "valid_images", "val_x", "val_data"];
const TEST: &[&str] = &["x_test", "test_images", "test_x", "test_data"];
pub(crate) const ALL: &[&str] = &["images", "image", "imgs", "x", "data", "arr_0"];

/// Names of labels without splits.
pub(crate) const LABELS: &[&str] = &["labels", "label", "y", "targets", "arr_1"];

/// Reads a .npy file, and the labels in a file beside it, if there is one.
pub(crate) fn scan_file(path: &Path) -> Result<Scan, DataError> {
    let invalid = |problem: String| DataError::invalid_file(path, problem);
    let bytes = Bytes::map(path)?;
    let header = Header::read(&bytes).map_err(invalid)?;
    let mut report = ScanReport::new(path, Format::Npy);
    report.scanned_files = 1;
    let mut digest = Digest::default();
    digest.field(&bytes);
    let layout = header.layout().map_err(invalid)?;
    let mut labels = None;
    if let Some(label_path) = label_file_of(path) {
        report.scanned_files = 2;
        let file = read_bounded(&label_path, MAX_LABEL_BYTES)?;
        digest.field(&file);
        labels = read_labels(&file, layout.count, &label_path.display().to_string(), &mut report);
    } else {
        report.notes.push("no labels: there is no array of labels beside it".to_owned());
    }
    finish(path, bytes, &header, labels, report, digest.hex())
}

/// The labels beside a file of images: `images.npy` and `labels.npy`, `x_train.npy` and `y_train.npy`, `train_x.h5` and
/// `train_y.h5`.
pub(crate) fn label_file_of(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let with =
        |from: &str, to: &str| name.contains(from).then(|| images.with_file_name(name.replace(from, to)));
    let paths = [
        with("images", "labels"),
        with("image", "label"),
        with("data", "labels"),
        name.strip_prefix(['x', 'X']).map(|rest| images.with_file_name(format!("y{rest}"))),
        stem.strip_suffix("_x").map(|start| images.with_file_name(format!("{start}_y.{extension}"))),
    ];
    paths.into_iter().flatten().find(|path| path.is_file())
}

/// Reads a zip of arrays; `None` if the zip contains other files.
pub(crate) fn scan_zip(
    path: &Path,
    archive: &Archive,
    options: &OpenOptions,
) -> Result<Option<Scan>, DataError> {
    let mut arrays = Vec::new();
    for index in 0..archive.len() {
        let Some(Ok(name)) = archive.name_for_index(index) else { return Ok(None) };
        let Some(name) = name.strip_suffix(".npy") else { return Ok(None) };
        let Some(head) = read_entry_head(archive, index, HEADER_BYTES) else { return Ok(None) };
        if !head.starts_with(MAGIC) {
            return Ok(None);
        }
        let header = Header::read(&head)
            .map_err(|problem| DataError::invalid_record(path, format!("{name}.npy"), problem))?;
        arrays.push((name.to_owned(), index, header));
    }
    if arrays.is_empty() {
        return Ok(None);
    }
    let mut report = ScanReport::new(path, Format::Npy);
    report.scanned_files = arrays.len();
    let (image_name, index) = choose(path, &arrays, options.split, &mut report)?;
    let mut digest = Digest::default();
    let (bytes, crc) = read_array(path, archive, index)?;
    digest.field(&image_name).number(bytes.len() as u64).number(u64::from(crc));
    let header =
        Header::read(&bytes).map_err(|problem| DataError::invalid_record(path, &image_name, problem))?;
    let layout = header
        .layout()
        .map_err(|problem| DataError::invalid_file(path, format!("array {image_name} {problem}")))?;
    let label = |(name, ..): &&(String, usize, Header)| is_label_of(name, &image_name);
    let mut labels = None;
    match arrays.iter().find(label) {
        Some((name, index, _)) => {
            let (bytes, crc) = read_array(path, archive, *index)?;
            digest.field(name).number(bytes.len() as u64).number(u64::from(crc));
            labels = read_labels(&bytes, layout.count, name, &mut report);
        }
        None => report.notes.push("no labels: there is no array of labels".to_owned()),
    }
    finish(path, bytes, &header, labels, report, digest.hex()).map(Some)
}

/// The array of the images of `split`.
fn choose(
    path: &Path,
    arrays: &[(String, usize, Header)],
    split: Split,
    report: &mut ScanReport,
) -> Result<(String, usize), DataError> {
    let find = |names: &[&str]| {
        let position = |name: &&str| arrays.iter().find(|(array, ..)| array.eq_ignore_ascii_case(name));
        names.iter().find_map(position).map(|(name, index, _)| (name.clone(), *index))
    };
    let (train, val, test) = (find(TRAIN), find(VAL), find(TEST));
    let has_splits = train.is_some() || val.is_some() || test.is_some();
    let of_split = match split {
        Split::Train => train,
        Split::Val => val,
        Split::Test => test,
    };
    let list = || arrays.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
    let only = || {
        let mut images = arrays.iter().filter(|(.., header)| header.layout().is_ok());
        images.next().filter(|_| images.next().is_none()).map(|(name, index, _)| (name.clone(), *index))
    };
    if let Some(found) = of_split {
        report.notes.push(format!("images from array {} of {}", found.0, list()));
        return Ok(found);
    }
    if has_splits && (split != Split::Train || find(ALL).is_none()) {
        let names = match split {
            Split::Train => TRAIN,
            Split::Val => VAL,
            Split::Test => TEST,
        };
        let expected = format!("an array {}", names[0]);
        return Err(DataError::NoSplit { path: path.to_owned(), split, expected, found: list() });
    }
    if let Some(found) = find(ALL).or_else(only) {
        report.notes.push(format!("images from array {} of {}", found.0, list()));
        return Ok(found);
    }
    let described: Vec<String> =
        arrays.iter().map(|(name, _, header)| format!("{name} {}", header.describe())).collect();
    Err(DataError::invalid_file(
        path,
        format!("contains the arrays {}: expected one of u8 images, named images or x", described.join(", ")),
    ))
}

/// Whether array `name` contains the labels of array `images`.
fn is_label_of(name: &str, images: &str) -> bool {
    let images = images.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    if ALL.contains(&images.as_str()) {
        return LABELS.contains(&name.as_str());
    }
    name != images
        && [("x_", "y_"), ("_x", "_y"), ("images", "labels"), ("data", "labels")]
            .iter()
            .any(|(from, to)| images.contains(from) && name == images.replace(from, to))
}

/// The bytes of an entry with their CRC-32, memory-mapped if the entry is not compressed.
pub(crate) fn read_array(path: &Path, archive: &Archive, index: usize) -> Result<(Bytes, u32), DataError> {
    let mut archive = archive.clone();
    let invalid = |problem: String| DataError::invalid_file(path, problem);
    let mut entry = archive
        .by_index(index)
        .map_err(|error| invalid(format!("array {index} cannot be read from the zip: {error}")))?;
    let (declared, crc) = (entry.size(), entry.crc32());
    let name = entry.name().map(|name| name.into_owned()).unwrap_or_default();
    let is_stored = entry.compression() == CompressionMethod::Stored && !entry.encrypted();
    if let (true, Some(start)) = (is_stored, entry.data_start()) {
        let range = usize::try_from(start).ok().zip(usize::try_from(declared).ok());
        let file = Bytes::map(path)?;
        let slice = range.and_then(|(start, length)| file.slice(start, length));
        let slice = slice.ok_or_else(|| invalid(format!("is truncated in {name}")))?;
        let mut found = flate2::Crc::new();
        slice.chunks(1 << 20).for_each(|part| found.update(part));
        return match found.sum() == crc {
            true => Ok((slice, crc)),
            false => Err(invalid(format!("is damaged: the checksum of {name} does not match"))),
        };
    }
    let compressed = usize::try_from(entry.compressed_size()).unwrap_or(usize::MAX);
    let problem = |problem: String| DataError::invalid_record(path, &name, problem);
    let bytes = read_inflated(&mut entry, declared, compressed).map_err(problem)?;
    // Reading past the data checks the checksum.
    match entry.read(&mut [0]) {
        Ok(0) => Ok((bytes.into(), crc)),
        Ok(_) => Err(problem("inflates to more bytes than declared".to_owned())),
        Err(error) => Err(problem(format!("is damaged: {error}"))),
    }
}

/// The labels in the array `file`; if it contains none, the report says why.
fn read_labels(file: &[u8], count: usize, name: &str, report: &mut ScanReport) -> Option<Vec<u32>> {
    let labels = Header::read(file).and_then(|header| {
        let bytes = file.get(header.first..).unwrap_or_default();
        header.labels(bytes, count)
    });
    match labels {
        Ok(labels) => {
            report.notes.push(format!("labels from {name}"));
            Some(labels)
        }
        Err(problem) => {
            report.notes.push(format!("unlabeled: {name} {problem}, expected integers from 0"));
            None
        }
    }
}

fn finish(
    path: &Path,
    bytes: Bytes,
    header: &Header,
    labels: Option<Vec<u32>>,
    report: ScanReport,
    identity: String,
) -> Result<Scan, DataError> {
    let invalid = |problem: String| DataError::invalid_file(path, problem);
    let Layout { count, shape, order } = header.layout().map_err(invalid)?;
    let (found, expected) = (bytes.len() - header.first.min(bytes.len()), header.values());
    if expected != Some(found) {
        let sizes = header.describe();
        return Err(invalid(format!(
            "has an array of sizes {sizes} with {found} bytes of values (truncated?)"
        )));
    }
    let chunk = Chunk { path: path.to_owned(), bytes, first: header.first, stride: shape.bytes(), count };
    Ok(Scan {
        class_names: labels.as_ref().and_then(|labels| {
            let classes = labels.iter().max().map_or(0, |last| last.saturating_add(1));
            (classes <= MAX_NAMED_CLASSES).then(|| (0..classes).map(|class| class.to_string()).collect())
        }),
        labels,
        ..Scan::new(Source::Raw(RawImages::of_chunks(shape, order, vec![chunk])?), report, identity)
    })
}

/// Maximum number of classes whose numbers become names.
const MAX_NAMED_CLASSES: u32 = 1 << 16;
