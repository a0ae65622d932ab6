//! Errors of the pickle reader.

/// Why a pickle was not read, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {kind}")]
pub struct PickleError {
    /// Offset of the opcode or argument from the start of the file.
    pub offset: usize,
    /// What is wrong at this offset.
    pub kind: PickleErrorKind,
}

/// What is wrong in a pickle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleErrorKind {
    /// The file ends before the pickle does.
    #[error("expected {expected} more bytes, found {found}: the file is cut short; copy or save it again")]
    CutShort {
        /// Bytes that the argument takes.
        expected: usize,
        /// Bytes left in the file.
        found: usize,
    },
    /// An opcode that files of tensors do not use.
    #[error("unsupported opcode 0x{0:02x}: the file is damaged or holds more than tensors")]
    Opcode(u8),
    /// A value is not what the opcode needs.
    #[error("expected {0}: the file is damaged or holds more than tensors")]
    Expected(&'static str),
    /// The pickle has more objects than any file of weights.
    #[error("expected at most {0} objects, found more: not a file of weights")]
    TooManyObjects(usize),
    /// The pickle names more classes and functions than any checkpoint.
    #[error("expected at most {0} classes and functions, found more: not a file of weights")]
    TooManyClasses(usize),
}
