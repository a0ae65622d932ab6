//! Convolutions with few taps each way by Winograd's algorithm: transforms of tiles, and a matrix product per point.
//!
//! See [`super::kernels::tile_transform`] for the algorithm. Images are processed in chunks, so that the data between
//! the stages stays in cache. Every stage is split by shapes alone, so the bytes do not depend on the number of
//! threads. The output transform of one chunk runs in parallel with the input transform of the next: threads
//! synchronize twice per chunk.

mod packing;
mod stages;

use super::buffer::Buffer;
use super::conv::Geometry;
use super::kernels::gemm::PANEL;
use super::kernels::operand::Operand;
pub(super) use super::kernels::tile_transform::Resolution;
use super::kernels::tile_transform::{MAX_POINTS, OUT, PointOffsets, TileView};
use super::kernels::{Isa, LANES};
use super::map_view::MapView;
use crate::{MapShape, Precision};
use packing::{PackedWeights, PackingBuffers};
use stages::{TransformedTiles, WeightGroup, tile_slots};

/// Bytes between the stages that limit the images of a chunk.
const CHUNK_BYTES: usize = 4 << 20;

/// Largest size of packed weights that are cached, in bytes, and size of a group of panels of larger ones.
const CACHED_BYTES: usize = 32 << 20;

/// Tiles of a chunk that amortize reading the weights, where a minibatch has so many.
const MIN_TILES: usize = 128;

/// One of the maps that a stride splits the fine map into.
#[derive(Clone, Copy, Debug)]
struct Phase {
    /// First row and column.
    offset: (usize, usize),
    /// Taps each way.
    taps: (usize, usize),
}

/// The algorithm for the shapes of one convolution.
#[derive(Clone, Debug)]
pub(super) struct Winograd {
    geometry: Geometry,
    /// Taps of the minimal filtering algorithm.
    taps: usize,
    /// Points each way.
    points: usize,
    phases: Vec<Phase>,
    /// Rows and columns of tiles.
    tiles: (usize, usize),
    /// Panels of the fine map's channels.
    fine: Panels,
    /// Panels of the coarse map's channels.
    coarse: Panels,
}

/// Panels that the channels of a map are split into, padded to whole ones.
#[derive(Clone, Copy, Debug)]
struct Panels {
    /// Channels of a panel.
    width: usize,
    count: usize,
}

impl Panels {
    /// Panels of one width: 64 if that divides the channels, which are padded to a multiple of 16.
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
    tiles: usize,
}

impl Chunk {
    /// The chunk's maps, among maps of `len` values each.
    fn of(self, maps: &mut [f32], len: usize) -> &mut [f32] {
        &mut maps[self.first * len..][..self.images * len]
    }
}

/// Buffers between the stages, reused from call to call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Transformed tiles of the fine map.
    fine: Buffer,
    /// Transformed tiles of the coarse map.
    coarse: Buffer,
    products: Buffer,
    /// Packed weights that are not cached.
    packed: Buffer,
    /// Transposed weights, or the sums of the weight gradient.
    transposed: Buffer,
}

/// Packed weights of a layer, valid for one version of its parameters.
#[derive(Debug, Default)]
pub(super) struct PackedWeightCache {
    down: CachedWeights,
    up: CachedWeights,
}

#[derive(Debug, Default)]
struct CachedWeights {
    /// [`Weights::version`]; 0 if there are none.
    version: u64,
    values: Buffer,
}

/// The buffers of a call: scratch memory, and the layer's cache.
#[derive(Debug)]
pub(super) struct Buffers<'a> {
    pub(super) scratch: &'a mut Scratch,
    pub(super) cache: &'a mut PackedWeightCache,
}

/// Parameters of a layer and their version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights<'a> {
    /// `(kernel_h, kernel_w, c_fine, c_coarse)`
    pub(super) values: &'a [f32],
    /// Greater than 0, and different after each change.
    pub(super) version: u64,
}

/// Callback on each image's map as soon as it is written, with the image's number in the minibatch.
pub(super) type PerImage<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// A map of a minibatch to be written.
pub(super) struct Target<'a> {
    pub(super) resolution: Resolution,
    pub(super) maps: &'a mut [f32],
    pub(super) per_image: PerImage<'a>,
}

/// Both maps of a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps<'a> {
    pub(super) fine: MapView<'a>,
    pub(super) coarse: MapView<'a>,
}

/// Multiplies the transformed tiles of a chunk, given their number, by the weights.
type Multiply<'a, T> = &'a mut dyn FnMut(usize, &[T], &mut [f32]);

impl Winograd {
    /// The algorithm for `geometry`, if it applies: square kernels with equal padding and two or three taps per phase
    /// of the stride, and enough channels and outputs to pay off.
    pub(super) fn of(geometry: &Geometry) -> Option<Self> {
        let Geometry { fine, coarse, kernel: (kernel, width), stride, padding } = *geometry;
        let taps = kernel.div_ceil(stride);
        let few = fine.channels.min(coarse.channels) < 8;
        let small = coarse.height.min(coarse.width) < 3;
        let square = kernel == width && padding.0 == padding.1;
        if !square || !(1..=2).contains(&stride) || !(2..=3).contains(&taps) || few || small {
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

    /// Its name in reports.
    pub(super) fn name(&self, precision: Precision) -> &'static str {
        match (self.taps, precision) {
            (2, Precision::F32) => "Winograd F(4x4,2x2)",
            (2, Precision::Bf16) => "Winograd F(4x4,2x2) in bf16",
            _ => "Winograd F(4x4,3x3)",
        }
    }

    /// Whether operands may be rounded to bf16 with errors below 2e-2 of the largest value (`tests/kernels.rs`).
    pub(super) fn supports_bf16(&self) -> bool {
        self.taps == 2
    }

    /// Row and column of each point of a tile.
    fn grid(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let points = self.points;
        (0..points * points).map(move |i| (i / points, i % points))
    }

    /// Whether the phase uses the point: shorter kernels are zero at infinity.
    fn uses_point(&self, phase: Phase, (p, q): (usize, usize)) -> bool {
        let infinity = self.points - 1;
        (phase.taps.0 == self.taps || p != infinity) && (phase.taps.1 == self.taps || q != infinity)
    }

    /// Number of phases that use the point.
    fn phases_at(&self, point: (usize, usize)) -> usize {
        self.phases.iter().filter(|&&phase| self.uses_point(phase, point)).count()
    }

    /// Number of phases that use the point of this index.
    fn phases_at_index(&self, point: usize) -> usize {
        self.phases_at((point / self.points, point % self.points))
    }

    /// Offset of each point, where every phase that uses it has `size` values; and the total.
    fn point_offsets(&self, size: usize) -> (Vec<usize>, usize) {
        let mut total = 0;
        let offsets = self
            .grid()
            .map(|point| {
                let offset = total;
                total += self.phases_at(point) * size;
                offset
            })
            .collect();
        (offsets, total)
    }

    /// Offsets of one phase's points, given [`Self::point_offsets`] of `size`; all moved by `extra`.
    fn phase_point_offsets(
        &self,
        offsets: &[usize],
        phase: usize,
        size: usize,
        extra: usize,
    ) -> PointOffsets {
        let mut points: PointOffsets = [None; MAX_POINTS * MAX_POINTS];
        for (i, point) in self.grid().enumerate() {
            if self.uses_point(self.phases[phase], point) {
                let before =
                    self.phases[..phase].iter().filter(|&&other| self.uses_point(other, point)).count();
                points[point.0 * MAX_POINTS + point.1] = Some(offsets[i] + before * size + extra);
            }
        }
        points
    }

    /// Offsets of a phase's weights in a panel packed for the way down: at each point a panel holds all phases that
    /// use it, one after the other.
    fn packed_point_offsets(&self, offsets: &[usize], phase: usize, panel: usize) -> PointOffsets {
        let size = self.fine.padded() * self.coarse.width;
        let mut points = self.phase_point_offsets(offsets, phase, size, 0);
        for (p, q) in self.grid() {
            if let Some(offset) = &mut points[p * MAX_POINTS + q] {
                *offset += panel * self.phases_at((p, q)) * size;
            }
        }
        points
    }

    /// Offsets of points that are `size` values apart.
    fn uniform_point_offsets(&self, size: usize) -> PointOffsets {
        let mut points: PointOffsets = [None; MAX_POINTS * MAX_POINTS];
        for (i, (p, q)) in self.grid().enumerate() {
            points[p * MAX_POINTS + q] = Some(i * size);
        }
        points
    }

    /// Length of packed weights.
    fn packed_len(&self) -> usize {
        self.point_offsets(self.fine.padded() * self.coarse.padded()).1
    }

    /// Images of a chunk, of a minibatch of `n`.
    fn chunk_images(&self, n: usize) -> usize {
        let (_, fine) = self.point_offsets(self.fine.padded());
        let coarse = self.points * self.points * self.coarse.padded();
        let tiles = (CHUNK_BYTES / (4 * (fine + coarse))).max(MIN_TILES);
        let chunks = n.div_ceil((tiles / self.tile_count()).max(1));
        n.div_ceil(chunks)
    }

    /// The fine map's pixels of a tile of a phase.
    fn fine_view(&self, phase: Phase, (ty, tx): (usize, usize)) -> TileView {
        let Geometry { fine, stride, padding: (padding, _), .. } = self.geometry;
        let signed = |x: usize| isize::try_from(x).unwrap_or(isize::MAX);
        let (s, c, w) = (signed(stride), signed(fine.channels), signed(fine.width));
        let start = |tile: usize, offset: usize| signed(tile * OUT * stride + offset) - signed(padding);
        // Rows of the tile inside the map. Tiles of shorter kernels have one row less.
        let valid = |start: isize, size: usize, taps: usize| {
            let rows = OUT + taps - 1;
            let low = usize::try_from((-start).max(0)).unwrap_or(0).div_ceil(stride).min(rows);
            let high = usize::try_from((signed(size) - start).max(0)).unwrap_or(0).div_ceil(stride).min(rows);
            (low, high.max(low))
        };
        let (y, x) = (start(ty, phase.offset.0), start(tx, phase.offset.1));
        TileView {
            origin: (y * w + x) * c,
            row_stride: s * w * c,
            column_stride: s * c,
            valid_rows: valid(y, fine.height, phase.taps.0),
            valid_columns: valid(x, fine.width, phase.taps.1),
        }
    }

    /// The coarse map's pixels of a tile.
    fn coarse_view(&self, (ty, tx): (usize, usize)) -> TileView {
        let coarse = self.geometry.coarse;
        let signed = |x: usize| isize::try_from(x).unwrap_or(isize::MAX);
        TileView {
            origin: signed((ty * OUT * coarse.width + tx * OUT) * coarse.channels),
            row_stride: signed(coarse.width * coarse.channels),
            column_stride: signed(coarse.channels),
            valid_rows: (0, (coarse.height - ty * OUT).min(OUT)),
            valid_columns: (0, (coarse.width - tx * OUT).min(OUT)),
        }
    }

    fn map(&self, resolution: Resolution) -> MapShape {
        if resolution == Resolution::Fine { self.geometry.fine } else { self.geometry.coarse }
    }

    fn panels(&self, resolution: Resolution) -> Panels {
        if resolution == Resolution::Fine { self.fine } else { self.coarse }
    }

    /// The pixels of a tile, on the fine map those of one phase.
    fn tile_view(&self, resolution: Resolution, phase: usize, tile: (usize, usize)) -> TileView {
        match resolution {
            Resolution::Fine => self.fine_view(self.phases[phase], tile),
            Resolution::Coarse => self.coarse_view(tile),
        }
    }

    /// Offsets of the points of transformed tiles, for each phase of the fine map, in panels of `slots` tiles.
    fn tile_point_offsets(&self, resolution: Resolution, slots: usize) -> Vec<PointOffsets> {
        let size = self.panels(resolution).padded() * slots;
        match resolution {
            Resolution::Fine => {
                let (offsets, _) = self.point_offsets(size);
                (0..self.phases.len())
                    .map(|phase| self.phase_point_offsets(&offsets, phase, size, 0))
                    .collect()
            }
            Resolution::Coarse => vec![self.uniform_point_offsets(size)],
        }
    }

    /// Length of transformed tiles, and of the products for their map.
    fn transformed_len(&self, resolution: Resolution, tiles: usize) -> usize {
        let size = self.panels(resolution).padded() * tile_slots(tiles);
        match resolution {
            Resolution::Fine => self.point_offsets(size).1,
            Resolution::Coarse => self.points * self.points * size,
        }
    }

    /// Whether every pixel of the fine map lies in a tile.
    fn tiles_cover_fine_map(&self) -> bool {
        let Geometry { fine, stride, padding: (padding, _), kernel, .. } = self.geometry;
        // Tiles extend beyond the last row that any kernel reads.
        let end = |tiles: usize| (tiles * OUT - 1) * stride + kernel.0;
        end(self.tiles.0) >= fine.height + padding && end(self.tiles.1) >= fine.width + padding
    }

    /// Tiles of an image.
    fn tile_count(&self) -> usize {
        self.tiles.0 * self.tiles.1
    }

    /// The chunks of a minibatch of `n` images.
    fn chunks(&self, n: usize) -> Vec<Chunk> {
        let most = self.chunk_images(n);
        let chunk = |first: usize| {
            let images = most.min(n - first);
            Chunk { first, images, tiles: images * self.tile_count() }
        };
        (0..n).step_by(most).map(chunk).collect()
    }

    /// Images of a minibatch, from the lengths of both maps.
    fn images(&self, fine: usize, coarse: usize) -> usize {
        let (fine_len, coarse_len) = (self.geometry.fine.len(), self.geometry.coarse.len());
        let n = fine / fine_len;
        assert_eq!((fine, coarse), (n * fine_len, n * coarse_len));
        n
    }

    /// The input transform of a chunk of one map.
    fn transform_chunk<T: Operand>(
        &self,
        isa: Isa,
        resolution: Resolution,
        source: MapView<'_>,
        chunk: Chunk,
        to: &mut Buffer,
    ) {
        let len = self.map(resolution).len();
        let part = source.part(chunk.first * len, chunk.images * len);
        self.input_transform::<T>(
            isa,
            resolution,
            part,
            to.sized(self.transformed_len(resolution, chunk.tiles)),
        );
    }

    /// `coarse = conv(fine, weights)`
    pub(super) fn down<T: Operand>(
        &self,
        isa: Isa,
        Buffers { scratch, cache }: Buffers<'_>,
        fine: MapView<'_>,
        weights: Weights<'_>,
        coarse: &mut [f32],
        per_image: PerImage<'_>,
    ) {
        let Scratch { fine: transformed, products, packed, transposed, .. } = scratch;
        let groups = self.panel_groups::<T>(Resolution::Coarse, self.images(fine.len(), coarse.len()));
        let buffers = PackingBuffers { cache, packed, transposed: &mut *transposed };
        let mut packed = self.packed_weights::<T>(isa, Resolution::Fine, weights, buffers, groups.len());
        let target = Target { resolution: Resolution::Coarse, maps: coarse, per_image };
        self.run_chunks::<T>(isa, transformed, products, fine, target, &mut |count, tiles, products| {
            for panels in &groups {
                let values = packed.group(self, isa, Resolution::Fine, weights.values, panels);
                let tiles = TransformedTiles { count, values: tiles };
                self.multiply_down(isa, tiles, WeightGroup { panels, values }, products);
            }
        });
    }

    /// `fine = conv_transpose(coarse, weights)`
    pub(super) fn up<T: Operand>(
        &self,
        isa: Isa,
        Buffers { scratch, cache }: Buffers<'_>,
        coarse: MapView<'_>,
        weights: Weights<'_>,
        fine: &mut [f32],
        per_image: PerImage<'_>,
    ) {
        let Scratch { coarse: transformed, products, packed, transposed, .. } = scratch;
        let groups = self.panel_groups::<T>(Resolution::Fine, self.images(fine.len(), coarse.len()));
        let buffers = PackingBuffers { cache, packed, transposed: &mut *transposed };
        let mut packed = self.packed_weights::<T>(isa, Resolution::Coarse, weights, buffers, groups.len());
        let filters = match packed {
            PackedWeights::PerGroup(_) => self.transpose_weights(weights, transposed),
            PackedWeights::All(_) => weights.values,
        };
        let target = Target { resolution: Resolution::Fine, maps: fine, per_image };
        self.run_chunks::<T>(isa, transformed, products, coarse, target, &mut |count, tiles, products| {
            for panels in &groups {
                let values = packed.group(self, isa, Resolution::Coarse, filters, panels);
                let tiles = TransformedTiles { count, values: tiles };
                self.multiply_up(isa, tiles, WeightGroup { panels, values }, products);
            }
        });
    }

    /// Computes the target from the source, the map of the other resolution, chunk by chunk.
    fn run_chunks<T: Operand>(
        &self,
        isa: Isa,
        transformed: &mut Buffer,
        products: &mut Buffer,
        source: MapView<'_>,
        target: Target<'_>,
        multiply: Multiply<'_, T>,
    ) {
        let Target { resolution: to, maps, per_image } = target;
        let from = to.other();
        let images = match from {
            Resolution::Fine => self.images(source.len(), maps.len()),
            Resolution::Coarse => self.images(maps.len(), source.len()),
        };
        let chunks = self.chunks(images);
        self.transform_chunk::<T>(isa, from, source, chunks[0], transformed);
        for (i, &chunk) in chunks.iter().enumerate() {
            let len = self.transformed_len(to, chunk.tiles);
            let tiles = transformed.get(self.transformed_len(from, chunk.tiles));
            multiply(chunk.tiles, tiles, products.sized(len));
            let (products, maps) = (products.get(len), chunk.of(maps, self.map(to).len()));
            rayon::join(
                || self.output_transform(isa, to, products, chunk.first, maps, per_image),
                || {
                    let next = chunks.get(i + 1);
                    next.map(|&next| self.transform_chunk::<T>(isa, from, source, next, transformed))
                },
            );
        }
    }

    /// Adds the gradient with respect to the weights to `gradient`. Writes the gradient with respect to the input to
    /// `target`, if given, from the other map, whose tiles are transformed once for both.
    pub(super) fn gradients<T: Operand>(
        &self,
        isa: Isa,
        Buffers { scratch, cache }: Buffers<'_>,
        Maps { fine, coarse }: Maps<'_>,
        weights: Weights<'_>,
        gradient: &mut [f32],
        mut target: Option<Target<'_>>,
    ) {
        let images = self.images(fine.len(), coarse.len());
        let chunks = self.chunks(images);
        let Scratch { fine: fine_tiles, coarse: coarse_tiles, products, packed, transposed } = scratch;
        // The resolution that the target is computed from, and the target's groups of panels.
        let from = target
            .as_ref()
            .map(|target| (target.resolution.other(), self.panel_groups::<T>(target.resolution, images)));
        // Before the sums, which share a buffer with the transposed weights.
        let mut packed = from.as_ref().map(|(from, groups)| {
            let buffers = PackingBuffers { cache, packed, transposed: &mut *transposed };
            self.packed_weights::<T>(isa, *from, weights, buffers, groups.len())
        });
        let gradient_groups = self.panel_groups::<T>(Resolution::Coarse, images);
        let transform = |chunk: Chunk, fine_tiles: &mut Buffer, coarse_tiles: &mut Buffer| {
            rayon::join(
                || self.transform_chunk::<T>(isa, Resolution::Fine, fine, chunk, fine_tiles),
                || self.transform_chunk::<T>(isa, Resolution::Coarse, coarse, chunk, coarse_tiles),
            );
        };
        transform(chunks[0], fine_tiles, coarse_tiles);
        for (i, &chunk) in chunks.iter().enumerate() {
            let count = chunk.tiles;
            let fine_len = self.transformed_len(Resolution::Fine, count);
            let coarse_len = self.transformed_len(Resolution::Coarse, count);
            let from_fine = TransformedTiles { count, values: fine_tiles.get(fine_len) };
            let from_coarse = TransformedTiles { count, values: coarse_tiles.get(coarse_len) };
            for panels in &gradient_groups {
                // With several chunks there is one group of all panels: the sums accumulate over chunks.
                let sums =
                    transposed.sized(self.point_offsets(self.group_size(Resolution::Coarse, panels)).1);
                self.multiply_gradient::<T>(isa, from_fine, from_coarse, panels, sums, i > 0);
                if i + 1 == chunks.len() {
                    self.unpack_gradient(isa, panels, sums, gradient);
                }
            }
            if let (Some((from, groups)), Some(packed)) = (&from, &mut packed) {
                let filters = match (from, &packed) {
                    (Resolution::Coarse, PackedWeights::PerGroup(_)) => {
                        self.transpose_weights(weights, transposed)
                    }
                    _ => weights.values,
                };
                for panels in groups {
                    let values = packed.group(self, isa, *from, filters, panels);
                    let group = WeightGroup { panels, values };
                    match from {
                        Resolution::Coarse => {
                            self.multiply_up(isa, from_coarse, group, products.sized(fine_len));
                        }
                        Resolution::Fine => {
                            self.multiply_down(isa, from_fine, group, products.sized(coarse_len));
                        }
                    }
                }
            }
            rayon::join(
                || {
                    let Some(Target { resolution, maps, per_image }) = &mut target else { return };
                    let products = products.get(self.transformed_len(*resolution, count));
                    let maps = chunk.of(maps, self.map(*resolution).len());
                    self.output_transform(isa, *resolution, products, chunk.first, maps, *per_image);
                },
                || chunks.get(i + 1).map(|&next| transform(next, fine_tiles, coarse_tiles)),
            );
        }
    }
}
