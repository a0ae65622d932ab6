//! The commands.

pub(crate) mod bench;
pub(crate) mod dedup;
pub(crate) mod features;
pub(crate) mod metrics;
pub(crate) mod neighbours;
pub(crate) mod probe;
pub(crate) mod reproduce;
pub(crate) mod task;

use crate::cli::{ModelArgs, Solver};
use dcgan_cli::{Logging, Progress, UsageError};
use dcgan_data::arguments::ReadArgs;
use dcgan_data::{Dataset, ImageShape, OpenOptions, Split};
use dcgan_features::experiment::{ExperimentError, Subset};
use dcgan_features::file::FileError;
use dcgan_features::learner::{L2Learner, LinfaLearner};
use dcgan_features::protocol::{self, Learner, ProtocolError};
use dcgan_model::weights::Weights;
use dcgan_model::{
    Device, DeviceChoice, Generator, Model, ModelFiles, NetworkError, networks, open, shipped_model,
};
use std::path::Path;
use std::sync::Arc;

/// The model of a command.
struct ChosenModel {
    /// Name in tables.
    name: String,
    /// Source, for error messages.
    path: String,
    files: ModelFiles,
}

/// The discriminator of a command.
struct ChosenDiscriminator {
    name: String,
    model: Model,
    weights: Weights,
}

impl ChosenModel {
    fn shape(&self) -> ImageShape {
        self.files.model.config().image_shape().into()
    }

    fn discriminator(self) -> Result<ChosenDiscriminator, UsageError> {
        let Some(weights) = self.files.discriminator else {
            return Err(UsageError::one(format!(
                "{} has no discriminator, which features are extracted from",
                self.path
            )));
        };
        if self.files.model.config().is_conditional() {
            return Err(UsageError::one(format!("{}: {}", self.path, NetworkError::Conditional)));
        }
        Ok(ChosenDiscriminator { name: self.name, model: self.files.model, weights })
    }
}

impl ChosenDiscriminator {
    fn shape(&self) -> ImageShape {
        self.model.config().image_shape().into()
    }
}

/// The model of `--model`; without it the embedded model for `digits`, or the folder of the task's preset.
fn choose_model(args: &ModelArgs, preset: &str) -> anyhow::Result<ChosenModel> {
    let path = match (&args.model, shipped_model(preset)) {
        (Some(path), _) => path.clone(),
        (None, _) if preset == "digits" && args.preset.is_none() && args.config.is_none() => {
            return Ok(ChosenModel {
                name: "embedded model (digits)".to_owned(),
                path: "the embedded model".to_owned(),
                files: ModelFiles::embedded_digits()?,
            });
        }
        (None, Some(shipped)) => {
            tracing::info!("no --model given: {}", shipped.display());
            shipped
        }
        (None, None) => {
            let fault = format!(
                "no model given and models/{preset} does not exist: name one with --model (a model folder, \
                 a run folder, or a file of another program with --preset {preset})"
            );
            return Err(UsageError::one(fault).into());
        }
    };
    let described = networks(args.preset.as_deref(), args.config.as_deref()).map_err(UsageError::because)?;
    let opened = open(&path, described.as_ref()).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    let file =
        path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
    let name = format!("model {file} ({})", opened.files.model.config().name);
    Ok(ChosenModel { name, path: path.display().to_string(), files: opened.files })
}

/// G of the model at `path`, with batch norm statistics.
fn generator_of(
    files: &ModelFiles,
    path: impl std::fmt::Display,
    device: &Device,
) -> anyhow::Result<Generator> {
    let Some(weights) = &files.generator else {
        let fault = format!("{path} has no generator, which images are drawn from");
        return Err(UsageError::one(fault).into());
    };
    let mut generator = Generator::new(&files.model, weights, device)?;
    if generator.ensure_statistics()? {
        tracing::info!("the weights have no batch norm statistics: recalibrated from 4,096 z");
    }
    Ok(generator)
}

/// Opens a device; logs what `auto` chose.
fn open_device(choice: DeviceChoice) -> Result<Device, UsageError> {
    let device = choice.open().map_err(UsageError::because)?;
    choice.explain(&device).into_iter().for_each(|text| tracing::info!("{text}"));
    Ok(device)
}

/// Training images of the embedded digits; the other 2,000 are test images.
const DIGITS_TRAIN: usize = 8000;

/// The training and test split of the embedded digits, for a command without --data.
fn digits_splits(shape: ImageShape, read: ReadArgs) -> anyhow::Result<(Subset, Subset)> {
    let faults = read.faults_without_data();
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let digits = Arc::new(Dataset::embedded_digits(shape)?);
    tracing::info!("no --data given: the {} embedded digits", digits.len());
    let subset = |rows| Subset::new(digits.clone(), rows);
    Ok((subset(0..DIGITS_TRAIN), subset(DIGITS_TRAIN..digits.len())))
}

/// Opens the dataset at `path`; all images if it has no splits.
fn open_data(path: &Path, options: &OpenOptions) -> Result<Subset, UsageError> {
    Ok(subset_of(Dataset::open(path, options).map_err(UsageError::because)?, path))
}

/// Opens a split of the dataset at `path`, which must have one.
fn open_split(path: &Path, options: &OpenOptions) -> Result<Subset, UsageError> {
    Ok(subset_of(Dataset::open_split(path, options).map_err(UsageError::because)?, path))
}

fn subset_of(data: Dataset, path: &Path) -> Subset {
    if data.is_composited() {
        tracing::info!("{}: {}", path.display(), data.composited_note());
    }
    Subset::whole(data)
}

/// The training and test split of a published dataset; `files` describes its files for messages.
fn open_splits(path: &Path, options: &OpenOptions, files: &str) -> Result<(Subset, Subset), UsageError> {
    let open = |split| open_data(path, &OpenOptions { split, ..options.clone() });
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    if train.sha256() == test.sha256() {
        return Err(UsageError::one(format!(
            "--data {} has no test images of its own: give {files}; for other data use \
             `dcgan-eval features` and `dcgan-eval probe`",
            path.display()
        )));
    }
    tracing::info!(
        "{} training and {} test images from {}",
        train.rows.len(),
        test.rows.len(),
        path.display()
    );
    Ok((train, test))
}

/// Refuses a `--cache` that is not a folder.
fn check_cache(cache: Option<&Path>) -> Result<(), UsageError> {
    match cache.filter(|folder| !folder.is_dir()) {
        Some(folder) => {
            Err(UsageError::one(format!("--cache {}: the folder does not exist", folder.display())))
        }
        None => Ok(()),
    }
}

/// The user's values of C, ascending.
fn check_grid(values: &[f64], faults: &mut Vec<String>) -> Option<Vec<f64>> {
    for c in values.iter().filter(|c| !(1e-12..=1e12).contains(*c)) {
        faults.push(format!("--c is {c}, expected values from 1e-12 to 1e12, such as --c 1e-4,1e-3,1e-2"));
    }
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.dedup();
    (!values.is_empty()).then_some(values)
}

fn learner(solver: Solver) -> (Box<dyn Learner>, &'static str) {
    match solver {
        Solver::L2 => (Box::new(L2Learner::default()), "l2"),
        Solver::Linfa => (Box::new(LinfaLearner), "linfa"),
    }
}

/// Invalid data and labels are usage errors (exit code 2); failures of a network or a disk are not.
fn into_usage_error(error: ExperimentError) -> anyhow::Error {
    use dcgan_features::extract::ExtractError;
    match error {
        ExperimentError::File(FileError::Io { .. }) => error.into(),
        ExperimentError::Protocol(ProtocolError::ShortClass { .. } | ProtocolError::TooFew { .. }) => {
            UsageError::one(format!("{error}: give more data")).into()
        }
        ExperimentError::Protocol(_) | ExperimentError::NoLabels { .. } | ExperimentError::File(_) => {
            UsageError::because(error).into()
        }
        ExperimentError::Extract(ExtractError::Features(_) | ExtractError::Data(_)) => {
            UsageError::because(error).into()
        }
        ExperimentError::Extract(_) | ExperimentError::Supervised(_) => error.into(),
    }
}

/// Accuracy by class index, without classes that have no test images.
fn per_class(accuracy: &[Option<f64>]) -> serde_json::Value {
    let classes =
        accuracy.iter().enumerate().filter_map(|(class, value)| Some((class.to_string(), (*value)?.into())));
    serde_json::Value::Object(classes.collect())
}

/// Shows stages as log lines and progress bars.
struct ProgressBars<'a> {
    logging: &'a Logging,
    current: Option<Progress>,
}

impl<'a> ProgressBars<'a> {
    fn new(logging: &'a Logging) -> Self {
        Self { logging, current: None }
    }
}

impl protocol::Progress for ProgressBars<'_> {
    fn begin(&mut self, stage: &str, total: usize, unit: &str) {
        self.current = None; // ends the previous bar
        tracing::info!("{stage}");
        self.current = (total > 1).then(|| Progress::new(self.logging, total as u64, unit));
    }

    fn update(&mut self, units: usize) {
        if let Some(progress) = &self.current {
            progress.set(units as u64);
        }
    }

    fn result(&mut self, line: &str) {
        tracing::info!("{line}");
    }
}
