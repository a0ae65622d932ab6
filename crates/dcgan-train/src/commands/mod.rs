//! What each command does.

pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod presets;
pub(crate) mod sample;
pub(crate) mod train;

use dcgan_cli::UsageError;

/// Sets the number of threads of the process's pool.
fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if threads == Some(0) {
        return Err(UsageError::one("--threads is 0, expected at least 1").into());
    }
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// An error that the user's input caused: exit code 2.
fn usage(error: impl std::fmt::Display) -> UsageError {
    UsageError::one(error.to_string())
}
