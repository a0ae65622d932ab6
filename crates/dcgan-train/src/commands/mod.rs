//! What each command does.

pub(crate) mod bench;
pub(crate) mod convert;
pub(crate) mod presets;
pub(crate) mod sample;
pub(crate) mod train;

use dcgan_cli::UsageError;
use std::path::Path;

/// Sets the number of threads of the process's pool.
fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads.filter(|threads| !(1..=4096).contains(threads)) {
        return Err(UsageError::one(format!("--threads is {threads}, expected 1 to 4096")).into());
    }
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// Refuses an output whose folder does not exist, before any work is done for it.
fn check_parent(out: &Path) -> Result<(), UsageError> {
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(UsageError::one(format!(
            "--out {}: the folder {} does not exist",
            out.display(),
            folder.display()
        ))),
        _ => Ok(()),
    }
}

/// An error that the user's input caused: exit code 2.
fn usage(error: impl std::fmt::Display) -> UsageError {
    UsageError::one(error.to_string())
}
