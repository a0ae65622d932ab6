//! `dcgan-train serve`: training as an HTTP service.
//!
//! The second caller of [`crate::trainer::run`], without training logic of its own. Handlers validate requests, insert
//! jobs into the store and read it. Each device has one worker thread, which owns it and runs the jobs; another thread
//! draws samples on the CPU, and one removes files. The output of a job is stored in its run folder, `STORE/runs/ID`,
//! and nowhere else: events, samples and models are read from there.
//!
//! Closed by default: without a token the service accepts only requests to this machine's loopback names, and refuses
//! cross-origin requests. Paths in requests are resolved below the configured roots.

mod api;
mod archive;
mod auth;
mod broadcast;
mod devices;
mod disk_reserve;
mod disk_use;
mod draw;
mod error;
mod housekeeping;
mod keep_done;
mod launched;
mod limits;
mod metrics;
mod models;
mod openapi;
mod options;
mod paths;
mod presets;
mod preview;
mod record;
mod remedy;
mod resume;
mod router;
mod running_job;
mod server;
mod sse;
mod state;
mod stats_reader;
mod store;
mod token;
mod worker;
mod write_timeout;

pub use auth::is_origin;
pub use devices::device_fault;
pub use error::ServiceError;
pub use keep_done::KeepDone;
pub use server::serve;
pub use token::token_fault;

use axum::Router;
use dcgan_base::Cancel;
use dcgan_model::DeviceChoice;
use state::AppState;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Interval at which the flag set by signals is polled.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
/// Longest delay of a request while a job trains on the same cores: see [`batch_wakeups`].
const WAKEUP_DELAY: Duration = Duration::from_millis(20);

/// Configuration of the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the database and the run folders; created if missing.
    pub store: PathBuf,
    /// Folder of the datasets that jobs may name; without it jobs train on the embedded digits.
    pub data_root: Option<PathBuf>,
    /// Folder of model folders; need not exist.
    pub model_root: PathBuf,
    /// Devices that jobs train on, one job at a time on each; several workers can share the CPU. Empty is `auto`.
    pub devices: Vec<DeviceChoice>,
    /// Bearer token that requests must send; without it the service listens on loopback addresses only.
    pub token: Option<String>,
    /// Origin of a web page that may send requests (CORS), `https://host[:port]`.
    pub allow_origin: Option<String>,
    /// Limit of queued jobs; further submissions are refused.
    pub max_queued: u64,
    /// Which done jobs keep their optimizer state; none is all.
    pub keep_done: Option<KeepDone>,
}

/// A service over its store, which is locked against other processes.
#[derive(Clone, Debug)]
pub struct Service {
    state: Arc<AppState>,
}

impl Service {
    /// Opens the store and the device. Jobs that were running when the last process ended are queued again, and
    /// interrupted deletions are completed.
    ///
    /// # Errors
    /// [`ServiceError`]: the store cannot be opened or is in use, a root is missing, the device cannot be opened.
    pub fn open(settings: &Settings) -> Result<Self, ServiceError> {
        Ok(Self { state: Arc::new(AppState::open(settings)?) })
    }
}

/// The router of `service`.
pub fn app(service: &Service) -> Router {
    router::router(Arc::clone(&service.state))
}

/// Serves `listener` and runs jobs until `stop` is set; then the running job finishes its step and writes a checkpoint.
///
/// # Errors
/// [`ServiceError`]; [`ServiceError::Open`] for an address other than loopback without a token.
pub fn run(service: &Service, listener: TcpListener, stop: &Cancel) -> Result<(), ServiceError> {
    let address = listener.local_addr().map_err(ServiceError::Runtime)?;
    if service.state.token.is_none() && !address.ip().is_loopback() {
        return Err(ServiceError::Open { address: address.to_string() });
    }
    let state = Arc::clone(&service.state);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One thread is enough for the requests; a second one would take another core from training.
        .worker_threads(1)
        .on_thread_park(move || batch_wakeups(&state))
        .max_blocking_threads(limits::BLOCKING_THREADS)
        .thread_name("dcgan-http")
        .enable_all()
        .build()
        .map_err(ServiceError::Runtime)?;
    let stopped = async {
        while !stop.is_set() {
            tokio::time::sleep(SIGNAL_POLL).await;
        }
    };
    let served = runtime.block_on(async {
        listener.set_nonblocking(true)?;
        serve(tokio::net::TcpListener::from_std(listener)?, service, stopped).await
    });
    // An unfinished download must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map_err(ServiceError::Runtime)
}

/// Runs before the HTTP thread parks. While a job trains on the CPU and no model download or draw request is open, it
/// sleeps so that requests are handled in batches. A wake-up for each request costs training about twice as much: the
/// core switches context with cold caches, and the other training threads wait for the preempted one.
fn batch_wakeups(state: &AppState) {
    let busy = state.downloads.available_permits() < limits::MAX_DOWNLOADS
        || state.draws.available_permits() < limits::MAX_DRAWS;
    if !busy && state.running_jobs.any_on_cpu() && !state.is_stopping() {
        std::thread::sleep(WAKEUP_DELAY);
    }
}
