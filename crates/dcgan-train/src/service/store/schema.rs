//! The tables of the job store, and the changes from earlier versions.

use super::{Result, StoreError};
use rusqlite::{Transaction, params};

/// `PRAGMA user_version`.
pub(super) const VERSION: i64 = 3;

// `deaths` counts crashes of the service while the job ran.
pub(super) const VERSION_1: &str = "
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
CREATE INDEX jobs_by_state ON jobs (state, id);";

// `requested_device` is the device that the options name, `device` the one that the job runs or ran on.
const VERSION_2: &str = "
ALTER TABLE jobs ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN requested_device TEXT;
ALTER TABLE jobs ADD COLUMN device TEXT;
ALTER TABLE jobs ADD COLUMN dataset_len INTEGER;
ALTER TABLE jobs ADD COLUMN disk_bytes INTEGER;
ALTER TABLE jobs ADD COLUMN optimizer_dropped INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;";

// `remedy` is JSON; `accept_data_change` and `skip_again` are what a resumed job does once.
const VERSION_3: &str = "
ALTER TABLE jobs ADD COLUMN remedy TEXT;
ALTER TABLE jobs ADD COLUMN accept_data_change INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN skip_again INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 3;";

/// Creates the tables, or changes those of an earlier version.
///
/// # Errors
/// [`StoreError::NewerSchema`]; SQLite's errors.
pub(super) fn prepare(tx: &Transaction<'_>) -> Result<()> {
    let found: i64 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(StoreError::NewerSchema { found });
    }
    if found < 1 {
        tx.execute_batch(VERSION_1)?;
    }
    if found < 2 {
        tx.execute_batch(VERSION_2)?;
        name_jobs(tx)?;
    }
    if found < 3 {
        tx.execute_batch(VERSION_3)?;
    }
    Ok(())
}

/// Names the jobs of version 1, which had none.
fn name_jobs(tx: &Transaction<'_>) -> Result<()> {
    let mut query = tx.prepare("SELECT id, options, plan FROM jobs")?;
    let jobs = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    for job in jobs.collect::<rusqlite::Result<Vec<(String, String, String)>>>()? {
        let (id, options, plan) = job;
        let options: serde_json::Value = serde_json::from_str(&options).unwrap_or_default();
        let plan: Option<toml::Table> = toml::from_str(&plan).ok();
        let networks = plan.as_ref().and_then(|plan| plan.get("model")?.get("name")?.as_str());
        let name = default_name(networks.unwrap_or("digits"), options["data"].as_str());
        tx.execute("UPDATE jobs SET name = ?2 WHERE id = ?1", params![id, name])?;
    }
    Ok(())
}

/// The name of a job that was submitted without one, from the name of its networks and that of its data.
pub(crate) fn default_name(networks: &str, data: Option<&str>) -> String {
    format!("{networks} on {}", data.unwrap_or("the embedded digits"))
}
