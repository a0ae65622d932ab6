//! Consecutive layers of a network in evaluation mode: all up to a layer, all after it, or each linear layer alone.
//!
//! This module alone reaches into the executors of networks.

use candle_core::{Device, Tensor};
use dcgan_model::{Network, NetworkError};
use dcgan_ops::{
    Activation, Executor, Forward, Keep, Kind, Layer, Mode, Statistics, Tensors, Want, executor,
};

/// Consecutive layers of a network, with copies of their parameters and batch norm statistics.
#[derive(Debug)]
pub struct Subnetwork {
    executor: Box<dyn Executor>,
    statistics: Statistics,
}

/// A name that no hidden layer of the network has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no block {name:?}, expected one of {}", known.join(", "))]
pub struct UnknownBlock {
    /// The name given.
    pub name: String,
    /// Names of the hidden layers.
    pub known: Vec<String>,
}

/// Index in `layers` of the hidden layer `name`; `2` is short for `blocks.2`. The last layer outputs images or the
/// logit and is not a hidden layer.
///
/// # Errors
/// [`UnknownBlock`] with the names that exist.
pub fn find_block(layers: &[Layer], name: &str) -> Result<usize, UnknownBlock> {
    let hidden = &layers[..layers.len().saturating_sub(1)];
    let full = if name.parse::<usize>().is_ok() { format!("blocks.{name}") } else { name.to_owned() };
    let layer = hidden.iter().position(|layer| layer.name == full);
    layer.ok_or_else(|| UnknownBlock {
        name: name.to_owned(),
        known: hidden.iter().map(|layer| layer.name.clone()).collect(),
    })
}

impl Subnetwork {
    fn new(layers: &[Layer], network: &Network, parameters: &Tensors) -> Result<Self, NetworkError> {
        let all = network.statistics().ok_or(NetworkError::NoStatistics)?;
        let of_layer = |layer: &Layer| Some((layer.name.clone(), all.get(&layer.name)?.clone()));
        let statistics = layers.iter().filter_map(of_layer).collect();
        let mut executor = executor(layers.to_vec(), device(network))?;
        executor.set_parameters(parameters)?;
        Ok(Self { executor, statistics })
    }

    /// The layers up to and including index `layer`.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; memory.
    pub fn up_to(network: &Network, layer: usize) -> Result<Self, NetworkError> {
        let layers = layers(network);
        let lower = &layers[..(layer + 1).min(layers.len())];
        Self::new(lower, network, &network.executor.parameters()?)
    }

    /// The layers up to and including index `layer`, and those after it. Run one after the other they are the network.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; memory.
    pub fn split_after(network: &Network, layer: usize) -> Result<(Self, Self), NetworkError> {
        let layers = layers(network);
        let (lower, upper) = layers.split_at((layer + 1).min(layers.len()));
        let parameters = network.executor.parameters()?;
        Ok((Self::new(lower, network, &parameters)?, Self::new(upper, network, &parameters)?))
    }

    /// Each layer up to and including index `layer` on its own and without its activation: linear map and batch norm,
    /// which is linear too in evaluation mode.
    ///
    /// # Errors
    /// [`NetworkError::NoStatistics`]; memory.
    pub fn linear_layers(network: &Network, layer: usize) -> Result<Vec<Self>, NetworkError> {
        let parameters = network.executor.parameters()?;
        let layers = layers(network).iter().take(layer + 1);
        let linear = layers.map(|layer| Layer { activation: Activation::Identity, ..layer.clone() });
        linear.map(|layer| Self::new(&[layer], network, &parameters)).collect()
    }

    /// The device of the layers.
    pub fn device(&self) -> &Device {
        self.executor.device()
    }

    /// Runs the layers on `x` `(n, c, h, w)`; without any layer the output is `x`.
    ///
    /// # Errors
    /// Shapes, memory.
    pub fn eval(&mut self, x: &Tensor, keep: Keep) -> Result<Forward, NetworkError> {
        Ok(self.executor.forward(x, Mode::Eval(&self.statistics), keep)?)
    }

    /// The gradient with respect to the input of the last pass run with [`Keep::Tape`].
    ///
    /// # Errors
    /// No such pass; shapes, memory.
    pub fn backward(&mut self, grad_output: &Tensor) -> Result<Tensor, NetworkError> {
        let grad_input = self.executor.backward(grad_output, Want::Input)?;
        // Without layers the gradient passes unchanged.
        Ok(grad_input.unwrap_or_else(|| grad_output.clone()))
    }
}

/// The layers of a network, from its input to its output.
pub(crate) fn layers(network: &Network) -> &[Layer] {
    network.executor.layers()
}

/// The device of a network.
pub(crate) fn device(network: &Network) -> &Device {
    network.executor.device()
}

/// The gradient with respect to the input of the network's last pass, which kept its tape.
pub(crate) fn backward(network: &mut Network, grad_output: &Tensor) -> Result<Tensor, NetworkError> {
    let grad_input = network.executor.backward(grad_output, Want::Input)?;
    Ok(grad_input.unwrap_or_else(|| grad_output.clone()))
}

/// Sets the weights of layer `layer` to 0 for the input channels where `is_removed`.
pub(crate) fn zero_input_channels(
    network: &mut Network,
    layer: usize,
    is_removed: &[bool],
) -> Result<(), NetworkError> {
    let layer = layers(network)[layer].clone();
    let [_, second, height, width] = layer.weight_shape();
    let mut weights = network.weights()?;
    if let Some(weight) = weights.get_mut(&format!("{}.weight", layer.name)) {
        for (i, value) in weight.data.iter_mut().enumerate() {
            let channel = match layer.kind {
                Kind::Conv => i / (height * width) % second,
                Kind::ConvTranspose => i / (second * height * width),
            };
            if is_removed[channel] {
                *value = 0.0;
            }
        }
    }
    network.load(&weights)
}
