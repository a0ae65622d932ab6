//! What the matrix products of Winograd's algorithm multiply: f32, or bf16 summed in f32.

use super::Isa;
use super::gemm::{self, Left, Product};
use super::simd::{LANES, Simd};
use super::tiles::{self, Channels, Load, Points, Side, Window};
use super::weights::{self, Rows, Taps};
use bytemuck::Pod;
use half::bf16;
use std::cell::RefCell;

thread_local! {
    /// Paired rows, kept from call to call.
    static PAIRED: RefCell<Vec<Vec<bf16>>> = const { RefCell::new(Vec::new()) };
}

/// A type of values that are multiplied.
///
/// Instructions for bf16 multiply pairs and add both products, so bf16 comes in groups of two values of the depth, one beside the
/// other; f32 in groups of one.
pub(crate) trait Value: Pod + Send + Sync + std::fmt::Debug {
    /// Values of the depth that lie side by side in each column of a packed panel.
    const GROUP: usize;
    /// Sixteen groups.
    type Vector<S: Simd>: Copy;

    /// Sixteen groups, one after the other.
    unsafe fn load<S: Simd>(from: *const Self) -> Self::Vector<S>;
    /// One group in all lanes.
    unsafe fn splat<S: Simd>(from: *const Self) -> Self::Vector<S>;
    /// `c` and the products of the groups' values.
    unsafe fn dot<S: Simd>(a: Self::Vector<S>, b: Self::Vector<S>, c: S::F) -> S::F;
    /// Writes sixteen values.
    unsafe fn store<S: Simd>(to: *mut Self, x: S::F);
    /// Writes sixteen groups, whose values are the rows', past the caches ([`Simd::stream`]).
    unsafe fn stream_group<S: Simd>(to: *mut Self, rows: &[S::F; 2]);

    /// Lends a matrix of rows of `columns` values, a multiple of 16, as products read it whose depth the rows are.
    fn with_depth_of_rows<R>(isa: Isa, from: &[Self], columns: usize, body: impl FnOnce(&[Self]) -> R) -> R;

    /// [`gemm::product`]
    unsafe fn product(isa: Isa, p: &Product, left: &Left, a: *const Self, b: *const Self, out: *mut f32);
    /// [`tiles::gather`]
    #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
    unsafe fn gather(
        isa: Isa,
        side: Side,
        taps: usize,
        image: *const f32,
        load: &Load,
        window: &Window,
        channels: &Channels,
        packed: *mut Self,
        points: &Points,
    );
    /// [`weights::pack_weights`]
    #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
    unsafe fn pack_weights(
        isa: Isa,
        taps: usize,
        weights: *const f32,
        at: &Taps,
        rows: &Rows,
        packed: *mut Self,
        points: &Points,
    );
}

/// The three methods that run a kernel's instance for this type.
macro_rules! kernels {
    ($product:ident, $gather:ident, $pack_weights:ident) => {
        #[inline(always)]
        unsafe fn product(isa: Isa, p: &Product, left: &Left, a: *const Self, b: *const Self, out: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { gemm::$product(isa, p, left, a, b, out) }
        }
        #[inline(always)]
        unsafe fn gather(
            isa: Isa,
            side: Side,
            taps: usize,
            image: *const f32,
            load: &Load,
            window: &Window,
            channels: &Channels,
            packed: *mut Self,
            points: &Points,
        ) {
            // SAFETY: the caller's promise.
            unsafe { tiles::$gather(isa, side, taps, image, load, window, channels, packed, points) }
        }
        #[inline(always)]
        unsafe fn pack_weights(
            isa: Isa,
            taps: usize,
            weights: *const f32,
            at: &Taps,
            rows: &Rows,
            packed: *mut Self,
            points: &Points,
        ) {
            // SAFETY: the caller's promise.
            unsafe { weights::$pack_weights(isa, taps, weights, at, rows, packed, points) }
        }
    };
}

impl Value for f32 {
    const GROUP: usize = 1;
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
        // SAFETY: arithmetic on the instruction set that the caller was compiled for.
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
    fn with_depth_of_rows<R>(_: Isa, from: &[f32], _: usize, body: impl FnOnce(&[f32]) -> R) -> R {
        body(from)
    }
    kernels!(product, gather, pack_weights);
}

impl Value for bf16 {
    const GROUP: usize = 2;
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
        // SAFETY: arithmetic on the instruction set that the caller was compiled for.
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
    fn with_depth_of_rows<R>(isa: Isa, from: &[bf16], columns: usize, body: impl FnOnce(&[bf16]) -> R) -> R {
        let rows = from.len() / columns;
        assert!(columns.is_multiple_of(LANES) && from.len() == rows * columns);
        // Two may be lent at once: each is taken from its place for as long.
        let mut paired = PAIRED.with_borrow_mut(|kept| kept.pop()).unwrap_or_default();
        let len = rows.next_multiple_of(2) * columns;
        if paired.len() < len {
            paired.resize(len, bf16::ZERO);
        }
        // SAFETY: both lengths were made sure of above.
        unsafe { gemm::pair_rows(isa, from.as_ptr(), rows, columns, paired.as_mut_ptr()) };
        let result = body(&paired[..len]);
        PAIRED.with_borrow_mut(|kept| kept.push(paired));
        result
    }
    kernels!(product_bf16, gather_bf16, pack_weights_bf16);
}
