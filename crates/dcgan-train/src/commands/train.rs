//! `dcgan-train run` and the default run; the training of `resume` as well.

use super::processes::{follow, own_error};
use super::resume::resume_same;
use crate::cli::{RunArgs, Summary};
use anyhow::Context;
use dcgan_cli::{Logging, Outcome, Progress, UsageError, print_result, set_threads};
use dcgan_data::{Dataset, Format};
use dcgan_model::checkpoints;
use dcgan_mpi::command::{agree, is_first, share};
use dcgan_mpi::{World, relaunch_if_asked, stop_at_eof};
use dcgan_train::config::Plan;
use dcgan_train::error::TrainError;
use dcgan_train::event::Event;
use dcgan_train::inputs::{self, Opening, Processes};
use dcgan_train::preset_choice::color_name;
use dcgan_train::run_folder::{Lock, RunFolder, RunFolderError, RunResult};
use dcgan_train::trainer::{self, Inputs, RunEnd};
use dcgan_train::trend::{self, Reader};
use std::path::Path;
use std::sync::Arc;

pub(crate) fn run(args: &RunArgs, world: &World, logging: &Logging) -> anyhow::Result<Outcome> {
    let (mut plan, exists) = agree(world, check(args, world))?;
    if let Some(outcome) = relaunch_if_asked(world, plan.run.processes)? {
        return Ok(outcome);
    }
    let exists = share(world, is_first(world).then_some(exists))?;
    if let Some(out) = args.out.as_ref().filter(|_| exists) {
        return resume_same(out, &plan, args, world, logging);
    }
    let inputs = open_inputs(&mut plan, world, &Opening::default())?;
    let begun = if is_first(world) { begin(args, &plan, &inputs.data).map(Some) } else { Ok(None) };
    let Some((folder, lock)) = agree(world, begun)? else { return follow(&plan, inputs) };
    let outcome = train(&folder, &plan, inputs, logging, args.summary());
    drop(lock);
    outcome
}

/// The plan, and whether `--out` has the run already.
fn check(args: &RunArgs, world: &World) -> anyhow::Result<(Plan, bool)> {
    let (mut faults, mut exists) = (Vec::new(), false);
    if let Some(out) = args.out.as_ref().filter(|_| is_first(world)) {
        match RunFolder::is_free(out) {
            Ok(true) => {}
            Ok(false) if args.resume_if_exists => exists = true,
            Ok(false) => faults.push(format!("--out {}", RunFolderError::NotEmpty { path: out.clone() })),
            Err(error) => faults.push(format!("--out {error}")),
        }
    }
    let plan = match &args.out {
        // Without the images, which chose the networks.
        Some(out) if exists && !args.names_networks() && args.is_data_missing() => args.plan_in(out),
        _ => args.plan(),
    };
    match plan {
        Ok(plan) if faults.is_empty() => Ok((plan, exists)),
        plan => {
            faults.splice(0..0, plan.err().unwrap_or_default());
            Err(UsageError { faults }.into())
        }
    }
}

/// The fault of a run folder in the folder of its images: its sample grids would become images of the dataset.
fn out_in_data(out: Option<&Path>, data: &Dataset) -> Option<String> {
    let report = data.report();
    let images = std::fs::canonicalize(&report.path).ok().filter(|_| report.format == Format::ImageFolder)?;
    let runs = std::path::absolute(out.unwrap_or(Path::new("runs"))).ok()?;
    let folder = runs.ancestors().find_map(|folder| std::fs::canonicalize(folder).ok())?;
    folder.starts_with(images).then(|| {
        let (runs, images) = (runs.display(), report.path.display());
        format!(
            "the run folder {runs} is in {images}, whose images it trains on: name another one with --out"
        )
    })
}

/// Creates the run folder.
fn begin(args: &RunArgs, plan: &Plan, data: &Dataset) -> anyhow::Result<(RunFolder, Lock)> {
    if let Some(fault) = out_in_data(args.out.as_deref(), data) {
        return Err(UsageError::one(fault).into());
    }
    let folder = match &args.out {
        Some(out) => RunFolder::create(out),
        None => RunFolder::create_next(Path::new("runs"), &plan.model.name),
    };
    let folder = folder.map_err(UsageError::because)?;
    let lock = folder.lock().map_err(UsageError::because)?;
    folder.begin(plan).map_err(UsageError::because)?;
    Ok((folder, lock))
}

/// Opens the device, the images and the weights to start from, and completes the plan by them, in all processes.
/// Nothing is written.
pub(crate) fn open_inputs(plan: &mut Plan, world: &World, opening: &Opening<'_>) -> anyhow::Result<Inputs> {
    let (rank, count) = (world.group().rank(), world.group().size());
    let processes = Processes { rank, count, on_host: world.place_on_host().1 };
    let opening = &Opening { processes, ..*opening };
    let mut open = || -> anyhow::Result<Inputs> {
        set_threads(plan.run.threads.or(world.threads()))?;
        let opened = inputs::device(&plan.run.device, world.place_on_host());
        let opened = opened.and_then(|device| inputs::open(plan, device, opening));
        let opened = opened.map_err(|error| UsageError { faults: error.faults() })?;
        Ok(Inputs { group: Arc::clone(world.group()), ..opened })
    };
    let inputs = agree(world, open())?;
    trainer::check_processes(plan, &inputs).map_err(|error| own_error(error, inputs.group.rank()))?;
    Ok(inputs)
}

/// What the user can do about a run that failed. A dataset that changed can be restored: exit code 2.
pub(crate) fn with_fix(error: TrainError, folder: &RunFolder, rank: usize) -> anyhow::Error {
    let run = folder.path().display();
    let has_checkpoint = checkpoints::list(&folder.checkpoints()).is_ok_and(|steps| !steps.is_empty());
    match error {
        TrainError::OtherData { .. } => {
            UsageError::one(format!("{error}; the command is: dcgan-train resume {run} --accept-data-change"))
                .into()
        }
        error if error.is_unreadable_image() && has_checkpoint => {
            let text = format!(
                "to continue without unreadable images: dcgan-train resume {run} --skip-bad; after a repair: \
                 dcgan-train resume {run} --accept-data-change"
            );
            anyhow::anyhow!("{error}\n  {text}")
        }
        error @ TrainError::Folder { .. } if has_checkpoint => {
            anyhow::anyhow!("{error}\n  to continue once this is fixed: dcgan-train resume {run}")
        }
        error => own_error(error, rank),
    }
}

fn print_json(folder: &RunFolder, result: &RunResult) -> anyhow::Result<Outcome> {
    let mut line = serde_json::to_value(result)?;
    line["run"] = folder.path().to_string_lossy().into();
    print_result(&line.to_string())?;
    Ok(Outcome::Done)
}

pub(crate) fn train(
    folder: &RunFolder,
    plan: &Plan,
    inputs: Inputs,
    logging: &Logging,
    summary: Summary,
) -> anyhow::Result<Outcome> {
    logging.also_to_file(&folder.log()).with_context(|| folder.log().display().to_string())?;
    let cancel = dcgan_cli::cancel_on_signals()?;
    stop_at_eof(&cancel)?;
    let total = plan.total_steps(inputs.data.len());
    let rank = inputs.group.rank();
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
        Event::Sample { path, diversity, contrast, .. } => {
            let contrast = contrast.map_or_else(String::new, |contrast| format!(", contrast {contrast:.2}"));
            tracing::info!(
                "samples {} (diversity {diversity:.2}{contrast})",
                folder.event_path(path).display()
            )
        }
        Event::Checkpoint { path, frechet, real_frechet, best, .. } => {
            let real = real_frechet.map_or_else(String::new, |real| format!(" (real images {real:.4})"));
            let distance = frechet.map_or_else(String::new, |frechet| {
                format!(", random-feature Fréchet distance {frechet:.4}{real}")
            });
            let best = if *best { ", the best so far" } else { "" };
            tracing::info!("checkpoint {}{distance}{best}", folder.event_path(path).display());
        }
        Event::Metrics { step, fid, kid, samples, convention, .. } => {
            let kid = kid.map_or_else(String::new, |kid| format!(", KID {kid:.5}"));
            tracing::info!("step {step}: FID {fid:.2}{kid} of {samples} samples ({convention})");
        }
        Event::Alarm { step, message, .. } => tracing::warn!("step {step}: {message}"),
    };
    let end = trainer::run(folder, plan, inputs, &mut log_event, &mut |step, _| progress.set(step), &|| {
        cancel.is_set()
    });
    progress.finish();
    let run = folder.path().display();
    if let Err(TrainError::OtherProcess { process }) = &end {
        tracing::warn!("{process} failed; once this is fixed, continue with: dcgan-train resume {run}");
    }
    match end.map_err(|error| with_fix(error, folder, rank))? {
        RunEnd::Finished(result) => {
            if summary == Summary::Json {
                return print_json(folder, &result);
            } else if summary == Summary::Text {
                let advice = trend::advice(plan, &result, Reader::CommandLine(&run.to_string()));
                print_result(&format!(
                    "finished: {} steps\n  samples      {}{}\n  \
                     draw more    dcgan-train sample --model {run} --out more.png\n  \
                     continue     dcgan-train resume {run} --steps N{}",
                    result.steps,
                    folder.sample(result.images).display(),
                    // No checkpoint is the best if the metric was never finite.
                    result.best_step.map_or_else(String::new, |step| {
                        format!("\n  best model   {run}/best (step {step})")
                    }),
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
        RunEnd::AlreadyFinished(result) => print_finished(folder, &result, summary),
    }
}

/// Reports a run that was complete before.
pub(crate) fn print_finished(
    folder: &RunFolder,
    result: &RunResult,
    summary: Summary,
) -> anyhow::Result<Outcome> {
    let (run, step) = (folder.path().display(), result.steps);
    match summary {
        Summary::Json => return print_json(folder, result),
        Summary::Text => {
            print_result(&format!(
                "the run {run} is finished at step {step}; extend it with a larger --steps"
            ))?;
        }
        Summary::None => {}
    }
    Ok(Outcome::Done)
}
