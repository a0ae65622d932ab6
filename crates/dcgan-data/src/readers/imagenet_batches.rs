//! Reader for downsampled ImageNet (Chrabaszcz, Loshchilov and Hutter, 2017; <https://image-net.org/download-images>):
//! batches with `data`, u8 `(n, 3 side side)` in planes, and `labels` from 1 to 1000, as .npz or as pickles.

use std::path::{Path, PathBuf};

use crate::bytes::{Bytes, head};
use crate::encoded::open_zip;
use crate::error::DataError;
use crate::kind::{is_pickle, is_zip};
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::readers::array::{Header, integers};
use crate::readers::npy::read_array;
use crate::readers::pickle::{Array, Buffer, Pickle};
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

const CLASSES: i64 = 1000;

/// Sides of the published images.
const SIDES: [usize; 4] = [8, 16, 32, 64];

/// Batches of the training images.
const BATCHES: usize = 10;

/// The files of `split` in `folder`, under their published names; `None` if there are none of any split.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there are only files of the other split.
pub(crate) fn files_in(folder: &Path, split: Split) -> Result<Option<Vec<PathBuf>>, DataError> {
    let present = |stem: &str| {
        let paths = ["", ".npz"].map(|extension| folder.join(format!("{stem}{extension}")));
        paths.into_iter().find(|path| path.is_file())
    };
    let train: Vec<PathBuf> =
        (1..=BATCHES).filter_map(|number| present(&format!("train_data_batch_{number}"))).collect();
    let val = present("val_data");
    let (files, expected, found) = match split {
        Split::Train => (train, "train_data_batch_1", "val_data"),
        Split::Val | Split::Test if train.is_empty() && val.is_none() => return Ok(None),
        Split::Val | Split::Test => {
            (val.clone().into_iter().collect(), "val_data", "train_data_batch_1 and others")
        }
    };
    match files.is_empty() {
        false => Ok(Some(files)),
        true if split == Split::Train && val.is_none() => Ok(None),
        true => Err(DataError::NoSplit {
            path: folder.to_owned(),
            split,
            expected: expected.to_owned(),
            found: found.to_owned(),
        }),
    }
}

/// Whether `path` has the name of a batch.
pub(crate) fn is_batch(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("train_data_batch_") || name.starts_with("val_data")
}

/// Reads `files` in order as one dataset. `path` is the path given by the user.
pub(crate) fn scan_files(path: &Path, files: &[PathBuf]) -> Result<Scan, DataError> {
    let (mut chunks, mut labels, mut digest) = (Vec::new(), Vec::new(), Digest::default());
    let mut first_side = None;
    for file in files {
        let invalid = |problem: String| DataError::invalid_file(file, problem);
        let magic = head(file, 4)?;
        let batch = if is_zip(&magic) {
            of_zip(file, &mut digest)?
        } else if is_pickle(&magic) {
            of_pickle(file, &mut digest)?
        } else {
            return Err(invalid("is neither a .npz nor a pickle".to_owned()));
        };
        let side = *first_side.get_or_insert(batch.side);
        if side != batch.side {
            let problem = format!("has images of side {}, the batches before it {side}", batch.side);
            return Err(invalid(problem));
        }
        for (record, label) in batch.labels.iter().enumerate() {
            let class = u32::try_from(label - 1).ok().filter(|_| (1..=CLASSES).contains(label));
            labels.push(class.ok_or_else(|| {
                let problem = format!("label {label} is not one of 1 to {CLASSES}");
                DataError::invalid_record(file, record, problem)
            })?);
        }
        let (stride, count) = (3 * side * side, batch.labels.len());
        chunks.push(Chunk { path: file.clone(), bytes: batch.pixels, first: batch.first, stride, count });
    }
    let side = first_side.unwrap_or(0);
    let shape = ImageShape { height: side, width: side, channels: 3 };
    let mut report = ScanReport::new(path, Format::ImageNetBatches);
    report.scanned_files = files.len();
    if files.first().is_some_and(|file| path != file && !file.ends_with("val_data"))
        && (2..BATCHES).contains(&files.len())
    {
        report.notes.push(format!("only {} of the {BATCHES} training batches found", files.len()));
    }
    Ok(Scan {
        labels: Some(labels),
        ..Scan::new(Source::Raw(RawImages::of_chunks(shape, PixelOrder::Chw, chunks)?), report, digest.hex())
    })
}

struct Batch {
    pixels: Bytes,
    first: usize,
    side: usize,
    labels: Vec<i64>,
}

fn of_zip(file: &Path, digest: &mut Digest) -> Result<Batch, DataError> {
    let invalid = |problem: String| DataError::invalid_file(file, problem);
    let archive = open_zip(file)?;
    let mut read = |name: &str| {
        let index = archive.index_for_name(&format!("{name}.npy"));
        let (bytes, crc) = read_array(file, &archive, index.ok_or_else(|| missing(file, name))?)?;
        digest.field(name).number(bytes.len() as u64).number(u64::from(crc));
        let header = Header::read(&bytes).map_err(invalid)?;
        Ok::<_, DataError>((header, bytes))
    };
    let ((data, pixels), (header, labels)) = (read("data")?, read("labels")?);
    let values = labels.get(header.first..).and_then(|bytes| integers(&header.descr, bytes));
    let labels = values.ok_or_else(|| invalid("has labels that are not integers".to_owned()))?;
    let length = pixels.len().saturating_sub(data.first);
    let side = side_of(&data.descr, &data.sizes, data.is_fortran, length, labels.len()).map_err(invalid)?;
    Ok(Batch { pixels, first: data.first, side, labels })
}

fn of_pickle(file: &Path, digest: &mut Digest) -> Result<Batch, DataError> {
    let invalid = |problem: String| DataError::invalid_file(file, problem);
    let bytes = Bytes::map(file)?;
    digest.field(&bytes);
    let pickle = Pickle::read(&bytes).map_err(invalid)?;
    let labels = pickle.integers("labels").ok_or_else(|| missing(file, "labels"))?;
    let Array { descr, sizes, is_fortran, data } =
        pickle.array("data").ok_or_else(|| missing(file, "data"))?;
    let (pixels, first, length) = match data {
        Buffer::File(range) => (bytes.clone(), range.start, range.len()),
        Buffer::Memory(values) => (Bytes::Heap(values.clone()), 0, values.len()),
    };
    let side = side_of(&descr, &sizes, is_fortran, length, labels.len()).map_err(invalid)?;
    Ok(Batch { pixels, first, side, labels })
}

fn missing(file: &Path, name: &str) -> DataError {
    DataError::invalid_file(file, format!("contains no array {name}: not a batch of downsampled ImageNet"))
}

/// The side of the images of an array.
fn side_of(
    descr: &str,
    sizes: &[usize],
    is_fortran: bool,
    length: usize,
    labels: usize,
) -> Result<usize, String> {
    let is_u8 = descr.trim_start_matches(['|', '<', '>', '=']) == "u1";
    let side = match sizes {
        [n, values] if *n == labels && is_u8 && !is_fortran => {
            SIDES.into_iter().find(|side| 3 * side * side == *values)
        }
        _ => None,
    };
    let values = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    side.filter(|_| values == Some(length)).ok_or_else(|| {
        format!(
            "has an array `data` {sizes:?} of {descr} with {length} bytes, expected u8 ({labels}, 3 side side), one row \
             for each of {labels} labels, of side 8, 16, 32 or 64"
        )
    })
}
