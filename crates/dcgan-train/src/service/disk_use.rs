//! Disk space of folders.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Bytes that the files below `folder` take; symlinks are not followed. Files that are removed meanwhile do not count.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn folder_bytes(folder: &Path) -> io::Result<u64> {
    let mut pending = vec![folder.to_path_buf()];
    let mut bytes = 0;
    while let Some(folder) = pending.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            bytes += file_bytes(&metadata);
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// Allocated bytes, which can be fewer than the length (holes) or more (whole blocks).
#[cfg(unix)]
fn file_bytes(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn file_bytes(metadata: &Metadata) -> u64 {
    metadata.len()
}
