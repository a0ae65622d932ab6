//! The executor interface: a network is data, an executor computes it.

use crate::{
    Device, Layer, Layout, Maps, NormStatistics, OpsError, ParameterValues, Precision, ProcessGroup, Result,
    SingleProcess, Statistics,
};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Tensors by name, in the order of their names.
pub type Tensors = BTreeMap<String, Tensor>;

/// Where and how a network is computed.
#[derive(Clone, Debug)]
pub struct ExecutorOptions {
    /// The device.
    pub device: Device,
    /// Precision of the inputs of matrix products and convolutions; accumulation and parameters are f32. The processor
    /// may have instructions for bf16 ([`crate::Isa::multiplies_bf16`]).
    pub precision: Precision,
    /// The processes that compute one batch together.
    pub group: Arc<dyn ProcessGroup>,
    /// Shards of a batch in this process, as many as in every other one. A batch in the same shards gives the same
    /// bytes in any number of processes.
    pub shards: usize,
    /// What batch norm takes its statistics over in training.
    pub batch_norm: BatchNormOver,
}

/// The images that batch norm takes its statistics over in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchNormOver {
    /// All of the minibatch, in all processes.
    #[default]
    Batch,
    /// Those of each shard; running statistics are those of all shards.
    Shard,
}

impl ExecutorOptions {
    /// f32 on `device`, in one process.
    pub fn new(device: impl Into<Device>) -> Self {
        Self {
            device: device.into(),
            precision: Precision::F32,
            group: Arc::new(SingleProcess),
            shards: 1,
            batch_norm: BatchNormOver::Batch,
        }
    }

    /// The same in another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }
}

/// What a network reads: a batch of maps, and class labels where its layers read them.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// `(n, h, w, c)` of the first layer's input.
    pub maps: &'a Maps,
    /// A label vector per map, `(n, classes)`: one-hot ([`Maps::one_hot`]), or soft labels.
    pub labels: Option<&'a Maps>,
}

impl<'a> From<&'a Maps> for Input<'a> {
    fn from(maps: &'a Maps) -> Self {
        Self { maps, labels: None }
    }
}

/// Which statistics batch norm normalizes by.
#[derive(Clone, Copy, Debug)]
pub enum Mode<'a> {
    /// The minibatch's own, which the pass returns.
    Train,
    /// The given ones.
    Eval(&'a Statistics),
}

/// What a forward pass keeps beside its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// What `backward` needs; it replaces the tape of any pass before.
    Tape,
    /// The activation of every layer, returned.
    Activations,
}

/// What a backward pass computes gradients with respect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithRespectTo {
    /// The parameters; added to what is there.
    Parameters,
    /// The input alone: D in the generator's step.
    Input,
    /// Both.
    Both,
}

impl WithRespectTo {
    pub(crate) fn parameters(self) -> bool {
        self != WithRespectTo::Input
    }
    pub(crate) fn input(self) -> bool {
        self != WithRespectTo::Parameters
    }
}

/// Called with every activation of a forward pass: layer index, image index, and the values `(h, w, c)`. It is called
/// from several threads, in any order, once for every layer and image, and must not start parallel loops of its own.
pub type ForwardHook<'a> = &'a (dyn Fn(usize, usize, &[f32]) + Sync);

/// What a forward pass returns.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The last layer's activation.
    pub output: Maps,
    /// Minibatch statistics of every batch norm layer ([`Mode::Train`]); empty in [`Mode::Eval`].
    pub statistics: Statistics,
    /// With [`Keep::Activations`] every layer's activation in order; else empty.
    pub activations: Vec<Maps>,
}

/// Time that one layer has taken since the executor was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// In forward passes.
    pub forward: Duration,
    /// In backward passes.
    pub backward: Duration,
}

/// How one layer is computed, and the time it has taken.
#[derive(Clone, Debug)]
pub struct LayerTiming {
    /// The layer's name.
    pub layer: String,
    /// Name of the algorithm of its linear operation (dense, convolution or transposed convolution).
    pub algorithm: String,
    /// Its time.
    pub time: Timing,
}

/// One convolution of a layer as a device computes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionTime {
    /// The layer's name.
    pub layer: String,
    /// `output`, `input gradient` or `weight gradient`.
    pub computes: &'static str,
    /// The library's number of the algorithm.
    pub engine: i64,
    /// Bytes of memory that it takes beside its operands.
    pub workspace: usize,
    /// Time of one run.
    pub time: Duration,
    /// Floating point operations of one run, in units of 10^12 a second.
    pub tflops: f64,
}

/// Computes one network on one device. It holds no parameters: they are given to every pass ([`crate::Parameters`]).
///
/// A forward pass changes nothing that a later pass could see: statistics are returned.
pub trait Executor: Send + std::fmt::Debug {
    /// The network.
    fn layers(&self) -> &[Layer];

    /// Where it is computed.
    fn device(&self) -> &Device;

    /// The layout in which it reads parameters and adds to gradients.
    fn layout(&self) -> Layout;

    /// The processes that compute one batch together.
    fn group(&self) -> &dyn ProcessGroup;

    /// Shards of a training batch in this process, each with gradients of its own: [`Executor::backward`] gets as many
    /// flat buffers, one after the other.
    fn shards(&self) -> usize {
        1
    }

    /// Whether passes are those of this process alone from now on, in one shard: what one process of a group computes
    /// while the others do something else.
    fn set_alone(&mut self, _alone: bool) {}

    /// Runs the layers; with a `hook`, calls it with every activation as soon as it is computed, which takes less
    /// memory than [`Keep::Activations`]. A hook needs [`Mode::Eval`].
    ///
    /// # Errors
    /// A shape that does not fit, statistics or labels that are missing, memory.
    fn forward(
        &mut self,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward>;

    /// Runs back from `grad_output`, the gradient of the loss with respect to the output of the last pass kept with
    /// [`Keep::Tape`], on the same parameters. Adds the gradient with respect to the parameters to `gradients` and
    /// returns that with respect to the input where asked for. The tape stays until the next pass.
    ///
    /// # Errors
    /// [`OpsError::NoTape`], shapes, memory.
    fn backward(
        &mut self,
        parameters: ParameterValues<'_>,
        gradients: &mut [f32],
        grad_output: &Maps,
        wrt: WithRespectTo,
    ) -> Result<Option<Maps>>;

    /// Times each convolution of a batch of `n` images by itself, on maps of zeros; none where that is not known.
    ///
    /// # Errors
    /// Memory, failures of the device.
    fn time_convolutions(&mut self, _n: usize) -> Result<Vec<ConvolutionTime>> {
        Ok(Vec::new())
    }

    /// How each layer is computed and the time it has taken; empty where that is not known.
    fn timings(&self) -> Vec<LayerTiming> {
        Vec::new()
    }
}

/// Refuses an input that does not fit the first layer, and labels that do not fit any.
pub(crate) fn check_input(layers: &[Layer], input: Input<'_>) -> Result<()> {
    let Some(first) = layers.first() else { return Ok(()) };
    let n = input.maps.n();
    input.maps.check(&format!("input of {}", first.name), n.max(1), first.input)?;
    for layer in layers {
        for classes in [layer.label_channels, layer.label_inputs].into_iter().filter(|&classes| classes > 0) {
            let labels = input.labels.ok_or_else(|| OpsError::NoLabels { layer: layer.name.clone() })?;
            labels.check("the labels", n, crate::MapShape::new(classes, 1, 1))?;
        }
        if let Some(resample) = layer.resample.filter(|resample| resample.output(layer.input).is_none()) {
            return Err(OpsError::Resample { layer: layer.name.clone(), resample, input: layer.input });
        }
        if layer.label_inputs > 0 && layer.output.len() != layer.output.channels {
            return Err(OpsError::LabelInputs { layer: layer.name.clone(), output: layer.output });
        }
    }
    Ok(())
}

/// Refuses a tensor of another shape.
pub(crate) fn check_shape(name: &str, expected: &[usize], found: &Tensor) -> Result<()> {
    if found.dims() == expected {
        return Ok(());
    }
    Err(OpsError::Shape {
        what: name.to_owned(),
        expected: format!("{expected:?}"),
        found: found.dims().to_vec(),
    })
}

/// The statistics of `layer`, checked, or which tensor is missing.
pub(crate) fn statistics_of<'a>(statistics: &'a Statistics, layer: &Layer) -> Result<&'a NormStatistics> {
    let name = |role| layer.tensor_name(role);
    let found = statistics
        .get(&layer.name)
        .ok_or_else(|| OpsError::Missing { name: name(crate::Role::RunningMean) })?;
    let shape = layer.norm_shape().unwrap_or_default();
    check_shape(&name(crate::Role::RunningMean), &shape, &found.mean)?;
    check_shape(&name(crate::Role::RunningVar), &shape, &found.var)?;
    Ok(found)
}
