//! The Inception score (Salimans et al. 2016, "Improved Techniques for Training GANs").

use rayon::prelude::*;

use crate::error::MetricsError;
use crate::kernel_distance::Spread;
use crate::random_state::RandomState;

/// Splits whose scores are averaged.
pub const SPLITS: usize = 10;

/// `exp E KL(p(y|x) || p(y))` over `splits` parts of the logits `(n, classes)`, shuffled by `random`.
///
/// # Errors
/// [`MetricsError::TooFew`].
pub fn inception_score(
    logits: &[f32],
    classes: usize,
    splits: usize,
    random: &mut RandomState,
) -> Result<Spread, MetricsError> {
    let n = logits.len() / classes.max(1);
    if n < splits {
        return Err(MetricsError::TooFew { metric: "Inception score", needed: splits, found: n });
    }
    let order = random.permutation(n);
    let score = |split: usize| {
        let rows: Vec<Vec<f64>> = order[split * n / splits..(split + 1) * n / splits]
            .iter()
            .map(|&i| log_softmax(&logits[i * classes..][..classes]))
            .collect();
        let count = rows.len() as f64;
        let mut mean = vec![0.0; classes];
        for row in &rows {
            mean.iter_mut().zip(row).for_each(|(mean, log_p)| *mean += log_p.exp() / count);
        }
        let divergence = |row: &Vec<f64>| -> f64 {
            row.iter().zip(&mean).map(|(log_p, mean)| log_p.exp() * (log_p - mean.ln())).sum()
        };
        (rows.iter().map(divergence).sum::<f64>() / count).exp()
    };
    let scores: Vec<f64> = (0..splits).into_par_iter().map(score).collect();
    Ok(Spread::of(&scores))
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|x| f64::from(*x) - f64::from(largest));
    let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|x| x - log_sum).collect()
}
