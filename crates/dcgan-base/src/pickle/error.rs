//! Errors of the pickle reader.

/// Why a pickle was not read, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {kind}")]
pub struct PickleError {
    /// Offset of the opcode or argument from the start of the pickle.
    pub offset: usize,
    /// What is wrong at this offset.
    pub kind: PickleErrorKind,
}

/// What is wrong in a pickle. The messages do not say what the pickle should hold instead, which its reader knows.
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
    /// An opcode that is unknown, or that refers to a registry of the program that wrote the pickle.
    #[error("unsupported opcode 0x{0:02x}")]
    Opcode(u8),
    /// A value is not what the opcode needs.
    #[error("expected {0}")]
    Expected(&'static str),
    /// The pickle has more objects than [`Limits::objects`](super::Limits::objects).
    #[error("expected at most {0} objects, found more")]
    TooManyObjects(usize),
    /// The pickle names more unknown classes and functions than [`Limits::classes`](super::Limits::classes).
    #[error("expected at most {limit} classes and functions, found more")]
    TooManyClasses {
        /// The limit.
        limit: usize,
        /// The first one beyond the limit: `os.system`.
        name: String,
    },
}
