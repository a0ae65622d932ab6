//! The cache: transformed images in one file, which is memory-mapped when it is opened.
//!
//! Layout: [`MAGIC`], the header's length (u32, little-endian), the header (JSON), zeros up to a multiple of 64, the
//! pixels `(n, h, w, c)` u8, then the labels `(n,)` u32 (little-endian) if the dataset is labeled.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, head};
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::frames::{Chunk, Frames, PixelOrder};
use crate::options::{ImageShape, OpenOptions};
use crate::report::{Format, ScanReport};
use crate::source::{Scan, Source};
use dcgan_base::digest::Digest;
use dcgan_base::files::AtomicFile;

/// The magic number of a cache.
pub(crate) const MAGIC: &[u8] = b"dcgan-pictures-1";

/// Maximum length of the header, which contains a few fields and the class names.
const MAX_HEADER_BYTES: u32 = 16 << 20;

/// The offset of the pixels is a multiple of this.
const ALIGNMENT: usize = 64;

/// Images decoded in parallel before they are written.
const PACK_CHUNK: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    shape: ImageShape,
    crop: Option<usize>,
    /// Earlier versions wrote `pictures`.
    #[serde(alias = "pictures")]
    images: usize,
    /// Earlier versions wrote `labelled`.
    #[serde(alias = "labelled")]
    labeled: bool,
    class_names: Option<Vec<String>>,
    /// The fingerprint of the packed dataset.
    fingerprint: String,
    /// SHA-256 over the fingerprint and the modification times of the files. The cache is up to date while it matches.
    key: String,
    /// The path of the packed dataset, for information.
    source: String,
}

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
/// The file appears only when it is complete. An existing cache is kept if it is up to date, and replaced otherwise.
///
/// # Errors
///
/// An image that cannot be read, a file that cannot be written, or an existing `out` that is not a cache.
pub fn pack(dataset: &Dataset, out: &Path, mut progress: impl FnMut(usize)) -> Result<PackReport, DataError> {
    let key = key_of(dataset)?;
    if out.exists() {
        let problem = "exists and is not a cache: choose another --out, or remove it";
        let (old, bytes, _) = open(out).map_err(|_| DataError::invalid_file(out, problem))?;
        if old.key == key {
            let bytes = bytes.len() as u64;
            return Ok(PackReport { path: out.to_owned(), images: old.images, bytes, up_to_date: true });
        }
    }
    let header = Header {
        shape: dataset.shape(),
        crop: dataset.crop(),
        images: dataset.len(),
        labeled: dataset.labels().is_some(),
        class_names: dataset.class_names().map(<[String]>::to_vec),
        fingerprint: dataset.fingerprint().to_owned(),
        key,
        source: dataset.report().path.display().to_string(),
    };
    // Per process: two commands can pack to the same path at the same time.
    let file = AtomicFile::create_per_process(out).map_err(DataError::write(out))?;
    write(dataset, &header, file, &mut progress)?;
    let bytes = std::fs::metadata(out).map_err(DataError::io(out))?.len();
    Ok(PackReport { path: out.to_owned(), images: dataset.len(), bytes, up_to_date: false })
}

fn write(
    dataset: &Dataset,
    header: &Header,
    mut file: AtomicFile,
    progress: &mut impl FnMut(usize),
) -> Result<(), DataError> {
    let out = file.path().to_owned();
    let json =
        serde_json::to_vec(header).map_err(|error| DataError::invalid_file(&out, error.to_string()))?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_HEADER_BYTES);
    let length =
        length.ok_or_else(|| DataError::invalid_file(&out, "the class names are too long for a cache"))?;
    let mut head = [MAGIC, &length.to_le_bytes(), &json].concat();
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    file.write_all(&head).map_err(DataError::write(&out))?;
    let image_bytes = header.shape.bytes();
    for first in (0..header.images).step_by(PACK_CHUNK) {
        let count = PACK_CHUNK.min(header.images - first);
        let mut pixels = vec![0; count * image_bytes];
        pixels
            .par_chunks_exact_mut(image_bytes)
            .enumerate()
            .try_for_each(|(i, image)| dataset.read(first + i, image))?;
        file.write_all(&pixels).map_err(DataError::write(&out))?;
        progress(first + count);
    }
    for label in dataset.labels().unwrap_or_default() {
        file.write_all(&label.to_le_bytes()).map_err(DataError::write(&out))?;
    }
    file.commit().map_err(DataError::write(&out))
}

fn key_of(dataset: &Dataset) -> Result<String, DataError> {
    let mut digest = Digest::default();
    digest.field(dataset.fingerprint());
    for path in dataset.files() {
        let modified =
            std::fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(DataError::io(path))?;
        // The key only needs to change with the time, so a time before 1970 counts by its distance to 1970.
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_else(|before| before.duration());
        digest.field(since.as_nanos().to_le_bytes());
    }
    Ok(digest.hex())
}

/// Opens a cache if its shape and crop match `options`.
pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let (header, bytes, first) = open(path)?;
    if header.shape != options.shape || options.crop.is_some_and(|crop| Some(crop) != header.crop) {
        return Err(DataError::CacheMismatch {
            path: path.to_owned(),
            expected: describe(options.shape, options.crop),
            found: describe(header.shape, header.crop),
        });
    }
    let mut report = ScanReport::new(path, Format::Cache);
    report.scanned_files = 1;
    report.notes.push(format!("packed from {}", header.source));
    let labels = header.labeled.then(|| {
        let (labels, _) = bytes[first + header.images * header.shape.bytes()..].as_chunks::<4>();
        labels.iter().map(|label| u32::from_le_bytes(*label)).collect()
    });
    let (stride, count) = (header.shape.bytes(), header.images);
    let chunk = Chunk { path: path.to_owned(), bytes, first, stride, count };
    Ok(Scan {
        source: Source::Frames(
            Frames { shape: header.shape, order: PixelOrder::Hwc, chunks: vec![chunk] }.check()?,
        ),
        labels,
        class_names: header.class_names,
        invalid: Vec::new(),
        report,
        identity: String::new(),
        fingerprint: Some(header.fingerprint),
    })
}

/// The header, the whole file, and the offset of the pixels. The length of the file is checked.
fn open(path: &Path) -> Result<(Header, Bytes, usize), DataError> {
    let invalid = |problem: String| DataError::invalid_file(path, problem);
    let prefix = MAGIC.len() + 4;
    let start = head(path, prefix as u64)?;
    let Some((MAGIC, &[a, b, c, d])) = start.split_at_checked(MAGIC.len()) else {
        return Err(invalid("is not a cache, or is truncated before its header".to_owned()));
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > MAX_HEADER_BYTES {
        return Err(invalid(format!("declares a header of {length} bytes, the limit is {MAX_HEADER_BYTES}")));
    }
    let header_end = prefix + usize::try_from(length).map_err(|error| invalid(error.to_string()))?;
    let bytes = Bytes::map(path)?;
    let json =
        bytes.get(prefix..header_end).ok_or_else(|| invalid("is truncated in its header".to_owned()))?;
    let header: Header =
        serde_json::from_slice(json).map_err(|error| invalid(format!("has a damaged header: {error}")))?;
    header.shape.check()?;
    let first = header_end.next_multiple_of(ALIGNMENT);
    let label_bytes = if header.labeled { 4 } else { 0 };
    let data = header.images.checked_mul(header.shape.bytes() + label_bytes);
    match data.and_then(|data| data.checked_add(first)) {
        Some(expected) if expected == bytes.len() => Ok((header, bytes, first)),
        Some(expected) => {
            Err(invalid(format!("is truncated or damaged: expected {expected} bytes, found {}", bytes.len())))
        }
        None => Err(invalid(format!("declares an invalid number of images: {}", header.images))),
    }
}

fn describe(shape: ImageShape, crop: Option<usize>) -> String {
    crop.map_or_else(|| shape.to_string(), |crop| format!("{shape} (crop {crop})"))
}
