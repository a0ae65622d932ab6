//! A fitted linear SVM: decisions, predictions and objectives.

use crate::dense::project;
use crate::features::Features;
use crate::kernel::{LANES, Lanes};
use crate::panel::Panel;
use crate::{Exit, SvmError};
use linfa::traits::Predict;
use ndarray::{Array1, Array2};

/// A fitted linear SVM, one class against the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSvm {
    /// Class indices, ascending.
    pub classes: Vec<usize>,
    /// (problems, features): one row per class, or a single row for the greater of two classes.
    pub weights: Array2<f32>,
    /// (problems).
    pub intercepts: Array1<f32>,
    /// Weight of the loss in the fit.
    pub c: f64,
    /// End of the fit of each problem.
    pub exits: Vec<Exit>,
}

impl LinearSvm {
    /// `w·x + b` of each row and problem: (rows, problems). Values above 0 are positive decisions.
    ///
    /// # Errors
    /// Features of another width; features that are not finite.
    pub fn decision(&self, features: &Features) -> Result<Array2<f32>, SvmError> {
        let (expected, found) = (self.weights.ncols(), features.width());
        if expected != found {
            return Err(SvmError::Width { expected, found });
        }
        let mut out = Array2::zeros((features.len(), self.weights.nrows()));
        for first in (0..self.weights.nrows()).step_by(LANES) {
            let decisions = project(features, &self.panel(first));
            for (mut out, decision_row) in out.outer_iter_mut().zip(&decisions) {
                for (out, &value) in out.iter_mut().skip(first).zip(decision_row) {
                    *out = as_f32(value);
                }
            }
        }
        if out.iter().any(|value| !value.is_finite()) {
            features.check_finite()?;
        }
        Ok(out)
    }

    /// The class of each row: that of the largest decision, the smaller class of equal ones.
    ///
    /// # Errors
    /// As [`LinearSvm::decision`].
    pub fn predict(&self, features: &Features) -> Result<Array1<usize>, SvmError> {
        let decision = self.decision(features)?;
        let class = |row: ndarray::ArrayView1<'_, f32>| match row.len() {
            1 => self.classes[usize::from(row[0] > 0.0)],
            _ => {
                let best = (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
                self.classes[best]
            }
        };
        Ok(decision.outer_iter().map(class).collect())
    }

    /// The objective of each problem on the given rows.
    ///
    /// # Errors
    /// As [`LinearSvm::decision`]; another number of labels than rows.
    pub fn objectives(&self, features: &Features, labels: &[usize]) -> Result<Vec<f64>, SvmError> {
        if labels.len() != features.len() {
            return Err(SvmError::Labels { rows: features.len(), labels: labels.len() });
        }
        let decision = self.decision(features)?;
        let positives = if self.weights.nrows() == 1 { &self.classes[1..] } else { &self.classes };
        let objective = |(problem, &positive): (usize, &usize)| {
            let squares: f64 = self.weights.row(problem).iter().map(|&w| f64::from(w).powi(2)).sum();
            let loss = |(&label, &value): (&usize, &f32)| {
                let sign = if label == positive { 1.0 } else { -1.0 };
                (1.0 - sign * f64::from(value)).max(0.0).powi(2)
            };
            let losses: f64 = labels.iter().zip(decision.column(problem)).map(loss).sum();
            0.5 * (squares + f64::from(self.intercepts[problem]).powi(2)) + self.c * losses
        };
        Ok(positives.iter().enumerate().map(objective).collect())
    }

    /// Problems `first..first + 16` as a panel, the intercepts in its last row.
    pub(super) fn panel(&self, first: usize) -> Panel {
        let lanes = |weight: &dyn Fn(usize) -> f32| -> Lanes {
            std::array::from_fn(|lane| {
                if first + lane < self.weights.nrows() { f64::from(weight(first + lane)) } else { 0.0 }
            })
        };
        let mut panel: Panel =
            (0..self.weights.ncols()).map(|j| lanes(&|problem| self.weights[(problem, j)])).collect();
        panel.push(lanes(&|problem| self.intercepts[problem]));
        panel
    }
}

impl Predict<&Features, Result<Array1<usize>, SvmError>> for LinearSvm {
    fn predict(&self, features: &Features) -> Result<Array1<usize>, SvmError> {
        Self::predict(self, features)
    }
}

impl Predict<&Array2<f32>, Result<Array1<usize>, SvmError>> for LinearSvm {
    fn predict(&self, records: &Array2<f32>) -> Result<Array1<usize>, SvmError> {
        Self::predict(self, &crate::fit::features(records)?)
    }
}

/// Rounded to f32.
#[allow(clippy::cast_possible_truncation, reason = "rounding is meant")]
pub(super) fn as_f32(value: f64) -> f32 {
    value as f32
}
