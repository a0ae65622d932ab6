//! The three stages of the algorithm over some images: tiles are gathered, multiplied at each point, and spread.
//!
//! Every stage is split by shapes alone, so the bytes do not depend on the number of threads.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `Shared::at` checks them"
)]

use super::{Each, Panels, Winograd};
use crate::MapShape;
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::gemm::{Left, Product};
use crate::cpu::kernels::prefetch::prefetch;
use crate::cpu::kernels::shared::Shared;
use crate::cpu::kernels::tiles::{self, Channels, OUT, Side};
use crate::cpu::kernels::value::Value;
use crate::cpu::source::Source;
use rayon::prelude::*;
use std::ops::Range;

impl Winograd {
    /// Tiles of some images of one side's map: `Bᵀ d B` of the fine one, `out` as [`Winograd::offsets`] says; `A y Aᵀ` of the
    /// coarse one, (point, panel, tile, channel).
    pub(super) fn gather<T: Value>(&self, isa: Isa, side: Side, source: Source<'_>, out: &mut [T]) {
        let (map, panels) = (self.map(side), self.panels(side));
        let images = source.len() / map.len();
        let rows = images * self.tile_count();
        let (total, phases) = (self.values(side, rows), self.points_of(side, lines(rows)));
        let channels = channels(map, panels, lines(rows));
        let out = Shared::new(&mut out[..total]);
        let (band, part) = self.band(side, phases.len());
        (0..images * self.tiles.0).into_par_iter().for_each(|line| {
            let (image, ty) = (line / self.tiles.0, line % self.tiles.0);
            // Where the next line of tiles reads.
            let next = (line + 1) / self.tiles.0 * map.len() + (line + 1) % self.tiles.0 * band;
            let (from, load) = source.part(image * map.len(), map.len()).raw(map.channels);
            let from = from.as_ptr();
            for tx in 0..self.tiles.1 {
                let tile = line * self.tiles.1 + tx;
                for (phase, points) in phases.iter().enumerate() {
                    source.prefetch(next + (tx * phases.len() + phase) * part, part);
                    let window = self.window(side, phase, (ty, tx));
                    let to = out.at(0, total).wrapping_add(tile * panels.width);
                    // SAFETY: the window is cut to the image; each tile has a row of its own at every point of `total` values.
                    unsafe { T::gather(isa, side, self.taps, from, &load, &window, &channels, to, points) };
                }
            }
        });
    }

    /// Products of gathered fine tiles with a group's weights: (point, panel, tile, channel) of the coarse map.
    pub(super) fn multiply_down<T: Value>(
        &self,
        isa: Isa,
        rows: usize,
        gathered: &[T],
        (group, packed): (&Range<usize>, &[T]),
        products: &mut [f32],
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.group_size(Side::Coarse, group));
        let size = self.coarse.padded() * lines;
        let out = Shared::new(products);
        (0..self.points * self.points * group.len()).into_par_iter().for_each(|task| {
            let (point, place) = (task / group.len(), task % group.len());
            let panel = group.start + place;
            let depth = self.active((point / self.points, point % self.points)) * self.fine.padded();
            let width = self.coarse.width;
            let mut shape = product_of::<T>((rows, depth, width), false);
            let left = rows_of_tiles::<T>(self.fine.width, lines);
            let a = &gathered[offsets[point]..][..depth * lines];
            let b = &packed[weight_offsets[point] + place * depth * width..][..depth * width];
            shape.next = following(place + 1 == group.len(), a, b);
            let c = out.at(point * size + panel * width * lines, width * lines);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the result.
            unsafe { T::product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// Products of gathered coarse tiles with a group's weights: by [`Winograd::offsets`], of the fine map.
    pub(super) fn multiply_up<T: Value>(
        &self,
        isa: Isa,
        rows: usize,
        gathered: &[T],
        (group, packed): (&Range<usize>, &[T]),
        products: &mut [f32],
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.group_size(Side::Fine, group));
        let size = self.coarse.padded() * lines;
        let out = Shared::new(products);
        // A task for each point, active phase and panel of it.
        let tasks = self.tasks(group.len());
        tasks.par_iter().for_each(|&(point, place)| {
            let (depth, width) = (self.coarse.padded(), self.fine.width);
            let mut shape = product_of::<T>((rows, depth, width), false);
            let left = rows_of_tiles::<T>(self.coarse.width, lines);
            let a = &gathered[point * size..][..size];
            let b = &packed[weight_offsets[point] + place * depth * width..][..depth * width];
            let places = self.active((point / self.points, point % self.points)) * group.len();
            shape.next = following(place + 1 == places, a, b);
            let panel = place / group.len() * self.fine.count + group.start + place % group.len();
            let c = out.at(offsets[point] + panel * width * lines, width * lines);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the result.
            unsafe { T::product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// `each` things of every active phase of every point.
    pub(super) fn tasks(&self, each: usize) -> Vec<(usize, usize)> {
        let points = self.all_points().enumerate();
        points.flat_map(|(i, point)| (0..self.active(point) * each).map(move |place| (i, place))).collect()
    }

    /// Sums over tiles of gathered fine values times gathered coarse ones of a group of panels, in the layout of weights packed for
    /// the way down.
    pub(super) fn multiply_gradient<T: Value>(
        &self,
        isa: Isa,
        rows: usize,
        (from_fine, from_coarse): (&[T], &[T]),
        (group, sums): (&Range<usize>, &mut [f32]),
        accumulate: bool,
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.group_size(Side::Coarse, group));
        let size = self.coarse.padded() * lines;
        let (width, height) = (self.coarse.width, self.fine.width);
        let out = Shared::new(sums);
        let tasks = self.tasks(self.fine.count);
        tasks.par_iter().for_each(|&(point, left_panel)| {
            let active = self.active((point / self.points, point % self.points));
            let a = &from_fine[offsets[point] + left_panel * height * lines..][..height * rows];
            let next_a = a.as_ptr().wrapping_add(height * lines).addr();
            T::with_depth_of_rows(isa, a, height, |a| {
                for panel in group.clone() {
                    let b = &from_coarse[point * size + panel * width * lines..][..width * rows];
                    let next_b =
                        from_coarse.as_ptr().wrapping_add(point * size + (panel + 1) * width * lines).addr();
                    let row = (panel - group.start) * active * self.fine.padded() + left_panel * height;
                    let c = out.at(weight_offsets[point] + row * width, height * width);
                    T::with_depth_of_rows(isa, b, width, |b| {
                        let mut shape = product_of::<T>((height, rows, width), accumulate);
                        shape.next = if panel + 1 < group.end { (0, next_b) } else { (next_a, 0) };
                        // Rows are channels, the depth tiles.
                        let left = Left {
                            row: T::GROUP,
                            depth: height * T::GROUP,
                            block: shape.depth,
                            block_stride: 0,
                        };
                        assert_eq!(
                            (a.len(), b.len()),
                            (shape.depth * T::GROUP * height, shape.depth * T::GROUP * width)
                        );
                        // SAFETY: the slices hold exactly the groups of the shape, asserted; each task has its own part of the sums.
                        unsafe { T::product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
                    });
                }
            });
        });
    }

    /// Values of the rows of a map that a line of tiles adds to those before it; and how many of them are asked for at each of its
    /// steps, a phase of a tile, so that the next line finds them near.
    fn band(&self, side: Side, phases: usize) -> (usize, usize) {
        let map = self.map(side);
        let rows = if side == Side::Fine { OUT * self.geometry.stride } else { OUT };
        let values = rows * map.width * map.channels;
        (values, values.div_ceil(self.tiles.1 * phases))
    }

    /// Products to maps `(n, h, w, c)` of one side; `each` gets the number of the image, from `first`.
    pub(super) fn spread(
        &self,
        isa: Isa,
        side: Side,
        products: &[f32],
        first: usize,
        maps: &mut [f32],
        each: Each<'_>,
    ) {
        let (map, panels) = (self.map(side), self.panels(side));
        let rows = maps.len() / map.len() * self.tile_count();
        let phases = self.points_of(side, lines(rows));
        let channels = channels(map, panels, lines(rows));
        let products = &products[..self.values(side, rows)];
        let (band, part) = self.band(side, phases.len());
        maps.par_chunks_mut(map.len()).enumerate().for_each(|(image, map)| {
            if side == Side::Fine && !self.covers() {
                map.fill(0.0);
            }
            for (ty, tx) in (0..self.tiles.0).flat_map(|ty| (0..self.tiles.1).map(move |tx| (ty, tx))) {
                // Where the next line of tiles writes; behind the last one that is the next image, whose map lies behind this one.
                let next = if ty + 1 < self.tiles.0 { (ty + 1) * band } else { map.len() };
                let next = next + tx * phases.len() * part;
                let tile = (image * self.tiles.0 + ty) * self.tiles.1 + tx;
                let from = products[tile * panels.width..].as_ptr();
                for (phase, points) in phases.iter().enumerate() {
                    prefetch(map.as_ptr().wrapping_add(next + phase * part), part);
                    let window = self.window(side, phase, (ty, tx));
                    // The tiles above and to the left reach into this one of the fine map; those of the coarse map do not meet.
                    let shared = |tile: usize, taps: usize| if tile > 0 { taps - 1 } else { 0 };
                    let taps = self.phases[phase].taps;
                    let written = match side {
                        Side::Fine => (shared(ty, taps.0), shared(tx, taps.1)),
                        Side::Coarse => (0, 0),
                    };
                    let to = map.as_mut_ptr();
                    // SAFETY: the window is cut to the map; the tile has a row at every point of its phase.
                    unsafe {
                        tiles::spread(isa, side, self.taps, from, points, to, &window, &channels, written)
                    };
                }
            }
            each(first + image, map);
        });
    }
}

/// A map's channels where there are places for `lines` tiles in a panel.
fn channels(map: MapShape, panels: Panels, lines: usize) -> Channels {
    Channels { count: map.channels, panel: panels.width, panel_stride: panels.width * lines }
}

/// Places for `rows` tiles in a panel: an odd number, so that the points of a tile, one panel apart, do not all fall into the same
/// few sets of the cache.
pub(super) fn lines(rows: usize) -> usize {
    rows | 1
}

/// A product of `(rows, depth, columns)` values with a packed panel.
fn product_of<T: Value>((rows, depth, columns): (usize, usize, usize), accumulate: bool) -> Product {
    Product {
        rows,
        depth: depth.div_ceil(T::GROUP),
        columns,
        right_row: columns * T::GROUP,
        out_row: columns,
        accumulate,
        next: (0, 0),
    }
}

/// What the next task's product reads: the panel behind `b`, and what lies behind `a` where this is the last product with `a`.
fn following<T>(last: bool, a: &[T], b: &[T]) -> (usize, usize) {
    (if last { a.as_ptr_range().end.addr() } else { 0 }, b.as_ptr_range().end.addr())
}

/// Rows are tiles, the depth the channels of panels of `width`.
fn rows_of_tiles<T: Value>(width: usize, rows: usize) -> Left {
    Left { row: width, depth: T::GROUP, block: width / T::GROUP, block_stride: width * rows }
}
