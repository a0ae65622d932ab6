//! The baseline of section 5.2: a supervised network of D's shape, trained on few labels, with hyperparameters from
//! random search on a validation set.
//!
//! The paper reports 64 trials without ranges; [`Ranges`] has ours. As in the paper there is no data augmentation.
//! Before every evaluation batch norm is recalibrated on the training images by the authors' procedure: in a few
//! hundred steps a running average lags behind the weights.

mod search;
mod trial;

pub use search::{Event, SearchResult, TrialSummary, search, search_from};
pub use trial::{Ranges, Trial};

use dcgan_base::random::{self, Purpose};
use dcgan_model::weights::Weights;
use dcgan_model::{Classifier, ConfigError, Device, Model, NetworkError, pixels};
use dcgan_ops::{AdamConfig, BufferPool, Keep, Maps, OpsError, WithRespectTo, cross_entropy};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Standard deviation of batch norm's initial `weight`, as in the authors' code.
const NORM_WEIGHT_STD: f32 = 0.02;
/// Minibatch size of evaluation and recalibration, as in the authors' code.
const BATCH: usize = 128;

/// Why supervised training failed.
#[derive(Debug, thiserror::Error)]
pub enum SupervisedError {
    /// An empty image set.
    #[error("there are no {set} images")]
    Empty {
        /// Name of the set.
        set: &'static str,
    },
    /// Numbers of pixels and labels do not match.
    #[error("{found} bytes of {set} pixels for {labels} labels, expected {expected}: {image} per image")]
    Pixels {
        /// Name of the set.
        set: &'static str,
        /// Labels.
        labels: usize,
        /// Bytes of one image.
        image: usize,
        /// Bytes of `labels` images.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// An invalid label.
    #[error("{set} image {index} has label {label}, expected below {classes}")]
    Label {
        /// Name of the set.
        set: &'static str,
        /// The image, from 0.
        index: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// A class without training images.
    #[error("class {class} has no training image")]
    MissingClass {
        /// The class, from 0.
        class: usize,
    },
    /// Invalid hyperparameters or ranges.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value as text.
        found: String,
        /// Valid values.
        expected: &'static str,
    },
    /// Every trial diverged.
    #[error("all {trials} trials diverged before their first evaluation; search lower learning rates")]
    AllDiverged {
        /// Number of trials.
        trials: usize,
    },
    /// Stopped by the caller.
    #[error("stopped")]
    Stopped,
    /// An invalid configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An operation on tensors.
    #[error(transparent)]
    Ops(#[from] OpsError),
}

impl From<candle_core::Error> for SupervisedError {
    fn from(error: candle_core::Error) -> Self {
        Self::Ops(error.into())
    }
}

/// Images with labels.
#[derive(Clone, Copy, Debug)]
pub struct LabeledImages<'a> {
    /// `(n, h, w, c)`, u8.
    pub pixels: &'a [u8],
    /// n labels.
    pub labels: &'a [u32],
}

/// A classification problem and its data.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The model whose discriminator defines the network.
    pub model: &'a Model,
    /// Number of classes.
    pub classes: usize,
    /// Training images, at least one per class.
    pub training: LabeledImages<'a>,
    /// Images that epochs and trials are chosen on.
    pub validation: LabeledImages<'a>,
    /// Epochs between evaluations; the last epoch is evaluated in any case.
    pub evaluate_every: usize,
    /// Device.
    pub device: &'a Device,
}

/// Evaluation of a classifier after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Epochs trained, from 1.
    pub epoch: usize,
    /// Mean cross-entropy of the epoch's minibatches before their steps, in nats.
    pub training_loss: f64,
    /// Percentage of validation images classified wrongly.
    pub validation_error_percent: f64,
}

/// A trained classifier.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Its best evaluation, the first of equal ones.
    pub best: Evaluation,
    /// Parameters and batch norm statistics at that evaluation, for [`Classifier::new`].
    pub weights: Weights,
}

/// Result of training.
#[derive(Clone, Debug)]
pub struct Training {
    /// The best classifier; `None` if the loss diverged before the first evaluation.
    pub trained: Option<Trained>,
    /// The epoch in which the loss became NaN or infinite, which ends training.
    pub diverged_in_epoch: Option<usize>,
}

impl LabeledImages<'_> {
    fn check(&self, set: &'static str, image: usize, classes: usize) -> Result<(), SupervisedError> {
        let (labels, found) = (self.labels.len(), self.pixels.len());
        if labels == 0 {
            return Err(SupervisedError::Empty { set });
        }
        let expected = labels.saturating_mul(image);
        if found != expected {
            return Err(SupervisedError::Pixels { set, labels, image, expected, found });
        }
        let fits = |label: u32| usize::try_from(label).is_ok_and(|class| class < classes);
        match self.labels.iter().enumerate().find(|(_, label)| !fits(**label)) {
            Some((index, &label)) => Err(SupervisedError::Label { set, index, label, classes }),
            None => Ok(()),
        }
    }

    /// The images `rows` as a tensor `(n, c, h, w)`, and their labels.
    fn batch(&self, rows: &[usize], model: &Model) -> Result<(Maps, Vec<u32>), SupervisedError> {
        let (height, width, channels) = model.config().image_shape();
        let image = height * width * channels;
        let bytes: Vec<u8> =
            rows.iter().flat_map(|row| &self.pixels[row * image..(row + 1) * image]).copied().collect();
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        Ok((pixels::to_maps(&bytes, model.config(), &BufferPool::new())?, labels))
    }
}

impl Task<'_> {
    fn check(&self) -> Result<(), SupervisedError> {
        self.model.classifier_layers(self.classes)?;
        let (height, width, channels) = self.model.config().image_shape();
        let image = height * width * channels;
        self.training.check("training", image, self.classes)?;
        self.validation.check("validation", image, self.classes)?;
        let mut has_images = vec![false; self.classes];
        for label in self.training.labels {
            has_images[*label as usize] = true;
        }
        if let Some(class) = has_images.iter().position(|has| !has) {
            return Err(SupervisedError::MissingClass { class });
        }
        trial::expect("evaluate_every", self.evaluate_every, self.evaluate_every > 0, "at least 1")
    }
}

/// Trains a classifier with the hyperparameters of `trial`; returns the weights of the lowest validation error.
///
/// Minibatches of an epoch have nearly equal sizes, at most the trial's; every image is used. If `on_evaluation`
/// breaks, training ends with [`SupervisedError::Stopped`].
///
/// # Errors
/// Invalid images, labels or settings; those of the device.
pub fn train(
    task: &Task<'_>,
    trial: &Trial,
    on_evaluation: &mut dyn FnMut(&Evaluation) -> ControlFlow<()>,
) -> Result<Training, SupervisedError> {
    task.check()?;
    trial.check()?;
    let weights =
        task.model.initial_classifier(task.classes, trial.seed, trial.weight_std, NORM_WEIGHT_STD)?;
    let mut classifier = Classifier::new(task.model, task.classes, &weights, task.device)?;
    let adam = trial.adam();
    let mut training = Training { trained: None, diverged_in_epoch: None };
    for epoch in 1..=trial.epochs {
        let order = order(task.training.labels.len(), trial.seed, epoch as u64);
        let mut sum = 0.0;
        for rows in batches(&order, trial.batch_size) {
            let (x, labels) = task.training.batch(rows, task.model)?;
            let loss = step(&mut classifier, &x, &labels, &adam)?;
            if !loss.is_finite() {
                training.diverged_in_epoch = Some(epoch);
                return Ok(training);
            }
            sum += loss * rows.len() as f64;
        }
        if epoch % task.evaluate_every != 0 && epoch != trial.epochs {
            continue;
        }
        recalibrate(&mut classifier, task)?;
        let evaluation = Evaluation {
            epoch,
            training_loss: sum / order.len() as f64,
            validation_error_percent: error_percent(&mut classifier, task.model, task.validation)?,
        };
        let best = training.trained.as_ref().map(|trained| trained.best.validation_error_percent);
        if best.is_none_or(|best| evaluation.validation_error_percent < best) {
            let weights = classifier.weights()?;
            training.trained = Some(Trained { best: evaluation, weights });
        }
        if on_evaluation(&evaluation).is_break() {
            return Err(SupervisedError::Stopped);
        }
    }
    Ok(training)
}

/// One Adam step on the mean cross-entropy of images `(n, c, h, w)`; returns the loss before the step, in nats.
///
/// If the loss is NaN or infinite, the classifier is not changed.
///
/// # Errors
/// Invalid labels or shapes; memory; a minibatch too small for batch norm.
pub fn step(
    classifier: &mut Classifier,
    x: &Maps,
    labels: &[u32],
    adam: &AdamConfig,
) -> Result<f64, SupervisedError> {
    let network = classifier.network_mut();
    let output = network.train(x, Keep::Tape)?.output; // (n, classes, 1, 1)
    let cross_entropy = cross_entropy(&output.to_tensor()?.flatten_from(1)?, labels)?;
    let loss = f64::from(cross_entropy.loss.to_scalar::<f32>()?);
    if loss.is_finite() {
        network.parameters_mut().zero_gradients();
        let gradient = cross_entropy.gradient.flatten_all()?.to_vec1::<f32>()?;
        network.backward(&Maps::rows(gradient, output.shape().channels)?, WithRespectTo::Parameters)?;
        network.adam_step(adam);
    }
    Ok(loss)
}

/// Percentage of images whose predicted class differs from their label; `classifier` has the shape of `model`'s
/// discriminator. An image with a NaN logit counts as wrong.
///
/// # Errors
/// No image; numbers of pixels and labels that do not match; a network without batch norm statistics; memory.
pub fn error_percent(
    classifier: &mut Classifier,
    model: &Model,
    set: LabeledImages<'_>,
) -> Result<f64, SupervisedError> {
    let layers = classifier.network().layers();
    let classes = layers.last().map_or(0, |head| head.output.channels);
    let (height, width, channels) = model.config().image_shape();
    set.check("evaluation", height * width * channels, classes)?;
    let rows: Vec<usize> = (0..set.labels.len()).collect();
    let mut wrong = 0_usize;
    for rows in batches(&rows, BATCH) {
        let (x, labels) = set.batch(rows, model)?;
        let logits = classifier.logits(&x)?.to_vec2::<f32>()?;
        wrong += logits.iter().zip(labels).filter(|(logits, label)| argmax(logits) != Some(*label)).count();
    }
    Ok(100.0 * wrong as f64 / rows.len() as f64)
}

/// Index of the largest value, the first of equal ones; `None` if one is NaN.
fn argmax(values: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (index, &value) in (0..).zip(values) {
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

fn recalibrate(classifier: &mut Classifier, task: &Task<'_>) -> Result<(), SupervisedError> {
    let rows: Vec<usize> = (0..task.training.labels.len()).collect();
    let batches = batches(&rows, BATCH).map(|rows| Ok((task.training.batch(rows, task.model)?.0, None)));
    classifier.network_mut().recalibrate::<SupervisedError>(batches)
}

/// `rows` in the smallest number of batches of at most `size`; sizes differ by at most one.
fn batches(rows: &[usize], size: usize) -> impl Iterator<Item = &[usize]> {
    let n = rows.len().div_ceil(size.max(1));
    (0..n).map(move |i| &rows[i * rows.len() / n..(i + 1) * rows.len() / n])
}

/// The order of images in an epoch: a shuffle with stream `epoch` of `seed`.
fn order(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = random::stream(seed, Purpose::ClassifierOrder, epoch);
    let mut order: Vec<usize> = (0..n).collect();
    random::shuffle(&mut rng, &mut order);
    order
}

#[cfg(test)]
mod tests;
