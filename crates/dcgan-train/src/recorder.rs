//! What a run writes: log lines, sample grids, checkpoints and the result, each with its event.
//!
//! An event goes to stats.jsonl and the event file first, then to the caller.

use crate::checkpoint::{self, Checkpoint, State};
use crate::config::Plan;
use crate::error::TrainError;
use crate::evaluation::Samples;
use crate::event::{AlarmKind, Event, ExchangeShares, StepLine};
use crate::inception_metrics::{InceptionMetrics, MetricValues};
use crate::processes::ExchangeTimes;
use crate::run_folder::{RunFolder, RunResult, Stats};
use crate::step::{StepError, StepOutput};
use crate::trend::History;
use dcgan_data::image_grid::{self, ImageGrid};
use dcgan_model::checkpoints;
use dcgan_model::weights::first_non_finite;
use dcgan_ops::group::Exchange;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time since the last log line.
#[derive(Debug)]
struct Interval {
    /// Later than the last log line by what evaluation and writing took: images/s are those of training.
    started: Instant,
    /// Steps taken by then.
    step: u64,
    /// How long the loader had kept training waiting by then.
    data_wait: Duration,
    /// Time in exchanges of each process by then.
    exchange: ExchangeTimes,
}

impl Interval {
    fn new(step: u64, data_wait: Duration, exchange: ExchangeTimes) -> Self {
        Self { started: Instant::now(), step, data_wait, exchange }
    }

    /// What the processes spent of `seconds`, given their times now.
    fn shares(&self, now: &ExchangeTimes, seconds: f64) -> Option<ExchangeShares> {
        let excluded = now.excluded.saturating_sub(self.exchange.excluded);
        let since = |rank: usize, times: &[Duration; 3]| {
            let before = self.exchange.processes.get(rank).copied().unwrap_or_default();
            let mut times = [0, 1, 2].map(|i: usize| times[i].saturating_sub(before[i]));
            if rank > 0 {
                times[Exchange::Wait as usize] = times[Exchange::Wait as usize].saturating_sub(excluded);
            }
            times
        };
        let times: Vec<[Duration; 3]> =
            now.processes.iter().enumerate().map(|(rank, times)| since(rank, times)).collect();
        let share = |exchange: Exchange| {
            let total: f64 = times.iter().map(|times| times[exchange as usize].as_secs_f64()).sum();
            total / times.len() as f64 / seconds
        };
        let (slowest_rank, _) =
            times.iter().enumerate().min_by_key(|(_, times)| times[Exchange::Wait as usize])?;
        Some(ExchangeShares {
            processes: times.len(),
            all_reduce_share: share(Exchange::AllReduce),
            batch_norm_share: share(Exchange::BatchNorm),
            wait_share: share(Exchange::Wait),
            slowest_rank,
        })
    }
}

/// Writes to the folder of a run.
pub(crate) struct Recorder<'a> {
    folder: &'a RunFolder,
    plan: &'a Plan,
    data_name: String,
    total_steps: u64,
    stats: Stats,
    observer: &'a mut dyn FnMut(&Event),
    /// Output of the last updates of D and of G that were inspected.
    output: StepOutput,
    interval: Interval,
    /// Time that evaluation and writing took so far: other processes wait meanwhile.
    excluded: Duration,
    last_good: Option<PathBuf>,
}

impl<'a> Recorder<'a> {
    /// Goes on after the checkpoint of `resumed`; what an interrupted run wrote after it is dropped.
    ///
    /// # Errors
    /// Those of the run folder.
    pub(crate) fn new(
        folder: &'a RunFolder,
        plan: &'a Plan,
        data_name: String,
        total_steps: u64,
        resumed: Option<&State>,
        observer: &'a mut dyn FnMut(&Event),
    ) -> Result<Self, TrainError> {
        let stats = folder.stats(resumed)?;
        if let Some(state) = resumed {
            // The process may have been killed between the checkpoint and this.
            link_and_prune(folder, plan, state, total_steps)?;
        }
        let interval = Interval::new(0, Duration::ZERO, ExchangeTimes::default());
        Ok(Self {
            folder,
            plan,
            data_name,
            total_steps,
            stats,
            observer,
            output: StepOutput::default(),
            interval,
            excluded: Duration::ZERO,
            last_good: resumed.map(|state| path_of(folder, state.step)),
        })
    }

    /// The last checkpoint that was read or written.
    pub(crate) fn last_good(&self) -> Option<&Path> {
        self.last_good.as_deref()
    }

    /// Time that evaluation and writing took so far.
    pub(crate) fn excluded(&self) -> Duration {
        self.excluded
    }

    /// Begins the first log interval.
    pub(crate) fn start_interval(&mut self, step: u64, data_wait: Duration) {
        self.interval = Interval::new(step, data_wait, ExchangeTimes::default());
    }

    /// Leaves the time since `started` out of the speed of training.
    pub(crate) fn exclude_since(&mut self, started: Instant) {
        let elapsed = started.elapsed();
        self.interval.started += elapsed;
        self.excluded += elapsed;
    }

    /// Takes the output of a step for the next log line.
    pub(crate) fn observe_step(&mut self, output: &StepOutput) {
        self.output.discriminator = output.discriminator.or(self.output.discriminator);
        self.output.generator = output.generator.or(self.output.generator);
    }

    /// Ends a log interval with its line. `data_wait` is how long the loader has kept training waiting so far,
    /// `exchange` the time of each process in exchanges, without the last step.
    ///
    /// # Errors
    /// Those of the run folder.
    pub(crate) fn log(
        &mut self,
        state: &State,
        data_wait: Duration,
        exchange: &ExchangeTimes,
    ) -> Result<(), TrainError> {
        let Interval { started, step, data_wait: waited_before, .. } = self.interval;
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let steps = (state.step - step) as f64;
        let line = StepLine {
            step: state.step,
            total_steps: self.total_steps,
            images: state.images,
            epoch: state.position.epoch,
            loss_d: None,
            loss_g: None,
            d_x: None,
            d_gz_before: None,
            d_gz_after: None,
            gradient_norm_d: None,
            gradient_norm_g: None,
            learning_rate: self.plan.learning_rate(state.step.saturating_sub(1), self.total_steps),
            images_per_s: steps * self.plan.training.batch_size as f64 / seconds,
            seconds_left: (self.total_steps - state.step) as f64 * seconds / steps.max(1.0),
            data_wait_share: (data_wait - waited_before).as_secs_f64() / seconds,
            exchange: self.interval.shares(exchange, seconds),
        };
        self.interval = Interval::new(state.step, data_wait, exchange.clone());
        self.emit(&Event::Step(line.with_output(&self.output)))
    }

    /// Writes an alarm, where one was raised.
    ///
    /// # Errors
    /// Those of the run folder.
    pub(crate) fn alarm(&mut self, step: u64, alarm: Option<(AlarmKind, String)>) -> Result<(), TrainError> {
        let Some((alarm, message)) = alarm else { return Ok(()) };
        self.emit(&Event::Alarm { step, alarm, message })
    }

    /// Writes a sample grid.
    ///
    /// # Errors
    /// Those of the run folder.
    pub(crate) fn sample(&mut self, state: &State, samples: &Samples) -> Result<(), TrainError> {
        let State { step, images, .. } = *state;
        let mut cells = ImageGrid::split_batch(&samples.images, self.plan.image_shape())?;
        if samples.class_rows {
            cells = image_grid::by_column(&cells, samples.layout.rows);
        }
        ImageGrid::grid(&cells, samples.layout).save(&self.folder.sample(images))?;
        let path = Path::new("samples").join(RunFolder::sample_name(images));
        self.emit(&Event::Sample {
            step,
            images,
            path,
            diversity: samples.diversity,
            contrast: Some(samples.contrast),
        })
    }

    /// Writes FID and KID of samples.
    ///
    /// # Errors
    /// Those of the run folder.
    pub(crate) fn metrics(
        &mut self,
        step: u64,
        values: MetricValues,
        sha256: &str,
    ) -> Result<(), TrainError> {
        let MetricValues { fid, kid, images } = values;
        self.emit(&Event::Metrics {
            step,
            fid,
            kid,
            samples: images,
            convention: InceptionMetrics::convention().to_owned(),
            inception_sha256: sha256.to_owned(),
        })
    }

    /// Writes the event of a checkpoint, which [`Recorder::checkpoint`] writes next. The event comes first: where the
    /// checkpoint is not written after all, a resumed run drops it with the rest. The distances are those of samples
    /// and of real images.
    ///
    /// # Errors
    /// Those of the run folder.
    pub(crate) fn begin_checkpoint(
        &mut self,
        step: u64,
        (frechet, real_frechet): (Option<f64>, Option<f64>),
        best: bool,
    ) -> Result<Event, TrainError> {
        let event = self.checkpoint_event(step, (frechet, real_frechet), best);
        self.stats.append(&event)?;
        self.stats.sync()?;
        Ok(event)
    }

    /// The event of a checkpoint.
    pub(crate) fn checkpoint_event(
        &self,
        step: u64,
        (frechet, real_frechet): (Option<f64>, Option<f64>),
        best: bool,
    ) -> Event {
        let path = Path::new("checkpoints").join(checkpoints::name(step));
        Event::Checkpoint { step, path, frechet, real_frechet, best }
    }

    /// Writes a checkpoint, links the best one and removes old ones.
    ///
    /// # Errors
    /// [`TrainError::Step`] for weights that are not finite: such a checkpoint must not replace good ones. Those of the
    /// run folder.
    pub(crate) fn checkpoint(&mut self, checkpoint: &Checkpoint, event: &Event) -> Result<(), TrainError> {
        let Checkpoint { files, state, .. } = checkpoint;
        for (network, weights) in [("generator", &files.generator), ("discriminator", &files.discriminator)] {
            // Steps that were not inspected may have made them so.
            if let Some(name) = weights.as_ref().and_then(first_non_finite) {
                let source =
                    StepError::NonFinite { what: format!("the {network}'s {name}"), value: f64::NAN };
                return Err(TrainError::Step {
                    step: state.step,
                    source: Box::new(source),
                    checkpoint: None,
                });
            }
        }
        let mut card = checkpoint::card(&files.model, state, &self.data_name, self.plan);
        if let Event::Checkpoint { frechet: Some(frechet), real_frechet, .. } = event {
            card.push_str(&checkpoint::card_metric(*frechet, *real_frechet));
        }
        self.last_good = Some(checkpoint.write(&self.folder.checkpoints(), &card)?);
        link_and_prune(self.folder, self.plan, state, self.total_steps)?;
        (self.observer)(event);
        Ok(())
    }

    fn emit(&mut self, event: &Event) -> Result<(), TrainError> {
        self.stats.append(event)?;
        (self.observer)(event);
        Ok(())
    }
}

/// The folder of the checkpoint at a step.
pub(crate) fn path_of(folder: &RunFolder, step: u64) -> PathBuf {
    folder.checkpoints().join(checkpoints::name(step))
}

/// What follows the last checkpoint: the link to the best one, old ones removed, `result.json`. It can be repeated.
///
/// # Errors
/// Those of the run folder.
pub(crate) fn finish(
    folder: &RunFolder,
    plan: &Plan,
    state: &State,
    total_steps: u64,
) -> Result<RunResult, TrainError> {
    link_and_prune(folder, plan, state, total_steps)?;
    let history = History::read(folder)?;
    let result = RunResult {
        steps: state.step,
        images: state.images,
        best_step: state.best.map(|best| best.step),
        best_frechet: state.best.map(|best| best.frechet),
        best_metric: state.best.and_then(|best| best.metric),
        real_frechet: history.real_frechet,
        frechet_trend: history.trend(),
    };
    folder.write_result(&result)?;
    Ok(result)
}

/// What follows every checkpoint: the link to the best one, old ones removed. It can be repeated.
fn link_and_prune(
    folder: &RunFolder,
    plan: &Plan,
    state: &State,
    total_steps: u64,
) -> Result<(), TrainError> {
    let best = state.best.map(|best| best.step);
    if let Some(step) = best
        && path_of(folder, step).exists()
    {
        folder.point_best(step)?;
    }
    let is_scheduled = |step: u64| step.is_multiple_of(plan.run.checkpoint_every) || step == total_steps;
    Ok(checkpoint::prune(&folder.checkpoints(), plan.run.keep, best, &is_scheduled)?)
}
