//! SHA-256 over length-prefixed fields, for fingerprints of datasets and protocols.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// An incremental SHA-256. Every field is prefixed with its length, so different field lists never hash the same bytes.
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Adds a field.
    pub fn field(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a number as a field of eight bytes, little-endian.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.field(number.to_le_bytes())
    }

    /// The digest of the fields added so far.
    pub fn key(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }

    /// The digest of the fields added so far, as 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.key())
    }
}

/// SHA-256 of a file, as 64 lower-case hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn file_sha256(path: &Path) -> io::Result<String> {
    let mut digest = Sha256::new();
    io::copy(&mut File::open(path)?, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
