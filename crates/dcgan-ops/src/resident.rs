//! Training steps of two networks whose state stays on a device between steps: parameters, gradients, Adam's moments,
//! running statistics and the EMA. Images, z and labels go to the device, a few numbers come back later.

use crate::{AdamConfig, Device, Network, Precision, ProcessGroup, Result};
use std::sync::Arc;

/// What all steps have in common.
#[derive(Clone, Debug)]
pub struct ResidentConfig {
    /// Precision of maps, and of the inputs of matrix products and convolutions.
    pub precision: Precision,
    /// Images of a minibatch in this process.
    pub batch_size: usize,
    /// The processes of the run, each with a device of its own and the same parameters.
    pub group: Arc<dyn ProcessGroup>,
    /// The target of real images: 1, or less when smoothed.
    pub real_target: f64,
    /// How much of a minibatch's batch norm statistics the running ones take.
    pub momentum: f64,
    /// Adam's hyperparameters, shared by both networks; each step has its own learning rate.
    pub adam: AdamConfig,
    /// Decay of the EMA of the generator's parameters, where it has one.
    pub ema: f64,
    /// Pixel value of each byte (lookup table).
    pub pixel_values: [f32; 256],
    /// Images of the dataset, which the device keeps if it has the memory; 0 for none.
    pub dataset_images: usize,
}

/// Where an image of a step comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// Its number in the dataset, below [`ResidentConfig::dataset_images`].
    pub index: u32,
    /// Whether the device mirrors it.
    pub is_mirrored: bool,
    /// Whether its pixels are given; otherwise they are those of an earlier step.
    pub is_given: bool,
}

/// Which networks a step updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// The discriminator, then the generator against the new discriminator.
    Both,
    /// The discriminator alone.
    Discriminator,
    /// The generator alone.
    Generator,
}

impl Updates {
    /// Whether the discriminator is updated.
    pub fn discriminator(self) -> bool {
        self != Self::Generator
    }

    /// Whether the generator is updated.
    pub fn generator(self) -> bool {
        self != Self::Discriminator
    }
}

/// What one step reads.
#[derive(Clone, Copy, Debug)]
pub struct ResidentInput<'a> {
    /// Real images `(n, h, w, c)`; empty if no image is given.
    pub pixels: &'a [u8],
    /// Where the images come from, `(n,)`, if the device keeps them ([`ResidentTraining::keeps_images`]).
    pub images: &'a [ImageSource],
    /// `(n, z)`
    pub z: &'a [f32],
    /// Label vectors `(n, classes)` of conditional networks, one-hot or soft labels.
    pub labels: Option<&'a [f32]>,
    /// Adam's learning rate.
    pub learning_rate: f64,
    /// Which networks are updated.
    pub updates: Updates,
}

/// Loss of a network on one half of its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossValue {
    /// Mean binary cross-entropy.
    pub loss: f32,
    /// Mean of the sigmoid of the logits.
    pub probability: f32,
}

/// The gradient of an update.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientValue {
    /// Its Euclidean norm.
    pub norm: f32,
    /// The first tensor whose gradient is not finite.
    pub not_finite: Option<String>,
}

/// What one step found. From the first loss or gradient on that is not finite, no parameter changes.
#[derive(Clone, Debug, PartialEq)]
pub struct ResidentOutput {
    /// Of an update of the discriminator: on real and on generated images.
    pub discriminator: Option<(LossValue, LossValue, GradientValue)>,
    /// Of an update of the generator.
    pub generator: Option<(LossValue, GradientValue)>,
}

/// Takes training steps on a device. The networks given at the start are copies on the host, which
/// [`ResidentTraining::store`] brings up to date.
pub trait ResidentTraining: std::fmt::Debug {
    /// Whether the device keeps the images of the dataset. The pixels of an image are given once then, and its source
    /// with every step.
    fn keeps_images(&self) -> bool;

    /// Starts a step. It may still run when this returns, and the next one may be started.
    ///
    /// # Errors
    /// A minibatch of another size, memory, failures of the device.
    fn step(&mut self, input: ResidentInput<'_>) -> Result<()>;

    /// What the steps found since the last call, in order. Waits for them.
    ///
    /// # Errors
    /// Failures of the device.
    fn outputs(&mut self) -> Result<Vec<ResidentOutput>>;

    /// Copies parameters, moments, running statistics and the EMA to the host.
    ///
    /// # Errors
    /// Failures of the device.
    fn store(&mut self, generator: &mut Network, discriminator: &mut Network) -> Result<()>;
}

/// Resident training on the device of the networks, where there is such a thing.
///
/// # Errors
/// Memory, failures of the device.
pub fn resident_training(
    generator: &Network,
    discriminator: &Network,
    config: &ResidentConfig,
) -> Result<Option<Box<dyn ResidentTraining>>> {
    match generator.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => {
            let gpu = std::sync::Arc::clone(gpu);
            let training = crate::cuda::CudaTraining::new(gpu, (generator, discriminator), config)?;
            Ok(Some(Box::new(training)))
        }
        Device::Cpu | Device::Candle(_) => {
            let _ = (discriminator, config);
            Ok(None)
        }
    }
}
