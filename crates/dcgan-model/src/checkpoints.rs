//! Where a run's checkpoints lie: `checkpoints/NNNNNNNN`, each a MODEL folder, named by its step.

use crate::FolderError;
use std::fs;
use std::path::{Path, PathBuf};

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

/// The best checkpoint of the run in `run`: the one that the link `best` names; without a link, that of the step that
/// the newest checkpoint records as the best; or else the newest. `None` if there is none.
///
/// # Errors
/// A folder that cannot be read.
pub fn best(run: &Path) -> Result<Option<PathBuf>, FolderError> {
    if let Ok(best) = fs::canonicalize(run.join("best"))
        && best.is_dir()
    {
        return Ok(Some(best));
    }
    let folder = run.join("checkpoints");
    let steps = list(&folder)?;
    let Some(&newest) = steps.last() else { return Ok(None) };
    let path_of = |step: u64| folder.join(name(step));
    let recorded = || -> Option<u64> {
        let state = fs::read(path_of(newest).join("state.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&state).ok()?["best"]["step"].as_u64()
    };
    let step = recorded().filter(|step| steps.contains(step)).unwrap_or(newest);
    Ok(Some(path_of(step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_checkpoint_is_found_without_a_link() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join("checkpoints");
        assert_eq!(best(run.path()).unwrap(), None);
        for step in [10, 20, 30] {
            fs::create_dir_all(folder.join(name(step))).unwrap();
        }
        let found = || best(run.path()).unwrap().unwrap();
        assert_eq!(found(), folder.join(name(30)), "the newest");
        for (text, step) in [(r#"{"best":{"step":20}}"#, 20), (r#"{"best":{"step":7}}"#, 30), ("{", 30)] {
            fs::write(folder.join(name(30)).join("state.json"), text).unwrap();
            assert_eq!(found(), folder.join(name(step)), "{text}");
        }
    }
}
