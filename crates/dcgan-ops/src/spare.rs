//! Memory of tensors that are done with, kept for the next ones of their size.
//!
//! An allocator gives the pages of a batch of images back to the system between two steps, and every page that is
//! written again costs a fault.

use crate::{OpsError, Result};
use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Tensors' memory kept at most: a training step has three batches of images, and a sample may be drawn meanwhile.
const KEPT: usize = 4;

/// Values of the smallest memory kept; smaller ones stay in the allocator's reach.
const SMALLEST: usize = 16 * 1024;

/// Memory of one length: a step has only one size of images.
static SPARE: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

fn spare() -> MutexGuard<'static, Vec<Vec<f32>>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `len` values to be written, left over from a tensor that was given back, or fresh zeros.
pub fn spare_values(len: usize) -> Vec<f32> {
    let found = spare().pop_if(|values| values.len() == len);
    found.unwrap_or_else(|| vec![0.0; len])
}

/// Ends a tensor and keeps its memory for [`spare_values`], where it is one of f32 on the CPU and not small. What was kept
/// of another length is freed.
///
/// Clones and views share a tensor's memory, which is gone for them too: a pass that reads one gives
/// [`OpsError::GivenBack`], so a tape of such a pass is over as well.
#[expect(clippy::needless_pass_by_value, reason = "the tensor ends here")]
pub fn give_back(tensor: Tensor) {
    if tensor.device().is_cpu() {
        // Never fails for a tensor without a place in a graph, and one that stays with candle is only not kept.
        let _ = tensor.detach().inplace_op1(&TakeOut);
    }
}

/// Frees what is kept: training is over.
pub fn free_spare_values() {
    let kept = std::mem::take(&mut *spare());
    drop(kept);
}

/// Refuses a tensor whose memory was given back.
pub(crate) fn check_held(tensor: &Tensor) -> Result<()> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) if values.is_empty() && layout.shape().elem_count() > 0 => {
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
        if let CpuStorage::F32(values) = storage
            && values.len() >= SMALLEST
        {
            let values = std::mem::take(values);
            let mut spare = spare();
            if spare.iter().any(|kept| kept.len() != values.len()) {
                spare.clear();
            }
            if spare.len() < KEPT {
                spare.push(values);
            }
        }
        Ok(())
    }
}
