//! What steps read, copied to the GPU ahead of them: pinned memory of the host, a stream of its own for the copies, and
//! a copy on the GPU for each slot of a ring. Nothing waits on the host unless it is a whole ring ahead.

use super::gpu::{Buffer, Gpu, Result, driver};
use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice};
use std::sync::Arc;

/// Steps that the host may be ahead with copies.
pub(super) const SLOTS: usize = 3;
/// Sections start at multiples of this many bytes.
const ALIGNMENT: usize = 64;

#[derive(Debug)]
struct Slot {
    host: PinnedHostSlice<u8>,
    device: Buffer,
    /// The last copy of the slot is complete: the host may write it again.
    uploaded: CudaEvent,
    /// The step that reads the slot has done so.
    consumed: CudaEvent,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Slots {
    gpu: Arc<Gpu>,
    copies: Arc<CudaStream>,
    slots: Vec<Slot>,
    next: usize,
    /// Where each section starts, in bytes.
    starts: Vec<usize>,
}

impl Slots {
    /// Slots with sections of these lengths in bytes.
    pub(super) fn new(gpu: &Arc<Gpu>, lengths: &[usize]) -> Result<Self> {
        let copies = gpu.context().new_stream().map_err(driver("making a stream"))?;
        let (mut starts, mut bytes) = (Vec::new(), 0);
        for &len in lengths {
            starts.push(bytes);
            bytes += len.next_multiple_of(ALIGNMENT);
        }
        let slots = (0..SLOTS).map(|_| Slot::new(gpu, bytes)).collect::<Result<_>>()?;
        Ok(Self { gpu: Arc::clone(gpu), copies, slots, next: 0, starts })
    }

    /// Copies the sections into the next slot, and has the GPU wait for them; the addresses there. The last one may be
    /// shorter than its section. What reads them is followed by [`Slots::consumed`].
    pub(super) fn fill<const N: usize>(&mut self, contents: [&[u8]; N]) -> Result<[u64; N]> {
        let slot = &mut self.slots[self.next];
        // cudarc does so by itself only where it tracks events.
        slot.uploaded.synchronize().map_err(driver("waiting for a copy"))?;
        let host = slot.host.as_mut_slice().map_err(driver("waiting for a copy"))?;
        let mut addresses = [0; N];
        let base = slot.device.address(&self.gpu);
        let mut end = 0;
        for ((content, &start), address) in contents.iter().zip(&self.starts).zip(&mut addresses) {
            end = start + content.len();
            host[start..end].copy_from_slice(content);
            *address = base + start as u64;
        }
        self.copies.wait(&slot.consumed).map_err(driver("waiting for a step"))?;
        slot.device.upload_pinned(&self.copies, &slot.host, end)?;
        slot.uploaded.record(&self.copies).map_err(driver("recording a copy"))?;
        self.gpu.stream().wait(&slot.uploaded).map_err(driver("waiting for a copy"))?;
        Ok(addresses)
    }

    /// Everything that reads the slot filled last has been started.
    pub(super) fn consumed(&mut self) -> Result<()> {
        let slot = &self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        slot.consumed.record(self.gpu.stream()).map_err(driver("recording a step"))
    }
}

impl Slot {
    fn new(gpu: &Gpu, bytes: usize) -> Result<Self> {
        let event = || gpu.context().new_event(None).map_err(driver("making an event"));
        // SAFETY: `fill` writes the memory before it is copied.
        let host = unsafe { gpu.context().alloc_pinned(bytes) }.map_err(|error| gpu.memory(bytes, error))?;
        let mut device = Buffer::default();
        device.sized(gpu, bytes)?;
        let (uploaded, consumed) = (event()?, event()?);
        // The memory is allocated in the order of the GPU's stream: the first copy waits for that.
        consumed.record(gpu.stream()).map_err(driver("recording a step"))?;
        Ok(Self { host, device, uploaded, consumed })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // The buffers are freed on the stream of the GPU, which does not wait for copies that nothing reads. A failure
        // cannot be handled here.
        let _ = self.copies.synchronize();
    }
}
