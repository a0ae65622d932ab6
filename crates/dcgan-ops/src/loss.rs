//! Cross-entropy on logits, binary and of many classes, in the stable forms, with gradients.

use crate::{OpsError, Result};
use candle_core::{Device, Tensor};

/// Mean loss over a batch and its gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct Bce {
    /// Mean over the batch.
    pub loss: f32,
    /// Gradient of the mean with respect to each logit.
    pub gradient: Vec<f32>,
    /// Mean of `sigmoid(logit)`: D(x) or D(G(z)) as pytorch/examples logs it.
    pub probability: f32,
}

/// Mean binary cross-entropy of `logits` against one `target` for the whole batch (1 real, 0 fake, between them when
/// smoothed).
///
/// With x the logit and t the target: `max(x, 0) - x t + ln(1 + exp(-|x|))`, which overflows at no x; gradient
/// `(sigmoid(x) - t) / n`, exact to rounding also where sigmoid is tiny (Adam is invariant to the scale of the
/// gradient). Sums are f64.
#[expect(clippy::cast_possible_truncation, reason = "rounding f64 to f32 is meant")]
pub fn bce_with_logits(logits: &[f32], target: f64) -> Bce {
    let n = logits.len() as f64;
    let (mut loss, mut probability) = (0.0, 0.0);
    let gradient = logits.iter().map(|&x| {
        let x = f64::from(x);
        let p = 1.0 / (1.0 + (-x).exp());
        loss += x.max(0.0) - x * target + (-x.abs()).exp().ln_1p();
        probability += p;
        ((p - target) / n) as f32
    });
    let gradient = gradient.collect();
    Bce { loss: (loss / n) as f32, gradient, probability: (probability / n) as f32 }
}

/// Mean loss of a classifier over a batch and its gradient.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Mean over the batch, a scalar on the logits' device.
    pub loss: Tensor,
    /// Gradient of the mean with respect to each logit, shape `(n, k)`.
    pub gradient: Tensor,
}

/// Mean softmax cross-entropy of `logits` against one class a row.
///
/// With p = softmax(x) and y the label: `ln sum exp(x_j - max x) - (x_y - max x)`, which overflows at no x; gradient
/// `(p_j - [j = y]) / n`, where `p_y - 1` is the negated sum of the others, which does not cancel where p_y is near 1.
///
/// # Shapes
/// - `logits`: `(n, k)`
/// - `labels`: n numbers below k
///
/// # Errors
/// Not one label a row, a label that is no class, those of candle (device, memory).
pub fn cross_entropy(logits: &Tensor, labels: &[u32]) -> Result<CrossEntropy> {
    let (n, classes) = logits.dims2()?;
    if labels.len() != n {
        let found = vec![labels.len()];
        return Err(OpsError::Shape { what: "labels".into(), expected: format!("({n})"), found });
    }
    let mut chosen = vec![0.0_f32; n * classes];
    for (index, label) in labels.iter().enumerate() {
        let class = usize::try_from(*label).ok().filter(|class| *class < classes);
        let class = class.ok_or(OpsError::Label { index, label: *label, classes })?;
        chosen[index * classes + class] = 1.0;
    }
    let chosen = Tensor::from_vec(chosen, (n, classes), &Device::Cpu)?.to_device(logits.device())?;
    let chosen = chosen.to_dtype(logits.dtype())?; // (n, k), 1 at the label
    let below = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
    let powers = below.exp()?;
    let sum = powers.sum_keepdim(1)?; // (n, 1), 1 to k
    let loss = (sum.log()?.squeeze(1)? - (below * &chosen)?.sum(1)?)?.mean_all()?;
    let others = (powers.broadcast_div(&sum)? * chosen.affine(-1.0, 1.0)?)?;
    let own = chosen.broadcast_mul(&others.sum_keepdim(1)?)?;
    let gradient = ((others - own)? / n as f64)?;
    Ok(CrossEntropy { loss, gradient })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_of_confident_rejections_keep_their_digits() {
        for x in [-80.0_f32, -30.0, -17.0, -12.0, -3.0, 0.0, 3.0, 30.0] {
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let found = f64::from(bce_with_logits(&[x], 0.0).gradient[0]);
            assert!((found - exact).abs() < 5e-7 * exact, "at {x}: {found}, expected {exact}");
        }
        // Where exp overflows: nothing is NaN, and the loss is the distance.
        for (x, loss) in [(-1000.0_f32, 0.0), (1000.0, 1000.0)] {
            let bce = bce_with_logits(&[x], 0.0);
            assert_eq!(bce.loss, loss);
            assert!(bce.gradient[0].is_finite());
        }
        assert!(bce_with_logits(&[f32::NAN, 0.0], 1.0).loss.is_nan(), "NaN propagates");
    }

    #[test]
    fn many_classes_at_the_ends_of_the_scale() {
        let row = |values: &[f32; 3], label| {
            let found = cross_entropy(&Tensor::new(&[*values], &Device::Cpu).unwrap(), &[label]).unwrap();
            (found.loss.to_scalar::<f32>().unwrap(), found.gradient.to_vec2::<f32>().unwrap().remove(0))
        };
        assert_eq!(row(&[1000.0, 0.0, -1000.0], 0), (0.0, vec![0.0, 0.0, 0.0]));
        assert_eq!(row(&[1000.0, 0.0, -1000.0], 2), (2000.0, vec![1.0, 0.0, -1.0]));
        // Confident and right: the gradient keeps its digits.
        let (_, gradient) = row(&[20.0, 0.0, -200.0], 0);
        let exact = 1.0 / (1.0 + 20.0_f64.exp());
        for (found, exact) in gradient.iter().zip([-exact, exact, 0.0]) {
            assert!((f64::from(*found) - exact).abs() <= 1e-6 * exact.abs(), "{found}, expected {exact}");
        }
    }

    #[test]
    fn labels_that_are_no_class() {
        let logits = Tensor::zeros((2, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let found = cross_entropy(&logits, &[2, 3]).unwrap_err();
        assert!(matches!(found, OpsError::Label { index: 1, label: 3, classes: 3 }), "{found}");
        assert!(matches!(cross_entropy(&logits, &[0]).unwrap_err(), OpsError::Shape { .. }));
    }
}
