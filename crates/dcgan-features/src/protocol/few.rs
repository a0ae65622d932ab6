//! Few labels, many draws: the protocol of section 5.2 (the authors' svhn_semisup_analysis.py).
//!
//! For each C, draws of `per_class` labeled images per class are fitted and scored on the held-out images. The C with
//! the lowest mean error is fitted to new draws, which are scored on the test set.

use super::draws::Classes;
use super::grid::choose;
use super::{ClassCounts, Examples, Grid, Learner, Outcome, Progress, ProtocolError, error_percent};
use dcgan_model::random::Purpose;
use serde::Serialize;

/// Parameters of the protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FewLabels {
    /// Labeled images per class in a draw.
    pub per_class: usize,
    /// Draws that C is chosen on.
    pub selection_draws: usize,
    /// Draws that are scored on the test set.
    pub repeats: usize,
    /// Seed of the draws.
    pub seed: u64,
}

/// The splits of the protocol.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Training images that are not held out.
    pub pool: Examples,
    /// Training images that C is chosen on.
    pub held_out: Examples,
    /// The test set.
    pub test: Examples,
    /// Names of all classes.
    pub class_names: Vec<String>,
}

impl FewLabels {
    /// Rows of the pool in selection draw `i`.
    pub fn selection_draw(&self, classes: &Classes, i: usize) -> Vec<usize> {
        classes.draw(self.per_class, self.seed, Purpose::SelectionDraw, i as u64)
    }

    /// Rows of the pool in test draw `i`.
    pub fn test_draw(&self, classes: &Classes, i: usize) -> Vec<usize> {
        classes.draw(self.per_class, self.seed, Purpose::LabelDraw, i as u64)
    }
}

/// Runs the protocol.
///
/// # Errors
/// A class with too few images in the pool, an empty test set, a failed fit.
pub fn run(
    protocol: &FewLabels,
    grid: &Grid,
    splits: &Splits,
    learner: &mut dyn Learner,
    progress: &mut dyn Progress,
) -> Result<Outcome, ProtocolError> {
    if splits.test.labels.is_empty() {
        return Err(ProtocolError::NoTest);
    }
    let classes = Classes::new(&splits.pool.labels, &splits.class_names, protocol.per_class)?;
    classes.check_known(&splits.test.labels, &splits.class_names)?;
    let (c, validation) = choose(grid, &mut |values| {
        progress.begin("choosing C on held-out images", protocol.selection_draws, "draws");
        let mut sums = vec![0.0; values.len()];
        for i in 0..protocol.selection_draws {
            let examples = splits.pool.select(&protocol.selection_draw(&classes, i));
            for (sum, fitted) in sums.iter_mut().zip(learner.path(&examples, values)?) {
                *sum += error_percent(fitted.as_ref(), &splits.held_out)?;
            }
            progress.update(i + 1);
        }
        Ok(sums.into_iter().map(|sum| sum / protocol.selection_draws as f64).collect())
    })?;
    let mut counts = ClassCounts::for_classes(&splits.class_names, &splits.test.labels);
    let mut draws = Vec::new();
    let mut train = 0;
    progress.begin("scoring on the test set", protocol.repeats, "draws");
    for i in 0..protocol.repeats {
        let examples = splits.pool.select(&protocol.test_draw(&classes, i));
        train = examples.labels.len();
        for fitted in learner.path(&examples, &[c])? {
            draws.push(counts.add(&fitted.predict(&splits.test.features)?, &splits.test.labels));
        }
        progress.update(i + 1);
    }
    let n = draws.len() as f64;
    let mean = draws.iter().sum::<f64>() / n;
    let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Ok(Outcome {
        error_percent: mean,
        // 1.96 standard deviations of one draw, as the authors report it (their variance divides by n, not n - 1).
        interval95: (draws.len() > 1).then(|| 1.96 * variance.sqrt()),
        interval_over: "draws of labels".into(),
        c,
        validation,
        per_class_accuracy: counts.accuracy(),
        draws,
        train,
        held_out: splits.held_out.labels.len(),
        test: splits.test.labels.len(),
        features: splits.test.features.width(),
    })
}
