//! Exact nearest neighbours in Euclidean distance with references streamed in blocks.
//!
//! The paper's MNIST supplement classifies test images by the nearest of up to ten million generated images. The
//! authors' `nnc_score` and `nnd_score` (lib/metrics.py) are the accuracy of that classifier and the mean distance to
//! the nearest sample. Queries stay in memory; references are read once.
//!
//! Products `q . r` of whole blocks in f32 give the score `|r|^2 / 2 - q . r`, which orders references by distance.
//! References within the rounding error of the best score are compared again in f64, so the result equals a comparison
//! of every pair in f64, for any block size and number of threads.

use dcgan_base::matrix::{MatrixView, matmul};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Queries of a tile. The products of a tile (1 MiB) stay in the cache of one core.
const QUERIES: usize = 256;
/// References of a tile.
const REFERENCES: usize = 1024;
/// Limit of a vector's squared length: below it sums of products do not overflow f32.
const MAX_SQUARED_LENGTH: f64 = 1e37;

/// A nearest reference of a query.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Index among all references added, from 0; the first of equally distant ones.
    pub index: u64,
    /// Its label, if it has one.
    pub label: Option<u32>,
    /// Squared Euclidean distance, summed in f64.
    pub distance_squared: f64,
}

/// Invalid input of a search.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NearestError {
    /// The number of values is not a multiple of the width.
    #[error("{len} values of {what}, expected a multiple of the row width {width}")]
    Ragged {
        /// Queries or references.
        what: &'static str,
        /// Values given.
        len: usize,
        /// Values per row.
        width: usize,
    },
    /// A vector that is not finite, or so long that products overflow.
    #[error("{what} {row} has squared length {length}, expected a finite one below 1e37")]
    Length {
        /// Query or reference.
        what: &'static str,
        /// Its index, from 0.
        row: u64,
        /// Squared length as text.
        length: String,
    },
    /// Numbers of labels and vectors differ.
    #[error("{found} labels for {expected} {what}, expected one per vector")]
    Labels {
        /// Queries or references.
        what: &'static str,
        /// Vectors.
        expected: usize,
        /// Labels given.
        found: usize,
    },
    /// A neighbour without a label.
    #[error("reference {index} is the nearest of a query and has no label")]
    Unlabeled {
        /// Its index.
        index: u64,
    },
    /// Numbers of exclusions and queries differ.
    #[error("{found} exclusions for {expected} queries, expected one per query")]
    Excluded {
        /// Queries.
        expected: usize,
        /// Exclusions given.
        found: usize,
    },
    /// The state of a search of other queries.
    #[error("the stored search has {found} neighbours, expected {expected}")]
    State {
        /// Neighbours of the search.
        expected: usize,
        /// Neighbours stored.
        found: usize,
    },
    /// No query, no reference, or a neighbour count of 0.
    #[error("a search needs at least one {what}")]
    Empty {
        /// Query, reference or neighbour.
        what: &'static str,
    },
}

/// A search for the nearest references of each query.
#[derive(Debug)]
pub struct Nearest {
    queries: Vec<f32>,
    width: usize,
    /// Squared length of each query.
    lengths: Vec<f64>,
    /// Neighbours per query.
    count: usize,
    /// For each query the reference that it is not compared with: the same image.
    excluded: Vec<Option<u64>>,
    /// `count` per query, nearest first; infinite distances until references are added.
    best: Vec<Neighbour>,
    /// References added.
    references: u64,
}

impl Nearest {
    /// A search for the nearest reference of each query; `queries` are row-major, `(n, width)`.
    ///
    /// # Errors
    /// No query; a number of values that is not a multiple of `width`; a row that is not finite or longer than 3e18.
    pub fn new(queries: Vec<f32>, width: usize) -> Result<Self, NearestError> {
        let n = rows("queries", queries.len(), width)?;
        Self::k_nearest(queries, width, 1, vec![None; n])
    }

    /// A search for the `count` nearest references of each query; `excluded` has for each query the index of a
    /// reference that it is not compared with, if any.
    ///
    /// # Errors
    /// Those of [`Nearest::new`]; a count of 0; `excluded` of another length than the queries.
    pub fn k_nearest(
        queries: Vec<f32>,
        width: usize,
        count: usize,
        excluded: Vec<Option<u64>>,
    ) -> Result<Self, NearestError> {
        let n = rows("queries", queries.len(), width)?;
        if n == 0 || count == 0 {
            return Err(NearestError::Empty { what: if n == 0 { "query" } else { "neighbour" } });
        }
        if excluded.len() != n {
            return Err(NearestError::Excluded { expected: n, found: excluded.len() });
        }
        let lengths = squared_lengths("query", 0, &queries, width)?;
        let none = Neighbour { index: 0, label: None, distance_squared: f64::INFINITY };
        Ok(Self { queries, width, lengths, count, excluded, best: vec![none; n * count], references: 0 })
    }

    /// Number of queries.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there are no queries: always false.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Number of references added.
    pub fn references(&self) -> u64 {
        self.references
    }

    /// The nearest references so far, as many per query as the search looks for, and how many were added: the state of
    /// a search, for [`Nearest::restore`].
    pub fn state(&self) -> (&[Neighbour], u64) {
        (&self.best, self.references)
    }

    /// Continues a search of the same queries from its state.
    ///
    /// # Errors
    /// A state of another number of queries or neighbours.
    pub fn restore(&mut self, best: Vec<Neighbour>, references: u64) -> Result<(), NearestError> {
        if best.len() != self.best.len() {
            return Err(NearestError::State { expected: self.best.len(), found: best.len() });
        }
        (self.best, self.references) = (best, references);
        Ok(())
    }

    /// Adds references, row-major `(n, width)`, with or without labels, and compares every query with them.
    ///
    /// Blocks of a few thousand rows keep all cores busy. After an error nothing is added.
    ///
    /// # Errors
    /// A number of values that is not a multiple of the width; another number of labels than rows; a row that is not
    /// finite or longer than 3e18.
    pub fn add(&mut self, references: &[f32], labels: Option<&[u32]>) -> Result<(), NearestError> {
        let n = rows("references", references.len(), self.width)?;
        if let Some(labels) = labels
            && labels.len() != n
        {
            return Err(NearestError::Labels { what: "references", expected: n, found: labels.len() });
        }
        let lengths = squared_lengths("reference", self.references, references, self.width)?;
        let block = Block {
            values: references,
            labels,
            first: self.references,
            width: self.width,
            lengths: &lengths,
        };
        self.best
            .par_chunks_mut(QUERIES * self.count)
            .zip(self.queries.par_chunks(QUERIES * self.width))
            .zip(self.lengths.par_chunks(QUERIES))
            .zip(self.excluded.par_chunks(QUERIES))
            .for_each_init(Vec::new, |products, (((best, values), lengths), excluded)| {
                let queries = Queries { values, lengths, excluded };
                for start in (0..n).step_by(REFERENCES) {
                    block.compare(start..(start + REFERENCES).min(n), &queries, best, products);
                }
            });
        self.references += n as u64;
        Ok(())
    }

    /// The nearest reference of each query.
    ///
    /// # Errors
    /// A query without a reference to compare with.
    pub fn found(&self) -> Result<Vec<Neighbour>, NearestError> {
        let nearest = self.found_k().map(|found| found.first().copied());
        nearest.collect::<Option<_>>().ok_or(NearestError::Empty { what: "reference" })
    }

    /// The nearest references of each query, nearest first: `count` of them, or all if there are fewer.
    pub fn found_k(&self) -> impl ExactSizeIterator<Item = &[Neighbour]> {
        self.best.chunks_exact(self.count).map(|best| {
            let found = best.partition_point(|neighbour| neighbour.distance_squared.is_finite());
            &best[..found]
        })
    }
}

/// The queries of a tile.
struct Queries<'a> {
    values: &'a [f32],
    /// Squared length of each.
    lengths: &'a [f64],
    /// The excluded reference of each.
    excluded: &'a [Option<u64>],
}

/// A block of references.
struct Block<'a> {
    values: &'a [f32],
    labels: Option<&'a [u32]>,
    /// Index of the first among all references.
    first: u64,
    width: usize,
    /// Squared length of each.
    lengths: &'a [f64],
}

impl Block<'_> {
    /// Compares the references `tile` of this block with `queries` and updates `best`, their nearest so far.
    fn compare(
        &self,
        tile: Range<usize>,
        queries: &Queries<'_>,
        best: &mut [Neighbour],
        products: &mut Vec<f32>,
    ) {
        let (m, n, width) = (queries.lengths.len(), tile.len(), self.width);
        let count = best.len() / m.max(1);
        products.resize(m * n, 0.0);
        let values = &self.values[tile.start * width..tile.end * width];
        let queries_view = MatrixView::new(queries.values, m, width);
        matmul(products, queries_view, MatrixView::new(values, n, width).t(), false);
        let halves: Vec<f32> = self.lengths[tile.clone()].iter().map(|length| half(*length)).collect();
        let longest = self.lengths[tile.clone()].iter().fold(0.0, |most: f64, length| most.max(*length));
        let rows = queries.values.chunks_exact(width).zip(queries.lengths).zip(queries.excluded);
        let rows = rows.zip(best.chunks_exact_mut(count)).zip(products.chunks_exact_mut(n));
        for ((((query, length), excluded), best), products) in rows {
            let first = self.first + tile.start as u64;
            let itself = excluded.and_then(|index| usize::try_from(index.checked_sub(first)?).ok());
            if let Some(product) = itself.and_then(|i| products.get_mut(i)) {
                *product = f32::NEG_INFINITY; // infinite distance
            }
            // In exact arithmetic `half - product` is (distance^2 - |q|^2) / 2.
            let error = score_error(width, *length, longest);
            let lowest = f64::from(lowest_score(&halves, products));
            let score_to_beat = |best: &[Neighbour]| {
                best.last().map_or(f64::INFINITY, |last| (last.distance_squared - length) / 2.0)
            };
            // A score above the limit is no nearer than the last of the best so far or, with a count of 1, farther than
            // the lowest score of the tile.
            let mut limit = score_to_beat(best) + error;
            if count == 1 {
                limit = limit.min(lowest + 2.0 * error);
            }
            if lowest > limit {
                continue;
            }
            for (i, (half, product)) in halves.iter().zip(products.iter()).enumerate() {
                if f64::from(half - product) > limit || itself == Some(i) {
                    continue;
                }
                let row = tile.start + i;
                let distance_squared = distance_squared(query, &self.values[row * width..(row + 1) * width]);
                // Of equal distances the first stays.
                let rank = best.partition_point(|other| other.distance_squared <= distance_squared);
                if let Some(behind) = best.get_mut(rank..).filter(|behind| !behind.is_empty()) {
                    behind.rotate_right(1);
                    let label = self.labels.map(|labels| labels[row]);
                    behind[0] = Neighbour { index: self.first + row as u64, label, distance_squared };
                    limit = limit.min(score_to_beat(best) + error);
                }
            }
        }
    }
}

/// The bound on `|computed - exact|` of `|r|^2 / 2 - q . r` for a query and references whose squared lengths are
/// `query` and at most `reference`.
///
/// With u = 2^-24, k the width and Q, R the lengths: a sum of k products in any order, fused or not, is within `k u /
/// (1 - k u) Q R` of exact (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); rounding `|r|^2 / 2` to f32
/// adds `u R^2 / 2`, the subtraction `u (R^2 / 2 + Q R)` of nearly that. Products below f32's normal range, kept or
/// flushed to zero, add at most `2^-126` each. The last factor covers second-order terms, the lengths' own roundings
/// and those of distances in f64, all some 1e-13 relative to `(Q + R)^2`, which is why `Q^2` has a part in it.
fn score_error(width: usize, query: f64, reference: f64) -> f64 {
    let (k, u) = (width as f64, f64::from(f32::EPSILON) / 2.0);
    if k * u > 0.5 {
        return f64::INFINITY; // too wide for f32: every distance is computed in f64
    }
    let product = (query * reference).sqrt();
    let sum = k * u / (1.0 - k * u) * product;
    let rounding = u * (reference + product);
    let doubles = 4.0 * k * f64::EPSILON * (query + reference);
    (sum + rounding + doubles) * (1.0 + 1e-3) + (k + 2.0) * f64::from(f32::MIN_POSITIVE)
}

/// The lowest of `half - product`, in lanes that the compiler vectorizes.
fn lowest_score(halves: &[f32], products: &[f32]) -> f32 {
    let mut lowest = [f32::INFINITY; 32];
    let mut update = |halves: &[f32], products: &[f32]| {
        for ((lowest, half), product) in lowest.iter_mut().zip(halves).zip(products) {
            let score = half - product;
            *lowest = if score < *lowest { score } else { *lowest };
        }
    };
    let ((halves, last_halves), (products, last_products)) =
        (halves.as_chunks::<32>(), products.as_chunks::<32>());
    for (halves, products) in halves.iter().zip(products) {
        update(halves, products);
    }
    update(last_halves, last_products);
    lowest.into_iter().fold(f32::INFINITY, f32::min)
}

/// `sum (a - b)^2` in f64: exact for whole numbers such as pixels.
fn distance_squared(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    let mut add = |a: &[f32], b: &[f32]| {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            let difference = f64::from(*a) - f64::from(*b);
            *sum += difference * difference;
        }
    };
    let ((a, last_a), (b, last_b)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        add(a, b);
    }
    add(last_a, last_b);
    sums.iter().sum()
}

#[expect(clippy::cast_possible_truncation, reason = "the rounding that score_error allows for")]
fn half(length: f64) -> f32 {
    (length / 2.0) as f32
}

fn rows(what: &'static str, len: usize, width: usize) -> Result<usize, NearestError> {
    if width == 0 || !len.is_multiple_of(width) {
        return Err(NearestError::Ragged { what, len, width });
    }
    Ok(len / width)
}

fn squared_lengths(
    what: &'static str,
    first: u64,
    values: &[f32],
    width: usize,
) -> Result<Vec<f64>, NearestError> {
    let origin = vec![0.0; width];
    let lengths: Vec<f64> =
        values.par_chunks_exact(width).map(|row| distance_squared(row, &origin)).collect();
    // NaN is in no range.
    match lengths.iter().position(|length| !(0.0..MAX_SQUARED_LENGTH).contains(length)) {
        Some(row) => {
            let length = lengths[row].to_string();
            Err(NearestError::Length { what, row: first + row as u64, length })
        }
        None => Ok(lengths),
    }
}

/// Percentage of queries whose label differs from their neighbour's: 100 - the authors' `nnc_score`.
///
/// # Errors
/// Another number of labels than queries; a neighbour without a label; no query.
pub fn error_percent(neighbours: &[Neighbour], labels: &[u32]) -> Result<f64, NearestError> {
    if labels.len() != neighbours.len() {
        let (expected, found) = (neighbours.len(), labels.len());
        return Err(NearestError::Labels { what: "queries", expected, found });
    }
    let mut wrong = 0_usize;
    for (neighbour, label) in neighbours.iter().zip(labels) {
        let predicted = neighbour.label.ok_or(NearestError::Unlabeled { index: neighbour.index })?;
        wrong += usize::from(predicted != *label);
    }
    Ok(100.0 * wrong as f64 / count(neighbours)?)
}

/// Mean Euclidean distance of queries to their neighbours: the authors' `nnd_score`, in the unit of the values.
///
/// # Errors
/// No query.
pub fn mean_distance(neighbours: &[Neighbour]) -> Result<f64, NearestError> {
    let sum: f64 = neighbours.iter().map(|neighbour| neighbour.distance_squared.sqrt()).sum();
    Ok(sum / count(neighbours)?)
}

fn count(neighbours: &[Neighbour]) -> Result<f64, NearestError> {
    if neighbours.is_empty() {
        return Err(NearestError::Empty { what: "query" });
    }
    Ok(neighbours.len() as f64)
}

#[cfg(test)]
mod tests;
