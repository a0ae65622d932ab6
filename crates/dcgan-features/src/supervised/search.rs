//! Random search: sequential trials; the one with the lowest validation error wins.

use super::{Evaluation, Ranges, SupervisedError, Task, Trial, train};
use dcgan_model::weights::Weights;
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};

/// A trial and its result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSummary {
    /// Its index in the search.
    pub index: u64,
    /// Its hyperparameters.
    pub trial: Trial,
    /// Its best evaluation; `None` if the loss diverged before the first.
    pub best: Option<Evaluation>,
    /// The epoch in which the loss became NaN or infinite, which ends the trial.
    pub diverged_in_epoch: Option<usize>,
}

/// Progress of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A trial was evaluated.
    Evaluated {
        /// Index of the trial.
        index: u64,
        /// The evaluation.
        evaluation: Evaluation,
    },
    /// A trial ended.
    Finished(TrialSummary),
}

/// Result of a search.
#[derive(Clone, Debug)]
pub struct SearchResult {
    /// The trial with the lowest validation error, the first of equal ones.
    pub best: TrialSummary,
    /// Its lowest validation error in percent: a minimum over evaluations, hence biased low.
    pub validation_error_percent: f64,
    /// Its weights at that evaluation, for [`dcgan_model::Classifier::new`] and [`super::error_percent`] on the test
    /// set.
    pub weights: Weights,
    /// All trials in order.
    pub trials: Vec<TrialSummary>,
}

/// Runs the trials of the given indices. A trial depends on the seed and its index only, so a search can be continued
/// or divided by range.
///
/// If `on_event` breaks, the search ends with [`SupervisedError::Stopped`].
///
/// # Errors
/// Invalid images, labels or ranges; no trial; every trial diverged; those of the device.
pub fn search(
    task: &Task<'_>,
    ranges: &Ranges,
    seed: u64,
    trials: Range<u64>,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<SearchResult, SupervisedError> {
    search_from(task, ranges, seed, (trials, &[]), on_event)
}

/// [`search`], with trials of an interrupted search that are `known`: they are not run again, except the best one at
/// the end, for its weights.
///
/// # Errors
/// Those of [`search`].
pub fn search_from(
    task: &Task<'_>,
    ranges: &Ranges,
    seed: u64,
    (trials, known): (Range<u64>, &[TrialSummary]),
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<SearchResult, SupervisedError> {
    task.check()?;
    ranges.check()?;
    super::trial::expect("trials", format!("{trials:?}"), !trials.is_empty(), "at least one")?;
    let mut summaries = Vec::new();
    let mut best: Option<(TrialSummary, f64, Option<Weights>)> = None;
    for index in trials {
        let trial = ranges.draw(seed, index);
        if let Some(summary) = known.iter().find(|known| known.index == index && known.trial == trial) {
            summaries.push(*summary);
            if let Some(error) = summary.best.map(|best| best.validation_error_percent)
                && best.as_ref().is_none_or(|(_, lowest, _)| error < *lowest)
            {
                best = Some((*summary, error, None));
            }
            continue;
        }
        let mut on_evaluation = |evaluation: &Evaluation| {
            let evaluation = *evaluation;
            on_event(Event::Evaluated { index, evaluation })
        };
        let training = train(task, &trial, &mut on_evaluation)?;
        let summary = TrialSummary {
            index,
            trial,
            best: training.trained.as_ref().map(|trained| trained.best),
            diverged_in_epoch: training.diverged_in_epoch,
        };
        summaries.push(summary);
        if let Some(trained) = training.trained {
            let error = trained.best.validation_error_percent;
            if best.as_ref().is_none_or(|(_, lowest, _)| error < *lowest) {
                best = Some((summary, error, Some(trained.weights)));
            }
        }
        if on_event(Event::Finished(summary)).is_break() {
            return Err(SupervisedError::Stopped);
        }
    }
    let (best, validation_error_percent, weights) =
        best.ok_or(SupervisedError::AllDiverged { trials: summaries.len() })?;
    let weights = match weights {
        Some(weights) => weights,
        // The same again: a trial depends on the seed and its index only.
        None => {
            train(task, &best.trial, &mut |_| ControlFlow::Continue(()))?
                .trained
                .ok_or(SupervisedError::AllDiverged { trials: summaries.len() })?
                .weights
        }
    };
    Ok(SearchResult { best, validation_error_percent, weights, trials: summaries })
}
