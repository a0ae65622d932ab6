//! The executor for NVIDIA GPUs: channels-last maps in f32 or bf16, convolutions by cuDNN's graph API, kernels of this
//! program for everything else. Driver and cuDNN are loaded when a device is opened: the program builds, starts and
//! runs on a CPU without them.
//!
//! - `mod.rs`: the executor, which runs the layers forward and backward;
//! - `layers.rs`: a network's layers; `layer.rs`: one layer's buffers, and both of its passes;
//! - `training.rs`: training steps of two networks whose state stays on the GPU; `trained.rs`: the state of one;
//!   `slots.rs`: what a step reads, prefetched; `memory.rs`: the memory that all this takes;
//! - `conv.rs`: convolutions; `kernels.cu`: the other kernels, compiled as `kernels.ptx`;
//! - `timing.rs`: times of single convolutions;
//! - `gpu.rs`: the opened device, its memory and its kernels; `error.rs`: what goes wrong, with the fix.
//!
//! Engines of cuDNN that are not deterministic are not used, and sums are taken in a fixed order: on one card, the same
//! input gives the same bytes.

#![expect(unsafe_code, reason = "calls of the driver and of cuDNN")]

mod conv;
mod error;
mod gpu;
mod layer;
mod layers;
mod memory;
mod nccl;
mod slots;
mod timing;
mod trained;
mod training;

pub use error::CudaError;
pub use gpu::Gpu;
pub use training::CudaTraining;

use crate::executor::{check_input, statistics_of};
use crate::{
    ConvolutionTime, Device, Executor, Forward, ForwardHook, Input, Keep, Layer, Layout, MapShape, Maps,
    Mode, NormStatistics, OpsError, ParameterValues, Precision, ProcessGroup, Result, SingleProcess,
    Statistics, WithRespectTo,
};
use gpu::{Buffer, elements, int};
use layer::{Parameters as Addresses, Pass, Scratch, pointer};
use layers::Layers;
use std::sync::Arc;

/// Runs a layer list on a GPU; maps come from the host and return to it.
#[derive(Debug)]
pub struct CudaExecutor {
    layers: Layers,
    device: Device,
    gpu: Arc<Gpu>,
    precision: Precision,
    parameters: Buffer,
    /// Their copy in bf16; empty in f32.
    narrow: Buffer,
    version: Option<u64>,
    gradients: Buffer,
    input: Buffer,
    labels: Buffer,
    scratch: Scratch,
    /// Maps in f32, on their way to or from the host.
    transfer: Buffer,
    tape: Option<Tape>,
}

/// What the backward pass needs beside the layers' buffers.
#[derive(Clone, Copy, Debug)]
struct Tape {
    n: usize,
    has_labels: bool,
    is_train: bool,
}

impl CudaExecutor {
    /// An executor of `layers` on a GPU.
    pub fn new(layers: Vec<Layer>, gpu: Arc<Gpu>, precision: Precision) -> Self {
        Self {
            layers: Layers::new(layers),
            device: Device::Cuda(Arc::clone(&gpu)),
            gpu,
            precision,
            parameters: Buffer::default(),
            narrow: Buffer::default(),
            version: None,
            gradients: Buffer::default(),
            input: Buffer::default(),
            labels: Buffer::default(),
            scratch: Scratch::default(),
            transfer: Buffer::default(),
            tape: None,
        }
    }

    /// Copies the parameters to the GPU if they have changed.
    fn refresh(&mut self, parameters: ParameterValues<'_>) -> gpu::Result<Addresses> {
        let (gpu, precision) = (&self.gpu, self.precision);
        if self.version == Some(parameters.version) {
            let (wide, narrow) = (self.parameters.address(gpu), self.narrow.address(gpu));
            return Ok(Addresses { wide, narrow });
        }
        let wide = self.parameters.upload(gpu, &self.layers.padded(parameters.flat))?;
        let addresses = self.layers.narrow(gpu, precision, wide, &mut self.narrow)?;
        self.version = Some(parameters.version);
        Ok(addresses)
    }
}

/// Copies maps to the GPU, in the type that they have there.
fn upload(
    (gpu, precision): (&Gpu, Precision),
    (to, transfer): (&mut Buffer, &mut Buffer),
    values: &[f32],
) -> gpu::Result<u64> {
    match precision {
        Precision::F32 => to.upload(gpu, values),
        Precision::Bf16 => {
            let from = transfer.upload(gpu, values)?;
            let (address, len) = (to.sized(gpu, 2 * values.len())?, values.len());
            gpu.launch("narrow", elements(len), &[pointer(from), pointer(address), int(len)?])?;
            Ok(address)
        }
    }
}

/// Copies maps from the GPU.
fn download(pass: &Pass<'_>, transfer: &mut Buffer, from: u64, n: usize, shape: MapShape) -> Result<Maps> {
    let len = n * shape.len();
    let to = transfer.sized(pass.gpu, 4 * len)?;
    match pass.precision {
        Precision::F32 => layer::copy(pass.gpu, from, to, len)?,
        Precision::Bf16 => pass.widen(from, to, len)?,
    }
    Maps::new(transfer.download(pass.gpu, len)?, n, shape)
}

impl Executor for CudaExecutor {
    fn layers(&self) -> &[Layer] {
        &self.layers.layers
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn layout(&self) -> Layout {
        Layout::Filters
    }

    fn group(&self) -> &dyn ProcessGroup {
        &SingleProcess
    }

    fn time_convolutions(&mut self, n: usize) -> Result<Vec<ConvolutionTime>> {
        Ok(timing::time_convolutions(&self.gpu, &self.layers.layers, (self.precision, n))?)
    }

    fn forward(
        &mut self,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward> {
        check_input(&self.layers.layers, input)?;
        self.tape = None; // the buffers below are about to change
        let (n, precision) = (input.maps.n(), self.precision);
        let is_train = matches!(mode, Mode::Train);
        if is_train {
            self.layers.check_norms(n)?;
        }
        let gpu = Arc::clone(&self.gpu);
        gpu.bind()?;
        let mut plans = gpu.plans();
        let labels = match input.labels {
            Some(labels) => self.labels.upload(&gpu, labels.values())?,
            None => 0,
        };
        let parameters = self.refresh(parameters)?;
        let on = (gpu.as_ref(), precision);
        let mut source = upload(on, (&mut self.input, &mut self.transfer), input.maps.values())?;
        let (plans, scratch) = (&mut *plans, &mut self.scratch);
        let (groups, momentum) = (1, None);
        let gpus = None;
        let mut pass =
            Pass { gpu: &gpu, plans, scratch, parameters, precision, n, groups, labels, gpus, momentum };
        let mut statistics = Statistics::new();
        let mut activations = Vec::new();
        let mut output = input.maps.clone();
        let last = self.layers.layers.len();
        for (i, (layer, state)) in self.layers.layers.iter().zip(&mut self.layers.states).enumerate() {
            let given = match (mode, layer.norm) {
                (Mode::Eval(statistics), Some(_)) => {
                    let given = statistics_of(statistics, layer)?;
                    Some((Layout::Filters.values(&given.mean)?, Layout::Filters.values(&given.var)?))
                }
                _ => None,
            };
            let given = given.as_ref().map(|(mean, variance)| (mean.as_slice(), variance.as_slice()));
            state.forward(layer, &mut pass, source, given)?;
            if is_train && layer.norm.is_some() {
                let (mean, variance) = state.statistics(layer, &gpu)?;
                let count = n * layer.output.len() / mean.len().max(1);
                let shape = layer.norm_shape().unwrap_or_default();
                let tensor = |values: &[f32]| Layout::Filters.tensor(values, &shape);
                let (mean, var) = (tensor(&mean)?, tensor(&variance)?);
                statistics.insert(layer.name.clone(), NormStatistics { mean, var, count });
            }
            source = state.activation(&gpu);
            let is_last = i + 1 == last;
            if is_last || keep == Keep::Activations || hook.is_some() {
                let maps = download(&pass, &mut self.transfer, source, n, layer.output)?;
                if let Some(hook) = hook {
                    (0..n).for_each(|image| hook(i, image, maps.map(image)));
                }
                if is_last {
                    output = maps.clone();
                }
                if keep == Keep::Activations {
                    activations.push(maps);
                }
            }
        }
        if keep == Keep::Tape {
            self.tape = Some(Tape { n, has_labels: input.labels.is_some(), is_train });
        }
        Ok(Forward { output, statistics, activations })
    }

    fn backward(
        &mut self,
        parameters: ParameterValues<'_>,
        gradients: &mut [f32],
        grad_output: &Maps,
        wrt: WithRespectTo,
    ) -> Result<Option<Maps>> {
        let Tape { n, has_labels, is_train } = self.tape.ok_or(OpsError::NoTape)?;
        let Some(last) = self.layers.layers.last() else { return Ok(None) };
        grad_output.check("the output's gradient", n, last.output)?;
        let gpu = Arc::clone(&self.gpu);
        gpu.bind()?;
        let mut plans = gpu.plans();
        let (precision, labels) = (self.precision, if has_labels { self.labels.address(&gpu) } else { 0 });
        let parameters = self.refresh(parameters)?;
        let asked = match wrt.parameters() {
            true => Some(self.gradients.sized(&gpu, 4 * self.layers.len)?),
            false => None,
        };
        let to = (&mut self.scratch.grads[0], &mut self.transfer);
        upload((&gpu, precision), to, grad_output.values())?;
        let (plans, scratch) = (&mut *plans, &mut self.scratch);
        let (groups, momentum) = (1, None);
        let gpus = None;
        let mut pass =
            Pass { gpu: &gpu, plans, scratch, parameters, precision, n, groups, labels, gpus, momentum };
        let source = (self.input.address(&gpu), is_train);
        let d = self.layers.backward(&mut pass, source, asked, wrt.input())?;
        if asked.is_some() {
            let found = self.gradients.download(&gpu, self.layers.len)?;
            self.layers.for_each_pair(gradients, &found, |sum, value| *sum += value);
        }
        match wrt.input() {
            true => Ok(Some(download(&pass, &mut self.transfer, d, n, self.layers.layers[0].input)?)),
            false => Ok(None),
        }
    }
}
