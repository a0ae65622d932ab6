//! Forgetting an object: the generator's feature maps that go with it, found and removed (paper, section 6.3.1 and figure 6).

use crate::boxes::Boxes;
use crate::json::{self, JsonError};
use crate::logistic::{self, Logistic, LogisticError};
use crate::parts::{UnknownBlock, find_block, front};
use candle_core::Tensor;
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Model, NetworkError};
use dcgan_ops::{Keep, Kind};
use rand::Rng;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// What a list of maps looks like.
const FORMAT: &str = r#"{"block": "blocks.N", "channels": C, "maps": [..]}"#;
/// Samples that go through the network at once.
const BATCH: usize = 64;

/// Feature maps of a generator's block to remove: what `ablate` finds, and a file to use again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// Name of the layer, `blocks.1` say.
    pub block: String,
    /// Feature maps that it has, by which the list knows its model.
    pub channels: usize,
    /// Those to remove, by number from 0.
    #[serde(deserialize_with = "not_empty")]
    pub maps: Vec<usize>,
}

/// Maps of a file: a list that names none would forget nothing.
fn not_empty<'de, D: Deserializer<'de>>(file: D) -> Result<Vec<usize>, D::Error> {
    let maps = Vec::deserialize(file)?;
    if maps.is_empty() { Err(D::Error::custom("names no feature map")) } else { Ok(maps) }
}

/// Why maps could not be found or removed.
#[derive(Debug, thiserror::Error)]
pub enum AblateError {
    /// A block that the generator does not have.
    #[error(transparent)]
    Block(#[from] UnknownBlock),
    /// A list of maps of another model's block.
    #[error(
        "the list is of a block {block} of {found} feature maps, that of this model has {expected}: find the maps of this model with --boxes"
    )]
    Channels {
        /// The block.
        block: String,
        /// Maps that the model's has.
        expected: usize,
        /// Maps that the list's had.
        found: usize,
    },
    /// A map that the block does not have.
    #[error("block {block} has {channels} feature maps, from 0: there is no map {map}")]
    Map {
        /// The block.
        block: String,
        /// Maps that it has.
        channels: usize,
        /// The map named.
        map: usize,
    },
    /// Boxes that leave nothing to compare with.
    #[error("the boxes cover their samples wholly: positions outside of them are needed to compare with")]
    NothingOutside,
    /// No map goes with the object.
    #[error("no feature map has a positive weight: no map of this block goes with what the boxes hold")]
    NothingFound,
    /// The regression.
    #[error(transparent)]
    Logistic(#[from] LogisticError),
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

    /// Makes the maps zero everywhere, in every sample that `generator` draws from now on: what the next layer would read of
    /// them gets weight zero. G must have its statistics, which are not to be estimated without the maps.
    ///
    /// # Errors
    /// A block or a map that G does not have; a block of another number of maps; [`NetworkError::NoStatistics`]; memory.
    pub fn remove_from(&self, generator: &mut Generator) -> Result<(), AblateError> {
        let network = &mut generator.0;
        let layers = network.executor.layers();
        let layer = find_block(layers, &self.block)?;
        let channels = layers[layer].output.channels;
        if channels != self.channels {
            let block = self.block.clone();
            return Err(AblateError::Channels { block, expected: channels, found: self.channels });
        }
        let mut removed = vec![false; channels];
        for &map in &self.maps {
            let flag = removed.get_mut(map).ok_or_else(|| AblateError::Map {
                block: self.block.clone(),
                channels,
                map,
            })?;
            *flag = true;
        }
        if network.statistics().is_none() {
            return Err(NetworkError::NoStatistics.into());
        }
        let reader = layers[layer + 1].clone(); // a hidden layer has a next one
        let [_, second, height, width] = reader.weight_shape();
        let mut weights = network.weights()?;
        if let Some(weight) = weights.get_mut(&format!("{}.weight", reader.name)) {
            for (i, value) in weight.data.iter_mut().enumerate() {
                let input = match reader.kind {
                    Kind::Conv => i / (height * width) % second,
                    Kind::ConvTranspose => i / (second * height * width),
                };
                if removed[input] {
                    *value = 0.0;
                }
            }
        }
        Ok(network.load(&weights)?)
    }
}

/// Activations of a block at single positions of samples, inside boxes and outside of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Positions {
    /// One row a position, a value for each feature map.
    pub values: Vec<f32>,
    /// Feature maps.
    pub maps: usize,
    /// Whether each row is inside a box.
    pub inside: Vec<bool>,
}

/// The activations of layer number `layer` of `generator` on the samples of the boxes: all positions inside boxes, and as many
/// random ones outside of them in the same sample (all, where there are fewer).
///
/// # Errors
/// G without statistics; boxes that cover everything; memory.
pub fn positions(
    generator: &Generator,
    layer: usize,
    model: &Model,
    boxes: &Boxes,
) -> Result<Positions, AblateError> {
    let latent = &model.config().latent;
    let shape = model.config().image_shape().into();
    let device = generator.0.executor.device();
    let mut part = front(&generator.0, layer)?;
    let (mut values, mut inside, mut maps) = (Vec::new(), Vec::new(), 0);
    for samples in boxes.samples().chunks(BATCH) {
        let draw = |&sample: &usize| {
            random::latent(&mut random::stream(boxes.seed, Purpose::SampleLatent, sample as u64), 1, latent)
        };
        let z: Vec<f32> = samples.iter().flat_map(draw).collect();
        let z = Tensor::from_vec(z, (samples.len(), latent.size, 1, 1), device)?;
        let activation = part.eval(&z, Keep::Nothing)?.output;
        let (_, channels, rows, columns) = activation.dims4()?;
        maps = channels;
        // (n, h, w, c)
        let flat = activation.permute((0, 2, 3, 1))?.flatten_all()?.to_vec1::<f32>()?;
        for (&sample, map) in samples.iter().zip(flat.chunks(rows * columns * channels)) {
            let covered = boxes.inside(sample, shape, (rows, columns));
            let (ours, mut others): (Vec<usize>, Vec<usize>) =
                (0..rows * columns).partition(|&position| covered[position]);
            let mut rng = random::stream(boxes.seed, Purpose::BackgroundPlaces, sample as u64);
            for i in 0..others.len().min(ours.len()) {
                let other = rng.random_range(i..others.len());
                others.swap(i, other);
            }
            others.truncate(ours.len());
            for (chosen, is_inside) in [(ours, true), (others, false)] {
                for position in chosen {
                    values.extend_from_slice(&map[position * channels..(position + 1) * channels]);
                    inside.push(is_inside);
                }
            }
        }
    }
    if inside.iter().all(|&inside| inside) {
        return Err(AblateError::NothingOutside);
    }
    Ok(Positions { values, maps, inside })
}

/// The maps that tell positions inside boxes from those outside, by a logistic regression: those of positive weight, or the `top`
/// ones of greatest weight among them.
///
/// # Errors
/// Positions of one side only; no map of positive weight.
pub fn find(
    positions: &Positions,
    penalty: f64,
    top: Option<usize>,
) -> Result<(Vec<usize>, Logistic), AblateError> {
    let fitted = logistic::fit(&positions.values, positions.maps, &positions.inside, penalty)?;
    let mut maps: Vec<usize> = (0..positions.maps).filter(|&map| fitted.weights[map] > 0.0).collect();
    maps.sort_by(|&a, &b| fitted.weights[b].total_cmp(&fitted.weights[a]));
    maps.truncate(top.unwrap_or(usize::MAX));
    maps.sort_unstable();
    if maps.is_empty() { Err(AblateError::NothingFound) } else { Ok((maps, fitted)) }
}
