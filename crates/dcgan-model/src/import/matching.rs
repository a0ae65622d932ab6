//! Compares the layers of a network in a file with those of a model, and names its tensors as the model does.

use std::collections::{BTreeMap, BTreeSet};

use super::layers::{FileLayer, FileNetwork};
use super::names::{NamedTensor, leaf, module, numbered};
use crate::weights::{HostTensor, TensorMismatch, TensorSpec, Weights, mismatches, upgrade_name};
use dcgan_ops::Role;

/// The tensors of a file under the names of one network of the model, and where they differ from it.
#[derive(Default)]
pub(crate) struct Candidate {
    pub(crate) weights: Weights,
    /// In the order of the file.
    pub(crate) mismatches: Vec<TensorMismatch>,
    /// Names in the file by the names of the model, where they differ.
    pub(crate) names: BTreeMap<String, String>,
    /// What was changed to fit the model, one sentence each.
    pub(crate) notes: Vec<String>,
}

/// The names of this program, if the tensors have them: `blocks.0` and one of the layers at the ends of the networks.
pub(crate) fn native(tensors: &[NamedTensor]) -> Option<Vec<(String, HostTensor)>> {
    let names: BTreeSet<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let has = |leaf: &str| {
        let of = |layer: &str| names.contains(format!("{layer}.{leaf}").as_str());
        of("blocks.0") && (of("project") || of("head"))
    };
    let rename: fn(&str) -> String = match (has("conv.weight"), has("weight")) {
        (true, _) => str::to_owned,
        (_, true) => upgrade_name,
        _ => return None,
    };
    Some(tensors.iter().map(|(name, tensor)| (rename(name), (*tensor).clone())).collect())
}

/// Compares tensors with names of this program.
pub(crate) fn match_native(tensors: Vec<(String, HostTensor)>, expected: &[TensorSpec]) -> Candidate {
    let weights: Weights =
        tensors.into_iter().filter(|(name, _)| leaf(name) != "num_batches_tracked").collect();
    let mismatches = mismatches(&weights, expected);
    Candidate { weights, mismatches, ..Candidate::default() }
}

/// Compares the n-th layer of the file with the n-th layer of the model.
///
/// A bias that the model does not have is folded into the mean of its batch norm, which gives the same output. A bias
/// that the file does not have is 0.
pub(crate) fn match_layers(network: &FileNetwork, expected: &[TensorSpec]) -> Candidate {
    let mut of_layers: Vec<(&str, Vec<&TensorSpec>)> = Vec::new();
    for spec in expected {
        // `blocks.0` of `blocks.0.conv.weight`
        let layer = module(module(&spec.name));
        match of_layers.last_mut() {
            Some((last, specs)) if *last == layer => specs.push(spec),
            _ => of_layers.push((layer, vec![spec])),
        }
    }
    let mut matching = Matching { candidate: Candidate::default(), folded: 0, zeros: 0 };
    let has_statistics = network.layers.iter().any(|layer| {
        let norm = layer.norm.as_ref();
        norm.is_some_and(|norm| {
            ["running_mean", "running_var"].iter().any(|leaf| norm.tensors.contains_key(leaf))
        })
    });
    for (i, (name, specs)) in of_layers.iter().enumerate() {
        let missing = FileLayer::default();
        matching.layer(name, specs, network.layers.get(i).unwrap_or(&missing), has_statistics);
    }
    for layer in network.layers.iter().skip(of_layers.len()) {
        matching.unexpected(layer, |_| true);
    }
    let others = network.others.iter().map(|(name, tensor)| unexpected(name, tensor));
    matching.candidate.mismatches.extend(others);
    let Matching { mut candidate, folded, zeros } = matching;
    if folded > 0 {
        candidate.notes.push(format!(
            "the biases of {folded} convolutions are folded into the means of their batch norms: the output in \
             evaluation mode is the same"
        ));
    }
    if zeros > 0 {
        candidate.notes.push(format!("the file has no bias of {zeros} layers: they are 0"));
    }
    candidate
}

fn unexpected(name: &str, tensor: &HostTensor) -> TensorMismatch {
    TensorMismatch::Unexpected { name: name.to_owned(), found: tensor.shape.clone() }
}

/// The name of a tensor in a module, which is empty for a network without modules.
fn join(module: &str, leaf: &str) -> String {
    if module.is_empty() { leaf.to_owned() } else { format!("{module}.{leaf}") }
}

struct Matching {
    candidate: Candidate,
    folded: usize,
    zeros: usize,
}

impl Matching {
    fn layer(&mut self, name: &str, specs: &[&TensorSpec], layer: &FileLayer, has_statistics: bool) {
        let norm_module = match (&layer.norm, numbered(&layer.module)) {
            (Some(norm), _) => norm.module.clone(),
            (None, Some((prefix, number))) => format!("{prefix}{}", number + 1),
            (None, None) => String::new(),
        };
        let mut known = BTreeSet::new();
        for spec in specs {
            let suffix = spec.name.strip_prefix(name).unwrap_or_default().trim_start_matches('.');
            let Some(role) = Role::ALL.into_iter().find(|role| role.suffix() == suffix) else { continue };
            let of_norm = |leaf: &str| layer.norm.as_ref().and_then(|norm| norm.tensors.get(leaf).copied());
            let (module, found) = match role {
                Role::Weight => (&layer.module, layer.weight),
                Role::Bias => (&layer.module, layer.bias),
                _ => (&norm_module, of_norm(leaf(suffix))),
            };
            known.insert(role);
            let in_file = join(module, leaf(suffix));
            match found {
                Some(tensor) => self.tensor(spec, &in_file, !module.is_empty(), tensor),
                None if role == Role::Bias && layer.weight.is_some() => {
                    self.zeros += 1;
                    let data = vec![0.0; spec.shape.iter().product()];
                    self.insert(spec, HostTensor { shape: spec.shape.clone(), data });
                }
                None if spec.optional && !has_statistics => {}
                None => self.candidate.mismatches.push(TensorMismatch::Missing {
                    name: displayed(&spec.name, &in_file, !module.is_empty()),
                    expected: spec.shape.clone(),
                }),
            }
        }
        if let Some(bias) = layer.bias.filter(|_| !known.contains(&Role::Bias))
            && known.contains(&Role::RunningMean)
            && self.fold(name, bias)
        {
            self.folded += 1;
            known.insert(Role::Bias);
        }
        let is_zero = |tensor: &HostTensor| tensor.data.iter().all(|value| *value == 0.0);
        if layer.bias.is_some_and(is_zero) {
            known.insert(Role::Bias);
        }
        self.unexpected(layer, |role| !known.contains(&role));
    }

    fn tensor(&mut self, spec: &TensorSpec, in_file: &str, is_named: bool, tensor: &HostTensor) {
        if tensor.shape == spec.shape {
            self.candidate.names.insert(spec.name.clone(), in_file.to_owned());
            self.insert(spec, tensor.clone());
        } else {
            self.candidate.mismatches.push(TensorMismatch::Shape {
                name: displayed(&spec.name, in_file, is_named),
                expected: spec.shape.clone(),
                found: tensor.shape.clone(),
            });
        }
    }

    fn insert(&mut self, spec: &TensorSpec, tensor: HostTensor) {
        self.candidate.weights.insert(spec.name.clone(), tensor);
    }

    /// Subtracts a bias from the mean of the batch norm after it, which subtracts the mean.
    fn fold(&mut self, layer: &str, bias: &HostTensor) -> bool {
        let Some(mean) = self.candidate.weights.get_mut(&format!("{layer}.{}", Role::RunningMean.suffix()))
        else {
            // Without statistics, batch norm subtracts the mean of the minibatch, and the bias with it.
            return true;
        };
        if mean.shape != bias.shape {
            return false;
        }
        mean.data.iter_mut().zip(&bias.data).for_each(|(mean, bias)| *mean -= bias);
        true
    }

    /// The tensors of a layer that the model does not have.
    fn unexpected(&mut self, layer: &FileLayer, is_unexpected: impl Fn(Role) -> bool) {
        let convolution = [(Role::Weight, "weight", layer.weight), (Role::Bias, "bias", layer.bias)];
        for (role, leaf, tensor) in convolution {
            if let Some(tensor) = tensor.filter(|_| is_unexpected(role)) {
                self.candidate.mismatches.push(unexpected(&join(&layer.module, leaf), tensor));
            }
        }
        let roles = [Role::NormWeight, Role::NormBias, Role::RunningMean, Role::RunningVar];
        for (role, norm) in roles.into_iter().filter_map(|role| Some((role, layer.norm.as_ref()?))) {
            let leaf = leaf(role.suffix());
            if let Some(tensor) = norm.tensors.get(leaf).filter(|_| is_unexpected(role)) {
                self.candidate.mismatches.push(unexpected(&join(&norm.module, leaf), tensor));
            }
        }
    }
}

/// The name in the file, if it is known, and the name in the model.
fn displayed(name: &str, in_file: &str, is_named: bool) -> String {
    if is_named && name != in_file { format!("{in_file} ({name})") } else { name.to_owned() }
}
