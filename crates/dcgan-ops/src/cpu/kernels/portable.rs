//! Vectors as plain arrays, for every target.

use super::simd::{LANES, Simd};
use half::bf16;

/// Plain arrays, vectorized by the compiler for the target.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn map_lanes(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

impl Simd for Portable {
    type F = [f32; LANES];
    type Pairs = [[bf16; 2]; LANES];
    const MANY_REGISTERS: bool = false;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the caller vouches for sixteen values; f32 arrays are read unaligned.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::F) {
        // SAFETY: the caller vouches for sixteen values.
        unsafe { to.cast::<Self::F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut f32, x: Self::F) {
        // SAFETY: the caller vouches for sixteen values.
        unsafe { Self::store(to, x) }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn fence() {}
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        map_lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        map_lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        map_lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // On targets without the instruction, `mul_add` calls a slow library function.
        if cfg!(target_arch = "aarch64") {
            map_lanes(|i| a[i].mul_add(b[i], c[i]))
        } else {
            map_lanes(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        map_lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn select_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F {
        map_lanes(|i| if x[i] > 0.0 { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller vouches for 32 values.
        unsafe { from.cast::<Self::Pairs>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller vouches for two values.
        [unsafe { from.cast::<[bf16; 2]>().read_unaligned() }; LANES]
    }
    #[inline(always)]
    unsafe fn dot(a: Self::Pairs, b: Self::Pairs, c: Self::F) -> Self::F {
        map_lanes(|i| c[i] + to_f32(a[i][0]) * to_f32(b[i][0]) + to_f32(a[i][1]) * to_f32(b[i][1]))
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut bf16, x: Self::F) {
        // SAFETY: the caller vouches for sixteen values.
        unsafe { to.cast::<[bf16; LANES]>().write_unaligned(x.map(to_bf16)) }
    }
    #[inline(always)]
    unsafe fn stream_pairs(to: *mut bf16, first: Self::F, second: Self::F) {
        let pairs: Self::Pairs = std::array::from_fn(|i| [to_bf16(first[i]), to_bf16(second[i])]);
        // SAFETY: the caller vouches for 32 values.
        unsafe { to.cast::<Self::Pairs>().write_unaligned(pairs) }
    }
    #[inline(always)]
    unsafe fn interleave(to: *mut bf16, first: *const bf16, second: *const bf16) {
        // SAFETY: the caller vouches for sixteen values of each source, and 32 of the result.
        unsafe {
            let (first, second) = (first.cast::<[bf16; LANES]>(), second.cast::<[bf16; LANES]>());
            let (first, second) = (first.read_unaligned(), second.read_unaligned());
            let pairs: Self::Pairs = std::array::from_fn(|i| [first[i], second[i]]);
            to.cast::<Self::Pairs>().write_unaligned(pairs);
        }
    }
}

/// The nearest bf16, ties to even. NaN propagates.
#[inline(always)]
fn to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let near = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    let bits = if x.is_nan() { bits } else { near };
    bf16::from_bits((bits >> 16) as u16)
}

#[inline(always)]
fn to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}
