//! The data loader: shuffled batches, prefetched by worker threads. Batches depend only on the seed and the position.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::order::{epoch_order, mirrored, windowed_order};
use crate::shape::ImageShape;
use crate::transform::mirror;

/// Configuration of a [`Loader`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Images per batch.
    pub batch_size: usize,
    /// Seed of shuffling and mirroring.
    pub seed: u64,
    /// Whether to mirror each image horizontally with probability 1/2.
    pub mirror: bool,
    /// Maximum number of worker threads; 0 counts as 1. Only as many run as training needs.
    pub threads: usize,
    /// Bytes of prefetched batches; two batches are prefetched at least.
    pub prefetch_bytes: u64,
    /// The part of each batch that is read.
    pub part: BatchPart,
}

/// One of several equal parts of each batch, for processes that share batches. The parts one after the other are the
/// batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPart {
    /// Which part, from 0.
    pub index: usize,
    /// How many there are; they divide the batch size.
    pub count: usize,
}

impl BatchPart {
    /// The whole batch.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// The position of a batch in the endless sequence of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderPosition {
    /// The epoch, from zero.
    pub epoch: u64,
    /// The batch within the epoch, from zero.
    pub batch: u64,
}

/// Images of a dataset that whoever takes the batches keeps, such as a GPU: they are read once.
#[derive(Debug)]
pub struct KeptImages(Vec<AtomicBool>);

impl KeptImages {
    /// None of the images of a dataset.
    pub fn new(dataset: &Dataset) -> Self {
        Self((0..dataset.order_len()).map(|_| AtomicBool::new(false)).collect())
    }

    /// Keeps the images of a batch: later batches need not have their pixels.
    pub fn keep(&self, batch: &Batch) {
        let kept = batch.images.iter().filter_map(|image| self.0.get(image.index as usize));
        kept.for_each(|kept| kept.store(true, Ordering::Release));
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|kept| kept.load(Ordering::Acquire))
    }

    /// How many images there may be: every [`BatchImage::index`] is below.
    pub fn capacity(&self) -> usize {
        self.0.len()
    }
}

/// One image of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchImage {
    /// Its number in the dataset.
    pub index: u32,
    /// Whether it is mirrored: in the pixels of the batch, or by whoever keeps images.
    pub is_mirrored: bool,
    /// Whether its pixels are in the batch; they are not if it is kept.
    pub is_read: bool,
}

/// A minibatch: the images of one training step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Images `(n, h, w, c)`, u8. Empty if all images are kept.
    pub pixels: Vec<u8>,
    /// The images, `(n,)`.
    pub images: Vec<BatchImage>,
    /// n, the number of images; of a [`BatchPart`], its own.
    pub count: usize,
    /// h, w and c.
    pub shape: ImageShape,
    /// Class labels `(n,)`, if the dataset is labeled.
    pub labels: Option<Vec<u32>>,
    /// The position of this batch.
    pub position: LoaderPosition,
}

/// An endless source of shuffled batches. Dropping it stops its worker threads.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    wait_time: Duration,
    pace: Pace,
}

#[derive(Debug)]
struct Shared {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    kept: Option<Arc<KeptImages>>,
    batches_per_epoch: u64,
    /// Batches that are prefetched.
    ahead: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Permutations of the current epoch and its neighbours.
    orders: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
}

/// State of the job queue. Batches are numbered from zero across epochs; a job is a part of a batch.
#[derive(Debug)]
struct State {
    /// The batch that `next_batch` returns next.
    next: u64,
    /// The job that the next idle worker takes: batch and part.
    next_job: (u64, usize),
    /// Batches of which some parts are done.
    partial: BTreeMap<u64, Vec<Option<Part>>>,
    ready: BTreeMap<u64, Result<Batch, DataError>>,
    /// Workers that take jobs: those with lower numbers.
    active: usize,
    /// Set after a failed batch was returned: workers wait until the next call of `next_batch`.
    paused: bool,
    /// Failures so far. Results of jobs that started before the last failure are discarded.
    failures: u64,
    stop: bool,
}

/// Consecutive images of a batch.
type Part = Result<Images, DataError>;

/// The pixels of some images and what they are.
#[derive(Debug)]
struct Images {
    /// Empty if all images are kept.
    pixels: Vec<u8>,
    images: Vec<BatchImage>,
}

/// Decides how many workers are needed, by the share of time that training waits.
#[derive(Debug)]
struct Pace {
    since: Instant,
    batches: u32,
    waited: Duration,
}

/// Batches and time after which the number of workers may change.
const PACE_BATCHES: u32 = 8;
const PACE_TIME: Duration = Duration::from_millis(200);
/// The share of time waiting above which a worker is added. None is taken away: workers rest while enough is prepared.
const TOO_SLOW: f64 = 0.01;

/// Maximum number of prefetched batches.
const MAX_AHEAD: u64 = 16;

/// Images of a job: large enough that taking it costs nothing, small enough that all workers share a batch.
const PART_IMAGES: usize = 16;

impl Loader {
    /// Starts worker threads that prefetch batches from `start` on.
    ///
    /// # Errors
    ///
    /// A batch size of zero or above the size of the dataset, a start past the end of its epoch, or a worker thread
    /// that cannot be started.
    pub fn new(
        dataset: Arc<Dataset>,
        config: LoaderConfig,
        start: LoaderPosition,
    ) -> Result<Self, DataError> {
        Self::keeping(dataset, config, start, None)
    }

    /// The same for batches whose images are kept: those in `kept` are not read again, and images are not mirrored in
    /// the batch.
    ///
    /// # Errors
    ///
    /// Those of [`Loader::new`].
    pub fn keeping(
        dataset: Arc<Dataset>,
        config: LoaderConfig,
        start: LoaderPosition,
        kept: Option<Arc<KeptImages>>,
    ) -> Result<Self, DataError> {
        let (batch_size, images) = (config.batch_size, dataset.len());
        if batch_size == 0 {
            return Err(DataError::InvalidOption("the batch size is 0, expected 1 or more".to_owned()));
        }
        if batch_size > images {
            return Err(DataError::BatchTooLarge { batch_size, images });
        }
        let batches_per_epoch = (images / batch_size) as u64;
        // The end of an epoch equals the start of the next one.
        if start.batch > batches_per_epoch {
            return Err(DataError::PositionOutOfRange { batch: start.batch, batches_per_epoch });
        }
        let first =
            start.epoch.checked_mul(batches_per_epoch).and_then(|first| first.checked_add(start.batch));
        let first = first.ok_or(DataError::PositionOutOfRange { batch: start.batch, batches_per_epoch })?;
        let state = State {
            next: first,
            next_job: (first, 0),
            partial: BTreeMap::new(),
            ready: BTreeMap::new(),
            active: 1,
            paused: false,
            failures: 0,
            stop: false,
        };
        let batch_bytes = (batch_size * dataset.shape().bytes()).max(1) as u64;
        let shared = Arc::new(Shared {
            ahead: (config.prefetch_bytes / batch_bytes).clamp(2, MAX_AHEAD),
            dataset,
            config,
            kept,
            batches_per_epoch,
            state: Mutex::new(state),
            changed: Condvar::new(),
            orders: Mutex::default(),
        });
        let mut loader = Self { shared, workers: Vec::new(), wait_time: Duration::ZERO, pace: Pace::new() };
        for number in 0..config.threads.max(1) {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new().name(format!("loader-{number}"));
            let worker = thread.spawn(move || shared.work(number));
            loader.workers.push(worker.map_err(|error| {
                DataError::InvalidOption(format!("cannot start a worker thread: {error}"))
            })?);
        }
        Ok(loader)
    }

    /// Returns the next batch; blocks until it is ready. An incomplete last batch of an epoch is dropped.
    ///
    /// # Errors
    ///
    /// An image of the batch cannot be read. The position does not advance: the next call retries the batch.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.paused) {
            self.shared.changed.notify_all();
        }
        let number = state.next;
        let result = loop {
            if let Some(result) = state.ready.remove(&number) {
                break result;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if result.is_ok() {
            state.next += 1;
        } else {
            // Batches after the failed one are prepared again after a retry.
            state.ready.clear();
            state.partial.clear();
            state.next_job = (number, 0);
            state.paused = true;
            state.failures += 1;
        }
        let waited = started.elapsed();
        self.wait_time += waited;
        state.active = self.pace.workers(waited, state.active, self.workers.len());
        drop(state);
        self.shared.changed.notify_all();
        result
    }

    /// The position of the batch that [`Self::next_batch`] returns next.
    pub fn position(&self) -> LoaderPosition {
        self.shared.position(self.shared.lock().next)
    }

    /// Complete batches per epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        self.shared.batches_per_epoch
    }

    /// Total time spent in [`Self::next_batch`]. If it is large compared to the training time, loading is the
    /// bottleneck.
    pub fn wait_time(&self) -> Duration {
        self.wait_time
    }

    /// Worker threads that prepare batches now.
    pub fn active_threads(&self) -> usize {
        self.shared.lock().active
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch panics and report them through `next_batch`.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self, batch: u64) -> LoaderPosition {
        LoaderPosition { epoch: batch / self.batches_per_epoch, batch: batch % self.batches_per_epoch }
    }

    /// Images of a batch, of this part of it.
    fn count(&self) -> usize {
        self.config.batch_size / self.config.part.count.max(1)
    }

    /// Jobs of a batch.
    fn parts(&self) -> usize {
        self.count().div_ceil(PART_IMAGES).max(1)
    }

    /// The loop of worker `worker`: takes jobs within the prefetch window until `stop` is set.
    fn work(&self, worker: usize) {
        loop {
            let mut state = self.lock();
            while !state.stop
                && (state.paused || worker >= state.active || state.next_job.0 >= state.next + self.ahead)
            {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            let (number, part) = state.next_job;
            state.next_job = if part + 1 < self.parts() { (number, part + 1) } else { (number + 1, 0) };
            let failures = state.failures;
            drop(state);
            let LoaderPosition { epoch, batch } = self.position(number);
            let result = catch_unwind(AssertUnwindSafe(|| self.prepare(number, part)))
                .unwrap_or(Err(DataError::WorkerPanicked { epoch, batch }));
            let mut state = self.lock();
            if state.failures == failures {
                let parts =
                    state.partial.entry(number).or_insert_with(|| (0..self.parts()).map(|_| None).collect());
                if let Some(slot) = parts.get_mut(part) {
                    *slot = Some(result);
                }
                if parts.iter().all(Option::is_some) {
                    let parts = state.partial.remove(&number).unwrap_or_default();
                    drop(state);
                    let batch = self.assemble(number, parts.into_iter().flatten());
                    state = self.lock();
                    if state.failures == failures {
                        state.ready.insert(number, batch);
                    }
                }
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// A batch of all its parts, or the error of the first image that cannot be read.
    fn assemble(&self, number: u64, parts: impl Iterator<Item = Part>) -> Result<Batch, DataError> {
        let (position, shape, count) = (self.position(number), self.dataset.shape(), self.count());
        let mut images = Vec::with_capacity(count);
        let mut pixels = Vec::new();
        for part in parts {
            let part = part?;
            if !part.pixels.is_empty() {
                if pixels.is_empty() {
                    pixels = vec![0; count * shape.bytes()];
                }
                let start = images.len() * shape.bytes();
                if let Some(slots) = pixels.get_mut(start..start + part.pixels.len()) {
                    slots.copy_from_slice(&part.pixels);
                }
            }
            images.extend(part.images);
        }
        let label =
            |image: &BatchImage| self.dataset.labels()?.get(usize::try_from(image.index).ok()?).copied();
        let labels = self.dataset.labels().map(|_| images.iter().filter_map(label).collect());
        Ok(Batch { pixels, images, count, shape, labels, position })
    }

    /// Part `part` of batch `number`.
    fn prepare(&self, number: u64, part: usize) -> Part {
        let position = self.position(number);
        let (shape, count) = (self.dataset.shape(), self.count());
        let order = self.order(position.epoch);
        let first =
            usize::try_from(position.batch).unwrap_or(usize::MAX).saturating_mul(self.config.batch_size);
        // Images of the batch before this part: of other processes, and of other jobs.
        let before = self.config.part.index * count + part * PART_IMAGES;
        let first = first.saturating_add(before);
        let count = PART_IMAGES.min(count - part * PART_IMAGES);
        let mut mirrored = mirrored(self.config.seed, position.epoch, position.batch);
        if self.config.mirror {
            (0..before).for_each(|_| {
                mirrored();
            });
        }
        let mut pixels = vec![0; count * shape.bytes()];
        let mut images = Vec::with_capacity(count);
        for (image, &index) in pixels.chunks_exact_mut(shape.bytes()).zip(order.iter().skip(first)) {
            // Decoding large images takes seconds; a drop must not wait for it.
            if self.lock().stop {
                break;
            }
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let is_read = !self.kept.as_ref().is_some_and(|kept| kept.contains(at));
            if is_read {
                self.dataset.read(at, image)?;
            }
            let is_mirrored = self.config.mirror && mirrored();
            if is_mirrored && self.kept.is_none() {
                mirror(image, shape);
            }
            images.push(BatchImage { index, is_mirrored, is_read });
        }
        if !images.iter().any(|image| image.is_read) {
            pixels = Vec::new();
        }
        Ok(Images { pixels, images })
    }

    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|other, _| other.abs_diff(epoch) <= 1);
        let new = || {
            let images = u32::try_from(self.dataset.order_len()).unwrap_or(u32::MAX);
            let order = match self.dataset.blocks() {
                [] => epoch_order(images, self.config.seed, epoch),
                blocks => windowed_order(images, blocks, self.config.seed, epoch),
            };
            Arc::new(self.dataset.indices(order))
        };
        Arc::clone(orders.entry(epoch).or_insert_with(new))
    }
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), batches: 0, waited: Duration::ZERO }
    }

    /// The number of workers after a batch for which training waited `waited`.
    fn workers(&mut self, waited: Duration, active: usize, all: usize) -> usize {
        if self.batches == 0 {
            self.since = Instant::now(); // the first batch is always waited for
        } else {
            self.waited += waited;
        }
        self.batches += 1;
        let elapsed = self.since.elapsed();
        if self.batches < PACE_BATCHES || elapsed < PACE_TIME {
            return active;
        }
        let share = self.waited.as_secs_f64() / elapsed.as_secs_f64();
        *self = Self { batches: 1, ..Self::new() };
        if share > TOO_SLOW { (active + 1).min(all) } else { active }
    }
}
