//! Vectors of AVX-512 and AVX2.

use super::simd::Simd;
use half::bf16;
use std::arch::x86_64::*;

/// AVX-512, with or without instructions for bf16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>;

/// Sixteen bf16 in the lower halves of 32 bits.
#[inline(always)]
unsafe fn to_bf16_512<const BF16: bool>(x: __m512) -> __m512i {
    // SAFETY: the caller runs on AVX-512, with bf16 where `BF16` is set.
    unsafe {
        if BF16 {
            let narrow: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(x));
            return _mm512_cvtepu16_epi32(narrow);
        }
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let near = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        // NaN propagates.
        let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x);
        _mm512_srli_epi32::<16>(_mm512_mask_blend_epi32(number, bits, near))
    }
}

#[inline(always)]
unsafe fn to_bf16_256(x: __m256) -> __m256i {
    // SAFETY: the caller runs on AVX2.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let near = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let number = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_ORD_Q>(x, x));
        _mm256_srli_epi32::<16>(_mm256_blendv_epi8(bits, near, number))
    }
}

impl<const BF16: bool> Simd for Avx512<BF16> {
    type F = __m512;
    type Pairs = __m512i;
    const MANY_REGISTERS: bool = true;
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: the caller runs on AVX-512 and vouches for sixteen values.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        // SAFETY: the caller runs on AVX-512 and vouches for sixteen values.
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut f32, x: __m512) {
        // SAFETY: the caller runs on AVX-512 and vouches for an aligned line.
        unsafe { _mm512_stream_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: every x86-64 has it, and it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: every x86-64 has it.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn select_positive(x: __m512, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()), b, a) }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> __m512i {
        // SAFETY: the caller runs on AVX-512 and vouches for 32 values.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> __m512i {
        // SAFETY: the caller runs on AVX-512 and vouches for two values.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(a: __m512i, b: __m512i, c: __m512) -> __m512 {
        // SAFETY: the caller runs on AVX-512, with bf16 where `BF16` is set; the transmuted types are all 512 bits.
        unsafe {
            if BF16 {
                let pairs = |x| std::mem::transmute::<__m512i, __m512bh>(x);
                return _mm512_dpbf16_ps(c, pairs(a), pairs(b));
            }
            let low = |x| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x));
            let high = |x| _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(-0x1_0000)));
            _mm512_fmadd_ps(high(a), high(b), _mm512_fmadd_ps(low(a), low(b), c))
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut bf16, x: __m512) {
        // SAFETY: the caller runs on AVX-512 and vouches for sixteen values.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(to_bf16_512::<BF16>(x))) }
    }
    #[inline(always)]
    unsafe fn stream_pairs(to: *mut bf16, first: __m512, second: __m512) {
        // SAFETY: the caller runs on AVX-512 and vouches for an aligned line.
        unsafe {
            let high = _mm512_slli_epi32::<16>(to_bf16_512::<BF16>(second));
            _mm512_stream_si512(to.cast(), _mm512_or_si512(to_bf16_512::<BF16>(first), high));
        }
    }
    #[inline(always)]
    unsafe fn interleave(to: *mut bf16, first: *const bf16, second: *const bf16) {
        // SAFETY: the caller runs on AVX-512 and vouches for sixteen values of each source, and 32 of the result.
        unsafe {
            let low = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first.cast()));
            let high = _mm512_cvtepu16_epi32(_mm256_loadu_si256(second.cast()));
            _mm512_storeu_si512(to.cast(), _mm512_or_si512(low, _mm512_slli_epi32::<16>(high)));
        }
    }
}

/// AVX2 with FMA: two registers a vector.
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

/// Applies an operation to both 256-bit halves.
macro_rules! halves {
    ($op:ident($($arg:ident),+)) => {
        // SAFETY: the caller runs on AVX2 with FMA.
        unsafe { [$op($($arg[0]),+), $op($($arg[1]),+)] }
    };
}

impl Simd for Avx2 {
    type F = [__m256; 2];
    type Pairs = [__m256i; 2];
    const MANY_REGISTERS: bool = false;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        // SAFETY: the caller runs on AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        // SAFETY: the caller runs on AVX2 and vouches for sixteen values.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::F) {
        // SAFETY: the caller runs on AVX2 and vouches for sixteen values.
        unsafe {
            _mm256_storeu_ps(to, x[0]);
            _mm256_storeu_ps(to.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn stream(to: *mut f32, x: Self::F) {
        // SAFETY: the caller runs on AVX2 and vouches for an aligned line.
        unsafe {
            _mm256_stream_ps(to, x[0]);
            _mm256_stream_ps(to.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: every x86-64 has it, and it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[inline(always)]
    unsafe fn fence() {
        // SAFETY: every x86-64 has it.
        unsafe { _mm_sfence() }
    }
    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        halves!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        halves!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    unsafe fn select_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the caller runs on AVX2.
        unsafe {
            let zero = _mm256_setzero_ps();
            [
                _mm256_blendv_ps(b[0], a[0], _mm256_cmp_ps::<_CMP_GT_OQ>(x[0], zero)),
                _mm256_blendv_ps(b[1], a[1], _mm256_cmp_ps::<_CMP_GT_OQ>(x[1], zero)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller runs on AVX2 and vouches for 32 values.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast())] }
    }
    #[inline(always)]
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs {
        // SAFETY: the caller runs on AVX2 and vouches for two values.
        unsafe { [_mm256_set1_epi32(from.cast::<i32>().read_unaligned()); 2] }
    }
    #[inline(always)]
    unsafe fn dot(a: Self::Pairs, b: Self::Pairs, c: Self::F) -> Self::F {
        // SAFETY: the caller runs on AVX2 with FMA.
        unsafe {
            let low = |x| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x));
            let high = |x| _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(-0x1_0000)));
            let dot = |a, b, c| _mm256_fmadd_ps(high(a), high(b), _mm256_fmadd_ps(low(a), low(b), c));
            [dot(a[0], b[0], c[0]), dot(a[1], b[1], c[1])]
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(to: *mut bf16, x: Self::F) {
        // SAFETY: the caller runs on AVX2 and vouches for sixteen values.
        unsafe {
            // Packing works within each 128-bit half; the permutation restores the order.
            let narrow = _mm256_packus_epi32(to_bf16_256(x[0]), to_bf16_256(x[1]));
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(narrow));
        }
    }
    #[inline(always)]
    unsafe fn stream_pairs(to: *mut bf16, first: Self::F, second: Self::F) {
        // SAFETY: the caller runs on AVX2 and vouches for an aligned line.
        unsafe {
            for (i, (first, second)) in first.into_iter().zip(second).enumerate() {
                let high = _mm256_slli_epi32::<16>(to_bf16_256(second));
                let pairs = _mm256_or_si256(to_bf16_256(first), high);
                _mm256_stream_si256(to.add(16 * i).cast(), pairs);
            }
        }
    }
    #[inline(always)]
    unsafe fn interleave(to: *mut bf16, first: *const bf16, second: *const bf16) {
        // SAFETY: the caller runs on AVX2 and vouches for sixteen values of each source, and 32 of the result.
        unsafe {
            for i in 0..2 {
                let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(first.add(8 * i).cast()));
                let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(second.add(8 * i).cast()));
                let pairs = _mm256_or_si256(low, _mm256_slli_epi32::<16>(high));
                _mm256_storeu_si256(to.add(16 * i).cast(), pairs);
            }
        }
    }
}
