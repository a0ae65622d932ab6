//! A network as data: the list of layers that every executor runs.
//!
//! Each layer is a (transposed) convolution with an optional bias, an optional batch norm, and an activation. Class
//! labels can be concatenated to the input of a layer as constant channels, or to its flattened input as a vector. A
//! dense layer on a map is a convolution whose kernel is the whole map; a projection of `z` is a transposed convolution
//! of a 1x1 map, so these two kinds cover every DCGAN.
//!
//! [`Layer::tensors`] is the one table of the tensors that a layer has. Parameter storage, initialization, files,
//! import, export and memory estimates derive from it.

use serde::{Deserialize, Serialize};

/// Channels, height and width of one image or feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapShape {
    /// Feature maps.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl MapShape {
    /// A shape from `channels`, `height`, `width`.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width }
    }

    /// Values of one map: `channels * height * width`.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether the map holds no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The linear operation of a layer. A dense layer is one of the two with a kernel as large as the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `conv2d`, weight `(out, in, kernel_h, kernel_w)`.
    Conv,
    /// `conv_transpose2d` (the paper's fractionally strided convolution), weight `(in, out, kernel_h, kernel_w)`.
    ConvTranspose,
}

/// What shares one mean and one variance in batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormAxes {
    /// One mean and variance per channel, over batch, rows and columns (Ioffe and Szegedy 2015, section 3.2).
    #[serde(alias = "channel")]
    PerChannel,
    /// One mean and variance per activation (channel, row, column), over the batch alone: the authors' form after G's
    /// projection.
    #[serde(alias = "unit")]
    PerActivation,
}

/// Batch norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// What shares one mean and variance.
    pub axes: NormAxes,
    /// Whether the layer learns a weight and a bias after normalization.
    pub affine: bool,
    /// Added to the (biased) variance under the square root.
    pub eps: f64,
}

/// The activation after a layer's batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// None: logits.
    Identity,
    /// `max(x, 0)`.
    Relu,
    /// `x` where positive, `negative_slope * x` elsewhere.
    LeakyRelu(f64),
    /// Pixels in `[-1, 1]`.
    Tanh,
    /// Pixels in `[0, 1]`.
    Sigmoid,
}

/// How a layer changes the size of its input before its linear operation. DCGANs use strides instead (paper, section
/// 3); these are for comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// The maximum of every window of this many rows and columns.
    MaxPool(usize),
    /// Every pixel, this many times in both directions (nearest-neighbour upsampling).
    Nearest(usize),
}

impl Resample {
    /// The shape of a map after it; `None` where windows do not cover the map, or numbers are out of range.
    pub fn output(self, input: MapShape) -> Option<MapShape> {
        let side = |side: usize| match self {
            Self::MaxPool(factor) => {
                let pooled = side.checked_div(factor)?;
                (pooled > 0 && side.is_multiple_of(factor)).then_some(pooled)
            }
            Self::Nearest(factor) => side.checked_mul(factor).filter(|&side| side > 0),
        };
        Some(MapShape { height: side(input.height)?, width: side(input.width)?, ..input })
    }
}

/// One layer: resampling, optional bias, optional batch norm, activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Prefix of its tensors' names, `blocks.0` say.
    pub name: String,
    /// Convolution or transposed convolution.
    pub kind: Kind,
    /// Shape of the input, before it is resampled, without label channels.
    pub input: MapShape,
    /// How the input changes its size before the linear operation.
    pub resample: Option<Resample>,
    /// Shape of the output.
    pub output: MapShape,
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Stride of rows and columns.
    pub stride: usize,
    /// Zero rows above and below, zero columns left and right.
    pub padding: (usize, usize),
    /// Rows and columns added at the far edges of a transposed convolution; 0 for a convolution.
    pub output_padding: usize,
    /// Whether a bias per output channel is added to the linear operation.
    pub bias: bool,
    /// Class labels concatenated to the input as this many constant channels, one per class; 0 for none.
    ///
    /// They follow the input's own channels (the authors' `conv_cond_concat`).
    pub label_channels: usize,
    /// Class labels concatenated to the flattened input of a dense layer as this many inputs, one per class; 0 for
    /// none. Its output is 1x1.
    pub label_inputs: usize,
    /// Batch norm, if any.
    pub norm: Option<Norm>,
    /// Activation after it.
    pub activation: Activation,
}

/// The purpose of a layer's tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Kernel of the linear operation.
    Weight,
    /// Bias of the linear operation.
    Bias,
    /// Weight of class labels that are concatenated to the flattened input.
    LabelWeight,
    /// Batch norm weight.
    NormWeight,
    /// Batch norm bias.
    NormBias,
    /// Mean that batch norm uses in evaluation.
    RunningMean,
    /// Variance that batch norm uses in evaluation.
    RunningVar,
}

impl Role {
    /// Every role, in the order in which a layer's tensors are stored.
    pub const ALL: [Role; 7] = [
        Role::Weight,
        Role::Bias,
        Role::LabelWeight,
        Role::NormWeight,
        Role::NormBias,
        Role::RunningMean,
        Role::RunningVar,
    ];

    /// What follows the layer's name in the tensor's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Role::Weight => "conv.weight",
            Role::Bias => "conv.bias",
            Role::LabelWeight => "label.weight",
            Role::NormWeight => "norm.weight",
            Role::NormBias => "norm.bias",
            Role::RunningMean => "norm.running_mean",
            Role::RunningVar => "norm.running_var",
        }
    }

    /// The suffix in files of version 1, which had neither biases nor labels.
    pub fn suffix_v1(self) -> Option<&'static str> {
        match self {
            Role::Weight => Some("weight"),
            Role::Bias | Role::LabelWeight => None,
            Role::NormWeight => Some("gain"), // earlier name
            Role::NormBias => Some("shift"),  // earlier name
            Role::RunningMean => Some("mean"),
            Role::RunningVar => Some("variance"),
        }
    }

    /// Initialization of tensors of this role.
    pub fn initial(self) -> Initial {
        match self {
            Role::Weight | Role::LabelWeight => Initial::Kernel,
            Role::NormWeight => Initial::NormWeight,
            Role::Bias | Role::NormBias | Role::RunningMean => Initial::Constant(0.0),
            Role::RunningVar => Initial::Constant(1.0),
        }
    }

    /// Whether tensors of this role belong to batch norm.
    pub fn is_norm(self) -> bool {
        !matches!(self, Role::Weight | Role::Bias | Role::LabelWeight)
    }

    /// Whether the optimizer updates tensors of this role.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVar)
    }
}

/// Initialization of a tensor (paper, section 4; the authors' code for batch norm weights).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// N(0, std^2) with the standard deviation of kernels.
    Kernel,
    /// N(1, std^2) with the standard deviation of batch norm weights.
    NormWeight,
    /// This value.
    Constant(f32),
}

/// Name, shape and role of one tensor of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerTensor {
    /// Full name, `blocks.0.conv.weight` say.
    pub name: String,
    /// Shape in the layout of PyTorch.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: Role,
}

impl Layer {
    /// A layer without bias, label channels, batch norm and activation, with a 1x1 kernel, stride 1 and no padding:
    /// `Layer { kernel: (4, 4), stride: 2, padding: (1, 1), ..Layer::plain(name, kind, input, output) }`.
    pub fn plain(name: impl Into<String>, kind: Kind, input: MapShape, output: MapShape) -> Self {
        Self {
            name: name.into(),
            kind,
            input,
            resample: None,
            output,
            kernel: (1, 1),
            stride: 1,
            padding: (0, 0),
            output_padding: 0,
            bias: false,
            label_channels: 0,
            label_inputs: 0,
            norm: None,
            activation: Activation::Identity,
        }
    }

    /// Rows or columns of the output for `input`, by the usual formulas of both kinds; `None` where the kernel does not
    /// fit, or numbers are out of range.
    pub fn output_side(
        kind: Kind,
        input: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        output_padding: usize,
    ) -> Option<usize> {
        match kind {
            Kind::Conv => {
                let room = padding.checked_mul(2)?.checked_add(input)?.checked_sub(kernel)?;
                room.checked_div(stride)?.checked_add(1)
            }
            Kind::ConvTranspose => {
                let reach = input.checked_sub(1)?.checked_mul(stride)?.checked_add(kernel)?;
                reach.checked_add(output_padding)?.checked_sub(padding.checked_mul(2)?)
            }
        }
    }

    /// Shape of what the linear operation reads: the input, resampled, with the label channels after its own.
    pub fn linear_input(&self) -> MapShape {
        let resampled = self.resample.and_then(|resample| resample.output(self.input)).unwrap_or(self.input);
        MapShape { channels: resampled.channels + self.label_channels, ..resampled }
    }

    /// Whether the linear operation reads something else than the layer's input.
    pub fn changes_input(&self) -> bool {
        self.label_channels > 0 || self.resample.is_some()
    }

    /// Columns of the matrix that batch norm works on, each with a mean of its own; the channels without batch norm.
    pub fn columns(&self) -> usize {
        match self.norm.map(|norm| norm.axes) {
            Some(NormAxes::PerActivation) => self.output.len(),
            _ => self.output.channels,
        }
    }

    /// Shape of the tensor of a role in PyTorch's layout; `None` where the layer has none.
    ///
    /// A kernel is `(out, in, kh, kw)` for a convolution and `(in, out, kh, kw)` for its transpose; a bias is `(out)`,
    /// a weight of labels `(out, classes)`; tensors of batch norm are `(c)` per channel or `(c, h, w)` per activation.
    pub fn tensor_shape(&self, role: Role) -> Option<Vec<usize>> {
        let (kh, kw) = self.kernel;
        let (input, output) = (self.linear_input().channels, self.output.channels);
        match role {
            Role::Weight => Some(match self.kind {
                Kind::Conv => vec![output, input, kh, kw],
                Kind::ConvTranspose => vec![input, output, kh, kw],
            }),
            Role::Bias => self.bias.then(|| vec![output]),
            Role::LabelWeight => (self.label_inputs > 0).then(|| vec![output, self.label_inputs]),
            Role::NormWeight | Role::NormBias => self.norm.filter(|norm| norm.affine).and(self.norm_shape()),
            Role::RunningMean | Role::RunningVar => self.norm_shape(),
        }
    }

    /// Shape of the tensors of batch norm: `(c)` per channel, `(c, h, w)` per activation; `None` without batch norm.
    pub fn norm_shape(&self) -> Option<Vec<usize>> {
        let MapShape { channels, height, width } = self.output;
        self.norm.map(|norm| match norm.axes {
            NormAxes::PerChannel => vec![channels],
            NormAxes::PerActivation => vec![channels, height, width],
        })
    }

    /// Name of the tensor of a role, whether the layer has it or not.
    pub fn tensor_name(&self, role: Role) -> String {
        format!("{}.{}", self.name, role.suffix())
    }

    /// Every tensor of the layer, trained or not, in the order of [`Role::ALL`].
    pub fn tensors(&self) -> impl Iterator<Item = LayerTensor> + '_ {
        Role::ALL.into_iter().filter_map(|role| {
            let shape = self.tensor_shape(role)?;
            Some(LayerTensor { name: self.tensor_name(role), shape, role })
        })
    }

    /// The parameters among [`Layer::tensors`].
    pub fn parameters(&self) -> impl Iterator<Item = LayerTensor> + '_ {
        self.tensors().filter(|tensor| tensor.role.is_trained())
    }
}
