//! `dcgan-eval probe`

use super::{ProgressBars, check_grid, into_usage_error, learner, per_class};
use crate::cli::ProbeArgs;
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Logging, Outcome, Results, UsageError, set_threads};
use dcgan_features::experiment::hex;
use dcgan_features::file::{self, LabeledFeatures};
use dcgan_features::origin;
use dcgan_features::protocol::{Examples, Grid, ProtocolError, all};
use dcgan_features::report::{layout, thousands};
use dcgan_features::subset::{class_name, match_names};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

pub(crate) fn run(args: &ProbeArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    let mut faults = Vec::new();
    let grid = check_grid(&args.c, &mut faults);
    if args.held_out.is_some() && grid.as_ref().is_some_and(|values| values.len() == 1) {
        faults.push("--held-out: there is nothing to choose with a single --c; omit one of them".to_owned());
    }
    let mut open = |option: &str, path: &Path| match file::open(path) {
        Ok(found) if found.labels.is_empty() => {
            faults.push(format!("{option} {} has no labels", path.display()));
            None
        }
        Ok(found) => Some(found),
        Err(error) => {
            faults.push(format!("{option} {error}"));
            None
        }
    };
    let files = (open("--train", &args.train), open("--test", &args.test));
    let (Some(train), Some(test)) = files else { return Err(UsageError { faults }.into()) };
    let (expected, found) = (train.features.width(), test.features.width());
    if expected != found {
        faults.push(format!(
            "--train has {expected} features per image and --test {found}: they come from different networks"
        ));
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(args.threads)?;
    for (option, labeled) in [("--train", &train), ("--test", &test)] {
        labeled.features.check_finite().map_err(|e| UsageError::one(format!("{option}: {e}")))?;
    }
    let (from, to) = (origin::parse(train.origin.as_deref()), origin::parse(test.origin.as_deref()));
    let both = |key: &str| from.get(key).zip(to.get(key));
    for (key, what) in
        [("config_sha256", "network"), ("weights_sha256", "weights"), ("statistics", "batch norm statistics")]
    {
        if both(key).is_some_and(|(a, b)| a != b) {
            faults.push(format!(
                "--train and --test come from different {what}: create both with the same options"
            ));
        }
    }
    if both("images_sha256").is_some_and(|(a, b)| a == b) {
        faults.push("--train and --test are features of the same images: test on others".to_owned());
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let origins = json!({
        "train": origin::with_earlier_keys(from),
        "test": origin::with_earlier_keys(to),
    });
    let test = with_classes_of(test, &train)?;
    let class_names = train.class_names.clone();
    let (mut train, test) = (examples(train), examples(test));
    let held_out = args.held_out.unwrap_or_else(|| {
        // Files may be sorted by class: move the last images of each class to the end, to be held out.
        let (order, held_out) = last_of_each_class(&train.labels);
        train = train.select(&order);
        held_out
    });
    let grid = grid.map_or_else(Grid::outwards, Grid::closed);
    let (mut learner, solver) = learner(args.solver);
    let mut progress_bars = ProgressBars::new(logging);
    let started = Instant::now();
    let outcome = all::run(held_out, &grid, (&train, &test), &[], learner.as_mut(), &mut progress_bars)
        .map_err(|error| match (error, args.held_out) {
            (error @ (ProtocolError::ShortClass { .. } | ProtocolError::TooFew { .. }), Some(held_out)) => {
                let fix = "omit the option to hold out the last fifth of each class";
                UsageError::one(format!("--held-out {held_out}: {error}; {fix}")).into()
            }
            (error, _) => into_usage_error(error.into()),
        })?;
    let seconds = started.elapsed().as_secs_f64();
    drop(progress_bars);
    let accuracy = 100.0 - outcome.error_percent;
    let line = [
        vec![
            "probe".into(),
            "accuracy %".into(),
            "+- 95 %".into(),
            "C".into(),
            "features".into(),
            "train".into(),
            "test".into(),
            "seconds".into(),
        ],
        vec![
            args.train.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            format!("{accuracy:.2}"),
            outcome.interval95.map_or_else(String::new, |i| format!("{i:.2}")),
            format!("{:e}", outcome.c),
            thousands(outcome.features),
            thousands(outcome.train),
            thousands(outcome.test),
            format!("{seconds:.1}"),
        ],
    ];
    results.text(layout(&line, 2).trim_end())?;
    if results.is_json() {
        let protocol = json!({ "task": "probe", "grid": grid, "held_out": held_out, "solver": solver });
        let result = json!({
            "task": "probe",
            "accuracy_percent": accuracy,
            "interval95": outcome.interval95,
            "interval_over": outcome.interval_over,
            "c": outcome.c,
            "held_out_error_percent": outcome.validation,
            "features": outcome.features,
            "train": outcome.train,
            "held_out": outcome.held_out,
            "per_class_accuracy": per_class(&outcome.per_class_accuracy),
            "class_names": class_names,
            "test": outcome.test,
            "seconds": seconds,
            "origins": origins,
            "protocol_sha256": hex(protocol.to_string().as_bytes()),
            "protocol": protocol,
            "peak_memory_bytes": peak_memory_bytes(),
        });
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}

/// The test features with the class indices of the training features, matched by name.
///
/// Files of earlier versions have no names; their numbers are compared.
fn with_classes_of(
    mut test: LabeledFeatures,
    train: &LabeledFeatures,
) -> Result<LabeledFeatures, UsageError> {
    let has_names = [&test, train].map(|file| !file.class_names.is_empty());
    if has_names == [true, true] {
        let matched = match_names(&test.class_names, &train.class_names);
        for label in &mut test.labels {
            *label = u32::try_from(matched.number(*label as usize)).unwrap_or(u32::MAX);
        }
        test.class_names = matched.names().to_vec();
    } else if has_names != [false, false] {
        let without = if has_names[0] { "--train" } else { "--test" };
        tracing::warn!(
            "{without} has no class names: classes are matched by number; create the file again to match them by name"
        );
    }
    let known: BTreeSet<u32> = train.labels.iter().copied().collect();
    let unknown: Vec<u32> = test.labels.iter().filter(|label| !known.contains(label)).copied().collect();
    if unknown.is_empty() {
        return Ok(test);
    }
    let names = |labels: BTreeSet<u32>, names: &[String]| {
        labels.into_iter().map(|label| class_name(names, label as usize)).collect::<Vec<_>>().join(", ")
    };
    Err(UsageError::one(format!(
        "{} of {} test images are of classes that the training features lack: {}; the training features have {}: \
         extract training features of all classes, or test features of these only",
        unknown.len(),
        test.labels.len(),
        names(unknown.into_iter().collect(), &test.class_names),
        names(known, &train.class_names)
    )))
}

/// Rows with the last fifth of each class moved to the end, and the number of those.
fn last_of_each_class(labels: &[usize]) -> (Vec<usize>, usize) {
    let classes = labels.iter().max().map_or(0, |largest| largest + 1);
    let mut counts = vec![0_usize; classes];
    labels.iter().for_each(|&label| counts[label] += 1);
    let keep: Vec<usize> = counts.iter().map(|&n| n - (n + 2) / 5).collect();
    let mut seen = vec![0_usize; classes];
    let (mut order, mut last) = (Vec::new(), Vec::new());
    for (row, &label) in labels.iter().enumerate() {
        let to = if seen[label] < keep[label] { &mut order } else { &mut last };
        to.push(row);
        seen[label] += 1;
    }
    let held_out = last.len();
    order.extend(last);
    (order, held_out)
}

fn examples(labeled: LabeledFeatures) -> Examples {
    Examples {
        features: labeled.features,
        labels: labeled.labels.into_iter().map(|label| label as usize).collect(),
    }
}
