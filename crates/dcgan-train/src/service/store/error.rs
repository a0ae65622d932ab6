//! Why a job could not be read or changed.

use crate::service::record::JobState;
use std::io;

/// Why a job could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("there is no such job")]
    NoJob,
    #[error("the job is {state}: it cannot be {wish}")]
    Conflict { state: JobState, wish: &'static str },
    #[error("{queued} jobs are waiting, and no more are taken until some have run")]
    QueueFull { queued: u64 },
    #[error("the disk is full: nothing was changed")]
    DiskFull,
    #[error("written by a newer version of this program (format {found})")]
    Newer { found: i64 },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            _ => Self::Sqlite(error),
        }
    }
}
