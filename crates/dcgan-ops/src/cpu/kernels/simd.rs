//! The trait of a vector of sixteen f32 lanes.
//!
//! Kernels are generic over [`Simd`], always inlined, and compiled for each instruction set by
//! [`instantiate!`](super::instantiate). All implementations have sixteen lanes, so data layouts do not depend on the
//! machine. AVX-512 and AVX2 round alike. The portable one multiplies and adds in two roundings where the target has
//! no fused instruction.

use half::bf16;

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// Sixteen lanes of f32. Callers of every function run on its instruction set. Pointers need no alignment unless
/// stated.
pub(crate) trait Simd: Copy {
    /// Sixteen values.
    type F: Copy;
    /// Sixteen pairs of bf16, the first of a pair in the lower half of its 32 bits.
    type Pairs: Copy;
    /// Whether the registers hold the sums of a micro-kernel of six rows by four vectors; else of six rows by one.
    const MANY_REGISTERS: bool;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, x: Self::F);
    /// Non-temporal store of sixteen values to a cache line (64 bytes, aligned); a plain store where there is none.
    /// Other threads see the values after [`Simd::fence`].
    unsafe fn stream(to: *mut f32, x: Self::F);
    /// Prefetches the line at an address, which need not be valid, to the second-level cache.
    unsafe fn prefetch(at: *const u8);
    /// Orders earlier streamed stores before later stores.
    unsafe fn fence();
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `x > 0`, `b` elsewhere.
    unsafe fn select_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F;
    /// Sixteen consecutive pairs.
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs;
    /// One pair in all lanes.
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs;
    /// `c + a.0 b.0 + a.1 b.1`
    unsafe fn dot(a: Self::Pairs, b: Self::Pairs, c: Self::F) -> Self::F;
    /// Sixteen values rounded to the nearest bf16, ties to even.
    unsafe fn store_bf16(to: *mut bf16, x: Self::F);
    /// Sixteen pairs of rounded values, streamed as by [`Simd::stream`].
    unsafe fn stream_pairs(to: *mut bf16, first: Self::F, second: Self::F);
    /// Sixteen pairs, each of one value of `first` and one of `second`.
    unsafe fn interleave(to: *mut bf16, first: *const bf16, second: *const bf16);
}
