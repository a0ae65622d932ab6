//! Models that can be drawn from, downloaded and started from: those of jobs, and the folders under the model root.

use super::Shared;
use super::paths::Root;
use super::store::StoreError;
use dcgan_model::checkpoints;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Entries of each kind that are listed; a model is found by its id however many there are.
const LISTED: usize = 1000;
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A model in a list.
#[derive(Debug, Serialize)]
pub(crate) struct Entry {
    id: String,
    /// `job` or `folder`.
    source: &'static str,
    /// Name, height, width, channels and latent of its configuration.
    #[serde(flatten)]
    config: Summary,
}

/// What a list says of a model's configuration.
#[derive(Debug, Serialize, serde::Deserialize)]
struct Summary {
    name: String,
    height: usize,
    width: usize,
    channels: usize,
    latent: serde_json::Value,
}

/// Jobs that have a model, newest first, then model folders by name.
pub(crate) fn list(shared: &Shared) -> Result<Vec<Entry>, StoreError> {
    let jobs = shared.store.list(None, None, LISTED as u64)?.into_iter();
    let mut models: Vec<Entry> = jobs
        .filter_map(|job| {
            let config = summary(&best(&shared.run_folder(&job.id))?)?;
            Some(Entry { id: job.id, source: "job", config })
        })
        .collect();
    let folders = shared.model_root.as_ref().map(|root| root.entries(LISTED)).transpose()?;
    for (id, path) in folders.unwrap_or_default() {
        let folder = if path.join("plan.toml").exists() { best(&path) } else { Some(path) };
        if let Some(config) = folder.and_then(|folder| summary(&folder)) {
            models.push(Entry { id, source: "folder", config });
        }
    }
    Ok(models)
}

/// The folder of model `id`: a job's run folder that has a checkpoint, or a model or run folder under the model root.
pub(crate) fn find(shared: &Shared, id: &str) -> Option<PathBuf> {
    if shared.store.get(id).is_ok() {
        let run = shared.run_folder(id);
        return best(&run).map(|_| run);
    }
    let is_name = !id.starts_with('.') && !id.contains(['/', '\\']);
    let path =
        shared.model_root.as_ref().filter(|_| is_name).and_then(|root: &Root| root.resolve(id).ok())?;
    let is_model = path.join("config.json").is_file() || best(&path).is_some();
    is_model.then_some(path)
}

/// The best checkpoint of a run folder, or the newest where none is the best yet.
pub(crate) fn best(run: &Path) -> Option<PathBuf> {
    let folder = run.join("checkpoints");
    if let Ok(best) = std::fs::canonicalize(run.join("best"))
        && best.is_dir()
    {
        return Some(best);
    }
    let newest = checkpoints::list(&folder).ok()?.pop()?;
    Some(folder.join(checkpoints::name(newest)))
}

fn summary(folder: &Path) -> Option<Summary> {
    let file = File::open(folder.join("config.json")).ok()?;
    serde_json::from_reader(file.take(MAX_CONFIG_BYTES)).ok()
}
