//! Consecutive layers of a network in evaluation mode: all up to a layer, all after it, or each linear layer alone.
//!
//! This module alone converts between candle tensors and the maps of networks.

use candle_core::Tensor;
use dcgan_model::{NetworkError, load_weights, network_weights};
use dcgan_ops::{
    Activation, Device, ExecutorOptions, Keep, Kind, Layer, Maps, Network, OpsError, Role, Tensors,
    WithRespectTo,
};

/// Consecutive layers of a network, with copies of their parameters and batch norm statistics.
#[derive(Debug)]
pub struct Subnetwork(Network);

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
        let all = network.running_stats().ok_or(OpsError::NoStatistics)?;
        let of_layer = |layer: &Layer| Some((layer.name.clone(), all.get(&layer.name)?.clone()));
        let mut part = Network::new(layers.to_vec(), &ExecutorOptions::new(network.device()))?;
        part.parameters_mut().set(parameters)?;
        part.set_running_stats(layers.iter().filter_map(of_layer).collect());
        Ok(Self(part))
    }

    /// The layers up to and including index `layer`.
    ///
    /// # Errors
    /// `OpsError::NoStatistics`; memory.
    pub fn up_to(network: &Network, layer: usize) -> Result<Self, NetworkError> {
        let layers = layers(network);
        let lower = &layers[..(layer + 1).min(layers.len())];
        Self::new(lower, network, &network.parameters().tensors()?)
    }

    /// The layers up to and including index `layer`, and those after it. Run one after the other they are the network.
    ///
    /// # Errors
    /// `OpsError::NoStatistics`; memory.
    pub fn split_after(network: &Network, layer: usize) -> Result<(Self, Self), NetworkError> {
        let layers = layers(network);
        let (lower, upper) = layers.split_at((layer + 1).min(layers.len()));
        let parameters = network.parameters().tensors()?;
        Ok((Self::new(lower, network, &parameters)?, Self::new(upper, network, &parameters)?))
    }

    /// Each layer up to and including index `layer` on its own and without its activation: linear operation and batch
    /// norm, which is linear too in evaluation mode.
    ///
    /// # Errors
    /// `OpsError::NoStatistics`; memory.
    pub fn linear_layers(network: &Network, layer: usize) -> Result<Vec<Self>, NetworkError> {
        let parameters = network.parameters().tensors()?;
        let layers = layers(network).iter().take(layer + 1);
        let linear = layers.map(|layer| Layer { activation: Activation::Identity, ..layer.clone() });
        linear.map(|layer| Self::new(&[layer], network, &parameters)).collect()
    }

    /// The device of the layers.
    pub fn device(&self) -> &Device {
        self.0.device()
    }

    /// Runs the layers on `x` `(n, c, h, w)`; returns their output `(n, c, h, w)`, or `x` where there is no layer.
    ///
    /// # Errors
    /// Shapes, memory.
    pub fn eval(&mut self, x: &Tensor, keep: Keep) -> Result<Tensor, NetworkError> {
        Ok(self.0.eval(&Maps::from_tensor(x)?, keep)?.output.to_tensor()?)
    }

    /// The gradient with respect to the input of the last pass run with [`Keep::Tape`].
    ///
    /// # Errors
    /// No such pass; shapes, memory.
    pub fn backward(&mut self, grad_output: &Tensor) -> Result<Tensor, NetworkError> {
        backward(&mut self.0, grad_output)
    }
}

/// The layers of a network, from its input to its output.
pub(crate) fn layers(network: &Network) -> &[Layer] {
    network.layers()
}

/// The gradient with respect to the input of the network's last pass, which kept its tape.
pub(crate) fn backward(network: &mut Network, grad_output: &Tensor) -> Result<Tensor, NetworkError> {
    let grad_input = network.backward(&Maps::from_tensor(grad_output)?, WithRespectTo::Input)?;
    // Without layers the gradient passes unchanged.
    grad_input.map_or_else(|| Ok(grad_output.clone()), |grad_input| Ok(grad_input.to_tensor()?))
}

/// Sets the weights of layer `layer` to 0 for the input channels where `is_removed`.
pub(crate) fn zero_input_channels(
    network: &mut Network,
    layer: usize,
    is_removed: &[bool],
) -> Result<(), NetworkError> {
    let layer = layers(network)[layer].clone();
    let mut weights = network_weights(network)?;
    if let Some(weight) = weights.get_mut(&layer.tensor_name(Role::Weight))
        && let [_, second, height, width] = *weight.shape
    {
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
    load_weights(network, &weights)
}
