//! `dcgan-eval mnist-nn` and `nnd`

use super::{
    ProgressBars, check_cache, choose_model, digits_splits, into_usage_error, open_data, open_splits,
    per_class,
};
use crate::cli::{MnistNnArgs, NndArgs};
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Logging, Outcome, Results, UsageError, set_threads};
use dcgan_data::arguments::ReadArgs;
use dcgan_data::{ImageShape, OpenOptions, Split};
use dcgan_features::experiment::{Subset, hex, weights_sha256};
use dcgan_features::neighbours::{self, NeighboursError, Score, decades};
use dcgan_features::report::{layout, thousands};
use dcgan_features::subset::class_name;
use dcgan_features::task::Task;
use dcgan_model::Generator;
use dcgan_model::pixels::PixelRange;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Instant;

/// Shape of MNIST's images.
const SHAPE: ImageShape = ImageShape { height: 28, width: 28, channels: 1 };

/// Errors of the paper's supplement, in percent.
#[expect(clippy::approx_constant, reason = "6.28 % is an error, not two pi")]
const PAPER: [(&str, Option<f64>, Option<f64>); 5] = [
    ("AlignMNIST", None, Some(1.4)),
    ("InfiMNIST", None, Some(2.6)),
    ("real data", None, Some(3.1)),
    ("GAN", Some(6.28), Some(5.65)),
    ("DCGAN", Some(2.98), Some(1.48)),
];

fn nearest_error(error: NeighboursError) -> anyhow::Error {
    match error {
        NeighboursError::Experiment(error) => into_usage_error(error),
        NeighboursError::Nearest(_) => UsageError::because(error).into(),
    }
}

pub(crate) fn mnist_nn(args: &MnistNnArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    let cache = args.cache.as_deref();
    check_cache(cache)?;
    set_threads(args.threads)?;
    let (train, test) = match &args.data {
        // The options are those of --samples as well.
        None => digits_splits(SHAPE, if args.samples.is_some() { ReadArgs::default() } else { args.read })?,
        Some(path) => open_splits(path, &args.read.options(SHAPE), Task::Digits.data_files())?,
    };
    let references = match &args.samples {
        Some(path) => open_data(path, &args.read.options(SHAPE))?,
        None => train,
    };
    // Class numbers follow the order of folder names, so a missing folder shifts them: names are matched.
    let references = references.with_classes_of(&test);
    let known: BTreeSet<usize> = references.labels().map_err(into_usage_error)?.into_iter().collect();
    let labels = test.labels().map_err(into_usage_error)?;
    let unknown: BTreeSet<usize> = labels.into_iter().filter(|label| !known.contains(label)).collect();
    if !unknown.is_empty() {
        let names = |labels: BTreeSet<usize>| {
            let names = references.class_names().unwrap_or_default();
            labels.into_iter().map(|label| class_name(names, label)).collect::<Vec<_>>().join(", ")
        };
        let fault = format!(
            "--samples has no images of class {}, which test images have; it has {}: add them, or rename the folders",
            names(unknown),
            names(known)
        );
        return Err(UsageError::one(fault).into());
    }
    let started = Instant::now();
    let mut progress_bars = ProgressBars::new(logging);
    let counts = decades(references.rows.len());
    let scores =
        neighbours::score_images(&test, &references, PixelRange::Unit, &counts, (cache, &mut progress_bars))
            .map_err(nearest_error)?;
    drop(progress_bars);
    let seconds = started.elapsed().as_secs_f64();
    let what = if args.samples.is_some() { "given images" } else { "real training images" };
    let mut lines =
        vec![["mnist-nn", "error %", "mean distance", "references", "test"].map(str::to_owned).to_vec()];
    lines.extend(scores.iter().map(|score| row(what, score, test.rows.len())));
    let ours = lines.len();
    for (method, small, large) in PAPER {
        for (percent, references) in [(small, "50 K"), (large, if small.is_some() { "10 M" } else { "" })] {
            if let Some(percent) = percent {
                lines.push(vec![
                    format!("paper: {method}"),
                    format!("{percent:.2}"),
                    String::new(),
                    references.to_owned(),
                ]);
            }
        }
    }
    results.text(layout(&lines, ours).trim_end())?;
    results.text(
        "rows marked \"paper\" are quoted from Radford, Metz and Chintala (2016), supplement, on full MNIST",
    )?;
    if results.is_json() {
        let last = scores.last();
        let error = last.and_then(|score| score.error_percent);
        let n = test.rows.len() as f64;
        let interval = error.map(|error| 196.0 * (error / 100.0 * (1.0 - error / 100.0) / n).sqrt());
        let result = json!({
            "task": "mnist-nn",
            "error_percent": error,
            "interval95": interval,
            "interval_over": "test images (binomial)",
            "nnc_score_percent": error.map(|error| 100.0 - error),
            "nnd_score": last.map(|score| score.mean_distance),
            "c": null,
            "features": SHAPE.bytes(),
            "train": references.rows.len(),
            "test": test.rows.len(),
            "seconds": seconds,
            "per_class_accuracy": per_class(last.map_or(&[], |score| &score.per_class_accuracy)),
            "scores": scores,
            "protocol_sha256": hex(b"mnist-nn: nearest in pixels of [0, 1], earliest of equal ones"),
            "references_sha256": references.sha256(),
            "test_sha256": test.sha256(),
            "peak_memory_bytes": peak_memory_bytes(),
        });
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}

fn row(what: &str, score: &Score, queries: usize) -> Vec<String> {
    vec![
        what.to_owned(),
        score.error_percent.map_or_else(String::new, |error| format!("{error:.2}")),
        format!("{:.3}", score.mean_distance),
        thousands(usize::try_from(score.references).unwrap_or(usize::MAX)),
        thousands(queries),
    ]
}

pub(crate) fn nnd(args: &NndArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    let cache = args.cache.as_deref();
    check_cache(cache)?;
    let mut faults = Vec::new();
    if args.counts.iter().any(|count| !(1..=1_000_000_000).contains(count)) {
        faults.push(format!("--counts {:?}: expected numbers from 1 to 1000000000", args.counts));
    }
    if args.queries == 0 {
        faults.push("--queries 0: expected at least 1".to_owned());
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(args.compute.threads)?;
    let device = args.compute.device.open().map_err(UsageError::because)?;
    let chosen = choose_model(&args.model, "digits")?;
    let shape = chosen.shape();
    let (train, mut test) = match &args.data {
        None => digits_splits(shape, args.read)?,
        Some(path) => {
            let open = |split| open_data(path, &OpenOptions { split, ..args.read.options(shape) });
            (open(Split::Train)?, open(Split::Test)?)
        }
    };
    test.rows.end = test.rows.end.min(test.rows.start + args.queries);
    let model = chosen.files.model;
    let Some(weights) = chosen.files.generator else {
        return Err(UsageError::one(format!(
            "{} has no generator, which samples are drawn from",
            chosen.path
        ))
        .into());
    };
    let mut generator = Generator::new(&model, &weights, &device)?;
    if generator.ensure_statistics()? {
        tracing::info!("the weights have no batch-norm statistics: recalibrated on 4,096 z");
    }
    let mut counts = args.counts.clone();
    counts.sort_unstable();
    counts.dedup();
    let started = Instant::now();
    let mut progress_bars = ProgressBars::new(logging);
    let from = (&mut generator, &model, args.seed);
    let scores = neighbours::score_samples(&test, from, &counts, (cache, &mut progress_bars))
        .map_err(nearest_error)?;
    // The score of other real images, for comparison.
    let others = train.sha256() != test.sha256() && !same_images(&train, &test);
    let real_counts: Vec<usize> = counts.iter().copied().filter(|&count| count <= train.rows.len()).collect();
    let real = if others && !real_counts.is_empty() {
        let scale = PixelRange::of(model.config().generator.output);
        neighbours::score_images(&test, &train, scale, &real_counts, (cache, &mut progress_bars))
            .map_err(nearest_error)?
    } else {
        Vec::new()
    };
    drop(progress_bars);
    let seconds = started.elapsed().as_secs_f64();
    let mut lines = vec![["nnd", "mean distance", "references", "images"].map(str::to_owned).to_vec()];
    let mut add = |what: &str, scores: &[Score]| {
        lines.extend(scores.iter().map(|score| {
            let mut cells = row(what, score, test.rows.len());
            cells.remove(1);
            cells
        }));
    };
    add(&format!("samples of {}", chosen.name), &scores);
    add("real training images", &real);
    results.text(layout(&lines, lines.len()).trim_end())?;
    if results.is_json() {
        let result = json!({
            "task": "nnd",
            "nnd_score": scores.last().map(|score| score.mean_distance),
            "scores": scores,
            "real": real,
            "test": test.rows.len(),
            "seed": args.seed,
            "seconds": seconds,
            "weights_sha256": weights_sha256(&weights),
            "test_sha256": test.sha256(),
        });
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}

/// Whether two subsets overlap in one dataset.
fn same_images(a: &Subset, b: &Subset) -> bool {
    a.data.fingerprint() == b.data.fingerprint() && a.rows.start < b.rows.end && b.rows.start < a.rows.end
}
