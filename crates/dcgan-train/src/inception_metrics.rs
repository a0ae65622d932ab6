//! FID and KID of samples while a run trains, from the features of the Inception network.
//!
//! The real images are those that the networks see, cropped and resized; the samples are as many. Both are prepared as
//! torch-fidelity does. With a few thousand images FID is larger than with the 50,000 of papers: it compares the
//! checkpoints of one run. `dcgan-eval metrics` computes what papers report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dcgan_base::digest::Digest;
use dcgan_data::{Dataset, default_cache_folder};
use dcgan_metrics::{
    Convention, FEATURES, FeatureFile, Image, Inception, InceptionWeights, MetricsError, RandomState,
    Reference, SUBSET_SEED, SUBSET_SIZE, SUBSETS, Statistics, kernel_distance,
};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Latents};
use dcgan_ops::Device;
use rayon::prelude::*;

use crate::config::BestBy;
use crate::error::TrainError;
use crate::frechet::draw;

/// How images are prepared.
const CONVENTION: Convention = Convention::TorchFidelity;

/// Images that are read or drawn together.
const BLOCK: usize = 64;

/// Time between two lines of the log.
const REPORT_INTERVAL: Duration = Duration::from_secs(15);

/// Metrics of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct MetricValues {
    /// Fréchet Inception distance; lower is better.
    pub(crate) fid: f64,
    /// Kernel Inception distance; none for fewer images than a subset has.
    pub(crate) kid: Option<f64>,
    /// Samples, and real images.
    pub(crate) images: usize,
}

/// What FID and KID are measured with. The network itself exists only while it is used: its feature maps take more
/// memory than the training of small networks.
#[derive(Debug)]
pub(crate) struct InceptionMetrics {
    weights: InceptionWeights,
    device: Device,
    data: Arc<Dataset>,
    /// The real images.
    chosen: Vec<usize>,
    /// Their features, from the first measurement on.
    real: Option<RealFeatures>,
}

/// Features of the real images.
#[derive(Debug)]
struct RealFeatures {
    /// `(n, 2048)`
    features: Vec<f32>,
    statistics: Statistics,
}

impl InceptionMetrics {
    /// Compares with up to `n` images of `data`.
    pub(crate) fn new(weights: InceptionWeights, data: Arc<Dataset>, n: usize, device: Device) -> Self {
        let chosen = draw(data.len(), n);
        Self { weights, device, data, chosen, real: None }
    }

    /// The name of the convention.
    pub(crate) fn convention() -> &'static str {
        CONVENTION.name()
    }

    /// SHA-256 of the weights file.
    pub(crate) fn sha256(&self) -> &str {
        self.weights.sha256()
    }

    /// A number that identifies what a metric depends on beside the samples: which one it is, the weights, the number
    /// of images. Values of different numbers of images cannot be compared.
    pub(crate) fn basis(&self, by: BestBy) -> u64 {
        let mut digest = Digest::default();
        digest.field(format!("{by:?}")).field(self.weights.sha256()).number(self.chosen.len() as u64);
        u64::from_str_radix(digest.hex().get(..16).unwrap_or_default(), 16).unwrap_or(0)
    }

    /// Metrics of as many samples as there are real images, drawn from z that depend on `seed` alone; none if `stop`
    /// became true. A conditional generator draws the classes of the real images.
    ///
    /// # Errors
    /// Failures of the networks.
    pub(crate) fn measure(
        &mut self,
        generator: &mut Generator,
        seed: u64,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<MetricValues>, TrainError> {
        let mut inception = Inception::new(&self.weights, self.device.clone())?;
        let real = match self.real.take() {
            Some(real) => real,
            None => match self.real_features(&mut inception, stop)? {
                Some(features) => {
                    let statistics = Statistics::of(&features, FEATURES, CONVENTION.ddof());
                    RealFeatures { features, statistics }
                }
                None => return Ok(None),
            },
        };
        let real = self.real.insert(real);
        let config = generator.model().config().clone();
        let n = self.chosen.len();
        let z = random::latent_each(seed, Purpose::FrechetLatent, n, &config.latent);
        let labels = self.data.labels().filter(|_| config.is_conditional());
        let mut generated = Vec::with_capacity(real.features.len());
        let mut report = Report::new("samples", n);
        for (z, images) in z.chunks(BLOCK * config.latent.size).zip(self.chosen.chunks(BLOCK)) {
            if stop() {
                return Ok(None);
            }
            let mut latents = Latents::new(z.to_vec(), config.latent.size)?;
            if let Some(labels) = labels {
                let labels: Vec<u32> = images.iter().map(|&image| labels[image]).collect();
                latents = latents.with_labels(&labels, config.classes)?;
            }
            let bytes = generator.draw_latents(&latents, &mut |_| ())?;
            generated.extend(features(&mut inception, &bytes, config.image_shape())?);
            report.set(generated.len() / FEATURES);
        }
        let statistics = Statistics::of(&generated, FEATURES, CONVENTION.ddof());
        let fid = Reference::new(&real.statistics)?.distance(&statistics)?;
        let random = &mut RandomState::new(SUBSET_SEED);
        let kid = if n < SUBSET_SIZE {
            None
        } else {
            Some(kernel_distance(&generated, &real.features, FEATURES, SUBSETS, SUBSET_SIZE, random)?.mean)
        };
        Ok(Some(MetricValues { fid, kid, images: n }))
    }

    /// Features of the real images, from the cache folder where it has them; none if `stop` became true. The features
    /// of the first ones do not depend on how many are chosen, so that runs with other numbers share a file.
    fn real_features(
        &self,
        inception: &mut Inception,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Vec<f32>>, TrainError> {
        let Self { weights, data, chosen, .. } = self;
        let shape = data.shape();
        let mut digest = Digest::default();
        digest.field("inception features of a run").field(weights.sha256()).field(CONVENTION.name());
        digest.field(data.cache_key());
        let folder = default_cache_folder().map(|folder| folder.join("features"));
        // Without a file, or beside a process that writes it, the features are computed again.
        let mut file = folder.and_then(|folder| FeatureFile::open(&folder, &digest.hex()).ok().flatten());
        let mut all: Vec<f32> = file.as_mut().map_or_else(Vec::new, FeatureFile::take_features);
        all.truncate(chosen.len() * FEATURES);
        let mut report = Report::new("real images", chosen.len());
        for part in chosen[all.len() / FEATURES..].chunks(BLOCK) {
            if stop() {
                return Ok(None);
            }
            let mut bytes = vec![0; part.len() * shape.bytes()];
            let images = part.par_iter().zip(bytes.par_chunks_mut(shape.bytes()));
            images.try_for_each(|(&index, image)| data.read(index, image))?;
            let features = features(inception, &bytes, (shape.height, shape.width, shape.channels))?;
            if let Some(open) = &mut file
                && let Err(error) = open.append(&features)
            {
                tracing::warn!("{}: {error}; the features are not kept", open.path().display());
                file = None;
            }
            all.extend(features);
            report.set(all.len() / FEATURES);
        }
        Ok(Some(all))
    }
}

/// Features of images of one shape `(height, width, channels)`.
fn features(
    inception: &mut Inception,
    bytes: &[u8],
    (height, width, channels): (usize, usize, usize),
) -> Result<Vec<f32>, MetricsError> {
    let image = |pixels| Image { pixels, height, width, channels };
    let images: Vec<_> = bytes.chunks_exact(height * width * channels).map(image).collect();
    inception.features_of_images(&images, CONVENTION)
}

/// Lines of the log about a long extraction.
struct Report {
    what: &'static str,
    n: usize,
    reported: Instant,
}

impl Report {
    fn new(what: &'static str, n: usize) -> Self {
        Self { what, n, reported: Instant::now() }
    }

    fn set(&mut self, done: usize) {
        if self.reported.elapsed() >= REPORT_INTERVAL {
            self.reported = Instant::now();
            tracing::info!("Inception features: {done} of {} {}", self.n, self.what);
        }
    }
}
