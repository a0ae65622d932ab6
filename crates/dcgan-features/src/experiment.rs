//! One classification experiment from images to a report: the model's features and the baselines.

use crate::cache::{self, Cache};
use crate::extract::{ExtractError, Extractor, StatisticsSource, raw_pixels, read_batch};
use crate::features::{Features, Precision};
use crate::file::{FileError, FileSpec, Writer};
use crate::origin::{RECALIBRATED, hashed_form};
use crate::protocol::draws::Classes;
use crate::protocol::few::{self, FewLabels, Splits};
use crate::protocol::{Examples, Grid, Learner, Outcome, Progress, ProtocolError, all};
use crate::report::{Report, Row, SupervisedRow};
pub use crate::subset::Subset;
use crate::supervised::{self, Event, LabeledImages, Ranges, SupervisedError, TrialSummary};
use crate::task::Task;
use dcgan_base::Cancel;
use dcgan_model::weights::{HostTensor, Weights, earlier_name};
use dcgan_model::{Classifier, Device, Model, NetworkError};
use dcgan_ops::fail_in_turn;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A method that the model is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// The images themselves as feature vectors.
    Pixels,
    /// The same network with random weights.
    Random,
    /// A supervised network of the same shape, its hyperparameters found by random search; few-label experiments only.
    Supervised {
        /// Number of trials of the random search.
        trials: u64,
    },
}

/// Settings of an experiment: all that its results depend on except the images and the model.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The experiment.
    pub task: Task,
    /// Labels per class; `None` for all labels.
    pub labels_per_class: Option<usize>,
    /// Draws that C is chosen on (few labels).
    pub selection_draws: usize,
    /// Draws that are scored on the test set (few labels).
    pub repeats: usize,
    /// Values of C to search; `None` for the task's grid.
    pub grid: Option<Vec<f64>>,
    /// Seed of draws and of random weights.
    pub seed: u64,
    /// Whether to use the model's running statistics of batch norm, which it must have; otherwise they are
    /// recalibrated.
    pub stored_statistics: bool,
    /// Data type (dtype) of the features.
    pub storage: Precision,
    /// Device of the networks.
    pub device: Device,
    /// Folder of cached feature files.
    pub cache: Option<PathBuf>,
    /// Baselines.
    pub baselines: Vec<Baseline>,
    /// Name of the solver, for the recorded protocol.
    pub solver: &'static str,
}

/// Why an experiment failed.
#[derive(Debug, thiserror::Error)]
pub enum ExperimentError {
    /// Feature extraction.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A cached feature file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// Images without labels.
    #[error("{} has no labels: give a published dataset, or one folder of images per class", path.display())]
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

/// SHA-256 in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    in_hex(&Sha256::digest(bytes))
}

fn in_hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 over the names, shapes and values of a network's tensors, independent of the file format. Names are those of
/// the first version, so that equal weights have equal hashes in all versions.
pub fn weights_sha256(weights: &Weights) -> String {
    let mut digest = Sha256::new();
    let named: BTreeMap<String, &HostTensor> =
        weights.iter().map(|(name, tensor)| (earlier_name(name), tensor)).collect();
    for (name, tensor) in &named {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((tensor.shape.len() as u64).to_le_bytes());
        tensor.shape.iter().for_each(|&side| digest.update((side as u64).to_le_bytes()));
        tensor.data.iter().for_each(|value| digest.update(value.to_le_bytes()));
    }
    in_hex(&digest.finalize())
}

/// SHA-256 of a network's configuration: the same tensors in a different network give different features.
pub fn config_sha256(model: &Model) -> String {
    hex(hashed_form(json!(model.config())).to_string().as_bytes())
}

/// Features of one method.
struct MethodFeatures {
    name: String,
    train: Examples,
    test: Examples,
    statistics: Option<StatisticsSource>,
    weights_sha256: Option<String>,
    /// All that the features depend on.
    identity: Value,
    seconds: f64,
}

/// Runs the experiment of `settings` on the discriminator of `model`; `name` labels its row of the table.
///
/// # Errors
/// [`ExperimentError`].
pub fn run(
    settings: &Settings,
    (name, model, weights): (&str, &Model, &Weights),
    (train, test): (&Subset, &Subset),
    learner: &mut dyn Learner,
    progress: &mut dyn Progress,
) -> Result<Report, ExperimentError> {
    let test = &test.with_classes_of(train);
    let class_names = class_names(train, test)?;
    let protocol = protocol(settings);
    // Fail on short classes before the long work.
    pool(settings, train, &class_names)?;

    let mut rows = Vec::new();
    let mut supervised_row = None;
    let own = std::iter::once(None).chain(settings.baselines.iter().copied().map(Some));
    for kind in own {
        let started = Instant::now();
        let mut method = match kind {
            None => {
                let extractor = Extractor::new(model, weights, &settings.device)?;
                let network = Network {
                    name,
                    extractor,
                    config_sha256: config_sha256(model),
                    weights_sha256: weights_sha256(weights),
                    stored_statistics: settings.stored_statistics,
                };
                network.features(settings, (train, test), progress)?
            }
            Some(Baseline::Random) => {
                let extractor = Extractor::random(model, settings.seed, &settings.device)?;
                let network = Network {
                    name: "same network, random weights",
                    config_sha256: config_sha256(model),
                    weights_sha256: weights_sha256(&extractor.weights()?),
                    extractor,
                    stored_statistics: false,
                };
                network.features(settings, (train, test), progress)?
            }
            Some(Baseline::Supervised { trials }) => {
                let row = supervised(settings, trials, model, (train, test), &class_names, progress)?;
                supervised_row = Some(row);
                continue;
            }
            Some(Baseline::Pixels) => MethodFeatures {
                name: "raw pixels".to_owned(),
                train: examples(raw_pixels(train.pair(), model)?, train)?,
                test: examples(raw_pixels(test.pair(), model)?, test)?,
                statistics: None,
                weights_sha256: None,
                identity: json!(["pixels", config_sha256(model), train.cache_key(), test.cache_key()]),
                seconds: 0.0,
            },
        };
        method.seconds = started.elapsed().as_secs_f64();
        tracing::info!("{}: {} features per image", method.name, method.test.features.width());
        let fitting = Instant::now();
        let grid = grid(settings, kind.is_some());
        // A result must not depend on the methods before it: some of them may be read from the cache.
        learner.reset();
        let outcome = classify_cached(settings, &grid, &method, &class_names, learner, progress)?;
        let row = Row {
            name: method.name,
            outcome,
            statistics: method.statistics,
            weights_sha256: method.weights_sha256,
            extraction_seconds: method.seconds,
            fit_seconds: fitting.elapsed().as_secs_f64(),
        };
        progress.result(&row.line(settings.task.measure()));
        rows.push(row);
    }
    Ok(Report {
        task: settings.task,
        labels_per_class: settings.labels_per_class,
        rows,
        supervised: supervised_row,
        class_names,
        train_sha256: train.sha256(),
        test_sha256: test.sha256(),
        config_sha256: config_sha256(model),
        protocol_sha256: hex(protocol.to_string().as_bytes()),
        protocol,
        peak_memory_bytes: None,
    })
}

/// The protocol as recorded and hashed.
fn protocol(settings: &Settings) -> Value {
    json!({
        "task": settings.task,
        "labels_per_class": settings.labels_per_class,
        "selection_draws": settings.labels_per_class.map(|_| settings.selection_draws),
        "repeats": settings.labels_per_class.map(|_| settings.repeats),
        "grid": grid(settings, false),
        "baseline_grid": grid(settings, true),
        "seed": settings.seed,
        // The earlier name: `protocol_sha256` must not change for equal protocols.
        "statistics": if settings.stored_statistics { "stored" } else { RECALIBRATED[1] },
        "solver": settings.solver,
        "dtype": settings.storage.name(),
    })
}

/// The user's grid, which is closed, or the task's. For baselines the task's grid is open: it was made for the network.
fn grid(settings: &Settings, baseline: bool) -> Grid {
    match &settings.grid {
        Some(values) => Grid::closed(values.clone()),
        None => {
            let grid = settings.task.grid();
            Grid { open: grid.open || baseline, ..grid }
        }
    }
}

/// Class names of the dataset, and numbers for labels without a name.
fn class_names(train: &Subset, test: &Subset) -> Result<Vec<String>, ExperimentError> {
    // The names of the training images, and any others of the test images after them.
    let mut names = test.class_names().or(train.class_names()).unwrap_or_default().to_vec();
    let all = train.labels()?.into_iter().chain(test.labels()?);
    let count = all.max().map_or(0, |largest| largest + 1);
    names.extend((names.len()..count).map(|class| class.to_string()));
    Ok(names)
}

/// The number of training images that are not held out, and their rows by class, enough of each for a draw.
fn pool(settings: &Settings, train: &Subset, names: &[String]) -> Result<(usize, Classes), ExperimentError> {
    let labels = train.labels()?;
    let held_out = settings.task.held_out(labels.len());
    if held_out == 0 || held_out >= labels.len() {
        return Err(ProtocolError::TooFew { images: labels.len(), held_out }.into());
    }
    let len = labels.len() - held_out;
    Ok((len, Classes::new(&labels[..len], names, settings.labels_per_class.unwrap_or(1))?))
}

/// The range of held-out rows and the training rows of every draw, for checks by other programs.
///
/// # Errors
/// A class with too few images.
pub fn draws(settings: &Settings, train: &Subset, test: &Subset) -> Result<Value, ExperimentError> {
    let names = class_names(train, &test.with_classes_of(train))?;
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

fn examples(features: Features, subset: &Subset) -> Result<Examples, ExperimentError> {
    Ok(Examples { features, labels: subset.labels()? })
}

/// A network to extract features with.
struct Network<'a> {
    /// Name in the table.
    name: &'a str,
    extractor: Extractor,
    config_sha256: String,
    weights_sha256: String,
    /// Whether to use the model's running statistics of batch norm instead of recalibrated ones.
    stored_statistics: bool,
}

impl Network<'_> {
    /// Features of both splits, read from the cache if present; batch norm is recalibrated first if necessary.
    fn features(
        mut self,
        settings: &Settings,
        (train, test): (&Subset, &Subset),
        progress: &mut dyn Progress,
    ) -> Result<MethodFeatures, ExperimentError> {
        let name = self.name;
        let stored = self.stored_statistics;
        let source = if stored { StatisticsSource::Stored } else { StatisticsSource::Recalibrated };
        // As in the authors' svhn_semisup_analysis.py, the images held out to choose C are excluded.
        let training = train.rows.len().saturating_sub(settings.task.held_out(train.rows.len()));
        let training = train.with_rows(train.rows.start..train.rows.start + training);
        let statistics =
            if stored { "stored".to_owned() } else { format!("recalibrated on {}", training.sha256()) };
        let mut has_statistics = stored;
        let (mut splits, mut identity) = (Vec::new(), Vec::new());
        for (subset, what) in [(train, "training"), (test, "test")] {
            let origin = json!({
                "format": cache::FORMAT,
                "config_sha256": self.config_sha256,
                "weights_sha256": self.weights_sha256,
                "images_sha256": subset.sha256(),
                "images_cache_key": subset.cache_key(),
                "statistics": statistics,
                "width": self.extractor.width(),
                "dtype": settings.storage.name(),
            });
            let cache = settings.cache.as_deref().map(|folder| Cache { folder });
            let shape = (subset.rows.len(), self.extractor.width());
            let cached = cache.as_ref().and_then(|cache| cache.features(&origin, shape));
            identity.push(origin.clone());
            if let Some(features) = cached {
                splits.push(examples(features, subset)?);
                continue;
            }
            if !has_statistics {
                progress.begin(&format!("{name}: batch norm statistics"), training.rows.len(), "images");
                self.extractor.recalibrate(training.pair(), &mut |done| {
                    progress.update(done);
                    Ok(())
                })?;
                has_statistics = true;
            }
            progress.begin(&format!("{name}: features of the {what} images"), subset.rows.len(), "images");
            let mut on_images = |done| progress.update(done);
            let (extractor, storage) = (&mut self.extractor, settings.storage);
            let features = match cache {
                None => extractor.to_memory(subset.pair(), storage, &mut on_images)?,
                Some(cache) => cache.extract(extractor, subset, storage, &origin, &mut on_images)?,
            };
            splits.push(examples(features, subset)?);
        }
        let (Some(test), Some(train)) = (splits.pop(), splits.pop()) else {
            return Err(ProtocolError::NoTest.into());
        };
        Ok(MethodFeatures {
            name: name.to_owned(),
            train,
            test,
            statistics: Some(source),
            weights_sha256: Some(self.weights_sha256),
            identity: json!(identity),
            seconds: 0.0,
        })
    }
}

/// Streams the features of `subset` to a file with `origin` in its header. Cancelled, it leaves no file.
///
/// # Errors
/// Extraction; the disk.
///
/// In a group of processes ([`Extractor::in_group`]) rank 0 calls this, and the others [`Extractor::extract`].
pub fn to_file(
    extractor: &mut Extractor,
    subset: &Subset,
    storage: Precision,
    path: &Path,
    origin: &str,
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize),
) -> Result<(), ExperimentError> {
    write_file(extractor, subset, (storage, false), (path, origin.to_owned()), cancel, progress)
}

/// [`to_file`] with or without a checksum.
pub(crate) fn write_file(
    extractor: &mut Extractor,
    subset: &Subset,
    (storage, checksum): (Precision, bool),
    (path, origin): (&Path, String),
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize),
) -> Result<(), ExperimentError> {
    let spec = FileSpec {
        storage,
        shape: (subset.rows.len(), extractor.width()),
        labels: subset.data.labels().and_then(|labels| labels.get(subset.rows.clone())),
        class_names: subset.data.class_names(),
        origin: &origin,
        checksum,
    };
    let created = Writer::create(path, &spec);
    if created.is_err() {
        fail_in_turn(extractor.group()).map_err(ExtractError::from)?;
    }
    let mut writer = created?;
    let mut write = |rows: &[f32]| {
        if cancel.is_set() {
            return Err(ExtractError::Sink("interrupted; the file was removed".to_owned()));
        }
        writer.write(rows).map_err(|e| ExtractError::Sink(e.to_string()))
    };
    extractor.extract(subset.pair(), &mut write, progress)?;
    Ok(writer.finish()?)
}

/// Epochs of supervised training between evaluations on the held-out images.
const EVALUATE_EVERY: usize = 5;

/// The purely supervised network of section 5.2 on the labels of the first test draw.
fn supervised(
    settings: &Settings,
    trials: u64,
    model: &Model,
    (train, test): (&Subset, &Subset),
    class_names: &[String],
    progress: &mut dyn Progress,
) -> Result<SupervisedRow, ExperimentError> {
    let started = Instant::now();
    let (pool, classes) = pool(settings, train, class_names)?;
    let drawn = few_labels(settings).test_draw(&classes, 0);
    let set = |subset: &Subset, rows: &[usize]| -> Result<(Vec<u8>, Vec<u32>), ExperimentError> {
        let all = subset.labels()?;
        let (mut pixels, mut image) = (Vec::new(), Vec::new());
        for row in rows.iter().map(|row| subset.rows.start + row) {
            read_batch(&subset.data, row..row + 1, &mut image).map_err(ExtractError::from)?;
            pixels.extend_from_slice(&image);
        }
        let label = |row: &usize| all.get(*row).and_then(|&label| u32::try_from(label).ok());
        Ok((pixels, rows.iter().filter_map(label).collect()))
    };
    let training = set(train, &drawn)?;
    let held_out = set(train, &(pool..train.rows.len()).collect::<Vec<_>>())?;
    let tested = set(test, &(0..test.rows.len()).collect::<Vec<_>>())?;
    fn labeled((pixels, labels): &(Vec<u8>, Vec<u32>)) -> LabeledImages<'_> {
        LabeledImages { pixels, labels }
    }
    let task = supervised::Task {
        model,
        classes: class_names.len(),
        training: labeled(&training),
        validation: labeled(&held_out),
        evaluate_every: EVALUATE_EVERY,
        device: &settings.device,
    };
    progress.begin(
        "supervised network: random search",
        usize::try_from(trials).unwrap_or(usize::MAX),
        "trials",
    );
    let cache = settings.cache.as_deref().map(|folder| Cache { folder });
    let mut protocol = protocol(settings);
    // They do not select the drawn labels.
    for setting in ["grid", "baseline_grid", "selection_draws", "repeats", "solver", "statistics", "dtype"] {
        protocol[setting] = Value::Null;
    }
    let origin = json!({
        "format": cache::FORMAT,
        "trials": "supervised",
        "config_sha256": config_sha256(model),
        "images": [train.cache_key(), test.cache_key()],
        "classes": class_names,
        "protocol": protocol,
    });
    let mut known: Vec<TrialSummary> =
        cache.as_ref().and_then(|cache| cache.value(&origin)).unwrap_or_default();
    let earlier = known.clone();
    progress.update(known.len());
    let mut stored = Ok(());
    let mut on_event = |event| {
        if let Event::Finished(summary) = event {
            known.push(summary);
            progress.update(known.len());
            if let Some(best) = summary.best {
                let error = best.validation_error_percent;
                progress.result(&format!("trial {}: {error:.2} % on the held-out images", summary.index));
            }
            stored = cache.as_ref().map_or(Ok(()), |cache| cache.store(&origin, &known));
        }
        if stored.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let trials = (0..trials, earlier.as_slice());
    let found = supervised::search_from(&task, &Ranges::default(), settings.seed, trials, &mut on_event);
    stored?;
    let found = found?;
    let mut classifier = Classifier::new(model, class_names.len(), &found.weights, &settings.device)?;
    Ok(SupervisedRow {
        validation_error_percent: found.validation_error_percent,
        error_percent: supervised::error_percent(&mut classifier, model, labeled(&tested))?,
        trials: found.trials.len(),
        train: training.1.len(),
        test: tested.1.len(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The result of a method, read from the cache if it has it.
fn classify_cached(
    settings: &Settings,
    grid: &Grid,
    method: &MethodFeatures,
    class_names: &[String],
    learner: &mut dyn Learner,
    progress: &mut dyn Progress,
) -> Result<Outcome, ExperimentError> {
    let origin = json!({
        "format": cache::FORMAT,
        "features": method.identity,
        "protocol": protocol(settings),
        "grid": grid,
        "classes": class_names,
    });
    let cache = settings.cache.as_deref().map(|folder| Cache { folder });
    if let Some(outcome) = cache.as_ref().and_then(|cache| cache.value(&origin)) {
        return Ok(outcome);
    }
    let outcome = classify(settings, grid, method, class_names, learner, progress)?;
    if let Some(cache) = cache {
        cache.store(&origin, &outcome)?;
    }
    Ok(outcome)
}

fn classify(
    settings: &Settings,
    grid: &Grid,
    method: &MethodFeatures,
    class_names: &[String],
    learner: &mut dyn Learner,
    progress: &mut dyn Progress,
) -> Result<Outcome, ExperimentError> {
    let held_out = settings.task.held_out(method.train.labels.len());
    Ok(match settings.labels_per_class {
        None => all::run(held_out, grid, (&method.train, &method.test), class_names, learner, progress)?,
        Some(_) => {
            let (pool, held_out) = method.train.split_last(held_out)?;
            let test = method.test.clone();
            let splits = Splits { pool, held_out, test, class_names: class_names.to_vec() };
            few::run(&few_labels(settings), grid, &splits, learner, progress)?
        }
    })
}
