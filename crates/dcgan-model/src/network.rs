//! Networks with weights on a device: what training, sampling and feature extraction call.

use crate::weights::{self, HostTensor, TensorSpec, Weights, WeightsError};
use crate::{ConfigError, Model};
use candle_core::{Device, Tensor};
use dcgan_ops::{
    Executor, Forward, ForwardHook, Keep, Layer, Mode, NormStatistics, OpsError, Statistics, Tensors,
    executor,
};
use std::path::Path;

/// Why a network could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A classifier that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An operation failed.
    #[error(transparent)]
    Ops(#[from] OpsError),
    /// Evaluation without batch-norm statistics.
    #[error("the network came without batch-norm statistics; recalibrate them first")]
    NoStatistics,
    /// Values that do not make whole z.
    #[error("{len} values do not make z of {size}, which the network takes")]
    Latents {
        /// Values given.
        len: usize,
        /// Values of a z.
        size: usize,
    },
    /// Statistics were to be recalibrated from nothing.
    #[error("batch-norm statistics need at least one batch")]
    NoBatches,
}

impl From<candle_core::Error> for NetworkError {
    fn from(error: candle_core::Error) -> Self {
        Self::Ops(error.into())
    }
}

/// One network: an executor, and the running batch-norm statistics beside it.
#[derive(Debug)]
pub struct Network {
    /// Parameters, gradients, optimizer state; runs the layers.
    pub executor: Box<dyn Executor>,
    specs: Vec<TensorSpec>,
    statistics: Option<Statistics>,
}

/// The generator: z to images in \[-1, 1\].
#[derive(Debug)]
pub struct Generator(pub Network);

/// The discriminator: images to logits.
#[derive(Debug)]
pub struct Discriminator(pub Network);

/// The discriminator's layers with a logit a class: images to classes.
#[derive(Debug)]
pub struct Classifier(pub Network);

impl Network {
    /// A network of `layers` with `weights`, run by what `build` makes. Without statistics among the weights it can be
    /// trained, and evaluated after [`Network::recalibrate`].
    ///
    /// # Errors
    /// Every tensor that is missing, extra or misshapen; memory.
    fn new(
        layers: &[Layer],
        specs: Vec<TensorSpec>,
        weights: &Weights,
        build: impl FnOnce(Vec<Layer>) -> Result<Box<dyn Executor>, OpsError>,
    ) -> Result<Self, NetworkError> {
        weights::check(Path::new("the weights given"), weights, &specs)?;
        let executor = build(layers.to_vec())?;
        let mut this = Self { executor, specs, statistics: None };
        this.load(weights)?;
        Ok(this)
    }

    /// Replaces parameters and statistics.
    ///
    /// # Errors
    /// Every tensor that is missing, extra or misshapen; memory.
    pub fn load(&mut self, weights: &Weights) -> Result<(), NetworkError> {
        weights::check(Path::new("the weights given"), weights, &self.specs)?;
        let host: Tensors = weights
            .iter()
            .map(|(name, t)| Ok((name.clone(), to_tensor(t)?)))
            .collect::<Result<_, OpsError>>()?;
        self.executor.set_parameters(&host)?;
        let mut statistics = Statistics::new();
        for layer in self.executor.layers() {
            let tensor = |suffix| host.get(&format!("{}.{suffix}", layer.name));
            if let (Some(mean), Some(variance)) = (tensor("mean"), tensor("variance")) {
                let device = self.executor.device();
                let (mean, variance) = (mean.to_device(device)?, variance.to_device(device)?);
                statistics.insert(layer.name.clone(), NormStatistics { mean, variance, count: 0 });
            }
        }
        let normed = self.executor.layers().iter().filter(|layer| layer.norm.is_some()).count();
        self.statistics = (statistics.len() == normed).then_some(statistics);
        Ok(())
    }

    /// Parameters, and the statistics where there are any, on the host.
    ///
    /// # Errors
    /// Those of the device.
    pub fn weights(&self) -> Result<Weights, NetworkError> {
        let mut weights = Weights::new();
        for (name, tensor) in self.executor.parameters()? {
            weights.insert(name, to_host(&tensor)?);
        }
        for (layer, s) in self.statistics.iter().flatten() {
            weights.insert(format!("{layer}.mean"), to_host(&s.mean)?);
            weights.insert(format!("{layer}.variance"), to_host(&s.variance)?);
        }
        Ok(weights)
    }

    /// The running statistics, where there are any.
    pub fn statistics(&self) -> Option<&Statistics> {
        self.statistics.as_ref()
    }

    /// Moves the running statistics towards a minibatch's by `momentum`; they start from mean 0 and variance 1, as in PyTorch.
    ///
    /// # Errors
    /// Those of the device.
    pub fn update_running_stats(&mut self, batch: &Statistics, momentum: f64) -> Result<(), NetworkError> {
        let running = self.statistics.get_or_insert_with(Statistics::new);
        for (layer, batch) in batch {
            if !running.contains_key(layer) {
                let initial = NormStatistics::initial(batch.mean.dims(), batch.mean.device())?;
                running.insert(layer.clone(), initial);
            }
            if let Some(running) = running.get_mut(layer) {
                running.update_running_stats(batch, momentum)?;
            }
        }
        Ok(())
    }

    /// Replaces the statistics by the average over `batches`, each layer normalized upstream by its own minibatch, means and
    /// biased variances averaged with equal weight: the authors' procedure (svhn_semisup_analysis.py).
    ///
    /// # Errors
    /// No batch at all; shapes; the error of a batch.
    pub fn recalibrate<E: From<NetworkError>>(
        &mut self,
        batches: impl IntoIterator<Item = Result<Tensor, E>>,
    ) -> Result<(), E> {
        let mut sums = Statistics::new();
        let mut n = 0.0;
        for batch in batches {
            let found =
                self.executor.forward(&batch?, Mode::Train, Keep::Nothing).map_err(NetworkError::from)?;
            for (layer, s) in found.statistics {
                let sum = match sums.remove(&layer) {
                    Some(sum) => added(&sum, &s).map_err(NetworkError::from)?,
                    None => s,
                };
                sums.insert(layer, sum);
            }
            n += 1.0;
        }
        if n == 0.0 {
            return Err(NetworkError::NoBatches.into());
        }
        for s in sums.values_mut() {
            let mean = || -> Result<_, OpsError> { Ok(((&s.mean / n)?, (&s.variance / n)?)) };
            (s.mean, s.variance) = mean().map_err(NetworkError::from)?;
        }
        self.statistics = Some(sums);
        Ok(())
    }

    /// A pass in training mode, by minibatch statistics, which are returned.
    ///
    /// # Errors
    /// Shapes, memory, a batch too small for batch-norm.
    pub fn train(&mut self, x: &Tensor, keep: Keep) -> Result<Forward, NetworkError> {
        Ok(self.executor.forward(x, Mode::Train, keep)?)
    }

    /// A pass in evaluation mode, by the stored statistics: no image depends on its neighbours in the batch.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; shapes, memory.
    pub fn eval(&mut self, x: &Tensor, keep: Keep) -> Result<Forward, NetworkError> {
        let statistics = self.statistics.as_ref().ok_or(NetworkError::NoStatistics)?;
        Ok(self.executor.forward(x, Mode::Eval(statistics), keep)?)
    }
}

impl Generator {
    /// G of `model` with `weights` on `device`.
    ///
    /// # Errors
    /// Every tensor that is missing, extra or misshapen; memory.
    pub fn new(model: &Model, weights: &Weights, device: &Device) -> Result<Self, NetworkError> {
        Self::with_executor(model, weights, |layers| executor(layers, device))
    }

    /// G of `model` with `weights`, run by the executor that `build` makes of the layers.
    ///
    /// # Errors
    /// Every tensor that is missing, extra or misshapen; memory.
    pub fn with_executor(
        model: &Model,
        weights: &Weights,
        build: impl FnOnce(Vec<Layer>) -> Result<Box<dyn Executor>, OpsError>,
    ) -> Result<Self, NetworkError> {
        Ok(Self(Network::new(model.generator_layers(), model.generator_tensors(), weights, build)?))
    }

    /// Images `(n, c, h, w)` of `z` `(n, z)`, in evaluation mode.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; shapes, memory.
    pub fn sample(&mut self, z: &Tensor) -> Result<Tensor, NetworkError> {
        Ok(self.0.eval(&as_maps(z)?, Keep::Nothing)?.output)
    }

    /// A pass in training mode on `z` `(n, z)`.
    ///
    /// # Errors
    /// Shapes, memory, a batch too small for batch-norm.
    pub fn train(&mut self, z: &Tensor, keep: Keep) -> Result<Forward, NetworkError> {
        self.0.train(&as_maps(z)?, keep)
    }
}

impl Discriminator {
    /// D of `model` with `weights` on `device`.
    ///
    /// # Errors
    /// Every tensor that is missing, extra or misshapen; memory.
    pub fn new(model: &Model, weights: &Weights, device: &Device) -> Result<Self, NetworkError> {
        Self::with_executor(model, weights, |layers| executor(layers, device))
    }

    /// D of `model` with `weights`, run by the executor that `build` makes of the layers.
    ///
    /// # Errors
    /// Every tensor that is missing, extra or misshapen; memory.
    pub fn with_executor(
        model: &Model,
        weights: &Weights,
        build: impl FnOnce(Vec<Layer>) -> Result<Box<dyn Executor>, OpsError>,
    ) -> Result<Self, NetworkError> {
        Ok(Self(Network::new(model.discriminator_layers(), model.discriminator_tensors(), weights, build)?))
    }

    /// Logits `(n)` of images `(n, c, h, w)` in evaluation mode: real above zero.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; shapes, memory.
    pub fn score(&mut self, x: &Tensor) -> Result<Tensor, NetworkError> {
        Ok(self.0.eval(x, Keep::Nothing)?.output.flatten_all()?)
    }

    /// Shows `hook` every convolution block's activation after its LeakyReLU, of images `(n, c, h, w)` in evaluation mode; gives the
    /// logits `(n)`.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; shapes, memory.
    pub fn forward_with_hook(&mut self, x: &Tensor, hook: ForwardHook<'_>) -> Result<Tensor, NetworkError> {
        let Network { executor, statistics, .. } = &mut self.0;
        let statistics = statistics.as_ref().ok_or(NetworkError::NoStatistics)?;
        let head = executor.layers().len().saturating_sub(1); // its activation is the logit
        let blocks = |block: usize, image: usize, map: &[f32]| {
            if block < head {
                hook(block, image, map);
            }
        };
        Ok(executor.forward_with_hook(x, statistics, &blocks)?.flatten_all()?)
    }
}

impl Classifier {
    /// D of `model` with a head of `classes` logits and `weights` on `device`.
    ///
    /// # Errors
    /// Fewer than two classes; every tensor that is missing, extra or misshapen; memory.
    pub fn new(
        model: &Model,
        classes: usize,
        weights: &Weights,
        device: &Device,
    ) -> Result<Self, NetworkError> {
        Self::with_executor(model, classes, weights, |layers| executor(layers, device))
    }

    /// The same, run by the executor that `build` makes of the layers.
    ///
    /// # Errors
    /// Fewer than two classes; every tensor that is missing, extra or misshapen; memory.
    pub fn with_executor(
        model: &Model,
        classes: usize,
        weights: &Weights,
        build: impl FnOnce(Vec<Layer>) -> Result<Box<dyn Executor>, OpsError>,
    ) -> Result<Self, NetworkError> {
        let (layers, tensors) = (model.classifier_layers(classes)?, model.classifier_tensors(classes)?);
        Ok(Self(Network::new(&layers, tensors, weights, build)?))
    }

    /// Logits `(n, classes)` of images `(n, c, h, w)` in evaluation mode.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; shapes, memory.
    pub fn logits(&mut self, x: &Tensor) -> Result<Tensor, NetworkError> {
        Ok(self.0.eval(x, Keep::Nothing)?.output.flatten_from(1)?)
    }
}

/// z `(n, z)` as maps of one pixel, `(n, z, 1, 1)`.
fn as_maps(z: &Tensor) -> Result<Tensor, NetworkError> {
    let (n, size) = z.dims2()?;
    Ok(z.reshape((n, size, 1, 1))?)
}

fn added(a: &NormStatistics, b: &NormStatistics) -> Result<NormStatistics, OpsError> {
    Ok(NormStatistics { mean: (&a.mean + &b.mean)?, variance: (&a.variance + &b.variance)?, count: b.count })
}

fn to_tensor(tensor: &HostTensor) -> Result<Tensor, OpsError> {
    Ok(Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), &Device::Cpu)?)
}

fn to_host(tensor: &Tensor) -> Result<HostTensor, OpsError> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    Ok(HostTensor { shape: tensor.dims().to_vec(), data: flat.to_vec1()? })
}
