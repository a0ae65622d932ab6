//! Shared by all binaries of this workspace: logging, progress, signals, exit codes, error printing.
//!
//! stdout carries results ([`print_result`]), stderr carries logs ([`Logging`]) and progress ([`Progress`]).
//! A binary's `main` is [`run`] around a body that returns `anyhow::Result<Outcome>`.

mod arguments;
mod exit;
mod logs;
mod output;
mod progress;
mod signals;

pub use arguments::{check_parent, set_threads};
pub use exit::{Outcome, UsageError, run};
pub use logs::{LogArgs, Logging};
pub use output::print_result;
pub use progress::Progress;
pub use signals::cancel_on_signals;
