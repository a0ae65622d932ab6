//! Sixteen f32 lanes on AVX-512, AVX2 with FMA, or plain arrays, and the choice between them.
//!
//! Kernels are written once over [`Simd`] as functions that are always inlined, and compiled for each instruction set by
//! [`instantiate!`]. All three have sixteen lanes, so data layouts do not depend on the machine; AVX-512 and AVX2 round
//! alike, the plain form multiplies and adds in two roundings where the processor cannot fuse them.

use std::sync::OnceLock;

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// What every processor of the target has.
    Portable,
}

impl Isa {
    /// The best of this machine; the environment variable `DCGAN_ISA` (`avx512`, `avx2`, `portable`) asks for a lesser one.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let all = [Isa::Avx512, Isa::Avx2, Isa::Portable];
            let asked = std::env::var("DCGAN_ISA").unwrap_or_default();
            let from = all.iter().position(|isa| isa.name() == asked).unwrap_or(0);
            all[from..].iter().copied().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
        })
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            match self {
                Isa::Avx512 => avx512,
                Isa::Avx2 => avx2,
                Isa::Portable => true,
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            self == Isa::Portable
        }
    }

    /// Its name, as `DCGAN_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }
}

/// Sixteen lanes of f32. Every function wants the instruction set it stands for; pointers need no alignment.
pub(crate) trait Simd: Copy {
    /// Sixteen values.
    type F: Copy;
    /// Whether there are registers for the sums of six rows of four vectors in a matrix product, or for one vector a row.
    const WIDE: bool;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `x > 0`, `b` elsewhere.
    unsafe fn if_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    impl Simd for Avx512 {
        type F = __m512;
        const WIDE: bool = true;
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
        unsafe fn if_positive(x: __m512, a: __m512, b: __m512) -> __m512 {
            // SAFETY: the caller runs on AVX-512.
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()), b, a) }
        }
    }

    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    /// Applies an operation to both halves.
    macro_rules! halves {
        ($op:ident($($arg:ident),+)) => {
            // SAFETY: the caller runs on AVX2 with FMA.
            unsafe { [$op($($arg[0]),+), $op($($arg[1]),+)] }
        };
    }

    impl Simd for Avx2 {
        type F = [__m256; 2];
        const WIDE: bool = false;
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
        unsafe fn if_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F {
            // SAFETY: the caller runs on AVX2.
            unsafe {
                let zero = _mm256_setzero_ps();
                [
                    _mm256_blendv_ps(b[0], a[0], _mm256_cmp_ps::<_CMP_GT_OQ>(x[0], zero)),
                    _mm256_blendv_ps(b[1], a[1], _mm256_cmp_ps::<_CMP_GT_OQ>(x[1], zero)),
                ]
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// Plain arrays, which the compiler turns into what the target has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

impl Simd for Portable {
    type F = [f32; LANES];
    const WIDE: bool = false;
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
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Elsewhere `mul_add` would call a slow library function.
        if cfg!(target_arch = "aarch64") {
            each(|i| a[i].mul_add(b[i], c[i]))
        } else {
            each(|i| a[i] * b[i] + c[i])
        }
    }
    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn if_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F {
        each(|i| if x[i] > 0.0 { a[i] } else { b[i] })
    }
}

/// Defines `unsafe fn $name(isa, arguments)`, which runs `$body::<S, ..>(arguments)` compiled for the instruction set `isa`.
///
/// The function asserts that the machine has `isa`; what else makes the call safe is the body's to say.
macro_rules! instantiate {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident $(::<$($param:tt),+>)?) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        $vis unsafe fn $name(isa: $crate::cpu::kernels::Isa, $($arg: $ty),*) {
            use $crate::cpu::kernels::{Isa, simd};
            assert!(isa.is_available(), "this machine has no {}", isa.name());
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
                unsafe fn avx512($($arg: $ty),*) {
                    // SAFETY: compiled for AVX-512; the rest is the caller's promise.
                    unsafe { $body::<simd::Avx512, $($($param),+)?>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: compiled for AVX2 with FMA; the rest is the caller's promise.
                    unsafe { $body::<simd::Avx2, $($($param),+)?>($($arg),*) }
                }
                match isa {
                    // SAFETY: the machine has the instruction set, asserted above; the rest is the caller's promise.
                    Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    Isa::Portable => {}
                }
            }
            // SAFETY: plain Rust; the rest is the caller's promise.
            unsafe { $body::<simd::Portable, $($($param),+)?>($($arg),*) }
        }
    };
}
pub(crate) use instantiate;
