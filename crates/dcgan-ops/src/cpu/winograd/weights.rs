//! Weights packed for both ways, and the gradient by them back in its place.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `Shared::at` checks them"
)]

use super::{KEPT_BYTES, Kept, Phase, Side, Weights, Winograd};
use crate::cpu::buffer::Buffer;
use crate::cpu::conv::Geometry;
use crate::cpu::dispatch::vectorised;
use crate::cpu::kernels::shared::Shared;
use crate::cpu::kernels::value::Value;
use crate::cpu::kernels::weights::{self, Rows, Taps};
use crate::cpu::kernels::{Isa, LANES};
use rayon::prelude::*;
use std::ops::Range;

impl Winograd {
    /// Weights `(kernel, kernel, c_fine, c_coarse)` of a group of coarse panels as `G g Gᵀ`: (point, coarse panel, active phase and fine
    /// channel, channel).
    pub(super) fn pack_down<T: Value>(&self, isa: Isa, weights: &[f32], group: &Range<usize>, out: &mut [T]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(weights.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.coarse.width;
        let (offsets, total) = self.offsets(self.group_size(Side::Coarse, group));
        assert!(out.as_ptr().cast::<u8>().align_offset(64) == 0, "packed weights do not start at a line");
        let out = Shared::new(&mut out[..total]);
        let tasks = self.phases.len() * group.len();
        (0..tasks).into_par_iter().for_each(|task| {
            let (phase, place) = (task / group.len(), task % group.len());
            let panel = group.start + place;
            let points = self.down_points(&offsets, phase, place);
            let taps = self.taps_of(phase, coarse.channels, fine.channels * coarse.channels, panel * width);
            let rows = Rows {
                count: fine.channels,
                channels: (coarse.channels - panel * width).min(width),
                packed_row: width,
            };
            let to = out.at(0, total);
            // SAFETY: the asserted shape holds all taps; phase and panel have places of their own among `total` values; rows are whole
            // lines from the asserted one.
            unsafe { T::pack_weights(isa, self.taps, weights.as_ptr(), &taps, &rows, to, &points) };
            // Channels that only fill the panel up.
            for offset in points.iter().flatten() {
                let packed = fine.channels.next_multiple_of(T::GROUP);
                let rest = (self.fine.padded() - packed) * width;
                let from = out.at(offset + packed * width, rest);
                // SAFETY: checked to be inside, and in the place of this phase and panel.
                unsafe { std::ptr::write_bytes(from, 0, rest) };
            }
        });
    }

    /// The same turned around, of a group of fine panels: (point, active phase, fine panel, coarse channel, channel), from weights
    /// `(kernel, kernel, c_coarse, c_fine)`.
    pub(super) fn pack_up<T: Value>(&self, isa: Isa, turned: &[f32], group: &Range<usize>, out: &mut [T]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(turned.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.fine.width;
        let size = self.group_size(Side::Fine, group);
        let (offsets, total) = self.offsets(size);
        assert!(out.as_ptr().cast::<u8>().align_offset(64) == 0, "packed weights do not start at a line");
        let out = Shared::new(&mut out[..total]);
        let tasks = self.phases.len() * group.len();
        (0..tasks).into_par_iter().for_each(|task| {
            let (phase, place) = (task / group.len(), task % group.len());
            let panel = group.start + place;
            let points = self.phase_points(&offsets, phase, size, place * self.coarse.padded() * width);
            let taps = self.taps_of(phase, fine.channels, fine.channels * coarse.channels, panel * width);
            let rows = Rows {
                count: coarse.channels,
                channels: (fine.channels - panel * width).min(width),
                packed_row: width,
            };
            let to = out.at(0, total);
            // SAFETY: the asserted shape holds all taps; phase and panel have places of their own among `total` values; rows are whole
            // lines from the asserted one.
            unsafe { T::pack_weights(isa, self.taps, turned.as_ptr(), &taps, &rows, to, &points) };
            for offset in points.iter().flatten() {
                let packed = coarse.channels.next_multiple_of(T::GROUP);
                let rest = (self.coarse.padded() - packed) * width;
                let from = out.at(offset + packed * width, rest);
                // SAFETY: checked to be inside, and in the place of this phase and panel.
                unsafe { std::ptr::write_bytes(from, 0, rest) };
            }
        });
    }

    /// Taps of a phase among weights whose taps are `tap` values apart.
    pub(super) fn taps_of(&self, phase: usize, channel_row: usize, tap: usize, first: usize) -> Taps {
        let Geometry { kernel, stride, .. } = self.geometry;
        let Phase { offset, taps } = self.phases[phase];
        Taps {
            start: (offset.0 * kernel.1 + offset.1) * tap + first,
            row: stride * kernel.1 * tap,
            column: stride * tap,
            count: taps,
            channel_row,
        }
    }

    /// Whether packed weights are kept.
    fn keeps<T>(&self) -> bool {
        self.weights_len() * size_of::<T>() <= KEPT_BYTES
    }

    /// Panels of one side whose weights are packed together, for so many images: all of them, but where weights are large and all
    /// images go through the stages at once anyway, so many as may be kept. Each group is packed, used and forgotten.
    pub(super) fn groups<T>(&self, side: Side, images: usize) -> Vec<Range<usize>> {
        let count = self.panels(side).count;
        let each = self.offsets(self.group_size(side, &(0..1))).1 * size_of::<T>();
        let step = if self.keeps::<T>() || self.chunk(images) < images { count } else { KEPT_BYTES / each };
        let step = step.clamp(1, count);
        (0..count).step_by(step).map(|first| first..(first + step).min(count)).collect()
    }

    /// Weights of one active phase of a group of one side's panels.
    pub(super) fn group_size(&self, side: Side, group: &Range<usize>) -> usize {
        match side {
            Side::Fine => self.fine.width * group.len() * self.coarse.padded(),
            Side::Coarse => self.fine.padded() * self.coarse.width * group.len(),
        }
    }

    /// Packed weights for the way from one side to the other: of all panels kept or packed here, or the buffer where each group's are
    /// packed when its turn comes.
    pub(super) fn packed<'s, T: Value>(
        &self,
        isa: Isa,
        (kept, fresh): (&'s mut Kept, &'s mut Buffer),
        (from, weights): (Side, Weights<'_>),
        turned: &mut Buffer,
        groups: usize,
    ) -> Packed<'s, T> {
        if groups > 1 {
            return Packed::Fresh(fresh);
        }
        let len = self.weights_len();
        let keeps = self.keeps::<T>();
        let (version, values) = if from == Side::Fine { &mut kept.down } else { &mut kept.up };
        if keeps && *version == weights.version {
            return Packed::Whole(values.get(len));
        }
        let buffer = if keeps { values } else { fresh };
        let packed = buffer.sized(len);
        match from {
            Side::Fine => self.pack_down(isa, weights.values, &(0..self.coarse.count), packed),
            Side::Coarse => self.pack_up(isa, self.turn(weights, turned), &(0..self.fine.count), packed),
        }
        if keeps {
            *version = weights.version;
        }
        Packed::Whole(packed)
    }

    /// Weights `(kernel, kernel, c_coarse, c_fine)`.
    pub(super) fn turn<'s>(&self, weights: Weights<'_>, turned: &'s mut Buffer) -> &'s [f32] {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let turned = turned.sized(weights.values.len());
        transpose(weights.values, kernel.0 * kernel.1, (fine.channels, coarse.channels), turned);
        turned
    }

    /// Adds the sums of products of a group of coarse panels to the gradient by the weights.
    pub(super) fn unpack_gradient(&self, isa: Isa, group: &Range<usize>, sums: &[f32], gradient: &mut [f32]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let (weight_offsets, total) = self.offsets(self.group_size(Side::Coarse, group));
        assert_eq!(gradient.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let sums = &sums[..total];
        let out = Shared::new(gradient);
        let (width, channels) = (self.coarse.width, coarse.channels);
        (0..self.phases.len() * group.len()).into_par_iter().for_each(|task| {
            let (phase, place) = (task / group.len(), task % group.len());
            let panel = group.start + place;
            let points = self.down_points(&weight_offsets, phase, place);
            let taps = self.taps_of(phase, channels, fine.channels * channels, panel * width);
            let rows = Rows {
                count: fine.channels,
                channels: (channels - panel * width).min(width),
                packed_row: width,
            };
            // SAFETY: the asserted shape holds all taps; each task has its own, of one phase and panel.
            unsafe {
                weights::unpack_weights(isa, self.taps, sums.as_ptr(), &points, &rows, out.at(0, 0), &taps)
            };
        });
    }
}

/// Packed weights of all panels, or a place for those of a group.
pub(super) enum Packed<'a, T> {
    Whole(&'a [T]),
    Fresh(&'a mut Buffer),
}

impl<T: Value> Packed<'_, T> {
    /// Those of a group; `values` are packed where they are not: weights for the way down, turned ones for the way up.
    pub(super) fn of(
        &mut self,
        plan: &Winograd,
        isa: Isa,
        from: Side,
        values: &[f32],
        group: &Range<usize>,
    ) -> &[T] {
        let buffer = match self {
            Packed::Whole(packed) => return packed,
            Packed::Fresh(buffer) => buffer,
        };
        let packed = buffer.sized(plan.offsets(plan.group_size(from.other(), group)).1);
        match from {
            Side::Fine => plan.pack_down(isa, values, group, packed),
            Side::Coarse => plan.pack_up(isa, values, group, packed),
        }
        packed
    }
}

/// `(taps, rows, columns)` to `(taps, columns, rows)`.
fn transpose(from: &[f32], taps: usize, (rows, columns): (usize, usize), to: &mut [f32]) {
    assert_eq!((from.len(), to.len()), (taps * rows * columns, taps * rows * columns));
    // Strips of columns of one tap, so that each is a part of the result.
    let strips = |tap: usize| (0..columns).step_by(LANES).map(move |first| (tap, first));
    let mut rest = to;
    let mut tasks = Vec::new();
    for (tap, first) in (0..taps).flat_map(strips) {
        let (strip, after) = rest.split_at_mut(LANES.min(columns - first) * rows);
        tasks.push((tap, first, strip));
        rest = after;
    }
    tasks.into_par_iter().for_each(|(tap, first, strip)| {
        transpose_strip(&from[tap * rows * columns..][..rows * columns], first, rows, strip);
    });
}

vectorised! {
    /// Columns from `first` on of a matrix of `rows` rows: as many, at most sixteen, as `strip` has place for.
    fn transpose_strip(from: &[f32], first: usize, rows: usize, strip: &mut [f32]) {
        let (columns, count) = (from.len() / rows, strip.len() / rows);
        let whole = if count == LANES { rows / LANES * LANES } else { 0 };
        for start in (0..whole).step_by(LANES) {
            let mut block = [[0.0; LANES]; LANES];
            for (i, row) in block.iter_mut().enumerate() {
                row.copy_from_slice(&from[(start + i) * columns + first..][..LANES]);
            }
            for (column, row) in transposed(block).iter().enumerate() {
                strip[column * rows + start..][..LANES].copy_from_slice(row);
            }
        }
        for row in whole..rows {
            for (column, value) in from[row * columns + first..][..count].iter().enumerate() {
                strip[column * rows + row] = *value;
            }
        }
    }
}

/// A square turned by four rounds in which rows i and i + 8 become, value by value in turn, rows 2i and 2i + 1: shuffles of vectors.
#[inline(always)]
fn transposed(mut rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
    for _ in 0..4 {
        let before = rows;
        for i in 0..LANES / 2 {
            let (a, b) = (before[i], before[i + LANES / 2]);
            for k in 0..LANES / 2 {
                (rows[2 * i][2 * k], rows[2 * i][2 * k + 1]) = (a[k], b[k]);
                (rows[2 * i + 1][2 * k], rows[2 * i + 1][2 * k + 1]) = (a[k + LANES / 2], b[k + LANES / 2]);
            }
        }
    }
    rows
}
