//! The Inception network: its weights and its features.

pub(crate) mod architecture;
mod network;
mod weights;

pub use architecture::{CLASSES, ConvolutionShape, FEATURES, convolution_shapes};
pub use network::{BATCH, Features, Inception};
pub use weights::{InceptionWeights, WEIGHTS_SOURCE, WEIGHTS_VARIABLE, default_weights};
