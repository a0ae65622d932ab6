//! A position in the bytes of a pickle, and the errors that name it.

use std::str;

/// Why a pickle was not read, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {fault}")]
pub struct PickleError {
    /// Offset of the opcode or argument from the start of the pickle.
    pub at: usize,
    /// What is wrong there.
    pub fault: PickleFault,
}

/// What is wrong in a pickle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleFault {
    /// The file ends before the pickle does.
    #[error("the file is cut short: {needed} more bytes were expected, {left} are left")]
    CutShort {
        /// Bytes that the argument takes.
        needed: usize,
        /// Bytes left in the file.
        left: usize,
    },
    /// The pickle names something that is neither a tensor nor a container of tensors.
    #[error("the file asks to call {module}.{name}; only tensors are read")]
    Refused {
        /// Python module.
        module: String,
        /// Name in it.
        name: String,
    },
    /// The pickle holds a whole module, code and all.
    #[error(
        "the file holds a whole module ({module}.{name}), not its weights: save net.state_dict() with torch.save instead"
    )]
    WholeModule {
        /// Python module of its class.
        module: String,
        /// The class.
        name: String,
    },
    /// An opcode that files of tensors do not use.
    #[error("unexpected opcode 0x{0:02x}: the file is damaged or holds more than tensors")]
    Opcode(u8),
    /// The value before the opcode is not what the opcode needs.
    #[error("expected {0}: the file is damaged or holds more than tensors")]
    Expected(&'static str),
    /// More objects than any file of weights has.
    #[error("more than {0} objects: not a file of weights")]
    TooMany(usize),
}

/// A position in bytes.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Everything, read or not.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// An error at the current position.
    pub(crate) fn error(&self, fault: PickleFault) -> PickleError {
        PickleError { at: self.at, fault }
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let left = &self.bytes[self.at..];
        let Some(taken) = left.get(..n) else {
            return Err(self.error(PickleFault::CutShort { needed: n, left: left.len() }));
        };
        self.at += n;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Result<u8, PickleError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// A length of `N` bytes, least significant first.
    pub(crate) fn length<const N: usize>(&mut self) -> Result<usize, PickleError> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        // A length that does not fit can only be longer than the file.
        Ok(usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX))
    }

    /// A line of text without its end, for the opcodes of protocol 0.
    pub(crate) fn line(&mut self) -> Result<&'a str, PickleError> {
        let left = &self.bytes[self.at..];
        let Some(end) = left.iter().position(|byte| *byte == b'\n') else {
            return Err(self.error(PickleFault::CutShort { needed: left.len() + 1, left: left.len() }));
        };
        let line = self.take(end + 1)?;
        str::from_utf8(&line[..end]).map_err(|_| self.error(PickleFault::Expected("text in utf-8")))
    }
}
