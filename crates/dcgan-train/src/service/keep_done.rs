//! `--keep-done`: how long done jobs keep their optimizer state.

use std::fmt;
use std::str::FromStr;

/// Which done jobs keep their optimizer state, without which a job cannot be resumed exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepDone {
    /// The newest of this number.
    Jobs(u32),
    /// Those that ended in the last days.
    Days(u32),
}

impl FromStr for KeepDone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.strip_suffix('d') {
            Some(days) => days.parse().map(Self::Days),
            None => text.parse().map(Self::Jobs),
        };
        parsed.map_err(|_| format!("{text:?} is neither a number of jobs (20) nor of days (30d)"))
    }
}

impl fmt::Display for KeepDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jobs(jobs) => write!(f, "{jobs}"),
            Self::Days(days) => write!(f, "{days}d"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for (text, expected) in [
            ("20", Some(KeepDone::Jobs(20))),
            ("0", Some(KeepDone::Jobs(0))),
            ("30d", Some(KeepDone::Days(30))),
            ("", None),
            ("d", None),
            ("-1", None),
            ("1.5d", None),
            ("30 days", None),
        ] {
            let parsed = text.parse::<KeepDone>().ok();
            assert_eq!(parsed, expected, "{text}");
            assert!(parsed.is_none_or(|policy| policy.to_string() == text));
        }
    }
}
