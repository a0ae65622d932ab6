//! Trains on your own tensors: `cargo run --release -p dcgan-train --example train_tensors`.
//!
//! The images are bright squares at random places. The loop is the program's own `train_step`; what a run folder adds
//! (checkpoints, samples, logs) is `dcgan_train::trainer`.

#![allow(clippy::print_stdout, reason = "an example prints")]

use candle_core::Device;
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Discriminator, Generator, Latents, Model, Preset, pixels};
use dcgan_ops::BufferPool;
use dcgan_train::config::TrainingConfig;
use dcgan_train::step::{LearningRate, Networks, train_step};
use rand::Rng;
use std::error::Error;

const SIDE: usize = 16;
const STEPS: u64 = 60;

/// Images `(n, h, w, 1)` with one bright square each.
fn squares(n: usize, step: u64) -> Vec<u8> {
    let mut rng = random::stream(1, Purpose::SyntheticImages, step);
    let mut images = vec![0; n * SIDE * SIDE];
    for image in images.chunks_exact_mut(SIDE * SIDE) {
        let (top, left) = (rng.random_range(0..SIDE - 6), rng.random_range(0..SIDE - 6));
        (0..36).for_each(|i| image[(top + i / 6) * SIDE + left + i % 6] = 220);
    }
    images
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut preset = Preset::named("digits")?;
    (preset.model.height, preset.model.width) = (SIDE, SIDE);
    let training: TrainingConfig = preset.training.clone().try_into()?;
    let model = Model::new(preset.model)?;
    let (weight_std, norm_weight_std) = (0.02, 0.02);
    let g = model.initial_generator(0, weight_std, norm_weight_std);
    let d = model.initial_discriminator(0, weight_std, norm_weight_std);
    let mut networks = Networks {
        generator: Generator::new(&model, &g, &Device::Cpu)?,
        discriminator: Discriminator::new(&model, &d, &Device::Cpu)?,
    };
    let (pool, latent) = (BufferPool::new(), &model.config().latent);
    for step in 0..STEPS {
        let x = pixels::to_maps(&squares(training.batch_size, step), model.config(), &pool)?;
        let mut rng = random::stream(0, Purpose::TrainingLatent, step);
        let latents = Latents::new(random::latent(&mut rng, x.n(), latent), latent.size)?;
        let rate = LearningRate(training.learning_rate);
        let output = train_step(&mut networks, &training, rate, step, (&x, &latents))?;
        if let (Some(d), true) = (output.discriminator, step % 20 == 19) {
            println!("step {}: D's loss {:.3}, D(x) {:.3}, D(G(z)) {:.3}", step + 1, d.loss, d.real, d.fake);
        }
    }
    let samples = networks.generator.draw(0, 2)?;
    println!("2 samples of {} bytes", samples.len() / 2);
    Ok(())
}
