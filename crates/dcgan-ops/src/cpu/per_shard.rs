//! Batch norm over the images of each shard alone: what frameworks do that train in several processes by default.
//!
//! Each shard has an executor of its own, and its pass is that of a small batch. Running statistics are those of all
//! shards together.

use super::CpuExecutor;
use crate::group::{Moments, combine_moments};
use crate::{
    BufferPool, Device, Executor, Forward, ForwardHook, Input, Isa, Keep, Layer, LayerTiming, Layout, Maps,
    Mode, NormStatistics, OpsError, ParameterValues, Precision, ProcessGroup, Result, SingleProcess,
    Statistics, WithRespectTo,
};
use candle_core::Tensor;
use std::sync::Arc;

/// Runs a layer list on the CPU as [`CpuExecutor`] does, except that each shard is normalized by itself.
#[derive(Debug)]
pub struct PerShardExecutor {
    /// One for each shard of this process.
    executors: Vec<CpuExecutor>,
    group: Arc<dyn ProcessGroup>,
    /// Whether passes are those of this process alone, in one shard.
    alone: bool,
    /// Images of each shard of the tape.
    images: usize,
    pool: BufferPool,
}

impl PerShardExecutor {
    /// An executor for one process of `group`, with `shards` shards of a batch.
    pub fn new(
        layers: &[Layer],
        precision: Precision,
        (group, shards): (Arc<dyn ProcessGroup>, usize),
    ) -> Self {
        let executor = || CpuExecutor::with(layers.to_vec(), Isa::best(), precision);
        let executors = (0..shards.max(1)).map(|_| executor()).collect();
        Self { executors, group, alone: false, images: 0, pool: BufferPool::new() }
    }

    /// The statistics of all shards of all processes together.
    fn combined(&self, of_shards: &[Statistics]) -> Result<Statistics> {
        let group: &dyn ProcessGroup = if self.alone { &SingleProcess } else { self.group.as_ref() };
        let Some(first) = of_shards.first() else { return Ok(Statistics::new()) };
        let combine = |name: &String| -> Result<(String, NormStatistics)> {
            let moments = |statistics: &Statistics| -> Result<Moments> {
                let NormStatistics { mean, var, count } = &statistics[name];
                let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
                Ok(Moments { mean: values(mean)?, var: values(var)?, count: *count })
            };
            let all = of_shards.iter().map(moments).collect::<Result<Vec<_>>>()?;
            let Moments { mean, var, count } = combine_moments(group, all)?;
            let shape = first[name].mean.dims();
            let tensor = |values: Vec<f32>| Tensor::from_vec(values, shape, &candle_core::Device::Cpu);
            Ok((name.clone(), NormStatistics { mean: tensor(mean)?, var: tensor(var)?, count }))
        };
        first.keys().map(combine).collect()
    }

    /// The maps of shard `shard`, which has `images` images.
    fn part(&self, maps: &Maps, shard: usize, images: usize) -> Maps {
        let len = images * maps.shape().len();
        Maps::copied(&maps.values()[shard * len..][..len], images, maps.shape(), &self.pool)
    }

    /// The maps of all shards.
    fn joined(&self, parts: &[Maps]) -> Result<Maps> {
        let Some(first) = parts.first() else { return Err(OpsError::NoBatches) };
        let len = first.values().len();
        let mut values = self.pool.take(len * parts.len());
        values
            .chunks_exact_mut(len.max(1))
            .zip(parts)
            .for_each(|(to, part)| to.copy_from_slice(part.values()));
        Maps::new(values, first.n() * parts.len(), first.shape())
    }
}

impl Executor for PerShardExecutor {
    fn layers(&self) -> &[Layer] {
        self.executors[0].layers()
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
        if self.alone { 1 } else { self.executors.len() }
    }

    fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
        self.executors.iter_mut().for_each(|executor| executor.set_alone(alone));
    }

    fn forward(
        &mut self,
        parameters: ParameterValues<'_>,
        input: Input<'_>,
        mode: Mode<'_>,
        keep: Keep,
        hook: Option<ForwardHook<'_>>,
    ) -> Result<Forward> {
        // Without a tape and minibatch statistics, images do not depend on each other.
        let is_sharded = keep == Keep::Tape || matches!(mode, Mode::Train);
        let (n, count) = (input.maps.n(), if is_sharded { self.shards() } else { 1 });
        if !n.is_multiple_of(count) {
            return Err(OpsError::Shards { images: n, shards: count });
        }
        self.images = n / count;
        if count == 1 {
            let forward = self.executors[0].forward(parameters, input, mode, keep, hook)?;
            let statistics = self.combined(&[forward.statistics])?;
            return Ok(Forward { statistics, ..forward });
        }
        let mut found: Vec<Forward> = Vec::with_capacity(count);
        for shard in 0..count {
            let maps = self.part(input.maps, shard, self.images);
            let labels = input.labels.map(|labels| self.part(labels, shard, self.images));
            let input = Input { maps: &maps, labels: labels.as_ref() };
            found.push(self.executors[shard].forward(parameters, input, mode, keep, None)?);
        }
        let all = |of: &dyn Fn(&Forward) -> Maps| self.joined(&found.iter().map(of).collect::<Vec<_>>());
        let output = all(&|forward| forward.output.clone())?;
        let layers = 0..found[0].activations.len();
        let activations = layers.map(|i| all(&|forward| forward.activations[i].clone()));
        let activations = activations.collect::<Result<_>>()?;
        let of_shards: Vec<Statistics> = found.into_iter().map(|forward| forward.statistics).collect();
        Ok(Forward { output, statistics: self.combined(&of_shards)?, activations })
    }

    fn backward(
        &mut self,
        parameters: ParameterValues<'_>,
        gradients: &mut [f32],
        grad_output: &Maps,
        wrt: WithRespectTo,
    ) -> Result<Option<Maps>> {
        let count = self.shards();
        if count == 1 {
            return self.executors[0].backward(parameters, gradients, grad_output, wrt);
        }
        if grad_output.n() != count * self.images {
            return Err(OpsError::Shards { images: grad_output.n(), shards: count });
        }
        let len = gradients.len() / count;
        let mut found = Vec::with_capacity(count);
        for (shard, gradients) in gradients.chunks_exact_mut(len.max(1)).enumerate() {
            let part = self.part(grad_output, shard, self.images);
            found.extend(self.executors[shard].backward(parameters, gradients, &part, wrt)?);
        }
        if found.is_empty() { Ok(None) } else { self.joined(&found).map(Some) }
    }

    fn timings(&self) -> Vec<LayerTiming> {
        self.executors[0].timings()
    }
}
