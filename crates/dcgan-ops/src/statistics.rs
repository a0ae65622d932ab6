//! Batch-norm statistics as plain data: what a forward pass returns and what evaluation is given.

use crate::{OpsError, Result};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// Mean and variance of one batch-norm layer.
#[derive(Clone, Debug)]
pub struct NormStatistics {
    /// `(c)` per channel or `(c, h, w)` per unit.
    pub mean: Tensor,
    /// Biased variance of a minibatch, or the running variance; same shape.
    pub variance: Tensor,
    /// How many values each mean was taken over (batch x rows x columns, or batch).
    pub count: usize,
}

/// Statistics of a network's batch-norm layers, by layer name.
pub type Statistics = BTreeMap<String, NormStatistics>;

impl NormStatistics {
    /// Moves a running average towards a minibatch: `running = (1 - momentum) running + momentum batch`.
    ///
    /// As in PyTorch the running variance takes the unbiased minibatch variance.
    ///
    /// # Errors
    /// Those of candle: shapes that differ, devices that differ.
    pub fn update_running_stats(&mut self, batch: &NormStatistics, momentum: f64) -> Result<()> {
        let count = batch.count as f64;
        let unbiased = if batch.count > 1 { count / (count - 1.0) } else { 1.0 };
        self.mean = ((&self.mean * (1.0 - momentum))? + (&batch.mean * momentum)?)?;
        self.variance = ((&self.variance * (1.0 - momentum))? + (&batch.variance * (momentum * unbiased))?)?;
        self.count = batch.count;
        Ok(())
    }

    /// Mean 0 and variance 1, where running averages start.
    ///
    /// # Errors
    /// Those of candle (memory).
    pub fn initial(shape: &[usize], device: &Device) -> Result<Self> {
        let f32 = candle_core::DType::F32;
        Ok(Self {
            mean: Tensor::zeros(shape, f32, device)?,
            variance: Tensor::ones(shape, f32, device)?,
            count: 0,
        })
    }
}

/// The statistics of `layer`, or which tensor is missing.
pub(crate) fn of_layer<'a>(statistics: &'a Statistics, layer: &str) -> Result<&'a NormStatistics> {
    statistics.get(layer).ok_or_else(|| OpsError::Missing { name: format!("{layer}.mean") })
}
