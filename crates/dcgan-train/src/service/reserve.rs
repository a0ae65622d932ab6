//! Room on the disk that is kept for the database: on a full disk jobs must still be paused, cancelled and deleted.

use dcgan_base::files;
use std::fs;
use std::path::PathBuf;

/// Enough for hundreds of changes.
const BYTES: usize = 1 << 20;

/// A file whose removal makes room.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.path.metadata().is_ok_and(|file| file.len() == BYTES as u64)
    }

    /// Makes the file where it is missing. False while the disk has no room for it.
    pub(crate) fn keep(&self) -> bool {
        self.is_kept() || files::write_atomic(&self.path, &vec![0; BYTES]).is_ok()
    }

    /// Gives the room away. False where that was done before.
    pub(crate) fn spend(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}
