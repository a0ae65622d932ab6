//! One layer of the CPU executor: its place in the parameters, its buffers, and both of its passes.

use super::buffer::Buffer;
use super::conv::with_scratch;
use super::kernels::Isa;
use super::label_inputs;
use super::linear::{GradInput, Linear};
use super::linear_input::{self, linear_input};
use super::map_view::MapView;
use super::norm::{self, InputGradient, NormGradients, Normalization};
use super::shards::Shards;
use super::winograd::{Scratch, Weights};
use super::workspace::Workspace;
use crate::executor::statistics_of;
use crate::group::{Moments, combine_moments, combine_sums};
use crate::{
    Layer, Layout, Maps, Mode, NormAxes, NormStatistics, OpsError, ParameterTable, ParameterValues,
    Precision, ProcessGroup, Result, Role, Timing,
};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Called with the activation `(h, w, c)` of every image of a layer.
pub(super) type ImageHook<'a> = &'a (dyn Fn(usize, &[f32]) + Sync);

/// Called with the map `(h, w, c)` of every image, to change it.
pub(super) type ImageMut<'a> = &'a (dyn Fn(usize, &mut [f32]) + Sync);

/// Sums of each image, which tasks write in any order.
pub(super) struct PerImageSums<'a>(Vec<Mutex<&'a mut [f32]>>);

impl<'a> PerImageSums<'a> {
    /// `len` sums for each of `n` images.
    pub(super) fn new(sums: &'a mut [f32], n: usize, len: usize) -> Self {
        Self(sums.chunks_exact_mut(len.max(1)).take(n).map(Mutex::new).collect())
    }

    fn with(&self, image: usize, body: impl FnOnce(&mut [f32])) {
        // No other task uses the sums of this image: the lock is never waited for.
        body(&mut self.0[image].lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What a forward pass does with a layer's activation.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Writes it to the layer's buffer.
    pub(super) write_activation: bool,
    /// Calls this with that of every image, in evaluation mode.
    pub(super) hook: Option<ImageHook<'a>>,
}

/// What the backward pass of every layer needs to know.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub(super) shards: Shards,
    /// Whether batch norm used minibatch statistics.
    pub(super) train: bool,
    pub(super) group: &'a dyn ProcessGroup,
}

/// One layer's place in the flat parameters and its buffers, kept from pass to pass.
#[derive(Debug)]
pub(super) struct LayerState {
    pub(super) linear: Linear,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    label_weight: Option<Range<usize>>,
    /// Weight and bias of batch norm.
    affine: Option<(Range<usize>, Range<usize>)>,
    /// Output of the linear operation (dense, convolution or transposed convolution) with its bias; empty where there
    /// is no batch norm.
    linear_output: Buffer,
    /// The activation, where the next layer or the caller reads it.
    activation: Buffer,
    normalization: Normalization,
    pub(super) time: Timing,
}

/// The negative slope of a layer whose batch norm and activation can be applied as its output is read.
fn fusable_slope(layer: &Layer) -> Option<f32> {
    layer.norm.filter(|norm| norm.axes == NormAxes::PerChannel)?;
    norm::negative_slope(layer.activation).filter(|_| layer.columns() > 0)
}

/// Whether batch norm and activation of `layer` are applied when `next` reads its output.
pub(super) fn applied_on_read(layer: &Layer, next: Option<&Linear>) -> bool {
    fusable_slope(layer).is_some() && next.is_some_and(Linear::finishes_input)
}

impl LayerState {
    pub(super) fn new(layer: &Layer, table: &ParameterTable, isa: Isa, precision: Precision) -> Self {
        let range = |role| table.range(layer, role);
        Self {
            linear: Linear::of(layer, isa, precision),
            weight: range(Role::Weight).unwrap_or_default(),
            bias: range(Role::Bias),
            label_weight: range(Role::LabelWeight),
            affine: range(Role::NormWeight).zip(range(Role::NormBias)),
            linear_output: Buffer::default(),
            activation: Buffer::default(),
            normalization: Normalization::default(),
            time: Timing::default(),
        }
    }

    /// The activation of `n` images, which was written.
    pub(super) fn activation(&self, layer: &Layer, n: usize) -> &[f32] {
        self.activation.get(n * layer.output.len())
    }

    /// The layer's output as the next layer's linear operation reads it; the activation where there is none.
    pub(super) fn output(&self, layer: &Layer, next: Option<&Linear>, n: usize) -> MapView<'_> {
        match fusable_slope(layer).filter(|_| next.is_some_and(Linear::finishes_input)) {
            Some(slope) => {
                MapView::activated(self.linear_output.get(n * layer.output.len()), &self.normalization, slope)
            }
            None => MapView::plain(self.activation(layer, n)),
        }
    }

    /// Runs the layer forward; returns the minibatch statistics in training.
    pub(super) fn forward(
        &mut self,
        layer: &Layer,
        (parameters, workspace): (ParameterValues<'_>, &mut Workspace),
        (shards, source, labels): (Shards, MapView<'_>, Option<&Maps>),
        (mode, group): (Mode<'_>, &dyn ProcessGroup),
        asked: Asked<'_>,
    ) -> Result<Option<NormStatistics>> {
        let n = shards.n();
        let len = n * layer.output.len();
        let Workspace { scratch, sums, joined, .. } = workspace;
        let source = linear_input(layer, source, labels, &mut joined[0]);
        let values = parameters.flat;
        let weights = Weights { values: &values[self.weight.clone()], version: parameters.version };
        let bias = self.bias.clone().map(|range| &values[range]);
        let label_weight = self.label_weight.clone().map(|range| &values[range]);
        let add_bias = |image: usize, map: &mut [f32]| {
            if let Some(bias) = bias {
                norm::add_bias(map, bias);
            }
            if let (Some(weight), Some(labels)) = (label_weight, labels) {
                label_inputs::add(map, labels.map(image), weight);
            }
        };
        let activation = layer.activation;
        let (linear, read_len) = (&mut self.linear, layer.linear_input().len());
        let Some(norm) = layer.norm else {
            let output = self.activation.sized(len);
            shards.forward(linear, scratch, (source, read_len), weights, output, &|image, map| {
                add_bias(image, map);
                norm::activate(map, activation);
                asked.hook.inspect(|hook| hook(image, map));
            });
            return Ok(None);
        };
        let columns = layer.columns();
        let output = self.linear_output.sized(len);
        let affine = self.affine.clone().map(|(weight, bias)| (&values[weight], &values[bias]));
        let mut batch = None;
        match mode {
            Mode::Train if len / columns * group.size() < 2 => {
                return Err(OpsError::SingleValue { layer: layer.name.clone() });
            }
            Mode::Train => {
                let of_shards: Vec<(Vec<f32>, Vec<f32>)> = if norm.axes == NormAxes::PerChannel {
                    // The moments of each image are taken while it is in cache.
                    let sums = sums.sized(n * 2 * columns);
                    let per_image = PerImageSums::new(sums, n, 2 * columns);
                    shards.forward(linear, scratch, (source, read_len), weights, output, &|image, map| {
                        add_bias(image, map);
                        per_image.with(image, |sums| norm::moments(map, sums));
                    });
                    drop(per_image);
                    let rows = layer.output.height * layer.output.width;
                    let of_shard = |sums| norm::combined(sums, columns, |_| rows);
                    shards.of(sums, 2 * columns).map(of_shard).collect()
                } else {
                    shards.forward(linear, scratch, (source, read_len), weights, output, &add_bias);
                    shards.of(output, layer.output.len()).map(|x| norm::statistics(x, columns)).collect()
                };
                let count = len / shards.count() / columns;
                let moments = of_shards.into_iter().map(|(mean, var)| Moments { mean, var, count });
                let Moments { mean, var, count } = combine_moments(group, moments.collect())?;
                self.normalization = Normalization::new(mean, var, norm.eps, affine);
                let shape = layer.norm_shape().unwrap_or_default();
                let tensor = |values: &[f32]| Layout::ChannelsLast.tensor(values, &shape);
                let (mean, var) = (tensor(&self.normalization.mean)?, tensor(&self.normalization.var)?);
                batch = Some(NormStatistics { mean, var, count });
            }
            Mode::Eval(statistics) => {
                let given = statistics_of(statistics, layer)?;
                let (mean, var) =
                    (Layout::ChannelsLast.values(&given.mean)?, Layout::ChannelsLast.values(&given.var)?);
                self.normalization = Normalization::new(mean, var, norm.eps, affine);
                let normalization = &self.normalization;
                shards.forward(linear, scratch, (source, read_len), weights, output, &|image, map| {
                    add_bias(image, map);
                    asked.hook.inspect(|hook| {
                        with_scratch(map.len(), |y| {
                            norm::normalize_image(map, normalization, activation, y);
                            hook(image, y);
                        });
                    });
                });
            }
        }
        if asked.write_activation {
            let written = self.activation.sized(len);
            norm::normalize(self.linear_output.get(len), &self.normalization, activation, written);
        }
        Ok(batch)
    }

    /// The negative slope, where the gradients of batch norm and activation are computed as the layer's own backward
    /// pass reads the gradient of its output.
    fn fused_gradient(&self, layer: &Layer) -> Option<f32> {
        fusable_slope(layer).filter(|_| self.linear.finishes_gradient() && layer.label_inputs == 0)
    }

    /// Takes the gradient `d` with respect to one image's activation as soon as it is written. Without batch norm `d`
    /// becomes the gradient with respect to the linear operation's output, and the bias's sums are taken; with batch
    /// norm its sums are.
    pub(super) fn receive_gradient(
        &self,
        layer: &Layer,
        sums: &PerImageSums<'_>,
        image: usize,
        d: &mut [f32],
    ) {
        let len = layer.output.len();
        let map = image * len..(image + 1) * len;
        if layer.norm.is_none() {
            norm::activation_gradient(&self.activation.get(map.end)[map], layer.activation, d);
            if layer.bias {
                sums.with(image, |sums| {
                    let sums = &mut sums[..layer.output.channels];
                    sums.fill(0.0);
                    norm::column_sums(d, sums);
                });
            }
        } else if let Some(slope) = self.fused_gradient(layer) {
            let x = &self.linear_output.get(map.end)[map];
            sums.with(image, |sums| norm::masked_gradient_sums(x, d, &self.normalization, slope, sums));
        }
    }

    /// After [`LayerState::receive_gradient`] of all images: the rest of batch norm's backward pass, and the gradients
    /// of the biases and of batch norm's weight. Returns what the layer's own backward pass reads the gradient with.
    pub(super) fn finish_norm(
        &self,
        layer: &Layer,
        pass: &Backward<'_>,
        sums: &[f32],
        d: &mut [f32],
        gradients: Option<&mut [f32]>,
    ) -> Result<InputGradient> {
        let Backward { shards, train, group } = *pass;
        let add = |to: &mut [f32], sums: &[f64]| to.iter_mut().zip(sums).for_each(|(t, s)| *t += *s as f32);
        if layer.norm.is_none() {
            if let (Some(gradients), Some(bias)) = (gradients, &self.bias) {
                let channels = layer.output.channels;
                let sums = shards.of(sums, 2 * channels);
                for (gradients, sums) in shards.gradients(gradients).zip(sums) {
                    let mut total = vec![0.0; channels];
                    let images = sums.chunks_exact(2 * channels);
                    images.for_each(|sums| norm::add_wide(&mut total, &sums[..channels]));
                    add(&mut gradients[bias.clone()], &total);
                }
            }
            return Ok(InputGradient::default());
        }
        let len = shards.n() * layer.output.len();
        let columns = layer.columns();
        let rows = len / columns;
        let fused = self.fused_gradient(layer).is_some();
        let locals: Vec<NormGradients> = if fused {
            shards.of(sums, 2 * columns).map(|sums| NormGradients::combined(sums, columns)).collect()
        } else {
            let x = shards.of(self.linear_output.get(len), layer.output.len());
            let d = shards.of_mut(d, layer.output.len());
            let backward = |(x, d)| norm::activation_backward(x, &self.normalization, layer.activation, d);
            x.zip(d).map(backward).collect()
        };
        // The gradient with respect to the input depends on the sums of the whole batch; the gradients of the
        // parameters are summed over the shards of all processes later.
        let total = NormGradients {
            bias: combine_sums(group, locals.iter().map(|local| local.bias.as_slice()))?,
            weight: combine_sums(group, locals.iter().map(|local| local.weight.as_slice()))?,
        };
        let input_gradient = total.input_gradient(&self.normalization, rows * group.size(), train);
        if let Some(gradients) = gradients {
            for (gradients, local) in shards.gradients(gradients).zip(&locals) {
                if let Some((weight, bias)) = &self.affine {
                    add(&mut gradients[weight.clone()], &local.weight);
                    add(&mut gradients[bias.clone()], &local.bias);
                }
                if let (Some(bias), false) = (&self.bias, train) {
                    // With minibatch statistics the mean takes the bias out again: its gradient is zero.
                    add(&mut gradients[bias.clone()], &self.bias_gradient(layer, &local.bias));
                }
            }
        }
        if fused {
            return Ok(input_gradient);
        }
        norm::input_backward(self.linear_output.get(len), &self.normalization, &input_gradient, d);
        Ok(InputGradient::default())
    }

    /// The gradient of the linear operation's bias under batch norm by given statistics, from the column sums of d'.
    fn bias_gradient(&self, layer: &Layer, sums: &[f64]) -> Vec<f64> {
        let mut total = vec![0.0; layer.output.channels];
        let scaled = sums.iter().zip(&self.normalization.scale).map(|(sum, &scale)| sum * f64::from(scale));
        for (column, value) in scaled.enumerate() {
            total[column % layer.output.channels] += value;
        }
        total
    }
}

impl LayerState {
    /// The backward pass of the linear operation on the gradient `d` after [`LayerState::finish_norm`]: adds the
    /// gradient of the weight to `gradients`, where given, and writes that with respect to the layer's input (without
    /// label channels), where wanted, calling the given function with each image of it.
    pub(super) fn backward(
        &mut self,
        layer: &Layer,
        (parameters, scratch, joined): (ParameterValues<'_>, &mut Scratch, &mut [Buffer; 2]),
        (shards, source, labels): (Shards, MapView<'_>, Option<&Maps>),
        (d, input_gradient): (&[f32], &InputGradient),
        (mut gradients, grad_input): (Option<&mut [f32]>, GradInput<'_>),
    ) {
        if let (Some(gradients), Some(range), Some(labels)) =
            (gradients.as_deref_mut(), self.label_weight.clone(), labels)
        {
            let channels = layer.output.channels;
            let parts = shards.of(labels.values(), layer.label_inputs).zip(shards.of(d, layer.output.len()));
            for (gradients, (labels, d)) in shards.gradients(gradients).zip(parts) {
                label_inputs::weight_gradient(labels, d, channels, &mut gradients[range.clone()]);
            }
        }
        let weights = Weights { values: &parameters.flat[self.weight.clone()], version: parameters.version };
        let fused = self.fused_gradient(layer);
        let Self { linear, linear_output, normalization, weight, .. } = self;
        let d = match fused {
            Some(slope) => {
                MapView::gradient(d, linear_output.get(d.len()), normalization, slope, input_gradient)
            }
            None => MapView::plain(d),
        };
        let [input, grad] = joined;
        let plain = source;
        let source = linear_input(layer, source, labels, input);
        let lens = (layer.linear_input().len(), layer.output.len());
        let of_weight = (gradients, weight.clone());
        if !layer.changes_input() {
            return shards.backward((linear, scratch), (source, d), lens, weights, of_weight, grad_input);
        }
        let Some((out, receive)) = grad_input else {
            return shards.backward((linear, scratch), (source, d), lens, weights, of_weight, None);
        };
        let grad = grad.sized(shards.n() * layer.linear_input().len());
        let to: GradInput<'_> = Some((&mut *grad, &|_, _| {}));
        shards.backward((linear, scratch), (source, d), lens, weights, of_weight, to);
        linear_input::gradient(layer, &plain.finished(), grad, out, receive);
    }
}
