//! A buffer reused from pass to pass and aligned to a cache line.

use bytemuck::Pod;

/// Values of f32 or a smaller type, aligned to 64 bytes. It grows and never shrinks: page faults of new memory cost
/// more than most operations.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
}

/// Values of f32 in a cache line.
const LINE: usize = 16;

impl Buffer {
    /// `len` values to write, with arbitrary content.
    pub(super) fn sized<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let needed = Self::f32_len::<T>(len);
        if self.values.len() < self.start + needed {
            // The old values are dropped first: no copy, and never both in memory.
            self.values = Vec::new();
            self.values = vec![0.0; needed + LINE];
            // A vector that crosses cache lines takes twice the time to load.
            self.start = self.values.as_ptr().align_offset(64).min(LINE);
        }
        self.get_mut(len)
    }

    /// The first `len` values.
    pub(super) fn get<T: Pod>(&self, len: usize) -> &[T] {
        &bytemuck::cast_slice(&self.values[self.start..self.start + Self::f32_len::<T>(len)])[..len]
    }

    /// The first `len` values, mutable.
    pub(super) fn get_mut<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let f32_len = Self::f32_len::<T>(len);
        &mut bytemuck::cast_slice_mut(&mut self.values[self.start..self.start + f32_len])[..len]
    }

    /// Values of f32 that hold `len` values of `T`, which is not larger.
    fn f32_len<T>(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(size_of::<f32>())
    }
}
