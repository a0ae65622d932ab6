//! Our weights under the names of pytorch/examples' `netG` and `netD`.
//!
//! Both are one `nn.Sequential` called `main`. G has transposed convolution, batch-norm, ReLU per layer; D has
//! convolution, LeakyReLU, then convolution, batch-norm, LeakyReLU per layer. Numbers count modules, at any depth.

use std::path::Path;

use super::error::ImportError;
use super::names::{NORM_NAMES, Side};
use crate::weights::{Dtype, RawTensor, Weights, WeightsError, write_raw};

/// A network as PyTorch's `load_state_dict(strict=True)` wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// Tensors by PyTorch's name.
    pub tensors: Weights,
    /// Names of the `num_batches_tracked` of each batch-norm; they are integers, written as 0.
    pub counters: Vec<String>,
}

impl Exported {
    /// Writes one safetensors file in F32, the counters as I64 scalars.
    ///
    /// # Errors
    /// As [`write_safetensors`](crate::weights::write_safetensors).
    pub fn write(&self, path: &Path) -> Result<(), WeightsError> {
        let mut raw = Vec::new();
        for (name, tensor) in &self.tensors {
            raw.push((name.as_str(), RawTensor::new(path, name, tensor, Dtype::F32)?));
        }
        raw.extend(self.counters.iter().map(|name| (name.as_str(), RawTensor::counter(0))));
        write_raw(path, raw)
    }
}

/// Renames the tensors of a network to those of pytorch/examples.
///
/// # Errors
/// [`ImportError::NotExpressible`] for batch-norm per unit; [`ImportError::NotOurs`] for a tensor that is not named
/// as the network's are.
pub fn to_pytorch_names(side: Side, weights: &Weights) -> Result<Exported, ImportError> {
    let depth =
        weights.keys().filter(|name| name.starts_with("blocks.") && name.ends_with(".weight")).count();
    let mut exported = Exported { tensors: Weights::new(), counters: Vec::new() };
    for (name, tensor) in weights {
        let not_ours = || ImportError::NotOurs { tensor: name.clone(), side };
        let (layer, leaf) = name.rsplit_once('.').ok_or_else(not_ours)?;
        let module = linear_module(side, layer, depth).ok_or_else(not_ours)?;
        if leaf == "weight" {
            exported.tensors.insert(format!("main.{module}.weight"), tensor.clone());
            continue;
        }
        let (suffix, _) = NORM_NAMES.iter().find(|(_, ours)| *ours == leaf).ok_or_else(not_ours)?;
        if tensor.shape.len() != 1 {
            return Err(ImportError::NotExpressible { tensor: name.clone(), shape: tensor.shape.clone() });
        }
        // The batch-norm stands right after its convolution.
        let norm = module + 1;
        exported.tensors.insert(format!("main.{norm}.{suffix}"), tensor.clone());
        if leaf == "mean" {
            exported.counters.push(format!("main.{norm}.num_batches_tracked"));
        }
    }
    Ok(exported)
}

/// The number of a layer's convolution in `main`.
fn linear_module(side: Side, layer: &str, depth: usize) -> Option<usize> {
    let block = || layer.strip_prefix("blocks.")?.parse::<usize>().ok().filter(|block| *block < depth);
    match (side, layer) {
        (Side::Generator, "project") => Some(0),
        (Side::Generator, _) => Some(3 * (block()? + 1)),
        (Side::Discriminator, "head") => Some(discriminator_block(depth)),
        (Side::Discriminator, _) => Some(discriminator_block(block()?)),
    }
}

/// The first block has no batch-norm: two modules instead of three.
fn discriminator_block(block: usize) -> usize {
    (3 * block).saturating_sub(1)
}
