//! The three stages of the algorithm over a chunk of images: input transform, products, output transform.
//!
//! Every stage is split by shapes alone, so the bytes do not depend on the number of threads.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `DisjointSlice::at` checks them"
)]

use super::{Panels, PerImage, Winograd};
use crate::MapShape;
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::disjoint::DisjointSlice;
use crate::cpu::kernels::gemm::{Lhs, NextOperands, PanelProduct, panel_product};
use crate::cpu::kernels::operand::Operand;
use crate::cpu::kernels::prefetch::prefetch;
use crate::cpu::kernels::tile_transform::{self, ChannelPanels, OUT, Resolution};
use crate::cpu::map_view::MapView;
use rayon::prelude::*;
use std::ops::Range;

/// Transformed tiles of one map of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransformedTiles<'a, T> {
    /// Number of tiles.
    pub(super) count: usize,
    pub(super) values: &'a [T],
}

/// Packed weights of a group of panels.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightGroup<'a, T> {
    pub(super) panels: &'a Range<usize>,
    pub(super) values: &'a [T],
}

/// One product: a point, and one of its panels or (phase, panel) pairs.
#[derive(Clone, Copy, Debug)]
struct Task {
    point: usize,
    index: usize,
}

/// Values that [`Winograd::input_transform`] and [`Winograd::output_transform`] prefetch.
#[derive(Clone, Copy, Debug)]
struct PrefetchSizes {
    /// Values of a map from one row of tiles to the next.
    tile_row: usize,
    /// Part of these per phase of a tile, so that the next row of tiles is in cache in time.
    step: usize,
}

impl Winograd {
    /// Transformed tiles of some images of one map: `Bᵀ d B` of the fine one at [`Winograd::point_offsets`], `A y Aᵀ`
    /// of the coarse one as (point, panel, tile, channel).
    pub(super) fn input_transform<T: Operand>(
        &self,
        isa: Isa,
        resolution: Resolution,
        source: MapView<'_>,
        out: &mut [T],
    ) {
        let (map, panels) = (self.map(resolution), self.panels(resolution));
        let images = source.len() / map.len();
        let tiles = images * self.tile_count();
        let total = self.transformed_len(resolution, tiles);
        let phases = self.tile_point_offsets(resolution, tile_slots(tiles));
        let channels = channel_panels(map, panels, tile_slots(tiles));
        let out = DisjointSlice::new(&mut out[..total]);
        let PrefetchSizes { tile_row, step } = self.prefetch_sizes(resolution, phases.len());
        (0..images * self.tiles.0).into_par_iter().for_each(|row| {
            let (image, ty) = (row / self.tiles.0, row % self.tiles.0);
            // Start of the next row of tiles.
            let next = (row + 1) / self.tiles.0 * map.len() + (row + 1) % self.tiles.0 * tile_row;
            let (from, load) = source.part(image * map.len(), map.len()).raw(map.channels);
            let from = from.as_ptr();
            for tx in 0..self.tiles.1 {
                let tile = row * self.tiles.1 + tx;
                for (phase, points) in phases.iter().enumerate() {
                    source.prefetch(next + (tx * phases.len() + phase) * step, step);
                    let view = self.tile_view(resolution, phase, (ty, tx));
                    let to = out.at(0, total).wrapping_add(tile * panels.width);
                    // SAFETY: the view's valid pixels are inside the image; each tile has a row of its own at every
                    // point of `total` values.
                    unsafe {
                        tile_transform::input_transform::<T>(
                            isa, resolution, self.taps, from, &load, &view, &channels, to, points,
                        );
                    };
                }
            }
        });
    }

    /// Products of transformed fine tiles with a group's weights: (point, panel, tile, channel) of the coarse map.
    pub(super) fn multiply_down<T: Operand>(
        &self,
        isa: Isa,
        tiles: TransformedTiles<'_, T>,
        WeightGroup { panels, values: packed }: WeightGroup<'_, T>,
        products: &mut [f32],
    ) {
        let slots = tile_slots(tiles.count);
        let (offsets, _) = self.point_offsets(self.fine.padded() * slots);
        let (weight_offsets, _) = self.point_offsets(self.group_size(Resolution::Coarse, panels));
        let size = self.coarse.padded() * slots;
        let out = DisjointSlice::new(products);
        (0..self.points * self.points * panels.len()).into_par_iter().for_each(|task| {
            let (point, index) = (task / panels.len(), task % panels.len());
            let panel = panels.start + index;
            let depth = self.phases_at_index(point) * self.fine.padded();
            let width = self.coarse.width;
            let a = &tiles.values[offsets[point]..][..depth * slots];
            let b = &packed[weight_offsets[point] + index * depth * width..][..depth * width];
            let mut shape = product_shape::<T>(tiles.count, depth, width);
            shape.next = next_operands(a, b, index + 1 == panels.len());
            let lhs = lhs_of_tiles::<T>(self.fine.width, slots);
            let c = out.at(point * size + panel * width * slots, width * slots);
            // SAFETY: the slices hold exactly the values of the shape; each task writes its own part of the result.
            unsafe { panel_product(isa, &shape, &lhs, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// Products of transformed coarse tiles with a group's weights: at [`Winograd::point_offsets`], of the fine map.
    pub(super) fn multiply_up<T: Operand>(
        &self,
        isa: Isa,
        tiles: TransformedTiles<'_, T>,
        WeightGroup { panels, values: packed }: WeightGroup<'_, T>,
        products: &mut [f32],
    ) {
        let slots = tile_slots(tiles.count);
        let (offsets, _) = self.point_offsets(self.fine.padded() * slots);
        let (weight_offsets, _) = self.point_offsets(self.group_size(Resolution::Fine, panels));
        let size = self.coarse.padded() * slots;
        let out = DisjointSlice::new(products);
        // A task per point, phase that uses it, and panel.
        self.tasks(panels.len()).par_iter().for_each(|&Task { point, index }| {
            let (depth, width) = (self.coarse.padded(), self.fine.width);
            let a = &tiles.values[point * size..][..size];
            let b = &packed[weight_offsets[point] + index * depth * width..][..depth * width];
            let count = self.phases_at_index(point) * panels.len();
            let mut shape = product_shape::<T>(tiles.count, depth, width);
            shape.next = next_operands(a, b, index + 1 == count);
            let lhs = lhs_of_tiles::<T>(self.coarse.width, slots);
            let panel = index / panels.len() * self.fine.count + panels.start + index % panels.len();
            let c = out.at(offsets[point] + panel * width * slots, width * slots);
            // SAFETY: the slices hold exactly the values of the shape; each task writes its own part of the result.
            unsafe { panel_product(isa, &shape, &lhs, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// `count` tasks per point and phase that uses it.
    fn tasks(&self, count: usize) -> Vec<Task> {
        let of_point = |(i, point)| {
            let count = self.phases_at(point) * count;
            (0..count).map(move |index| Task { point: i, index })
        };
        self.grid().enumerate().flat_map(of_point).collect()
    }

    /// Sums over tiles of transformed fine values times transformed coarse values of a group of panels, in the layout
    /// of weights packed for the way down.
    pub(super) fn multiply_gradient<T: Operand>(
        &self,
        isa: Isa,
        fine: TransformedTiles<'_, T>,
        coarse: TransformedTiles<'_, T>,
        panels: &Range<usize>,
        sums: &mut [f32],
        accumulate: bool,
    ) {
        let tiles = fine.count;
        let slots = tile_slots(tiles);
        let (offsets, _) = self.point_offsets(self.fine.padded() * slots);
        let (weight_offsets, _) = self.point_offsets(self.group_size(Resolution::Coarse, panels));
        let size = self.coarse.padded() * slots;
        let (width, height) = (self.coarse.width, self.fine.width);
        let out = DisjointSlice::new(sums);
        self.tasks(self.fine.count).par_iter().for_each(|&Task { point, index: fine_panel }| {
            let phases = self.phases_at_index(point);
            let a = &fine.values[offsets[point] + fine_panel * height * slots..][..height * tiles];
            let next_a = a.as_ptr().wrapping_add(height * slots).addr();
            T::with_interleaved_rows(isa, a, height, |a| {
                for panel in panels.clone() {
                    let start = point * size + panel * width * slots;
                    let b = &coarse.values[start..][..width * tiles];
                    let next_b = coarse.values.as_ptr().wrapping_add(start + width * slots).addr();
                    let row = (panel - panels.start) * phases * self.fine.padded() + fine_panel * height;
                    let c = out.at(weight_offsets[point] + row * width, height * width);
                    T::with_interleaved_rows(isa, b, width, |b| {
                        let mut shape = product_shape::<T>(height, tiles, width);
                        shape.accumulate = accumulate;
                        shape.next = if panel + 1 < panels.end {
                            NextOperands { lhs: 0, rhs: next_b }
                        } else {
                            NextOperands { lhs: next_a, rhs: 0 }
                        };
                        // The rows are channels, the depth tiles.
                        let lhs = Lhs {
                            row_stride: T::GROUP,
                            depth_stride: height * T::GROUP,
                            block: shape.depth,
                            block_stride: 0,
                        };
                        let depth = shape.depth * T::GROUP;
                        assert_eq!((a.len(), b.len()), (depth * height, depth * width));
                        // SAFETY: the slices hold exactly the groups of the shape, as asserted; each task writes its
                        // own part of the sums.
                        unsafe { panel_product(isa, &shape, &lhs, a.as_ptr(), b.as_ptr(), c) };
                    });
                }
            });
        });
    }

    fn prefetch_sizes(&self, resolution: Resolution, phases: usize) -> PrefetchSizes {
        let map = self.map(resolution);
        let rows = if resolution == Resolution::Fine { OUT * self.geometry.stride } else { OUT };
        let tile_row = rows * map.width * map.channels;
        PrefetchSizes { tile_row, step: tile_row.div_ceil(self.tiles.1 * phases) }
    }

    /// Products to maps `(n, h, w, c)`. Images are numbered from `first` for `per_image`.
    pub(super) fn output_transform(
        &self,
        isa: Isa,
        resolution: Resolution,
        products: &[f32],
        first: usize,
        maps: &mut [f32],
        per_image: PerImage<'_>,
    ) {
        let (map, panels) = (self.map(resolution), self.panels(resolution));
        let tiles = maps.len() / map.len() * self.tile_count();
        let phases = self.tile_point_offsets(resolution, tile_slots(tiles));
        let channels = channel_panels(map, panels, tile_slots(tiles));
        let products = &products[..self.transformed_len(resolution, tiles)];
        let PrefetchSizes { tile_row, step } = self.prefetch_sizes(resolution, phases.len());
        // Tiles of the fine map overlap those above and to the left; tiles of the coarse map do not.
        let overlap = |tile: usize, taps: usize| if tile == 0 { 0 } else { taps - 1 };
        maps.par_chunks_mut(map.len()).enumerate().for_each(|(image, map)| {
            if resolution == Resolution::Fine && !self.tiles_cover_fine_map() {
                map.fill(0.0);
            }
            for (ty, tx) in (0..self.tiles.0).flat_map(|ty| (0..self.tiles.1).map(move |tx| (ty, tx))) {
                // Start of the next row of tiles; after the last one of an image that is the next image.
                let next = if ty + 1 < self.tiles.0 { (ty + 1) * tile_row } else { map.len() };
                let next = next + tx * phases.len() * step;
                let tile = (image * self.tiles.0 + ty) * self.tiles.1 + tx;
                let from = products[tile * panels.width..].as_ptr();
                for (phase, points) in phases.iter().enumerate() {
                    prefetch(map.as_ptr().wrapping_add(next + phase * step), step);
                    let view = self.tile_view(resolution, phase, (ty, tx));
                    let taps = self.phases[phase].taps;
                    let overlap = match resolution {
                        Resolution::Fine => (overlap(ty, taps.0), overlap(tx, taps.1)),
                        Resolution::Coarse => (0, 0),
                    };
                    let to = map.as_mut_ptr();
                    // SAFETY: the view's valid pixels are inside the map; the tile has a row at every point of its
                    // phase.
                    unsafe {
                        tile_transform::output_transform(
                            isa, resolution, self.taps, from, points, to, &view, &channels, overlap,
                        );
                    };
                }
            }
            per_image(first + image, map);
        });
    }
}

/// A map's channels in panels of `slots` tiles.
fn channel_panels(map: MapShape, panels: Panels, slots: usize) -> ChannelPanels {
    ChannelPanels { count: map.channels, width: panels.width, stride: panels.width * slots }
}

/// Slots for tiles in a panel: an odd number, so that the points of a tile, one panel apart, do not compete for a few
/// sets of the cache.
pub(super) fn tile_slots(tiles: usize) -> usize {
    tiles | 1
}

/// A product of `rows` by `depth` values with a packed panel of `columns`.
fn product_shape<T: Operand>(rows: usize, depth: usize, columns: usize) -> PanelProduct {
    PanelProduct {
        rows,
        depth: depth.div_ceil(T::GROUP),
        columns,
        rhs_row_stride: columns * T::GROUP,
        out_row_stride: columns,
        accumulate: false,
        next: NextOperands::default(),
    }
}

/// Operands of the next task's product: the panel after `b`, and the values after `a` if this is the last product
/// with `a`.
fn next_operands<T>(a: &[T], b: &[T], last: bool) -> NextOperands {
    NextOperands { lhs: if last { a.as_ptr_range().end.addr() } else { 0 }, rhs: b.as_ptr_range().end.addr() }
}

/// The lhs whose rows are tiles and whose depth is the channels of panels of `width`, `slots` tiles each.
fn lhs_of_tiles<T: Operand>(width: usize, slots: usize) -> Lhs {
    Lhs { row_stride: width, depth_stride: T::GROUP, block: width / T::GROUP, block_stride: width * slots }
}
