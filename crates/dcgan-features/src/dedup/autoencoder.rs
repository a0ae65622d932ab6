//! The denoising autoencoder whose hidden layer is the code of an image.

use super::{DedupError, SHAPE, tables::Code};
use crate::extract::read_batch;
use candle_core::Tensor;
use dcgan_base::random::{Purpose, normal, stream};
use dcgan_data::Dataset;
use dcgan_model::Device;
use dcgan_ops::{
    Activation, AdamConfig, ExecutorOptions, Keep, Kind, Layer, MapShape, Maps, Network, Role, Tensors,
    WithRespectTo,
};
use rand::Rng;

/// Units of the hidden layer: bits of a code.
pub const BITS: usize = 128;

/// Images of a training step.
const BATCH: usize = 128;

/// Share of the input values that are set to zero in training.
const DROPOUT: f32 = 0.2;

/// Images on which the thresholds of the bits are taken, and of one pass.
const THRESHOLD_IMAGES: usize = 16_384;

const ADAM: AdamConfig =
    AdamConfig { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };

/// Added to the standard deviation of an image's pixels: flat images are not enlarged to noise.
const MIN_DEVIATION: f32 = 8.0;

/// The trained encoder with the threshold of each bit.
#[derive(Debug)]
pub struct Autoencoder {
    /// The first layer without its activation: a unit that is off for most images tells them apart as well.
    encoder: Network,
    thresholds: Vec<f32>,
    loss: f64,
}

impl Autoencoder {
    /// Trains on images of `dataset`, drawn by `seed`.
    ///
    /// # Errors
    /// An image that cannot be read, failures of the device.
    pub fn train(dataset: &Dataset, device: &Device, seed: u64, steps: usize) -> Result<Self, DedupError> {
        let mut network = Network::new(layers().to_vec(), &ExecutorOptions::new(device.clone()))?;
        let weights = initial(network.layers(), seed)?;
        network.parameters_mut().set(&weights)?;
        let mut losses = Vec::new();
        for step in 0..steps {
            let mut rng = stream(seed, Purpose::Dedup, step as u64);
            let clean = drawn(dataset, &mut rng, BATCH)?;
            let noisy: Vec<f32> = clean
                .iter()
                .map(|value| if rng.random::<f32>() < DROPOUT { 0.0 } else { value / (1.0 - DROPOUT) })
                .collect();
            let noisy = Maps::new(noisy, BATCH, MapShape::new(3, 32, 32))?;
            let forward = network.train(&noisy, Keep::Tape)?;
            let (loss, gradient) = squared_error(forward.output.values(), &clean);
            losses.push(loss);
            network.parameters_mut().zero_gradients();
            network
                .backward(&Maps::new(gradient, BATCH, forward.output.shape())?, WithRespectTo::Parameters)?;
            network.adam_step(&ADAM);
        }
        let last = losses.iter().rev().take(50);
        let loss = last.clone().sum::<f64>() / last.count().max(1) as f64;
        let [first, _] = layers();
        let linear = Layer { activation: Activation::Identity, ..first };
        let mut encoder = Network::new(vec![linear], &ExecutorOptions::new(device.clone()))?;
        encoder.parameters_mut().set(&network.parameters().tensors()?)?;
        let mut trained = Self { encoder, thresholds: vec![0.0; BITS], loss };
        trained.set_thresholds(dataset, seed)?;
        Ok(trained)
    }

    /// Mean squared error on the last training batches.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    /// The codes of images `(n, h, w, c)`.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn codes(&mut self, images: &[u8]) -> Result<Vec<Code>, DedupError> {
        let hidden = self.hidden(&normalized(images))?;
        let code = |units: &[f32]| {
            let bits = units.iter().zip(&self.thresholds).enumerate();
            bits.fold(
                Code::default(),
                |code, (bit, (unit, threshold))| {
                    if unit > threshold { code.with_bit(bit) } else { code }
                },
            )
        };
        Ok(hidden.chunks_exact(BITS).map(code).collect())
    }

    /// The inputs of the hidden layer's ReLU, `(n, 128)`.
    fn hidden(&mut self, images: &[f32]) -> Result<Vec<f32>, DedupError> {
        let n = images.len() / SHAPE.bytes();
        let maps = Maps::new(images.to_vec(), n, MapShape::new(3, 32, 32))?;
        Ok(self.encoder.train(&maps, Keep::Nothing)?.output.values().to_vec())
    }

    /// Sets the threshold of each bit to the median of its unit: half of the images have the bit.
    fn set_thresholds(&mut self, dataset: &Dataset, seed: u64) -> Result<(), DedupError> {
        let mut rng = stream(seed, Purpose::Dedup, u64::MAX);
        let mut units = vec![Vec::new(); BITS];
        for _ in 0..(THRESHOLD_IMAGES / BATCH).min(dataset.len().div_ceil(BATCH)) {
            let hidden = self.hidden(&drawn(dataset, &mut rng, BATCH)?)?;
            for row in hidden.chunks_exact(BITS) {
                units.iter_mut().zip(row).for_each(|(unit, value)| unit.push(*value));
            }
        }
        for (threshold, unit) in self.thresholds.iter_mut().zip(&mut units) {
            let middle = unit.len() / 2;
            *threshold = *unit.select_nth_unstable_by(middle, f32::total_cmp).1;
        }
        Ok(())
    }
}

/// Two dense layers, as a convolution of the whole image and its transpose.
fn layers() -> [Layer; 2] {
    let (image, code) = (MapShape::new(3, 32, 32), MapShape::new(BITS, 1, 1));
    let encoder = Layer {
        kernel: (32, 32),
        bias: true,
        activation: Activation::Relu,
        ..Layer::plain("encoder", Kind::Conv, image, code)
    };
    let decoder =
        Layer { kernel: (32, 32), bias: true, ..Layer::plain("decoder", Kind::ConvTranspose, code, image) };
    [encoder, decoder]
}

/// Weights of N(0, 1 / inputs), biases of zero.
fn initial(layers: &[Layer], seed: u64) -> Result<Tensors, DedupError> {
    let mut tensors = Tensors::new();
    for (number, tensor) in layers.iter().flat_map(Layer::tensors).enumerate() {
        let len: usize = tensor.shape.iter().product();
        let inputs = if tensor.name.starts_with("encoder") { SHAPE.bytes() } else { BITS };
        let values = if tensor.role == Role::Weight {
            let mut rng = stream(seed, Purpose::DedupWeights, number as u64);
            normal(&mut rng, len, 0.0, (inputs as f32).sqrt().recip())
        } else {
            vec![0.0; len]
        };
        let values = Tensor::from_vec(values, tensor.shape.clone(), &candle_core::Device::Cpu);
        tensors.insert(tensor.name, values.map_err(dcgan_ops::OpsError::from)?);
    }
    Ok(tensors)
}

/// `count` images drawn with repetition, normalized.
fn drawn(dataset: &Dataset, rng: &mut impl Rng, count: usize) -> Result<Vec<f32>, DedupError> {
    let indices: Vec<usize> = (0..count).map(|_| rng.random_range(0..dataset.len())).collect();
    let mut images = Vec::new();
    read_batch(dataset, indices, &mut images)?;
    Ok(normalized(&images))
}

/// Each image with mean 0 and standard deviation 1.
fn normalized(images: &[u8]) -> Vec<f32> {
    let mut values = Vec::with_capacity(images.len());
    for image in images.chunks_exact(SHAPE.bytes()) {
        let n = image.len() as f32;
        let mean = image.iter().map(|&value| f32::from(value)).sum::<f32>() / n;
        let variance = image.iter().map(|&value| (f32::from(value) - mean).powi(2)).sum::<f32>() / n;
        let scale = (variance.sqrt() + MIN_DEVIATION).recip();
        values.extend(image.iter().map(|&value| (f32::from(value) - mean) * scale));
    }
    values
}

/// The mean squared error and its gradient with respect to `output`.
fn squared_error(output: &[f32], target: &[f32]) -> (f64, Vec<f32>) {
    let n = output.len() as f32;
    let differences: Vec<f32> = output.iter().zip(target).map(|(output, target)| output - target).collect();
    let loss = differences.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>() / f64::from(n);
    (loss, differences.into_iter().map(|difference| 2.0 * difference / n).collect())
}
