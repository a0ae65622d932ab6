//! Starts processes through the MPI launcher of the machine.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Time until a failure of one process must have ended all.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// `mpirun` with this number of processes, up to the program.
pub(crate) fn mpirun(processes: usize) -> Command {
    let mut command = dcgan_mpi::mpirun(processes).unwrap();
    command.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The text on stderr of a job that failed `SOON` after `started`.
pub(crate) fn failure(output: &Output, started: Instant) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && started.elapsed() < SOON, "{:?}: {text}", started.elapsed());
    text
}
