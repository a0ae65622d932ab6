//! Convolutions with few taps each way by Winograd's algorithm: transforms of tiles, and a matrix product for each point.
//!
//! See [`super::kernels::tiles`] for the algorithm. Pictures are taken some at a time, so that what lies between the stages
//! stays in cache; every stage is split by shapes alone, so the bytes do not depend on the number of threads.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and `Shared::at` checks them"
)]

use super::buffer::Buffer;
use super::conv::Geometry;
use super::kernels::gemm::{Left, PANEL, Product, product};
use super::kernels::shared::Shared;
use super::kernels::tiles::{self, Channels, MAX_POINTS, OUT, Points, Rows, Taps, Window};
use super::kernels::{Isa, LANES};
use super::source::Source;
use rayon::prelude::*;

/// Bytes between the stages that pictures are taken together for.
const CHUNK_BYTES: usize = 4 << 20;

/// Values of packed weights up to which they are kept: 64 MiB for either way.
const KEPT: usize = 16 << 20;

/// Tiles of a matrix product that pay for reading its right side, where there are so many.
const MIN_TILES: usize = 128;

/// One of the maps that a stride splits the fine map into.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// First row and column.
    offset: (usize, usize),
    /// Taps each way.
    taps: (usize, usize),
}

/// One convolution as this algorithm sees it.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    geometry: Geometry,
    /// Taps of the form.
    taps: usize,
    /// Points each way.
    points: usize,
    phases: Vec<Phase>,
    /// Tiles down and across.
    tiles: (usize, usize),
    /// Channels of a panel, and panels, of the fine and of the coarse map.
    fine: Panels,
    coarse: Panels,
}

#[derive(Clone, Copy, Debug)]
struct Panels {
    width: usize,
    count: usize,
}

impl Panels {
    /// Panels of one width: 64 where that divides the channels, rounded up to sixteens.
    fn of(channels: usize) -> Self {
        let padded = channels.next_multiple_of(LANES);
        let width = match padded {
            0..=PANEL => padded,
            _ => [PANEL, 48, 32, LANES].into_iter().find(|width| padded % width == 0).unwrap_or(LANES),
        };
        Self { width, count: padded / width }
    }

    fn padded(self) -> usize {
        self.width * self.count
    }
}

/// Buffers between the stages, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    fine: Buffer,
    coarse: Buffer,
    products: Buffer,
    weights: Buffer,
    turned: Buffer,
}

/// Packed weights that are kept for as long as the parameters stay the same.
#[derive(Debug, Default)]
pub(super) struct Kept {
    down: (u64, Buffer),
    up: (u64, Buffer),
}

/// Parameters of a layer, and which version of them these are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights<'a> {
    /// `(kernel_h, kernel_w, c_fine, c_coarse)`
    pub(super) values: &'a [f32],
    /// Greater than 0, another after each change.
    pub(super) version: u64,
}

/// What is done to each picture's map as soon as it is written.
pub(super) type Each<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

impl Winograd {
    /// The algorithm for `geometry`, where it applies: square kernels of two or three taps for each phase of the stride, and
    /// enough channels and outputs to be worth it.
    pub(super) fn of(geometry: &Geometry) -> Option<Self> {
        let Geometry { fine, coarse, kernel: (kernel, width), stride, .. } = *geometry;
        let taps = kernel.div_ceil(stride);
        let few = fine.channels.min(coarse.channels) < 8;
        let small = coarse.height.min(coarse.width) < 3;
        if kernel != width || !(1..=2).contains(&stride) || !(2..=3).contains(&taps) || few || small {
            return None;
        }
        let of = |offset: usize| (kernel - offset).div_ceil(stride);
        let phases = (0..stride * stride)
            .map(|i| Phase { offset: (i / stride, i % stride), taps: (of(i / stride), of(i % stride)) })
            .collect();
        Some(Self {
            geometry: geometry.clone(),
            taps,
            points: OUT + taps - 1,
            phases,
            tiles: (coarse.height.div_ceil(OUT), coarse.width.div_ceil(OUT)),
            fine: Panels::of(fine.channels),
            coarse: Panels::of(coarse.channels),
        })
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> &'static str {
        if self.taps == 2 { "Winograd F(4x4,2x2)" } else { "Winograd F(4x4,3x3)" }
    }

    /// Points of a tile.
    fn all_points(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let points = self.points;
        (0..points * points).map(move |i| (i / points, i % points))
    }

    /// Whether the phase takes part at the point: kernels of fewer taps are zero at infinity.
    fn takes_part(&self, phase: Phase, (p, q): (usize, usize)) -> bool {
        let last = self.points - 1;
        (phase.taps.0 == self.taps || p != last) && (phase.taps.1 == self.taps || q != last)
    }

    /// Phases that take part at the point.
    fn active(&self, point: (usize, usize)) -> usize {
        self.phases.iter().filter(|&&phase| self.takes_part(phase, point)).count()
    }

    /// For each point what comes before it where each active phase has `size` values; and the sum of all.
    fn offsets(&self, size: usize) -> (Vec<usize>, usize) {
        let mut total = 0;
        let offsets = self
            .all_points()
            .map(|point| {
                let before = total;
                total += self.active(point) * size;
                before
            })
            .collect();
        (offsets, total)
    }

    /// Points of one phase among `offsets`, whose active phases have `size` values each at every point.
    fn phase_points(&self, offsets: &[usize], phase: usize, size: usize, extra: usize) -> Points {
        let mut points: Points = [None; MAX_POINTS * MAX_POINTS];
        for (i, point) in self.all_points().enumerate() {
            if self.takes_part(self.phases[phase], point) {
                let before =
                    self.phases[..phase].iter().filter(|&&other| self.takes_part(other, point)).count();
                points[point.0 * MAX_POINTS + point.1] = Some(offsets[i] + before * size + extra);
            }
        }
        points
    }

    /// Where a phase's weights begin in a panel of those packed for the way down: at each point a panel has all active phases,
    /// one after the other.
    fn down_points(&self, offsets: &[usize], phase: usize, panel: usize) -> Points {
        let size = self.fine.padded() * self.coarse.width;
        let mut points = self.phase_points(offsets, phase, size, 0);
        for (p, q) in self.all_points() {
            if let Some(offset) = &mut points[p * MAX_POINTS + q] {
                *offset += panel * self.active((p, q)) * size;
            }
        }
        points
    }

    /// Points that lie `size` values apart.
    fn even_points(&self, size: usize, extra: usize) -> Points {
        let mut points: Points = [None; MAX_POINTS * MAX_POINTS];
        for (i, (p, q)) in self.all_points().enumerate() {
            points[p * MAX_POINTS + q] = Some(i * size + extra);
        }
        points
    }

    /// Values of packed weights.
    fn weights_len(&self) -> usize {
        self.offsets(self.fine.padded() * self.coarse.padded()).1
    }

    /// Pictures taken together, of `n`.
    fn chunk(&self, n: usize) -> usize {
        let per_picture = self.tiles.0 * self.tiles.1;
        let (_, fine) = self.offsets(self.fine.padded());
        let coarse = self.points * self.points * self.coarse.padded();
        let tiles = (CHUNK_BYTES / (4 * (fine + coarse))).max(MIN_TILES);
        let chunks = n.div_ceil((tiles / per_picture).max(1));
        n.div_ceil(chunks)
    }

    /// The fine map's pixels of a tile of a phase.
    fn fine_window(&self, phase: Phase, (ty, tx): (usize, usize)) -> Window {
        let Geometry { fine, stride, padding, .. } = self.geometry;
        let signed = |x: usize| isize::try_from(x).unwrap_or(isize::MAX);
        let (s, c, w) = (signed(stride), signed(fine.channels), signed(fine.width));
        let start = |tile: usize, offset: usize| signed(tile * OUT * stride + offset) - signed(padding);
        // Rows of the tile that are inside the map; shorter kernels reach one row less.
        let inside = |start: isize, side: usize, taps: usize| {
            let reach = OUT + taps - 1;
            let low = usize::try_from((-start).max(0)).unwrap_or(0).div_ceil(stride).min(reach);
            let high =
                usize::try_from((signed(side) - start).max(0)).unwrap_or(0).div_ceil(stride).min(reach);
            (low, high.max(low))
        };
        let (y, x) = (start(ty, phase.offset.0), start(tx, phase.offset.1));
        Window {
            start: (y * w + x) * c,
            row: s * w * c,
            column: s * c,
            rows: inside(y, fine.height, phase.taps.0),
            columns: inside(x, fine.width, phase.taps.1),
        }
    }

    /// The coarse map's pixels of a tile.
    fn coarse_window(&self, (ty, tx): (usize, usize)) -> Window {
        let coarse = self.geometry.coarse;
        let signed = |x: usize| isize::try_from(x).unwrap_or(isize::MAX);
        Window {
            start: signed((ty * OUT * coarse.width + tx * OUT) * coarse.channels),
            row: signed(coarse.width * coarse.channels),
            column: signed(coarse.channels),
            rows: (0, (coarse.height - ty * OUT).min(OUT)),
            columns: (0, (coarse.width - tx * OUT).min(OUT)),
        }
    }

    /// Whether every pixel of the fine map lies in a tile.
    fn covers(&self) -> bool {
        let Geometry { fine, stride, padding, kernel, .. } = self.geometry;
        // Tiles reach past the last row that any kernel does.
        let reach = |tiles: usize| (tiles * OUT - 1) * stride + kernel.0;
        reach(self.tiles.0) >= fine.height + padding && reach(self.tiles.1) >= fine.width + padding
    }

    fn tile_count(&self) -> usize {
        self.tiles.0 * self.tiles.1
    }

    /// `Bᵀ d B` of every tile of some pictures of the fine map; `out` as [`Winograd::offsets`] says.
    fn gather_fine(&self, isa: Isa, source: Source<'_>, out: &mut [f32]) {
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
                        tiles::gather_fine(
                            isa,
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
    fn gather_coarse(&self, isa: Isa, source: Source<'_>, out: &mut [f32]) {
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
                    tiles::gather_coarse(
                        isa,
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

    fn fine_channels(&self, rows: usize) -> Channels {
        Channels {
            count: self.geometry.fine.channels,
            panel: self.fine.width,
            panel_stride: self.fine.width * rows,
        }
    }

    fn coarse_channels(&self, rows: usize) -> Channels {
        Channels {
            count: self.geometry.coarse.channels,
            panel: self.coarse.width,
            panel_stride: self.coarse.width * rows,
        }
    }

    /// Weights `(kernel, kernel, c_fine, c_coarse)` as `G g Gᵀ`: (point, coarse panel, active phase and fine channel, channel).
    fn pack_down(&self, isa: Isa, weights: &[f32], out: &mut [f32]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(weights.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.coarse.width;
        let (offsets, total) = self.offsets(self.fine.padded() * self.coarse.padded());
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
            // SAFETY: the asserted shape holds all taps; phase and panel have places of their own among `total` values.
            unsafe { tiles::pack_weights(isa, self.taps, weights.as_ptr(), &taps, &rows, to, &points) };
            // Channels that only fill the panel up.
            for offset in points.iter().flatten() {
                let rest = (self.fine.padded() - fine.channels) * width;
                let from = out.at(offset + fine.channels * width, rest);
                // SAFETY: checked to be inside, and in the place of this phase and panel.
                unsafe { std::ptr::write_bytes(from, 0, rest) };
            }
        });
    }

    /// The same turned around: (point, active phase, fine panel, coarse channel, channel), from weights
    /// `(kernel, kernel, c_coarse, c_fine)`.
    fn pack_up(&self, isa: Isa, turned: &[f32], out: &mut [f32]) {
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        assert_eq!(turned.len(), kernel.0 * kernel.1 * fine.channels * coarse.channels);
        let width = self.fine.width;
        let size = self.fine.padded() * self.coarse.padded();
        let (offsets, total) = self.offsets(size);
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
            // SAFETY: the asserted shape holds all taps; phase and panel have places of their own among `total` values.
            unsafe { tiles::pack_weights(isa, self.taps, turned.as_ptr(), &taps, &rows, to, &points) };
            for offset in points.iter().flatten() {
                let rest = (self.coarse.padded() - coarse.channels) * width;
                let from = out.at(offset + coarse.channels * width, rest);
                // SAFETY: checked to be inside, and in the place of this phase and panel.
                unsafe { std::ptr::write_bytes(from, 0, rest) };
            }
        });
    }

    /// Taps of a phase among weights whose taps are `tap` values apart.
    fn taps_of(&self, phase: usize, channel_row: usize, tap: usize, first: usize) -> Taps {
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

    /// Packed weights for the way down: kept ones, or packed anew.
    fn packed_down<'s>(
        &self,
        isa: Isa,
        kept: &'s mut Kept,
        fresh: &'s mut Buffer,
        weights: Weights<'_>,
    ) -> &'s [f32] {
        let len = self.weights_len();
        let (version, values) = &mut kept.down;
        if len > KEPT {
            let packed = fresh.sized(len);
            self.pack_down(isa, weights.values, packed);
            return packed;
        }
        if *version != weights.version {
            self.pack_down(isa, weights.values, values.sized(len));
            *version = weights.version;
        }
        values.get(len)
    }

    /// The same for the way up.
    fn packed_up<'s>(
        &self,
        isa: Isa,
        kept: &'s mut Kept,
        (fresh, turned): (&'s mut Buffer, &mut Buffer),
        weights: Weights<'_>,
    ) -> &'s [f32] {
        let len = self.weights_len();
        let (version, values) = &mut kept.up;
        if len <= KEPT && *version == weights.version {
            return values.get(len);
        }
        let Geometry { fine, coarse, kernel, .. } = self.geometry;
        let turned = turned.sized(weights.values.len());
        transpose(weights.values, kernel.0 * kernel.1, (fine.channels, coarse.channels), turned);
        let packed = if len <= KEPT {
            *version = weights.version;
            values.sized(len)
        } else {
            fresh.sized(len)
        };
        self.pack_up(isa, turned, packed);
        packed
    }

    /// Products of gathered fine tiles with weights: (point, panel, tile, channel) of the coarse map.
    fn multiply_down(&self, isa: Isa, rows: usize, gathered: &[f32], packed: &[f32], products: &mut [f32]) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.fine.padded() * self.coarse.padded());
        let size = self.coarse.padded() * lines;
        let out = Shared::new(products);
        (0..self.points * self.points * self.coarse.count).into_par_iter().for_each(|task| {
            let (point, panel) = (task / self.coarse.count, task % self.coarse.count);
            let depth = self.active((point / self.points, point % self.points)) * self.fine.padded();
            let width = self.coarse.width;
            let shape =
                Product { rows, depth, columns: width, right_row: width, out_row: width, accumulate: false };
            let left = rows_of_tiles(self.fine.width, lines);
            let a = &gathered[offsets[point]..][..depth * lines];
            let b = &packed[weight_offsets[point] + panel * depth * width..][..depth * width];
            let c = out.at(point * size + panel * width * lines, width * lines);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the result.
            unsafe { product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// Products of gathered coarse tiles with weights: by [`Winograd::offsets`], of the fine map.
    fn multiply_up(&self, isa: Isa, rows: usize, gathered: &[f32], packed: &[f32], products: &mut [f32]) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.fine.padded() * self.coarse.padded());
        let size = self.coarse.padded() * lines;
        let out = Shared::new(products);
        // A task for each point, active phase and panel of it.
        let tasks = self.tasks(self.fine.count);
        tasks.par_iter().for_each(|&(point, place)| {
            let (depth, width) = (self.coarse.padded(), self.fine.width);
            let shape =
                Product { rows, depth, columns: width, right_row: width, out_row: width, accumulate: false };
            let left = rows_of_tiles(self.coarse.width, lines);
            let a = &gathered[point * size..][..size];
            let b = &packed[weight_offsets[point] + place * depth * width..][..depth * width];
            let c = out.at(offsets[point] + place * width * lines, width * lines);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the result.
            unsafe { product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// `each` things of every active phase of every point.
    fn tasks(&self, each: usize) -> Vec<(usize, usize)> {
        let points = self.all_points().enumerate();
        points.flat_map(|(i, point)| (0..self.active(point) * each).map(move |place| (i, place))).collect()
    }

    /// Sums over tiles of gathered fine values times gathered coarse ones, in the layout of weights packed for the way down.
    fn multiply_gradient(
        &self,
        isa: Isa,
        rows: usize,
        (from_fine, from_coarse): (&[f32], &[f32]),
        sums: &mut [f32],
        accumulate: bool,
    ) {
        let lines = lines(rows);
        let (offsets, _) = self.offsets(self.fine.padded() * lines);
        let (weight_offsets, _) = self.offsets(self.fine.padded() * self.coarse.padded());
        let size = self.coarse.padded() * lines;
        let out = Shared::new(sums);
        let tasks = self.tasks(self.fine.count * self.coarse.count);
        tasks.par_iter().for_each(|&(point, place)| {
            let (left_panel, panel) = (place / self.coarse.count, place % self.coarse.count);
            let (width, height) = (self.coarse.width, self.fine.width);
            let shape = Product {
                rows: height,
                depth: rows,
                columns: width,
                right_row: width,
                out_row: width,
                accumulate,
            };
            // Rows are channels, columns tiles.
            let left = Left { row: 1, depth: height, block: rows, block_stride: 0 };
            let a = &from_fine[offsets[point] + left_panel * height * lines..][..height * lines];
            let b = &from_coarse[point * size + panel * width * lines..][..width * lines];
            let active = self.active((point / self.points, point % self.points));
            let row = panel * active * self.fine.padded() + left_panel * height;
            let c = out.at(weight_offsets[point] + row * width, height * width);
            // SAFETY: the slices hold exactly the values of the shape; each task has its own part of the sums.
            unsafe { product(isa, &shape, &left, a.as_ptr(), b.as_ptr(), c) };
        });
    }

    /// Products to maps `(n, h, w, c)` of the coarse side; `each` gets the number of the picture, from `first`.
    fn spread_coarse(&self, isa: Isa, products: &[f32], first: usize, maps: &mut [f32], each: Each<'_>) {
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
    fn spread_fine(&self, isa: Isa, products: &[f32], first: usize, maps: &mut [f32], each: Each<'_>) {
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

    /// Adds the sums of products to the gradient by the weights.
    fn unpack_gradient(&self, isa: Isa, sums: &[f32], gradient: &mut [f32]) {
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
                tiles::unpack_weights(isa, self.taps, sums.as_ptr(), &points, &rows, out.at(0, 0), &taps)
            };
        });
    }

    /// Pictures of each chunk: first one and how many.
    fn chunks(&self, n: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let chunk = self.chunk(n);
        (0..n).step_by(chunk).map(move |first| (first, chunk.min(n - first)))
    }

    /// `coarse = conv(fine, weights)`
    pub(super) fn down(
        &self,
        isa: Isa,
        (scratch, kept): (&mut Scratch, &mut Kept),
        fine: Source<'_>,
        weights: Weights<'_>,
        coarse: &mut [f32],
        each: Each<'_>,
    ) {
        let (fine_len, coarse_len) = (self.geometry.fine.len(), self.geometry.coarse.len());
        let n = fine.len() / fine_len;
        assert_eq!((fine.len(), coarse.len()), (n * fine_len, n * coarse_len));
        let packed = self.packed_down(isa, kept, &mut scratch.weights, weights);
        for (first, pictures) in self.chunks(n) {
            let rows = pictures * self.tile_count();
            let gathered = scratch.fine.sized(self.fine_values(rows));
            self.gather_fine(isa, fine.part(first * fine_len, pictures * fine_len), gathered);
            let products = scratch.products.sized(self.coarse_values(rows));
            self.multiply_down(isa, rows, gathered, packed, products);
            let maps = &mut coarse[first * coarse_len..][..pictures * coarse_len];
            self.spread_coarse(isa, products, first, maps, each);
        }
    }

    /// `fine = conv_transpose(coarse, weights)`
    pub(super) fn up(
        &self,
        isa: Isa,
        (scratch, kept): (&mut Scratch, &mut Kept),
        coarse: Source<'_>,
        weights: Weights<'_>,
        fine: &mut [f32],
        each: Each<'_>,
    ) {
        let (fine_len, coarse_len) = (self.geometry.fine.len(), self.geometry.coarse.len());
        let n = fine.len() / fine_len;
        assert_eq!((fine.len(), coarse.len()), (n * fine_len, n * coarse_len));
        let packed = self.packed_up(isa, kept, (&mut scratch.weights, &mut scratch.turned), weights);
        for (first, pictures) in self.chunks(n) {
            let rows = pictures * self.tile_count();
            let gathered = scratch.coarse.sized(self.coarse_values(rows));
            self.gather_coarse(isa, coarse.part(first * coarse_len, pictures * coarse_len), gathered);
            let products = scratch.products.sized(self.fine_values(rows));
            self.multiply_up(isa, rows, gathered, packed, products);
            let maps = &mut fine[first * fine_len..][..pictures * fine_len];
            self.spread_fine(isa, products, first, maps, each);
        }
    }

    /// Adds the derivative by the weights to `gradient`, and writes that by one side's map from the other's, whose tiles are
    /// gathered once for both.
    pub(super) fn gradients(
        &self,
        isa: Isa,
        (scratch, kept): (&mut Scratch, &mut Kept),
        (fine, coarse): (Source<'_>, Source<'_>),
        weights: Weights<'_>,
        gradient: &mut [f32],
        mut other: Option<(Side, &mut [f32], Each<'_>)>,
    ) {
        let (fine_len, coarse_len) = (self.geometry.fine.len(), self.geometry.coarse.len());
        let n = fine.len() / fine_len;
        assert_eq!((fine.len(), coarse.len()), (n * fine_len, n * coarse_len));
        // Weights too large to keep are packed where the sums are not yet.
        let mut sums = std::mem::take(&mut scratch.turned);
        let weights_len = self.weights_len();
        let packed = match &other {
            Some((Side::Fine, ..)) => {
                Some(self.packed_up(isa, kept, (&mut scratch.weights, &mut sums), weights))
            }
            Some((Side::Coarse, ..)) => Some(self.packed_down(isa, kept, &mut scratch.weights, weights)),
            None => None,
        };
        let sums_now = sums.sized(weights_len);
        for (first, pictures) in self.chunks(n) {
            let rows = pictures * self.tile_count();
            let from_fine = scratch.fine.sized(self.fine_values(rows));
            self.gather_fine(isa, fine.part(first * fine_len, pictures * fine_len), from_fine);
            let from_coarse = scratch.coarse.sized(self.coarse_values(rows));
            self.gather_coarse(isa, coarse.part(first * coarse_len, pictures * coarse_len), from_coarse);
            self.multiply_gradient(isa, rows, (from_fine, from_coarse), sums_now, first > 0);
            match (&mut other, packed) {
                (Some((Side::Fine, maps, each)), Some(packed)) => {
                    let products = scratch.products.sized(self.fine_values(rows));
                    self.multiply_up(isa, rows, from_coarse, packed, products);
                    let maps = &mut maps[first * fine_len..][..pictures * fine_len];
                    self.spread_fine(isa, products, first, maps, *each);
                }
                (Some((Side::Coarse, maps, each)), Some(packed)) => {
                    let products = scratch.products.sized(self.coarse_values(rows));
                    self.multiply_down(isa, rows, from_fine, packed, products);
                    let maps = &mut maps[first * coarse_len..][..pictures * coarse_len];
                    self.spread_coarse(isa, products, first, maps, *each);
                }
                _ => {}
            }
        }
        self.unpack_gradient(isa, sums_now, gradient);
        scratch.turned = sums;
    }

    /// Values of gathered tiles of the fine map, and of products for it.
    fn fine_values(&self, rows: usize) -> usize {
        self.offsets(self.fine.padded() * lines(rows)).1
    }

    /// Values of gathered tiles of the coarse map, and of products for it.
    fn coarse_values(&self, rows: usize) -> usize {
        self.points * self.points * self.coarse.padded() * lines(rows)
    }
}

/// One of the two maps of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The one with more pixels.
    Fine,
    /// The one with fewer.
    Coarse,
}

/// Places for `rows` tiles in a panel: an odd number, so that the points of a tile, one panel apart, do not all fall into the same
/// few sets of the cache.
fn lines(rows: usize) -> usize {
    rows | 1
}

/// Rows are tiles, columns the channels of panels of `width`.
fn rows_of_tiles(width: usize, rows: usize) -> Left {
    Left { row: width, depth: 1, block: width, block_stride: width * rows }
}

/// `(taps, rows, columns)` to `(taps, columns, rows)`, in blocks.
fn transpose(from: &[f32], taps: usize, (rows, columns): (usize, usize), to: &mut [f32]) {
    assert_eq!((from.len(), to.len()), (taps * rows * columns, taps * rows * columns));
    to.par_chunks_mut(LANES * rows).enumerate().for_each(|(strip, to)| {
        // Strips run through the taps where columns fill them; else they hold parts of two taps.
        for (i, to) in to.chunks_mut(rows).enumerate() {
            let line = strip * LANES + i;
            let (tap, column) = (line / columns, line % columns);
            let from = &from[tap * rows * columns..][..rows * columns];
            for (to, from) in to.iter_mut().zip(from[column..].iter().step_by(columns)) {
                *to = *from;
            }
        }
    });
}
