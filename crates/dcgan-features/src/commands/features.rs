//! `dcgan-eval features`

use super::{ProgressBars, choose_model, digits_splits, into_usage_error, open_device, open_split};
use crate::cli::{FeaturesArgs, StatisticsArg};
use dcgan_cli::{Logging, Outcome, ReportedElsewhere, Results, UsageError, check_output, set_threads};
use dcgan_data::{OpenOptions, Split};
use dcgan_features::experiment::{ExperimentError, Subset, config_sha256, to_file, weights_sha256};
use dcgan_features::extract::{ExtractError, Extractor};
use dcgan_features::protocol::Progress;
use dcgan_features::report::thousands;
use dcgan_model::{DeviceChoice, NetworkError};
use dcgan_mpi::World;
use dcgan_mpi::command::{agree, is_first};
use dcgan_ops::OpsError;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a command works on, the same in all processes.
struct Prepared {
    extractor: Extractor,
    subset: Subset,
    /// The images to recalibrate batch norm on; `None` for running statistics.
    training: Option<Subset>,
    origin: Value,
}

pub(crate) fn run(args: &FeaturesArgs, world: &World, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[Some(&args.out)])?;
    let Prepared { mut extractor, subset, training, origin } = agree(world, prepare(args, world))?;
    let mut progress_bars = ProgressBars::new(logging);
    // An interrupted command must not leave gigabytes of an incomplete file.
    let cancel = dcgan_cli::cancel_on_signals()?;
    if let Some(training) = &training {
        progress_bars.begin("batch norm statistics of the training images", training.rows.len(), "images");
        let recalibrated = extractor.recalibrate(training.pair(), &mut |done| {
            progress_bars.update(done);
            match cancel.is_set() {
                true => Err(ExtractError::Sink("interrupted".to_owned())),
                false => Ok(()),
            }
        });
        if cancel.is_set() && recalibrated.is_err() {
            tracing::warn!("interrupted: nothing was written");
            return Ok(Outcome::Interrupted);
        }
        recalibrated.map_err(|error| own_error(error.into()))?;
    }
    progress_bars.begin("features", subset.rows.len(), "images");
    let progress = &mut |done| progress_bars.update(done);
    let written = if is_first(world) {
        to_file(&mut extractor, &subset, args.dtype, &args.out, &origin.to_string(), &cancel, progress)
    } else {
        extractor.extract(subset.pair(), &mut |_| Ok(()), progress).map_err(ExperimentError::from)
    };
    if cancel.is_set() && written.is_err() {
        tracing::warn!("interrupted: nothing was written");
        return Ok(Outcome::Interrupted);
    }
    written.map_err(own_error)?;
    drop(progress_bars);
    if !is_first(world) {
        return Ok(Outcome::Done);
    }
    let labels = if subset.data.labels().is_some() { "with labels" } else { "without labels" };
    results.text(&format!(
        "{} feature vectors of {} values, {labels}, batch norm statistics {}, in {}",
        thousands(subset.rows.len()),
        thousands(extractor.width()),
        if training.is_none() { "running" } else { "recalibrated" },
        args.out.display()
    ))?;
    results.json(&json!({
        "out": args.out,
        "images": subset.rows.len(),
        "features": extractor.width(),
        "labeled": subset.data.labels().is_some(),
        "class_names": subset.data.class_names(),
        "split": args.split.split(),
        "dtype": args.dtype.name(),
        "origin": origin,
    }))?;
    Ok(Outcome::Done)
}

/// The error of this process, unless another one reports its own.
fn own_error(error: ExperimentError) -> anyhow::Error {
    let ExperimentError::Extract(ExtractError::Network(NetworkError::Ops(OpsError::OtherProcess { .. }))) =
        &error
    else {
        return into_usage_error(error);
    };
    ReportedElsewhere { code: 1 }.into()
}

/// Opens everything, and refuses what cannot work before the first image.
fn prepare(args: &FeaturesArgs, world: &World) -> anyhow::Result<Prepared> {
    if is_first(world) {
        check_output("--out", &args.out, &["safetensors"])?;
        if args.out.is_file() {
            let fault = format!("--out {} exists; choose another name", args.out.display());
            return Err(UsageError::one(fault).into());
        }
    }
    if args.data.is_none() && args.split.split() == Split::Val {
        let fault = "--split val needs --data: the embedded digits have training and test images only";
        return Err(UsageError::one(fault).into());
    }
    set_threads(args.compute.threads.or(world.threads()))?;
    let device = match args.compute.device {
        // Processes of a host would all take its first GPU.
        DeviceChoice::Auto if world.is_shared() => DeviceChoice::Cpu,
        device => device,
    };
    let device = open_device(device)?;
    let chosen = choose_model(&args.model, "digits")?.discriminator()?;
    let open = |split| -> anyhow::Result<Subset> {
        let options = OpenOptions { split, crop: args.crop, ..args.read.options(chosen.shape()) };
        match &args.data {
            Some(path) => Ok(open_split(path, &options)?),
            None => digits_splits(chosen.shape(), args.read)
                .map(|(train, test)| if split == Split::Train { train } else { test }),
        }
    };
    let split = args.split.split();
    let subset = open(split)?;
    if args.data.is_none() && args.crop.is_some() {
        return Err(UsageError::one("--crop needs --data: the embedded digits are not cropped").into());
    }
    let extractor =
        Extractor::new(&chosen.model, &chosen.weights, &device)?.in_group(Arc::clone(world.group()));
    let running = match args.statistics {
        Some(choice) => choice == StatisticsArg::Running,
        None => extractor.statistics().is_some(),
    };
    if running && extractor.statistics().is_none() {
        return Err(UsageError::one("--statistics running: the model has none; omit the option").into());
    }
    let training = match (running, split) {
        (true, _) => None,
        (false, Split::Train) => Some(subset.clone()),
        (false, _) => Some(open(Split::Train)?),
    };
    let statistics = training
        .as_ref()
        .map_or_else(|| "stored".to_owned(), |train| format!("recalibrated on {}", train.sha256()));
    let origin = json!({
        "model": chosen.model.config().name,
        "config_sha256": config_sha256(&chosen.model),
        "weights_sha256": weights_sha256(&chosen.weights),
        "images_sha256": subset.sha256(),
        "statistics": statistics,
    });
    Ok(Prepared { extractor, subset, training, origin })
}
