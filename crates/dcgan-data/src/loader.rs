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
    /// Worker threads; 0 counts as 1.
    pub threads: usize,
    /// Prefetched batches; 0 counts as 1.
    pub prefetch: usize,
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
}

#[derive(Debug)]
struct Shared {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    kept: Option<Arc<KeptImages>>,
    batches_per_epoch: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Permutations of the current epoch and its neighbours.
    orders: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
}

/// State of the job queue. Batches are numbered from zero across epochs.
#[derive(Debug)]
struct State {
    /// The batch that `next_batch` returns next.
    next: u64,
    /// The batch that the next idle worker prepares.
    next_job: u64,
    ready: BTreeMap<u64, Result<Batch, DataError>>,
    /// Set after a failed batch was returned: workers wait until the next call of `next_batch`.
    paused: bool,
    /// Failures so far. Results of jobs that started before the last failure are discarded.
    failures: u64,
    stop: bool,
}

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
            next_job: first,
            ready: BTreeMap::new(),
            paused: false,
            failures: 0,
            stop: false,
        };
        let shared = Arc::new(Shared {
            dataset,
            config,
            kept,
            batches_per_epoch,
            state: Mutex::new(state),
            changed: Condvar::new(),
            orders: Mutex::default(),
        });
        let mut loader = Self { shared, workers: Vec::new(), wait_time: Duration::ZERO };
        for number in 0..config.threads.max(1) {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new().name(format!("loader-{number}"));
            let worker = thread.spawn(move || shared.work());
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
            state.next_job = number;
            state.paused = true;
            state.failures += 1;
        }
        drop(state);
        self.shared.changed.notify_all();
        self.wait_time += started.elapsed();
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

    /// The loop of a worker thread: prepares batches within the prefetch window until `stop` is set.
    fn work(&self) {
        let ahead = self.config.prefetch.max(1) as u64;
        loop {
            let mut state = self.lock();
            while !state.stop && (state.paused || state.next_job >= state.next + ahead) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            let number = state.next_job;
            state.next_job += 1;
            let failures = state.failures;
            drop(state);
            let position = self.position(number);
            let LoaderPosition { epoch, batch } = position;
            let result = catch_unwind(AssertUnwindSafe(|| self.prepare(position)))
                .unwrap_or(Err(DataError::WorkerPanicked { epoch, batch }));
            let mut state = self.lock();
            if state.failures == failures {
                state.ready.insert(number, result);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    fn prepare(&self, position: LoaderPosition) -> Result<Batch, DataError> {
        let (shape, part) = (self.dataset.shape(), self.config.part);
        let count = self.config.batch_size / part.count.max(1);
        let order = self.order(position.epoch);
        let first =
            usize::try_from(position.batch).unwrap_or(usize::MAX).saturating_mul(self.config.batch_size);
        let before = part.index * count;
        let first = first.saturating_add(before);
        let all_labels = self.dataset.labels();
        let mut pixels = vec![0; count * shape.bytes()];
        let mut labels = all_labels.map(|_| Vec::with_capacity(count));
        let mut mirrored = mirrored(self.config.seed, position.epoch, position.batch);
        if self.config.mirror {
            (0..before).for_each(|_| {
                mirrored(); // of an image of another part
            });
        }
        let mut images = Vec::with_capacity(count);
        for (image, &number) in pixels.chunks_exact_mut(shape.bytes()).zip(order.iter().skip(first)) {
            // Decoding a batch of large images takes seconds; a drop must not wait for it.
            if self.lock().stop {
                break;
            }
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let is_read = !self.kept.as_ref().is_some_and(|kept| kept.contains(index));
            if is_read {
                self.dataset.read(index, image)?;
            }
            let is_mirrored = self.config.mirror && mirrored();
            if is_mirrored && self.kept.is_none() {
                mirror(image, shape);
            }
            images.push(BatchImage { index: number, is_mirrored, is_read });
            if let (Some(labels), Some(label)) = (&mut labels, all_labels.and_then(|all| all.get(index))) {
                labels.push(*label);
            }
        }
        if !images.iter().any(|image| image.is_read) {
            pixels = Vec::new();
        }
        Ok(Batch { pixels, images, count, shape, labels, position })
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
