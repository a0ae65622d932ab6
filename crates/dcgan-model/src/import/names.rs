//! From the names of other programs to ours, by the order of the layers.
//!
//! Every DCGAN in PyTorch has one module per convolution (its `weight` has four axes) and one per batch-norm. Names
//! differ from program to program; the order does not: the n-th convolution is our n-th layer, the n-th batch-norm
//! belongs to our n-th layer that has one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use crate::weights::{Fault, HostTensor, TensorSpec, Weights, faults};

/// One of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// G, from z to an image.
    Generator,
    /// D, from an image to a logit.
    Discriminator,
}

impl Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Generator => "generator",
            Self::Discriminator => "discriminator",
        })
    }
}

impl Side {
    /// The network that a key or a prefix is called after, if any: `netG`, `generator`, `disc.main`.
    pub(crate) fn called(name: &str) -> Option<Self> {
        name.split(['/', '.']).find_map(|part| {
            let part = part.to_ascii_lowercase();
            let is = |whole: &str, starts: [&str; 2]| {
                part == whole || starts.iter().any(|start| part.starts_with(start))
            };
            if is("g", ["gen", "g_"]) || part.starts_with("netg") {
                Some(Self::Generator)
            } else if is("d", ["dis", "d_"]) || part.starts_with("netd") {
                Some(Self::Discriminator)
            } else {
                None
            }
        })
    }
}

/// Suffixes of batch-norm: PyTorch's and ours.
pub(crate) const NORM_NAMES: [(&str, &str); 4] =
    [("weight", "gain"), ("bias", "shift"), ("running_mean", "mean"), ("running_var", "variance")];

/// Name and values, in the order of the file.
pub(crate) type Named<'a> = (&'a str, &'a HostTensor);

/// One network under our names, with what does not fit.
pub(crate) struct Fitted {
    pub(crate) weights: Weights,
    pub(crate) faults: Vec<Fault>,
}

/// Shapes of the convolutions' weights.
pub(crate) fn linear_shapes(tensors: &[Named]) -> Vec<Vec<usize>> {
    let weights = tensors.iter().filter(|(name, tensor)| is_linear(name, tensor));
    weights.map(|(_, tensor)| tensor.shape.clone()).collect()
}

fn is_linear(name: &str, tensor: &HostTensor) -> bool {
    leaf(name) == "weight" && tensor.shape.len() == 4
}

/// Gives the tensors our names and compares them with what the network expects.
pub(crate) fn fit(tensors: &[Named], expected: &[TensorSpec]) -> Fitted {
    let renamed = rename(tensors, expected);
    let theirs: BTreeMap<&str, &str> =
        renamed.iter().map(|(ours, theirs, _)| (ours.as_str(), *theirs)).collect();
    let weights: Weights =
        renamed.iter().map(|(ours, _, tensor)| (ours.clone(), HostTensor::clone(tensor))).collect();
    let mut faults = faults(&weights, expected);
    for fault in &mut faults {
        if let Fault::Misshapen { name, .. } = fault
            && let Some(theirs) = theirs.get(name.as_str()).filter(|theirs| *theirs != name)
        {
            *name = format!("{name} ({theirs} in the file)");
        }
    }
    Fitted { weights, faults }
}

/// Our name, the file's name and the values of each tensor; a tensor without a place keeps its name.
fn rename<'a>(tensors: &[Named<'a>], expected: &[TensorSpec]) -> Vec<(String, &'a str, &'a HostTensor)> {
    let tensors = tensors.iter().filter(|(name, _)| leaf(name) != "num_batches_tracked");
    let is_ours = |name: &str| tensors.clone().any(|(theirs, _)| *theirs == name);
    if is_ours("blocks.0.weight") && (is_ours("project.weight") || is_ours("head.weight")) {
        return tensors.map(|(name, tensor)| ((*name).to_owned(), *name, *tensor)).collect();
    }
    let mut layers = Vec::new();
    let mut normed_layers = Vec::new();
    for spec in expected {
        push_new(&mut layers, module(&spec.name));
        if leaf(&spec.name) != "weight" {
            push_new(&mut normed_layers, module(&spec.name));
        }
    }
    let mut linears = Vec::new();
    for (name, tensor) in tensors.clone() {
        if is_linear(name, tensor) {
            push_new(&mut linears, module(name));
        }
    }
    let mut norms = Vec::new();
    for (name, _) in tensors.clone() {
        if NORM_NAMES.iter().any(|(theirs, _)| leaf(name) == *theirs) && !linears.contains(&module(name)) {
            push_new(&mut norms, module(name));
        }
    }
    let ours = |name: &str| {
        let (module, leaf) = (module(name), leaf(name));
        if let Some(i) = linears.iter().position(|linear| *linear == module) {
            return (leaf == "weight").then(|| Some(format!("{}.weight", layers.get(i)?)))?;
        }
        let layer = normed_layers.get(norms.iter().position(|norm| *norm == module)?)?;
        let (_, suffix) = NORM_NAMES.iter().find(|(theirs, _)| *theirs == leaf)?;
        Some(format!("{layer}.{suffix}"))
    };
    tensors.map(|(name, tensor)| (ours(name).unwrap_or_else(|| (*name).to_owned()), *name, *tensor)).collect()
}

fn push_new<'a>(list: &mut Vec<&'a str>, name: &'a str) {
    if !list.contains(&name) {
        list.push(name);
    }
}

/// `main.0` of `main.0.weight`.
fn module(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(module, _)| module)
}

/// `weight` of `main.0.weight`.
fn leaf(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, leaf)| leaf)
}

/// What all names begin with, up to a dot: `module.main.`.
pub(crate) fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some((first, others)) = names.split_first() else { return "" };
    let mut ends = first.match_indices('.').map(|(at, _)| at + 1);
    let shared = ends.rfind(|end| others.iter().all(|other| other.starts_with(&first[..*end])));
    &first[..shared.unwrap_or(0)]
}

/// Both networks of one flat list, where their names tell them apart (`generator.gen.0.0.weight`, `netD.main.0.weight`):
/// the prefix of each, without its dot. Empty where the list is one network.
pub(crate) fn split_prefixes(names: &[&str]) -> Vec<String> {
    let common = common_prefix(names);
    let heads: BTreeSet<&str> =
        names.iter().filter_map(|name| name[common.len()..].split('.').next()).collect();
    let called = |side| heads.iter().filter(move |head| Side::called(head) == Some(side));
    let prefixes = called(Side::Generator).chain(called(Side::Discriminator));
    let is_both = called(Side::Generator).next().is_some() && called(Side::Discriminator).next().is_some();
    if is_both { prefixes.map(|head| format!("{common}{head}")).collect() } else { Vec::new() }
}

/// A key that sorts `main.10` after `main.2`.
pub(crate) fn natural_key(name: &str) -> Vec<(usize, &str)> {
    let number = |part: &str| part.parse().unwrap_or(usize::MAX);
    name.split('.').map(|part| (number(part), part)).collect()
}
