//! Sixteen f32 lanes on AVX-512, AVX2 with FMA, or plain arrays, and the choice between them.
//!
//! Kernels are written once over [`Simd`] as functions that are always inlined, and compiled for each instruction set by
//! [`instantiate!`]. All three have sixteen lanes, so data layouts do not depend on the machine; AVX-512 and AVX2 round
//! alike, the plain form multiplies and adds in two roundings where the processor cannot fuse them.

use half::bf16;
use std::sync::OnceLock;

/// Lanes of one vector.
pub(crate) const LANES: usize = 16;

/// An instruction set that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with products of bf16 pairs; in f32 the same as [`Isa::Avx512`].
    Avx512Bf16,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// What every processor of the target has.
    Portable,
}

impl Isa {
    /// All of them, the best first.
    pub const ALL: [Isa; 4] = [Isa::Avx512Bf16, Isa::Avx512, Isa::Avx2, Isa::Portable];

    /// The best of this machine; the environment variable `DCGAN_ISA` (a [`Isa::name`]; anything else is as
    /// good as none) asks for a lesser one.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| {
            let asked = std::env::var("DCGAN_ISA").unwrap_or_default();
            let from = Isa::ALL.iter().position(|isa| isa.name() == asked).unwrap_or(0);
            Isa::ALL[from..].iter().copied().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
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
                Isa::Avx512Bf16 => avx512 && is_x86_feature_detected!("avx512bf16"),
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

    /// Whether products of bf16 take fewer instructions than products of f32.
    pub fn multiplies_bf16(self) -> bool {
        self == Isa::Avx512Bf16
    }

    /// Its name, as `DCGAN_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512Bf16 => "avx512bf16",
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
    /// Sixteen pairs of bf16, the first of a pair in the lower half of its 32 bits.
    type Pairs: Copy;
    /// Whether there are registers for the sums of six rows of four vectors in a matrix product, or for one vector a row.
    const WIDE: bool;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, x: Self::F);
    /// Sixteen values past the caches, to a whole line of them (64 bytes, aligned), where there is an instruction for it. Others
    /// see them after [`Simd::fence`].
    unsafe fn stream(to: *mut f32, x: Self::F);
    /// Asks for the line at an address, which need not be valid, to be brought near, to be written.
    unsafe fn prefetch(at: *const u8);
    /// What was streamed before is seen by all that is told of it after.
    unsafe fn fence();
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a` where `x > 0`, `b` elsewhere.
    unsafe fn if_positive(x: Self::F, a: Self::F, b: Self::F) -> Self::F;
    /// Sixteen pairs, one after the other.
    unsafe fn load_pairs(from: *const bf16) -> Self::Pairs;
    /// One pair in all lanes.
    unsafe fn splat_pair(from: *const bf16) -> Self::Pairs;
    /// `c + a.0 b.0 + a.1 b.1`
    unsafe fn dot(a: Self::Pairs, b: Self::Pairs, c: Self::F) -> Self::F;
    /// Sixteen values rounded to the nearest bf16, ties to even.
    unsafe fn store_bf16(to: *mut bf16, x: Self::F);
    /// Sixteen pairs of rounded values, streamed as by [`Simd::stream`].
    unsafe fn stream_pairs(to: *mut bf16, first: Self::F, second: Self::F);
    /// Sixteen pairs of the values at two places.
    unsafe fn pair_up(to: *mut bf16, first: *const bf16, second: *const bf16);
}

#[cfg(target_arch = "x86_64")]
pub(crate) use super::x86::{Avx2, Avx512};

pub(crate) use super::portable::Portable;

/// Defines `unsafe fn $name(isa, arguments)`, which runs `$body::<S, ..>(arguments)` compiled for the instruction set `isa`.
///
/// The function asserts that the machine has `isa`; what else makes the call safe is the body's to say. Functions of bf16 are
/// marked so, and have an instance of their own on AVX-512 with bf16.
macro_rules! instantiate {
    (@bf16 {} $($rest:tt)*) => {};
    (@bf16 {bf16} $isa:ident ($($arg:ident: $ty:ty),*) $body:path) => {
        #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma")]
        #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
        unsafe fn avx512bf16($($arg: $ty),*) {
            // SAFETY: compiled for AVX-512 with bf16; the rest is the caller's promise.
            unsafe { $body($($arg),*) }
        }
        if $isa == Isa::Avx512Bf16 {
            // SAFETY: the machine has the instruction set, asserted above; the rest is the caller's promise.
            return unsafe { avx512bf16($($arg),*) };
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { instantiate! { {} $(#[$meta])* $vis fn $($rest)* } };
    (bf16 $(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => { instantiate! { {bf16} $(#[$meta])* $vis fn $($rest)* } };
    (
        {$($bf16:ident)?}
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:ident $(::<$($param:tt),+>)?
    ) => {
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
                    unsafe { $body::<simd::Avx512<false>, $($($param),+)?>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: compiled for AVX2 with FMA; the rest is the caller's promise.
                    unsafe { $body::<simd::Avx2, $($($param),+)?>($($arg),*) }
                }
                instantiate! { @bf16 {$($bf16)?} isa ($($arg: $ty),*) $body::<simd::Avx512<true>, $($($param),+)?> }
                match isa {
                    // SAFETY: as above; what has bf16 has AVX-512.
                    Isa::Avx512Bf16 | Isa::Avx512 => return unsafe { avx512($($arg),*) },
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
