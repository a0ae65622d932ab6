//! Which network a list of layers is: its channels form a chain in one of the two layouts of weights.
//!
//! A transposed convolution has the shape `(in, out, h, w)`, a convolution `(out, in, h, w)`. The layers of a generator
//! end with the channels of an image; those of a discriminator start with them, and end with one logit.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{NamedTensor, NetworkKind, common_prefix, leaf, module, numbered};
use super::reparametrize::weight_name;

/// Channels of images.
pub(crate) const IMAGE_CHANNELS: [usize; 3] = [1, 3, 4];

/// Maximum number of orders of layers that are tried.
const MAX_ORDERS: usize = 10_000;

/// Maximum number of parts that a list of tensors is divided into at one place of their names.
const MAX_PARTS: usize = 256;

/// The channels that go into a weight of this shape.
pub(crate) fn inputs(shape: &[usize], network: NetworkKind) -> Option<usize> {
    let [first, second, _, _] = shape else { return None };
    Some(if network == NetworkKind::Generator { *first } else { *second })
}

/// The channels that come out of a weight of this shape.
pub(crate) fn outputs(shape: &[usize], network: NetworkKind) -> Option<usize> {
    let [first, second, _, _] = shape else { return None };
    Some(if network == NetworkKind::Generator { *second } else { *first })
}

/// The names and shapes of the weights of convolutions in the order of the file, also where the weight is computed from
/// other tensors.
pub(crate) fn convolutions<'a>(tensors: &[NamedTensor<'a>]) -> Vec<(String, &'a [usize])> {
    let mut found: Vec<(String, &[usize])> = Vec::new();
    let mut names = BTreeSet::new();
    for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.shape.len() == 4) {
        let weight = if leaf(name) == "weight" { Some((*name).to_owned()) } else { weight_name(name) };
        if let Some(weight) = weight.filter(|weight| names.insert(weight.clone())) {
            found.push((weight, &tensor.shape));
        }
    }
    found
}

/// How many of the connections of a network hold: from each layer to the next, and at the images' end and at the
/// logit.
fn score(shapes: &[&[usize]], network: NetworkKind) -> usize {
    let linked = |pair: &[&[usize]]| {
        let (out, next) = (outputs(pair[0], network), inputs(pair[1], network));
        out.is_some() && out == next
    };
    let links = shapes.windows(2).filter(|pair| linked(pair)).count();
    let ends = ends_hold(shapes, network);
    links + usize::from(ends)
}

fn ends_hold(shapes: &[&[usize]], network: NetworkKind) -> bool {
    let is_image = |channels: Option<usize>| channels.is_some_and(|c| IMAGE_CHANNELS.contains(&c));
    let (Some(first), Some(last)) = (shapes.first(), shapes.last()) else { return false };
    match network {
        NetworkKind::Generator => is_image(outputs(last, network)),
        NetworkKind::Discriminator => is_image(inputs(first, network)) && outputs(last, network) == Some(1),
    }
}

/// Whether some of the shapes can be the ends of a network.
fn can_end(shapes: &[&[usize]], network: NetworkKind) -> bool {
    let any = |holds: &dyn Fn(&[usize]) -> bool| shapes.iter().any(|shape| holds(shape));
    let is_image = |channels: Option<usize>| channels.is_some_and(|c| IMAGE_CHANNELS.contains(&c));
    match network {
        NetworkKind::Generator => any(&|shape| is_image(outputs(shape, network))),
        NetworkKind::Discriminator => {
            any(&|shape| is_image(inputs(shape, network))) && any(&|shape| outputs(shape, network) == Some(1))
        }
    }
}

/// Whether these layers are a whole network of two layers or more.
fn is_whole(shapes: &[&[usize]], network: NetworkKind) -> bool {
    shapes.len() > 1 && score(shapes, network) == shapes.len()
}

/// The network that these shapes form without any fault, in this order.
pub(crate) fn whole(shapes: &[&[usize]]) -> Option<NetworkKind> {
    let [g, d] = [NetworkKind::Generator, NetworkKind::Discriminator].map(|kind| is_whole(shapes, kind));
    match (g, d) {
        (true, false) => Some(NetworkKind::Generator),
        (false, true) => Some(NetworkKind::Discriminator),
        _ => None,
    }
}

/// The network that these shapes resemble more; `None` if that is open.
pub(crate) fn resembled(shapes: &[&[usize]]) -> Option<NetworkKind> {
    let [g, d] = [NetworkKind::Generator, NetworkKind::Discriminator].map(|kind| score(shapes, kind));
    match g.cmp(&d) {
        std::cmp::Ordering::Greater => Some(NetworkKind::Generator),
        std::cmp::Ordering::Less => Some(NetworkKind::Discriminator),
        std::cmp::Ordering::Equal => None,
    }
}

/// The only order in which these weights form a whole network, as positions in the list, and that network. `None` if
/// there is no such order, or several, and for layers that are numbered in one Sequential, whose order is known.
pub(crate) fn only_order(weights: &[(&str, &[usize])]) -> Option<(NetworkKind, Vec<usize>)> {
    let sequential = |weight: &&str| numbered(module(weight)).map(|(prefix, _)| prefix.to_owned());
    let (names, shapes): (Vec<&str>, Vec<&[usize]>) = weights.iter().copied().unzip();
    let first = names.first().and_then(sequential);
    if first.is_some() && names.iter().all(|name| sequential(name) == first) {
        return None;
    }
    let shapes = shapes.as_slice();
    let mut found = Vec::new();
    for network in [NetworkKind::Generator, NetworkKind::Discriminator] {
        if !can_end(shapes, network) {
            continue;
        }
        let mut search = Search { shapes, network, order: Vec::new(), found: Vec::new(), steps: 0 };
        search.extend();
        if search.steps >= MAX_ORDERS {
            return None;
        }
        found.extend(search.found.into_iter().map(|order| (network, order)));
    }
    // Layers of the same shape can be exchanged; the order of the file decides then.
    let mut known = Vec::new();
    found.retain(|(network, order)| {
        let key = (*network, order.iter().map(|i| shapes[*i]).collect::<Vec<_>>());
        let is_new = !known.contains(&key);
        known.push(key);
        is_new
    });
    if found.len() == 1 { found.pop() } else { None }
}

struct Search<'a> {
    shapes: &'a [&'a [usize]],
    network: NetworkKind,
    order: Vec<usize>,
    found: Vec<Vec<usize>>,
    steps: usize,
}

impl Search<'_> {
    /// Depth is the number of layers, at most 64.
    fn extend(&mut self) {
        self.steps += 1;
        if self.steps >= MAX_ORDERS || self.shapes.len() > 64 {
            return;
        }
        if self.order.len() == self.shapes.len() {
            let ordered: Vec<&[usize]> = self.order.iter().map(|i| self.shapes[*i]).collect();
            if is_whole(&ordered, self.network) {
                self.found.push(self.order.clone());
            }
            return;
        }
        for i in 0..self.shapes.len() {
            let linked = self.order.last().is_none_or(|last| {
                let out = outputs(self.shapes[*last], self.network);
                out.is_some() && out == inputs(self.shapes[i], self.network)
            });
            if linked && !self.order.contains(&i) {
                self.order.push(i);
                self.extend();
                self.order.pop();
            }
        }
    }
}

/// The network that these tensors form without any fault, in their order or in the only other one.
pub(crate) fn whole_network(tensors: &[NamedTensor]) -> Option<NetworkKind> {
    let found = convolutions(tensors);
    let weights: Vec<(&str, &[usize])> = found.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
    let shapes: Vec<&[usize]> = found.iter().map(|(_, shape)| *shape).collect();
    whole(&shapes).or_else(|| only_order(&weights).map(|(kind, _)| kind))
}

/// The networks in one list of tensors, each with its prefix, without the last dot: `netG.main`; the list itself if it
/// is one network. A list is divided where the parts between two dots differ, if a part is then a whole network or
/// the parts have the names of both networks.
pub(crate) fn networks<'a>(tensors: &[NamedTensor<'a>]) -> Vec<(String, Vec<NamedTensor<'a>>)> {
    let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let undivided = || {
        let of_layers = convolutions(tensors);
        let modules: Vec<&str> = of_layers.iter().map(|(name, _)| name.as_str()).collect();
        let prefix = if modules.is_empty() { common_prefix(&names) } else { common_prefix(&modules) };
        vec![(prefix.trim_end_matches('.').to_owned(), tensors.to_vec())]
    };
    let all = convolutions(tensors);
    let shapes: Vec<&[usize]> = all.iter().map(|(_, shape)| *shape).collect();
    if whole(&shapes).is_some() {
        return undivided();
    }
    let common = common_prefix(&names);
    let head = |name: &str| {
        let rest = &name[common.len()..];
        rest.split_once('.').map(|(head, _)| head.to_owned())
    };
    let mut heads: BTreeMap<Option<String>, Vec<NamedTensor>> = BTreeMap::new();
    for tensor in tensors {
        heads.entry(head(tensor.0)).or_default().push(*tensor);
    }
    let rest = heads.remove(&None);
    if !(2..=MAX_PARTS).contains(&heads.len()) {
        return undivided();
    }
    let parts: Vec<_> = heads.values().flat_map(|part| networks(part)).collect();
    let is_whole = |part: &(String, Vec<NamedTensor>)| whole_network(&part.1).is_some();
    let named = |network| heads.keys().flatten().any(|head| NetworkKind::from_name(head) == Some(network));
    let has_both_names = named(NetworkKind::Generator) && named(NetworkKind::Discriminator);
    // Layers in another order than that of the network. Two whole networks can connect to a longer one, too.
    let of_layers: Vec<_> = parts.iter().filter(|part| !convolutions(&part.1).is_empty()).collect();
    let are_networks = of_layers.len() > 1 && of_layers.iter().all(|part| is_whole(part));
    if !are_networks && whole_network(tensors).is_some() {
        return undivided();
    }
    if !parts.iter().any(is_whole) && !has_both_names {
        return undivided();
    }
    let rest = rest.map(|rest| (common.trim_end_matches('.').to_owned(), rest));
    parts.into_iter().chain(rest).collect()
}
