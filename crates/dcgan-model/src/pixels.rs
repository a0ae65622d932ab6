//! Conversion of pixels between u8 `(n, h, w, c)`, as in files, and f32 `(n, c, h, w)`, as in networks.

use crate::ModelConfig;
use candle_core::{Device, Tensor};
use dcgan_ops::{Activation, spare_values};
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

/// Converts bytes `(n, h, w, c)` to a tensor `(n, c, h, w)` for the networks of `config`. On the CPU the tensor is strided:
/// its memory keeps the order of `pixels`.
///
/// # Errors
/// Those of candle: memory, a number of values that is not a multiple of an image's.
pub fn to_tensor(pixels: &[u8], config: &ModelConfig, device: &Device) -> candle_core::Result<Tensor> {
    let (height, width, channels) = config.image_shape();
    let range = PixelRange::of(config.generator.output);
    let table: Vec<f32> = (0..=255).map(|value| range.to_f32(value)).collect();
    let mut values = spare_values(pixels.len());
    let chunks = values.par_chunks_mut(TASK_VALUES).zip(pixels.par_chunks(TASK_VALUES));
    chunks.for_each(|(values, pixels)| {
        values.iter_mut().zip(pixels).for_each(|(value, &pixel)| *value = table[usize::from(pixel)]);
    });
    let n = pixels.len() / (height * width * channels).max(1);
    Tensor::from_vec(values, (n, height, width, channels), &Device::Cpu)?
        .permute((0, 3, 1, 2))?
        .to_device(device)
}

/// Converts images `(n, c, h, w)` of the networks of `config` to bytes `(n, h, w, c)`, rounded to nearest and clamped.
///
/// # Errors
/// Those of candle.
pub fn to_bytes(images: &Tensor, config: &ModelConfig) -> candle_core::Result<Vec<u8>> {
    let range = PixelRange::of(config.generator.output);
    let host = images.to_device(&Device::Cpu)?.permute((0, 2, 3, 1))?.flatten_all()?;
    Ok(host.to_vec1::<f32>()?.into_iter().map(|value| range.to_u8(value)).collect())
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
            let x = to_tensor(&pixels, &config, &Device::Cpu).unwrap();
            assert_eq!(x.dims(), [1, 3, 2, 3]);
            let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (c, y, column) in
                (0..3).flat_map(|c| (0..2).flat_map(move |y| (0..3).map(move |x| (c, y, x))))
            {
                let pixel = f32::from(pixels[(y * 3 + column) * 3 + c]);
                let expected =
                    if output == Activation::Sigmoid { pixel / 255.0 } else { pixel / 127.5 - 1.0 };
                assert_eq!(values[(c * 2 + y) * 3 + column], expected);
            }
            assert_eq!(to_bytes(&x, &config).unwrap(), pixels);
        }
        let outside =
            Tensor::new(&[-3.0_f32, f32::NAN, 3.0], &Device::Cpu).unwrap().reshape((1, 3, 1, 1)).unwrap();
        let symmetric = crate::Preset::named("pytorch32").unwrap().model;
        assert_eq!(to_bytes(&outside, &symmetric).unwrap(), [0, 0, 255]);
    }
}
