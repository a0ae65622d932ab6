//! Shuffled batches, prepared ahead on threads; the bytes depend on the seed and the position alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::DataError;
use crate::options::ImageShape;
use crate::order::{epoch_order, mirrored};
use crate::transform::mirror;

/// How a [`Loader`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Images a batch.
    pub batch_size: usize,
    /// Seed of the order, and of which images are mirrored.
    pub seed: u64,
    /// Whether images are mirrored left to right, each with probability one half.
    pub mirror: bool,
    /// Threads that prepare batches; 0 counts as 1.
    pub threads: usize,
    /// Batches prepared ahead; 0 counts as 1.
    pub prefetch: usize,
}

/// A place in the endless row of batches: the next batch to be handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderPosition {
    /// The epoch, from zero.
    pub epoch: u64,
    /// The batch within the epoch, from zero.
    pub batch: u64,
}

/// Images of one training step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `(n, h, w, c)`, u8.
    pub pixels: Vec<u8>,
    /// n: images in the batch.
    pub count: usize,
    /// h, w, c.
    pub shape: ImageShape,
    /// `(n,)`: one class number an image, where the data has labels.
    pub labels: Option<Vec<u32>>,
    /// Where in the row of batches this one stands.
    pub position: LoaderPosition,
}

/// Hands out batches without end; dropping it ends its threads.
#[derive(Debug)]
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    waited: Duration,
}

#[derive(Debug)]
struct Shared {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    batches_per_epoch: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Orders of the epochs in work: the present one and its neighbours.
    orders: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
}

/// Batches are counted from zero through all epochs.
#[derive(Debug)]
struct State {
    /// The batch that `next_batch` returns next.
    deliver: u64,
    /// The batch that the next free worker prepares.
    prepare: u64,
    ready: BTreeMap<u64, Result<Batch, DataError>>,
    /// A failed batch was handed out: nothing is prepared until the caller asks again.
    paused: bool,
    /// Failures so far; what was begun before a failure is not used after it.
    failures: u64,
    stop: bool,
}

impl Loader {
    /// Starts preparing batches from `start` on.
    ///
    /// # Errors
    ///
    /// A batch of zero or of more images than the dataset, a start behind the end of its epoch, threads that cannot
    /// be started.
    pub fn new(
        dataset: Arc<Dataset>,
        config: LoaderConfig,
        start: LoaderPosition,
    ) -> Result<Self, DataError> {
        let (batch_size, images) = (config.batch_size, dataset.len());
        if batch_size == 0 {
            return Err(DataError::Option("a batch needs 1 image or more".to_owned()));
        }
        if batch_size > images {
            return Err(DataError::BatchTooLarge { batch_size, images });
        }
        let batches_per_epoch = (images / batch_size) as u64;
        // The end of an epoch is the beginning of the next.
        if start.batch > batches_per_epoch {
            return Err(DataError::Position { batch: start.batch, batches_per_epoch });
        }
        let first =
            start.epoch.checked_mul(batches_per_epoch).and_then(|first| first.checked_add(start.batch));
        let first = first.ok_or(DataError::Position { batch: start.batch, batches_per_epoch })?;
        let state = State {
            deliver: first,
            prepare: first,
            ready: BTreeMap::new(),
            paused: false,
            failures: 0,
            stop: false,
        };
        let shared = Arc::new(Shared {
            dataset,
            config,
            batches_per_epoch,
            state: Mutex::new(state),
            changed: Condvar::new(),
            orders: Mutex::default(),
        });
        let mut loader = Self { shared, workers: Vec::new(), waited: Duration::ZERO };
        for number in 0..config.threads.max(1) {
            let shared = Arc::clone(&loader.shared);
            let thread = std::thread::Builder::new().name(format!("loader-{number}"));
            let worker = thread.spawn(move || shared.work());
            loader.workers.push(
                worker
                    .map_err(|error| DataError::Option(format!("cannot start a loader thread: {error}")))?,
            );
        }
        Ok(loader)
    }

    /// The next batch, waiting for it where it is not ready. A short last batch of an epoch is dropped.
    ///
    /// # Errors
    ///
    /// An image of the batch that cannot be read. The loader stays at the batch: another call tries it again.
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.paused) {
            self.shared.changed.notify_all();
        }
        let deliver = state.deliver;
        let result = loop {
            if let Some(result) = state.ready.remove(&deliver) {
                break result;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        if result.is_ok() {
            state.deliver += 1;
        } else {
            // All that was prepared beyond the failed batch is made again, should the caller ask for it.
            state.ready.clear();
            state.prepare = deliver;
            state.paused = true;
            state.failures += 1;
        }
        drop(state);
        self.shared.changed.notify_all();
        self.waited += started.elapsed();
        result
    }

    /// The position of the batch that [`Self::next_batch`] returns next.
    pub fn position(&self) -> LoaderPosition {
        self.shared.position(self.shared.lock().deliver)
    }

    /// Whole batches in one pass over the data.
    pub fn batches_per_epoch(&self) -> u64 {
        self.shared.batches_per_epoch
    }

    /// Time that [`Self::next_batch`] has spent in all: large beside the training time means that loading is the
    /// bottleneck.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch panics and hand them to `next_batch`; here nothing is left to report.
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

    /// The life of a worker: takes the next batch to prepare while it is within reach, until told to stop.
    fn work(&self) {
        let ahead = self.config.prefetch.max(1) as u64;
        loop {
            let mut state = self.lock();
            while !state.stop && (state.paused || state.prepare >= state.deliver + ahead) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            let number = state.prepare;
            state.prepare += 1;
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
        let (shape, count) = (self.dataset.shape(), self.config.batch_size);
        let order = self.order(position.epoch);
        let first = usize::try_from(position.batch).unwrap_or(usize::MAX).saturating_mul(count);
        let all_labels = self.dataset.labels();
        let mut pixels = vec![0; count * shape.bytes()];
        let mut labels = all_labels.map(|_| Vec::with_capacity(count));
        let mut mirrored = mirrored(self.config.seed, position);
        for (image, index) in pixels.chunks_exact_mut(shape.bytes()).zip(order.iter().skip(first)) {
            // Decoding a batch of large images takes seconds; a dropped loader is not kept waiting for them.
            if self.lock().stop {
                break;
            }
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            self.dataset.read(index, image)?;
            if self.config.mirror && mirrored() {
                mirror(image, shape);
            }
            if let (Some(labels), Some(label)) = (&mut labels, all_labels.and_then(|all| all.get(index))) {
                labels.push(*label);
            }
        }
        Ok(Batch { pixels, count, shape, labels, position })
    }

    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.retain(|kept, _| kept.abs_diff(epoch) <= 1);
        let new = || {
            let images = u32::try_from(self.dataset.len()).unwrap_or(u32::MAX);
            Arc::new(epoch_order(images, self.config.seed, epoch))
        };
        Arc::clone(orders.entry(epoch).or_insert_with(new))
    }
}
