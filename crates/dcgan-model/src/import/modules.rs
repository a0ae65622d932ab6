//! What the modules of a whole network say beside their tensors, if the network itself was saved (`torch.save(net)`):
//! strides and paddings, eps of batch norm, activations. Their code is not in the file.

use std::collections::BTreeMap;

use super::geometry::Steps;
use super::layers::FileNetwork;
use super::names::{NetworkKind, numbered};
use super::pickle::{Class, Id, Node, Pickle};
use dcgan_ops::Activation;

/// The modules of a network by their names, `main.3`.
pub(crate) type Modules = BTreeMap<String, Module>;

/// Maximum number of modules of one file that are kept.
pub(crate) const MAX_MODULES: usize = 1 << 12;

/// Bytes of the longest name of a class that is kept.
const MAX_CLASS: usize = 128;

/// Maximum stride and padding of a module.
const MAX_STEP: usize = 64;

/// Where PyTorch's activations are.
const ACTIVATIONS: &str = "torch.nn.modules.activation.";

/// Modules of PyTorch that change the maps in a way that no layer of this program does.
const OTHER_LAYERS: [&str; 7] = [
    ACTIVATIONS,
    "torch.nn.modules.upsampling.",
    "torch.nn.modules.pooling.",
    "torch.nn.modules.padding.",
    "torch.nn.modules.pixelshuffle.",
    "torch.nn.modules.instancenorm.",
    "torch.nn.modules.normalization.",
];

/// The attributes of a module that decide what it computes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Module {
    /// `torch.nn.modules.conv.Conv2d`.
    class: String,
    /// Rows and columns.
    stride: Option<(usize, usize)>,
    padding: Option<Padding>,
    output_padding: Option<(usize, usize)>,
    dilation: Option<(usize, usize)>,
    groups: Option<usize>,
    /// Whether the border is filled with other values than zeros.
    has_other_border: bool,
    eps: Option<f64>,
    negative_slope: Option<f64>,
}

/// The padding of a convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Padding {
    Sides(usize, usize),
    /// As much as keeps the size.
    Same,
}

impl Module {
    /// The attributes of an object of `class`.
    pub(crate) fn read(
        pickle: &Pickle<'_>,
        class: Class<super::pickle::Global>,
        attributes: &[(Id, Id)],
    ) -> Self {
        let class = pickle.class_name(class).filter(|name| name.len() <= MAX_CLASS).unwrap_or_default();
        let mut module = Self { class: class.to_owned(), ..Self::default() };
        let pair = |id: Id| match pickle.items(id) {
            Some([rows, columns]) => pickle.size(*rows).zip(pickle.size(*columns)),
            Some(_) => None,
            None => pickle.size(id).map(|side| (side, side)),
        };
        let number = |id: Id| match pickle.node(id) {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        };
        for (key, value) in attributes {
            match pickle.text(*key) {
                Some("stride") => module.stride = pair(*value),
                Some("padding") => {
                    module.padding = match pickle.text(*value) {
                        Some("valid") => Some(Padding::Sides(0, 0)),
                        Some("same") => Some(Padding::Same),
                        _ => pair(*value).map(|(rows, columns)| Padding::Sides(rows, columns)),
                    };
                }
                Some("output_padding") => module.output_padding = pair(*value),
                Some("dilation") => module.dilation = pair(*value),
                Some("groups") => module.groups = pickle.size(*value),
                Some("padding_mode") => module.has_other_border = pickle.text(*value) != Some("zeros"),
                Some("eps") => module.eps = number(*value),
                Some("negative_slope") => module.negative_slope = number(*value),
                _ => {}
            }
        }
        module
    }

    /// `Conv2d` of `torch.nn.modules.conv.Conv2d`.
    fn kind(&self) -> &str {
        self.class.rsplit('.').next().unwrap_or_default()
    }

    /// Stride, padding and output padding of a convolution of `kernel` rows and columns; `None` if they are not there.
    fn steps(&self, kernel: (usize, usize)) -> Result<Option<Steps>, String> {
        let (Some(stride), Some(padding)) = (self.stride, self.padding) else { return Ok(None) };
        let padding = match padding {
            Padding::Sides(rows, columns) => (rows, columns),
            Padding::Same if kernel.0 % 2 == 1 && kernel.1 % 2 == 1 => (kernel.0 / 2, kernel.1 / 2),
            Padding::Same => return Err("padding \"same\" of an even kernel".to_owned()),
        };
        let output_padding = self.output_padding.unwrap_or((0, 0));
        let one = |what: &str, (rows, columns): (usize, usize)| {
            if rows == columns { Ok(rows) } else { Err(format!("{what} ({rows}, {columns})")) }
        };
        if let Some(dilation) = self.dilation.filter(|dilation| *dilation != (1, 1)) {
            return Err(format!("dilation {dilation:?}"));
        }
        if let Some(groups) = self.groups.filter(|groups| *groups != 1) {
            return Err(format!("groups {groups}"));
        }
        if self.has_other_border {
            return Err("a padding_mode other than zeros".to_owned());
        }
        let steps =
            (one("stride", stride)?, one("padding", padding)?, one("output_padding", output_padding)?);
        let limits = [("stride", steps.0, 1), ("padding", steps.1, 0), ("output_padding", steps.2, 0)];
        match limits.into_iter().find(|(_, value, least)| !(*least..=MAX_STEP).contains(value)) {
            Some((what, value, _)) => Err(format!("{what} {value}")),
            None => Ok(Some(steps)),
        }
    }
}

/// What the modules of a network say; `None` where its tensors have to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    /// Of each layer.
    pub(crate) steps: Vec<Option<Steps>>,
    pub(crate) eps: Option<f64>,
    /// Of D's LeakyReLU.
    pub(crate) negative_slope: Option<f64>,
    /// G's last activation.
    pub(crate) output: Option<Activation>,
}

/// What `modules` say about a network.
///
/// # Errors
/// A module that no layer of this program can be.
pub(crate) fn known(network: &FileNetwork, modules: &Modules, kind: NetworkKind) -> Result<Known, String> {
    let cannot = |what: String| format!("the {kind} has {what}, which a model of this program does not have");
    let of_module = |name: &str, what: String| format!("module {name} of {}", cannot(what));
    let mut known = Known::default();
    let projection = match kind {
        NetworkKind::Generator => 0,
        NetworkKind::Discriminator => network.layers.len().saturating_sub(1),
    };
    for (i, layer) in network.layers.iter().enumerate() {
        let kernel = match layer.weight.map(|weight| weight.shape.as_slice()) {
            Some([_, _, rows, columns]) => (*rows, *columns),
            _ => (0, 0),
        };
        let steps = modules.get(&layer.module).map(|module| module.steps(kernel)).transpose();
        let steps = steps.map_err(|what| of_module(&layer.module, what))?.flatten();
        // The layer beside z or beside the logit sees a map of its own size: its stride has no effect.
        if let Some((_, padding, extra)) = steps.filter(|_| i == projection)
            && (padding, extra) != (0, 0)
        {
            let what = format!("padding {padding} and output padding {extra} beside a map of 1x1");
            return Err(of_module(&layer.module, what));
        }
        known.steps.push(steps);
    }
    for layer in &network.layers {
        let Some(norm) = &layer.norm else { continue };
        let Some(((prefix, a), (other, b))) = numbered(&layer.module).zip(numbered(&norm.module)) else {
            continue;
        };
        let is_between = |name: &str| numbered(name).is_some_and(|(of, i)| of == prefix && a < i && i < b);
        let is_activation = |module: &Module| module.class.starts_with(ACTIVATIONS);
        let found = modules.iter().find(|(name, module)| is_between(name) && is_activation(module));
        if let Some((name, module)) = found.filter(|_| prefix == other) {
            let what = format!("nn.{} before the batch norm {}", module.kind(), norm.module);
            return Err(of_module(name, what));
        }
    }
    let norms = network.layers.iter().filter_map(|layer| layer.norm.as_ref());
    let eps: Vec<f64> = norms.filter_map(|norm| modules.get(&norm.module)?.eps).collect();
    known.eps = only("eps", &eps).map_err(cannot)?;
    let mut slopes = Vec::new();
    for (name, module) in modules {
        match (kind, module.kind()) {
            (NetworkKind::Discriminator, "LeakyReLU") => slopes.extend(module.negative_slope),
            (NetworkKind::Discriminator, "ReLU") => slopes.push(0.0),
            (NetworkKind::Generator, "Tanh") => known.output = Some(Activation::Tanh),
            (NetworkKind::Generator, "Sigmoid") => known.output = known.output.or(Some(Activation::Sigmoid)),
            // A logit is taken without its sigmoid.
            (NetworkKind::Generator, "ReLU") | (NetworkKind::Discriminator, "Sigmoid") => {}
            (_, "LeakyReLU") if module.negative_slope == Some(0.0) => {}
            (_, class) if OTHER_LAYERS.iter().any(|path| module.class.starts_with(path)) => {
                return Err(of_module(name, format!("nn.{class}")));
            }
            _ => {}
        }
    }
    known.negative_slope = only("negative_slope", &slopes).map_err(cannot)?;
    Ok(known)
}

/// The value that all are equal to.
fn only(what: &str, values: &[f64]) -> Result<Option<f64>, String> {
    let Some((first, rest)) = values.split_first() else { return Ok(None) };
    match rest.iter().find(|value| *value != first) {
        Some(other) => Err(format!("{what} {first} and {other}")),
        None => Ok(Some(*first)),
    }
}
