//! Models of jobs, and model folders below the model root.

use super::AppState;
use super::paths::Root;
use super::store::StoreError;
use dcgan_model::checkpoints;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Limit of listed models of each source; lookup by id has no limit.
const MAX_LISTED: usize = 1000;
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A model in a list.
#[derive(Debug, Serialize)]
pub(crate) struct ModelEntry {
    id: String,
    /// `job` or `folder`.
    source: &'static str,
    /// Name, height, width, channels, latent and classes of its configuration.
    #[serde(flatten)]
    config: ConfigSummary,
    /// Name and date of its job; none for a folder.
    job_name: Option<String>,
    created: Option<String>,
}

/// The part of a model's configuration that lists show.
#[derive(Debug, Serialize, serde::Deserialize)]
struct ConfigSummary {
    name: String,
    height: usize,
    width: usize,
    channels: usize,
    latent: serde_json::Value,
    /// 0 for a model that is not conditional.
    #[serde(default)]
    classes: usize,
    #[serde(default)]
    class_names: Vec<String>,
}

/// Jobs with a checkpoint, newest first, then model folders by name.
pub(crate) fn list(state: &AppState) -> Result<Vec<ModelEntry>, StoreError> {
    let jobs = state.store.list(None, None, MAX_LISTED as u64)?.into_iter();
    let mut models: Vec<ModelEntry> = jobs
        .filter_map(|job| {
            let config = read_summary(&best_checkpoint(&state.run_folder(&job.id))?)?;
            let (job_name, created) = (Some(job.name), Some(job.created));
            Some(ModelEntry { id: job.id, source: "job", config, job_name, created })
        })
        .collect();
    let folders = state.model_root.as_ref().map(|root| root.entries(MAX_LISTED)).transpose()?;
    for (id, path) in folders.unwrap_or_default() {
        let folder = if path.join("plan.toml").exists() { best_checkpoint(&path) } else { Some(path) };
        if let Some(config) = folder.and_then(|folder| read_summary(&folder)) {
            models.push(ModelEntry { id, source: "folder", config, job_name: None, created: None });
        }
    }
    Ok(models)
}

/// The folder of model `id`: the run folder of a job with a checkpoint, or a model or run folder below the model root.
pub(crate) fn find(state: &AppState, id: &str) -> Option<PathBuf> {
    if state.store.get(id).is_ok() {
        let run = state.run_folder(id);
        return best_checkpoint(&run).map(|_| run);
    }
    let is_name = !id.starts_with('.') && !id.contains(['/', '\\']);
    let path = state.model_root.as_ref().filter(|_| is_name).and_then(|root: &Root| root.resolve(id).ok())?;
    let is_model = path.join("config.json").is_file() || best_checkpoint(&path).is_some();
    is_model.then_some(path)
}

/// The best checkpoint of a run folder, if it has one.
pub(crate) fn best_checkpoint(run: &Path) -> Option<PathBuf> {
    checkpoints::best(run).ok().flatten()
}

fn read_summary(folder: &Path) -> Option<ConfigSummary> {
    let file = File::open(folder.join("config.json")).ok()?;
    serde_json::from_reader(file.take(MAX_CONFIG_BYTES)).ok()
}
