//! The configuration of networks from the tensors of a file.
//!
//! Shapes give the channels, the size of z, the kernels, the number of layers, and which layers have a bias and batch
//! norm. Strides and paddings are those of the modules, if whole networks were saved ([`modules`]), or else follow
//! from kernels and the size of the images ([`geometry`]). The rest is assumed to be as in pytorch/examples, see
//! [`ASSUMED`].

use std::collections::BTreeMap;

use super::chain::{self, IMAGE_CHANNELS};
use super::geometry::{self, Found, Problem, Sides};
use super::layers::{FileLayer, FileNetwork, MAX_LAYERS};
use super::modules::{self, Known, Modules};
use super::names::NetworkKind;
use crate::config::OnLayers;
use crate::{
    BlockConfig, CONFIG_VERSION, DiscriminatorConfig, Distribution, GeneratorConfig, LatentConfig,
    ModelConfig, NormConfig, Preset,
};
use dcgan_ops::{Activation, NormAxes};

/// What tensors do not say.
pub(crate) const ASSUMED: &str = "assumed, since tensors do not say it: z from N(0, 1), a first layer of G with stride \
    1 and no padding, ReLU and tanh in G, LeakyReLU with slope 0.2 in D, batch norm with eps 1e-5; if the networks \
    differ from this, import with --config F.toml";

/// The name of a configuration that no preset has.
const NAME: &str = "imported";

/// A kernel that is missing is taken to be as in pytorch/examples.
const KERNEL: usize = 4;

/// The size of z of pytorch/examples.
const LATENT_SIZE: usize = 100;

/// One network as its tensors describe it.
struct Sizes {
    /// Channels of the input of each layer, and of the last output.
    widths: Vec<usize>,
    /// Kernel of each layer.
    kernels: Vec<(usize, usize)>,
    biases: Vec<bool>,
    norms: Vec<bool>,
    affine: bool,
    /// Whether the batch norm after the projection is per activation.
    per_activation: bool,
    /// What the modules say.
    known: Known,
}

/// A network in a file: its layers, and what its modules say.
pub(crate) type Parts<'a, 'n> = (&'n FileNetwork<'a>, &'n Modules);

/// The configuration of the networks given, and sentences for the user. A network that is not given mirrors the other
/// one.
///
/// # Errors
/// Why the tensors do not decide, and what is missing.
pub(crate) fn config(
    generator: Option<Parts>,
    discriminator: Option<Parts>,
    size: Option<Sides>,
) -> Result<(ModelConfig, Vec<String>), String> {
    let d_channels = discriminator.and_then(|(d, _)| {
        let first = d.layers.first()?.weight?;
        chain::inputs(&first.shape, NetworkKind::Discriminator).filter(|c| IMAGE_CHANNELS.contains(c))
    });
    let channels = d_channels.unwrap_or(3);
    let g = generator.map(|(g, modules)| sizes(g, modules, NetworkKind::Generator, channels)).transpose()?;
    let d = discriminator
        .map(|(d, modules)| sizes(d, modules, NetworkKind::Discriminator, channels))
        .transpose()?;
    let (of_g, of_d) = (NetworkKind::Generator, NetworkKind::Discriminator);
    let alone = |kind, sizes: &Option<Sizes>| sizes.as_ref().map(|sizes| geometry_of(kind, sizes, size));
    let (mut g_found, mut d_found) = (alone(of_g, &g), alone(of_d, &d));
    if let (Some(g), Some(d), Some(g_way), Some(d_way)) = (&g, &d, &mut g_found, &mut d_found)
        && size.is_none()
    {
        // The size of the images that one network decides is known to the other.
        let image = |way: &Result<Found, Problem>| way.as_ref().ok().map(|found| found.image);
        if let Some(Ok(known)) = image(g_way).map(|image| geometry_of(of_d, d, Some(image))) {
            *d_way = Ok(known);
        } else if let Some(Ok(known)) = image(d_way).map(|image| geometry_of(of_g, g, Some(image))) {
            *g_way = Ok(known);
        }
    }
    let checked = |kind, sizes: &Option<Sizes>, found: Option<Result<Found, Problem>>| {
        sizes.as_ref().zip(found).map(|(sizes, found)| described(kind, sizes, found)).transpose()
    };
    let (g_found, d_found) = (checked(of_g, &g, g_found)?, checked(of_d, &d, d_found)?);
    let (g, g_found) = g.zip(g_found).unzip();
    let (d, d_found) = d.zip(d_found).unzip();
    let mut config = joined(g.as_ref().zip(g_found).as_ref(), d.as_ref().zip(d_found).as_ref())?;
    for name in Preset::names() {
        let known = Preset::named(name).ok().map(|preset| preset.model);
        let named = ModelConfig { name: name.to_owned(), ..config.clone() };
        if known.is_some_and(|known| known == named) {
            config = named;
        }
    }
    let notes = notes(&config, g.as_ref(), d.as_ref());
    Ok((config, notes))
}

/// The sizes of one network. Where tensors disagree on a width, most of them decide; the others are faults.
fn sizes(
    network: &FileNetwork,
    modules: &Modules,
    kind: NetworkKind,
    channels: usize,
) -> Result<Sizes, String> {
    let layers = &network.layers;
    if !(2..=MAX_LAYERS).contains(&layers.len()) {
        return Err(format!("the {kind} has {} layers, expected 2 to {MAX_LAYERS}", layers.len()));
    }
    let out = |layer: &FileLayer| layer.weight.and_then(|weight| chain::outputs(&weight.shape, kind));
    let into = |layer: &FileLayer| layer.weight.and_then(|weight| chain::inputs(&weight.shape, kind));
    let image = |channels: usize| IMAGE_CHANNELS.contains(&channels);
    let first = layers.iter().find_map(into);
    let last = layers.last().and_then(out).filter(|last| *last != 1 && image(*last));
    if let (NetworkKind::Discriminator, Some(first), Some(last)) = (kind, first.filter(|c| !image(*c)), last)
    {
        return Err(format!(
            "the convolutions go from {first} channels to the {last} of an image: a generator of upsampling and \
             nn.Conv2d, expected nn.ConvTranspose2d"
        ));
    }
    let mut widths = Vec::new();
    for i in 0..=layers.len() {
        let mut votes: Vec<usize> = Vec::new();
        if let Some(before) = i.checked_sub(1).map(|i| &layers[i]) {
            votes.extend(out(before));
            votes.extend(before.bias.and_then(|bias| bias.shape.first()));
            votes.extend(
                before.norm.iter().flat_map(|norm| norm.tensors.values()).filter_map(|t| t.shape.first()),
            );
        }
        votes.extend(layers.get(i).and_then(into));
        let is_end = i == layers.len();
        let usual = match (kind, i) {
            (NetworkKind::Generator, 0) => LATENT_SIZE,
            (NetworkKind::Discriminator, _) if is_end => 1,
            _ => channels,
        };
        let width = majority(&votes).unwrap_or(usual);
        let is_valid = match kind {
            NetworkKind::Generator => !is_end || image(width),
            NetworkKind::Discriminator if i == 0 => image(width),
            NetworkKind::Discriminator => !is_end || width == 1,
        };
        if !is_valid {
            let module = |i: usize| layers.get(i).map_or("", |layer| layer.module.as_str());
            return Err(match kind {
                NetworkKind::Generator => {
                    format!("{}.weight gives images of {width} channels, expected 1, 3 or 4", module(i - 1))
                }
                NetworkKind::Discriminator if is_end => {
                    format!("{}.weight gives {width} values, expected one logit", module(i - 1))
                }
                NetworkKind::Discriminator => {
                    format!("{}.weight takes images of {width} channels, expected 1, 3 or 4", module(0))
                }
            });
        }
        widths.push(width);
    }
    let kernel = |layer: &FileLayer| match layer.weight.map(|weight| weight.shape.as_slice()) {
        Some([_, _, rows, columns]) => Some((*rows, *columns)),
        _ => None,
    };
    let end = if kind == NetworkKind::Generator { 0 } else { layers.len() - 1 };
    let square = |kernel: &(usize, usize)| kernel.0 == kernel.1;
    let blocks = layers.iter().enumerate().filter(|(i, _)| *i != end).filter_map(|(_, layer)| kernel(layer));
    let blocks: Vec<usize> = blocks.filter(square).map(|(side, _)| side).collect();
    let usual = majority(&blocks).unwrap_or(KERNEL);
    let kernels = layers.iter().enumerate().map(|(i, layer)| match kernel(layer) {
        Some(kernel) if i == end || square(&kernel) => kernel,
        _ if i == end => (KERNEL, KERNEL),
        _ => (usual, usual),
    });
    let norms: Vec<_> = layers.iter().filter_map(|layer| layer.norm.as_ref()).collect();
    Ok(Sizes {
        widths,
        kernels: kernels.collect(),
        biases: layers.iter().map(|layer| layer.bias.is_some()).collect(),
        norms: layers.iter().map(|layer| layer.norm.is_some()).collect(),
        affine: norms.is_empty()
            || norms.iter().any(|norm| ["weight", "bias"].iter().any(|leaf| norm.tensors.contains_key(leaf))),
        per_activation: layers[0]
            .norm
            .iter()
            .flat_map(|norm| norm.tensors.values())
            .any(|t| t.shape.len() == 3),
        known: modules::known(network, modules, kind)?,
    })
}

/// The value that occurs most often, the first one of equals.
fn majority(votes: &[usize]) -> Option<usize> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    votes.iter().for_each(|vote| *counts.entry(*vote).or_default() += 1);
    let most = counts.values().max()?;
    votes.iter().copied().find(|vote| counts[vote] == *most)
}

fn geometry_of(network: NetworkKind, sizes: &Sizes, size: Option<Sides>) -> Result<Found, Problem> {
    let Sizes { widths, kernels, known, .. } = sizes;
    let block = |i: usize| (widths[i + 1], kernels[i].0, known.steps[i]);
    let blocks: Vec<geometry::Block> = match network {
        NetworkKind::Generator => (1..kernels.len()).map(block).collect(),
        NetworkKind::Discriminator => (0..kernels.len() - 1).map(block).collect(),
    };
    let map = match network {
        NetworkKind::Generator => kernels[0],
        NetworkKind::Discriminator => kernels[kernels.len() - 1],
    };
    geometry::blocks(network, map, &blocks, size)
}

/// A problem as a sentence that says what is missing.
fn described(network: NetworkKind, sizes: &Sizes, found: Result<Found, Problem>) -> Result<Found, String> {
    let kernels: Vec<String> =
        sizes.kernels.iter().map(|(rows, columns)| format!("{rows}x{columns}")).collect();
    let kernels = format!("the {network}'s kernels are {}", kernels.join(", "));
    let list = |sizes: &[Sides]| {
        let shown: Vec<String> =
            sizes.iter().take(8).map(|(rows, columns)| format!("{rows}x{columns}")).collect();
        let more = if sizes.len() > 8 { format!(" and {} more", sizes.len() - 8) } else { String::new() };
        format!("{}{more}", shown.join(", "))
    };
    found.map_err(|problem| match problem {
        Problem::Kernel(kernel) => {
            format!("{kernels}, and {kernel}x{kernel} has no usual stride and padding: give --config F.toml")
        }
        Problem::Several(images) if images.len() > 1 => format!(
            "{kernels}, which fit several strides and paddings, for images of {}: give the size with \
             `dcgan-train import --size HxW`, or --config F.toml",
            list(&images)
        ),
        Problem::Several(_) => format!("{kernels}, which fit several strides and paddings: give --config F.toml"),
        Problem::NotThisSize((rows, columns), images) => format!(
            "{kernels}, which the usual strides and paddings do not take to images of {rows}x{columns}, only to {}: \
             correct the size, or give --config F.toml",
            list(&images)
        ),
    })
}

type Network<'a> = (&'a Sizes, Found);

fn joined(g: Option<&Network>, d: Option<&Network>) -> Result<ModelConfig, String> {
    let image = |sizes: &Sizes, at: usize, found: &Found| (found.image.0, found.image.1, sizes.widths[at]);
    let of_g = g.map(|(sizes, found)| image(sizes, sizes.widths.len() - 1, found));
    let of_d = d.map(|(sizes, found)| image(sizes, 0, found));
    if let (Some(g), Some(d)) = (of_g, of_d)
        && g != d
    {
        let show = |(rows, columns, channels)| format!("{rows}x{columns} with {channels} channel(s)");
        return Err(format!(
            "the generator gives images of {}, the discriminator takes {}: they do not belong together; import each \
             alone, or give --config F.toml",
            show(g),
            show(d)
        ));
    }
    let Some((height, width, channels)) = of_g.or(of_d) else { return Err("no network".to_owned()) };
    let usual_norm = NormConfig { eps: 1e-5, affine: true, layers: None };
    let block = |channels| BlockConfig::plain(channels, 4, 2, 1);
    let norm = |sizes: &Sizes, usual: &[bool]| NormConfig {
        affine: sizes.affine,
        layers: (sizes.norms != usual).then(|| sizes.norms.clone()),
        eps: sizes.known.eps.unwrap_or(usual_norm.eps),
    };
    let generator = match g {
        Some((sizes, found)) => {
            let n = sizes.norms.len();
            let stride = found.blocks.iter().map(|block| block.stride).product::<usize>();
            let map = sizes.kernels[0];
            let is_usual =
                (map.0.checked_mul(stride), map.1.checked_mul(stride)) == (Some(height), Some(width));
            GeneratorConfig {
                dense: Vec::new(),
                project_channels: sizes.widths[1],
                project_size: (!is_usual).then_some(map),
                project_norm: if sizes.per_activation {
                    NormAxes::PerActivation
                } else {
                    NormAxes::PerChannel
                },
                norm: norm(sizes, &usual_generator(n)),
                bias: OnLayers::from(sizes.biases.as_slice()),
                blocks: found.blocks.clone(),
                output: sizes.known.output.unwrap_or(Activation::Tanh),
            }
        }
        None => {
            // D's widths in reverse, with as many doublings as the sides allow.
            let hidden = d.iter().flat_map(|(sizes, _)| sizes.widths[1..sizes.widths.len() - 1].iter().rev());
            let hidden: Vec<usize> = hidden.copied().collect();
            let doublings = hidden.len().min(height.trailing_zeros().min(width.trailing_zeros()) as usize);
            let widths = hidden.iter().copied().take(doublings).skip(1).chain([channels]);
            let single = BlockConfig::plain(channels, 3, 1, 1);
            GeneratorConfig {
                dense: Vec::new(),
                project_channels: hidden[0],
                project_size: None,
                project_norm: NormAxes::PerChannel,
                norm: usual_norm.clone(),
                bias: OnLayers::All(false),
                blocks: if doublings == 0 { vec![single] } else { widths.map(block).collect() },
                output: Activation::Tanh,
            }
        }
    };
    let discriminator = match d {
        Some((sizes, found)) => DiscriminatorConfig {
            dense: Vec::new(),
            negative_slope: sizes.known.negative_slope.unwrap_or(0.2),
            activation: None,
            norm: norm(sizes, &usual_discriminator(sizes.norms.len())),
            bias: OnLayers::from(sizes.biases.as_slice()),
            blocks: found.blocks.clone(),
        },
        None => {
            let widths = g.iter().flat_map(|(sizes, _)| sizes.widths[1..sizes.widths.len() - 1].iter().rev());
            // Each block halves the sides.
            let halvings = height.min(width).max(2).ilog2() as usize;
            DiscriminatorConfig {
                dense: Vec::new(),
                negative_slope: 0.2,
                activation: None,
                norm: usual_norm,
                bias: OnLayers::All(false),
                blocks: widths.take(halvings).map(|channels| block(*channels)).collect(),
            }
        }
    };
    Ok(ModelConfig {
        version: CONFIG_VERSION,
        name: NAME.to_owned(),
        height,
        width,
        channels,
        classes: 0,
        class_names: Vec::new(),
        latent: LatentConfig {
            size: g.map_or(LATENT_SIZE, |(sizes, _)| sizes.widths[0]),
            distribution: Distribution::Normal,
        },
        generator,
        discriminator,
    })
}

/// Batch norm after every layer but the last.
pub(crate) fn usual_generator(layers: usize) -> Vec<bool> {
    (0..layers).map(|i| i + 1 < layers).collect()
}

/// Batch norm after every layer but the first and the last.
pub(crate) fn usual_discriminator(layers: usize) -> Vec<bool> {
    (0..layers).map(|i| i > 0 && i + 1 < layers).collect()
}

fn notes(config: &ModelConfig, g: Option<&Sizes>, d: Option<&Sizes>) -> Vec<String> {
    let ModelConfig { name, height, width, channels, latent, .. } = config;
    let mut notes =
        vec![format!("inferred from the tensors: images of {height}x{width} with {channels} channel(s)")];
    let layers = |sizes: &Sizes, hidden: &[usize]| {
        let hidden: Vec<String> = hidden.iter().map(usize::to_string).collect();
        let normed = sizes.norms.iter().filter(|norm| **norm).count();
        let biased = sizes.biases.iter().filter(|bias| **bias).count();
        let all = sizes.norms.len();
        format!(
            "{all} layers with {} channels between them ({normed} with batch norm, {biased} with a bias)",
            hidden.join(", ")
        )
    };
    let steps = |blocks: &[BlockConfig]| {
        let mut steps: Vec<String> = Vec::new();
        for BlockConfig { kernel, stride, padding, output_padding, .. } in blocks {
            let more =
                if *output_padding > 0 { format!(" output padding {output_padding}") } else { String::new() };
            let step = format!("kernel {kernel} with stride {stride} padding {padding}{more}");
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        steps.join(", ")
    };
    match g {
        Some(g) => notes.push(format!(
            "generator: z of {} values, {}; {}",
            latent.size,
            layers(g, &g.widths[1..g.widths.len() - 1]),
            steps(&config.generator.blocks)
        )),
        None => notes.push(
            "there is no generator in the file: its configuration mirrors the discriminator's".to_owned(),
        ),
    }
    match d {
        Some(d) => notes.push(format!(
            "discriminator: {}; {}",
            layers(d, &d.widths[1..d.widths.len() - 1]),
            steps(&config.discriminator.blocks)
        )),
        None => notes.push(
            "there is no discriminator in the file: its configuration mirrors the generator's".to_owned(),
        ),
    }
    if name != NAME {
        notes.push(format!("these are the networks of the preset {name}"));
    }
    let has_steps = |sizes: Option<&Sizes>| sizes.is_some_and(|s| s.known.steps.iter().any(Option::is_some));
    if has_steps(g) || has_steps(d) {
        let unknown = [
            (true, "z from N(0, 1)"),
            (g.is_some_and(|g| g.known.output.is_none()), "ReLU and tanh in G"),
            (d.is_some_and(|d| d.known.negative_slope.is_none()), "LeakyReLU with slope 0.2 in D"),
        ];
        let assumed: Vec<&str> =
            unknown.into_iter().filter(|(is_unknown, _)| *is_unknown).map(|(_, what)| what).collect();
        notes.push(format!(
            "strides, paddings, eps and activations are those of the modules in the file; assumed: {}",
            assumed.join(", ")
        ));
    } else {
        notes.push(ASSUMED.to_owned());
    }
    notes
}

#[cfg(test)]
mod tests;
