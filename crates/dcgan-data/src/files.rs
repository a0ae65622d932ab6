//! Encoded images, each a file of a folder or an entry of a zip.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use crate::bytes::{Bytes, read_bounded};
use crate::error::DataError;

/// Most bytes that one encoded image is read or inflated to.
pub(crate) const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// A zip in memory; a clone shares the directory and the bytes, so every thread reads with its own.
pub(crate) type Archive = ZipArchive<Cursor<Bytes>>;

/// Encoded images in a fixed order.
#[derive(Debug)]
pub(crate) struct Files {
    /// The folder, zip or single file.
    pub(crate) root: PathBuf,
    /// Paths below the root with `/`, sorted.
    pub(crate) names: Vec<String>,
    pub(crate) store: Store,
}

/// Where the bytes of an image are; one entry for each name.
#[derive(Debug)]
pub(crate) enum Store {
    Folder(Vec<PathBuf>),
    Zip { archive: Archive, entries: Vec<usize> },
}

impl Files {
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("?", String::as_str)
    }

    pub(crate) fn bad_record(&self, index: usize, problem: impl Into<String>) -> DataError {
        DataError::bad_record(&self.root, self.name(index), problem)
    }

    /// The encoded bytes of one image.
    pub(crate) fn encoded(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let missing = || DataError::NoSuchImage { index, len: self.len() };
        match &self.store {
            Store::Folder(paths) => read_bounded(paths.get(index).ok_or_else(missing)?, MAX_ENCODED_BYTES),
            Store::Zip { archive, entries } => {
                let entry = *entries.get(index).ok_or_else(missing)?;
                read_entry(archive, entry, MAX_ENCODED_BYTES)
                    .map_err(|problem| self.bad_record(index, problem))
            }
        }
    }
}

/// Inflates a zip entry of at most `limit` bytes; the limit holds whatever the entry claims.
pub(crate) fn read_entry(archive: &Archive, entry: usize, limit: u64) -> Result<Vec<u8>, String> {
    let mut archive = archive.clone();
    let file = archive.by_index(entry).map_err(|error| format!("cannot be read from the zip: {error}"))?;
    let claimed = file.size();
    if claimed > limit {
        return Err(format!("claims {claimed} bytes, the limit is {limit}"));
    }
    let mut bytes = Vec::new();
    // One byte more than claimed shows an entry that inflates further than it says.
    file.take(claimed + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be inflated: {error}"))?;
    if bytes.len() as u64 != claimed {
        return Err(format!("inflates to more or fewer bytes than the {claimed} it claims"));
    }
    Ok(bytes)
}

/// Opens the zip at `path`.
pub(crate) fn open_zip(path: &Path) -> Result<Archive, DataError> {
    ZipArchive::new(Cursor::new(Bytes::map(path)?))
        .map_err(|error| DataError::bad_file(path, format!("is a damaged zip: {error}")))
}
