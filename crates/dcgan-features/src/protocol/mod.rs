//! Evaluation protocols: how C is chosen and how classifiers are scored.
//!
//! C is chosen on held-out training images, never on the test set, which is scored once C is fixed. [`few::run`] is the
//! protocol of section 5.2 (many draws of few labels), [`all::run`] that of section 5.1 (all labels).

pub mod all;
pub mod draws;
pub mod few;
mod grid;

use crate::features::Features;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Features and labels.
#[derive(Clone, Debug)]
pub struct Examples {
    /// One row per image.
    pub features: Features,
    /// One label per row.
    pub labels: Vec<usize>,
}

/// Why a protocol failed.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A class has fewer images than a draw needs.
    #[error("class {class} has {found} training images, expected at least {needed} in each class")]
    ShortClass {
        /// Number and name of the class.
        class: String,
        /// Its images.
        found: usize,
        /// Images of a draw.
        needed: usize,
    },
    /// No row to hold out, or none left to train on.
    #[error("{images} training images, {held_out} held out: expected at least one of each, held out and not")]
    TooFew {
        /// Training images.
        images: usize,
        /// Images to hold out.
        held_out: usize,
    },
    /// No test image.
    #[error("the test set is empty")]
    NoTest,
    /// A classifier could not be fitted.
    #[error(transparent)]
    Fit(Box<dyn std::error::Error + Send + Sync>),
}

/// Fits linear classifiers.
pub trait Learner {
    /// One classifier for each C of `grid`, in its order, fitted to the same examples.
    ///
    /// # Errors
    /// [`ProtocolError::Fit`].
    fn path(&mut self, examples: &Examples, grid: &[f64]) -> Result<Vec<Box<dyn Predictor>>, ProtocolError>;

    /// Forgets earlier fits: the next one does not depend on them.
    fn reset(&mut self) {}
}

/// A fitted classifier.
pub trait Predictor {
    /// The class of each row.
    ///
    /// # Errors
    /// [`ProtocolError::Fit`]: features of another width, or that are not finite.
    fn predict(&self, features: &Features) -> Result<Vec<usize>, ProtocolError>;
}

/// Observer of the progress of long work.
pub trait Progress {
    /// A stage of `total` units begins; `unit` is a plural noun.
    fn begin(&mut self, stage: &str, total: usize, unit: &str);
    /// `units` of the stage are complete.
    fn update(&mut self, units: usize);
    /// A result is known before the work is complete: a line of text.
    fn result(&mut self, _line: &str) {}
}

/// Ignores progress.
#[derive(Clone, Copy, Debug)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&mut self, _: &str, _: usize, _: &str) {}
    fn update(&mut self, _: usize) {}
}

/// The search grid of C.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// Ascending.
    pub values: Vec<f64>,
    /// Whether the grid is extended while the best value lies at an end.
    pub open: bool,
}

impl Grid {
    /// A grid that is not extended.
    pub fn closed(values: Vec<f64>) -> Self {
        Self { values, open: false }
    }

    /// An open grid that starts at small values, whose fits are cheap.
    pub fn outwards() -> Self {
        Self { values: vec![1e-4, 1e-3], open: true }
    }
}

/// Result of a protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Error on the test set in percent, averaged over draws.
    pub error_percent: f64,
    /// Half-width of the 95 % interval in points.
    pub interval95: Option<f64>,
    /// The source of variation that the interval covers.
    pub interval_over: Cow<'static, str>,
    /// The C chosen.
    pub c: f64,
    /// Every C of the search with its held-out error in percent, ascending in C.
    pub validation: Vec<(f64, f64)>,
    /// Accuracy of each class on the test set in percent; `None` for a class without test images.
    pub per_class_accuracy: Vec<Option<f64>>,
    /// Error of each draw in percent.
    pub draws: Vec<f64>,
    /// Training images of a fit.
    pub train: usize,
    /// Held-out images.
    pub held_out: usize,
    /// Test images.
    pub test: usize,
    /// Length of a feature vector.
    pub features: usize,
}

impl Examples {
    /// The given rows.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            features: self.features.select(rows),
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
        }
    }

    /// Splits off the last `held_out` rows. Neighbours in a file may be crops of one photograph, so the held-out images
    /// are consecutive.
    ///
    /// # Errors
    /// [`ProtocolError::TooFew`].
    pub fn split_last(&self, held_out: usize) -> Result<(Self, Self), ProtocolError> {
        let images = self.labels.len();
        if held_out == 0 || held_out >= images {
            return Err(ProtocolError::TooFew { images, held_out });
        }
        let rows: Vec<usize> = (0..images).collect();
        let (first, last) = rows.split_at(images - held_out);
        Ok((self.select(first), self.select(last)))
    }
}

/// Correct predictions by class.
#[derive(Clone, Debug)]
pub(crate) struct ClassCounts {
    correct: Vec<usize>,
    total: Vec<usize>,
}

impl ClassCounts {
    /// Zero counts for the named classes and any others among `labels`.
    pub(crate) fn for_classes(names: &[String], labels: &[usize]) -> Self {
        Self::new(names.len().max(labels.iter().map(|label| label + 1).max().unwrap_or(0)))
    }

    fn new(classes: usize) -> Self {
        Self { correct: vec![0; classes], total: vec![0; classes] }
    }

    /// Adds predictions; returns their error in percent.
    pub(crate) fn add(&mut self, predicted: &[usize], labels: &[usize]) -> f64 {
        let mut wrong = 0;
        for (&predicted, &label) in predicted.iter().zip(labels) {
            if let (Some(total), Some(correct)) = (self.total.get_mut(label), self.correct.get_mut(label)) {
                *total += 1;
                *correct += usize::from(predicted == label);
            }
            wrong += usize::from(predicted != label);
        }
        100.0 * wrong as f64 / labels.len().max(1) as f64
    }

    /// Accuracy of each class in percent.
    pub(crate) fn accuracy(&self) -> Vec<Option<f64>> {
        let counts = self.correct.iter().zip(&self.total);
        counts.map(|(&correct, &total)| (total > 0).then(|| 100.0 * correct as f64 / total as f64)).collect()
    }
}

fn error_percent(predictor: &dyn Predictor, examples: &Examples) -> Result<f64, ProtocolError> {
    Ok(ClassCounts::new(0).add(&predictor.predict(&examples.features)?, &examples.labels))
}

#[cfg(test)]
mod tests;
