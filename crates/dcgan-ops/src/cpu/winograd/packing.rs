//! Weights packed for both directions, and the gradient with respect to them.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `DisjointSlice::at` checks them"
)]

use super::{CACHED_BYTES, PackedWeightCache, Phase, Resolution, Weights, Winograd};
use crate::cpu::buffer::Buffer;
use crate::cpu::conv::Geometry;
use crate::cpu::dispatch::vectorized;
use crate::cpu::kernels::disjoint::DisjointSlice;
use crate::cpu::kernels::filter_transform::{ChannelRows, TapLayout, filter_gradient, filter_transform};
use crate::cpu::kernels::operand::Operand;
use crate::cpu::kernels::{Isa, LANES};
use rayon::prelude::*;
use std::ops::Range;

/// Packed weights of all panels, or a buffer for those of one group at a time.
pub(super) enum PackedWeights<'a, T> {
    All(&'a [T]),
    PerGroup(&'a mut Buffer),
}

impl<T: Operand> PackedWeights<'_, T> {
    /// The packed weights of a group of panels. Packs `weights` if they are not packed yet: those of the layer for
    /// the way down, transposed ones for the way up.
    pub(super) fn group(
        &mut self,
        plan: &Winograd,
        isa: Isa,
        from: Resolution,
        weights: &[f32],
        panels: &Range<usize>,
    ) -> &[T] {
        let buffer = match self {
            PackedWeights::All(packed) => return packed,
            PackedWeights::PerGroup(buffer) => buffer,
        };
        let packed = buffer.sized(plan.point_offsets(plan.group_size(from.other(), panels)).1);
        match from {
            Resolution::Fine => plan.pack_down(isa, weights, panels, packed),
            Resolution::Coarse => plan.pack_up(isa, weights, panels, packed),
        }
        packed
    }
}

/// Buffers of [`Winograd::packed_weights`].
#[derive(Debug)]
pub(super) struct PackingBuffers<'a, 't> {
    pub(super) cache: &'a mut PackedWeightCache,
    /// For weights that are not cached.
    pub(super) packed: &'a mut Buffer,
    /// For transposed weights.
    pub(super) transposed: &'t mut Buffer,
}

impl Winograd {
    /// Packs weights `(kernel, kernel, c_fine, c_coarse)` of a group of coarse panels as `G g Gᵀ`: (point, coarse
    /// panel, phase and fine channel, channel).
    fn pack_down<T: Operand>(&self, isa: Isa, weights: &[f32], panels: &Range<usize>, out: &mut [T]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(weights.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.coarse.width;
        let (offsets, total) = self.point_offsets(self.group_size(Resolution::Coarse, panels));
        assert!(
            out.as_ptr().cast::<u8>().align_offset(64) == 0,
            "packed weights are not aligned to 64 bytes"
        );
        let out = DisjointSlice::new(&mut out[..total]);
        let tasks = self.phases.len() * panels.len();
        (0..tasks).into_par_iter().for_each(|task| {
            let (phase, index) = (task / panels.len(), task % panels.len());
            let panel = panels.start + index;
            let points = self.packed_point_offsets(&offsets, phase, index);
            let taps =
                self.tap_layout(phase, coarse.channels, fine.channels * coarse.channels, panel * width);
            let rows = ChannelRows {
                count: fine.channels,
                channels: (coarse.channels - panel * width).min(width),
                packed_row_stride: width,
            };
            let to = out.at(0, total);
            // SAFETY: the asserted shape holds all taps; each task has its own part of the `total` values; rows are
            // whole lines from the asserted alignment.
            unsafe { filter_transform(isa, self.taps, weights.as_ptr(), &taps, &rows, to, &points) };
            // Channels that pad the last panel.
            for offset in points.iter().flatten() {
                let packed = fine.channels.next_multiple_of(T::GROUP);
                let rest = (self.fine.padded() - packed) * width;
                let from = out.at(offset + packed * width, rest);
                // SAFETY: checked to be inside, and in this task's part.
                unsafe { std::ptr::write_bytes(from, 0, rest) };
            }
        });
    }

    /// Packs transposed weights `(kernel, kernel, c_coarse, c_fine)` of a group of fine panels: (point, phase, fine
    /// panel, coarse channel, channel).
    fn pack_up<T: Operand>(&self, isa: Isa, transposed: &[f32], panels: &Range<usize>, out: &mut [T]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(transposed.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.fine.width;
        let size = self.group_size(Resolution::Fine, panels);
        let (offsets, total) = self.point_offsets(size);
        assert!(
            out.as_ptr().cast::<u8>().align_offset(64) == 0,
            "packed weights are not aligned to 64 bytes"
        );
        let out = DisjointSlice::new(&mut out[..total]);
        let tasks = self.phases.len() * panels.len();
        (0..tasks).into_par_iter().for_each(|task| {
            let (phase, index) = (task / panels.len(), task % panels.len());
            let panel = panels.start + index;
            let points =
                self.phase_point_offsets(&offsets, phase, size, index * self.coarse.padded() * width);
            let taps = self.tap_layout(phase, fine.channels, fine.channels * coarse.channels, panel * width);
            let rows = ChannelRows {
                count: coarse.channels,
                channels: (fine.channels - panel * width).min(width),
                packed_row_stride: width,
            };
            let to = out.at(0, total);
            // SAFETY: the asserted shape holds all taps; each task has its own part of the `total` values; rows are
            // whole lines from the asserted alignment.
            unsafe { filter_transform(isa, self.taps, transposed.as_ptr(), &taps, &rows, to, &points) };
            // Channels that pad the last panel.
            for offset in points.iter().flatten() {
                let packed = coarse.channels.next_multiple_of(T::GROUP);
                let rest = (self.coarse.padded() - packed) * width;
                let from = out.at(offset + packed * width, rest);
                // SAFETY: checked to be inside, and in this task's part.
                unsafe { std::ptr::write_bytes(from, 0, rest) };
            }
        });
    }

    /// Layout of a phase's taps among weights whose taps are `tap` values apart, from channel `first`.
    fn tap_layout(&self, phase: usize, channel_row_stride: usize, tap: usize, first: usize) -> TapLayout {
        let Geometry { kernel, stride, .. } = self.geometry;
        let Phase { offset, taps } = self.phases[phase];
        TapLayout {
            origin: (offset.0 * kernel.1 + offset.1) * tap + first,
            row_stride: stride * kernel.1 * tap,
            column_stride: stride * tap,
            count: taps,
            channel_row_stride,
        }
    }

    /// Whether packed weights are small enough to be cached.
    fn is_cacheable<T>(&self) -> bool {
        self.packed_len() * size_of::<T>() <= CACHED_BYTES
    }

    /// Groups of panels of one resolution whose weights are packed together, for a minibatch of `images`. One group
    /// of all panels, unless the weights are large and all images are one chunk: then groups of at most
    /// [`CACHED_BYTES`], each packed, used and discarded.
    pub(super) fn panel_groups<T>(&self, resolution: Resolution, images: usize) -> Vec<Range<usize>> {
        let count = self.panels(resolution).count;
        let panel_bytes = self.point_offsets(self.group_size(resolution, &(0..1))).1 * size_of::<T>();
        let one_group = self.is_cacheable::<T>() || self.chunk_images(images) < images;
        let step = if one_group { count } else { CACHED_BYTES / panel_bytes };
        let step = step.clamp(1, count);
        (0..count).step_by(step).map(|first| first..(first + step).min(count)).collect()
    }

    /// Packed weights of one phase at one point for a group of panels.
    pub(super) fn group_size(&self, resolution: Resolution, panels: &Range<usize>) -> usize {
        match resolution {
            Resolution::Fine => self.fine.width * panels.len() * self.coarse.padded(),
            Resolution::Coarse => self.fine.padded() * self.coarse.width * panels.len(),
        }
    }

    /// Packed weights for the way from one resolution to the other. With one group, those of all panels, from the
    /// cache or packed here; else a buffer that each group is packed into.
    pub(super) fn packed_weights<'a, T: Operand>(
        &self,
        isa: Isa,
        from: Resolution,
        weights: Weights<'_>,
        PackingBuffers { cache, packed, transposed }: PackingBuffers<'a, '_>,
        groups: usize,
    ) -> PackedWeights<'a, T> {
        if groups > 1 {
            return PackedWeights::PerGroup(packed);
        }
        let len = self.packed_len();
        let cacheable = self.is_cacheable::<T>();
        let cached = if from == Resolution::Fine { &mut cache.down } else { &mut cache.up };
        if cacheable && cached.version == weights.version {
            return PackedWeights::All(cached.values.get(len));
        }
        let buffer = if cacheable { &mut cached.values } else { packed };
        let packed = buffer.sized(len);
        match from {
            Resolution::Fine => self.pack_down(isa, weights.values, &(0..self.coarse.count), packed),
            Resolution::Coarse => {
                self.pack_up(isa, self.transpose_weights(weights, transposed), &(0..self.fine.count), packed);
            }
        }
        if cacheable {
            cached.version = weights.version;
        }
        PackedWeights::All(packed)
    }

    /// Weights `(kernel, kernel, c_coarse, c_fine)`.
    pub(super) fn transpose_weights<'s>(
        &self,
        weights: Weights<'_>,
        transposed: &'s mut Buffer,
    ) -> &'s [f32] {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let transposed = transposed.sized(weights.values.len());
        transpose(weights.values, kernel.0 * kernel.1, (fine.channels, coarse.channels), transposed);
        transposed
    }

    /// Adds the sums of a group of coarse panels to the gradient with respect to the weights.
    pub(super) fn unpack_gradient(
        &self,
        isa: Isa,
        panels: &Range<usize>,
        sums: &[f32],
        gradient: &mut [f32],
    ) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let (offsets, total) = self.point_offsets(self.group_size(Resolution::Coarse, panels));
        assert_eq!(gradient.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let sums = &sums[..total];
        let out = DisjointSlice::new(gradient);
        let (width, channels) = (self.coarse.width, coarse.channels);
        (0..self.phases.len() * panels.len()).into_par_iter().for_each(|task| {
            let (phase, index) = (task / panels.len(), task % panels.len());
            let panel = panels.start + index;
            let points = self.packed_point_offsets(&offsets, phase, index);
            let taps = self.tap_layout(phase, channels, fine.channels * channels, panel * width);
            let rows = ChannelRows {
                count: fine.channels,
                channels: (channels - panel * width).min(width),
                packed_row_stride: width,
            };
            let to = out.at(0, 0);
            // SAFETY: the asserted shape holds all taps; each task has those of one phase and panel.
            unsafe { filter_gradient(isa, self.taps, sums.as_ptr(), &points, &rows, to, &taps) };
        });
    }
}

/// `(taps, rows, columns)` to `(taps, columns, rows)`.
fn transpose(from: &[f32], taps: usize, (rows, columns): (usize, usize), to: &mut [f32]) {
    assert_eq!((from.len(), to.len()), (taps * rows * columns, taps * rows * columns));
    // Each strip of columns of one tap is a contiguous part of the result.
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

vectorized! {
    /// Transposes the columns from `first` of a matrix of `rows` rows: as many as `strip` holds, at most sixteen.
    fn transpose_strip(from: &[f32], first: usize, rows: usize, strip: &mut [f32]) {
        let (columns, count) = (from.len() / rows, strip.len() / rows);
        let whole = if count == LANES { rows / LANES * LANES } else { 0 };
        for start in (0..whole).step_by(LANES) {
            let mut block = [[0.0; LANES]; LANES];
            for (i, row) in block.iter_mut().enumerate() {
                row.copy_from_slice(&from[(start + i) * columns + first..][..LANES]);
            }
            for (column, row) in transpose_block(block).iter().enumerate() {
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

/// Transposes a square block in four rounds. Each interleaves rows i and i + 8 into rows 2i and 2i + 1, which
/// compiles to vector shuffles.
#[inline(always)]
fn transpose_block(mut rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
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
