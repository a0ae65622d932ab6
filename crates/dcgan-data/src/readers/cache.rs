//! Reader for caches, which [`crate::pack()`] writes: transformed images in one memory-mapped file.
//!
//! Layout: [`MAGIC`], the header's length (u32, little-endian), the header (JSON), zeros up to a multiple of 64, the
//! pixels `(n, h, w, c)` u8, then the labels `(n,)` u32 (little-endian) if the dataset is labeled.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::background::Background;
use crate::bytes::{Bytes, head};
use crate::error::DataError;
use crate::options::OpenOptions;
use crate::raw::{Chunk, PixelOrder, RawImages};
use crate::report::{Format, ScanReport};
use crate::shape::ImageShape;
use crate::source::{Scan, Source};

/// The magic number of a cache.
pub(crate) const MAGIC: &[u8] = b"dcgan-pictures-1";

/// Maximum length of the header, which contains a few fields and the class names.
pub(crate) const MAX_HEADER_BYTES: u32 = 16 << 20;

/// The offset of the pixels is a multiple of this.
pub(crate) const ALIGNMENT: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    pub(crate) shape: ImageShape,
    pub(crate) crop: Option<usize>,
    /// Absent if it is black, so that earlier versions can read the cache.
    #[serde(default, skip_serializing_if = "is_black")]
    pub(crate) background: Background,
    /// In files of earlier versions `pictures`.
    #[serde(alias = "pictures")]
    pub(crate) images: usize,
    /// In files of earlier versions `labelled`.
    #[serde(alias = "labelled")]
    pub(crate) labeled: bool,
    pub(crate) class_names: Option<Vec<String>>,
    /// The fingerprint of the packed dataset.
    pub(crate) fingerprint: String,
    /// SHA-256 over the fingerprint and the modification times of the files. The cache is up to date while it matches.
    pub(crate) key: String,
    /// The path of the packed dataset, for information.
    pub(crate) source: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_black(background: &Background) -> bool {
    *background == Background::BLACK
}

/// The shape of the images of the cache at `path`; `None` if the file is not a cache.
///
/// # Errors
///
/// A cache that is damaged, or a file that cannot be read.
pub fn cache_shape(path: &Path) -> Result<Option<ImageShape>, DataError> {
    if !path.is_file() || !head(path, MAGIC.len() as u64)?.starts_with(MAGIC) {
        return Ok(None);
    }
    Ok(Some(open(path)?.0.shape))
}

/// Opens a cache if its shape, crop and background match `options`.
pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let (header, bytes, first) = open(path)?;
    let has_other_crop = options.crop.is_some_and(|crop| Some(crop) != header.crop);
    let has_other_background =
        options.background != Background::BLACK && options.background != header.background;
    if header.shape != options.shape || has_other_crop || has_other_background {
        return Err(DataError::CacheMismatch {
            path: path.to_owned(),
            expected: describe(options.shape, options.crop, options.background),
            found: describe(header.shape, header.crop, header.background),
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
        labels,
        class_names: header.class_names,
        fingerprint: Some(header.fingerprint),
        ..Scan::new(
            Source::Raw(RawImages::of_chunks(header.shape, PixelOrder::Hwc, vec![chunk])?),
            report,
            String::new(),
        )
    })
}

/// The header, the whole file, and the offset of the pixels. The length of the file is checked.
pub(crate) fn open(path: &Path) -> Result<(Header, Bytes, usize), DataError> {
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

fn describe(shape: ImageShape, crop: Option<usize>, background: Background) -> String {
    let crop = crop.map(|crop| format!("crop {crop}"));
    let background = (background != Background::BLACK).then(|| format!("background {background}"));
    let options: Vec<String> = [crop, background].into_iter().flatten().collect();
    if options.is_empty() { shape.to_string() } else { format!("{shape} ({})", options.join(", ")) }
}
