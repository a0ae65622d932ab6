//! State shared by the handlers, the workers, the draw thread and the housekeeping thread.

use super::auth::Refusals;
use super::broadcast::Broadcasts;
use super::devices::{self, WorkerDevice};
use super::draw::DrawQueue;
use super::housekeeping::Removals;
use super::keep_done::KeepDone;
use super::limits;
use super::metrics::Metrics;
use super::models;
use super::paths::Root;
use super::running_job::RunningJobs;
use super::store::{Store, StoreError};
use super::{ServiceError, Settings};
use crate::config::Plan;
use dcgan_base::files;
use dcgan_model::DeviceChoice;
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
    pub(crate) running_jobs: RunningJobs,
    /// Wakes the workers.
    pub(crate) worker_notify: Notify,
    pub(crate) housekeeping_notify: Notify,
    /// Run folders of deleted jobs.
    pub(crate) removals: Removals,
    pub(crate) keep_done: Option<KeepDone>,
    pub(crate) metrics: Metrics,
    pub(crate) draw_queue: DrawQueue,
    /// One worker for each; not empty.
    pub(crate) devices: Vec<WorkerDevice>,
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
    /// One permit for each preview that reads images.
    pub(crate) previews: Arc<Semaphore>,
    /// The device of jobs that name none, in their plan.
    any_device: DeviceChoice,
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
        let devices = devices::open(&settings.devices)?;
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
            running_jobs: RunningJobs::default(),
            worker_notify: Notify::default(),
            housekeeping_notify: Notify::default(),
            removals: Removals::default(),
            keep_done: settings.keep_done,
            metrics: Metrics::new(&devices),
            draw_queue: DrawQueue::start().map_err(ServiceError::Runtime)?,
            devices,
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
            previews: Arc::new(Semaphore::new(limits::MAX_PREVIEWS)),
            any_device: match settings.devices.as_slice() {
                [device] => *device,
                _ => DeviceChoice::Auto,
            },
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

    pub(crate) fn any_device(&self) -> DeviceChoice {
        self.any_device
    }

    /// One of the service's devices, or for `auto` the device in the plans of jobs that name none.
    pub(crate) fn check_device(&self, name: &str) -> Result<DeviceChoice, String> {
        let choice: DeviceChoice = name.parse()?;
        if choice == DeviceChoice::Auto || choice == self.any_device {
            return Ok(self.any_device);
        }
        if self.devices.iter().any(|device| device.choice == choice) {
            return Ok(choice);
        }
        let mut names: Vec<String> = self.devices.iter().map(|device| device.choice.to_string()).collect();
        names.dedup();
        Err(format!(
            "device is {name}, expected {} or auto: the service has no other device",
            names.join(", ")
        ))
    }

    /// The device that a job waits for, if its plan names one of several.
    pub(crate) fn requested_device(&self, plan: &Plan) -> Option<String> {
        let device: DeviceChoice = plan.run.device.parse().ok()?;
        (self.devices.len() > 1 && device != DeviceChoice::Auto).then(|| device.to_string())
    }

    /// Where a browser on this machine opens the page.
    pub(crate) fn base_url(&self) -> String {
        match self.address.get() {
            Some(address) if address.ip().is_unspecified() => format!("http://localhost:{}/", address.port()),
            Some(address) => format!("http://{address}/"),
            None => "http://localhost/".to_owned(),
        }
    }

    /// An error message for clients: without the folders of this machine, and with the names of options in requests.
    pub(crate) fn public_message(&self, message: &str, job: Option<&str>) -> String {
        let run = job.map(|id| self.run_folder(id));
        let roots = [self.data_root.as_ref(), self.model_root.as_ref(), Some(&self.runs)];
        let folders = roots.into_iter().flatten().map(Root::path).chain(self.runs.path().parent());
        let message = without_folders(message, run.as_deref().into_iter().chain(folders));
        super::options::json_names(&message)
    }

    /// The dataset `name` below the data root.
    pub(crate) fn find_data(&self, name: &str) -> Result<PathBuf, String> {
        let Some(root) = &self.data_root else {
            return Err("data is not available: the service was started without --data-root".to_owned());
        };
        root.resolve(name).map_err(|error| format!("data: {error}"))
    }

    /// The file `name` below the data root.
    pub(crate) fn find_file(&self, name: &str) -> Result<PathBuf, String> {
        let Some(root) = &self.data_root else {
            return Err(format!("{name:?} is not available: the service was started without --data-root"));
        };
        root.resolve(name).map_err(|error| error.to_string())
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
            let Ok(name) = path.strip_prefix(root.path()) else {
                let message =
                    "the service was started with another root: resume the job with the name below this one";
                return Err(message.to_owned());
            };
            let name = name.to_string_lossy().into_owned();
            match root.resolve(&name).map_err(|error| error.to_string())? {
                resolved if resolved == path => Ok(()),
                _ => Err(format!("{name:?} resolves to another path than when the job was accepted")),
            }
        };
        let files =
            [("data", &plan.run.data), ("exclude", &plan.run.exclude), ("inception", &plan.run.inception)];
        for (field, path) in files {
            if let Some(path) = path {
                check(&self.data_root, path).map_err(|problem| (field, problem))?;
            }
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
        self.housekeeping_notify.notify();
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
            Ok(_) | Err(StoreError::NotFound) => fs::remove_dir_all(entry.path())?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `message` without the names of `folders` in front of what is below them. A path that ends in one is left: it is
/// replaced by its last part.
fn without_folders<'a>(message: &str, folders: impl Iterator<Item = &'a Path>) -> String {
    let mut message = message.to_owned();
    for folder in folders {
        let Some(text) = folder.to_str().filter(|text| text.len() > 1) else { continue };
        message = message.replace(&format!("{text}{}", std::path::MAIN_SEPARATOR), "");
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        message = message.replace(text, &name);
    }
    message
}

/// Wakes threads. Notifications are counted, so that each thread sees those that came while it did not wait.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    count: Mutex<u64>,
    condition: Condvar,
}

impl Notify {
    pub(crate) fn notify(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.condition.notify_all();
    }

    /// Returns the number of notifications once it is not `seen`, or after `timeout`.
    pub(crate) fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.condition.wait_timeout_while(count, timeout, |count| *count == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_do_not_name_folders_of_the_machine() {
        for (message, expected) in [
            ("/srv/data/faces/019.png: truncated", "faces/019.png: truncated"),
            ("cannot read \"/srv/data/faces\"", "cannot read \"faces\""),
            ("/srv/data: permission denied", "data: permission denied"),
            ("/srv/data-too/x: no such file", "data-too/x: no such file"),
            (
                "the last good checkpoint is /store/runs/12/checkpoints/00000009",
                "the last good checkpoint is checkpoints/00000009",
            ),
            ("no folder", "no folder"),
        ] {
            let folders = ["/store/runs/12", "/srv/data", "/store/runs"].map(Path::new);
            assert_eq!(without_folders(message, folders.into_iter()), expected);
        }
    }
}
