//! How the process was started, by the variables that launchers set, and the launcher of this machine.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// The launcher that started this process as one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launcher {
    /// The variable that tells.
    pub variable: &'static str,
    /// How many processes it started, where the variable says so.
    pub processes: Option<usize>,
}

/// Variables that only processes of an MPI launcher have, and the variable with the number of processes: Open MPI's
/// mpirun; MPICH's and Intel's mpiexec, and Slurm's srun with `--mpi=pmi2`; srun with `--mpi=pmix`, which is the
/// default of some clusters for single programs too.
const VARIABLES: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_SIZE", "PMI_SIZE"),
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
];

impl Launcher {
    /// The launcher of this process.
    pub fn find() -> Option<Self> {
        Self::among(|name| std::env::var(name).ok())
    }

    fn among(value: impl Fn(&str) -> Option<String>) -> Option<Self> {
        VARIABLES.iter().find_map(|&(variable, size)| {
            value(variable)?;
            let processes = value(size).and_then(|size| size.trim().parse().ok());
            Some(Self { variable, processes })
        })
    }
}

/// `mpirun -n PROCESSES` on this machine, up to the program; more processes than cores are allowed.
///
/// # Errors
/// There is no `mpirun`.
pub fn mpirun(processes: usize) -> io::Result<Command> {
    let version = Command::new("mpirun").arg("--version").output().map_err(|error| {
        let message = format!("cannot run mpirun ({error}); install it: apt-get install openmpi-bin");
        io::Error::new(error.kind(), message)
    })?;
    let mut command = Command::new("mpirun");
    if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
        command.args(["--oversubscribe", "--bind-to", "none"]);
        #[cfg(target_os = "linux")]
        if rustix::process::geteuid().is_root() {
            command.arg("--allow-run-as-root");
        }
        // Containers may not read the memory of another process.
        command.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    }
    command.args(["-n", &processes.to_string()]);
    Ok(command)
}

/// Set for processes that are to stop, with what they save, when their standard input is closed: whoever started them
/// holds the other end, and has ended.
pub const STOP_AT_EOF: &str = "DCGAN_STOP_AT_EOF";

/// Asks a child to save and stop: a run, or a launcher, which sends the signal on to all processes.
#[cfg(unix)]
fn save_and_stop(child: &Child) {
    use rustix::process::{Pid, Signal, kill_process};
    // One that has just ended cannot be signaled.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::USR1);
    }
}

/// Asks a child to save and stop: this system has no such signal.
#[cfg(not(unix))]
fn save_and_stop(_: &Child) {}

/// Exit status of a program that was interrupted, with what it had saved.
pub const INTERRUPTED: i32 = 130;

/// Time between two looks at a child.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits for a child that has [`STOP_AT_EOF`]; when `cancelled`, asks it once to save and stop. `look` is called again
/// and again, the last time after its end. Its standard input is open until then.
///
/// # Errors
/// The child cannot be waited for.
pub fn wait_or_save(
    child: &mut Child,
    cancelled: &dyn Fn() -> bool,
    look: &mut dyn FnMut(),
) -> io::Result<ExitStatus> {
    let stdin = child.stdin.take();
    let mut is_asked = false;
    let status = loop {
        if cancelled() && !is_asked {
            is_asked = true;
            save_and_stop(child);
        }
        let ended = child.try_wait()?;
        look();
        if let Some(status) = ended {
            break status;
        }
        std::thread::sleep(POLL_INTERVAL);
    };
    drop(stdin);
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_are_found_by_their_variables() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<(&'a str, Option<usize>)>);
        let rows: [Row<'_>; 7] = [
            (&[], None),
            (&[("SLURM_NTASKS", "4")], None), // srun --mpi=none, or an array of single runs
            (&[("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_RANK", "1")], Some(("OMPI_COMM_WORLD_SIZE", Some(4)))),
            (&[("PMI_SIZE", "2"), ("PMI_RANK", "0")], Some(("PMI_SIZE", Some(2)))),
            (&[("PMIX_RANK", "0")], Some(("PMIX_RANK", None))),
            (&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "1")], Some(("PMIX_RANK", Some(1)))),
            (&[("PMIX_RANK", "3"), ("SLURM_STEP_NUM_TASKS", "4")], Some(("PMIX_RANK", Some(4)))),
        ];
        for (variables, expected) in rows {
            let value = |name: &str| {
                variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned())
            };
            let found = Launcher::among(value).map(|found| (found.variable, found.processes));
            assert_eq!(found, expected, "{variables:?}");
        }
    }
}
