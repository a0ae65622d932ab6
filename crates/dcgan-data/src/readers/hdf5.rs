//! Reader for HDF5 files of u8 images, as BigGAN's make_hdf5.py writes them: `imgs` `(n, c, h, w)` in compressed
//! chunks, and `labels`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use hdf5_reader::error::Error;
use hdf5_reader::{Dataset, FilterRegistry, H5Type, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem};

use crate::block::Block;
use crate::bytes::Bytes;
use crate::error::DataError;
use crate::raw::{RawImages, RawRecords};
use crate::readers::array::{Header, Layout};
use crate::readers::lzf;
use crate::readers::npy::{ALL, LABELS, label_file_of};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

/// Maximum bytes of a chunk of images: BigGAN's have 500 images, 24 MB at 128x128.
const MAX_CHUNK_BYTES: usize = 512 << 20;

/// Bytes of decoded chunks that are kept: more than three windows of shuffled images.
const KEPT_BYTES: usize = 128 << 20;

/// Maximum compression ratio: that of deflate (RFC 1951), twice.
const MAX_RATIO: u64 = 2064;

/// Maximum bytes of the labels.
const MAX_LABEL_BYTES: usize = 1 << 28;

/// Reads the arrays of images and labels in the file at `path`.
pub(crate) fn scan(path: &Path) -> Result<Scan, DataError> {
    let invalid = |problem: String| DataError::invalid_file(path, problem);
    let damaged = |error: Error| invalid(format!("is a damaged HDF5 file: {error}"));
    let bytes = Bytes::map(path)?;
    let length = bytes.len();
    let datasets = arrays(bytes).map_err(damaged)?;
    let list = || {
        let described = datasets.iter().map(|dataset| header(dataset).describe_named(dataset.name()));
        described.collect::<Vec<_>>().join(", ")
    };
    let images = find(&datasets, ALL).ok_or_else(|| {
        invalid(format!("contains the arrays {}: expected one of u8 images, named imgs or images", list()))
    })?;
    let Layout { count, shape, order } = header(images)
        .layout()
        .map_err(|problem| invalid(format!("the array {} {problem}", images.name())))?;
    let declared = (count as u64).saturating_mul(shape.bytes() as u64);
    if declared > (length as u64).saturating_mul(MAX_RATIO) {
        let problem = format!("declares {declared} bytes of images, which {length} bytes cannot contain");
        return Err(invalid(problem));
    }
    let mut report = ScanReport::new(path, Format::Hdf5);
    report.scanned_files = 1;
    report.notes.push(format!("images from the array {}", images.name()));
    let mut labels = None;
    let mut found =
        find(&datasets, LABELS).map(|dataset| (dataset.name().to_owned(), labels_of(dataset, count)));
    if found.is_none()
        && let Some(beside) = label_file_of(path)
    {
        report.scanned_files = 2;
        let name = beside.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found = Some((name, labels_in(&beside, count)));
    }
    match found {
        Some((name, Ok(found))) => {
            report.notes.push(format!("labels from the array {name}"));
            labels = Some(found);
        }
        Some((name, Err(problem))) => report.notes.push(format!("unlabeled: the array {name} {problem}")),
        None => report.notes.push("no labels: there is no array of labels".to_owned()),
    }
    let mut digest = Digest::default();
    digest.field("hdf5").number(length as u64);
    images.shape().iter().for_each(|size| {
        digest.number(*size);
    });
    for label in labels.iter().flatten() {
        digest.number(u64::from(*label));
    }
    let block = images.chunks().and_then(|sizes| sizes.first().copied()).unwrap_or(1);
    let block = usize::try_from(block).unwrap_or(1).max(1);
    let records = Hdf5Images { path: path.to_owned(), images: images.clone(), count, block };
    Ok(Scan {
        labels,
        ..Scan::new(
            Source::Raw(RawImages::of_records(shape, order, Box::new(records))?),
            report,
            digest.hex(),
        )
    })
}

/// The arrays of a file.
fn arrays(bytes: Bytes) -> Result<Vec<Dataset>, Error> {
    let options = OpenOptions::default()
        .with_filter_registry(filters())
        .with_chunk_cache_bytes(KEPT_BYTES)
        .with_max_chunk_bytes(MAX_CHUNK_BYTES)
        .with_max_read_bytes(MAX_CHUNK_BYTES);
    Hdf5File::from_owner(bytes, options)?.root_group()?.datasets()
}

/// The first of `names` that an array has.
fn find<'a>(arrays: &'a [Dataset], names: &[&str]) -> Option<&'a Dataset> {
    names.iter().find_map(|name| arrays.iter().find(|array| array.name().eq_ignore_ascii_case(name)))
}

/// The labels in the file at `path`, which is beside that of the images, or why there are none.
fn labels_in(path: &Path, count: usize) -> Result<Vec<u32>, String> {
    let bytes = Bytes::map(path).map_err(|error| format!("cannot be read: {error}"))?;
    let arrays = arrays(bytes).map_err(|error| format!("is a damaged HDF5 file: {error}"))?;
    let labels = find(&arrays, LABELS).ok_or_else(|| format!("has no array {}", LABELS.join(", ")))?;
    labels_of(labels, count)
}

/// The filters of the library and h5py's LZF, whose third parameter is the size of a chunk.
fn filters() -> FilterRegistry {
    let mut filters = FilterRegistry::new();
    filters.register(
        lzf::FILTER,
        Box::new(|filter, data, _| {
            let size = filter.client_data.get(2).and_then(|size| usize::try_from(*size).ok());
            let limit = size.filter(|size| (1..=MAX_CHUNK_BYTES).contains(size)).unwrap_or(MAX_CHUNK_BYTES);
            lzf::decompress(data, limit).map_err(|problem| Error::InvalidData(problem.to_owned()))
        }),
    );
    filters
}

/// Sizes and type of an array, as numpy says them.
fn header(dataset: &Dataset) -> Header {
    let descr = match dataset.dtype() {
        hdf5_reader::Datatype::FixedPoint { size, signed, .. } => {
            format!("{}{size}", if *signed { "i" } else { "u" })
        }
        hdf5_reader::Datatype::FloatingPoint { size, .. } => format!("f{size}"),
        _ => "of another kind".to_owned(),
    };
    let sizes = dataset.shape().iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect();
    Header { descr, is_fortran: false, sizes, first: 0 }
}

/// The class labels, or why there are none.
fn labels_of(dataset: &Dataset, count: usize) -> Result<Vec<u32>, String> {
    let header = header(dataset);
    header.check_label_sizes(count)?;
    if count > MAX_LABEL_BYTES / 8 {
        return Err(format!("has {count} values, the limit is {}", MAX_LABEL_BYTES / 8));
    }
    match header.descr.as_str() {
        "i1" => classes::<i8>(dataset),
        "i2" => classes::<i16>(dataset),
        "i4" => classes::<i32>(dataset),
        "i8" => classes::<i64>(dataset),
        "u1" => classes::<u8>(dataset),
        "u2" => classes::<u16>(dataset),
        "u4" => classes::<u32>(dataset),
        "u8" => classes::<u64>(dataset),
        other => Err(format!("contains values of type {other}, expected integers from 0")),
    }
}

/// The values of an array of integers of type `T` as class labels.
fn classes<T>(dataset: &Dataset) -> Result<Vec<u32>, String>
where
    T: H5Type + Copy + Display + TryInto<u32>,
{
    let values = dataset.read_array::<T>().map_err(|error| format!("cannot be read: {error}"))?;
    let class =
        |value: T| value.try_into().map_err(|_| format!("contains {value}, expected integers from 0"));
    values.into_iter().map(class).collect()
}

/// The images of an array. Its library keeps the chunks decoded last.
struct Hdf5Images {
    path: PathBuf,
    images: Dataset,
    count: usize,
    /// Images in a chunk; 1 without chunks.
    block: usize,
}

impl std::fmt::Debug for Hdf5Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hdf5Images").field("path", &self.path).field("count", &self.count).finish()
    }
}

impl RawRecords for Hdf5Images {
    fn len(&self) -> usize {
        self.count
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self, index: usize) -> Result<Vec<u8>, String> {
        let mut selection = SliceInfo::all(self.images.ndim());
        // A single image may be stored without the axis of images.
        if self.count > 1 || self.images.shape().first() == Some(&1) {
            let at = index as u64;
            if let Some(first) = selection.selections.first_mut() {
                *first = SliceInfoElem::Slice { start: at, end: at + 1, step: 1 };
            }
        }
        let image = self.images.read_slice::<u8>(&selection).map_err(|error| error.to_string())?;
        Ok(image.into_iter().collect())
    }

    fn blocks(&self) -> Vec<Block> {
        if self.block <= 1 {
            return Vec::new();
        }
        let image: u64 = self.images.shape().iter().skip(1).product();
        let bytes = image.saturating_mul(self.block as u64);
        (0..self.count).step_by(self.block).map(|first| Block { first, bytes }).collect()
    }
}
