//! Weights that PyTorch computes from other tensors: spectral norm, weight norm and pruning, each replaced by the
//! weight that the module uses in evaluation mode.
//!
//! | tensors of a module | weight |
//! |---|---|
//! | `weight_orig`, `weight_u`, `weight_v` (`nn.utils.spectral_norm`) | W / sigma, sigma = u^T W v |
//! | `parametrizations.weight.original`, `.0._u`, `.0._v` | the same |
//! | `weight_g`, `weight_v` (`nn.utils.weight_norm`) | g v / norm of v over the axes where g has one value |
//! | `parametrizations.weight.original0`, `.original1` | the same |
//! | `weight_orig`, `weight_mask` (`nn.utils.prune`) | W * mask |
//!
//! W is the matrix whose rows are the slices of the tensor along the axis of output channels: axis 0 of a convolution,
//! axis 1 of a transposed convolution. PyTorch updates u and v only in training mode.

use std::collections::{BTreeMap, BTreeSet};

use super::names::NetworkKind;
use crate::weights::{HostTensor, Shape};

/// A tensor by its name, owned.
pub(crate) type OwnedTensor = (String, HostTensor);

/// A tensor that cannot be computed, and why.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) tensor: String,
    pub(crate) problem: String,
}

/// The form in which a module stores its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Spectral,
    Weight,
    Pruned,
}

/// Suffixes of the tensors of each form: what the position in the file is taken from, then the others.
const FORMS: [(Form, &str, &[&str]); 5] = [
    (Form::Spectral, "weight_orig", &["weight_u"]),
    (
        Form::Spectral,
        "parametrizations.weight.original",
        &["parametrizations.weight.0._u", "parametrizations.weight.0._v"],
    ),
    (Form::Weight, "weight_g", &["weight_v"]),
    (Form::Weight, "parametrizations.weight.original0", &["parametrizations.weight.original1"]),
    (Form::Pruned, "weight_orig", &["weight_mask"]),
];

/// The name of the weight if `name` is the first tensor of a form: `main.0.weight` for `main.0.weight_orig`. A network
/// can be recognized by the shapes of these tensors.
pub(crate) fn weight_name(name: &str) -> Option<String> {
    // The shape of weight_g is not that of the weight.
    let firsts = ["weight_orig", "parametrizations.weight.original", "parametrizations.weight.original1"];
    let module = firsts.iter().find_map(|first| module_of(name, first));
    let of_weight_norm =
        || name.strip_suffix("weight_v").filter(|module| module.is_empty() || module.ends_with('.'));
    module.or_else(of_weight_norm).map(|module| format!("{module}weight"))
}

/// `main.0.` of `main.0.weight_orig`.
fn module_of<'a>(name: &'a str, suffix: &str) -> Option<&'a str> {
    name.strip_suffix(suffix).filter(|module| module.is_empty() || module.ends_with('.'))
}

/// Replaces every such group of tensors by the weight, at the place of its first tensor. `network` decides which axis
/// holds the output channels where the shapes do not. Also returns a sentence for each form that was found.
///
/// # Errors
/// Tensors whose shapes do not fit, and parametrizations of other kinds.
pub(crate) fn weights(
    tensors: Vec<OwnedTensor>,
    network: Option<NetworkKind>,
) -> Result<(Vec<OwnedTensor>, Vec<String>), Unfit> {
    let by_name: BTreeMap<&str, &HostTensor> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let mut computed: BTreeMap<String, HostTensor> = BTreeMap::new();
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut counts: BTreeMap<Form, usize> = BTreeMap::new();
    for (name, tensor) in &tensors {
        for (form, first, others) in FORMS {
            let Some(module) = module_of(name, first) else { continue };
            let full = |suffix: &str| format!("{module}{suffix}");
            let others: Vec<&HostTensor> =
                others.iter().filter_map(|other| by_name.get(full(other).as_str()).copied()).collect();
            let unfit = |problem: String| Unfit { tensor: name.clone(), problem };
            let weight = match (form, others.as_slice()) {
                (Form::Spectral, [u, v @ ..]) => {
                    // Since PyTorch 1.0 the old form has v as well. Before, it had the weight itself.
                    let old_v = by_name.get(full("weight_v").as_str()).copied();
                    match (v.first().copied().or(old_v), by_name.get(full("weight").as_str())) {
                        (None, Some(weight)) if weight.shape == tensor.shape => (*weight).clone(),
                        (v, _) => spectral(tensor, u, v, network).map_err(unfit)?,
                    }
                }
                (Form::Weight, [direction]) => normalized(tensor, direction).map_err(unfit)?,
                (Form::Pruned, [mask]) => masked(tensor, mask).map_err(unfit)?,
                _ => continue,
            };
            *counts.entry(form).or_default() += 1;
            used.extend(FORMS.iter().flat_map(|(_, first, others)| {
                [first].into_iter().chain(others.iter()).map(|suffix| full(suffix)).collect::<Vec<_>>()
            }));
            used.extend([full("weight_v"), full("weight")]);
            computed.insert(name.clone(), weight);
            break;
        }
    }
    let mut folded = Vec::new();
    for (name, tensor) in tensors {
        if let Some(weight) = computed.remove(&name) {
            let module = FORMS.iter().find_map(|(_, first, _)| module_of(&name, first)).unwrap_or_default();
            folded.push((format!("{module}weight"), weight));
        } else if used.contains(&name) {
        } else if name.contains("parametrizations.") {
            let problem = "a parametrization that is neither spectral norm nor weight norm; save the network after \
                           torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')";
            return Err(Unfit { tensor: name, problem: problem.to_owned() });
        } else {
            folded.push((name, tensor));
        }
    }
    let notes = counts.into_iter().map(|(form, count)| {
        let what = match form {
            Form::Spectral => "spectral norm",
            Form::Weight => "weight norm",
            Form::Pruned => "pruning masks",
        };
        format!("{what} of {count} layers is folded into the weights, as in evaluation mode")
    });
    Ok((folded, notes.collect()))
}

/// W / sigma with sigma = u^T W v; without v, it is W^T u normalized.
fn spectral(
    weight: &HostTensor,
    u: &HostTensor,
    v: Option<&HostTensor>,
    network: Option<NetworkKind>,
) -> Result<HostTensor, String> {
    let total = weight.data.len();
    let fits = |axis: &usize| {
        let rows = weight.shape.get(*axis).copied().unwrap_or(0);
        rows > 0 && rows == u.data.len() && v.is_none_or(|v| v.data.len() * rows == total)
    };
    let preferred = usize::from(network == Some(NetworkKind::Generator));
    let Some(axis) = [preferred, 1 - preferred].into_iter().find(fits) else {
        return Err(format!(
            "expected vectors u and v of spectral norm that fit its shape {}, found {} and {} values",
            Shape(&weight.shape),
            u.data.len(),
            v.map_or(0, |v| v.data.len())
        ));
    };
    let rows = weight.shape[axis];
    // Position (row, column) of each value.
    let inner: usize = weight.shape[axis + 1..].iter().product();
    let place = |i: usize| ((i / inner) % rows, i / (inner * rows) * inner + i % inner);
    let wide = |value: f32| f64::from(value);
    let v: Vec<f64> = match v {
        Some(v) => v.data.iter().copied().map(wide).collect(),
        None => {
            let mut product = vec![0.0; total / rows];
            for (i, value) in weight.data.iter().enumerate() {
                let (row, column) = place(i);
                product[column] += wide(u.data[row]) * wide(*value);
            }
            let norm = product.iter().map(|x| x * x).sum::<f64>().sqrt();
            product.iter().map(|x| x / norm).collect()
        }
    };
    let sigma: f64 = weight
        .data
        .iter()
        .enumerate()
        .map(|(i, value)| {
            let (row, column) = place(i);
            wide(u.data[row]) * wide(*value) * v[column]
        })
        .sum();
    Ok(map(weight, |value| value / sigma))
}

/// g v / norm of v.
fn normalized(gain: &HostTensor, direction: &HostTensor) -> Result<HostTensor, String> {
    let HostTensor { shape, data } = direction;
    let axes = gain.shape.len();
    let fits = (axes == 0 || axes == shape.len())
        && gain.shape.iter().zip(shape).all(|(one, all)| *one == 1 || one == all);
    if !fits || gain.data.is_empty() {
        return Err(format!(
            "expected a gain of weight norm that fits the shape {}, found {}",
            Shape(shape),
            Shape(&gain.shape)
        ));
    }
    // The group of each value: the position of its gain.
    let group = |i: usize| {
        let (mut rest, mut stride, mut at) = (i, 1, 0);
        for (size, one) in shape.iter().zip(&gain.shape).rev() {
            let index = rest % size;
            rest /= size;
            if *one != 1 {
                at += index * stride;
                stride *= one;
            }
        }
        at
    };
    let mut squares = vec![0.0_f64; gain.data.len()];
    for (i, value) in data.iter().enumerate() {
        squares[group(i)] += f64::from(*value).powi(2);
    }
    let scaled = data.iter().enumerate().map(|(i, value)| {
        let group = group(i);
        narrow(f64::from(*value) * f64::from(gain.data[group]) / squares[group].sqrt())
    });
    Ok(HostTensor { shape: shape.clone(), data: scaled.collect() })
}

fn masked(weight: &HostTensor, mask: &HostTensor) -> Result<HostTensor, String> {
    if weight.shape != mask.shape {
        let (expected, found) = (Shape(&weight.shape), Shape(&mask.shape));
        return Err(format!("expected a mask of shape {expected}, found {found}"));
    }
    let data = weight.data.iter().zip(&mask.data).map(|(value, mask)| value * mask).collect();
    Ok(HostTensor { shape: weight.shape.clone(), data })
}

fn map(tensor: &HostTensor, f: impl Fn(f64) -> f64) -> HostTensor {
    let data = tensor.data.iter().map(|value| narrow(f(f64::from(*value)))).collect();
    HostTensor { shape: tensor.shape.clone(), data }
}

#[expect(clippy::cast_possible_truncation, reason = "weights are rounded to the nearest f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
