//! Convolutions with few taps each way by Winograd's algorithm: transforms of tiles, and a matrix product for each point.
//!
//! See [`super::kernels::tiles`] for the algorithm. Images are taken some at a time, so that what lies between the stages
//! stays in cache; every stage is split by shapes alone, so the bytes do not depend on the number of threads. One chunk's
//! results are spread while the next one's tiles are gathered: threads wait for each other twice a chunk.

mod stages;
mod weights;

use super::buffer::Buffer;
use super::conv::Geometry;
use super::kernels::gemm::PANEL;
pub(super) use super::kernels::tiles::Side;
use super::kernels::tiles::{MAX_POINTS, OUT, Points, Window};
use super::kernels::value::Value;
use super::kernels::{Isa, LANES};
use super::source::Source;
use crate::{MapShape, Precision};
use stages::lines;
use weights::Packed;

/// Bytes between the stages that images are taken together for.
const CHUNK_BYTES: usize = 4 << 20;

/// Packed weights of either way up to which they are kept, and of a group of panels of larger ones.
const KEPT_BYTES: usize = 32 << 20;

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
            _ => [PANEL, 48, 32, LANES]
                .into_iter()
                .find(|width| padded.is_multiple_of(*width))
                .unwrap_or(LANES),
        };
        Self { width, count: padded / width }
    }

    fn padded(self) -> usize {
        self.width * self.count
    }
}

/// Images that go through the stages together.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    first: usize,
    images: usize,
    /// Tiles of these images.
    rows: usize,
}

impl Chunk {
    /// The chunk's part of maps of `len` values.
    fn of(self, maps: &mut [f32], len: usize) -> &mut [f32] {
        &mut maps[self.first * len..][..self.images * len]
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

/// What is done to each image's map as soon as it is written.
pub(super) type Each<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// Makes products of the gathered tiles of a chunk, of which there are so many.
type Multiply<'a, T> = &'a mut dyn FnMut(usize, &[T], &mut [f32]);

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
    pub(super) fn name(&self, precision: Precision) -> &'static str {
        match (self.taps, precision) {
            (2, Precision::F32) => "Winograd F(4x4,2x2)",
            (2, Precision::Bf16) => "Winograd F(4x4,2x2) in bf16",
            _ => "Winograd F(4x4,3x3)",
        }
    }

    /// Whether factors may be rounded to bf16: results stay within two hundredths of the largest (`tests/kernels.rs`).
    pub(super) fn bears_rounding(&self) -> bool {
        self.taps == 2
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

    /// Images taken together, of `n`.
    fn chunk(&self, n: usize) -> usize {
        let per_image = self.tiles.0 * self.tiles.1;
        let (_, fine) = self.offsets(self.fine.padded());
        let coarse = self.points * self.points * self.coarse.padded();
        let tiles = (CHUNK_BYTES / (4 * (fine + coarse))).max(MIN_TILES);
        let chunks = n.div_ceil((tiles / per_image).max(1));
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

    /// One side's map.
    fn map(&self, side: Side) -> MapShape {
        if side == Side::Fine { self.geometry.fine } else { self.geometry.coarse }
    }

    /// Its channels in panels.
    fn panels(&self, side: Side) -> Panels {
        if side == Side::Fine { self.fine } else { self.coarse }
    }

    /// Its pixels of a tile; the fine map is seen phase by phase.
    fn window(&self, side: Side, phase: usize, tile: (usize, usize)) -> Window {
        match side {
            Side::Fine => self.fine_window(self.phases[phase], tile),
            Side::Coarse => self.coarse_window(tile),
        }
    }

    /// Where the points of its tiles lie, for each phase of the fine map, where there are places for `lines` tiles.
    fn points_of(&self, side: Side, lines: usize) -> Vec<Points> {
        let size = self.panels(side).padded() * lines;
        match side {
            Side::Fine => {
                let (offsets, _) = self.offsets(size);
                (0..self.phases.len()).map(|phase| self.phase_points(&offsets, phase, size, 0)).collect()
            }
            Side::Coarse => vec![self.even_points(size, 0)],
        }
    }

    /// Values of gathered tiles, and of products for its map.
    fn values(&self, side: Side, rows: usize) -> usize {
        let size = self.panels(side).padded() * lines(rows);
        match side {
            Side::Fine => self.offsets(size).1,
            Side::Coarse => self.points * self.points * size,
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

    /// Images of each chunk: first one and how many.
    fn chunks(&self, n: usize) -> Vec<Chunk> {
        let chunk = self.chunk(n);
        let of = |first: usize| {
            let images = chunk.min(n - first);
            Chunk { first, images, rows: images * self.tile_count() }
        };
        (0..n).step_by(chunk).map(of).collect()
    }

    /// Images of a minibatch, from the lengths of both maps.
    fn images(&self, fine: usize, coarse: usize) -> usize {
        let (fine_len, coarse_len) = (self.geometry.fine.len(), self.geometry.coarse.len());
        let n = fine / fine_len;
        assert_eq!((fine, coarse), (n * fine_len, n * coarse_len));
        n
    }

    /// Gathers a chunk's tiles of one side's map.
    fn gather_chunk<T: Value>(
        &self,
        isa: Isa,
        side: Side,
        source: Source<'_>,
        chunk: Chunk,
        to: &mut Buffer,
    ) {
        let len = self.map(side).len();
        let part = source.part(chunk.first * len, chunk.images * len);
        self.gather::<T>(isa, side, part, to.sized(self.values(side, chunk.rows)));
    }

    /// `coarse = conv(fine, weights)`
    pub(super) fn down<T: Value>(
        &self,
        isa: Isa,
        (scratch, kept): (&mut Scratch, &mut Kept),
        fine: Source<'_>,
        weights: Weights<'_>,
        coarse: &mut [f32],
        each: Each<'_>,
    ) {
        let Scratch { fine: gathered, products, weights: fresh, turned, .. } = scratch;
        let groups = self.groups::<T>(Side::Coarse, self.images(fine.len(), coarse.len()));
        let mut packed = self.packed::<T>(isa, (kept, fresh), (Side::Fine, weights), turned, groups.len());
        self.in_chunks::<T>(
            isa,
            (gathered, products),
            (Side::Fine, fine),
            coarse,
            each,
            &mut |rows, tiles, products| {
                for group in &groups {
                    let packed = packed.of(self, isa, Side::Fine, weights.values, group);
                    self.multiply_down(isa, rows, tiles, (group, packed), products);
                }
            },
        );
    }

    /// `fine = conv_transpose(coarse, weights)`
    pub(super) fn up<T: Value>(
        &self,
        isa: Isa,
        (scratch, kept): (&mut Scratch, &mut Kept),
        coarse: Source<'_>,
        weights: Weights<'_>,
        fine: &mut [f32],
        each: Each<'_>,
    ) {
        let Scratch { coarse: gathered, products, weights: fresh, turned, .. } = scratch;
        let groups = self.groups::<T>(Side::Fine, self.images(fine.len(), coarse.len()));
        let mut packed = self.packed::<T>(isa, (kept, fresh), (Side::Coarse, weights), turned, groups.len());
        let values = if let Packed::Fresh(_) = packed { self.turn(weights, turned) } else { weights.values };
        self.in_chunks::<T>(
            isa,
            (gathered, products),
            (Side::Coarse, coarse),
            fine,
            each,
            &mut |rows, tiles, products| {
                for group in &groups {
                    let packed = packed.of(self, isa, Side::Coarse, values, group);
                    self.multiply_up(isa, rows, tiles, (group, packed), products);
                }
            },
        );
    }

    /// Takes the maps of one side to those of the other, chunk by chunk: `multiply` makes products of a chunk's tiles.
    fn in_chunks<T: Value>(
        &self,
        isa: Isa,
        (gathered, products): (&mut Buffer, &mut Buffer),
        (side, source): (Side, Source<'_>),
        to: &mut [f32],
        each: Each<'_>,
        multiply: Multiply<'_, T>,
    ) {
        let other = side.other();
        let images = match side {
            Side::Fine => self.images(source.len(), to.len()),
            Side::Coarse => self.images(to.len(), source.len()),
        };
        let chunks = self.chunks(images);
        self.gather_chunk::<T>(isa, side, source, chunks[0], gathered);
        for (i, &chunk) in chunks.iter().enumerate() {
            let len = self.values(other, chunk.rows);
            multiply(chunk.rows, gathered.get(self.values(side, chunk.rows)), products.sized(len));
            let (products, maps) = (products.get(len), chunk.of(to, self.map(other).len()));
            rayon::join(
                || self.spread(isa, other, products, chunk.first, maps, each),
                || {
                    let next = chunks.get(i + 1);
                    next.map(|&next| self.gather_chunk::<T>(isa, side, source, next, gathered))
                },
            );
        }
    }

    /// Adds the derivative by the weights to `gradient`, and writes that by one side's map from the other's, whose tiles are
    /// gathered once for both.
    pub(super) fn gradients<T: Value>(
        &self,
        isa: Isa,
        (scratch, kept): (&mut Scratch, &mut Kept),
        (fine, coarse): (Source<'_>, Source<'_>),
        weights: Weights<'_>,
        gradient: &mut [f32],
        mut other: Option<(Side, &mut [f32], Each<'_>)>,
    ) {
        let images = self.images(fine.len(), coarse.len());
        let chunks = self.chunks(images);
        let Scratch { fine: fine_tiles, coarse: coarse_tiles, products, weights: fresh, turned } = scratch;
        // The side that is taken to the other one's map, and the groups of that.
        let from = other.as_ref().map(|(to, ..)| (to.other(), self.groups::<T>(*to, images)));
        // Before the sums, which stand where weights are turned.
        let mut packed = from.as_ref().map(|(from, groups)| {
            self.packed::<T>(isa, (kept, fresh), (*from, weights), turned, groups.len())
        });
        let groups = self.groups::<T>(Side::Coarse, images);
        let gather = |chunk: Chunk, fine_tiles: &mut Buffer, coarse_tiles: &mut Buffer| {
            rayon::join(
                || self.gather_chunk::<T>(isa, Side::Fine, fine, chunk, fine_tiles),
                || self.gather_chunk::<T>(isa, Side::Coarse, coarse, chunk, coarse_tiles),
            );
        };
        gather(chunks[0], fine_tiles, coarse_tiles);
        for (i, &chunk) in chunks.iter().enumerate() {
            let rows = chunk.rows;
            let (fine_len, coarse_len) = (self.values(Side::Fine, rows), self.values(Side::Coarse, rows));
            let (from_fine, from_coarse) = (fine_tiles.get(fine_len), coarse_tiles.get(coarse_len));
            for group in &groups {
                // Of all panels where there are several chunks: the sums stay from one to the next.
                let sums = turned.sized(self.offsets(self.group_size(Side::Coarse, group)).1);
                self.multiply_gradient::<T>(isa, rows, (from_fine, from_coarse), (group, sums), i > 0);
                if i + 1 == chunks.len() {
                    self.unpack_gradient(isa, group, sums, gradient);
                }
            }
            if let (Some((from, groups)), Some(packed)) = (&from, &mut packed) {
                let values = match (from, &packed) {
                    (Side::Coarse, Packed::Fresh(_)) => self.turn(weights, turned),
                    _ => weights.values,
                };
                for group in groups {
                    let packed = packed.of(self, isa, *from, values, group);
                    match from {
                        Side::Coarse => {
                            let products = products.sized(fine_len);
                            self.multiply_up(isa, rows, from_coarse, (group, packed), products);
                        }
                        Side::Fine => {
                            let products = products.sized(coarse_len);
                            self.multiply_down(isa, rows, from_fine, (group, packed), products);
                        }
                    }
                }
            }
            rayon::join(
                || {
                    let Some((side, maps, each)) = &mut other else { return };
                    let products = products.get(self.values(*side, rows));
                    let maps = chunk.of(maps, self.map(*side).len());
                    self.spread(isa, *side, products, chunk.first, maps, *each);
                },
                || chunks.get(i + 1).map(|&next| gather(next, fine_tiles, coarse_tiles)),
            );
        }
    }
}
