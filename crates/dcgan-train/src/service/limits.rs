//! Limits on what clients may use of the machine.

use std::time::Duration;

/// Open connections; further ones wait in the listen backlog. Event streams may use half of them.
const MAX_CONNECTIONS: usize = 1024;
/// File descriptors left for training, the database and downloads.
const RESERVED_FILES: usize = 256;
/// Lower bound of the connection limit where few files may be open.
const MIN_CONNECTIONS: usize = 16;

/// Concurrent model downloads; each has a thread.
pub(crate) const MAX_DOWNLOADS: usize = 32;
/// Concurrent draw requests: queued, drawing, or sending their images.
pub(crate) const MAX_DRAWS: usize = 16;
/// Concurrent previews of jobs; each lists a dataset and decodes a few images. Others wait.
pub(crate) const MAX_PREVIEWS: usize = 4;
/// Time in which the client must receive the images of a draw request.
pub(crate) const DRAW_SEND_TIMEOUT: Duration = Duration::from_secs(300);
/// Threads for blocking file and database access.
pub(crate) const BLOCKING_THREADS: usize = 16;
/// Bytes of a request's line and headers.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;
/// Time in which the client must send them.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's body.
pub(crate) const BODY_BYTES: usize = 1 << 20;
/// Time until the response starts, reading the request's body included.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a connection's send buffer in the kernel.
pub(crate) const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Time in which a client must accept some bytes of a pending write.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Raises the limit of open files where possible, and returns the limit of open connections that it allows.
pub(crate) fn max_connections() -> usize {
    let files = raise_file_limit();
    let connections = MAX_CONNECTIONS.min(files.saturating_sub(RESERVED_FILES)).max(MIN_CONNECTIONS);
    if connections < MAX_CONNECTIONS {
        tracing::warn!(
            "the limit of {files} open files allows {connections} connections; raise it with `ulimit -n {}`",
            MAX_CONNECTIONS + RESERVED_FILES
        );
    }
    connections
}

/// Files that this process may open.
#[cfg(unix)]
fn raise_file_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = (MAX_CONNECTIONS + RESERVED_FILES) as u64;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    if current < raised
        && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok()
    {
        return usize::try_from(raised).unwrap_or(usize::MAX);
    }
    usize::try_from(current).unwrap_or(usize::MAX)
}

#[cfg(not(unix))]
fn raise_file_limit() -> usize {
    usize::MAX
}
