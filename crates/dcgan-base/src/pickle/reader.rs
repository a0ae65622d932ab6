//! A reader of the bytes of a pickle with its position.

use super::error::{PickleError, PickleErrorKind};

/// Bytes and a position in them.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// An error at the current position.
    pub(super) fn error(&self, kind: PickleErrorKind) -> PickleError {
        PickleError { offset: self.position, kind }
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let left = &self.bytes[self.position..];
        let Some(taken) = left.get(..n) else {
            return Err(self.error(PickleErrorKind::CutShort { expected: n, found: left.len() }));
        };
        self.position += n;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A length in `N` bytes, little-endian.
    pub(super) fn length<const N: usize>(&mut self) -> Result<usize, PickleError> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        // A length that overflows is longer than any file.
        Ok(usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX))
    }

    /// A line of text without the newline, for the opcodes of protocol 0.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let left = &self.bytes[self.position..];
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            return Err(self.error(PickleErrorKind::CutShort { expected: left.len() + 1, found: left.len() }));
        };
        let line = self.take(end + 1)?;
        str::from_utf8(&line[..end]).map_err(|_| self.error(PickleErrorKind::Expected("UTF-8 text")))
    }
}
