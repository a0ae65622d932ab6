//! The training loop: read a minibatch, take a step, record it, checkpoint when due.
//!
//! [`run`] is called by the command line and by the service; neither holds training logic. Everything random is drawn
//! from streams keyed by the step, so that a run resumed at step k continues as if it had never stopped.

use crate::checkpoint::{Best, Checkpoint, State};
use crate::config::Plan;
use crate::error::TrainError;
use crate::evaluation::{Evaluator, can_evaluate, real_images, update_ema};
use crate::event::Event;
use crate::frechet::{self, RandomFeatureFrechet};
use crate::recorder::{self, Recorder};
use crate::run_folder::{RunFolder, RunResult};
use crate::start::{fresh, resumed, to_checkpoint};
use crate::step::{LearningRate, Networks, train_step};
use dcgan_data::image_grid::ImageGrid;
use dcgan_data::{Dataset, Loader, LoaderConfig};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Latents, Model, ModelFiles, NetworkError, pixels};
use dcgan_ops::{BufferPool, Device};
use std::sync::Arc;
use std::time::Instant;

/// Threads that decode images.
const LOADER_THREADS: usize = 2;
/// Minibatches that are read ahead.
const PREFETCH: usize = 4;

/// Steps with a sample grid before the first of `sample_every`. On two CPU cores the first one takes less than a minute
/// with every preset.
const EARLY_SAMPLES: [u64; 3] = [16, 64, 256];

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEnd {
    /// All steps were taken.
    Finished(RunResult),
    /// It was cancelled, and wrote a checkpoint at this step.
    Interrupted {
        /// Steps taken.
        step: u64,
    },
    /// The run was complete before; nothing was done.
    AlreadyFinished(RunResult),
}

/// The resources of a run, except its folder.
#[derive(Debug)]
pub struct Inputs {
    /// Real images.
    pub data: Arc<Dataset>,
    /// Their name in the model card.
    pub data_name: String,
    /// Where the networks run.
    pub device: Device,
    /// Weights to start from in place of random ones.
    pub init: Option<ModelFiles>,
}

/// Trains by `plan` in `folder`, from its newest checkpoint or from the start, until the plan is complete or
/// `cancelled` is true.
///
/// `observer` gets every event after it was written to stats.jsonl and the event file; `progress` gets the number of
/// steps taken and of all steps after every step.
///
/// # Errors
/// [`TrainError`]; the last good checkpoint stays whatever happens.
pub fn run(
    folder: &RunFolder,
    plan: &Plan,
    inputs: Inputs,
    observer: &mut dyn FnMut(&Event),
    progress: &mut dyn FnMut(u64, u64),
    cancelled: &dyn Fn() -> bool,
) -> Result<RunEnd, TrainError> {
    folder.prepare()?;
    let (newest, damaged) = folder.latest()?;
    for problem in damaged {
        tracing::warn!("a damaged checkpoint is set aside, an earlier one is used: {problem}");
    }
    let total_steps = plan.total_steps(inputs.data.len());
    let last_good = newest.as_ref().map(|newest| recorder::path_of(folder, newest.state.step));
    let with_last_good = |error: TrainError| error.with_last_good(last_good.as_deref());
    if let Some(Checkpoint { state, .. }) = &newest {
        if state.data != inputs.data.fingerprint() {
            return Err(TrainError::OtherData);
        }
        if state.step >= total_steps {
            // The process may have been killed between the last checkpoint and what follows it.
            let result = recorder::finish(folder, plan, state, total_steps).map_err(with_last_good)?;
            return Ok(RunEnd::AlreadyFinished(result));
        }
    }
    let mut trainer =
        Trainer::new(folder, plan, inputs, newest, total_steps, observer).map_err(with_last_good)?;
    let end = trainer.train(progress, cancelled);
    end.map_err(|error| error.with_last_good(trainer.recorder.last_good()))
}

struct Trainer<'a> {
    folder: &'a RunFolder,
    plan: &'a Plan,
    total_steps: u64,
    /// Memory of minibatches, used again by the next step.
    pool: BufferPool,
    networks: Networks,
    loader: Loader,
    evaluator: Evaluator<'a>,
    recorder: Recorder<'a>,
    state: State,
}

impl<'a> Trainer<'a> {
    fn new(
        folder: &'a RunFolder,
        plan: &'a Plan,
        inputs: Inputs,
        newest: Option<Checkpoint>,
        total_steps: u64,
        observer: &'a mut dyn FnMut(&Event),
    ) -> Result<Self, TrainError> {
        let Inputs { data, data_name, device, init } = inputs;
        let model = Model::new(plan.model.clone())?;
        let (state, networks) = match &newest {
            Some(checkpoint) => resumed(&model, plan, checkpoint, &device)?,
            None => fresh(&model, plan, init, data.fingerprint(), &device)?,
        };
        let is_resumed = newest.is_some();
        drop(newest); // frees the memory of its tensors
        let config = LoaderConfig {
            batch_size: plan.training.batch_size,
            seed: plan.run.seed,
            mirror: plan.training.mirror,
            threads: LOADER_THREADS,
            prefetch: PREFETCH,
        };
        let loader = Loader::new(Arc::clone(&data), config, state.position)?;
        tracing::info!(
            "measuring {} real images for the random-feature Fréchet distance",
            data.len().min(frechet::IMAGES)
        );
        let frechet = RandomFeatureFrechet::new(&data, &plan.model, &device)?;
        if let Some(real) = frechet.real_frechet() {
            tracing::info!(
                "random-feature Fréchet distance between two halves of the real images: {real:.4}"
            );
        }
        let reals = real_images(&data)?;
        if !folder.reals().exists() {
            ImageGrid::square(&reals, data.shape())?.save(&folder.reals())?;
        }
        let evaluator = Evaluator::new(plan, model, &reals, frechet);
        let resumed = is_resumed.then_some(&state);
        let mut recorder = Recorder::new(folder, plan, data_name, total_steps, resumed, observer)?;
        recorder.start_interval(state.step, loader.wait_time());
        let pool = BufferPool::new();
        Ok(Self { folder, plan, total_steps, pool, networks, loader, evaluator, recorder, state })
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<RunEnd, TrainError> {
        if self.state.step == 0 && can_evaluate(&self.networks) {
            self.sample(true)?; // of the weights of --init-from
        }
        while self.state.step < self.total_steps {
            self.step()?;
            let step = self.state.step;
            progress(step, self.total_steps);
            let is_last = step == self.total_steps;
            let is_due = |every: u64| step.is_multiple_of(every) || is_last;
            if is_due(self.plan.run.log_every) {
                self.recorder.log(&self.state, self.loader.wait_time())?;
            }
            if is_due(self.plan.run.sample_every) {
                self.sample(true)?;
            } else if step < self.plan.run.sample_every && EARLY_SAMPLES.contains(&step) {
                self.sample(false)?;
            }
            let is_cancelled = cancelled();
            if is_due(self.plan.run.checkpoint_every) {
                let frechet = self.frechet()?;
                self.checkpoint(Some(frechet))?;
            } else if is_cancelled {
                // Outside the schedule: never the best, because an uninterrupted run would not have it.
                self.checkpoint(None)?;
            }
            if is_cancelled && !is_last {
                return Ok(RunEnd::Interrupted { step });
            }
        }
        let result = recorder::finish(self.folder, self.plan, &self.state, self.total_steps)?;
        Ok(RunEnd::Finished(result))
    }

    fn step(&mut self) -> Result<(), TrainError> {
        let (step, plan) = (self.state.step, self.plan);
        let batch = self.loader.next_batch()?;
        let x = pixels::to_maps(&batch.pixels, &plan.model, &self.pool).map_err(NetworkError::from)?;
        let latent = &plan.model.latent;
        let mut stream = random::stream(plan.run.seed, Purpose::TrainingLatent, step);
        let latents = Latents::new(random::latent(&mut stream, batch.count, latent), latent.size)?;
        let rate = LearningRate(plan.learning_rate(step, self.total_steps));
        let output =
            train_step(&mut self.networks, &plan.training, rate, step, (&x, &latents)).map_err(|source| {
                TrainError::Step { step: step + 1, source: Box::new(source), checkpoint: None }
            })?;
        update_ema(&mut self.networks, plan.training.ema);
        self.recorder.observe_step(&output);
        self.state.step += 1;
        self.state.images += batch.count as u64;
        self.state.position = self.loader.position();
        let step = self.state.step;
        let alarm = output.discriminator.and_then(|d| self.state.alarms.observe_loss(step, d.loss));
        self.recorder.alarm(step, alarm)
    }

    /// Writes a sample grid. Early ones are not `checked` for collapse: G may not have learned to be diverse yet.
    fn sample(&mut self, checked: bool) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        let samples = self.evaluator.sample(&mut self.networks, step)?;
        self.recorder.sample(&self.state, &samples)?;
        let alarm = if checked { self.state.alarms.observe_diversity(step, samples.diversity) } else { None };
        self.recorder.exclude_since(started);
        self.recorder.alarm(step, alarm)
    }

    fn frechet(&mut self) -> Result<f64, TrainError> {
        let started = Instant::now();
        let frechet = self.evaluator.frechet(&mut self.networks, self.state.step)?;
        self.recorder.exclude_since(started);
        Ok(frechet)
    }

    fn checkpoint(&mut self, frechet: Option<f64>) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        let is_better = |frechet: &f64| self.state.best.is_none_or(|best| *frechet < best.frechet);
        let best = frechet.filter(|frechet| frechet.is_finite() && is_better(frechet));
        if let Some(frechet) = best {
            self.state.best = Some(Best { step, frechet });
        }
        let real_frechet = frechet.and(self.evaluator.real_frechet());
        let event = self.recorder.begin_checkpoint(step, (frechet, real_frechet), best.is_some())?;
        let ema = self.evaluator.ema_weights(&mut self.networks, step)?;
        let checkpoint =
            to_checkpoint(self.evaluator.model(), &self.networks, ema.as_ref(), self.state.clone())?;
        self.recorder.checkpoint(&checkpoint, &event)?;
        self.recorder.exclude_since(started);
        Ok(())
    }
}
