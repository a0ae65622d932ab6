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
/// With x the logit and t the target: `max(x, 0) - x t + ln(1 + exp(-|x|))`, which overflows at no x; gradient
/// `(sigmoid(x) - t) / n`, exact to rounding also where sigmoid is tiny (Adam does not care how small a gradient is).
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
    // Not by tanh, which cancels at negative x. An exp that overflows gives 1 / inf = 0.
    let probability = (logits.neg()?.exp()? + 1.0)?.recip()?;
    let gradient = ((&probability - target)? / n as f64)?;
    Ok(Bce { loss, gradient, probability: probability.mean_all()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn gradients_of_confident_rejections_keep_their_digits() {
        for x in [-80.0_f32, -30.0, -17.0, -12.0, -3.0, 0.0, 3.0, 30.0] {
            let logits = Tensor::new(&[x], &Device::Cpu).unwrap();
            let bce = bce_with_logits(&logits, 0.0).unwrap();
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let found = f64::from(bce.gradient.to_vec1::<f32>().unwrap()[0]);
            assert!((found - exact).abs() < 5e-7 * exact, "at {x}: {found}, expected {exact}");
        }
        // Where exp overflows: nothing is NaN, and the loss is the distance.
        for (x, loss) in [(-1000.0_f32, 0.0), (1000.0, 1000.0)] {
            let bce = bce_with_logits(&Tensor::new(&[x], &Device::Cpu).unwrap(), 0.0).unwrap();
            assert_eq!(bce.loss.to_scalar::<f32>().unwrap(), loss);
            assert!(bce.gradient.to_vec1::<f32>().unwrap()[0].is_finite());
        }
    }
}
