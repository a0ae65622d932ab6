//! Checks of options that several binaries have.

use crate::UsageError;
use std::fmt::Display;
use std::path::Path;

impl UsageError {
    /// An error that the user's input caused.
    pub fn because(error: impl Display) -> Self {
        Self::one(error.to_string())
    }
}

/// Sets the number of threads of the process's pool (`--threads`); one per core where none is given.
///
/// # Errors
/// A number that is not 1 to 4096; a pool that cannot be made.
pub fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads.filter(|threads| !(1..=4096).contains(threads)) {
        return Err(UsageError::one(format!("--threads is {threads}, expected 1 to 4096")).into());
    }
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// Refuses an `--out` whose folder does not exist, before any work is done for it.
///
/// # Errors
/// The folder that is not there.
pub fn check_parent(out: &Path) -> Result<(), UsageError> {
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(UsageError::one(format!(
            "--out {}: the folder {} does not exist",
            out.display(),
            folder.display()
        ))),
        _ => Ok(()),
    }
}
