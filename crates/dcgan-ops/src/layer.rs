//! A network as data: the list of layers that every executor runs.
//!
//! Each layer is a (transposed) convolution without bias, an optional batch-norm, and an activation.
//! A dense layer on a map is a convolution whose kernel is the whole map; a projection of `z` is a
//! transposed convolution of a 1x1 map, so these two kinds cover every DCGAN.

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

    /// Values in one image: `channels * height * width`.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether the map holds no value at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The two linear maps of a DCGAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `conv2d`, weight `(out, in, kernel_h, kernel_w)`.
    Conv,
    /// `conv_transpose2d` (the paper's fractionally strided convolution), weight `(in, out, kernel_h, kernel_w)`.
    ConvTranspose,
}

/// What shares one mean and one variance in batch-norm.
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

/// Batch-norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// What shares one mean and variance.
    pub scope: NormAxes,
    /// Whether the layer learns a gain and a shift.
    pub affine: bool,
    /// Added to the (biased) variance under the root.
    pub eps: f64,
}

/// The activation after a layer's batch-norm.
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

/// One layer: linear map, optional batch-norm, activation.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Prefix of its tensors' names, `blocks.0` say.
    pub name: String,
    /// Convolution or transposed convolution.
    pub kind: Kind,
    /// Shape of what comes in.
    pub input: MapShape,
    /// Shape of what goes out.
    pub output: MapShape,
    /// Kernel height and width.
    pub kernel: (usize, usize),
    /// Stride, the same both ways.
    pub stride: usize,
    /// Zero padding on each side.
    pub padding: usize,
    /// Rows and columns added at the far edges of a transposed convolution; 0 for a convolution.
    pub output_padding: usize,
    /// Batch-norm, if any.
    pub norm: Option<Norm>,
    /// Activation after it.
    pub activation: Activation,
}

/// What a tensor of a layer is for; it decides how the tensor is drawn at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Kernel of the linear map.
    Weight,
    /// Batch-norm gain.
    Gain,
    /// Batch-norm shift.
    Shift,
}

/// Name, shape and role of one trainable tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Full name, `blocks.0.weight` say.
    pub name: String,
    /// Shape in the layout of PyTorch.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: Role,
}

impl Layer {
    /// Rows and columns that come out for `input`, by the usual formulas of both kinds; `None` where the kernel does not fit, or
    /// numbers are out of any range.
    pub fn output_side(
        kind: Kind,
        input: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        extra: usize,
    ) -> Option<usize> {
        match kind {
            Kind::Conv => {
                let room = padding.checked_mul(2)?.checked_add(input)?.checked_sub(kernel)?;
                room.checked_div(stride)?.checked_add(1)
            }
            Kind::ConvTranspose => {
                let reach = input.checked_sub(1)?.checked_mul(stride)?.checked_add(kernel)?;
                reach.checked_add(extra)?.checked_sub(padding.checked_mul(2)?)
            }
        }
    }

    /// Shape of the kernel in PyTorch's layout: `(out, in, kh, kw)` for a convolution, `(in, out, kh, kw)` for its transpose.
    pub fn weight_shape(&self) -> [usize; 4] {
        let (kh, kw) = self.kernel;
        match self.kind {
            Kind::Conv => [self.output.channels, self.input.channels, kh, kw],
            Kind::ConvTranspose => [self.input.channels, self.output.channels, kh, kw],
        }
    }

    /// Shape of gain, shift, mean and variance: `(c)` per channel, `(c, h, w)` per unit; `None` without batch-norm.
    pub fn norm_shape(&self) -> Option<Vec<usize>> {
        let MapShape { channels, height, width } = self.output;
        self.norm.map(|norm| match norm.scope {
            NormAxes::PerChannel => vec![channels],
            NormAxes::PerActivation => vec![channels, height, width],
        })
    }

    /// The trainable tensors of this layer: weight, then gain and shift where batch-norm learns them.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let spec = |suffix: &str, shape: Vec<usize>, role| ParameterSpec {
            name: format!("{}.{suffix}", self.name),
            shape,
            role,
        };
        let mut specs = vec![spec("weight", self.weight_shape().to_vec(), Role::Weight)];
        if let (Some(norm), Some(shape)) = (self.norm, self.norm_shape())
            && norm.affine
        {
            specs.push(spec("gain", shape.clone(), Role::Gain));
            specs.push(spec("shift", shape, Role::Shift));
        }
        specs
    }
}
