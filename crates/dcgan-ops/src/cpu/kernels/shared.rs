//! A slice that parallel tasks write to in places of their own.

use std::marker::PhantomData;

/// Lends one mutable slice to several tasks, each of which writes to a part that no other touches.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    lent: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Shared` gives out pointers only through `at`, whose callers promise to keep to places of their own.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lent: PhantomData }
    }

    /// A pointer to `len` values from `offset`, which lie within the slice.
    ///
    /// Dereferencing it is for the caller to justify: no other task may touch these values meanwhile.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut f32 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the slice");
        self.start.wrapping_add(offset)
    }
}
