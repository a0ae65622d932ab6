//! What each command does.

pub(crate) mod bench;
pub(crate) mod features;
pub(crate) mod neighbours;
pub(crate) mod probe;
pub(crate) mod reproduce;
pub(crate) mod task;

use crate::cli::{Dtype, ModelArgs, Solver};
use dcgan_cli::{Logging, Progress, UsageError};
use dcgan_data::{Dataset, ImageShape, OpenOptions, Split, UnreadableImages};
use dcgan_features::experiment::{ExperimentError, Part};
use dcgan_features::features::Storage;
use dcgan_features::file::FileError;
use dcgan_features::learner::{L2Learner, LinfaLearner};
use dcgan_features::protocol::{Learner, Watch};
use dcgan_model::weights::Weights;
use dcgan_model::{Model, ModelFiles, networks, open};
use std::path::Path;
use std::sync::Arc;

/// A model to measure.
struct Chosen {
    /// For the table.
    name: String,
    /// Where it came from, for errors.
    path: String,
    files: ModelFiles,
}

/// A discriminator to take features from.
struct ChosenDiscriminator {
    name: String,
    model: Model,
    weights: Weights,
}

impl Chosen {
    fn shape(&self) -> ImageShape {
        self.files.model.config().image_shape().into()
    }

    fn discriminator(self) -> Result<ChosenDiscriminator, UsageError> {
        let Some(weights) = self.files.discriminator else {
            return Err(UsageError::one(format!(
                "{} has no discriminator; features come from one",
                self.path
            )));
        };
        Ok(ChosenDiscriminator { name: self.name, model: self.files.model, weights })
    }
}

impl ChosenDiscriminator {
    fn shape(&self) -> ImageShape {
        self.model.config().image_shape().into()
    }
}

/// The model of `--model`, else the embedded one for `digits`, else the folder of the task's preset.
fn choose_model(args: &ModelArgs, preset: &str) -> anyhow::Result<Chosen> {
    let default = Path::new("models").join(preset);
    let path = match &args.model {
        Some(path) => path.clone(),
        None if preset == "digits" && args.preset.is_none() && args.config.is_none() => {
            return Ok(Chosen {
                name: "embedded model (digits)".to_owned(),
                path: "the embedded model".to_owned(),
                files: ModelFiles::embedded_digits()?,
            });
        }
        None if default.join("config.json").exists() => default,
        None => {
            let fault = format!(
                "no model given and {} does not exist: name one with --model (a model folder, a run folder, or weights from elsewhere with --preset {preset})",
                default.display()
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
    Ok(Chosen { name, path: path.display().to_string(), files: opened.files })
}

/// What `--skip-bad` means.
fn on_bad(skip_bad: bool) -> UnreadableImages {
    if skip_bad { UnreadableImages::Skip } else { UnreadableImages::Fail }
}

/// Embedded digits that are trained on; the other 2,000 are tested on.
const DIGITS_TRAIN: usize = 8000;

/// Training and test images among the embedded digits.
fn digits_parts(shape: ImageShape) -> anyhow::Result<(Part, Part)> {
    let digits = Arc::new(Dataset::embedded_digits(shape)?);
    tracing::info!("no --data given: the {} embedded digits", digits.len());
    let part = |rows| Part { data: digits.clone(), rows };
    Ok((part(0..DIGITS_TRAIN), part(DIGITS_TRAIN..digits.len())))
}

/// Training and test images of a publisher's dataset; `files` says what it is made of.
fn open_parts(
    path: &Path,
    shape: ImageShape,
    files: &str,
    on_bad: UnreadableImages,
) -> Result<(Part, Part), UsageError> {
    let open = |split| {
        let options = OpenOptions { split, unreadable_images: on_bad, ..OpenOptions::new(shape) };
        Dataset::open(path, &options).map(Part::whole).map_err(UsageError::because)
    };
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    if train.sha256() == test.sha256() {
        return Err(UsageError::one(format!(
            "--data {} has no test images of its own: give {files}; other data goes through `dcgan-eval features` and `dcgan-eval probe`",
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

/// The user's values of C, ascending.
fn check_grid(values: &[f64], faults: &mut Vec<String>) -> Option<Vec<f64>> {
    for c in values.iter().filter(|c| !(1e-12..=1e12).contains(*c)) {
        faults.push(format!("--c {c}: C must be greater than 0, 1e-12 to 1e12"));
    }
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.dedup();
    (!values.is_empty()).then_some(values)
}

fn storage(dtype: Dtype) -> Storage {
    match dtype {
        Dtype::F32 => Storage::F32,
        Dtype::Bf16 => Storage::Bf16,
    }
}

fn learner(solver: Solver) -> (Box<dyn Learner>, &'static str) {
    match solver {
        Solver::L2 => (Box::new(L2Learner::default()), "l2"),
        Solver::Linfa => (Box::new(LinfaLearner), "linfa"),
    }
}

/// Data and labels that cannot be used are the user's to mend: exit code 2. A network or a disk that fails is not.
fn explain(error: ExperimentError) -> anyhow::Error {
    use dcgan_features::extract::ExtractError;
    match error {
        ExperimentError::File(FileError::Io { .. }) => error.into(),
        ExperimentError::Protocol(_) | ExperimentError::NoLabels { .. } | ExperimentError::File(_) => {
            UsageError::because(error).into()
        }
        ExperimentError::Extract(ExtractError::Features(_) | ExtractError::Data(_)) => {
            UsageError::because(error).into()
        }
        ExperimentError::Extract(_) | ExperimentError::Supervised(_) => error.into(),
    }
}

/// Accuracy by class number, classes that were not tested left out.
fn per_class(accuracy: &[Option<f64>]) -> serde_json::Value {
    let classes =
        accuracy.iter().enumerate().filter_map(|(class, value)| Some((class.to_string(), (*value)?.into())));
    serde_json::Value::Object(classes.collect())
}

/// Stages as log lines and progress bars.
struct Bars<'a> {
    logging: &'a Logging,
    current: Option<Progress>,
}

impl<'a> Bars<'a> {
    fn new(logging: &'a Logging) -> Self {
        Self { logging, current: None }
    }
}

impl Watch for Bars<'_> {
    fn begin(&mut self, what: &str, total: usize, unit: &str) {
        self.current = None; // the bar before ends first
        tracing::info!("{what}");
        self.current = (total > 1).then(|| Progress::new(self.logging, total as u64, unit));
    }

    fn done(&mut self, units: usize) {
        if let Some(progress) = &self.current {
            progress.set(units as u64);
        }
    }
}
