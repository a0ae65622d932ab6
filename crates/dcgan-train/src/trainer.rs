//! The training loop: read a minibatch, take a step, record it, checkpoint when due.
//!
//! [`run`] is called by the command line and by the service; neither holds training logic. Everything random is drawn
//! from streams keyed by the step, so that a run resumed at step k continues as if it had never stopped.

use crate::alarm::Alarms;
use crate::checkpoint::{Best, Checkpoint, State};
use crate::config::{BestBy, Plan};
use crate::data_record::DataRecord;
use crate::engine::Outputs;
use crate::error::TrainError;
use crate::evaluation::{Evaluator, can_evaluate, real_images};
use crate::event::Event;
use crate::frechet::{self, RandomFeatureFrechet};
use crate::inception_metrics::{InceptionMetrics, MetricValues};
use crate::processes::{self, Start};
use crate::recorder::{self, Recorder};
use crate::run_folder::{RunFolder, RunResult};
use crate::start::{self, fresh, resumed, to_checkpoint};
use crate::steps::Steps;
use dcgan_data::image_grid::ImageGrid;
use dcgan_data::{Dataset, LoaderPosition};
use dcgan_metrics::InceptionWeights;
use dcgan_model::{Model, ModelFiles};
use dcgan_ops::{Device, ProcessGroup};
use std::sync::Arc;
use std::time::Instant;

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
    /// Weights of the Inception network, where FID and KID are measured.
    pub inception: Option<InceptionWeights>,
    /// Whether the run continues where these images are not those of its start.
    pub accept_data_change: bool,
    /// The processes that train together, each with these inputs.
    pub group: Arc<dyn ProcessGroup>,
}

/// Trains by `plan` in `folder`, from its newest checkpoint or from the start, until the plan is complete or
/// `cancelled` is true.
///
/// `observer` gets every event after it was written to stats.jsonl and the event file; `progress` gets the number of
/// steps taken and of all steps after every step.
///
/// After a failure between two steps, the steps since the last checkpoint are saved first.
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
    check_processes(plan, &inputs)?;
    let group = Arc::clone(&inputs.group);
    let mut has_started = false;
    let end = record_run(folder, plan, inputs, (observer, progress), cancelled, &mut has_started);
    if group.size() > 1 && !has_started {
        let start = if end.is_err() { Start::Failed } else { Start::Finished };
        processes::share_start(group.as_ref(), Some(&start))?;
    }
    end
}

/// Gets every event of a run.
type Observer<'a> = &'a mut dyn FnMut(&Event);

/// Gets the number of steps taken and of all steps.
type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Refuses processes that cannot divide the shards, or were started differently from rank 0. All processes call it, and
/// get the same error.
///
/// # Errors
/// [`TrainError::Processes`], [`TrainError::OtherSetup`]; those of the group.
pub fn check_processes(plan: &Plan, inputs: &Inputs) -> Result<(), TrainError> {
    let (processes, shards) = (inputs.group.size(), plan.training.shards);
    if processes > 1 && !(processes.is_power_of_two() && processes <= shards) {
        return Err(TrainError::Processes { processes, shards });
    }
    processes::compare_setup(inputs.group.as_ref(), plan, (inputs.data.fingerprint(), &inputs.device))
}

/// Trains as another process than rank 0: the same steps, and nothing is written. Whether the run is complete.
///
/// # Errors
/// [`TrainError`]; the failure of another process.
pub fn follow(
    plan: &Plan,
    inputs: Inputs,
    progress: &mut dyn FnMut(u64, u64),
    cancelled: &dyn Fn() -> bool,
) -> Result<bool, TrainError> {
    check_processes(plan, &inputs)?;
    let Inputs { data, device, init, group, .. } = inputs;
    let state = match processes::share_start(group.as_ref(), None)? {
        Start::Train(state) => state,
        Start::Finished => return Ok(true),
        Start::Failed => return Err(TrainError::OtherProcess { process: group.name(0) }),
    };
    let total = plan.total_steps(data.len());
    // The others already wait for this process: it ends them if it cannot start.
    let started = || -> Result<Steps<'_>, TrainError> {
        let model = Model::new(plan.model.clone())?;
        let (_, mut networks) = fresh(&model, plan, init, data.fingerprint(), (&device, &group))?;
        start::broadcast(group.as_ref(), &mut networks)?;
        Steps::new(plan, total, Arc::clone(&group), networks, (&data, state.position))
    };
    let mut steps = started().unwrap_or_else(|error| group.abort(&error.to_string()));
    let mut step = state.step;
    let end = follow_steps(&mut steps, &mut step, total, (progress, cancelled));
    if let Err(error) = &end
        && !steps.is_told(error)
    {
        steps.tell_failure(step);
    }
    end
}

fn follow_steps(
    steps: &mut Steps<'_>,
    step: &mut u64,
    total: u64,
    (progress, cancelled): (Progress<'_>, &dyn Fn() -> bool),
) -> Result<bool, TrainError> {
    while *step < total {
        if !steps.take(*step, cancelled())? {
            return Ok(false);
        }
        *step += 1;
        if step.is_multiple_of(steps.engine.steps_ahead()) {
            steps.engine.outputs()?; // read by rank 0 alone
        }
        progress(*step, total);
    }
    steps.finish(total)?;
    Ok(true)
}

/// The run of rank 0. `has_started` tells whether the other processes know where it starts.
fn record_run(
    folder: &RunFolder,
    plan: &Plan,
    inputs: Inputs,
    (observer, progress): (Observer<'_>, Progress<'_>),
    cancelled: &dyn Fn() -> bool,
    has_started: &mut bool,
) -> Result<RunEnd, TrainError> {
    folder.prepare()?;
    let (mut newest, damaged) = folder.latest()?;
    for problem in damaged {
        tracing::warn!("a damaged checkpoint is set aside, an earlier one is used: {problem}");
    }
    let total_steps = plan.total_steps(inputs.data.len());
    let last_good = newest.as_ref().map(|newest| recorder::path_of(folder, newest.state.step));
    let with_last_good = |error: TrainError| error.with_last_good(last_good.as_deref());
    if check_data(folder, plan, &inputs, newest.as_mut().map(|newest| &mut newest.state))? {
        folder.remove_reals()?; // those of the new images are written
    }
    if let Some(Checkpoint { state, .. }) = &newest
        && state.step >= total_steps
        && !state.unrecorded
    {
        // The process may have been killed between the last checkpoint and what follows it.
        let result = recorder::finish(folder, plan, state, total_steps).map_err(with_last_good)?;
        return Ok(RunEnd::AlreadyFinished(result));
    }
    let mut trainer =
        Trainer::new(folder, plan, inputs, newest, total_steps, observer).map_err(with_last_good)?;
    *has_started = true;
    let end = trainer.train(progress, cancelled);
    if let Err(error) = &end {
        if !trainer.steps.is_told(error) {
            trainer.steps.tell_failure(trainer.state.step);
        }
        trainer.save_after_failure();
    }
    end.map_err(|error| error.with_last_good(trainer.recorder.last_good()))
}

/// Compares the images with those that the run has trained on up to `state`, none if it starts, and writes the record
/// of the dataset. Other images are accepted on request, or if they were accepted before; `state` then continues with
/// them. Returns whether they are others than those of `state`.
fn check_data(
    folder: &RunFolder,
    plan: &Plan,
    inputs: &Inputs,
    mut state: Option<&mut State>,
) -> Result<bool, TrainError> {
    let Inputs { data, accept_data_change, .. } = inputs;
    let on_disk = if state.is_some() { folder.data_record()? } else { None };
    let earlier = state.as_ref().map(|state| DataRecord::of_earlier_version(&state.data));
    let before = on_disk.clone().or(earlier);
    let (mut step, mut description, mut is_changed) = (0, String::new(), false);
    if let Some(state) = &mut state {
        step = state.step;
        if let Some(difference) = folder.data_change(state, before.as_ref(), data) {
            if !accept_data_change {
                return Err(TrainError::OtherData { difference });
            }
            tracing::warn!(
                "the dataset changed: {difference}; the run continues with it from step {step} on, and differs from \
                 one on unchanged data"
            );
            description = difference;
        }
        is_changed = state.data != data.fingerprint();
        if is_changed {
            // Metrics against other real images cannot be compared.
            state.best = None;
        }
        data.fingerprint().clone_into(&mut state.data);
        // Without some images an epoch is shorter.
        if state.position.batch > (data.len() / plan.training.batch_size.max(1)) as u64 {
            state.position = LoaderPosition { epoch: state.position.epoch + 1, batch: 0 };
        }
    }
    let record = DataRecord::next(before.as_ref(), plan, (step, data, &description));
    if on_disk.as_ref() != Some(&record) {
        folder.write_data_record(&record, data)?;
    }
    Ok(is_changed)
}

struct Trainer<'a> {
    folder: &'a RunFolder,
    plan: &'a Plan,
    total_steps: u64,
    steps: Steps<'a>,
    /// Steps whose outputs were observed.
    observed: u64,
    evaluator: Evaluator<'a>,
    /// Where FID and KID are measured.
    inception: Option<InceptionMetrics>,
    recorder: Recorder<'a>,
    state: State,
    /// The alarms before the samples of the step.
    alarms: Alarms,
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
        let Inputs { data, data_name, device, init, inception, group, .. } = inputs;
        let model = Model::new(plan.model.clone())?;
        let (state, networks) = match &newest {
            Some(checkpoint) => resumed(&model, plan, checkpoint, (&device, &group))?,
            None => fresh(&model, plan, init, data.fingerprint(), (&device, &group))?,
        };
        let is_resumed = newest.is_some();
        drop(newest); // frees the memory of its tensors
        tracing::info!(
            "measuring {} real images for the random-feature Fréchet distance",
            data.len().min(2 * frechet::IMAGES)
        );
        let frechet = RandomFeatureFrechet::new(&data, &plan.model, &device)?;
        if let Some(real) = frechet.real_frechet() {
            tracing::info!(
                "random-feature Fréchet distance between two halves of the real images: {real:.4}"
            );
        }
        let inception = inception.map(|weights| {
            InceptionMetrics::new(weights, Arc::clone(&data), plan.run.metrics_images, device.clone())
        });
        let reals = real_images(&data)?;
        if !folder.reals().exists() {
            ImageGrid::square(&reals, data.shape())?.save(&folder.reals())?;
        }
        let evaluator = Evaluator::new(plan, model, &reals, frechet);
        let steps = Steps::new(plan, total_steps, group, networks, (&data, state.position))?;
        let resumed = is_resumed.then_some(&state);
        let mut recorder = Recorder::new(folder, plan, data_name, total_steps, resumed, observer)?;
        recorder.start_interval(state.step, steps.loader.wait_time());
        let (alarms, observed) = (state.alarms, state.step);
        Ok(Self { folder, plan, total_steps, steps, observed, evaluator, inception, recorder, state, alarms })
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<RunEnd, TrainError> {
        self.share_start()?;
        if self.state.step == 0 && can_evaluate(&self.steps.networks) {
            self.sample(true)?; // of the weights of --init-from
        }
        // Several processes agree on when to stop, before each step.
        let alone = self.steps.group.size() == 1;
        let cancelled_alone = || alone && cancelled();
        if self.state.unrecorded {
            self.record(&cancelled_alone)?;
            if self.state.unrecorded {
                return Ok(RunEnd::Interrupted { step: self.state.step });
            }
        }
        while self.state.step < self.total_steps {
            if !self.step(cancelled())? {
                return self.interrupted();
            }
            let step = self.state.step;
            progress(step, self.total_steps);
            if self.is_due(self.plan.run.log_every) {
                self.observe()?;
                self.recorder.log(&self.state, self.steps.loader.wait_time(), &self.steps.times)?;
            }
            self.record(&cancelled_alone)?;
            if self.state.unrecorded || cancelled_alone() && step < self.total_steps {
                return self.interrupted();
            }
        }
        self.steps.finish(self.state.step)?;
        let result = recorder::finish(self.folder, self.plan, &self.state, self.total_steps)?;
        Ok(RunEnd::Finished(result))
    }

    /// Tells the other processes where the run starts.
    fn share_start(&mut self) -> Result<(), TrainError> {
        let group = Arc::clone(&self.steps.group);
        if group.size() > 1 {
            processes::share_start(group.as_ref(), Some(&Start::Train(Box::new(self.state.clone()))))?;
            start::broadcast(group.as_ref(), &mut self.steps.networks)?;
        }
        Ok(())
    }

    /// The end of a run that is to be continued later.
    fn interrupted(&mut self) -> Result<RunEnd, TrainError> {
        if !self.is_saved() {
            self.save()?;
        }
        Ok(RunEnd::Interrupted { step: self.state.step })
    }

    /// Whether something that happens at every `every` steps and at the end happens now.
    fn is_due(&self, every: u64) -> bool {
        self.state.step.is_multiple_of(every) || self.state.step == self.total_steps
    }

    /// Whether there is a checkpoint of this step.
    fn is_saved(&self) -> bool {
        let path = recorder::path_of(self.folder, self.state.step);
        self.recorder.last_good() == Some(path.as_path())
    }

    /// Writes samples and the checkpoint that are due after a step. In the middle of a cancelled run they wait for the
    /// resumed run: evaluation takes time, and whoever stops a process may kill it soon.
    fn record(&mut self, cancelled: &dyn Fn() -> bool) -> Result<(), TrainError> {
        let is_last = self.state.step == self.total_steps;
        let waits = || cancelled() && !is_last;
        let (samples, checkpoint) =
            (self.is_due(self.plan.run.sample_every), self.is_due(self.plan.run.checkpoint_every));
        let step = self.state.step;
        let is_early = step < self.plan.run.sample_every && EARLY_SAMPLES.contains(&step);
        if samples || is_early {
            if waits() {
                return Ok(());
            }
            self.sample(samples)?;
        }
        if checkpoint {
            if waits() {
                return Ok(());
            }
            let frechet = self.frechet()?;
            let mut values = None;
            if self.plan.run.metrics_every.is_some_and(|every| self.is_due(every)) {
                // It may take minutes: stopped at the last step too.
                values = self.metrics(cancelled)?;
                if values.is_none() && self.inception.is_some() || waits() {
                    return Ok(());
                }
            }
            self.checkpoint(frechet, values)?;
        }
        self.state.unrecorded = false;
        Ok(())
    }

    /// Takes a step, unless the processes of the run agree to stop.
    fn step(&mut self, cancelled: bool) -> Result<bool, TrainError> {
        self.steps.excluded = self.recorder.excluded();
        if !self.steps.take(self.state.step, cancelled)? {
            return Ok(false);
        }
        self.state.step += 1;
        self.state.images += self.plan.training.batch_size as u64;
        self.state.position = self.steps.loader.position();
        self.state.unrecorded = true;
        if self.state.step - self.observed >= self.steps.engine.steps_ahead() {
            self.observe()?;
        }
        Ok(true)
    }

    /// Observes the outputs of the steps since the last call, which a device reports later.
    fn observe(&mut self) -> Result<(), TrainError> {
        let found = self.steps.engine.outputs();
        self.steps.is_whole = matches!(&found, Ok(Outputs { failure: None, .. }));
        let Outputs { outputs, failure } = found?;
        let mut alarms = Vec::new();
        let smoothing = self.plan.training.label_smoothing;
        for output in outputs {
            self.observed += 1;
            self.recorder.observe_step(&output);
            let step = self.observed;
            alarms.push((
                step,
                output.discriminator.and_then(|d| self.state.alarms.observe_loss(step, d.loss, smoothing)),
            ));
            self.alarms = self.state.alarms;
        }
        if let Some(source) = failure {
            let step = self.observed + 1;
            return Err(TrainError::Step { step, source: Box::new(source), checkpoint: None });
        }
        alarms.into_iter().try_for_each(|(step, alarm)| self.recorder.alarm(step, alarm))
    }

    /// Observes all steps, and brings the networks up to date.
    fn catch_up(&mut self) -> Result<(), TrainError> {
        self.observe()?;
        Ok(self.steps.engine.store(&mut self.steps.networks)?)
    }

    /// Writes a sample grid. Early ones are not `checked` for collapse: G may not have learned to be diverse yet.
    fn sample(&mut self, checked: bool) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        self.catch_up()?;
        let samples = self.evaluator.sample(&mut self.steps.networks, step)?;
        self.recorder.sample(&self.state, &samples)?;
        let alarms = &mut self.state.alarms;
        let alarm =
            checked.then(|| alarms.observe_samples(step, samples.diversity, samples.contrast)).flatten();
        self.recorder.exclude_since(started);
        self.recorder.alarm(step, alarm)
    }

    fn frechet(&mut self) -> Result<f64, TrainError> {
        let started = Instant::now();
        self.catch_up()?;
        let frechet = self.evaluator.frechet(&mut self.steps.networks, self.state.step)?;
        self.recorder.exclude_since(started);
        Ok(frechet)
    }

    /// FID and KID; none if `stop` became true. They are recorded with the checkpoint that follows.
    fn metrics(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<MetricValues>, TrainError> {
        let Some(metrics) = &mut self.inception else { return Ok(None) };
        let started = Instant::now();
        let step = self.state.step;
        tracing::info!("step {step}: measuring FID and KID");
        let values = self.evaluator.inception(&mut self.steps.networks, step, (metrics, stop))?;
        self.recorder.exclude_since(started);
        if let Some(values) = values {
            self.recorder.metrics(step, values, metrics.sha256())?;
        }
        Ok(values)
    }

    /// Writes a scheduled checkpoint.
    fn checkpoint(&mut self, frechet: f64, values: Option<MetricValues>) -> Result<(), TrainError> {
        let started = Instant::now();
        let step = self.state.step;
        let best_by = self.plan.run.best_by;
        let basis = self.inception.as_ref().map(|inception| inception.basis(best_by));
        let metric = match best_by {
            BestBy::Frechet => None,
            BestBy::Fid => Some(values.map_or(f64::NAN, |values| values.fid)),
            BestBy::Kid => Some(values.and_then(|values| values.kid).unwrap_or(f64::NAN)),
        };
        let (value, best) = match metric {
            None => (frechet, self.state.best.map(|best| best.frechet)),
            Some(metric) => {
                let is_comparable = |best: &Best| best.metric_basis.is_none_or(|other| Some(other) == basis);
                (metric, self.state.best.filter(is_comparable).and_then(|best| best.metric))
            }
        };
        let is_best = value.is_finite() && best.is_none_or(|best| value < best);
        let distances = (Some(frechet), self.evaluator.real_frechet());
        let event = self.recorder.begin_checkpoint(step, distances, is_best)?;
        let best = if is_best {
            Some(Best { step, frechet, metric, metric_basis: metric.and(basis) })
        } else {
            self.state.best
        };
        let state = State { best, unrecorded: false, ..self.state.clone() };
        self.write_checkpoint(state.clone(), &event)?;
        self.state = state;
        self.recorder.exclude_since(started);
        Ok(())
    }

    fn write_checkpoint(&mut self, state: State, event: &Event) -> Result<(), TrainError> {
        let ema = self.evaluator.ema_weights(&mut self.steps.networks, state.step)?;
        let checkpoint = to_checkpoint(self.evaluator.model(), &self.steps.networks, ema.as_ref(), state)?;
        // Nothing to save a second time: whatever refused this checkpoint would refuse it again.
        self.steps.is_whole = false;
        self.recorder.checkpoint(&checkpoint, event)?;
        self.steps.is_whole = true;
        Ok(())
    }

    /// Writes a checkpoint outside the schedule. It is never the best, because an uninterrupted run would not have it.
    /// What is due at this step and is not recorded yet is repeated by the resumed run.
    fn save(&mut self) -> Result<(), TrainError> {
        let step = self.state.step;
        self.catch_up()?;
        let mut state = self.state.clone();
        if state.unrecorded {
            state.alarms = self.alarms;
        }
        let event = self.recorder.checkpoint_event(step, (None, None), false);
        // The resumed run records the checkpoint of this step, if it is due.
        if !state.unrecorded
            && let Err(error) = self.recorder.begin_checkpoint(step, (None, None), false)
        {
            tracing::warn!("{error}"); // the run continues without this event
        }
        self.write_checkpoint(state, &event)
    }

    /// Saves the steps since the last checkpoint after a failure between two steps.
    fn save_after_failure(&mut self) {
        let step = self.state.step;
        if !self.steps.is_whole || self.is_saved() || step == 0 {
            return;
        }
        if let Err(error) = self.save() {
            tracing::warn!("no checkpoint of step {step} could be written: {error}");
        }
    }
}
