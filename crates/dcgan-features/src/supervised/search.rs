//! Random search: trials one after the other, the one with the lowest validation error kept.

use super::{Evaluation, Ranges, SupervisedError, Task, Trial, train};
use dcgan_model::weights::Weights;
use serde::{Deserialize, Serialize};
use std::ops::{ControlFlow, Range};

/// One trial and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its number in the search.
    pub index: u64,
    /// Its settings.
    pub trial: Trial,
    /// Its best evaluation; none where the loss diverged before the first.
    pub best: Option<Evaluation>,
    /// The epoch in which the loss was not finite, which ended the trial.
    pub diverged_in_epoch: Option<usize>,
}

/// What a search tells of while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A trial was evaluated.
    Evaluated {
        /// The trial's number.
        index: u64,
        /// What was found.
        evaluation: Evaluation,
    },
    /// A trial ended.
    Finished(Summary),
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The trial whose validation error is lowest, the earliest of equal ones.
    pub best: Summary,
    /// Its lowest validation error, in percent: a choice among all evaluations, so lower than the error to expect.
    pub validation_error_percent: f64,
    /// The weights it had then, for [`dcgan_model::Classifier::new`] and [`super::error_percent`] on the test set.
    pub weights: Weights,
    /// Every trial in order.
    pub trials: Vec<Summary>,
}

/// Runs the trials `trials` of the search of `seed`. A trial depends on the seed and its number alone, so a search can
/// be continued, or divided, by its range.
///
/// `on_event` may break off the search, which then ends in [`SupervisedError::Stopped`].
///
/// # Errors
/// Sets, labels or ranges that do not fit, no trial; every trial diverged; those of the device.
pub fn search(
    task: &Task<'_>,
    ranges: &Ranges,
    seed: u64,
    trials: Range<u64>,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Found, SupervisedError> {
    task.check()?;
    ranges.check()?;
    super::trial::expect("trials", format!("{trials:?}"), !trials.is_empty(), "at least one")?;
    let mut summaries = Vec::new();
    let mut best: Option<(Summary, f64, Weights)> = None;
    for index in trials {
        let trial = ranges.draw(seed, index);
        let mut tell = |evaluation: &Evaluation| {
            let evaluation = *evaluation;
            on_event(Event::Evaluated { index, evaluation })
        };
        let training = train(task, &trial, &mut tell)?;
        let summary = Summary {
            index,
            trial,
            best: training.trained.as_ref().map(|trained| trained.best),
            diverged_in_epoch: training.diverged_in_epoch,
        };
        summaries.push(summary);
        if let Some(trained) = training.trained {
            let error = trained.best.validation_error_percent;
            if best.as_ref().is_none_or(|(_, lowest, _)| error < *lowest) {
                best = Some((summary, error, trained.weights));
            }
        }
        if on_event(Event::Finished(summary)).is_break() {
            return Err(SupervisedError::Stopped);
        }
    }
    let (best, validation_error_percent, weights) =
        best.ok_or(SupervisedError::AllDiverged { trials: summaries.len() })?;
    Ok(Found { best, validation_error_percent, weights, trials: summaries })
}
