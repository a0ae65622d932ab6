//! In-memory state of the running job: its progress between two checkpoints, its latest log line and its stop flag.

use crate::event::StepLine;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handle of a running job; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct RunningJob {
    pub(crate) id: String,
    stop: Arc<AtomicBool>,
    step: Arc<AtomicU64>,
    line: Arc<Mutex<Option<StepLine>>>,
}

impl RunningJob {
    pub(crate) fn new(id: &str, step: u64) -> Self {
        Self {
            id: id.to_owned(),
            stop: Arc::default(),
            step: Arc::new(AtomicU64::new(step)),
            line: Arc::default(),
        }
    }

    /// Requests a stop after the current step.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Completed steps.
    pub(crate) fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    pub(crate) fn set_line(&self, line: &StepLine) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.clone());
    }

    /// The latest log line since the job was started or resumed.
    pub(crate) fn line(&self) -> Option<StepLine> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The job that the worker runs now, if any.
#[derive(Debug, Default)]
pub(crate) struct CurrentJob(Mutex<Option<RunningJob>>);

impl CurrentJob {
    pub(crate) fn set(&self, job: Option<RunningJob>) {
        *self.lock() = job;
    }

    pub(crate) fn get(&self) -> Option<RunningJob> {
        self.lock().clone()
    }

    /// The running job if its id is `id`.
    pub(crate) fn get_by_id(&self, id: &str) -> Option<RunningJob> {
        self.get().filter(|job| job.id == id)
    }

    fn lock(&self) -> MutexGuard<'_, Option<RunningJob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
