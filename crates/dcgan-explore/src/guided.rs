//! Guided backpropagation: which pixels drive a feature (Springenberg et al. 2015; paper, section 6.2 and figure 5).

use crate::maximal::Place;
use crate::parts::{Part, linear_maps};
use candle_core::{DType, Tensor};
use dcgan_model::{Discriminator, NetworkError};
use dcgan_ops::{Activation, Keep};

/// What guided backpropagation cannot do.
#[derive(Debug, thiserror::Error)]
pub enum GuidedError {
    /// A layer without a rectifier.
    #[error("layer {layer} has no rectifier after it, which guided backpropagation is defined by")]
    NoRectifier {
        /// The layer.
        layer: String,
    },
    /// A place outside the map, or not one an image.
    #[error("{places} places for {images} images, or a place outside maps of {maps}")]
    Places {
        /// Places given.
        places: usize,
        /// Images given.
        images: usize,
        /// Shape of the block's output.
        maps: String,
    },
    /// The network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl From<candle_core::Error> for GuidedError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// The layers of a discriminator up to a block, taken apart at their rectifiers.
#[derive(Debug)]
pub struct Guided {
    linear: Vec<Part>,
    /// Slope of each layer's rectifier below zero.
    leaks: Vec<f64>,
}

impl Guided {
    /// The layers of D up to and including number `layer`.
    ///
    /// # Errors
    /// A layer without a rectifier; D without statistics; memory.
    pub fn new(discriminator: &Discriminator, layer: usize) -> Result<Self, GuidedError> {
        let layers = discriminator.0.executor.layers().iter().take(layer + 1);
        let negative_slope = |layer: &dcgan_ops::Layer| match layer.activation {
            Activation::LeakyRelu(negative_slope) => Ok(negative_slope),
            Activation::Relu => Ok(0.0),
            _ => Err(GuidedError::NoRectifier { layer: layer.name.clone() }),
        };
        let leaks = layers.map(negative_slope).collect::<Result<_, _>>()?;
        Ok(Self { linear: linear_maps(&discriminator.0, layer)?, leaks })
    }

    /// The guided gradient, by the pixels, of one value of the block's activation in each image. On the way back a rectifier
    /// passes what is positive where its input was positive, with slope 1, and nothing else: LeakyReLU's slope below zero
    /// counts on the way forward only. A place whose activation is not positive gives zeros.
    ///
    /// # Shapes
    /// - `x`: `(n, c, h, w)`, as networks see images
    /// - `places`: n, the i-th within the activation of the i-th image
    /// - returns `(n, c, h, w)`
    ///
    /// # Errors
    /// Places that do not fit; shapes, memory.
    pub fn gradients(&mut self, x: &Tensor, places: &[Place]) -> Result<Tensor, GuidedError> {
        let mut passing = Vec::with_capacity(self.linear.len()); // 1 where a rectifier's input is positive
        let mut activation = x.clone();
        for (part, &negative_slope) in self.linear.iter_mut().zip(&self.leaks) {
            let before = part.eval(&activation, Keep::Tape)?.output;
            passing.push(before.gt(0.0)?.to_dtype(DType::F32)?);
            activation = (before.relu()? - (before.neg()?.relu()? * negative_slope)?)?;
        }
        let mut d = one_hot(&activation, places)?;
        for (part, passing) in self.linear.iter_mut().zip(&passing).rev() {
            d = part.backward(&(d.relu()? * passing)?)?;
        }
        Ok(d)
    }
}

/// 1 at the i-th place of the i-th image, 0 elsewhere, in the shape of `maps`.
fn one_hot(maps: &Tensor, places: &[Place]) -> Result<Tensor, GuidedError> {
    let (n, channels, height, width) = maps.dims4()?;
    let inside = |place: &Place| place.map < channels && place.row < height && place.column < width;
    if places.len() != n || !places.iter().all(inside) {
        let maps = format!("{channels} x {height} x {width}");
        return Err(GuidedError::Places { places: places.len(), images: n, maps });
    }
    let mut values = vec![0.0_f32; n * channels * height * width];
    for (i, place) in places.iter().enumerate() {
        values[((i * channels + place.map) * height + place.row) * width + place.column] = 1.0;
    }
    Ok(Tensor::from_vec(values, (n, channels, height, width), maps.device())?)
}

/// Gradients as images: grey is zero, the largest magnitude of each image reaches black or white.
///
/// # Shapes
/// - `gradients`: `(n, c, h, w)`; returns u8 `(n, h, w, c)`; a fourth channel, alpha, is opaque
///
/// # Errors
/// Those of candle.
pub fn to_grey_range(gradients: &Tensor) -> candle_core::Result<Vec<u8>> {
    let (n, channels, height, width) = gradients.dims4()?;
    let values = gradients.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
    let mut bytes = Vec::with_capacity(n * channels * height * width);
    for image in values.chunks(channels * height * width) {
        let is_alpha = |i: usize| i % channels == 3;
        let colors = image.iter().enumerate().filter(|(i, _)| !is_alpha(*i));
        let largest = colors.fold(0.0_f32, |largest, (_, value)| largest.max(value.abs()));
        let scale = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "128 -+ 127 at most; what is not finite saturates"
        )]
        let grey = |value: f32| (128.0 + value * scale).round() as u8;
        let channel = |(i, &value): (usize, &f32)| if is_alpha(i) { 255 } else { grey(value) };
        bytes.extend(image.iter().enumerate().map(channel));
    }
    Ok(bytes)
}
