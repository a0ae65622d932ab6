//! The manifests of `datasets/`, compiled in: which files a dataset has, and their SHA-256 where it is known.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bytes::open_regular;
use crate::error::DataError;
use dcgan_base::digest::hex;

static MANIFESTS: [(&str, &str); 7] = [
    ("mnist.toml", include_str!("../../../datasets/mnist.toml")),
    ("digits.toml", include_str!("../../../datasets/digits.toml")),
    ("cifar10.toml", include_str!("../../../datasets/cifar10.toml")),
    ("cifar100.toml", include_str!("../../../datasets/cifar100.toml")),
    ("svhn.toml", include_str!("../../../datasets/svhn.toml")),
    ("celeba.toml", include_str!("../../../datasets/celeba.toml")),
    ("lsun.toml", include_str!("../../../datasets/lsun.toml")),
];

/// A dataset as its publisher hands it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its usual name.
    pub name: String,
    /// What may be done with it, in words.
    pub license: String,
    /// The publisher's page.
    pub homepage: String,
    /// Where to get the files and how to lay them out.
    pub get: String,
    /// Which parts there are and how large they are.
    pub splits: String,
    /// Its files.
    pub files: Vec<FileEntry>,
}

/// One file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// Its size in bytes, where it is known.
    pub bytes: Option<u64>,
    /// SHA-256 of the file, where it is known.
    pub sha256: Option<String>,
    /// For a .gz file, SHA-256 of what is in it, where it is known: many mirrors compress anew.
    pub content_sha256: Option<String>,
}

/// What became of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The bytes are the publisher's.
    Ok,
    /// A .gz file was compressed anew; what is in it is the publisher's.
    OkContent,
    /// The bytes are others.
    Differs,
    /// There is no such file.
    Missing,
    /// The file is there, and its hash is not in the manifest.
    NotRecorded,
}

/// A file and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The name in the manifest.
    pub file: String,
    /// What became of it.
    pub finding: Finding,
    /// SHA-256 of the file that is there.
    pub sha256: Option<String>,
}

/// All manifests.
///
/// # Errors
///
/// A manifest that is not understood: a defect of this program, which its tests exclude.
pub fn manifests() -> Result<Vec<Manifest>, DataError> {
    let parse = |(file, text): &(&str, &str)| {
        toml::from_str(text).map_err(|error| DataError::bad_file(Path::new(file), error.to_string()))
    };
    MANIFESTS.iter().map(parse).collect()
}

/// Compares the files at `path`, a folder or one file, with the manifest that shares most file names with it.
///
/// # Errors
///
/// A path that cannot be read, or that has no file of any manifest.
pub fn verify(path: &Path) -> Result<(Manifest, Vec<Verified>), DataError> {
    std::fs::metadata(path).map_err(DataError::io(path))?;
    let known = manifests()?;
    let names: Vec<String> = known.iter().map(|manifest| manifest.name.clone()).collect();
    let present =
        |manifest: &Manifest| manifest.files.iter().filter(|entry| locate(path, entry).is_some()).count();
    let best =
        known.into_iter().map(|manifest| (present(&manifest), manifest)).filter(|(present, _)| *present > 0);
    // Of equals the first counts, so that the order of `MANIFESTS` decides.
    let best = best.reduce(|best, next| if next.0 > best.0 { next } else { best });
    let Some((_, mut manifest)) = best else {
        return Err(DataError::NoManifest { path: path.to_owned(), known: names.join("; ") });
    };
    if path.is_file() {
        manifest.files.retain(|entry| locate(path, entry).is_some());
    }
    let verified = manifest.files.iter().map(|entry| check(path, entry)).collect::<Result<_, _>>()?;
    Ok((manifest, verified))
}

/// The file of `entry`: in the folder `path`, or `path` itself; a .gz file may lie there unpacked.
fn locate(path: &Path, entry: &FileEntry) -> Option<PathBuf> {
    let unpacked = entry.name.strip_suffix(".gz").filter(|_| entry.content_sha256.is_some());
    let mut names = [Some(entry.name.as_str()), unpacked].into_iter().flatten();
    if path.is_dir() {
        names.map(|name| path.join(name)).find(|file| file.is_file())
    } else {
        names.any(|name| path.file_name().is_some_and(|file| file == name)).then(|| path.to_owned())
    }
}

fn check(path: &Path, entry: &FileEntry) -> Result<Verified, DataError> {
    let Some(file) = locate(path, entry) else {
        return Ok(Verified { file: entry.name.clone(), finding: Finding::Missing, sha256: None });
    };
    let found = sha256(open_regular(&file)?).map_err(DataError::io(&file))?;
    let is = |recorded: &Option<String>, found: &str| recorded.as_deref() == Some(found);
    let finding = if is(&entry.sha256, &found) {
        Finding::Ok
    } else if is(&entry.content_sha256, &found) || is(&entry.content_sha256, &content_sha256(&file)?) {
        Finding::OkContent
    } else if entry.sha256.is_none() && entry.content_sha256.is_none() {
        Finding::NotRecorded
    } else {
        Finding::Differs
    };
    Ok(Verified { file: entry.name.clone(), finding, sha256: Some(found) })
}

/// The hash of what a .gz file holds; empty for other or damaged files, which equals no hash.
fn content_sha256(path: &Path) -> Result<String, DataError> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(String::new());
    }
    let file: File = open_regular(path)?;
    Ok(sha256(MultiGzDecoder::new(BufReader::new(file))).unwrap_or_default())
}

fn sha256(mut from: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}
