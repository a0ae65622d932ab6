//! Nearest neighbours of test images among real or generated images: the paper's MNIST supplement and the authors'
//! `nnd_score` and `nnc_score`, at increasing numbers of references.

use crate::experiment::{ExperimentError, Subset};
use crate::extract::{ExtractError, read_batch};
use crate::nearest::{Nearest, NearestError, error_percent, mean_distance};
use crate::protocol::{ClassCounts, Progress};
use dcgan_model::pixels::PixelRange;
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Generator, Latents, Model, NetworkError};
use serde::Serialize;

/// Reference images per block.
const BLOCK: usize = 4096;
/// Minibatch size of G.
const BATCH: usize = 128;

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum NeighboursError {
    /// Images or labels.
    #[error(transparent)]
    Experiment(#[from] ExperimentError),
    /// The search.
    #[error(transparent)]
    Nearest(#[from] NearestError),
}

impl From<ExtractError> for NeighboursError {
    fn from(error: ExtractError) -> Self {
        Self::Experiment(error.into())
    }
}

impl From<NetworkError> for NeighboursError {
    fn from(error: NetworkError) -> Self {
        Self::Experiment(error.into())
    }
}

impl From<candle_core::Error> for NeighboursError {
    fn from(error: candle_core::Error) -> Self {
        NetworkError::from(error).into()
    }
}

/// Scores against the first `references` references.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// References.
    pub references: u64,
    /// Queries whose nearest reference has another label, in percent (100 - `nnc_score`); `None` without labels.
    pub error_percent: Option<f64>,
    /// Accuracy of each class in percent; empty without labels.
    pub per_class_accuracy: Vec<Option<f64>>,
    /// Mean distance to the nearest reference (`nnd_score`), in units of the pixel range.
    pub mean_distance: f64,
}

impl Score {
    /// The score in a line, for the log of a long search.
    fn line(&self) -> String {
        let error = self.error_percent.map_or_else(String::new, |error| format!("error {error:.2} %, "));
        format!("{} references: {error}mean distance {:.3}", self.references, self.mean_distance)
    }
}

/// Numbers of references to score at: powers of ten from 1,000 below `n`, and `n`.
pub fn decades(n: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = std::iter::successors(Some(1000_usize), |count| count.checked_mul(10))
        .take_while(|&count| count < n)
        .collect();
    counts.push(n);
    counts
}

/// Pixels of a subset in `range`.
fn values(subset: &Subset, range: PixelRange) -> Result<Vec<f32>, NeighboursError> {
    let mut bytes = Vec::new();
    read_batch(&subset.data, subset.rows.clone(), &mut bytes).map_err(ExtractError::from)?;
    Ok(bytes.into_iter().map(|byte| range.to_f32(byte)).collect())
}

fn score(search: &Nearest, labels: Option<&[u32]>) -> Result<Score, NeighboursError> {
    let found = search.found()?;
    let error_percent = labels.map(|labels| error_percent(&found, labels)).transpose()?;
    let per_class_accuracy = labels.map_or_else(Vec::new, |labels| {
        let class = |label: u32| label as usize;
        let labels: Vec<usize> = labels.iter().copied().map(class).collect();
        let predicted: Vec<usize> =
            found.iter().map(|neighbour| neighbour.label.map_or(usize::MAX, class)).collect();
        let mut counts_by_class = ClassCounts::for_classes(&[], &labels);
        counts_by_class.add(&predicted, &labels);
        counts_by_class.accuracy()
    });
    let mean_distance = mean_distance(&found)?;
    Ok(Score { references: search.references(), error_percent, per_class_accuracy, mean_distance })
}

/// Scores `queries` against the first images of `references`, streamed, at each of `counts` (ascending). With labels on
/// both sides the error is computed as well.
///
/// # Errors
/// An unreadable image.
pub fn score_images(
    queries: &Subset,
    references: &Subset,
    range: PixelRange,
    counts: &[usize],
    progress: &mut dyn Progress,
) -> Result<Vec<Score>, NeighboursError> {
    let labels = |subset: &Subset| -> Option<Vec<u32>> {
        subset.labels().ok()?.into_iter().map(|label| u32::try_from(label).ok()).collect()
    };
    let (query_labels, reference_labels) = (labels(queries), labels(references));
    let scored_labels = query_labels.filter(|_| reference_labels.is_some());
    let mut search = Nearest::new(values(queries, range)?, queries.data.shape().bytes())?;
    let mut scores = Vec::new();
    let mut next = 0;
    progress.begin("comparing with reference images", counts.last().copied().unwrap_or(0), "images");
    for &count in counts {
        while next < count {
            let end = (next + BLOCK).min(count);
            let block = references.with_rows(references.rows.start + next..references.rows.start + end);
            let labels = reference_labels.as_ref().map(|labels| &labels[next..end]);
            search.add(&values(&block, range)?, labels)?;
            next = end;
            progress.update(next);
        }
        let found = score(&search, scored_labels.as_deref())?;
        progress.result(&found.line());
        scores.push(found);
    }
    Ok(scores)
}

/// Scores `queries` against samples of the generator at each of `counts` (ascending). z of sample i is drawn from
/// stream i of `seed`.
///
/// # Errors
/// A generator without batch-norm statistics; memory.
pub fn score_samples(
    queries: &Subset,
    (generator, model, seed): (&mut Generator, &Model, u64),
    counts: &[usize],
    progress: &mut dyn Progress,
) -> Result<Vec<Score>, NeighboursError> {
    let width = queries.data.shape().bytes();
    let mut search = Nearest::new(values(queries, PixelRange::of(model.config().generator.output))?, width)?;
    let latent = &model.config().latent;
    let mut scores = Vec::new();
    let mut next = 0;
    progress.begin("comparing with samples", counts.last().copied().unwrap_or(0), "samples");
    for &count in counts {
        while next < count {
            let mut block = Vec::new();
            let end = (next + BLOCK).min(count);
            for first in (next..end).step_by(BATCH) {
                let n = BATCH.min(end - first);
                let z: Vec<f32> = (first..first + n)
                    .flat_map(|i| {
                        random::latent(&mut random::stream(seed, Purpose::SampleLatent, i as u64), 1, latent)
                    })
                    .collect();
                block.extend_from_slice(generator.sample(&Latents::new(z, latent.size)?)?.values());
            }
            search.add(&block, None)?;
            next = end;
            progress.update(next);
        }
        let found = score(&search, None)?;
        progress.result(&found.line());
        scores.push(found);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grow_by_decades() {
        let rows: &[(usize, &[usize])] =
            &[(10, &[10]), (1000, &[1000]), (1001, &[1000, 1001]), (60_000, &[1000, 10_000, 60_000])];
        for (n, expected) in rows {
            assert_eq!(decades(*n), *expected);
        }
    }
}
