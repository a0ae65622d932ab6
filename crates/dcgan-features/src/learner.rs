//! The learners of the protocols: the squared-hinge SVM of dcgan-svm, and linfa's SVM.

use crate::features::Features;
use crate::protocol::{Examples, Learner, Predictor, ProtocolError};
use dcgan_svm::{ExitReason, FitProgress, Gram, LinearSvm, ParamGuard, SvmError, SvmParams, hinge};
use std::time::{Duration, Instant};

/// Time between log lines of a long fit.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Relative tolerance of a fit, larger than the solver's default: a protocol makes hundreds of fits.
const TOLERANCE: f64 = 1e-4;

/// The squared-hinge SVM of [`dcgan_svm`]. A fit to many rows starts from the previous one, which had other rows or
/// another C; results stay reproducible.
#[derive(Clone, Debug, Default)]
pub struct L2Learner {
    previous: Option<LinearSvm>,
}

/// linfa-svm's C-classification, one class against the rest: hinge loss and an n x n kernel matrix, for few rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinfaLearner;

impl Learner for LinfaLearner {
    fn path(&mut self, examples: &Examples, grid: &[f64]) -> Result<Vec<Box<dyn Predictor>>, ProtocolError> {
        let mut fitted: Vec<Box<dyn Predictor>> = Vec::new();
        for &c in grid {
            let params = SvmParams::new().c(c).check().map_err(fit_error)?;
            let model = hinge::fit(&params, &examples.features, &examples.labels).map_err(fit_error)?;
            fitted.push(Box::new(model));
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
        // All values of C share the inner products of the rows.
        let largest = grid.iter().copied().fold(0.0, f64::max);
        let gram =
            Gram::pays(features).then(|| Gram::up_to(features, largest)).transpose().map_err(fit_error)?;
        let mut fitted: Vec<Box<dyn Predictor>> = Vec::new();
        // With inner products every draw starts from zero, so that draws do not depend on each other.
        let width = features.width();
        let mut previous =
            self.previous.take().filter(|previous| gram.is_none() && previous.weights.ncols() == width);
        for &c in grid {
            let params = SvmParams::new().c(c).tolerance(TOLERANCE).check().map_err(fit_error)?;
            let mut logged = Instant::now();
            let mut on_progress = |progress: FitProgress| {
                if logged.elapsed() >= LOG_INTERVAL {
                    logged = Instant::now();
                    let FitProgress { passes, converged, problems, objective, .. } = progress;
                    // Coordinate descent does not compute the objective.
                    let objective =
                        if objective > 0.0 { format!(", objective {objective:.6e}") } else { String::new() };
                    tracing::info!(
                        "C {c}: pass {passes} over the features, {converged} of {problems} classes converged{objective}"
                    );
                }
            };
            let model = match &gram {
                Some(gram) => params.fit_with(gram, labels, previous.as_ref(), &mut on_progress),
                None => params.fit_with(features, labels, previous.as_ref(), &mut on_progress),
            }
            .map_err(fit_error)?;
            let unfinished =
                model.exits.iter().filter(|exit| exit.reason == ExitReason::IterationLimit).count();
            if unfinished > 0 {
                tracing::warn!("C {c}: {unfinished} classes did not converge within the iteration limit");
            }
            previous = Some(model.clone());
            fitted.push(Box::new(model));
        }
        self.previous = previous;
        Ok(fitted)
    }

    fn reset(&mut self) {
        self.previous = None;
    }
}

impl Predictor for LinearSvm {
    fn predict(&self, features: &Features) -> Result<Vec<usize>, ProtocolError> {
        Ok(LinearSvm::predict(self, features).map_err(fit_error)?.to_vec())
    }
}
