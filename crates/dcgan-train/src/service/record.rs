//! A job as it is written down: what was asked for, where it stands, why it ended.

use serde::Serialize;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// It waits for the device.
    Queued,
    /// The worker trains it.
    Running,
    /// It waits to be resumed.
    Paused,
    /// It was given up; its files stay until it is deleted.
    Cancelled,
    /// It ended before its time, and `error` says why.
    Failed,
    /// All steps were taken.
    Done,
}

impl JobState {
    pub(crate) const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Paused, Self::Cancelled, Self::Failed, Self::Done];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether nothing more happens to the job by itself.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Failed | Self::Done)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a running job becomes once it has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    Paused,
    Cancelled,
}

impl Wanted {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Paused, Self::Cancelled].into_iter().find(|wanted| wanted.name() == name)
    }
}

/// What a user asks of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Pause,
    Resume,
    Cancel,
}

impl Ask {
    pub(crate) fn wish(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
        }
    }
}

/// How the worker let go of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// All steps were taken.
    Done,
    /// It was asked to stop, and everything is on the disk.
    Stopped,
    /// The disk is full; the last checkpoint stands.
    DiskFull(String),
    /// Why it cannot go on.
    Failed(String),
}

/// A job as it is written down.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// Sixteen hexadecimal digits that sort by time; also the name of its run folder.
    pub(crate) id: String,
    pub(crate) state: JobState,
    /// What a running job becomes once it has stopped.
    pub(crate) wanted: Option<Wanted>,
    /// The request's body, JSON.
    pub(crate) options: String,
    /// The resolved plan, TOML: what plan.toml will say.
    pub(crate) plan: String,
    /// Steps up to the last checkpoint.
    pub(crate) step: u64,
    /// Known once the data was opened.
    pub(crate) total_steps: Option<u64>,
    /// Real images read up to the last checkpoint.
    pub(crate) images: u64,
    pub(crate) error: Option<String>,
    pub(crate) created_ms: i64,
    pub(crate) started_ms: Option<i64>,
    pub(crate) ended_ms: Option<i64>,
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// An id that sorts after `last`: the time in microseconds, sixteen hexadecimal digits.
pub(crate) fn next_id(last: Option<&str>) -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let after =
        last.and_then(|last| u64::from_str_radix(last, 16).ok()).map_or(0, |last| last.saturating_add(1));
    format!("{:016x}", now.max(after))
}
