//! `dcgan-eval mnist-nn` and `nnd`

use super::{
    ChosenModel, ProgressBars, check_cache, choose_model, digits_splits, generator_of, into_usage_error,
    open_data, open_device, open_splits, per_class,
};
use crate::cli::{MnistNnArgs, NndArgs};
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Logging, Outcome, Results, UsageError, set_threads};
use dcgan_data::arguments::ReadArgs;
use dcgan_data::{ImageShape, OpenOptions, Split};
use dcgan_features::experiment::{Subset, hex, weights_sha256};
use dcgan_features::neighbours::{self, NeighboursError, SampleStatistics, Samples, Score, decades};
use dcgan_features::report::{layout, thousands};
use dcgan_features::subset::{class_name, match_names};
use dcgan_features::task::Task;
use dcgan_model::ModelConfig;
use dcgan_model::pixels::PixelRange;
use dcgan_model::shipped_model;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;

/// Shape of MNIST's images.
const SHAPE: ImageShape = ImageShape { height: 28, width: 28, channels: 1 };

/// Samples of `mnist-nn` without `--count`: the smaller number of the paper.
const DEFAULT_COUNT: usize = 50_000;

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

/// Result of `mnist-nn`.
pub(crate) struct MnistNn {
    /// What the references are.
    what: String,
    /// At increasing numbers of references.
    pub(crate) scores: Vec<Score>,
    /// Those of the real training images beside samples of a model.
    real: Vec<Score>,
    test: Subset,
    /// Further keys of the JSON result.
    described: Value,
}

pub(crate) fn mnist_nn(args: &MnistNnArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    report_mnist_nn(&results, &evaluate_mnist_nn(args, uses_model(args), logging)?)
}

/// Runs the experiment. The references are samples of the model, or real images.
pub(crate) fn evaluate_mnist_nn(
    args: &MnistNnArgs,
    of_model: bool,
    logging: &Logging,
) -> anyhow::Result<MnistNn> {
    let cache = args.cache.as_deref();
    check_cache(cache)?;
    if let Some(count) = args.count.filter(|count| !(1..=1_000_000_000).contains(count)) {
        return Err(UsageError::one(format!("--count is {count}, expected 1 to 1000000000")).into());
    }
    set_threads(args.compute.threads)?;
    if of_model {
        return mnist_nn_of_model(args, logging);
    }
    if args.data.is_none() && args.samples.is_none() && shipped_model(MODEL).is_some() {
        tracing::info!(
            "comparing real images: models/{MODEL} was trained on the embedded digits, give --data for it"
        );
    }
    let (train, test) = match &args.data {
        // The options are those of --samples as well.
        None => digits_splits(SHAPE, if args.samples.is_some() { ReadArgs::default() } else { args.read })?,
        Some(path) => open_splits(path, &args.read.options(SHAPE), Task::Digits.data_files())?,
    };
    let references = match &args.samples {
        Some(path) => open_data(path, &args.read.options(SHAPE))?,
        None => train,
    };
    // Class indices follow the order of folder names, so a missing folder shifts them: names are matched.
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
    let what = if args.samples.is_some() { "given images" } else { "real training images" };
    let described = json!({
        "references_sha256": references.sha256(),
        "train": references.rows.len(),
        "seconds": started.elapsed().as_secs_f64(),
    });
    Ok(MnistNn { what: what.to_owned(), scores, real: Vec::new(), test, described })
}

/// `mnist-nn` with samples of a conditional model.
fn mnist_nn_of_model(args: &MnistNnArgs, logging: &Logging) -> anyhow::Result<MnistNn> {
    if args.data.is_none() && args.model.model.is_none() && shipped_model(MODEL).is_some() {
        let fault = format!(
            "models/{MODEL} was trained on the embedded digits: name MNIST's test images with --data, or another model \
             with --model"
        );
        return Err(UsageError::one(fault).into());
    }
    let device = open_device(args.compute.device)?;
    let ChosenModel { name, path, files } = choose_model(&args.model, MODEL)?;
    let (model, config) = (&files.model, files.model.config());
    if !config.is_conditional() {
        let fault = format!(
            "{path} is not conditional: its samples have no classes; use a model of `dcgan-train run --conditional`, \
             or `dcgan-eval nnd` for distances alone"
        );
        return Err(UsageError::one(fault).into());
    }
    let shape: ImageShape = config.image_shape().into();
    let (train, test) = match &args.data {
        None => digits_splits(shape, args.read)?,
        Some(path) => open_splits(path, &args.read.options(shape), Task::Digits.data_files())?,
    };
    let labels = labels_as_in(config, &test)?;
    let mut generator = generator_of(&files, &path, &device)?;
    let count = args.count.unwrap_or(DEFAULT_COUNT);
    let seed = args.sample_seed.unwrap_or(0);
    let statistics = args.statistics.map_or_else(SampleStatistics::default, Into::into);
    let mut counts = decades(count);
    counts.extend((count > DEFAULT_COUNT).then_some(DEFAULT_COUNT));
    counts.sort_unstable();
    let mut progress_bars = ProgressBars::new(logging);
    let samples = Samples { generator: &mut generator, model, seed, statistics, range: PixelRange::Unit };
    let scores = neighbours::score_samples(
        &test,
        Some(&labels),
        samples,
        &counts,
        (args.cache.as_deref(), &mut progress_bars),
    );
    let scores = scores.map_err(nearest_error)?;
    // The counts are those without a model, so that both find each other's results in the cache.
    let (train, counts) = (train.with_classes_of(&test), decades(train.rows.len()));
    let cache = args.cache.as_deref();
    let mut real =
        neighbours::score_images(&test, &train, PixelRange::Unit, &counts, (cache, &mut progress_bars))
            .map_err(nearest_error)?;
    let real = Vec::from_iter(real.pop()); // all of them
    drop(progress_bars);
    let described = json!({
        "weights_sha256": files.generator.as_ref().map(weights_sha256),
        "train": count,
        "seconds": scores.last().map(|score| score.seconds),
        "seed": seed,
        "statistics": statistics,
    });
    Ok(MnistNn { what: format!("samples of {name}"), scores, real, test, described })
}

/// The default model, if it is there.
const MODEL: &str = "mnist-cond";

/// Whether samples of a model are the references: options name or describe one, or the default model is there and
/// `--data` names images that it was not trained on.
fn uses_model(args: &MnistNnArgs) -> bool {
    let MnistNnArgs { model, samples, count, sample_seed, statistics, .. } = args;
    let is_named = model.model.is_some() || model.preset.is_some() || model.config.is_some();
    is_named
        || count.is_some()
        || sample_seed.is_some()
        || statistics.is_some()
        || samples.is_none() && args.data.is_some() && shipped_model(MODEL).is_some()
}

/// Labels of `test`, numbered as the classes of the model: by name where both have names.
fn labels_as_in(config: &ModelConfig, test: &Subset) -> anyhow::Result<Vec<u32>> {
    let names = test.class_names().filter(|_| !config.class_names.is_empty()).unwrap_or_default();
    let classes = match_names(names, &config.class_names);
    let labels = test.labels().map_err(into_usage_error)?;
    let labels: Vec<usize> = labels.into_iter().map(|label| classes.number(label)).collect();
    let unknown: BTreeSet<usize> = labels.iter().copied().filter(|&label| label >= config.classes).collect();
    if !unknown.is_empty() {
        let name = |label: &usize| class_name(classes.names(), *label);
        let unknown: Vec<String> = unknown.iter().map(name).collect();
        let known: Vec<String> = (0..config.classes).map(|class| config.class_name(class)).collect();
        let fault = format!(
            "the model has no class {}, which test images have; it has {}: choose the data that it was trained on",
            unknown.join(", "),
            known.join(", ")
        );
        return Err(UsageError::one(fault).into());
    }
    Ok(labels.into_iter().filter_map(|label| u32::try_from(label).ok()).collect())
}

/// The table of `mnist-nn` with the values of the paper, and its JSON with the keys of `described`.
fn report_mnist_nn(results: &Results, found: &MnistNn) -> anyhow::Result<Outcome> {
    let MnistNn { what, scores, real, test, described } = found;
    let mut lines = vec![
        ["mnist-nn", "error %", "mean distance", "references", "test", "seconds"].map(str::to_owned).to_vec(),
    ];
    lines.extend(scores.iter().map(|score| row(what, score, test.rows.len())));
    lines.extend(real.iter().map(|score| row("real training images", score, test.rows.len())));
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
        let interval = |score: &Score| score.interval95(test.rows.len());
        let with_interval = |score: &Score| -> anyhow::Result<Value> {
            let mut line = serde_json::to_value(score)?;
            line["interval95"] = interval(score).into();
            Ok(line)
        };
        let mut result = json!({
            "task": "mnist-nn",
            "error_percent": error,
            "interval95": last.and_then(interval),
            "interval_over": "test images (binomial)",
            "nnc_score_percent": error.map(|error| 100.0 - error),
            "nnd_score": last.map(|score| score.mean_distance),
            "c": null,
            "features": test.data.shape().bytes(),
            "test": test.rows.len(),
            "per_class_accuracy": per_class(last.map_or(&[], |score| &score.per_class_accuracy)),
            "scores": scores.iter().map(with_interval).collect::<anyhow::Result<Vec<_>>>()?,
            "real": real.iter().map(with_interval).collect::<anyhow::Result<Vec<_>>>()?,
            "protocol_sha256": hex(b"mnist-nn: nearest in pixels of [0, 1], earliest of equal ones"),
            "test_sha256": test.sha256(),
            "peak_memory_bytes": peak_memory_bytes(),
        });
        if let (Value::Object(result), Value::Object(described)) = (&mut result, described) {
            result.extend(described.clone());
        }
        results.json(&result)?;
    }
    Ok(Outcome::Done)
}

fn row(what: &str, score: &Score, queries: usize) -> Vec<String> {
    vec![
        what.to_owned(),
        match (score.error_percent, score.interval95(queries)) {
            (Some(error), Some(interval)) => format!("{error:.2} +- {interval:.2}"),
            _ => String::new(),
        },
        format!("{:.3}", score.mean_distance),
        thousands(usize::try_from(score.references).unwrap_or(usize::MAX)),
        thousands(queries),
        format!("{:.1}", score.seconds),
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
    let device = open_device(args.compute.device)?;
    let chosen = choose_model(&args.model, "digits")?;
    let shape = chosen.shape();
    let (train, mut test) = match &args.data {
        None => digits_splits(shape, args.read)?,
        Some(path) => {
            let open = |split| open_data(path, &OpenOptions { split, ..args.read.options(shape) });
            (open(Split::Train)?, open(Split::Test)?)
        }
    };
    test.rows.end = test.rows.end.min(test.rows.start.saturating_add(args.queries));
    let mut generator = generator_of(&chosen.files, &chosen.path, &device)?;
    let model = &chosen.files.model;
    let range = PixelRange::of(model.config().generator.output);
    let mut counts = args.counts.clone();
    counts.sort_unstable();
    counts.dedup();
    let started = Instant::now();
    let mut progress_bars = ProgressBars::new(logging);
    let (seed, statistics) = (args.seed, SampleStatistics::Running);
    let samples = Samples { generator: &mut generator, model, seed, statistics, range };
    let scores = neighbours::score_samples(&test, None, samples, &counts, (cache, &mut progress_bars))
        .map_err(nearest_error)?;
    // The score of other real images, for comparison.
    let others = train.sha256() != test.sha256() && !same_images(&train, &test);
    let real_counts: Vec<usize> = counts.iter().copied().filter(|&count| count <= train.rows.len()).collect();
    let real = if others && !real_counts.is_empty() {
        neighbours::score_images(&test, &train, range, &real_counts, (cache, &mut progress_bars))
            .map_err(nearest_error)?
    } else {
        Vec::new()
    };
    drop(progress_bars);
    let seconds = started.elapsed().as_secs_f64();
    let mut lines =
        vec![["nnd", "mean distance", "references", "images", "seconds"].map(str::to_owned).to_vec()];
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
            "weights_sha256": chosen.files.generator.as_ref().map(weights_sha256),
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
