//! The baseline of section 5.2: a purely supervised network of D's shape, trained on few labels, its settings found by
//! random search over a validation set.
//!
//! The paper searched 64 trials and names no ranges; those of [`Ranges`] are ours. As in the paper there is no data
//! augmentation. For every evaluation batch-norm's statistics are estimated again on the training images, by the
//! authors' procedure: with a few hundred steps in all a running average would be that of older weights.

mod search;
mod trial;

pub use search::{Event, Found, Summary, search};
pub use trial::{Ranges, Trial};

use candle_core::{Device, Tensor};
use dcgan_model::random::{self, Purpose};
use dcgan_model::weights::Weights;
use dcgan_model::{Classifier, ConfigError, Model, NetworkError, pixels};
use dcgan_ops::{AdamConfig, Keep, OpsError, Want, cross_entropy};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Spread of batch-norm's initial gains, that of the authors' code.
const GAIN_STD: f32 = 0.02;
/// Images of a batch where nothing is learned: the authors' for statistics.
const BATCH: usize = 128;

/// What a supervised training cannot take or do.
#[derive(Debug, thiserror::Error)]
pub enum SupervisedError {
    /// No image in a set.
    #[error("there are no {set} images")]
    Empty {
        /// Which set.
        set: &'static str,
    },
    /// Pixels and labels that do not go together.
    #[error("{found} bytes of {set} pixels for {labels} labels, expected {expected}: {image} an image")]
    Pixels {
        /// Which set.
        set: &'static str,
        /// Labels.
        labels: usize,
        /// Bytes of one image.
        image: usize,
        /// Bytes that so many images have.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A label that is no class.
    #[error("{set} image {index} has label {label}, expected below {classes}")]
    Label {
        /// Which set.
        set: &'static str,
        /// The image, from 0.
        index: usize,
        /// Its label.
        label: u32,
        /// Classes.
        classes: usize,
    },
    /// A class that nothing could be learned about.
    #[error("class {class} has no training image")]
    MissingClass {
        /// The class, from 0.
        class: usize,
    },
    /// Hyperparameters, or ranges of them, that cannot be.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Which.
        name: &'static str,
        /// As printed.
        found: String,
        /// In words.
        expected: &'static str,
    },
    /// No trial was left to choose from.
    #[error("all {trials} trials diverged before their first evaluation; search lower learning rates")]
    AllDiverged {
        /// Trials run.
        trials: usize,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
    /// A classifier that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An operation.
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
pub struct Labeled<'a> {
    /// `(n, h, w, c)`, u8.
    pub pixels: &'a [u8],
    /// n class numbers.
    pub labels: &'a [u32],
}

/// What is to be learned, and on what.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Networks whose discriminator gives the shape.
    pub model: &'a Model,
    /// Classes.
    pub classes: usize,
    /// Images to learn from, every class among them.
    pub training: Labeled<'a>,
    /// Images that epochs and trials are chosen by.
    pub validation: Labeled<'a>,
    /// Epochs between evaluations; the last epoch is evaluated in any case.
    pub evaluate_every: usize,
    /// Where to compute.
    pub device: &'a Device,
}

/// How good a classifier was after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Epochs trained, from 1.
    pub epoch: usize,
    /// Mean cross-entropy of the epoch's training batches, in nats, each before its step.
    pub training_loss: f64,
    /// Percentage of validation images classified wrongly.
    pub validation_error_percent: f64,
}

/// A trained classifier.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Its best evaluation; the earliest of equal ones.
    pub best: Evaluation,
    /// Parameters and batch-norm statistics at that evaluation, for [`Classifier::new`].
    pub weights: Weights,
}

/// How a training ended.
#[derive(Clone, Debug)]
pub struct Training {
    /// The best evaluation; none where the loss diverged before the first.
    pub trained: Option<Trained>,
    /// The epoch in which the loss was not finite, which ended the training.
    pub diverged_in_epoch: Option<usize>,
}

impl Labeled<'_> {
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

    /// The images `rows` as a tensor, and their labels.
    fn batch(
        &self,
        rows: &[usize],
        model: &Model,
        device: &Device,
    ) -> Result<(Tensor, Vec<u32>), SupervisedError> {
        let (height, width, channels) = model.config().image_shape();
        let image = height * width * channels;
        let bytes: Vec<u8> =
            rows.iter().flat_map(|row| &self.pixels[row * image..(row + 1) * image]).copied().collect();
        let labels = rows.iter().map(|&row| self.labels[row]).collect();
        Ok((pixels::to_tensor(&bytes, model.config(), device)?, labels))
    }
}

impl Task<'_> {
    fn check(&self) -> Result<(), SupervisedError> {
        self.model.classifier_layers(self.classes)?;
        let (height, width, channels) = self.model.config().image_shape();
        let image = height * width * channels;
        self.training.check("training", image, self.classes)?;
        self.validation.check("validation", image, self.classes)?;
        let mut met = vec![false; self.classes];
        for label in self.training.labels {
            met[*label as usize] = true;
        }
        if let Some(class) = met.iter().position(|met| !met) {
            return Err(SupervisedError::MissingClass { class });
        }
        trial::expect("evaluate_every", self.evaluate_every, self.evaluate_every > 0, "at least 1")
    }
}

/// Trains a classifier by the settings of `trial` and keeps the weights of the epoch whose validation error is lowest.
///
/// Batches of an epoch have near-equal sizes, at most the trial's: no image is left out, no batch is a small rest.
/// `on_evaluation` may break off the training, which then ends in [`SupervisedError::Stopped`].
///
/// # Errors
/// Sets, labels or settings that do not fit; those of the device.
pub fn train(
    task: &Task<'_>,
    trial: &Trial,
    on_evaluation: &mut dyn FnMut(&Evaluation) -> ControlFlow<()>,
) -> Result<Training, SupervisedError> {
    task.check()?;
    trial.check()?;
    let weights = task.model.initial_classifier(task.classes, trial.seed, trial.weight_std, GAIN_STD)?;
    let mut classifier = Classifier::new(task.model, task.classes, &weights, task.device)?;
    let adam = trial.adam();
    let mut training = Training { trained: None, diverged_in_epoch: None };
    for epoch in 1..=trial.epochs {
        let order = order(task.training.labels.len(), trial.seed, epoch as u64);
        let mut sum = 0.0;
        for rows in parts(&order, trial.batch_size) {
            let (x, labels) = task.training.batch(rows, task.model, task.device)?;
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
        estimate_statistics(&mut classifier, task)?;
        let evaluation = Evaluation {
            epoch,
            training_loss: sum / order.len() as f64,
            validation_error_percent: error_percent(&mut classifier, task.model, task.validation)?,
        };
        let best = training.trained.as_ref().map(|trained| trained.best.validation_error_percent);
        if best.is_none_or(|best| evaluation.validation_error_percent < best) {
            let weights = classifier.0.weights()?;
            training.trained = Some(Trained { best: evaluation, weights });
        }
        if on_evaluation(&evaluation).is_break() {
            return Err(SupervisedError::Stopped);
        }
    }
    Ok(training)
}

/// One Adam step on the mean cross-entropy of images `(n, c, h, w)`; gives the loss before it, in nats.
///
/// Where the loss is not finite nothing is changed.
///
/// # Errors
/// Labels that do not fit; shapes, memory, a batch too small for batch-norm.
pub fn step(
    classifier: &mut Classifier,
    x: &Tensor,
    labels: &[u32],
    adam: &AdamConfig,
) -> Result<f64, SupervisedError> {
    let output = classifier.0.train(x, Keep::Tape)?.output; // (n, classes, 1, 1)
    let found = cross_entropy(&output.flatten_from(1)?, labels)?;
    let loss = f64::from(found.loss.to_scalar::<f32>()?);
    if loss.is_finite() {
        let executor = &mut classifier.0.executor;
        executor.zero_gradients()?;
        executor.backward(&found.gradient.reshape(output.shape())?, Want::Parameters)?;
        executor.adam_step(adam)?;
    }
    Ok(loss)
}

/// Percentage of images that `classifier`, of the shape of `model`'s discriminator, gives another class than their
/// label. An image whose logits are not all numbers counts as wrong.
///
/// # Errors
/// No image; pixels that do not fit the labels; a network without batch-norm statistics; memory.
pub fn error_percent(
    classifier: &mut Classifier,
    model: &Model,
    set: Labeled<'_>,
) -> Result<f64, SupervisedError> {
    let layers = classifier.0.executor.layers();
    let classes = layers.last().map_or(0, |head| head.output.channels);
    let (height, width, channels) = model.config().image_shape();
    set.check("evaluation", height * width * channels, classes)?;
    let device = classifier.0.executor.device().clone();
    let rows: Vec<usize> = (0..set.labels.len()).collect();
    let mut wrong = 0_usize;
    for rows in parts(&rows, BATCH) {
        let (x, labels) = set.batch(rows, model, &device)?;
        let logits = classifier.logits(&x)?.to_vec2::<f32>()?;
        wrong += logits.iter().zip(labels).filter(|(logits, label)| largest(logits) != Some(*label)).count();
    }
    Ok(100.0 * wrong as f64 / rows.len() as f64)
}

/// The place of the largest value, the earliest of equal ones; none where one is NaN.
fn largest(values: &[f32]) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (place, &value) in (0..).zip(values) {
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, most)| value > most) {
            best = Some((place, value));
        }
    }
    best.map(|(place, _)| place)
}

fn estimate_statistics(classifier: &mut Classifier, task: &Task<'_>) -> Result<(), SupervisedError> {
    let rows: Vec<usize> = (0..task.training.labels.len()).collect();
    let batches = parts(&rows, BATCH).map(|rows| Ok(task.training.batch(rows, task.model, task.device)?.0));
    classifier.0.recalibrate::<SupervisedError>(batches)
}

/// `rows` in as few parts of at most `size` as there can be, their sizes one apart at most.
fn parts(rows: &[usize], size: usize) -> impl Iterator<Item = &[usize]> {
    let n = rows.len().div_ceil(size.max(1));
    (0..n).map(move |i| &rows[i * rows.len() / n..(i + 1) * rows.len() / n])
}

/// The order of images in an epoch, shuffled by the stream of (seed, epoch).
fn order(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut rng = random::stream(seed, Purpose::ClassifierOrder, epoch);
    let mut order: Vec<usize> = (0..n).collect();
    random::shuffle(&mut rng, &mut order);
    order
}

#[cfg(test)]
mod tests;
