//! Inception features of a dataset or of samples of a generator, for the metrics of dcgan-metrics.

use std::ops::Range;

use crate::experiment::{config_sha256, weights_sha256};
use crate::protocol::Progress;
use dcgan_base::digest::Digest;
use dcgan_data::{DataError, Dataset};
use dcgan_metrics::{BATCH, Convention, FEATURES, FeatureFile, Image, Inception, MetricsError};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Classes, Generator, NetworkError};
use rayon::prelude::*;
use std::path::Path;
use std::time::Duration;

/// Images drawn at once.
const DRAWN: usize = 64;

/// Time between two looks at a file that another process writes.
const WAIT: Duration = Duration::from_secs(1);

/// Why features were not computed.
#[derive(Debug, thiserror::Error)]
pub enum InceptionError {
    /// An image cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Samples cannot be drawn.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The Inception network, or its features.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Where images come from.
#[derive(Debug)]
pub enum Images<'a> {
    /// Images as they are stored: of any sizes, neither resized nor cropped.
    Dataset(&'a Dataset),
    /// Samples 0, 1, 2 and so on of a seed, classes in turn.
    Samples {
        /// G, with batch norm statistics.
        generator: &'a mut Generator,
        /// The seed.
        seed: u64,
    },
}

/// An image, u8 `(height, width, channels)`.
struct Decoded {
    pixels: Vec<u8>,
    height: usize,
    width: usize,
    channels: usize,
}

impl Decoded {
    fn image(&self) -> Image<'_> {
        let Self { pixels, height, width, channels } = self;
        Image { pixels, height: *height, width: *width, channels: *channels }
    }
}

impl Images<'_> {
    /// What the features depend on, but for the network.
    fn digest(&self, digest: &mut Digest) -> Result<(), InceptionError> {
        match self {
            Self::Dataset(data) => digest.field("dataset").field(data.cache_key()),
            Self::Samples { generator, seed } => digest
                .field("samples")
                .field(config_sha256(generator.model()))
                .field(weights_sha256(&generator.weights()?))
                .number(*seed),
        };
        Ok(())
    }

    /// Images `range` of those chosen. Of a dataset they are `chosen`, or all.
    fn read(
        &mut self,
        range: Range<usize>,
        chosen: Option<&[usize]>,
    ) -> Result<Vec<Decoded>, InceptionError> {
        match self {
            Self::Dataset(data) => range
                .into_par_iter()
                .map(|at| {
                    let index = chosen.map_or(at, |chosen| chosen[at]);
                    let (pixels, height, width) = data.read_stored(index)?;
                    Ok(Decoded { pixels, height, width, channels: 3 })
                })
                .collect(),
            Self::Samples { generator, seed } => {
                let (height, width, channels) = generator.model().config().image_shape();
                let bytes = generator.draw_range(*seed, range, Classes::InTurn)?;
                let image = |pixels: &[u8]| Decoded { pixels: pixels.to_vec(), height, width, channels };
                Ok(bytes.chunks_exact(height * width * channels).map(image).collect())
            }
        }
    }
}

/// Features `(n, 2048)` of `n` images: of a dataset with more, `n` are drawn, since its order may be that of classes;
/// of samples, the first. With a `cache` folder they are kept there: an extraction that was interrupted resumes, and
/// one that is complete is read. `weights` is the hash of the Inception weights.
///
/// # Errors
/// [`InceptionError`].
pub fn features(
    images: &mut Images<'_>,
    n: usize,
    (inception, weights): (&mut Inception, &str),
    convention: Convention,
    cache: Option<&Path>,
    progress: &mut dyn Progress,
) -> Result<Vec<f32>, InceptionError> {
    let mut digest = Digest::default();
    digest.field("inception features").field(weights).field(convention.of_features().name());
    images.digest(&mut digest)?;
    let drawn = match images {
        Images::Dataset(data) if n < data.len() => {
            digest.field("drawn").number(n as u64);
            Some(drawn(data.len(), n))
        }
        _ => None,
    };
    let mut file = cache.and_then(|folder| open_file(folder, &digest.hex()));
    let mut all: Vec<f32> = file.as_mut().map_or_else(Vec::new, FeatureFile::take_features);
    all.truncate(n * FEATURES);
    let mut done = all.len() / FEATURES;
    progress.begin("Inception features", n, "images");
    progress.update(done);
    while done < n {
        // Samples are drawn in whole blocks.
        let end = n.min(done / DRAWN * DRAWN + DRAWN);
        let block = images.read(done..end, drawn.as_deref())?;
        for batch in block.chunks(BATCH) {
            let batch: Vec<_> = batch.iter().map(Decoded::image).collect();
            let features = inception.features_of_images(&batch, convention)?;
            if let Some(open) = &mut file
                && let Err(error) = open.append(&features)
            {
                tracing::warn!("{}: {error}; the features are not kept", open.path().display());
                file = None;
            }
            all.extend(features);
            done += batch.len();
            progress.update(done);
        }
    }
    Ok(all)
}

/// `n` of `len` images, ascending: files are read in their order.
fn drawn(len: usize, n: usize) -> Vec<usize> {
    let mut drawn = random::choose(&mut random::stream(0, Purpose::ComparedImages, 0), len, n);
    drawn.sort_unstable();
    drawn
}

/// The file of features `key` in `folder`. Another process that computes the same features is waited for: then they are
/// there. None, with a warning, if features cannot be kept there.
fn open_file(folder: &Path, key: &str) -> Option<FeatureFile> {
    let mut is_reported = false;
    loop {
        match FeatureFile::open(folder, key) {
            Ok(Some(file)) => return Some(file),
            Ok(None) => {
                if !is_reported {
                    tracing::info!("another process computes the same features: waiting for it");
                }
                is_reported = true;
                std::thread::sleep(WAIT);
            }
            Err(error) => {
                tracing::warn!("{}: {error}; the features are not kept", folder.display());
                return None;
            }
        }
    }
}
