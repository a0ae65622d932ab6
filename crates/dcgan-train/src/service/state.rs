//! State shared by the handlers, the worker and the draw thread.

use super::auth::Refusals;
use super::broadcast::Broadcasts;
use super::draw::DrawQueue;
use super::limits;
use super::metrics::Metrics;
use super::models;
use super::paths::Root;
use super::running_job::CurrentJob;
use super::store::{Store, StoreError};
use super::{ServiceError, Settings};
use crate::config::Plan;
use crate::inputs;
use dcgan_base::files;
use dcgan_model::{Device, DeviceChoice};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Prefix of a run folder that is marked for deletion.
const DELETED_PREFIX: &str = ".deleted-";

#[derive(Debug)]
pub(crate) struct AppState {
    pub(crate) store: Store,
    pub(crate) current_job: CurrentJob,
    /// Wakes the worker.
    pub(crate) worker_notify: Notify,
    pub(crate) metrics: Metrics,
    pub(crate) draw_queue: DrawQueue,
    pub(crate) device: Device,
    /// Set once the service listens.
    pub(crate) address: OnceLock<SocketAddr>,
    pub(crate) refusals: Refusals,
    pub(crate) token: Option<String>,
    pub(crate) allow_origin: Option<String>,
    pub(crate) max_queued: u64,
    pub(crate) data_root: Option<Root>,
    pub(crate) model_root: Option<Root>,
    /// `STORE/runs`
    pub(crate) runs: Root,
    /// New events of jobs that are being streamed.
    pub(crate) broadcasts: Broadcasts,
    /// One permit for each open connection.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit for each event stream.
    pub(crate) streams: Arc<Semaphore>,
    /// One permit for each model download.
    pub(crate) downloads: Arc<Semaphore>,
    /// One permit for each draw request, held until its images have been sent.
    pub(crate) draws: Arc<Semaphore>,
    device_choice: DeviceChoice,
    stopping: watch::Sender<bool>,
    /// Locked while this process uses the store.
    _lock: File,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ServiceError + '_ {
    |source| ServiceError::Io { path: path.into(), source }
}

impl AppState {
    pub(crate) fn open(settings: &Settings) -> Result<Self, ServiceError> {
        let root = |path: &PathBuf| Root::open(path).map_err(io_error(path));
        let data_root = settings.data_root.as_ref().map(root).transpose()?;
        let device = inputs::device(&settings.device.to_string())?;
        let folder = &settings.store;
        let runs = folder.join("runs");
        fs::create_dir_all(&runs).map_err(io_error(&runs))?;
        let lock = lock(folder)?;
        let database = folder.join("jobs.sqlite");
        let store_error =
            |error: StoreError| ServiceError::Store { path: database.clone(), problem: error.to_string() };
        let store = Store::open(&database).map_err(store_error)?;
        files::sync_names(folder).map_err(io_error(folder))?;
        let runs = root(&runs)?;
        finish_deletions(&store, &runs).map_err(store_error)?;
        let jobs = store.recover().map_err(store_error)?;
        if jobs > 0 {
            tracing::warn!(jobs, "unclean shutdown: running jobs resume from their last checkpoint");
        }
        let connections = limits::max_connections();
        Ok(Self {
            store,
            current_job: CurrentJob::default(),
            worker_notify: Notify::default(),
            metrics: Metrics::default(),
            draw_queue: DrawQueue::start().map_err(ServiceError::Runtime)?,
            device,
            address: OnceLock::new(),
            refusals: Refusals::default(),
            token: settings.token.clone(),
            allow_origin: settings.allow_origin.clone(),
            max_queued: settings.max_queued,
            data_root,
            model_root: Root::open(&settings.model_root).ok(),
            runs,
            broadcasts: Broadcasts::default(),
            connections: Arc::new(Semaphore::new(connections)),
            streams: Arc::new(Semaphore::new(connections / 2)),
            downloads: Arc::new(Semaphore::new(limits::MAX_DOWNLOADS)),
            draws: Arc::new(Semaphore::new(limits::MAX_DRAWS)),
            device_choice: settings.device,
            stopping: watch::Sender::new(false),
            _lock: lock,
        })
    }

    pub(crate) fn run_folder(&self, id: &str) -> PathBuf {
        self.runs.path().join(id)
    }

    /// The name that a job's run folder gets before it is removed.
    pub(crate) fn deleted_folder(&self, id: &str) -> PathBuf {
        self.runs.path().join(format!("{DELETED_PREFIX}{id}"))
    }

    pub(crate) fn device_choice(&self) -> DeviceChoice {
        self.device_choice
    }

    /// The service's device, if `name` is this device or `auto`.
    pub(crate) fn check_device(&self, name: &str) -> Result<DeviceChoice, String> {
        let own = self.device_choice;
        let choice: DeviceChoice = name.parse()?;
        let is_own = choice == own || (choice == DeviceChoice::Cpu && self.device.is_cpu());
        if choice == DeviceChoice::Auto || is_own {
            return Ok(own);
        }
        let expected = if self.device.is_cpu() { DeviceChoice::Cpu } else { own };
        Err(format!("device is {name}, expected {expected} or auto: the service trains on one device"))
    }

    /// Where a browser on this machine opens the page.
    pub(crate) fn base_url(&self) -> String {
        match self.address.get() {
            Some(address) if address.ip().is_unspecified() => format!("http://localhost:{}/", address.port()),
            Some(address) => format!("http://{address}/"),
            None => "http://localhost/".to_owned(),
        }
    }

    /// The dataset `name` below the data root.
    pub(crate) fn find_data(&self, name: &str) -> Result<PathBuf, String> {
        let Some(root) = &self.data_root else {
            return Err("data is not available: the service was started without --data-root".to_owned());
        };
        root.resolve(name).map_err(|error| format!("data: {error}"))
    }

    /// The folder of model `id`, for `init_from`.
    pub(crate) fn find_model(&self, id: &str) -> Result<PathBuf, String> {
        models::find(self, id).ok_or_else(|| format!("init_from {id:?} is not a model, see GET /v1/models"))
    }

    /// Checks again, before a job starts, that the paths of its plan are below the roots.
    ///
    /// # Errors
    /// The first field that is not, and why.
    pub(crate) fn recheck_paths(&self, plan: &Plan, with_init: bool) -> Result<(), (&'static str, String)> {
        let check = |root: &Option<Root>, path: &Path| {
            let root = root.as_ref().ok_or_else(|| "the service was started without its root".to_owned())?;
            let name = path.strip_prefix(root.path()).unwrap_or(path).to_string_lossy().into_owned();
            match root.resolve(&name).map_err(|error| error.to_string())? {
                resolved if resolved == path => Ok(()),
                _ => Err(format!("{name:?} resolves to another path than when the job was accepted")),
            }
        };
        if let Some(path) = &plan.run.data {
            check(&self.data_root, path).map_err(|problem| ("data", problem))?;
        }
        if let Some(path) = plan.run.init_from.as_ref().filter(|_| with_init) {
            let root = if path.starts_with(self.runs.path()) { Some(self.runs.clone()) } else { None };
            check(&root.or(self.model_root.clone()), path).map_err(|problem| ("init_from", problem))?;
        }
        Ok(())
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Begins the shutdown: the running job stops after its step, event streams end.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        self.worker_notify.notify();
    }

    /// Changes to true when the shutdown begins.
    pub(crate) fn subscribe_shutdown(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }
}

/// Locks the store for this process. The lock ends with the file handle, also after a crash.
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

/// Completes deletions that were interrupted.
fn finish_deletions(store: &Store, runs: &Root) -> Result<(), StoreError> {
    for entry in fs::read_dir(runs.path())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(DELETED_PREFIX)) else { continue };
        match store.delete(id, || Ok(())) {
            Ok(()) | Err(StoreError::NotFound) => fs::remove_dir_all(entry.path())?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Wakes a thread, as `tokio::sync::Notify` wakes a task: a notification without a waiter is kept for the next wait.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    notified: Mutex<bool>,
    condition: Condvar,
}

impl Notify {
    pub(crate) fn notify(&self) {
        *self.notified.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.condition.notify_all();
    }

    /// Returns after a notification, or after `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let notified = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.condition.wait_timeout_while(notified, timeout, |notified| !*notified);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}
