//! Memory of tensors that are done with, kept for the next ones of their size.
//!
//! An allocator gives the pages of a batch of pictures back to the system between two steps, and every page that is
//! written again costs a fault.

use crate::{OpsError, Result};
use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tensors' memory kept at most: a training step has three batches of pictures, and sizes change between networks.
const KEPT: usize = 6;

static SPARE: Mutex<VecDeque<Vec<f32>>> = Mutex::new(VecDeque::new());

fn spare() -> MutexGuard<'static, VecDeque<Vec<f32>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `len` values to be written: those of a tensor that was given back, or fresh ones.
pub fn spare_values(len: usize) -> Vec<f32> {
    let mut spare = spare();
    let found = spare.iter().position(|values| values.len() == len);
    found.and_then(|i| spare.remove(i)).unwrap_or_else(|| vec![0.0; len])
}

/// Ends a tensor and keeps its memory for [`spare_values`], where it is one of f32 on the CPU.
///
/// Clones and views share a tensor's memory, which is gone for them too: a pass of [`crate::CpuExecutor`] that reads one
/// gives [`OpsError::GivenBack`].
#[expect(clippy::needless_pass_by_value, reason = "the tensor ends here")]
pub fn give_back(tensor: Tensor) {
    if tensor.device().is_cpu() {
        // Never fails for a tensor without a place in a graph, and one that stays with candle is only not kept.
        let _ = tensor.detach().inplace_op1(&TakeOut);
    }
}

/// Refuses a tensor whose memory was given back.
pub(crate) fn check_held(tensor: &Tensor) -> Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) if values.len() < layout.shape().elem_count() => {
            Err(OpsError::GivenBack)
        }
        _ => Ok(()),
    }
}

struct TakeOut;

impl InplaceOp1 for TakeOut {
    fn name(&self) -> &'static str {
        "give-back"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        if let CpuStorage::F32(values) = storage {
            let mut spare = spare();
            if spare.len() == KEPT {
                spare.pop_front();
            }
            spare.push_back(std::mem::take(values));
        }
        Ok(())
    }
}
