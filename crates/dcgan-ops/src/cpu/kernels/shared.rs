//! A slice that parallel tasks write to in places of their own.

use std::marker::PhantomData;

/// Lends one mutable slice to several tasks, each of which writes to a part that no other touches.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` gives out pointers only through `at`, whose callers promise to keep to places of their own.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), lent: PhantomData }
    }

    /// A pointer to `len` values from `offset`, which lie within the slice.
    ///
    /// Dereferencing it is for the caller to justify: no other task may touch these values meanwhile.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut T {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the slice");
        self.start.wrapping_add(offset)
    }
}
