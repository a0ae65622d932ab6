//! Convolutions between images of few channels and maps of many, without im2col.
//!
//! In a channels-last image the values under one row of a kernel are contiguous, so a padded copy of the image
//! already is the matrix of its patches. On the way up, blocks of 2x2 pixels of the image are computed together, so
//! that their channels fill a vector.

#![allow(
    unsafe_code,
    reason = "kernels take pointers; every call says why its addresses are inside, and slices are cut to that size"
)]

use super::conv::{Geometry, with_scratch};
use super::kernels::gemm::{Lhs, NextOperands, PANEL, PanelProduct, panel_product};
use super::kernels::{Isa, LANES};
use super::map_view::MapView;
use super::winograd::PerImage;
use rayon::prelude::*;

/// Pixels of a block each way, computed together on the way up.
const BLOCK: usize = 2;

/// Partial sums of a weight gradient, each over consecutive images.
const GRADIENT_PARTS: usize = 16;

/// The algorithm for the shapes of one convolution.
#[derive(Clone, Debug)]
pub(super) struct Direct {
    geometry: Geometry,
    /// Coarse rows and columns that a block of fine pixels depends on.
    window: (usize, usize),
    /// Blocks of fine pixels down and across.
    blocks: (usize, usize),
}

/// A map padded with zeros, in rows and values of a row.
#[derive(Clone, Copy, Debug)]
struct PaddedMap {
    /// Rows before the map, and values before each of its rows.
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl PaddedMap {
    /// Pads `rows` rows of `length` values, which `write` writes by their number.
    fn fill(&self, to: &mut [f32], (rows, length): (usize, usize), write: impl Fn(usize, &mut [f32])) {
        for (y, padded) in to.chunks_exact_mut(self.width).enumerate().take(self.height) {
            let Some(row) = y.checked_sub(self.top).filter(|&row| row < rows) else {
                padded.fill(0.0);
                continue;
            };
            let (left, rest) = padded.split_at_mut(self.left);
            let (middle, right) = rest.split_at_mut(length);
            left.fill(0.0);
            write(row, middle);
            right.fill(0.0);
        }
    }
}

impl Direct {
    /// The algorithm for `geometry`, if it applies: at most four fine channels, a multiple of sixteen coarse
    /// channels, stride 1 or 2, equal padding of
    /// rows and columns, and kernels larger than the stride.
    pub(super) fn of(geometry: &Geometry) -> Option<Self> {
        let Geometry { fine, coarse, kernel, stride, padding: (padding, column_padding) } = *geometry;
        let many = coarse.channels % LANES == 0;
        let fits =
            kernel.0.min(kernel.1) > stride && kernel.0.max(kernel.1) <= 7 && padding == column_padding;
        if fine.channels > LANES / (BLOCK * BLOCK) || !many || !(1..=2).contains(&stride) || !fits {
            return None;
        }
        // Block i has the fine rows `BLOCK i + a - padding`. They depend on coarse rows from `step i - (window -
        // step)`.
        let window = |kernel: usize| (kernel - 1) / stride + BLOCK.div_ceil(stride);
        let blocks = |side: usize| (side + padding).div_ceil(BLOCK);
        Some(Self {
            geometry: geometry.clone(),
            window: (window(kernel.0), window(kernel.1)),
            blocks: (blocks(fine.height), blocks(fine.width)),
        })
    }

    /// Coarse pixels from one block to the next.
    fn step(&self) -> usize {
        BLOCK / self.geometry.stride
    }

    /// Height and width of the padded image: all pixels that kernels read, and the whole image.
    fn padded_fine(&self) -> (usize, usize) {
        let Geometry { fine, coarse, kernel, stride, padding: (padding, _) } = self.geometry;
        let side =
            |fine: usize, coarse: usize, kernel: usize| ((coarse - 1) * stride + kernel).max(fine + padding);
        (side(fine.height, coarse.height, kernel.0), side(fine.width, coarse.width, kernel.1))
    }

    /// Copies an image into its padded form.
    fn pad_fine(&self, image: &[f32], padded: &mut [f32]) {
        let Geometry { fine, padding: (padding, _), .. } = self.geometry;
        let (height, width) = self.padded_fine();
        let line = fine.width * fine.channels;
        let (left, width) = (padding * fine.channels, width * fine.channels);
        PaddedMap { top: padding, left, height, width }
            .fill(padded, (fine.height, line), |y, row| row.copy_from_slice(&image[y * line..][..line]));
    }

    /// `coarse = conv(fine, weights)`, weights `(kernel, kernel, c_fine, c_coarse)`.
    pub(super) fn down(
        &self,
        isa: Isa,
        fine: &[f32],
        weights: &[f32],
        coarse: &mut [f32],
        per_image: PerImage<'_>,
    ) {
        let Geometry { fine: fine_map, coarse: coarse_map, kernel, stride, .. } = self.geometry;
        let (height, width) = self.padded_fine();
        let (c, channels) = (fine_map.channels, coarse_map.channels);
        assert_eq!(weights.len(), kernel.0 * kernel.1 * c * channels);
        let lhs =
            Lhs { row_stride: stride * c, depth_stride: 1, block: kernel.1 * c, block_stride: width * c };
        let maps = coarse.par_chunks_exact_mut(coarse_map.len()).zip(fine.par_chunks_exact(fine_map.len()));
        maps.enumerate().for_each(|(image, (coarse, fine))| {
            with_scratch(height * width * c, |padded| {
                self.pad_fine(fine, padded);
                for (y, row) in coarse.chunks_exact_mut(coarse_map.width * channels).enumerate() {
                    let from = &padded[y * stride * width * c..][..((kernel.0 - 1) * width + width) * c];
                    for first in (0..channels).step_by(PANEL) {
                        let shape = PanelProduct {
                            rows: coarse_map.width,
                            depth: kernel.0 * kernel.1 * c,
                            columns: (channels - first).min(PANEL),
                            rhs_row_stride: channels,
                            out_row_stride: channels,
                            accumulate: false,
                            next: NextOperands::default(),
                        };
                        let (b, out) = (weights[first..].as_ptr(), row[first..].as_mut_ptr());
                        // SAFETY: `from` is kernel.0 padded rows, which include the last patch; the weights have
                        // `depth` rows of all channels, and `row` a pixel per row of the product.
                        unsafe { panel_product(isa, &shape, &lhs, from.as_ptr(), b, out) };
                    }
                }
            });
            per_image(image, coarse);
        });
    }

    /// Packs weights for the way up. The rows are (window row, window column, coarse channel), the sixteen columns
    /// (pixel of a block, fine channel).
    fn pack_up(&self, weights: &[f32]) -> Vec<f32> {
        let Geometry { fine, coarse, kernel, stride, .. } = self.geometry;
        let (window, step) = (self.window, self.step());
        let mut packed = vec![0.0; window.0 * window.1 * coarse.channels * LANES];
        // The kernel's row that joins row `a` of a block and row `w` of its window, if any.
        let tap = |a: usize, w: usize, window: usize, kernel: usize| {
            let back = window - step; // coarse rows before the block's own
            (a + stride * back).checked_sub(stride * w).filter(|&tap| tap < kernel)
        };
        for (row, out) in packed.chunks_exact_mut(LANES).enumerate() {
            let (pixel, channel) = (row / coarse.channels, row % coarse.channels);
            let (wy, wx) = (pixel / window.1, pixel % window.1);
            for (lane, out) in out.iter_mut().enumerate().take(BLOCK * BLOCK * fine.channels) {
                let (pixel, c) = (lane / fine.channels, lane % fine.channels);
                let (a, b) = (pixel / BLOCK, pixel % BLOCK);
                let taps = tap(a, wy, window.0, kernel.0).zip(tap(b, wx, window.1, kernel.1));
                if let Some((ky, kx)) = taps {
                    *out = weights[((ky * kernel.1 + kx) * fine.channels + c) * coarse.channels + channel];
                }
            }
        }
        packed
    }

    /// `fine = conv_transpose(coarse, weights)`
    pub(super) fn up(
        &self,
        isa: Isa,
        coarse: MapView<'_>,
        weights: &[f32],
        fine: &mut [f32],
        per_image: PerImage<'_>,
    ) {
        let Geometry { fine: fine_map, coarse: coarse_map, kernel, padding: (padding, _), .. } =
            self.geometry;
        let (window, step) = (self.window, self.step());
        let (c, channels) = (fine_map.channels, coarse_map.channels);
        assert_eq!(weights.len(), kernel.0 * kernel.1 * c * channels);
        let packed = self.pack_up(weights);
        let before = (window.0 - step, window.1 - step);
        let side = |blocks: usize, window: usize, coarse: usize, before: usize| {
            ((blocks - 1) * step + window).max(coarse + before)
        };
        let height = side(self.blocks.0, window.0, coarse_map.height, before.0);
        let width = side(self.blocks.1, window.1, coarse_map.width, before.1);
        let shape = PanelProduct {
            rows: self.blocks.1,
            depth: window.0 * window.1 * channels,
            columns: LANES,
            rhs_row_stride: LANES,
            out_row_stride: LANES,
            accumulate: false,
            next: NextOperands::default(),
        };
        let lhs = Lhs {
            row_stride: step * channels,
            depth_stride: 1,
            block: window.1 * channels,
            block_stride: width * channels,
        };
        let padded_len = height * width * channels;
        fine.par_chunks_exact_mut(fine_map.len()).enumerate().for_each(|(image, fine)| {
            with_scratch(padded_len + self.blocks.1 * LANES, |scratch| {
                let (padded, line) = scratch.split_at_mut(padded_len);
                let length = coarse_map.width * channels;
                let (left, width_len) = (before.1 * channels, width * channels);
                PaddedMap { top: before.0, left, height, width: width_len }.fill(
                    padded,
                    (coarse_map.height, length),
                    |y, row| {
                        coarse.part(image * coarse_map.len() + y * length, length).write(row);
                    },
                );
                for i in 0..self.blocks.0 {
                    let from = &padded[i * step * width * channels..][..window.0 * width * channels];
                    // SAFETY: `from` is window.0 padded rows, which include the last block's window; the packed
                    // weights have `depth` rows, and `line` a row per block.
                    unsafe {
                        panel_product(isa, &shape, &lhs, from.as_ptr(), packed.as_ptr(), line.as_mut_ptr())
                    };
                    for a in 0..BLOCK {
                        let y = (i * BLOCK + a).checked_sub(padding).filter(|&y| y < fine_map.height);
                        let Some(y) = y else { continue };
                        let row = &mut fine[y * fine_map.width * c..][..fine_map.width * c];
                        for (j, block) in line.chunks_exact(LANES).enumerate() {
                            for b in 0..BLOCK {
                                let x = (j * BLOCK + b).checked_sub(padding).filter(|&x| x < fine_map.width);
                                let Some(x) = x else { continue };
                                row[x * c..(x + 1) * c].copy_from_slice(&block[(a * BLOCK + b) * c..][..c]);
                            }
                        }
                    }
                }
            });
            per_image(image, fine);
        });
    }

    /// Adds the gradient with respect to the weights to `gradient`.
    pub(super) fn weight_gradient(&self, isa: Isa, fine: &[f32], coarse: MapView<'_>, gradient: &mut [f32]) {
        let Geometry { fine: fine_map, coarse: coarse_map, kernel, stride, .. } = self.geometry;
        let (height, width) = self.padded_fine();
        let (c, channels) = (fine_map.channels, coarse_map.channels);
        assert_eq!(gradient.len(), kernel.0 * kernel.1 * c * channels);
        let n = fine.len() / fine_map.len();
        let images = n.div_ceil(GRADIENT_PARTS);
        // The rows are the values under a row of the kernel, the depth all pixels of the coarse map.
        let lhs = Lhs {
            row_stride: 1,
            depth_stride: stride * c,
            block: coarse_map.width,
            block_stride: stride * width * c,
        };
        let pixels = coarse_map.height * coarse_map.width;
        let parts: Vec<Vec<f32>> = fine
            .par_chunks(images * fine_map.len())
            .enumerate()
            .map(|(part, fine)| {
                let mut sums = vec![0.0; gradient.len()];
                for (image, fine) in fine.chunks_exact(fine_map.len()).enumerate() {
                    let first = (part * images + image) * coarse_map.len();
                    let padded_len = height * width * c;
                    with_scratch(padded_len + coarse_map.len(), |scratch| {
                        let (padded, finished) = scratch.split_at_mut(padded_len);
                        self.pad_fine(fine, padded);
                        let map = coarse.part(first, coarse_map.len()).in_place_or(finished);
                        for (ky, sums) in sums.chunks_exact_mut(kernel.1 * c * channels).enumerate() {
                            let from = &padded[ky * width * c..]
                                [..((coarse_map.height - 1) * stride + 1) * width * c];
                            for first in (0..channels).step_by(PANEL) {
                                let shape = PanelProduct {
                                    rows: kernel.1 * c,
                                    depth: pixels,
                                    columns: (channels - first).min(PANEL),
                                    rhs_row_stride: channels,
                                    out_row_stride: channels,
                                    accumulate: true,
                                    next: NextOperands::default(),
                                };
                                let (b, out) = (map[first..].as_ptr(), sums[first..].as_mut_ptr());
                                let a = from.as_ptr();
                                // SAFETY: `from` is the padded rows under row `ky` of the kernel, which include those
                                // of the last patch; `map` has a pixel per value of the depth, `sums` all channels
                                // per value under the kernel's row.
                                unsafe { panel_product(isa, &shape, &lhs, a, b, out) };
                            }
                        }
                    });
                }
                sums
            })
            .collect();
        for part in &parts {
            gradient.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
}
