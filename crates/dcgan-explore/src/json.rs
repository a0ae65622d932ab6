//! Files of JSON that people write and read: boxes, lists of feature maps.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The operating system refused to read it.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not JSON, or a field that is missing, unknown or of the wrong type.
    #[error("{}: {source}; expected {expected}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
        /// What a file looks like.
        expected: &'static str,
    },
    /// The operating system refused to write it.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a file; `expected` shows in errors what one looks like.
///
/// # Errors
/// [`JsonError::Read`], [`JsonError::Syntax`].
pub fn read<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, JsonError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| JsonError::Read { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|source| JsonError::Syntax { path: path.into(), source, expected })
}

/// Writes a file, indented, whole or not at all.
///
/// # Errors
/// [`JsonError::Write`].
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), JsonError> {
    let failed = |source| JsonError::Write { path: path.into(), source };
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))? + "\n";
    dcgan_base::files::write_atomic(path, text.as_bytes()).map_err(failed)
}
