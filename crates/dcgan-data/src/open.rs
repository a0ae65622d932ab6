//! Format detection: chooses the reader for a path by its content.

use std::path::Path;

use crate::bytes::{gunzip_head, head};
use crate::decode::{SIGNATURE_BYTES, image_format};
use crate::error::DataError;
use crate::options::OpenOptions;
use crate::readers::{archive, cache, cifar, folder, idx, svhn};
use crate::source::Scan;

/// Length of the file prefix used for detection; the magic number of tar is at byte 257.
const HEAD_BYTES: u64 = 512;

/// Scans `path` with the reader for its format: file list, labels and report. Encoded images are not decoded here.
pub(crate) fn scan(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    let metadata = std::fs::metadata(path).map_err(DataError::io(path))?;
    if metadata.is_dir() {
        return scan_folder(path, options);
    }
    let head = head(path, HEAD_BYTES)?;
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        archive::scan(path)
    } else if head.starts_with(cache::MAGIC) {
        cache::scan(path, options)
    } else if head.starts_with(b"MATLAB 5.0") {
        svhn::scan(path)
    } else if idx::is_idx(&head) {
        idx::scan_file(path)
    } else if head.starts_with(&[0x1f, 0x8b]) {
        scan_gzip(path, &head)
    } else if image_format(&head[..head.len().min(usize::try_from(SIGNATURE_BYTES).unwrap_or(0))]).is_some() {
        folder::scan_single(path, metadata.len())
    } else if let Some(variant) = cifar::variant_of_file(path, metadata.len()) {
        cifar::scan_files(path, variant, &[path.to_owned()], options.unreadable_images)
    } else {
        Err(DataError::UnknownFormat { path: path.to_owned(), found: describe(&head).to_owned() })
    }
}

fn scan_folder(path: &Path, options: &OpenOptions) -> Result<Scan, DataError> {
    if let Some((variant, files)) = cifar::files_in(path, options.split) {
        return cifar::scan_files(path, variant, &files, options.unreadable_images);
    }
    if let Some(images) = idx::images_in(path, options.split) {
        return idx::scan_file(&images);
    }
    if let Some(file) = svhn::file_in(path, options.split) {
        return svhn::scan(&file);
    }
    folder::scan(path, options.unreadable_images)
}

fn scan_gzip(path: &Path, head: &[u8]) -> Result<Scan, DataError> {
    // `head` is only the start of the stream, so the stream is truncated.
    let inner = gunzip_head(head, HEAD_BYTES).or_else(|_| gunzip_head(head, 4)).unwrap_or_default();
    if idx::is_idx(&inner) {
        return idx::scan_file(path);
    }
    let found = if is_tar(&inner) || path.to_string_lossy().ends_with(".tgz") {
        "a compressed tar archive (unpack it first)"
    } else {
        "gzip data that contains no idx images"
    };
    Err(DataError::UnknownFormat { path: path.to_owned(), found: found.to_owned() })
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

fn describe(head: &[u8]) -> &'static str {
    if head.is_empty() {
        "an empty file"
    } else if head.starts_with(b"MATLAB 7.3") || head.starts_with(b"\x89HDF") {
        "an HDF5 file (in MATLAB, save with -v7)"
    } else if is_tar(head) {
        "a tar archive (unpack it first)"
    } else if head.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer, not the file itself (run git lfs pull)"
    } else if head.starts_with(b"<") {
        "a web page or XML, not images (a failed download?)"
    } else {
        "of unknown format"
    }
}
