//! A network ready to run: its executor, its parameters, and the running statistics of its batch norm layers.

use crate::{
    AdamConfig, ConvolutionTime, Device, Executor, ExecutorOptions, Forward, ForwardHook, Input, Keep, Layer,
    LayerTiming, Layout, Maps, Mode, NormStatistics, OpsError, Parameters, ProcessGroup, Result, Statistics,
    WithRespectTo, executor,
};

/// A layer list with parameters on a device.
///
/// A training step is: forward and backward passes, [`Network::reduce_gradients`], [`Network::adam_step`].
#[derive(Debug)]
pub struct Network {
    executor: Box<dyn Executor>,
    parameters: Parameters,
    running: Option<Statistics>,
}

impl Network {
    /// A network of `layers` with all parameters zero and no running statistics.
    ///
    /// # Errors
    /// Those of [`executor`].
    pub fn new(layers: Vec<Layer>, options: &ExecutorOptions) -> Result<Self> {
        Ok(Self::with_executor(executor(layers, options)?))
    }

    /// The same on a given executor.
    pub fn with_executor(executor: Box<dyn Executor>) -> Self {
        let parameters = Parameters::in_shards(executor.layers(), executor.layout(), executor.shards());
        Self { executor, parameters, running: None }
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        self.executor.layers()
    }

    /// Where the network is computed.
    pub fn device(&self) -> &Device {
        self.executor.device()
    }

    /// The processes that train it together.
    pub fn group(&self) -> &dyn ProcessGroup {
        self.executor.group()
    }

    /// Parameters, gradients, optimizer state, EMA.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The same, to change.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The running statistics, where there are any.
    pub fn running_stats(&self) -> Option<&Statistics> {
        self.running.as_ref()
    }

    /// Replaces the running statistics. Statistics of some layers but not of all count as none.
    pub fn set_running_stats(&mut self, statistics: Statistics) {
        let normed = self.layers().iter().filter(|layer| layer.norm.is_some()).count();
        self.running = (statistics.len() == normed).then_some(statistics);
    }

    /// Updates the running statistics with a minibatch's; they start from mean 0 and variance 1, as in PyTorch.
    ///
    /// # Errors
    /// Those of candle.
    pub fn update_running_stats(&mut self, batch: &Statistics, momentum: f64) -> Result<()> {
        let running = self.running.get_or_insert_with(Statistics::new);
        for (layer, batch) in batch {
            if !running.contains_key(layer) {
                let initial = NormStatistics::initial(batch.mean.dims(), batch.mean.device())?;
                running.insert(layer.clone(), initial);
            }
            if let Some(running) = running.get_mut(layer) {
                running.update_running_stats(batch, momentum)?;
            }
        }
        Ok(())
    }

    /// A pass in training mode, by minibatch statistics, which are returned.
    ///
    /// # Errors
    /// Shapes, memory, a batch too small for batch norm.
    pub fn train<'a>(&mut self, input: impl Into<Input<'a>>, keep: Keep) -> Result<Forward> {
        self.forward(input, Mode::Train, keep)
    }

    /// A pass in evaluation mode, by the running statistics: no image depends on the others of the batch.
    ///
    /// # Errors
    /// [`OpsError::NoStatistics`]; shapes, memory.
    pub fn eval<'a>(&mut self, input: impl Into<Input<'a>>, keep: Keep) -> Result<Forward> {
        let running = self.running.as_ref().ok_or(OpsError::NoStatistics)?;
        self.executor.forward(self.parameters.values(), input.into(), Mode::Eval(running), keep, None)
    }

    /// The same, calling `hook` with every activation; returns the output.
    ///
    /// # Errors
    /// As [`Network::eval`].
    pub fn eval_with_hook<'a>(&mut self, input: impl Into<Input<'a>>, hook: ForwardHook<'_>) -> Result<Maps> {
        let running = self.running.as_ref().ok_or(OpsError::NoStatistics)?;
        let (mode, keep) = (Mode::Eval(running), Keep::Nothing);
        Ok(self.executor.forward(self.parameters.values(), input.into(), mode, keep, Some(hook))?.output)
    }

    /// A pass in the given mode.
    ///
    /// # Errors
    /// Those of [`Executor::forward`].
    pub fn forward<'a>(
        &mut self,
        input: impl Into<Input<'a>>,
        mode: Mode<'_>,
        keep: Keep,
    ) -> Result<Forward> {
        self.executor.forward(self.parameters.values(), input.into(), mode, keep, None)
    }

    /// The backward pass of the last forward pass kept with [`Keep::Tape`]: adds the gradients with respect to the
    /// parameters to those stored, and returns the gradient with respect to the input where asked for.
    ///
    /// # Errors
    /// Those of [`Executor::backward`].
    pub fn backward(&mut self, grad_output: &Maps, wrt: WithRespectTo) -> Result<Option<Maps>> {
        let (values, gradients) = self.parameters.values_and_gradients();
        self.executor.backward(values, gradients, grad_output, wrt)
    }

    /// Shards of a training batch in this process.
    pub fn shards(&self) -> usize {
        self.executor.shards()
    }

    /// Runs `body` with passes of this process alone, in one shard. It must not compute gradients of parameters.
    pub fn alone<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        self.executor.set_alone(true);
        let result = body(self);
        self.executor.set_alone(false);
        result
    }

    /// Replaces the whole state by that of rank 0: parameters, Adam's state, running statistics, and the EMA where
    /// there is one, which is for all processes or none.
    ///
    /// # Errors
    /// Those of the group.
    pub fn broadcast(&mut self, group: &dyn ProcessGroup) -> Result<()> {
        self.parameters.broadcast(group)?;
        let mut has = [u8::from(self.running.is_some())];
        group.broadcast(&mut has, 0)?;
        if has == [0] {
            self.running = None;
            return Ok(());
        }
        let mut running = Statistics::new();
        for layer in self.executor.layers() {
            let Some(shape) = layer.norm_shape() else { continue };
            let own = self.running.as_ref().and_then(|running| running.get(&layer.name));
            let mut values = match own {
                Some(own) => {
                    [Layout::RowMajor.values(&own.mean)?, Layout::RowMajor.values(&own.var)?].concat()
                }
                None => vec![0.0; 2 * shape.iter().product::<usize>()],
            };
            group.broadcast(bytemuck::cast_slice_mut(&mut values), 0)?;
            let (mean, var) = values.split_at(values.len() / 2);
            let tensor = |values: &[f32]| Layout::RowMajor.tensor(values, &shape);
            let statistics = NormStatistics { mean: tensor(mean)?, var: tensor(var)?, count: 0 };
            running.insert(layer.name.clone(), statistics);
        }
        self.running = Some(running);
        Ok(())
    }

    /// Sums the gradients over the shards of all processes of the group.
    ///
    /// # Errors
    /// Those of the group.
    pub fn reduce_gradients(&mut self) -> Result<()> {
        self.parameters.reduce_gradients(self.executor.group())
    }

    /// One Adam step on every parameter.
    pub fn adam_step(&mut self, config: &AdamConfig) {
        self.parameters.adam_step(config);
    }

    /// Times each convolution of a batch of `n` images by itself; none where the device does not tell.
    ///
    /// # Errors
    /// Memory, failures of the device.
    pub fn time_convolutions(&mut self, n: usize) -> Result<Vec<ConvolutionTime>> {
        self.executor.time_convolutions(n)
    }

    /// How each layer is computed and the time it has taken; empty where that is not known.
    pub fn timings(&self) -> Vec<LayerTiming> {
        self.executor.timings()
    }

    /// Recalibrates batch norm: replaces the running statistics by the average over `batches`, each layer's input
    /// normalized by its own minibatch, means and biased variances averaged with equal weight (the authors'
    /// svhn_semisup_analysis.py).
    ///
    /// # Errors
    /// [`OpsError::NoBatches`]; shapes; the error of a batch.
    pub fn recalibrate<E: From<OpsError>>(
        &mut self,
        batches: impl IntoIterator<Item = std::result::Result<(Maps, Option<Maps>), E>>,
    ) -> std::result::Result<(), E> {
        let mut average = AverageStatistics::default();
        for batch in batches {
            let (maps, labels) = batch?;
            let input = Input { maps: &maps, labels: labels.as_ref() };
            average.add(self.train(input, Keep::Nothing)?.statistics)?;
        }
        self.running = Some(average.finish()?);
        Ok(())
    }
}

/// The average of the statistics of minibatches, with equal weight.
#[derive(Debug, Default)]
pub struct AverageStatistics {
    sums: Statistics,
    batches: usize,
}

impl AverageStatistics {
    /// Adds those of a minibatch. The bytes of the average depend on the order.
    ///
    /// # Errors
    /// Shapes that differ from those before.
    pub fn add(&mut self, batch: Statistics) -> Result<()> {
        for (layer, batch) in batch {
            let sum = match self.sums.remove(&layer) {
                Some(sum) => added(&sum, &batch)?,
                None => batch,
            };
            self.sums.insert(layer, sum);
        }
        self.batches += 1;
        Ok(())
    }

    /// The average.
    ///
    /// # Errors
    /// [`OpsError::NoBatches`].
    pub fn finish(mut self) -> Result<Statistics> {
        if self.batches == 0 {
            return Err(OpsError::NoBatches);
        }
        let n = self.batches as f64;
        for s in self.sums.values_mut() {
            (s.mean, s.var) = ((&s.mean / n)?, (&s.var / n)?);
        }
        Ok(self.sums)
    }
}

fn added(a: &NormStatistics, b: &NormStatistics) -> Result<NormStatistics> {
    Ok(NormStatistics { mean: (&a.mean + &b.mean)?, var: (&a.var + &b.var)?, count: b.count })
}
