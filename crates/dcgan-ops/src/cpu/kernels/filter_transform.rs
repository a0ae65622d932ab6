//! Winograd's filter transform, sixteen channels at a time: weights packed for products, and the gradient with
//! respect to them; see [`super::tile_transform`].

use super::instantiate::instantiate;
use super::isa::Isa;
use super::load_op::{load_partial, store_partial};
use super::minimal_filtering::{F42, F43, MAX_POINTS, MinimalFiltering, times_g, times_gt};
use super::operand::Operand;
use super::simd::{LANES, Simd};
use super::tile_transform::{HalfTransformed, PointOffsets};

/// Layout of one channel pair's taps among the weights: tap (i, j) is at `origin + i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TapLayout {
    /// Offset of tap (0, 0).
    pub(crate) origin: usize,
    /// Distance between vertically adjacent taps.
    pub(crate) row_stride: usize,
    /// Distance between horizontally adjacent taps.
    pub(crate) column_stride: usize,
    /// Taps each way; the algorithm's other taps are zero.
    pub(crate) count: (usize, usize),
    /// Distance between rows of channels.
    pub(crate) channel_row_stride: usize,
}

/// Rows of channels, and their packed layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelRows {
    /// Rows.
    pub(crate) count: usize,
    /// Channels of a row.
    pub(crate) channels: usize,
    /// Distance between packed rows, in values.
    pub(crate) packed_row_stride: usize,
}

#[inline(always)]
unsafe fn filter_transform_body<S: Simd, T: Operand, F: MinimalFiltering>(
    weights: *const f32,
    taps: &TapLayout,
    rows: &ChannelRows,
    packed: *mut T,
    points: &PointOffsets,
) {
    // SAFETY: the caller of `filter_transform` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        for row in (0..rows.count).step_by(T::GROUP) {
            let mut first = 0;
            while first < rows.packed_row_stride {
                let valid = rows.channels.saturating_sub(first).min(LANES);
                let mut halves = [const { HalfTransformed::new() }; 2];
                for (i, half) in halves.iter_mut().enumerate().take(T::GROUP) {
                    // Zeros pair with the last of an odd number of rows.
                    let valid = if row + i < rows.count { valid } else { 0 };
                    filter_columns::<S, F>(weights, taps, row + i, first, valid, half);
                }
                for p in 0..F::POINTS {
                    let mut values = [[zero; 6]; 2];
                    for (values, half) in values.iter_mut().zip(&halves).take(T::GROUP) {
                        *values = times_g::<S, F>(&half.row(p, F::TAPS, zero));
                    }
                    for q in 0..F::POINTS {
                        if let Some(offset) = points[p * MAX_POINTS + q] {
                            let to = packed.add(offset + row * rows.packed_row_stride + first * T::GROUP);
                            T::stream_group::<S>(to, &[values[0][q], values[1][q]]);
                        }
                    }
                }
                first += LANES;
            }
        }
        S::fence();
    }
}

/// The columns of `G g` of sixteen channels of a row from `first`, of which `valid` exist.
#[inline(always)]
unsafe fn filter_columns<S: Simd, F: MinimalFiltering>(
    weights: *const f32,
    taps: &TapLayout,
    row: usize,
    first: usize,
    valid: usize,
    half: &mut HalfTransformed<S::F>,
) {
    // SAFETY: the caller of `filter_transform` vouches for all addresses.
    unsafe {
        for j in 0..F::TAPS {
            let mut column = [S::splat(0.0); 6];
            if j < taps.count.1 && valid > 0 {
                for (i, value) in column.iter_mut().enumerate().take(taps.count.0) {
                    let offset = taps.origin
                        + i * taps.row_stride
                        + j * taps.column_stride
                        + row * taps.channel_row_stride;
                    *value = load_partial::<S>(weights.add(offset + first), valid);
                }
            }
            half.set_column(j, &times_g::<S, F>(&column), F::POINTS);
        }
    }
}

#[inline(always)]
unsafe fn filter_gradient_body<S: Simd, F: MinimalFiltering>(
    packed: *const f32,
    points: &PointOffsets,
    rows: &ChannelRows,
    gradient: *mut f32,
    taps: &TapLayout,
) {
    // SAFETY: the caller of `filter_gradient` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        for row in 0..rows.count {
            let mut first = 0;
            while first < rows.channels {
                let valid = (rows.channels - first).min(LANES);
                let mut half = HalfTransformed::new();
                for q in 0..F::POINTS {
                    let mut column = [zero; 6];
                    for (p, value) in column.iter_mut().enumerate().take(F::POINTS) {
                        if let Some(offset) = points[p * MAX_POINTS + q] {
                            *value = S::load(packed.add(offset + row * rows.packed_row_stride + first));
                        }
                    }
                    half.set_column(q, &times_gt::<S, F>(&column), F::TAPS);
                }
                for i in 0..taps.count.0 {
                    let values = half.row(i, F::POINTS, zero);
                    for (j, &value) in times_gt::<S, F>(&values).iter().enumerate().take(taps.count.1) {
                        let offset = taps.origin
                            + i * taps.row_stride
                            + j * taps.column_stride
                            + row * taps.channel_row_stride;
                        let to = gradient.add(offset + first);
                        store_partial::<S>(to, S::add(value, load_partial::<S>(to, valid)), valid);
                    }
                }
                first += LANES;
            }
        }
    }
}

instantiate! {
    bf16(T::IS_BF16)
    fn filter_transform_of<T: Operand, F: MinimalFiltering>(
        weights: *const f32,
        taps: &TapLayout,
        rows: &ChannelRows,
        packed: *mut T,
        points: &PointOffsets,
    ) = filter_transform_body
}
instantiate! {
    fn filter_gradient_of<F: MinimalFiltering>(
        packed: *const f32,
        points: &PointOffsets,
        rows: &ChannelRows,
        gradient: *mut f32,
        taps: &TapLayout,
    ) = filter_gradient_body
}

/// `G g Gᵀ` of rows of channels; bf16 with adjacent rows interleaved.
///
/// # Safety
/// All taps lie inside the weights. All points lie inside `packed`, where nothing else accesses them. Sixteen groups
/// of a packed row start at a multiple of 64 bytes. Of bf16, an odd number of rows has space for one more.
#[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
pub(crate) unsafe fn filter_transform<T: Operand>(
    isa: Isa,
    taps: usize,
    weights: *const f32,
    layout: &TapLayout,
    rows: &ChannelRows,
    packed: *mut T,
    points: &PointOffsets,
) {
    let run = if taps == 2 { filter_transform_of::<T, F42> } else { filter_transform_of::<T, F43> };
    // SAFETY: the caller's promise.
    unsafe { run(isa, weights, layout, rows, packed, points) }
}

/// Adds `Gᵀ N G` of rows of channels to the gradient.
///
/// # Safety
/// As [`filter_transform`], and nothing else accesses these taps of the gradient.
#[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
pub(crate) unsafe fn filter_gradient(
    isa: Isa,
    taps: usize,
    packed: *const f32,
    points: &PointOffsets,
    rows: &ChannelRows,
    gradient: *mut f32,
    layout: &TapLayout,
) {
    let run = if taps == 2 { filter_gradient_of::<F42> } else { filter_gradient_of::<F43> };
    // SAFETY: the caller's promise.
    unsafe { run(isa, packed, points, rows, gradient, layout) }
}
