//! A worker: a thread that owns a device and runs queued jobs one at a time through `trainer::run`.
//!
//! A job's run folder is created once and resumed afterwards, as by `dcgan-train run` and `resume`.

use super::AppState;
use super::devices::WorkerDevice;
use super::disk_use::folder_bytes;
use super::launched;
use super::record::{Job, Once, Outcome};
use super::remedy::remedy;
use super::running_job::RunningJob;
use super::store::StoreError;
use crate::config::Plan;
use crate::error::TrainError;
use crate::event::Event;
use crate::inputs::{self, InputsError, Opening};
use crate::run_folder::{Lock, RunFolder, RunFolderError};
use crate::trainer::{self, RunEnd};
use dcgan_data::DataError;
use dcgan_model::{Device, FolderError, checkpoints};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Poll interval of the queue if a notification is missed, and retry interval on a full disk.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a job waits for the processes of an earlier service.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum JobError {
    #[error("{}", .0.to_string())]
    Plan(#[from] toml::de::Error),
    #[error(transparent)]
    Inputs(#[from] InputsError),
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    #[error(transparent)]
    Checkpoints(#[from] FolderError),
    #[error(transparent)]
    Train(TrainError),
    #[error(
        "the dataset is not the one of the start of the job: {difference}; restore it and resume the job, or continue \
         with the new one: resume it with accept_data_change"
    )]
    OtherData { difference: String },
    #[error("{field}: {problem}")]
    Moved { field: &'static str, problem: String },
    #[error("cannot start the processes of the job: {0}")]
    Launch(#[source] io::Error),
    #[error("{message}")]
    Processes { message: String },
    #[error("cannot create the thread pool: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl From<TrainError> for JobError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::OtherData { difference } => Self::OtherData { difference },
            error => Self::Train(error),
        }
    }
}

/// Runs queued jobs on the device of this index until the service stops. The running job then goes back to the queue,
/// with a checkpoint.
pub(crate) fn run(state: &AppState, index: usize) {
    let Some(device) = state.devices.get(index) else { return };
    let (mut was_full, mut seen) = (false, 0);
    while !state.is_stopping() {
        let is_full = !state.store.has_room();
        if is_full != was_full && index == 0 {
            was_full = is_full;
            let message =
                if is_full { "the disk is full: jobs wait" } else { "the disk has room: jobs continue" };
            tracing::warn!("{message}");
        }
        if is_full {
            seen = state.worker_notify.wait(seen, RETRY_INTERVAL);
            continue;
        }
        match state.store.claim(device, &state.devices) {
            Ok(Some(job)) => {
                let running = RunningJob::new(&job.id, job.step, device);
                state.running_jobs.add(running.clone());
                state.broadcasts.notify(&job.id);
                let started = Instant::now();
                let outcome = run_job(state, &job, &running, device);
                // Before the job ends, so that its last state has the right number.
                save_progress(&job, || {
                    let bytes = folder_bytes(&state.run_folder(&job.id))?;
                    state.store.set_disk_bytes(&job.id, bytes)
                });
                store_outcome(state, &job, &outcome, &running, started);
                state.running_jobs.remove(&job.id);
                state.broadcasts.notify(&job.id);
                state.housekeeping_notify.notify();
            }
            Ok(None) => seen = state.worker_notify.wait(seen, RETRY_INTERVAL),
            Err(error) => {
                tracing::error!(%error, "cannot read the job queue");
                std::thread::sleep(RETRY_INTERVAL);
            }
        }
    }
}

/// Trains a job and maps every way in which that can end, panics included, to an outcome.
fn run_job(state: &AppState, job: &Job, running: &RunningJob, device: &WorkerDevice) -> Outcome {
    // A pause or cancel may arrive between the claim and `running_jobs.add`, when there is no stop flag to set yet.
    if state.store.get(&job.id).is_ok_and(|job| job.pending_state.is_some()) {
        return Outcome::Stopped;
    }
    tracing::info!(job = %job.id, name = ?job.name, device = %device.label, step = job.step, "job started");
    let trained = catch_unwind(AssertUnwindSafe(|| in_thread_pool(state, job, running, device)));
    match trained {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if is_disk_full(&error) => {
            let error_text = state.public_message(&error.to_string(), Some(&job.id));
            let message = format!("the disk is full; make room and resume the job ({error_text})");
            tracing::error!(job = %job.id, %error, "job paused: the disk is full");
            Outcome::DiskFull(message)
        }
        Ok(Err(error)) => {
            tracing::error!(job = %job.id, %error, "job failed");
            let steps = checkpoints::list(&state.run_folder(&job.id).join("checkpoints"));
            let step = steps.ok().and_then(|mut steps| steps.pop()).unwrap_or(0);
            let remedy = remedy(&error, step);
            Outcome::Failed { error: state.public_message(&error.to_string(), Some(&job.id)), remedy }
        }
        Err(_) => {
            tracing::error!(job = %job.id, "job failed: panic, see above");
            Outcome::Failed { error: "internal error; see the service's log".to_owned(), remedy: None }
        }
    }
}

/// Trains in a separate thread pool if the job or its device limits the threads.
fn in_thread_pool(
    state: &AppState,
    job: &Job,
    running: &RunningJob,
    device: &WorkerDevice,
) -> Result<Outcome, JobError> {
    let plan: Plan = toml::from_str(&job.plan)?;
    let WorkerDevice { device, threads, .. } = device;
    match plan.run.threads.or(*threads) {
        None => train(state, job, &plan, running, device),
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            pool.install(|| train(state, job, &plan, running, device))
        }
    }
}

fn train(
    state: &AppState,
    job: &Job,
    plan: &Plan,
    running: &RunningJob,
    device: &Device,
) -> Result<Outcome, JobError> {
    let (folder, mut plan, lock) = open_folder(&state.run_folder(&job.id), plan)?;
    let newest = checkpoints::list(&folder.checkpoints())?.pop().unwrap_or(0);
    let is_new = newest == 0;
    state.recheck_paths(&plan, is_new).map_err(|(field, problem)| JobError::Moved { field, problem })?;
    let cancelled = || running.is_stopped() || state.is_stopping();
    let record = folder.data_record_before(newest, &plan)?;
    let Once { accept_data_change, skip_again } = job.once;
    let opening = Opening {
        is_new,
        record: record.as_ref(),
        skip_again,
        accept_data_change,
        cancelled: &cancelled,
        ..Opening::default()
    };
    let stored = plan.clone();
    let inputs = match inputs::open(&mut plan, device.clone(), &opening) {
        Err(InputsError::Data(DataError::Cancelled)) => return Ok(Outcome::Stopped),
        inputs => inputs?,
    };
    if plan != stored {
        folder.write_plan(&plan)?; // with the classes of the dataset
    }
    if !accept_data_change {
        folder.check_data(newest, record.as_ref(), &inputs.data)?;
    }
    let images = inputs.data.len();
    save_progress(job, || state.store.set_length(&job.id, plan.total_steps(images), images as u64));
    let batch_size = plan.training.batch_size as u64;
    let mut sink = |event: &Event| {
        match event {
            Event::Step(line) => running.set_line(line),
            // After a SIGKILL from here on, the job resumes from this checkpoint.
            Event::Checkpoint { step, .. } => {
                let bytes = folder_bytes(folder.path()).ok();
                save_progress(job, || state.store.set_progress(&job.id, *step, *step * batch_size, bytes));
            }
            Event::Sample { .. } | Event::Metrics { .. } => {}
            Event::Alarm { step, message, .. } => tracing::warn!(job = %job.id, step, "{message}"),
        }
        state.broadcasts.notify(&job.id);
    };
    let mut is_once = job.once != Once::default();
    let mut progress = |step: u64, _total: u64| {
        // The images that the job continues with are recorded before its first step.
        if std::mem::take(&mut is_once) {
            save_progress(job, || state.store.end_once(&job.id));
        }
        running.set_step(step);
        state.metrics.count_images(&running.device, batch_size);
    };
    if launched::is_launched(&plan) {
        drop((inputs, lock)); // the processes open and lock them again
        let mut step = newest;
        let mut on_event = |event: &Event| {
            sink(event);
            // Of each log line: the processes report no single steps.
            (step..event.step()).for_each(|step| progress(step + 1, 0));
            step = step.max(event.step());
        };
        let outcome = launched::train(&folder, job.once, &mut on_event, &cancelled)?;
        if outcome == Outcome::Done {
            save_progress(job, || state.store.set_progress(&job.id, step, step * batch_size, None));
        }
        return Ok(outcome);
    }
    match trainer::run(&folder, &plan, inputs, &mut sink, &mut progress, &cancelled)? {
        RunEnd::Finished(result) | RunEnd::AlreadyFinished(result) => {
            save_progress(job, || state.store.set_progress(&job.id, result.steps, result.images, None));
            Ok(Outcome::Done)
        }
        RunEnd::Interrupted { .. } => Ok(Outcome::Stopped),
    }
}

/// Opens the job's run folder with its own plan, or creates it with `plan`.
fn open_folder(path: &Path, plan: &Plan) -> Result<(RunFolder, Plan, Lock), RunFolderError> {
    if path.join("plan.toml").exists() {
        let (folder, plan) = RunFolder::open(path)?;
        let started = Instant::now();
        let lock = loop {
            match folder.lock() {
                // Processes of a service that was killed stop after their step.
                Err(RunFolderError::Busy { .. }) if launched::is_launched(&plan) => {}
                lock => break lock?,
            }
            if started.elapsed() > LOCK_WAIT {
                break folder.lock()?;
            }
            std::thread::sleep(RETRY_INTERVAL);
        };
        return Ok((folder, plan, lock));
    }
    let folder = RunFolder::create(path)?;
    let lock = folder.lock()?;
    folder.write_plan(plan)?;
    Ok((folder, plan.clone(), lock))
}

/// Stores progress. Errors are only logged: the run folder is authoritative, and training continues without the
/// database.
fn save_progress(job: &Job, write: impl Fn() -> Result<(), StoreError>) {
    if let Err(error) = write() {
        tracing::warn!(job = %job.id, %error, "cannot store the progress");
    }
}

/// Stores the outcome of a job, and retries on errors: the job must be neither lost nor run twice. After a crash before
/// that, the job is found running and resumed; if it was complete, nothing is left to train.
fn store_outcome(state: &AppState, job: &Job, outcome: &Outcome, running: &RunningJob, started: Instant) {
    loop {
        match state.store.finish(&job.id, outcome) {
            Err(StoreError::NotFound) => return,
            Ok(state) => {
                let (device, step, seconds) = (&running.device, running.step(), started.elapsed().as_secs());
                return tracing::info!(job = %job.id, %state, %device, step, seconds, "job ended");
            }
            Err(error) => tracing::error!(job = %job.id, %error, "cannot store the outcome"),
        }
        if state.is_stopping() {
            return;
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// Messages of the system, in what other processes of a job print.
const DISK_FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Whether an error was caused by a full disk or an exceeded quota.
fn is_disk_full(error: &JobError) -> bool {
    if let JobError::Processes { message } = error
        && DISK_FULL.iter().any(|text| message.contains(text))
    {
        return true;
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if matches!(kind, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_detected_in_nested_errors() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let folder = |source| RunFolderError::Io { path: "x".into(), source };
        let checkpoint = crate::checkpoint::CheckpointError::Io { path: "x".into(), source: full() };
        let weights = dcgan_model::weights::WeightsError::Io { path: "x".into(), source: full() };
        let weights = crate::checkpoint::CheckpointError::from(FolderError::from(weights));
        for (error, expected) in [
            (JobError::from(folder(full())), true),
            (JobError::from(TrainError::from(folder(full()))), true),
            (JobError::from(TrainError::from(checkpoint)), true),
            (JobError::from(TrainError::from(weights)), true),
            (JobError::from(folder(io::Error::from(ErrorKind::PermissionDenied))), false),
            (JobError::from(TrainError::OtherData { difference: String::new() }), false),
        ] {
            assert_eq!(is_disk_full(&error), expected, "{error:?}");
        }
    }
}
