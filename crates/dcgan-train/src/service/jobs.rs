//! The worker: one thread that owns the device and runs one job after the other through `trainer::run`.
//!
//! A job's run folder is made once and resumed from then on, exactly as `dcgan-train run` and `resume` do it.

use super::Shared;
use super::live::Running;
use super::record::{Job, JobState, Outcome};
use crate::config::Plan;
use crate::error::TrainError;
use crate::event::Event;
use crate::inputs::{self, InputsError};
use crate::run_folder::{Lock, RunFolder, RunFolderError};
use crate::trainer::{self, RunEnd};
use candle_core::Device;
use dcgan_model::{FolderError, checkpoints};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// Between two looks at the queue, should a wake-up be missed; between two tries to write to a full disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Why a job could not be trained to its end.
#[derive(Debug, thiserror::Error)]
enum JobError {
    #[error("{}", .0.to_string())]
    Plan(#[from] toml::de::Error),
    #[error(transparent)]
    Inputs(#[from] InputsError),
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    #[error(transparent)]
    Checkpoints(#[from] FolderError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error("{field}: {problem}")]
    Moved { field: &'static str, problem: String },
    #[error("the threads cannot be made: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Runs queued jobs until the service stops. The running one is left queued, with a checkpoint.
pub(crate) fn work(shared: &Shared, device: &Device) {
    let mut was_full = false;
    while !shared.is_stopping() {
        let is_full = !shared.store.has_room();
        if is_full != was_full {
            was_full = is_full;
            tracing::warn!(
                "the disk {}",
                if is_full { "is full: jobs wait" } else { "has room again: jobs go on" }
            );
        }
        if is_full {
            shared.bell.wait(PAUSE);
            continue;
        }
        match shared.store.claim() {
            Ok(Some(job)) => {
                let running = Running::new(&job.id, job.step);
                shared.live.set(Some(running.clone()));
                shared.feeds.tell(&job.id);
                let outcome = attempt(shared, &job, &running, device);
                settle(shared, &job, &outcome);
                shared.live.set(None);
                shared.feeds.tell(&job.id);
            }
            Ok(None) => shared.bell.wait(PAUSE),
            Err(error) => {
                tracing::error!("the queue cannot be read: {error}");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Trains, and turns every way in which that can end into an outcome.
fn attempt(shared: &Shared, job: &Job, running: &Running, device: &Device) -> Outcome {
    // A pause or cancel may have come after the claim and before `live` could show whose flag to raise.
    if shared.store.get(&job.id).is_ok_and(|job| job.wanted.is_some()) {
        return Outcome::Stopped;
    }
    tracing::info!("job {} begins at step {}", job.id, job.step);
    let trained = catch_unwind(AssertUnwindSafe(|| in_its_threads(shared, job, running, device)));
    match trained {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) if is_disk_full(&error) => {
            let message = format!("the disk is full; make room and resume the job ({error})");
            tracing::error!("job {}: {message}", job.id);
            Outcome::DiskFull(message)
        }
        Ok(Err(error)) => {
            tracing::error!("job {} failed: {error}", job.id);
            Outcome::Failed(error.to_string())
        }
        Err(_) => {
            tracing::error!("job {} failed: a panic, see above", job.id);
            Outcome::Failed("a fault of this program ended the job; the service's log says more".to_owned())
        }
    }
}

/// In a pool of its own where the job says how many threads it wants.
fn in_its_threads(
    shared: &Shared,
    job: &Job,
    running: &Running,
    device: &Device,
) -> Result<Outcome, JobError> {
    let plan: Plan = toml::from_str(&job.plan)?;
    match plan.run.threads {
        None => train(shared, job, &plan, running, device),
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            pool.install(|| train(shared, job, &plan, running, device))
        }
    }
}

fn train(
    shared: &Shared,
    job: &Job,
    plan: &Plan,
    running: &Running,
    device: &Device,
) -> Result<Outcome, JobError> {
    let (folder, plan, _lock) = open_folder(&shared.run_folder(&job.id), plan)?;
    let newest = checkpoints::list(&folder.checkpoints())?.pop().unwrap_or(0);
    let is_new = newest == 0;
    shared.recheck(&plan, is_new).map_err(|(field, problem)| JobError::Moved { field, problem })?;
    let inputs = inputs::open(&plan, device.clone(), is_new)?;
    write_down(|| shared.store.set_length(&job.id, plan.total_steps(inputs.data.len())));
    let batch_size = plan.training.batch_size as u64;
    let mut sink = |event: &Event| {
        match event {
            Event::Step(line) => running.set_line(line),
            // A SIGKILL from here on goes on from this checkpoint.
            Event::Checkpoint { step, .. } => {
                write_down(|| shared.store.set_progress(&job.id, *step, *step * batch_size));
            }
            Event::Sample { .. } => {}
            Event::Alarm { step, message, .. } => tracing::warn!("job {}, step {step}: {message}", job.id),
        }
        shared.feeds.tell(&job.id);
    };
    let mut progress = |step: u64, _total: u64| {
        running.set_step(step);
        shared.metrics.count_images(batch_size);
    };
    let cancelled = || running.is_stopped() || shared.is_stopping();
    match trainer::run(&folder, &plan, inputs, &mut sink, &mut progress, &cancelled)? {
        RunEnd::Finished(result) | RunEnd::AlreadyFinished(result) => {
            write_down(|| shared.store.set_progress(&job.id, result.steps, result.images));
            Ok(Outcome::Done)
        }
        RunEnd::Interrupted { .. } => Ok(Outcome::Stopped),
    }
}

/// The job's run folder: new with `plan`, or as it was left, with the plan it has.
fn open_folder(path: &Path, plan: &Plan) -> Result<(RunFolder, Plan, Lock), RunFolderError> {
    if path.join("plan.toml").exists() {
        let (folder, plan) = RunFolder::open(path)?;
        let lock = folder.lock()?;
        return Ok((folder, plan, lock));
    }
    let folder = RunFolder::create(path)?;
    let lock = folder.lock()?;
    folder.write_plan(plan)?;
    Ok((folder, plan.clone(), lock))
}

/// Progress in the database is a courtesy to readers: the run folder knows better, and training goes on without it.
fn write_down(write: impl Fn() -> Result<(), super::store::StoreError>) {
    if let Err(error) = write() {
        tracing::warn!("progress cannot be written down: {error}");
    }
}

/// Writes down how a job ended. Where that cannot be written it is tried again: the job must not be run twice or forgotten,
/// and a service that dies first finds it running and does what is left, which may be nothing.
fn settle(shared: &Shared, job: &Job, outcome: &Outcome) {
    loop {
        match shared.store.end(&job.id, outcome) {
            Ok(JobState::Failed) | Err(super::store::StoreError::NoJob) => return,
            Ok(state) => return tracing::info!("job {} is {state}", job.id),
            Err(error) => tracing::error!("the end of job {} cannot be written down: {error}", job.id),
        }
        if shared.is_stopping() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether the disk, or the user's share of it, is full.
fn is_disk_full(error: &JobError) -> bool {
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
    fn a_full_disk_is_found_however_deep() {
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
            (JobError::from(TrainError::OtherData), false),
        ] {
            assert_eq!(is_disk_full(&error), expected, "{error:?}");
        }
    }
}
