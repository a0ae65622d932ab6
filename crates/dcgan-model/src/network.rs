//! Networks with weights on a device: what training, sampling and feature extraction call.

use crate::weights::{self, HostTensor, Weights, WeightsError};
use crate::{ConfigError, Latents, Model, model};
use candle_core::Tensor;
use dcgan_ops::{
    Device, Executor, ExecutorOptions, Forward, ForwardHook, Input, Keep, Layer, Maps, Network,
    NormStatistics, OpsError, Role, Statistics, Tensors, executor,
};
use std::path::Path;

/// Why a network could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A classifier that cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An operation failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Values that are not whole latent vectors.
    #[error("{len} values are not whole latent vectors of {size} values")]
    Latents {
        /// Values given.
        len: usize,
        /// Size of z.
        size: usize,
    },
    /// Features of a conditional discriminator.
    #[error(
        "the discriminator is conditional: it reads class labels, which features must not depend on; use a model without \
         classes"
    )]
    Conditional,
    /// Not one label for each z.
    #[error("{labels} labels for {latents} latent vectors")]
    Labels {
        /// Labels given.
        labels: usize,
        /// Latent vectors.
        latents: usize,
    },
}

impl From<candle_core::Error> for NetworkError {
    fn from(error: candle_core::Error) -> Self {
        Self::Ops(error.into())
    }
}

/// Replaces parameters and running statistics of a network. Without statistics among the weights the network can be
/// trained, and evaluated after [`Network::recalibrate`].
///
/// # Errors
/// Every tensor that is missing, unexpected or misshapen; memory.
pub fn load_weights(network: &mut Network, weights: &Weights) -> Result<(), NetworkError> {
    weights::check(Path::new("the weights given"), weights, &model::tensors(network.layers()))?;
    let host: Tensors =
        weights.iter().map(|(name, t)| Ok((name.clone(), to_tensor(t)?))).collect::<Result<_, OpsError>>()?;
    network.parameters_mut().set(&host)?;
    let mut statistics = Statistics::new();
    for layer in network.layers() {
        let tensor = |role| host.get(&layer.tensor_name(role));
        if let (Some(mean), Some(var)) = (tensor(Role::RunningMean), tensor(Role::RunningVar)) {
            let of_layer = NormStatistics { mean: mean.clone(), var: var.clone(), count: 0 };
            statistics.insert(layer.name.clone(), of_layer);
        }
    }
    network.set_running_stats(statistics);
    Ok(())
}

/// Parameters of a network, and its running statistics where there are any.
///
/// # Errors
/// Those of candle.
pub fn network_weights(network: &Network) -> Result<Weights, NetworkError> {
    let mut weights = Weights::new();
    for (name, tensor) in network.parameters().tensors()? {
        weights.insert(name, to_host(&tensor)?);
    }
    for layer in network.layers() {
        if let Some(s) = network.running_stats().and_then(|running| running.get(&layer.name)) {
            weights.insert(layer.tensor_name(Role::RunningMean), to_host(&s.mean)?);
            weights.insert(layer.tensor_name(Role::RunningVar), to_host(&s.var)?);
        }
    }
    Ok(weights)
}

/// Makes the executor of a layer list.
pub type BuildExecutor<'a> = &'a dyn Fn(Vec<Layer>) -> Result<Box<dyn Executor>, OpsError>;

fn build(layers: &[Layer], weights: &Weights, build: BuildExecutor<'_>) -> Result<Network, NetworkError> {
    // Before any memory is allocated.
    weights::check(Path::new("the weights given"), weights, &model::tensors(layers))?;
    let mut network = Network::with_executor(build(layers.to_vec())?);
    load_weights(&mut network, weights)?;
    Ok(network)
}

/// The generator: z to images.
#[derive(Debug)]
pub struct Generator {
    model: Model,
    network: Network,
}

/// The discriminator: images to logits.
#[derive(Debug)]
pub struct Discriminator {
    model: Model,
    network: Network,
}

/// The discriminator's layers with a logit per class: images to classes.
#[derive(Debug)]
pub struct Classifier {
    model: Model,
    network: Network,
}

macro_rules! network_methods {
    ($name:ident) => {
        impl $name {
            /// The model that the network belongs to.
            pub fn model(&self) -> &Model {
                &self.model
            }

            /// The network itself.
            pub fn network(&self) -> &Network {
                &self.network
            }

            /// The network itself, to train.
            pub fn network_mut(&mut self) -> &mut Network {
                &mut self.network
            }

            /// Replaces parameters and running statistics.
            ///
            /// # Errors
            /// Those of [`load_weights`].
            pub fn load(&mut self, weights: &Weights) -> Result<(), NetworkError> {
                load_weights(&mut self.network, weights)
            }

            /// Parameters, and running statistics where there are any.
            ///
            /// # Errors
            /// Those of candle.
            pub fn weights(&self) -> Result<Weights, NetworkError> {
                network_weights(&self.network)
            }
        }
    };
}

network_methods!(Generator);
network_methods!(Discriminator);
network_methods!(Classifier);

impl Generator {
    /// G of `model` with `weights` on `device`.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected or misshapen; memory.
    pub fn new(model: &Model, weights: &Weights, device: impl Into<Device>) -> Result<Self, NetworkError> {
        let options = ExecutorOptions::new(device);
        Self::with_executor(model, weights, &|layers| executor(layers, &options))
    }

    /// The same on the executor that `build` makes of the layers.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected or misshapen; memory.
    pub fn with_executor(
        model: &Model,
        weights: &Weights,
        executor: BuildExecutor<'_>,
    ) -> Result<Self, NetworkError> {
        let network = build(model.generator_layers(), weights, executor)?;
        Ok(Self { model: model.clone(), network })
    }

    /// Images of the latents, in evaluation mode.
    ///
    /// # Errors
    /// [`OpsError::NoStatistics`]; shapes, memory.
    pub fn sample(&mut self, latents: &Latents) -> Result<Maps, NetworkError> {
        Ok(self.network.eval(latents.input(), Keep::Nothing)?.output)
    }

    /// A pass in training mode.
    ///
    /// # Errors
    /// Shapes, memory, a batch too small for batch norm.
    pub fn train(&mut self, latents: &Latents, keep: Keep) -> Result<Forward, NetworkError> {
        Ok(self.network.train(latents.input(), keep)?)
    }
}

impl Discriminator {
    /// D of `model` with `weights` on `device`.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected or misshapen; memory.
    pub fn new(model: &Model, weights: &Weights, device: impl Into<Device>) -> Result<Self, NetworkError> {
        let options = ExecutorOptions::new(device);
        Self::with_executor(model, weights, &|layers| executor(layers, &options))
    }

    /// The same on the executor that `build` makes of the layers.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected or misshapen; memory.
    pub fn with_executor(
        model: &Model,
        weights: &Weights,
        executor: BuildExecutor<'_>,
    ) -> Result<Self, NetworkError> {
        let network = build(model.discriminator_layers(), weights, executor)?;
        Ok(Self { model: model.clone(), network })
    }

    /// Logits `(n)` of images in evaluation mode: real above zero.
    ///
    /// # Errors
    /// [`OpsError::NoStatistics`]; shapes, memory.
    pub fn score<'a>(&mut self, images: impl Into<Input<'a>>) -> Result<Vec<f32>, NetworkError> {
        Ok(self.network.eval(images, Keep::Nothing)?.output.values().to_vec())
    }

    /// Calls `hook` with every convolution block's activation after its LeakyReLU, of images in evaluation mode;
    /// returns the logits `(n)`.
    ///
    /// # Errors
    /// [`OpsError::NoStatistics`]; shapes, memory.
    pub fn forward_with_hook<'a>(
        &mut self,
        images: impl Into<Input<'a>>,
        hook: ForwardHook<'_>,
    ) -> Result<Vec<f32>, NetworkError> {
        let convolutions = self.model.config().discriminator.blocks.len(); // the layers after them are dense
        let blocks = |block: usize, image: usize, map: &[f32]| {
            if block < convolutions {
                hook(block, image, map);
            }
        };
        Ok(self.network.eval_with_hook(images, &blocks)?.values().to_vec())
    }
}

impl Classifier {
    /// D of `model` with a head of `classes` logits and `weights` on `device`.
    ///
    /// # Errors
    /// Fewer than two classes; every tensor that is missing, unexpected or misshapen; memory.
    pub fn new(
        model: &Model,
        classes: usize,
        weights: &Weights,
        device: impl Into<Device>,
    ) -> Result<Self, NetworkError> {
        let options = ExecutorOptions::new(device);
        Self::with_executor(model, classes, weights, &|layers| executor(layers, &options))
    }

    /// The same on the executor that `build` makes of the layers.
    ///
    /// # Errors
    /// Fewer than two classes; every tensor that is missing, unexpected or misshapen; memory.
    pub fn with_executor(
        model: &Model,
        classes: usize,
        weights: &Weights,
        executor: BuildExecutor<'_>,
    ) -> Result<Self, NetworkError> {
        let network = build(&model.classifier_layers(classes)?, weights, executor)?;
        Ok(Self { model: model.clone(), network })
    }

    /// Logits `(n, classes)` of images in evaluation mode.
    ///
    /// # Errors
    /// [`OpsError::NoStatistics`]; shapes, memory.
    pub fn logits(&mut self, images: &Maps) -> Result<Tensor, NetworkError> {
        let output = self.network.eval(images, Keep::Nothing)?.output;
        Ok(Tensor::from_slice(
            output.values(),
            (output.n(), output.shape().len()),
            &candle_core::Device::Cpu,
        )?)
    }
}

fn to_tensor(tensor: &HostTensor) -> Result<Tensor, OpsError> {
    Ok(Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), &candle_core::Device::Cpu)?)
}

fn to_host(tensor: &Tensor) -> Result<HostTensor, OpsError> {
    let flat = tensor.to_device(&candle_core::Device::Cpu)?.flatten_all()?;
    Ok(HostTensor { shape: tensor.dims().to_vec(), data: flat.to_vec1()? })
}
