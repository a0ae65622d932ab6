//! Exit codes and the printing of errors: 0 done, 1 the work failed, 2 wrong usage or configuration,
//! 130 interrupted after a checkpoint.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::logs::FAILURE_TARGET;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const INTERRUPTED: u8 = 130;

/// How a body that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work is complete: exit code 0.
    Done,
    /// A signal stopped the work after its state was saved: exit code 130.
    Interrupted,
}

/// Wrong usage or configuration, every fault listed at once; exit code 2 wherever it stands in the error chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .faults.join("\n"))]
pub struct UsageError {
    /// What is wrong, one sentence each, naming the option and the fix.
    pub faults: Vec<String>,
}

impl UsageError {
    /// A usage error with a single fault.
    pub fn one(fault: impl Into<String>) -> Self {
        Self { faults: vec![fault.into()] }
    }
}

/// Runs the body of the binary `name`, prints its error on stderr, and returns the exit code.
///
/// The error's message comes first, then one line for each cause; a [`UsageError`] lists its faults instead. The
/// same text goes to the log file when there is one ([`crate::Logging::also_to_file`]).
pub fn run(name: &str, body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            if let Some(usage) = error.chain().find_map(|cause| cause.downcast_ref::<clap::Error>()) {
                // clap knows that help belongs on stdout and the rest on stderr.
                let _ = usage.print();
                return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(USAGE));
            }
            let (text, code) = describe(name, &error);
            tracing::error!(target: FAILURE_TARGET, "{text}");
            // Nowhere is left to report a failure of stderr itself.
            let _ = writeln!(io::stderr(), "{text}");
            ExitCode::from(code)
        }
    }
}

/// The text shown for `error` and its exit code.
fn describe(name: &str, error: &anyhow::Error) -> (String, u8) {
    let usage = error.downcast_ref::<UsageError>();
    if let Some(usage) = usage.or_else(|| error.chain().find_map(|cause| cause.downcast_ref())) {
        let lines: Vec<_> = usage.faults.iter().map(|fault| format!("{name}: {fault}")).collect();
        return (format!("{}\n(see `{name} --help`)", lines.join("\n")), USAGE);
    }
    let mut text = format!("{name}: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many library errors already quote their source; saying it twice only hides the message.
        if !shown.contains(&cause) {
            text.push_str(&format!("\n  caused by: {cause}"));
            shown = cause;
        }
    }
    (text, FAILED)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn errors_are_described_once_with_their_code() {
        let io_error = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        let two = UsageError { faults: vec!["--a is wrong".into(), "--b is wrong".into()] };
        let rows: Vec<(anyhow::Error, &str, u8)> = vec![
            (anyhow!("it failed"), "x: it failed", 1),
            (
                Err::<(), _>(io_error()).context("cannot read a.toml").unwrap_err(),
                "x: cannot read a.toml\n  caused by: no such file",
                1,
            ),
            (
                Err::<(), _>(io_error()).context("cannot read: no such file").unwrap_err(),
                "x: cannot read: no such file",
                1,
            ),
            (two.clone().into(), "x: --a is wrong\nx: --b is wrong\n(see `x --help`)", 2),
            (
                anyhow::Error::from(UsageError::one("--a is wrong")).context("wrapped"),
                "x: --a is wrong\n(see `x --help`)",
                2,
            ),
            (
                Err::<(), _>(two).context("outer").context("outermost").unwrap_err(),
                "x: --a is wrong\nx: --b is wrong\n(see `x --help`)",
                2,
            ),
        ];
        for (error, text, code) in rows {
            assert_eq!(describe("x", &error), (text.to_owned(), code));
        }
    }

    #[test]
    fn exit_codes() {
        let rows: Vec<(anyhow::Result<Outcome>, u8)> = vec![
            (Ok(Outcome::Done), 0),
            (Ok(Outcome::Interrupted), 130),
            (Err(anyhow!("failed")), 1),
            (Err(UsageError::one("wrong").into()), 2),
            (Err(clap::Command::new("x").try_get_matches_from(["x", "--no-such"]).unwrap_err().into()), 2),
            (Err(clap::Command::new("x").try_get_matches_from(["x", "--help"]).unwrap_err().into()), 0),
        ];
        for (result, code) in rows {
            assert_eq!(run("x", || result), ExitCode::from(code));
        }
    }
}
