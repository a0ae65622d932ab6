//! Logistic regression with an L2 penalty on standardized features, by Newton's method.

/// A fitted logistic regression.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticRegression {
    /// Weight of each standardized feature; 0 for a constant feature.
    pub weights: Vec<f64>,
    /// Log odds of a row whose features all equal their mean.
    pub intercept: f64,
    /// Fraction of the rows that the fit classifies correctly.
    pub accuracy: f64,
}

/// Invalid input of a regression.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LogisticRegressionError {
    /// Numbers of values, features and labels that do not match.
    #[error("found {values} values, expected {labels} rows of {width}")]
    Ragged {
        /// Values given.
        values: usize,
        /// Features of a row.
        width: usize,
        /// Labels given.
        labels: usize,
    },
    /// Rows of one class only.
    #[error("{positive} positive and {negative} negative rows, expected at least one of each")]
    OneClass {
        /// Positive rows.
        positive: usize,
        /// Negative rows.
        negative: usize,
    },
    /// A penalty that is not a positive number.
    #[error("the penalty is {0}, expected a finite number above 0")]
    Penalty(f64),
    /// A value that is not finite.
    #[error("feature {column} of row {row} is not finite: the network or the images are damaged")]
    NotFinite {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
    },
}

/// Maximum number of Newton steps; a fit takes about ten.
const MAX_STEPS: usize = 100;
/// Norm of the gradient, per row, below which the fit has converged.
const TOLERANCE: f64 = 1e-10;
/// Maximum number of halvings of a step.
const MAX_HALVINGS: i32 = 40;

/// Minimizes `Σ ln(1 + exp(-y_i (w·x_i + b))) + penalty/2 |w|²`, where the `x_i` are the standardized rows of `width`
/// features in `values`, and `y_i` is 1 where the label is true and -1 elsewhere.
///
/// # Errors
/// [`LogisticRegressionError`].
pub fn fit(
    values: &[f32],
    width: usize,
    labels: &[bool],
    penalty: f64,
) -> Result<LogisticRegression, LogisticRegressionError> {
    let n = labels.len();
    if width == 0 || values.len() != n * width {
        return Err(LogisticRegressionError::Ragged { values: values.len(), width, labels: n });
    }
    if !(penalty.is_finite() && penalty > 0.0) {
        return Err(LogisticRegressionError::Penalty(penalty));
    }
    let positive = labels.iter().filter(|&&label| label).count();
    if positive == 0 || positive == n {
        return Err(LogisticRegressionError::OneClass { positive, negative: n - positive });
    }
    if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
        return Err(LogisticRegressionError::NotFinite { row: bad / width, column: bad % width });
    }
    let rows = standardized(values, width);
    let size = width + 1; // the intercept is the weight of a column of ones
    let mut weights = vec![0.0; size];
    let mut margins = vec![0.0; n]; // w·x + b of each row
    let mut lowest = objective(&margins, labels, &weights, penalty);
    for _ in 0..MAX_STEPS {
        let (gradient, hessian) = derivatives(&rows, size, (&margins, labels), (&weights, penalty));
        if dot(&gradient, &gradient).sqrt() <= TOLERANCE * n as f64 {
            break;
        }
        let direction = solve(hessian, gradient);
        let change: Vec<f64> = rows.chunks(size).map(|row| dot(row, &direction)).collect();
        // Newton's step, halved until the objective decreases. If it never does, the rest is rounding error.
        let steps = (0..MAX_HALVINGS).map(|halvings| 0.5_f64.powi(halvings));
        let lower = steps.into_iter().find_map(|step| {
            let candidate = stepped(&weights, step, &direction);
            let candidate_margins = stepped(&margins, step, &change);
            let value = objective(&candidate_margins, labels, &candidate, penalty);
            (value < lowest).then_some((candidate, candidate_margins, value))
        });
        let Some(lower) = lower else { break };
        (weights, margins, lowest) = lower;
    }
    let correct = margins.iter().zip(labels).filter(|&(&margin, &label)| (margin > 0.0) == label).count();
    let intercept = weights.pop().unwrap_or(0.0);
    Ok(LogisticRegression { weights, intercept, accuracy: correct as f64 / n as f64 })
}

/// The rows of `width` features scaled to mean 0 and standard deviation 1 (constant features to 0), each followed by a
/// 1.
fn standardized(values: &[f32], width: usize) -> Vec<f64> {
    let n = (values.len() / width) as f64;
    let mut mean = vec![0.0; width];
    for row in values.chunks(width) {
        mean.iter_mut().zip(row).for_each(|(mean, &value)| *mean += f64::from(value) / n);
    }
    let mut variance = vec![0.0; width];
    for row in values.chunks(width) {
        for ((variance, mean), &value) in variance.iter_mut().zip(&mean).zip(row) {
            *variance += (f64::from(value) - mean).powi(2) / n;
        }
    }
    // By comparing values: with rounding, the variance of equal values may exceed 0.
    let varies = |column: usize| values.chunks(width).any(|row| row[column] != values[column]);
    let scale = |(column, v): (usize, &f64)| if varies(column) { v.sqrt().recip() } else { 0.0 };
    let scale: Vec<f64> = variance.iter().enumerate().map(scale).collect();
    let mut rows = Vec::with_capacity(values.len() + values.len() / width);
    for row in values.chunks(width) {
        let features = row.iter().zip(&mean).zip(&scale);
        rows.extend(features.map(|((&value, mean), scale)| (f64::from(value) - mean) * scale));
        rows.push(1.0);
    }
    rows
}

/// The loss of all rows, and the penalty on all weights but the last, the intercept.
fn objective(margins: &[f64], labels: &[bool], weights: &[f64], penalty: f64) -> f64 {
    let loss = |(&margin, &label): (&f64, &bool)| {
        let negative_margin = if label { -margin } else { margin };
        // ln(1 + exp(negative_margin)) without overflow.
        negative_margin.max(0.0) + (-negative_margin.abs()).exp().ln_1p()
    };
    let features = &weights[..weights.len() - 1];
    margins.iter().zip(labels).map(loss).sum::<f64>() + 0.5 * penalty * dot(features, features)
}

/// Gradient, and the lower half of the Hessian (row-major), of [`objective`].
fn derivatives(
    rows: &[f64],
    size: usize,
    (margins, labels): (&[f64], &[bool]),
    (weights, penalty): (&[f64], f64),
) -> (Vec<f64>, Vec<f64>) {
    let mut gradient: Vec<f64> = weights.iter().map(|w| penalty * w).collect();
    gradient[size - 1] = 0.0; // the intercept has no penalty
    let mut hessian = vec![0.0; size * size];
    for ((row, &margin), &label) in rows.chunks(size).zip(margins).zip(labels) {
        let probability = (1.0 + (-margin).exp()).recip();
        let slope = probability - f64::from(u8::from(label));
        let curvature = probability * (1.0 - probability);
        for (i, &x) in row.iter().enumerate() {
            gradient[i] += slope * x;
            let scaled = curvature * x;
            let into = &mut hessian[i * size..i * size + i + 1];
            into.iter_mut().zip(row).for_each(|(h, &other)| *h += scaled * other);
        }
    }
    for i in 0..size {
        // The curvature of the intercept may vanish for separable rows.
        hessian[i * size + i] += if i + 1 < size { penalty } else { 1e-9 };
    }
    (gradient, hessian)
}

/// Solves `H x = g` for a positive definite H, given its lower half, by Cholesky factorization.
fn solve(mut h: Vec<f64>, mut g: Vec<f64>) -> Vec<f64> {
    let size = g.len();
    for i in 0..size {
        let (above, rest) = h.split_at_mut(i * size);
        let row = &mut rest[..size];
        for j in 0..i {
            let other = &above[j * size..j * size + j + 1];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        let diagonal = row[i] - dot(&row[..i], &row[..i]);
        row[i] = diagonal.max(f64::MIN_POSITIVE).sqrt();
        g[i] = (g[i] - dot(&row[..i], &g[..i])) / row[i];
    }
    for i in (0..size).rev() {
        g[i] /= h[i * size + i];
        let (before, after) = g.split_at_mut(i);
        before.iter_mut().zip(&h[i * size..]).for_each(|(g, h)| *g -= h * after[0]);
    }
    g
}

fn stepped(from: &[f64], step: f64, direction: &[f64]) -> Vec<f64> {
    from.iter().zip(direction).map(|(from, d)| from - step * d).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random values in [-1, 1).
    fn noise(n: usize) -> Vec<f64> {
        let mut state = 7_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / f64::from(1 << 23) - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is intended")]
    fn the_fit_is_the_minimum() {
        let (n, width) = (60, 5);
        for penalty in [0.01, 1.0, 100.0] {
            let mut values: Vec<f32> = noise(n * width).iter().map(|&v| v as f32).collect();
            values.iter_mut().skip(4).step_by(width).for_each(|value| *value = 3.0); // constant
            let noise = noise(2 * n);
            let label = |(i, row): (usize, &[f32])| f64::from(row[0] - 0.5 * row[2]) + noise[n + i] > 0.1;
            let labels: Vec<bool> = values.chunks(width).enumerate().map(label).collect();
            let found = fit(&values, width, &labels, penalty).unwrap();
            assert_eq!(found.weights[4], 0.0, "{found:?}");
            assert!(found.weights[0] > 0.0 && found.weights[2] < 0.0, "{found:?}");
            let rows = standardized(&values, width);
            let at = |weights: &[f64]| {
                let margins: Vec<f64> = rows.chunks(width + 1).map(|row| dot(row, weights)).collect();
                objective(&margins, &labels, weights, penalty)
            };
            let mut weights = [&found.weights[..], &[found.intercept]].concat();
            let lowest = at(&weights);
            for i in 0..weights.len() {
                for step in [-1e-3, 1e-3] {
                    weights[i] += step;
                    assert!(at(&weights) > lowest, "penalty {penalty}: weight {i} is not at the minimum");
                    weights[i] -= step;
                }
            }
        }
    }

    #[test]
    fn two_rows_have_a_known_solution() {
        // Features -1 and 1, already standardized: w solves penalty w = 2 / (1 + exp(w)).
        for penalty in [0.1, 1.0, 10.0] {
            let found = fit(&[-1.0, 1.0], 1, &[false, true], penalty).unwrap();
            let w = found.weights[0];
            assert!((penalty * w - 2.0 / (1.0 + w.exp())).abs() < 1e-7, "{w}");
            assert!(found.intercept.abs() < 1e-7);
            assert_eq!(found.accuracy, 1.0);
        }
    }

    #[test]
    fn invalid_input_is_refused() {
        let one_class = LogisticRegressionError::OneClass { positive: 2, negative: 0 };
        assert_eq!(fit(&[0.0, 1.0], 1, &[true, true], 1.0), Err(one_class));
        assert_eq!(fit(&[0.0, 1.0], 1, &[true, false], 0.0), Err(LogisticRegressionError::Penalty(0.0)));
        let bad = LogisticRegressionError::NotFinite { row: 1, column: 0 };
        assert_eq!(fit(&[0.0, f32::NAN], 1, &[true, false], 1.0), Err(bad));
        let ragged = LogisticRegressionError::Ragged { values: 3, width: 2, labels: 2 };
        assert_eq!(fit(&[0.0; 3], 2, &[true, false], 1.0), Err(ragged));
    }
}
