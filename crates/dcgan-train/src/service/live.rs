//! The running job as the service sees it between two checkpoints: how far it is, how fast, and the flag that stops it.

use crate::event::StepLine;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The flag and counters of one running job; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) id: String,
    stop: Arc<AtomicBool>,
    step: Arc<AtomicU64>,
    line: Arc<Mutex<Option<StepLine>>>,
}

impl Running {
    pub(crate) fn new(id: &str, step: u64) -> Self {
        Self {
            id: id.to_owned(),
            stop: Arc::default(),
            step: Arc::new(AtomicU64::new(step)),
            line: Arc::default(),
        }
    }

    /// Asks for a stop at the end of the step.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Steps taken.
    pub(crate) fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    pub(crate) fn set_line(&self, line: &StepLine) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
    }

    /// The latest log line of this life of the job.
    pub(crate) fn line(&self) -> Option<StepLine> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The one running job, where there is one: one worker owns the one device.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Option<Running>>);

impl Live {
    pub(crate) fn set(&self, running: Option<Running>) {
        *self.lock() = running;
    }

    pub(crate) fn current(&self) -> Option<Running> {
        self.lock().clone()
    }

    /// The running job if it is `id`.
    pub(crate) fn get(&self, id: &str) -> Option<Running> {
        self.current().filter(|running| running.id == id)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
