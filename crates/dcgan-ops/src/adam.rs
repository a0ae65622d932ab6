//! Adam with coupled L2, its whole state plain data.

use candle_core::Tensor;
use std::collections::BTreeMap;

/// Hyperparameters of one Adam step.
///
/// `g = gradient + weight_decay * p` (coupled, as the authors add L2 to the gradient of every parameter; not AdamW),
/// `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`,
/// `p -= learning_rate * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)`: Kingma and Ba 2015, algorithm 1, as
/// PyTorch computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment; the paper uses 0.5 (section 4).
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Coupled L2 on every parameter, batch norm included.
    pub weight_decay: f64,
}

/// First and second moment of one tensor.
#[derive(Clone, Debug)]
pub struct AdamMoments {
    /// Running mean of the gradient.
    pub first: Tensor,
    /// Running mean of its square.
    pub second: Tensor,
}

/// State of Adam: what a checkpoint keeps.
#[derive(Clone, Debug, Default)]
pub struct AdamState {
    /// Steps taken.
    pub step: u64,
    /// Moments by parameter name, on the host.
    pub moments: BTreeMap<String, AdamMoments>,
}

impl AdamConfig {
    /// `(learning_rate / (1 - beta1^t), sqrt(1 - beta2^t))` of step `t`, counted from 1.
    pub(crate) fn corrections(&self, step: u64) -> (f64, f64) {
        let t = i32::try_from(step).unwrap_or(i32::MAX);
        (self.learning_rate / (1.0 - self.beta1.powi(t)), (1.0 - self.beta2.powi(t)).sqrt())
    }
}
