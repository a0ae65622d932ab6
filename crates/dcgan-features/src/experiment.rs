//! One classification experiment from images to a report: the model's features and the baselines beside them.

use crate::extract::{ExtractError, Extractor, StatisticsSource, raw_pixels, read};
use crate::features::{Features, Storage};
use crate::file::{self, FileError, Writer};
use crate::protocol::draws::Classes;
use crate::protocol::few::{self, FewLabels, Parts};
use crate::protocol::{Examples, Grid, Learner, Outcome, ProtocolError, Watch, all};
use crate::report::{Report, Row, SupervisedRow};
use crate::supervised::{self, Event, Labeled, Ranges, SupervisedError};
use crate::task::Task;
use candle_core::Device;
use dcgan_base::Cancel;
use dcgan_data::Dataset;
use dcgan_model::weights::Weights;
use dcgan_model::{Classifier, Model, NetworkError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Some consecutive images of a dataset that has labels.
#[derive(Clone, Debug)]
pub struct Part {
    /// The dataset.
    pub data: Arc<Dataset>,
    /// Which images.
    pub rows: Range<usize>,
}

/// What a result is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The images themselves as feature vectors.
    Pixels,
    /// The same network with random weights.
    Random,
    /// A supervised network of the same shape, its settings found by so many trials; where labels are few.
    Supervised {
        /// Trials of random search.
        trials: u64,
    },
}

/// Everything that decides an experiment's numbers, but for the images and the model.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The experiment.
    pub task: Task,
    /// Labels a class, or all.
    pub labels_per_class: Option<usize>,
    /// Draws that choose C, where labels are few.
    pub selection_draws: usize,
    /// Draws scored on the test set, where labels are few.
    pub repeats: usize,
    /// Values of C given by the user; none: the task's.
    pub grid: Option<Vec<f64>>,
    /// Seed of draws and of random weights.
    pub seed: u64,
    /// Whether the model's own statistics are used, which it must have; else they are recalibrated.
    pub stored_statistics: bool,
    /// How features are kept.
    pub storage: Storage,
    /// Where networks run.
    pub device: Device,
    /// Folder that keeps features for the next time.
    pub cache: Option<PathBuf>,
    /// What to compare with.
    pub baselines: Vec<Baseline>,
    /// Name of the solver, for the record.
    pub solver: &'static str,
}

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// Features.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A feature file of the cache.
    #[error(transparent)]
    File(#[from] FileError),
    /// The protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Images without labels.
    #[error("{} has no labels: give a publisher's dataset, or one folder of images a class", path.display())]
    NoLabels {
        /// The data.
        path: PathBuf,
    },
    /// The supervised baseline.
    #[error(transparent)]
    Supervised(#[from] SupervisedError),
}

impl From<NetworkError> for ExperimentError {
    fn from(error: NetworkError) -> Self {
        Self::Extract(error.into())
    }
}

impl Part {
    /// All images of a dataset.
    pub fn whole(data: Dataset) -> Self {
        let rows = 0..data.len();
        Self { data: Arc::new(data), rows }
    }

    /// Classes of the images.
    ///
    /// # Errors
    /// [`ExperimentError::NoLabels`].
    pub fn labels(&self) -> Result<Vec<usize>, ExperimentError> {
        let labels = self.data.labels().and_then(|labels| labels.get(self.rows.clone()));
        let labels =
            labels.ok_or_else(|| ExperimentError::NoLabels { path: self.data.report().path.clone() })?;
        Ok(labels.iter().map(|&label| label as usize).collect())
    }

    /// SHA-256 of the data and the choice of images.
    pub fn sha256(&self) -> String {
        if self.rows == (0..self.data.len()) {
            return self.data.fingerprint().to_owned();
        }
        hex(format!("{} {}..{}", self.data.fingerprint(), self.rows.start, self.rows.end).as_bytes())
    }

    fn pair(&self) -> (&Dataset, Range<usize>) {
        (&self.data, self.rows.clone())
    }
}

/// SHA-256 in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    in_hex(&Sha256::digest(bytes))
}

fn in_hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over the names, shapes and values of a network's tensors, whatever file they came from.
pub fn weights_sha256(weights: &Weights) -> String {
    let mut digest = Sha256::new();
    for (name, tensor) in weights {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|&side| digest.update((side as u64).to_le_bytes()));
        tensor.data.iter().for_each(|value| digest.update(value.to_le_bytes()));
    }
    in_hex(&digest.finalize())
}

/// SHA-256 of a network's configuration: the same tensors in another network give other features.
pub fn config_sha256(model: &Model) -> String {
    hex(json!(model.config()).to_string().as_bytes())
}

/// Features of one method.
struct Contender {
    name: String,
    train: Examples,
    test: Examples,
    statistics: Option<StatisticsSource>,
    weights_sha256: Option<String>,
    seconds: f64,
}

/// Runs the experiment of `settings` on the discriminator of `model`, called `name` in the table.
///
/// # Errors
/// [`ExperimentError`].
pub fn run(
    settings: &Settings,
    (name, model, weights): (&str, &Model, &Weights),
    (train, test): (&Part, &Part),
    learner: &mut dyn Learner,
    watch: &mut dyn Watch,
) -> Result<Report, ExperimentError> {
    let class_names = class_names(train, test)?;
    let protocol = protocol(settings);
    // Short classes are found before the long work, not after.
    pool(settings, train, &class_names)?;

    let mut rows = Vec::new();
    let mut found_supervised = None;
    let own = std::iter::once(None).chain(settings.baselines.iter().copied().map(Some));
    for kind in own {
        let started = Instant::now();
        let mut contender = match kind {
            None => {
                let extractor = Extractor::new(model, weights, &settings.device)?;
                let config = config_sha256(model);
                let identity = (config, weights_sha256(weights));
                let stored = settings.stored_statistics;
                network(settings, (name, extractor, identity, stored), (train, test), watch)?
            }
            Some(Baseline::Random) => {
                let extractor = Extractor::random(model, settings.seed, &settings.device)?;
                let identity = (config_sha256(model), weights_sha256(&extractor.weights()?));
                let name = "same network, random weights";
                network(settings, (name, extractor, identity, false), (train, test), watch)?
            }
            Some(Baseline::Supervised { trials }) => {
                let found = supervised(settings, trials, model, (train, test), &class_names, watch)?;
                found_supervised = Some(found);
                continue;
            }
            Some(Baseline::Pixels) => Contender {
                name: "raw pixels".to_owned(),
                train: examples(raw_pixels(train.pair(), model)?, train)?,
                test: examples(raw_pixels(test.pair(), model)?, test)?,
                statistics: None,
                weights_sha256: None,
                seconds: 0.0,
            },
        };
        contender.seconds = started.elapsed().as_secs_f64();
        tracing::info!("{}: {} features an image", contender.name, contender.test.features.width());
        let fitting = Instant::now();
        let grid = grid(settings, kind.is_some());
        let outcome = classify(settings, &grid, &contender, &class_names, learner, watch)?;
        rows.push(Row {
            name: contender.name,
            outcome,
            statistics: contender.statistics,
            weights_sha256: contender.weights_sha256,
            extraction_seconds: contender.seconds,
            fit_seconds: fitting.elapsed().as_secs_f64(),
        });
    }
    Ok(Report {
        task: settings.task,
        labels_per_class: settings.labels_per_class,
        rows,
        supervised: found_supervised,
        class_names,
        train_sha256: train.sha256(),
        test_sha256: test.sha256(),
        config_sha256: config_sha256(model),
        protocol_sha256: hex(protocol.to_string().as_bytes()),
        protocol,
        peak_memory_bytes: None,
    })
}

/// The numbers of the protocol, as they are recorded.
fn protocol(settings: &Settings) -> Value {
    json!({
        "task": settings.task,
        "labels_per_class": settings.labels_per_class,
        "selection_draws": settings.labels_per_class.map(|_| settings.selection_draws),
        "repeats": settings.labels_per_class.map(|_| settings.repeats),
        "grid": grid(settings, false),
        "baseline_grid": grid(settings, true),
        "seed": settings.seed,
        "statistics": if settings.stored_statistics { "stored" } else { "recalibrated" },
        "solver": settings.solver,
        "dtype": settings.storage.name(),
    })
}

/// A grid that the user gives is taken as it is; a baseline is never held back by the ends of one made for the network.
fn grid(settings: &Settings, baseline: bool) -> Grid {
    match &settings.grid {
        Some(values) => Grid::closed(values.clone()),
        None => {
            let grid = settings.task.grid();
            Grid { open: grid.open || baseline, ..grid }
        }
    }
}

/// Names of the classes: the data's, and the numbers of any other labels.
fn class_names(train: &Part, test: &Part) -> Result<Vec<String>, ExperimentError> {
    let mut names = train.data.class_names().unwrap_or_default().to_vec();
    let all = train.labels()?.into_iter().chain(test.labels()?);
    let count = all.max().map_or(0, |largest| largest + 1);
    names.extend((names.len()..count).map(|class| class.to_string()));
    Ok(names)
}

/// How many training images are not held out, and their classes, each with as many images as are drawn from it.
fn pool(settings: &Settings, train: &Part, names: &[String]) -> Result<(usize, Classes), ExperimentError> {
    let labels = train.labels()?;
    let held_out = settings.task.held_out(labels.len());
    if held_out == 0 || held_out >= labels.len() {
        return Err(ProtocolError::TooFew { images: labels.len(), held_out }.into());
    }
    let len = labels.len() - held_out;
    Ok((len, Classes::new(&labels[..len], names, settings.labels_per_class.unwrap_or(1))?))
}

/// The rows that draws choose from and the draws themselves, for others to check: train rows by draw.
///
/// # Errors
/// A class with too few images.
pub fn draws(settings: &Settings, train: &Part, test: &Part) -> Result<Value, ExperimentError> {
    let names = class_names(train, test)?;
    let (pool, classes) = pool(settings, train, &names)?;
    let few = few_labels(settings);
    let selection: Vec<_> = (0..few.selection_draws).map(|i| few.selection_draw(&classes, i)).collect();
    let test: Vec<_> = (0..few.repeats).map(|i| few.test_draw(&classes, i)).collect();
    Ok(json!({ "held_out": [pool, train.rows.len()], "selection": selection, "test": test }))
}

fn few_labels(settings: &Settings) -> FewLabels {
    FewLabels {
        per_class: settings.labels_per_class.unwrap_or(1),
        selection_draws: settings.selection_draws,
        repeats: settings.repeats,
        seed: settings.seed,
    }
}

fn examples(features: Features, part: &Part) -> Result<Examples, ExperimentError> {
    Ok(Examples { features, labels: part.labels()? })
}

/// Features of a network, its statistics settled first; from the cache where they are there.
fn network(
    settings: &Settings,
    (name, mut extractor, (config_sha256, weights_sha256), stored): (&str, Extractor, (String, String), bool),
    (train, test): (&Part, &Part),
    watch: &mut dyn Watch,
) -> Result<Contender, ExperimentError> {
    let source = if stored { StatisticsSource::Stored } else { StatisticsSource::Recalibrated };
    // As the authors' svhn_semisup_analysis.py does: the images held out to choose C take no part.
    let learned = train.rows.len().saturating_sub(settings.task.held_out(train.rows.len()));
    let learned = Part { rows: train.rows.start..train.rows.start + learned, ..train.clone() };
    let statistics =
        if stored { "stored".to_owned() } else { format!("recalibrated on {}", learned.sha256()) };
    let mut settled = stored;
    let mut parts = Vec::new();
    for (part, what) in [(train, "training"), (test, "test")] {
        let origin = json!({
            "format": CACHE_FORMAT,
            "config_sha256": config_sha256,
            "weights_sha256": weights_sha256,
            "images_sha256": part.sha256(),
            "statistics": statistics,
            "width": extractor.width(),
            "dtype": settings.storage.name(),
        })
        .to_string();
        let cached = settings
            .cache
            .as_ref()
            .map(|folder| folder.join(format!("{}.safetensors", hex(origin.as_bytes()))));
        if let Some(path) = cached.as_deref().filter(|path| path.exists()) {
            match from_cache(path, &origin, (part.rows.len(), extractor.width())) {
                Ok(features) => {
                    tracing::info!("{name}: {what} features from {}", path.display());
                    parts.push(examples(features, part)?);
                    continue;
                }
                Err(problem) => tracing::warn!("{}: {problem}: extracted again", path.display()),
            }
        }
        if !settled {
            watch.begin(&format!("{name}: batch-norm statistics"), learned.rows.len(), "images");
            extractor.recalibrate(learned.pair(), &mut |done| watch.done(done))?;
            settled = true;
        }
        watch.begin(&format!("{name}: features of the {what} images"), part.rows.len(), "images");
        let features = match cached {
            None => extractor.to_memory(part.pair(), settings.storage, &mut |done| watch.done(done))?,
            Some(path) => {
                to_file(
                    &mut extractor,
                    part,
                    settings.storage,
                    &path,
                    &origin,
                    &Cancel::new(),
                    &mut |done| watch.done(done),
                )?;
                file::open(&path)?.features
            }
        };
        parts.push(examples(features, part)?);
    }
    let (Some(test), Some(train)) = (parts.pop(), parts.pop()) else {
        return Err(ProtocolError::NoTest.into());
    };
    let weights_sha256 = Some(weights_sha256);
    let name = name.to_owned();
    Ok(Contender { name, train, test, statistics: Some(source), weights_sha256, seconds: 0.0 })
}

/// Raised when the same network would give other features.
const CACHE_FORMAT: u32 = 1;

/// Features of an earlier run, or what is wrong with the file.
fn from_cache(path: &Path, origin: &str, shape: (usize, usize)) -> Result<Features, String> {
    let found = file::open(path).map_err(|e| e.to_string())?;
    if found.origin.as_deref() != Some(origin) || (found.features.len(), found.features.width()) != shape {
        return Err("is not what its name says".to_owned());
    }
    found.features.check_finite().map_err(|e| e.to_string())?;
    Ok(found.features)
}

/// Streams the features of `part` to a file; `origin` is kept in its header. A stop asked for with `cancel` leaves nothing.
///
/// # Errors
/// Extraction; the disk.
pub fn to_file(
    extractor: &mut Extractor,
    part: &Part,
    storage: Storage,
    path: &Path,
    origin: &str,
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize),
) -> Result<(), ExperimentError> {
    let labels = part.data.labels().and_then(|labels| labels.get(part.rows.clone()));
    let shape = (part.rows.len(), extractor.width());
    let mut writer = Writer::create(path, storage, shape, labels, origin)?;
    let mut write = |rows: &[f32]| {
        if cancel.is_set() {
            return Err(ExtractError::Sink("interrupted; nothing is left of the file".to_owned()));
        }
        writer.write(rows).map_err(|e| ExtractError::Sink(e.to_string()))
    };
    extractor.extract(part.pair(), &mut write, progress)?;
    Ok(writer.finish()?)
}

/// Epochs of supervised training between looks at the held-out images.
const EVALUATE_EVERY: usize = 5;

/// The purely supervised network of section 5.2 on the labels of the first test draw.
fn supervised(
    settings: &Settings,
    trials: u64,
    model: &Model,
    (train, test): (&Part, &Part),
    class_names: &[String],
    watch: &mut dyn Watch,
) -> Result<SupervisedRow, ExperimentError> {
    let started = Instant::now();
    let (pool, classes) = pool(settings, train, class_names)?;
    let drawn = few_labels(settings).test_draw(&classes, 0);
    let set = |part: &Part, rows: &[usize]| -> Result<(Vec<u8>, Vec<u32>), ExperimentError> {
        let all = part.data.labels().unwrap_or_default();
        let (mut pixels, mut image) = (Vec::new(), Vec::new());
        for row in rows.iter().map(|row| part.rows.start + row) {
            read(&part.data, row..row + 1, &mut image).map_err(ExtractError::from)?;
            pixels.extend_from_slice(&image);
        }
        Ok((pixels, rows.iter().filter_map(|row| all.get(part.rows.start + row)).copied().collect()))
    };
    let learned = set(train, &drawn)?;
    let held_out = set(train, &(pool..train.rows.len()).collect::<Vec<_>>())?;
    let tested = set(test, &(0..test.rows.len()).collect::<Vec<_>>())?;
    fn labeled((pixels, labels): &(Vec<u8>, Vec<u32>)) -> Labeled<'_> {
        Labeled { pixels, labels }
    }
    let task = supervised::Task {
        model,
        classes: class_names.len(),
        training: labeled(&learned),
        validation: labeled(&held_out),
        evaluate_every: EVALUATE_EVERY,
        device: &settings.device,
    };
    watch.begin("supervised network: random search", usize::try_from(trials).unwrap_or(usize::MAX), "trials");
    let mut finished = 0;
    let mut tell = |event| {
        if let Event::Finished(summary) = event {
            finished += 1;
            watch.done(finished);
            tracing::debug!("{summary:?}");
        }
        ControlFlow::Continue(())
    };
    let found = supervised::search(&task, &Ranges::default(), settings.seed, 0..trials, &mut tell)?;
    let mut classifier = Classifier::new(model, class_names.len(), &found.weights, &settings.device)?;
    Ok(SupervisedRow {
        validation_error_percent: found.validation_error_percent,
        error_percent: supervised::error_percent(&mut classifier, model, labeled(&tested))?,
        trials: found.trials.len(),
        train: learned.1.len(),
        test: tested.1.len(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn classify(
    settings: &Settings,
    grid: &Grid,
    contender: &Contender,
    class_names: &[String],
    learner: &mut dyn Learner,
    watch: &mut dyn Watch,
) -> Result<Outcome, ExperimentError> {
    let held_out = settings.task.held_out(contender.train.labels.len());
    Ok(match settings.labels_per_class {
        None => all::run(held_out, grid, (&contender.train, &contender.test), class_names, learner, watch)?,
        Some(_) => {
            let (pool, held_out) = contender.train.split_last(held_out)?;
            let test = contender.test.clone();
            let parts = Parts { pool, held_out, test, class_names: class_names.to_vec() };
            few::run(&few_labels(settings), grid, &parts, learner, watch)?
        }
    })
}
