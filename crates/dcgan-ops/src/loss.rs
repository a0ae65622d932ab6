//! Binary cross-entropy on logits, in the stable form, with its gradient.

use crate::Result;
use candle_core::Tensor;

/// Mean loss over a batch and its gradient.
#[derive(Clone, Debug)]
pub struct Bce {
    /// Mean over the batch, a scalar on the logits' device.
    pub loss: Tensor,
    /// Derivative of the mean by each logit, shape `(n)`.
    pub gradient: Tensor,
    /// Mean of `sigmoid(logit)`: D(x) or D(G(z)) of the familiar loss line, a scalar.
    pub probability: Tensor,
}

/// Mean binary cross-entropy of `logits` against one `target` for the whole batch (1 real, 0 fake, between them when smoothed).
///
/// With x the logit and t the target: `max(x, 0) - x t + ln(1 + exp(-|x|))`, which neither overflows nor loses digits at any
/// x; gradient `(sigmoid(x) - t) / n`.
///
/// # Shapes
/// - `logits`: `(n)`
///
/// # Errors
/// Those of candle (device, memory).
pub fn bce_with_logits(logits: &Tensor, target: f64) -> Result<Bce> {
    let n = logits.dims1()?;
    let softplus = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    let loss = ((logits.relu()? - (logits * target)?)? + softplus)?.mean_all()?;
    // sigmoid(x) = (1 + tanh(x / 2)) / 2 saturates without overflow.
    let probability = (((logits * 0.5)?.tanh()? + 1.0)? * 0.5)?;
    let gradient = ((&probability - target)? / n as f64)?;
    Ok(Bce { loss, gradient, probability: probability.mean_all()? })
}
