//! A device's passes and training steps compared with the CPU's, and with themselves.

use crate::config::{Order, TrainingConfig};
use crate::engine::{Engine, Outputs, StepBatch};
use crate::start::{alone, networks};
use crate::step::{LearningRate, StepError, StepOutput};
use dcgan_base::Precision;
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Classes, Latents, Model, NetworkError, weights::Weights};
use dcgan_ops::{
    Device, ExecutorOptions, Input, Keep, Layer, Maps, Network, Tensors, WithRespectTo, executor,
};
use rand::RngCore;
use serde::Serialize;
use std::collections::BTreeMap;

/// How far one tensor of a pass is from the CPU's in f32.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// `generator` or `discriminator`; `steps` for what training steps of both find.
    pub network: &'static str,
    /// Which activation, statistic or gradient; the losses of steps in one order.
    pub tensor: String,
    /// Norm of the difference by the norm of the CPU's values.
    pub relative: f64,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// The device.
    pub device: String,
    /// Type of the values computed with.
    pub dtype: &'static str,
    /// Images of a pass.
    pub batch_size: usize,
    /// Every tensor, in the order of their names.
    pub differences: Vec<Difference>,
    /// Bounds of the median difference and of the largest.
    pub bounds: (f64, f64),
    /// Whether second passes and steps gave the same bytes.
    pub repeats: bool,
}

impl Verification {
    /// The tensor with the largest difference.
    pub fn worst(&self) -> Option<&Difference> {
        self.differences.iter().max_by(|a, b| a.relative.total_cmp(&b.relative))
    }

    /// The median of the differences.
    pub fn median(&self) -> f64 {
        let mut all: Vec<f64> = self.differences.iter().map(|found| found.relative).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::INFINITY)
    }

    /// Whether the differences are within the bounds, and passes repeat.
    pub fn holds(&self) -> bool {
        let (median, largest) = self.bounds;
        let worst = self.worst().map_or(f64::INFINITY, |worst| worst.relative);
        self.repeats && self.median() <= median && worst <= largest
    }
}

/// Bounds of the median and of the largest difference. A value near zero may fall to the other side of a rectifier's
/// kink, by chance, which moves the gradients of that unit: the median does not see it.
fn bounds(precision: Precision) -> (f64, f64) {
    match precision {
        Precision::F32 => (1e-5, 2e-2),
        Precision::Bf16 => (0.1, 0.3),
    }
}

type Values = BTreeMap<String, Vec<f32>>;

/// Everything that a training pass and its backward pass give.
fn pass(network: &mut Network, input: Input<'_>, grad: &Maps) -> Result<Values, NetworkError> {
    let activations = network.train(input, Keep::Activations)?;
    let mut found = Values::new();
    for (layer, maps) in network.layers().iter().zip(&activations.activations) {
        found.insert(format!("{}, activation", layer.name), maps.values().to_vec());
    }
    network.train(input, Keep::Tape)?;
    network.parameters_mut().zero_gradients();
    if let Some(maps) = network.backward(grad, WithRespectTo::Both)? {
        found.insert("gradient of the input".to_owned(), maps.values().to_vec());
    }
    for (name, gradient) in network.parameters().gradients()? {
        found.insert(format!("gradient of {name}"), gradient.flatten_all()?.to_vec1()?);
    }
    for (name, statistics) in activations.statistics {
        found.insert(format!("{name}, variance"), statistics.var.flatten_all()?.to_vec1()?);
    }
    Ok(found)
}

fn relative(found: &[f32], expected: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let difference: f64 =
        found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    if found.len() == expected.len() && difference.is_finite() {
        difference.sqrt() / norm.sqrt().max(1e-12)
    } else {
        f64::INFINITY
    }
}

fn build(layers: &[Layer], weights: &Weights, options: &ExecutorOptions) -> Result<Network, NetworkError> {
    let mut network = Network::with_executor(executor(layers.to_vec(), options)?);
    let mut tensors = Tensors::new();
    for (name, tensor) in weights {
        let values = &tensor.data;
        let device = &candle_core::Device::Cpu;
        tensors
            .insert(name.clone(), candle_core::Tensor::from_slice(values, tensor.shape.as_slice(), device)?);
    }
    network.parameters_mut().set(&tensors)?;
    Ok(network)
}

/// Training steps that are compared. A GPU captures its work after the first or second.
const STEPS: u64 = 6;

/// The losses of training steps in one order on random images.
fn losses(
    model: &Model,
    training: &TrainingConfig,
    device: &Device,
    seed: u64,
) -> Result<Vec<f32>, StepError> {
    let config = model.config();
    let (height, width, channels) = config.image_shape();
    let weights =
        (&model.initial_generator(seed, 0.05, 0.02), &model.initial_discriminator(seed, 0.05, 0.02));
    let mut networks = networks(model, weights, device, (training, &alone()))?;
    let mut engine = Engine::new(&networks, training, config, 0, &alone())?;
    let mut images = vec![0; training.batch_size * height * width * channels];
    for step in 0..STEPS {
        random::stream(seed, Purpose::SyntheticImages, step).fill_bytes(&mut images);
        let mut rng = random::stream(seed, Purpose::TrainingLatent, step);
        let z = random::latent(&mut rng, training.batch_size, &config.latent);
        let latents = Latents::new(z, config.latent.size)?.with_classes(config, Classes::InTurn, 0)?;
        let batch = StepBatch { pixels: &images, images: &[], latents: &latents };
        engine.step(&mut networks, LearningRate(training.learning_rate), step, batch)?;
    }
    let Outputs { outputs, failure } = engine.outputs()?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let of_step = |output: StepOutput| {
        let d = output.discriminator.map(|found| found.loss);
        d.into_iter().chain(output.generator.map(|found| found.loss))
    };
    #[expect(clippy::cast_possible_truncation, reason = "losses of f32")]
    Ok(outputs.into_iter().flat_map(of_step).map(|loss| loss as f32).collect())
}

/// Runs a training pass and a backward pass of both networks on `device` and on the CPU in f32, with the same weights
/// and inputs drawn from `seed`; then training steps in both orders.
///
/// # Errors
/// A network that does not fit the device; a step that is not finite.
pub fn verify(
    model: &Model,
    training: &TrainingConfig,
    device: &Device,
    seed: u64,
) -> Result<Verification, StepError> {
    let (batch_size, precision) = (training.batch_size, training.dtype);
    let options = ExecutorOptions::new(device).with_precision(precision);
    let reference = ExecutorOptions::new(&Device::Cpu);
    let both = [
        ("generator", model.generator_layers(), model.initial_generator(seed, 0.05, 0.02)),
        ("discriminator", model.discriminator_layers(), model.initial_discriminator(seed, 0.05, 0.02)),
    ];
    let (mut differences, mut repeats) = (Vec::new(), true);
    for (i, (name, layers, weights)) in both.into_iter().enumerate() {
        let (Some(first), Some(last)) = (layers.first(), layers.last()) else { continue };
        let mut rng = random::stream(seed, Purpose::SampleLatent, i as u64);
        let x = Maps::new(
            random::normal(&mut rng, batch_size * first.input.len(), 0.0, 1.0),
            batch_size,
            first.input,
        )
        .map_err(NetworkError::from)?;
        let grad = Maps::new(
            random::normal(&mut rng, batch_size * last.output.len(), 0.0, 1.0),
            batch_size,
            last.output,
        )
        .map_err(NetworkError::from)?;
        let classes = model.config().classes;
        let labels: Vec<u32> =
            (0..batch_size).map(|i| u32::try_from(i % classes.max(1)).unwrap_or(0)).collect();
        let labels = (classes > 0).then(|| Maps::one_hot(&labels, classes)).transpose();
        let labels = labels.map_err(NetworkError::from)?;
        let input = Input { maps: &x, labels: labels.as_ref() };
        let expected = pass(&mut build(layers, &weights, &reference)?, input, &grad)?;
        let mut network = build(layers, &weights, &options)?;
        let found = pass(&mut network, input, &grad)?;
        repeats &= pass(&mut network, input, &grad)? == found;
        differences.extend(expected.into_iter().map(|(tensor, expected)| Difference {
            network: name,
            relative: found.get(&tensor).map_or(f64::INFINITY, |found| relative(found, &expected)),
            tensor,
        }));
    }
    for (order, tensor) in [(Order::Both, "losses, both"), (Order::Alternate, "losses, alternate")] {
        let training = TrainingConfig { order, ..training.clone() };
        let in_f32 = TrainingConfig { dtype: Precision::F32, ..training.clone() };
        let expected = losses(model, &in_f32, &Device::Cpu, seed)?;
        let found = losses(model, &training, device, seed)?;
        repeats &= losses(model, &training, device, seed)? == found;
        let relative = relative(&found, &expected);
        differences.push(Difference { network: "steps", tensor: tensor.to_owned(), relative });
    }
    Ok(Verification {
        device: device.to_string(),
        dtype: precision.name(),
        batch_size,
        differences,
        bounds: bounds(precision),
        repeats,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dcgan_model::Preset;

    #[test]
    fn the_cpu_agrees_with_itself() {
        let preset = Preset::named("digits").unwrap();
        let model = preset.model().unwrap();
        let training: TrainingConfig = preset.training.try_into().unwrap();
        for dtype in Precision::ALL {
            let training = TrainingConfig { dtype, batch_size: 4, ..training.clone() };
            let found = verify(&model, &training, &Device::Cpu, 1).unwrap();
            assert!(found.holds(), "{:?}", found.worst());
            assert!(found.differences.len() > 20);
            assert_eq!(found.worst().unwrap().relative == 0.0, dtype == Precision::F32);
        }
        let far = relative(&[1.0, 2.0], &[1.0, 4.0]);
        assert!((far - 2.0 / 17.0_f64.sqrt()).abs() < 1e-6, "{far}");
        assert_eq!(relative(&[f32::NAN], &[1.0]), f64::INFINITY);
    }
}
