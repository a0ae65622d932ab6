//! Element types of the matrix products of Winograd's algorithm: f32, or bf16 summed in f32.

use super::interleave::interleave_rows;
use super::isa::Isa;
use super::simd::{LANES, Simd};
use bytemuck::Pod;
use half::bf16;
use std::cell::RefCell;

thread_local! {
    /// Buffers of interleaved rows, reused from call to call.
    static INTERLEAVED: RefCell<Vec<Vec<bf16>>> = const { RefCell::new(Vec::new()) };
}

/// The element type of a product's operands.
///
/// Instructions for bf16 multiply pairs and add both products, so bf16 comes in groups of two adjacent values of the
/// depth; f32 comes in groups of one.
pub(crate) trait Operand: Pod + Send + Sync + std::fmt::Debug {
    /// Adjacent values of the depth in each column of a packed panel.
    const GROUP: usize;
    /// Whether kernels of this type use bf16 instructions.
    const IS_BF16: bool;
    /// Sixteen groups.
    type Vector<S: Simd>: Copy;

    /// Sixteen consecutive groups.
    unsafe fn load<S: Simd>(from: *const Self) -> Self::Vector<S>;
    /// One group in all lanes.
    unsafe fn splat<S: Simd>(from: *const Self) -> Self::Vector<S>;
    /// `c` plus the products of the groups' values.
    unsafe fn dot<S: Simd>(a: Self::Vector<S>, b: Self::Vector<S>, c: S::F) -> S::F;
    /// Stores sixteen values.
    unsafe fn store<S: Simd>(to: *mut Self, x: S::F);
    /// Stores sixteen groups, of one value of each row, by [`Simd::stream`].
    unsafe fn stream_group<S: Simd>(to: *mut Self, rows: &[S::F; 2]);

    /// Passes a matrix with rows of `columns` values, a multiple of 16, to `body` in the layout of an operand whose
    /// depth is the rows.
    fn with_interleaved_rows<R>(
        isa: Isa,
        from: &[Self],
        columns: usize,
        body: impl FnOnce(&[Self]) -> R,
    ) -> R;
}

impl Operand for f32 {
    const GROUP: usize = 1;
    const IS_BF16: bool = false;
    type Vector<S: Simd> = S::F;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const f32) -> S::F {
        // SAFETY: the caller vouches for sixteen values.
        unsafe { S::load(from) }
    }
    #[inline(always)]
    unsafe fn splat<S: Simd>(from: *const f32) -> S::F {
        // SAFETY: the caller vouches for the value.
        unsafe { S::splat(*from) }
    }
    #[inline(always)]
    unsafe fn dot<S: Simd>(a: S::F, b: S::F, c: S::F) -> S::F {
        // SAFETY: the caller runs on the instruction set.
        unsafe { S::fma(a, b, c) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut f32, x: S::F) {
        // SAFETY: the caller vouches for sixteen values.
        unsafe { S::store(to, x) }
    }
    #[inline(always)]
    unsafe fn stream_group<S: Simd>(to: *mut f32, rows: &[S::F; 2]) {
        // SAFETY: the caller vouches for an aligned line.
        unsafe { S::stream(to, rows[0]) }
    }
    fn with_interleaved_rows<R>(_: Isa, from: &[f32], _: usize, body: impl FnOnce(&[f32]) -> R) -> R {
        body(from)
    }
}

impl Operand for bf16 {
    const GROUP: usize = 2;
    const IS_BF16: bool = true;
    type Vector<S: Simd> = S::Pairs;

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const bf16) -> S::Pairs {
        // SAFETY: the caller vouches for 32 values.
        unsafe { S::load_pairs(from) }
    }
    #[inline(always)]
    unsafe fn splat<S: Simd>(from: *const bf16) -> S::Pairs {
        // SAFETY: the caller vouches for two values.
        unsafe { S::splat_pair(from) }
    }
    #[inline(always)]
    unsafe fn dot<S: Simd>(a: S::Pairs, b: S::Pairs, c: S::F) -> S::F {
        // SAFETY: the caller runs on the instruction set.
        unsafe { S::dot(a, b, c) }
    }
    #[inline(always)]
    unsafe fn store<S: Simd>(to: *mut bf16, x: S::F) {
        // SAFETY: the caller vouches for sixteen values.
        unsafe { S::store_bf16(to, x) }
    }
    #[inline(always)]
    unsafe fn stream_group<S: Simd>(to: *mut bf16, rows: &[S::F; 2]) {
        // SAFETY: the caller vouches for an aligned line.
        unsafe { S::stream_pairs(to, rows[0], rows[1]) }
    }
    fn with_interleaved_rows<R>(
        isa: Isa,
        from: &[bf16],
        columns: usize,
        body: impl FnOnce(&[bf16]) -> R,
    ) -> R {
        let rows = from.len() / columns;
        assert!(columns.is_multiple_of(LANES) && from.len() == rows * columns);
        // Calls nest, so each takes a buffer out of the list while it runs.
        let mut interleaved = INTERLEAVED.with_borrow_mut(Vec::pop).unwrap_or_default();
        let len = rows.next_multiple_of(2) * columns;
        if interleaved.len() < len {
            interleaved.resize(len, bf16::ZERO);
        }
        // SAFETY: both lengths are checked above.
        unsafe { interleave_rows(isa, from.as_ptr(), rows, columns, interleaved.as_mut_ptr()) };
        let result = body(&interleaved[..len]);
        INTERLEAVED.with_borrow_mut(|buffers| buffers.push(interleaved));
        result
    }
}
