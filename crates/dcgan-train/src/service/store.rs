//! Jobs in SQLite: accepted once they are on the disk, and changed by one transaction for each transition.
//!
//! ```text
//!            submit            claim                     all steps taken
//!   (nothing) ──> queued ───────────────> running ──────────────────────────> done
//!                 │  ▲ ▲                  │ │ └── an error ──> failed ─ resume ─> queued
//!           pause │  │ │ resume           │ └──── stopped; cancel was wanted ──> cancelled
//!                 ▼  │ └────── paused <───┘ stopped; pause was wanted, or the disk is full
//!              paused┘          │ cancel
//!                               ▼
//!                           cancelled
//! ```
//!
//! While a job runs, a pause or cancel is written down as `wanted` and takes effect when the step is finished and its
//! checkpoint written. A service that stops, or is found dead at the next start, puts its job back to `queued`, unless
//! something else was wanted.

use super::record::{Ask, Job, JobState, Outcome, Wanted, next_id, now_ms};
use super::reserve::Reserve;
pub(crate) use error::StoreError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// `PRAGMA user_version`.
const VERSION: i64 = 1;

/// Deaths of the service during a job without a new checkpoint after which other jobs go first: a job that takes the
/// service down with it (memory) must not keep the others from running.
const PATIENCE: i64 = 5;

/// The file, beside the database, that keeps room on the disk.
const RESERVE: &str = ".reserve";

/// Jobs that are known without a look at the disk.
const KNOWN: usize = 256;

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

/// The jobs. One connection: writes are few, and each waits for the disk anyway.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<Connection>,
    /// Jobs that were asked for since the last change, by id: written with the connection locked, so that none is out of date.
    known: Mutex<HashMap<String, Arc<Job>>>,
    reserve: Reserve,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens or makes the database at `path`, also on a full disk: jobs are deleted through the service.
    ///
    /// # Errors
    /// [`StoreError::Newer`]; what SQLite says.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Mutex::new(Connection::open(path)?);
        let reserve = Reserve::new(path.with_file_name(RESERVE));
        let store = Self { connection, known: Mutex::default(), reserve };
        match store.prepare() {
            Err(StoreError::DiskFull) if store.reserve.spend() => store.prepare()?,
            prepared => prepared?,
        }
        Ok(store)
    }

    fn prepare(&self) -> Result<()> {
        {
            let connection = self.lock();
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // An accepted job outlives a power cut.
            connection.pragma_update(None, "synchronous", "FULL")?;
        }
        self.transaction(|tx| match tx.query_row("PRAGMA user_version", [], |row| row.get(0))? {
            0 => Ok(tx.execute_batch(SCHEMA)?),
            VERSION => Ok(()),
            found => Err(StoreError::Newer { found }),
        })
    }

    /// Whether the disk has room for jobs to be taken and begun.
    pub(crate) fn has_room(&self) -> bool {
        // With the connection locked: the try takes what little room there is for a moment.
        self.reserve.is_kept() || {
            let _connection = self.lock();
            self.reserve.keep()
        }
    }

    /// What a service that died left running is queued again, or gets what was wanted of it. How many there were.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn recover(&self) -> Result<usize> {
        self.change(|tx| {
            Ok(tx.execute(
                "UPDATE jobs SET state = coalesce(wanted, 'queued'), wanted = NULL, deaths = deaths + 1,
                 ended_ms = CASE wanted WHEN 'cancelled' THEN ?1 END WHERE state = 'running'",
                [now_ms()],
            )?)
        })
    }

    /// Takes a job; when this returns it is on the disk.
    ///
    /// # Errors
    /// [`StoreError::QueueFull`] where `max_queued` are waiting; [`StoreError::DiskFull`]; what SQLite says.
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
            find(tx, &id)
        })
    }

    /// # Errors
    /// [`StoreError::NoJob`]; what SQLite says.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Job>> {
        if let Some(job) = self.recall(id) {
            return Ok(job);
        }
        let connection = self.lock();
        let job = Arc::new(find(&connection, id)?);
        let mut known = self.known();
        if known.len() == KNOWN {
            known.clear();
        }
        known.insert(id.to_owned(), Arc::clone(&job));
        Ok(job)
    }

    /// The job, where that is known without a look at the disk.
    pub(crate) fn recall(&self, id: &str) -> Option<Arc<Job>> {
        self.known().get(id).cloned()
    }

    /// At most `limit` jobs, newest first, older than `before`.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn list(&self, state: Option<JobState>, before: Option<&str>, limit: u64) -> Result<Vec<Job>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM jobs WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR id < ?2)
             ORDER BY id DESC LIMIT ?3"
        ))?;
        let jobs = query.query_map(params![state.map(JobState::name), before, limit], job)?;
        Ok(jobs.collect::<rusqlite::Result<_>>()?)
    }

    /// How many jobs are in each state.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn counts(&self) -> Result<Vec<(JobState, u64)>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT count(*) FROM jobs WHERE state = ?1")?;
        JobState::ALL
            .into_iter()
            .map(|state| Ok((state, query.query_row([state.name()], |row| row.get(0))?)))
            .collect()
    }

    /// The next queued job, now running.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn claim(&self) -> Result<Option<Job>> {
        self.transaction(|tx| {
            let next: Option<String> = tx
                .query_row(
                    "SELECT id FROM jobs WHERE state = 'queued' ORDER BY deaths / ?1, id LIMIT 1",
                    [PATIENCE],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(id) = next else { return Ok(None) };
            tx.execute(
                "UPDATE jobs SET state = 'running', wanted = NULL, error = NULL,
                 started_ms = coalesce(started_ms, ?2) WHERE id = ?1",
                params![id, now_ms()],
            )?;
            find(tx, &id).map(Some)
        })
    }

    /// How long the job is, once its data was opened.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn set_length(&self, id: &str, total_steps: u64) -> Result<()> {
        self.transaction(|tx| {
            tx.execute("UPDATE jobs SET total_steps = ?2 WHERE id = ?1", params![id, total_steps])?;
            Ok(())
        })
    }

    /// A checkpoint of the job is on the disk.
    ///
    /// # Errors
    /// What SQLite says.
    pub(crate) fn set_progress(&self, id: &str, step: u64, images: u64) -> Result<()> {
        self.transaction(|tx| {
            tx.execute(
                "UPDATE jobs SET step = ?2, images = ?3, deaths = 0 WHERE id = ?1",
                params![id, step, images],
            )?;
            Ok(())
        })
    }

    /// The worker let go of a running job.
    ///
    /// # Errors
    /// What SQLite says; the job stays running, and is found so at the next start.
    pub(crate) fn end(&self, id: &str, outcome: &Outcome) -> Result<JobState> {
        self.change(|tx| {
            let wanted = find(tx, id)?.wanted;
            let (state, error) = match (outcome, wanted) {
                (Outcome::Done, _) => (JobState::Done, None),
                (Outcome::Failed(error), _) => (JobState::Failed, Some(error)),
                (_, Some(Wanted::Cancelled)) => (JobState::Cancelled, None),
                (Outcome::DiskFull(error), _) => (JobState::Paused, Some(error)),
                (Outcome::Stopped, Some(Wanted::Paused)) => (JobState::Paused, None),
                // The service stops, or a pause was taken back before it took effect.
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

    /// Pauses, resumes or cancels. A running job is asked to stop: the caller raises its flag.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Conflict`]; [`StoreError::DiskFull`] for a resume, which needs room; what SQLite says.
    pub(crate) fn ask(&self, id: &str, ask: Ask) -> Result<Job> {
        use JobState::{Cancelled, Failed, Paused, Queued, Running};
        let change = |tx: &Transaction<'_>| {
            let job = find(tx, id)?;
            let (state, wanted) = match (ask, job.state) {
                // A cancel stands, whatever comes after it.
                (Ask::Pause | Ask::Resume, Running) if job.wanted == Some(Wanted::Cancelled) => {
                    return Err(StoreError::Conflict { state: Cancelled, wish: ask.wish() });
                }
                (Ask::Pause, Running) => (Running, Some(Wanted::Paused)),
                (Ask::Cancel, Running) => (Running, Some(Wanted::Cancelled)),
                (Ask::Pause, Queued | Paused) => (Paused, None),
                (Ask::Resume, Running) => (Running, None),
                (Ask::Resume, Queued | Paused | Failed) => (Queued, None),
                (Ask::Cancel, Queued | Paused | Cancelled) => (Cancelled, None),
                (_, state) => return Err(StoreError::Conflict { state, wish: ask.wish() }),
            };
            let ended = state.is_final().then(|| job.ended_ms.unwrap_or_else(now_ms));
            let error = if state == job.state { job.error } else { None };
            tx.execute(
                "UPDATE jobs SET state = ?2, wanted = ?3, error = ?4, ended_ms = ?5, deaths = 0 WHERE id = ?1",
                params![id, state.name(), wanted.map(Wanted::name), error, ended],
            )?;
            find(tx, id)
        };
        match ask {
            Ask::Resume if !self.has_room() => Err(StoreError::DiskFull),
            Ask::Resume => self.transaction(change),
            Ask::Pause | Ask::Cancel => self.change(change),
        }
    }

    /// Forgets a job that does not run. `put_aside` takes its files away, while nothing else can happen to the job; it is
    /// called first, so that a crash in between leaves files that say by their name that they are to go.
    ///
    /// # Errors
    /// [`StoreError::NoJob`], [`StoreError::Conflict`]; what `put_aside` and SQLite say.
    pub(crate) fn delete(&self, id: &str, put_aside: impl Fn() -> io::Result<()>) -> Result<()> {
        self.change(|tx| {
            let state = find(tx, id)?.state;
            if state == JobState::Running {
                return Err(StoreError::Conflict { state, wish: "deleted; cancel it first" });
            }
            put_aside()?;
            tx.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held for a moment only, never for the disk.
    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transaction<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.commit(&mut self.lock(), &body)
    }

    /// A transaction that takes place on a full disk too, if need be in the room that is kept for it.
    fn change<T>(&self, body: impl Fn(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.lock();
        match self.commit(&mut connection, &body) {
            Err(StoreError::DiskFull) if self.reserve.spend() => self.commit(&mut connection, &body),
            done => done,
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
        self.known().clear();
        committed?;
        Ok(value)
    }
}

fn find(connection: &Connection, id: &str) -> Result<Job> {
    let mut query = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM jobs WHERE id = ?1"))?;
    query.query_row([id], job).optional()?.ok_or(StoreError::NoJob)
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: String = row.get(1)?;
    let wanted: Option<String> = row.get(2)?;
    Ok(Job {
        id: row.get(0)?,
        state: JobState::named(&state).unwrap_or(JobState::Failed), // the table's check lets nothing else in
        wanted: wanted.and_then(|wanted| Wanted::named(&wanted)),
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
