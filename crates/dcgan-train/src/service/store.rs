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
//! to `queued`, or to its pending state. A done job with a greater length is queued again.

use super::devices::WorkerDevice;
use super::disk_reserve::DiskReserve;
use super::record::{Job, JobState, NewJob, Once, Outcome, PendingState, next_id, now_ms};
pub(crate) use commands::Change;
pub(crate) use error::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
pub(crate) use schema::default_name;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Crashes of the service during a job, without a new checkpoint, after which other jobs are claimed first: a job that
/// exhausts the memory must not block the queue.
const MAX_CRASHES: i64 = 5;

/// Name of the placeholder file beside the database.
const RESERVE: &str = ".reserve";

/// Jobs in the cache.
const CACHE_CAPACITY: usize = 256;

const COLUMNS: &str = "id, state, wanted, options, plan, step, total_steps, images, error, created_ms, started_ms, \
     ended_ms, name, strftime('%Y-%m-%dT%H:%M:%SZ', created_ms / 1000, 'unixepoch'), requested_device, device, \
     dataset_len, disk_bytes, optimizer_dropped, remedy, accept_data_change, skip_again";

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
        self.transaction(schema::prepare)
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
    pub(crate) fn submit(&self, job: &NewJob, max_queued: u64) -> Result<Job> {
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
                "INSERT INTO jobs (id, state, name, options, plan, requested_device, created_ms)
                 VALUES (?1, 'queued', ?2, ?3, ?4, ?5, ?6)",
                params![id, job.name, job.options, job.plan, job.requested_device, now_ms()],
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

    /// Moves the next queued job for a device to `running` and returns it: a job that names no other device, and that
    /// has not run on another kind of device, whose results differ in the last bits. A device that the service no
    /// longer has is ignored.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn claim(&self, device: &WorkerDevice, all: &[WorkerDevice]) -> Result<Option<Job>> {
        let list = |names: Vec<&str>| format!(",{},", names.join(","));
        let choices: Vec<String> = all.iter().map(|device| device.choice.to_string()).collect();
        let choices = list(choices.iter().map(String::as_str).collect());
        let kinds = list(all.iter().map(WorkerDevice::kind).collect());
        // The kind of the device that a job has run on: `cuda` of `cuda:1`.
        let kind = "substr(device, 1, instr(device || ':', ':') - 1)";
        let query = format!(
            "SELECT id FROM jobs WHERE state = 'queued'
             AND (requested_device IS NULL OR requested_device = ?2 OR instr(?3, ',' || requested_device || ',') = 0)
             AND (device IS NULL OR {kind} = ?4 OR instr(?5, ',' || {kind} || ',') = 0)
             ORDER BY deaths / ?1, id LIMIT 1"
        );
        self.transaction(|tx| {
            let next: Option<String> = tx
                .query_row(
                    &query,
                    params![MAX_CRASHES, device.choice.to_string(), choices, device.kind(), kinds],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(id) = next else { return Ok(None) };
            tx.execute(
                "UPDATE jobs SET state = 'running', wanted = NULL, error = NULL, remedy = NULL, device = ?3,
                 started_ms = coalesce(started_ms, ?2) WHERE id = ?1",
                params![id, now_ms(), device.label],
            )?;
            select_job(tx, &id).map(Some)
        })
    }

    /// Stores the length of a job and the number of its images, known once its data has been opened.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn set_length(&self, id: &str, total_steps: u64, dataset_len: u64) -> Result<()> {
        self.transaction(|tx| {
            tx.execute(
                "UPDATE jobs SET total_steps = ?2, dataset_len = ?3 WHERE id = ?1",
                params![id, total_steps, dataset_len],
            )?;
            Ok(())
        })
    }

    /// Stores the progress of a job after a checkpoint, and the bytes of its files if they are known.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn set_progress(&self, id: &str, step: u64, images: u64, disk: Option<u64>) -> Result<()> {
        self.transaction(|tx| {
            tx.execute(
                "UPDATE jobs SET step = ?2, images = ?3, deaths = 0, disk_bytes = coalesce(?4, disk_bytes)
                 WHERE id = ?1",
                params![id, step, images, disk],
            )?;
            Ok(())
        })
    }

    /// Ends what a resumed job does once.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn end_once(&self, id: &str) -> Result<()> {
        self.transaction(|tx| {
            tx.execute("UPDATE jobs SET accept_data_change = 0, skip_again = 0 WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    /// Stores the bytes of a job's files.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn set_disk_bytes(&self, id: &str, bytes: u64) -> Result<()> {
        self.transaction(|tx| {
            tx.execute("UPDATE jobs SET disk_bytes = ?2 WHERE id = ?1", params![id, bytes])?;
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
                (Outcome::Failed { error, .. }, _) => (JobState::Failed, Some(error)),
                (_, Some(PendingState::Cancelled)) => (JobState::Cancelled, None),
                (Outcome::DiskFull(error), _) => (JobState::Paused, Some(error)),
                (Outcome::Stopped, Some(PendingState::Paused)) => (JobState::Paused, None),
                // The service is stopping, or a pause was withdrawn before it took effect.
                (Outcome::Stopped, None) => (JobState::Queued, None),
            };
            let remedy = match outcome {
                Outcome::Failed { remedy: Some(remedy), .. } => serde_json::to_string(remedy).ok(),
                _ => None,
            };
            let ended = state.is_final().then(now_ms);
            // After its end a job is not resumed with the changes of an earlier resume.
            tx.execute(
                "UPDATE jobs SET state = ?2, wanted = NULL, error = ?3, ended_ms = ?4, deaths = 0, remedy = ?5,
                 accept_data_change = accept_data_change AND ?4 IS NULL, skip_again = skip_again AND ?4 IS NULL
                 WHERE id = ?1",
                params![id, state.name(), error, ended, remedy],
            )?;
            Ok(state)
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
    let remedy: Option<String> = row.get(19)?;
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
        name: row.get(12)?,
        created: row.get(13)?,
        requested_device: row.get(14)?,
        device: row.get(15)?,
        dataset_len: row.get(16)?,
        disk_bytes: row.get(17)?,
        optimizer_dropped: row.get(18)?,
        remedy: remedy.and_then(|remedy| serde_json::from_str(&remedy).ok()),
        once: Once { accept_data_change: row.get(20)?, skip_again: row.get(21)? },
    })
}

mod commands;
mod disk;
mod error;
mod schema;
#[cfg(test)]
mod tests;
