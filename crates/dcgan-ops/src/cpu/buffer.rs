//! A buffer that is kept from pass to pass and starts at a cache line.

/// Values that start at a multiple of 64 bytes. It grows and never shrinks: fresh pages cost more than most operations.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
}

/// Values of a cache line.
const LINE: usize = 16;

impl Buffer {
    /// `len` values to write; what they are is left over from before.
    pub(super) fn sized(&mut self, len: usize) -> &mut [f32] {
        if self.values.len() < self.start + len {
            // Nothing of the old values is wanted: no copy, and never both at once in memory.
            self.values = Vec::new();
            self.values = vec![0.0; len + LINE];
            // A vector that straddles two lines is loaded in twice the time.
            self.start = self.values.as_ptr().align_offset(64).min(LINE);
        }
        &mut self.values[self.start..self.start + len]
    }

    /// The first `len` values, which were written before.
    pub(super) fn get(&self, len: usize) -> &[f32] {
        &self.values[self.start..self.start + len]
    }

    /// The first `len` values, to be changed.
    pub(super) fn get_mut(&mut self, len: usize) -> &mut [f32] {
        &mut self.values[self.start..self.start + len]
    }
}
