//! Errors of copying a dataset.

use std::io;
use std::path::PathBuf;

/// Why a dataset at a URL cannot be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The URL is not one of a dataset.
    #[error("{address}: {problem}")]
    Address {
        /// The URL.
        address: String,
        /// The problem and its fix.
        problem: String,
    },
    /// The server cannot be reached, or refuses.
    #[error("{address}: {problem}{fix}")]
    Store {
        /// The URL of the file, or of all.
        address: String,
        /// What the server or the connection says.
        problem: String,
        /// What may help; empty or starts with `; `.
        fix: &'static str,
    },
    /// There is nothing at the URL.
    #[error("{address}: no files there")]
    NoFiles {
        /// The URL.
        address: String,
    },
    /// A name that cannot be a file of the local disk.
    #[error("{address}: the name {name:?} cannot be that of a local file")]
    Name {
        /// The URL.
        address: String,
        /// The name of the object.
        name: String,
    },
    /// A file became another while it was copied.
    #[error("{address}: it changed while it was copied; start again when it is complete")]
    Changed {
        /// The URL of the file.
        address: String,
    },
    /// The local disk has too little space.
    #[error(
        "{address}: {needed} bytes are to be copied to {}, which has {free} bytes free; DCGAN_CACHE names another folder",
        .folder.display()
    )]
    Space {
        /// The URL.
        address: String,
        /// The cache folder.
        folder: PathBuf,
        /// Bytes that are missing.
        needed: u64,
        /// Free bytes of the disk.
        free: u64,
    },
    /// A local file cannot be read or written.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The program was built without stores.
    #[error(
        "{address}: this build cannot read URLs: build with `--features remote`, or copy the files to a folder"
    )]
    NotBuilt {
        /// The URL.
        address: String,
    },
    /// The caller cancelled.
    #[error("copying the dataset was cancelled; it resumes from there the next time")]
    Cancelled,
}

#[cfg(feature = "stores")]
impl RemoteError {
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}
