//! Where a run's checkpoints lie: `checkpoints/NNNNNNNN`, each a MODEL folder, named by its step.

use crate::FolderError;
use std::fs;
use std::path::Path;

/// The folder name of the checkpoint at `step`.
pub fn name(step: u64) -> String {
    format!("{step:08}")
}

/// Steps of the checkpoints under `folder`, rising; unfinished ones are not among them.
///
/// # Errors
/// A folder that cannot be read.
pub fn list(folder: &Path) -> Result<Vec<u64>, FolderError> {
    let failed = |source| FolderError::Io { path: folder.into(), source };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut steps = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let step = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok());
        steps.extend(step.filter(|&step| entry.file_name() == *name(step)));
    }
    steps.sort_unstable();
    Ok(steps)
}
