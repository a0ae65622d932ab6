//! The same command in several processes of this machine, as a child: a program that is asked for them starts the
//! launcher itself.
//!
//! Launchers kill their processes soon after a signal. This process gets it instead, and asks for a checkpoint.

use crate::launcher::{INTERRUPTED, wait_or_save};
use crate::{IS_BUILT, Launcher, STOP_AT_EOF, World, mpirun};
use dcgan_cli::{Outcome, ReportedElsewhere, UsageError};
use std::io;
use std::process::{Child, Command, Stdio};

/// Runs the command in `wanted` processes, where it asks for several and no launcher started this one; else `None`.
///
/// # Errors
/// There is no launcher, or no MPI in this build: exit code 2. The failure of the processes, which they have printed.
pub fn relaunch_if_asked(world: &World, wanted: Option<usize>) -> anyhow::Result<Option<Outcome>> {
    let Some(processes) = wanted.filter(|&processes| processes > 1) else { return Ok(None) };
    if world.is_shared() || Launcher::find().is_some() {
        return Ok(None);
    }
    let fault = |problem: String| UsageError::one(format!("--processes is {processes}{problem}"));
    if !IS_BUILT {
        let problem = "; this program was built without MPI: build it with `cargo build --release --features mpi`, or \
                       use --processes 1: results are the same";
        return Err(fault(problem.to_owned()).into());
    }
    let cancel = dcgan_cli::cancel_on_signals()?;
    stop_at_eof(&cancel)?;
    let mut launcher = start(processes).map_err(|error| fault(format!(": {error}")))?;
    let status = wait_or_save(&mut launcher, &|| cancel.is_set(), &mut || ())?;
    match status.code() {
        Some(0) => Ok(Some(Outcome::Done)),
        Some(INTERRUPTED) => Ok(Some(Outcome::Interrupted)),
        code => {
            Err(ReportedElsewhere { code: code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1) }.into())
        }
    }
}

/// Sets `cancel` when standard input is closed, where [`STOP_AT_EOF`] asks for it.
///
/// # Errors
/// No thread can be started.
pub fn stop_at_eof(cancel: &dcgan_base::Cancel) -> io::Result<()> {
    if std::env::var_os(STOP_AT_EOF).is_none() {
        return Ok(());
    }
    let cancel = cancel.clone();
    let watch = move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        tracing::warn!("standard input was closed: saving and stopping");
        cancel.set();
    };
    std::thread::Builder::new().name("stdin".to_owned()).spawn(watch).map(drop)
}

fn start(processes: usize) -> io::Result<Child> {
    let mut command: Command = mpirun(processes)?;
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0); // Ctrl-C is for this process
    command.env(STOP_AT_EOF, "1").stdin(Stdio::piped()).spawn()
}
