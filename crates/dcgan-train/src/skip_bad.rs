//! `--skip-bad`: whether unreadable images are skipped, and how many.

use serde::{Deserialize, Serialize};

/// `false`, `true`, or the most images that may be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected true, false or a number of images")]
pub enum SkipBad {
    /// Whether unreadable images are skipped.
    Flag(bool),
    /// They are skipped up to this number; more stop the run.
    AtMost(u64),
}

impl Default for SkipBad {
    fn default() -> Self {
        Self::Flag(false)
    }
}

impl SkipBad {
    /// Whether unreadable images are skipped.
    pub fn is_on(self) -> bool {
        self != Self::Flag(false)
    }

    /// Maximum number of skipped images.
    pub fn limit(self) -> Option<u64> {
        match self {
            Self::Flag(_) => None,
            Self::AtMost(limit) => Some(limit),
        }
    }
}
