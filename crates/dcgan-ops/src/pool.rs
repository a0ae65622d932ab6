//! Buffers that outlive the values in them: a training step writes into the memory of the step before.
//!
//! An allocator gives the pages of a batch of images back to the system between two steps, and every page that is
//! written again costs a fault.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers that a pool keeps at most: a training step has three batches of images, and a sample may be drawn meanwhile.
const MAX_KEPT: usize = 4;

/// Values of the smallest buffer that is kept; the allocator reuses smaller ones itself.
const MIN_KEPT_LEN: usize = 16 * 1024;

/// A pool of f32 buffers of one length at a time. Clones share the buffers.
#[derive(Clone, Default)]
pub struct BufferPool(Arc<Mutex<Vec<Vec<f32>>>>);

impl BufferPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer of `len` values, which are left over from an earlier use or zero.
    pub fn take(&self, len: usize) -> PooledBuffer {
        let reused = self.free().pop_if(|values| values.len() == len);
        PooledBuffer { values: reused.unwrap_or_else(|| vec![0.0; len]), pool: self.clone() }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<f32>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferPool({} free)", self.free().len())
    }
}

/// An owned buffer of a [`BufferPool`], which gets its memory back on drop.
#[derive(Debug)]
pub struct PooledBuffer {
    values: Vec<f32>,
    pool: BufferPool,
}

impl Deref for PooledBuffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl From<Vec<f32>> for PooledBuffer {
    /// A buffer of a pool of its own.
    fn from(values: Vec<f32>) -> Self {
        Self { values, pool: BufferPool::new() }
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if values.len() < MIN_KEPT_LEN {
            return;
        }
        let mut free = self.pool.free();
        // Another length: the batch size or the network has changed.
        free.retain(|kept| kept.len() == values.len());
        if free.len() < MAX_KEPT {
            free.push(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_return_to_their_pool_on_drop() {
        let pool = BufferPool::new();
        let filled = |len: usize| {
            let mut buffer = pool.take(len);
            buffer.fill(8.0);
            buffer
        };
        let len = MIN_KEPT_LEN;
        drop(filled(len));
        let (again, fresh) = (pool.take(len), pool.take(len));
        assert!(again[0] == 8.0 && fresh[0] == 0.0, "one buffer was kept, and it is lent once");
        // Small buffers are not kept.
        drop(filled(len - 1));
        assert_eq!(pool.take(len - 1)[0], 0.0);
        // At most MAX_KEPT of one length; another length replaces them.
        let many: Vec<_> = (0..MAX_KEPT + 2).map(|_| filled(len)).collect();
        drop((many, again, fresh));
        assert_eq!(pool.free().len(), MAX_KEPT);
        drop(filled(len + 1));
        assert_eq!(pool.free().iter().map(Vec::len).collect::<Vec<_>>(), [len + 1]);
        // A buffer outlives its pool's other owners.
        let last = filled(len);
        drop(pool);
        assert_eq!(last[len - 1], 8.0);
    }
}
