//! Nearest neighbours of test images among real or generated images: the paper's MNIST supplement and the authors'
//! `nnd_score` and `nnc_score`, at increasing numbers of references.

use crate::cache::Cache;
use crate::experiment::{ExperimentError, Subset, config_sha256, hex, weights_sha256};
use crate::extract::{ExtractError, read_batch};
use crate::nearest::{NearestError, Neighbour, error_percent, mean_distance};
use crate::pixel_search::PixelSearch;
use crate::protocol::{ClassCounts, Progress};
use dcgan_model::pixels::PixelRange;
use dcgan_model::random::{self, Purpose};
use dcgan_model::{Classes, Generator, Latents, Model, NetworkError, pixels};
use dcgan_ops::Keep;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

/// Reference images per block.
const BLOCK: usize = 4096;
/// Time between two writes of a search's state to the cache.
const STORE_INTERVAL: Duration = Duration::from_secs(20);
/// Size of a minibatch whose own statistics batch norm uses: that of the authors.
const MINIBATCH: usize = 128;
/// Samples of a forward pass with running statistics, and most values of their largest feature map.
const BATCH: usize = 256;
const BATCH_VALUES: usize = 1 << 24;

/// Batch norm statistics of G when samples are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleStatistics {
    /// The running ones: a sample depends on its z and class alone.
    #[default]
    Running,
    /// Those of minibatches of 128 samples of all classes, as in the authors' script. Their noise adds variety.
    Minibatch,
}

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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// References.
    pub references: u64,
    /// Queries whose nearest reference has another label, in percent (100 - `nnc_score`); `None` without labels.
    pub error_percent: Option<f64>,
    /// Accuracy of each class in percent; empty without labels.
    pub per_class_accuracy: Vec<Option<f64>>,
    /// Mean distance to the nearest reference (`nnd_score`), in units of the pixel range.
    pub mean_distance: f64,
    /// Seconds of the search so far, without interruptions.
    #[serde(default)]
    pub seconds: f64,
}

impl Score {
    /// The score in a line, for the log of a long search.
    fn line(&self) -> String {
        let error = self.error_percent.map_or_else(String::new, |error| format!("error {error:.2} %, "));
        format!("{} references: {error}mean distance {:.3}", self.references, self.mean_distance)
    }
}

impl Score {
    /// Half the width of the 95 % interval of the error over `queries` test images (binomial), in percent.
    pub fn interval95(&self, queries: usize) -> Option<f64> {
        let error = self.error_percent? / 100.0;
        Some(196.0 * (error * (1.0 - error) / queries as f64).sqrt())
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

/// Pixels of a subset.
fn bytes_of(subset: &Subset) -> Result<Vec<u8>, NeighboursError> {
    let mut bytes = Vec::new();
    read_batch(&subset.data, subset.rows.clone(), &mut bytes).map_err(ExtractError::from)?;
    Ok(bytes)
}

/// Distance in `range` of two pixels that differ by one byte.
fn step_of(range: PixelRange) -> f64 {
    match range {
        PixelRange::Symmetric => 1.0 / 127.5,
        PixelRange::Unit => 1.0 / 255.0,
    }
}

fn score(search: &PixelSearch, labels: Option<&[u32]>, step: f64) -> Result<Score, NeighboursError> {
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
    let mean_distance = step * mean_distance(&found)?;
    let references = search.references();
    Ok(Score { references, error_percent, per_class_accuracy, mean_distance, seconds: 0.0 })
}

/// Scores `queries` against images of `references`, streamed, at each of `counts` (ascending). The references are
/// compared in a fixed random order, so that a part of a dataset that is sorted by class has all classes. With labels
/// on both sides the error is computed as well. An interrupted search continues from the folder `cache`.
///
/// # Errors
/// An unreadable image.
pub fn score_images(
    queries: &Subset,
    references: &Subset,
    range: PixelRange,
    counts: &[usize],
    (cache, progress): (Option<&Path>, &mut dyn Progress),
) -> Result<Vec<Score>, NeighboursError> {
    let labels = |subset: &Subset| -> Option<Vec<u32>> {
        subset.labels().ok()?.into_iter().map(|label| u32::try_from(label).ok()).collect()
    };
    let (query_labels, reference_labels) = (labels(queries), labels(references));
    let scored_labels = query_labels.filter(|_| reference_labels.is_some());
    let origin = json!({
        "search": "images, bytes",
        "queries": [queries.cache_key(), query_hash(scored_labels.as_deref())],
        "references": [references.cache_key(), query_hash(reference_labels.as_deref())],
        "order": "random",
        "range": format!("{range:?}"),
    });
    let search = PixelSearch::new(&bytes_of(queries)?, queries.data.shape().bytes())?;
    let mut search = Search::new(search, step_of(range), counts, (cache, origin))?;
    progress.begin("comparing with reference images", counts.last().copied().unwrap_or(0), "images");
    let rng = &mut random::stream(0, Purpose::ComparedImages, 0);
    let order = random::choose(rng, references.rows.len(), references.rows.len());
    let mut block = |positions: Range<usize>| {
        let rows = &order[positions];
        let labels = reference_labels.as_ref().map(|labels| rows.iter().map(|&row| labels[row]).collect());
        let mut bytes = Vec::new();
        let indices = rows.par_iter().map(|row| references.rows.start + row);
        read_batch(&references.data, indices, &mut bytes).map_err(ExtractError::from)?;
        Ok((bytes, labels))
    };
    search.run(scored_labels.as_deref(), &mut block, progress)
}

/// The samples to compare with.
#[derive(Debug)]
pub struct Samples<'a> {
    /// G, with batch norm statistics.
    pub generator: &'a mut Generator,
    /// Its model.
    pub model: &'a Model,
    /// z of sample i is drawn from stream i of this seed. A conditional model draws its classes in turn.
    pub seed: u64,
    /// Batch norm statistics of G.
    pub statistics: SampleStatistics,
    /// Unit of distances.
    pub range: PixelRange,
}

/// Scores `queries` against samples of the generator, rounded to bytes, at each of `counts` (ascending). With `labels`
/// of the queries, numbered as the classes of the model, the error is computed as well. Samples are drawn in blocks:
/// any number takes the same memory. An interrupted search continues from the folder `cache`.
///
/// # Errors
/// Memory; labels for a model without classes.
pub fn score_samples(
    queries: &Subset,
    labels: Option<&[u32]>,
    samples: Samples<'_>,
    counts: &[usize],
    (cache, progress): (Option<&Path>, &mut dyn Progress),
) -> Result<Vec<Score>, NeighboursError> {
    let Samples { generator, model, seed, statistics, range } = samples;
    let search = PixelSearch::new(&bytes_of(queries)?, queries.data.shape().bytes())?;
    let origin = json!({
        "search": "samples, bytes",
        "statistics": statistics,
        "range": format!("{range:?}"),
        "queries": [queries.cache_key(), query_hash(labels)],
        "config_sha256": config_sha256(model),
        "weights_sha256": weights_sha256(&generator.weights()?),
        "seed": seed,
    });
    let mut search = Search::new(search, step_of(range), counts, (cache, origin))?;
    let classes = model.config().classes;
    progress.begin("comparing with samples", counts.last().copied().unwrap_or(0), "samples");
    let mut block = |rows: Range<usize>| {
        let labels = rows.clone().map(|i| Classes::InTurn.of(i, classes)).collect();
        let bytes = draw_blocks(generator, model, (seed, statistics), rows)?;
        Ok((bytes, (classes > 0).then_some(labels)))
    };
    search.run(labels, &mut block, progress)
}

/// The samples `rows` of `seed`, drawn in the whole batches that they belong to: a sample does not depend on `rows`.
fn draw_blocks(
    generator: &mut Generator,
    model: &Model,
    (seed, statistics): (u64, SampleStatistics),
    rows: Range<usize>,
) -> Result<Vec<u8>, NeighboursError> {
    let config = model.config();
    let (height, width, channels) = config.image_shape();
    let len = height * width * channels;
    let batch = match statistics {
        SampleStatistics::Minibatch => MINIBATCH,
        SampleStatistics::Running => {
            let largest = model.generator_layers().iter().map(|layer| layer.output.len()).max().unwrap_or(1);
            (BATCH_VALUES / largest.max(1)).clamp(16, BATCH)
        }
    };
    let begin = rows.start / batch * batch;
    let mut bytes = Vec::new();
    for first in (begin..rows.end).step_by(batch) {
        let drawn = (seed, Purpose::SampleLatent);
        let latents = Latents::of_range(drawn, first..first + batch, config, Classes::InTurn)?;
        let images = match statistics {
            SampleStatistics::Running => generator.sample(&latents)?,
            SampleStatistics::Minibatch => generator.train(&latents, Keep::Nothing)?.output,
        };
        bytes.extend(pixels::to_bytes(images.values(), config));
    }
    Ok(bytes[(rows.start - begin) * len..(rows.end - begin) * len].to_vec())
}

/// SHA-256 of labels, which may be numbered by another dataset.
fn query_hash(labels: Option<&[u32]>) -> Option<String> {
    labels.map(|labels| hex(&labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<_>>()))
}

/// Pixels of a block of references `(n, width)`, and their labels.
type References = (Vec<u8>, Option<Vec<u32>>);

/// A search whose state is stored in the cache now and then.
struct Search<'a> {
    nearest: PixelSearch,
    /// Distance of two pixels that differ by one byte, in the unit of distances.
    step: f64,
    /// Numbers of references to score at, ascending.
    counts: &'a [usize],
    /// Scores so far, also at other numbers: those of earlier searches with more or fewer references.
    scores: Vec<Score>,
    /// Seconds of earlier parts of the search.
    seconds: f64,
    cache: Option<Cache<'a>>,
    /// All that the search depends on but for the number of references.
    origin: Value,
}

/// The score at `count` references.
fn score_at(scores: &[Score], count: usize) -> Option<&Score> {
    scores.iter().find(|score| score.references == count as u64)
}

/// The stored state of a search.
#[derive(Deserialize)]
struct State {
    references: u64,
    best: Vec<Neighbour>,
    scores: Vec<Score>,
    seconds: f64,
}

impl<'a> Search<'a> {
    /// A search that continues from the cache where it has its state. If the stored search went past one of `counts`
    /// without a score there, the search starts from the first reference and leaves the cache as it is.
    fn new(
        mut nearest: PixelSearch,
        step: f64,
        counts: &'a [usize],
        (cache, origin): (Option<&'a Path>, Value),
    ) -> Result<Self, NeighboursError> {
        let mut cache = cache.map(|folder| Cache { folder });
        let (mut scores, mut seconds) = (Vec::new(), 0.0);
        if let Some(state) = cache.as_ref().and_then(|cache| cache.value::<State>(&origin)) {
            let is_past = |&&count: &&usize| {
                (count as u64) < state.references && score_at(&state.scores, count).is_none()
            };
            if let Some(count) = counts.iter().find(is_past) {
                tracing::info!(
                    "the stored search of {} references has no score at {count}: searching again, without the cache",
                    state.references
                );
                cache = None;
            } else {
                nearest.restore(state.best, state.references)?;
                (scores, seconds) = (state.scores, state.seconds);
            }
        }
        Ok(Self { nearest, step, counts, scores, seconds, cache, origin })
    }

    /// Adds references block by block; scores at each of the numbers.
    fn run(
        &mut self,
        labels: Option<&[u32]>,
        block: &mut dyn FnMut(Range<usize>) -> Result<References, NeighboursError>,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Score>, NeighboursError> {
        let mut next = usize::try_from(self.nearest.references()).unwrap_or(usize::MAX);
        let (started, before) = (Instant::now(), self.seconds);
        let mut stored = Instant::now();
        let mut found = Vec::with_capacity(self.counts.len());
        for &count in self.counts {
            if let Some(stored) = score_at(&self.scores, count) {
                found.push(stored.clone());
                continue;
            }
            while next < count {
                let end = (next + BLOCK).min(count);
                let (values, labels) = block(next..end)?;
                self.nearest.add(&values, labels.as_deref())?;
                next = end;
                progress.update(next);
                self.seconds = before + started.elapsed().as_secs_f64();
                if stored.elapsed() >= STORE_INTERVAL {
                    self.store()?;
                    stored = Instant::now();
                }
            }
            let score = Score { seconds: self.seconds, ..score(&self.nearest, labels, self.step)? };
            progress.result(&score.line());
            self.scores.push(score.clone());
            found.push(score);
            self.store()?;
        }
        Ok(found)
    }

    fn store(&self) -> Result<(), NeighboursError> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let (best, references) = self.nearest.state();
        let state = json!({ "references": references, "best": best, "scores": self.scores,
            "seconds": self.seconds });
        Ok(cache.store(&self.origin, &state).map_err(ExperimentError::from)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::NoProgress;

    #[test]
    fn counts_grow_by_decades() {
        let rows: &[(usize, &[usize])] =
            &[(10, &[10]), (1000, &[1000]), (1001, &[1000, 1001]), (60_000, &[1000, 10_000, 60_000])];
        for (n, expected) in rows {
            assert_eq!(decades(*n), *expected);
        }
    }

    #[test]
    fn a_search_continues_from_its_state() {
        let folder = tempfile::tempdir().unwrap();
        let value = |i: usize| (i.wrapping_mul(2_654_435_761) >> 9).to_le_bytes()[0];
        let queries: Vec<u8> = (100..120).map(value).collect();
        let all = [BLOCK, 2 * BLOCK, 3 * BLOCK + 5];
        let run_to = |counts: &[usize], cache: Option<&Path>, blocks: usize| {
            let search = PixelSearch::new(&queries, 4).unwrap();
            let mut search = Search::new(search, 1.0, counts, (cache, json!("x"))).unwrap();
            let mut called = 0;
            let mut block = |rows: Range<usize>| {
                called += 1;
                if called > blocks {
                    return Err(NearestError::Empty { what: "block" }.into());
                }
                let values = rows.clone().flat_map(|row| (0..4).map(move |i| value(row * 4 + i))).collect();
                Ok((values, Some(rows.map(|row| u32::try_from(row % 3).unwrap()).collect())))
            };
            let scores = search.run(Some(&[0, 1, 2, 0, 1]), &mut block, &mut NoProgress);
            // Without the times.
            let scores = scores.ok().map(|scores| {
                scores.into_iter().map(|score| Score { seconds: 0.0, ..score }).collect::<Vec<_>>()
            });
            (scores, called)
        };
        let run = |cache: Option<&Path>, blocks: usize| run_to(&all, cache, blocks);
        let (whole, called) = run(None, usize::MAX);
        assert_eq!(called, 4);
        // Interrupted in the third block, after the second score.
        assert!(run(Some(folder.path()), 2).0.is_none());
        assert_eq!(run(Some(folder.path()), usize::MAX), (whole.clone(), 2));
        assert_eq!(run(Some(folder.path()), 0), (whole.clone(), 0), "complete");
        let whole = whole.unwrap();
        for (counts, blocks, what) in [
            (&all[..2], 0, "fewer references"),
            (&[BLOCK, 4 * BLOCK][..], 1, "more references"),
            (&all[..], 0, "after more references"),
            (&[BLOCK, BLOCK + 1][..], 2, "no score there: without the cache"),
            (&all[..], 0, "the cache is as it was"),
        ] {
            let (scores, called) = run_to(counts, Some(folder.path()), usize::MAX);
            let scores = scores.unwrap();
            assert_eq!((scores.len(), called), (counts.len(), blocks), "{what}");
            for (score, &count) in scores.iter().zip(counts) {
                let expected = whole.iter().find(|score| score.references == count as u64);
                assert!(
                    score.references == count as u64 && expected.is_none_or(|expected| expected == score),
                    "{what}"
                );
            }
        }
    }
}
