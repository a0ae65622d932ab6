//! Checks of options shared by several binaries.

use crate::UsageError;
use std::fmt::Display;
use std::path::Path;

impl UsageError {
    /// A usage error with the message of `error`.
    pub fn because(error: impl Display) -> Self {
        Self::one(error.to_string())
    }
}

/// Sets the size of the global rayon pool (`--threads`). `None` keeps the default, one thread per core.
///
/// # Errors
/// A number outside 1 to 4096; the pool cannot be created.
pub fn set_threads(threads: Option<usize>) -> anyhow::Result<()> {
    if let Some(threads) = threads.filter(|threads| !(1..=4096).contains(threads)) {
        return Err(UsageError::one(format!("--threads is {threads}, expected 1 to 4096")).into());
    }
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// Checks that the parent folder of `--out` exists. Call it before any expensive work.
///
/// # Errors
/// The folder does not exist.
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
