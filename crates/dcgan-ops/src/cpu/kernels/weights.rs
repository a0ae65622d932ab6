//! Winograd's transforms of weights, sixteen channels at a time: packed for products, and their gradients back; see
//! [`super::tiles`].

use super::forms::{Form, Three, Two, times_g, times_gt};
use super::simd::{LANES, Simd, instantiate};
use super::tiles::{Half, MAX_POINTS, Points, load_some, store_some, transforms};
use super::value::Value;
use half::bf16;

/// Where the taps of one channel pair lie among the weights: tap (i, j) at `start + i * row + j * column`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taps {
    /// Offset of tap (0, 0).
    pub(crate) start: usize,
    /// Distance between taps below one another.
    pub(crate) row: usize,
    /// Distance between taps beside one another.
    pub(crate) column: usize,
    /// Taps each way; others of the form are zero.
    pub(crate) count: (usize, usize),
    /// Distance between one row of channels and the next.
    pub(crate) channel_row: usize,
}

/// How many rows of channels, and of what width when packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    /// Rows.
    pub(crate) count: usize,
    /// Channels of a row.
    pub(crate) channels: usize,
    /// Values from one packed row to the next.
    pub(crate) packed_row: usize,
}

#[inline(always)]
unsafe fn pack_weights_body<S: Simd, T: Value, Fm: Form>(
    weights: *const f32,
    taps: &Taps,
    rows: &Rows,
    packed: *mut T,
    points: &Points,
) {
    // SAFETY: the caller of `pack_weights` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        for row in (0..rows.count).step_by(T::GROUP) {
            let mut first = 0;
            while first < rows.packed_row {
                let valid = rows.channels.saturating_sub(first).min(LANES);
                let mut halves = [const { Half::new() }; 2];
                for (i, half) in halves.iter_mut().enumerate().take(T::GROUP) {
                    // Nothing beside the last of an odd number of rows.
                    let valid = if row + i < rows.count { valid } else { 0 };
                    kernel_columns::<S, Fm>(weights, taps, row + i, first, valid, half);
                }
                for p in 0..Fm::POINTS {
                    let mut values = [[zero; 6]; 2];
                    for (values, half) in values.iter_mut().zip(&halves).take(T::GROUP) {
                        *values = times_g::<S, Fm>(&half.row(p, Fm::TAPS, zero));
                    }
                    for q in 0..Fm::POINTS {
                        if let Some(offset) = points[p * MAX_POINTS + q] {
                            let to = packed.add(offset + row * rows.packed_row + first * T::GROUP);
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
unsafe fn kernel_columns<S: Simd, Fm: Form>(
    weights: *const f32,
    taps: &Taps,
    row: usize,
    first: usize,
    valid: usize,
    half: &mut Half<S::F>,
) {
    // SAFETY: the caller of `pack_weights` vouches for all addresses.
    unsafe {
        for j in 0..Fm::TAPS {
            let mut column = [S::splat(0.0); 6];
            if j < taps.count.1 && valid > 0 {
                for (i, value) in column.iter_mut().enumerate().take(taps.count.0) {
                    let at = taps.start + i * taps.row + j * taps.column + row * taps.channel_row;
                    *value = load_some::<S>(weights.add(at + first), valid);
                }
            }
            half.set_column(j, &times_g::<S, Fm>(&column), Fm::POINTS);
        }
    }
}

#[inline(always)]
unsafe fn unpack_weights_body<S: Simd, Fm: Form>(
    packed: *const f32,
    points: &Points,
    rows: &Rows,
    gradient: *mut f32,
    taps: &Taps,
) {
    // SAFETY: the caller of `unpack_weights` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        for row in 0..rows.count {
            let mut first = 0;
            while first < rows.channels {
                let valid = (rows.channels - first).min(LANES);
                let mut half = Half::new();
                for q in 0..Fm::POINTS {
                    let mut column = [zero; 6];
                    for (p, value) in column.iter_mut().enumerate().take(Fm::POINTS) {
                        if let Some(offset) = points[p * MAX_POINTS + q] {
                            *value = S::load(packed.add(offset + row * rows.packed_row + first));
                        }
                    }
                    half.set_column(q, &times_gt::<S, Fm>(&column), Fm::TAPS);
                }
                for i in 0..taps.count.0 {
                    let values = half.row(i, Fm::POINTS, zero);
                    for (j, &value) in times_gt::<S, Fm>(&values).iter().enumerate().take(taps.count.1) {
                        let at = taps.start + i * taps.row + j * taps.column + row * taps.channel_row;
                        let to = gradient.add(at + first);
                        store_some::<S>(to, S::add(value, load_some::<S>(to, valid)), valid);
                    }
                }
                first += LANES;
            }
        }
    }
}

transforms! {
    /// `G g Gᵀ` of rows of channels.
    ///
    /// # Safety
    /// All taps lie inside the weights and all points inside `packed`, where nothing else is at work; sixteen groups of a packed row
    /// are a line of 64 bytes, aligned.
    pack_weights(weights: *const f32, at: &Taps, rows: &Rows, packed: *mut f32, points: &Points),
    pack_weights_body<f32>, pack_weights_two, pack_weights_three
}
transforms! {
    {bf16}
    /// [`pack_weights`] rounded to bf16, two rows beside each other.
    ///
    /// # Safety
    /// As [`pack_weights`]; an odd number of rows has place for one more.
    pack_weights_bf16(weights: *const f32, at: &Taps, rows: &Rows, packed: *mut bf16, points: &Points),
    pack_weights_body<bf16>, pack_weights_bf16_two, pack_weights_bf16_three
}
transforms! {
    /// Adds `Gᵀ N G` of rows of channels to the gradient.
    ///
    /// # Safety
    /// As [`pack_weights`], and nothing else is at work in these taps.
    unpack_weights(packed: *const f32, points: &Points, rows: &Rows, gradient: *mut f32, taps: &Taps),
    unpack_weights_body, unpack_weights_two, unpack_weights_three
}
