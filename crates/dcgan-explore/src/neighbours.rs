//! The real images nearest to samples, in pixels and in D's features: whether a generator draws images that it has seen.

use dcgan_data::Dataset;
use dcgan_features::extract::{BATCH, ExtractError, Extractor, read};
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

/// What a search found for some images, the same order in both, the nearest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// By pixels, in the range that the networks see.
    pub pixels: Vec<Vec<Neighbour>>,
    /// By D's features.
    pub features: Vec<Vec<Neighbour>>,
}

/// The `count` images among the first `among` of `data` that are nearest to each of `queries`, u8 `(n, h, w, c)`; a query that is
/// image i of the data has `excluded` Some(i). `progress` hears how many images are done.
///
/// # Errors
/// An image that cannot be read or has another shape than the network's; no query; a network without statistics or with features
/// that are not finite; memory.
pub fn search(
    extractor: &mut Extractor,
    (data, among): (&Dataset, usize),
    (queries, excluded): (&[u8], &[Option<u64>]),
    range: PixelRange,
    count: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<Found, NeighboursError> {
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.iter().map(|byte| range.to_f32(*byte)).collect() };
    let (len, width) = (data.shape().bytes(), extractor.width());
    let mut features = Vec::with_capacity(excluded.len() * width);
    for batch in queries.chunks(BATCH * len.max(1)) {
        features.extend(extractor.features(batch)?);
    }
    let mut by_pixels = Nearest::several(values(queries), len, count, excluded.to_vec())?;
    let mut by_features = Nearest::several(features, width, count, excluded.to_vec())?;
    let (mut bytes, among) = (Vec::new(), among.min(data.len()));
    for first in (0..among).step_by(BATCH) {
        let end = (first + BATCH).min(among);
        read(data, first..end, &mut bytes).map_err(ExtractError::from)?;
        by_pixels.add(&values(&bytes), None)?;
        by_features.add(&extractor.features(&bytes)?, None)?;
        progress(end);
    }
    let found = |search: Nearest| search.found_several().map(<[_]>::to_vec).collect();
    Ok(Found { pixels: found(by_pixels), features: found(by_features) })
}
