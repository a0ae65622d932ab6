//! What each command does, and what they share: opening models and data, checking options, drawing.

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

use crate::cli::{ComputeArgs, DataArgs, ModelArgs};
use candle_core::{Device, Tensor};
use dcgan_cli::{Logging, Progress, UsageError, set_threads};
use dcgan_data::{Dataset, ImageShape, OpenOptions, UnreadableImages};
use dcgan_explore::latent::{Latents, Spec, joined};
use dcgan_model::weights::Weights;
use dcgan_model::{
    Discriminator, Generator, LatentConfig, Model, ModelFiles, NetworkError, draw as draw_samples,
    ensure_statistics, networks, open as open_model, pixels,
};
use rayon::prelude::*;
use std::path::Path;

pub(crate) use faults::{Faults, Inputs};

/// The model that is looked at where none is named.
const DEFAULT_MODEL: &str = "models/faces64";
/// Images at most that D's batch-norm statistics are recalibrated from, samples, and those of a batch.
const STATISTICS_IMAGES: usize = 4096;
const STATISTICS_SAMPLES: usize = 1024;
const STATISTICS_BATCH: usize = 128;

/// A model to look into.
#[derive(Debug)]
pub(crate) struct Opened {
    /// For messages.
    pub(crate) name: String,
    /// The networks, as data and weights.
    pub(crate) files: ModelFiles,
    /// Where to compute.
    pub(crate) device: Device,
}

/// Images that D's batch-norm statistics come from where the weights brought none.
#[derive(Debug)]
pub(crate) enum Typical<'a> {
    /// Real ones, as the authors do.
    Data(&'a Dataset),
    /// Samples, which D saw in half of its training passes: always those of seed 0, so that a score is the same whatever else
    /// is scored.
    Samples(&'a mut Generator),
}

/// Sets the number of threads, opens the device and the model, and says which model it is where none was named.
pub(crate) fn open(model: &ModelArgs, compute: &ComputeArgs) -> anyhow::Result<Opened> {
    set_threads(compute.threads)?;
    let device = compute.device.open().map_err(UsageError::because)?;
    let default = Path::new(DEFAULT_MODEL);
    let path = match &model.model {
        Some(path) => path.as_path(),
        None if model.preset.is_some() || model.config.is_some() => {
            let fault = "--preset and --config describe the networks of a file: name it with --model";
            return Err(UsageError::one(fault).into());
        }
        None if default.join("config.json").exists() => {
            tracing::info!("no --model given: {DEFAULT_MODEL}");
            default
        }
        None => {
            tracing::info!("no --model given and no folder {DEFAULT_MODEL}: the embedded digits model");
            let name = "the embedded digits model".to_owned();
            return Ok(Opened { name, files: ModelFiles::embedded_digits()?, device });
        }
    };
    let described =
        networks(model.preset.as_deref(), model.config.as_deref()).map_err(UsageError::because)?;
    let opened = open_model(path, described.as_ref()).map_err(UsageError::because)?;
    opened.notes.iter().for_each(|note| tracing::info!("{note}"));
    Ok(Opened { name: path.display().to_string(), files: opened.files, device })
}

impl Opened {
    pub(crate) fn model(&self) -> &Model {
        &self.files.model
    }

    pub(crate) fn shape(&self) -> ImageShape {
        self.model().config().image_shape().into()
    }

    pub(crate) fn latent(&self) -> &LatentConfig {
        &self.model().config().latent
    }

    /// G with batch-norm statistics, recalibrated where the weights brought none.
    pub(crate) fn generator(&self) -> anyhow::Result<Generator> {
        let Some(weights) = &self.files.generator else {
            return Err(
                UsageError::one(format!("{} has no generator; samples come from one", self.name)).into()
            );
        };
        let mut generator = Generator::new(self.model(), weights, &self.device)?;
        if ensure_statistics(&mut generator, self.model(), &self.device)? {
            tracing::info!("the weights came without batch-norm statistics: recalibrated from 4,096 z");
        }
        Ok(generator)
    }

    /// D's weights as they were read.
    pub(crate) fn discriminator_weights(&self, needed_for: &str) -> Result<&Weights, UsageError> {
        self.files.discriminator.as_ref().ok_or_else(|| {
            UsageError::one(format!("{} has no discriminator; {needed_for} comes from one", self.name))
        })
    }

    /// D with batch-norm statistics, recalibrated from `typical` images where the weights brought none. `needed_for` says what
    /// comes from D, for the message where there is none.
    pub(crate) fn discriminator(
        &self,
        needed_for: &str,
        typical: Typical<'_>,
    ) -> anyhow::Result<Discriminator> {
        let weights = self.discriminator_weights(needed_for)?;
        let mut discriminator = Discriminator::new(self.model(), weights, &self.device)?;
        if discriminator.0.statistics().is_some() {
            return Ok(discriminator);
        }
        let config = self.model().config();
        let tensor = |bytes: &[u8]| pixels::to_tensor(bytes, config, &self.device);
        let note = "the discriminator came without batch-norm statistics: recalibrated from";
        match typical {
            Typical::Samples(generator) => {
                tracing::info!("{note} {STATISTICS_SAMPLES} samples of seed 0");
                let bytes = draw_samples(generator, self.model(), 0, STATISTICS_SAMPLES)?;
                let batches = bytes.chunks(STATISTICS_BATCH * self.shape().bytes());
                discriminator.0.recalibrate(batches.map(|batch| Ok::<_, NetworkError>(tensor(batch)?)))?;
            }
            Typical::Data(data) => {
                let rows = spread(data.len(), whole_batches(data.len().min(STATISTICS_IMAGES)));
                tracing::info!("{note} {} images, evenly spaced", rows.len());
                let batches = rows
                    .chunks(STATISTICS_BATCH)
                    .map(|rows| -> anyhow::Result<Tensor> { Ok(tensor(&read_rows(data, rows)?)?) });
                // `recalibrate` wants an error that a network's error becomes: anyhow's is one.
                discriminator.0.recalibrate(batches)?;
            }
        }
        Ok(discriminator)
    }

    /// The images of `--data`; the embedded digits where none are named and the model draws images like them.
    pub(crate) fn data(&self, args: &DataArgs) -> anyhow::Result<Dataset> {
        let shape = self.shape();
        let unreadable_images = if args.skip_bad { UnreadableImages::Skip } else { UnreadableImages::Fail };
        let options = OpenOptions { crop: args.crop, unreadable_images, ..OpenOptions::new(shape) };
        match &args.data {
            Some(path) => {
                let data = Dataset::open(path, &options).map_err(UsageError::because)?;
                for skipped in &data.report().skipped {
                    tracing::warn!("left out: {skipped}");
                }
                Ok(data)
            }
            None if shape == (ImageShape { height: 28, width: 28, channels: 1 }) && args.crop.is_none() => {
                let digits = Dataset::embedded_digits(shape)?;
                tracing::info!("no --data given: the {} embedded digits", digits.len());
                Ok(digits)
            }
            None => {
                let fault = format!(
                    "no data given: name the images that {} was trained on with --data (a folder, a zip, or a publisher's files)",
                    self.name
                );
                Err(UsageError::one(fault).into())
            }
        }
    }

    /// The z that `specs` name, one set each; `option` for messages.
    pub(crate) fn concepts(&self, option: &str, specs: &[String], faults: &mut Faults) -> Vec<Latents> {
        let one =
            |spec: &String| faults.take(&format!("{option} {spec}"), Spec::latents(spec, self.latent()));
        specs.iter().filter_map(one).collect()
    }

    /// The z that `specs` name all together, or the first `n` of `seed` where there are none.
    pub(crate) fn latents(&self, specs: &[String], seed: u64, n: usize) -> anyhow::Result<Latents> {
        if specs.is_empty() {
            return Ok(Latents::draw(seed, n, self.latent()).map_err(UsageError::because)?);
        }
        let mut faults = Faults::default();
        let sets = self.concepts("--z", specs, &mut faults);
        faults.end()?;
        Ok(joined(&sets).map_err(UsageError::because)?)
    }
}

/// As many of `n` images as make whole batches: a short last one would weigh as much as the others. All where there is none.
fn whole_batches(n: usize) -> usize {
    if n < STATISTICS_BATCH { n } else { n - n % STATISTICS_BATCH }
}

/// `n` numbers below `len`, evenly spaced from 0; all of them where there are no more.
pub(crate) fn spread(len: usize, n: usize) -> Vec<usize> {
    let n = n.min(len);
    (0..n).map(|i| i * len / n).collect()
}

/// Images of `data` by number, u8 `(n, h, w, c)`. One that cannot be read is the user's to mend.
pub(crate) fn read_rows(data: &Dataset, rows: &[usize]) -> anyhow::Result<Vec<u8>> {
    let len = data.shape().bytes();
    let mut bytes = vec![0; rows.len() * len];
    rows.par_iter()
        .zip(bytes.par_chunks_mut(len))
        .try_for_each(|(row, into)| data.read(*row, into))
        .map_err(UsageError::because)?;
    Ok(bytes)
}

/// The images of `z`, u8 `(n, h, w, c)`, with progress.
pub(crate) fn draw(
    generator: &mut Generator,
    model: &Model,
    z: &Latents,
    logging: &Logging,
) -> anyhow::Result<Vec<u8>> {
    let progress = Progress::new(logging, z.len() as u64, "images");
    Ok(z.images(generator, model, &mut |done| progress.set(done as u64))?)
}

/// Writes z where a file was named for them.
pub(crate) fn save_z(path: Option<&Path>, z: &Latents) -> anyhow::Result<()> {
    Ok(path.map_or(Ok(()), |path| z.write(path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_come_from_whole_batches() {
        for (n, expected) in [(1, 1), (127, 127), (128, 128), (130, 128), (300, 256), (4096, 4096)] {
            assert_eq!(whole_batches(n), expected);
        }
    }
}
