//! How images become the input of the Inception network. Programs differ in it, and so do their numbers.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positions are within an image")]

use std::fmt;
use std::str::FromStr;

use crate::inception::architecture::SIDE;

/// Values of a prepared image: 299 x 299 x 3.
pub const INPUT_LEN: usize = SIDE * SIDE * 3;

/// The program whose numbers are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Convention {
    /// torch-fidelity, and clean-fid's `legacy_tensorflow`: bilinear as TensorFlow 1, range (x - 128) / 128.
    #[default]
    TorchFidelity,
    /// pytorch-fid, and clean-fid's `legacy_pytorch`: bilinear, half pixels, not antialiased; range 2 x / 255 - 1.
    PytorchFid,
    /// clean-fid: bicubic as PIL, antialiased, not rounded; range (x - 128) / 128.
    Clean,
    /// NVIDIA's StyleGAN: as torch-fidelity, with the biased covariance.
    Nvlabs,
    /// StudioGAN: bilinear as PIL, antialiased, not rounded; range x / 127.5 - 1.
    StudioGan,
}

impl Convention {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::TorchFidelity, Self::PytorchFid, Self::Clean, Self::Nvlabs, Self::StudioGan];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchFidelity => "torch-fidelity",
            Self::PytorchFid => "pytorch-fid",
            Self::Clean => "clean",
            Self::Nvlabs => "nvlabs",
            Self::StudioGan => "studiogan",
        }
    }

    /// What is subtracted from the number of images where a covariance is divided by it.
    pub fn ddof(self) -> usize {
        usize::from(self != Self::Nvlabs)
    }

    /// The convention that prepares images in the same way: features are those of both.
    #[must_use]
    pub fn of_features(self) -> Self {
        if self == Self::Nvlabs { Self::TorchFidelity } else { self }
    }

    /// Writes an image of u8 pixels `(height, width, channels)` to `out`, f32 `(299, 299, 3)`. Grey is repeated, the
    /// fourth channel is ignored.
    ///
    /// # Panics
    /// Another number of pixels or of values; no pixels.
    pub fn prepare(self, pixels: &[u8], height: usize, width: usize, channels: usize, out: &mut [f32]) {
        assert!(height * width > 0 && pixels.len() == height * width * channels, "no image of this size");
        assert_eq!(out.len(), INPUT_LEN, "the output has another size");
        let source = |channel: usize| if channels < 3 { 0 } else { channel };
        let value = |y: usize, x: usize, channel: usize| {
            f32::from(pixels[(y * width + x) * channels + source(channel)])
        };
        match self {
            Self::TorchFidelity | Self::Nvlabs => {
                tensorflow_bilinear(&value, height, width, out);
                out.iter_mut().for_each(|x| *x = (*x - 128.0) / 128.0);
            }
            Self::PytorchFid => {
                pytorch_bilinear(&|y, x, channel| value(y, x, channel) / 255.0, height, width, out);
                out.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
            }
            Self::Clean => {
                antialiased(&value, height, width, &CUBIC, out);
                out.iter_mut().for_each(|x| *x = (x.clamp(0.0, 255.0) - 128.0) / 128.0);
            }
            Self::StudioGan => {
                antialiased(&value, height, width, &TRIANGLE, out);
                out.iter_mut().for_each(|x| *x = x.clamp(0.0, 255.0) / 127.5 - 1.0);
            }
        }
    }
}

impl fmt::Display for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Convention {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|convention| convention.name() == text)
            .ok_or_else(|| format!("{text:?} is not a convention, expected one of {names}"))
    }
}

/// An image to prepare.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// u8 `(height, width, channels)`.
    pub pixels: &'a [u8],
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1, 3 or 4.
    pub channels: usize,
}

type Pixel<'a> = &'a dyn Fn(usize, usize, usize) -> f32;

/// The two pixels that an output pixel lies between, and the share of the second.
type Between = (usize, usize, f32);

fn bilinear(
    value: Pixel<'_>,
    rows: &[Between],
    columns: &[Between],
    out: &mut [f32],
    blend: fn([f32; 4], f32, f32) -> f32,
) {
    for (&(top, bottom, dy), out) in rows.iter().zip(out.chunks_exact_mut(SIDE * 3)) {
        for (&(left, right, dx), out) in columns.iter().zip(out.chunks_exact_mut(3)) {
            for (channel, out) in out.iter_mut().enumerate() {
                let corner = |y, x| value(y, x, channel);
                let corners =
                    [corner(top, left), corner(top, right), corner(bottom, left), corner(bottom, right)];
                *out = blend(corners, dx, dy);
            }
        }
    }
}

/// TensorFlow 1's `resize_bilinear`: the corners of both images coincide at the top left only.
fn tensorflow_bilinear(value: Pixel<'_>, height: usize, width: usize, out: &mut [f32]) {
    let between = |side: usize| -> Vec<Between> {
        let scale = (side as f64 / SIDE as f64) as f32;
        let of = |i: usize| {
            let source = i as f32 * scale;
            let low = source as usize;
            (low, (low + 1).min(side - 1), source - low as f32)
        };
        (0..SIDE).map(of).collect()
    };
    bilinear(value, &between(height), &between(width), out, |[a, b, c, d], dx, dy| {
        let (top, bottom) = (a + (b - a) * dx, c + (d - c) * dx);
        top + (bottom - top) * dy
    });
}

/// PyTorch's `interpolate` without `align_corners` and `antialias`.
fn pytorch_bilinear(value: Pixel<'_>, height: usize, width: usize, out: &mut [f32]) {
    let between = |side: usize| -> Vec<Between> {
        let scale = side as f32 / SIDE as f32;
        let of = |i: usize| {
            let source = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
            let low = (source as usize).min(side - 1);
            (low, (low + 1).min(side - 1), source - low as f32)
        };
        (0..SIDE).map(of).collect()
    };
    bilinear(value, &between(height), &between(width), out, |[a, b, c, d], dx, dy| {
        (1.0 - dy) * ((1.0 - dx) * a + dx * b) + dy * ((1.0 - dx) * c + dx * d)
    });
}

/// A filter of PIL: its value, and where it ends.
struct Filter {
    value: fn(f64) -> f64,
    support: f64,
}

const TRIANGLE: Filter = Filter { value: |x| (1.0 - x.abs()).max(0.0), support: 1.0 };

/// Keys' cubic with a = -0.5.
const CUBIC: Filter = Filter {
    value: |x| {
        const A: f64 = -0.5;
        let x = x.abs();
        if x < 1.0 {
            ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
        } else if x < 2.0 {
            (((x - 5.0) * x + 8.0) * x - 4.0) * A
        } else {
            0.0
        }
    },
    support: 2.0,
};

/// For each output pixel the first input pixel and the weights.
fn weights(side: usize, filter: &Filter) -> Vec<(usize, Vec<f64>)> {
    let scale = side as f64 / SIDE as f64;
    let filter_scale = scale.max(1.0);
    let support = filter.support * filter_scale;
    let of = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(side);
        let weight = |x: usize| (filter.value)((x as f64 - center + 0.5) / filter_scale);
        let mut weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        (first, weights)
    };
    (0..SIDE).map(of).collect()
}

/// PIL's `resize` of an image in mode F: along rows, then along columns, each rounded to f32.
fn antialiased(value: Pixel<'_>, height: usize, width: usize, filter: &Filter, out: &mut [f32]) {
    let columns = weights(width, filter);
    let mut narrow = vec![0.0_f32; height * SIDE * 3];
    for (y, row) in narrow.chunks_exact_mut(SIDE * 3).enumerate() {
        for ((first, weights), out) in columns.iter().zip(row.chunks_exact_mut(3)) {
            for (channel, out) in out.iter_mut().enumerate() {
                let terms = weights.iter().enumerate();
                *out = terms.map(|(i, weight)| f64::from(value(y, first + i, channel)) * weight).sum::<f64>()
                    as f32;
            }
        }
    }
    for ((first, weights), out) in weights(height, filter).iter().zip(out.chunks_exact_mut(SIDE * 3)) {
        for (i, out) in out.iter_mut().enumerate() {
            let terms = weights.iter().enumerate();
            let sum: f64 =
                terms.map(|(row, weight)| f64::from(narrow[(first + row) * SIDE * 3 + i]) * weight).sum();
            *out = sum as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_one_color_stays_so() {
        for convention in Convention::ALL {
            assert_eq!(convention.name().parse(), Ok(convention));
            for (height, width, channels) in
                [(1, 1, 1), (299, 299, 3), (32, 48, 3), (700, 300, 4), (5, 299, 1)]
            {
                let mut out = vec![f32::NAN; INPUT_LEN];
                convention.prepare(&vec![200; height * width * channels], height, width, channels, &mut out);
                let expected = match convention {
                    Convention::PytorchFid => 2.0 * 200.0 / 255.0 - 1.0,
                    Convention::StudioGan => 200.0 / 127.5 - 1.0,
                    _ => 0.5625,
                };
                let far = out.iter().find(|x| (**x - expected).abs() > 1e-6);
                assert_eq!(far, None, "{convention}, {height} x {width}: expected {expected}");
            }
        }
        assert!("fid".parse::<Convention>().unwrap_err().contains("torch-fidelity, pytorch-fid"));
    }

    #[test]
    fn an_image_of_the_right_size_is_not_resized() {
        let pixels: Vec<u8> = (0..INPUT_LEN).map(|i| (i * 7 % 256) as u8).collect();
        for convention in Convention::ALL {
            let mut out = vec![0.0; INPUT_LEN];
            convention.prepare(&pixels, SIDE, SIDE, 3, &mut out);
            for (pixel, value) in pixels.iter().zip(&out) {
                let expected = match convention {
                    Convention::PytorchFid => 2.0 * f32::from(*pixel) / 255.0 - 1.0,
                    Convention::StudioGan => f32::from(*pixel) / 127.5 - 1.0,
                    _ => (f32::from(*pixel) - 128.0) / 128.0,
                };
                assert!((value - expected).abs() < 1e-6, "{convention}: {value}, expected {expected}");
            }
        }
    }
}
