//! Parts of a network in evaluation mode: all up to a layer, all after it, or one linear map at a time.

use candle_core::Tensor;
use dcgan_model::{Network, NetworkError};
use dcgan_ops::{Activation, Executor, Forward, Keep, Layer, Mode, Statistics, Tensors, Want, executor};

/// Consecutive layers of a network, with copies of their parameters and statistics.
#[derive(Debug)]
pub struct Part {
    executor: Box<dyn Executor>,
    statistics: Statistics,
}

/// A name that no hidden layer of the network has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no block {name:?}; this network has {}", known.join(", "))]
pub struct UnknownBlock {
    /// The name given.
    pub name: String,
    /// Those that there are.
    pub known: Vec<String>,
}

/// Index in `layers` of the hidden layer `name`; `2` is short for `blocks.2`. The last layer gives images or the logit and
/// is no hidden one.
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

impl Part {
    fn new(layers: &[Layer], network: &Network, parameters: &Tensors) -> Result<Self, NetworkError> {
        let all = network.statistics().ok_or(NetworkError::NoStatistics)?;
        let of_layer = |layer: &Layer| all.get(&layer.name).map(|found| (layer.name.clone(), found.clone()));
        let statistics = layers.iter().filter_map(of_layer).collect();
        let mut executor = executor(layers.to_vec(), network.executor.device())?;
        executor.set_parameters(parameters)?;
        Ok(Self { executor, statistics })
    }

    /// Runs the layers on `x` `(n, c, h, w)`; without any layer the output is `x`.
    ///
    /// # Errors
    /// Shapes, memory.
    pub fn eval(&mut self, x: &Tensor, keep: Keep) -> Result<Forward, NetworkError> {
        Ok(self.executor.forward(x, Mode::Eval(&self.statistics), keep)?)
    }

    /// The derivative by the input of the last pass run with [`Keep::Tape`], from that by its output.
    ///
    /// # Errors
    /// No such pass; shapes, memory.
    pub fn backward(&mut self, d_output: &Tensor) -> Result<Tensor, NetworkError> {
        let d = self.executor.backward(d_output, Want::Input)?;
        // Without layers the derivative passes as it is.
        Ok(d.unwrap_or_else(|| d_output.clone()))
    }
}

/// The layers up to and including number `layer`, and those after it: run one after the other they are the network.
///
/// # Errors
/// [`NetworkError::NoStatistics`]; memory.
pub fn cut(network: &Network, layer: usize) -> Result<(Part, Part), NetworkError> {
    let layers = network.executor.layers();
    let (front, back) = layers.split_at((layer + 1).min(layers.len()));
    let parameters = network.executor.parameters()?;
    Ok((Part::new(front, network, &parameters)?, Part::new(back, network, &parameters)?))
}

/// The layers up to and including number `layer`.
///
/// # Errors
/// [`NetworkError::NoStatistics`]; memory.
pub fn front(network: &Network, layer: usize) -> Result<Part, NetworkError> {
    let layers = network.executor.layers();
    let front = &layers[..(layer + 1).min(layers.len())];
    Part::new(front, network, &network.executor.parameters()?)
}

/// Each layer up to and including number `layer` on its own and without its activation: linear map and batch-norm,
/// which in evaluation mode is linear too.
///
/// # Errors
/// [`NetworkError::NoStatistics`]; memory.
pub fn linear_maps(network: &Network, layer: usize) -> Result<Vec<Part>, NetworkError> {
    let parameters = network.executor.parameters()?;
    let layers = network.executor.layers().iter().take(layer + 1);
    let linear = layers.map(|layer| Layer { activation: Activation::Identity, ..layer.clone() });
    linear.map(|layer| Part::new(&[layer], network, &parameters)).collect()
}
