//! SHA-256 over named fields, for fingerprints of data sets.

use std::fmt::Write;

use sha2::{Digest as _, Sha256};

/// A running SHA-256 in which every field is preceded by its length, so that fields cannot run into each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn field(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.field(number.to_le_bytes())
    }

    pub(crate) fn key(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }

    pub(crate) fn hex(&self) -> String {
        hex(&self.key())
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
