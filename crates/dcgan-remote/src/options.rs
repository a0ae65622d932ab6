//! Options and progress of a fetch.

use std::path::{Path, PathBuf};

/// Name of the environment variable with the header `Authorization` for web servers.
pub const AUTHORIZATION_VARIABLE: &str = "DCGAN_HTTP_AUTHORIZATION";

/// Whether `text` is a URL that [`crate::fetch`] takes, and not a path.
pub fn is_address(text: &str) -> bool {
    ["http://", "https://", "s3://", "s3a://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}

/// Options of [`crate::fetch`].
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The cache folder. Each URL has a folder in it.
    pub folder: PathBuf,
    /// Settings and credentials: names and values of environment variables; default: those of the process.
    pub variables: Vec<(String, String)>,
    /// How long a request is repeated while the server fails, in seconds; default: 180.
    pub retry_seconds: u64,
}

impl FetchOptions {
    /// Default options with copies in `folder`.
    pub fn new(folder: &Path) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables = std::env::vars_os().filter_map(text).collect();
        Self { folder: folder.to_owned(), variables, retry_seconds: 180 }
    }
}

/// How far the copying is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes of the dataset.
    pub bytes: u64,
    /// Files of the dataset.
    pub files: usize,
}
