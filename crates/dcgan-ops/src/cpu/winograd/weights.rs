//! Weights packed for both ways, and the gradient by them back in its place.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `Shared::at` checks them"
)]

use super::{KEPT_BYTES, Kept, Phase, Weights, Winograd};
use crate::cpu::buffer::Buffer;
use crate::cpu::conv::Geometry;
use crate::cpu::kernels::shared::Shared;
use crate::cpu::kernels::value::Value;
use crate::cpu::kernels::weights::{self, Rows, Taps};
use crate::cpu::kernels::{Isa, LANES};
use rayon::prelude::*;

impl Winograd {
    /// Weights `(kernel, kernel, c_fine, c_coarse)` as `G g Gᵀ`: (point, coarse panel, active phase and fine channel, channel).
    pub(super) fn pack_down<T: Value>(&self, isa: Isa, weights: &[f32], out: &mut [T]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(weights.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.coarse.width;
        let (offsets, total) = self.offsets(self.fine.padded() * self.coarse.padded());
        assert!(out.as_ptr().cast::<u8>().align_offset(64) == 0, "packed weights do not start at a line");
        let out = Shared::new(&mut out[..total]);
        let tasks = self.phases.len() * self.coarse.count;
        (0..tasks).into_par_iter().for_each(|task| {
            let (phase, panel) = (task / self.coarse.count, task % self.coarse.count);
            let points = self.down_points(&offsets, phase, panel);
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

    /// The same turned around: (point, active phase, fine panel, coarse channel, channel), from weights
    /// `(kernel, kernel, c_coarse, c_fine)`.
    pub(super) fn pack_up<T: Value>(&self, isa: Isa, turned: &[f32], out: &mut [T]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(turned.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.fine.width;
        let size = self.fine.padded() * self.coarse.padded();
        let (offsets, total) = self.offsets(size);
        assert!(out.as_ptr().cast::<u8>().align_offset(64) == 0, "packed weights do not start at a line");
        let out = Shared::new(&mut out[..total]);
        let tasks = self.phases.len() * self.fine.count;
        (0..tasks).into_par_iter().for_each(|task| {
            let (phase, panel) = (task / self.fine.count, task % self.fine.count);
            let points = self.phase_points(&offsets, phase, size, panel * self.coarse.padded() * width);
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

    /// Packed weights for the way down: kept ones, or packed anew.
    pub(super) fn packed_down<'s, T: Value>(
        &self,
        isa: Isa,
        kept: &'s mut Kept,
        fresh: &'s mut Buffer,
        weights: Weights<'_>,
    ) -> &'s [T] {
        let len = self.weights_len();
        let (version, values) = &mut kept.down;
        if !self.keeps::<T>() {
            let packed = fresh.sized(len);
            self.pack_down(isa, weights.values, packed);
            return packed;
        }
        if *version != weights.version {
            self.pack_down::<T>(isa, weights.values, values.sized(len));
            *version = weights.version;
        }
        values.get(len)
    }

    /// The same for the way up.
    pub(super) fn packed_up<'s, T: Value>(
        &self,
        isa: Isa,
        kept: &'s mut Kept,
        (fresh, turned): (&'s mut Buffer, &mut Buffer),
        weights: Weights<'_>,
    ) -> &'s [T] {
        let len = self.weights_len();
        let (version, values) = &mut kept.up;
        let keeps = self.keeps::<T>();
        if keeps && *version == weights.version {
            return values.get(len);
        }
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let turned = turned.sized(weights.values.len());
        transpose(weights.values, kernel.0 * kernel.1, (fine.channels, coarse.channels), turned);
        let packed = if keeps {
            *version = weights.version;
            values.sized(len)
        } else {
            fresh.sized(len)
        };
        self.pack_up(isa, turned, packed);
        packed
    }

    /// Adds the sums of products to the gradient by the weights.
    pub(super) fn unpack_gradient(&self, isa: Isa, sums: &[f32], gradient: &mut [f32]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let (weight_offsets, total) = self.offsets(self.fine.padded() * self.coarse.padded());
        assert_eq!(gradient.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let sums = &sums[..total];
        let out = Shared::new(gradient);
        let (width, channels) = (self.coarse.width, coarse.channels);
        (0..self.phases.len() * self.coarse.count).into_par_iter().for_each(|task| {
            let (phase, panel) = (task / self.coarse.count, task % self.coarse.count);
            let points = self.down_points(&weight_offsets, phase, panel);
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

/// Rows that a block of a transposition reads: they stay in the first-level cache for all columns of a line.
const BLOCK: usize = 64;

/// `(taps, rows, columns)` to `(taps, columns, rows)`, in blocks.
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
        let from = &from[tap * rows * columns..][..rows * columns];
        let count = strip.len() / rows;
        for start in (0..rows).step_by(BLOCK) {
            let end = (start + BLOCK).min(rows);
            for column in 0..count {
                let to = &mut strip[column * rows..][start..end];
                let from = from[start * columns + first + column..].iter().step_by(columns);
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *from;
                }
            }
        }
    });
}
