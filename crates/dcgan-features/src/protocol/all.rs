//! All labels: the protocol of section 5.1.
//!
//! C is chosen on the last training images by classifiers fitted to the others; the classifier that is tested is fitted
//! to all of them.

use super::draws::Classes;
use super::grid::choose;
use super::{Examples, Grid, Learner, Outcome, ProtocolError, Tally, Watch, error_percent};

/// Runs the protocol; `held_out` images at the end of `train` choose C.
///
/// # Errors
/// Too few images, a class without any, an empty test set, a fit that failed.
pub fn run(
    held_out: usize,
    grid: &Grid,
    (train, test): (&Examples, &Examples),
    class_names: &[String],
    learner: &mut dyn Learner,
    watch: &mut dyn Watch,
) -> Result<Outcome, ProtocolError> {
    if test.labels.is_empty() {
        return Err(ProtocolError::NoTest);
    }
    Classes::new(&train.labels, class_names, 1)?.check_known(&test.labels, class_names)?;
    let (c, validation, held_out) = if let ([c], false) = (grid.values.as_slice(), grid.open) {
        (*c, Vec::new(), 0) // there is nothing to choose
    } else {
        let (rest, last) = train.split_last(held_out)?;
        let classes = Classes::new(&rest.labels, class_names, 1)?;
        classes.check_known(&last.labels, class_names)?;
        let (c, validation) = choose(grid, &mut |values| {
            watch.begin("choosing C on held-out images", values.len(), "values");
            let fitted = learner.path(&rest, values)?;
            watch.done(values.len());
            fitted.iter().map(|fitted| error_percent(fitted.as_ref(), &last)).collect()
        })?;
        (c, validation, held_out)
    };
    watch.begin("fitting all training images", 1, "classifiers");
    let mut tally = Tally::of(class_names, &test.labels);
    let mut error = f64::NAN;
    for fitted in learner.path(train, &[c])? {
        error = tally.count(&fitted.predict(&test.features)?, &test.labels);
    }
    watch.done(1);
    let n = test.labels.len();
    let p = error / 100.0;
    Ok(Outcome {
        error_percent: error,
        interval95: Some(196.0 * (p * (1.0 - p) / n as f64).sqrt()),
        interval_over: "test images (binomial)",
        c,
        validation,
        per_class_accuracy: tally.accuracy(),
        draws: vec![error],
        train: train.labels.len(),
        held_out,
        test: n,
        features: test.features.width(),
    })
}
