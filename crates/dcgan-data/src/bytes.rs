//! File contents: mapped, inflated on the heap, or compiled in; and bounded reading.
#![allow(unsafe_code, reason = "memory-mapping a file is unsafe; this is the crate's only place that does")]

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use memmap2::Mmap;

use crate::error::DataError;

/// Most bytes that one file is inflated to: SVHN's largest part takes 1.6e9.
pub(crate) const MAX_INFLATED: u64 = 2 << 30;

/// Deflate cannot expand further than this (RFC 1951: 258 bytes from two bits), so larger claims are lies.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Read-only bytes of a file; a clone shares them.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// On the heap.
    Heap(Arc<Vec<u8>>),
    /// Mapped from the file.
    Mapped(Arc<Mmap>),
}

impl Bytes {
    /// Maps the regular file at `path`, so that one larger than memory can be read.
    ///
    /// # Errors
    /// A file that is absent or cannot be opened; one that is not regular.
    pub fn map(path: &Path) -> Result<Self, DataError> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(DataError::io(path))?.len();
        if length == 0 {
            return Ok(Vec::new().into());
        }
        // SAFETY: the map is private and only read. Another process that truncates the file while it is mapped ends
        // this one by a signal; datasets are not written to while they are read, and that is worse than no copy of
        // gigabytes only for files that are.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io(path))?;
        Ok(Self::Mapped(Arc::new(map)))
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Heap(Arc::new(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Opens `path` and refuses pipes, devices and folders, which would block or never end.
pub(crate) fn open_regular(path: &Path) -> Result<File, DataError> {
    if !std::fs::metadata(path).map_err(DataError::io(path))?.is_file() {
        return Err(DataError::bad_file(path, "is not a regular file"));
    }
    File::open(path).map_err(DataError::io(path))
}

/// The first `count` bytes of a file, or all of a shorter one.
pub(crate) fn head(path: &Path, count: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(count).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    Ok(bytes)
}

/// A whole file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let file = open_regular(path)?;
    let length = file.metadata().map_err(DataError::io(path))?.len();
    let too_large =
        |bytes| DataError::TooLarge { path: path.to_owned(), what: "a file".to_owned(), bytes, limit };
    if length > limit {
        return Err(too_large(length));
    }
    let mut bytes = Vec::new();
    // One byte over the limit shows a file that grew since its size was asked for.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Reads exactly `length` inflated bytes that come from `compressed` bytes, refusing claims that cannot be true before
/// any memory is taken.
///
/// # Errors
///
/// A sentence for the caller to put beside the file's name.
pub(crate) fn read_inflated(from: &mut impl Read, length: u64, compressed: usize) -> Result<Vec<u8>, String> {
    if length > MAX_INFLATED {
        return Err(format!("claims {length} bytes of data, the limit is {MAX_INFLATED}"));
    }
    let possible = (compressed as u64).saturating_mul(MAX_DEFLATE_RATIO);
    if length > possible {
        return Err(format!(
            "claims {length} bytes of data, its {compressed} compressed bytes can hold {possible} at most"
        ));
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(length).map_err(|_| "is too large for this machine".to_owned())?;
    bytes
        .try_reserve_exact(capacity)
        .map_err(|_| format!("needs {length} bytes of memory, which are not there"))?;
    from.take(length).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("is truncated: {error}"),
        _ => format!("is damaged: {error}"),
    })?;
    if bytes.len() < capacity {
        return Err(format!("is truncated: {length} bytes of data expected, {} found", bytes.len()));
    }
    Ok(bytes)
}

/// Inflates the first `count` bytes of a gzip stream, or fewer when it ends before.
pub(crate) fn gunzip_head(compressed: &[u8], count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    GzDecoder::new(compressed).take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}
