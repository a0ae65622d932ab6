//! The steps of a run: minibatches, z, and what takes the steps. The same for the process that records a run and for
//! those that follow it.

use crate::config::Plan;
use crate::engine::{Engine, StepBatch};
use crate::error::TrainError;
use crate::processes::{ExchangeTimes, Word, digest, meet};
use crate::step::{LearningRate, Networks, StepError};
use dcgan_data::{BatchPart, Dataset, KeptImages, Loader, LoaderConfig, LoaderPosition};
use dcgan_model::Latents;
use dcgan_model::random::{self, Purpose};
use dcgan_ops::ProcessGroup;
use std::sync::Arc;
use std::time::Duration;

/// Maximum size of prefetched minibatches, in bytes.
const READ_AHEAD_BYTES: u64 = 64 << 20;

/// Maximum number of decoding threads.
fn loader_threads(plan: &Plan) -> usize {
    let cores = || std::thread::available_parallelism().map_or(2, usize::from);
    plan.run.loader_threads.unwrap_or_else(cores)
}

/// Takes the steps of a run.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    plan: &'a Plan,
    total: u64,
    pub(crate) group: Arc<dyn ProcessGroup>,
    /// `networks` may be behind it.
    pub(crate) engine: Engine,
    pub(crate) networks: Networks,
    pub(crate) loader: Loader,
    /// The images that the device has, where it keeps them.
    kept: Option<Arc<KeptImages>>,
    /// Time in exchanges of each process before the last step; empty for a single one.
    pub(crate) times: ExchangeTimes,
    /// Time that rank 0 has taken for evaluation and writing, now and at the last step.
    pub(crate) excluded: Duration,
    excluded_before: Duration,
    /// Whether weights and counters are those of a whole number of steps.
    pub(crate) is_whole: bool,
}

impl<'a> Steps<'a> {
    /// Steps from `position` on. The device keeps images in the memory that is left.
    pub(crate) fn new(
        plan: &'a Plan,
        total: u64,
        group: Arc<dyn ProcessGroup>,
        networks: Networks,
        (data, position): (&Arc<Dataset>, LoaderPosition),
    ) -> Result<Self, TrainError> {
        let kept = Arc::new(KeptImages::new(data));
        let engine = Engine::new(&networks, &plan.training, &plan.model, kept.capacity(), &group)?;
        let kept = engine.keeps_images().then_some(kept);
        let config = LoaderConfig {
            batch_size: plan.training.batch_size,
            seed: plan.run.seed,
            mirror: plan.training.mirror,
            threads: loader_threads(plan),
            prefetch_bytes: READ_AHEAD_BYTES.min(plan.run.loader_memory_bytes() / 4),
            part: BatchPart { index: group.rank(), count: group.size() },
        };
        let loader = Loader::keeping(Arc::clone(data), config, position, kept.clone())?;
        Ok(Self {
            plan,
            total,
            group,
            engine,
            networks,
            loader,
            kept,
            times: ExchangeTimes::default(),
            excluded: Duration::ZERO,
            excluded_before: Duration::ZERO,
            is_whole: true,
        })
    }

    /// Takes step `step` (from 0), unless a process was asked to `stop`. With several processes, all of them agree
    /// before; one alone does not stop here.
    ///
    /// # Errors
    /// An image that cannot be read, a step that is not finite, the failure of another process.
    pub(crate) fn take(&mut self, step: u64, stop: bool) -> Result<bool, TrainError> {
        let batch = self.loader.next_batch();
        if self.group.size() > 1 {
            let compares = step.is_multiple_of(self.plan.run.checkpoint_every);
            let digest = if compares { self.digest()? } else { [0; 32] };
            let word = Word { stop, failed: batch.is_err(), digest };
            let (stop, times) = meet(self.group.as_ref(), step, word)?;
            // They are those before the wait that has just ended.
            let excluded = std::mem::replace(&mut self.excluded_before, self.excluded);
            self.times = ExchangeTimes { processes: times, excluded };
            if stop {
                return Ok(false);
            }
        }
        let batch = batch.map_err(|source| TrainError::Image {
            step: step + 1,
            source: Box::new(source),
            checkpoint: None,
        })?;
        self.is_whole = false;
        let (plan, latent) = (self.plan, &self.plan.model.latent);
        let mut stream = random::stream(plan.run.seed, Purpose::TrainingLatent, step);
        // All processes draw the z of the whole batch.
        let z = random::latent(&mut stream, plan.training.batch_size, latent);
        let own = self.group.rank() * batch.count * latent.size;
        let mut latents = Latents::new(z[own..own + batch.count * latent.size].to_vec(), latent.size)?;
        if plan.model.is_conditional() {
            // G takes the classes of the real images, as in the authors' script.
            let labels = batch.labels.as_deref().unwrap_or_default();
            latents = latents.with_labels(labels, plan.model.classes)?;
        }
        let rate = LearningRate(plan.learning_rate(step, self.total));
        let input = StepBatch { pixels: &batch.pixels, images: &batch.images, latents: &latents };
        if let Err(source) = self.engine.step(&mut self.networks, rate, step, input) {
            // What is not finite is so in every process; other failures are this one's alone.
            if self.group.size() > 1 && !matches!(source, StepError::NonFinite { .. }) {
                self.group.abort(&format!("step {}: {source}", step + 1));
            }
            return Err(TrainError::Step { step: step + 1, source: Box::new(source), checkpoint: None });
        }
        if let Some(kept) = &self.kept {
            kept.keep(&batch);
        }
        self.is_whole = true;
        Ok(true)
    }

    /// Digest of all that both networks train.
    fn digest(&mut self) -> Result<[u8; 32], TrainError> {
        self.engine.store(&mut self.networks)?;
        Ok(digest(&self.networks))
    }

    /// Whether the other processes know of a failure already. A device reports a step that is not finite some steps
    /// later.
    pub(crate) fn is_told(&self, error: &TrainError) -> bool {
        let is_late = self.engine.steps_ahead() > 1 && matches!(error, TrainError::Step { .. });
        error.is_of_all_processes() && !is_late
    }

    /// After a failure between two steps: the others are told at the next one.
    pub(crate) fn tell_failure(&self, step: u64) {
        let word = Word { failed: true, ..Word::default() };
        // The failure itself is what matters.
        let _ = meet(self.group.as_ref(), step, word);
    }

    /// The last synchronization, after the last step.
    ///
    /// # Errors
    /// Those of [`meet`].
    pub(crate) fn finish(&mut self, step: u64) -> Result<(), TrainError> {
        if self.group.size() > 1 {
            let word = Word { digest: self.digest()?, ..Word::default() };
            meet(self.group.as_ref(), step, word)?;
        }
        Ok(())
    }
}
