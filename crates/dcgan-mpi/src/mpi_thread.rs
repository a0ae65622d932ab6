//! The thread that owns MPI.
//!
//! Communicators of rsmpi stay on one thread, and MPI promises less to programs that call it from several. One thread
//! initializes MPI, does every operation, one after the other, and finalizes it; callers wait.

use crate::world::WorldError;
use dcgan_ops::group::ExchangeClock;
use dcgan_ops::{OpsError, ProcessGroup, Result};
use mpi::Threading;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of one operation: MPI counts with `int`.
const MAX_BYTES: usize = 1 << 30;

/// How long an abort waits for the thread, which may be waiting for a process that failed as well.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// Work for the thread.
type Work<'a> = Box<dyn FnOnce(&SimpleCommunicator) + Send + 'a>;

enum Request {
    Work(Work<'static>),
    /// To finalize MPI.
    Finish,
}

/// The processes over MPI.
#[derive(Debug)]
pub(crate) struct MpiThread {
    rank: usize,
    size: usize,
    hosts: Vec<String>,
    clock: ExchangeClock,
    requests: Sender<Request>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl MpiThread {
    /// Initializes MPI; also the name of this host.
    pub(crate) fn start() -> std::result::Result<(Self, String), WorldError> {
        let (requests, received) = channel();
        let (started, ready) = channel();
        let thread = std::thread::Builder::new().name("mpi".to_owned()).spawn(move || {
            // "Funneled": other threads exist, this one alone calls MPI.
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                return; // `ready` tells
            };
            let world = universe.world();
            let host = mpi::environment::processor_name().unwrap_or_default();
            let _ = started.send((world.rank(), world.size(), host));
            serve(&world, &received);
            // Finalizes MPI.
            drop(universe);
        });
        let problem = |problem: &str| WorldError::Initialize { problem: problem.to_owned() };
        let thread = thread.map_err(|error| problem(&error.to_string()))?;
        let (rank, size, host) =
            ready.recv().map_err(|_| problem("it is initialized already, or its library refused"))?;
        let unsigned = |value: i32| usize::try_from(value).unwrap_or(0);
        let thread = Mutex::new(Some(thread));
        let (rank, size, clock) = (unsigned(rank), unsigned(size), ExchangeClock::default());
        Ok((Self { rank, size, hosts: Vec::new(), clock, requests, thread }, host))
    }

    /// Sets the names of the hosts, one for each process.
    pub(crate) fn set_hosts(&mut self, hosts: Vec<String>) {
        self.hosts = hosts;
    }

    /// Waits for all processes and finalizes MPI.
    pub(crate) fn finish(&self) {
        // A process that leaves early would look like a failure to some launchers.
        let _ = dcgan_ops::group::barrier(self);
        let _ = self.requests.send(Request::Finish);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    /// Does `work` on the thread, and waits for it.
    fn call<R: Send>(&self, work: impl FnOnce(&SimpleCommunicator) -> R + Send) -> Result<R> {
        let (done, result) = channel();
        let work: Work<'_> = Box::new(move |world| {
            let _ = done.send(work(world));
        });
        // SAFETY: only the lifetime changes. `work` holds the one sender of `result`, so that `recv` below returns
        // only after `work` has run or was dropped: what it borrows outlives it.
        #[allow(unsafe_code, reason = "borrowed buffers are handed to a thread that outlives them")]
        let work = unsafe { std::mem::transmute::<Work<'_>, Work<'static>>(work) };
        let gone = || OpsError::Exchange { problem: "MPI has ended".to_owned() };
        self.requests.send(Request::Work(work)).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }

    fn check(bytes: usize) -> Result<()> {
        if bytes <= MAX_BYTES {
            return Ok(());
        }
        Err(OpsError::Exchange { problem: format!("{bytes} bytes for one process, at most {MAX_BYTES} fit") })
    }
}

/// Does the work that comes, until the program leaves MPI.
fn serve(world: &SimpleCommunicator, received: &Receiver<Request>) {
    while let Ok(Request::Work(work)) = received.recv() {
        work(world);
    }
}

impl ProcessGroup for MpiThread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, part: &[u8], all: &mut [u8]) -> Result<()> {
        Self::check(part.len())?;
        self.call(|world| world.all_gather_into(part, all))
    }

    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        Self::check(send.len() / self.size)?;
        self.call(|world| world.all_to_all_into(send, receive))
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()> {
        let root = i32::try_from(root).unwrap_or(0);
        self.call(|world| {
            let root = world.process_at_rank(root);
            bytes.chunks_mut(MAX_BYTES).for_each(|part| root.broadcast_into(part));
        })
    }

    fn gather(&self, part: &[u8], all: &mut [u8], root: usize) -> Result<()> {
        Self::check(part.len())?;
        let (own, root) = (self.rank == root, i32::try_from(root).unwrap_or(0));
        self.call(|world| {
            let root = world.process_at_rank(root);
            if own { root.gather_into_root(part, all) } else { root.gather_into(part) }
        })
    }

    fn abort(&self, reason: &str) -> ! {
        tracing::error!("{} ends all processes: {reason}", self.name(self.rank));
        let (_wait, forever) = channel::<()>();
        let work: Work<'static> = Box::new(|world| world.abort(1));
        if self.requests.send(Request::Work(work)).is_ok() {
            let _ = forever.recv_timeout(ABORT_WAIT);
        }
        // The thread is in an operation that cannot end. Launchers end a job when a process exits this way.
        std::process::exit(1)
    }

    fn name(&self, rank: usize) -> String {
        match self.hosts.get(rank) {
            Some(host) => format!("rank {rank} on {host}"),
            None => format!("rank {rank}"),
        }
    }

    fn clock(&self) -> Option<&ExchangeClock> {
        Some(&self.clock)
    }
}
