//! Connections: how many, how slow they may be, and how they end.

use super::limits::{HEAD_BYTES, HEAD_TIME, SEND_BYTES, SEND_TIME};
use super::shared::Shared;
use super::wire::Wire;
use super::{Service, app, jobs};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Time that open requests get when the service stops.
const DRAIN: Duration = Duration::from_secs(5);
/// After an error of accepting: descriptors run out, and come back as connections end.
const BREATH: Duration = Duration::from_millis(100);

/// Serves `listener` and trains until `shutdown` resolves. Then no connection is accepted, open requests get a few seconds, and
/// the running job finishes its step and writes its checkpoint.
///
/// # Errors
/// The worker's thread cannot be made.
pub async fn serve(
    listener: TcpListener,
    service: &Service,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let shared = Arc::clone(&service.shared);
    let worker = std::thread::Builder::new().name("dcgan-train".into()).spawn({
        let shared = Arc::clone(&shared);
        move || {
            // Whatever ends the worker ends the service: one that takes jobs and runs none helps nobody.
            let _stop = StopOnDrop(&shared);
            jobs::work(&shared, &shared.device);
        }
    })?;
    let app = app(service);
    let graceful = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut stops = shared.stops();
    loop {
        let accepted = async {
            let permit = Arc::clone(&shared.connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => break,
            _ = stops.changed() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!("a connection was not accepted: {error}");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        prepare(&stream);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(
                TokioIo::new(Wire::new(stream, SEND_TIME)),
                TowerToHyperService::new(app.clone()),
            );
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // How a connection breaks off is its reader's affair.
            let _ = connection.await;
            drop(permit);
        });
    }
    drop(listener);
    shared.stop();
    tracing::info!("stopping: the running job finishes its step and writes a checkpoint");
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    let joined = tokio::task::spawn_blocking(move || worker.join()).await;
    match joined {
        Ok(Ok(())) => Ok(()),
        _ => Err(io::Error::other("the worker ended by a panic")),
    }
}

/// Where the system refuses, the connection works all the same.
fn prepare(stream: &TcpStream) {
    // Events are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    // For one that reads slowly the system would take megabytes.
    #[cfg(unix)]
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(stream, SEND_BYTES);
}

/// Stops the service where the worker ends, be it by a panic.
struct StopOnDrop<'a>(&'a Shared);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
