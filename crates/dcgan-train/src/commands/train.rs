//! `dcgan-train run`, `resume` and the default run.

use crate::cli::{ResumeArgs, RunArgs, Summary};
use anyhow::Context;
use dcgan_cli::{Logging, Outcome, Progress, UsageError, print_result, set_threads};
use dcgan_model::checkpoints;
use dcgan_train::config::{Plan, messages};
use dcgan_train::error::TrainError;
use dcgan_train::event::Event;
use dcgan_train::inputs;
use dcgan_train::preset_choice::color_name;
use dcgan_train::run_folder::{RunFolder, RunFolderError, RunResult};
use dcgan_train::trainer::{self, Inputs, RunEnd};
use dcgan_train::trend;
use std::path::Path;

pub(crate) fn run(args: &RunArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let plan = args.plan();
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
    let outcome = train(&folder, &plan, inputs, logging, args.summary());
    drop(lock);
    outcome
}

pub(crate) fn resume(args: &ResumeArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let (folder, mut plan) = RunFolder::open(&args.run).map_err(UsageError::because)?;
    let lock = folder.lock().map_err(UsageError::because)?;
    let before = plan.clone();
    let mut faults = plan.set(&args.options.0).err().unwrap_or_default();
    faults.extend(plan.faults());
    let faults = messages(faults);
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(plan.run.threads)?;
    let newest = checkpoints::list(&folder.checkpoints())?.pop().unwrap_or(0);
    // A run with a checkpoint does not need the weights it started from; they may have been removed.
    let inputs = open_inputs(&plan, newest == 0)?;
    if plan != before && plan.total_steps(inputs.data.len()) > newest {
        folder.write_plan(&plan)?;
    }
    let outcome = train(&folder, &plan, inputs, logging, args.summary());
    drop(lock);
    outcome
}

/// Opens the device, the images and the weights to start from. Nothing is written.
fn open_inputs(plan: &Plan, with_init: bool) -> anyhow::Result<Inputs> {
    let open = |device| inputs::open(plan, device, with_init);
    let opened = inputs::device(&plan.run.device).and_then(open);
    Ok(opened.map_err(|error| UsageError { faults: error.faults() })?)
}

/// The user can restore a dataset that changed: exit code 2.
fn wrong_input(error: TrainError) -> anyhow::Error {
    if matches!(error, TrainError::OtherData) { UsageError::because(error).into() } else { error.into() }
}

fn print_json(folder: &RunFolder, result: &RunResult) -> anyhow::Result<Outcome> {
    let mut line = serde_json::to_value(result)?;
    line["run"] = folder.path().to_string_lossy().into();
    print_result(&line.to_string())?;
    Ok(Outcome::Done)
}

fn train(
    folder: &RunFolder,
    plan: &Plan,
    inputs: Inputs,
    logging: &Logging,
    summary: Summary,
) -> anyhow::Result<Outcome> {
    logging.also_to_file(&folder.log()).with_context(|| folder.log().display().to_string())?;
    let cancel = dcgan_cli::cancel_on_signals()?;
    let total = plan.total_steps(inputs.data.len());
    tracing::info!(
        "run {}: {} ({}x{}, {}) on {}, {total} steps of {} images, seed {}",
        folder.path().display(),
        plan.model.name,
        plan.model.height,
        plan.model.width,
        color_name(plan.model.channels),
        inputs.data_name,
        plan.training.batch_size,
        plan.run.seed
    );
    let progress = Progress::new(logging, total, "steps");
    let mut log_event = |event: &Event| match event {
        Event::Step(line) => tracing::info!("{}", line.console()),
        Event::Sample { path, diversity, .. } => {
            tracing::info!("samples {} (diversity {diversity:.2})", folder.event_path(path).display())
        }
        Event::Checkpoint { path, frechet, real_frechet, best, .. } => {
            let real = real_frechet.map_or_else(String::new, |real| format!(" (real images {real:.4})"));
            let quality = frechet.map_or_else(String::new, |frechet| {
                format!(", random-feature Fréchet distance {frechet:.4}{real}")
            });
            let best = if *best { ", the best so far" } else { "" };
            tracing::info!("checkpoint {}{quality}{best}", folder.event_path(path).display());
        }
        Event::Alarm { step, message, .. } => tracing::warn!("step {step}: {message}"),
    };
    let end = trainer::run(folder, plan, inputs, &mut log_event, &mut |step, _| progress.set(step), &|| {
        cancel.is_set()
    });
    progress.finish();
    let run = folder.path().display();
    match end.map_err(wrong_input)? {
        RunEnd::Finished(result) => {
            if summary == Summary::Json {
                return print_json(folder, &result);
            } else if summary == Summary::Text {
                let advice = trend::advice(plan, &result, &run.to_string());
                print_result(&format!(
                    "finished: {} steps\n  samples      {}\n  best model   {run}/best (step {})\n  \
                     draw more    dcgan-train sample --model {run} --out more.png\n  \
                     continue     dcgan-train resume {run} --steps N{}",
                    result.steps,
                    folder.sample(result.images).display(),
                    result.best_step.unwrap_or(result.steps),
                    advice.map_or_else(String::new, |advice| format!("\n{advice}")),
                ))?;
            }
            Ok(Outcome::Done)
        }
        RunEnd::Interrupted { step } => {
            tracing::warn!(
                "interrupted at step {step}, with a checkpoint; continue with: dcgan-train resume {run}"
            );
            Ok(Outcome::Interrupted)
        }
        RunEnd::AlreadyFinished(result) if summary == Summary::Json => print_json(folder, &result),
        RunEnd::AlreadyFinished(_) if summary == Summary::None => Ok(Outcome::Done),
        RunEnd::AlreadyFinished(RunResult { steps: step, .. }) => {
            print_result(&format!(
                "the run {run} is finished at step {step}; extend it with a larger --steps"
            ))?;
            Ok(Outcome::Done)
        }
    }
}
