//! `dcgan-train resume`, and `run --resume-if-exists`.

use super::processes::follow;
use super::train::{open_inputs, print_finished, train, with_fix};
use crate::cli::{ResumeArgs, RunArgs, Summary};
use dcgan_cli::{Logging, Outcome, UsageError};
use dcgan_model::checkpoints;
use dcgan_mpi::command::{agree, is_first, share};
use dcgan_mpi::{Launcher, World, relaunch_if_asked};
use dcgan_train::config::{Plan, messages};
use dcgan_train::data_record::DataRecord;
use dcgan_train::inputs::Opening;
use dcgan_train::options::{self, Section, Values};
use dcgan_train::run_folder::{Lock, RunFolder, RunResult};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// What a resumed run does otherwise than before.
#[derive(Debug)]
struct Changes {
    options: Values,
    accept_data_change: bool,
}

/// What the first process tells the others about the run.
#[derive(Debug, Serialize, Deserialize)]
enum Next {
    Train(Box<Resumed>),
    /// The run is complete.
    Finished(RunResult),
}

/// A run to be continued.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Resumed {
    plan: Plan,
    /// Step of the newest checkpoint.
    newest: u64,
    record: Option<DataRecord>,
    skip_again: bool,
    accept_data_change: bool,
}

/// The folder of the run, in the first process.
struct Opened {
    folder: RunFolder,
    lock: Option<Lock>,
    /// The plan on disk.
    before: Plan,
}

pub(crate) fn resume(args: &ResumeArgs, world: &World, logging: &Logging) -> anyhow::Result<Outcome> {
    let open = || {
        let (folder, plan) = RunFolder::open(&args.run).map_err(UsageError::because)?;
        let changes =
            Changes { options: args.options.0.clone(), accept_data_change: args.accept_data_change };
        prepare(folder, plan, &changes)
    };
    continue_run(open, world, logging, args.summary())
}

/// Continues the run in `out` if `plan`, which a command resolved, differs from its plan only in options that `resume`
/// can change.
pub(crate) fn resume_same(
    out: &Path,
    plan: &Plan,
    args: &RunArgs,
    world: &World,
    logging: &Logging,
) -> anyhow::Result<Outcome> {
    let open = || {
        let (folder, before) = RunFolder::open(out).map_err(UsageError::because)?;
        let mut faults = differences(out, &before, plan)?;
        if !faults.is_empty() {
            faults.push("give the options of that run, or choose another --out".to_owned());
            return Err(UsageError { faults }.into());
        }
        let changes = Changes { options: args.resumable(), accept_data_change: false };
        if let Some(result) = finished(&folder, &before, &changes)? {
            return Ok((Opened { folder, lock: None, before }, Next::Finished(result)));
        }
        tracing::info!("--out {} holds a run with these options: resuming it", out.display());
        prepare(folder, before, &changes)
    };
    continue_run(open, world, logging, args.summary())
}

/// Locks the run and changes its plan.
fn prepare(folder: RunFolder, mut plan: Plan, changes: &Changes) -> anyhow::Result<(Opened, Next)> {
    let lock = Some(folder.lock().map_err(UsageError::because)?);
    let before = plan.clone();
    let mut faults = plan.set(&changes.options).err().unwrap_or_default();
    plan.make_paths_absolute();
    faults.extend(plan.faults());
    let mut faults = messages(faults);
    for (option, path) in [("--data", &plan.run.data), ("--exclude", &plan.run.exclude)] {
        if let Some(path) = path.as_deref().filter(|path| !dcgan_data::is_remote(path) && !path.exists()) {
            faults.push(format!("{} does not exist: if it was moved, name it with {option}", path.display()));
        }
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let newest = checkpoints::list(&folder.checkpoints())?.pop().unwrap_or(0);
    let record = folder.data_record_before(newest, &before).map_err(UsageError::because)?;
    let skip_again = changes.options.contains_key("skip_bad") && plan.run.skip_bad.is_on();
    let accept_data_change = changes.accept_data_change;
    let resumed = Resumed { plan, newest, record, skip_again, accept_data_change };
    Ok((Opened { folder, lock, before }, Next::Train(Box::new(resumed))))
}

/// Continues the run that the first process opens, in all processes.
fn continue_run(
    open: impl FnOnce() -> anyhow::Result<(Opened, Next)>,
    world: &World,
    logging: &Logging,
    summary: Summary,
) -> anyhow::Result<Outcome> {
    let opened = if is_first(world) { open().map(Some) } else { Ok(None) };
    let (mut opened, next) = agree(world, opened)?.unzip();
    let mut resumed = match (share(world, next)?, &opened) {
        (Next::Train(resumed), _) => *resumed,
        (Next::Finished(result), Some(opened)) => return print_finished(&opened.folder, &result, summary),
        (Next::Finished(_), None) => return Ok(Outcome::Done),
    };
    let wanted = resumed.plan.run.processes;
    if wanted.is_some_and(|processes| processes > 1) && !world.is_shared() && Launcher::find().is_none() {
        drop(opened.take()); // unlocks the run
        if let Some(outcome) = relaunch_if_asked(world, wanted)? {
            return Ok(outcome);
        }
    }
    let Resumed { newest, ref record, accept_data_change, skip_again, .. } = resumed;
    let (is_new, record) = (newest == 0, record.as_ref());
    let opening = Opening { is_new, record, skip_again, accept_data_change, ..Opening::default() };
    let inputs = open_inputs(&mut resumed.plan, world, &opening)?;
    let plan = resumed.plan;
    let check = |opened: &Opened| -> anyhow::Result<()> {
        let Opened { folder, before, .. } = opened;
        if !accept_data_change {
            let checked = folder.check_data(newest, record, &inputs.data);
            checked.map_err(|error| with_fix(error, folder, 0))?;
        }
        if plan != *before && plan.total_steps(inputs.data.len()) > newest {
            folder.write_plan(&plan)?;
        }
        Ok(())
    };
    agree(world, opened.as_ref().map_or(Ok(()), check))?;
    let Some(Opened { folder, lock, .. }) = opened else { return follow(&plan, inputs) };
    let outcome = train(&folder, &plan, inputs, logging, summary);
    drop(lock);
    outcome
}

/// The result of a run that is complete, also with `changes`. Its images need not be there any more.
fn finished(folder: &RunFolder, plan: &Plan, changes: &Changes) -> anyhow::Result<Option<RunResult>> {
    let mut plan = plan.clone();
    plan.set(&changes.options).map_err(|faults| UsageError { faults: messages(faults) })?;
    let images = folder.data_record().ok().flatten().and_then(|record| record.images);
    let result = std::fs::read_to_string(folder.result()).ok();
    let result: Option<RunResult> = result.and_then(|text| serde_json::from_str(&text).ok());
    let (Some(images), Some(result)) = (images, result) else { return Ok(None) };
    let newest = checkpoints::list(&folder.checkpoints())?.pop();
    let is_complete = newest == Some(result.steps) && plan.total_steps(images) <= result.steps;
    Ok(is_complete.then_some(result))
}

/// The options in which the run in `out` differs from a command, without those that `resume` can change.
pub(crate) fn differences(out: &Path, run: &Plan, command: &Plan) -> anyhow::Result<Vec<String>> {
    let (mut run, mut command) = (serde_json::to_value(run)?, serde_json::to_value(command)?);
    for option in options::all().filter(|option| option.resumable) {
        let section = match option.section {
            Section::Run => "run",
            Section::Training => "training",
            Section::Networks => continue,
        };
        for plan in [&mut run, &mut command] {
            plan[section][option.name] = Value::Null;
        }
    }
    // The classes of conditional networks are those of the dataset, which the command has not opened yet.
    for plan in [&mut run, &mut command] {
        if plan["training"]["conditional"] == true {
            (plan["model"]["classes"], plan["model"]["class_names"]) = (Value::Null, Value::Null);
        }
    }
    let mut found = Vec::new();
    compare("", &run, &command, &mut found);
    let name = |difference| format!("--out {}: the run there has {difference}", out.display());
    Ok(found.into_iter().map(name).collect())
}

/// Lists the values in which two trees differ, each with its path.
fn compare(path: &str, run: &Value, command: &Value, found: &mut Vec<String>) {
    match (run, command) {
        (Value::Object(run), Value::Object(command)) => {
            let keys: Map<String, Value> = run.clone().into_iter().chain(command.clone()).collect();
            for key in keys.keys() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
                compare(&path, &value(run), &value(command), found);
            }
        }
        (run, command) if run == command => {}
        (run, command) => found.push(format!("{path} = {run}, this command {command}")),
    }
}
