//! ONNX files of generators and discriminators, for runtimes on any machine: opset 17, any batch size.

#![allow(clippy::cast_possible_truncation, reason = "ONNX stores eps and slopes as f32")]

mod graph;
mod schema;

use std::ops::Range;

use dcgan_ops::{Activation, Kind, Layer, MapShape, NormAxes, Resample, Role};
use prost::Message;

use crate::pixels::PixelRange;
use crate::weights::{HostTensor, Weights};
use crate::{Distribution, Model, ModelConfig};
use graph::{Graph, Value, float, int, integer, ints, text};
use schema::{FLOAT, INT64, ModelProto, OperatorSetIdProto, StringStringEntryProto, UINT8};

/// Version of the operators, and of the file format that goes with it.
const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// Rows and columns that feature maps are pooled to (paper, section 5.1).
const GRID: usize = 4;

/// What the images of an exported generator are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnnxImages {
    /// f32 `(n, c, h, w)` in the range of the network: \[-1, 1\], or \[0, 1\] for a sigmoid.
    #[default]
    Float,
    /// u8 `(n, h, w, c)`, as in image files.
    Bytes,
}

/// The input of a conditional generator beside `z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnnxLabels {
    /// `label`, i64 `(n)`: the class of each image.
    #[default]
    Classes,
    /// `labels`, f32 `(n, classes)`: a label vector of each image, one-hot for a class. Others interpolate classes.
    Vectors,
}

/// The inputs and outputs of an exported generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct GeneratorOptions<'a> {
    /// Its output.
    pub images: OnnxImages,
    /// Its second input, of conditional models.
    pub labels: OnnxLabels,
    /// The license, for the metadata.
    pub license: Option<&'a str>,
}

/// Why a network has no ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A tensor is missing.
    #[error(
        "{tensor} is missing: a network is exported with its batch norm statistics; train it with dcgan-train, or save \
         them with the weights"
    )]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A discriminator's features have no definition with class labels.
    #[error("features are those of a discriminator without classes")]
    Conditional,
}

/// The bytes of an ONNX file of G. Inputs: `z` `(n, size)`, and [`OnnxLabels`] for conditional models. Output: `image`.
///
/// # Errors
/// [`OnnxError::Missing`].
pub fn generator(model: &Model, weights: &Weights, options: GeneratorOptions) -> Result<Vec<u8>, OnnxError> {
    let config = model.config();
    let mut graph = Graph::new("generator");
    let size = config.latent.size;
    let z = graph.input("z", FLOAT, &[size], &latent_text(config));
    let labels = labels(&mut graph, config, options.labels);
    let mut maps = graph.reshape(z, &[-1, integer(size), 1, 1]);
    for layer in model.generator_layers() {
        maps = add(&mut graph, layer, weights, maps, labels.as_ref())?;
    }
    let (height, width, channels) = config.image_shape();
    match options.images {
        OnnxImages::Float => {
            let range = range_text(config);
            graph.output(maps, "image", FLOAT, &[channels, height, width], range);
        }
        OnnxImages::Bytes => {
            let scaled = match PixelRange::of(config.generator.output) {
                PixelRange::Symmetric => {
                    let positive = graph.scalar("Add", maps, 1.0);
                    graph.scalar("Mul", positive, 127.5)
                }
                PixelRange::Unit => graph.scalar("Mul", maps, 255.0),
            };
            // Round halves up, as this program does; ONNX's Round takes halves to even numbers.
            let shifted = graph.scalar("Add", scaled, 0.5);
            let floor = graph.node("Floor", &[shifted], Vec::new());
            let low = graph.scalar("Max", floor, 0.0);
            let clipped = graph.scalar("Min", low, 255.0);
            let last = graph.node("Transpose", &[clipped], vec![ints("perm", &[0, 2, 3, 1])]);
            let bytes = graph.node("Cast", &[last], vec![int("to", i64::from(UINT8))]);
            graph.output(bytes, "image", UINT8, &[height, width, channels], "pixels, 0 to 255");
        }
    }
    Ok(file(graph, config, "generator", options.license))
}

/// The bytes of an ONNX file of D. Inputs: `image`, f32 `(n, c, h, w)` in the range of the network, and `label` for
/// conditional models. Outputs: `logit` `(n)`, and with `features` the vectors `(n, size)` of section 5.1: the
/// activations of every block, max-pooled to 4x4.
///
/// # Errors
/// [`OnnxError`].
pub fn discriminator(
    model: &Model,
    weights: &Weights,
    features: bool,
    license: Option<&str>,
) -> Result<Vec<u8>, OnnxError> {
    let config = model.config();
    if features && config.is_conditional() {
        return Err(OnnxError::Conditional);
    }
    let mut graph = Graph::new("discriminator");
    let (height, width, channels) = config.image_shape();
    let mut maps = graph.input("image", FLOAT, &[channels, height, width], range_text(config));
    let labels = labels(&mut graph, config, OnnxLabels::Classes);
    let (mut pooled, mut size) = (Vec::new(), 0);
    for layer in model.discriminator_layers() {
        maps = add(&mut graph, layer, weights, maps, labels.as_ref())?;
        if features && layer.name.starts_with("blocks.") {
            pooled.push(pool(&mut graph, maps.clone(), layer.output));
            size += layer.output.channels * GRID * GRID;
        }
    }
    let logit = graph.reshape(maps, &[-1]);
    graph.output(logit, "logit", FLOAT, &[], "the logit of an image being real");
    if features {
        let joined = graph.node("Concat", &pooled, vec![int("axis", 1)]);
        graph.output(joined, "features", FLOAT, &[size], "activations of every block, max-pooled to 4x4");
    }
    Ok(file(graph, config, "discriminator", license))
}

/// The input of labels as label vectors `(n, classes)`.
fn labels(graph: &mut Graph, config: &ModelConfig, input: OnnxLabels) -> Option<Value> {
    config.is_conditional().then(|| match input {
        OnnxLabels::Classes => {
            let label = graph.input("label", INT64, &[], "the class of each image, from 0");
            let depth = graph.integers(&[integer(config.classes)]);
            let values = graph.floats("off_and_on", &[2], &[0.0, 1.0]);
            graph.node("OneHot", &[label, depth, values], vec![int("axis", -1)])
        }
        OnnxLabels::Vectors => {
            let text = "the label vector of each image: 1 for its class, 0 for the others";
            graph.input("labels", FLOAT, &[config.classes], text)
        }
    })
}

/// Adds a layer that reads `maps`; returns its output.
fn add(
    graph: &mut Graph,
    layer: &Layer,
    weights: &Weights,
    mut maps: Value,
    labels: Option<&Value>,
) -> Result<Value, OnnxError> {
    let find = |role: Role| {
        let tensor = layer.tensor_name(role);
        weights.get(&tensor).ok_or(OnnxError::Missing { tensor })
    };
    let constant = |graph: &mut Graph, role: Role, tensor: &HostTensor| {
        graph.floats(&layer.tensor_name(role), &tensor.shape, &tensor.data)
    };
    match layer.resample {
        None => {}
        Some(Resample::MaxPool(side)) => {
            maps = graph.node(
                "MaxPool",
                &[maps],
                vec![ints("kernel_shape", &[side; 2]), ints("strides", &[side; 2])],
            );
        }
        Some(Resample::Nearest(factor)) => {
            let name = format!("{}.scales", layer.name);
            let scales = graph.floats(&name, &[4], &[1.0, 1.0, factor as f32, factor as f32]);
            let how = [
                ("mode", "nearest"),
                ("coordinate_transformation_mode", "asymmetric"),
                ("nearest_mode", "floor"),
            ];
            let how = how.map(|(name, value)| text(name, value)).to_vec();
            maps = graph.node("Resize", &[maps, String::new(), scales], how);
        }
    }
    if let (Some(labels), true) = (labels, layer.label_channels > 0) {
        let shape = layer.linear_input();
        let column = graph.reshape(labels.clone(), &[-1, integer(layer.label_channels), 1, 1]);
        let full = graph.integers(&[1, 1, integer(shape.height), integer(shape.width)]);
        let constant_maps = graph.node("Expand", &[column, full], Vec::new());
        maps = graph.node("Concat", &[maps, constant_maps], vec![int("axis", 1)]);
    }
    let (rows, columns) = layer.padding;
    let mut attributes = vec![
        ints("kernel_shape", &[layer.kernel.0, layer.kernel.1]),
        ints("strides", &[layer.stride; 2]),
        ints("pads", &[rows, columns, rows, columns]),
    ];
    let operator = match layer.kind {
        Kind::Conv => "Conv",
        Kind::ConvTranspose => {
            attributes.push(ints("output_padding", &[layer.output_padding; 2]));
            "ConvTranspose"
        }
    };
    let mut inputs = vec![maps, constant(graph, Role::Weight, find(Role::Weight)?)];
    if layer.bias {
        inputs.push(constant(graph, Role::Bias, find(Role::Bias)?));
    }
    maps = graph.node(operator, &inputs, attributes);
    if let (Some(labels), true) = (labels, layer.label_inputs > 0) {
        let weight = constant(graph, Role::LabelWeight, find(Role::LabelWeight)?);
        let how = vec![int("transB", 1)];
        let product = graph.node("Gemm", &[labels.clone(), weight], how);
        let column = graph.reshape(product, &[-1, integer(layer.output.channels), 1, 1]);
        maps = graph.node("Add", &[maps, column], Vec::new());
    }
    if let Some(norm) = layer.norm {
        let (mean, var) = (find(Role::RunningMean)?, find(Role::RunningVar)?);
        let of = |role: Role, value: f32| match norm.affine {
            true => find(role).cloned(),
            false => Ok(HostTensor { shape: mean.shape.clone(), data: vec![value; mean.data.len()] }),
        };
        let (weight, bias) = (of(Role::NormWeight, 1.0)?, of(Role::NormBias, 0.0)?);
        maps = match norm.axes {
            NormAxes::PerChannel => {
                let inputs = [
                    maps,
                    constant(graph, Role::NormWeight, &weight),
                    constant(graph, Role::NormBias, &bias),
                    constant(graph, Role::RunningMean, mean),
                    constant(graph, Role::RunningVar, var),
                ];
                graph.node("BatchNormalization", &inputs, vec![float("epsilon", norm.eps as f32)])
            }
            // ONNX has no such batch norm: a factor and a term for each activation.
            NormAxes::PerActivation => {
                let scale =
                    |(weight, var): (&f32, &f32)| f64::from(*weight) / (f64::from(*var) + norm.eps).sqrt();
                let scale: Vec<f64> = weight.data.iter().zip(&var.data).map(scale).collect();
                let pairs = scale.iter().zip(bias.data.iter().zip(&mean.data));
                let term: Vec<f32> = pairs
                    .map(|(scale, (bias, mean))| (f64::from(*bias) - f64::from(*mean) * scale) as f32)
                    .collect();
                let scale: Vec<f32> = scale.into_iter().map(|scale| scale as f32).collect();
                let scale = graph.floats(&format!("{}.norm.factor", layer.name), &mean.shape, &scale);
                let term = graph.floats(&format!("{}.norm.term", layer.name), &mean.shape, &term);
                let scaled = graph.node("Mul", &[maps, scale], Vec::new());
                graph.node("Add", &[scaled, term], Vec::new())
            }
        };
    }
    Ok(match layer.activation {
        Activation::Identity => maps,
        Activation::Relu => graph.node("Relu", &[maps], Vec::new()),
        Activation::LeakyRelu(slope) => graph.node("LeakyRelu", &[maps], vec![float("alpha", slope as f32)]),
        Activation::Tanh => graph.node("Tanh", &[maps], Vec::new()),
        Activation::Sigmoid => graph.node("Sigmoid", &[maps], Vec::new()),
    })
}

/// Maps pooled to 4x4 as by PyTorch's adaptive pooling, flattened by channels: `(n, 16 c)`.
fn pool(graph: &mut Graph, maps: Value, shape: MapShape) -> Value {
    let MapShape { channels, height, width } = shape;
    let pooled = if height.is_multiple_of(GRID) && width.is_multiple_of(GRID) {
        let window = [height / GRID, width / GRID];
        graph.node("MaxPool", &[maps], vec![ints("kernel_shape", &window), ints("strides", &window)])
    } else {
        let rows = pool_side(graph, &maps, 2, height);
        pool_side(graph, &rows, 3, width)
    };
    graph.reshape(pooled, &[-1, integer(channels * GRID * GRID)])
}

/// The maxima of four windows along an axis.
fn pool_side(graph: &mut Graph, maps: &Value, axis: i64, side: usize) -> Value {
    let window = |i: usize| -> Range<usize> { i * side / GRID..((i + 1) * side).div_ceil(GRID) };
    let maxima: Vec<Value> = (0..GRID)
        .map(|i| {
            let Range { start, end } = window(i);
            let bounds = [integer(start), integer(end), axis].map(|number| graph.integers(&[number]));
            let [start, end, axes] = bounds;
            let part = graph.node("Slice", &[maps.clone(), start, end, axes], Vec::new());
            let axes = ints("axes", &[usize::try_from(axis).unwrap_or_default()]);
            graph.node("ReduceMax", &[part], vec![axes, int("keepdims", 1)])
        })
        .collect();
    graph.node("Concat", &maxima, vec![int("axis", axis)])
}

fn latent_text(config: &ModelConfig) -> String {
    let distribution = match config.latent.distribution {
        Distribution::Uniform => "uniform in [-1, 1]",
        Distribution::Normal => "normal, mean 0 and variance 1",
    };
    format!("latent vectors, {distribution}")
}

fn range_text(config: &ModelConfig) -> &'static str {
    match PixelRange::of(config.generator.output) {
        PixelRange::Symmetric => "pixels in [-1, 1]",
        PixelRange::Unit => "pixels in [0, 1]",
    }
}

fn file(graph: Graph, config: &ModelConfig, network: &str, license: Option<&str>) -> Vec<u8> {
    let (height, width, channels) = config.image_shape();
    let mut metadata = vec![
        ("name", config.name.clone()),
        ("network", network.to_owned()),
        ("z", format!("{} values, {}", config.latent.size, latent_text(config))),
        ("image", format!("{height} x {width} x {channels}, {}", range_text(config))),
    ];
    if config.is_conditional() {
        let names: Vec<String> = (0..config.classes).map(|class| config.class_name(class)).collect();
        metadata.push(("classes", names.join("\n")));
    }
    metadata.extend(license.map(|license| ("license", license.to_owned())));
    let entry = |(key, value): (&str, String)| StringStringEntryProto { key: key.to_owned(), value };
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "dcgan-rs".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: format!("The {network} of a DCGAN (Radford, Metz and Chintala 2016): {}", config.name),
        graph: Some(graph.finish()),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        metadata_props: metadata.into_iter().map(entry).collect(),
    };
    model.encode_to_vec()
}
