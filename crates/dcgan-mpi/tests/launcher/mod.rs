//! Starts processes through the MPI launcher of the machine.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Time until a failure of one process must have ended all.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// `mpirun`, up to the number of processes. More processes than cores are allowed.
pub(crate) fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    let version = Command::new("mpirun").arg("--version").output().unwrap();
    if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]);
        // Containers may not read the memory of another process.
        command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    }
    command.env_remove("RUST_LOG");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The text on stderr of a job that failed `SOON` after `started`.
pub(crate) fn failure(output: &Output, started: Instant) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && started.elapsed() < SOON, "{:?}: {text}", started.elapsed());
    text
}
