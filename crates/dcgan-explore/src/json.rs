//! JSON files that users edit: bounding boxes, lists of feature maps.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Invalid JSON, or a field that is missing, unknown or of the wrong type.
    #[error("{}: {source}; expected {expected}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
        /// The format of such a file.
        expected: &'static str,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads a file; errors quote `expected`, the format of such a file.
///
/// # Errors
/// [`JsonError::Read`], [`JsonError::Syntax`].
pub fn read<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, JsonError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| JsonError::Read { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|source| JsonError::Syntax { path: path.into(), source, expected })
}

/// Writes a file atomically, indented.
///
/// # Errors
/// [`JsonError::Write`].
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), JsonError> {
    let failed = |source| JsonError::Write { path: path.into(), source };
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))? + "\n";
    dcgan_base::files::write_atomic(path, text.as_bytes()).map_err(failed)
}
