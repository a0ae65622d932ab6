//! `dcgan-train serve`

use crate::cli::ServeArgs;
use anyhow::Context;
use dcgan_cli::{Logging, Outcome, UsageError, print_result};
use dcgan_train::service::{self, ServiceError, Settings};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;

pub(crate) fn run(args: &ServeArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    // The service runs for months.
    logging.print_dates();
    let mut faults = Vec::new();
    let token = args.token_file.as_deref().map(read_token).transpose().unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    let addresses: Vec<SocketAddr> = match args.listen.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            faults.push(format!("--listen {}: {error}; expected HOST:PORT", args.listen));
            Vec::new()
        }
    };
    if args.token_file.is_none() && addresses.iter().any(|address| !address.ip().is_loopback()) {
        let open = ServiceError::Open { address: args.listen.clone() };
        faults.push(format!("--listen: {open}"));
    }
    if let Some(root) = args.data_root.as_ref().filter(|root| !root.is_dir()) {
        faults.push(format!("--data-root {} is not a folder", root.display()));
    }
    if args.max_queued == 0 {
        faults.push("--max-queued is 0, expected at least 1".to_owned());
    }
    if let Some(origin) = args.allow_origin.as_ref().filter(|origin| !service::is_origin(origin)) {
        faults.push(format!("--allow-origin is {origin:?}, expected http(s)://HOST[:PORT] without a path"));
    }
    faults.extend(service::device_fault(&args.device));
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    // Before the port is opened, so that no signal is missed.
    let stop = dcgan_cli::cancel_on_signals()?;
    let listener =
        TcpListener::bind(addresses.as_slice()).with_context(|| format!("--listen {}", args.listen))?;
    let address = listener.local_addr()?;
    let settings = Settings {
        store: args.store.clone(),
        data_root: args.data_root.clone(),
        model_root: args.model_root.clone(),
        devices: args.device.clone(),
        token,
        allow_origin: args.allow_origin.clone(),
        max_queued: args.max_queued,
        keep_done: args.keep_done,
    };
    let service = service::Service::open(&settings).map_err(usage)?;
    print_result(&format!("listening on http://{address}"))?;
    service::run(&service, listener, &stop).map_err(usage)?;
    tracing::info!("stopped; unfinished jobs continue at the next start");
    Ok(Outcome::Done)
}

/// The token in a file.
///
/// # Errors
/// A file that cannot be read, or a weak token.
fn read_token(path: &Path) -> Result<String, String> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("--token-file {file}: {error}"))?;
    let token = text.trim();
    if let Some(problem) = service::token_fault(token) {
        let make = format!("(umask 077; head -c 32 /dev/urandom | base64 > {file})");
        return Err(format!("--token-file {file}: the token {problem}; make one with {make}"));
    }
    warn_if_readable(path);
    Ok(token.to_owned())
}

/// Warns if every user of this machine can read the token.
#[cfg(unix)]
fn warn_if_readable(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let mode = path.metadata().map_or(0, |metadata| metadata.mode());
    if mode & 0o004 != 0 {
        let file = path.display();
        tracing::warn!("--token-file {file}: all users of this machine can read it; chmod 600 {file}");
    }
}

#[cfg(not(unix))]
fn warn_if_readable(_path: &Path) {}

/// Errors that the user can fix have exit code 2.
fn usage(error: ServiceError) -> anyhow::Error {
    match error {
        ServiceError::Runtime(_) | ServiceError::Io { .. } => error.into(),
        _ => UsageError::because(error).into(),
    }
}
