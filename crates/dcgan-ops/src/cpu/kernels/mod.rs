//! The kernels behind convolutions on CPU: vectors, matrix products of packed panels, Winograd transforms.

#![allow(
    unsafe_code,
    reason = "intrinsics and pointers without bounds checks: what makes each call safe stands at the function, and callers check it"
)]

mod forms;
pub(crate) mod gemm;
mod portable;
pub(crate) mod prefetch;
pub(crate) mod shared;
pub(crate) mod simd;
pub(crate) mod tiles;
pub(crate) mod value;
pub(crate) mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use simd::Isa;
pub(crate) use simd::LANES;
