//! How classifiers are chosen and scored: which images may be looked at for which decision.
//!
//! C is always chosen on images held out of training, never on the test set; the test set is scored once C is fixed.
//! [`few::run`] is the protocol of section 5.2 (many draws of few labels), [`all::run`] that of section 5.1 (all labels).

pub mod all;
pub mod draws;
pub mod few;
mod grid;

use crate::features::Features;
use serde::Serialize;

/// Features with the class of each row.
#[derive(Clone, Debug)]
pub struct Examples {
    /// One row an image.
    pub features: Features,
    /// One class number a row.
    pub labels: Vec<usize>,
}

/// Why a protocol could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A class has too few images to draw from.
    #[error(
        "class {class} has {found} training images, {needed} are to be drawn from each: give more data, or lower --labels-per-class"
    )]
    ShortClass {
        /// The class, by name where it has one.
        class: String,
        /// Images it has.
        found: usize,
        /// Images asked for.
        needed: usize,
    },
    /// Not one row to hold out, or none left.
    #[error("{images} training images cannot be split into {held_out} held out and the rest: give more data")]
    TooFew {
        /// Images there are.
        images: usize,
        /// Images to hold out.
        held_out: usize,
    },
    /// No label to test against.
    #[error("the test set is empty")]
    NoTest,
    /// A classifier could not be fitted.
    #[error(transparent)]
    Fit(Box<dyn std::error::Error + Send + Sync>),
}

/// What fits a linear classifier.
pub trait Learner {
    /// Classifiers for each of `grid`, in its order, all on the same examples.
    ///
    /// # Errors
    /// [`ProtocolError::Fit`].
    fn path(&mut self, examples: &Examples, grid: &[f64]) -> Result<Vec<Box<dyn Predictor>>, ProtocolError>;
}

/// A fitted classifier.
pub trait Predictor {
    /// The class of each row.
    ///
    /// # Errors
    /// [`ProtocolError::Fit`]: features of another width, or that are not finite.
    fn predict(&self, features: &Features) -> Result<Vec<usize>, ProtocolError>;
}

/// Hears how far long work is.
pub trait Watch {
    /// A stage of `total` `unit`s (a plural) begins.
    fn begin(&mut self, what: &str, total: usize, unit: &str);
    /// So many of the stage's units are done.
    fn done(&mut self, units: usize);
}

/// Hears nothing.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Watch for Silent {
    fn begin(&mut self, _: &str, _: usize, _: &str) {}
    fn done(&mut self, _: usize) {}
}

/// The values of C to choose from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// Ascending.
    pub values: Vec<f64>,
    /// Whether values beyond the ends are tried while the best one lies at an end.
    pub open: bool,
}

impl Grid {
    /// These values and no others.
    pub fn closed(values: Vec<f64>) -> Self {
        Self { values, open: false }
    }

    /// Where nothing is known of the features: small values, and larger ones as far as they help, as those cost more.
    pub fn outwards() -> Self {
        Self { values: vec![1e-4, 1e-3], open: true }
    }
}

/// What a protocol found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Error on the test set in percent; with several draws their mean.
    pub error_percent: f64,
    /// Half-width of the 95 % interval in points.
    pub interval95: Option<f64>,
    /// What the interval is over.
    pub interval_over: &'static str,
    /// The C chosen.
    pub c: f64,
    /// Every C tried with its error on the held-out images in percent, ascending.
    pub validation: Vec<(f64, f64)>,
    /// Accuracy of each class on the test set in percent; none where the test set lacks the class.
    pub per_class_accuracy: Vec<Option<f64>>,
    /// Error of each draw in percent.
    pub draws: Vec<f64>,
    /// Images a classifier was fitted to.
    pub train: usize,
    /// Images held out to choose C on.
    pub held_out: usize,
    /// Images tested on.
    pub test: usize,
    /// Values of a feature vector.
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

    /// The first rows, and the last `held_out` ones: neighbours in the file may share a photograph, so held-out images are
    /// never picked among the others.
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

/// Right answers by class.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    right: Vec<usize>,
    seen: Vec<usize>,
}

impl Tally {
    /// For the classes that have names, and any others among `labels`.
    pub(crate) fn of(names: &[String], labels: &[usize]) -> Self {
        Self::new(names.len().max(labels.iter().map(|label| label + 1).max().unwrap_or(0)))
    }

    fn new(classes: usize) -> Self {
        Self { right: vec![0; classes], seen: vec![0; classes] }
    }

    /// Counts, and gives the error of these predictions in percent.
    pub(crate) fn count(&mut self, predicted: &[usize], labels: &[usize]) -> f64 {
        let mut wrong = 0;
        for (&predicted, &label) in predicted.iter().zip(labels) {
            if let (Some(seen), Some(right)) = (self.seen.get_mut(label), self.right.get_mut(label)) {
                *seen += 1;
                *right += usize::from(predicted == label);
            }
            wrong += usize::from(predicted != label);
        }
        100.0 * wrong as f64 / labels.len().max(1) as f64
    }

    /// Right answers of each class in percent.
    pub(crate) fn accuracy(&self) -> Vec<Option<f64>> {
        let each = self.right.iter().zip(&self.seen);
        each.map(|(&right, &seen)| (seen > 0).then(|| 100.0 * right as f64 / seen as f64)).collect()
    }
}

fn error_percent(predictor: &dyn Predictor, examples: &Examples) -> Result<f64, ProtocolError> {
    Ok(Tally::new(0).count(&predictor.predict(&examples.features)?, &examples.labels))
}

#[cfg(test)]
mod tests;
