//! Datasets in several files that contain many images each: LMDB databases, tar archives, Parquet files.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::bytes::head;
use crate::error::DataError;
use crate::kind::{HEAD_BYTES, is_lmdb, is_parquet, is_tar};
use crate::readers::folder::has_image_extension;
use crate::report::ScanReport;
use crate::split::Split;

/// Name of the file of a database in its folder.
pub(crate) const LMDB_FILE: &str = "data.mdb";

/// Levels of folders below the root in which files are looked for: `default/train/0000.parquet`.
const MAX_LEVELS: usize = 2;

/// Entries of folders that are looked at.
const MAX_ENTRIES: usize = 1 << 14;

/// The format of files with many images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShardFormat {
    Lmdb,
    Parquet,
    Tar,
}

impl ShardFormat {
    /// The format of a file that starts with `head`.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        if is_lmdb(head) {
            Some(Self::Lmdb)
        } else if is_parquet(head) {
            Some(Self::Parquet)
        } else if is_tar(head) {
            Some(Self::Tar)
        } else {
            None
        }
    }

    /// The format of files with the extension of `path`.
    fn of_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "mdb" | "lmdb" => Some(Self::Lmdb),
            "parquet" => Some(Self::Parquet),
            "tar" => Some(Self::Tar),
            _ => None,
        }
    }
}

/// Shards of one format.
pub(crate) struct Found {
    pub(crate) format: ShardFormat,
    /// The files, sorted.
    pub(crate) files: Vec<PathBuf>,
    /// The folders that were listed, also those without shards.
    pub(crate) folders: Vec<PathBuf>,
}

/// The shards below `root`; `None` if there are none, or images beside them. Of several formats, the first in the order
/// of [`ShardFormat`]; Parquet files beside others must have a column of images, by `has_images`, since tools write
/// tables of captions and addresses beside tar archives. A folder or file with several names is read once.
///
/// # Errors
///
/// A folder that cannot be read.
pub(crate) fn find(root: &Path, has_images: impl Fn(&Path) -> bool) -> Result<Option<Found>, DataError> {
    let mut listed_folders = Vec::new();
    let mut found: BTreeMap<ShardFormat, Vec<PathBuf>> = BTreeMap::new();
    let (mut folders, mut entries) = (VecDeque::from([(root.to_owned(), 0)]), 0);
    let mut seen = BTreeSet::new();
    while let Some((folder, level)) = folders.pop_front() {
        if !std::fs::canonicalize(&folder).is_ok_and(|folder| seen.insert(folder)) && level > 0 {
            continue;
        }
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) if level == 0 => return Err(DataError::io(&folder)(error)),
            Err(_) => continue,
        };
        listed_folders.push(folder);
        // Names of a folder or file before links to it.
        let mut listed: Vec<_> = listed.filter_map(Result::ok).collect();
        listed.sort_by_cached_key(|entry| {
            (entry.file_type().is_ok_and(|kind| kind.is_symlink()), entry.file_name())
        });
        for entry in listed {
            entries += 1;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if has_image_extension(&name) || (entries > MAX_ENTRIES && found.is_empty()) {
                return Ok(None);
            }
            // A file without extension may be anything: only the few extensions are looked at.
            if let Some(format) = ShardFormat::of_extension(&path) {
                let file = if path.is_dir() { path.join(LMDB_FILE) } else { path };
                if file.is_file()
                    && ShardFormat::of(&head(&file, HEAD_BYTES)?) == Some(format)
                    && std::fs::canonicalize(&file).is_ok_and(|file| seen.insert(file))
                {
                    found.entry(format).or_default().push(file);
                }
            } else if level < MAX_LEVELS
                && entry.file_type().is_ok_and(|kind| !kind.is_file())
                && path.is_dir()
            {
                folders.push_back((path, level + 1));
            }
        }
    }
    if found.len() > 1
        && let Some(files) = found.get_mut(&ShardFormat::Parquet)
    {
        files.retain(|file| has_images(file));
    }
    found.retain(|_, files| !files.is_empty());
    Ok(found.pop_first().map(|(format, mut files)| {
        files.sort();
        Found { format, files, folders: listed_folders }
    }))
}

/// Those of `files` below `root` that have the images of `split`, by the words of their paths; all of them if no path
/// names a split, or if `root` is a file.
///
/// # Errors
///
/// [`DataError::NoSplit`] if paths name splits, but not this one.
pub(crate) fn of_split(
    root: &Path,
    files: Vec<PathBuf>,
    split: Split,
    report: &mut ScanReport,
) -> Result<Vec<PathBuf>, DataError> {
    if !root.is_dir() {
        return Ok(files);
    }
    let splits: Vec<Option<Split>> =
        files.iter().map(|file| words(&below(root, file)).find_map(Split::of_folder)).collect();
    let present: BTreeSet<Split> = splits.iter().flatten().copied().collect();
    if present.is_empty() {
        if split != Split::Train {
            report.notes.push(format!("no split names: all images are read, not only those of {split}"));
        }
        return Ok(files);
    }
    let read = match split {
        Split::Test if !present.contains(&Split::Test) && present.contains(&Split::Val) => Split::Val,
        split => split,
    };
    let count = files.len();
    let of_split = files.iter().zip(&splits).filter(|(_, split)| **split == Some(read));
    let chosen: Vec<PathBuf> = of_split.map(|(file, _)| file.clone()).collect();
    if chosen.is_empty() {
        return Err(DataError::NoSplit {
            path: root.to_owned(),
            split,
            expected: format!("files with {split} in their names"),
            found: present.iter().map(Split::to_string).collect::<Vec<_>>().join(", "),
        });
    }
    let instead =
        if read == split { String::new() } else { format!(" in place of {split}, which is missing") };
    report.notes.push(format!("split {read}{instead}: {} of {count} files, by their names", chosen.len()));
    Ok(chosen)
}

/// Path of `file` below `root`, with `/`. A single file has its own name.
pub(crate) fn below(root: &Path, file: &Path) -> String {
    let inner = file.strip_prefix(root).ok().filter(|inner| !inner.as_os_str().is_empty());
    let inner = inner.unwrap_or_else(|| Path::new(file.file_name().unwrap_or_default()));
    inner.to_string_lossy().replace('\\', "/")
}

/// Whether `name` is a relative path without `..`. Nothing is unpacked to such paths, but an archive that contains
/// others is malicious.
pub(crate) fn is_inside(name: &str) -> bool {
    !name.starts_with('/')
        && !name.contains('\0')
        && name.get(1..2) != Some(":")
        && name.split('/').all(|part| part != "..")
}

/// Whether a word of the path names a split.
pub(crate) fn names_split(path: &str) -> bool {
    words(path).any(|word| Split::of_folder(word).is_some())
}

/// The words of a path.
fn words(path: &str) -> impl Iterator<Item = &str> {
    path.split(['/', '-', '_', '.'])
}

/// The name of the class of a file or folder of its own, without the split and the format: `church_outdoor` for
/// `church_outdoor_train_lmdb`.
pub(crate) fn class_name(name: &str) -> String {
    let name = name.trim_end_matches(LMDB_FILE).trim_end_matches('/');
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = ["tar", "lmdb", "mdb"]
        .iter()
        .find_map(|extension| name.strip_suffix(extension)?.strip_suffix(['.', '_', '-']))
        .unwrap_or(name);
    let parts: Vec<&str> = name.split('_').filter(|part| Split::of_folder(part).is_none()).collect();
    if parts.is_empty() { name.to_owned() } else { parts.join("_") }
}

/// Whether the names are those of numbered parts of one dataset, such as `train-00001-of-00010.tar`.
pub(crate) fn are_numbered(names: &[String]) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_part = |name: &String| {
        let stem = name.rsplit('/').next().unwrap_or(name);
        let stem = stem.split('.').next().unwrap_or(stem);
        stem.split(['-', '_']).any(is_number)
    };
    names.iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_classes_and_parts() {
        for (name, class) in [
            ("church_outdoor_train_lmdb/data.mdb", "church_outdoor"),
            ("lsun/bedroom_val_lmdb/data.mdb", "bedroom"),
            ("n01440764.tar", "n01440764"),
            ("train.tar", "train"),
            ("cat.lmdb/data.mdb", "cat"),
        ] {
            assert_eq!(class_name(name), class, "{name}");
        }
        for (names, expected) in [
            (&["train-00000-of-00002.tar", "train-00001-of-00002.tar"][..], true),
            (&["000000.tar", "000001.tar"], true),
            (&["a/imagenet_0001.tar"], true),
            (&["n01440764.tar", "n01443537.tar"], false),
            (&["cat.tar", "dog.tar"], false),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(are_numbered(&names), expected, "{names:?}");
        }
    }
}
