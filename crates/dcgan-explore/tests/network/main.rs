//! Feature maps: guided backpropagation, max activations, removed feature maps, concepts.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic; sizes are small"
)]

mod color;
mod commands;
#[cfg(feature = "cuda")]
mod gpu;
mod library;
mod support;
mod usage;
