//! Packing: writes a dataset as a cache, which opens without decoding.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::Serialize;

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::partial_file::PartialFile;
use crate::readers::cache::{ALIGNMENT, Header, MAGIC, MAX_HEADER_BYTES, open};
use crate::report::Format;
use dcgan_base::digest::Digest;
use dcgan_base::files::{AtomicFile, Destination};

/// Images decoded in parallel before they are written.
const PACK_CHUNK: usize = 256;

/// The result of [`pack`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackReport {
    /// The cache file.
    pub path: PathBuf,
    /// Images in the cache.
    pub images: usize,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Whether an existing cache of the same files and transform was kept.
    pub up_to_date: bool,
}

/// Writes `dataset` to the cache file `out` and calls `progress` with the number of packed images.
///
/// The file appears only when it is complete; until then it has the ending `.partial`, and packing again resumes it. An
/// existing cache is kept if it is up to date, and replaced otherwise. Devices and pipes are written through, and `-`
/// is standard output.
///
/// # Errors
///
/// An image that cannot be read, a file that cannot be written, or an existing `out` that is not a cache.
pub fn pack(dataset: &Dataset, out: &Path, mut progress: impl FnMut(usize)) -> Result<PackReport, DataError> {
    let destination = Destination::of(out).map_err(DataError::write(out))?;
    let key = key_of(dataset)?;
    if let Destination::File(target) = &destination
        && target.exists()
    {
        let problem = "exists and is not a cache: choose another --out, or remove it";
        let (old, bytes, _) = open(out).map_err(|_| DataError::invalid_file(out, problem))?;
        if old.key == key {
            let bytes = bytes.len() as u64;
            return Ok(PackReport { path: out.to_owned(), images: old.images, bytes, up_to_date: true });
        }
    }
    let header = Header {
        shape: dataset.shape(),
        crop: dataset.transform().crop,
        background: dataset.transform().background,
        images: dataset.len(),
        labeled: dataset.labels().is_some(),
        class_names: dataset.class_names().map(<[String]>::to_vec),
        fingerprint: dataset.fingerprint().to_owned(),
        key,
        source: dataset.report().path.display().to_string(),
    };
    let head = head_of(out, &header)?;
    let mut sink = Sink::open(&destination, out, &head).map_err(DataError::write(out))?;
    let image_bytes = header.shape.bytes();
    let done = (sink.len() - head.len() as u64) / image_bytes as u64;
    let done = usize::try_from(done).unwrap_or(0).min(header.images);
    for first in (done..header.images).step_by(PACK_CHUNK) {
        let count = PACK_CHUNK.min(header.images - first);
        let mut pixels = vec![0; count * image_bytes];
        pixels
            .par_chunks_exact_mut(image_bytes)
            .enumerate()
            .try_for_each(|(i, image)| dataset.read(first + i, image))?;
        sink.append(&pixels).map_err(DataError::write(out))?;
        progress(first + count);
    }
    let labels: Vec<u8> =
        dataset.labels().unwrap_or_default().iter().flat_map(|label| label.to_le_bytes()).collect();
    let bytes = sink.len() + labels.len() as u64;
    sink.commit(&labels).map_err(DataError::write(out))?;
    Ok(PackReport { path: out.to_owned(), images: dataset.len(), bytes, up_to_date: false })
}

/// The header of a cache, up to the pixels.
fn head_of(out: &Path, header: &Header) -> Result<Vec<u8>, DataError> {
    let json = serde_json::to_vec(header).map_err(|error| DataError::invalid_file(out, error.to_string()))?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_HEADER_BYTES);
    let length =
        length.ok_or_else(|| DataError::invalid_file(out, "the class names are too long for a cache"))?;
    let mut head = [MAGIC, &length.to_le_bytes(), &json].concat();
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    Ok(head)
}

/// Where a cache is written to.
enum Sink {
    /// A file that is resumed after an interruption.
    Partial(PartialFile),
    /// A pipe or a device, or a file that another process packs at the same time, and its length.
    Atomic(AtomicFile, u64),
}

impl Sink {
    fn open(destination: &Destination, out: &Path, head: &[u8]) -> io::Result<Self> {
        if let Destination::File(target) = destination
            && let Some(file) = PartialFile::open(target, head)?
        {
            return Ok(Self::Partial(file));
        }
        let mut file = AtomicFile::create_per_process(out)?;
        file.write_all(head)?;
        Ok(Self::Atomic(file, head.len() as u64))
    }

    fn len(&self) -> u64 {
        match self {
            Self::Partial(file) => file.len(),
            Self::Atomic(_, length) => *length,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Partial(file) => file.append(bytes),
            Self::Atomic(file, length) => {
                *length += bytes.len() as u64;
                file.write_all(bytes)
            }
        }
    }

    /// Appends the end and completes the file.
    fn commit(self, end: &[u8]) -> io::Result<()> {
        match self {
            Self::Partial(file) => file.commit(end),
            Self::Atomic(mut file, _) => {
                file.write_all(end)?;
                file.commit()
            }
        }
    }
}

fn key_of(dataset: &Dataset) -> Result<String, DataError> {
    let mut digest = Digest::default();
    digest.field(dataset.fingerprint());
    // The embedded digits are no file.
    let is_embedded = dataset.report().format == Format::EmbeddedDigits;
    for path in dataset.files().filter(|_| !is_embedded) {
        let modified = std::fs::metadata(&path)
            .and_then(|metadata| metadata.modified())
            .map_err(DataError::io(&path))?;
        // The key only needs to change with the time, so a time before 1970 counts by its distance to 1970.
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_else(|before| before.duration());
        digest.field(since.as_nanos().to_le_bytes());
    }
    Ok(digest.hex())
}
