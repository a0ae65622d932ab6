//! A buffer that is kept from pass to pass and starts at a cache line.

use bytemuck::Pod;

/// Values of f32 or smaller ones that start at a multiple of 64 bytes. It grows and never shrinks: fresh pages cost more than most operations.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
}

/// Values of a cache line.
const LINE: usize = 16;

impl Buffer {
    /// `len` values to write; what they are is left over from before.
    pub(super) fn sized<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let needed = Self::room::<T>(len);
        if self.values.len() < self.start + needed {
            // Nothing of the old values is wanted: no copy, and never both at once in memory.
            self.values = Vec::new();
            self.values = vec![0.0; needed + LINE];
            // A vector that straddles two lines is loaded in twice the time.
            self.start = self.values.as_ptr().align_offset(64).min(LINE);
        }
        self.get_mut(len)
    }

    /// The first `len` values, which were written before.
    pub(super) fn get<T: Pod>(&self, len: usize) -> &[T] {
        &bytemuck::cast_slice(&self.values[self.start..self.start + Self::room::<T>(len)])[..len]
    }

    /// The first `len` values, to be changed.
    pub(super) fn get_mut<T: Pod>(&mut self, len: usize) -> &mut [T] {
        let room = Self::room::<T>(len);
        &mut bytemuck::cast_slice_mut(&mut self.values[self.start..self.start + room])[..len]
    }

    /// Values of f32 that `len` of `T` need, which are not larger.
    fn room<T>(len: usize) -> usize {
        (len * size_of::<T>()).div_ceil(size_of::<f32>())
    }
}
