//! Disk space reserved for the database, so that jobs can be paused, cancelled and deleted on a full disk.

use dcgan_base::files;
use std::fs;
use std::path::PathBuf;

/// Size of the file; enough for hundreds of transactions.
const BYTES: usize = 1 << 20;

/// A placeholder file; its removal frees its space.
#[derive(Debug)]
pub(crate) struct DiskReserve {
    path: PathBuf,
}

impl DiskReserve {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn is_allocated(&self) -> bool {
        self.path.metadata().is_ok_and(|file| file.len() == BYTES as u64)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.path.metadata().map_or(0, |file| file.len())
    }

    /// Creates the file if it is missing. False if the disk has no room for it.
    pub(crate) fn allocate(&self) -> bool {
        self.is_allocated() || files::write_atomic(&self.path, &vec![0; BYTES]).is_ok()
    }

    /// Removes the file. False if it was already removed.
    pub(crate) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}
