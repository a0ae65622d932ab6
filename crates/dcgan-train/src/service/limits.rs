//! How much of the machine the service's clients may hold.

use std::time::Duration;

/// Connections at a time; more wait to be accepted. Readers of events get half of them, so that others are answered too.
const CONNECTIONS: usize = 1024;
/// Files that training, the database and downloads may need open besides.
const RESERVE: usize = 256;
/// Connections where the system lets a process open few files.
const FEWEST: usize = 16;

/// Downloads of models at a time; each has a thread.
pub(crate) const DOWNLOADS: usize = 32;
/// Requests for samples at a time: waiting, being drawn, or with their images on the way; and time in which these must arrive.
pub(crate) const DRAWS: usize = 16;
pub(crate) const DRAWN_TIME: Duration = Duration::from_secs(300);
/// Threads that wait for the disk on behalf of requests.
pub(crate) const DISK_THREADS: usize = 16;
/// Bytes of a request's line and headers, and time to send them.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(15);
/// Bytes that the system may hold for a reader, and time in which it must take some of them.
pub(crate) const SEND_BYTES: usize = 256 * 1024;
pub(crate) const SEND_TIME: Duration = Duration::from_secs(60);

/// Connections at a time, as far as the system lets this process open files; it is asked to let it open as many as it may.
pub(crate) fn connections() -> usize {
    let files = files();
    let connections = CONNECTIONS.min(files.saturating_sub(RESERVE)).max(FEWEST);
    if connections < CONNECTIONS {
        tracing::warn!(
            "this process may open {files} files: {connections} connections at a time; more with `ulimit -n {}`",
            CONNECTIONS + RESERVE
        );
    }
    connections
}

/// Files that this process may have open.
#[cfg(unix)]
fn files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = (CONNECTIONS + RESERVE) as u64;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if current < raised
        && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok()
    {
        return usize::try_from(raised).unwrap_or(usize::MAX);
    }
    usize::try_from(current).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn files() -> usize {
    usize::MAX
}
