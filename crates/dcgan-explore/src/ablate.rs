//! Forgetting an object: finds and removes the generator's feature maps that correlate with it (paper, section 6.3.1
//! and figure 6).

use crate::bounding_boxes::BoundingBoxes;
use crate::json::{self, JsonError};
use crate::logistic::{self, LogisticRegression, LogisticRegressionError};
use crate::subnetwork::{Subnetwork, UnknownBlock, find_block, layers, zero_input_channels};
use candle_core::{Device, Tensor};
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Model, NetworkError};
use dcgan_ops::Keep;
use dcgan_ops::OpsError;
use rand::Rng;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// The format of a file, for messages.
const FORMAT: &str = r#"{"block": "blocks.N", "channels": C, "maps": [..]}"#;
/// Batch size.
const BATCH: usize = 64;

/// Feature maps of a generator's block to remove: the result of `ablate`, and its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// Name of the layer, `blocks.1` say.
    pub block: String,
    /// Feature maps of the block, to detect a file of another model.
    pub channels: usize,
    /// Indices of the feature maps to remove, from 0.
    #[serde(deserialize_with = "not_empty")]
    pub maps: Vec<usize>,
}

/// Refuses a list without feature maps, which would remove nothing.
fn not_empty<'de, D: Deserializer<'de>>(file: D) -> Result<Vec<usize>, D::Error> {
    let maps = Vec::deserialize(file)?;
    if maps.is_empty() {
        Err(D::Error::custom("maps is empty, expected at least one feature map"))
    } else {
        Ok(maps)
    }
}

/// Why feature maps could not be found or removed.
#[derive(Debug, thiserror::Error)]
pub enum AblateError {
    /// A block missing in the generator.
    #[error(transparent)]
    Block(#[from] UnknownBlock),
    /// Feature maps of another model's block.
    #[error(
        "found feature maps of a block {block} with {found} feature maps, expected {expected}: find the \
         feature maps of this model with --boxes"
    )]
    Channels {
        /// The block.
        block: String,
        /// Feature maps of the model's block.
        expected: usize,
        /// Feature maps of the file's block.
        found: usize,
    },
    /// An index out of range.
    #[error("there is no map {map}: block {block} has {channels} feature maps, from 0")]
    Map {
        /// The block.
        block: String,
        /// Feature maps of the block.
        channels: usize,
        /// The index.
        map: usize,
    },
    /// No position outside the boxes.
    #[error(
        "the boxes cover their samples completely, expected positions outside of them to compare with: draw \
         smaller boxes"
    )]
    NoPositionsOutside,
    /// No feature map correlates with the object.
    #[error(
        "no feature map has a positive weight: none of this block correlates with the object in the boxes; try \
         another --block"
    )]
    NoCorrelation,
    /// The regression.
    #[error(transparent)]
    Logistic(#[from] LogisticRegressionError),
    /// The network failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl From<candle_core::Error> for AblateError {
    fn from(error: candle_core::Error) -> Self {
        Self::Network(error.into())
    }
}

impl Filters {
    /// Reads a file that `ablate --save` wrote.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn read(path: &Path) -> Result<Self, JsonError> {
        json::read(path, FORMAT)
    }

    /// Removes the feature maps from `generator`: sets the weights of the next layer for them to zero. G must have
    /// batch norm statistics, which must not be recalibrated without the feature maps.
    ///
    /// # Errors
    /// A block or a feature map missing in G; a block with another number of feature maps;
    /// `OpsError::NoStatistics`; memory.
    pub fn remove_from(&self, generator: &mut Generator) -> Result<(), AblateError> {
        let network = generator.network_mut();
        let layer = find_block(layers(network), &self.block)?;
        let channels = layers(network)[layer].output.channels;
        if channels != self.channels {
            let block = self.block.clone();
            return Err(AblateError::Channels { block, expected: channels, found: self.channels });
        }
        let mut is_removed = vec![false; channels];
        for &map in &self.maps {
            let flag = is_removed.get_mut(map).ok_or_else(|| AblateError::Map {
                block: self.block.clone(),
                channels,
                map,
            })?;
            *flag = true;
        }
        if network.running_stats().is_none() {
            return Err(NetworkError::from(OpsError::NoStatistics).into());
        }
        Ok(zero_input_channels(network, layer + 1, &is_removed)?) // a hidden layer has a next one
    }
}

/// Activations of a block at single positions of samples, inside boxes and outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Positions {
    /// A row per position, a value per feature map, row-major.
    pub values: Vec<f32>,
    /// Feature maps.
    pub channels: usize,
    /// Whether each row is inside a box.
    pub inside: Vec<bool>,
}

/// The activations of layer index `layer` of `generator` on the samples with boxes: all positions inside boxes, and as
/// many random positions outside in the same sample (all, if there are fewer).
///
/// # Errors
/// G without statistics; boxes that cover their samples completely; memory.
pub fn sample_positions(
    generator: &Generator,
    layer: usize,
    model: &Model,
    boxes: &BoundingBoxes,
) -> Result<Positions, AblateError> {
    let latent = &model.config().latent;
    let shape = model.config().image_shape().into();
    let mut lower = Subnetwork::up_to(generator.network(), layer)?;
    let (mut values, mut inside, mut channels) = (Vec::new(), Vec::new(), 0);
    for samples in boxes.samples().chunks(BATCH) {
        let draw = |&sample: &usize| {
            random::latent(&mut random::stream(boxes.seed, Purpose::SampleLatent, sample as u64), 1, latent)
        };
        let z: Vec<f32> = samples.iter().flat_map(draw).collect();
        let z = Tensor::from_vec(z, (samples.len(), latent.size, 1, 1), &Device::Cpu)?;
        let activation = lower.eval(&z, Keep::Nothing)?;
        let (_, c, rows, columns) = activation.dims4()?;
        channels = c;
        // (n, h, w, c)
        let flat = activation.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
        for (&sample, activation) in samples.iter().zip(flat.chunks(rows * columns * channels)) {
            let mask = boxes.mask(sample, shape, (rows, columns));
            let (positives, mut negatives): (Vec<usize>, Vec<usize>) =
                (0..rows * columns).partition(|&position| mask[position]);
            let mut rng = random::stream(boxes.seed, Purpose::BackgroundPlaces, sample as u64);
            for i in 0..negatives.len().min(positives.len()) {
                let other = rng.random_range(i..negatives.len());
                negatives.swap(i, other);
            }
            negatives.truncate(positives.len());
            for (positions, is_inside) in [(positives, true), (negatives, false)] {
                for position in positions {
                    values.extend_from_slice(&activation[position * channels..(position + 1) * channels]);
                    inside.push(is_inside);
                }
            }
        }
    }
    if inside.iter().all(|&inside| inside) {
        return Err(AblateError::NoPositionsOutside);
    }
    Ok(Positions { values, channels, inside })
}

/// The feature maps with positive weights in a logistic regression that separates positions inside boxes from those
/// outside, or the `top` of them with the largest weights; and the regression.
///
/// # Errors
/// Positions of one class only; no feature map with a positive weight.
pub fn find_feature_maps(
    positions: &Positions,
    penalty: f64,
    top: Option<usize>,
) -> Result<(Vec<usize>, LogisticRegression), AblateError> {
    let regression = logistic::fit(&positions.values, positions.channels, &positions.inside, penalty)?;
    let mut maps: Vec<usize> = (0..positions.channels).filter(|&map| regression.weights[map] > 0.0).collect();
    maps.sort_by(|&a, &b| regression.weights[b].total_cmp(&regression.weights[a]));
    maps.truncate(top.unwrap_or(usize::MAX));
    maps.sort_unstable();
    if maps.is_empty() { Err(AblateError::NoCorrelation) } else { Ok((maps, regression)) }
}
