//! Threads of a test as the processes of a group.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use dcgan_ops::ProcessGroup;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Barrier, Mutex};

/// Threads as a group of processes.
#[derive(Debug)]
struct Threads {
    rank: usize,
    size: usize,
    barrier: Arc<Barrier>,
    shared: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Threads {
    fn group(size: usize) -> Vec<Self> {
        let (barrier, shared) = (Arc::new(Barrier::new(size)), Arc::new(Mutex::new(vec![Vec::new(); size])));
        let member = |rank| Self { rank, size, barrier: Arc::clone(&barrier), shared: Arc::clone(&shared) };
        (0..size).map(member).collect()
    }

    fn exchange(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.shared.lock().unwrap()[self.rank] = bytes.to_vec();
        self.barrier.wait();
        let all = self.shared.lock().unwrap().clone();
        self.barrier.wait();
        all
    }
}

impl ProcessGroup for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, part: &[u8], all: &mut [u8]) -> dcgan_ops::Result<()> {
        all.copy_from_slice(&self.exchange(part).concat());
        Ok(())
    }

    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> dcgan_ops::Result<()> {
        let len = send.len() / self.size;
        let own = |sent: &Vec<u8>| sent[self.rank * len..][..len].to_vec();
        receive.copy_from_slice(&self.exchange(send).iter().map(own).collect::<Vec<_>>().concat());
        Ok(())
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) -> dcgan_ops::Result<()> {
        let all = self.exchange(bytes);
        bytes.copy_from_slice(&all[root]);
        Ok(())
    }

    fn abort(&self, reason: &str) -> ! {
        panic!("{reason}")
    }
}

/// Runs `body` as each process of a group. Each has a thread pool of its own, as a process has: in a shared one, a
/// thread that waits for its part of a loop may take up the whole pass of the other, which then waits for the pass
/// below it.
pub(crate) fn in_processes<R: Send>(
    size: usize,
    body: impl Fn(Arc<dyn ProcessGroup>, usize) -> R + Sync,
) -> Vec<R> {
    let body = &body;
    std::thread::scope(|scope| {
        let spawn = |group: Threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
            let rank = group.rank;
            let run = move || pool.install(|| body(Arc::new(group), rank));
            // The others would wait for a thread that panicked.
            scope.spawn(|| {
                std::panic::catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| std::process::abort())
            })
        };
        let threads: Vec<_> = Threads::group(size).into_iter().map(spawn).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
