//! The real images nearest to samples, in pixels and in D's features: whether a generator memorized its training
//! images.

use dcgan_data::Dataset;
use dcgan_features::extract::{BATCH, ExtractError, Extractor, read_batch};
use dcgan_features::nearest::{Nearest, NearestError, Neighbour};
use dcgan_model::pixels::PixelRange;

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// Images, or the network.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// Features that are not finite: the network is damaged.
    #[error(transparent)]
    Nearest(#[from] NearestError),
}

/// Images to search the neighbours of.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// The images, u8 `(n, h, w, c)`.
    pub images: &'a [u8],
    /// For each image the index of the reference to leave out: Some(i) for an image that is reference i itself.
    pub excluded: &'a [Option<u64>],
}

/// The nearest references of each query, in the order of the queries, the nearest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// By pixels, in the value range of the networks.
    pub pixels: Vec<Vec<Neighbour>>,
    /// By D's features.
    pub features: Vec<Vec<Neighbour>>,
}

/// The `count` images among the first `limit` of `dataset` that are nearest to each of `queries`. `progress` is called
/// with the number of references searched.
///
/// # Errors
/// An image that cannot be read or has another shape than the network's; no query; a network without statistics or with
/// features that are not finite; memory.
pub fn nearest(
    extractor: &mut Extractor,
    (dataset, limit): (&Dataset, usize),
    queries: Queries<'_>,
    range: PixelRange,
    count: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Neighbours, NeighboursError> {
    let to_f32 = |bytes: &[u8]| -> Vec<f32> { bytes.iter().map(|byte| range.to_f32(*byte)).collect() };
    let (len, width) = (dataset.shape().bytes(), extractor.width());
    let Queries { images, excluded } = queries;
    let mut features = Vec::with_capacity(excluded.len() * width);
    for batch in images.chunks(BATCH * len.max(1)) {
        features.extend(extractor.features(batch)?);
    }
    let mut by_pixels = Nearest::k_nearest(to_f32(images), len, count, excluded.to_vec())?;
    let mut by_features = Nearest::k_nearest(features, width, count, excluded.to_vec())?;
    let (mut bytes, limit) = (Vec::new(), limit.min(dataset.len()));
    for first in (0..limit).step_by(BATCH) {
        let end = (first + BATCH).min(limit);
        read_batch(dataset, first..end, &mut bytes).map_err(ExtractError::from)?;
        by_pixels.add(&to_f32(&bytes), None)?;
        by_features.add(&extractor.features(&bytes)?, None)?;
        progress(end);
    }
    let neighbours = |search: Nearest| search.found_k().map(<[_]>::to_vec).collect();
    Ok(Neighbours { pixels: neighbours(by_pixels), features: neighbours(by_features) })
}
