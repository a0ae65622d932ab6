//! Encoded images: files of a folder, or entries of a zip.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use crate::bytes::{Bytes, head, read_bounded};
use crate::decode::{MAX_ENCODED_BYTES, is_color};
use crate::error::DataError;

/// Length of the prefix that usually contains a JPEG's frame header: a thumbnail before it has at most 64 KB.
const FRAME_HEADER_BYTES: u64 = 128 << 10;

/// Length of the prefix that contains a PNG's header.
const SHORT_BYTES: u64 = 32;

/// A memory-mapped zip. Clones share the directory and the bytes, so each read uses its own clone.
pub(crate) type Archive = ZipArchive<Cursor<Bytes>>;

/// Encoded images in a fixed order.
#[derive(Debug)]
pub(crate) struct EncodedImages {
    /// The folder, zip or single file.
    pub(crate) root: PathBuf,
    /// Paths below the root with `/`, sorted.
    pub(crate) names: Vec<String>,
    pub(crate) storage: Storage,
}

/// The location of the encoded bytes, one per name.
#[derive(Debug)]
pub(crate) enum Storage {
    Folder(Vec<PathBuf>),
    Zip { archive: Archive, entries: Vec<usize> },
}

impl EncodedImages {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("?", String::as_str)
    }

    pub(crate) fn invalid_record(&self, index: usize, problem: impl Into<String>) -> DataError {
        DataError::invalid_record(&self.root, self.name(index), problem)
    }

    /// A number that changes with the content of an image: its size, in a zip with its CRC-32. 0 if it is missing.
    pub(crate) fn content(&self, index: usize) -> u64 {
        match &self.storage {
            Storage::Folder(paths) => {
                paths.get(index).and_then(|path| std::fs::metadata(path).ok()).map_or(0, |file| file.len())
            }
            Storage::Zip { archive, entries } => {
                let entry = entries.get(index).and_then(|entry| archive.by_index_data(*entry).ok());
                entry.map_or(0, |entry| (u64::from(entry.crc32()) << 32) ^ entry.size())
            }
        }
    }

    /// Whether any image is a PNG, JPEG or WebP image with color, by the images' headers. Unreadable images count as
    /// grey.
    pub(crate) fn has_color(&self) -> bool {
        let has_color = |index: usize| {
            let short = is_color(&self.head(index, SHORT_BYTES)?);
            let frame = || is_color(&self.head(index, FRAME_HEADER_BYTES)?);
            short.or_else(frame).or_else(|| is_color(&self.read(index).ok()?))
        };
        (0..self.len()).into_par_iter().any(|index| has_color(index) == Some(true))
    }

    /// The first `count` bytes of one image.
    fn head(&self, index: usize, count: u64) -> Option<Vec<u8>> {
        match &self.storage {
            Storage::Folder(paths) => head(paths.get(index)?, count).ok(),
            Storage::Zip { archive, entries } => read_entry_head(archive, *entries.get(index)?, count),
        }
    }

    /// The encoded bytes of one image.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let missing = || DataError::IndexOutOfRange { index, len: self.len() };
        match &self.storage {
            Storage::Folder(paths) => read_bounded(paths.get(index).ok_or_else(missing)?, MAX_ENCODED_BYTES),
            Storage::Zip { archive, entries } => {
                let entry = *entries.get(index).ok_or_else(missing)?;
                read_entry(archive, entry, MAX_ENCODED_BYTES)
                    .map_err(|problem| self.invalid_record(index, problem))
            }
        }
    }
}

/// Inflates a zip entry of at most `limit` bytes. The limit holds for the declared and the actual size.
///
/// # Errors
///
/// A message without the entry's name, which the caller adds.
pub(crate) fn read_entry(archive: &Archive, entry: usize, limit: u64) -> Result<Vec<u8>, String> {
    let mut archive = archive.clone();
    let file = archive.by_index(entry).map_err(|error| format!("cannot be read from the zip: {error}"))?;
    let declared = file.size();
    if declared > limit {
        return Err(format!("declares {declared} bytes, the limit is {limit}"));
    }
    let mut bytes = Vec::new();
    // One byte more than declared detects an entry that inflates to more.
    file.take(declared + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be inflated: {error}"))?;
    if bytes.len() as u64 != declared {
        return Err(format!("inflates to more or fewer bytes than the declared {declared}"));
    }
    Ok(bytes)
}

/// The first `count` bytes of a zip entry, or as many as can be inflated.
pub(crate) fn read_entry_head(archive: &Archive, entry: usize, count: u64) -> Option<Vec<u8>> {
    let mut archive = archive.clone();
    let file = archive.by_index(entry).ok()?;
    let mut bytes = Vec::new();
    // A damaged entry gives what precedes the damage.
    let _ = file.take(count).read_to_end(&mut bytes);
    Some(bytes)
}

/// Opens the zip at `path`.
pub(crate) fn open_zip(path: &Path) -> Result<Archive, DataError> {
    let bytes = Bytes::map(path)?;
    // Detection of bytes before the archive goes wrong in an archive with a zip64 record whose first header happens to
    // be as long as the two records at the end: names of 30 bytes. So it is only tried second.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    ZipArchive::with_config(config, Cursor::new(bytes.clone()))
        .or_else(|_| ZipArchive::new(Cursor::new(bytes)))
        .map_err(|error| DataError::invalid_file(path, format!("is a damaged zip: {error}")))
}
