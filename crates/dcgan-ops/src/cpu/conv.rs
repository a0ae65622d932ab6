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
//! Work is split by shapes alone, see [`super::matmul`].

use super::matmul::{View, matmul};
use crate::{Kind, Layer, MapShape};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Coarse pixels of one matrix product: enough to amortize packing the weights, few enough for the patches to stay in
/// cache.
const ROWS: usize = 256;
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
    pub(super) padding: usize,
}

impl Geometry {
    pub(super) fn of(layer: &Layer) -> Self {
        let (fine, coarse) = match layer.kind {
            Kind::Conv => (layer.input, layer.output),
            Kind::ConvTranspose => (layer.output, layer.input),
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
        self.pixels() == 1 && self.padding == 0 && self.kernel == (self.fine.height, self.fine.width)
    }

    /// Images of one parallel task.
    fn images(&self, n: usize) -> usize {
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
        let low = kx.start.max(self.padding.saturating_sub(start)).min(kx.end);
        let high = kx.end.min((self.fine.width + self.padding).saturating_sub(start)).max(low);
        // A patch may lie entirely in the padding.
        (low..high, (start + low).saturating_sub(self.padding).min(self.fine.width))
    }

    /// The fine row under kernel row `ky` at coarse row `y`, if it is inside the map.
    fn fine_row(&self, y: usize, ky: usize) -> Option<usize> {
        (y * self.stride + ky).checked_sub(self.padding).filter(|&row| row < self.fine.height)
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
    let weight = View::new(weight, patch, channels);
    let images = g.images(n);
    let tasks = coarse.par_chunks_mut(images * g.coarse.len()).zip(fine.par_chunks(images * g.fine.len()));
    tasks.for_each(|(coarse, fine)| {
        if g.dense() {
            return matmul(coarse, View::new(fine, fine.len() / patch, patch), weight, false);
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
                matmul(coarse, View::new(patches, rows, patch), weight, false);
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
                    matmul(coarse, View::new(patches, rows, patch), weight, false);
                });
            }
        }
    });
}

/// `fine = conv_transpose(coarse, weight)`.
pub(super) fn up(g: &Geometry, n: usize, coarse: &[f32], weight: &[f32], fine: &mut [f32]) {
    let (patch, channels) = (g.patch(), g.coarse.channels);
    let weight = View::new(weight, patch, channels).t();
    let images = g.images(n);
    let tasks = fine.par_chunks_mut(images * g.fine.len()).zip(coarse.par_chunks(images * g.coarse.len()));
    tasks.for_each(|(fine, coarse)| {
        if g.dense() {
            return matmul(fine, View::new(coarse, coarse.len() / channels, channels), weight, false);
        }
        fine.fill(0.0);
        // Slabs of coarse rows; one slab of all images of the task if these are small.
        let slab = if g.pixels() <= ROWS { coarse.len() } else { g.slab() * g.coarse.width * channels };
        let line = g.coarse.width * channels;
        for (s, part) in coarse.chunks(slab).enumerate() {
            let rows = part.len() / channels;
            with_scratch(rows * patch, |patches| {
                matmul(patches, View::new(part, rows, channels), weight, false);
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
        let (all, coarse) = (View::new(fine, n, patch), View::new(coarse, n, channels));
        gradient.par_chunks_mut(ROWS * channels).enumerate().for_each(|(i, gradient)| {
            let columns = View::strided(&all.data[i * ROWS..], n, gradient.len() / channels, patch);
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
                    View::new(patches, rows, width).t(),
                    View::new(coarse, rows, channels),
                    true,
                );
            });
        }
    });
}
