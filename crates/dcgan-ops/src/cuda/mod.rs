//! The executor for NVIDIA GPUs: channels-last maps in f32 or bf16, convolutions by cuDNN's graph API, kernels of this
//! program for everything else. Driver and cuDNN are loaded when a device is opened: the program builds, starts and
//! runs on a CPU without them.
//!
//! - `mod.rs`: the executor, which runs the layers forward and backward;
//! - `layer.rs`: one layer's buffers, and both of its passes;
//! - `conv.rs`: convolutions; `kernels.cu`: the other kernels, compiled as `kernels.ptx`;
//! - `gpu.rs`: the opened device, its memory and its kernels; `error.rs`: what goes wrong, with the way out.
//!
//! Engines of cuDNN that are not deterministic are not used, and sums are taken in a fixed order: on one card, the same
//! input gives the same bytes.

#![expect(unsafe_code, reason = "calls of the driver and of cuDNN")]

mod conv;
mod error;
mod gpu;
mod layer;

pub use error::CudaError;
pub use gpu::Gpu;

use crate::executor::{check_input, statistics_of};
use crate::{
    Device, Executor, Forward, ForwardHook, Input, Keep, Layer, Layout, MapShape, Maps, Mode, NormStatistics,
    OpsError, ParameterTable, ParameterValues, Precision, ProcessGroup, Result, SingleProcess, Statistics,
    WithRespectTo,
};
use gpu::Buffer;
use layer::{LayerState, Pass, Places};
use std::ops::Range;
use std::sync::Arc;

/// Parameters start at multiples of this many values, as cuDNN's pointers must.
const ALIGNMENT: usize = 8;

/// Runs a layer list on a GPU; maps come from the host and return to it.
#[derive(Debug)]
pub struct CudaExecutor {
    layers: Vec<Layer>,
    device: Device,
    gpu: Arc<Gpu>,
    precision: Precision,
    states: Vec<LayerState>,
    /// Where each trained tensor lies in the host's flat buffer and in the GPU's.
    places: Vec<(Range<usize>, usize)>,
    len: usize,
    parameters: Buffer,
    version: Option<u64>,
    gradients: Buffer,
    input: Buffer,
    labels: Buffer,
    /// Gradients of maps, one read and one written.
    grads: [Buffer; 2],
    joined: Buffer,
    sums: Buffer,
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
        let table = ParameterTable::new(&layers, Layout::Filters);
        let mut places = Vec::new();
        let mut len = 0;
        for entry in table.entries() {
            places.push((entry.range.clone(), len));
            len += entry.range.len().next_multiple_of(ALIGNMENT);
        }
        let padded = |range: Range<usize>| {
            let found = places.iter().find(|(host, _)| *host == range);
            found.map_or(0..0, |(host, start)| *start..start + host.len())
        };
        let states = layers
            .iter()
            .map(|layer| LayerState::new(Places::of(|role| table.range(layer, role).map(padded))))
            .collect();
        Self {
            layers,
            device: Device::Cuda(Arc::clone(&gpu)),
            gpu,
            precision,
            states,
            places,
            len,
            parameters: Buffer::default(),
            version: None,
            gradients: Buffer::default(),
            input: Buffer::default(),
            labels: Buffer::default(),
            grads: Default::default(),
            joined: Buffer::default(),
            sums: Buffer::default(),
            transfer: Buffer::default(),
            tape: None,
        }
    }

    /// Copies the parameters to the GPU if they have changed.
    fn refresh(&mut self, pass: &Pass<'_>, parameters: ParameterValues<'_>) -> gpu::Result<u64> {
        if self.version == Some(parameters.version) {
            return Ok(self.parameters.address(pass.gpu));
        }
        let mut padded = vec![0.0_f32; self.len];
        for (host, start) in &self.places {
            padded[*start..*start + host.len()].copy_from_slice(&parameters.flat[host.clone()]);
        }
        let address = self.parameters.upload(pass.gpu, &padded)?;
        for state in &mut self.states {
            state.refresh(pass, address)?;
        }
        self.version = Some(parameters.version);
        Ok(address)
    }
}

/// Copies maps to the GPU, in the type of a pass.
fn upload(pass: &Pass<'_>, (to, transfer): (&mut Buffer, &mut Buffer), values: &[f32]) -> gpu::Result<u64> {
    match pass.precision {
        Precision::F32 => to.upload(pass.gpu, values),
        Precision::Bf16 => {
            let from = transfer.upload(pass.gpu, values)?;
            let address = to.sized(pass.gpu, values.len() * pass.bytes())?;
            pass.narrow(from, address, values.len())?;
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
        &self.layers
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

    fn forward(
        &mut self,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward> {
        check_input(&self.layers, input)?;
        self.tape = None; // the buffers below are about to change
        let n = input.maps.n();
        let gpu = Arc::clone(&self.gpu);
        gpu.bind()?;
        let mut plans = gpu.plans();
        let mut sums = std::mem::take(&mut self.sums);
        let labels = match input.labels {
            Some(labels) => self.labels.upload(&gpu, labels.values())?,
            None => 0,
        };
        let precision = self.precision;
        let mut pass = Pass { gpu: &gpu, plans: &mut plans, precision, n, labels, sums: &mut sums };
        let address = self.refresh(&pass, parameters)?;
        let mut source = upload(&pass, (&mut self.input, &mut self.transfer), input.maps.values())?;
        let mut statistics = Statistics::new();
        let mut activations = Vec::new();
        let mut output = input.maps.clone();
        let is_train = matches!(mode, Mode::Train);
        for (i, (layer, state)) in self.layers.iter().zip(&mut self.states).enumerate() {
            let given = match (mode, layer.norm) {
                (Mode::Eval(statistics), Some(_)) => {
                    let given = statistics_of(statistics, layer)?;
                    Some((Layout::Filters.values(&given.mean)?, Layout::Filters.values(&given.var)?))
                }
                (Mode::Train, Some(_)) if n * layer.output.len() / layer.columns() < 2 => {
                    return Err(OpsError::SingleValue { layer: layer.name.clone() });
                }
                _ => None,
            };
            let given = given.as_ref().map(|(mean, variance)| (mean.as_slice(), variance.as_slice()));
            state.forward(layer, &mut pass, (address, source), given)?;
            if is_train && layer.norm.is_some() {
                let (mean, variance) = state.statistics(layer, &gpu)?;
                let count = n * layer.output.len() / mean.len().max(1);
                let shape = layer.norm_shape().unwrap_or_default();
                let tensor = |values: &[f32]| Layout::Filters.tensor(values, &shape);
                let (mean, var) = (tensor(&mean)?, tensor(&variance)?);
                statistics.insert(layer.name.clone(), NormStatistics { mean, var, count });
            }
            source = state.activation(&gpu);
            let is_last = i + 1 == self.layers.len();
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
        self.sums = sums;
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
        let Some(last) = self.layers.last() else { return Ok(None) };
        grad_output.check("the output's gradient", n, last.output)?;
        let gpu = Arc::clone(&self.gpu);
        gpu.bind()?;
        let mut plans = gpu.plans();
        let mut sums = std::mem::take(&mut self.sums);
        let labels = if has_labels { self.labels.address(&gpu) } else { 0 };
        let precision = self.precision;
        let mut pass = Pass { gpu: &gpu, plans: &mut plans, precision, n, labels, sums: &mut sums };
        let address = self.refresh(&pass, parameters)?;
        let asked = match wrt.parameters() {
            true => Some(self.gradients.sized(&gpu, 4 * self.len)?),
            false => None,
        };
        let [read, written] = &mut self.grads;
        let mut d = upload(&pass, (read, &mut self.transfer), grad_output.values())?;
        for i in (0..self.layers.len()).rev() {
            let layer = &self.layers[i];
            let (before, rest) = self.states.split_at_mut(i);
            let Some(state) = rest.first_mut() else { break };
            let source =
                before.last().map_or_else(|| self.input.address(&gpu), |state| state.activation(&gpu));
            let out = match i > 0 || wrt.input() {
                true => Some(written.sized(&gpu, n * layer.input.len() * pass.bytes())?),
                false => None,
            };
            state.backward(
                layer,
                &mut pass,
                (address, source, is_train),
                d,
                asked,
                (&mut self.joined, out),
            )?;
            if let Some(out) = out {
                d = out;
                std::mem::swap(read, written);
            }
        }
        if asked.is_some() {
            let found = self.gradients.download(&gpu, self.len)?;
            for (host, start) in &self.places {
                let sums = gradients[host.clone()].iter_mut();
                sums.zip(&found[*start..]).for_each(|(sum, value)| *sum += value);
            }
        }
        let grad_input = match wrt.input() {
            true => Some(download(&pass, &mut self.transfer, d, n, self.layers[0].input)?),
            false => None,
        };
        self.sums = sums;
        Ok(grad_input)
    }
}
