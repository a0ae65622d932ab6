//! The fused executor for CPUs: channels-last maps in buffers of its own, hand-written backward passes, all cores.
//!
//! - `mod.rs`: the executor, which runs the layers forward and backward;
//! - `shards.rs`: parts of the batch that are computed by themselves;
//! - `per_shard.rs`: the same with batch norm of each part;
//! - `state.rs`: one layer's place in the parameters, its buffers, and both of its passes;
//! - `linear.rs`: which algorithm computes a linear operation (dense, convolution or transposed convolution):
//!   `winograd`, `direct` or `conv` (patches);
//! - `linear_input.rs`: what a linear operation reads: the input resampled, with class labels;
//! - `label_inputs.rs`: class labels of dense layers;
//! - `norm.rs`: batch norm with its activation; `map_view.rs`: maps that are normalized as they are read;
//! - `kernels`: vectors, matrix products and transforms for each instruction set.

#![allow(
    clippy::cast_possible_truncation,
    reason = "rounding f64 to f32 is meant: state is f32, sums are f64"
)]

mod buffer;
mod conv;
mod direct;
pub(crate) mod dispatch;
pub(crate) mod kernels;
mod label_inputs;
mod linear;
mod linear_input;
mod map_view;
mod norm;
mod per_shard;
mod shards;
mod state;
mod winograd;
mod workspace;

use crate::executor::check_input;
use crate::{
    BufferPool, Device, Executor, Forward, ForwardHook, Input, Keep, Layer, LayerTiming, Layout, Maps, Mode,
    OpsError, ParameterTable, ParameterValues, Precision, ProcessGroup, Result, SingleProcess, Statistics,
    WithRespectTo,
};
use kernels::Isa;
use map_view::MapView;
pub use per_shard::PerShardExecutor;
use rayon::prelude::*;
use shards::Shards;
use state::{Asked, Backward, LayerState, PerImageSums};
use std::sync::Arc;
use std::time::Instant;
use workspace::Workspace;

/// Runs a layer list on the CPU; see the crate's head.
///
/// Between two layers stands the output of the linear operation. Batch norm and its activation are applied when the
/// next layer reads it, and their gradient is computed when the layer's own backward pass reads its output's gradient,
/// where the algorithms of these layers support it (`linear.rs`).
#[derive(Debug)]
pub struct CpuExecutor {
    layers: Vec<Layer>,
    states: Vec<LayerState>,
    group: Arc<dyn ProcessGroup>,
    /// Shards of a batch in this process.
    shards: usize,
    /// Whether passes are those of this process alone.
    alone: bool,
    pool: BufferPool,
    tape: Option<Tape>,
}

/// What the backward pass needs beside the layers' buffers.
#[derive(Debug)]
struct Tape {
    input: Maps,
    labels: Option<Maps>,
    train: bool,
}

impl CpuExecutor {
    /// An executor on the best instruction set of the machine, in f32.
    pub fn new(layers: Vec<Layer>) -> Self {
        Self::with(layers, Isa::best(), Precision::F32)
    }

    /// An executor whose kernels use the given instruction set and precision.
    ///
    /// # Panics
    /// In a pass, where the machine does not have it ([`Isa::is_available`]).
    pub fn with(layers: Vec<Layer>, isa: Isa, precision: Precision) -> Self {
        let table = ParameterTable::new(&layers, Layout::ChannelsLast);
        let states = layers.iter().map(|layer| LayerState::new(layer, &table, isa, precision)).collect();
        let (group, shards) = (Arc::new(SingleProcess), 1);
        Self { layers, states, group, shards, alone: false, pool: BufferPool::new(), tape: None }
    }

    /// The same as one process of `group`: every process runs its part of the batch, and batch norm normalizes by the
    /// whole.
    pub fn in_group(self, group: Arc<dyn ProcessGroup>) -> Self {
        Self { group, ..self }
    }

    /// The same with the batch of this process in `shards` shards.
    pub fn in_shards(self, shards: usize) -> Self {
        Self { shards: shards.max(1), ..self }
    }

    fn run_forward(
        &mut self,
        workspace: &mut Workspace,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        (keep, hook): (Keep, Option<ForwardHook<'_>>),
    ) -> Result<Forward> {
        check_input(&self.layers, input)?;
        self.tape = None; // the buffers below are about to change
        let n = input.maps.n();
        // Without a tape and minibatch statistics, images do not depend on each other.
        let is_sharded = keep == Keep::Tape || matches!(mode, Mode::Train);
        let shards = Shards::new(n, if is_sharded { self.shards() } else { 1 })?;
        let group: Arc<dyn ProcessGroup> =
            if self.alone { Arc::new(SingleProcess) } else { Arc::clone(&self.group) };
        let mut statistics = Statistics::new();
        let mut activations = Vec::new();
        let all = keep == Keep::Activations;
        let Self { layers, states, pool, .. } = self;
        for (i, layer) in layers.iter().enumerate() {
            let started = Instant::now();
            let (done, rest) = states.split_at_mut(i);
            let Some((state, after)) = rest.split_first_mut() else { break };
            // The activation is written where the next layer cannot apply it, or the caller asks for it.
            let write_activation =
                all || !state::applied_on_read(layer, after.first().map(|next| &next.linear));
            let hook = hook.map(|hook| move |image: usize, map: &[f32]| hook(i, image, map));
            let asked =
                Asked { write_activation, hook: hook.as_ref().map(|hook| hook as state::ImageHook<'_>) };
            let source = match done.last() {
                Some(before) => before.output(&layers[i - 1], Some(&state.linear), n),
                None => MapView::plain(input.maps.values()),
            };
            let labels = input.labels;
            let batch = state.forward(
                layer,
                (parameters, workspace),
                (shards, source, labels),
                (mode, group.as_ref()),
                asked,
            )?;
            statistics.extend(batch.map(|batch| (layer.name.clone(), batch)));
            if all {
                activations.push(Maps::copied(state.activation(layer, n), n, layer.output, pool));
            }
            state.time.forward += started.elapsed();
        }
        let output = match (layers.last(), states.last()) {
            (Some(layer), Some(state)) => Maps::copied(state.activation(layer, n), n, layer.output, pool),
            _ => input.maps.clone(),
        };
        if keep == Keep::Tape {
            let train = matches!(mode, Mode::Train);
            self.tape = Some(Tape { input: input.maps.clone(), labels: input.labels.cloned(), train });
        }
        Ok(Forward { output, statistics, activations })
    }

    fn run_backward(
        &mut self,
        workspace: &mut Workspace,
        parameters: ParameterValues<'_>,
        gradients: &mut [f32],
        grad_output: &Maps,
        wrt: WithRespectTo,
    ) -> Result<Option<Maps>> {
        let count = self.shards();
        let group: Arc<dyn ProcessGroup> =
            if self.alone { Arc::new(SingleProcess) } else { Arc::clone(&self.group) };
        let Self { layers, states, pool, tape, .. } = self;
        let Tape { input, labels, train } = tape.as_ref().ok_or(OpsError::NoTape)?;
        let n = input.n();
        let shards = Shards::new(n, count)?;
        let Some(last) = layers.last() else { return Ok(None) };
        grad_output.check("the output's gradient", n, last.output)?;
        let Workspace { scratch, grads: [d, next], sums, joined } = workspace;
        d.sized(grad_output.values().len()).copy_from_slice(grad_output.values());
        // Sums of the layer with most channels.
        let widest = layers.iter().map(|layer| layer.output.channels).max().unwrap_or(0);
        let sums = sums.sized(n * 2 * widest);
        if let Some(state) = states.last() {
            let shared = PerImageSums::new(sums, n, 2 * last.output.channels);
            let maps = d.get_mut(n * last.output.len()).par_chunks_mut(last.output.len()).enumerate();
            maps.for_each(|(image, d)| state.receive_gradient(last, &shared, image, d));
        }
        for (i, layer) in layers.iter().enumerate().rev() {
            let started = Instant::now();
            let (done, rest) = states.split_at_mut(i);
            let Some(state) = rest.first_mut() else { break };
            let len = n * layer.output.len();
            let pass = Backward { shards, train: *train, group: group.as_ref() };
            let asked = wrt.parameters().then_some(&mut *gradients);
            let norm = state.finish_norm(layer, &pass, sums, d.get_mut(len), asked)?;
            let asked = wrt.parameters().then_some(&mut *gradients);
            let grad_input = next.sized(n * layer.input.len());
            let shared = PerImageSums::new(sums, n, 2 * layer.input.channels);
            let before = done.last();
            let receive = |image: usize, d: &mut [f32]| {
                if let Some(before) = before {
                    before.receive_gradient(&layers[i - 1], &shared, image, d);
                }
            };
            let source = match before {
                Some(before) => before.output(&layers[i - 1], Some(&state.linear), n),
                None => MapView::plain(input.values()),
            };
            let asked_input = (i > 0 || wrt.input()).then_some((grad_input, &receive as state::ImageMut<'_>));
            let inputs = (shards, source, labels.as_ref());
            state.backward(
                layer,
                (parameters, scratch, joined),
                inputs,
                (d.get(len), &norm),
                (asked, asked_input),
            );
            state.time.backward += started.elapsed();
            std::mem::swap(d, next);
        }
        if !wrt.input() {
            return Ok(None);
        }
        let first = layers[0].input;
        Ok(Some(Maps::copied(d.get(n * first.len()), n, first, pool)))
    }
}

/// Runs `body` on a thread of rayon's pool: from outside, every parallel loop would wait for a thread to wake up.
pub fn in_pool<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| body())
}

impl Executor for CpuExecutor {
    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn layout(&self) -> Layout {
        Layout::ChannelsLast
    }

    fn group(&self) -> &dyn ProcessGroup {
        self.group.as_ref()
    }

    fn shards(&self) -> usize {
        if self.alone { 1 } else { self.shards }
    }

    fn set_alone(&mut self, alone: bool) {
        (self.alone, self.tape) = (alone, None);
    }

    fn forward(
        &mut self,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward> {
        let pass =
            |workspace: &mut Workspace| self.run_forward(workspace, parameters, input, mode, (keep, hook));
        in_pool(|| Workspace::lend(pass))
    }

    fn backward(
        &mut self,
        parameters: ParameterValues<'_>,
        gradients: &mut [f32],
        grad_output: &Maps,
        wrt: WithRespectTo,
    ) -> Result<Option<Maps>> {
        let pass =
            |workspace: &mut Workspace| self.run_backward(workspace, parameters, gradients, grad_output, wrt);
        in_pool(|| Workspace::lend(pass))
    }

    fn timings(&self) -> Vec<LayerTiming> {
        let timing = |(layer, state): (&Layer, &LayerState)| LayerTiming {
            layer: layer.name.clone(),
            algorithm: state.linear.path().to_owned(),
            time: state.time,
        };
        self.layers.iter().zip(&self.states).map(timing).collect()
    }
}
