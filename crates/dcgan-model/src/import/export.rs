//! Export under the names of `netG` and `netD` in pytorch/examples.
//!
//! Each network is one `nn.Sequential` called `main`. The layers of G are transposed convolution, batch norm, ReLU. D
//! starts with convolution and LeakyReLU; its other layers are convolution, batch norm, LeakyReLU. Modules are numbered
//! in this order, whatever the depth of the network.

use std::path::Path;

use super::error::ImportError;
use super::names::NetworkKind;
use crate::weights::{Precision, RawTensor, Weights, WeightsError, write_raw};
use dcgan_ops::Role;

/// A state dict that PyTorch's `load_state_dict(strict=True)` accepts.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDict {
    /// Tensors by PyTorch's name.
    pub tensors: Weights,
    /// Names of the `num_batches_tracked` of each batch norm, integers that are written as 0.
    pub counters: Vec<String>,
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
        write_raw(path, raw)
    }
}

/// Renames the tensors of a network to the names of pytorch/examples.
///
/// # Errors
/// [`ImportError::PerActivationNorm`], which `BatchNorm2d` does not support; [`ImportError::UnknownTensor`] for a name
/// that the network does not have.
pub fn to_pytorch_names(network: NetworkKind, weights: &Weights) -> Result<StateDict, ImportError> {
    let is_block = |name: &&String| {
        name.starts_with("blocks.") && name.ends_with(&format!(".{}", Role::Weight.suffix()))
    };
    let depth = weights.keys().filter(is_block).count();
    let mut exported = StateDict { tensors: Weights::new(), counters: Vec::new() };
    for (name, tensor) in weights {
        let unknown = || ImportError::UnknownTensor { tensor: name.clone(), network };
        let split = |role: Role| Some((name.strip_suffix(role.suffix())?.strip_suffix('.')?, role));
        let (layer, role) = Role::ALL.into_iter().find_map(split).ok_or_else(unknown)?;
        let module = linear_module(network, layer, depth).ok_or_else(unknown)?;
        // The batch norm is the module after its convolution.
        let norm = module + 1;
        let is_norm = role.is_norm();
        if is_norm && tensor.shape.len() != 1 {
            return Err(ImportError::PerActivationNorm { tensor: name.clone(), shape: tensor.shape.clone() });
        }
        // The last part of the name is PyTorch's.
        let leaf = name.rsplit_once('.').map_or("", |(_, leaf)| leaf);
        let module = if is_norm { norm } else { module };
        exported.tensors.insert(format!("main.{module}.{leaf}"), tensor.clone());
        if role == Role::RunningMean {
            exported.counters.push(format!("main.{norm}.num_batches_tracked"));
        }
    }
    Ok(exported)
}

/// The number of a layer's convolution in `main`.
fn linear_module(network: NetworkKind, layer: &str, depth: usize) -> Option<usize> {
    let block = || layer.strip_prefix("blocks.")?.parse::<usize>().ok().filter(|block| *block < depth);
    match (network, layer) {
        (NetworkKind::Generator, "project") => Some(0),
        (NetworkKind::Generator, _) => Some(3 * (block()? + 1)),
        (NetworkKind::Discriminator, "head") => Some(discriminator_block(depth)),
        (NetworkKind::Discriminator, _) => Some(discriminator_block(block()?)),
    }
}

/// The first block has no batch norm: two modules instead of three.
fn discriminator_block(block: usize) -> usize {
    (3 * block).saturating_sub(1)
}
