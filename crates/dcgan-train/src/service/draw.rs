//! Samples for requests: one thread draws them, on the CPU, one request after the other.
//!
//! Not on the worker's device: a request must not wait for a job that takes a day, nor take the job's memory. The images are
//! those of `dcgan-train sample --device cpu`.

use super::models;
use crate::config::Fault;
use candle_core::Device;
use dcgan_data::image_grid::ImageGrid;
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::{self, HostTensor, Weights};
use dcgan_model::{Generator, Model, draw_latents, ensure_statistics, open, pixels};
use serde::Deserialize;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;
use tokio::sync::oneshot;

/// Requests that may wait.
const WAITING: usize = 8;
/// Images of one request, and bytes of them.
pub(crate) const MAX_COUNT: usize = 1024;
const MAX_BYTES: usize = 64 << 20;
/// Generators that stay open between requests: whoever explores a model asks for it many times a second.
const OPEN: usize = 2;

/// Body of `POST /v1/models/{id}/samples`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// Seed of z.
    #[serde(default)]
    seed: u64,
    /// Images to draw; as many as z where that is given.
    count: Option<usize>,
    /// Latent vectors in place of drawn ones.
    z: Option<Vec<Vec<f64>>>,
    /// What comes back.
    #[serde(default)]
    pub(crate) format: Format,
}

/// What the images come back as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// One grid.
    #[default]
    Png,
    /// `z` (n, z) and `images` (n, c, h, w) as the networks see them.
    Safetensors,
    /// `z` (n, z) alone, as safetensors; nothing is drawn.
    Latents,
}

/// Why nothing was drawn.
#[derive(Debug)]
pub(crate) enum DrawError {
    /// The request asks for what cannot be.
    Faults(Vec<Fault>),
    /// The model or the machine.
    Failed(String),
}

type Answer = Result<Vec<u8>, DrawError>;

/// A request on its way to the thread.
#[derive(Debug)]
struct Commission {
    folder: PathBuf,
    wish: Wish,
    answer: oneshot::Sender<Answer>,
}

/// Where requests for samples are left.
#[derive(Debug)]
pub(crate) struct Easel(SyncSender<Commission>);

impl Easel {
    /// Asks for samples of the model in `folder`; none where too many are waiting already.
    pub(crate) fn ask(&self, folder: PathBuf, wish: Wish) -> Option<oneshot::Receiver<Answer>> {
        let (answer, receiver) = oneshot::channel();
        match self.0.try_send(Commission { folder, wish, answer }) {
            Ok(()) => Some(receiver),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => None,
        }
    }
}

/// Starts the thread; it ends with the easel.
pub(crate) fn easel() -> io::Result<Easel> {
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::Builder::new().name("dcgan-draw".into()).spawn(move || work(&receiver))?;
    Ok(Easel(sender))
}

fn work(commissions: &Receiver<Commission>) {
    let mut loaded = Vec::new();
    // Its own threads: in those of a training job an image would wait behind the products of a step.
    let pool = rayon::ThreadPoolBuilder::new().thread_name(|i| format!("dcgan-draw-{i}")).build();
    let pool =
        pool.inspect_err(|error| tracing::warn!("drawing shares the threads of training: {error}")).ok();
    for Commission { folder, wish, answer } in commissions {
        if answer.is_closed() {
            continue; // whoever asked has gone
        }
        let mut paint = || paint(&mut loaded, &folder, &wish);
        let drawn = catch_unwind(AssertUnwindSafe(|| match &pool {
            Some(pool) => pool.install(paint),
            None => paint(),
        }));
        // Whoever asked may have gone meanwhile.
        let _ = answer.send(drawn.unwrap_or_else(|_| Err(DrawError::Failed("a panic, see above".into()))));
    }
}

/// Which file a generator was read from, and in which version.
#[derive(Debug, PartialEq)]
struct Version {
    path: PathBuf,
    modified: SystemTime,
    bytes: u64,
}

impl Version {
    /// None where the file cannot be told from another one of its name.
    fn of(folder: &Path) -> Option<Self> {
        let folder = models::best(folder).unwrap_or_else(|| folder.to_owned());
        let path = fs::canonicalize(folder.join("generator.safetensors")).ok()?;
        let metadata = path.metadata().ok()?;
        Some(Self { modified: metadata.modified().ok()?, bytes: metadata.len(), path })
    }
}

/// A generator ready to draw.
#[derive(Debug)]
struct Loaded {
    version: Option<Version>,
    model: Model,
    generator: Generator,
}

fn failed(error: impl std::fmt::Display) -> DrawError {
    DrawError::Failed(error.to_string())
}

impl Loaded {
    fn open(folder: &Path) -> Result<Self, DrawError> {
        // Before the reading: what changes meanwhile is read again next time.
        let version = Version::of(folder);
        let files = open(folder, None).map_err(failed)?.files;
        let model = files.model;
        let Some(weights) = files.generator else {
            return Err(DrawError::Faults(vec![Fault::new("id", "the model has no generator")]));
        };
        let mut generator = Generator::new(&model, &weights, &Device::Cpu).map_err(failed)?;
        ensure_statistics(&mut generator, &model, &Device::Cpu).map_err(failed)?;
        Ok(Self { version, model, generator })
    }
}

/// The generator of `folder`, at the end of `loaded`, where it is looked for first.
fn load<'a>(loaded: &'a mut Vec<Loaded>, folder: &Path) -> Result<&'a mut Loaded, DrawError> {
    let version = Version::of(folder);
    match loaded.iter().position(|loaded| version.is_some() && loaded.version == version) {
        Some(place) => {
            let found = loaded.remove(place);
            loaded.push(found);
        }
        None => {
            let new = Loaded::open(folder)?;
            if loaded.len() == OPEN {
                loaded.remove(0); // the one asked for longest ago
            }
            loaded.push(new);
        }
    }
    loaded.last_mut().ok_or_else(|| failed("no model"))
}

fn paint(loaded: &mut Vec<Loaded>, folder: &Path, wish: &Wish) -> Answer {
    let Loaded { model, generator, .. } = load(loaded, folder)?;
    let z = latents(wish, model).map_err(DrawError::Faults)?;
    let config = model.config();
    let size = config.latent.size;
    let latents = HostTensor { shape: vec![z.len() / size, size], data: z };
    let tensors = match wish.format {
        Format::Latents => Weights::from([("z".to_owned(), latents)]),
        Format::Png | Format::Safetensors => {
            let bytes = draw_latents(generator, model, &latents.data, &mut |_| ()).map_err(failed)?;
            if wish.format == Format::Png {
                let grid = ImageGrid::square(&bytes, config.image_shape().into()).map_err(failed)?;
                return grid.png().map_err(failed);
            }
            let images = pixels::to_tensor(&bytes, config, &Device::Cpu).map_err(failed)?;
            let shape = images.dims().to_vec(); // (n, c, h, w)
            let data = images.flatten_all().and_then(|flat| flat.to_vec1()).map_err(failed)?;
            Weights::from([("z".to_owned(), latents), ("images".to_owned(), HostTensor { shape, data })])
        }
    };
    weights::to_safetensors(&tensors, weights::Dtype::F32).map_err(failed)
}

/// z as given or as drawn, `(n, z)` one after the other.
fn latents(wish: &Wish, model: &Model) -> Result<Vec<f32>, Vec<Fault>> {
    let config = model.config();
    let (height, width, channels) = config.image_shape();
    // Bytes of each number of an image.
    let number = match wish.format {
        Format::Png => 1,
        Format::Safetensors => size_of::<f32>(),
        Format::Latents => 0,
    };
    let largest = MAX_COUNT.min(MAX_BYTES / (height * width * channels * number).max(1));
    let mut faults = Vec::new();
    let given = wish.z.as_ref().map(Vec::len);
    let count = wish.count.or(given).unwrap_or(64.min(largest));
    if !(1..=largest).contains(&count) {
        let field = if wish.count.is_some() { "count" } else { "z" };
        faults.push(Fault::new(field, format!("{count} images are asked for, expected 1 to {largest}")));
    }
    if let Some(z) = &wish.z {
        if z.len() != count {
            faults.push(Fault::new("z", format!("{} z are given, count is {count}", z.len())));
        }
        let size = config.latent.size;
        let fits = |z: &Vec<f64>| z.len() == size && z.iter().all(|&value| narrow(value).is_finite());
        if let Some(row) = z.iter().position(|z| !fits(z)) {
            let message = format!("z {row} is not {size} finite numbers, as the model takes");
            faults.push(Fault::new("z", message));
        }
    }
    match (&wish.z, faults.is_empty()) {
        (_, false) => Err(faults),
        (Some(z), true) => Ok(z.iter().flatten().map(|&value| narrow(value)).collect()),
        (None, true) => Ok(random::latent_each(wish.seed, Purpose::SampleLatent, count, &config.latent)),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "z are f32; one too large for that is infinite")]
fn narrow(value: f64) -> f32 {
    value as f32
}
