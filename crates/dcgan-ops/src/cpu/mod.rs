//! The fused executor for CPUs: channels-last maps in buffers of its own, hand-written backward passes, all cores.

#![allow(
    clippy::cast_possible_truncation,
    reason = "rounding f64 to f32 is meant: state is f32, sums are f64"
)]

mod conv;
mod dispatch;
pub(crate) mod kernels;
mod linear;
pub(crate) mod matmul;
mod norm;
mod parameters;
mod winograd;

use crate::executor::check_input;
use crate::statistics::of_layer;
use crate::{
    AdamConfig, AdamState, Executor, Forward, Keep, Kind, Layer, MapShape, Mode, Norm, NormScope,
    NormStatistics, OpsError, Result, Statistics, Tensors, Want,
};
use candle_core::{Device, Storage, Tensor};
use kernels::Isa;
use linear::Linear;
use norm::Normal;
use parameters::{Parameters, to_inside, to_outside};
use std::ops::Range;
use winograd::Scratch;

/// Runs a layer list on the CPU; see the crate's head.
#[derive(Debug)]
pub struct CpuExecutor {
    layers: Vec<Layer>,
    plans: Vec<Plan>,
    parameters: Parameters,
    /// Derivatives on their way back, two maps in turn.
    back: [Vec<f32>; 2],
    scratch: Scratch,
    tape: Option<Tape>,
}

/// One layer's place in the flat parameters and its buffers, kept from pass to pass.
#[derive(Debug)]
struct Plan {
    linear: Linear,
    weight: Range<usize>,
    affine: Option<(Range<usize>, Range<usize>)>,
    /// Before batch-norm; empty where there is none.
    before: Vec<f32>,
    /// After the activation.
    after: Vec<f32>,
    normal: Normal,
}

#[derive(Debug)]
struct Tape {
    /// `(n, h, w, c)`, contiguous.
    input: Tensor,
    n: usize,
    train: bool,
}

impl CpuExecutor {
    /// An executor with all parameters zero, on the best instruction set of the machine.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::with_isa(layers, Isa::best())
    }

    /// An executor whose kernels use the given instruction set.
    ///
    /// # Panics
    /// In a pass, where the machine does not have it ([`Isa::is_available`]).
    pub fn with_isa(layers: Vec<Layer>, isa: Isa) -> Self {
        let parameters = Parameters::new(&layers);
        let plan = |layer: &Layer| Plan {
            linear: Linear::of(layer, isa),
            weight: parameters.range(layer, "weight").unwrap_or_default(),
            affine: parameters.range(layer, "gain").zip(parameters.range(layer, "shift")),
            before: Vec::new(),
            after: Vec::new(),
            normal: Normal::default(),
        };
        let plans = layers.iter().map(plan).collect();
        Self {
            layers,
            plans,
            parameters,
            back: [Vec::new(), Vec::new()],
            scratch: Scratch::default(),
            tape: None,
        }
    }
}

/// Columns of the matrix that batch-norm sees.
fn columns(layer: &Layer, norm: Norm) -> usize {
    match norm.scope {
        NormScope::Channel => layer.output.channels,
        NormScope::Unit => layer.output.len(),
    }
}

impl Plan {
    /// Runs the layer forward from `input` into `self.after`; gives the minibatch statistics in training.
    fn forward(
        &mut self,
        layer: &Layer,
        (parameters, scratch): (&[f32], &mut Scratch),
        n: usize,
        input: &[f32],
        mode: Mode<'_>,
    ) -> Result<Option<NormStatistics>> {
        let len = n * layer.output.len();
        self.after.resize(len, 0.0);
        if layer.norm.is_some() {
            self.before.resize(len, 0.0);
        }
        let linear = if layer.norm.is_some() { &mut self.before } else { &mut self.after };
        let weight = &parameters[self.weight.clone()];
        match layer.kind {
            Kind::Conv => self.linear.down(scratch, n, input, weight, linear),
            Kind::ConvTranspose => self.linear.up(scratch, n, input, weight, linear),
        }
        let Some(norm) = layer.norm else {
            norm::activate_all(&mut self.after, layer.activation);
            return Ok(None);
        };
        let columns = columns(layer, norm);
        let (mean, variance) = match mode {
            Mode::Train if len / columns < 2 => {
                return Err(OpsError::SingleValue { layer: layer.name.clone() });
            }
            Mode::Train => norm::statistics(&self.before, columns),
            Mode::Eval(statistics) => {
                let given = of_layer(statistics, &layer.name)?;
                let shape = layer.norm_shape().unwrap_or_default();
                crate::executor::check_shape(&format!("{}.mean", layer.name), &shape, &given.mean)?;
                crate::executor::check_shape(&format!("{}.variance", layer.name), &shape, &given.variance)?;
                (to_inside(&given.mean)?, to_inside(&given.variance)?)
            }
        };
        let affine = self.affine.clone();
        let affine = affine.map(|(gain, shift)| (&parameters[gain], &parameters[shift]));
        self.normal = Normal::new(mean, variance, norm.eps, affine);
        norm::normalise(&self.before, &self.normal, layer.activation, &mut self.after);
        if matches!(mode, Mode::Eval(_)) {
            return Ok(None);
        }
        let shape = layer.norm_shape().unwrap_or_default();
        Ok(Some(NormStatistics {
            mean: to_outside(&self.normal.mean, &shape)?,
            variance: to_outside(&self.normal.variance, &shape)?,
            count: len / columns,
        }))
    }

    /// Turns `d` from the derivative by the activation into that by the linear map's result, in place;
    /// adds the gradients of gain and shift where `gradients` is given.
    fn backward(&self, layer: &Layer, train: bool, d: &mut [f32], gradients: Option<&mut [f32]>) {
        if layer.norm.is_none() {
            return norm::activate_all_backward(&self.after, layer.activation, d);
        }
        let sums =
            norm::normalise_backward(&self.before, &self.after, &self.normal, layer.activation, train, d);
        if let (Some(gradients), Some((gain, shift))) = (gradients, &self.affine) {
            let add =
                |to: &mut [f32], sums: &[f64]| to.iter_mut().zip(sums).for_each(|(t, s)| *t += *s as f32);
            add(&mut gradients[gain.clone()], &sums.gain);
            add(&mut gradients[shift.clone()], &sums.shift);
        }
    }
}

/// `(n, c, h, w)` with any memory layout to `(n, h, w, c)` contiguous; no copy where the memory is channels-last already.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    let x = x.detach().to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
    Ok(x.permute((0, 2, 3, 1))?.contiguous()?)
}

/// A channels-last map as a tensor `(n, c, h, w)` whose memory stays channels-last.
fn to_tensor(values: Vec<f32>, n: usize, shape: MapShape) -> Result<Tensor> {
    let MapShape { channels, height, width } = shape;
    Ok(Tensor::from_vec(values, (n, height, width, channels), &Device::Cpu)?.permute((0, 3, 1, 2))?)
}

/// Lends the values of a contiguous host tensor of f32.
fn with_values<R>(tensor: &Tensor, body: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("the tensor is not on the CPU".into()).into());
    };
    let start = layout.start_offset();
    body(&storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()])
}

impl Executor for CpuExecutor {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn forward(&mut self, x: &Tensor, mode: Mode<'_>, keep: Keep) -> Result<Forward> {
        check_input(&self.layers, x)?;
        self.tape = None; // the buffers below are about to change
        let n = x.dim(0)?;
        let input = channels_last(x)?;
        let mut statistics = Statistics::new();
        let mut activations = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let (done, rest) = self.plans.split_at_mut(i);
            let plan = &mut rest[0];
            let batch = match done.last() {
                Some(before) => {
                    plan.forward(layer, (&self.parameters.values, &mut self.scratch), n, &before.after, mode)?
                }
                None => with_values(&input, |input| {
                    plan.forward(layer, (&self.parameters.values, &mut self.scratch), n, input, mode)
                })?,
            };
            statistics.extend(batch.map(|batch| (layer.name.clone(), batch)));
            if keep == Keep::Activations {
                activations.push(to_tensor(plan.after.clone(), n, layer.output)?);
            }
        }
        let output = match (self.layers.last(), self.plans.last()) {
            (Some(layer), Some(plan)) => to_tensor(plan.after.clone(), n, layer.output)?,
            _ => x.detach(),
        };
        if keep == Keep::Tape {
            self.tape = Some(Tape { input, n, train: matches!(mode, Mode::Train) });
        }
        Ok(Forward { output, statistics, activations })
    }

    fn backward(&mut self, d_output: &Tensor, want: Want) -> Result<Option<Tensor>> {
        let Tape { input, n, train } = self.tape.as_ref().ok_or(OpsError::NoTape)?;
        let (n, train) = (*n, *train);
        let Some(last) = self.layers.last() else { return Ok(None) };
        let MapShape { channels, height, width } = last.output;
        crate::executor::check_shape("the output's derivative", &[n, channels, height, width], d_output)?;
        let scratch = &mut self.scratch;
        let [d, next] = &mut self.back;
        d.clear();
        with_values(&channels_last(d_output)?, |values| {
            d.extend_from_slice(values);
            Ok(())
        })?;
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let plan = &self.plans[i];
            let gradients = &mut self.parameters.gradients;
            plan.backward(layer, train, d, want.parameters().then_some(&mut gradients[..]));
            if want.parameters() {
                let weight = &mut gradients[plan.weight.clone()];
                let mut add = |input: &[f32]| {
                    let (fine, coarse) =
                        if layer.kind == Kind::Conv { (input, &d[..]) } else { (&d[..], input) };
                    plan.linear.weight_gradient(scratch, n, fine, coarse, weight);
                };
                match i.checked_sub(1) {
                    Some(before) => add(&self.plans[before].after),
                    None => with_values(input, |input| {
                        add(input);
                        Ok(())
                    })?,
                }
            }
            if i == 0 && !want.input() {
                return Ok(None);
            }
            next.resize(n * layer.input.len(), 0.0);
            let weight = &self.parameters.values[plan.weight.clone()];
            match layer.kind {
                Kind::Conv => plan.linear.up(scratch, n, d, weight, next),
                Kind::ConvTranspose => plan.linear.down(scratch, n, d, weight, next),
            }
            std::mem::swap(d, next);
        }
        Ok(Some(to_tensor(d.clone(), n, self.layers[0].input)?))
    }

    fn zero_gradients(&mut self) -> Result<()> {
        self.parameters.gradients.fill(0.0);
        Ok(())
    }

    fn gradients(&self) -> Result<Tensors> {
        self.parameters.gradient_tensors()
    }

    fn gradient_norms(&self) -> Result<Vec<(String, f64)>> {
        Ok(self.parameters.gradient_norms())
    }

    fn adam_step(&mut self, config: &AdamConfig) -> Result<()> {
        self.parameters.adam_step(config);
        Ok(())
    }

    fn parameters(&self) -> Result<Tensors> {
        self.parameters.tensors()
    }

    fn set_parameters(&mut self, parameters: &Tensors) -> Result<()> {
        self.parameters.set(parameters)
    }

    fn adam_state(&self) -> Result<AdamState> {
        self.parameters.adam_state()
    }

    fn set_adam_state(&mut self, state: &AdamState) -> Result<()> {
        self.parameters.set_adam_state(state)
    }

    fn set_average(&mut self, average: &Tensors) -> Result<()> {
        self.parameters.set_average(average)
    }

    fn move_average(&mut self, decay: f64) -> Result<()> {
        self.parameters.move_average(decay as f32);
        Ok(())
    }

    fn average(&self) -> Result<Option<Tensors>> {
        self.parameters.average()
    }
}
