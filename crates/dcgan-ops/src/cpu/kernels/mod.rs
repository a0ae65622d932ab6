//! The CPU kernels behind convolutions: vectors, matrix products with packed panels, Winograd transforms.
//!
//! The modules form layers. Each uses those above it only:
//!
//! | module | content |
//! |---|---|
//! | [`isa`] | instruction sets and their detection |
//! | [`simd`] | the trait of a vector of sixteen lanes |
//! | `portable`, `x86` | its implementations |
//! | [`instantiate`] | compiles a generic kernel for each instruction set and dispatches at run time |
//! | [`interleave`] | rows of bf16 interleaved into pairs |
//! | [`operand`] | element types of matrix products: f32 and bf16 |
//! | [`gemm`] | matrix product with a packed panel |
//! | [`minimal_filtering`] | Winograd's algorithms in one dimension |
//! | [`load_op`] | batch norm and activation applied to values as they are loaded |
//! | [`tile_transform`] | input and output transforms of tiles |
//! | [`filter_transform`] | transforms of weights and of their gradient |
//!
//! [`disjoint`] and [`prefetch`] stand alone.

#![allow(
    unsafe_code,
    reason = "intrinsics and pointers without bounds checks; each function documents what its callers must ensure"
)]

pub(crate) mod disjoint;
pub(crate) mod filter_transform;
pub(crate) mod gemm;
mod instantiate;
mod interleave;
mod isa;
pub(crate) mod load_op;
mod minimal_filtering;
pub(crate) mod operand;
mod portable;
pub(crate) mod prefetch;
mod simd;
pub(crate) mod tile_transform;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use isa::Isa;
pub(crate) use simd::LANES;
