//! Evaluation of the generator while it trains: EMA weights, sample grids, diversity, random-feature Fréchet distance.
//!
//! Samples are drawn in evaluation mode. Where the run keeps an EMA of G's weights, they are swapped in for the time of
//! an evaluation; training continues with the raw weights.

use crate::config::Plan;
use crate::error::TrainError;
use crate::frechet::{self, RandomFeatureFrechet};
use crate::inception_metrics::{InceptionMetrics, MetricValues};
use crate::memory::GRID_IMAGES;
use crate::start::to_host;
use crate::step::Networks;
use dcgan_data::image_grid::Layout;
use dcgan_data::{DataError, Dataset};
use dcgan_model::weights::Weights;
use dcgan_model::{Model, ModelConfig, NetworkError};

/// Images of a sample grid.
#[derive(Debug)]
pub(crate) struct Samples {
    /// `(n, h, w, c)`
    pub(crate) images: Vec<u8>,
    pub(crate) layout: Layout,
    /// Whether each row of the layout has one class: the classes of the images are in turn.
    pub(crate) class_rows: bool,
    /// Mean pairwise distance between them, relative to that of real images.
    pub(crate) diversity: f64,
    /// Their mean standard deviation relative to that of real images.
    pub(crate) contrast: f64,
}

/// Conditional models of up to this number of classes have a row for each class in sample grids.
const CLASS_ROWS: usize = 16;

/// The layout of sample grids, and whether they have a row for each class.
fn grid_layout(config: &ModelConfig) -> (Layout, bool) {
    let classes = config.classes;
    if (1..=CLASS_ROWS).contains(&classes) {
        (Layout { rows: classes, columns: GRID_IMAGES / classes }, true)
    } else {
        (Layout::square(GRID_IMAGES), false)
    }
}

/// Evaluates the generator of a run.
#[derive(Debug)]
pub(crate) struct Evaluator<'a> {
    plan: &'a Plan,
    model: Model,
    frechet: RandomFeatureFrechet,
    /// Mean pairwise distance between real images.
    real_distance: f64,
    /// Mean standard deviation of the values of a real image.
    real_contrast: f64,
    /// EMA weights with the step that they were computed at.
    ema: Option<(u64, Weights)>,
}

impl<'a> Evaluator<'a> {
    /// `reals` are some real images, which diversity and contrast are relative to.
    pub(crate) fn new(plan: &'a Plan, model: Model, reals: &[u8], frechet: RandomFeatureFrechet) -> Self {
        let len = plan.image_shape().bytes();
        let (real_distance, real_contrast) =
            (frechet::mean_distance(reals, len), frechet::contrast(reals, len));
        Self { plan, model, frechet, real_distance, real_contrast, ema: None }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Images from the z of the run's seed, the same z at every step.
    ///
    /// # Errors
    /// Those of the networks.
    pub(crate) fn sample(&mut self, networks: &mut Networks, step: u64) -> Result<Samples, TrainError> {
        let (layout, class_rows) = grid_layout(&self.plan.model);
        let images = self.with_ema_weights(networks, step, |this, networks| {
            Ok(networks.generator.draw(this.plan.run.seed, layout.cells())?)
        })?;
        let len = self.plan.image_shape().bytes();
        let diversity = frechet::mean_distance(&images, len) / self.real_distance.max(1e-9);
        let contrast = frechet::contrast(&images, len) / self.real_contrast.max(1e-9);
        Ok(Samples { images, layout, class_rows, diversity, contrast })
    }

    /// Random-feature Fréchet distance between real images and samples.
    ///
    /// # Errors
    /// Those of the networks.
    pub(crate) fn frechet(&mut self, networks: &mut Networks, step: u64) -> Result<f64, TrainError> {
        self.with_ema_weights(networks, step, |this, networks| {
            Ok(this.frechet.frechet(&mut networks.generator, this.plan.run.seed)?)
        })
    }

    /// FID and KID of samples; none if `stop` became true.
    ///
    /// # Errors
    /// Those of the networks.
    pub(crate) fn inception(
        &mut self,
        networks: &mut Networks,
        step: u64,
        (metrics, stop): (&mut InceptionMetrics, &dyn Fn() -> bool),
    ) -> Result<Option<MetricValues>, TrainError> {
        self.with_ema_weights(networks, step, |this, networks| {
            metrics.measure(&mut networks.generator, this.plan.run.seed, stop)
        })
    }

    /// That distance between two halves of the real images.
    pub(crate) fn real_frechet(&self) -> Option<f64> {
        self.frechet.real_frechet()
    }

    /// The EMA weights of G after `step` steps, where the run keeps an EMA. Their batch norm statistics are
    /// recalibrated: the running statistics belong to the raw weights.
    ///
    /// # Errors
    /// Those of the networks.
    pub(crate) fn ema_weights(
        &mut self,
        networks: &mut Networks,
        step: u64,
    ) -> Result<Option<Weights>, TrainError> {
        if let Some((computed_at, ema)) = &self.ema
            && *computed_at == step
        {
            return Ok(Some(ema.clone()));
        }
        let generator = &mut networks.generator;
        let Some(ema) = generator.network().parameters().ema().map_err(NetworkError::from)? else {
            return Ok(None);
        };
        let raw = generator.weights()?;
        let parameters = ema.iter().map(|(name, value)| Ok((name.clone(), to_host(value)?)));
        generator.load(&parameters.collect::<Result<_, TrainError>>()?)?;
        generator.ensure_statistics()?; // by this process alone
        let ema = generator.weights()?;
        generator.load(&raw)?;
        self.ema = Some((step, ema.clone()));
        Ok(Some(ema))
    }

    /// Runs `body` with the EMA weights in G, where the run keeps an EMA.
    fn with_ema_weights<R>(
        &mut self,
        networks: &mut Networks,
        step: u64,
        body: impl FnOnce(&mut Self, &mut Networks) -> Result<R, TrainError>,
    ) -> Result<R, TrainError> {
        let Some(ema) = self.ema_weights(networks, step)? else { return body(self, networks) };
        let raw = networks.generator.weights()?;
        networks.generator.load(&ema)?;
        let result = body(self, networks);
        networks.generator.load(&raw)?;
        result
    }
}

/// Updates the EMA of G's weights, where the run keeps one.
pub(crate) fn update_ema(networks: &mut Networks, decay: f64) {
    networks.generator.network_mut().parameters_mut().update_ema(decay);
}

/// Whether G can be evaluated: new networks have no batch norm statistics.
pub(crate) fn can_evaluate(networks: &Networks) -> bool {
    networks.generator.network().running_stats().is_some()
}

/// Images for the grid of real ones, spread over the dataset: files are often sorted by class.
///
/// # Errors
/// Images that cannot be read.
pub(crate) fn real_images(data: &Dataset) -> Result<Vec<u8>, DataError> {
    let len = data.shape().bytes();
    let n = data.len().min(GRID_IMAGES);
    let mut bytes = vec![0; n * len];
    for (i, image) in bytes.chunks_mut(len).enumerate() {
        data.read(i * data.len() / n, image)?;
    }
    Ok(bytes)
}
