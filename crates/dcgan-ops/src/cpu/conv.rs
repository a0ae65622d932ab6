//! The three linear operations behind convolution and transposed convolution, by im2col, col2im and matrix products.
//!
//! A convolution takes the *fine* map (more pixels) down to the *coarse* one. A transposed convolution takes the
//! coarse map up to the fine one. The input gradient of each is the other, and both share the weight gradient:
//!
//! | | forward | input gradient | weight gradient |
//! |---|---|---|---|
//! | convolution | [`down`] | [`up`] | [`weight_gradient`] |
//! | transposed convolution | [`up`] | [`down`] | [`weight_gradient`] |
//!
//! Maps are `(n, h, w, c)`; weights are `(kernel_h, kernel_w, c_fine, c_coarse)`, that is a `(patch, c_coarse)` matrix.
//! Work is split by shapes alone, see [`dcgan_base::matrix`].

use crate::{Kind, Layer, MapShape};
use dcgan_base::matrix::{MatrixView, matmul};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Coarse pixels of one matrix product: enough to amortize packing the weights, few enough for the patches to stay in
/// cache.
const ROWS: usize = 256;
/// Coarse channels of a dense layer between wide vectors, images of its tasks, and values of the fine map of its tasks.
const WIDE: usize = 512;
const WIDE_ROWS: usize = 256;
const WIDE_VALUES: usize = 512;
/// Images that are transposed together: a cache line of them.
const TRANSPOSED: usize = 16;
/// Values of the patches of one weight-gradient product.
const IM2COL_VALUES: usize = 128 * 1024;

thread_local! {
    /// Patches, reused from call to call: page faults of new memory cost more than im2col.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Passes `len` values with arbitrary content to `body`. Calls must not nest.
pub(super) fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        body(&mut scratch[..len])
    })
}

/// The shapes of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub(super) fine: MapShape,
    pub(super) coarse: MapShape,
    pub(super) kernel: (usize, usize),
    pub(super) stride: usize,
    /// Zero padding of the fine map on each side: rows and columns.
    pub(super) padding: (usize, usize),
}

impl Geometry {
    pub(super) fn of(layer: &Layer) -> Self {
        let (fine, coarse) = match layer.kind {
            Kind::Conv => (layer.linear_input(), layer.output),
            Kind::ConvTranspose => (layer.output, layer.linear_input()),
        };
        Self { fine, coarse, kernel: layer.kernel, stride: layer.stride, padding: layer.padding }
    }

    /// Values in one patch of the fine map.
    fn patch(&self) -> usize {
        self.kernel.0 * self.kernel.1 * self.fine.channels
    }

    /// Coarse pixels of one image.
    fn pixels(&self) -> usize {
        self.coarse.height * self.coarse.width
    }

    /// Whether the kernel is the whole fine map: a dense layer, whose patch is the map itself.
    pub(super) fn dense(&self) -> bool {
        self.pixels() == 1 && self.padding == (0, 0) && self.kernel == (self.fine.height, self.fine.width)
    }

    /// Whether it is a dense layer between wide vectors.
    fn wide(&self) -> bool {
        self.dense() && self.coarse.channels >= WIDE
    }

    /// Images of one parallel task.
    fn images(&self, n: usize) -> usize {
        if self.wide() {
            // The whole weight is packed for each task.
            return n.div_ceil(2).clamp(1, WIDE_ROWS);
        }
        (ROWS / self.pixels()).clamp(1, n.div_ceil(8).max(1))
    }

    /// Coarse image rows whose pixels make one matrix product.
    fn slab(&self) -> usize {
        (ROWS / self.coarse.width).clamp(1, self.coarse.height)
    }

    /// Of the kernel's columns `kx`, placed at coarse column `x`: those inside the fine map, and the fine column of
    /// the first.
    fn columns_inside(&self, x: usize, kx: &Range<usize>) -> (Range<usize>, usize) {
        let start = x * self.stride;
        let low = kx.start.max(self.padding.1.saturating_sub(start)).min(kx.end);
        let high = kx.end.min((self.fine.width + self.padding.1).saturating_sub(start)).max(low);
        // A patch may lie entirely in the padding.
        (low..high, (start + low).saturating_sub(self.padding.1).min(self.fine.width))
    }

    /// The fine row under kernel row `ky` at coarse row `y`, if it is inside the map.
    fn fine_row(&self, y: usize, ky: usize) -> Option<usize> {
        (y * self.stride + ky).checked_sub(self.padding.0).filter(|&row| row < self.fine.height)
    }

    /// Copies the patches of coarse row `y` of one image, restricted to the kernel rows `ky` and columns `kx`, to the
    /// matrix `patches` `(coarse.width, ky * kx * c)`.
    fn im2col(&self, fine: &[f32], y: usize, ky: Range<usize>, kx: Range<usize>, patches: &mut [f32]) {
        let c = self.fine.channels;
        let part = kx.len() * c;
        let patch = ky.len() * part;
        for (k, ky) in ky.enumerate() {
            let row =
                self.fine_row(y, ky).map(|row| &fine[row * self.fine.width * c..][..self.fine.width * c]);
            for x in 0..self.coarse.width {
                let to = &mut patches[x * patch + k * part..][..part];
                let Some(row) = row else {
                    to.fill(0.0);
                    continue;
                };
                let (columns, from) = self.columns_inside(x, &kx);
                let (a, b) = ((columns.start - kx.start) * c, (columns.end - kx.start) * c);
                to[..a].fill(0.0);
                to[a..b].copy_from_slice(&row[from * c..][..b - a]);
                to[b..].fill(0.0);
            }
        }
    }

    /// Adds the patches of coarse row `y` to one image of the fine map.
    fn col2im(&self, patches: &[f32], y: usize, fine: &mut [f32]) {
        let (c, patch) = (self.fine.channels, self.patch());
        let part = self.kernel.1 * c;
        for ky in 0..self.kernel.0 {
            let Some(row) = self.fine_row(y, ky) else { continue };
            let row = &mut fine[row * self.fine.width * c..][..self.fine.width * c];
            for x in 0..self.coarse.width {
                let (columns, to) = self.columns_inside(x, &(0..self.kernel.1));
                let from = &patches[x * patch + ky * part..][columns.start * c..columns.end * c];
                for (to, from) in row[to * c..].iter_mut().zip(from) {
                    *to += from;
                }
            }
        }
    }
}

/// `coarse = conv(fine, weight)`.
pub(super) fn down(g: &Geometry, n: usize, fine: &[f32], weight: &[f32], coarse: &mut [f32]) {
    let (patch, channels) = (g.patch(), g.coarse.channels);
    let weight = MatrixView::new(weight, patch, channels);
    let images = g.images(n);
    let tasks = coarse.par_chunks_mut(images * g.coarse.len()).zip(fine.par_chunks(images * g.fine.len()));
    tasks.for_each(|(coarse, fine)| {
        if g.dense() {
            return matmul(coarse, MatrixView::new(fine, fine.len() / patch, patch), weight, false);
        }
        let rows = coarse.len() / channels;
        if g.pixels() <= ROWS {
            // One product of several small images.
            with_scratch(rows * patch, |patches| {
                for (p, fine) in fine.chunks(g.fine.len()).enumerate() {
                    for y in 0..g.coarse.height {
                        let at = (p * g.pixels() + y * g.coarse.width) * patch;
                        let to = &mut patches[at..][..g.coarse.width * patch];
                        g.im2col(fine, y, 0..g.kernel.0, 0..g.kernel.1, to);
                    }
                }
                matmul(coarse, MatrixView::new(patches, rows, patch), weight, false);
            });
            return;
        }
        for (coarse, fine) in coarse.chunks_mut(g.coarse.len()).zip(fine.chunks(g.fine.len())) {
            for (s, coarse) in coarse.chunks_mut(g.slab() * g.coarse.width * channels).enumerate() {
                let rows = coarse.len() / channels;
                with_scratch(rows * patch, |patches| {
                    for (i, to) in patches.chunks_mut(g.coarse.width * patch).enumerate() {
                        g.im2col(fine, s * g.slab() + i, 0..g.kernel.0, 0..g.kernel.1, to);
                    }
                    matmul(coarse, MatrixView::new(patches, rows, patch), weight, false);
                });
            }
        }
    });
}

/// [`up`] of a dense layer between wide vectors. The product is that of the transposes: for a weight with 1,024
/// columns, whose rows share cache sets, `gemm` takes longer to pack the transpose than to multiply it.
fn up_wide(g: &Geometry, n: usize, coarse: &[f32], weight: &[f32], fine: &mut [f32]) {
    let (patch, channels) = (g.patch(), g.coarse.channels);
    let coarse = MatrixView::new(coarse, n, channels).t();
    let mut transposed = vec![0.0; patch * n];
    let parts = transposed.par_chunks_mut(WIDE_VALUES * n).zip(weight.par_chunks(WIDE_VALUES * channels));
    parts.for_each(|(part, weight)| {
        matmul(part, MatrixView::new(weight, part.len() / n, channels), coarse, false);
    });
    fine.par_chunks_mut(TRANSPOSED * patch).enumerate().for_each(|(i, fine)| {
        let images = fine.len() / patch;
        for (value, row) in transposed.chunks_exact(n).enumerate() {
            for (image, &from) in row[i * TRANSPOSED..][..images].iter().enumerate() {
                fine[image * patch + value] = from;
            }
        }
    });
}

/// `fine = conv_transpose(coarse, weight)`.
pub(super) fn up(g: &Geometry, n: usize, coarse: &[f32], weight: &[f32], fine: &mut [f32]) {
    if g.wide() && n > 0 {
        return up_wide(g, n, coarse, weight, fine);
    }
    let (patch, channels) = (g.patch(), g.coarse.channels);
    let weight = MatrixView::new(weight, patch, channels).t();
    let images = g.images(n);
    let tasks = fine.par_chunks_mut(images * g.fine.len()).zip(coarse.par_chunks(images * g.coarse.len()));
    tasks.for_each(|(fine, coarse)| {
        if g.dense() {
            return matmul(fine, MatrixView::new(coarse, coarse.len() / channels, channels), weight, false);
        }
        fine.fill(0.0);
        // Slabs of coarse rows; one slab of all images of the task if these are small.
        let slab = if g.pixels() <= ROWS { coarse.len() } else { g.slab() * g.coarse.width * channels };
        let line = g.coarse.width * channels;
        for (s, part) in coarse.chunks(slab).enumerate() {
            let rows = part.len() / channels;
            with_scratch(rows * patch, |patches| {
                matmul(patches, MatrixView::new(part, rows, channels), weight, false);
                for (i, patches) in patches.chunks(g.coarse.width * patch).enumerate() {
                    let line = s * (slab / line) + i;
                    let (image, y) = (line / g.coarse.height, line % g.coarse.height);
                    g.col2im(patches, y, &mut fine[image * g.fine.len()..][..g.fine.len()]);
                }
            });
        }
    });
}

/// Adds the gradient with respect to the weight to `gradient`.
pub(super) fn weight_gradient(g: &Geometry, n: usize, fine: &[f32], coarse: &[f32], gradient: &mut [f32]) {
    let (patch, channels) = (g.patch(), g.coarse.channels);
    if g.dense() {
        let (all, coarse) = (MatrixView::new(fine, n, patch), MatrixView::new(coarse, n, channels));
        gradient.par_chunks_mut(ROWS * channels).enumerate().for_each(|(i, gradient)| {
            let columns = MatrixView::strided(&all.data[i * ROWS..], n, gradient.len() / channels, patch);
            matmul(gradient, columns.t(), coarse, true);
        });
        return;
    }
    // One task per kernel position, or per kernel row if there are few channels. Each sums over all images.
    let columns_per_task = if g.fine.channels >= 16 { 1 } else { g.kernel.1 };
    let width = columns_per_task * g.fine.channels;
    let line = g.coarse.width * channels;
    let lines = (IM2COL_VALUES / (width * g.coarse.width)).max(1);
    gradient.par_chunks_mut(width * channels).enumerate().for_each(|(task, gradient)| {
        let first = task * columns_per_task;
        let (ky, kx) = (first / g.kernel.1, first % g.kernel.1);
        for (part, coarse) in coarse.chunks(lines * line).enumerate() {
            let rows = coarse.len() / channels;
            with_scratch(rows * width, |patches| {
                for (i, to) in patches.chunks_mut(g.coarse.width * width).enumerate() {
                    let line = part * lines + i;
                    let fine = &fine[line / g.coarse.height * g.fine.len()..][..g.fine.len()];
                    g.im2col(fine, line % g.coarse.height, ky..ky + 1, kx..kx + columns_per_task, to);
                }
                matmul(
                    gradient,
                    MatrixView::new(patches, rows, width).t(),
                    MatrixView::new(coarse, rows, channels),
                    true,
                );
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::direct::Direct;
    use super::super::winograd::Winograd;
    use super::*;
    use proptest::prelude::*;

    /// A convolution of a fine map, or `None` if the kernel does not fit.
    fn geometry(
        fine: MapShape,
        channels: usize,
        kernel: (usize, usize),
        stride: usize,
        padding: (usize, usize),
    ) -> Option<Geometry> {
        let size = |fine, kernel, padding| {
            Layer::output_side(Kind::Conv, fine, kernel, stride, padding, 0).filter(|&size| size > 0)
        };
        let height = size(fine.height, kernel.0, padding.0)?;
        let width = size(fine.width, kernel.1, padding.1)?;
        Some(Geometry { fine, coarse: MapShape::new(channels, height, width), kernel, stride, padding })
    }

    /// Values in [-1, 1).
    fn values(seed: usize, len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 + seed * 101) % 64) as f32 / 32.0 - 1.0).collect()
    }

    /// [`down`], [`up`] and [`weight_gradient`] as plain sums: each product pairs a fine value, a coarse value and a
    /// weight.
    fn plain(g: &Geometry, n: usize, fine: &[f32], coarse: &[f32], weight: &[f32]) -> [Vec<f64>; 3] {
        let mut out = [vec![0.0; coarse.len()], vec![0.0; fine.len()], vec![0.0; weight.len()]];
        let (f_map, c_map) = (g.fine, g.coarse);
        for (image, cy, cx) in
            (0..n).flat_map(|i| (0..c_map.height).flat_map(move |y| (0..c_map.width).map(move |x| (i, y, x))))
        {
            for (ky, kx) in (0..g.kernel.0).flat_map(|y| (0..g.kernel.1).map(move |x| (y, x))) {
                let inside =
                    |at: usize, padding: usize, size: usize| at.checked_sub(padding).filter(|&at| at < size);
                let fy = inside(cy * g.stride + ky, g.padding.0, f_map.height);
                let fx = inside(cx * g.stride + kx, g.padding.1, f_map.width);
                let Some((fy, fx)) = fy.zip(fx) else { continue };
                for (cf, cc) in (0..f_map.channels).flat_map(|f| (0..c_map.channels).map(move |c| (f, c))) {
                    let f = ((image * f_map.height + fy) * f_map.width + fx) * f_map.channels + cf;
                    let c = ((image * c_map.height + cy) * c_map.width + cx) * c_map.channels + cc;
                    let w = ((ky * g.kernel.1 + kx) * f_map.channels + cf) * c_map.channels + cc;
                    out[0][c] += f64::from(fine[f]) * f64::from(weight[w]);
                    out[1][f] += f64::from(coarse[c]) * f64::from(weight[w]);
                    out[2][w] += f64::from(fine[f]) * f64::from(coarse[c]);
                }
            }
        }
        out
    }

    fn check(g: &Geometry, n: usize) {
        let (fine, coarse) = (values(1, n * g.fine.len()), values(2, n * g.coarse.len()));
        let weight = values(3, g.patch() * g.coarse.channels);
        let expected = plain(g, n, &fine, &coarse, &weight);
        let mut found = [vec![0.0; coarse.len()], vec![0.0; fine.len()], vec![0.0; weight.len()]];
        down(g, n, &fine, &weight, &mut found[0]);
        up(g, n, &coarse, &weight, &mut found[1]);
        weight_gradient(g, n, &fine, &coarse, &mut found[2]);
        for ((found, expected), what) in found.iter().zip(&expected).zip(["down", "up", "weight gradient"]) {
            let largest = expected.iter().fold(1e-20_f64, |m, v| m.max(v.abs()));
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= 1e-5 * largest, "{what} {i}: expected {expected}, found {found}, {g:?}");
            }
        }
    }

    #[test]
    fn non_square_kernels_and_unequal_padding_match_plain_sums() {
        let kernels = [
            ((1, 7), (0, 3)),
            ((7, 1), (3, 0)),
            ((3, 1), (1, 0)),
            ((1, 3), (0, 1)),
            ((2, 5), (0, 2)),
            ((2, 5), (1, 4)),
            ((4, 4), (1, 2)),
        ];
        for (kernel, padding) in kernels {
            for stride in 1..=3 {
                // Few and many fine channels; coarse maps below and above one product.
                for (channels, side, n) in [((3, 5), (9, 8), 3), ((17, 4), (7, 11), 2), ((2, 3), (23, 29), 1)]
                {
                    let fine = MapShape::new(channels.0, side.0, side.1);
                    if let Some(g) = geometry(fine, channels.1, kernel, stride, padding) {
                        check(&g, n);
                    }
                }
            }
        }
    }

    #[test]
    fn dense_layers_between_wide_vectors_match_plain_sums() {
        // Parts and blocks of images that are whole, and that are not.
        for (fine, channels, n) in [((64, 4, 4), 512, 16), ((3, 13, 17), 600, 1), ((3, 13, 17), 512, 37)] {
            let fine = MapShape::new(fine.0, fine.1, fine.2);
            let g = geometry(fine, channels, (fine.height, fine.width), 1, (0, 0)).unwrap();
            assert!(g.wide());
            check(&g, n);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn any_shape_matches_plain_sums(
            channels in (1_usize..20, 1_usize..10),
            side in (1_usize..20, 1_usize..20),
            kernel in (1_usize..8, 1_usize..8),
            stride in 1_usize..4,
            padding in (0_usize..5, 0_usize..5),
            n in 1_usize..4,
        ) {
            let padding = (padding.0.min(kernel.0 - 1), padding.1.min(kernel.1 - 1));
            let fine = MapShape::new(channels.0, side.0, side.1);
            if let Some(g) = geometry(fine, channels.1, kernel, stride, padding) {
                check(&g, n);
            }
        }
    }

    #[test]
    fn winograd_and_direct_take_equal_padding_only() {
        let of =
            |channels, padding| geometry(MapShape::new(channels, 16, 16), 32, (4, 4), 2, padding).unwrap();
        assert!(Winograd::of(&of(16, (1, 1))).is_some() && Winograd::of(&of(16, (1, 2))).is_none());
        assert!(Direct::of(&of(3, (1, 1))).is_some() && Direct::of(&of(3, (2, 1))).is_none());
    }
}
