//! Features of images: the network on the operations of dcgan-ops, with pools and concatenation of channels beside it.

use std::collections::BTreeMap;

use candle_core::{Device as TensorDevice, Tensor};
use dcgan_base::matrix::{MatrixView, matmul};
use dcgan_model::weights::HostTensor;
use dcgan_ops::{
    Activation, BufferPool, Device, ExecutorOptions, Keep, Kind, Layer, MapShape, Maps, Network, Norm,
    NormAxes, NormStatistics, OpsError, PooledBuffer, Role, Statistics, Tensors,
};
use rayon::prelude::*;

use super::architecture::{CLASSES, Conv, FEATURES, Part, SIDE, parts};
use super::weights::{ConvWeights, InceptionWeights};
use crate::convention::{Convention, INPUT_LEN, Image};
use crate::error::MetricsError;

/// Rows of a product.
const ROWS: usize = 256;

/// Images of a pass: larger ones are no faster and take more memory.
pub const BATCH: usize = 8;

/// Added to variances under the square root.
const EPS: f64 = 1e-3;

/// The network on a device.
#[derive(Debug)]
pub struct Inception {
    stages: Vec<Stage>,
    /// `(classes, features)`.
    logits: HostTensor,
    inputs: BufferPool,
}

/// A [`Part`] ready to run, with the buffers of its output.
#[derive(Debug)]
struct Stage {
    kind: StageKind,
    outputs: BufferPool,
}

#[derive(Debug)]
enum StageKind {
    Convs(Box<Network>),
    MaxPool { stride: usize, padding: usize },
    AveragePool,
    Branches(Vec<Vec<Stage>>),
}

/// Features of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// `(n, 2048)`: the means of the last feature maps.
    pub features: Vec<f32>,
    /// `(n, 1008)`: logits without bias, those of the Inception score.
    pub logits: Vec<f32>,
}

impl Inception {
    /// The network with `weights` on `device`.
    ///
    /// # Errors
    /// Memory; failures of the device.
    pub fn new(weights: &InceptionWeights, device: Device) -> Result<Self, MetricsError> {
        let input = MapShape::new(3, SIDE, SIDE);
        let options = ExecutorOptions::new(device);
        let (stages, _) = build(&parts(), input, weights, &options)?;
        Ok(Self { stages, logits: weights.logits.clone(), inputs: BufferPool::new() })
    }

    /// A buffer for `n` images, of arbitrary content. It is used again when the pass that read it is over.
    pub fn input(&self, n: usize) -> PooledBuffer {
        self.inputs.take(n * INPUT_LEN)
    }

    /// Features of `n` images of 299x299 pixels, f32 `(n, 299, 299, 3)`, as a [`crate::Convention`] prepares them.
    ///
    /// # Errors
    /// Another number of values; memory; failures of the device.
    pub fn features(&mut self, images: impl Into<PooledBuffer>, n: usize) -> Result<Features, MetricsError> {
        let maps = Maps::new(images, n, MapShape::new(3, SIDE, SIDE))?;
        let maps = run(&mut self.stages, maps)?;
        let pixels = maps.shape().height * maps.shape().width;
        let mut features = vec![0.0_f32; n * FEATURES];
        features.par_chunks_mut(FEATURES).enumerate().for_each(|(image, features)| {
            for pixel in maps.map(image).chunks_exact(FEATURES) {
                features.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += value);
            }
            features.iter_mut().for_each(|sum| *sum /= pixels as f32);
        });
        let logits = self.logits(&features);
        Ok(Features { features, logits })
    }

    /// Features `(n, 2048)` of images as `convention` prepares them, in passes of [`BATCH`] images.
    ///
    /// # Errors
    /// Memory; failures of the device.
    ///
    /// # Panics
    /// As [`Convention::prepare`], for pixels of another number than an image has.
    pub fn features_of_images(
        &mut self,
        images: &[Image<'_>],
        convention: Convention,
    ) -> Result<Vec<f32>, MetricsError> {
        let mut features = Vec::with_capacity(images.len() * FEATURES);
        for batch in images.chunks(BATCH) {
            let mut input = self.input(batch.len());
            input.par_chunks_mut(INPUT_LEN).zip(batch).for_each(|(input, image)| {
                convention.prepare(image.pixels, image.height, image.width, image.channels, input);
            });
            features.extend(self.features(input, batch.len())?.features);
        }
        Ok(features)
    }

    /// Logits `(n, 1008)` of features `(n, 2048)`.
    pub fn logits(&self, features: &[f32]) -> Vec<f32> {
        let n = features.len() / FEATURES;
        let mut logits = vec![0.0; n * CLASSES];
        let transposed = MatrixView::new(&self.logits.data, CLASSES, FEATURES).t();
        // A product of few rows sums in another order: parts do not depend on the caller.
        let parts = logits.par_chunks_mut(ROWS * CLASSES).zip(features.par_chunks(ROWS * FEATURES));
        parts.for_each(|(logits, features)| {
            let rows = features.len() / FEATURES;
            matmul(logits, MatrixView::new(features, rows, FEATURES), transposed, false);
        });
        logits
    }
}

/// The stages of `parts` and the shape after them.
fn build(
    parts: &[Part],
    mut shape: MapShape,
    weights: &InceptionWeights,
    options: &ExecutorOptions,
) -> Result<(Vec<Stage>, MapShape), MetricsError> {
    let mut stages = Vec::new();
    for part in parts {
        let kind = match part {
            Part::Convs(convs) => {
                let layers: Vec<Layer> = convs.iter().map(|conv| layer(conv, &mut shape)).collect();
                StageKind::Convs(Box::new(network(layers, &weights.convs, options)?))
            }
            Part::MaxPool { stride, padding } => {
                shape = pooled(shape, *stride, *padding);
                StageKind::MaxPool { stride: *stride, padding: *padding }
            }
            Part::AveragePool => StageKind::AveragePool,
            Part::Branches(branches) => {
                let (mut built, mut channels, mut output) = (Vec::new(), 0, shape);
                for branch in branches {
                    let (stages, found) = build(branch, shape, weights, options)?;
                    built.push(stages);
                    channels += found.channels;
                    output = found;
                }
                shape = MapShape { channels, ..output };
                StageKind::Branches(built)
            }
        };
        stages.push(Stage { kind, outputs: BufferPool::new() });
    }
    Ok((stages, shape))
}

/// The layer of a convolution that reads `shape`, which becomes that of its output.
fn layer(conv: &Conv, shape: &mut MapShape) -> Layer {
    let side = |input: usize, kernel: usize, padding: usize| (input + 2 * padding - kernel) / conv.stride + 1;
    let output = MapShape {
        channels: conv.outputs,
        height: side(shape.height, conv.kernel.0, conv.padding.0),
        width: side(shape.width, conv.kernel.1, conv.padding.1),
    };
    let input = std::mem::replace(shape, output);
    Layer {
        kernel: conv.kernel,
        stride: conv.stride,
        padding: conv.padding,
        norm: Some(Norm { axes: NormAxes::PerChannel, affine: true, eps: EPS }),
        activation: Activation::Relu,
        ..Layer::plain(conv.name.clone(), Kind::Conv, input, output)
    }
}

fn network(
    layers: Vec<Layer>,
    weights: &BTreeMap<String, ConvWeights>,
    options: &ExecutorOptions,
) -> Result<Network, MetricsError> {
    let mut network = Network::new(layers, options)?;
    let (mut tensors, mut statistics) = (Tensors::new(), Statistics::new());
    for layer in network.layers() {
        let Some(found) = weights.get(&layer.name) else {
            return Err(OpsError::Missing { name: layer.name.clone() }.into());
        };
        let ones = HostTensor { data: vec![1.0; found.mean.data.len()], shape: found.mean.shape.clone() };
        tensors.insert(layer.tensor_name(Role::Weight), tensor(&found.weight)?);
        tensors.insert(
            layer.tensor_name(Role::NormWeight),
            tensor(found.norm_weight.as_ref().unwrap_or(&ones))?,
        );
        tensors.insert(layer.tensor_name(Role::NormBias), tensor(&found.norm_bias)?);
        let of_layer = NormStatistics { mean: tensor(&found.mean)?, var: tensor(&found.var)?, count: 0 };
        statistics.insert(layer.name.clone(), of_layer);
    }
    network.parameters_mut().set(&tensors)?;
    network.set_running_stats(statistics);
    Ok(network)
}

fn tensor(host: &HostTensor) -> Result<Tensor, OpsError> {
    Ok(Tensor::from_slice(&host.data, &host.shape[..], &TensorDevice::Cpu)?)
}

fn run(stages: &mut [Stage], mut maps: Maps) -> Result<Maps, MetricsError> {
    for stage in stages {
        let outputs = &stage.outputs;
        maps = match &mut stage.kind {
            StageKind::Convs(network) => network.eval(&maps, Keep::Nothing)?.output,
            StageKind::MaxPool { stride, padding } => pool(&maps, *stride, *padding, true, outputs)?,
            StageKind::AveragePool => pool(&maps, 1, 1, false, outputs)?,
            StageKind::Branches(branches) => {
                let branches: Result<Vec<Maps>, _> =
                    branches.iter_mut().map(|branch| run(branch, maps.clone())).collect();
                concatenate(&branches?, outputs)?
            }
        };
    }
    Ok(maps)
}

/// The shape after 3x3 windows.
fn pooled(shape: MapShape, stride: usize, padding: usize) -> MapShape {
    let side = |side: usize| (side + 2 * padding - 3) / stride + 1;
    MapShape { height: side(shape.height), width: side(shape.width), ..shape }
}

/// The maximum or the average of 3x3 windows over the cells that are inside.
fn pool(
    maps: &Maps,
    stride: usize,
    padding: usize,
    is_max: bool,
    outputs: &BufferPool,
) -> Result<Maps, MetricsError> {
    let (input, output) = (maps.shape(), pooled(maps.shape(), stride, padding));
    let channels = input.channels;
    let mut values = outputs.take(maps.n() * output.len());
    let row = output.width * channels;
    values.par_chunks_mut(row).enumerate().for_each(|(index, values)| {
        let (image, y) = (index / output.height, index % output.height);
        let map = maps.map(image);
        let window = |start: usize, side: usize| {
            let first = (start * stride).saturating_sub(padding);
            first..(start * stride + 3 - padding).min(side)
        };
        for (x, values) in values.chunks_exact_mut(channels).enumerate() {
            let (rows, columns) = (window(y, input.height), window(x, input.width));
            values.fill(if is_max { f32::NEG_INFINITY } else { 0.0 });
            for row in rows.clone() {
                for column in columns.clone() {
                    let cell = &map[(row * input.width + column) * channels..][..channels];
                    let pairs = values.iter_mut().zip(cell);
                    if is_max {
                        pairs.for_each(|(value, cell)| *value = value.max(*cell));
                    } else {
                        pairs.for_each(|(value, cell)| *value += cell);
                    }
                }
            }
            if !is_max {
                let cells = (rows.len() * columns.len()) as f32;
                values.iter_mut().for_each(|value| *value /= cells);
            }
        }
    });
    Ok(Maps::new(values, maps.n(), output)?)
}

/// Maps of equal size concatenated along the channels.
fn concatenate(parts: &[Maps], outputs: &BufferPool) -> Result<Maps, MetricsError> {
    let channels: usize = parts.iter().map(|part| part.shape().channels).sum();
    let first = parts.first().map_or(MapShape::new(0, 0, 0), Maps::shape);
    let n = parts.first().map_or(0, Maps::n);
    let shape = MapShape { channels, ..first };
    let mut values = outputs.take(n * shape.len());
    values.par_chunks_mut(channels.max(1)).enumerate().for_each(|(pixel, mut values)| {
        for part in parts {
            let channels = part.shape().channels;
            let (to, rest) = std::mem::take(&mut values).split_at_mut(channels);
            to.copy_from_slice(&part.values()[pixel * channels..][..channels]);
            values = rest;
        }
    });
    Ok(Maps::new(values, n, shape)?)
}
