//! The index of a large dataset: what a scan found, in a file, so that later openings read no folder and no archive.
//!
//! An index holds for as long as the folders and archives that were read keep their times, and a sample of the files of
//! a folder its sizes and times. It is written atomically. While a folder is listed, what is done is recorded in a file
//! beside it, from which an interrupted listing resumes.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::bytes::{Bytes, file_time};
use crate::encoded::{ByteRange, EncodedImages, Method, Shard, Storage, ZipEntry};
use crate::journal::Journal;
use crate::names::Names;
use crate::options::OpenOptions;
use crate::readers::folder::UNREAD_FOLDER;
use crate::report::ScanReport;
use crate::source::{Listing, Scan, Source};
use dcgan_base::digest::Digest;
use dcgan_base::files::AtomicFile;

/// Changes when the content of an index does.
const MAGIC: &[u8] = b"dcgan-index-1\n";

/// Maximum bytes of the description in an index.
const MAX_HEADER_BYTES: usize = 1 << 28;

/// Files of a folder whose size and time are compared.
const SAMPLE: usize = 1024;

/// A folder that changed less than this before it was listed may change again without another time.
const SETTLED: Duration = Duration::from_secs(2);

/// Where the index of a dataset is.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    /// The dataset as it was given.
    given: PathBuf,
    min_images: usize,
}

/// A file or folder, with its time and length.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Watched {
    path: PathBuf,
    time: u64,
    /// 0 for folders.
    length: u64,
}

/// The description in an index. It is followed by the columns: ends of names, labels, ranges or sizes and times, and
/// the text of the names.
#[derive(Serialize, Deserialize)]
struct Header {
    watched: Vec<Watched>,
    report: ScanReport,
    class_names: Option<Vec<String>>,
    identity: String,
    modified: String,
    root: PathBuf,
    /// The files of ranges, or the zip; none for a folder.
    shards: Option<Vec<PathBuf>>,
    is_zip: bool,
    images: usize,
    labeled: bool,
    text_bytes: usize,
}

impl Index {
    /// The index of `path` as `options` read it, if they have a folder for it.
    pub(crate) fn of(path: &Path, options: &OpenOptions) -> Option<Self> {
        let folder = options.index_folder.as_ref()?;
        let real = path.canonicalize().ok()?;
        let key = Digest::default()
            .field(real.as_os_str().as_encoded_bytes())
            .field(options.split.to_string())
            .hex();
        let file = folder.join(format!("{}.index", key.get(..32)?));
        Some(Self { path: file, given: path.to_owned(), min_images: options.index_from })
    }

    /// What is recorded of a listing that was interrupted.
    pub(crate) fn journal(&self) -> Journal {
        Journal::open(self.path.with_extension("partial"))
    }

    /// The scan that is recorded, if nothing has changed since.
    pub(crate) fn load(&self) -> Option<Scan> {
        let bytes = Bytes::map(&self.path).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|l| *l <= MAX_HEADER_BYTES)?;
        let (json, mut columns) = rest.split_at_checked(length)?;
        let header: Header = serde_json::from_slice(json).ok()?;
        let is_unchanged = |old: &Watched| Watched::of(&old.path).as_ref() == Some(old);
        if !header.watched.iter().all(is_unchanged) {
            return None;
        }
        let n = header.images;
        let mut take = |count: usize| {
            let (taken, left) = columns.split_at_checked(n.checked_mul(count)?)?;
            columns = left;
            Some(taken)
        };
        let ends = take(8)?.as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect();
        let labels = if header.labeled {
            Some(take(4)?.as_chunks::<4>().0.iter().map(|label| u32::from_le_bytes(*label)).collect())
        } else {
            None
        };
        let pairs = if header.is_zip { &[] } else { take(16)?.as_chunks::<16>().0 };
        let entries = if header.is_zip { take(ZIP_BYTES)?.as_chunks::<ZIP_BYTES>().0 } else { &[] };
        let text = columns.get(..header.text_bytes).filter(|text| text.len() == columns.len())?;
        let names = Names::from_parts(std::str::from_utf8(text).ok()?.to_owned(), ends)?;
        let pair = |bytes: &[u8; 16]| {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *bytes;
            (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
        };
        let storage = match &header.shards {
            None => {
                let is_same = |index: usize| {
                    let path = header.root.join(names.get(index)?);
                    let metadata = std::fs::metadata(path).ok()?;
                    ((metadata.len(), file_time(&metadata)) == pair(pairs.get(index)?)).then_some(())
                };
                let sample = SAMPLE.min(n);
                if !(0..sample).all(|i| is_same(i * n / sample).is_some()) {
                    return None;
                }
                Storage::Folder { others: HashMap::new() }
            }
            Some(_) if header.is_zip => Storage::Zip {
                bytes: Bytes::map(&header.root).ok()?,
                entries: entries.iter().map(zip_entry).collect(),
            },
            Some(shards) => {
                let shard =
                    |path: &PathBuf| Some(Shard { bytes: Bytes::map(path).ok()?, path: path.clone() });
                let range = |bytes: &[u8; 16]| {
                    let (offset, rest) = pair(bytes);
                    let length = u32::try_from(rest & u64::from(u32::MAX)).unwrap_or(0);
                    let shard = u32::try_from(rest >> 32).unwrap_or(u32::MAX);
                    ByteRange { offset, length, shard }
                };
                Storage::Ranges {
                    shards: shards.iter().map(shard).collect::<Option<_>>()?,
                    ranges: pairs.iter().map(range).collect(),
                }
            }
        };
        Some(Scan {
            source: Source::Encoded(EncodedImages { root: header.root, names, storage }),
            labels,
            class_names: header.class_names,
            invalid: Vec::new(),
            report: ScanReport { path: self.given.clone(), ..header.report },
            identity: header.identity,
            fingerprint: None,
            modified: header.modified,
            listing: Listing::default(),
        })
    }

    /// Records a scan of many images, and ends its journal, whose entries nothing compares with the files any more. A
    /// failure is no error: the next opening scans again.
    pub(crate) fn save(&self, scan: &Scan) {
        if scan.source.len() >= self.min_images {
            let _ = self.write(scan);
        }
        let _ = std::fs::remove_file(self.path.with_extension("partial"));
    }

    fn write(&self, scan: &Scan) -> Option<()> {
        let Source::Encoded(encoded) = &scan.source else { return None };
        // A folder that could not be read may be readable now.
        if !scan.invalid.is_empty()
            || scan.report.skipped.iter().any(|skipped| skipped.reason.starts_with(UNREAD_FOLDER))
        {
            return None;
        }
        let n = encoded.len();
        let mut pairs: Vec<u8> = Vec::with_capacity(16 * n);
        let shards = match &encoded.storage {
            Storage::Folder { others } if others.is_empty() && scan.listing.stats.len() == n => {
                for (size, time) in &scan.listing.stats {
                    pairs.extend(size.to_le_bytes());
                    pairs.extend(time.to_le_bytes());
                }
                None
            }
            Storage::Ranges { shards, ranges } => {
                for range in ranges {
                    pairs.extend(range.offset.to_le_bytes());
                    pairs.extend(range.length.to_le_bytes());
                    pairs.extend(range.shard.to_le_bytes());
                }
                Some(shards.iter().map(|shard| shard.path.clone()).collect::<Vec<_>>())
            }
            Storage::Zip { entries, .. } => {
                entries.iter().for_each(|entry| pairs.extend(zip_bytes(entry)));
                Some(vec![encoded.root.clone()])
            }
            _ => return None,
        };
        let is_zip = matches!(encoded.storage, Storage::Zip { .. });
        let mut paths = scan.listing.watched.clone();
        for file in shards.iter().flatten() {
            // A file that is added changes its folder.
            let folders = file.ancestors().skip(1).take_while(|folder| folder.starts_with(&encoded.root));
            paths.extend(folders.map(Path::to_owned));
            paths.push(file.clone());
        }
        paths.sort();
        paths.dedup();
        // Later openings may start from another folder.
        let absolute = |path: &PathBuf| std::path::absolute(path).ok();
        let watched = paths.iter().map(|path| Watched::of(&absolute(path)?)).collect::<Option<Vec<_>>>()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let settled = u64::try_from((now - SETTLED).as_nanos()).ok()?;
        if watched.iter().any(|watched| watched.length == 0 && watched.time > settled) {
            return None;
        }
        let (text, ends) = encoded.names.parts();
        let header = Header {
            watched,
            report: scan.report.clone(),
            class_names: scan.class_names.clone(),
            identity: scan.identity.clone(),
            modified: scan.modified.clone(),
            root: absolute(&encoded.root)?,
            shards: match &shards {
                Some(shards) => Some(shards.iter().map(absolute).collect::<Option<_>>()?),
                None => None,
            },
            is_zip,
            images: n,
            labeled: scan.labels.is_some(),
            text_bytes: text.len(),
        };
        let json = serde_json::to_vec(&header).ok().filter(|json| json.len() <= MAX_HEADER_BYTES)?;
        std::fs::create_dir_all(self.path.parent()?).ok()?;
        let mut file = AtomicFile::create_per_process(&self.path).ok()?;
        let mut write = |bytes: &[u8]| file.write_all(bytes).ok();
        write(MAGIC)?;
        write(&(json.len() as u64).to_le_bytes())?;
        write(&json)?;
        write(&ends.iter().flat_map(|end| end.to_le_bytes()).collect::<Vec<u8>>())?;
        if let Some(labels) = &scan.labels {
            write(&labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        write(&pairs)?;
        write(text.as_bytes())?;
        file.commit().ok()
    }
}

/// Bytes of an entry of a zip in an index.
const ZIP_BYTES: usize = 24;

fn zip_bytes(entry: &ZipEntry) -> [u8; ZIP_BYTES] {
    let mut bytes = [0; ZIP_BYTES];
    bytes[..8].copy_from_slice(&entry.header.to_le_bytes());
    bytes[8..12].copy_from_slice(&entry.compressed.to_le_bytes());
    bytes[12..16].copy_from_slice(&entry.size.to_le_bytes());
    bytes[16..20].copy_from_slice(&entry.crc.to_le_bytes());
    bytes[20] = match entry.method {
        Method::Stored => 0,
        Method::Deflated => 1,
        Method::Other => 2,
    };
    bytes
}

fn zip_entry(bytes: &[u8; ZIP_BYTES]) -> ZipEntry {
    let word = |at: usize| {
        bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    ZipEntry {
        header: u64::from(word(0)) | u64::from(word(4)) << 32,
        compressed: word(8),
        size: word(12),
        crc: word(16),
        method: match bytes[20] {
            0 => Method::Stored,
            1 => Method::Deflated,
            _ => Method::Other,
        },
    }
}

impl Watched {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let length = if metadata.is_dir() { 0 } else { metadata.len() };
        Some(Self { path: path.to_owned(), time: file_time(&metadata), length })
    }
}
