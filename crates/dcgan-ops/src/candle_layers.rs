//! A layer list in candle's own operations: for candle programs, and what [`crate::CandleExecutor`] runs.

use crate::executor::statistics_of;
use crate::{
    Activation, Kind, Layer, Maps, Mode, Norm, NormAxes, NormStatistics, OpsError, Resample, Result, Role,
    Statistics, Tensors,
};
use candle_core::{DType, Device, Tensor};
use candle_nn::{ModuleT, VarBuilder};

/// A layer list with its tensors, differentiable by candle's autograd.
///
/// As a [`ModuleT`] it maps `(n, c, h, w)` to `(n, c, h, w)`, by minibatch statistics in training and by running
/// statistics in evaluation. Running statistics are never changed: where a program trains the network itself,
/// [`CandleLayers::forward`] returns the minibatch's.
#[derive(Clone, Debug)]
pub struct CandleLayers {
    layers: Vec<Layer>,
    tensors: Tensors,
}

/// What [`CandleLayers::forward`] returns.
#[derive(Clone, Debug)]
pub struct CandleForward {
    /// Every layer's activation, `(n, c, h, w)`; the last is the output.
    pub activations: Vec<Tensor>,
    /// Minibatch statistics of every batch norm layer in [`Mode::Train`].
    pub statistics: Statistics,
}

impl CandleLayers {
    /// The layers with the tensors of their tables, by name.
    ///
    /// # Errors
    /// A parameter that is missing or of another shape.
    pub fn new(layers: Vec<Layer>, tensors: Tensors) -> Result<Self> {
        for tensor in layers.iter().flat_map(Layer::parameters) {
            let given = tensors.get(&tensor.name).ok_or(OpsError::Missing { name: tensor.name.clone() })?;
            crate::executor::check_shape(&tensor.name, &tensor.shape, given)?;
        }
        Ok(Self { layers, tensors })
    }

    /// The layers with tensors from `vb`, running statistics where it has them.
    ///
    /// # Errors
    /// A parameter that is missing or of another shape.
    pub fn load(layers: Vec<Layer>, vb: &VarBuilder<'_>) -> Result<Self> {
        let mut tensors = Tensors::new();
        for tensor in layers.iter().flat_map(Layer::tensors) {
            if tensor.role.is_trained() || vb.contains_tensor(&tensor.name) {
                tensors.insert(tensor.name.clone(), vb.get(tensor.shape.as_slice(), &tensor.name)?);
            }
        }
        Self::new(layers, tensors)
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Their tensors by name.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// Runs the layers on `x` `(n, c, h, w)`, or `(n, c)` for maps of one pixel, with `labels` `(n, classes)` where
    /// they read labels.
    ///
    /// # Errors
    /// Shapes, statistics or labels that are missing, those of candle.
    pub fn forward(&self, x: &Tensor, labels: Option<&Tensor>, mode: Mode<'_>) -> Result<CandleForward> {
        let (mut activations, mut statistics) = (Vec::new(), Statistics::new());
        // Rows (n, c) are maps of one pixel.
        let mut y = if let [n, c] = *x.dims() { x.reshape((n, c, 1, 1))? } else { x.clone() };
        for layer in &self.layers {
            y = self.linear(layer, &join_labels(layer, &resample(layer, &y)?, labels)?)?;
            if layer.label_inputs > 0 {
                let weight = self.tensor(layer, Role::LabelWeight)?;
                let rows =
                    labels_of(layer, labels)?.to_device(y.device())?.flatten_from(1)?.matmul(&weight.t()?)?;
                y = y.broadcast_add(&rows.reshape((rows.dim(0)?, layer.output.channels, 1, 1))?)?;
            }
            if let Some(norm) = layer.norm {
                let (normalized, batch) = self.normalize(layer, norm, &y, mode)?;
                y = normalized;
                statistics.extend(batch.map(|batch| (layer.name.clone(), batch)));
            }
            y = activate(&y, layer.activation)?;
            activations.push(y.clone());
        }
        Ok(CandleForward { activations, statistics })
    }

    fn tensor(&self, layer: &Layer, role: Role) -> Result<&Tensor> {
        let name = layer.tensor_name(role);
        self.tensors.get(&name).ok_or(OpsError::Missing { name })
    }

    fn linear(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let weight = self.tensor(layer, Role::Weight)?;
        // candle takes the strides of the memory into account only after a copy on some devices.
        let x = x.contiguous()?;
        let (rows, columns) = layer.padding;
        let y = match layer.kind {
            Kind::Conv => {
                // Rows and columns at the far edges that no kernel reaches are cut off: candle's gradient takes them to
                // be as many in both directions.
                let reach = |out: usize, kernel: usize| (out - 1) * layer.stride + kernel;
                let reached =
                    (reach(layer.output.height, layer.kernel.0), reach(layer.output.width, layer.kernel.1));
                let left = |side: usize, padding: usize, reached: usize| side + 2 * padding - reached;
                let input = layer.linear_input();
                let left_over = (left(input.height, rows, reached.0), left(input.width, columns, reached.1));
                if rows == columns && left_over.0 == left_over.1 {
                    x.conv2d(weight, rows, layer.stride, 1, 1)?
                } else {
                    let padded = x.pad_with_zeros(2, rows, rows)?.pad_with_zeros(3, columns, columns)?;
                    let cut = padded.narrow(2, 0, reached.0)?.narrow(3, 0, reached.1)?;
                    cut.contiguous()?.conv2d(weight, 0, layer.stride, 1, 1)?
                }
            }
            Kind::ConvTranspose if rows == columns => {
                x.conv_transpose2d(weight, rows, layer.output_padding, layer.stride, 1)?
            }
            Kind::ConvTranspose => {
                // Padding removes rows and columns at the edges of the output.
                let whole = x.conv_transpose2d(weight, 0, layer.output_padding, layer.stride, 1)?;
                whole.narrow(2, rows, layer.output.height)?.narrow(3, columns, layer.output.width)?
            }
        };
        if !layer.bias {
            return Ok(y);
        }
        Ok(y.broadcast_add(&self.tensor(layer, Role::Bias)?.reshape((1, layer.output.channels, 1, 1))?)?)
    }

    /// Batch norm of `x`, and the minibatch statistics in training.
    fn normalize(
        &self,
        layer: &Layer,
        norm: Norm,
        x: &Tensor,
        mode: Mode<'_>,
    ) -> Result<(Tensor, Option<NormStatistics>)> {
        let (n, c, h, w) = x.dims4()?;
        let (shape, axes): (_, &[usize]) = match norm.axes {
            NormAxes::PerChannel => ((1, c, 1, 1), &[0, 2, 3]),
            NormAxes::PerActivation => ((1, c, h, w), &[0]),
        };
        let (mean, var, batch) = match mode {
            Mode::Train => {
                let count = if norm.axes == NormAxes::PerActivation { n } else { n * h * w };
                if count < 2 {
                    return Err(OpsError::SingleValue { layer: layer.name.clone() });
                }
                let mean = x.mean_keepdim(axes)?;
                let var = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(axes)?;
                let flat = layer.norm_shape().unwrap_or_default();
                let flat = |t: &Tensor| t.detach().reshape(flat.as_slice());
                let statistics = NormStatistics { mean: flat(&mean)?, var: flat(&var)?, count };
                (mean, var, Some(statistics))
            }
            Mode::Eval(statistics) => {
                let given = statistics_of(statistics, layer)?;
                let place = |t: &Tensor| t.to_device(x.device())?.reshape(shape);
                (place(&given.mean)?, place(&given.var)?, None)
            }
        };
        let mut y = x.broadcast_sub(&mean)?.broadcast_div(&(var + norm.eps)?.sqrt()?)?;
        if norm.affine {
            y = y.broadcast_mul(&self.tensor(layer, Role::NormWeight)?.reshape(shape)?)?;
            y = y.broadcast_add(&self.tensor(layer, Role::NormBias)?.reshape(shape)?)?;
        }
        Ok((y, batch))
    }

    /// The running statistics among the tensors.
    fn running_stats(&self) -> Result<Statistics> {
        let mut statistics = Statistics::new();
        for layer in self.layers.iter().filter(|layer| layer.norm.is_some()) {
            let (mean, var) = (self.tensor(layer, Role::RunningMean)?, self.tensor(layer, Role::RunningVar)?);
            let of_layer = NormStatistics { mean: mean.clone(), var: var.clone(), count: 0 };
            statistics.insert(layer.name.clone(), of_layer);
        }
        Ok(statistics)
    }
}

impl ModuleT for CandleLayers {
    fn forward_t(&self, xs: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let run = || -> Result<Tensor> {
            let pass = if train {
                self.forward(xs, None, Mode::Train)?
            } else {
                self.forward(xs, None, Mode::Eval(&self.running_stats()?))?
            };
            Ok(pass.activations.last().unwrap_or(xs).clone())
        };
        run().map_err(|error| match error {
            OpsError::Candle(error) => error,
            error => candle_core::Error::wrap(error),
        })
    }
}

/// `x` pooled or upsampled, by shifted copies.
fn resample(layer: &Layer, x: &Tensor) -> Result<Tensor> {
    let Some(resample) = layer.resample else { return Ok(x.clone()) };
    let (n, c, h, w) = x.dims4()?;
    Ok(match resample {
        Resample::MaxPool(factor) => {
            let windows = x.contiguous()?.reshape((n * c, h / factor, factor, w / factor, factor))?;
            let pixel =
                |row: usize, column: usize| windows.narrow(2, row, 1)?.narrow(4, column, 1)?.contiguous();
            let mut most = pixel(0, 0)?;
            for at in 1..factor * factor {
                most = most.maximum(&pixel(at / factor, at % factor)?)?;
            }
            most.reshape((n, c, h / factor, w / factor))?
        }
        Resample::Nearest(factor) => {
            let pixels = x.contiguous()?.reshape((n * c, h, 1, w, 1))?;
            let repeated = pixels.broadcast_as((n * c, h, factor, w, factor))?.contiguous()?;
            repeated.reshape((n, c, h * factor, w * factor))?
        }
    })
}

/// `x` with a constant channel per class after its own channels.
fn join_labels(layer: &Layer, x: &Tensor, labels: Option<&Tensor>) -> Result<Tensor> {
    if layer.label_channels == 0 {
        return Ok(x.clone());
    }
    let labels = labels_of(layer, labels)?;
    let (n, _, h, w) = x.dims4()?;
    let maps =
        labels.reshape((n, layer.label_channels, 1, 1))?.broadcast_as((n, layer.label_channels, h, w))?;
    Ok(Tensor::cat(&[x, &maps.to_device(x.device())?.contiguous()?], 1)?)
}

fn labels_of<'a>(layer: &Layer, labels: Option<&'a Tensor>) -> Result<&'a Tensor> {
    labels.ok_or_else(|| OpsError::NoLabels { layer: layer.name.clone() })
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Identity => x.clone(),
        Activation::Relu => x.relu()?,
        Activation::LeakyRelu(negative_slope) => (x.relu()? - (x.neg()?.relu()? * negative_slope)?)?,
        Activation::Tanh => x.tanh()?,
        // The form by tanh has a gradient in candle and does not overflow.
        Activation::Sigmoid => (((x * 0.5)?.tanh()? + 1.0)? * 0.5)?,
    })
}

/// Maps as a tensor `(n, c, h, w)` on `device`.
pub(crate) fn to_device(maps: &Maps, device: &Device) -> Result<Tensor> {
    Ok(maps.to_tensor()?.to_dtype(DType::F32)?.to_device(device)?)
}
