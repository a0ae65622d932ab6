//! Encoded images: files of a folder, entries of a zip, or byte ranges of files that contain many images.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::DeflateDecoder;
use rayon::prelude::*;
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use crate::block::Block;
use crate::bytes::{Bytes, head, read_bounded};
use crate::decode::{MAX_ENCODED_BYTES, is_color};
use crate::error::DataError;
use crate::names::Names;

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
    /// Paths below the root with `/`, or the keys of a database.
    pub(crate) names: Names,
    pub(crate) storage: Storage,
}

/// The location of the encoded bytes, one per name.
#[derive(Debug)]
pub(crate) enum Storage {
    /// The single file `root`.
    File,
    /// Files below `root`, at their names. Names that are not UTF-8 are replaced: these have a path.
    Folder { others: HashMap<usize, PathBuf> },
    /// Entries of the zip `root`.
    Zip { bytes: Bytes, entries: Vec<ZipEntry> },
    /// Byte ranges of files.
    Ranges { shards: Vec<Shard>, ranges: Vec<ByteRange> },
    /// Records of another format, which names them.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code, reason = "of formats that are features"))]
    Records(Box<dyn Records>),
}

/// Encoded images that have to be looked up in a format of its own.
pub(crate) trait Records: fmt::Debug + Send + Sync {
    fn len(&self) -> usize;

    /// The name of a record for reports.
    fn name(&self, index: usize) -> String;

    fn files(&self) -> Vec<PathBuf>;

    fn blocks(&self) -> Vec<Block>;

    /// The encoded bytes of one image, or a message without its name.
    fn read(&self, index: usize) -> Result<Vec<u8>, String>;
}

/// A file that contains many images.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
}

/// Where the bytes of an image are: 16 bytes an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange {
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) shard: u32,
}

/// Where an entry of a zip is: 24 bytes an image, where the directory of the archive takes some hundred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ZipEntry {
    /// Offset of its local header.
    pub(crate) header: u64,
    pub(crate) compressed: u32,
    pub(crate) size: u32,
    pub(crate) crc: u32,
    pub(crate) method: Method,
}

/// How an entry of a zip is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Stored,
    Deflated,
    /// A method that is not supported.
    Other,
}

impl ZipEntry {
    /// Bytes of a local header before the name, and its mark (APPNOTE.TXT 4.3.7).
    const HEADER_BYTES: usize = 30;
    const MARK: &[u8] = b"PK\x03\x04";

    /// Entry `index` of an archive.
    pub(crate) fn of(archive: &mut Archive, index: usize) -> Result<Self, String> {
        let file = archive.by_index_raw(index).map_err(|error| error.to_string())?;
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Ok(Self {
            header: file.header_start(),
            compressed: size(file.compressed_size()),
            size: size(file.size()),
            crc: file.crc32(),
            method: match file.compression() {
                CompressionMethod::Stored => Method::Stored,
                CompressionMethod::Deflated => Method::Deflated,
                _ => Method::Other,
            },
        })
    }

    /// The compressed bytes. Their start follows from the local header.
    fn compressed<'a>(&self, archive: &'a [u8]) -> Option<&'a [u8]> {
        let local = archive.get(usize::try_from(self.header).ok()?..)?;
        let header = local.get(..Self::HEADER_BYTES).filter(|header| header.starts_with(Self::MARK))?;
        let length = |at: usize| Some(usize::from(u16::from_le_bytes(*header.get(at..)?.first_chunk()?)));
        let start = Self::HEADER_BYTES + length(26)? + length(28)?;
        local.get(start..start.checked_add(usize::try_from(self.compressed).ok()?)?)
    }

    /// The content, whose size and checksum are compared.
    fn read<'a>(&self, archive: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
        let declared = u64::from(self.size);
        if declared > MAX_ENCODED_BYTES {
            return Err(format!("declares {declared} bytes, the limit is {MAX_ENCODED_BYTES}"));
        }
        let compressed =
            self.compressed(archive).ok_or("cannot be read from the zip: it is damaged there")?;
        let content = match self.method {
            Method::Stored => Cow::Borrowed(compressed),
            Method::Deflated => {
                let mut bytes = Vec::new();
                // One byte more than declared detects an entry that inflates to more.
                let read = DeflateDecoder::new(compressed).take(declared + 1).read_to_end(&mut bytes);
                read.map_err(|error| format!("cannot be inflated: {error}"))?;
                Cow::Owned(bytes)
            }
            Method::Other => {
                return Err("cannot be read from the zip: its compression method is not deflate".to_owned());
            }
        };
        if content.len() as u64 != declared {
            return Err(format!("inflates to more or fewer bytes than the declared {declared}"));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        if crc.sum() != self.crc {
            return Err("cannot be inflated: Invalid checksum".to_owned());
        }
        Ok(content)
    }

    /// The first `count` bytes of the content, or as many as can be inflated.
    fn head(&self, archive: &[u8], count: u64) -> Option<Vec<u8>> {
        let compressed = self.compressed(archive)?;
        let mut bytes = Vec::new();
        // A damaged entry gives what precedes the damage.
        let _ = match self.method {
            Method::Stored => compressed.take(count).read_to_end(&mut bytes),
            _ => DeflateDecoder::new(compressed).take(count).read_to_end(&mut bytes),
        };
        Some(bytes)
    }
}

impl EncodedImages {
    pub(crate) fn len(&self) -> usize {
        match &self.storage {
            Storage::Records(records) => records.len(),
            _ => self.names.len(),
        }
    }

    pub(crate) fn name(&self, index: usize) -> Cow<'_, str> {
        match &self.storage {
            Storage::Records(records) => Cow::Owned(records.name(index)),
            _ => Cow::Borrowed(self.names.get(index).unwrap_or("?")),
        }
    }

    pub(crate) fn invalid_record(&self, index: usize, problem: impl Into<String>) -> DataError {
        DataError::invalid_record(&self.root, self.name(index), problem)
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        match &self.storage {
            Storage::Records(records) => records.blocks(),
            _ => Vec::new(),
        }
    }

    /// Keeps the images `keep`, numbers in ascending order.
    pub(crate) fn select(&mut self, keep: &[usize]) {
        fn of<T: Copy>(all: &[T], keep: &[usize]) -> Vec<T> {
            keep.iter().filter_map(|index| all.get(*index).copied()).collect()
        }
        match &mut self.storage {
            Storage::File => {}
            Storage::Folder { others } => {
                let new = keep.iter().enumerate();
                *others = new.filter_map(|(new, old)| Some((new, others.remove(old)?))).collect();
            }
            Storage::Zip { entries, .. } => *entries = of(entries, keep),
            Storage::Ranges { ranges, .. } => *ranges = of(ranges, keep),
            Storage::Records(_) => return,
        }
        self.names = keep.iter().filter_map(|index| self.names.get(*index)).collect();
    }

    /// The path of image `index` of a folder.
    fn path(&self, index: usize, others: &HashMap<usize, PathBuf>) -> Option<PathBuf> {
        let name = self.names.get(index)?;
        Some(others.get(&index).cloned().unwrap_or_else(|| self.root.join(name)))
    }

    /// The files that contain the images.
    pub(crate) fn files(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        match &self.storage {
            Storage::Folder { others } => {
                Box::new((0..self.len()).filter_map(|index| self.path(index, others)))
            }
            Storage::File | Storage::Zip { .. } => Box::new(std::iter::once(self.root.clone())),
            Storage::Ranges { shards, .. } => Box::new(shards.iter().map(|shard| shard.path.clone())),
            Storage::Records(records) => Box::new(records.files().into_iter()),
        }
    }

    /// A number that changes with the content of an image: its size, in a zip with its CRC-32. 0 if it is missing.
    pub(crate) fn content(&self, index: usize) -> u64 {
        let length = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        match &self.storage {
            Storage::File => length(&self.root),
            Storage::Folder { others } => self.path(index, others).map_or(0, |path| length(&path)),
            Storage::Zip { entries, .. } => {
                entries.get(index).map_or(0, |entry| (u64::from(entry.crc) << 32) ^ u64::from(entry.size))
            }
            Storage::Ranges { ranges, .. } => ranges.get(index).map_or(0, |range| u64::from(range.length)),
            Storage::Records(records) => records.read(index).map_or(0, |bytes| bytes.len() as u64),
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
            Storage::File => head(&self.root, count).ok(),
            Storage::Folder { others } => head(&self.path(index, others)?, count).ok(),
            Storage::Zip { bytes, entries } => entries.get(index)?.head(bytes, count),
            Storage::Ranges { shards, ranges } => {
                let bytes = slice(shards, *ranges.get(index)?)?;
                Some(bytes.get(..usize::try_from(count).ok()?).unwrap_or(bytes).to_vec())
            }
            Storage::Records(records) => records.read(index).ok(),
        }
    }

    /// The encoded bytes of one image.
    pub(crate) fn read(&self, index: usize) -> Result<Cow<'_, [u8]>, DataError> {
        let missing = || DataError::IndexOutOfRange { index, len: self.len() };
        match &self.storage {
            Storage::File => read_bounded(&self.root, MAX_ENCODED_BYTES).map(Cow::Owned),
            Storage::Folder { others } => {
                let path = self.path(index, others).ok_or_else(missing)?;
                read_bounded(&path, MAX_ENCODED_BYTES).map(Cow::Owned)
            }
            Storage::Zip { bytes, entries } => {
                let entry = entries.get(index).ok_or_else(missing)?;
                entry.read(bytes).map_err(|problem| self.invalid_record(index, problem))
            }
            Storage::Ranges { shards, ranges } => {
                let range = *ranges.get(index).ok_or_else(missing)?;
                let bytes = slice(shards, range).filter(|bytes| bytes.len() as u64 <= MAX_ENCODED_BYTES);
                let problem = || {
                    let length = range.length;
                    format!("has {length} bytes, past the end of the file or above {MAX_ENCODED_BYTES}")
                };
                bytes.map(Cow::Borrowed).ok_or_else(|| self.invalid_record(index, problem()))
            }
            Storage::Records(records) => {
                records.read(index).map(Cow::Owned).map_err(|problem| self.invalid_record(index, problem))
            }
        }
    }
}

/// The bytes of an image in its shard.
fn slice(shards: &[Shard], range: ByteRange) -> Option<&[u8]> {
    let start = usize::try_from(range.offset).ok()?;
    let shard = shards.get(usize::try_from(range.shard).ok()?)?;
    shard.bytes.get(start..start.checked_add(usize::try_from(range.length).ok()?)?)
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
