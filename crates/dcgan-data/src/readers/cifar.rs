//! Reader for CIFAR-10 and CIFAR-100, binary version (<https://www.cs.toronto.edu/~kriz/cifar.html>). `cifar_python`
//! reads the python version.
//!
//! A record is one label byte (CIFAR-100: coarse and fine label) and three planes of 32 x 32 bytes. There is no header.

use std::path::{Path, PathBuf};

use crate::bytes::{Bytes, read_bounded};
use crate::error::DataError;
use crate::options::UnreadableImages;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};
use crate::split::Split;
use dcgan_base::digest::Digest;

pub(crate) const SHAPE: ImageShape = ImageShape { height: 32, width: 32, channels: 3 };
pub(crate) const PIXELS: usize = 3072;

/// Maximum bytes of the file of class names.
const MAX_NAMES_BYTES: u64 = 1 << 20;

/// The variant of the dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Cifar10,
    Cifar100,
}

impl Variant {
    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    fn record_bytes(self) -> usize {
        self.label_bytes() + PIXELS
    }

    pub(crate) fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    fn names_file(self) -> &'static str {
        match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        }
    }

    fn format(self) -> Format {
        match self {
            Self::Cifar10 => Format::Cifar10,
            Self::Cifar100 => Format::Cifar100,
        }
    }
}

/// The files of `split` in `folder`, under their published names; `None` if there are none of either split.
///
/// # Errors
///
/// [`DataError::NoSplit`] if there are only files of the other split.
pub(crate) fn files_in(folder: &Path, split: Split) -> Result<Option<(Variant, Vec<PathBuf>)>, DataError> {
    let batches =
        ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    for (variant, train, test) in
        [(Variant::Cifar10, &batches[..], "test_batch.bin"), (Variant::Cifar100, &["train.bin"], "test.bin")]
    {
        if let Some(files) = published_files(folder, split, train, test)? {
            return Ok(Some((variant, files)));
        }
    }
    Ok(None)
}

/// Those of the files of `split` that are in `folder`; `None` if there is no file of either split.
pub(crate) fn published_files(
    folder: &Path,
    split: Split,
    train: &[&str],
    test: &str,
) -> Result<Option<Vec<PathBuf>>, DataError> {
    let present = |names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
    };
    let (train_files, test_files) = (present(train), present(&[test]));
    if train_files.is_empty() && test_files.is_empty() {
        return Ok(None);
    }
    let files = match split {
        Split::Train => train_files,
        Split::Val => Vec::new(),
        Split::Test => test_files,
    };
    if files.is_empty() {
        return Err(DataError::NoSplit {
            path: folder.to_owned(),
            split,
            expected: match split {
                Split::Train => train.join(", "),
                Split::Val => "train or test, the splits that were published".to_owned(),
                Split::Test => test.to_owned(),
            },
            found: [train, &[test]]
                .concat()
                .into_iter()
                .filter(|name| folder.join(name).is_file())
                .collect::<Vec<_>>()
                .join(", "),
        });
    }
    Ok(Some(files))
}

/// The variant of a single file, by its length: the format has no magic number.
pub(crate) fn variant_of_file(path: &Path, length: u64) -> Option<Variant> {
    let records_of = |variant: Variant| length > 0 && length.is_multiple_of(variant.record_bytes() as u64);
    let is_bin = path.extension().is_some_and(|extension| extension == "bin");
    [Variant::Cifar10, Variant::Cifar100].into_iter().find(|variant| is_bin && records_of(*variant))
}

/// Reads `files` in order as one dataset. `path` is the path given by the user.
pub(crate) fn scan_files(
    path: &Path,
    variant: Variant,
    files: &[PathBuf],
    unreadable_images: UnreadableImages,
) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, variant.format());
    report.scanned_files = files.len();
    if variant == Variant::Cifar10 {
        note_missing_batches(path, files, &mut report);
    }
    let (mut chunks, mut labels, mut invalid, mut digest) =
        (Vec::new(), Vec::new(), Vec::new(), Digest::default());
    for file in files {
        let bytes = Bytes::map(file)?;
        let record_bytes = variant.record_bytes();
        if bytes.is_empty() || !bytes.len().is_multiple_of(record_bytes) {
            let problem = format!(
                "{} bytes are not a whole number of records of {record_bytes} (truncated?)",
                bytes.len()
            );
            return Err(DataError::invalid_file(file, problem));
        }
        for (record, stored) in bytes.chunks_exact(record_bytes).enumerate() {
            let label = stored[variant.label_bytes() - 1];
            if usize::from(label) >= variant.classes() {
                let problem = format!("label {label} is not one of the {} classes", variant.classes());
                if unreadable_images == UnreadableImages::Fail {
                    return Err(DataError::invalid_record(file, record, problem));
                }
                invalid.push((labels.len(), problem));
            }
            labels.push(u32::from(label));
        }
        digest.field(&bytes);
        let count = bytes.len() / record_bytes;
        chunks.push(Chunk {
            path: file.clone(),
            bytes,
            first: variant.label_bytes(),
            stride: record_bytes,
            count,
        });
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    Ok(Scan {
        labels: Some(labels),
        class_names: folder
            .and_then(|folder| class_names(&folder.join(variant.names_file()), variant.classes())),
        invalid,
        ..Scan::new(Source::Raw(RawImages::of_chunks(SHAPE, PixelOrder::Chw, chunks)?), report, digest.hex())
    })
}

/// Says that training batches are missing.
pub(crate) fn note_missing_batches(path: &Path, files: &[PathBuf], report: &mut ScanReport) {
    let is_test = files
        .iter()
        .any(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("test")));
    if path.is_dir() && !is_test && files.len() < 5 {
        report.notes.push(format!("only {} of the 5 training batches found", files.len()));
    }
}

/// Class names, one per line. They are optional: a missing or invalid file gives `None`.
fn class_names(path: &Path, classes: usize) -> Option<Vec<String>> {
    let text = String::from_utf8(read_bounded(path, MAX_NAMES_BYTES).ok()?).ok()?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (names.len() == classes).then_some(names)
}
