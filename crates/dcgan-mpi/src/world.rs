//! The processes that were started together.

use crate::launcher::Launcher;
use dcgan_ops::{OpsError, ProcessGroup, SingleProcess};
use std::sync::Arc;

#[cfg(feature = "mpi")]
use crate::{affinity, mpi_thread::MpiThread};

/// Bytes of the name of a host that messages show.
#[cfg(feature = "mpi")]
const HOST_BYTES: usize = 64;

/// Why a process cannot join the others.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Several processes of a program without MPI.
    #[error(
        "{} processes were started together ({} is set), and this program was built without MPI: build it with \
         `cargo build --release --features mpi`; to start separate runs this way, unset {}",
        launcher.processes.map_or_else(|| "several".to_owned(), |n| n.to_string()), launcher.variable, launcher.variable
    )]
    WithoutMpi {
        /// Who started them.
        launcher: Launcher,
    },
    /// The MPI library refused to start.
    #[error("MPI cannot be initialized: {problem}")]
    Initialize {
        /// What is known of it.
        problem: String,
    },
    /// The first exchange failed.
    #[error(transparent)]
    Exchange(#[from] OpsError),
}

/// The processes that were started together. When it is dropped it waits for the others and leaves MPI; in a panic it
/// ends the others.
#[derive(Debug)]
pub struct World {
    group: Arc<dyn ProcessGroup>,
    /// Threads of this process; `None` in a single one.
    threads: Option<usize>,
    /// Its number among the processes of its host, and how many there are.
    place: (usize, usize),
    #[cfg(feature = "mpi")]
    mpi: Option<Arc<MpiThread>>,
}

impl World {
    /// Joins the processes that the launcher started; a group of one if there is none. Called once in a process.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn start() -> Result<Self, WorldError> {
        match Launcher::find() {
            Some(Launcher { processes: Some(1), .. }) | None => Ok(Self::single()),
            Some(launcher) => Self::join(launcher),
        }
    }

    fn single() -> Self {
        Self {
            group: Arc::new(SingleProcess),
            threads: None,
            place: (0, 1),
            #[cfg(feature = "mpi")]
            mpi: None,
        }
    }

    #[cfg(not(feature = "mpi"))]
    fn join(launcher: Launcher) -> Result<Self, WorldError> {
        Err(WorldError::WithoutMpi { launcher })
    }

    #[cfg(feature = "mpi")]
    fn join(_: Launcher) -> Result<Self, WorldError> {
        let (mut mpi, host) = MpiThread::start()?;
        let mut own = [0; HOST_BYTES + affinity::BYTES];
        let len = host.len().min(HOST_BYTES);
        own[..len].copy_from_slice(&host.as_bytes()[..len]);
        own[HOST_BYTES..].copy_from_slice(&affinity::cores());
        let mut all = vec![0; own.len() * mpi.size()];
        mpi.all_gather(&own, &mut all)?;
        let processes: Vec<(String, &[u8])> = all
            .chunks_exact(own.len())
            .map(|process| {
                let host = String::from_utf8_lossy(&process[..HOST_BYTES]);
                (host.trim_end_matches('\0').to_owned(), &process[HOST_BYTES..])
            })
            .collect();
        let named: Vec<(&str, &[u8])> =
            processes.iter().map(|(host, cores)| (host.as_str(), *cores)).collect();
        let threads = affinity::threads(mpi.rank(), &named);
        let own_host = named[mpi.rank()].0;
        let on_host =
            |processes: &[(&str, &[u8])]| processes.iter().filter(|(host, _)| *host == own_host).count();
        let place = (on_host(&named[..mpi.rank()]), on_host(&named));
        mpi.set_hosts(named.iter().map(|(host, _)| (*host).to_owned()).collect());
        let mpi = Arc::new(mpi);
        let group = Arc::clone(&mpi) as Arc<dyn ProcessGroup>;
        Ok(Self { group, threads: Some(threads), place, mpi: Some(mpi) })
    }

    /// The processes.
    pub fn group(&self) -> &Arc<dyn ProcessGroup> {
        &self.group
    }

    /// Whether there are others.
    pub fn is_shared(&self) -> bool {
        self.group.size() > 1
    }

    /// The number of this process among those of its host, and how many these are.
    pub fn place_on_host(&self) -> (usize, usize) {
        self.place
    }

    /// Threads for this process where several share the cores of a host; `None` if it is alone.
    pub fn threads(&self) -> Option<usize> {
        self.threads
    }
}

#[cfg(feature = "mpi")]
impl Drop for World {
    fn drop(&mut self) {
        let Some(mpi) = self.mpi.take() else { return };
        if std::thread::panicking() {
            mpi.abort("it panicked");
        }
        mpi.finish();
    }
}
