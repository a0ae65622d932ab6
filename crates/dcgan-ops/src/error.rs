//! What can go wrong in an operation.

/// Result of an operation.
pub type Result<T> = std::result::Result<T, OpsError>;

/// What can go wrong in an operation.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// A tensor has another shape than the network asks for.
    #[error("{what} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        what: String,
        /// Shape asked for, in words.
        expected: String,
        /// Shape given.
        found: Vec<usize>,
    },
    /// A tensor that the network needs was not given.
    #[error("tensor {name} is missing")]
    Missing {
        /// Its name.
        name: String,
    },
    /// `backward` without a forward pass that was kept.
    #[error("backward needs a forward pass run with Keep::Tape right before it")]
    NoTape,
    /// A tensor whose memory [`crate::give_back`] took.
    #[error("the tensor's memory was given back")]
    GivenBack,
    /// Batch-norm over a single value has no variance.
    #[error(
        "batch-norm of layer {layer} needs at least two values per channel to train, found one; use a larger batch"
    )]
    SingleValue {
        /// The layer.
        layer: String,
    },
    /// A label that is no class.
    #[error("label {index} is {label}, expected below {classes}")]
    Label {
        /// Its place in the batch.
        index: usize,
        /// The label.
        label: u32,
        /// Logits of a row.
        classes: usize,
    },
    /// bf16 on a device whose executor has only f32.
    #[error("bf16 is computed on the CPU only: choose f32, or the CPU as the device")]
    Precision,
    /// An error of candle: device, memory, shapes.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
