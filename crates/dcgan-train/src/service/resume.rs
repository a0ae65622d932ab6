//! A job that is resumed with other options, usually a greater length: those that `dcgan-train resume` can change.

use super::AppState;
use super::error::ApiError;
use super::options::{LISTED_UNKNOWN, in_json, machine_faults, property, read, resolve_names};
use super::record::{Job, Once};
use super::store::Change;
use crate::config::{Fault, LENGTHS, Plan};
use crate::options::{self, Values};
use crate::run_folder::{RunFolder, RunFolderError};
use dcgan_model::checkpoints;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::io;

/// The option of a resume that is none of a run.
pub(super) const ACCEPT_DATA_CHANGE: &str = "accept_data_change";

/// Queues a job with the options given, which replace those of its plan.
///
/// # Errors
/// Every fault of the options; those of the store.
pub(crate) fn resume_with(state: &AppState, id: &str, options: Map<String, Value>) -> Result<Job, ApiError> {
    let job = state.store.get(id)?;
    let path = state.run_folder(id);
    let folder = match RunFolder::open(&path) {
        Ok((folder, plan)) => Some((folder, plan)),
        Err(RunFolderError::NotARun { .. }) => None,
        Err(error) => return Err(ApiError::internal(error)),
    };
    let plan = match &folder {
        Some((_, plan)) => plan.clone(),
        None => toml::from_str(&job.plan).map_err(ApiError::internal)?,
    };
    let steps = checkpoints::list(&path.join("checkpoints")).map_err(ApiError::internal)?.pop().unwrap_or(0);
    let changed = change(state, &job, plan, steps, options).map_err(ApiError::faults)?;
    let (plan, options, total_steps) = (changed.plan, changed.options, changed.total_steps);
    let change = Change {
        options: Value::Object(options).to_string(),
        requested_device: state.requested_device(&plan),
        total_steps,
        once: changed.once,
        plan: toml::to_string(&plan).map_err(ApiError::internal)?,
    };
    let is_written = Cell::new(false);
    let write_plan = || match &folder {
        Some((folder, _)) => {
            is_written.set(true);
            folder.write_plan(&plan).map_err(|error| match error {
                RunFolderError::Io { source, .. } => source,
                error => io::Error::other(error),
            })
        }
        None => Ok(()),
    };
    let resumed = state.store.resume_with(id, &change, write_plan);
    if let (Err(_), true, Some((folder, before))) = (&resumed, is_written.get(), &folder) {
        // A refused resume changes nothing.
        folder.write_plan(before).map_err(ApiError::internal)?;
    }
    Ok(resumed?)
}

/// A job with new options, see [`change`].
#[derive(Debug)]
struct Changed {
    plan: Plan,
    /// The options of the job as JSON.
    options: Map<String, Value>,
    /// None if it depends on data that has not been opened.
    total_steps: Option<u64>,
    once: Once,
}

/// `plan`, the plan of `job`, which has taken `steps`, with the options of a request: those that `dcgan-train resume`
/// can change.
///
/// # Errors
/// Every fault, each with its field.
fn change(
    shared: &AppState,
    job: &Job,
    mut plan: Plan,
    steps: u64,
    mut body: Map<String, Value>,
) -> Result<Changed, Vec<Fault>> {
    let (mut values, mut faults) = (Values::new(), Vec::new());
    let accept_data_change = match body.remove(ACCEPT_DATA_CHANGE) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(accept)) => accept,
        Some(other) => {
            let message = format!("{ACCEPT_DATA_CHANGE} is {other}, expected true or false");
            faults.push(Fault::new(ACCEPT_DATA_CHANGE, message));
            false
        }
    };
    for option in options::all().filter(|option| option.resumable) {
        let Some(value) = body.remove(option.name).filter(|value| !value.is_null()) else { continue };
        match read(option, value) {
            Ok(value) => drop(values.insert(option.name, value)),
            Err(message) => faults.push(Fault::new(option.name, message)),
        }
    }
    let given: Map<String, Value> =
        values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    resolve_names(shared, None, &mut values, &mut faults);
    if !given.contains_key("device") {
        values.remove("device"); // the plan has one
    }
    let resumable = options::all().filter(|option| option.resumable).map(|option| option.name);
    let known: Vec<&str> = resumable.chain([ACCEPT_DATA_CHANGE]).collect();
    let unknown = |name| {
        Fault::new(name, format!("{name:?} cannot be changed by a resume; options: {}", known.join(", ")))
    };
    faults.extend(body.keys().take(LISTED_UNKNOWN).map(unknown));
    faults.extend(plan.set(&values).err().unwrap_or_default());
    faults.extend(plan.faults());
    if faults.is_empty() {
        faults.extend(machine_faults(shared, &plan));
    }
    // Without the data, the length in epochs is not known.
    let is_known = plan.training.epochs.is_none() || (job.dataset_len.is_some() && !accept_data_change);
    let images = usize::try_from(job.dataset_len.unwrap_or(0)).unwrap_or(usize::MAX);
    let total_steps = is_known.then(|| plan.total_steps(images));
    if let Some(total) = total_steps.filter(|total| *total <= steps && faults.is_empty()) {
        let length = LENGTHS.into_iter().find(|length| values.contains_key(length)).unwrap_or("steps");
        let message =
            format!("{length} gives a length of {total} steps, expected more than the {steps} steps taken");
        faults.push(Fault::new(length, message));
    }
    if !faults.is_empty() {
        return Err(faults.into_iter().map(|fault| in_json(fault, "config")).collect());
    }
    let mut options = serde_json::from_str::<Map<String, Value>>(&job.options).unwrap_or_default();
    if LENGTHS.iter().any(|length| given.contains_key(*length)) {
        options.retain(|name, _| !LENGTHS.contains(&name.as_str()));
    }
    let skip_again = given.contains_key("skip_bad") && plan.run.skip_bad.is_on();
    options.extend(given);
    Ok(Changed { plan, options, total_steps, once: Once { accept_data_change, skip_again } })
}

/// The JSON schema of the options that a resume can change.
pub(crate) fn resume_schema() -> Value {
    let options = options::all().filter(|option| option.resumable);
    let accept = json!({
        "type": "boolean",
        "description": "Continue also if images were added, removed, replaced or repaired. From here on the job \
            differs from one on unchanged data [default: false]",
    });
    let properties = options
        .map(|option| (option.name.to_owned(), property(option)))
        .chain([(ACCEPT_DATA_CHANGE.to_owned(), accept)]);
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "The options of `dcgan-train resume`; none is required. A done job needs a greater length",
        "properties": properties.collect::<Map<_, _>>(),
    })
}
