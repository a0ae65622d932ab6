//! Buffers that a pass needs only while it runs, shared by all networks of the process.

use super::buffer::Buffer;
use super::winograd::Scratch;
use std::sync::{Mutex, PoisonError};

/// Scratch memory of layers, and gradients between layers.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) scratch: Scratch,
    /// Gradients with respect to a layer's output and input, swapped after each layer.
    pub(super) grads: [Buffer; 2],
    /// Sums of each image: moments in the forward pass, sums of gradients in the backward pass.
    pub(super) sums: Buffer,
    /// A layer's input with its label channels, and the gradient with respect to it.
    pub(super) joined: [Buffer; 2],
}

/// The idle workspace. D and G alternate and share one; a pass that finds none creates another.
static IDLE: Mutex<Option<Box<Workspace>>> = Mutex::new(None);

impl Workspace {
    /// Runs a pass with the idle workspace and puts it back for the next one. Its buffers have arbitrary content.
    pub(super) fn lend<R>(pass: impl FnOnce(&mut Workspace) -> R) -> R {
        let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = idle().take().unwrap_or_default();
        let result = pass(&mut workspace);
        *idle() = Some(workspace);
        result
    }
}
