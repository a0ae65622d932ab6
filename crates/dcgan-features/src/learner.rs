//! The classifiers that protocols fit: the project's own L2-SVM, or linfa's.

use crate::features::Features;
use crate::protocol::{Examples, Learner, Predictor, ProtocolError};
use dcgan_svm::{ExitReason, Gram, LinearSvm, ParamGuard, Progress, SvmError, SvmParams, hinge};
use std::time::{Duration, Instant};

/// Time between two log lines of a long fit.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// When a fit has converged: looser than the solver's default, as a protocol makes hundreds of fits.
const TOLERANCE: f64 = 1e-4;

/// The squared-hinge SVM of [`crate::svm`]. A fit to many rows starts from the one before, which had other rows or
/// another C: a better start than zero, and the same each time.
#[derive(Clone, Debug, Default)]
pub struct L2Learner {
    previous: Option<LinearSvm>,
}

/// linfa-svm's C-classification, one class against the rest: hinge loss and an n x n kernel matrix, so for few rows only.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinfaLearner;

impl Learner for LinfaLearner {
    fn path(&mut self, examples: &Examples, grid: &[f64]) -> Result<Vec<Box<dyn Predictor>>, ProtocolError> {
        let mut fitted: Vec<Box<dyn Predictor>> = Vec::new();
        for &c in grid {
            let params = SvmParams::new().c(c).check().map_err(fit_error)?;
            let found = hinge::fit(&params, &examples.features, &examples.labels).map_err(fit_error)?;
            fitted.push(Box::new(found));
        }
        Ok(fitted)
    }
}

fn fit_error(error: SvmError) -> ProtocolError {
    ProtocolError::Fit(Box::new(error))
}

impl Learner for L2Learner {
    fn path(&mut self, examples: &Examples, grid: &[f64]) -> Result<Vec<Box<dyn Predictor>>, ProtocolError> {
        let Examples { features, labels } = examples;
        // One product of the rows serves all values of C.
        let largest = grid.iter().copied().fold(0.0, f64::max);
        let gram =
            Gram::pays(features).then(|| Gram::up_to(features, largest)).transpose().map_err(fit_error)?;
        let mut fitted: Vec<Box<dyn Predictor>> = Vec::new();
        // Where inner products are at hand every draw begins anew: draws do not depend on one another.
        let width = features.width();
        let mut previous =
            self.previous.take().filter(|previous| gram.is_none() && previous.weights.ncols() == width);
        for &c in grid {
            let params = SvmParams::new().c(c).tolerance(TOLERANCE).check().map_err(fit_error)?;
            let mut logged = Instant::now();
            let mut observe = |at: Progress| {
                if logged.elapsed() >= LOG_INTERVAL {
                    logged = Instant::now();
                    let Progress { passes, converged, problems, objective, .. } = at;
                    // Coordinate descent does not know the objective while it is under way.
                    let objective =
                        if objective > 0.0 { format!(", objective {objective:.6e}") } else { String::new() };
                    tracing::info!(
                        "C {c}: pass {passes} over the features, {converged} of {problems} classes done{objective}"
                    );
                }
            };
            let found = match &gram {
                Some(gram) => params.fit_with(gram, labels, previous.as_ref(), &mut observe),
                None => params.fit_with(features, labels, previous.as_ref(), &mut observe),
            }
            .map_err(fit_error)?;
            let unfinished =
                found.exits.iter().filter(|exit| exit.reason == ExitReason::IterationLimit).count();
            if unfinished > 0 {
                tracing::warn!(
                    "C {c}: {unfinished} classes reached the iteration limit before they converged"
                );
            }
            previous = Some(found.clone());
            fitted.push(Box::new(found));
        }
        self.previous = previous;
        Ok(fitted)
    }
}

impl Predictor for LinearSvm {
    fn predict(&self, features: &Features) -> Result<Vec<usize>, ProtocolError> {
        Ok(LinearSvm::predict(self, features).map_err(fit_error)?.to_vec())
    }
}
