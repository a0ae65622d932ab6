//! What a generator draws images from: z, and class labels where it is conditional.

use crate::random::{self, Purpose};
use crate::{LatentConfig, ModelConfig, NetworkError};
use dcgan_ops::{Input, Maps};
use std::ops::Range;

/// The classes of images that a conditional generator draws; without meaning for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Classes {
    /// In turn: image `i` has class `i % classes`.
    #[default]
    InTurn,
    /// All images have this class.
    One(u32),
}

impl Classes {
    /// The class of image `i` of a model with `classes` classes.
    #[expect(clippy::cast_possible_truncation, reason = "at most 65536 classes, see ModelConfig")]
    pub fn of(self, i: usize, classes: usize) -> u32 {
        match self {
            Self::InTurn => (i % classes.max(1)) as u32,
            Self::One(class) => class,
        }
    }
}

/// Latent vectors of a batch, with class labels for a conditional generator. Training, sampling, the service and
/// exploring all pass this type.
#[derive(Clone, Debug)]
pub struct Latents {
    z: Maps,
    labels: Option<Maps>,
}

impl Latents {
    /// The vectors of `size` values each that `z` holds one after the other, `(n, size)`.
    ///
    /// # Errors
    /// [`NetworkError::Latents`] where `z` does not hold whole vectors.
    pub fn new(z: Vec<f32>, size: usize) -> Result<Self, NetworkError> {
        if size == 0 || !z.len().is_multiple_of(size) {
            return Err(NetworkError::Latents { len: z.len(), size });
        }
        Ok(Self { z: Maps::rows(z, size)?, labels: None })
    }

    /// `n` vectors drawn from the configured distribution, the i-th from the stream of index `i`: n of them are the
    /// first n of any more.
    ///
    /// # Errors
    /// Those of [`Latents::new`].
    pub fn draw(seed: u64, purpose: Purpose, n: usize, config: &LatentConfig) -> Result<Self, NetworkError> {
        Self::new(random::latent_each(seed, purpose, n, config), config.size)
    }

    /// The vectors of the images `range` among all that can be drawn of a seed, with their class labels where the model
    /// is conditional. Each depends on the seed and its own index alone.
    ///
    /// # Errors
    /// Those of [`Latents::new`]; a class that is not below `config.classes`.
    pub fn of_range(
        (seed, purpose): (u64, Purpose),
        range: Range<usize>,
        config: &ModelConfig,
        classes: Classes,
    ) -> Result<Self, NetworkError> {
        let z = random::latent_range(seed, purpose, range.clone(), &config.latent);
        Self::new(z, config.latent.size)?.with_classes(config, classes, range.start)
    }

    /// The same vectors with class labels where the model is conditional, as those of the images from `first` on.
    ///
    /// # Errors
    /// A class that is not below `config.classes`.
    pub fn with_classes(
        self,
        config: &ModelConfig,
        classes: Classes,
        first: usize,
    ) -> Result<Self, NetworkError> {
        if !config.is_conditional() {
            return Ok(self);
        }
        let labels: Vec<u32> = (first..first + self.n()).map(|i| classes.of(i, config.classes)).collect();
        self.with_labels(&labels, config.classes)
    }

    /// The same vectors with a label below `classes` for each.
    ///
    /// # Errors
    /// [`NetworkError::Labels`] for another number of labels; a label that is not below `classes`.
    pub fn with_labels(self, labels: &[u32], classes: usize) -> Result<Self, NetworkError> {
        self.with_label_rows(Maps::one_hot(labels, classes)?)
    }

    /// The same vectors with a label vector `(classes)` for each: one-hot, or soft labels.
    ///
    /// # Errors
    /// [`NetworkError::Labels`] for another number of label vectors.
    pub fn with_label_rows(self, labels: Maps) -> Result<Self, NetworkError> {
        if labels.n() != self.n() {
            return Err(NetworkError::Labels { labels: labels.n(), latents: self.n() });
        }
        Ok(Self { labels: Some(labels), ..self })
    }

    /// How many there are.
    pub fn n(&self) -> usize {
        self.z.n()
    }

    /// Size of z.
    pub fn size(&self) -> usize {
        self.z.shape().channels
    }

    /// The values of all z, `(n, size)`.
    pub fn z(&self) -> &[f32] {
        self.z.values()
    }

    /// The label vectors `(n, classes)`, where there are any.
    pub fn labels(&self) -> Option<&Maps> {
        self.labels.as_ref()
    }

    /// `count` of them from `first`, followed by zeros up to `padded`.
    pub(crate) fn padded(&self, first: usize, count: usize, padded: usize) -> Result<Self, NetworkError> {
        let rows = |maps: &Maps| {
            let len = maps.shape().channels;
            let mut values = maps.values()[first * len..(first + count) * len].to_vec();
            values.resize(padded * len, 0.0);
            Maps::rows(values, len)
        };
        Ok(Self { z: rows(&self.z)?, labels: self.labels.as_ref().map(rows).transpose()? })
    }

    /// As a network reads them.
    pub fn input(&self) -> Input<'_> {
        Input { maps: &self.z, labels: self.labels.as_ref() }
    }

    /// The maps of z and of labels.
    pub fn into_maps(self) -> (Maps, Option<Maps>) {
        (self.z, self.labels)
    }
}
