//! Accept loop: connection limit, timeouts, graceful shutdown.

use super::auth::ClientAddress;
use super::limits::{HEAD_BYTES, HEAD_TIMEOUT, SEND_BUFFER_BYTES, WRITE_TIMEOUT};
use super::state::AppState;
use super::write_timeout::WriteTimeout;
use super::{Service, app, housekeeping, worker};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Time in which open requests may finish during shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after a failed accept: without free file descriptors it fails until a connection ends.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves `listener` and runs jobs until `shutdown` resolves. Then no connection is accepted, open requests may finish
/// within a few seconds, and running jobs finish their step and write a checkpoint.
///
/// # Errors
/// A thread cannot be spawned, or panicked.
pub async fn serve(
    listener: TcpListener,
    service: &Service,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let state = Arc::clone(&service.state);
    let _ = state.address.set(listener.local_addr()?);
    let mut threads = Vec::new();
    for index in 0..state.devices.len() {
        threads.push(spawn(&state, "dcgan-train", move |state| worker::run(state, index))?);
    }
    threads.push(spawn(&state, "dcgan-files", housekeeping::run)?);
    let app = app(service);
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut stopping = state.subscribe_shutdown();
    loop {
        let accepted = async {
            let permit = Arc::clone(&state.connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => break,
            _ = stopping.changed() => break,
            accepted = accepted => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        set_socket_options(&stream);
        let router = TowerToHyperService::new(app.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ClientAddress(client));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(WriteTimeout::new(stream, WRITE_TIMEOUT)), service);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A connection that ends with an error is the client's concern.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    state.stop();
    tracing::info!("stopping: running jobs finish their step and write a checkpoint");
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
    let join = move || threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
    match tokio::task::spawn_blocking(join).await {
        Ok(0) => Ok(()),
        _ => Err(io::Error::other("a worker thread panicked")),
    }
}

/// Spawns a thread that works until the service stops. If it ends before, the service stops: without its workers it
/// would accept jobs and run none.
fn spawn(
    state: &Arc<AppState>,
    name: &str,
    body: impl FnOnce(&AppState) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let state = Arc::clone(state);
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _stop = StopOnDrop(&state);
        body(&state);
    })
}

/// Sets socket options. Errors are ignored: the connection works without them.
fn set_socket_options(stream: &TcpStream) {
    // Events are small and must not be delayed by Nagle's algorithm.
    let _ = stream.set_nodelay(true);
    // By default the kernel buffers megabytes for a slow client.
    #[cfg(unix)]
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER_BYTES);
}

/// Stops the service when a thread ends, also by a panic.
struct StopOnDrop<'a>(&'a AppState);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
