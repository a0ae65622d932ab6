//! The configuration of a pair of networks: what `config.json` and the presets say, and the layers that it describes.
//!
//! Sizes are data: any height and width that the total stride divides, square or not, 1, 3 or 4 channels.
//! [`ModelConfig`] is what the file says; [`Model::new`](crate::Model::new) checks it and keeps the layer lists that
//! executors run.

use dcgan_ops::{Activation, Kind, Layer, MapShape, Norm, NormAxes, Resample};
use serde::{Deserialize, Serialize};

/// A generator and a discriminator for images of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Version of the format: 2, or 1 where it is missing. Version 1 had other names of fields and tensors, which are
    /// still read.
    #[serde(default = "version_1")]
    pub version: u32,
    /// Where the numbers come from: a preset's name, or the user's own.
    pub name: String,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// 1 (grey), 3 (RGB) or 4 (RGBA).
    pub channels: usize,
    /// Classes that the networks are conditioned on; 0 for none. Labels are concatenated to the input of every layer,
    /// as in the authors' MNIST networks: to z, other vectors and flattened maps as a one-hot vector, to maps as a
    /// constant map per class.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub classes: usize,
    /// Names of the classes, where they have names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// The latent vector z.
    pub latent: LatentConfig,
    /// The generator.
    pub generator: GeneratorConfig,
    /// The discriminator.
    pub discriminator: DiscriminatorConfig,
}

/// The version of configurations and tensor names that this program writes.
pub const CONFIG_VERSION: u32 = 2;

fn version_1() -> u32 {
    1
}

impl ModelConfig {
    /// Height, width and channels of the images.
    pub fn image_shape(&self) -> (usize, usize, usize) {
        (self.height, self.width, self.channels)
    }

    /// Whether the networks read class labels.
    pub fn is_conditional(&self) -> bool {
        self.classes > 0
    }

    /// The name of a class, or its number where it has no name.
    pub fn class_name(&self, class: usize) -> String {
        self.class_names.get(class).cloned().unwrap_or_else(|| class.to_string())
    }

    /// The label vector of an image of one class, `(classes)`: one-hot.
    pub fn class_weights(&self, class: u32) -> Vec<f32> {
        (0..self.classes).map(|i| if i == class as usize { 1.0 } else { 0.0 }).collect()
    }

    /// The class with this name or number; a name comes first.
    ///
    /// # Errors
    /// A message that lists the classes.
    pub fn class_of(&self, text: &str) -> Result<u32, String> {
        let named = self.class_names.iter().position(|name| name == text);
        let number = || text.parse().ok().filter(|&class| class < self.classes);
        let class = named.or_else(number).and_then(|class| u32::try_from(class).ok());
        class.ok_or_else(|| match (self.classes, self.class_names.as_slice()) {
            (0, _) => format!(
                "class {text}: the model is not conditional, use one of `dcgan-train run --conditional`"
            ),
            (classes, []) => format!("class {text:?} is unknown, expected 0 to {}", classes - 1),
            (_, names) => format!("class {text:?} is unknown, expected one of {}", names.join(", ")),
        })
    }
}

/// The latent vector z.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentConfig {
    /// Size of z.
    pub size: usize,
    /// What they are drawn from.
    pub distribution: Distribution,
}

/// What z is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// U(-1, 1): the paper.
    Uniform,
    /// N(0, 1): pytorch/examples and the authors' released SVHN weights.
    Normal,
}

/// Batch norm of a whole network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NormConfig {
    /// Added to the biased variance under the square root: 1e-8 for the authors, 1e-5 for PyTorch.
    pub eps: f64,
    /// Whether weight and bias are learned.
    pub affine: bool,
    /// Which layers have batch norm, in their order: G's `dense`, `project` and `blocks`, D's `blocks`, `dense` and
    /// `head`. Where this is missing, all but the last of G, and all but the first and the last of D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<bool>>,
}

/// A property of all layers of a network, or of each one in their order: G's `dense`, `project` and `blocks`, D's
/// `blocks`, `dense` and `head`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OnLayers {
    /// Every layer has it, or none.
    All(bool),
    /// One value for each layer.
    Each(Vec<bool>),
}

impl OnLayers {
    /// Whether layer `i` has it.
    pub fn at(&self, i: usize) -> bool {
        match self {
            Self::All(all) => *all,
            Self::Each(each) => each.get(i).copied().unwrap_or(false),
        }
    }

    fn is_false(&self) -> bool {
        *self == Self::All(false)
    }
}

impl Default for OnLayers {
    fn default() -> Self {
        Self::All(false)
    }
}

impl From<bool> for OnLayers {
    fn from(all: bool) -> Self {
        Self::All(all)
    }
}

impl From<&[bool]> for OnLayers {
    fn from(each: &[bool]) -> Self {
        match each {
            [first, rest @ ..] if rest.iter().all(|one| one == first) => Self::All(*first),
            [] => Self::All(false),
            each => Self::Each(each.to_vec()),
        }
    }
}

/// G: a projection of z to a small map, then transposed convolutions; batch norm after all but the last, unless
/// `norm.layers` says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeneratorConfig {
    /// Units of hidden dense layers between z and the projection, each with batch norm and ReLU. The paper has none
    /// (section 3); the authors' MNIST networks have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<usize>,
    /// Channels of the map that z is projected to.
    pub project_channels: usize,
    /// Rows and columns of this map, where they are not the image's divided by the strides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_size: Option<(usize, usize)>,
    /// Axes of batch norm after the projection: `per-activation` for the authors, `per-channel` for PyTorch.
    pub project_norm: NormAxes,
    /// Batch norm.
    pub norm: NormConfig,
    /// Which layers have a bias: `true`, or a list with one value for each layer. None in the paper's networks.
    #[serde(default, skip_serializing_if = "OnLayers::is_false")]
    pub bias: OnLayers,
    /// Transposed convolutions; the last one gives the image.
    pub blocks: Vec<BlockConfig>,
    /// `tanh`; or `sigmoid` for images in \[0, 1\].
    pub output: Activation,
}

/// D: convolutions, batch norm after all but the first, then a dense layer to a logit. `norm.layers` changes which
/// layers have batch norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscriminatorConfig {
    /// Slope of LeakyReLU below zero.
    #[serde(alias = "leak")]
    pub negative_slope: f64,
    /// The activation after every layer but the head, in place of LeakyReLU. For comparisons: a DCGAN has LeakyReLU in
    /// D.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Batch norm.
    pub norm: NormConfig,
    /// Which layers have a bias: `true`, or a list with one value for each layer. None in the paper's networks.
    #[serde(default, skip_serializing_if = "OnLayers::is_false")]
    pub bias: OnLayers,
    /// Convolutions.
    pub blocks: Vec<BlockConfig>,
    /// Units of hidden dense layers between the convolutions and the head, each with batch norm and LeakyReLU. The
    /// paper has none (section 3); the authors' MNIST networks have one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<usize>,
}

impl DiscriminatorConfig {
    /// The activation after every layer but the head.
    pub fn hidden_activation(&self) -> Activation {
        self.activation.unwrap_or(Activation::LeakyRelu(self.negative_slope))
    }
}

/// One (transposed) convolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Channels that come out.
    pub channels: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Stride both ways.
    pub stride: usize,
    /// Zero padding on each side.
    pub padding: usize,
    /// Extra rows and columns of a transposed convolution.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output_padding: usize,
    /// Discriminator: max pooling of the block's output by windows of this many rows and columns; 0 for none. For
    /// comparisons: a DCGAN has strides instead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pool: usize,
    /// Generator: how many times the block's input is repeated both ways before the convolution; 0 for none. For
    /// comparisons: a DCGAN has strides instead.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upsample: usize,
}

impl BlockConfig {
    /// A block without output padding, pooling and upsampling.
    pub fn plain(channels: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Self { channels, kernel, stride, padding, output_padding: 0, pool: 0, upsample: 0 }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// The feature map that a linear operation (dense, convolution or transposed convolution) reads.
fn pooled(shape: MapShape, resample: Option<Resample>) -> MapShape {
    resample.and_then(|resample| resample.output(shape)).unwrap_or(shape)
}

/// Batch norm of layer `i`, which usually has it or not.
fn norm(config: &NormConfig, axes: NormAxes, i: usize, usual: bool) -> Option<Norm> {
    let has_norm = config.layers.as_ref().map_or(usual, |layers| layers.get(i).copied().unwrap_or(false));
    has_norm.then_some(Norm { axes, affine: config.affine, eps: config.eps })
}

/// The shape after one block, or nothing where the kernel does not fit.
fn after(kind: Kind, input: MapShape, block: &BlockConfig) -> Option<MapShape> {
    let side = |side| {
        let BlockConfig { kernel, stride, padding, output_padding, .. } = *block;
        Layer::output_side(kind, side, kernel, stride, padding, output_padding).filter(|&side| side > 0)
    };
    Some(MapShape::new(block.channels, side(input.height)?, side(input.width)?))
}

/// What a layer of any kind can have.
#[derive(Clone, Copy)]
struct Common {
    bias: bool,
    label_channels: usize,
}

impl Common {
    fn layer(self, name: impl Into<String>, kind: Kind, input: MapShape, output: MapShape) -> Layer {
        let Self { bias, label_channels } = self;
        Layer { bias, label_channels, ..Layer::plain(name, kind, input, output) }
    }
}

fn block_layer(
    kind: Kind,
    i: usize,
    (input, output): (MapShape, MapShape),
    block: &BlockConfig,
    common: Common,
) -> Layer {
    Layer {
        kernel: (block.kernel, block.kernel),
        stride: block.stride,
        padding: (block.padding, block.padding),
        output_padding: block.output_padding,
        ..common.layer(format!("blocks.{i}"), kind, input, output)
    }
}

/// The layers of G: `dense.i`, `project`, then `blocks.i`. Sizes that do not fit are added to `faults`.
pub(crate) fn generator_layers(config: &ModelConfig, faults: &mut Vec<String>) -> Vec<Layer> {
    let g = &config.generator;
    let common = |i| Common { bias: g.bias.at(i), label_channels: config.classes };
    let stride = g.blocks.iter().fold(1_usize, |product, block| {
        product.saturating_mul(block.stride).saturating_mul(block.upsample.max(1))
    });
    if g.project_size.is_none()
        && (!config.height.is_multiple_of(stride) || !config.width.is_multiple_of(stride))
    {
        let MapShape { height, width, .. } = MapShape::new(0, config.height, config.width);
        faults.push(format!(
            "images are {height} x {width}, but the generator's strides multiply to {stride}: \
             both sides must be multiples of it"
        ));
        return Vec::new();
    }
    let (rows, columns) = g.project_size.unwrap_or((config.height / stride, config.width / stride));
    let mut vector = MapShape::new(config.latent.size, 1, 1);
    let mut layers = Vec::new();
    for (i, &units) in g.dense.iter().enumerate() {
        let output = MapShape::new(units, 1, 1);
        layers.push(Layer {
            norm: norm(&g.norm, NormAxes::PerChannel, i, true),
            activation: Activation::Relu,
            ..common(i).layer(format!("dense.{i}"), Kind::ConvTranspose, vector, output)
        });
        vector = output;
    }
    let mut shape = MapShape::new(g.project_channels, rows, columns);
    let project = layers.len();
    layers.push(Layer {
        kernel: (rows, columns),
        norm: norm(&g.norm, g.project_norm, project, true),
        activation: Activation::Relu,
        ..common(project).layer("project", Kind::ConvTranspose, vector, shape)
    });
    for (i, block) in g.blocks.iter().enumerate() {
        let resample = (block.upsample > 0).then_some(Resample::Nearest(block.upsample));
        let upsampled = resample.map_or(Some(shape), |resample| resample.output(shape));
        let Some(output) = upsampled.and_then(|shape| after(Kind::ConvTranspose, shape, block)) else {
            faults.push(format!(
                "generator.blocks[{i}]: the padding removes the whole {} x {} map",
                shape.height, shape.width
            ));
            return layers;
        };
        let last = i + 1 == g.blocks.len();
        let at = layers.len();
        layers.push(Layer {
            norm: norm(&g.norm, NormAxes::PerChannel, at, !last),
            activation: if last { g.output } else { Activation::Relu },
            resample,
            ..block_layer(Kind::ConvTranspose, i, (shape, output), block, common(at))
        });
        shape = output;
    }
    if (shape.height, shape.width) != (config.height, config.width) {
        faults.push(format!(
            "the generator gives {} x {} images, expected {} x {}: check kernel, padding and output_padding of its blocks",
            shape.height, shape.width, config.height, config.width
        ));
    }
    layers
}

/// The layers of D: `blocks.i`, `dense.i`, then `head`. Sizes that do not fit are added to `faults`.
pub(crate) fn discriminator_layers(config: &ModelConfig, faults: &mut Vec<String>) -> Vec<Layer> {
    let d = &config.discriminator;
    let common = |i| Common { bias: d.bias.at(i), label_channels: config.classes };
    let mut shape = MapShape::new(config.channels, config.height, config.width);
    let mut layers = Vec::new();
    // The pooling of a block's output is a part of the layer that reads it.
    let mut resample = None;
    for (i, block) in d.blocks.iter().enumerate() {
        let pooled = pooled(shape, resample);
        let Some(output) = after(Kind::Conv, pooled, block) else {
            let BlockConfig { kernel, .. } = block;
            faults.push(format!(
                "discriminator.blocks[{i}]: a {kernel} x {kernel} kernel does not fit the {} x {} map before it",
                pooled.height, pooled.width
            ));
            return layers;
        };
        layers.push(Layer {
            norm: norm(&d.norm, NormAxes::PerChannel, i, i > 0),
            activation: d.hidden_activation(),
            resample,
            ..block_layer(Kind::Conv, i, (shape, output), block, common(i))
        });
        shape = output;
        resample = (block.pool > 0).then_some(Resample::MaxPool(block.pool));
        if resample.is_some_and(|resample| resample.output(shape).is_none()) {
            let MapShape { height, width, .. } = shape;
            let pool = block.pool;
            faults.push(format!(
                "discriminator.blocks[{i}].pool is {pool}, which does not divide its {height} x {width} map"
            ));
            return layers;
        }
    }
    // A dense layer reads the flattened map, to which labels are concatenated as a vector.
    let dense = |name: String, i, usual_norm, (input, resample): (MapShape, Option<Resample>), units| {
        let MapShape { height, width, .. } = pooled(input, resample);
        let on_map = (height, width) != (1, 1);
        let (label_channels, label_inputs) = if on_map { (0, config.classes) } else { (config.classes, 0) };
        Layer {
            kernel: (height, width),
            resample,
            norm: norm(&d.norm, NormAxes::PerChannel, i, usual_norm),
            bias: d.bias.at(i),
            label_channels,
            label_inputs,
            ..Layer::plain(name, Kind::Conv, input, MapShape::new(units, 1, 1))
        }
    };
    for (i, &units) in d.dense.iter().enumerate() {
        let layer = dense(format!("dense.{i}"), layers.len(), true, (shape, resample), units);
        (shape, resample) = (layer.output, None);
        layers.push(Layer { activation: d.hidden_activation(), ..layer });
    }
    layers.push(dense("head".to_owned(), layers.len(), false, (shape, resample), 1));
    layers
}
