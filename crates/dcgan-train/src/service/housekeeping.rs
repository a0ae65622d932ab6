//! The thread that removes files: run folders of deleted jobs, and the optimizer state of done jobs. It also measures
//! the disk space of jobs from before it was stored.

use super::AppState;
use super::disk_use::folder_bytes;
use super::store::StoreError;
use crate::checkpoint::drop_optimizer_state;
use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Interval at which `--keep-done` is applied if no job ends.
const INTERVAL: Duration = Duration::from_secs(60);
/// Jobs measured before deletions get their turn.
const MEASURED: u32 = 100;

/// Run folders to be removed.
#[derive(Debug, Default)]
pub(crate) struct Removals(Mutex<VecDeque<PathBuf>>);

impl Removals {
    pub(crate) fn push(&self, folder: PathBuf) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(folder);
    }

    fn pop(&self) -> Option<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// Works until the service stops. What is left then is done after the next start.
pub(crate) fn run(state: &AppState) {
    // Interrupted by the end of the last process.
    match state.store.dropped() {
        Ok(jobs) => jobs.iter().for_each(|id| remove_optimizer_state(state, id)),
        Err(error) => tracing::warn!(%error, "cannot read the store"),
    }
    let mut seen = 0;
    while !state.is_stopping() {
        while let Some(folder) = state.removals.pop() {
            if let Err(error) = fs::remove_dir_all(&folder) {
                let folder = folder.display();
                tracing::warn!(%folder, %error, "cannot remove the run folder; retried at the next start");
            }
            if state.is_stopping() {
                return;
            }
        }
        if let Err(error) = apply_policy(state).and_then(|()| measure(state)) {
            tracing::warn!(%error, "cannot keep the store in order");
        }
        seen = state.housekeeping_notify.wait(seen, INTERVAL);
    }
}

/// Drops the optimizer state of the jobs beyond `--keep-done`.
fn apply_policy(state: &AppState) -> Result<(), StoreError> {
    let Some(policy) = state.keep_done else { return Ok(()) };
    for id in state.store.beyond(policy)? {
        match state.store.drop_optimizer(&id) {
            Ok(_) => {
                tracing::info!(job = %id, keep_done = %policy, "optimizer state dropped");
                remove_optimizer_state(state, &id);
            }
            // Extended or deleted meanwhile.
            Err(StoreError::Conflict { .. } | StoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the optimizer state of a job that is marked as without one, and measures it again.
pub(crate) fn remove_optimizer_state(state: &AppState, id: &str) {
    let folder = state.run_folder(id);
    match drop_optimizer_state(&folder.join("checkpoints")) {
        Ok(false) => {}
        Ok(true) => measure_job(state, id),
        Err(error) => {
            tracing::warn!(job = %id, %error, "cannot remove the optimizer state; retried at the next start");
        }
    }
}

fn measure(state: &AppState) -> Result<(), StoreError> {
    let jobs = state.store.unmeasured(MEASURED)?;
    jobs.iter().for_each(|id| measure_job(state, id));
    if jobs.len() == MEASURED as usize {
        state.housekeeping_notify.notify();
    }
    Ok(())
}

/// Measures and stores the disk space of a job. Errors are only logged.
pub(crate) fn measure_job(state: &AppState, id: &str) {
    let measured = folder_bytes(&state.run_folder(id)).map_err(StoreError::from);
    if let Err(error) = measured.and_then(|bytes| state.store.set_disk_bytes(id, bytes)) {
        tracing::warn!(job = %id, %error, "cannot measure the disk space");
    }
}
