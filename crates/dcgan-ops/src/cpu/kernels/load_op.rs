//! Batch norm and its activation, applied to values of a map as they are loaded.

use super::simd::{LANES, Simd};

/// The operation on values of a map when they are loaded, sixteen channels at a time. Coefficients are per channel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoadOp {
    /// None.
    Identity,
    /// `u = scale x + offset`, then `u` where positive, `negative_slope u` elsewhere: batch norm and its activation.
    NormActivation { scale: *const f32, offset: *const f32, negative_slope: f32 },
    /// The backward pass of both: `scale d' - slope x + level`, where `d'` is `d` where `u` is positive and
    /// `negative_slope d` elsewhere. `x` has the layout of `d`.
    NormBackward {
        x: *const f32,
        scale: *const f32,
        offset: *const f32,
        negative_slope: f32,
        slope: *const f32,
        level: *const f32,
    },
}

/// [`LoadOp::Identity`] as a constant parameter.
pub(super) const IDENTITY: u8 = 0;
/// [`LoadOp::NormActivation`] as a constant parameter.
pub(super) const NORM_ACTIVATION: u8 = 1;
/// [`LoadOp::NormBackward`] as a constant parameter.
pub(super) const NORM_BACKWARD: u8 = 2;

/// [`LoadOp`] with the coefficients of sixteen channels in registers. Its kind is a constant parameter of
/// [`Loader::load`].
#[derive(Clone, Copy)]
pub(super) struct Loader<S: Simd> {
    x: *const f32,
    scale: S::F,
    offset: S::F,
    negative_slope: S::F,
    slope: S::F,
    level: S::F,
}

impl<S: Simd> Loader<S> {
    /// For the `valid` channels from `first`.
    #[inline(always)]
    pub(super) unsafe fn new(load: &LoadOp, first: usize, valid: usize) -> Self {
        // SAFETY: the caller vouches for a coefficient for each channel.
        unsafe {
            let zero = S::splat(0.0);
            let identity = Self {
                x: std::ptr::null(),
                scale: zero,
                offset: zero,
                negative_slope: zero,
                slope: zero,
                level: zero,
            };
            let coefficients = |from: *const f32| load_partial::<S>(from.add(first), valid);
            match *load {
                LoadOp::Identity => identity,
                LoadOp::NormActivation { scale, offset, negative_slope } => Self {
                    scale: coefficients(scale),
                    offset: coefficients(offset),
                    negative_slope: S::splat(negative_slope),
                    ..identity
                },
                LoadOp::NormBackward { x, scale, offset, negative_slope, slope, level } => Self {
                    x: x.add(first),
                    scale: coefficients(scale),
                    offset: coefficients(offset),
                    negative_slope: S::splat(negative_slope),
                    slope: coefficients(slope),
                    level: coefficients(level),
                },
            }
        }
    }

    /// The first `valid` channels of the pixel at `offset`.
    #[inline(always)]
    pub(super) unsafe fn load<const LOAD: u8>(&self, image: *const f32, offset: isize, valid: usize) -> S::F {
        // SAFETY: the caller vouches for `valid` values at the offset of the image, and of `x` where there is one.
        unsafe {
            let value = load_partial::<S>(image.offset(offset), valid);
            match LOAD {
                NORM_ACTIVATION => {
                    let u = S::fma(value, self.scale, self.offset);
                    S::max(u, S::mul(u, self.negative_slope))
                }
                NORM_BACKWARD => {
                    let x = load_partial::<S>(self.x.offset(offset), valid);
                    let u = S::fma(x, self.scale, self.offset);
                    let d = S::select_positive(u, value, S::mul(value, self.negative_slope));
                    S::fma(d, self.scale, S::sub(self.level, S::mul(x, self.slope)))
                }
                _ => value,
            }
        }
    }
}

/// Loads the first `valid` lanes; the others are zero.
#[inline(always)]
pub(super) unsafe fn load_partial<S: Simd>(from: *const f32, valid: usize) -> S::F {
    // SAFETY: the caller vouches for `valid` values.
    unsafe {
        if valid == LANES {
            return S::load(from);
        }
        let mut lanes = [0.0; LANES];
        std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), valid);
        S::load(lanes.as_ptr())
    }
}

/// Stores the first `valid` lanes.
#[inline(always)]
pub(super) unsafe fn store_partial<S: Simd>(to: *mut f32, x: S::F, valid: usize) {
    // SAFETY: the caller vouches for `valid` values.
    unsafe {
        if valid == LANES {
            return S::store(to, x);
        }
        let mut lanes = [0.0; LANES];
        S::store(lanes.as_mut_ptr(), x);
        std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, valid);
    }
}
