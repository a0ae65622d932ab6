//! Export to PyTorch: under the names of `netG` and `netD` in pytorch/examples, or, for networks that are no
//! `nn.Sequential`, under this program's names with a Python file that defines the networks.
//!
//! Each network is one `nn.Sequential` called `main`. The layers of G are transposed convolution, batch norm, ReLU. D
//! starts with convolution and LeakyReLU; its other layers are convolution, batch norm, LeakyReLU. Modules are numbered
//! in this order, whatever the depth of the network.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::error::ImportError;
use super::names::NetworkKind;
use crate::weights::{Precision, RawTensor, Weights, WeightsError, write_raw};
use crate::{Model, ModelConfig};
use dcgan_ops::{Layer, NormAxes, Role};
use safetensors::tensor::SafeTensors;

/// A state dict that PyTorch's `load_state_dict(strict=True)` accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict {
    /// Tensors by PyTorch's name.
    pub tensors: Weights,
    /// Names of the `num_batches_tracked` of each batch norm, integers that are written as 0.
    pub counters: Vec<String>,
    /// The networks, written as metadata, which PyTorch does not read: an import then needs no other description of
    /// them.
    pub config: Option<ModelConfig>,
}

/// The key of the configuration in the metadata of a safetensors file.
const CONFIG_KEY: &str = "dcgan_model.config";

/// The configuration in the metadata of a safetensors file, if it is there and is one.
pub(crate) fn config(bytes: &[u8]) -> Option<ModelConfig> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).ok()?;
    serde_json::from_str(metadata.metadata().as_ref()?.get(CONFIG_KEY)?).ok()
}

impl StateDict {
    /// Writes one safetensors file with the tensors as F32 and the counters as I64 scalars.
    ///
    /// # Errors
    /// As [`write_safetensors`](crate::weights::write_safetensors).
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let mut raw = Vec::new();
        for (name, tensor) in &self.tensors {
            raw.push((name.as_str(), RawTensor::new(path, name, tensor, Precision::F32)?));
        }
        raw.extend(self.counters.iter().map(|name| (name.as_str(), RawTensor::counter(0))));
        let config = self.config.as_ref().map(serde_json::to_string).transpose();
        let config = config.map_err(|source| WeightsError::Config { path: path.to_owned(), source })?;
        write_raw(path, raw, config.map(|config| HashMap::from([(CONFIG_KEY.to_owned(), config)])))
    }
}

/// PyTorch definitions of all networks of this program, which load a [`StateDict`] of [`to_pytorch`] under the names of
/// this program.
pub const PYTORCH_NETWORKS: &str = include_str!("../../assets/networks.py");

/// The state dict of a network of `model`: under the names of pytorch/examples where the network is such an
/// `nn.Sequential`, and otherwise under this program's names, for [`PYTORCH_NETWORKS`]. Returns whether it is the
/// latter.
///
/// # Errors
/// [`ImportError::UnknownTensor`] for a name that the network does not have.
pub fn to_pytorch(
    network: NetworkKind,
    model: &Model,
    weights: &Weights,
) -> Result<(StateDict, bool), ImportError> {
    let layers = match network {
        NetworkKind::Generator => model.generator_layers(),
        NetworkKind::Discriminator => model.discriminator_layers(),
    };
    let is_other = |layer: &Layer| {
        let per_activation = layer.norm.is_some_and(|norm| norm.axes == NormAxes::PerActivation);
        per_activation || layer.resample.is_some() || layer.name.starts_with("dense.")
    };
    let config = Some(model.config().clone());
    if !model.config().is_conditional()
        && model.config().discriminator.activation.is_none()
        && !layers.iter().any(is_other)
    {
        return Ok((StateDict { config, ..to_pytorch_names(network, weights)? }, false));
    }
    let has_statistics = |layer: &&Layer| weights.contains_key(&layer.tensor_name(Role::RunningMean));
    // PyTorch counts minibatches in its own batch norm alone.
    let counters = layers
        .iter()
        .filter(has_statistics)
        .filter(|layer| layer.norm.is_some_and(|norm| norm.axes == NormAxes::PerChannel));
    let counters = counters.map(|layer| format!("{}.norm.num_batches_tracked", layer.name)).collect();
    Ok((StateDict { tensors: weights.clone(), counters, config }, true))
}

/// Renames the tensors of a network to the names of pytorch/examples. Modules are numbered as in a Sequential of the
/// layers: convolution, batch norm if the layer has it, activation.
///
/// # Errors
/// [`ImportError::PerActivationNorm`], which `BatchNorm2d` does not support; [`ImportError::UnknownTensor`] for a name
/// that the network does not have.
pub fn to_pytorch_names(network: NetworkKind, weights: &Weights) -> Result<StateDict, ImportError> {
    let split = |name: &str| {
        let of = |role: Role| Some((name.strip_suffix(role.suffix())?.strip_suffix('.')?.to_owned(), role));
        Role::ALL.into_iter().find_map(of)
    };
    let parts: Vec<(String, Role)> = weights.keys().filter_map(|name| split(name)).collect();
    let has_norms = parts.iter().any(|(_, role)| role.is_norm());
    let normed: BTreeSet<&str> =
        parts.iter().filter(|(_, role)| role.is_norm()).map(|(layer, _)| layer.as_str()).collect();
    let depth =
        parts.iter().filter(|(layer, role)| layer.starts_with("blocks.") && *role == Role::Weight).count();
    let mut layers: Vec<String> = (0..depth).map(|block| format!("blocks.{block}")).collect();
    match network {
        NetworkKind::Generator => layers.insert(0, "project".to_owned()),
        NetworkKind::Discriminator => layers.push("head".to_owned()),
    }
    // The number of each layer's convolution.
    let (mut modules, mut next) = (HashMap::new(), 0);
    for (i, layer) in layers.iter().enumerate() {
        modules.insert(layer.as_str(), next);
        let usual = match network {
            NetworkKind::Generator => i + 1 < layers.len(),
            NetworkKind::Discriminator => i > 0 && i + 1 < layers.len(),
        };
        // Batch norm that learns nothing has no tensors before there are statistics.
        let has_norm = if has_norms { normed.contains(layer.as_str()) } else { usual };
        next += if has_norm { 3 } else { 2 };
    }
    let mut exported = StateDict { tensors: Weights::new(), counters: Vec::new(), config: None };
    for (name, tensor) in weights {
        let unknown = || ImportError::UnknownTensor { tensor: name.clone(), network };
        let (layer, role) = split(name).ok_or_else(unknown)?;
        let module = *modules.get(layer.as_str()).ok_or_else(unknown)?;
        if role.is_norm() && tensor.shape.len() != 1 {
            return Err(ImportError::PerActivationNorm { tensor: name.clone(), shape: tensor.shape.clone() });
        }
        // The last part of the name is PyTorch's. The batch norm is the module after its convolution.
        let leaf = name.rsplit_once('.').map_or("", |(_, leaf)| leaf);
        let module = if role.is_norm() { module + 1 } else { module };
        exported.tensors.insert(format!("main.{module}.{leaf}"), tensor.clone());
        if role == Role::RunningMean {
            exported.counters.push(format!("main.{module}.num_batches_tracked"));
        }
    }
    Ok(exported)
}
