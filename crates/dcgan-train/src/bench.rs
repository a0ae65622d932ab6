//! `dcgan-train bench`: real training steps on synthetic images, timed.

use crate::config::{Order, TrainingConfig};
use crate::engine::{Engine, StepBatch};
use crate::start::{alone, networks};
use crate::step::{LearningRate, Networks, StepError};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Classes, Generator, Latents, Model, NetworkError};
use dcgan_ops::{ConvolutionTime, Device, ExecutorOptions, Keep, LayerTiming, Network, executor};
use rand::RngCore;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Steps before the clock starts: buffers are made, pages are touched, a GPU captures its work.
const UNTIMED: u64 = 3;

/// What a benchmark found; its last line with `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchResult {
    /// Batch size by median step.
    pub images_per_s: f64,
    /// Median time of a step, in milliseconds.
    pub step_ms_median: f64,
    /// Mean time of a step, in milliseconds: what is disturbed counts too.
    pub step_ms_mean: f64,
    /// Highest memory of this process so far; 0 where the system does not tell.
    pub peak_rss_bytes: u64,
    /// Rows of an image.
    pub image_size: usize,
    /// Images of a step.
    pub batch_size: usize,
    /// Type of the values computed with.
    pub dtype: &'static str,
    /// Threads of the CPU's thread pool.
    pub threads: usize,
    /// What each layer took, where the device tells.
    #[serde(skip)]
    pub layers: Vec<LayerTime>,
}

/// What one layer took of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTime {
    /// `generator` or `discriminator`.
    pub network: &'static str,
    /// The layer's name.
    pub layer: String,
    /// The algorithm of its linear operation (dense, convolution or transposed convolution).
    pub algorithm: String,
    /// Forward passes of a step on average, in milliseconds.
    pub forward_ms: f64,
    /// Backward passes of a step on average, in milliseconds.
    pub backward_ms: f64,
}

/// A network's layers with the time they have taken, in order.
fn timings(name: &'static str, network: &Network) -> Vec<LayerTime> {
    let ms = |time: Duration| 1e3 * time.as_secs_f64();
    let row = |LayerTiming { layer, algorithm, time }| LayerTime {
        network: name,
        layer,
        algorithm,
        forward_ms: ms(time.forward),
        backward_ms: ms(time.backward),
    };
    network.timings().into_iter().map(row).collect()
}

fn timings_of_both(networks: &Networks) -> Vec<LayerTime> {
    let mut all = timings("generator", networks.generator.network());
    all.extend(timings("discriminator", networks.discriminator.network()));
    all
}

/// What each of `steps` steps took on average between two timings.
fn average(before: Vec<LayerTime>, after: Vec<LayerTime>, steps: usize) -> Vec<LayerTime> {
    let share = |after: f64, before: f64| (after - before) / steps as f64;
    let pairs = after.into_iter().zip(before);
    let row = |(after, before): (LayerTime, LayerTime)| LayerTime {
        forward_ms: share(after.forward_ms, before.forward_ms),
        backward_ms: share(after.backward_ms, before.backward_ms),
        ..after
    };
    pairs.map(row).collect()
}

/// Times each convolution of a training step by itself, where the device tells: those of the generator on the batch,
/// those of the discriminator on real and generated images together.
///
/// # Errors
/// A network that does not fit the device.
pub fn time_convolutions(
    model: &Model,
    training: &TrainingConfig,
    device: &Device,
) -> Result<Vec<(&'static str, ConvolutionTime)>, StepError> {
    let options = ExecutorOptions::new(device).with_precision(training.dtype);
    let mut times = Vec::new();
    for (name, layers, n) in [
        ("generator", model.generator_layers(), training.batch_size),
        ("discriminator", model.discriminator_layers(), 2 * training.batch_size),
    ] {
        let found = executor(layers.to_vec(), &options)?.time_convolutions(n)?;
        times.extend(found.into_iter().map(|time| (name, time)));
    }
    Ok(times)
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

/// Times the drawing of `images` samples in evaluation mode, `training.batch_size` at a time after one untimed batch; a
/// step of the result is a batch.
///
/// # Errors
/// A network that does not fit the device.
pub fn bench_samples(
    model: &Model,
    training: &TrainingConfig,
    images: usize,
    device: &Device,
) -> Result<BenchResult, StepError> {
    let (batch_size, config) = (training.batch_size, model.config());
    let weights = model.initial_generator(0, 0.02, 0.02);
    let options = ExecutorOptions::new(device).with_precision(training.dtype);
    let mut generator = Generator::with_executor(model, &weights, &|layers| executor(layers, &options))?;
    let latents = |batch: usize, n: usize| -> Result<Latents, NetworkError> {
        let mut rng = random::stream(0, Purpose::SampleLatent, batch as u64);
        let latents = Latents::new(random::latent(&mut rng, n, &config.latent), config.latent.size)?;
        latents.with_classes(config, Classes::InTurn, 0)
    };
    let first = latents(0, batch_size.min(images))?;
    let statistics = generator.train(&first, Keep::Nothing)?.statistics;
    generator.network_mut().update_running_stats(&statistics, 1.0)?;
    generator.sample(&first)?;
    let before = timings("generator", generator.network());
    let started = Instant::now();
    let mut times = Vec::new();
    for (batch, start) in (0..images).step_by(batch_size).enumerate() {
        let one = Instant::now();
        generator.sample(&latents(batch, batch_size.min(images - start))?)?;
        times.push(one.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(BenchResult {
        images_per_s: images as f64 / started.elapsed().as_secs_f64(),
        step_ms_median: 1e3 * times.get(times.len() / 2).copied().unwrap_or(f64::NAN),
        step_ms_mean: 1e3 * mean(&times),
        peak_rss_bytes: dcgan_base::memory::peak_memory_bytes().unwrap_or(0),
        image_size: config.height,
        batch_size,
        dtype: training.dtype.name(),
        threads: rayon::current_num_threads(),
        layers: average(before, timings("generator", generator.network()), times.len()),
    })
}

/// Times `steps` training steps (D, then G, on every batch) after a few untimed ones. On a GPU several are timed at
/// once, from the images on the host to the last update.
///
/// # Errors
/// A network that does not fit the device.
pub fn bench(
    model: &Model,
    training: &TrainingConfig,
    steps: u64,
    device: &Device,
    progress: &mut dyn FnMut(u64),
) -> Result<BenchResult, StepError> {
    let training = TrainingConfig { order: Order::Both, ..training.clone() };
    let (batch_size, config) = (training.batch_size, model.config());
    let (height, width, channels) = config.image_shape();
    let weights = (&model.initial_generator(0, 0.02, 0.02), &model.initial_discriminator(0, 0.02, 0.02));
    let mut networks = networks(model, weights, device, (&training, &alone()))?;
    let mut images = vec![0; batch_size * height * width * channels];
    random::stream(0, Purpose::SyntheticImages, 0).fill_bytes(&mut images);
    let mut engine = Engine::new(&networks, &training, config, 0, &alone())?;
    // A device is timed over several steps: waiting for each would be a part of its time.
    let window = engine.steps_ahead();
    let mut times = Vec::new();
    let mut before = Vec::new();
    let mut started = Instant::now();
    for step in 0..UNTIMED + steps.next_multiple_of(window) {
        if step == UNTIMED {
            engine.outputs()?;
            before = timings_of_both(&networks);
            started = Instant::now();
        }
        let mut rng = random::stream(0, Purpose::TrainingLatent, step);
        let latents = Latents::new(random::latent(&mut rng, batch_size, &config.latent), config.latent.size)?;
        let latents = latents.with_classes(config, Classes::InTurn, 0)?;
        let rate = LearningRate(training.learning_rate);
        let batch = StepBatch { pixels: &images, images: &[], latents: &latents };
        engine.step(&mut networks, rate, step, batch)?;
        let taken = (step + 1).saturating_sub(UNTIMED);
        if taken > 0 && taken.is_multiple_of(window) {
            if let Some(failure) = engine.outputs()?.failure {
                return Err(failure);
            }
            times.push(started.elapsed().as_secs_f64() / window as f64);
            progress(taken.min(steps));
            started = Instant::now();
        }
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or(f64::NAN);
    Ok(BenchResult {
        images_per_s: batch_size as f64 / median,
        step_ms_median: 1e3 * median,
        step_ms_mean: 1e3 * mean(&times),
        peak_rss_bytes: dcgan_base::memory::peak_memory_bytes().unwrap_or(0),
        image_size: height,
        batch_size,
        dtype: training.dtype.name(),
        threads: rayon::current_num_threads(),
        layers: average(before, timings_of_both(&networks), times.len()),
    })
}
