//! Reader for Parquet files of encoded images, as Hugging Face's `datasets` writes them: a column `image` of structs
//! with `bytes` and `path`, a column of labels, several files a split.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;
use serde_json::Value;

use crate::bytes::Bytes;
use crate::encoded::{EncodedImages, Records, Storage};
use crate::error::DataError;
use crate::kind::image_format;
use crate::names::Names;
use crate::options::OpenOptions;
use crate::readers::parquet_pages::{Mapped, ParquetFile, ParquetImages, message, range_of};
use crate::readers::shards;
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Names of columns of labels, in the order of preference.
const LABELS: [&str; 7] = ["label", "labels", "fine_label", "cls", "class", "target", "y"];

/// Maximum bytes of the description at the end of a file.
const MAX_FOOTER_BYTES: u64 = 1 << 28;

/// Reads the files `files` below `root`, or the single file `root`, as one dataset.
pub(crate) fn scan(root: &Path, files: Vec<PathBuf>, options: &OpenOptions) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(root, Format::Parquet);
    let files = shards::of_split(root, files, options.split, &mut report)?;
    report.scanned_files = files.len();
    let mut digest = Digest::default();
    let mut opened = Vec::new();
    for path in files {
        opened.push(open(path, &mut digest)?);
    }
    let first = opened.first().ok_or_else(|| DataError::invalid_file(root, "contains no Parquet files"))?;
    let features = features_of(&first.metadata);
    let (label, class_names) = label_column(&first.metadata, features.as_ref());
    let mut labels = None;
    match label {
        Some(label) => match labels_of(&opened, &label)? {
            Ok(found) => {
                report.notes.push(format!("labels from the column {label}"));
                labels = Some(found);
            }
            Err(problem) => report.notes.push(format!("unlabeled: the column {label} {problem}")),
        },
        None => report.notes.push("no labels: there is no column of class labels".to_owned()),
    }
    let column = first.metadata.file_metadata().schema_descr().column(first.column).path().string();
    report.notes.push(format!("images from the column {column}"));
    let images =
        ParquetImages::new(opened).map_err(|(path, problem)| DataError::invalid_file(&path, problem))?;
    if images.len() > 0
        && let Ok(image) = images.read(0)
        && image_format(&image).is_none()
    {
        let problem = format!("the column {column} contains no images that can be read");
        return Err(DataError::invalid_file(root, problem));
    }
    Ok(Scan {
        class_names: class_names.filter(|_| labels.is_some()),
        labels,
        ..Scan::new(
            Source::Encoded(EncodedImages {
                root: root.to_owned(),
                names: Names::default(),
                storage: Storage::Records(Box::new(images)),
            }),
            report,
            digest.hex(),
        )
    })
}

/// Whether the file can be opened and has a column of images.
pub(crate) fn has_images(path: &Path) -> bool {
    open(path.to_owned(), &mut Digest::default()).is_ok()
}

fn open(path: PathBuf, digest: &mut Digest) -> Result<ParquetFile, DataError> {
    let invalid = |problem: String| DataError::invalid_file(&path, problem);
    let bytes = Arc::new(Mapped::new(Bytes::map(&path)?));
    // The end of the file is the length of the description and the magic number.
    let length = bytes.len();
    let footer = || {
        let tail = bytes.get_bytes(length.checked_sub(8)?, 8).ok()?;
        let [a, b, c, d] = *tail.first_chunk()?;
        let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
        let start = length.checked_sub(footer + 8)?;
        let bytes = bytes.get_bytes(start, usize::try_from(footer).ok()?).ok()?;
        (footer <= MAX_FOOTER_BYTES && tail.ends_with(b"PAR1")).then_some(bytes)
    };
    let footer =
        footer().ok_or_else(|| invalid("is a truncated Parquet file: its end is missing".to_owned()))?;
    digest.field(shards::below(&path, &path)).number(length).field(&footer);
    let reader =
        SerializedFileReader::new(Shared(Arc::clone(&bytes))).map_err(|error| invalid(message(&error)))?;
    let metadata = Arc::new(reader.metadata().clone());
    let features = features_of(&metadata);
    let column = image_column(&metadata, features.as_ref()).ok_or_else(|| {
        let columns = metadata.file_metadata().schema_descr().columns();
        let list: Vec<String> = columns.iter().map(|column| column.path().string()).collect();
        invalid(format!("has no column of images, but {} (expected image.bytes or image)", list.join(", ")))
    })?;
    Ok(ParquetFile { path, bytes, metadata, column })
}

/// A mapped file as the reader of a whole file, which takes ownership.
struct Shared(Arc<Mapped>);

impl Length for Shared {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Shared {
    type T = <Mapped as ChunkReader>::T;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.0.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes, ParquetError> {
        self.0.get_bytes(start, length)
    }
}

/// The features that `datasets` writes: the type of each column.
fn features_of(metadata: &ParquetMetaData) -> Option<Value> {
    let entries = metadata.file_metadata().key_value_metadata()?;
    let text = entries.iter().find(|entry| entry.key == "huggingface")?.value.as_ref()?;
    let mut value: Value = serde_json::from_str(text).ok()?;
    Some(value.get_mut("info")?.get_mut("features")?.take())
}

/// The number of the column of encoded images: that of the feature `Image`, `NAME.bytes`, or bytes named after images.
fn image_column(metadata: &ParquetMetaData, features: Option<&Value>) -> Option<usize> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let is_image = |name: &str| features.is_some_and(|features| features[name]["_type"] == "Image");
    let rank = |path: &[String]| match path {
        [name, bytes] if bytes == "bytes" => Some(if is_image(name) { 0 } else { 1 }),
        [name] if is_image(name) => Some(0),
        [name] if ["image", "img", "jpg", "jpeg", "png", "webp", "image_bytes"].contains(&name.as_str()) => {
            Some(2)
        }
        [name] if name == "bytes" => Some(3),
        _ => None,
    };
    let ranked = columns.iter().enumerate().filter_map(|(number, column)| {
        let is_bytes = column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0;
        Some((rank(column.path().parts()).filter(|_| is_bytes)?, number))
    });
    ranked.min().map(|(_, number)| number)
}

/// Name of the column of labels, and the names of the classes.
fn label_column(
    metadata: &ParquetMetaData,
    features: Option<&Value>,
) -> (Option<String>, Option<Vec<String>>) {
    let columns = metadata.file_metadata().schema_descr().columns();
    let is_integer = |name: &str| {
        columns.iter().any(|column| {
            column.path().parts() == [name.to_owned()]
                && matches!(column.physical_type(), Type::INT32 | Type::INT64)
        })
    };
    let names = |name: &str| -> Option<Vec<String>> {
        let names = features?[name]["names"].as_array()?;
        names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let is_class = |name: &str| features.is_some_and(|features| features[name]["_type"] == "ClassLabel");
    let known = LABELS.iter().map(|name| (*name).to_owned()).filter(|name| is_integer(name));
    let classes = columns.iter().filter_map(|column| column.path().parts().first().cloned());
    let classes = classes.filter(|name| is_class(name) && is_integer(name));
    let (of_known, of_classes): (Vec<String>, Vec<String>) = (known.collect(), classes.collect());
    let label = of_known.iter().find(|name| is_class(name)).or(of_classes.first()).or(of_known.first());
    (label.cloned(), label.and_then(|label| names(label)))
}

/// The labels of all rows, or why there are none.
fn labels_of(files: &[ParquetFile], name: &str) -> Result<Result<Vec<u32>, String>, DataError> {
    let mut labels = Vec::new();
    for file in files {
        // The library panics on some damaged pages.
        let found = catch_unwind(AssertUnwindSafe(|| labels_of_file(file, name)));
        match found.unwrap_or_else(|_| Err(ParquetError::General("the labels cannot be decoded".to_owned())))
        {
            Ok(Ok(found)) => labels.extend(found),
            Ok(Err(problem)) => return Ok(Err(problem)),
            Err(error) => return Err(DataError::invalid_file(&file.path, message(&error))),
        }
    }
    Ok(Ok(labels))
}

fn labels_of_file(file: &ParquetFile, name: &str) -> Result<Result<Vec<u32>, String>, ParquetError> {
    let columns = file.metadata.file_metadata().schema_descr().columns();
    let Some(column) = columns.iter().position(|column| column.path().parts() == [name.to_owned()]) else {
        return Ok(Err(format!("is missing in {}", file.path.display())));
    };
    let reader = SerializedFileReader::new(Shared(Arc::clone(&file.bytes)))?;
    let mut labels = Vec::new();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group)?;
        let rows = usize::try_from(group.metadata().num_rows())?;
        range_of(group.metadata().column(column))?;
        let mut levels = Vec::new();
        let mut values = Vec::new();
        match group.get_column_reader(column)? {
            ColumnReader::Int64ColumnReader(mut reader) => {
                reader.read_records(rows, Some(&mut levels), None, &mut values)?;
            }
            ColumnReader::Int32ColumnReader(mut reader) => {
                let mut short = Vec::new();
                reader.read_records(rows, Some(&mut levels), None, &mut short)?;
                values.extend(short.into_iter().map(i64::from));
            }
            _ => return Ok(Err("contains no integers".to_owned())),
        }
        if values.len() != rows {
            return Ok(Err(format!("has {} labels in a group of {rows} rows", values.len())));
        }
        for value in values {
            match u32::try_from(value) {
                Ok(label) => labels.push(label),
                // -1 stands for the hidden labels of a test split.
                Err(_) => return Ok(Err(format!("contains {value}, expected integers from 0"))),
            }
        }
    }
    Ok(Ok(labels))
}
