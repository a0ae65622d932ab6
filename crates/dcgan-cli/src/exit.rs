//! Exit codes and error printing: 0 done, 1 failed, 2 usage or configuration error, 130 interrupted after a checkpoint.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::logs::FAILURE_TARGET;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const INTERRUPTED: u8 = 130;

/// How a successful command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command completed: exit code 0.
    Done,
    /// A signal stopped the command after its state was saved: exit code 130.
    Interrupted,
}

/// A usage or configuration error that lists all faults. The exit code is 2, wherever it is in the error chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .faults.join("\n"))]
pub struct UsageError {
    /// One message per fault. Each names the option and the fix.
    pub faults: Vec<String>,
}

impl UsageError {
    /// A usage error with a single fault.
    pub fn one(fault: impl Into<String>) -> Self {
        Self { faults: vec![fault.into()] }
    }
}

/// An error that another process of the same command prints. This one prints nothing and exits with `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("another process failed; its own message says why")]
pub struct ReportedElsewhere {
    /// The exit code of that process.
    pub code: u8,
}

/// What messages call this process, where several run one command.
static PROCESS: OnceLock<String> = OnceLock::new();

/// Sets what messages call this process, where several run one command. The first name stays.
pub(crate) fn set_process_name(name: &str) {
    let _ = PROCESS.set(name.to_owned());
}

pub(crate) fn process_name() -> Option<&'static str> {
    PROCESS.get().map(String::as_str)
}

/// The exit code of a command that ends with `error`.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(elsewhere) = error.downcast_ref::<ReportedElsewhere>() {
        return elsewhere.code;
    }
    if error.chain().any(|cause| cause.is::<UsageError>()) { USAGE } else { FAILED }
}

/// Runs `body`, the main function of the binary `name`, prints its error to stderr, and returns the exit code.
///
/// The output is the error message and one line per cause, or all faults of a [`UsageError`]. The same text goes to the
/// log file, if there is one ([`crate::Logging::also_to_file`]).
pub fn run(name: &str, body: impl FnOnce() -> anyhow::Result<Outcome>) -> ExitCode {
    match body() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            if let Some(ReportedElsewhere { code }) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            if let Some(usage) = error.chain().find_map(|cause| cause.downcast_ref::<clap::Error>()) {
                // clap prints help to stdout and errors to stderr.
                let _ = usage.print();
                return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(USAGE));
            }
            ExitCode::from(report(name, &error))
        }
    }
}

/// Prints `error` of the binary `name` as [`run`] does; returns the exit code.
pub fn report(name: &str, error: &anyhow::Error) -> u8 {
    let name = process_name().map_or_else(|| name.to_owned(), |process| format!("{name} ({process})"));
    let (text, code) = describe(&name, error);
    tracing::error!(target: FAILURE_TARGET, "{text}");
    // One write, so that lines of other processes stay whole. A failure to write to stderr cannot be reported.
    let _ = io::stderr().write_all((text + "\n").as_bytes());
    code
}

/// The message for `error` and its exit code.
fn describe(name: &str, error: &anyhow::Error) -> (String, u8) {
    let usage = error.downcast_ref::<UsageError>();
    if let Some(usage) = usage.or_else(|| error.chain().find_map(|cause| cause.downcast_ref())) {
        let lines: Vec<_> = usage.faults.iter().map(|fault| format!("{name}: {fault}")).collect();
        let program = name.split(' ').next().unwrap_or(name);
        return (format!("{}\n(see `{program} --help`)", lines.join("\n")), USAGE);
    }
    let mut text = format!("{name}: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many library errors already include the message of their source.
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
    fn each_cause_is_printed_once_and_determines_the_exit_code() {
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
            (Err(ReportedElsewhere { code: 2 }.into()), 2),
            (Err(clap::Command::new("x").try_get_matches_from(["x", "--no-such"]).unwrap_err().into()), 2),
            (Err(clap::Command::new("x").try_get_matches_from(["x", "--help"]).unwrap_err().into()), 0),
        ];
        // Another test reads what is logged.
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
            for (result, code) in rows {
                assert_eq!(run("x", || result), ExitCode::from(code));
            }
        });
    }
}
