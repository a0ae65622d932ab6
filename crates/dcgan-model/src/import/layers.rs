//! The layers of a network in a file: each convolution with its bias and its batch norm, in the order of the network.
//!
//! Names differ between programs, but the order of a state dict is that of the modules. A batch norm belongs to the
//! convolution before it. Where a tensor is missing, its layer keeps its place and the name that the file would use.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{self, IMAGE_CHANNELS};
use super::names::{NORM_LEAVES, NamedTensor, NetworkKind, leaf, module, numbered};
use crate::weights::HostTensor;

/// Maximum number of layers of a network.
pub(crate) const MAX_LAYERS: usize = 65;

/// One layer of a network in a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileLayer<'a> {
    /// The module of the convolution: `main.3`. If it is missing, what the numbers around it suggest, or empty.
    pub(crate) module: String,
    pub(crate) weight: Option<&'a HostTensor>,
    pub(crate) bias: Option<&'a HostTensor>,
    pub(crate) norm: Option<FileNorm<'a>>,
}

/// A batch norm in a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileNorm<'a> {
    /// Its module: `main.4`.
    pub(crate) module: String,
    /// By the last part of the name: `weight`, `bias`, `running_mean`, `running_var`.
    pub(crate) tensors: BTreeMap<&'a str, &'a HostTensor>,
}

/// A network in a file.
#[derive(Debug)]
pub(crate) struct FileNetwork<'a> {
    /// In the order of the network.
    pub(crate) layers: Vec<FileLayer<'a>>,
    /// Tensors that belong to no layer.
    pub(crate) others: Vec<NamedTensor<'a>>,
    /// Which network it is; `None` if its shapes do not say.
    pub(crate) kind: Option<NetworkKind>,
}

/// A module in the file.
enum Part<'a> {
    Linear(FileLayer<'a>),
    Norm(FileNorm<'a>),
}

impl<'a> FileNetwork<'a> {
    /// The network in these tensors; `by_name` is the network that its location suggests, for networks whose shapes do
    /// not decide.
    pub(crate) fn new(tensors: &[NamedTensor<'a>], by_name: Option<NetworkKind>) -> Self {
        let (parts, others) = parts(tensors);
        let shapes: Vec<&[usize]> = parts.iter().filter_map(Part::shape).collect();
        let by_shape = chain::whole(&shapes);
        let names: Vec<String> = parts.iter().filter_map(Part::weight_name).collect();
        let weights: Vec<(&str, &[usize])> =
            names.iter().map(String::as_str).zip(shapes.iter().copied()).collect();
        let order = if by_shape.is_none() { chain::only_order(&weights) } else { None };
        let kind = by_shape
            .or(order.as_ref().map(|(kind, _)| *kind))
            .or_else(|| chain::resembled(&shapes))
            .or(by_name);
        let (mut layers, unplaced) = with_norms(parts);
        if let Some((_, order)) = order
            && layers.len() == order.len()
        {
            layers = order.iter().map(|i| layers[*i].clone()).collect();
        }
        if let Some(kind) = kind {
            place_norms(&mut layers, unplaced, kind);
            fill_gaps(&mut layers, kind);
        }
        Self { layers, others, kind }
    }
}

impl FileNetwork<'_> {
    /// A batch norm behind an activation, with its convolution: the numbers of the modules leave a place between the
    /// two and none before the next convolution. Networks of this program have the activation behind the batch norm.
    pub(crate) fn norm_behind_activation(&self) -> Option<(&str, &str)> {
        let numbers = self.layers.iter().filter(|layer| layer.weight.is_some());
        let numbers: BTreeSet<(&str, usize)> = numbers.filter_map(|layer| numbered(&layer.module)).collect();
        self.layers.iter().find_map(|layer| {
            let norm = layer.norm.as_ref()?;
            let ((prefix, a), (other, b)) = (numbered(&layer.module)?, numbered(&norm.module)?);
            let is_behind = prefix == other && b > a + 1 && numbers.contains(&(prefix, b + 1));
            is_behind.then_some((norm.module.as_str(), layer.module.as_str()))
        })
    }
}

impl<'a> Part<'a> {
    fn shape(&self) -> Option<&'a [usize]> {
        match self {
            Self::Linear(layer) => layer.weight.map(|weight| weight.shape.as_slice()),
            Self::Norm(_) => None,
        }
    }

    /// The name of the tensor that [`Self::shape`] describes.
    fn weight_name(&self) -> Option<String> {
        match self {
            Self::Linear(FileLayer { module, weight: Some(_), .. }) if module.is_empty() => {
                Some("weight".to_owned())
            }
            Self::Linear(FileLayer { module, weight: Some(_), .. }) => Some(format!("{module}.weight")),
            _ => None,
        }
    }
}

/// The modules of a file in its order, and the tensors of no known module.
fn parts<'a>(tensors: &[NamedTensor<'a>]) -> (Vec<Part<'a>>, Vec<NamedTensor<'a>>) {
    let mut modules: BTreeMap<&str, Vec<NamedTensor<'a>>> = BTreeMap::new();
    let mut order = Vec::new();
    for tensor in tensors.iter().filter(|(name, _)| leaf(name) != "num_batches_tracked") {
        let tensors = modules.entry(module(tensor.0)).or_default();
        if tensors.is_empty() {
            order.push(module(tensor.0));
        }
        tensors.push(*tensor);
    }
    let get = |name: &str, wanted: &str| {
        modules[name].iter().find(|(name, _)| leaf(name) == wanted).map(|(_, tensor)| *tensor)
    };
    let prefix = |name| numbered(name).map(|(prefix, _)| prefix);
    let is_convolution = |name: &str| get(name, "weight").is_some_and(|weight| weight.shape.len() == 4);
    let prefixes: BTreeSet<&str> =
        order.iter().filter(|name| is_convolution(name)).filter_map(|n| prefix(n)).collect();
    let has_biases = order.iter().any(|name| is_convolution(name) && get(name, "bias").is_some());
    let (mut parts, mut others) = (Vec::new(), Vec::new());
    for name in order {
        let (weight, bias) = (get(name, "weight"), get(name, "bias"));
        let has_statistics = get(name, "running_mean").or(get(name, "running_var")).is_some();
        let is_linear = match weight {
            // A matrix among convolutions is a weight that has lost its axes, or a dense layer.
            Some(weight) => {
                weight.shape.len() == 4
                    || weight.shape.len() == 2 && prefix(name).is_some_and(|prefix| prefixes.contains(prefix))
            }
            // Only the bias of a convolution is left.
            None => bias.is_some() && !has_statistics && has_biases,
        };
        let is_norm = !is_linear && (has_statistics || weight.is_some() && bias.is_some());
        let known: &[&str] = if is_linear {
            parts.push(Part::Linear(FileLayer { module: name.to_owned(), weight, bias, norm: None }));
            &["weight", "bias"]
        } else if is_norm {
            let tensors = NORM_LEAVES.into_iter().filter_map(|leaf| Some((leaf, get(name, leaf)?)));
            parts.push(Part::Norm(FileNorm { module: name.to_owned(), tensors: tensors.collect() }));
            &NORM_LEAVES
        } else {
            &[]
        };
        others.extend(modules[name].iter().filter(|(name, _)| !known.contains(&leaf(name))).copied());
    }
    (parts, others)
}

/// The convolutions, each with the batch norm that follows it in the file. A batch norm that follows another one is
/// what remains of a layer without its convolution. If convolutions and batch norms are not interleaved at all, the
/// batch norms are returned.
fn with_norms<'a>(parts: Vec<Part<'a>>) -> (Vec<FileLayer<'a>>, Vec<FileNorm<'a>>) {
    let is_norm: Vec<bool> = parts.iter().map(|part| matches!(part, Part::Norm(_))).collect();
    let changes = is_norm.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let norms = is_norm.iter().filter(|norm| **norm).count();
    let is_interleaved = changes != 1 || norms < 2 || is_norm.len() - norms < 2;
    let (mut layers, mut unplaced) = (Vec::<FileLayer>::new(), Vec::new());
    for part in parts {
        match part {
            Part::Linear(layer) => layers.push(layer),
            Part::Norm(norm) if !is_interleaved => unplaced.push(norm),
            Part::Norm(norm) => match layers.last_mut().filter(|layer| follows(&norm, layer)) {
                Some(layer) => layer.norm = Some(norm),
                None => {
                    let module = match numbered(&norm.module) {
                        Some((prefix, number @ 1..)) => format!("{prefix}{}", number - 1),
                        _ => String::new(),
                    };
                    layers.push(FileLayer { module, norm: Some(norm), ..FileLayer::default() });
                }
            },
        }
    }
    (layers, unplaced)
}

/// Whether a batch norm that is the next module after a convolution belongs to it. It does not if it has another number
/// of channels and another module between the two is missing.
fn follows(norm: &FileNorm, layer: &FileLayer) -> bool {
    let is_next = match (numbered(&layer.module), numbered(&norm.module)) {
        (Some((one, a)), Some((other, b))) => one != other || b <= a + 1,
        _ => true,
    };
    let fits = || {
        let size = norm.tensors.values().next().and_then(|tensor| tensor.shape.first());
        layer
            .weight
            .zip(size)
            .is_none_or(|(weight, size)| weight.shape.iter().take(2).any(|side| side == size))
    };
    layer.norm.is_none() && (is_next || fits())
}

/// Gives batch norms that are not next to their convolutions to the layers of a DCGAN that have one, or to the next
/// layer with as many channels.
fn place_norms<'a>(layers: &mut [FileLayer<'a>], norms: Vec<FileNorm<'a>>, kind: NetworkKind) {
    let channels = |layer: &FileLayer| layer.weight.and_then(|weight| chain::outputs(&weight.shape, kind));
    let of_norm =
        |norm: &FileNorm| norm.tensors.values().next().and_then(|tensor| tensor.shape.first().copied());
    let start = usize::from(kind == NetworkKind::Discriminator);
    let is_usual = norms.len() + 1 + start == layers.len()
        && norms.iter().zip(&layers[start..]).all(|(norm, layer)| channels(layer) == of_norm(norm));
    let mut next = if is_usual { start } else { 0 };
    for norm in norms {
        let fits = |layer: &FileLayer| channels(layer) == of_norm(&norm);
        let at = (next..layers.len()).find(|i| fits(&layers[*i])).unwrap_or(next);
        if let Some(layer) = layers.get_mut(at) {
            layer.norm = Some(norm);
        }
        next = at + 1;
    }
}

/// Adds layers of which no tensor is left: where the numbers of a Sequential have a gap and the channels do not
/// connect, and at the ends, where a DCGAN has no batch norm.
fn fill_gaps(layers: &mut Vec<FileLayer>, kind: NetworkKind) {
    let number = |layer: &FileLayer| numbered(&layer.module).map(|(prefix, n)| (prefix.to_owned(), n));
    // What is missing or misshapen says nothing.
    let connects = |a: &FileLayer, b: &FileLayer| {
        let out = a.weight.and_then(|weight| chain::outputs(&weight.shape, kind));
        let into = b.weight.and_then(|weight| chain::inputs(&weight.shape, kind));
        out.zip(into).is_none_or(|(out, into)| out == into)
    };
    let step = |a: &FileLayer, b: &FileLayer| match (number(a), number(b)) {
        (Some((one, a)), Some((other, b))) if one == other => b.checked_sub(a),
        _ => None,
    };
    let has_norms = layers.iter().filter(|layer| layer.norm.is_some()).count() * 2 + 3 > layers.len();
    let mut i = 1;
    while i < layers.len() && layers.len() < MAX_LAYERS {
        let (before, after) = (&layers[i - 1], &layers[i]);
        // Convolution, batch norm if there is one, activation.
        let usual = if before.norm.is_some() { 3 } else { 2 };
        let gap = step(before, after).filter(|step| *step > usual && !connects(before, after));
        if let (Some(_), Some((prefix, n))) = (gap, number(before)) {
            let module = |number: usize| format!("{prefix}{number}");
            let norm = FileNorm { module: module(n + usual + 1), tensors: BTreeMap::new() };
            let norm = has_norms.then_some(norm);
            layers.insert(i, FileLayer { module: module(n + usual), norm, ..FileLayer::default() });
        }
        i += 1;
    }
    let image = |channels: Option<usize>| channels.is_none_or(|channels| IMAGE_CHANNELS.contains(&channels));
    let after_norm = |layer: &FileLayer| {
        let (prefix, n) = numbered(&layer.norm.as_ref()?.module)?;
        Some(format!("{prefix}{}", n + 2))
    };
    if kind == NetworkKind::Discriminator
        && let Some(first) = layers.first()
        && let Some(weight) = first.weight
        && first.norm.is_some()
        && !image(chain::inputs(&weight.shape, kind))
    {
        let module = numbered(&first.module).map(|(prefix, _)| format!("{prefix}0")).unwrap_or_default();
        layers.insert(0, FileLayer { module, ..FileLayer::default() });
    }
    if let Some(last) = layers.last()
        && last.norm.is_some()
    {
        let channels = last.weight.and_then(|weight| chain::outputs(&weight.shape, kind));
        let is_end = match kind {
            NetworkKind::Generator => image(channels),
            NetworkKind::Discriminator => channels == Some(1),
        };
        if !is_end || channels.is_none() {
            let module = after_norm(last).unwrap_or_default();
            layers.push(FileLayer { module, ..FileLayer::default() });
        }
    }
}
