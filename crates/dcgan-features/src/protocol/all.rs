//! All labels: the protocol of section 5.1.
//!
//! C is chosen on the last training images with classifiers fitted to the others. The tested classifier is fitted to
//! all training images.

use super::draws::Classes;
use super::grid::choose;
use super::{ClassCounts, Examples, Grid, Learner, Outcome, Progress, ProtocolError, error_percent};

/// Runs the protocol; C is chosen on the last `held_out` images of `train`.
///
/// # Errors
/// Too few images, a class without images, an empty test set, a failed fit.
pub fn run(
    held_out: usize,
    grid: &Grid,
    (train, test): (&Examples, &Examples),
    class_names: &[String],
    learner: &mut dyn Learner,
    progress: &mut dyn Progress,
) -> Result<Outcome, ProtocolError> {
    if test.labels.is_empty() {
        return Err(ProtocolError::NoTest);
    }
    Classes::new(&train.labels, class_names, 1)?.check_known(&test.labels, class_names)?;
    let (c, validation, held_out) = if let ([c], false) = (grid.values.as_slice(), grid.open) {
        (*c, Vec::new(), 0) // nothing to choose
    } else {
        let (rest, last) = train.split_last(held_out)?;
        let classes = Classes::new(&rest.labels, class_names, 1)?;
        classes.check_known(&last.labels, class_names)?;
        let (c, validation) = choose(grid, &mut |values| {
            progress.begin("choosing C on held-out images", values.len(), "values");
            let fitted = learner.path(&rest, values)?;
            progress.update(values.len());
            fitted.iter().map(|fitted| error_percent(fitted.as_ref(), &last)).collect()
        })?;
        (c, validation, held_out)
    };
    progress.begin("fitting all training images", 1, "classifiers");
    let mut counts = ClassCounts::for_classes(class_names, &test.labels);
    let mut error = f64::NAN;
    for fitted in learner.path(train, &[c])? {
        error = counts.add(&fitted.predict(&test.features)?, &test.labels);
    }
    progress.update(1);
    let n = test.labels.len();
    let p = error / 100.0;
    Ok(Outcome {
        error_percent: error,
        interval95: Some(196.0 * (p * (1.0 - p) / n as f64).sqrt()),
        interval_over: "test images (binomial)".into(),
        c,
        validation,
        per_class_accuracy: counts.accuracy(),
        draws: vec![error],
        train: train.labels.len(),
        held_out,
        test: n,
        features: test.features.width(),
    })
}
