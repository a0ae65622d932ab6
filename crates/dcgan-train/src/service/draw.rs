//! Draw queue: a thread draws samples for requests on the CPU, one request at a time.
//!
//! It does not use the worker's device: a request must not wait for a job that runs for a day, nor use the job's
//! memory. The images are those of `dcgan-train sample --device cpu`.

use super::models;
use crate::config::Fault;
use candle_core::Device;
use dcgan_data::image_grid::{GAP, ImageGrid, Layout};
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{self, HostTensor, Weights};
use dcgan_model::{Classes, Generator, Latents, Model, ModelConfig, open, pixels};
use dcgan_ops::Maps;
use serde::Deserialize;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;
use tokio::sync::oneshot;

/// Capacity of the queue.
const CAPACITY: usize = 8;
/// Images of one request.
pub(crate) const MAX_COUNT: usize = 1024;
/// Bytes of the images of one request.
const MAX_BYTES: usize = 64 << 20;
/// Generators in the cache: a user who explores a model sends many requests per second for it.
const CACHE_CAPACITY: usize = 2;

/// Body of `POST /v1/models/{id}/samples`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrawRequest {
    /// Seed of z.
    #[serde(default)]
    seed: u64,
    /// Number of images; that of `z` if given.
    count: Option<usize>,
    /// Latent vectors to use instead of random ones.
    z: Option<Vec<Vec<f64>>>,
    /// Classes of a conditional model: one for each image, or one for all; in turn by default.
    labels: Option<Vec<Label>>,
    /// Format of the response.
    #[serde(default)]
    pub(crate) format: Format,
}

/// The class of an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Label {
    /// By number.
    Number(u64),
    /// By name or number.
    Name(String),
    /// A mixture: a weight for each class.
    Weights(Vec<f64>),
}

/// Format of the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One image grid; a single image has no frame.
    #[default]
    Png,
    /// `z` (n, z), `labels` (n, classes) of a conditional model, and `images` (n, c, h, w) in [-1, 1], or [0, 1] if the
    /// output of G is sigmoid.
    Safetensors,
    /// `z` (n, z) and `labels` (n, classes) alone, as safetensors; no images are drawn.
    Latents,
}

/// Why a draw request failed.
#[derive(Debug)]
pub(crate) enum DrawError {
    /// The request is invalid.
    Faults(Vec<Fault>),
    /// The model cannot be read or run.
    Failed(String),
}

type DrawResult = Result<Vec<u8>, DrawError>;

/// An entry of the queue.
#[derive(Debug)]
struct QueuedDraw {
    folder: PathBuf,
    request: DrawRequest,
    reply: oneshot::Sender<DrawResult>,
}

/// The sending side of the queue.
#[derive(Debug)]
pub(crate) struct DrawQueue(SyncSender<QueuedDraw>);

impl DrawQueue {
    /// Starts the draw thread; it ends when the queue is dropped.
    ///
    /// # Errors
    /// The thread cannot be spawned.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, receiver) = sync_channel(CAPACITY);
        std::thread::Builder::new().name("dcgan-draw".into()).spawn(move || run(&receiver))?;
        Ok(Self(sender))
    }

    /// Queues a request for samples of the model in `folder`. None if the queue is full.
    pub(crate) fn submit(
        &self,
        folder: PathBuf,
        request: DrawRequest,
    ) -> Option<oneshot::Receiver<DrawResult>> {
        let (reply, receiver) = oneshot::channel();
        match self.0.try_send(QueuedDraw { folder, request, reply }) {
            Ok(()) => Some(receiver),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

fn run(queue: &Receiver<QueuedDraw>) {
    let mut cache = Vec::new();
    // A separate thread pool: in that of a training job, an image would wait for the matrix products of a step.
    let pool = rayon::ThreadPoolBuilder::new().thread_name(|i| format!("dcgan-draw-{i}")).build();
    let pool = pool.inspect_err(|error| {
        tracing::warn!(%error, "no thread pool for draw requests; they share that of training");
    });
    let pool = pool.ok();
    for QueuedDraw { folder, request, reply } in queue {
        if reply.is_closed() {
            continue; // the client disconnected
        }
        let mut render = || render(&mut cache, &folder, &request);
        let result = catch_unwind(AssertUnwindSafe(|| match &pool {
            Some(pool) => pool.install(render),
            None => render(),
        }));
        // Fails if the client has disconnected.
        let _ = reply.send(result.unwrap_or_else(|_| Err(DrawError::Failed("panic, see above".into()))));
    }
}

/// Identity of a generator's file, to detect a replaced file.
#[derive(Debug, PartialEq)]
struct FileVersion {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

impl FileVersion {
    /// None if the file or its metadata cannot be read.
    fn of(folder: &Path) -> Option<Self> {
        let folder = models::best_checkpoint(folder).unwrap_or_else(|| folder.to_owned());
        let path = fs::canonicalize(folder.join("generator.safetensors")).ok()?;
        let metadata = path.metadata().ok()?;
        Some(Self { modified: metadata.modified().ok()?, bytes: metadata.len(), path })
    }
}

/// A generator in the cache.
#[derive(Debug)]
struct LoadedModel {
    version: Option<FileVersion>,
    model: Model,
    generator: Generator,
}

fn failed(error: impl std::fmt::Display) -> DrawError {
    DrawError::Failed(error.to_string())
}

impl LoadedModel {
    fn open(folder: &Path) -> Result<Self, DrawError> {
        // Taken before reading: a change meanwhile makes the next request reload the file.
        let version = FileVersion::of(folder);
        let files = open(folder, None).map_err(failed)?.files;
        let model = files.model;
        let Some(weights) = files.generator else {
            return Err(DrawError::Faults(vec![Fault::new("id", "the model has no generator")]));
        };
        let mut generator = Generator::new(&model, &weights, &Device::Cpu).map_err(failed)?;
        generator.ensure_statistics().map_err(failed)?;
        Ok(Self { version, model, generator })
    }
}

/// The generator of `folder`, from the cache or from its file. The cache is in order of use, most recent last.
fn load<'a>(cache: &'a mut Vec<LoadedModel>, folder: &Path) -> Result<&'a mut LoadedModel, DrawError> {
    let version = FileVersion::of(folder);
    match cache.iter().position(|model| version.is_some() && model.version == version) {
        Some(index) => {
            let model = cache.remove(index);
            cache.push(model);
        }
        None => {
            let model = LoadedModel::open(folder)?;
            if cache.len() == CACHE_CAPACITY {
                cache.remove(0); // least recently used
            }
            cache.push(model);
        }
    }
    cache.last_mut().ok_or_else(|| failed("no model"))
}

fn render(cache: &mut Vec<LoadedModel>, folder: &Path, request: &DrawRequest) -> DrawResult {
    let LoadedModel { model, generator, .. } = load(cache, folder)?;
    let z = latents(request, model).map_err(DrawError::Faults)?;
    let config = model.config();
    let size = config.latent.size;
    let tensor =
        |data: &[f32], size| HostTensor { shape: vec![data.len() / size, size], data: data.to_vec() };
    let mut tensors = Weights::from([("z".to_owned(), tensor(&z, size))]);
    let labels = labels(request, config, z.len() / size).map_err(DrawError::Faults)?;
    if let Some(labels) = &labels {
        tensors.insert("labels".to_owned(), tensor(labels, config.classes));
    }
    match request.format {
        Format::Latents => {}
        Format::Png | Format::Safetensors => {
            let mut latents = Latents::new(z, size).map_err(failed)?;
            if let Some(labels) = labels {
                let rows = Maps::rows(labels, config.classes).map_err(failed)?;
                latents = latents.with_label_rows(rows).map_err(failed)?;
            }
            let bytes = generator.draw_latents(&latents, &mut |_| ()).map_err(failed)?;
            if request.format == Format::Png {
                let images = ImageGrid::split_batch(&bytes, config.image_shape().into()).map_err(failed)?;
                let gap = if images.len() == 1 { 0 } else { GAP };
                let grid = ImageGrid::grid_with_gap(&images, Layout::square(images.len()), gap);
                return grid.png().map_err(failed);
            }
            let images = pixels::to_tensor(&bytes, config, &Device::Cpu).map_err(failed)?;
            let shape = images.dims().to_vec(); // (n, c, h, w)
            let data = images.flatten_all().and_then(|flat| flat.to_vec1()).map_err(failed)?;
            tensors.insert("images".to_owned(), HostTensor { shape, data });
        }
    }
    weights::to_safetensors(&tensors, weights::Precision::F32).map_err(failed)
}

/// Label vectors of `n` images, (n, classes), flattened; none for a model that is not conditional.
fn labels(request: &DrawRequest, config: &ModelConfig, n: usize) -> Result<Option<Vec<f32>>, Vec<Fault>> {
    let fault = |message: String| vec![Fault::new("labels", message)];
    let labels = match (&request.labels, config.is_conditional()) {
        (None, false) => return Ok(None),
        (Some(_), false) => return Err(fault("the model is not conditional, it has no classes".to_owned())),
        (None, true) => {
            let of = |i| config.class_weights(Classes::InTurn.of(i, config.classes));
            return Ok(Some((0..n).flat_map(of).collect()));
        }
        (Some(labels), true) => labels,
    };
    if labels.len() != n && labels.len() != 1 {
        return Err(fault(format!(
            "labels has {} entries, expected {n}, or one for all images",
            labels.len()
        )));
    }
    let mut rows = Vec::with_capacity(n * config.classes);
    for (i, label) in labels.iter().enumerate().cycle().take(n) {
        let fault = |message: String| fault(format!("labels[{i}]: {message}"));
        let class = match label {
            // Not by `class_of`: the number of one class may be the name of another.
            Label::Number(class) => u32::try_from(*class)
                .ok()
                .filter(|&class| (class as usize) < config.classes)
                .ok_or_else(|| format!("class {class} is unknown, expected 0 to {}", config.classes - 1)),
            Label::Name(name) => config.class_of(name),
            Label::Weights(weights) => {
                let is_valid =
                    weights.len() == config.classes && weights.iter().all(|&w| to_f32(w).is_finite());
                if !is_valid {
                    return Err(fault(format!(
                        "the label vector is invalid, expected {} finite numbers",
                        config.classes
                    )));
                }
                rows.extend(weights.iter().map(|&weight| to_f32(weight)));
                continue;
            }
        };
        rows.extend(config.class_weights(class.map_err(fault)?));
    }
    Ok(Some(rows))
}

/// z from the request or from its seed, (n, z), flattened.
fn latents(request: &DrawRequest, model: &Model) -> Result<Vec<f32>, Vec<Fault>> {
    let config = model.config();
    let (height, width, channels) = config.image_shape();
    let value_bytes = match request.format {
        Format::Png => 1,
        Format::Safetensors => size_of::<f32>(),
        Format::Latents => 0,
    };
    let max_count = MAX_COUNT.min(MAX_BYTES / (height * width * channels * value_bytes).max(1));
    let mut faults = Vec::new();
    let labels = request.labels.as_ref().map(Vec::len).filter(|&labels| labels > 1);
    let rows = request.z.as_ref().map(Vec::len).or(labels);
    let count = request.count.or(rows).unwrap_or(64.min(max_count));
    if !(1..=max_count).contains(&count) {
        let (field, what) = match (request.count, &request.z) {
            (Some(_), _) => ("count", format!("count is {count}")),
            (None, Some(_)) => ("z", format!("z has {count} rows")),
            (None, None) => ("labels", format!("labels has {count} entries")),
        };
        faults.push(Fault::new(field, format!("{what}, expected 1 to {max_count}")));
    }
    if let Some(z) = &request.z {
        if z.len() != count {
            faults.push(Fault::new("z", format!("z has {} rows, expected {count} as in count", z.len())));
        }
        let size = config.latent.size;
        let is_valid = |z: &Vec<f64>| z.len() == size && z.iter().all(|&value| to_f32(value).is_finite());
        if let Some(row) = z.iter().position(|z| !is_valid(z)) {
            let message = format!("row {row} of z is invalid, expected {size} finite numbers");
            faults.push(Fault::new("z", message));
        }
    }
    match (&request.z, faults.is_empty()) {
        (_, false) => Err(faults),
        (Some(z), true) => Ok(z.iter().flatten().map(|&value| to_f32(value)).collect()),
        (None, true) => Ok(random::latent_each(request.seed, Purpose::SampleLatent, count, &config.latent)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "z is f32; a value out of its range becomes infinite")]
fn to_f32(value: f64) -> f32 {
    value as f32
}
