//! File contents, memory-mapped or on the heap, and reading with limits.
#![allow(unsafe_code, reason = "memory-mapping a file is unsafe; no other module of this crate does it")]

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use flate2::read::GzDecoder;
use memmap2::Mmap;

use crate::error::DataError;

/// Maximum inflated bytes of one file; the largest file of SVHN inflates to 1.6e9 bytes.
pub(crate) const MAX_INFLATED_BYTES: u64 = 2 << 30;

/// Maximum compression ratio of deflate (RFC 1951: 258 bytes from two bits). A larger declared size is invalid.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Read-only bytes of a file. Clones share them.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// On the heap.
    Heap(Arc<Vec<u8>>),
    /// Mapped from the file.
    Mapped(Arc<Mmap>),
    /// A range of a mapped file.
    Slice(Arc<Mmap>, Range<usize>),
}

impl Bytes {
    /// Memory-maps the regular file at `path`, which can be larger than RAM.
    ///
    /// # Errors
    /// The file is missing, cannot be opened, or is not a regular file.
    pub fn map(path: &Path) -> Result<Self, DataError> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(DataError::io(path))?.len();
        if length == 0 {
            return Ok(Vec::new().into());
        }
        // SAFETY: the map is private and only read. If another process truncates the file while it is mapped, reading
        // raises SIGBUS. That risk is accepted: datasets are not modified while they are read, and a copy of gigabytes
        // would be slower.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io(path))?;
        Ok(Self::Mapped(Arc::new(map)))
    }

    /// The `length` bytes of a mapped file at offset `start`; `None` if they are not within the file.
    pub(crate) fn slice(&self, start: usize, length: usize) -> Option<Self> {
        let range = start..start.checked_add(length)?;
        self.get(range.clone())?;
        match self {
            Self::Mapped(map) => Some(Self::Slice(Arc::clone(map), range)),
            _ => None,
        }
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
            Self::Slice(map, range) => map.get(range.clone()).unwrap_or_default(),
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Opens `path`. Pipes, devices and folders are errors, because reading them can block or never end.
pub(crate) fn open_regular(path: &Path) -> Result<File, DataError> {
    if !std::fs::metadata(path).map_err(DataError::io(path))?.is_file() {
        return Err(DataError::invalid_file(path, "is not a regular file"));
    }
    File::open(path).map_err(DataError::io(path))
}

/// A number that changes with the time of a file's last change, in nanoseconds; a time before 1970 counts by its
/// distance to 1970.
pub(crate) fn file_time(metadata: &Metadata) -> u64 {
    let Ok(time) = metadata.modified() else { return 0 };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_else(|before| before.duration());
    since.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(since.subsec_nanos()))
}

/// The first `count` bytes of a file, or all of a shorter one.
pub(crate) fn head(path: &Path, count: u64) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(count).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    Ok(bytes)
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let file = open_regular(path)?;
    let length = file.metadata().map_err(DataError::io(path))?.len();
    let too_large =
        |bytes| DataError::TooLarge { path: path.to_owned(), what: "a file".to_owned(), bytes, limit };
    if length > limit {
        return Err(too_large(length));
    }
    let mut bytes = Vec::new();
    // One byte over the limit detects a file that grew after its size was read.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Reads exactly `length` bytes, inflated from `compressed` bytes. Impossible lengths are errors before any memory is
/// allocated.
///
/// # Errors
///
/// A message without the file's name, which the caller adds.
pub(crate) fn read_inflated(from: &mut impl Read, length: u64, compressed: usize) -> Result<Vec<u8>, String> {
    if length > MAX_INFLATED_BYTES {
        return Err(format!("declares {length} bytes of data, the limit is {MAX_INFLATED_BYTES}"));
    }
    let possible = (compressed as u64).saturating_mul(MAX_DEFLATE_RATIO);
    if length > possible {
        return Err(format!(
            "declares {length} bytes of data, but {compressed} compressed bytes inflate to at most {possible}"
        ));
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(length).map_err(|_| "is too large for this machine".to_owned())?;
    bytes
        .try_reserve_exact(capacity)
        .map_err(|_| format!("needs {length} bytes of memory, which are not available"))?;
    from.take(length).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("is truncated: {error}"),
        _ => format!("is damaged: {error}"),
    })?;
    if bytes.len() < capacity {
        return Err(format!("is truncated: expected {length} bytes of data, found {}", bytes.len()));
    }
    Ok(bytes)
}

/// Inflates the first `count` bytes of a gzip stream, or as many as `compressed` contains.
pub(crate) fn gunzip_head(compressed: &[u8], count: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // `compressed` can be the start of a stream, which ends in an error after the data.
    let _ = GzDecoder::new(compressed).take(count).read_to_end(&mut bytes);
    bytes
}
