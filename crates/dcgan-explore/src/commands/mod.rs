//! The commands, and what they share: opening models and datasets, checking options, generating images.

pub(crate) mod ablate;
pub(crate) mod arithmetic;
pub(crate) mod concept;
mod faults;
mod features;
pub(crate) mod guided;
pub(crate) mod interpolate;
pub(crate) mod invert;
pub(crate) mod maxact;
pub(crate) mod neighbours;
pub(crate) mod sample;
pub(crate) mod turn;

use crate::cli::{ClassArgs, ComputeArgs, DataArgs, ModelArgs};
use dcgan_cli::{Logging, Progress, UsageError, set_threads};
use dcgan_data::{Dataset, ImageShape, OpenOptions};
use dcgan_explore::latent::{LatentSet, LatentSpec, concat};
use dcgan_model::weights::Weights;
use dcgan_model::{
    Classes, Discriminator, Generator, LatentConfig, Model, ModelFiles, networks, open as open_model, pixels,
    shipped_model,
};
use dcgan_ops::{BufferPool, Device, OpsError};
use rayon::prelude::*;
use std::path::Path;

pub(crate) use faults::{Faults, InputFiles};

/// The default model, if it is there.
const DEFAULT_MODEL: &str = "faces64";
/// The default model of commands that name a class.
const CONDITIONAL_MODEL: &str = "mnist-cond";
/// Maximum number of real images to recalibrate D's batch norm from.
const STATISTICS_IMAGES: usize = 4096;
/// Samples to recalibrate D's batch norm from.
const STATISTICS_SAMPLES: usize = 1024;
/// Batch size of the recalibration.
const STATISTICS_BATCH: usize = 128;

/// An opened model.
#[derive(Debug)]
pub(crate) struct OpenedModel {
    /// Its name in messages.
    pub(crate) name: String,
    /// Configuration and weights of the networks.
    pub(crate) files: ModelFiles,
    /// The device to compute on.
    pub(crate) device: Device,
}

/// Images to recalibrate D's batch norm from, if the weights have no statistics.
#[derive(Debug)]
pub(crate) enum RecalibrateFrom<'a> {
    /// Real images, as in the authors' code.
    Data(&'a Dataset),
    /// Samples, which D was also trained on. Always those of seed 0, so that the score of an image does not depend on
    /// other images.
    Samples(&'a mut Generator),
}

/// Sets the number of threads, opens the device and the model, and logs which model is the default. None if `faults`
/// has the reason.
pub(crate) fn open(
    model: &ModelArgs,
    compute: &ComputeArgs,
    faults: &mut Faults,
) -> anyhow::Result<Option<OpenedModel>> {
    open_or(DEFAULT_MODEL, model, compute, faults)
}

/// [`open`] for a command whose z may have classes: the default is a conditional model if `class` or one of `specs`
/// names a class, or a file of z has classes.
pub(crate) fn open_with_classes(
    model: &ModelArgs,
    (class, specs): (&ClassArgs, &[&[String]]),
    compute: &ComputeArgs,
    faults: &mut Faults,
) -> anyhow::Result<Option<OpenedModel>> {
    let of_class = |spec: &String| match spec.parse() {
        Ok(LatentSpec::OfClass { .. }) => true,
        Ok(LatentSpec::File { path, .. }) => LatentSet::read(&path).is_ok_and(|z| z.classes() > 0),
        _ => false,
    };
    let names_class = class.class.is_some() || specs.iter().copied().flatten().any(of_class);
    let default = if names_class { CONDITIONAL_MODEL } else { DEFAULT_MODEL };
    open_or(default, model, compute, faults)
}

fn open_or(
    default: &str,
    model: &ModelArgs,
    compute: &ComputeArgs,
    faults: &mut Faults,
) -> anyhow::Result<Option<OpenedModel>> {
    faults.collect(set_threads(compute.threads))?;
    // After a fault the fallback is not used to compute.
    let device = faults.ok_or_record("--device", compute.device.open()).unwrap_or(Device::Cpu);
    compute.device.explain(&device).into_iter().for_each(|text| tracing::info!("{text}"));
    let files = faults.collect(open_files(model, default))?;
    Ok(files.map(|(name, files)| OpenedModel { name, files, device }))
}

/// The name and the files of a model.
fn open_files(model: &ModelArgs, default: &str) -> anyhow::Result<(String, ModelFiles)> {
    let path = match (&model.model, shipped_model(default)) {
        (Some(path), _) => path.clone(),
        _ if model.preset.is_some() || model.config.is_some() => {
            let fault = "--preset and --config describe the networks of a file: name it with --model";
            return Err(UsageError::one(fault).into());
        }
        (None, Some(path)) => {
            tracing::info!("no --model given: {}", path.display());
            path
        }
        (None, None) if default == CONDITIONAL_MODEL => {
            let fault = format!("models/{default} does not exist: name a conditional model with --model");
            return Err(UsageError::one(fault).into());
        }
        (None, None) => {
            tracing::info!(
                "no --model given and no folder models/{DEFAULT_MODEL}: the embedded digits model"
            );
            return Ok(("the embedded digits model".to_owned(), ModelFiles::embedded_digits()?));
        }
    };
    let configured =
        networks(model.preset.as_deref(), model.config.as_deref()).map_err(UsageError::because)?;
    let opened = open_model(&path, configured.as_ref()).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    Ok((path.display().to_string(), opened.files))
}

/// The dataset for `model`; without a model only its path is checked. None if `faults` has the reason.
pub(crate) fn open_data(
    model: Option<&OpenedModel>,
    args: &DataArgs,
    faults: &mut Faults,
) -> anyhow::Result<Option<Dataset>> {
    if let Some(model) = model {
        return faults.collect(model.data(args));
    }
    if let Some(path) = &args.data {
        faults.check(dcgan_data::is_remote(path) || path.exists(), || {
            format!("--data {} does not exist", path.display())
        });
    }
    Ok(None)
}

/// The classes of `--class`: of z that name none.
pub(crate) fn classes(model: Option<&OpenedModel>, args: &ClassArgs, faults: &mut Faults) -> Classes {
    let Some((model, class)) = model.zip(args.class.as_ref()) else { return Classes::InTurn };
    let class = model.model().config().class_of(class).map_err(|message| format!("--class: {message}"));
    class.map_or_else(
        |fault| {
            faults.check(false, || fault);
            Classes::InTurn
        },
        Classes::One,
    )
}

/// A set of z for each of `specs`; without a model only their syntax is checked. `classes` are those of z that name
/// none. Faults name `option`.
pub(crate) fn latent_sets(
    model: Option<&OpenedModel>,
    option: &str,
    specs: &[String],
    classes: Classes,
    faults: &mut Faults,
) -> Vec<LatentSet> {
    let mut sets = Vec::new();
    for spec in specs {
        let option = format!("{option} {spec}");
        let parsed = faults.ok_or_record(&option, spec.parse::<LatentSpec>());
        if let (Some(parsed), Some(model)) = (parsed, model) {
            sets.extend(faults.ok_or_record(&option, parsed.resolve(model.model().config(), classes)));
        }
    }
    sets
}

/// The z of all specs of `--z`, by default those of the first `n` samples of `seed`, with `classes` where none is
/// named. None if `faults` has the reason.
pub(crate) fn latents(
    model: Option<&OpenedModel>,
    specs: &[String],
    (seed, n, classes): (u64, usize, Classes),
    faults: &mut Faults,
) -> Option<LatentSet> {
    let sets = latent_sets(model, "--z", specs, classes, faults);
    let model = model?;
    if specs.is_empty() {
        faults.check_bytes("--n", n, model.sample_bytes());
        // After a fault z are not used; `n` may be invalid.
        let config = model.model().config();
        return if faults.is_empty() { LatentSet::draw(seed, n, config, classes).ok() } else { None };
    }
    let all = if sets.len() == specs.len() { faults.ok_or_record("--z", concat(&sets)) } else { None };
    if let Some(z) = &all {
        faults.check_bytes("--z", z.len(), model.sample_bytes());
    }
    all
}

impl OpenedModel {
    pub(crate) fn model(&self) -> &Model {
        &self.files.model
    }

    pub(crate) fn shape(&self) -> ImageShape {
        self.model().config().image_shape().into()
    }

    pub(crate) fn latent(&self) -> &LatentConfig {
        &self.model().config().latent
    }

    /// Bytes of a sample and its z.
    pub(crate) fn sample_bytes(&self) -> usize {
        self.shape().bytes() + size_of::<f32>() * (self.latent().size + self.model().config().classes)
    }

    /// Records a conditional model, whose networks read class labels; `purpose` is what has none.
    pub(crate) fn check_unconditional(&self, purpose: &str, faults: &mut Faults) {
        faults.check(!self.model().config().is_conditional(), || {
            format!("{} is conditional; for {purpose} expected a model without classes", self.name)
        });
    }

    /// Records a missing generator.
    pub(crate) fn check_generator(&self, faults: &mut Faults) {
        faults.record(self.generator_weights());
    }

    /// Records a missing discriminator, and one that reads class labels; `purpose` as in
    /// [`OpenedModel::discriminator_weights`].
    pub(crate) fn check_discriminator(&self, purpose: &str, faults: &mut Faults) {
        self.check_unconditional(purpose, faults);
        faults.record(self.discriminator_weights(purpose));
    }

    /// G's weights as stored.
    fn generator_weights(&self) -> Result<&Weights, UsageError> {
        self.files.generator.as_ref().ok_or_else(|| {
            let name = &self.name;
            UsageError::one(format!(
                "{name} has no generator, expected one to draw samples: name a model with a generator"
            ))
        })
    }

    /// G with batch norm statistics, recalibrated if the weights have none.
    pub(crate) fn generator(&self) -> anyhow::Result<Generator> {
        let mut generator = Generator::new(self.model(), self.generator_weights()?, &self.device)?;
        if generator.ensure_statistics()? {
            tracing::info!("the generator has no batch norm statistics: recalibrated from 4,096 z");
        }
        Ok(generator)
    }

    /// D's weights as stored. `purpose` is what they are needed for, for the message if there are none.
    pub(crate) fn discriminator_weights(&self, purpose: &str) -> Result<&Weights, UsageError> {
        self.files.discriminator.as_ref().ok_or_else(|| {
            UsageError::one(format!(
                "{} has no discriminator, expected one for {purpose}: name a model with a discriminator",
                self.name
            ))
        })
    }

    /// D with batch norm statistics, recalibrated from `images` if the weights have none. `purpose` as in
    /// [`OpenedModel::discriminator_weights`].
    pub(crate) fn discriminator(
        &self,
        purpose: &str,
        images: RecalibrateFrom<'_>,
    ) -> anyhow::Result<Discriminator> {
        let weights = self.discriminator_weights(purpose)?;
        let mut discriminator = Discriminator::new(self.model(), weights, &self.device)?;
        if discriminator.network().running_stats().is_some() {
            return Ok(discriminator);
        }
        let config = self.model().config();
        let pool = BufferPool::new();
        let maps = |bytes: &[u8]| pixels::to_maps(bytes, config, &pool);
        let note = "the discriminator has no batch norm statistics: recalibrated from";
        match images {
            RecalibrateFrom::Samples(generator) => {
                tracing::info!("{note} {STATISTICS_SAMPLES} samples of seed 0");
                let bytes = generator.draw(0, STATISTICS_SAMPLES)?;
                let batches = bytes.chunks(STATISTICS_BATCH * self.shape().bytes());
                discriminator
                    .network_mut()
                    .recalibrate(batches.map(|batch| Ok::<_, OpsError>((maps(batch)?, None))))?;
            }
            RecalibrateFrom::Data(data) => {
                let rows = evenly_spaced(data.len(), whole_batches(data.len().min(STATISTICS_IMAGES)));
                tracing::info!("{note} {} images, evenly spaced", rows.len());
                let batches = rows
                    .chunks(STATISTICS_BATCH)
                    .map(|rows| -> anyhow::Result<_> { Ok((maps(&read_images(data, rows)?)?, None)) });
                discriminator.network_mut().recalibrate(batches)?;
            }
        }
        Ok(discriminator)
    }

    /// The dataset of `--data`, by default the embedded digits if their shape is the model's.
    pub(crate) fn data(&self, args: &DataArgs) -> anyhow::Result<Dataset> {
        let shape = self.shape();
        match &args.data {
            Some(path) => {
                let options =
                    OpenOptions { crop: args.crop, split: args.split(), ..args.read.options(shape) };
                let data = Dataset::open_split(path, &options).map_err(UsageError::because)?;
                for skipped in &data.report().skipped {
                    tracing::warn!("skipped: {skipped}");
                }
                if data.is_composited() {
                    tracing::info!("{}", data.composited_note());
                }
                Ok(data)
            }
            None if !args.read.faults_without_data().is_empty() => {
                Err(UsageError { faults: args.read.faults_without_data() }.into())
            }
            None if shape == (ImageShape { height: 28, width: 28, channels: 1 }) && args.crop.is_none() => {
                let digits = Dataset::embedded_digits(shape)?;
                tracing::info!("no --data given: the {} embedded digits", digits.len());
                Ok(digits)
            }
            None => {
                let fault = format!(
                    "no data given: name the images that {} was trained on with --data (a folder, a zip, or \
                     the original files of a dataset)",
                    self.name
                );
                Err(UsageError::one(fault).into())
            }
        }
    }
}

/// The largest multiple of the batch size up to `n`: a short last batch would get the weight of a whole one. `n` if it
/// is less than a batch.
fn whole_batches(n: usize) -> usize {
    if n < STATISTICS_BATCH { n } else { n - n % STATISTICS_BATCH }
}

/// `n` indices below `len`, evenly spaced from 0; all indices if `n` is larger.
pub(crate) fn evenly_spaced(len: usize, n: usize) -> Vec<usize> {
    let n = n.min(len);
    (0..n).map(|i| i * len / n).collect()
}

/// The images `rows` of `data`, u8 `(n, h, w, c)`. An image that cannot be read is a usage error.
pub(crate) fn read_images(data: &Dataset, rows: &[usize]) -> anyhow::Result<Vec<u8>> {
    let len = data.shape().bytes();
    let mut bytes = vec![0; rows.len() * len];
    rows.par_iter()
        .zip(bytes.par_chunks_mut(len))
        .try_for_each(|(row, into)| data.read(*row, into))
        .map_err(UsageError::because)?;
    Ok(bytes)
}

/// The images of `z`, u8 `(n, h, w, c)`, with progress.
pub(crate) fn generate(
    generator: &mut Generator,
    z: &LatentSet,
    logging: &Logging,
) -> anyhow::Result<Vec<u8>> {
    let progress = Progress::new(logging, z.len() as u64, "images");
    Ok(z.images(generator, &mut |done| progress.set(done as u64))?)
}

/// Writes z to `path`, if it is given.
pub(crate) fn save_z(path: Option<&Path>, z: &LatentSet) -> anyhow::Result<()> {
    Ok(path.map_or(Ok(()), |path| z.write(path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_of_whole_batches() {
        for (n, expected) in [(1, 1), (127, 127), (128, 128), (130, 128), (300, 256), (4096, 4096)] {
            assert_eq!(whole_batches(n), expected);
        }
    }
}
