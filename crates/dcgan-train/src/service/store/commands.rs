//! Commands of users to a job: pause, resume, cancel, extend, drop the optimizer state, delete.

use super::{Result, Store, StoreError, select_job};
use crate::service::record::{Command, Job, JobState, Once, PendingState, now_ms};
use rusqlite::{Transaction, params};
use std::io;

/// New options of a job that is resumed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// JSON.
    pub(crate) options: String,
    /// TOML.
    pub(crate) plan: String,
    pub(crate) requested_device: Option<String>,
    /// None if it depends on data that has not been opened.
    pub(crate) total_steps: Option<u64>,
    pub(crate) once: Once,
}

impl Store {
    /// Pauses, resumes or cancels a job. For a running job only the pending state is stored; the caller sets its stop
    /// flag.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`]; [`StoreError::DiskFull`] for a resume, which needs room;
    /// SQLite's errors.
    pub(crate) fn apply(&self, id: &str, command: Command) -> Result<Job> {
        use JobState::{Cancelled, Failed, Paused, Queued, Running};
        let change = |tx: &Transaction<'_>| {
            let job = select_job(tx, id)?;
            let conflict = |state| StoreError::Conflict { state, action: command.name() };
            let (state, pending) = match (command, job.state) {
                // A pending cancel is not withdrawn.
                (Command::Pause | Command::Resume, Running)
                    if job.pending_state == Some(PendingState::Cancelled) =>
                {
                    return Err(conflict(Cancelled));
                }
                (Command::Pause, Running) => (Running, Some(PendingState::Paused)),
                (Command::Cancel, Running) => (Running, Some(PendingState::Cancelled)),
                (Command::Pause, Queued | Paused) => (Paused, None),
                (Command::Resume, Running) => (Running, None),
                (Command::Resume, _) if job.optimizer_dropped => return Err(StoreError::OptimizerDropped),
                (Command::Resume, Queued | Paused | Failed) => (Queued, None),
                (Command::Cancel, Queued | Paused | Cancelled) => (Cancelled, None),
                (_, state) => return Err(conflict(state)),
            };
            let ended = state.is_final().then(|| job.ended_ms.unwrap_or_else(now_ms));
            let error = if state == job.state { job.error } else { None };
            // Only a failed job has a remedy; its state changes.
            tx.execute(
                "UPDATE jobs SET state = ?2, wanted = ?3, error = ?4, ended_ms = ?5, deaths = 0, remedy = NULL
                 WHERE id = ?1",
                params![id, state.name(), pending.map(PendingState::name), error, ended],
            )?;
            select_job(tx, id)
        };
        match command {
            Command::Resume if !self.has_room() => Err(StoreError::DiskFull),
            Command::Resume => self.transaction(change),
            Command::Pause | Command::Cancel => self.transaction_with_reserve(change),
        }
    }

    /// Queues a job that is not running with new options, usually a greater length. `write_plan` writes the plan of its
    /// run folder, if it has one, before the row changes: after a crash in between, the job is in its former state.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`], [`StoreError::OptimizerDropped`], [`StoreError::DiskFull`];
    /// errors of `write_plan` and SQLite.
    pub(crate) fn resume_with(
        &self,
        id: &str,
        change: &Change,
        write_plan: impl Fn() -> io::Result<()>,
    ) -> Result<Job> {
        if !self.has_room() {
            return Err(StoreError::DiskFull);
        }
        self.transaction(|tx| {
            let job = select_job(tx, id)?;
            if matches!(job.state, JobState::Running | JobState::Cancelled) {
                return Err(StoreError::Conflict { state: job.state, action: "change" });
            }
            if job.optimizer_dropped {
                return Err(StoreError::OptimizerDropped);
            }
            write_plan()?;
            tx.execute(
                // A job for which another kind of device is requested does not wait for the kind that it ran on.
                "UPDATE jobs SET state = 'queued', error = NULL, remedy = NULL, ended_ms = NULL, deaths = 0,
                 device = CASE WHEN substr(device, 1, instr(device || ':', ':') - 1)
                     <> substr(?4, 1, instr(?4 || ':', ':') - 1) THEN NULL ELSE device END,
                 options = ?2, plan = ?3, requested_device = ?4, total_steps = ?5,
                 accept_data_change = accept_data_change OR ?6, skip_again = skip_again OR ?7 WHERE id = ?1",
                params![
                    id,
                    change.options,
                    change.plan,
                    change.requested_device,
                    change.total_steps,
                    change.once.accept_data_change,
                    change.once.skip_again
                ],
            )?;
            select_job(tx, id)
        })
    }

    /// Marks the optimizer state of a job as dropped; its files are removed afterwards. From then on the job cannot be
    /// resumed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] for a job that is neither done nor cancelled; SQLite's
    /// errors.
    pub(crate) fn drop_optimizer(&self, id: &str) -> Result<Job> {
        self.transaction_with_reserve(|tx| {
            let job = select_job(tx, id)?;
            if !matches!(job.state, JobState::Done | JobState::Cancelled) {
                return Err(StoreError::Conflict { state: job.state, action: "drop the optimizer state of" });
            }
            tx.execute("UPDATE jobs SET optimizer_dropped = 1 WHERE id = ?1", [id])?;
            select_job(tx, id)
        })
    }

    /// Deletes a job that is not running. `move_files` renames its run folder within the transaction and before the row
    /// is deleted: after a crash in between, the folder's name marks it for deletion.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`]; errors of `move_files` and SQLite.
    pub(crate) fn delete(&self, id: &str, move_files: impl Fn() -> io::Result<()>) -> Result<Job> {
        self.transaction_with_reserve(|tx| {
            let job = select_job(tx, id).and_then(deletable)?;
            move_files()?;
            tx.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
            Ok(job)
        })
    }

    /// The job, if it can be deleted now.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`]; SQLite's errors.
    pub(crate) fn check_delete(&self, id: &str) -> Result<Job> {
        deletable(select_job(&self.lock(), id)?)
    }
}

fn deletable(job: Job) -> Result<Job> {
    match job.state {
        JobState::Running => Err(StoreError::Conflict { state: job.state, action: "delete" }),
        _ => Ok(job),
    }
}
