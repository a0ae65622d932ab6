//! Winograd's input and output transforms of one tile, sixteen channels at a time: `F(4x4, 2x2)` and `F(4x4, 3x3)`.
//!
//! One bilinear algorithm (Winograd 1980; Lavin and Gray, CVPR 2016) serves all three operations. Let `d` be tiles of
//! the fine map, `g` kernels and `y` tiles of the coarse map. Products are elementwise, one per point, and summed
//! over channels (for the weight gradient over tiles):
//!
//! - down: `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A`
//! - up, its transpose with respect to d: `d = B [(G g Gᵀ) ⊙ (A y Aᵀ)] Bᵀ`; tiles overlap and are added
//! - weight gradient, its transpose with respect to g: `g = Gᵀ [(Bᵀ d B) ⊙ (A y Aᵀ)] G`
//!
//! A stride of two splits the fine map into four phases by even and odd rows and columns. Their kernels have two or
//! three taps, or one fewer. Shorter kernels are zero at the point infinity, and these products are skipped.

use super::instantiate::instantiate;
use super::isa::Isa;
use super::load_op::{IDENTITY, LoadOp, Loader, NORM_ACTIVATION, NORM_BACKWARD, load_partial, store_partial};
use super::minimal_filtering::{F42, F43, MinimalFiltering, times_a, times_at, times_b, times_bt};
pub(crate) use super::minimal_filtering::{MAX_POINTS, OUT};
use super::operand::Operand;
use super::simd::{LANES, Simd};
use std::mem::MaybeUninit;

/// One of the two maps of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The map with more pixels.
    Fine,
    /// The map with fewer pixels.
    Coarse,
}

impl Resolution {
    pub(crate) fn other(self) -> Self {
        if self == Self::Fine { Self::Coarse } else { Self::Fine }
    }
}

/// Strided view of a tile's pixels: pixel (i, j) is at `origin + i * row_stride + j * column_stride` if it is valid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileView {
    /// Offset of pixel (0, 0) in values; negative in the padding before the image.
    pub(crate) origin: isize,
    /// Distance between rows of the tile, in values.
    pub(crate) row_stride: isize,
    /// Distance between columns.
    pub(crate) column_stride: isize,
    /// First row inside the image, and the end of those rows.
    pub(crate) valid_rows: (usize, usize),
    /// The same of columns.
    pub(crate) valid_columns: (usize, usize),
}

impl TileView {
    /// Offset of pixel (i, j).
    #[inline(always)]
    fn offset(&self, i: usize, j: usize) -> isize {
        self.origin + i as isize * self.row_stride + j as isize * self.column_stride
    }

    /// Whether the whole tile, `size` pixels each way, is inside the image.
    #[inline(always)]
    fn is_inside(&self, size: usize) -> bool {
        self.valid_rows == (0, size) && self.valid_columns == (0, size)
    }
}

/// Channels of pixels, and their panels in the transformed layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelPanels {
    /// Channels of a pixel.
    pub(crate) count: usize,
    /// Channels of a panel: a multiple of 16.
    pub(crate) width: usize,
    /// Distance between panels of one point.
    pub(crate) stride: usize,
}

impl ChannelPanels {
    /// Of the sixteen channels from `first`: how many exist, and their offset among the point's values. `None` after
    /// the last panel.
    #[inline(always)]
    fn vector(&self, first: usize) -> Option<(usize, usize)> {
        if first >= self.count.next_multiple_of(self.width) {
            return None;
        }
        let valid = self.count.saturating_sub(first).min(LANES);
        Some((valid, first / self.width * self.stride + first % self.width))
    }
}

/// Offset of each point's values for a tile: `offsets[p * 6 + q]`, or `None` where the point is skipped.
pub(crate) type PointOffsets = [Option<usize>; MAX_POINTS * MAX_POINTS];

/// A tile after the 1-D transform of its columns. Uninitialized at first: clearing it would cost as much as the
/// transform.
pub(super) struct HalfTransformed<T: Copy>(MaybeUninit<[T; MAX_POINTS * MAX_POINTS]>);

impl<T: Copy> HalfTransformed<T> {
    #[inline(always)]
    pub(super) const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Sets column `j` to the first `count` values.
    #[inline(always)]
    pub(super) fn set_column(&mut self, j: usize, values: &[T; 6], count: usize) {
        for (i, &value) in values.iter().enumerate().take(count) {
            assert!(j < MAX_POINTS);
            // SAFETY: `i` and `j` are below six.
            unsafe { self.0.as_mut_ptr().cast::<T>().add(i * MAX_POINTS + j).write(value) };
        }
    }

    /// The first `count` values of row `i`, followed by `rest`.
    ///
    /// # Safety
    /// These columns were set in this row.
    #[inline(always)]
    pub(super) unsafe fn row(&self, i: usize, count: usize, rest: T) -> [T; 6] {
        let mut row = [rest; 6];
        for (j, value) in row.iter_mut().enumerate().take(count) {
            assert!(i < MAX_POINTS);
            // SAFETY: both are below six, and the caller vouches that the value is set.
            *value = unsafe { self.0.as_ptr().cast::<T>().add(i * MAX_POINTS + j).read() };
        }
        row
    }
}

/// Sixteen channels of a tile's points: their address, and the distance to those of the next tile, which are
/// prefetched.
#[derive(Clone, Copy)]
struct PointVectors<P> {
    start: P,
    next_tile: usize,
}

#[inline(always)]
unsafe fn input_transform_body<S: Simd, T: Operand, F: MinimalFiltering, const FINE: bool, const LOAD: u8>(
    image: *const f32,
    load: &LoadOp,
    view: &TileView,
    channels: &ChannelPanels,
    transformed: *mut T,
    points: &PointOffsets,
) {
    // SAFETY: the caller of `input_transform` vouches for all addresses.
    unsafe {
        let inside = view.is_inside(if FINE { F::POINTS } else { OUT });
        let mut first = 0;
        while let Some((valid, offset)) = channels.vector(first) {
            let loader = Loader::<S>::new(load, first, valid);
            let from = image.wrapping_add(first);
            let to = PointVectors { start: transformed.wrapping_add(offset), next_tile: channels.width };
            if inside && valid == LANES {
                input_transform_vector::<S, T, F, FINE, LOAD, true>(from, &loader, view, valid, to, points);
            } else {
                input_transform_vector::<S, T, F, FINE, LOAD, false>(from, &loader, view, valid, to, points);
            }
            first += LANES;
        }
    }
}

/// Sixteen channels of a tile. `FULL` if all of them exist and the whole tile is inside the image: as a constant it
/// saves a branch per pixel.
#[inline(always)]
unsafe fn input_transform_vector<
    S: Simd,
    T: Operand,
    F: MinimalFiltering,
    const FINE: bool,
    const LOAD: u8,
    const FULL: bool,
>(
    image: *const f32,
    loader: &Loader<S>,
    view: &TileView,
    valid: usize,
    to: PointVectors<*mut T>,
    points: &PointOffsets,
) {
    // SAFETY: the caller of `input_transform` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        let valid = if FULL { LANES } else { valid };
        let size = if FINE { F::POINTS } else { OUT };
        let (rows, columns) = (view.valid_rows, view.valid_columns);
        let mut half = HalfTransformed::new();
        for j in 0..size {
            let mut column = [zero; 6];
            if FULL || (j >= columns.0 && j < columns.1 && valid > 0) {
                for (i, value) in column.iter_mut().enumerate().take(size) {
                    if FULL || (i >= rows.0 && i < rows.1) {
                        *value = loader.load::<LOAD>(image, view.offset(i, j), valid);
                    }
                }
            }
            let column = if FINE { times_bt::<S, F>(&column) } else { times_a::<S, F>(&column) };
            half.set_column(j, &column, F::POINTS);
        }
        for p in 0..F::POINTS {
            let row = half.row(p, size, zero);
            let row = if FINE { times_bt::<S, F>(&row) } else { times_a::<S, F>(&row) };
            for (q, &value) in row.iter().enumerate().take(F::POINTS) {
                if let Some(offset) = points[p * MAX_POINTS + q] {
                    T::store::<S>(to.start.add(offset), value);
                    S::prefetch(to.start.wrapping_add(offset + to.next_tile).cast());
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn output_transform_body<S: Simd, F: MinimalFiltering, const FINE: bool>(
    products: *const f32,
    points: &PointOffsets,
    image: *mut f32,
    view: &TileView,
    channels: &ChannelPanels,
    overlap: (usize, usize),
) {
    // SAFETY: the caller of `output_transform` vouches for all addresses.
    unsafe {
        let inside = view.is_inside(if FINE { F::POINTS } else { OUT });
        let mut first = 0;
        while let Some((valid, offset)) = channels.vector(first) {
            if valid == 0 {
                break;
            }
            let from = PointVectors { start: products.wrapping_add(offset), next_tile: channels.width };
            let to = image.wrapping_add(first);
            if inside && valid == LANES {
                output_transform_vector::<S, F, FINE, true>(from, points, to, view, valid, overlap);
            } else {
                output_transform_vector::<S, F, FINE, false>(from, points, to, view, valid, overlap);
            }
            first += LANES;
        }
    }
}

/// Sixteen channels of a tile; `FULL` as in [`input_transform_vector`].
#[inline(always)]
unsafe fn output_transform_vector<S: Simd, F: MinimalFiltering, const FINE: bool, const FULL: bool>(
    from: PointVectors<*const f32>,
    points: &PointOffsets,
    image: *mut f32,
    view: &TileView,
    valid: usize,
    overlap: (usize, usize),
) {
    // SAFETY: the caller of `output_transform` vouches for all addresses.
    unsafe {
        let zero = S::splat(0.0);
        let valid = if FULL { LANES } else { valid };
        let size = if FINE { F::POINTS } else { OUT };
        // Rows and columns by which tiles of the fine map overlap.
        let shared = if FINE { F::POINTS - OUT } else { 0 };
        let (rows, columns) = (view.valid_rows, view.valid_columns);
        let mut half = HalfTransformed::new();
        for q in 0..F::POINTS {
            let mut column = [zero; 6];
            for (p, value) in column.iter_mut().enumerate().take(F::POINTS) {
                if let Some(offset) = points[p * MAX_POINTS + q] {
                    *value = S::load(from.start.add(offset));
                    S::prefetch(from.start.wrapping_add(offset + from.next_tile).cast());
                }
            }
            let column = if FINE { times_b::<S, F>(&column) } else { times_at::<S, F>(&column) };
            half.set_column(q, &column, size);
        }
        for i in 0..size {
            if !FULL && (i < rows.0 || i >= rows.1) {
                continue;
            }
            let row = half.row(i, F::POINTS, zero);
            let row = if FINE { times_b::<S, F>(&row) } else { times_at::<S, F>(&row) };
            for (j, &value) in row.iter().enumerate().take(size) {
                if !FULL && (j < columns.0 || j >= columns.1) {
                    continue;
                }
                let to = image.offset(view.offset(i, j));
                let accumulate = (i < shared && i < overlap.0) || (j < shared && j < overlap.1);
                let sum = if accumulate { S::add(value, load_partial::<S>(to, valid)) } else { value };
                store_partial::<S>(to, sum, valid);
            }
        }
    }
}

instantiate! {
    bf16(T::IS_BF16)
    fn input_transform_of<T: Operand, F: MinimalFiltering; const FINE: bool, const LOAD: u8>(
        image: *const f32,
        load: &LoadOp,
        view: &TileView,
        channels: &ChannelPanels,
        transformed: *mut T,
        points: &PointOffsets,
    ) = input_transform_body
}

/// An instance of [`input_transform`].
type InputTransform<T> =
    unsafe fn(Isa, *const f32, &LoadOp, &TileView, &ChannelPanels, *mut T, &PointOffsets);

/// The instance for a number of taps and a load operation.
fn input_transform_instance<T: Operand, const FINE: bool>(taps: usize, load: &LoadOp) -> InputTransform<T> {
    match (taps, load) {
        (2, LoadOp::Identity) => input_transform_of::<T, F42, FINE, IDENTITY>,
        (2, LoadOp::NormActivation { .. }) => input_transform_of::<T, F42, FINE, NORM_ACTIVATION>,
        (2, LoadOp::NormBackward { .. }) => input_transform_of::<T, F42, FINE, NORM_BACKWARD>,
        (_, LoadOp::Identity) => input_transform_of::<T, F43, FINE, IDENTITY>,
        (_, LoadOp::NormActivation { .. }) => input_transform_of::<T, F43, FINE, NORM_ACTIVATION>,
        (_, LoadOp::NormBackward { .. }) => input_transform_of::<T, F43, FINE, NORM_BACKWARD>,
    }
}

/// `Bᵀ d B` of a tile of the fine map, or `A y Aᵀ` of a tile of the coarse map.
///
/// # Safety
/// The view's valid pixels lie inside the image, and inside the map `x` of `load`. All points lie inside
/// `transformed`, where nothing else accesses them.
#[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
pub(crate) unsafe fn input_transform<T: Operand>(
    isa: Isa,
    resolution: Resolution,
    taps: usize,
    image: *const f32,
    load: &LoadOp,
    view: &TileView,
    channels: &ChannelPanels,
    transformed: *mut T,
    points: &PointOffsets,
) {
    let run = match resolution {
        Resolution::Fine => input_transform_instance::<T, true>(taps, load),
        Resolution::Coarse => input_transform_instance::<T, false>(taps, load),
    };
    // SAFETY: the caller's promise.
    unsafe { run(isa, image, load, view, channels, transformed, points) }
}

instantiate! {
    fn output_transform_of<F: MinimalFiltering; const FINE: bool>(
        products: *const f32,
        points: &PointOffsets,
        image: *mut f32,
        view: &TileView,
        channels: &ChannelPanels,
        overlap: (usize, usize),
    ) = output_transform_body
}

/// `B N Bᵀ` into a tile of the fine map, or `Aᵀ M A` into a tile of the coarse map. In the first `overlap` rows and
/// columns of a fine tile the result is added to the map.
///
/// # Safety
/// As [`input_transform`], and nothing else accesses the view's pixels.
#[allow(clippy::too_many_arguments, reason = "kernels take plain numbers")]
pub(crate) unsafe fn output_transform(
    isa: Isa,
    resolution: Resolution,
    taps: usize,
    products: *const f32,
    points: &PointOffsets,
    image: *mut f32,
    view: &TileView,
    channels: &ChannelPanels,
    overlap: (usize, usize),
) {
    let run = match (resolution, taps) {
        (Resolution::Fine, 2) => output_transform_of::<F42, true>,
        (Resolution::Fine, _) => output_transform_of::<F43, true>,
        (Resolution::Coarse, 2) => output_transform_of::<F42, false>,
        (Resolution::Coarse, _) => output_transform_of::<F43, false>,
    };
    // SAFETY: the caller's promise.
    unsafe { run(isa, products, points, image, view, channels, overlap) }
}
