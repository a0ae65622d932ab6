//! Resizing by a triangle filter that widens for downscaling (antialiased bilinear), with the center crop.
//!
//! The values are those of `image::imageops::resize` with `FilterType::Triangle`, to the last bit: the same weights,
//! sums in the same order. Rows are summed as slices, and pixels outside the crop are not computed, which makes it
//! several times as fast.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "sides are below 2^15, sums are clamped"
)]

use std::ops::Range;

/// A part of an image `(h, w, C)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// The first byte is that of the first pixel.
    pub(crate) pixels: &'a [u8],
    /// Bytes from row to row.
    pub(crate) stride: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl<'a> View<'a> {
    /// The center of an image of `C` channels; the sides are at most its own.
    pub(crate) fn center<const C: usize>(
        pixels: &'a [u8],
        (height, width): (usize, usize),
        (to_height, to_width): (usize, usize),
    ) -> Self {
        let (y, x) = ((height - to_height) / 2, (width - to_width) / 2);
        let pixels = pixels.get((y * width + x) * C..).unwrap_or_default();
        Self { pixels, stride: width * C, height: to_height, width: to_width }
    }

    fn row(&self, y: usize) -> &'a [u8] {
        self.pixels.get(y * self.stride..).unwrap_or_default()
    }

    /// The pixels without gaps.
    pub(crate) fn copy<const C: usize>(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.height * self.width * C);
        (0..self.height)
            .for_each(|y| out.extend_from_slice(self.row(y).get(..self.width * C).unwrap_or_default()));
        out
    }
}

/// The inputs of an output row or column: the first of them, and the range of their weights.
struct Taps {
    first: usize,
    weights: Range<usize>,
}

/// The taps of the outputs `window` of a side that is resized from `from` to `to`.
fn taps(from: usize, to: usize, window: Range<usize>) -> (Vec<Taps>, Vec<f32>) {
    let ratio = from as f32 / to as f32;
    let scale = if ratio < 1.0 { 1.0 } else { ratio };
    let mut all: Vec<f32> = Vec::new();
    let taps = window.map(|output| {
        let center = (output as f32 + 0.5) * ratio;
        let first = ((center - scale).floor() as i64).clamp(0, from as i64 - 1);
        let end = ((center + scale).ceil() as i64).clamp(first + 1, from as i64);
        let center = center - 0.5;
        let start = all.len();
        let mut sum = 0.0;
        for input in first..end {
            let distance = ((input as f32 - center) / scale).abs();
            let weight = if distance < 1.0 { 1.0 - distance } else { 0.0 };
            all.push(weight);
            sum += weight;
        }
        all.iter_mut().skip(start).for_each(|weight| *weight /= sum);
        Taps { first: first as usize, weights: start..all.len() }
    });
    (taps.collect(), all)
}

/// The center `(h, w)` of `to` of `image` resized to `(nh, nw)`, at least as large; both are not empty.
pub(crate) fn resize<const C: usize>(
    image: View<'_>,
    (new_height, new_width): (usize, usize),
    (height, width): (usize, usize),
) -> Vec<u8> {
    let (y, x) = ((new_height - height) / 2, (new_width - width) / 2);
    let (rows, row_weights) = taps(image.height, new_height, y..y + height);
    let (columns, column_weights) = taps(image.width, new_width, x..x + width);
    let first = columns.iter().map(|taps| taps.first).min().unwrap_or(0);
    let end = columns.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(0);
    let mut out = Vec::with_capacity(height * width * C);
    let mut sums = vec![0_f32; (end - first) * C];
    let mut padded = vec![[0_f32; 4]; end - first];
    for taps in &rows {
        sums.fill(0.0);
        for (i, &weight) in row_weights[taps.weights.clone()].iter().enumerate() {
            let row = image.row(taps.first + i).get(first * C..).unwrap_or_default();
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f32::from(value) * weight);
        }
        // Four channels at a time, whatever C is.
        for (pixel, sums) in padded.iter_mut().zip(sums.as_chunks::<C>().0) {
            pixel[..C].copy_from_slice(sums);
        }
        for taps in &columns {
            let mut sum = [0_f32; 4];
            let weights = &column_weights[taps.weights.clone()];
            for (pixel, &weight) in padded[taps.first - first..].iter().zip(weights) {
                sum.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value * weight);
            }
            out.extend(sum[..C].iter().map(|&sum| nearest(sum)));
        }
    }
    out
}

/// The nearest integer, halves up (sums are not negative).
fn nearest(sum: f32) -> u8 {
    let sum = sum.clamp(0.0, 255.0);
    let floor = sum as u8;
    floor + u8::from(sum - f32::from(floor) >= 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::imageops::{FilterType, crop_imm, resize as reference};
    use image::{ImageBuffer, Pixel};

    fn check<P: Pixel<Subpixel = u8> + 'static, const C: usize>(
        from: (usize, usize),
        new: (usize, usize),
        to: (usize, usize),
    ) {
        let narrow = |side: usize| u32::try_from(side).unwrap();
        let pixels: Vec<u8> =
            (0..from.0 * from.1 * C).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        let image: ImageBuffer<P, Vec<u8>> =
            ImageBuffer::from_raw(narrow(from.1), narrow(from.0), pixels.clone()).unwrap();
        let resized = reference(&image, narrow(new.1), narrow(new.0), FilterType::Triangle);
        let (y, x) = ((new.0 - to.0) / 2, (new.1 - to.1) / 2);
        let expected =
            crop_imm(&resized, narrow(x), narrow(y), narrow(to.1), narrow(to.0)).to_image().into_raw();
        let view = View::center::<C>(&pixels, from, from);
        assert_eq!(resize::<C>(view, new, to), expected, "{from:?} to {new:?}, center {to:?}, {C} channels");
    }

    #[test]
    fn values_are_those_of_the_reference() {
        for (from, new, to) in [
            ((218, 178), (78, 64), (64, 64)),
            ((64, 64), (32, 32), (32, 32)),
            ((375, 500), (64, 85), (64, 64)),
            ((37, 41), (128, 142), (128, 128)),
            ((1, 9), (5, 45), (5, 7)),
            ((300, 7), (100, 3), (3, 3)),
            ((9, 9), (10, 10), (9, 10)),
            ((5, 4), (1, 1), (1, 1)),
            ((101, 67), (100, 66), (100, 66)),
        ] {
            check::<image::Luma<u8>, 1>(from, new, to);
            check::<image::Rgb<u8>, 3>(from, new, to);
            check::<image::Rgba<u8>, 4>(from, new, to);
        }
    }

    #[test]
    fn halves_are_rounded_up() {
        for (sum, expected) in
            [(0.0, 0), (0.499_999_97, 0), (0.5, 1), (2.5, 3), (254.5, 255), (300.0, 255), (-1.0, 0)]
        {
            assert_eq!(nearest(sum), expected, "{sum}");
        }
    }
}
