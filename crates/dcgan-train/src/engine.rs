//! What takes the steps of a run: [`train_step`] on the host's networks, or a device that keeps their state
//! ([`ResidentTraining`]) and reports what steps found later.

use crate::config::{Order, TrainingConfig};
use crate::evaluation::update_ema;
use crate::step::{
    DiscriminatorOutput, GeneratorOutput, LearningRate, MOMENTUM, Networks, StepError, StepOutput, train_step,
};
use dcgan_data::BatchImage;
use dcgan_model::pixels::{PixelRange, to_maps};
use dcgan_model::{Latents, ModelConfig, NetworkError};
use dcgan_ops::{
    AdamConfig, BufferPool, GradientValue, ImageSource, LossValue, ProcessGroup, ResidentConfig,
    ResidentInput, ResidentOutput, ResidentTraining, Updates, resident_training,
};
use std::sync::Arc;

/// Steps of a device between two looks at what they found: the first that fails must not be long ago.
const STEPS_AHEAD: u64 = 32;

/// Takes training steps on two networks.
#[derive(Debug)]
pub struct Engine {
    place: Place,
    training: TrainingConfig,
    model: ModelConfig,
}

#[derive(Debug)]
enum Place {
    Host {
        /// Memory of minibatches, used again by the next step.
        pool: BufferPool,
        outputs: Vec<StepOutput>,
    },
    Device {
        steps: Box<dyn ResidentTraining>,
        /// Whether the networks on the host are behind those of the device.
        is_ahead: bool,
    },
}

/// What a step reads.
#[derive(Clone, Copy, Debug)]
pub struct StepBatch<'a> {
    /// Real images `(n, h, w, c)`; empty if the device keeps all of them.
    pub pixels: &'a [u8],
    /// Which images they are, `(n,)`, if the device keeps images ([`Engine::keeps_images`]).
    pub images: &'a [BatchImage],
    /// z, with the labels of the images for conditional networks.
    pub latents: &'a Latents,
}

/// What the steps since the last call found, and the failure of the first that failed.
#[derive(Debug)]
pub struct Outputs {
    /// In the order of the steps.
    pub outputs: Vec<StepOutput>,
    /// Why the step after them failed.
    pub failure: Option<StepError>,
}

impl Engine {
    /// An engine for networks of `model`, on their device, which may keep up to `dataset_images` images, in one process
    /// of `group`.
    ///
    /// # Errors
    /// Memory of the device.
    pub fn new(
        networks: &Networks,
        training: &TrainingConfig,
        model: &ModelConfig,
        dataset_images: usize,
        group: &Arc<dyn ProcessGroup>,
    ) -> Result<Self, NetworkError> {
        let range = PixelRange::of(model.generator.output);
        let mut pixel_values = [0.0; 256];
        for (value, byte) in pixel_values.iter_mut().zip(0..=255) {
            *value = range.to_f32(byte);
        }
        let config = ResidentConfig {
            precision: training.dtype,
            batch_size: training.batch_size / group.size(),
            group: Arc::clone(group),
            real_target: 1.0 - training.label_smoothing,
            momentum: MOMENTUM,
            adam: adam(training, LearningRate(training.learning_rate)),
            ema: training.ema,
            pixel_values,
            dataset_images,
        };
        let (g, d) = (networks.generator.network(), networks.discriminator.network());
        let place = match resident_training(g, d, &config)? {
            Some(steps) => Place::Device { steps, is_ahead: false },
            None => Place::Host { pool: BufferPool::new(), outputs: Vec::new() },
        };
        Ok(Self { place, training: training.clone(), model: model.clone() })
    }

    /// Steps that may be taken before [`Engine::outputs`] is called.
    pub fn steps_ahead(&self) -> u64 {
        match self.place {
            Place::Host { .. } => 1,
            Place::Device { .. } => STEPS_AHEAD,
        }
    }

    /// Whether the device keeps the images of the dataset.
    pub fn keeps_images(&self) -> bool {
        match &self.place {
            Place::Host { .. } => false,
            Place::Device { steps, .. } => steps.keeps_images(),
        }
    }

    /// Takes step `step` (from 0). On the host it is complete afterwards; a device may still be at it.
    ///
    /// # Errors
    /// Those of [`train_step`]; on a device, a loss or gradient that is not finite is reported by
    /// [`Engine::outputs`].
    pub fn step(
        &mut self,
        networks: &mut Networks,
        rate: LearningRate,
        step: u64,
        batch: StepBatch<'_>,
    ) -> Result<(), StepError> {
        let StepBatch { pixels, images, latents } = batch;
        match &mut self.place {
            Place::Host { pool, outputs } => {
                let x = to_maps(pixels, &self.model, pool)?;
                outputs.push(train_step(networks, &self.training, rate, step, (&x, latents))?);
                update_ema(networks, self.training.ema);
            }
            Place::Device { steps, is_ahead } => {
                let updates = match (self.training.order, step.is_multiple_of(2)) {
                    (Order::Both, _) => Updates::Both,
                    (Order::Alternate, true) => Updates::Generator,
                    (Order::Alternate, false) => Updates::Discriminator,
                };
                let labels = latents.labels().map(dcgan_ops::Maps::values);
                let (z, learning_rate) = (latents.z(), rate.0);
                *is_ahead = true;
                let source = |image: &BatchImage| ImageSource {
                    index: image.index,
                    is_mirrored: image.is_mirrored,
                    is_given: image.is_read,
                };
                let images: Vec<ImageSource> = match steps.keeps_images() {
                    true => images.iter().map(source).collect(),
                    false => Vec::new(),
                };
                let images = &images;
                steps.step(ResidentInput { pixels, images, z, labels, learning_rate, updates })?;
            }
        }
        Ok(())
    }

    /// What the steps since the last call found. Waits for them.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn outputs(&mut self) -> Result<Outputs, NetworkError> {
        let steps = match &mut self.place {
            Place::Host { outputs, .. } => {
                return Ok(Outputs { outputs: std::mem::take(outputs), failure: None });
            }
            Place::Device { steps, .. } => steps.outputs()?,
        };
        let mut outputs = Vec::new();
        for found in steps {
            match output(found) {
                Ok(output) => outputs.push(output),
                Err(failure) => return Ok(Outputs { outputs, failure: Some(failure) }),
            }
        }
        Ok(Outputs { outputs, failure: None })
    }

    /// Brings the networks on the host up to date.
    ///
    /// # Errors
    /// Failures of the device.
    pub fn store(&mut self, networks: &mut Networks) -> Result<(), NetworkError> {
        if let Place::Device { steps, is_ahead } = &mut self.place
            && *is_ahead
        {
            steps.store(networks.generator.network_mut(), networks.discriminator.network_mut())?;
            *is_ahead = false;
        }
        Ok(())
    }
}

/// Adam's hyperparameters of a step.
pub(crate) fn adam(training: &TrainingConfig, rate: LearningRate) -> AdamConfig {
    AdamConfig {
        learning_rate: rate.0,
        beta1: training.beta1,
        beta2: training.beta2,
        eps: training.adam_eps,
        weight_decay: training.weight_decay,
    }
}

fn output(found: ResidentOutput) -> Result<StepOutput, StepError> {
    let mut output = StepOutput::default();
    if let Some((real, fake, gradient)) = found.discriminator {
        output.discriminator = Some(DiscriminatorOutput {
            loss: loss("D's loss on real images", real)? + loss("D's loss on generated images", fake)?,
            real: f64::from(real.probability),
            fake: f64::from(fake.probability),
            gradient_norm: norm("discriminator", gradient)?,
        });
    }
    if let Some((fake, gradient)) = found.generator {
        output.generator = Some(GeneratorOutput {
            loss: loss("G's loss", fake)?,
            fake: f64::from(fake.probability),
            gradient_norm: norm("generator", gradient)?,
        });
    }
    Ok(output)
}

fn loss(what: &str, found: LossValue) -> Result<f64, StepError> {
    crate::step::finite(what, found.loss)
}

fn norm(which: &str, found: GradientValue) -> Result<f64, StepError> {
    let value = f64::from(found.norm);
    match found.not_finite {
        Some(name) => {
            Err(StepError::NonFinite { what: format!("the gradient of the {which}'s {name}"), value })
        }
        None => Ok(value),
    }
}
