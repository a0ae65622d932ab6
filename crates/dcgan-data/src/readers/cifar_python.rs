//! Reader for CIFAR-10 and CIFAR-100, python version: pickles of a dict with `data`, u8 `(n, 3072)` in planes, and
//! `labels` (CIFAR-100: `fine_labels`). The pixels stay in the memory-mapped file.

use std::path::{Path, PathBuf};

use crate::bytes::{Bytes, head, read_bounded};
use crate::error::DataError;
use crate::kind::is_pickle;
use crate::options::UnreadableImages;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::readers::cifar::{PIXELS, SHAPE, Variant, note_missing_batches, published_files};
use crate::readers::pickle::{Array, Buffer, Pickle};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

/// Maximum bytes of the file of class names.
const MAX_NAMES_BYTES: u64 = 1 << 20;

/// The files of `split` in `folder`, under their published names; `None` if there are none of either split.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there are only files of the other split.
pub(crate) fn files_in(folder: &Path, split: Split) -> Result<Option<Vec<PathBuf>>, DataError> {
    let batches = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"];
    for (train, test) in [(&batches[..], "test_batch"), (&["train"], "test")] {
        // The names of CIFAR-100 are common.
        let has_pickle = |name: &&str| {
            let path = folder.join(name);
            path.is_file() && head(&path, 2).is_ok_and(|head| is_pickle(&head))
        };
        if train.iter().chain([&test]).any(has_pickle)
            && let Some(files) = published_files(folder, split, train, test)?
        {
            return Ok(Some(files));
        }
    }
    Ok(None)
}

/// Reads `files` in order as one dataset. `path` is the path given by the user.
pub(crate) fn scan_files(
    path: &Path,
    files: &[PathBuf],
    unreadable_images: UnreadableImages,
) -> Result<Scan, DataError> {
    let (mut chunks, mut labels, mut invalid, mut digest) =
        (Vec::new(), Vec::new(), Vec::new(), Digest::default());
    let mut first_variant = None;
    for file in files {
        let bytes = Bytes::map(file)?;
        digest.field(&bytes);
        let batch = read_batch(&bytes).map_err(|problem| DataError::invalid_file(file, problem))?;
        let variant = *first_variant.get_or_insert(batch.variant);
        if variant != batch.variant {
            return Err(DataError::invalid_file(
                file,
                "is a batch of a different CIFAR dataset from the first",
            ));
        }
        for (record, label) in batch.labels.iter().enumerate() {
            let class = u32::try_from(*label).ok().filter(|label| (*label as usize) < variant.classes());
            if class.is_none() {
                let problem = format!("label {label} is not one of the {} classes", variant.classes());
                if unreadable_images == UnreadableImages::Fail {
                    return Err(DataError::invalid_record(file, record, problem));
                }
                invalid.push((labels.len(), problem));
            }
            labels.push(class.unwrap_or(0));
        }
        let (bytes, first) = match batch.pixels {
            Buffer::File(range) => (bytes, range.start),
            Buffer::Memory(pixels) => (Bytes::Heap(pixels), 0),
        };
        let count = batch.labels.len();
        chunks.push(Chunk { path: file.clone(), bytes, first, stride: PIXELS, count });
    }
    let variant = first_variant.unwrap_or(Variant::Cifar10);
    let format = match variant {
        Variant::Cifar10 => Format::Cifar10Python,
        Variant::Cifar100 => Format::Cifar100Python,
    };
    let mut report = ScanReport::new(path, format);
    report.scanned_files = files.len();
    if variant == Variant::Cifar10 {
        note_missing_batches(path, files, &mut report);
    }
    let folder = files.first().and_then(|file| file.parent());
    Ok(Scan {
        labels: Some(labels),
        class_names: folder.and_then(|folder| class_names(folder, variant)),
        invalid,
        ..Scan::new(Source::Raw(RawImages::of_chunks(SHAPE, PixelOrder::Chw, chunks)?), report, digest.hex())
    })
}

struct Batch {
    variant: Variant,
    pixels: Buffer,
    labels: Vec<i64>,
}

fn read_batch(file: &[u8]) -> Result<Batch, String> {
    let pickle = Pickle::read(file)?;
    let (variant, labels) = match (pickle.integers("labels"), pickle.integers("fine_labels")) {
        (Some(labels), _) => (Variant::Cifar10, labels),
        (None, Some(labels)) => (Variant::Cifar100, labels),
        (None, None) => return Err("is a pickle without a list `labels`: not a batch of CIFAR".to_owned()),
    };
    let expected = || format!("expected an array `data` of u8 ({}, {PIXELS}) in C order", labels.len());
    let Some(array) = pickle.array("data") else {
        return Err(format!("is a pickle without images: {}", expected()));
    };
    match array {
        Array { descr, sizes, is_fortran: false, data: pixels }
            if descr.trim_start_matches(['|', '<', '>', '=']) == "u1"
                && sizes[..] == [labels.len(), PIXELS] =>
        {
            let length = match &pixels {
                Buffer::File(range) => range.len(),
                Buffer::Memory(bytes) => bytes.len(),
            };
            if length != labels.len() * PIXELS {
                return Err(format!("contains {length} bytes of pixels, {}", expected()));
            }
            Ok(Batch { variant, pixels, labels })
        }
        Array { descr, sizes, .. } => Err(format!("contains an array {sizes:?} of {descr}, {}", expected())),
    }
}

/// Class names from `batches.meta` or `meta`. They are optional: a missing or invalid file gives `None`.
fn class_names(folder: &Path, variant: Variant) -> Option<Vec<String>> {
    let (file, key) = match variant {
        Variant::Cifar10 => ("batches.meta", "label_names"),
        Variant::Cifar100 => ("meta", "fine_label_names"),
    };
    let bytes = read_bounded(&folder.join(file), MAX_NAMES_BYTES).ok()?;
    Pickle::read(&bytes).ok()?.texts(key, variant.classes())
}
