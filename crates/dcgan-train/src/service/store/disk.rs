//! Disk space of the jobs, and which of them keep their optimizer state.

use super::{Result, Store};
use crate::service::keep_done::KeepDone;
use crate::service::record::{JobState, now_ms};
use rusqlite::params;
use std::path::Path;

/// Jobs whose disk space `/metrics` lists.
const LISTED: u32 = 50;

/// Disk space of a store, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct DiskUse {
    /// Number and bytes of the jobs in each state.
    pub(crate) states: Vec<(JobState, u64, u64)>,
    /// Ids and bytes of the largest jobs, largest first.
    pub(crate) largest: Vec<(String, u64)>,
    /// The database and the reserve.
    pub(crate) database: u64,
}

impl DiskUse {
    /// Bytes of the whole store.
    pub(crate) fn total(&self) -> u64 {
        self.states.iter().map(|(.., bytes)| bytes).sum::<u64>() + self.database
    }
}

impl Store {
    /// Disk space as last measured.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn disk_use(&self) -> Result<DiskUse> {
        let connection = self.lock();
        let mut of_state = connection
            .prepare_cached("SELECT count(*), coalesce(sum(disk_bytes), 0) FROM jobs WHERE state = ?1")?;
        let states = JobState::ALL.into_iter().map(|state| {
            let (jobs, bytes) = of_state.query_row([state.name()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((state, jobs, bytes))
        });
        let states = states.collect::<Result<_>>()?;
        let mut largest = connection.prepare_cached(
            "SELECT id, disk_bytes FROM jobs WHERE disk_bytes > 0 ORDER BY disk_bytes DESC, id LIMIT ?1",
        )?;
        let rows = largest.query_map([LISTED], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let largest = rows.collect::<rusqlite::Result<_>>()?;
        let path = connection.path().unwrap_or_default();
        let files = [path.to_owned(), format!("{path}-wal"), format!("{path}-shm")];
        let bytes = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        let database = files.iter().map(|path| bytes(Path::new(path))).sum::<u64>() + self.reserve.bytes();
        Ok(DiskUse { states, largest, database })
    }

    /// Jobs that are not running and whose disk space was never measured, at most `limit`.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn unmeasured(&self, limit: u32) -> Result<Vec<String>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached(
            "SELECT id FROM jobs WHERE disk_bytes IS NULL AND state != 'running' ORDER BY id LIMIT ?1",
        )?;
        let ids = query.query_map([limit], |row| row.get(0))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// Done jobs whose optimizer state `policy` drops, oldest first.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn beyond(&self, policy: KeepDone) -> Result<Vec<String>> {
        let connection = self.lock();
        let (jobs, before_ms) = match policy {
            KeepDone::Jobs(jobs) => (jobs, i64::MAX),
            KeepDone::Days(days) => (0, now_ms().saturating_sub(i64::from(days).saturating_mul(86_400_000))),
        };
        let mut query = connection.prepare_cached(
            "SELECT id FROM jobs WHERE state = 'done' AND optimizer_dropped = 0 AND ended_ms < ?2 AND id NOT IN
             (SELECT id FROM jobs WHERE state = 'done' ORDER BY ended_ms DESC, id DESC LIMIT ?1) ORDER BY ended_ms",
        )?;
        let ids = query.query_map(params![jobs, before_ms], |row| row.get(0))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// Jobs whose optimizer state was dropped.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn dropped(&self) -> Result<Vec<String>> {
        let connection = self.lock();
        let mut query =
            connection.prepare_cached("SELECT id FROM jobs WHERE optimizer_dropped = 1 ORDER BY id")?;
        let ids = query.query_map([], |row| row.get(0))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// Ids of the jobs in one of `states`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// SQLite's errors.
    pub(crate) fn in_states(&self, states: &[JobState], limit: usize) -> Result<Vec<String>> {
        let connection = self.lock();
        let mut query = connection.prepare_cached("SELECT id FROM jobs WHERE state = ?1 ORDER BY id")?;
        let mut jobs = Vec::new();
        for state in states {
            let rows = query.query_map([state.name()], |row| row.get(0))?;
            jobs.extend(rows.take(limit - jobs.len().min(limit)).collect::<rusqlite::Result<Vec<_>>>()?);
        }
        Ok(jobs)
    }
}
