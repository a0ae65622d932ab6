//! `dcgan-train run`, `resume`, and the default run.

use super::check_precision;
use crate::cli::{ResumeArgs, RunArgs};
use anyhow::Context;
use dcgan_cli::{Cancel, Logging, Outcome, Progress, UsageError, print_result, set_threads};
use dcgan_data::{Dataset, OnBad, OpenOptions};
use dcgan_model::weights::{self, TensorSpec, Weights};
use dcgan_model::{DeviceChoice, Model, ModelFiles, checkpoints};
use dcgan_train::config::Plan;
use dcgan_train::error::TrainError;
use dcgan_train::event::Event;
use dcgan_train::run_folder::{RunFolder, RunFolderError, RunResult};
use dcgan_train::trainer::{self, Inputs, RunEnd};
use std::path::Path;
use std::sync::Arc;

pub(crate) fn run(args: &RunArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let plan = args.options().map_err(|fault| vec![fault]).and_then(|options| Plan::resolve(&options));
    let mut faults = plan.as_ref().err().cloned().unwrap_or_default();
    if let Some(out) = &args.out {
        match RunFolder::is_free(out) {
            Ok(true) => {}
            Ok(false) => faults.push(format!("--out {}", RunFolderError::NotEmpty { path: out.clone() })),
            Err(error) => faults.push(format!("--out {error}")),
        }
    }
    let (Ok(plan), true) = (plan, faults.is_empty()) else { return Err(UsageError { faults }.into()) };
    set_threads(plan.run.threads)?;
    let inputs = open_inputs(&plan, true)?;
    let folder = match &args.out {
        Some(out) => RunFolder::create(out),
        None => RunFolder::create_next(Path::new("runs"), &plan.model.name),
    };
    let folder = folder.map_err(UsageError::because)?;
    let lock = folder.lock()?;
    folder.write_plan(&plan)?;
    let outcome = train(&folder, &plan, inputs, logging, args.json);
    drop(lock);
    outcome
}

pub(crate) fn resume(args: &ResumeArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let (folder, mut plan) = RunFolder::open(&args.run).map_err(UsageError::because)?;
    let lock = folder.lock().map_err(UsageError::because)?;
    let lengths = [args.length.images, args.length.epochs, args.length.steps];
    let before = plan.clone();
    if lengths.iter().any(Option::is_some) {
        [plan.training.images, plan.training.epochs, plan.training.steps] = lengths;
    }
    plan.run.threads = args.threads.or(plan.run.threads);
    if let Some(device) = args.device {
        plan.run.device = device.to_string();
    }
    let faults = plan.faults();
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(plan.run.threads)?;
    let newest = checkpoints::list(&folder.checkpoints())?.pop().unwrap_or(0);
    // Once there is a checkpoint, what the run began from is no longer needed, and may be gone.
    let inputs = open_inputs(&plan, newest == 0)?;
    if plan != before && plan.total_steps(inputs.data.len()) > newest {
        folder.write_plan(&plan)?;
    }
    let outcome = train(&folder, &plan, inputs, logging, args.json);
    drop(lock);
    outcome
}

/// Opens the device, the pictures and the weights to start from. Nothing is written yet.
fn open_inputs(plan: &Plan, with_init: bool) -> anyhow::Result<Inputs> {
    let device = plan
        .run
        .device
        .parse::<DeviceChoice>()
        .map_err(UsageError::because)?
        .open()
        .map_err(UsageError::because)?;
    check_precision(plan.training.dtype, &device)?;
    let shape = plan.picture_shape();
    let (data, data_name) = match &plan.run.data {
        None => {
            tracing::info!(
                "no --data given: training on the embedded digits (10,000 of MNIST's training set)"
            );
            (
                Dataset::embedded_digits(shape).map_err(UsageError::because)?,
                "10,000 digits of MNIST's training set (CC BY-SA 3.0)".into(),
            )
        }
        Some(path) => {
            let mut options = OpenOptions::new(shape);
            options.crop = plan.run.crop;
            options.on_bad = if plan.run.skip_bad { OnBad::Skip } else { OnBad::Fail };
            let data = Dataset::open(path, &options).map_err(UsageError::because)?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            (data, name)
        }
    };
    tracing::info!("{}", data.report());
    let batch = plan.training.batch_size;
    if data.len() < batch {
        let fault = format!(
            "the data set holds {} pictures, fewer than one batch of {batch}; use --batch-size",
            data.len()
        );
        return Err(UsageError::one(fault).into());
    }
    let init = match plan.run.init_from.as_ref().filter(|_| with_init) {
        None => None,
        Some(path) => {
            let files = dcgan_model::open(path, Some(&Model::new(plan.model.clone())?))
                .map_err(UsageError::because)?
                .files;
            check_init(path, &files, plan)?;
            Some(files)
        }
    };
    Ok(Inputs { data: Arc::new(data), data_name, device, init })
}

/// A data set that changed is the user's to bring back: exit code 2.
fn wrong_input(error: TrainError) -> anyhow::Error {
    if matches!(error, TrainError::OtherData) { UsageError::because(error).into() } else { error.into() }
}

fn print_json(folder: &RunFolder, result: &RunResult) -> anyhow::Result<Outcome> {
    let mut line = serde_json::to_value(result)?;
    line["run"] = folder.path().to_string_lossy().into();
    print_result(&line.to_string())?;
    Ok(Outcome::Done)
}

/// Refuses weights that do not fit the plan's networks.
fn check_init(path: &Path, files: &ModelFiles, plan: &Plan) -> anyhow::Result<()> {
    let model = Model::new(plan.model.clone())?;
    let check = |given: &Option<Weights>, specs: &[TensorSpec]| {
        let fault = given.as_ref().and_then(|given| weights::check(path, given, specs).err());
        fault.map(|fault| format!("--init-from {fault}"))
    };
    let faults = [
        check(&files.generator, &model.generator_tensors()),
        check(&files.discriminator, &model.discriminator_tensors()),
    ];
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    if faults.is_empty() { Ok(()) } else { Err(UsageError { faults }.into()) }
}

fn train(
    folder: &RunFolder,
    plan: &Plan,
    inputs: Inputs,
    logging: &Logging,
    json: bool,
) -> anyhow::Result<Outcome> {
    logging.also_to_file(&folder.log()).with_context(|| folder.log().display().to_string())?;
    let cancel = Cancel::on_signals()?;
    let total = plan.total_steps(inputs.data.len());
    tracing::info!(
        "run {}: {} on {}, {total} steps of {} pictures, seed {}",
        folder.path().display(),
        plan.model.name,
        inputs.data_name,
        plan.training.batch_size,
        plan.run.seed
    );
    let progress = Progress::new(logging, total, "steps");
    let mut show = |event: &Event| match event {
        Event::Step(line) => tracing::info!("{}", line.console()),
        Event::Sample { path, diversity, .. } => {
            tracing::info!("samples {} (diversity {diversity:.2})", path.display())
        }
        Event::Checkpoint { path, frechet, best, .. } => {
            let quality =
                frechet.map_or_else(String::new, |frechet| format!(", quality figure {frechet:.4}"));
            let best = if *best { ", the best so far" } else { "" };
            tracing::info!("checkpoint {}{quality}{best}", path.display());
        }
        Event::Alarm { step, message, .. } => tracing::warn!("step {step}: {message}"),
    };
    let end =
        trainer::run(folder, plan, inputs, &mut show, &mut |step, _| progress.set(step), &|| cancel.is_set());
    progress.finish();
    let run = folder.path().display();
    match end.map_err(wrong_input)? {
        RunEnd::Finished(result) => {
            if json {
                return print_json(folder, &result);
            } else {
                print_result(&format!(
                    "finished: {} steps\n  samples      {}\n  best model   {run}/best (step {})\n  draw more    dcgan-train sample --model {run} --out more.png\n  go on        dcgan-train resume {run} --steps N",
                    result.steps,
                    folder.sample(result.images).display(),
                    result.best_step.unwrap_or(result.steps),
                ))?;
            }
            Ok(Outcome::Done)
        }
        RunEnd::Interrupted { step } => {
            tracing::warn!(
                "interrupted at step {step}; a checkpoint is written, go on with: dcgan-train resume {run}"
            );
            Ok(Outcome::Interrupted)
        }
        RunEnd::AlreadyFinished(result) if json => print_json(folder, &result),
        RunEnd::AlreadyFinished(RunResult { steps: step, .. }) => {
            print_result(&format!(
                "the run {run} is finished at step {step}; give it a longer --steps to go on"
            ))?;
            Ok(Outcome::Done)
        }
    }
}
