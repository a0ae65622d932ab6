//! The loop: read a minibatch, take a step, write down what happened, checkpoint, go on.
//!
//! [`run`] is called by the command line and later by the service; neither holds training logic. Everything random is
//! drawn from streams keyed by the step, so that a run resumed at step k goes on as if it had never stopped.

use crate::checkpoint::{self, Best, Checkpoint, State};
use crate::config::Plan;
use crate::error::TrainError;
use crate::event::{AlarmKind, Event, StepLine};
use crate::frechet::{self, RandomFeatureFrechet};
use crate::memory::GRID;
use crate::run_folder::{RunFolder, RunResult, Stats};
use crate::start::{fresh, resumed, to_checkpoint, to_host};
use crate::step::{LearningRate, Networks, StepError, StepOutput, train_step};
use candle_core::{Device, Tensor};
use dcgan_data::image_grid::ImageGrid;
use dcgan_data::{DataError, Dataset, Loader, LoaderConfig};
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{Weights, first_non_finite};
use dcgan_model::{Model, ModelFiles, NetworkError, checkpoints, draw, ensure_statistics, pixels};
use dcgan_ops::{free_spare_values, give_back};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads that decode images, and minibatches that wait for the networks.
const LOADER_THREADS: usize = 2;
const PREFETCH: usize = 4;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEnd {
    /// All steps were taken.
    Finished(RunResult),
    /// It was asked to stop, and wrote a checkpoint at this step.
    Interrupted {
        /// Steps taken.
        step: u64,
    },
    /// The run was complete before; nothing was done.
    AlreadyFinished(RunResult),
}

/// What a run works with, besides its folder.
#[derive(Debug)]
pub struct Inputs {
    /// Real images.
    pub data: Arc<Dataset>,
    /// What the model card says of them.
    pub data_name: String,
    /// Where the networks run.
    pub device: Device,
    /// Weights to start from in place of random ones.
    pub init: Option<ModelFiles>,
}

/// Trains by `plan` in `folder`, from its newest checkpoint or from the start, until the plan is done or `cancelled` says so.
///
/// `sink` sees every event after it was written to stats.jsonl and the event file; `progress` sees every step taken.
///
/// # Errors
/// [`TrainError`]; the last good checkpoint stays whatever happens.
pub fn run(
    folder: &RunFolder,
    plan: &Plan,
    inputs: Inputs,
    sink: &mut dyn FnMut(&Event),
    progress: &mut dyn FnMut(u64, u64),
    cancelled: &dyn Fn() -> bool,
) -> Result<RunEnd, TrainError> {
    folder.make_folders()?;
    let (found, damaged) = folder.latest()?;
    for problem in damaged {
        tracing::warn!("a damaged checkpoint is set aside, an earlier one is used: {problem}");
    }
    let total = plan.total_steps(inputs.data.len());
    let path = |found: &Checkpoint| folder.checkpoints().join(checkpoints::name(found.state.step));
    let last_good = found.as_ref().map(path);
    if let Some(Checkpoint { state, .. }) = &found {
        if state.data != inputs.data.fingerprint() {
            return Err(TrainError::OtherData);
        }
        if state.step >= total {
            // A kill may have come between the last checkpoint and what follows it.
            let result =
                finish(folder, plan, state, total).map_err(|e| e.with_last_good(last_good.as_ref()))?;
            return Ok(RunEnd::AlreadyFinished(result));
        }
    }
    let mut trainer = Trainer::new(folder, plan, inputs, found, total, sink)
        .map_err(|error| error.with_last_good(last_good.as_ref()))?;
    let ended = trainer.train(progress, cancelled);
    free_spare_values();
    ended.map_err(|error| error.with_last_good(trainer.last_good.as_ref()))
}

/// What follows the last checkpoint: the link to the best one, old ones removed, `result.json`. Doing it again changes nothing.
fn finish(folder: &RunFolder, plan: &Plan, state: &State, total: u64) -> Result<RunResult, TrainError> {
    settle(folder, plan, state, total)?;
    let result = RunResult {
        steps: state.step,
        images: state.images,
        best_step: state.best.map(|best| best.step),
        best_frechet: state.best.map(|best| best.frechet),
    };
    folder.write_result(&result)?;
    Ok(result)
}

/// What follows every checkpoint: the link to the best one, old ones removed.
fn settle(folder: &RunFolder, plan: &Plan, state: &State, total: u64) -> Result<(), TrainError> {
    let (checkpoints, best) = (folder.checkpoints(), state.best.map(|best| best.step));
    if let Some(step) = best
        && checkpoints.join(checkpoints::name(step)).exists()
    {
        folder.point_best(step)?;
    }
    let scheduled = |step: u64| step.is_multiple_of(plan.run.checkpoint_every) || step == total;
    Ok(checkpoint::prune(&checkpoints, plan.run.keep, best, &scheduled)?)
}

struct Trainer<'a> {
    folder: &'a RunFolder,
    plan: &'a Plan,
    model: Model,
    data_name: String,
    device: Device,
    networks: Networks,
    /// [`Trainer::averaged`] of the step it was last asked at.
    averaged: Option<(u64, Weights)>,
    loader: Loader,
    quality: RandomFeatureFrechet,
    real_distance: f64,
    state: State,
    stats: Stats,
    sink: &'a mut dyn FnMut(&Event),
    total: u64,
    last_good: Option<PathBuf>,
    latest: StepOutput,
    /// When the last log line was written, at which step, and how long the loader had waited by then.
    since: (Instant, u64, Duration),
}

impl<'a> Trainer<'a> {
    fn new(
        folder: &'a RunFolder,
        plan: &'a Plan,
        inputs: Inputs,
        found: Option<Checkpoint>,
        total: u64,
        sink: &'a mut dyn FnMut(&Event),
    ) -> Result<Self, TrainError> {
        let Inputs { data, data_name, device, init } = inputs;
        let model = Model::new(plan.model.clone())?;
        let (state, networks) = match &found {
            Some(found) => resumed(&model, plan, found, &device)?,
            None => fresh(&model, plan, init, data.fingerprint(), &device)?,
        };
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
        let quality = RandomFeatureFrechet::new(&data, &plan.model, &device)?;
        let reals = first_images(&data)?;
        if !folder.reals().exists() {
            ImageGrid::square(&reals, data.shape())?.save(&folder.reals())?;
        }
        let real_distance = frechet::mean_distance(&reals, data.shape().bytes());
        let stats = folder.stats(found.as_ref().map(|found| found.state.step))?;
        if found.is_some() {
            settle(folder, plan, &state, total)?; // a kill may have come between the checkpoint and this
        }
        let last_good = found.map(|found| folder.checkpoints().join(checkpoints::name(found.state.step)));
        let since = (Instant::now(), state.step, loader.wait_time());
        Ok(Self {
            folder,
            plan,
            model,
            data_name,
            device,
            networks,
            averaged: None,
            loader,
            quality,
            real_distance,
            state,
            stats,
            sink,
            total,
            last_good,
            latest: StepOutput::default(),
            since,
        })
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<RunEnd, TrainError> {
        if self.state.step == 0 && self.networks.generator.0.statistics().is_some() {
            self.sample()?; // what --init-from starts with
        }
        while self.state.step < self.total {
            self.step()?;
            let step = self.state.step;
            progress(step, self.total);
            let last = step == self.total;
            let due = |every: u64| step.is_multiple_of(every) || last;
            if due(self.plan.run.log_every) {
                self.log()?;
            }
            if due(self.plan.run.sample_every) {
                self.sample()?;
            }
            let stop = cancelled();
            if due(self.plan.run.checkpoint_every) {
                let frechet = self.frechet()?;
                self.checkpoint(Some(frechet))?;
            } else if stop {
                // Outside the schedule: it takes no part in choosing the best, which an undisturbed run would not see.
                self.checkpoint(None)?;
            }
            if stop && !last {
                return Ok(RunEnd::Interrupted { step });
            }
        }
        Ok(RunEnd::Finished(finish(self.folder, self.plan, &self.state, self.total)?))
    }

    fn step(&mut self) -> Result<(), TrainError> {
        let (step, plan) = (self.state.step, self.plan);
        let batch = self.loader.next_batch()?;
        let x = pixels::to_tensor(&batch.pixels, &self.plan.model, &self.device)?;
        let latent = &plan.model.latent;
        let z = random::latent(
            &mut random::stream(plan.run.seed, Purpose::TrainingLatent, step),
            batch.count,
            latent,
        );
        let z = Tensor::from_vec(z, (batch.count, latent.size), &self.device)?;
        let rate = LearningRate(plan.learning_rate(step, self.total));
        // Reading values back makes an accelerator wait, so there only the steps that are logged or saved are inspected.
        let shown = |every: u64| (step + 1).is_multiple_of(every) || (step + 2).is_multiple_of(every);
        let inspect = self.device.is_cpu()
            || step + 2 >= self.total
            || shown(plan.run.log_every)
            || shown(plan.run.checkpoint_every);
        let output = train_step(&mut self.networks, &plan.training, rate, step, (&x, &z), inspect).map_err(
            |source| TrainError::Step { step: step + 1, source: Box::new(source), checkpoint: None },
        )?;
        give_back(x);
        self.networks.generator.0.executor.update_ema(plan.training.ema).map_err(NetworkError::from)?;
        self.latest.discriminator = output.discriminator.or(self.latest.discriminator);
        self.latest.generator = output.generator.or(self.latest.generator);
        self.state.step += 1;
        self.state.images += batch.count as u64;
        self.state.position = self.loader.position();
        let step = self.state.step;
        let alarm = output.discriminator.and_then(|d| self.state.alarms.see_loss(step, d.loss));
        self.alarm(alarm)
    }

    fn alarm(&mut self, alarm: Option<(AlarmKind, String)>) -> Result<(), TrainError> {
        let Some((alarm, message)) = alarm else { return Ok(()) };
        let event = Event::Alarm { step: self.state.step, alarm, message };
        self.tell(&event)
    }

    fn tell(&mut self, event: &Event) -> Result<(), TrainError> {
        self.stats.append(event)?;
        (self.sink)(event);
        Ok(())
    }

    fn log(&mut self) -> Result<(), TrainError> {
        let (at, step, waited) = self.since;
        let seconds = at.elapsed().as_secs_f64().max(1e-9);
        let images_per_s = (self.state.step - step) as f64 * self.plan.training.batch_size as f64 / seconds;
        let left =
            (self.total - self.state.step) as f64 * seconds / ((self.state.step - step) as f64).max(1.0);
        let line = StepLine {
            step: self.state.step,
            total_steps: self.total,
            images: self.state.images,
            epoch: self.state.position.epoch,
            loss_d: None,
            loss_g: None,
            d_x: None,
            d_gz_before: None,
            d_gz_after: None,
            gradient_norm_d: None,
            gradient_norm_g: None,
            learning_rate: self.plan.learning_rate(self.state.step.saturating_sub(1), self.total),
            images_per_s,
            seconds_left: left,
            data_wait_share: (self.loader.wait_time() - waited).as_secs_f64() / seconds,
        };
        self.since = (Instant::now(), self.state.step, self.loader.wait_time());
        let event = Event::Step(line.with_output(&self.latest));
        self.tell(&event)
    }

    /// Runs `body` with G's weights replaced by their moving average, where there is one.
    fn with_average<R>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        let Some(averaged) = self.averaged()? else { return body(self) };
        let raw = self.networks.generator.0.weights()?;
        self.networks.generator.0.load(&averaged)?;
        let result = body(self);
        self.networks.generator.0.load(&raw)?;
        result
    }

    /// The moving average of G's weights with batch-norm statistics of its own, recalibrated: the running ones belong to
    /// the raw weights.
    fn averaged(&mut self) -> Result<Option<Weights>, TrainError> {
        if let Some((step, averaged)) = &self.averaged
            && *step == self.state.step
        {
            return Ok(Some(averaged.clone()));
        }
        let generator = &mut self.networks.generator;
        let Some(average) = generator.0.executor.average().map_err(NetworkError::from)? else {
            return Ok(None);
        };
        let raw = generator.0.weights()?;
        let bare = average.iter().map(|(name, value)| Ok((name.clone(), to_host(value)?)));
        generator.0.load(&bare.collect::<Result<_, TrainError>>()?)?;
        ensure_statistics(generator, &self.model, &self.device)?;
        let averaged = generator.0.weights()?;
        generator.0.load(&raw)?;
        self.averaged = Some((self.state.step, averaged.clone()));
        Ok(Some(averaged))
    }

    /// A grid from the fixed z, in evaluation mode: no statistics move.
    fn sample(&mut self) -> Result<(), TrainError> {
        let started = Instant::now();
        let path = self.folder.sample(self.state.images);
        let bytes = self.with_average(|this| {
            Ok(draw(&mut this.networks.generator, &this.model, this.plan.run.seed, GRID)?)
        })?;
        let shape = self.plan.image_shape();
        ImageGrid::square(&bytes, shape)?.save(&path)?;
        let distance = frechet::mean_distance(&bytes, shape.bytes());
        let diversity = distance / self.real_distance.max(1e-9);
        let (step, images) = (self.state.step, self.state.images);
        self.tell(&Event::Sample { step, images, path, diversity })?;
        let alarm = self.state.alarms.see_diversity(step, diversity);
        self.since.0 += started.elapsed(); // images/s are those of training
        self.alarm(alarm)
    }

    fn frechet(&mut self) -> Result<f64, TrainError> {
        let started = Instant::now();
        let frechet = self.with_average(|this| {
            let latent = &this.plan.model.latent;
            Ok(this.quality.frechet(&mut this.networks.generator, latent, this.plan.run.seed)?)
        })?;
        self.since.0 += started.elapsed();
        Ok(frechet)
    }

    fn checkpoint(&mut self, frechet: Option<f64>) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        let better = |frechet: &f64| self.state.best.is_none_or(|best| *frechet < best.frechet);
        let best = frechet.filter(|frechet| frechet.is_finite() && better(frechet));
        if let Some(frechet) = best {
            self.state.best = Some(Best { step, frechet });
        }
        let folder = self.folder.checkpoints();
        let path = folder.join(checkpoints::name(step));
        let event = Event::Checkpoint { step, path, frechet, best: best.is_some() };
        // The line comes first: where the checkpoint is not written after all, resuming drops it with the rest.
        self.stats.append(&event)?;
        self.stats.sync()?;
        let averaged = self.averaged()?;
        let checkpoint = to_checkpoint(&self.model, &self.networks, averaged.as_ref(), self.state.clone())?;
        let networks =
            [("generator", &checkpoint.files.generator), ("discriminator", &checkpoint.files.discriminator)];
        for (network, weights) in networks {
            // Steps that were not inspected may have spoilt them: such a checkpoint must not replace good ones.
            if let Some(name) = weights.as_ref().and_then(first_non_finite) {
                let source =
                    StepError::NonFinite { what: format!("the {network}'s {name}"), value: f64::NAN };
                return Err(TrainError::Step { step, source: Box::new(source), checkpoint: None });
            }
        }
        let card = checkpoint::card(&self.model, &self.state, &self.data_name, self.plan.run.seed);
        self.last_good = Some(checkpoint.write(&folder, &card)?);
        settle(self.folder, self.plan, &self.state, self.total)?;
        self.since.0 += started.elapsed();
        (self.sink)(&event);
        Ok(())
    }
}

/// The first images of the dataset, for the grid of real ones.
fn first_images(data: &Dataset) -> Result<Vec<u8>, DataError> {
    let len = data.shape().bytes();
    let n = data.len().min(GRID);
    let mut bytes = vec![0; n * len];
    // Spread over the whole set: files often come class by class.
    for (i, image) in bytes.chunks_mut(len).enumerate() {
        data.read(i * data.len() / n, image)?;
    }
    Ok(bytes)
}
