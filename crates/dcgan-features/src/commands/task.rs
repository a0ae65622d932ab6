//! `dcgan-eval cifar10`, `svhn` and `digits`

use super::{
    ChosenDiscriminator, ProgressBars, check_cache, check_grid, choose_model, digits_splits,
    into_usage_error, learner, open_splits,
};
use crate::cli::{BaselineArg, StatisticsArg, TaskArgs};
use dcgan_base::memory::peak_memory_bytes;
use dcgan_cli::{Logging, Results, UsageError, check_output, set_threads};
use dcgan_features::experiment::{self, Baseline, ExperimentError, Settings, Subset};
use dcgan_features::protocol::ProtocolError;
use dcgan_features::report::Report;
use dcgan_features::task::Task;
use dcgan_ops::Role;

/// Draws of labels that C is chosen on.
const SELECTION_DRAWS: usize = 10;

/// Trials of the supervised baseline.
const TRIALS: u64 = 64;

pub(crate) fn run(task: Task, args: &TaskArgs, logging: &Logging) -> anyhow::Result<Report> {
    let results = Results::new(logging, args.json, &[args.save_draws.as_deref()])?;
    let report = evaluate(task, args, logging)?;
    results.text(report.table().trim_end())?;
    results.json(&report.json())?;
    Ok(report)
}

/// Runs the experiment.
pub(crate) fn evaluate(task: Task, args: &TaskArgs, logging: &Logging) -> anyhow::Result<Report> {
    let mut faults = Vec::new();
    let grid = check_grid(&args.c, &mut faults);
    let labels_per_class = args.labels_per_class.or(task.labels_per_class());
    for (option, value) in [
        ("--labels-per-class", args.labels_per_class),
        ("--repeats", args.repeats),
        ("--selection-draws", args.selection_draws),
    ] {
        if value.is_some_and(|value| !(1..=1_000_000).contains(&value)) {
            faults.push(format!("{option} is {}, expected 1 to 1000000", value.unwrap_or(0)));
        }
    }
    if args.baseline.contains(&BaselineArg::None) && args.baseline.len() > 1 {
        faults.push("--baseline none excludes other baselines".to_owned());
    }
    if args.trials.is_some_and(|trials| !(1..=1_000_000).contains(&trials)) {
        faults.push(format!("--trials is {}, expected 1 to 1000000", args.trials.unwrap_or(0)));
    }
    if args.trials.is_some() && !args.baseline.contains(&BaselineArg::Supervised) {
        faults.push("--trials needs --baseline supervised".to_owned());
    }
    if labels_per_class.is_none() && args.baseline.contains(&BaselineArg::Supervised) {
        faults.push("--baseline supervised needs --labels-per-class".to_owned());
    }
    for (option, is_given) in [
        ("--repeats", args.repeats.is_some()),
        ("--save-draws", args.save_draws.is_some()),
        ("--selection-draws", args.selection_draws.is_some()),
    ] {
        if is_given && labels_per_class.is_none() {
            faults.push(format!("{option} needs --labels-per-class"));
        }
    }
    if let Some(out) = &args.save_draws {
        if out.is_file() {
            faults.push(format!("--save-draws {} exists; choose another name", out.display()));
        } else {
            faults.extend(UsageError::faults_of(check_output("--save-draws", out, &["json"])));
        }
    }
    faults.extend(UsageError::faults_of(check_cache(args.cache.as_deref())));
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(args.compute.threads)?;
    let device = super::open_device(args.compute.device)?;
    let chosen = choose_model(&args.model, task.preset()).and_then(|chosen| Ok(chosen.discriminator()?));
    if let Some(missing) = missing_data(task, args) {
        let mut faults = match chosen {
            Ok(_) => Vec::new(),
            Err(error) => error.downcast::<UsageError>()?.faults,
        };
        faults.push(missing);
        return Err(UsageError { faults }.into());
    }
    let chosen = chosen?;
    let (train, test) = open_data(task, args, &chosen)?;
    let (mut learner, solver) = learner(args.solver);
    let has_statistics = chosen.weights.keys().any(|name| name.ends_with(Role::RunningMean.suffix()));
    if args.statistics == Some(StatisticsArg::Running) && !has_statistics {
        return Err(UsageError::one("--statistics running: the model has none; omit the option").into());
    }
    let settings = Settings {
        task,
        labels_per_class,
        selection_draws: args.selection_draws.unwrap_or(SELECTION_DRAWS),
        repeats: args.repeats.unwrap_or(task.repeats()),
        grid,
        seed: args.seed,
        stored_statistics: match args.statistics {
            Some(choice) => choice == StatisticsArg::Running,
            None => !task.recalibrates() && has_statistics,
        },
        storage: args.dtype,
        device,
        cache: args.cache.clone(),
        baselines: baselines(&args.baseline, args.trials.unwrap_or(TRIALS)),
        solver,
    };
    let explain = |error| match error {
        ExperimentError::Protocol(error @ ProtocolError::ShortClass { .. }) if labels_per_class.is_some() => {
            UsageError::one(format!("{error}: give more data, or lower --labels-per-class")).into()
        }
        error => into_usage_error(error),
    };
    if let Some(out) = &args.save_draws {
        let draws = experiment::draws(&settings, &train, &test).map_err(&explain)?;
        dcgan_base::files::write_atomic(out, draws.to_string().as_bytes())?;
    }
    let mut progress_bars = ProgressBars::new(logging);
    let model = (chosen.name.as_str(), &chosen.model, &chosen.weights);
    let mut report = experiment::run(&settings, model, (&train, &test), learner.as_mut(), &mut progress_bars)
        .map_err(explain)?;
    drop(progress_bars);
    report.peak_memory_bytes = peak_memory_bytes();
    if let Some(bytes) = report.peak_memory_bytes {
        tracing::info!("peak memory {:.2} GB", bytes as f64 / 1e9);
    }
    Ok(report)
}

fn baselines(args: &[BaselineArg], trials: u64) -> Vec<Baseline> {
    if args.is_empty() {
        return vec![Baseline::Random, Baseline::Pixels];
    }
    let baseline = |arg: &BaselineArg| match arg {
        BaselineArg::Pixels => Some(Baseline::Pixels),
        BaselineArg::Random => Some(Baseline::Random),
        BaselineArg::Supervised => Some(Baseline::Supervised { trials }),
        BaselineArg::None => None,
    };
    let mut baselines: Vec<Baseline> = Vec::new();
    for baseline in args.iter().filter_map(baseline) {
        if !baselines.contains(&baseline) {
            baselines.push(baseline);
        }
    }
    baselines
}

/// That `--data` is missing, if the task needs it.
fn missing_data(task: Task, args: &TaskArgs) -> Option<String> {
    let is_missing = args.data.is_none() && task != Task::Digits;
    is_missing.then(|| format!("missing --data: give {}", task.data_files()))
}

/// The training and test split of the task, in the shape of the model's images.
fn open_data(task: Task, args: &TaskArgs, chosen: &ChosenDiscriminator) -> anyhow::Result<(Subset, Subset)> {
    let Some(path) = &args.data else {
        return digits_splits(chosen.shape(), args.read);
    };
    let (train, test) = open_splits(path, &args.read.options(chosen.shape()), task.data_files())?;
    if !task.reads(train.data.report().format) {
        let fault = format!(
            "--data {} is {}, {} needs {}",
            path.display(),
            train.data.report().format,
            task.name(),
            task.data_files()
        );
        return Err(UsageError::one(fault).into());
    }
    Ok((train, test))
}
