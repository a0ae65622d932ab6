//! Errors of the job store.

use crate::service::record::JobState;
use std::io;

/// Why a job was not read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("no such job")]
    NotFound,
    #[error("cannot {action} a {state} job{}", hint(*state, action))]
    Conflict { state: JobState, action: &'static str },
    #[error(
        "the optimizer state of this job was dropped, so it cannot be resumed exactly; start a new job with its id as \
         init_from"
    )]
    OptimizerDropped,
    #[error("the queue is full: {queued} jobs are waiting; try again when some have run")]
    QueueFull { queued: u64 },
    #[error("the disk is full: nothing was changed")]
    DiskFull,
    #[error("database schema {found} was written by a newer version of this program")]
    NewerSchema { found: i64 },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sqlite(rusqlite::Error),
}

/// What to do about a conflict.
fn hint(state: JobState, action: &str) -> &'static str {
    match (state, action) {
        (JobState::Running, "change") => "; pause it first",
        (JobState::Running, _) => "; cancel it first",
        (JobState::Done, "resume") => "; give a greater length to train on: {\"steps\": N}",
        _ => "",
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Sqlite(error),
        }
    }
}
