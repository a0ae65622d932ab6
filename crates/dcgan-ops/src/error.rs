//! What can go wrong in an operation.

use crate::{MapShape, Resample};

/// Result of an operation.
pub type Result<T> = std::result::Result<T, OpsError>;

/// What can go wrong in an operation.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// A batch that cannot be divided.
    #[error("{images} images cannot be divided into {shards} equal shards")]
    Shards {
        /// Images of the batch.
        images: usize,
        /// Shards.
        shards: usize,
    },
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
    /// `backward` without a forward pass kept for it.
    #[error("backward needs a forward pass run with Keep::Tape right before it")]
    NoTape,
    /// A layer that reads labels was run without labels.
    #[error("layer {layer} reads class labels: give a label for each image")]
    NoLabels {
        /// The layer.
        layer: String,
    },
    /// Labels concatenated to the flattened input of a layer that is not dense.
    #[error("layer {layer} concatenates labels to its flattened input: expected an output of 1x1, found {}x{}",
        .output.height, .output.width)]
    LabelInputs {
        /// The layer.
        layer: String,
        /// Its output.
        output: MapShape,
    },
    /// Windows of a pooling that do not cover the layer's input.
    #[error("layer {layer} resamples its input by {resample:?}, which does not divide {}x{}",
        .input.height, .input.width)]
    Resample {
        /// The layer.
        layer: String,
        /// How it resamples.
        resample: Resample,
        /// Its input.
        input: MapShape,
    },
    /// Evaluation without batch norm statistics.
    #[error("the network has no batch norm statistics; recalibrate them first")]
    NoStatistics,
    /// Statistics were to be recalibrated from nothing.
    #[error("recalibration of batch norm needs at least one batch")]
    NoBatches,
    /// Several processes or shards on an executor that works in one.
    #[error(
        "this device computes one shard in one process: use the CPU, or on NVIDIA GPUs one shard per process"
    )]
    Group,
    /// The other processes of a group cannot be reached.
    #[error("an exchange between processes failed: {problem}")]
    Exchange {
        /// What is known of it.
        problem: String,
    },
    /// Another process of a group failed.
    #[error("{process} failed; its own message says why")]
    OtherProcess {
        /// Its name ([`crate::ProcessGroup::name`]).
        process: String,
    },
    /// Batch norm over a single value has no variance.
    #[error(
        "batch norm of layer {layer} needs at least two values per channel to train, found one; use a larger batch"
    )]
    SingleValue {
        /// The layer.
        layer: String,
    },
    /// A label that is not below the number of classes.
    #[error("label {index} is {label}, expected below {classes}")]
    Label {
        /// Its index in the batch.
        index: usize,
        /// The label.
        label: u32,
        /// The number of classes.
        classes: usize,
    },
    /// bf16 on a device whose executor has only f32.
    #[error("bf16 is not computed on this device: choose f32, or the CPU or cuda:N as the device")]
    Precision,
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] crate::cuda::CudaError),
    /// An error of candle: device, memory, shapes.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
