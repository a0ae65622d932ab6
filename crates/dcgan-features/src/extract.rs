//! Feature extraction: the discriminator in evaluation mode, the activation of every block pooled to 4x4.
//!
//! The feature vector has, block by block, the maximum of each channel after LeakyReLU in each cell of a 4x4 grid
//! (paper, section 5.1; the authors' svhn_semisup_analysis.py). Features are not scaled.

use crate::features::{Features, FeaturesError, Precision};
use crate::pool::{features_of, max_pool};
use candle_core::Tensor;
use dcgan_data::{DataError, Dataset};
use dcgan_model::weights::Weights;
use dcgan_model::{Device, Discriminator, Model, NetworkError, pixels};
use dcgan_ops::{
    AverageStatistics, BufferPool, Keep, Layer, MapShape, NormStatistics, OpsError, ProcessGroup, Receivers,
    SingleProcess, Statistics, in_turn,
};
use half::bf16;
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Minibatch size, also the authors' for batch norm statistics.
pub const BATCH: usize = 128;

/// Source of D's batch norm statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StatisticsSource {
    /// Running statistics of the model; `stored` in reports.
    Stored,
    /// Averages over minibatches of the training images.
    Recalibrated,
}

/// Why extraction failed.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// An image could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Images of another shape than the network's.
    #[error(
        "the images are {found}, expected {expected} as in the network: open them in its shape, or choose another model"
    )]
    Shape {
        /// Shape of the network's images.
        expected: String,
        /// Shape of the images.
        found: String,
    },
    /// A feature is NaN or infinite.
    #[error("{0}: the network or the images are damaged")]
    Features(#[from] FeaturesError),
    /// The consumer of the features failed.
    #[error("{0}")]
    Sink(String),
}

impl From<OpsError> for ExtractError {
    fn from(error: OpsError) -> Self {
        Self::Network(error.into())
    }
}

impl From<candle_core::Error> for ExtractError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

/// A discriminator as feature extractor.
#[derive(Debug)]
pub struct Extractor {
    discriminator: Discriminator,
    model: Model,
    width: usize,
    pool: BufferPool,
    group: Arc<dyn ProcessGroup>,
}

impl Extractor {
    /// Features of the discriminator of `model` with `weights`.
    ///
    /// # Errors
    /// [`NetworkError::Conditional`]; weights that do not fit; memory.
    pub fn new(model: &Model, weights: &Weights, device: impl Into<Device>) -> Result<Self, NetworkError> {
        if model.config().is_conditional() {
            return Err(NetworkError::Conditional);
        }
        let discriminator = Discriminator::new(model, weights, device)?;
        let (width, pool, group) = (width(model), BufferPool::new(), Arc::new(SingleProcess));
        Ok(Self { discriminator, model: model.clone(), width, pool, group })
    }

    /// The same in a process of `group`: each extracts every n-th minibatch, and all of them call the same methods with
    /// the same images. Values are those of a single process.
    pub fn in_group(self, group: Arc<dyn ProcessGroup>) -> Self {
        Self { group, ..self }
    }

    /// The processes that extract together.
    pub fn group(&self) -> &dyn ProcessGroup {
        self.group.as_ref()
    }

    /// The same network with initial weights: a baseline without training. It has no batch norm statistics until
    /// [`Extractor::recalibrate`].
    ///
    /// # Errors
    /// Memory.
    pub fn random(model: &Model, seed: u64, device: impl Into<Device>) -> Result<Self, NetworkError> {
        Self::new(model, &model.initial_discriminator(seed, 0.02, 0.02), device)
    }

    /// Length of a feature vector: 16 per channel of every block; 28,672 for `imagenet32`, 7,168 for `svhn32`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Parameters and, if present, batch norm statistics.
    ///
    /// # Errors
    /// Those of the device.
    pub fn weights(&self) -> Result<Weights, NetworkError> {
        self.discriminator.weights()
    }

    /// The batch norm statistics, if present.
    pub fn statistics(&self) -> Option<&Statistics> {
        self.discriminator.network().running_stats()
    }

    /// Recalibrates batch norm on the images `rows` by the authors' procedure: minibatches of 128 in order, the last
    /// one may be smaller; layers normalize by minibatch statistics; means and biased variances are averaged with equal
    /// weights.
    ///
    /// `progress` receives the number of images read; its error ends the recalibration.
    ///
    /// # Errors
    /// An unreadable image or one of another shape; memory; a last minibatch too small for batch norm; that of
    /// `progress`.
    pub fn recalibrate(
        &mut self,
        (images, rows): (&Dataset, Range<usize>),
        progress: &mut dyn FnMut(usize) -> Result<(), ExtractError>,
    ) -> Result<(), ExtractError> {
        self.check_shape(images)?;
        let mut bytes = Vec::new();
        let Self { discriminator, model, pool, group, .. } = self;
        let mut average = AverageStatistics::default();
        let batch = |i| batch_of(&rows, i);
        let layers: Vec<Layer> = discriminator.network().layers().to_vec();
        in_turn(
            group.as_ref(),
            rows.len().div_ceil(BATCH),
            Receivers::All,
            &mut |i| -> Result<_, ExtractError> {
                read_batch(images, batch(i), &mut bytes)?;
                let x = pixels::to_maps(&bytes, model.config(), pool)?;
                Ok(flat(&discriminator.network_mut().train(&x, Keep::Nothing)?.statistics)?)
            },
            &mut |i, values| {
                average.add(statistics(&layers, values)?)?;
                progress(batch(i).end - rows.start)
            },
        )?;
        discriminator.network_mut().set_running_stats(average.finish()?);
        Ok(())
    }

    /// Recalibrates batch norm on one minibatch, u8 `(n, h, w, c)`.
    ///
    /// # Errors
    /// Memory; a batch too small for batch norm.
    pub fn recalibrate_on_batch(&mut self, bytes: &[u8]) -> Result<(), ExtractError> {
        let x = pixels::to_maps(bytes, self.model.config(), &self.pool)?;
        self.discriminator.network_mut().recalibrate([Ok::<_, ExtractError>((x, None))])
    }

    /// Feature vectors `(n, width)` of the images in `bytes`, u8 `(n, h, w, c)`.
    ///
    /// # Errors
    /// A network without statistics; memory.
    pub fn features(&mut self, bytes: &[u8]) -> Result<Vec<f32>, ExtractError> {
        let x = pixels::to_maps(bytes, self.model.config(), &self.pool)?;
        let mut features = vec![0.0; x.n() * self.width];
        // Maps are pooled on the thread that computed them. The blocks of an image come in order, so its lock is free.
        let rows: Vec<_> = features.chunks_exact_mut(self.width).map(Mutex::new).collect();
        let (mut offsets, mut end) = (Vec::new(), 0);
        for layer in self.model.discriminator_layers() {
            let MapShape { channels, height, width } = layer.output;
            offsets.push((end..end + features_of(channels), (height, width)));
            end += features_of(channels);
        }
        let pool = |block: usize, image: usize, map: &[f32]| {
            let (range, sides) = offsets[block].clone();
            let mut row = rows[image].lock().unwrap_or_else(PoisonError::into_inner);
            max_pool(map, sides, &mut row[range]);
        };
        self.discriminator.forward_with_hook(&x, &pool)?;
        drop(rows);
        Ok(features)
    }

    /// Extracts the features of the images `rows` in order and passes them to `sink` one minibatch at a time,
    /// row-major; `progress` receives the number of images done. In a group, `sink` of rank 0 alone gets them.
    ///
    /// # Errors
    /// An unreadable image or one of another shape, a feature that is not finite, the sink's error.
    pub fn extract(
        &mut self,
        (images, rows): (&Dataset, Range<usize>),
        sink: &mut dyn FnMut(&[f32]) -> Result<(), ExtractError>,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), ExtractError> {
        self.check_shape(images)?;
        let mut bytes = Vec::new();
        let group = Arc::clone(&self.group);
        let batch = |i| batch_of(&rows, i);
        let mut compute = |i| {
            read_batch(images, batch(i), &mut bytes)?;
            let features = self.features(&bytes)?;
            match features.iter().position(|value| !value.is_finite()) {
                None => Ok(features),
                Some(bad) => Err(FeaturesError::NotFinite {
                    row: batch(i).start + bad / self.width,
                    column: bad % self.width,
                    value: features[bad].to_string(),
                }
                .into()),
            }
        };
        let mut give = |i, features: &[f32]| {
            sink(features)?;
            progress(batch(i).end - rows.start);
            Ok(())
        };
        in_turn(group.as_ref(), rows.len().div_ceil(BATCH), Receivers::First, &mut compute, &mut give)
    }

    /// Extracts the features of the images `rows` into memory.
    ///
    /// # Errors
    /// As [`Extractor::extract`].
    pub fn to_memory(
        &mut self,
        (images, rows): (&Dataset, Range<usize>),
        storage: Precision,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Features, ExtractError> {
        let (len, width) = (rows.len() * self.width, self.width);
        Ok(match storage {
            Precision::F32 => {
                let mut all = Vec::with_capacity(len);
                let mut append = |rows: &[f32]| {
                    all.extend_from_slice(rows);
                    Ok(())
                };
                self.extract((images, rows), &mut append, progress)?;
                Features::from_f32(all, width)?
            }
            Precision::Bf16 => {
                let mut all = Vec::with_capacity(len);
                let mut append = |rows: &[f32]| {
                    all.extend(rows.iter().map(|&value| bf16::from_f32(value)));
                    Ok(())
                };
                self.extract((images, rows), &mut append, progress)?;
                Features::from_bf16(all, width)?
            }
        })
    }

    fn check_shape(&self, images: &Dataset) -> Result<(), ExtractError> {
        let expected = self.model.config().image_shape().into();
        if images.shape() == expected {
            return Ok(());
        }
        Err(ExtractError::Shape { expected: expected.to_string(), found: images.shape().to_string() })
    }
}

/// Minibatch `i` of the images `rows`.
fn batch_of(rows: &Range<usize>, i: usize) -> Range<usize> {
    let first = rows.start + i * BATCH;
    first..(first + BATCH).min(rows.end)
}

/// Means and variances of all layers, one after the other.
fn flat(statistics: &Statistics) -> Result<Vec<f32>, candle_core::Error> {
    let mut values = Vec::new();
    for NormStatistics { mean, var, count } in statistics.values() {
        for tensor in [mean, var] {
            values.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
        }
        // Its bits: only their bytes are sent.
        values.push(f32::from_bits(u32::try_from(*count).unwrap_or(u32::MAX)));
    }
    Ok(values)
}

/// The inverse of [`flat`].
fn statistics(layers: &[Layer], mut values: &[f32]) -> Result<Statistics, candle_core::Error> {
    let shapes: BTreeMap<&String, Vec<usize>> =
        layers.iter().filter_map(|layer| Some((&layer.name, layer.norm_shape()?))).collect();
    let mut take = |shape: &[usize]| {
        let (tensor, rest) = values.split_at(shape.iter().product());
        values = rest;
        Tensor::from_slice(tensor, shape, &candle_core::Device::Cpu)
    };
    let mut found = Statistics::new();
    for (name, shape) in shapes {
        let (mean, var) = (take(&shape)?, take(&shape)?);
        let count = take(&[1])?.to_vec1::<f32>()?[0].to_bits() as usize;
        found.insert(name.clone(), NormStatistics { mean, var, count });
    }
    Ok(found)
}

/// Length of the feature vectors of D of `model`.
pub fn width(model: &Model) -> usize {
    let blocks = &model.config().discriminator.blocks;
    blocks.iter().map(|block| features_of(block.channels)).sum()
}

/// Raw pixels as features, `(n, h w c)`, in the networks' pixel range.
///
/// # Errors
/// An unreadable image.
pub fn raw_pixels((images, rows): (&Dataset, Range<usize>), model: &Model) -> Result<Features, ExtractError> {
    let mut bytes = Vec::new();
    read_batch(images, rows, &mut bytes)?;
    let x = pixels::to_maps(&bytes, model.config(), &BufferPool::new())?;
    Ok(Features::from_f32(x.values().to_vec(), images.shape().bytes())?)
}

/// Reads the images `indices` into `bytes`, u8 `(n, h, w, c)`, decoding on all threads.
///
/// # Errors
/// The first unreadable image.
pub fn read_batch<I>(images: &Dataset, indices: I, bytes: &mut Vec<u8>) -> Result<(), DataError>
where
    I: IntoParallelIterator<Item = usize, Iter: IndexedParallelIterator>,
{
    let indices = indices.into_par_iter();
    let len = images.shape().bytes();
    bytes.resize(indices.len() * len, 0);
    indices.zip(bytes.par_chunks_mut(len)).try_for_each(|(i, into)| images.read(i, into))
}
