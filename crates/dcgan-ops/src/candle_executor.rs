//! The executor that goes through candle's autograd: any device; the plain reference beside the fused one.

use crate::spare::check_held;
use crate::statistics::of_layer;
use crate::{
    Activation, AdamConfig, AdamState, Executor, Forward, Keep, Kind, Layer, Mode, Moments, Norm, NormAxes,
    NormStatistics, OpsError, Result, Statistics, Tensors, Want,
};
use candle_core::backprop::GradStore;
use candle_core::{D, DType, Device, Tensor, Var};
use std::collections::BTreeMap;

/// Runs a layer list by candle's own operations and autograd.
#[derive(Debug)]
pub struct CandleExecutor {
    layers: Vec<Layer>,
    device: Device,
    parameters: BTreeMap<String, Var>,
    gradients: Tensors,
    adam: AdamState,
    average: Option<Tensors>,
    tape: Option<Tape>,
}

#[derive(Debug)]
struct Tape {
    input: Var,
    output: Tensor,
}

impl CandleExecutor {
    /// An executor with all parameters zero.
    ///
    /// # Errors
    /// Memory of the device.
    pub fn new(layers: Vec<Layer>, device: &Device) -> Result<Self> {
        let mut parameters = BTreeMap::new();
        for spec in layers.iter().flat_map(Layer::parameters) {
            parameters.insert(spec.name, Var::zeros(spec.shape, DType::F32, device)?);
        }
        let mut this = Self {
            layers,
            device: device.clone(),
            parameters,
            gradients: Tensors::new(),
            adam: AdamState::default(),
            average: None,
            tape: None,
        };
        this.zero_gradients()?;
        this.adam.moments = this.zero_moments()?;
        Ok(this)
    }

    fn zero_moments(&self) -> Result<BTreeMap<String, Moments>> {
        let zero = |var: &Var| var.zeros_like();
        let moments = |var| -> Result<_> { Ok(Moments { first: zero(var)?, second: zero(var)? }) };
        self.parameters.iter().map(|(name, var)| Ok((name.clone(), moments(var)?))).collect()
    }

    fn parameter(&self, layer: &Layer, suffix: &str) -> Result<&Tensor> {
        let name = format!("{}.{suffix}", layer.name);
        self.parameters.get(&name).map(|var| var.as_tensor()).ok_or(OpsError::Missing { name })
    }

    fn linear(&self, layer: &Layer, x: &Tensor) -> Result<Tensor> {
        let weight = self.parameter(layer, "weight")?;
        // candle takes the strides of the memory into account only after a copy on some devices.
        let x = x.contiguous()?;
        Ok(match layer.kind {
            Kind::Conv => x.conv2d(weight, layer.padding, layer.stride, 1, 1)?,
            Kind::ConvTranspose => {
                x.conv_transpose2d(weight, layer.padding, layer.output_padding, layer.stride, 1)?
            }
        })
    }

    /// Batch-norm of `x`, and the minibatch statistics in training.
    fn normalize(
        &self,
        layer: &Layer,
        norm: Norm,
        x: &Tensor,
        mode: Mode<'_>,
    ) -> Result<(Tensor, Option<NormStatistics>)> {
        let (n, c, h, w) = x.dims4()?;
        let (shape, axes): (_, &[usize]) = match norm.scope {
            NormAxes::PerChannel => ((1, c, 1, 1), &[0, 2, 3]),
            NormAxes::PerActivation => ((1, c, h, w), &[0]),
        };
        let (mean, variance, batch) = match mode {
            Mode::Train => {
                let count = axes.iter().map(|&axis| x.dim(axis)).product::<candle_core::Result<usize>>()?;
                if count < 2 {
                    return Err(OpsError::SingleValue { layer: layer.name.clone() });
                }
                let mean = x.mean_keepdim(axes)?;
                let variance = x.broadcast_sub(&mean)?.sqr()?.mean_keepdim(axes)?;
                let flat = layer.norm_shape().unwrap_or_default();
                let statistics = NormStatistics {
                    mean: mean.detach().reshape(flat.as_slice())?,
                    variance: variance.detach().reshape(flat.as_slice())?,
                    count: if norm.scope == NormAxes::PerActivation { n } else { n * h * w },
                };
                (mean, variance, Some(statistics))
            }
            Mode::Eval(statistics) => {
                let given = of_layer(statistics, &layer.name)?;
                let place = |t: &Tensor| -> Result<Tensor> { Ok(t.to_device(&self.device)?.reshape(shape)?) };
                (place(&given.mean)?, place(&given.variance)?, None)
            }
        };
        let mut y = x.broadcast_sub(&mean)?.broadcast_div(&(variance + norm.eps)?.sqrt()?)?;
        if norm.affine {
            y = y.broadcast_mul(&self.parameter(layer, "gain")?.reshape(shape)?)?;
            y = y.broadcast_add(&self.parameter(layer, "shift")?.reshape(shape)?)?;
        }
        Ok((y, batch))
    }
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

impl Executor for CandleExecutor {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn forward(&mut self, x: &Tensor, mode: Mode<'_>, keep: Keep) -> Result<Forward> {
        crate::executor::check_input(&self.layers, x)?;
        self.tape = None;
        let input = match keep {
            Keep::Tape => Some(Var::from_tensor(&x.detach())?),
            Keep::Nothing | Keep::Activations => None,
        };
        let mut y = input.as_ref().map_or_else(|| x.detach(), |var| var.as_tensor().clone());
        let mut statistics = Statistics::new();
        let mut activations = Vec::new();
        for layer in &self.layers {
            y = self.linear(layer, &y)?;
            if let Some(norm) = layer.norm {
                let (normalized, batch) = self.normalize(layer, norm, &y, mode)?;
                y = normalized;
                statistics.extend(batch.map(|batch| (layer.name.clone(), batch)));
            }
            y = activate(&y, layer.activation)?;
            if keep != Keep::Tape {
                y = y.detach(); // frees what autograd would hold
            }
            if keep == Keep::Activations {
                activations.push(y.clone());
            }
        }
        let output = y.detach();
        self.tape = input.map(|input| Tape { input, output: y });
        Ok(Forward { output, statistics, activations })
    }

    fn backward(&mut self, d_output: &Tensor, want: Want) -> Result<Option<Tensor>> {
        let tape = self.tape.as_ref().ok_or(OpsError::NoTape)?;
        [&tape.input, &tape.output, d_output].into_iter().try_for_each(check_held)?;
        // The derivative of sum(output * d) with d held fixed is the vector-Jacobian product.
        let mut found: GradStore = (&tape.output * &d_output.detach())?.sum_all()?.backward()?;
        if want.parameters() {
            for (name, var) in &self.parameters {
                if let (Some(gradient), Some(sum)) =
                    (found.remove(var.as_tensor()), self.gradients.get_mut(name))
                {
                    *sum = (&*sum + gradient.detach())?;
                }
            }
        }
        Ok(if want.input() { found.remove(tape.input.as_tensor()).map(|d| d.detach()) } else { None })
    }

    fn zero_gradients(&mut self) -> Result<()> {
        for (name, var) in &self.parameters {
            self.gradients.insert(name.clone(), var.zeros_like()?);
        }
        Ok(())
    }

    fn gradients(&self) -> Result<Tensors> {
        to_host(&self.gradients)
    }

    fn gradient_norms(&self) -> Result<Vec<(String, f64)>> {
        let mut norms = Vec::new();
        for spec in self.layers.iter().flat_map(Layer::parameters) {
            let gradient = &self.gradients[&spec.name];
            let sum = gradient.flatten_all()?.sqr()?.sum(D::Minus1)?.to_scalar::<f32>()?;
            norms.push((spec.name, f64::from(sum).sqrt()));
        }
        Ok(norms)
    }

    fn adam_step(&mut self, config: &AdamConfig) -> Result<()> {
        self.adam.step += 1;
        let (rate, root) = config.corrections(self.adam.step);
        for (name, var) in &self.parameters {
            let Some(moments) = self.adam.moments.get_mut(name) else { continue };
            let gradient = (&self.gradients[name] + (var.as_tensor() * config.weight_decay)?)?;
            moments.first = ((&moments.first * config.beta1)? + (&gradient * (1.0 - config.beta1))?)?;
            moments.second = ((&moments.second * config.beta2)? + (gradient.sqr()? * (1.0 - config.beta2))?)?;
            let denominator = ((moments.second.sqrt()? / root)? + config.eps)?;
            var.set(&(var.as_tensor() - ((&moments.first / denominator)? * rate)?)?)?;
        }
        Ok(())
    }

    fn parameters(&self) -> Result<Tensors> {
        // A copy: a Var changes in place.
        let copy =
            |var: &Var| -> Result<Tensor> { Ok(var.as_tensor().copy()?.to_device(&Device::Cpu)?.detach()) };
        self.parameters.iter().map(|(name, var)| Ok((name.clone(), copy(var)?))).collect()
    }

    fn set_parameters(&mut self, parameters: &Tensors) -> Result<()> {
        for (name, var) in &self.parameters {
            let given = parameters.get(name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            crate::executor::check_shape(name, var.dims(), given)?;
            var.set(&given.to_device(&self.device)?)?;
        }
        Ok(())
    }

    fn adam_state(&self) -> Result<AdamState> {
        let host = |t: &Tensor| t.to_device(&Device::Cpu);
        let copy =
            |m: &Moments| -> Result<_> { Ok(Moments { first: host(&m.first)?, second: host(&m.second)? }) };
        let moments = self.adam.moments.iter().map(|(name, m)| Ok((name.clone(), copy(m)?)));
        Ok(AdamState { step: self.adam.step, moments: moments.collect::<Result<_>>()? })
    }

    fn set_adam_state(&mut self, state: &AdamState) -> Result<()> {
        for (name, var) in &self.parameters {
            let given = state.moments.get(name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            crate::executor::check_shape(name, var.dims(), &given.first)?;
            crate::executor::check_shape(name, var.dims(), &given.second)?;
            let place = |t: &Tensor| t.to_device(&self.device);
            let moments = Moments { first: place(&given.first)?, second: place(&given.second)? };
            self.adam.moments.insert(name.clone(), moments);
        }
        self.adam.step = state.step;
        Ok(())
    }
    fn set_ema(&mut self, average: &Tensors) -> Result<()> {
        let mut placed = Tensors::new();
        for (name, var) in &self.parameters {
            let given = average.get(name).ok_or_else(|| OpsError::Missing { name: name.clone() })?;
            crate::executor::check_shape(name, var.dims(), given)?;
            placed.insert(name.clone(), given.to_device(&self.device)?);
        }
        self.average = Some(placed);
        Ok(())
    }

    fn update_ema(&mut self, decay: f64) -> Result<()> {
        for (name, average) in self.average.iter_mut().flatten() {
            let Some(var) = self.parameters.get(name) else { continue };
            *average = ((&*average * decay)? + (var.as_tensor() * (1.0 - decay))?)?;
        }
        Ok(())
    }

    fn average(&self) -> Result<Option<Tensors>> {
        self.average.as_ref().map(to_host).transpose()
    }
}

fn to_host(tensors: &Tensors) -> Result<Tensors> {
    tensors.iter().map(|(name, t)| Ok((name.clone(), t.to_device(&Device::Cpu)?))).collect()
}
