//! What handlers, the worker and the drawing thread share: the store, the roots, flags and bells.

use super::draw::{self, Easel};
use super::feed::Feeds;
use super::limits;
use super::live::Live;
use super::metrics::Metrics;
use super::models;
use super::paths::Root;
use super::store::{Store, StoreError};
use super::{ServiceError, Settings};
use crate::config::Plan;
use crate::inputs;
use candle_core::Device;
use dcgan_base::files;
use dcgan_model::DeviceChoice;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// A run folder that is to be removed: its job is deleted, or about to be.
const DELETED: &str = ".deleted-";

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) live: Live,
    pub(crate) bell: Bell,
    pub(crate) metrics: Metrics,
    pub(crate) easel: Easel,
    pub(crate) device: Device,
    pub(crate) token: Option<String>,
    pub(crate) allow_origin: Option<String>,
    pub(crate) max_queued: u64,
    pub(crate) data_root: Option<Root>,
    pub(crate) model_root: Option<Root>,
    /// `STORE/runs`
    pub(crate) runs: Root,
    /// Events for those who follow a job.
    pub(crate) feeds: Feeds,
    /// Connections take one each, and readers of events one of these.
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    /// Downloads of models take one each.
    pub(crate) downloads: Arc<Semaphore>,
    /// Requests for samples take one each, until their images have been sent.
    pub(crate) draws: Arc<Semaphore>,
    device_choice: DeviceChoice,
    stopping: watch::Sender<bool>,
    /// Held while this process works on the store.
    _lock: File,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ServiceError + '_ {
    |source| ServiceError::Io { path: path.into(), source }
}

impl Shared {
    pub(crate) fn open(settings: &Settings) -> Result<Self, ServiceError> {
        let root = |path: &PathBuf| Root::open(path).map_err(io_error(path));
        let data_root = settings.data_root.as_ref().map(root).transpose()?;
        let device = inputs::device(&settings.device.to_string())?;
        let folder = &settings.store;
        let runs = folder.join("runs");
        fs::create_dir_all(&runs).map_err(io_error(&runs))?;
        let lock = lock(folder)?;
        let database = folder.join("jobs.sqlite");
        let failed =
            |error: StoreError| ServiceError::Store { path: database.clone(), problem: error.to_string() };
        let store = Store::open(&database).map_err(failed)?;
        files::sync_names(folder).map_err(io_error(folder))?;
        let runs = root(&runs)?;
        finish_deletions(&store, &runs).map_err(failed)?;
        let found = store.recover().map_err(failed)?;
        if found > 0 {
            tracing::warn!(
                "the service did not end in peace: {found} running job(s) go on from their last checkpoint"
            );
        }
        let connections = limits::connections();
        Ok(Self {
            store,
            live: Live::default(),
            bell: Bell::default(),
            metrics: Metrics::default(),
            easel: draw::easel().map_err(ServiceError::Runtime)?,
            device,
            token: settings.token.clone(),
            allow_origin: settings.allow_origin.clone(),
            max_queued: settings.max_queued,
            data_root,
            model_root: Root::open(&settings.model_root).ok(),
            runs,
            feeds: Feeds::default(),
            connections: Arc::new(Semaphore::new(connections)),
            streams: Arc::new(Semaphore::new(connections / 2)),
            downloads: Arc::new(Semaphore::new(limits::DOWNLOADS)),
            draws: Arc::new(Semaphore::new(limits::DRAWS)),
            device_choice: settings.device,
            stopping: watch::Sender::new(false),
            _lock: lock,
        })
    }

    pub(crate) fn run_folder(&self, id: &str) -> PathBuf {
        self.runs.path().join(id)
    }

    /// Where a job's files go before they are removed.
    pub(crate) fn deleted_folder(&self, id: &str) -> PathBuf {
        self.runs.path().join(format!("{DELETED}{id}"))
    }

    pub(crate) fn device_choice(&self) -> DeviceChoice {
        self.device_choice
    }

    /// The service's device, where a job asks for it or for any.
    pub(crate) fn check_device(&self, name: &str) -> Result<DeviceChoice, String> {
        let own = self.device_choice;
        let choice: DeviceChoice = name.parse()?;
        let is_own = choice == own || (choice == DeviceChoice::Cpu && self.device.is_cpu());
        if choice == DeviceChoice::Auto || is_own {
            Ok(own)
        } else {
            Err(format!("device is {name}, this service trains on {own}"))
        }
    }

    /// The dataset `name` below the data root.
    pub(crate) fn find_data(&self, name: &str) -> Result<PathBuf, String> {
        let Some(root) = &self.data_root else {
            return Err("the service was started without --data-root: leave data out".to_owned());
        };
        root.resolve(name).map_err(|fault| format!("data {fault}"))
    }

    /// The model `id`, to start from.
    pub(crate) fn find_model(&self, id: &str) -> Result<PathBuf, String> {
        models::find(self, id).ok_or_else(|| format!("init_from {id:?} is no model, see GET /v1/models"))
    }

    /// Whether what a plan names still lies below the roots; which field does not, and why.
    pub(crate) fn recheck(&self, plan: &Plan, with_init: bool) -> Result<(), (&'static str, String)> {
        let below = |root: &Option<Root>, path: &Path| {
            let root = root.as_ref().ok_or_else(|| "the service was started without its root".to_owned())?;
            let name = path.strip_prefix(root.path()).unwrap_or(path).to_string_lossy().into_owned();
            match root.resolve(&name).map_err(|fault| fault.to_string())? {
                found if found == path => Ok(()),
                _ => Err(format!("{name:?} leads elsewhere than when the job was accepted")),
            }
        };
        if let Some(path) = &plan.run.data {
            below(&self.data_root, path).map_err(|problem| ("data", problem))?;
        }
        if let Some(path) = plan.run.init_from.as_ref().filter(|_| with_init) {
            let root = if path.starts_with(self.runs.path()) { Some(self.runs.clone()) } else { None };
            below(&root.or(self.model_root.clone()), path).map_err(|problem| ("init_from", problem))?;
        }
        Ok(())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Stops everything at its next safe place.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        self.bell.ring();
    }

    /// Hears that the service stops.
    pub(crate) fn stops(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}

/// Takes the store for this process until the file is closed (also by a crash).
fn lock(folder: &Path) -> Result<File, ServiceError> {
    let path = folder.join(".lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(ServiceError::Busy { path: folder.into() }),
        Err(fs::TryLockError::Error(source)) => Err(ServiceError::Io { path, source }),
    }
}

/// What a killed service had begun to delete.
fn finish_deletions(store: &Store, runs: &Root) -> Result<(), StoreError> {
    for entry in fs::read_dir(runs.path())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(DELETED)) else { continue };
        match store.delete(id, || Ok(())) {
            Ok(()) | Err(StoreError::NoJob) => fs::remove_dir_all(entry.path())?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Wakes the worker.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    condition: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.condition.notify_all();
    }

    /// Returns when the bell was rung since the last wait, or after `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.condition.wait_timeout_while(rung, limit, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}
