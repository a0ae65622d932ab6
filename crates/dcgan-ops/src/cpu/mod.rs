//! The fused executor for CPUs: channels-last maps in buffers of its own, hand-written backward passes, all cores.

#![allow(
    clippy::cast_possible_truncation,
    reason = "rounding f64 to f32 is meant: state is f32, sums are f64"
)]

mod buffer;
mod conv;
mod direct;
mod dispatch;
pub(crate) mod kernels;
mod linear;
pub(crate) mod matmul;
mod norm;
mod parameters;
mod source;
mod winograd;
mod workspace;

use crate::executor::check_input;
use crate::spare::{check_held, spare_values};
use crate::statistics::of_layer;
use crate::{
    AdamConfig, AdamState, Executor, Forward, ForwardHook, Keep, Layer, MapShape, Mode, Norm, NormAxes,
    NormStatistics, OpsError, Precision, Result, Statistics, Tensors, Timing, Want,
};
use buffer::Buffer;
use candle_core::{Device, Storage, Tensor};
use kernels::Isa;
use linear::{Linear, Wanted};
use norm::{Normal, Slopes, Sums};
use parameters::{Parameters, to_inside, to_outside};
use rayon::prelude::*;
use source::Source;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use winograd::{Scratch, Weights};
use workspace::Workspace;

/// Runs a layer list on the CPU; see the crate's head.
///
/// What stands between a layer and the next is the linear map's raw result. Batch-norm and its activation are applied when the
/// next layer reads it, and undone when the layer's own backward pass reads the derivative, wherever the paths of these
/// layers can (`linear.rs`).
#[derive(Debug)]
pub struct CpuExecutor {
    layers: Vec<Layer>,
    plans: Vec<Plan>,
    parameters: Parameters,
    tape: Option<Tape>,
}

/// One layer's place in the flat parameters and its buffers, kept from pass to pass.
#[derive(Debug)]
struct Plan {
    linear: Linear,
    weight: Range<usize>,
    affine: Option<(Range<usize>, Range<usize>)>,
    /// Before batch-norm; empty where there is none.
    before: Buffer,
    /// After the activation, where the next layer or the caller reads that; else left as it was.
    after: Buffer,
    normal: Normal,
    time: Timing,
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
        Self::with(layers, Isa::best(), Precision::F32)
    }

    /// An executor whose kernels use the given instruction set and precision.
    ///
    /// # Panics
    /// In a pass, where the machine does not have it ([`Isa::is_available`]).
    pub fn with(layers: Vec<Layer>, isa: Isa, precision: Precision) -> Self {
        let parameters = Parameters::new(&layers);
        let plan = |layer: &Layer| Plan {
            linear: Linear::of(layer, isa, precision),
            weight: parameters.range(layer, "weight").unwrap_or_default(),
            affine: parameters.range(layer, "gain").zip(parameters.range(layer, "shift")),
            before: Buffer::default(),
            after: Buffer::default(),
            normal: Normal::default(),
            time: Timing::default(),
        };
        let plans = layers.iter().map(plan).collect();
        Self { layers, plans, parameters, tape: None }
    }
}

/// Values that one task copies at least.
const COPIED: usize = 64 * 1024;

/// A place for each image's sums, which tasks fill in any order.
struct Parts<'a>(Vec<Mutex<&'a mut [f32]>>);

impl<'a> Parts<'a> {
    /// Places of `len` sums for `n` images, from the first sum on.
    fn of(sums: &'a mut [f32], n: usize, len: usize) -> Self {
        Self(sums.chunks_exact_mut(len.max(1)).take(n).map(Mutex::new).collect())
    }

    fn with(&self, image: usize, body: impl FnOnce(&mut [f32])) {
        // Nobody else wants this image's place: the lock is never waited for.
        body(&mut self.0[image].lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What sees the activation `(h, w, c)` of every image of a layer.
type Show<'a> = &'a (dyn Fn(usize, &[f32]) + Sync);

/// Columns of the matrix that batch-norm sees.
fn columns(layer: &Layer, norm: Norm) -> usize {
    match norm.scope {
        NormAxes::PerChannel => layer.output.channels,
        NormAxes::PerActivation => layer.output.len(),
    }
}

/// The rectifier's slope of a layer whose batch-norm and activation can be applied as its result is read.
fn leak_by_channel(layer: &Layer) -> Option<f32> {
    let norm = layer.norm.filter(|norm| norm.scope == NormAxes::PerChannel)?;
    norm::negative_slope(layer.activation).filter(|_| columns(layer, norm) > 0)
}

impl Plan {
    /// What the next layer reads, whose linear map is `next`; the caller reads it where there is none.
    fn output(&self, layer: &Layer, next: Option<&Linear>, n: usize) -> Source<'_> {
        let len = n * layer.output.len();
        match leak_by_channel(layer).filter(|_| next.is_some_and(Linear::finishes_input)) {
            Some(negative_slope) => Source::activated(self.before.get(len), &self.normal, negative_slope),
            None => Source::plain(self.after.get(len)),
        }
    }

    /// Runs the layer forward on `input`; gives the minibatch statistics in training. `finish` says whether the activation
    /// is written down; in evaluation mode `show` sees that of every image.
    fn forward(
        &mut self,
        layer: &Layer,
        (parameters, scratch, sums): (&Parameters, &mut Scratch, &mut Buffer),
        n: usize,
        input: Source<'_>,
        mode: Mode<'_>,
        (finish, show): (bool, Option<Show<'_>>),
    ) -> Result<Option<NormStatistics>> {
        let len = n * layer.output.len();
        let values = &parameters.values;
        let weights = Weights { values: &values[self.weight.clone()], version: parameters.version };
        let activation = layer.activation;
        let Some(norm) = layer.norm else {
            let output = self.after.sized(len);
            self.linear.forward(scratch, input, weights, output, &|image, map| {
                norm::activate(map, activation);
                show.inspect(|show| show(image, map));
            });
            return Ok(None);
        };
        let columns = columns(layer, norm);
        let before = self.before.sized(len);
        let affine = self.affine.clone();
        let affine = affine.map(|(gain, shift)| (&values[gain], &values[shift]));
        let shape = layer.norm_shape().unwrap_or_default();
        let mut batch = None;
        match mode {
            Mode::Train if len / columns < 2 => {
                return Err(OpsError::SingleValue { layer: layer.name.clone() });
            }
            Mode::Train => {
                let (mean, variance) = if norm.scope == NormAxes::PerChannel {
                    // Each image's moments are taken while it is in cache.
                    let sums = sums.sized(n * 2 * columns);
                    let parts = Parts::of(sums, n, 2 * columns);
                    self.linear.forward(scratch, input, weights, before, &|image, map| {
                        parts.with(image, |part| norm::moments(map, part));
                    });
                    drop(parts);
                    norm::combined(sums, columns, |_| layer.output.height * layer.output.width)
                } else {
                    self.linear.forward(scratch, input, weights, before, &|_, _| {});
                    norm::statistics(before, columns)
                };
                self.normal = Normal::new(mean, variance, norm.eps, affine);
                batch = Some(NormStatistics {
                    mean: to_outside(&self.normal.mean, &shape)?,
                    variance: to_outside(&self.normal.variance, &shape)?,
                    count: len / columns,
                });
            }
            Mode::Eval(statistics) => {
                let given = of_layer(statistics, &layer.name)?;
                crate::executor::check_shape(&format!("{}.mean", layer.name), &shape, &given.mean)?;
                crate::executor::check_shape(&format!("{}.variance", layer.name), &shape, &given.variance)?;
                let (mean, variance) = (to_inside(&given.mean)?, to_inside(&given.variance)?);
                self.normal = Normal::new(mean, variance, norm.eps, affine);
                let normal = &self.normal;
                self.linear.forward(scratch, input, weights, before, &|image, map| {
                    show.inspect(|show| {
                        conv::with_scratch(map.len(), |y| {
                            norm::normalize_image(map, normal, activation, y);
                            show(image, y);
                        });
                    });
                });
            }
        }
        if finish {
            let after = self.after.sized(len);
            norm::normalize(self.before.get(len), &self.normal, activation, after);
        }
        Ok(batch)
    }

    /// Whether the layer's backward pass undoes batch-norm and activation as it reads the derivative: the slope if so.
    fn derives(&self, layer: &Layer) -> Option<f32> {
        leak_by_channel(layer).filter(|_| self.linear.finishes_derivative())
    }

    /// What is done to each image of the derivative `d` by this layer's activation, as soon as it is written: batch-norm's sums
    /// of it are taken, or an activation alone is undone.
    fn receive(&self, layer: &Layer, sums: &Parts<'_>, image: usize, d: &mut [f32]) {
        let len = layer.output.len();
        let map = image * len..(image + 1) * len;
        if layer.norm.is_none() {
            return norm::activation_gradient(&self.after.get(map.end)[map], layer.activation, d);
        }
        if let Some(negative_slope) = self.derives(layer) {
            let before = &self.before.get(map.end)[map];
            sums.with(image, |part| norm::derivative_sums(before, d, &self.normal, negative_slope, part));
        }
    }

    /// After [`Plan::receive`] has seen all images: what is left of batch-norm's way back, and the gradients of gain and
    /// shift. Gives the slopes that the layer's own backward pass reads the derivative with.
    fn settle(
        &self,
        layer: &Layer,
        (n, train): (usize, bool),
        sums: &[f32],
        d: &mut [f32],
        gradients: Option<&mut [f32]>,
    ) -> Slopes {
        let Some(norm) = layer.norm else { return Slopes::default() };
        let len = n * layer.output.len();
        let columns = columns(layer, norm);
        let (sums, slopes) = if self.derives(layer).is_some() {
            let sums = Sums::combined(&sums[..n * 2 * columns], columns);
            let slopes = sums.slopes(&self.normal, len / columns, train);
            (sums, slopes)
        } else {
            let before = self.before.get(len);
            (norm::normalize_backward(before, &self.normal, layer.activation, train, d), Slopes::default())
        };
        if let (Some(gradients), Some((gain, shift))) = (gradients, &self.affine) {
            let add =
                |to: &mut [f32], sums: &[f64]| to.iter_mut().zip(sums).for_each(|(t, s)| *t += *s as f32);
            add(&mut gradients[gain.clone()], &sums.gain);
            add(&mut gradients[shift.clone()], &sums.shift);
        }
        slopes
    }
}

/// `(n, c, h, w)` with any memory layout to `(n, h, w, c)` contiguous; no copy where the memory is channels-last already.
fn channels_last(x: &Tensor) -> Result<Tensor> {
    check_held(x)?;
    let x = x.detach().to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?;
    Ok(x.permute((0, 2, 3, 1))?.contiguous()?)
}

/// A channels-last map as a tensor `(n, c, h, w)` whose memory stays channels-last.
fn to_tensor(values: &[f32], n: usize, shape: MapShape) -> Result<Tensor> {
    let MapShape { channels, height, width } = shape;
    let mut copy = spare_values(values.len());
    let parts = copy.par_chunks_mut(COPIED).zip(values.par_chunks(COPIED));
    parts.for_each(|(copy, values)| copy.copy_from_slice(values));
    Ok(Tensor::from_vec(copy, (n, height, width, channels), &Device::Cpu)?.permute((0, 3, 1, 2))?)
}

/// Lends the values of a contiguous host tensor of f32.
fn with_values<R>(tensor: &Tensor, body: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    check_held(tensor)?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("the tensor is not on the CPU".into()).into());
    };
    let start = layout.start_offset();
    body(&storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()])
}

/// Runs `body` on a thread of rayon's pool: from outside, every parallel loop would wait for one to wake up.
pub fn in_pool<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| body())
}

impl CpuExecutor {
    fn run_forward(
        &mut self,
        Workspace { scratch, sums, .. }: &mut Workspace,
        x: &Tensor,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward> {
        check_input(&self.layers, x)?;
        self.tape = None; // the buffers below are about to change
        let n = x.dim(0)?;
        let input = channels_last(x)?;
        let mut statistics = Statistics::new();
        let mut activations = Vec::new();
        let all = keep == Keep::Activations;
        let Self { layers, plans, parameters, .. } = self;
        for (i, layer) in layers.iter().enumerate() {
            let started = Instant::now();
            let (done, rest) = plans.split_at_mut(i);
            let Some((plan, after)) = rest.split_first_mut() else { break };
            // The activation is written down where the next layer cannot apply it, or the caller wants it.
            let next = after.first().map(|next| &next.linear);
            let finish = all || leak_by_channel(layer).is_none() || !next.is_some_and(Linear::finishes_input);
            let buffers = (&*parameters, &mut *scratch, &mut *sums);
            let show = hook.map(|hook| move |image: usize, map: &[f32]| hook(i, image, map));
            let asked = (finish, show.as_ref().map(|show| show as Show<'_>));
            let batch = match done.last() {
                Some(before) => {
                    let source = before.output(&layers[i - 1], Some(&plan.linear), n);
                    plan.forward(layer, buffers, n, source, mode, asked)?
                }
                None => with_values(&input, |input| {
                    plan.forward(layer, buffers, n, Source::plain(input), mode, asked)
                })?,
            };
            statistics.extend(batch.map(|batch| (layer.name.clone(), batch)));
            if all {
                activations.push(to_tensor(plan.after.get(n * layer.output.len()), n, layer.output)?);
            }
            plan.time.forward += started.elapsed();
        }
        let output = match (layers.last(), plans.last()) {
            (Some(layer), Some(plan)) => to_tensor(plan.after.get(n * layer.output.len()), n, layer.output)?,
            _ => x.detach(),
        };
        if keep == Keep::Tape {
            self.tape = Some(Tape { input, n, train: matches!(mode, Mode::Train) });
        }
        Ok(Forward { output, statistics, activations })
    }

    fn run_backward(
        &mut self,
        Workspace { scratch, back, sums }: &mut Workspace,
        d_output: &Tensor,
        want: Want,
    ) -> Result<Option<Tensor>> {
        let Self { layers, plans, parameters, tape } = self;
        let Tape { input, n, train } = tape.as_ref().ok_or(OpsError::NoTape)?;
        let (n, train) = (*n, *train);
        let Some(last) = layers.last() else { return Ok(None) };
        let MapShape { channels, height, width } = last.output;
        crate::executor::check_shape("the output's derivative", &[n, channels, height, width], d_output)?;
        let [d, next] = back;
        let last_len = last.output.len();
        let given = with_values(&channels_last(d_output)?, |values| {
            d.sized(values.len()).copy_from_slice(values);
            Ok(values.len())
        })?;
        // The widest layer's sums.
        let widest = layers.iter().map(|layer| layer.output.channels).max().unwrap_or(0);
        let sums = sums.sized(n * 2 * widest);
        if let Some(plan) = plans.last() {
            let shared = Parts::of(sums, n, 2 * last.output.channels);
            let maps = d.get_mut(given).par_chunks_mut(last_len).enumerate();
            maps.for_each(|(image, d)| plan.receive(last, &shared, image, d));
        }
        for (i, layer) in layers.iter().enumerate().rev() {
            let started = Instant::now();
            let (done, rest) = plans.split_at_mut(i);
            let Some(plan) = rest.first_mut() else { break };
            let len = n * layer.output.len();
            let weights =
                Weights { values: &parameters.values[plan.weight.clone()], version: parameters.version };
            let gradients = &mut parameters.gradients;
            let asked = want.parameters().then_some(&mut gradients[..]);
            let slopes = plan.settle(layer, (n, train), sums, d.get_mut(len), asked);
            let gradient = want.parameters().then(|| &mut gradients[plan.weight.clone()]);
            let source = match plan.derives(layer) {
                Some(negative_slope) => {
                    Source::derived(d.get(len), plan.before.get(len), &plan.normal, negative_slope, &slopes)
                }
                None => Source::plain(d.get(len)),
            };
            let out = next.sized(n * layer.input.len());
            let linear = &mut plan.linear;
            match done.last() {
                Some(before) => {
                    let input = before.output(&layers[i - 1], Some(linear), n);
                    let shared = Parts::of(sums, n, 2 * layer.input.channels);
                    let each =
                        |image: usize, d: &mut [f32]| before.receive(&layers[i - 1], &shared, image, d);
                    linear.backward(scratch, (input, source), weights, gradient, Some((out, &each)));
                }
                None => with_values(input, |input| {
                    let wanted: Wanted<'_> = want.input().then_some((out, &|_, _| {}));
                    linear.backward(scratch, (Source::plain(input), source), weights, gradient, wanted);
                    Ok(())
                })?,
            }
            plan.time.backward += started.elapsed();
            std::mem::swap(d, next);
        }
        if !want.input() {
            return Ok(None);
        }
        let first = layers[0].input;
        Ok(Some(to_tensor(d.get(n * first.len()), n, first)?))
    }
}

impl Executor for CpuExecutor {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn forward(&mut self, x: &Tensor, mode: Mode<'_>, keep: Keep) -> Result<Forward> {
        in_pool(|| Workspace::lend(|workspace| self.run_forward(workspace, x, mode, keep, None)))
    }

    fn forward_with_hook(
        &mut self,
        x: &Tensor,
        statistics: &Statistics,
        hook: ForwardHook<'_>,
    ) -> Result<Tensor> {
        let (mode, keep) = (Mode::Eval(statistics), Keep::Nothing);
        let pass = |workspace: &mut Workspace| self.run_forward(workspace, x, mode, keep, Some(hook));
        Ok(in_pool(|| Workspace::lend(pass))?.output)
    }

    fn backward(&mut self, d_output: &Tensor, want: Want) -> Result<Option<Tensor>> {
        in_pool(|| Workspace::lend(|workspace| self.run_backward(workspace, d_output, want)))
    }

    fn timings(&self) -> Vec<(String, &'static str, Timing)> {
        let timing = |(layer, plan): (&Layer, &Plan)| (layer.name.clone(), plan.linear.path(), plan.time);
        self.layers.iter().zip(&self.plans).map(timing).collect()
    }

    fn zero_gradients(&mut self) -> Result<()> {
        self.parameters.zero_gradients();
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

    fn set_ema(&mut self, average: &Tensors) -> Result<()> {
        self.parameters.set_ema(average)
    }

    fn update_ema(&mut self, decay: f64) -> Result<()> {
        self.parameters.update_ema(decay as f32);
        Ok(())
    }

    fn average(&self) -> Result<Option<Tensors>> {
        self.parameters.average()
    }
}
