//! The three stages of the algorithm over some pictures: tiles are gathered, multiplied at each point, and spread.
//!
//! Every stage is split by shapes alone, so the bytes do not depend on the number of threads.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `Shared::at` checks them"
)]

use super::{Each, Winograd};
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::gemm::{Left, Product};
use crate::cpu::kernels::shared::Shared;
use crate::cpu::kernels::tiles::{self, Channels, Points, Side};
use crate::cpu::kernels::value::Value;
use crate::cpu::source::Source;
use rayon::prelude::*;

impl Winograd {
    /// `Bᵀ d B` of every tile of some pictures of the fine map; `out` as [`Winograd::offsets`] says.
    pub(super) fn gather_fine<T: Value>(&self, isa: Isa, source: Source<'_>, out: &mut [T]) {
        let len = self.geometry.fine.len();
        let pictures = source.len() / len;
        let rows = lines(pictures * self.tile_count());
        let (offsets, total) = self.offsets(self.fine.padded() * rows);
        let channels = self.fine_channels(rows);
        let phases: Vec<Points> = (0..self.phases.len())
            .map(|phase| self.phase_points(&offsets, phase, self.fine.padded() * rows, 0))
            .collect();
        let out = Shared::new(&mut out[..total]);
        (0..pictures * self.tiles.0).into_par_iter().for_each(|line| {
            let (picture, ty) = (line / self.tiles.0, line % self.tiles.0);
            let (from, load) = source.part(picture * len, len).raw(self.geometry.fine.channels);
            for tx in 0..self.tiles.1 {
                let tile = line * self.tiles.1 + tx;
                for (phase, points) in self.phases.iter().zip(&phases) {
                    let window = self.fine_window(*phase, (ty, tx));
                    let to = out.at(0, total).wrapping_add(tile * self.fine.width);
                    // SAFETY: the window is cut to the picture; each tile has a row of its own at every point of `total` values.
                    unsafe {
                        T::gather(
                            isa,
                            Side::Fine,
                            self.taps,
                            from.as_ptr(),
                            &load,
                            &window,
                            &channels,
                            to,
                            points,
                        )
                    };
                }
            }
        });
    }

    /// `A y Aᵀ` of every tile of some pictures of the coarse map: (point, panel, tile, channel).
    pub(super) fn gather_coarse<T: Value>(&self, isa: Isa, source: Source<'_>, out: &mut [T]) {
        let len = self.geometry.coarse.len();
        let pictures = source.len() / len;
        let rows = lines(pictures * self.tile_count());
        let total = self.points * self.points * self.coarse.padded() * rows;
        let channels = self.coarse_channels(rows);
        let points = self.even_points(self.coarse.padded() * rows, 0);
        let out = Shared::new(&mut out[..total]);
        (0..pictures * self.tiles.0).into_par_iter().for_each(|line| {
            let (picture, ty) = (line / self.tiles.0, line % self.tiles.0);
            let (from, load) = source.part(picture * len, len).raw(self.geometry.coarse.channels);
            for tx in 0..self.tiles.1 {
                let tile = line * self.tiles.1 + tx;
                let window = self.coarse_window((ty, tx));
                let to = out.at(0, total).wrapping_add(tile * self.coarse.width);
                // SAFETY: the window is cut to the picture; each tile has a row of its own at every point of `total` values.
                unsafe {
                    T::gather(
                        isa,
                        Side::Coarse,
                        self.taps,
                        from.as_ptr(),
                        &load,
                        &window,
                        &channels,
                        to,
                        &points,
                    )
                };
            }
        });
    }

    pub(super) fn fine_channels(&self, rows: usize) -> Channels {
        Channels {
            count: self.geometry.fine.channels,
            panel: self.fine.width,
            panel_stride: self.fine.width * rows,
        }
    }

    pub(super) fn coarse_channels(&self, rows: usize) -> Channels {
        Channels {
            count: self.geometry.coarse.channels,
            panel: self.coarse.width,
            panel_stride: self.coarse.width * rows,
        }
    }

    /// Products of gathered fine tiles with weights: (point, panel, tile, channel) of the coarse map.
    pub(super) fn multiply_down<T: Value>(
        &self,
        isa: Isa,
        rows: usize,
        gathered: &[T],
        packed: &[T],
        products: &mut [f32],
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.fine.padded() * self.coarse.padded());
        let size = self.coarse.padded() * lines;
        let out = Shared::new(products);
        (0..self.points * self.points * self.coarse.count).into_par_iter().for_each(|task| {
            let (point, panel) = (task / self.coarse.count, task % self.coarse.count);
            let depth = self.active((point / self.points, point % self.points)) * self.fine.padded();
            let width = self.coarse.width;
            let mut shape = product_of::<T>((rows, depth, width), false);
            let left = rows_of_tiles::<T>(self.fine.width, lines);
            let a = &gathered[offsets[point]..][..depth * lines];
            let b = &packed[weight_offsets[point] + panel * depth * width..][..depth * width];
            shape.next = following(panel + 1 == self.coarse.count, a, b);
            let c = out.at(point * size + panel * width * lines, width * lines);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the result.
            unsafe { T::product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// Products of gathered coarse tiles with weights: by [`Winograd::offsets`], of the fine map.
    pub(super) fn multiply_up<T: Value>(
        &self,
        isa: Isa,
        rows: usize,
        gathered: &[T],
        packed: &[T],
        products: &mut [f32],
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.fine.padded() * self.coarse.padded());
        let size = self.coarse.padded() * lines;
        let out = Shared::new(products);
        // A task for each point, active phase and panel of it.
        let tasks = self.tasks(self.fine.count);
        tasks.par_iter().for_each(|&(point, place)| {
            let (depth, width) = (self.coarse.padded(), self.fine.width);
            let mut shape = product_of::<T>((rows, depth, width), false);
            let left = rows_of_tiles::<T>(self.coarse.width, lines);
            let a = &gathered[point * size..][..size];
            let b = &packed[weight_offsets[point] + place * depth * width..][..depth * width];
            let places = self.active((point / self.points, point % self.points)) * self.fine.count;
            shape.next = following(place + 1 == places, a, b);
            let c = out.at(offsets[point] + place * width * lines, width * lines);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the result.
            unsafe { T::product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// `each` things of every active phase of every point.
    pub(super) fn tasks(&self, each: usize) -> Vec<(usize, usize)> {
        let points = self.all_points().enumerate();
        points.flat_map(|(i, point)| (0..self.active(point) * each).map(move |place| (i, place))).collect()
    }

    /// Sums over tiles of gathered fine values times gathered coarse ones, in the layout of weights packed for the way down.
    pub(super) fn multiply_gradient<T: Value>(
        &self,
        isa: Isa,
        rows: usize,
        (from_fine, from_coarse): (&[T], &[T]),
        sums: &mut [f32],
        accumulate: bool,
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.fine.padded() * self.coarse.padded());
        let size = self.coarse.padded() * lines;
        let (width, height) = (self.coarse.width, self.fine.width);
        let out = Shared::new(sums);
        let tasks = self.tasks(self.fine.count);
        tasks.par_iter().for_each(|&(point, left_panel)| {
            let active = self.active((point / self.points, point % self.points));
            let a = &from_fine[offsets[point] + left_panel * height * lines..][..height * rows];
            let next_a = a.as_ptr().wrapping_add(height * lines).addr();
            T::with_depth_of_rows(isa, a, height, |a| {
                for panel in 0..self.coarse.count {
                    let b = &from_coarse[point * size + panel * width * lines..][..width * rows];
                    let next_b =
                        from_coarse.as_ptr().wrapping_add(point * size + (panel + 1) * width * lines).addr();
                    let row = panel * active * self.fine.padded() + left_panel * height;
                    let c = out.at(weight_offsets[point] + row * width, height * width);
                    T::with_depth_of_rows(isa, b, width, |b| {
                        let mut shape = product_of::<T>((height, rows, width), accumulate);
                        shape.next = if panel + 1 < self.coarse.count { (0, next_b) } else { (next_a, 0) };
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

    /// Products to maps `(n, h, w, c)` of the coarse side; `each` gets the number of the picture, from `first`.
    pub(super) fn spread_coarse(
        &self,
        isa: Isa,
        products: &[f32],
        first: usize,
        maps: &mut [f32],
        each: Each<'_>,
    ) {
        let map = self.geometry.coarse.len();
        let rows = lines(maps.len() / map * self.tile_count());
        let points = self.even_points(self.coarse.padded() * rows, 0);
        let channels = self.coarse_channels(rows);
        let needed = self.points * self.points * self.coarse.padded() * rows;
        let products = &products[..needed];
        maps.par_chunks_mut(map).enumerate().for_each(|(picture, map)| {
            for ty in 0..self.tiles.0 {
                for tx in 0..self.tiles.1 {
                    let tile = (picture * self.tiles.0 + ty) * self.tiles.1 + tx;
                    let window = self.coarse_window((ty, tx));
                    let from = products[tile * self.coarse.width..].as_ptr();
                    // SAFETY: the window is cut to the map; the tile has a row at every point.
                    unsafe {
                        let to = map.as_mut_ptr();
                        tiles::spread_coarse(isa, self.taps, from, &points, to, &window, &channels, (0, 0));
                    }
                }
            }
            each(first + picture, map);
        });
    }

    /// Products to maps `(n, h, w, c)` of the fine side.
    pub(super) fn spread_fine(
        &self,
        isa: Isa,
        products: &[f32],
        first: usize,
        maps: &mut [f32],
        each: Each<'_>,
    ) {
        let map = self.geometry.fine.len();
        let rows = lines(maps.len() / map * self.tile_count());
        let (offsets, total) = self.offsets(self.fine.padded() * rows);
        let phases: Vec<Points> = (0..self.phases.len())
            .map(|phase| self.phase_points(&offsets, phase, self.fine.padded() * rows, 0))
            .collect();
        let channels = self.fine_channels(rows);
        let products = &products[..total];
        maps.par_chunks_mut(map).enumerate().for_each(|(picture, map)| {
            if !self.covers() {
                map.fill(0.0);
            }
            for ty in 0..self.tiles.0 {
                for tx in 0..self.tiles.1 {
                    let tile = (picture * self.tiles.0 + ty) * self.tiles.1 + tx;
                    for (phase, points) in self.phases.iter().zip(&phases) {
                        let window = self.fine_window(*phase, (ty, tx));
                        // The tiles above and to the left reach into this one.
                        let shared = |tile: usize, taps: usize| if tile > 0 { taps - 1 } else { 0 };
                        let written = (shared(ty, phase.taps.0), shared(tx, phase.taps.1));
                        let from = products[tile * self.fine.width..].as_ptr();
                        // SAFETY: the window is cut to the map; the tile has a row at every point of its phase.
                        unsafe {
                            let to = map.as_mut_ptr();
                            tiles::spread_fine(isa, self.taps, from, points, to, &window, &channels, written);
                        }
                    }
                }
            }
            each(first + picture, map);
        });
    }
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
