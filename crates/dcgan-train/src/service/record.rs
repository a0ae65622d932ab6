//! A job as stored in the database.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum JobState {
    /// Waits for the device.
    Queued,
    /// The worker trains it.
    Running,
    /// Waits to be resumed.
    Paused,
    /// Stopped for good; its files stay until it is deleted.
    Cancelled,
    /// Ended early; `error` has the reason.
    Failed,
    /// All steps are complete.
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

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the state changes only by a command.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Failed | Self::Done)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// State that a running job enters once it has stopped. Column and JSON key `wanted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PendingState {
    Paused,
    Cancelled,
}

impl PendingState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Paused, Self::Cancelled].into_iter().find(|state| state.name() == name)
    }
}

/// A user's command to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Pause,
    Resume,
    Cancel,
}

impl Command {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
        }
    }
}

/// How the worker's run of a job ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// All steps are complete.
    Done,
    /// Stopped on request, with a checkpoint.
    Stopped,
    /// The disk is full; the last checkpoint is valid.
    DiskFull(String),
    /// Training failed, with the reason.
    Failed { error: String, remedy: Option<Remedy> },
}

/// An option of a resume with which a failed job gets past its error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remedy {
    /// `accept_data_change` or `skip_bad`, to be set to true.
    pub(crate) option: String,
    /// What the option changes.
    pub(crate) effect: String,
}

/// What a resumed job does once, until it has recorded the images that it continues with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Once {
    /// It accepts other images than those that it has trained on.
    pub(crate) accept_data_change: bool,
    /// It looks for unreadable images again, and skips them.
    pub(crate) skip_again: bool,
}

/// A row of the table `jobs`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// Sixteen hexadecimal digits that sort by time; also the name of its run folder.
    pub(crate) id: String,
    pub(crate) state: JobState,
    /// Set while a running job has been told to stop.
    pub(crate) pending_state: Option<PendingState>,
    /// The request's body, JSON.
    pub(crate) options: String,
    /// The resolved plan, TOML; becomes plan.toml.
    pub(crate) plan: String,
    /// Steps up to the last checkpoint.
    pub(crate) step: u64,
    /// Known once the data has been opened.
    pub(crate) total_steps: Option<u64>,
    /// Real images read up to the last checkpoint.
    pub(crate) images: u64,
    pub(crate) error: Option<String>,
    /// Of a failed job.
    pub(crate) remedy: Option<Remedy>,
    pub(crate) once: Once,
    pub(crate) created_ms: i64,
    pub(crate) started_ms: Option<i64>,
    pub(crate) ended_ms: Option<i64>,
    /// As given, or that of its networks and data.
    pub(crate) name: String,
    /// `created_ms` as text: `2026-01-31T12:34:56Z`.
    pub(crate) created: String,
    /// The device that the options name; none for any.
    pub(crate) requested_device: Option<String>,
    /// Label of the device that the job runs or ran on.
    pub(crate) device: Option<String>,
    /// Images in the dataset, known once it has been opened.
    pub(crate) dataset_len: Option<u64>,
    /// Bytes of its files when they were last measured.
    pub(crate) disk_bytes: Option<u64>,
    /// Whether the optimizer state of its checkpoints was removed: then it cannot be resumed.
    pub(crate) optimizer_dropped: bool,
}

/// A job to be submitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewJob {
    pub(crate) name: String,
    /// The request's body, JSON.
    pub(crate) options: String,
    /// The resolved plan, TOML.
    pub(crate) plan: String,
    pub(crate) requested_device: Option<String>,
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// An id that sorts after `last`: the Unix time in microseconds as sixteen hexadecimal digits.
pub(crate) fn next_id(last: Option<&str>) -> String {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let after =
        last.and_then(|last| u64::from_str_radix(last, 16).ok()).map_or(0, |last| last.saturating_add(1));
    format!("{:016x}", now.max(after))
}
