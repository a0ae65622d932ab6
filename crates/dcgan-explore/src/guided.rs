//! Guided backpropagation: the pixels that drive a feature (Springenberg et al. 2015; paper, section 6.2 and figure 5).

use crate::max_activations::ActivationIndex;
use crate::subnetwork::{Subnetwork, layers};
use candle_core::{DType, Tensor};
use dcgan_model::{Discriminator, NetworkError};
use dcgan_ops::{Activation, Keep};

/// Why guided backpropagation failed.
#[derive(Debug, thiserror::Error)]
pub enum GuidedError {
    /// A layer whose activation is not ReLU or LeakyReLU.
    #[error("layer {layer} has no ReLU or LeakyReLU, which guided backpropagation requires")]
    NoRectifier {
        /// The layer.
        layer: String,
    },
    /// Not one index per image, or an index out of range.
    #[error(
        "found {indices} indices, expected one for each of {images} images, within activations of {shape}"
    )]
    Indices {
        /// Indices given.
        indices: usize,
        /// Images given.
        images: usize,
        /// Shape of the block's activation.
        shape: String,
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

/// The layers of a discriminator up to a block, each split into its linear part and its rectifier.
#[derive(Debug)]
pub struct GuidedBackprop {
    linear: Vec<Subnetwork>,
    /// Negative slope of each layer's rectifier.
    negative_slopes: Vec<f64>,
}

impl GuidedBackprop {
    /// The layers of D up to and including index `layer`.
    ///
    /// # Errors
    /// A layer without ReLU or LeakyReLU; D without statistics; memory.
    pub fn new(discriminator: &Discriminator, layer: usize) -> Result<Self, GuidedError> {
        let network = discriminator.network();
        let negative_slope = |layer: &dcgan_ops::Layer| match layer.activation {
            Activation::LeakyRelu(negative_slope) => Ok(negative_slope),
            Activation::Relu => Ok(0.0),
            _ => Err(GuidedError::NoRectifier { layer: layer.name.clone() }),
        };
        let slopes = layers(network).iter().take(layer + 1).map(negative_slope);
        let negative_slopes = slopes.collect::<Result<_, _>>()?;
        Ok(Self { linear: Subnetwork::linear_layers(network, layer)?, negative_slopes })
    }

    /// The guided gradient of one value of the block's activation in each image, with respect to the pixels. In the
    /// backward pass a rectifier passes positive gradients where its input was positive, with slope 1, and nothing
    /// else: the negative slope of LeakyReLU applies in the forward pass only. The gradient of an activation that is
    /// not positive is zero.
    ///
    /// # Shapes
    /// - `x`: `(n, c, h, w)`, in the value range of the networks
    /// - `indices`: n, the i-th within the activation of the i-th image
    /// - returns `(n, c, h, w)`
    ///
    /// # Errors
    /// Invalid indices; shapes, memory.
    pub fn gradients(&mut self, x: &Tensor, indices: &[ActivationIndex]) -> Result<Tensor, GuidedError> {
        let mut masks = Vec::with_capacity(self.linear.len()); // 1 where a rectifier's input is positive
        let mut activation = x.clone();
        for (layer, &negative_slope) in self.linear.iter_mut().zip(&self.negative_slopes) {
            let input = layer.eval(&activation, Keep::Tape)?;
            masks.push(input.gt(0.0)?.to_dtype(DType::F32)?);
            activation = (input.relu()? - (input.neg()?.relu()? * negative_slope)?)?;
        }
        let mut gradient = one_hot(&activation, indices)?;
        for (layer, mask) in self.linear.iter_mut().zip(&masks).rev() {
            gradient = layer.backward(&(gradient.relu()? * mask)?)?;
        }
        Ok(gradient)
    }
}

/// 1 at the i-th index in the i-th image, 0 elsewhere, in the shape of `activation`.
fn one_hot(activation: &Tensor, indices: &[ActivationIndex]) -> Result<Tensor, GuidedError> {
    let (n, channels, height, width) = activation.dims4()?;
    let in_range =
        |index: &ActivationIndex| index.channel < channels && index.row < height && index.column < width;
    if indices.len() != n || !indices.iter().all(in_range) {
        let shape = format!("{channels} x {height} x {width}");
        return Err(GuidedError::Indices { indices: indices.len(), images: n, shape });
    }
    let mut values = vec![0.0_f32; n * channels * height * width];
    for (i, index) in indices.iter().enumerate() {
        values[((i * channels + index.channel) * height + index.row) * width + index.column] = 1.0;
    }
    Ok(Tensor::from_vec(values, (n, channels, height, width), activation.device())?)
}

/// Gradients as images: zero is grey, the largest magnitude of each image is black or white.
///
/// # Shapes
/// - `gradients`: `(n, c, h, w)`; returns u8 `(n, h, w, c)`; a fourth channel, alpha, is opaque
///
/// # Errors
/// Those of candle.
pub fn to_bytes(gradients: &Tensor) -> candle_core::Result<Vec<u8>> {
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
            reason = "within 128 +- 127; values that are not finite saturate"
        )]
        let grey = |value: f32| (128.0 + value * scale).round() as u8;
        let channel = |(i, &value): (usize, &f32)| if is_alpha(i) { 255 } else { grey(value) };
        bytes.extend(image.iter().enumerate().map(channel));
    }
    Ok(bytes)
}
