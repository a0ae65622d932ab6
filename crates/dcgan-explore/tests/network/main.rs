//! Looking into the networks: guided backpropagation, largest activations, feature maps removed, concepts.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test stops at the first surprise; sizes are small"
)]

mod color;
mod commands;
mod library;
mod support;
mod usage;
