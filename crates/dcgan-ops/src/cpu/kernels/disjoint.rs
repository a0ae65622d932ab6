//! A slice that parallel tasks write to at disjoint ranges.

use std::marker::PhantomData;

/// Shares one mutable slice among tasks, each of which writes a range that no other accesses.
#[derive(Clone, Copy)]
pub(crate) struct DisjointSlice<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a `DisjointSlice` gives out pointers only through `at`, whose callers keep to disjoint ranges.
unsafe impl<T: Send> Send for DisjointSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T> DisjointSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// A pointer to `len` values from `offset`.
    ///
    /// Whoever dereferences it must ensure that no other task accesses these values meanwhile.
    ///
    /// # Panics
    /// If the range is outside the slice.
    pub(crate) fn at(&self, offset: usize, len: usize) -> *mut T {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len), "outside the slice");
        self.start.wrapping_add(offset)
    }
}
