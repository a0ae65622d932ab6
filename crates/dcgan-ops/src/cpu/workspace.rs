//! Buffers that a pass needs only while it runs, shared by all networks of the process.

use super::buffer::Buffer;
use super::winograd::Scratch;
use std::sync::{Mutex, PoisonError};

/// Buffers between the stages of a layer, and gradients between layers.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) scratch: Scratch,
    /// Gradients with respect to a layer's output and input, in turn.
    pub(super) grads: [Buffer; 2],
    /// Sums of each image: moments in the forward pass, sums of gradients in the backward pass.
    pub(super) sums: Buffer,
    /// A layer's input with its label channels, and the gradient with respect to it.
    pub(super) joined: [Buffer; 2],
}

/// The workspace that no pass is using. D and G run in turn: one serves both, and a pass that finds none makes its own.
static IDLE: Mutex<Option<Box<Workspace>>> = Mutex::new(None);

impl Workspace {
    /// Runs a pass with the idle workspace, which is left for the next one. What is in its buffers is of no meaning.
    pub(super) fn lend<R>(pass: impl FnOnce(&mut Workspace) -> R) -> R {
        let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut workspace = idle().take().unwrap_or_default();
        let result = pass(&mut workspace);
        *idle() = Some(workspace);
        result
    }
}
