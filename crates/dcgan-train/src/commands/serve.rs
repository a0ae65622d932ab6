//! `dcgan-train serve`

use crate::cli::ServeArgs;
use anyhow::Context;
use dcgan_cli::{Outcome, UsageError, print_result};
use dcgan_train::service::{self, ServiceError, Settings};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<Outcome> {
    let mut faults = Vec::new();
    let token = args.token_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let token = text.map(|text| text.trim().to_owned()).and_then(|token| match token.as_str() {
            "" => Err("is empty, expected a token".to_owned()),
            _ if token.contains(char::is_whitespace) => {
                Err("contains whitespace, expected one token".to_owned())
            }
            _ => Ok(token),
        });
        token.map_err(|problem| format!("--token-file {}: {problem}", path.display()))
    });
    let token = token.transpose().unwrap_or_else(|fault| {
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
    if let Some(origin) = args.allow_origin.as_ref().filter(|origin| !is_origin(origin)) {
        faults.push(format!("--allow-origin is {origin:?}, expected http(s)://HOST[:PORT] without a path"));
    }
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
        device: args.device,
        token,
        allow_origin: args.allow_origin.clone(),
        max_queued: args.max_queued,
    };
    let service = service::Service::open(&settings).map_err(usage)?;
    print_result(&format!("listening on http://{address}"))?;
    service::run(&service, listener, &stop).map_err(usage)?;
    tracing::info!("stopped; unfinished jobs continue at the next start");
    Ok(Outcome::Done)
}

/// `scheme://host[:port]`, as browsers send it.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/'))
}

/// Errors that the user can fix have exit code 2.
fn usage(error: ServiceError) -> anyhow::Error {
    match error {
        ServiceError::Runtime(_) | ServiceError::Io { .. } => error.into(),
        _ => UsageError::because(error).into(),
    }
}
