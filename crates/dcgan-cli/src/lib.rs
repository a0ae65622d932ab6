//! What every binary of this workspace shares: logging, progress, cancellation, exit codes, error printing, whole files.
//!
//! stdout carries results ([`print_result`]), stderr carries logs ([`Logging`]) and progress ([`Progress`]).
//! A binary's `main` is [`run`] around a body that returns `anyhow::Result<Outcome>`.

mod arguments;
mod cancel;
mod exit;
pub mod files;
mod logs;
mod memory;
mod output;
mod progress;

pub use arguments::{check_parent, set_threads};
pub use cancel::Cancel;
pub use exit::{Outcome, UsageError, run};
pub use logs::{LogArgs, Logging};
pub use memory::{machine_memory_bytes, peak_memory_bytes};
pub use output::print_result;
pub use progress::Progress;
