//! CIFAR-10 and CIFAR-100, binary version (<https://www.cs.toronto.edu/~kriz/cifar.html>): records of one label byte
//! (CIFAR-100: coarse, then fine) and three planes of 32 x 32 bytes, without any header.

use std::path::{Path, PathBuf};

use crate::bytes::{Bytes, read_bounded};
use crate::error::DataError;
use crate::frames::{Chunk, Frames, PixelOrder};
use crate::options::{ImageShape, OnBad, Split};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;

const SHAPE: ImageShape = ImageShape { height: 32, width: 32, channels: 3 };
const PIXELS: usize = 3072;

/// Most bytes read of a file of class names.
const MAX_NAMES_BYTES: u64 = 1 << 20;

/// Which of the two datasets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cifar10,
    Cifar100,
}

impl Kind {
    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    fn record_bytes(self) -> usize {
        self.label_bytes() + PIXELS
    }

    fn classes(self) -> usize {
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

/// The files of `split` in a folder with the publisher's names.
pub(crate) fn files_in(folder: &Path, split: Split) -> Option<(Kind, Vec<PathBuf>)> {
    let present = |names: &[&str]| -> Vec<PathBuf> {
        names.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
    };
    let batches =
        ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
    let (ten, hundred): (&[&str], &[&str]) = match split {
        Split::Train => (&batches, &["train.bin"]),
        Split::Test => (&["test_batch.bin"], &["test.bin"]),
    };
    [(Kind::Cifar10, present(ten)), (Kind::Cifar100, present(hundred))]
        .into_iter()
        .find(|(_, files)| !files.is_empty())
}

/// What a single file can only be, going by its length: there is no mark in it.
pub(crate) fn kind_of_file(path: &Path, length: u64) -> Option<Kind> {
    let records_of = |kind: Kind| length > 0 && length.is_multiple_of(kind.record_bytes() as u64);
    let is_bin = path.extension().is_some_and(|extension| extension == "bin");
    [Kind::Cifar10, Kind::Cifar100].into_iter().find(|kind| is_bin && records_of(*kind))
}

/// Reads `files`, in their order, as one dataset; `path` is what the user named.
pub(crate) fn scan_files(
    path: &Path,
    kind: Kind,
    files: &[PathBuf],
    on_bad: OnBad,
) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, kind.format());
    report.scanned_files = files.len();
    if kind == Kind::Cifar10 && path.is_dir() && !matches!(files.len(), 1 | 5) {
        report.notes.push(format!("only {} of the 5 training batches are there", files.len()));
    }
    let (mut chunks, mut labels, mut bad, mut digest) =
        (Vec::new(), Vec::new(), Vec::new(), Digest::default());
    for file in files {
        let bytes = Bytes::map(file)?;
        let record_bytes = kind.record_bytes();
        if bytes.is_empty() || !bytes.len().is_multiple_of(record_bytes) {
            let problem = format!(
                "{} bytes are not a whole number of records of {record_bytes} (truncated?)",
                bytes.len()
            );
            return Err(DataError::bad_file(file, problem));
        }
        for (record, stored) in bytes.chunks_exact(record_bytes).enumerate() {
            let label = stored[kind.label_bytes() - 1];
            if usize::from(label) >= kind.classes() {
                let problem = format!("label {label} is not one of the {} classes", kind.classes());
                if on_bad == OnBad::Fail {
                    return Err(DataError::bad_record(file, record, problem));
                }
                bad.push((labels.len(), problem));
            }
            labels.push(u32::from(label));
        }
        digest.field(&bytes);
        let count = bytes.len() / record_bytes;
        chunks.push(Chunk {
            path: file.clone(),
            bytes,
            first: kind.label_bytes(),
            stride: record_bytes,
            count,
        });
    }
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    Ok(Scan {
        source: Source::Frames(Frames { shape: SHAPE, order: PixelOrder::Chw, chunks }.check()?),
        labels: Some(labels),
        class_names: folder.and_then(|folder| class_names(&folder.join(kind.names_file()), kind.classes())),
        bad,
        report,
        identity: digest.hex(),
        fingerprint: None,
    })
}

/// One name a line; names are a courtesy, so a missing or odd file gives none.
fn class_names(path: &Path, classes: usize) -> Option<Vec<String>> {
    let text = String::from_utf8(read_bounded(path, MAX_NAMES_BYTES).ok()?).ok()?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    (names.len() == classes).then_some(names)
}
