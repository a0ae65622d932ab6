//! `dcgan-train resume`, and `run --resume-if-exists`.

use super::train::{open_inputs, print_finished, train, with_fix};
use crate::cli::{ResumeArgs, RunArgs, Summary};
use dcgan_cli::{Logging, Outcome, UsageError, set_threads};
use dcgan_model::checkpoints;
use dcgan_train::config::{Plan, messages};
use dcgan_train::inputs::Opening;
use dcgan_train::options::{self, Section, Values};
use dcgan_train::run_folder::{RunFolder, RunResult};
use serde_json::{Map, Value};
use std::path::Path;

/// What a resumed run does otherwise than before.
#[derive(Debug)]
struct Changes {
    options: Values,
    accept_data_change: bool,
}

pub(crate) fn resume(args: &ResumeArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let (folder, plan) = RunFolder::open(&args.run).map_err(UsageError::because)?;
    let changes = Changes { options: args.options.0.clone(), accept_data_change: args.accept_data_change };
    continue_run(&folder, plan, &changes, logging, args.summary())
}

/// Continues the run in `out` if `plan`, which a command resolved, differs from its plan only in options that `resume`
/// can change.
pub(crate) fn resume_same(
    out: &Path,
    plan: &Plan,
    args: &RunArgs,
    logging: &Logging,
) -> anyhow::Result<Outcome> {
    let (folder, before) = RunFolder::open(out).map_err(UsageError::because)?;
    let mut faults = differences(out, &before, plan)?;
    if !faults.is_empty() {
        faults.push("give the options of that run, or choose another --out".to_owned());
        return Err(UsageError { faults }.into());
    }
    let changes = Changes { options: args.resumable(), accept_data_change: false };
    if let Some(result) = finished(&folder, &before, &changes)? {
        return print_finished(&folder, &result, args.summary());
    }
    tracing::info!("--out {} holds a run with these options: resuming it", out.display());
    continue_run(&folder, before, &changes, logging, args.summary())
}

fn continue_run(
    folder: &RunFolder,
    mut plan: Plan,
    changes: &Changes,
    logging: &Logging,
    summary: Summary,
) -> anyhow::Result<Outcome> {
    let lock = folder.lock().map_err(UsageError::because)?;
    let before = plan.clone();
    let mut faults = plan.set(&changes.options).err().unwrap_or_default();
    faults.extend(plan.faults());
    let faults = messages(faults);
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    set_threads(plan.run.threads)?;
    let newest = checkpoints::list(&folder.checkpoints())?.pop().unwrap_or(0);
    let record = folder.data_record_before(newest, &before).map_err(UsageError::because)?;
    let opening = Opening {
        is_new: newest == 0,
        record: record.as_ref(),
        skip_again: changes.options.contains_key("skip_bad") && plan.run.skip_bad.is_on(),
        accept_data_change: changes.accept_data_change,
        ..Opening::default()
    };
    let inputs = open_inputs(&mut plan, &opening)?;
    if !changes.accept_data_change {
        folder.check_data(newest, record.as_ref(), &inputs.data).map_err(|error| with_fix(error, folder))?;
    }
    if plan != before && plan.total_steps(inputs.data.len()) > newest {
        folder.write_plan(&plan)?;
    }
    let outcome = train(folder, &plan, inputs, logging, summary);
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
