//! In-memory state of the running jobs: progress between two checkpoints, the latest log line and the stop flag.

use super::devices::WorkerDevice;
use crate::event::StepLine;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handle of a running job; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct RunningJob {
    pub(crate) id: String,
    /// Label of its device.
    pub(crate) device: String,
    pub(crate) on_cpu: bool,
    stop: Arc<AtomicBool>,
    step: Arc<AtomicU64>,
    line: Arc<Mutex<Option<StepLine>>>,
}

impl RunningJob {
    pub(crate) fn new(id: &str, step: u64, device: &WorkerDevice) -> Self {
        Self {
            id: id.to_owned(),
            device: device.label.clone(),
            on_cpu: device.device.is_cpu(),
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

/// The jobs that the workers run now, at most one for each device.
#[derive(Debug, Default)]
pub(crate) struct RunningJobs(Mutex<Vec<RunningJob>>);

impl RunningJobs {
    pub(crate) fn add(&self, job: RunningJob) {
        self.lock().push(job);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().retain(|job| job.id != id);
    }

    pub(crate) fn all(&self) -> Vec<RunningJob> {
        self.lock().clone()
    }

    /// Whether a job trains on the CPU.
    pub(crate) fn any_on_cpu(&self) -> bool {
        self.lock().iter().any(|job| job.on_cpu)
    }

    /// The running job of this id.
    pub(crate) fn get(&self, id: &str) -> Option<RunningJob> {
        self.lock().iter().find(|job| job.id == id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RunningJob>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
