//! Maps the tensor names of other programs to the names of this program, by the order of the layers.
//!
//! Every DCGAN in PyTorch has one module per convolution, with a `weight` of four axes, and one per batch norm. Names
//! differ between programs, but the order is the same: the n-th convolution is the n-th layer of the model, and the
//! n-th batch norm belongs to the n-th layer with batch norm.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

use crate::weights::{HostTensor, TensorMismatch, TensorSpec, Weights, mismatches, upgrade_name};

/// Which of the two networks of a DCGAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// G, from z to an image.
    Generator,
    /// D, from an image to a logit.
    Discriminator,
}

impl Display for NetworkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Generator => "generator",
            Self::Discriminator => "discriminator",
        })
    }
}

impl NetworkKind {
    /// The network that a key, a prefix or a file name suggests, if any: `netG`, `generator`, `disc.main`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
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

/// The last part of the names of batch norm's tensors, in PyTorch's files as in this program's.
pub(crate) const NORM_LEAVES: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// The name of a tensor in the file and the tensor, in the order of the file.
pub(crate) type NamedTensor<'a> = (&'a str, &'a HostTensor);

/// The tensors of a file under the names of one network of the model, and where they differ from it.
pub(crate) struct Candidate {
    pub(crate) weights: Weights,
    pub(crate) mismatches: Vec<TensorMismatch>,
}

/// Weight shapes of the convolutions.
pub(crate) fn linear_shapes(tensors: &[NamedTensor]) -> Vec<Vec<usize>> {
    let weights = tensors.iter().filter(|(name, tensor)| is_linear(name, tensor));
    weights.map(|(_, tensor)| tensor.shape.clone()).collect()
}

fn is_linear(name: &str, tensor: &HostTensor) -> bool {
    leaf(name) == "weight" && tensor.shape.len() == 4
}

/// Renames the tensors of a file and compares them with the expected ones.
pub(crate) fn match_tensors(tensors: &[NamedTensor], expected: &[TensorSpec]) -> Candidate {
    let renamed = rename(tensors, expected);
    let file_names: BTreeMap<&str, &str> =
        renamed.iter().map(|tensor| (tensor.name.as_str(), tensor.name_in_file)).collect();
    let weights: Weights =
        renamed.iter().map(|tensor| (tensor.name.clone(), tensor.tensor.clone())).collect();
    let mut mismatches = mismatches(&weights, expected);
    for mismatch in &mut mismatches {
        if let TensorMismatch::Shape { name, .. } = mismatch
            && let Some(name_in_file) = file_names.get(name.as_str()).filter(|in_file| *in_file != name)
        {
            *name = format!("{name} ({name_in_file} in the file)");
        }
    }
    Candidate { weights, mismatches }
}

/// A tensor of a file under its name in the model.
struct Renamed<'a> {
    /// Its name in the model; its name in the file if the model has no tensor for it.
    name: String,
    name_in_file: &'a str,
    tensor: &'a HostTensor,
}

fn rename<'a>(tensors: &[NamedTensor<'a>], expected: &[TensorSpec]) -> Vec<Renamed<'a>> {
    let tensors = tensors.iter().filter(|(name, _)| leaf(name) != "num_batches_tracked");
    let contains = |name: &str| tensors.clone().any(|(in_file, _)| *in_file == name);
    let is_native = |leaf: &str| {
        let of = |layer: &str| contains(&format!("{layer}.{leaf}"));
        of("blocks.0") && (of("project") || of("head"))
    };
    let (is_native, is_version_1) = (is_native("conv.weight"), is_native("weight"));
    let mut layers = Vec::new();
    let mut normed_layers = Vec::new();
    for spec in expected {
        // `blocks.0` of `blocks.0.conv.weight`
        let (layer, part) = module(&spec.name).rsplit_once('.').unwrap_or_default();
        push_new(&mut layers, layer);
        if part == "norm" {
            push_new(&mut normed_layers, layer);
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
        if NORM_LEAVES.contains(&leaf(name)) && !linears.contains(&module(name)) {
            push_new(&mut norms, module(name));
        }
    }
    let name_in_model = |name: &str| {
        let (module, leaf) = (module(name), leaf(name));
        if let Some(i) = linears.iter().position(|linear| *linear == module) {
            let known = leaf == "weight" || leaf == "bias";
            return known.then(|| Some(format!("{}.conv.{leaf}", layers.get(i)?)))?;
        }
        let layer = normed_layers.get(norms.iter().position(|norm| *norm == module)?)?;
        NORM_LEAVES.contains(&leaf).then(|| format!("{layer}.norm.{leaf}"))
    };
    tensors
        .map(|(name_in_file, tensor)| {
            let name = match (is_native, is_version_1) {
                (true, _) => None,
                (_, true) => Some(upgrade_name(name_in_file)),
                _ => name_in_model(name_in_file),
            };
            Renamed { name: name.unwrap_or_else(|| (*name_in_file).to_owned()), name_in_file, tensor }
        })
        .collect()
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

/// The longest common prefix of all names that ends with a dot: `module.main.`.
pub(crate) fn common_prefix<'a>(names: &[&'a str]) -> &'a str {
    let Some((first, others)) = names.split_first() else { return "" };
    let mut ends = first.match_indices('.').map(|(at, _)| at + 1);
    let shared = ends.rfind(|end| others.iter().all(|other| other.starts_with(&first[..*end])));
    &first[..shared.unwrap_or(0)]
}

/// The prefixes, without the last dot, of both networks in one flat list of names (`generator.gen.0.0.weight`,
/// `netD.main.0.weight`). Empty if the list is one network.
pub(crate) fn split_prefixes(names: &[&str]) -> Vec<String> {
    let common = common_prefix(names);
    let heads: BTreeSet<&str> =
        names.iter().filter_map(|name| name[common.len()..].split('.').next()).collect();
    let of = |network| heads.iter().filter(move |head| NetworkKind::from_name(head) == Some(network));
    let prefixes = of(NetworkKind::Generator).chain(of(NetworkKind::Discriminator));
    let has_both =
        of(NetworkKind::Generator).next().is_some() && of(NetworkKind::Discriminator).next().is_some();
    if has_both { prefixes.map(|head| format!("{common}{head}")).collect() } else { Vec::new() }
}

/// A sort key that orders `main.10` after `main.2`.
pub(crate) fn natural_key(name: &str) -> Vec<(usize, &str)> {
    let number = |part: &str| part.parse().unwrap_or(usize::MAX);
    name.split('.').map(|part| (number(part), part)).collect()
}
