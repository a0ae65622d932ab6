//! `dcgan-train serve`: training over HTTP for people who do not sit at the machine.
//!
//! A second caller of [`crate::trainer::run`], without training logic. Handlers check, write jobs into the store and read it;
//! one worker thread owns the device and runs the jobs; a second thread draws samples on the CPU. What a job did stands in its
//! run folder, `STORE/runs/ID`, and nowhere else: events, samples and models are read from there.
//!
//! Closed by default: without a token only this machine can reach it, and requests of web pages are refused; what requests name
//! lies below the roots that were given.

mod api;
mod archive;
mod draw;
mod error;
mod events;
mod feed;
mod guard;
mod jobs;
mod limits;
mod live;
mod metrics;
mod models;
mod openapi;
mod options;
mod paths;
mod presets;
mod record;
mod reserve;
mod router;
mod server;
mod shared;
mod store;
mod tail;
mod wire;

pub use error::ServiceError;
pub use server::serve;

use axum::Router;
use dcgan_base::Cancel;
use dcgan_model::DeviceChoice;
use shared::Shared;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at the flag that signals set.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
/// What requests may wait while a job trains on the same cores: see [`rest`].
const REST: Duration = Duration::from_millis(20);

/// What a service works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the jobs and their run folders; made where it is missing.
    pub store: PathBuf,
    /// Folder of the datasets that jobs may name; none, and they train on the embedded digits.
    pub data_root: Option<PathBuf>,
    /// Folder of model folders; need not exist.
    pub model_root: PathBuf,
    /// Where jobs train.
    pub device: DeviceChoice,
    /// What requests must bring as `Authorization: Bearer TOKEN`; none, and only this machine is listened to.
    pub token: Option<String>,
    /// A web page's origin whose requests are answered, `https://host[:port]`.
    pub allow_origin: Option<String>,
    /// Jobs that may wait; more are refused until some have run.
    pub max_queued: u64,
}

/// A service over its store, which no other process can open meanwhile.
#[derive(Clone, Debug)]
pub struct Service {
    shared: Arc<Shared>,
}

impl Service {
    /// Opens the store and the device. Jobs that a service left running are queued again, deletions it left undone are done.
    ///
    /// # Errors
    /// [`ServiceError`]: a store that cannot be opened or is in use, roots that are not there, a device that cannot be opened.
    pub fn open(settings: &Settings) -> Result<Self, ServiceError> {
        Ok(Self { shared: Arc::new(Shared::open(settings)?) })
    }
}

/// Every route, over `service`.
pub fn app(service: &Service) -> Router {
    router::router(Arc::clone(&service.shared))
}

/// Serves `listener` and trains until `stop` is set; then the running job's step is finished and its checkpoint written.
///
/// # Errors
/// [`ServiceError`]; [`ServiceError::Open`] where others than this machine could reach a service without a token.
pub fn run(service: &Service, listener: TcpListener, stop: &Cancel) -> Result<(), ServiceError> {
    let address = listener.local_addr().map_err(ServiceError::Runtime)?;
    if service.shared.token.is_none() && !address.ip().is_loopback() {
        return Err(ServiceError::Open { address: address.to_string() });
    }
    let resting = Arc::clone(&service.shared);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // A second one would take training another core for requests that one answers with ease.
        .worker_threads(1)
        .on_thread_park(move || rest(&resting))
        .max_blocking_threads(limits::DISK_THREADS)
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
    // A reader that holds a download open must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map_err(ServiceError::Runtime)
}

/// Before the thread that answers requests waits for more: while a job trains on this machine's cores and nobody waits for a
/// model or images, it lets requests come together. Woken for each alone it costs training about twice as much: a core
/// changes over, finds nothing of this code in its caches, and training's other threads wait for the one that was put off.
fn rest(shared: &Shared) {
    let busy = shared.downloads.available_permits() < limits::DOWNLOADS
        || shared.draws.available_permits() < limits::DRAWS;
    if shared.device.is_cpu() && !busy && shared.live.current().is_some() && !shared.is_stopping() {
        std::thread::sleep(REST);
    }
}
