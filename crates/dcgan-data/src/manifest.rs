//! The manifests of known datasets (`datasets/*.toml`, compiled in): files, sizes and hashes.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::bytes::open_regular;
use crate::error::DataError;
use dcgan_base::digest::hex;

static MANIFESTS: [(&str, &str); 10] = [
    ("mnist.toml", include_str!("../assets/mnist.toml")),
    ("digits.toml", include_str!("../assets/digits.toml")),
    ("cifar10.toml", include_str!("../assets/cifar10.toml")),
    ("cifar100.toml", include_str!("../assets/cifar100.toml")),
    ("cifar10-python.toml", include_str!("../assets/cifar10-python.toml")),
    ("cifar100-python.toml", include_str!("../assets/cifar100-python.toml")),
    ("svhn.toml", include_str!("../assets/svhn.toml")),
    ("tiny-imagenet.toml", include_str!("../assets/tiny-imagenet.toml")),
    ("celeba.toml", include_str!("../assets/celeba.toml")),
    ("lsun.toml", include_str!("../assets/lsun.toml")),
];

/// A published dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the dataset.
    pub name: String,
    /// The license, in words. Its old name is `licence`.
    #[serde(alias = "licence")]
    pub license: String,
    /// The homepage of the publisher.
    pub homepage: String,
    /// Where to download the files, and how to arrange them.
    pub get: String,
    /// The splits and their sizes, in words.
    pub splits: String,
    /// The files of the dataset.
    pub files: Vec<FileEntry>,
}

/// One file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// File name.
    pub name: String,
    /// Size in bytes, if known.
    pub bytes: Option<u64>,
    /// SHA-256 of the file, if known.
    pub sha256: Option<String>,
    /// MD5 of the file, where no SHA-256 is published. It detects damage, not forgery.
    pub md5: Option<String>,
    /// SHA-256 of the uncompressed content of a .gz file, if known: many mirrors recompress the files.
    pub content_sha256: Option<String>,
}

/// The result of verifying one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileStatus {
    /// The file matches its hash.
    Ok,
    /// The file was recompressed or unpacked; its content matches.
    OkContent,
    /// The file does not match.
    Differs,
    /// The file does not exist.
    Missing,
    /// The file exists, but the manifest has no hash for it.
    NotRecorded,
}

/// A file of a manifest and the result of its verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedFile {
    /// Name in the manifest.
    pub file: String,
    /// The result; the JSON key is `finding`.
    #[serde(rename = "finding")]
    pub status: FileStatus,
    /// SHA-256 of the file, if it exists.
    pub sha256: Option<String>,
}

/// All manifests.
///
/// # Errors
///
/// A manifest is invalid. The tests of this crate exclude this.
pub fn manifests() -> Result<Vec<Manifest>, DataError> {
    let parse = |(file, text): &(&str, &str)| {
        toml::from_str(text).map_err(|error| DataError::invalid_file(Path::new(file), error.to_string()))
    };
    MANIFESTS.iter().map(parse).collect()
}

/// Compares the files at `path`, a folder or a single file, with the manifest that has most file names in common.
///
/// # Errors
///
/// A path that cannot be read, or that contains no file of any manifest.
pub fn verify(path: &Path) -> Result<(Manifest, Vec<VerifiedFile>), DataError> {
    std::fs::metadata(path).map_err(DataError::io(path))?;
    let known = manifests()?;
    let names: Vec<String> = known.iter().map(|manifest| manifest.name.clone()).collect();
    let present =
        |manifest: &Manifest| manifest.files.iter().filter(|entry| locate(path, entry).is_some()).count();
    let best =
        known.into_iter().map(|manifest| (present(&manifest), manifest)).filter(|(present, _)| *present > 0);
    // Ties go to the first manifest in the order of `MANIFESTS`.
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

/// The path of `entry`: in the folder `path`, or `path` itself. A .gz file can also be unpacked.
fn locate(path: &Path, entry: &FileEntry) -> Option<PathBuf> {
    let unpacked = entry.name.strip_suffix(".gz").filter(|_| entry.content_sha256.is_some());
    let mut names = [Some(entry.name.as_str()), unpacked].into_iter().flatten();
    if path.is_dir() {
        names.map(|name| path.join(name)).find(|file| file.is_file())
    } else {
        names.any(|name| path.file_name().is_some_and(|file| file == name)).then(|| path.to_owned())
    }
}

fn check(path: &Path, entry: &FileEntry) -> Result<VerifiedFile, DataError> {
    let Some(file) = locate(path, entry) else {
        return Ok(VerifiedFile { file: entry.name.clone(), status: FileStatus::Missing, sha256: None });
    };
    let found = hash::<Sha256>(open_regular(&file)?).map_err(DataError::io(&file))?;
    let md5 = match &entry.md5 {
        Some(_) => hash::<Md5>(open_regular(&file)?).map_err(DataError::io(&file))?,
        None => String::new(),
    };
    let is = |recorded: &Option<String>, found: &str| recorded.as_deref() == Some(found);
    let is_unknown = entry.sha256.is_none() && entry.md5.is_none() && entry.content_sha256.is_none();
    let status = if is(&entry.sha256, &found) || is(&entry.md5, &md5) {
        FileStatus::Ok
    } else if is(&entry.content_sha256, &found) || is(&entry.content_sha256, &content_sha256(&file)?) {
        FileStatus::OkContent
    } else if is_unknown {
        FileStatus::NotRecorded
    } else {
        FileStatus::Differs
    };
    Ok(VerifiedFile { file: entry.name.clone(), status, sha256: Some(found) })
}

/// SHA-256 of the content of a .gz file; empty for other or damaged files, which never matches.
fn content_sha256(path: &Path) -> Result<String, DataError> {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(String::new());
    }
    let file: File = open_regular(path)?;
    Ok(hash::<Sha256>(MultiGzDecoder::new(BufReader::new(file))).unwrap_or_default())
}

fn hash<D: sha2::Digest>(mut from: impl Read) -> io::Result<String> {
    let mut hasher = D::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes of "abc" in RFC 1321 and FIPS 180-4.
    #[test]
    fn files_are_compared_with_md5_or_sha256() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("abc"), b"abc").unwrap();
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (md5, sha256, status) in [
            (Some(md5), None, FileStatus::Ok),
            (None, Some(sha256), FileStatus::Ok),
            (Some(sha256), None, FileStatus::Differs),
            (None, Some(md5), FileStatus::Differs),
            (None, None, FileStatus::NotRecorded),
        ] {
            let text = |hash: Option<&str>| hash.map(str::to_owned);
            let (md5, sha256) = (text(md5), text(sha256));
            let entry = FileEntry { name: "abc".to_owned(), bytes: None, sha256, md5, content_sha256: None };
            assert_eq!(check(folder.path(), &entry).unwrap().status, status, "{entry:?}");
        }
    }
}
