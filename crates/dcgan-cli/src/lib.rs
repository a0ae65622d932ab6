//! Shared by all binaries of this workspace: logging, progress, signals, exit codes, error printing.
//!
//! stdout carries results ([`Results`]), stderr carries logs ([`Logging`]) and progress ([`Progress`]).
//! A binary's `main` is [`run`] around a body that returns `anyhow::Result<Outcome>`.
//!
//! ```
//! use dcgan_cli::UsageError;
//!
//! // Every error of a command line at once; `run` prints it and exits with 2.
//! let error = UsageError::one("--n is 0, expected at least 1");
//! assert!(error.to_string().contains("--n is 0"));
//! ```

mod arguments;
mod exit;
mod logs;
mod output;
mod outputs;
mod progress;
mod signals;

pub use arguments::{check_new_folder, check_output, integer, set_threads, try_parse, wrong_extension};
pub use exit::{Outcome, ReportedElsewhere, UsageError, exit_code, report, run};
pub use logs::{LogArgs, Logging};
pub use output::{Results, print_result};
pub use outputs::{OutputFile, check_outputs};
pub use progress::Progress;
pub use signals::cancel_on_signals;
