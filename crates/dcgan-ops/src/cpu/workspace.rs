//! Buffers that a pass needs only while it runs, shared by all networks of the process.

use super::buffer::Buffer;
use super::winograd::Scratch;
use std::sync::{Mutex, PoisonError};

/// Buffers between the stages of layers, and derivatives on their way back.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    pub(super) scratch: Scratch,
    /// Derivatives on their way back, two maps in turn.
    pub(super) back: [Buffer; 2],
    /// Sums of each image: moments on the way forward, derivatives' sums on the way back.
    pub(super) sums: Buffer,
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
