//! Jobs in SQLite. A job is accepted once its row is on disk; each state transition is one transaction.
//!
//! ```text
//!            submit            claim                     all steps complete
//!   (nothing) ──> queued ───────────────> running ──────────────────────────> done
//!                 │  ▲ ▲                  │ │ └── an error ──> failed ─ resume ─> queued
//!           pause │  │ │ resume           │ └──── stopped; cancel was pending ──> cancelled
//!                 ▼  │ └────── paused <───┘ stopped; pause was pending, or the disk is full
//!              paused┘          │ cancel
//!                               ▼
//!                           cancelled
//! ```
//!
//! A pause or cancel of a running job is stored as its pending state (column `wanted`) and takes effect when the step
//! is finished and its checkpoint written. When the service stops or restarts after a crash, the running job goes back
//! to `queued`, or to its pending state.

use super::disk_reserve::DiskReserve;
use super::record::{Command, Job, JobState, Outcome, PendingState, next_id, now_ms};
pub(crate) use error::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `PRAGMA user_version`.
const VERSION: i64 = 1;

/// Crashes of the service during a job, without a new checkpoint, after which other jobs are claimed first: a job that
/// exhausts the memory must not block the queue.
const MAX_CRASHES: i64 = 5;

/// Name of the placeholder file beside the database.
const RESERVE: &str = ".reserve";

/// Jobs in the cache.
const CACHE_CAPACITY: usize = 256;

// `deaths` counts crashes of the service while the job ran.
const SCHEMA: &str = "
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'cancelled', 'failed', 'done')),
    wanted TEXT CHECK (wanted IN ('paused', 'cancelled')),
    options TEXT NOT NULL,
    plan TEXT NOT NULL,
    step INTEGER NOT NULL DEFAULT 0,
    total_steps INTEGER,
    images INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    deaths INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER,
    ended_ms INTEGER
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, id);
PRAGMA user_version = 1;";

const COLUMNS: &str =
    "id, state, wanted, options, plan, step, total_steps, images, error, created_ms, started_ms, ended_ms";

/// The job store. It has one connection: writes are few, and each waits for the disk anyway.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<Connection>,
    /// Jobs read since the last commit, by id. Filled and cleared with the connection locked, so that no entry is
    /// stale.
    cache: Mutex<HashMap<String, Arc<Job>>>,
    reserve: DiskReserve,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens or creates the database at `path`. Works on a full disk too: jobs are deleted through the service.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`]; SQLite's errors.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Mutex::new(Connection::open(path)?);
        let reserve = DiskReserve::new(path.with_file_name(RESERVE));
        let store = Self { connection, cache: Mutex::default(), reserve };
        match store.prepare() {
            Err(StoreError::DiskFull) if store.reserve.release() => store.prepare()?,
            prepared => prepared?,
        }
        Ok(store)
    }

    fn prepare(&self) -> Result<()> {
        {
            let connection = self.lock();
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // An accepted job survives a power failure.
            connection.pragma_update(None, "synchronous", "FULL")?;
        }
        self.transaction(|tx| match tx.query_row("PRAGMA user_version", [], |row| row.get(0))? {
            0 => Ok(tx.execute_batch(SCHEMA)?),
            VERSION => Ok(()),
            found => Err(StoreError::NewerSchema { found }),
        })
    }

    /// Whether the disk has room for new jobs.
    pub(crate) fn has_room(&self) -> bool {
        // With the connection locked: the attempt briefly uses up the room that is left.
        self.reserve.is_allocated() || {
            let _connection = self.lock();
            self.reserve.allocate()
        }
    }

    /// After an unclean shutdown, moves running jobs to `queued` or to their pending state. Returns their number.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn recover(&self) -> Result<usize> {
        self.transaction_with_reserve(|tx| {
            Ok(tx.execute(
                "UPDATE jobs SET state = coalesce(wanted, 'queued'), wanted = NULL, deaths = deaths + 1,
                 ended_ms = CASE wanted WHEN 'cancelled' THEN ?1 END WHERE state = 'running'",
                [now_ms()],
            )?)
        })
    }

    /// Inserts a queued job. It is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::QueueFull`] if `max_queued` jobs are queued; [`StoreError::DiskFull`]; SQLite's errors.
    pub(crate) fn submit(&self, options: &str, plan: &str, max_queued: u64) -> Result<Job> {
        if !self.has_room() {
            return Err(StoreError::DiskFull);
        }
        self.transaction(|tx| {
            let queued: u64 =
                tx.query_row("SELECT count(*) FROM jobs WHERE state = 'queued'", [], |row| row.get(0))?;
            if queued >= max_queued {
                return Err(StoreError::QueueFull { queued });
            }
            let last: Option<String> = tx.query_row("SELECT max(id) FROM jobs", [], |row| row.get(0))?;
            let id = next_id(last.as_deref());
            tx.execute(
                "INSERT INTO jobs (id, state, options, plan, created_ms) VALUES (?1, 'queued', ?2, ?3, ?4)",
                params![id, options, plan, now_ms()],
            )?;
            select_job(tx, &id)
        })
    }

    /// # Errors
    /// [`StoreError::NotFound`]; SQLite's errors.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Job>> {
        if let Some(job) = self.get_cached(id) {
            return Ok(job);
        }
        let connection = self.lock();
        let job = Arc::new(select_job(&connection, id)?);
        let mut cache = self.cache();
        if cache.len() == CACHE_CAPACITY {
            cache.clear();
        }
        cache.insert(id.to_owned(), Arc::clone(&job));
        Ok(job)
    }

    /// The job if it is in the cache; does not wait for the disk.
    pub(crate) fn get_cached(&self, id: &str) -> Option<Arc<Job>> {
        self.cache().get(id).cloned()
    }

    /// At most `limit` jobs, newest first, older than `before`.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn list(&self, state: Option<JobState>, before: Option<&str>, limit: u64) -> Result<Vec<Job>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM jobs WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR id < ?2)
             ORDER BY id DESC LIMIT ?3"
        ))?;
        let jobs = query.query_map(params![state.map(JobState::name), before, limit], job_from_row)?;
        Ok(jobs.collect::<rusqlite::Result<_>>()?)
    }

    /// The number of jobs in each state.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn counts(&self) -> Result<Vec<(JobState, u64)>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT count(*) FROM jobs WHERE state = ?1")?;
        JobState::ALL
            .into_iter()
            .map(|state| Ok((state, query.query_row([state.name()], |row| row.get(0))?)))
            .collect()
    }

    /// Moves the next queued job to `running` and returns it.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn claim(&self) -> Result<Option<Job>> {
        self.transaction(|tx| {
            let next: Option<String> = tx
                .query_row(
                    "SELECT id FROM jobs WHERE state = 'queued' ORDER BY deaths / ?1, id LIMIT 1",
                    [MAX_CRASHES],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(id) = next else { return Ok(None) };
            tx.execute(
                "UPDATE jobs SET state = 'running', wanted = NULL, error = NULL,
                 started_ms = coalesce(started_ms, ?2) WHERE id = ?1",
                params![id, now_ms()],
            )?;
            select_job(tx, &id).map(Some)
        })
    }

    /// Stores the length of a job, known once its data has been opened.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn set_total_steps(&self, id: &str, total_steps: u64) -> Result<()> {
        self.transaction(|tx| {
            tx.execute("UPDATE jobs SET total_steps = ?2 WHERE id = ?1", params![id, total_steps])?;
            Ok(())
        })
    }

    /// Stores the progress of a job after a checkpoint.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn set_progress(&self, id: &str, step: u64, images: u64) -> Result<()> {
        self.transaction(|tx| {
            tx.execute(
                "UPDATE jobs SET step = ?2, images = ?3, deaths = 0 WHERE id = ?1",
                params![id, step, images],
            )?;
            Ok(())
        })
    }

    /// Moves a running job to the state that follows from the worker's outcome and its pending state.
    ///
    /// # Errors
    /// SQLite's errors; the job then stays `running` until [`Self::recover`].
    pub(crate) fn finish(&self, id: &str, outcome: &Outcome) -> Result<JobState> {
        self.transaction_with_reserve(|tx| {
            let pending = select_job(tx, id)?.pending_state;
            let (state, error) = match (outcome, pending) {
                (Outcome::Done, _) => (JobState::Done, None),
                (Outcome::Failed(error), _) => (JobState::Failed, Some(error)),
                (_, Some(PendingState::Cancelled)) => (JobState::Cancelled, None),
                (Outcome::DiskFull(error), _) => (JobState::Paused, Some(error)),
                (Outcome::Stopped, Some(PendingState::Paused)) => (JobState::Paused, None),
                // The service is stopping, or a pause was withdrawn before it took effect.
                (Outcome::Stopped, None) => (JobState::Queued, None),
            };
            let ended = state.is_final().then(now_ms);
            tx.execute(
                "UPDATE jobs SET state = ?2, wanted = NULL, error = ?3, ended_ms = ?4, deaths = 0 WHERE id = ?1",
                params![id, state.name(), error, ended],
            )?;
            Ok(state)
        })
    }

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
                (Command::Resume, Queued | Paused | Failed) => (Queued, None),
                (Command::Cancel, Queued | Paused | Cancelled) => (Cancelled, None),
                (_, state) => return Err(conflict(state)),
            };
            let ended = state.is_final().then(|| job.ended_ms.unwrap_or_else(now_ms));
            let error = if state == job.state { job.error } else { None };
            tx.execute(
                "UPDATE jobs SET state = ?2, wanted = ?3, error = ?4, ended_ms = ?5, deaths = 0 WHERE id = ?1",
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

    /// Deletes a job that is not running. `move_files` renames its run folder within the transaction and before the row
    /// is deleted: after a crash in between, the folder's name marks it for deletion.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Conflict`]; errors of `move_files` and SQLite.
    pub(crate) fn delete(&self, id: &str, move_files: impl Fn() -> io::Result<()>) -> Result<()> {
        self.transaction_with_reserve(|tx| {
            let state = select_job(tx, id)?.state;
            if state == JobState::Running {
                return Err(StoreError::Conflict { state, action: "delete" });
            }
            move_files()?;
            tx.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This lock is never held while waiting for the disk.
    fn cache(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transaction<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.commit(&mut self.lock(), &body)
    }

    /// A transaction that is retried with the reserve released if the disk is full.
    fn transaction_with_reserve<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        match self.commit(&mut connection, &body) {
            Err(StoreError::DiskFull) if self.reserve.release() => self.commit(&mut connection, &body),
            result => result,
        }
    }

    fn commit<T>(
        &self,
        connection: &mut Connection,
        body: &impl Fn(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = body(&tx)?;
        let committed = tx.commit();
        self.cache().clear();
        committed?;
        Ok(value)
    }
}

fn select_job(connection: &Connection, id: &str) -> Result<Job> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?;
    query.query_row([id], job_from_row).optional()?.ok_or(StoreError::NotFound)
}

fn job_from_row(row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: String = row.get(1)?;
    let wanted: Option<String> = row.get(2)?;
    Ok(Job {
        id: row.get(0)?,
        state: JobState::from_name(&state).unwrap_or(JobState::Failed), // the table's check allows no other name
        pending_state: wanted.and_then(|wanted| PendingState::from_name(&wanted)),
        options: row.get(3)?,
        plan: row.get(4)?,
        step: row.get(5)?,
        total_steps: row.get(6)?,
        images: row.get(7)?,
        error: row.get(8)?,
        created_ms: row.get(9)?,
        started_ms: row.get(10)?,
        ended_ms: row.get(11)?,
    })
}

mod error;
#[cfg(test)]
mod tests;
