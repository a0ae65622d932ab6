//! Conversion of pixels between u8 `(n, h, w, c)`, as in files, and f32 of the same order, as in networks.

use crate::ModelConfig;
use candle_core::{Device, Tensor};
use dcgan_ops::{Activation, BufferPool, MapShape, Maps, OpsError};
use rayon::prelude::*;

/// Values that one parallel task converts.
const TASK_VALUES: usize = 64 * 1024;

/// The range of pixel values in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelRange {
    /// \[-1, 1\], for tanh: `x / 127.5 - 1` (paper, section 4).
    Symmetric,
    /// \[0, 1\], for sigmoid: `x / 255`.
    Unit,
}

impl PixelRange {
    /// The range of a generator's output activation.
    pub fn of(output: Activation) -> Self {
        if output == Activation::Sigmoid { Self::Unit } else { Self::Symmetric }
    }

    /// A pixel value `0..=255` in this range.
    pub fn to_f32(self, value: u8) -> f32 {
        match self {
            Self::Symmetric => f32::from(value) / 127.5 - 1.0,
            Self::Unit => f32::from(value) / 255.0,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is clamped to 0..=255"
    )]
    fn to_u8(self, value: f32) -> u8 {
        let scaled = match self {
            Self::Symmetric => (value + 1.0) * 127.5,
            Self::Unit => value * 255.0,
        };
        scaled.round().clamp(0.0, 255.0) as u8
    }
}

/// Converts bytes `(n, h, w, c)` to maps for the networks of `config`, in a buffer of `pool`.
///
/// # Errors
/// [`OpsError::Shape`]: a number of bytes that is not a multiple of an image's.
pub fn to_maps(pixels: &[u8], config: &ModelConfig, pool: &BufferPool) -> Result<Maps, OpsError> {
    let (height, width, channels) = config.image_shape();
    let range = PixelRange::of(config.generator.output);
    let table: Vec<f32> = (0..=255).map(|value| range.to_f32(value)).collect();
    let mut values = pool.take(pixels.len());
    let chunks = values.par_chunks_mut(TASK_VALUES).zip(pixels.par_chunks(TASK_VALUES));
    chunks.for_each(|(values, pixels)| {
        values.iter_mut().zip(pixels).for_each(|(value, &pixel)| *value = table[usize::from(pixel)]);
    });
    let n = pixels.len() / (height * width * channels).max(1);
    Maps::new(values, n, MapShape::new(channels, height, width))
}

/// [`to_maps`] as a tensor `(n, c, h, w)`, for candle programs.
///
/// # Errors
/// Those of [`to_maps`]; those of candle.
pub fn to_tensor(pixels: &[u8], config: &ModelConfig, device: &Device) -> Result<Tensor, OpsError> {
    Ok(to_maps(pixels, config, &BufferPool::new())?.to_tensor()?.to_device(device)?)
}

/// Converts values `(n, h, w, c)` of images of the networks of `config` to bytes, rounded to nearest and clamped.
pub fn to_bytes(values: &[f32], config: &ModelConfig) -> Vec<u8> {
    let range = PixelRange::of(config.generator.output);
    values.iter().map(|&value| range.to_u8(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_clamps() {
        // A 2 x 3 image of three channels with 18 different values.
        let pixels: Vec<u8> = (0..18).map(|i| i * 14).collect();
        let mut config = crate::Preset::named("pytorch32").unwrap().model;
        (config.height, config.width) = (2, 3);
        for output in [Activation::Tanh, Activation::Sigmoid] {
            config.generator.output = output;
            let x = to_maps(&pixels, &config, &BufferPool::new()).unwrap();
            assert_eq!((x.n(), x.shape()), (1, MapShape::new(3, 2, 3)));
            for (&value, &pixel) in x.values().iter().zip(&pixels) {
                let pixel = f32::from(pixel);
                let expected =
                    if output == Activation::Sigmoid { pixel / 255.0 } else { pixel / 127.5 - 1.0 };
                assert_eq!(value, expected);
            }
            assert_eq!(to_bytes(x.values(), &config), pixels);
            // As a tensor the channels come first: green of row 1, column 2 is the last but one.
            let green =
                x.to_tensor().unwrap().get(0).unwrap().get(1).unwrap().get(1).unwrap().get(2).unwrap();
            assert_eq!(green.to_scalar::<f32>().unwrap(), x.values()[16]);
        }
        let symmetric = crate::Preset::named("pytorch32").unwrap().model;
        assert_eq!(to_bytes(&[-3.0, f32::NAN, 3.0], &symmetric), [0, 0, 255]);
    }
}
