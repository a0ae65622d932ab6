//! One layer of the CUDA executor: its parameters and maps on the GPU, and both of its passes.

use super::conv::{Convolution, Operation, Plans, Types};
use super::gpu::{Argument, Buffer, Gpu, Result, Sums, elements, int};
use super::memory::precision_bytes;
use super::nccl::Gpus;
use crate::{Activation, Kind, Layer, Norm, Precision, Resample, Role};
use std::ops::Range;

/// Buffers that the layers of a pass share.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Partial sums, and other values of a moment.
    sums: Buffer,
    /// The gradient of what a linear operation (dense, convolution or transposed convolution) reads, where that is not
    /// the layer's input.
    joined: Buffer,
    /// Of cuDNN.
    workspace: Buffer,
    /// Gradients of maps, one read and one written.
    pub(super) grads: [Buffer; 2],
    /// Statistics of this process, then those of all.
    exchanged: Buffer,
}

/// Addresses of the flat parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameters {
    /// In f32.
    pub(super) wide: u64,
    /// In bf16; 0 where maps are f32.
    pub(super) narrow: u64,
}

/// The GPU, the convolutions and the shape of a pass.
pub(super) struct Pass<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) plans: &'a mut Plans,
    pub(super) scratch: &'a mut Scratch,
    pub(super) parameters: Parameters,
    pub(super) precision: Precision,
    pub(super) n: usize,
    /// Equal parts of the batch that each have their own batch norm statistics.
    pub(super) groups: usize,
    /// Address of the label vectors `(n, classes)`; 0 without them.
    pub(super) labels: u64,
    /// The GPUs of the other processes, which have the other parts of the batch.
    pub(super) gpus: Option<&'a Gpus>,
    /// How much of the first group's statistics the running ones take, where they are updated.
    pub(super) momentum: Option<f64>,
}

impl Pass<'_> {
    /// Bytes of a value of a map.
    pub(super) fn bytes(&self) -> usize {
        precision_bytes(self.precision)
    }

    /// Processes that have parts of the batch.
    fn processes(&self) -> usize {
        self.gpus.map_or(1, Gpus::size)
    }

    /// The entry point of a kernel for the maps' type.
    pub(super) fn name(&self, kernel: &str) -> String {
        match self.precision {
            Precision::F32 => format!("{kernel}_f32"),
            Precision::Bf16 => format!("{kernel}_bf16"),
        }
    }

    fn types(&self) -> Types {
        types(self.precision)
    }

    fn convolve(&mut self, operation: Operation, shape: (Convolution, Types), at: [u64; 3]) -> Result<()> {
        self.plans.run((self.gpu, &mut self.scratch.workspace), operation, shape, at)
    }

    /// A map's values as f32.
    pub(super) fn widen(&self, from: u64, to: u64, len: usize) -> Result<()> {
        self.gpu.launch("widen", elements(len), &[pointer(from), pointer(to), int(len)?])
    }
}

pub(super) fn types(precision: Precision) -> Types {
    match precision {
        Precision::F32 => Types::F32,
        Precision::Bf16 => Types::Bf16,
    }
}

/// The types of a weight gradient: in f32 where cuDNN has such an engine.
pub(super) fn gradient_types(plans: &mut Plans, precision: Precision, shape: Convolution) -> Result<Types> {
    match precision {
        Precision::F32 => Ok(Types::F32),
        Precision::Bf16 if plans.has(Operation::Filters, shape, Types::Bf16Maps)? => Ok(Types::Bf16Maps),
        Precision::Bf16 => Ok(Types::Bf16),
    }
}

pub(super) fn pointer(address: u64) -> Argument {
    Argument::Pointer(address)
}

fn eps(norm: Norm) -> Argument {
    #[expect(clippy::cast_possible_truncation, reason = "the kernels take eps in f32")]
    Argument::Float(norm.eps as f32)
}

/// The number of an activation in `kernels.cu`, and its slope.
fn activation(activation: Activation) -> [Argument; 2] {
    let (number, slope) = match activation {
        Activation::Identity => (0, 0.0),
        Activation::Relu => (1, 0.0),
        Activation::LeakyRelu(slope) => (2, slope),
        Activation::Tanh => (3, 0.0),
        Activation::Sigmoid => (4, 0.0),
    };
    #[expect(clippy::cast_possible_truncation, reason = "the kernels compute in f32")]
    [Argument::Int(number), Argument::Float(slope as f32)]
}

/// Where a layer's parameters lie on the GPU, in values from the start of the flat buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    pub(super) weight: Range<usize>,
    pub(super) bias: Option<Range<usize>>,
    pub(super) label_weight: Option<Range<usize>>,
    pub(super) affine: Option<(Range<usize>, Range<usize>)>,
}

impl Places {
    /// From the range of each role's tensor.
    pub(super) fn of(range: impl Fn(Role) -> Option<Range<usize>>) -> Self {
        Self {
            weight: range(Role::Weight).unwrap_or_default(),
            bias: range(Role::Bias),
            label_weight: range(Role::LabelWeight),
            affine: range(Role::NormWeight).zip(range(Role::NormBias)),
        }
    }
}

/// One layer's buffers, kept from pass to pass.
#[derive(Debug, Default)]
pub(super) struct LayerState {
    places: Places,
    /// What the linear operation reads, where that is not the layer's input.
    joined: Buffer,
    /// Output of the linear operation; empty without batch norm.
    linear: Buffer,
    activation: Buffer,
    /// Mean, 1 / standard deviation, scale and bias of each column, for each group.
    normal: Buffer,
    /// Of the first group.
    variance: Buffer,
    /// Running mean and variance of each column, where the device keeps them.
    pub(super) running: Buffer,
    /// Gradients of the filters in the type of the maps.
    filter_gradient: Buffer,
    given: Buffer,
}

/// Rows and columns of the matrix that batch norm works on.
fn matrix(layer: &Layer, n: usize) -> (usize, usize) {
    (n * layer.output.len() / layer.columns(), layer.columns())
}

/// What one group of a batch reads and writes, in bytes from the start.
#[derive(Clone, Copy)]
struct Group {
    maps: u64,
    normal: u64,
    index: usize,
}

impl Group {
    /// The groups of a pass over a layer with `total` values and `columns` statistics.
    fn all(pass: &Pass<'_>, total: usize, columns: usize) -> impl Iterator<Item = Self> + use<> {
        let (each, columns) = ((total / pass.groups * pass.bytes()) as u64, columns as u64);
        (0..pass.groups).map(move |index| Self {
            maps: index as u64 * each,
            normal: index as u64 * 16 * columns,
            index,
        })
    }
}

pub(super) fn convolution(layer: &Layer, n: usize) -> Convolution {
    let sides = |shape: crate::MapShape| (shape.height, shape.width, shape.channels);
    let (input, output) = (sides(layer.linear_input()), sides(layer.output));
    let (fine, coarse) = match layer.kind {
        Kind::Conv => (input, output),
        Kind::ConvTranspose => (output, input),
    };
    Convolution { n, fine, coarse, kernel: layer.kernel, stride: layer.stride, padding: layer.padding }
}

/// Height, width and channels of the layer's input, sides of the linear operation's, classes, resampling and its
/// factor.
fn joined_shape(layer: &Layer) -> Result<[Argument; 8]> {
    let (input, read) = (layer.input, layer.linear_input());
    let (resample, factor) = match layer.resample {
        None => (0, 1),
        Some(Resample::Nearest(factor)) => (1, factor),
        Some(Resample::MaxPool(factor)) => (2, factor),
    };
    Ok([
        int(input.height)?,
        int(input.width)?,
        int(input.channels)?,
        int(read.height)?,
        int(read.width)?,
        int(layer.label_channels)?,
        Argument::Int(resample),
        int(factor)?,
    ])
}

impl LayerState {
    pub(super) fn new(places: Places) -> Self {
        Self { places, ..Self::default() }
    }

    /// The activation.
    pub(super) fn activation(&self, gpu: &Gpu) -> u64 {
        self.activation.address(gpu)
    }

    fn filters(&self, pass: &Pass<'_>) -> u64 {
        let Parameters { wide, narrow } = pass.parameters;
        let start = self.places.weight.start as u64;
        match pass.precision {
            Precision::F32 => wide + 4 * start,
            Precision::Bf16 => narrow + 2 * start,
        }
    }

    fn place(range: Option<&Range<usize>>, base: u64) -> Argument {
        pointer(range.map_or(0, |range| base + 4 * range.start as u64))
    }

    /// Runs the layer on the map at `source`. `given` are mean and variance in evaluation. In training, the minibatch's
    /// are in [`LayerState::statistics`] afterwards.
    pub(super) fn forward(
        &mut self,
        layer: &Layer,
        pass: &mut Pass<'_>,
        source: u64,
        given: Option<(&[f32], &[f32])>,
    ) -> Result<()> {
        let (gpu, n, bytes) = (pass.gpu, pass.n, pass.bytes());
        let total = n * layer.output.len();
        let read = match layer.changes_input() {
            false => source,
            true => {
                let len = n * layer.linear_input().len();
                let to = self.joined.sized(gpu, len * bytes)?;
                let mut arguments = vec![pointer(source), pointer(pass.labels), pointer(to)];
                arguments.extend(joined_shape(layer)?);
                arguments.push(int(len)?);
                gpu.launch(&pass.name("linear_input"), elements(len), &arguments)?;
                to
            }
        };
        let filters = self.filters(pass);
        let output = match layer.norm {
            Some(_) => self.linear.sized(gpu, total * bytes)?,
            None => self.activation.sized(gpu, total * bytes)?,
        };
        let shape = (convolution(layer, n), pass.types());
        match layer.kind {
            Kind::Conv => pass.convolve(Operation::Coarse, shape, [read, filters, output])?,
            Kind::ConvTranspose => pass.convolve(Operation::Fine, shape, [output, filters, read])?,
        }
        if layer.bias || layer.label_inputs > 0 {
            let arguments = [
                pointer(output),
                Self::place(self.places.bias.as_ref(), pass.parameters.wide),
                pointer(pass.labels),
                Self::place(self.places.label_weight.as_ref(), pass.parameters.wide),
                int(layer.label_inputs)?,
                int(layer.output.channels)?,
                int(total)?,
            ];
            gpu.launch(&pass.name("add_bias"), elements(total), &arguments)?;
        }
        let [number, slope] = activation(layer.activation);
        let (_, columns) = matrix(layer, n);
        match (layer.norm, given) {
            (Some(norm), None) => self.minibatch_statistics(layer, norm, pass, output)?,
            (Some(norm), Some((mean, variance))) => {
                let at = self.given.upload(gpu, &[mean, variance].concat())?;
                let (mean, variance) = (pointer(at), pointer(at + 4 * columns as u64));
                let [weight, bias] = self.affine(pass);
                let normal = pointer(self.normal.sized(gpu, 16 * columns)?);
                let arguments = [mean, variance, weight, bias, normal, int(columns)?, eps(norm)];
                gpu.launch("given_statistics", elements(columns), &arguments)?;
            }
            (None, _) => {}
        }
        if layer.norm.is_none() && layer.activation == Activation::Identity {
            return Ok(());
        }
        let to = self.activation.sized(gpu, total * bytes)?;
        for group in Group::all(pass, total, columns) {
            let normal = if layer.norm.is_some() { self.normal.address(gpu) + group.normal } else { 0 };
            let (from, to, len) = (output + group.maps, to + group.maps, int(total / pass.groups)?);
            let arguments = [pointer(from), pointer(normal), pointer(to), int(columns)?, number, slope, len];
            gpu.launch(&pass.name("normalize"), elements(total / pass.groups), &arguments)?;
        }
        Ok(())
    }

    /// Addresses of batch norm's weight and bias.
    fn affine(&self, pass: &Pass<'_>) -> [Argument; 2] {
        let affine = self.places.affine.as_ref();
        let wide = pass.parameters.wide;
        [Self::place(affine.map(|(weight, _)| weight), wide), Self::place(affine.map(|(_, bias)| bias), wide)]
    }

    /// Mean and variance of each group of the linear operation's output.
    fn minibatch_statistics(
        &mut self,
        layer: &Layer,
        norm: Norm,
        pass: &mut Pass<'_>,
        output: u64,
    ) -> Result<()> {
        let (gpu, groups) = (pass.gpu, pass.groups);
        let total = pass.n * layer.output.len();
        let (rows, columns) = matrix(layer, pass.n / groups);
        let Sums { lanes, splits, grid, finish } = Sums::over(rows, columns, pass.bytes());
        let sums = pass.scratch.sums.sized(gpu, 8 * splits * columns)?;
        let normal = self.normal.sized(gpu, 16 * columns * groups)?;
        let variance = self.variance.sized(gpu, 4 * columns)?;
        let [weight, bias] = self.affine(pass);
        #[expect(clippy::cast_possible_truncation, reason = "running statistics are f32")]
        let momentum = pass.momentum.map(|momentum| momentum as f32);
        // Variance, then the four rows of `normal`: the first two of these rows are exchanged.
        let processes = pass.processes();
        let own = match pass.gpus {
            Some(_) => pass.scratch.exchanged.sized(gpu, 4 * columns * (5 + 2 * processes))?,
            None => 0,
        };
        for group in Group::all(pass, total, columns) {
            let x = pointer(output + group.maps);
            let arguments = [x, pointer(sums), int(rows)?, int(columns)?, int(lanes)?];
            gpu.launch(&pass.name("moments"), grid, &arguments)?;
            let (variance, running) = match group.index {
                0 => (variance, momentum.map_or(0, |_| self.running.address(gpu))),
                _ => (0, 0),
            };
            let normal = normal + group.normal;
            let all = [pointer(running), Argument::Float(momentum.unwrap_or(0.0))];
            let Some(gpus) = pass.gpus else {
                let to = (variance, normal);
                let arguments = [x, pointer(sums), weight, bias, pointer(to.0), pointer(to.1), int(splits)?];
                let shape = [int(rows)?, int(columns)?, eps(norm)];
                let arguments = [&arguments[..], &shape, &all].concat();
                gpu.launch(&pass.name("finish_moments"), finish, &arguments)?;
                continue;
            };
            let (mean, gathered) = (own + 4 * columns as u64, own + 20 * columns as u64);
            let none = pointer(0);
            let arguments = [x, pointer(sums), none, none, pointer(own), pointer(mean), int(splits)?];
            let shape = [int(rows)?, int(columns)?, eps(norm), none, Argument::Float(0.0)];
            gpu.launch(&pass.name("finish_moments"), finish, &[&arguments[..], &shape].concat())?;
            gpus.all_gather(gpu, own, gathered, 2 * columns)?;
            let arguments = [pointer(gathered), weight, bias, pointer(variance), pointer(normal)];
            let shape = [int(processes)?, int(rows * processes)?, int(columns)?, eps(norm)];
            gpu.launch("combine_moments", elements(columns), &[&arguments[..], &shape, &all].concat())?;
        }
        Ok(())
    }

    /// Mean and variance of the minibatch.
    pub(super) fn statistics(&self, layer: &Layer, gpu: &Gpu) -> Result<(Vec<f32>, Vec<f32>)> {
        let columns = layer.columns();
        Ok((self.normal.download(gpu, columns)?, self.variance.download(gpu, columns)?))
    }

    /// The backward pass from the gradient `d` of the activation, which is overwritten. `gradients` is the flat buffer
    /// of the parameters' gradients; `out` takes the gradient with respect to the layer's input.
    pub(super) fn backward(
        &mut self,
        layer: &Layer,
        pass: &mut Pass<'_>,
        (source, is_train): (u64, bool),
        d: u64,
        gradients: Option<u64>,
        out: Option<u64>,
    ) -> Result<()> {
        let (gpu, n, bytes) = (pass.gpu, pass.n, pass.bytes());
        self.linear_gradient(layer, pass, is_train, d, gradients)?;
        let read = if layer.changes_input() { self.joined.address(gpu) } else { source };
        if let Some(gradients) = gradients {
            self.parameter_gradients(layer, pass, (read, d, gradients), is_train)?;
        }
        let Some(out) = out else { return Ok(()) };
        let to = match layer.changes_input() {
            false => out,
            true => pass.scratch.joined.sized(gpu, n * layer.linear_input().len() * bytes)?,
        };
        let filters = self.filters(pass);
        let shape = (convolution(layer, n), pass.types());
        match layer.kind {
            Kind::Conv => pass.convolve(Operation::Fine, shape, [to, filters, d])?,
            Kind::ConvTranspose => pass.convolve(Operation::Coarse, shape, [d, filters, to])?,
        }
        if layer.changes_input() {
            let len = n * layer.input.len();
            let mut arguments = vec![pointer(source), pointer(to), pointer(out)];
            arguments.extend(joined_shape(layer)?);
            arguments.push(int(len)?);
            gpu.launch(&pass.name("linear_input_gradient"), elements(len), &arguments)?;
        }
        Ok(())
    }

    /// Turns the gradient `d` of the activation into that of the linear operation's output, with the gradients of batch
    /// norm's weight and bias.
    fn linear_gradient(
        &mut self,
        layer: &Layer,
        pass: &mut Pass<'_>,
        is_train: bool,
        d: u64,
        gradients: Option<u64>,
    ) -> Result<()> {
        if layer.norm.is_none() && layer.activation == Activation::Identity {
            return Ok(());
        }
        let (gpu, groups) = (pass.gpu, pass.groups);
        let total = pass.n * layer.output.len();
        let (rows, columns) = matrix(layer, pass.n / groups);
        let [number, slope] = activation(layer.activation);
        let y = self.activation.address(gpu);
        let (x, normal) = match layer.norm {
            Some(_) => (self.linear.address(gpu), self.normal.address(gpu)),
            None => (y, 0),
        };
        // The sums of the parts, then the totals of each group.
        let Sums { lanes, splits, grid, finish } = Sums::over(rows, columns, pass.bytes());
        let sums = pass.scratch.sums.sized(gpu, 8 * columns * (splits + groups))?;
        let totals = sums + 8 * (splits * columns) as u64;
        let normal_of = |group: Group| if layer.norm.is_some() { normal + group.normal } else { 0 };
        let totals_of = |totals: u64, group: Group| totals + 8 * (group.index * columns) as u64;
        if layer.norm.is_some() {
            for group in Group::all(pass, total, columns) {
                let [x, y, d] = [x, y, d].map(|map| pointer(map + group.maps));
                let normal = pointer(normal_of(group));
                let arguments =
                    [x, y, d, normal, pointer(sums), int(rows)?, int(columns)?, number, slope, int(lanes)?];
                gpu.launch(&pass.name("gradient_sums"), grid, &arguments)?;
                let to = [pointer(sums), pointer(totals_of(totals, group)), int(splits)?, int(columns)?];
                gpu.launch("total_sums", finish, &to)?;
            }
        }
        let uses_sums = layer.norm.is_some() && is_train;
        // The gradient with respect to the input depends on the sums of all processes; the gradients of the parameters
        // are summed later.
        let (mut used, processes) = (totals, pass.processes());
        if let (true, Some(gpus)) = (uses_sums, pass.gpus) {
            let len = 2 * groups * columns;
            used = pass.scratch.exchanged.sized(gpu, 4 * len * (1 + processes))?;
            let gathered = used + 4 * len as u64;
            gpus.all_gather(gpu, totals, gathered, len)?;
            let arguments = [pointer(gathered), pointer(used), int(processes)?, int(len)?];
            gpu.launch("combine_sums", elements(len), &arguments)?;
        }
        for group in Group::all(pass, total, columns) {
            let [x, y, d] = [x, y, d].map(|map| pointer(map + group.maps));
            let used = pointer(if uses_sums { totals_of(used, group) } else { 0 });
            let normal = pointer(normal_of(group));
            let (rows, len) = (int(rows * processes)?, int(total / groups)?);
            let arguments = [x, y, d, normal, used, d, rows, int(columns)?, number, slope, len];
            gpu.launch(&pass.name("input_gradient"), elements(total / groups), &arguments)?;
        }
        if let (Some(gradients), Some((weight, bias))) = (gradients, &self.places.affine) {
            // The gradient of the bias is the first sum, that of the weight the second.
            let at = |range: &Range<usize>| pointer(gradients + 4 * range.start as u64);
            let arguments = [pointer(totals), at(weight), at(bias), int(groups)?, int(columns)?];
            gpu.launch("affine_gradient", elements(columns), &arguments)?;
        }
        Ok(())
    }

    /// Gradients of the filters, the bias and the weight of labels, from the gradient `d` of the linear operation's
    /// output.
    fn parameter_gradients(
        &mut self,
        layer: &Layer,
        pass: &mut Pass<'_>,
        (read, d, gradients): (u64, u64, u64),
        is_train: bool,
    ) -> Result<()> {
        let (gpu, n) = (pass.gpu, pass.n);
        let channels = layer.output.channels;
        let to = gradients + 4 * self.places.weight.start as u64;
        let shape = convolution(layer, n);
        let (fine, coarse) = match layer.kind {
            Kind::Conv => (read, d),
            Kind::ConvTranspose => (d, read),
        };
        let types = gradient_types(pass.plans, pass.precision, shape)?;
        if types == Types::Bf16 {
            let len = self.places.weight.len();
            let narrow = self.filter_gradient.sized(gpu, 2 * len)?;
            pass.convolve(Operation::Filters, (shape, types), [fine, narrow, coarse])?;
            pass.widen(narrow, to, len)?;
        } else {
            pass.convolve(Operation::Filters, (shape, types), [fine, to, coarse])?;
        }
        if let Some(range) = &self.places.bias {
            let to = gradients + 4 * range.start as u64;
            if layer.norm.is_some() && is_train {
                // The mean takes the bias out again.
                zero(gpu, to, channels)?;
            } else {
                let rows = n * layer.output.height * layer.output.width;
                let Sums { lanes, splits, grid, finish } = Sums::over(rows, channels, pass.bytes());
                let sums = pass.scratch.sums.sized(gpu, 8 * channels * (splits + 1))?;
                let totals = sums + 8 * (splits * channels) as u64;
                let arguments = [pointer(d), pointer(sums), int(rows)?, int(channels)?, int(lanes)?];
                gpu.launch(&pass.name("sums"), grid, &arguments)?;
                let arguments = [pointer(sums), pointer(totals), int(splits)?, int(channels)?];
                gpu.launch("total_sums", finish, &arguments)?;
                copy(gpu, totals, to, channels)?;
            }
        }
        if let Some(range) = &self.places.label_weight {
            let to = gradients + 4 * range.start as u64;
            let classes = layer.label_inputs;
            let arguments =
                [pointer(d), pointer(pass.labels), pointer(to), int(n)?, int(classes)?, int(channels)?];
            gpu.launch(&pass.name("label_gradient"), elements(classes * channels), &arguments)?;
        }
        Ok(())
    }
}

/// Copies f32 values on the GPU.
pub(super) fn copy(gpu: &Gpu, from: u64, to: u64, len: usize) -> Result<()> {
    gpu.launch("copy", elements(len), &[pointer(from), pointer(to), int(len)?])
}

/// Sets f32 values on the GPU to 0.
pub(super) fn zero(gpu: &Gpu, to: u64, len: usize) -> Result<()> {
    gpu.launch("zero", elements(len), &[pointer(to), int(len)?])
}
