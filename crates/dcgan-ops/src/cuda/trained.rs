//! A network in training on a GPU, with all of its state.

use super::gpu::{self, Argument, Buffer, Gpu, elements, int};
use super::layer::{self, Parameters, pointer};
use super::layers::Layers;
use super::nccl::Gpus;
use super::training::{StepBuffers, WIDTH};
use crate::{AdamConfig, Layout, Network, NormStatistics, Precision, Result, Statistics};

/// Pieces of a tensor for the norm of its gradient: at most this many, of at least this many values.
const PIECES: usize = 32;
const PIECE: usize = 16 * 1024;

/// One network on the GPU with all of its state.
#[derive(Debug)]
pub(super) struct Trained {
    pub(super) layers: Layers,
    pub(super) names: Vec<String>,
    pub(super) parameters: Buffer,
    narrow: Buffer,
    pub(super) gradients: Buffer,
    first: Buffer,
    second: Buffer,
    pub(super) ema: Option<Buffer>,
    pub(super) adam_steps: u64,
    pub(super) has_statistics: bool,
    /// Where the pieces of the gradient start and how long they are.
    pieces: Buffer,
    piece_count: usize,
    /// The first piece of each tensor.
    tensors: Buffer,
    squares: Buffer,
    norms: Buffer,
}

impl Trained {
    pub(super) fn new(gpu: &Gpu, network: &Network, precision: Precision) -> Result<Self> {
        let layers = Layers::new(network.layers().to_vec());
        let mut pieces: Vec<[i32; 2]> = Vec::new();
        let mut tensors = Vec::new();
        let number =
            |value: usize| i32::try_from(value).map_err(|_| super::CudaError::TooLarge { values: value });
        for range in layers.tensors() {
            tensors.push(number(pieces.len())?);
            let each = range.len().div_ceil(PIECES).max(PIECE);
            for start in range.clone().step_by(each) {
                pieces.push([number(start)?, number(each.min(range.end - start))?]);
            }
        }
        tensors.push(number(pieces.len())?);
        let names = network.parameters().table().entries().iter().map(|entry| entry.name.clone()).collect();
        let (first, second, ema, adam_steps) = network.parameters().optimizer();
        let upload = |flat: &[f32]| -> gpu::Result<Buffer> {
            let mut buffer = Buffer::default();
            buffer.upload(gpu, &layers.padded(flat))?;
            Ok(buffer)
        };
        let sized = |bytes: usize| -> gpu::Result<Buffer> {
            let mut buffer = Buffer::default();
            buffer.sized(gpu, bytes)?;
            Ok(buffer)
        };
        let parameters = upload(network.parameters().values().flat)?;
        let (first, second) = (upload(first)?, upload(second)?);
        let ema = ema.map(upload).transpose()?;
        let gradients = sized(4 * layers.len)?;
        layer::zero(gpu, gradients.address(gpu), layers.len)?; // between the tensors, nothing else is written
        let mut of_pieces = Buffer::default();
        of_pieces.upload(gpu, bytemuck::cast_slice::<[i32; 2], i32>(&pieces))?;
        let mut of_tensors = Buffer::default();
        of_tensors.upload(gpu, &tensors)?;
        let (squares, norms) = (sized(8 * pieces.len())?, sized(8 * tensors.len())?);
        let mut trained = Self {
            layers,
            names,
            parameters,
            narrow: Buffer::default(),
            gradients,
            first,
            second,
            ema,
            adam_steps,
            has_statistics: network.running_stats().is_some(),
            pieces: of_pieces,
            piece_count: pieces.len(),
            tensors: of_tensors,
            squares,
            norms,
        };
        let wide = trained.parameters.address(gpu);
        trained.layers.narrow(gpu, precision, wide, &mut trained.narrow)?;
        trained.upload_statistics(gpu, network.running_stats())?;
        Ok(trained)
    }

    /// Running means and variances, from 0 and 1 where there are none.
    fn upload_statistics(&mut self, gpu: &Gpu, running: Option<&Statistics>) -> Result<()> {
        for (layer, state) in self.layers.layers.iter().zip(&mut self.layers.states) {
            if layer.norm.is_none() {
                continue;
            }
            let columns = layer.columns();
            let values = match running.and_then(|running| running.get(&layer.name)) {
                Some(found) => [Layout::Filters.values(&found.mean)?, Layout::Filters.values(&found.var)?],
                None => [vec![0.0; columns], vec![1.0; columns]],
            };
            state.running.upload(gpu, &values.concat())?;
        }
        Ok(())
    }

    pub(super) fn addresses(&self, gpu: &Gpu) -> Parameters {
        Parameters { wide: self.parameters.address(gpu), narrow: self.narrow.address(gpu) }
    }

    /// Copies everything to the host.
    pub(super) fn store(&self, gpu: &Gpu, network: &mut Network, n: usize) -> Result<()> {
        let download = |from: &Buffer, to: &mut [f32]| -> gpu::Result<()> {
            let found = from.download(gpu, self.layers.len)?;
            self.layers.for_each_pair(to, &found, |value, found| *value = found);
            Ok(())
        };
        let state = network.parameters_mut().state_mut();
        download(&self.parameters, state.values)?;
        download(&self.first, state.first)?;
        download(&self.second, state.second)?;
        if let (Some(from), Some(to)) = (&self.ema, state.ema) {
            download(from, to)?;
        }
        *state.adam_steps = self.adam_steps;
        if !self.has_statistics {
            return Ok(());
        }
        let mut statistics = Statistics::new();
        for (layer, state) in self.layers.layers.iter().zip(&self.layers.states) {
            let (Some(shape), columns) = (layer.norm_shape(), layer.columns()) else { continue };
            let found = state.running.download(gpu, 2 * columns)?;
            let tensor = |values: &[f32]| Layout::Filters.tensor(values, &shape);
            let (mean, var) = (tensor(&found[..columns])?, tensor(&found[columns..])?);
            let count = n * layer.output.len() / columns;
            statistics.insert(layer.name.clone(), NormStatistics { mean, var, count });
        }
        network.set_running_stats(statistics);
        Ok(())
    }

    /// The gradient's norm, and Adam's step if everything is finite. `norm` is the column of the norm and `loss` the
    /// first of the `losses` losses; `rate` is the scalar of the learning rate.
    pub(super) fn update(
        &self,
        (gpu, gpus): (&Gpu, Option<&Gpus>),
        step: &StepBuffers,
        adam: &AdamConfig,
        (norm, loss, losses, rate): (usize, usize, usize, usize),
    ) -> gpu::Result<()> {
        if let Some(gpus) = gpus {
            gpus.all_reduce(gpu, self.gradients.address(gpu), self.layers.len)?;
            // Sums of parts of the means.
            gpus.all_reduce(gpu, step.found.address(gpu) + 4 * loss as u64, 2 * losses)?;
        }
        let of = |buffer: &Buffer| pointer(buffer.address(gpu));
        let grid = (u32::try_from(self.piece_count).unwrap_or(u32::MAX), 1);
        gpu.launch("squares", grid, &[of(&self.gradients), of(&self.pieces), of(&self.squares)])?;
        let arguments = [
            of(&self.squares),
            of(&self.tensors),
            of(&self.norms),
            int(self.names.len())?,
            of(&step.scalars),
            of(&step.found),
            of(&step.output),
            int(WIDTH)?,
            int(norm)?,
            int(loss)?,
            int(losses)?,
            of(&step.failed),
        ];
        gpu.launch("check_gradient", (1, 1), &arguments)?;
        #[expect(clippy::cast_possible_truncation, reason = "the state is f32")]
        let float = |value: f64| Argument::Float(value as f32);
        let arguments = [
            of(&self.parameters),
            of(&self.narrow),
            of(&self.gradients),
            of(&self.first),
            of(&self.second),
            of(&step.scalars),
            int(rate)?,
            of(&step.failed),
            float(adam.weight_decay),
            float(adam.beta1),
            float(1.0 - adam.beta1),
            float(adam.beta2),
            float(1.0 - adam.beta2),
            float(adam.eps),
            int(self.layers.len)?,
        ];
        gpu.launch("adam", elements(self.layers.len), &arguments)
    }
}
