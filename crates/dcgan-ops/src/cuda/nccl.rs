//! The GPUs of several processes, one for each, over NCCL. Its library is loaded at run time.
//!
//! Operations are enqueued on the stream of the GPU like kernels, and captured with them.

use super::error::CudaError;
use super::gpu::{Gpu, Result};
use crate::ProcessGroup;
use cudarc::nccl::{result, sys};
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// The GPUs of a group of processes.
#[derive(Debug)]
pub(super) struct Gpus {
    comm: Communicator,
    size: usize,
}

#[derive(Debug)]
struct Communicator(sys::ncclComm_t);

// SAFETY: a communicator may be used by any thread, one at a time; it has one owner.
unsafe impl Send for Communicator {}

impl Drop for Communicator {
    fn drop(&mut self) {
        // SAFETY: it was initialized, and nothing uses it any more. A failure cannot be handled here.
        let _ = unsafe { result::comm_destroy(self.0) };
    }
}

impl Gpus {
    /// Connects the GPUs of all processes of `group`, which call this together.
    ///
    /// # Errors
    /// NCCL is missing, or cannot connect the GPUs; those of the group.
    pub(super) fn connect(group: &dyn ProcessGroup) -> crate::Result<Self> {
        // SAFETY: loads the library, whose initializers are trusted as those of the driver.
        #[cfg(not(feature = "candle-cuda"))]
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoNccl.into());
        }
        let mut id = sys::ncclUniqueId { internal: [0; 128] };
        if group.rank() == 0 {
            id = result::get_uniqueid().map_err(nccl("making an id"))?;
        }
        group.broadcast(bytemuck::cast_slice_mut(&mut id.internal), 0)?;
        let number = |value: usize| i32::try_from(value).map_err(|_| CudaError::TooLarge { values: value });
        let (size, rank) = (number(group.size())?, number(group.rank())?);
        let mut comm = MaybeUninit::uninit();
        // SAFETY: NCCL writes the communicator if it succeeds, and only then it is read.
        let comm = unsafe {
            result::comm_init_rank(comm.as_mut_ptr(), size, id, rank).map_err(nccl("connecting the GPUs"))?;
            comm.assume_init()
        };
        Ok(Self { comm: Communicator(comm), size: group.size() })
    }

    /// How many there are.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Puts the `len` f32 values at `from` of every process one after the other at `to`, in the order of ranks.
    pub(super) fn all_gather(&self, gpu: &Gpu, from: u64, to: u64, len: usize) -> Result<()> {
        let (send, receive) = (from as *const _, to as *mut _);
        let stream = gpu.stream().cu_stream().cast();
        // SAFETY: the addresses are those of buffers of these sizes on the stream's GPU.
        let gathered = unsafe {
            result::all_gather(send, receive, len, sys::ncclDataType_t::ncclFloat32, self.comm.0, stream)
        };
        gathered.map(drop).map_err(nccl("gathering values"))
    }

    /// Replaces the `len` f32 values at `at` by their sums over all processes.
    pub(super) fn all_reduce(&self, gpu: &Gpu, at: u64, len: usize) -> Result<()> {
        let (send, receive) = (at as *const _, at as *mut _);
        let (kind, sum) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
        let stream = gpu.stream().cu_stream().cast();
        // SAFETY: the address is that of a buffer of this size on the stream's GPU.
        let reduced = unsafe { result::all_reduce(send, receive, len, kind, sum, self.comm.0, stream) };
        reduced.map(drop).map_err(nccl("summing values"))
    }
}

fn nccl(what: &'static str) -> impl FnOnce(result::NcclError) -> CudaError {
    move |error| {
        // SAFETY: the library's own text, which is constant.
        let text = unsafe { CStr::from_ptr(sys::ncclGetErrorString(error.0)) };
        CudaError::Nccl { what, status: error.0 as u32, text: text.to_string_lossy().into_owned() }
    }
}
