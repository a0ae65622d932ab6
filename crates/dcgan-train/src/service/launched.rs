//! Jobs in several processes: `dcgan-train resume`, which starts them through the MPI launcher, as a child of the
//! service. It stops with a checkpoint on SIGUSR1, and when the service ends.

use super::record::{Once, Outcome};
use super::worker::JobError;
use crate::config::Plan;
use crate::event::{Event, EventLine};
use crate::run_folder::RunFolder;
use dcgan_mpi::{INTERRUPTED, STOP_AT_EOF, wait_or_save};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::JoinHandle;

/// Bytes of the end of stderr that tell why a child failed.
const MESSAGE_BYTES: usize = 4096;

/// Why this machine cannot start the processes of a job.
pub(super) fn fault(processes: usize, cores: usize) -> Option<String> {
    if !dcgan_mpi::IS_BUILT {
        return Some(format!(
            "processes is {processes}, and this service was built without MPI (feature mpi)"
        ));
    }
    (processes > cores).then(|| format!("processes is {processes}, this machine runs {cores} at a time"))
}

/// Whether a run trains in several processes.
pub(super) fn is_launched(plan: &Plan) -> bool {
    plan.run.processes.is_some_and(|processes| processes > 1)
}

/// Trains the run in `folder` until it is complete or `cancelled`.
pub(super) fn train(
    folder: &RunFolder,
    once: Once,
    sink: &mut dyn FnMut(&Event),
    cancelled: &dyn Fn() -> bool,
) -> Result<Outcome, JobError> {
    let mut events = Events::new(folder.stats_file());
    let mut child = start(folder, once).map_err(JobError::Launch)?;
    let message = child.stderr.take().map(read_message);
    let status = wait_or_save(&mut child, cancelled, &mut || events.read(sink)).map_err(JobError::Launch)?;
    match status.code() {
        Some(0) => Ok(Outcome::Done),
        Some(INTERRUPTED) => Ok(Outcome::Stopped),
        _ => {
            let text = message.and_then(|message| message.join().ok()).unwrap_or_default();
            Err(JobError::Processes { message: reason(&text) })
        }
    }
}

fn start(folder: &RunFolder, once: Once) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("resume").arg(folder.path()).args(["--quiet"]);
    if once.accept_data_change {
        command.arg("--accept-data-change");
    }
    if once.skip_again {
        command.arg("--skip-bad");
    }
    command.env(STOP_AT_EOF, "1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// Reads stderr to its end, and keeps its last bytes.
fn read_message(mut stderr: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut tail, mut block) = (Vec::new(), [0; 1024]);
        while let Ok(n @ 1..) = stderr.read(&mut block) {
            tail.extend_from_slice(&block[..n]);
            let surplus = tail.len().saturating_sub(MESSAGE_BYTES);
            tail.drain(..surplus);
        }
        String::from_utf8_lossy(&tail).into_owned()
    })
}

/// The message of the program in what it and the launcher wrote.
fn reason(text: &str) -> String {
    let own: Vec<&str> = text.lines().filter(|line| line.starts_with("dcgan-train")).collect();
    let signal = || text.lines().find(|line| line.contains("exited on signal")).map(str::trim);
    match own.first() {
        Some(line) => line.split_once(": ").map_or(*line, |(_, message)| message).to_owned(),
        None => signal().unwrap_or("its processes ended early").to_owned(),
    }
}

/// The events that the child adds to stats.jsonl.
struct Events {
    path: PathBuf,
    /// Bytes read.
    offset: u64,
    /// The last step seen: a resumed run writes its first lines again.
    last: u64,
}

impl Events {
    /// Those after the ones that are there.
    fn new(path: PathBuf) -> Self {
        let offset = path.metadata().map_or(0, |metadata| metadata.len());
        Self { path, offset, last: 0 }
    }

    /// Gives the new ones to `sink`. A file that cannot be read now is read later.
    fn read(&mut self, sink: &mut dyn FnMut(&Event)) {
        let mut text = String::new();
        let mut read = || -> io::Result<()> {
            let mut file = File::open(&self.path)?;
            if file.metadata()?.len() < self.offset {
                self.offset = 0; // a resumed run has dropped the lines after its checkpoint
            }
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_string(&mut text).map(drop)
        };
        if read().is_err() {
            return;
        }
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += complete as u64;
        for line in text[..complete].lines() {
            // The rest of a line whose beginning was dropped is no event.
            let Ok(EventLine { event, .. }) = serde_json::from_str(line) else { continue };
            if event.step() >= self.last {
                self.last = event.step();
                sink(&event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_message_of_the_program() {
        let rows = [
            ("--\ndcgan-train (rank 1 on a): step 3: no such file\n(see `x`)\n--\n", "step 3: no such file"),
            (
                "mpirun noticed that process rank 1 on node a exited on signal 9 (Killed).\n",
                "mpirun noticed that process rank 1 on node a exited on signal 9 (Killed).",
            ),
            ("", "its processes ended early"),
        ];
        for (text, expected) in rows {
            assert_eq!(reason(text), expected);
        }
    }
}
