//! Batch norm statistics as plain data: what a forward pass returns and what evaluation is given.

use crate::Result;
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

/// Mean and variance of one batch norm layer.
#[derive(Clone, Debug)]
pub struct NormStatistics {
    /// `(c)` per channel or `(c, h, w)` per activation.
    pub mean: Tensor,
    /// Biased variance of a minibatch, or the running variance; same shape.
    pub var: Tensor,
    /// How many values each mean was taken over (batch x rows x columns, or batch).
    pub count: usize,
}

/// Statistics of a network's batch norm layers, by layer name.
pub type Statistics = BTreeMap<String, NormStatistics>;

impl NormStatistics {
    /// Updates running statistics with those of a minibatch: `running = (1 - momentum) running + momentum batch`.
    ///
    /// As in PyTorch the running variance takes the unbiased minibatch variance.
    ///
    /// # Errors
    /// Those of candle: shapes that differ, devices that differ.
    pub fn update_running_stats(&mut self, batch: &NormStatistics, momentum: f64) -> Result<()> {
        let count = batch.count as f64;
        let unbiased = if batch.count > 1 { count / (count - 1.0) } else { 1.0 };
        self.mean = ((&self.mean * (1.0 - momentum))? + (&batch.mean * momentum)?)?;
        self.var = ((&self.var * (1.0 - momentum))? + (&batch.var * (momentum * unbiased))?)?;
        self.count = batch.count;
        Ok(())
    }

    /// Mean 0 and variance 1: where running statistics start.
    ///
    /// # Errors
    /// Those of candle (memory).
    pub fn initial(shape: &[usize], device: &Device) -> Result<Self> {
        Ok(Self {
            mean: Tensor::zeros(shape, DType::F32, device)?,
            var: Tensor::ones(shape, DType::F32, device)?,
            count: 0,
        })
    }
}
