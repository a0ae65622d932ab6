//! Reader for a folder of images, scanned recursively in sorted order, or a single image.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::bytes::{file_time, gunzip_head, head, read_bounded};
use crate::encoded::{EncodedImages, Storage};
use crate::error::DataError;
use crate::journal::{Entry, Journal};
use crate::kind::{HEAD_BYTES, NOT_AN_IMAGE, describe, image_format, is_gzip};
use crate::names::Names;
use crate::options::{OpenOptions, UnreadableImages};
use crate::readers::labels::{LABEL_FILE, MAX_LABEL_FILE_BYTES, labels_of};
use crate::readers::splits;
use crate::report::{Format, ScanReport};
use crate::source::{Listing, Scan, Source};
use dcgan_base::digest::Digest;

/// File extensions of images. The format is still detected from the content.
const IMAGE_EXTENSIONS: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm",
    "pam",
];

/// Whether a name has the extension of an image.
pub(crate) fn has_image_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

/// Why a file that starts with `head` is not read; `None` if it is an image, possibly compressed with gzip.
pub(crate) fn not_an_image(head: &[u8]) -> Option<&'static str> {
    if image_format(head).is_some() {
        return None;
    }
    if is_gzip(head) {
        let inner = gunzip_head(head, HEAD_BYTES);
        return if image_format(&inner).is_some() { None } else { Some(GZIP) };
    }
    Some(describe(head).unwrap_or(NOT_AN_IMAGE))
}

const GZIP: &str = "gzip data that contains no image (unpack it first, with tar xf FILE or gunzip FILE)";

/// Scans the folder `root`. Images are sorted by path. `journal` records a long listing.
pub(crate) fn scan(
    root: &Path,
    options: &OpenOptions,
    journal: Option<&mut Journal>,
) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(root, Format::ImageFolder);
    let mut listing = Listing::default();
    let mut found = walk(root, options, journal, &mut report, &mut listing.watched)?.sorted();
    let chosen = splits::choose(root, &found.names, options.split, &mut report)?;
    if let Some(chosen) = &chosen {
        found = found.retain(&chosen.keep);
    }
    let (mut digest, mut modified) = (Digest::default(), Digest::default());
    rayon::join(
        || {
            found.names.iter().zip(&found.bytes).for_each(|(name, bytes)| {
                digest.field(name).number(*bytes);
            });
        },
        || {
            found.times.iter().for_each(|time| {
                modified.number(*time);
            });
        },
    );
    report.bytes = found.bytes.iter().sum();
    let label_path = root.join(LABEL_FILE);
    let mut label_file = None;
    if label_path.is_file() {
        label_file = Some(read_bounded(&label_path, MAX_LABEL_FILE_BYTES)?);
        listing.watched.push(label_path);
    }
    listing.stats = found.bytes.iter().copied().zip(found.times.iter().copied()).collect();
    digest.field(label_file.as_deref().unwrap_or_default());
    let ImageFiles { names, others, .. } = found;
    let (labels, class_names) = labels_of(root, &names, label_file.as_deref(), chosen.as_ref(), &mut report)?;
    let storage = Storage::Folder { others };
    Ok(Scan {
        labels,
        class_names,
        modified: modified.hex(),
        listing,
        ..Scan::new(
            Source::Encoded(EncodedImages { root: root.to_owned(), names, storage }),
            report,
            digest.hex(),
        )
    })
}

/// A dataset of the single image at `path`.
pub(crate) fn scan_single(path: &Path, bytes: u64) -> Result<Scan, DataError> {
    let mut report = ScanReport::new(path, Format::Image);
    report.scanned_files = 1;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let identity = Digest::default().field(&name).number(bytes).hex();
    let names = Names::from_iter([name]);
    Ok(Scan::new(
        Source::Encoded(EncodedImages { root: path.to_owned(), names, storage: Storage::File }),
        report,
        identity,
    ))
}

/// Time between two lines of the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Why a folder is skipped with unreadable images.
pub(crate) const UNREAD_FOLDER: &str = "a folder that cannot be read";

/// Entries of a folder that are recorded together.
const LISTED: usize = 1 << 14;

/// Entries that one thread looks at together.
const LOOKED_AT: usize = 256;

/// Folders that are listed ahead.
const FOLDERS_PER_THREAD: usize = 8;

/// Image files below a root.
#[derive(Default)]
struct ImageFiles {
    /// Paths below the root, with `/`.
    names: Names,
    /// Sizes of the files.
    bytes: Vec<u64>,
    /// Times of their last changes ([`file_time`]).
    times: Vec<u64>,
    /// Paths of the files whose name is not UTF-8.
    others: HashMap<usize, PathBuf>,
}

impl ImageFiles {
    fn push(&mut self, name: &str, (bytes, time): (u64, u64), other: Option<PathBuf>) {
        if let Some(path) = other {
            self.others.insert(self.names.len(), path);
        }
        self.names.push(name);
        self.bytes.push(bytes);
        self.times.push(time);
    }

    /// Those with the numbers `order`, in this order.
    fn select(mut self, order: impl Iterator<Item = usize>) -> Self {
        let mut selected = Self::default();
        for number in order {
            let name = self.names.get(number).unwrap_or_default();
            let of = |values: &[u64]| values.get(number).copied().unwrap_or(0);
            selected.push(name, (of(&self.bytes), of(&self.times)), self.others.remove(&number));
        }
        selected
    }

    fn sorted(self) -> Self {
        if self.names.is_sorted() {
            return self;
        }
        let order = self.names.sorted();
        self.select(order.into_iter().filter_map(|number| usize::try_from(number).ok()))
    }

    fn retain(self, keep: &[bool]) -> Self {
        self.select(keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(number, _)| number))
    }
}

/// The entries of a folder, sorted by name.
struct Listed {
    names: Vec<OsString>,
    kinds: Vec<Entry>,
}

/// All images below `root`, unsorted. Each folder is scanned once, so cycles of symbolic links end.
fn walk(
    root: &Path,
    options: &OpenOptions,
    journal: Option<&mut Journal>,
    report: &mut ScanReport,
    watched: &mut Vec<PathBuf>,
) -> Result<ImageFiles, DataError> {
    let journal = journal.map(Mutex::new);
    let (mut found, mut entered) = (ImageFiles::default(), HashSet::new());
    let mut folders = vec![(root.to_owned(), String::new())];
    // Folders are scanned in order, but listed in parallel before their turn.
    let mut ahead: HashMap<PathBuf, std::io::Result<Listed>> = HashMap::new();
    let (mut looked_at, mut reported) = (0, Instant::now());
    while let Some((folder, prefix)) = folders.pop() {
        let real = folder.canonicalize().map_err(DataError::io(&folder))?;
        watched.push(folder.clone());
        if !entered.insert(real) {
            report.skip("a folder that was already scanned (symbolic link)", prefix);
            continue;
        }
        let listed = ahead.remove(&folder).unwrap_or_else(|| {
            let next =
                &folders[folders.len().saturating_sub(FOLDERS_PER_THREAD * rayon::current_num_threads())..];
            let wanted = next.iter().filter(|(folder, _)| !ahead.contains_key(folder));
            let wanted: Vec<_> = wanted.map(|(folder, prefix)| (folder, prefix.as_str())).collect();
            let list = |(folder, prefix): (&PathBuf, &str)| list(folder, prefix, journal.as_ref());
            let (listed, others) = rayon::join(
                || list((&folder, &prefix)),
                || wanted.par_iter().map(|wanted| list(*wanted)).collect::<Vec<_>>(),
            );
            ahead.extend(wanted.iter().map(|(folder, _)| (*folder).clone()).zip(others));
            listed
        });
        let Listed { names, kinds } = match listed {
            Ok(listed) => listed,
            Err(error) if options.unreadable_images == UnreadableImages::Skip && !prefix.is_empty() => {
                report.skip(format!("{UNREAD_FOLDER} ({error})"), prefix);
                continue;
            }
            Err(error) => return Err(DataError::io(&folder)(error)),
        };
        looked_at += names.len();
        if reported.elapsed() >= REPORT_INTERVAL {
            reported = Instant::now();
            tracing::info!("{looked_at} files listed");
        }
        let mut inner = Vec::new();
        let mut name = prefix.clone();
        for (entry, kind) in names.iter().zip(kinds) {
            name.truncate(prefix.len());
            name.push_str(&entry.to_string_lossy());
            report.scanned_files +=
                usize::from(matches!(kind, Entry::Image(..) | Entry::LabelFile | Entry::Skipped(true, _)));
            match kind {
                Entry::Image(bytes, time) => {
                    // What is not UTF-8 was replaced by this character.
                    let is_other = name.contains(char::REPLACEMENT_CHARACTER);
                    found.push(&name, (bytes, time), is_other.then(|| folder.join(entry)));
                }
                Entry::Folder => inner.push((folder.join(entry), format!("{name}/"))),
                Entry::LabelFile => {}
                Entry::Skipped(_, reason) => report.skip(reason, name.clone()),
            }
        }
        // Reversed, because the stack pops the last folder first.
        folders.extend(inner.into_iter().rev());
    }
    Ok(found)
}

/// The entries of `folder`, whose path below the root is `prefix`; from the journal where it has them.
fn list(folder: &Path, prefix: &str, journal: Option<&Mutex<&mut Journal>>) -> std::io::Result<Listed> {
    let journal = journal.map(|journal| || journal.lock().unwrap_or_else(PoisonError::into_inner));
    let time = std::fs::metadata(folder).map_or(0, |metadata| file_time(&metadata));
    let mut entries = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| (entry.file_name(), entry)))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let mut kinds = Vec::with_capacity(entries.len());
    for part in entries.chunks(LISTED) {
        let key = journal.as_ref().map(|_| {
            let mut digest = Digest::default();
            digest.field(prefix).number(time);
            part.iter().for_each(|(name, _)| {
                digest.field(name.as_encoded_bytes());
            });
            digest.hex()
        });
        let recorded = key.as_ref().zip(journal.as_ref()).and_then(|(key, journal)| journal().take(key));
        if let Some(recorded) = recorded.filter(|recorded| recorded.len() == part.len()) {
            kinds.extend(recorded);
            continue;
        }
        // Most of the time is that of asking the system for the sizes.
        let look = |(name, entry): &(OsString, DirEntry)| kind_of(name, entry, prefix.is_empty());
        let looked: Vec<Entry> = part.par_iter().with_min_len(LOOKED_AT).map(look).collect();
        let is_long = journal.as_ref().is_some_and(|journal| journal().is_long());
        if let (true, Some(key), Some(journal)) = (is_long, &key, &journal) {
            // Threads wait for the file, not for the text.
            let line = Journal::line(key, &looked);
            journal().record(&line);
        }
        kinds.extend(looked);
    }
    Ok(Listed { names: entries.into_iter().map(|(name, _)| name).collect(), kinds })
}

fn skipped(is_file: bool, reason: &str) -> Entry {
    Entry::Skipped(is_file, reason.to_owned())
}

/// What an entry of a folder is; `is_top` below the root itself.
fn kind_of(name: &OsStr, entry: &DirEntry, is_top: bool) -> Entry {
    let name = name.to_string_lossy();
    if name.starts_with('.') {
        return skipped(false, "a hidden file or folder");
    }
    let metadata = match entry.file_type() {
        Ok(kind) if kind.is_dir() => return Entry::Folder,
        // The system looks the name up in the open folder, which takes less than a whole path.
        Ok(kind) if kind.is_file() => entry.metadata(),
        // Follows symbolic links; broken ones are skipped.
        _ => std::fs::metadata(entry.path()),
    };
    match metadata {
        Ok(metadata) if metadata.is_dir() => Entry::Folder,
        Ok(metadata) if metadata.is_file() => {
            if is_top && name == LABEL_FILE {
                return Entry::LabelFile;
            }
            if has_image_extension(&name) {
                return Entry::Image(metadata.len(), file_time(&metadata));
            }
            match head(&entry.path(), HEAD_BYTES).map(|head| not_an_image(&head)) {
                Ok(None) => Entry::Image(metadata.len(), file_time(&metadata)),
                Ok(Some(what)) => skipped(true, what),
                Err(_) => skipped(true, "a file that cannot be read"),
            }
        }
        Ok(_) => skipped(false, "neither a file nor a folder"),
        Err(_) => skipped(false, "a broken symbolic link, or no permission"),
    }
}
