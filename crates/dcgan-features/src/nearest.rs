//! Exact nearest neighbours in Euclidean distance, the references streamed in blocks.
//!
//! The paper's MNIST supplement classifies the test pictures by the nearest of up to ten million generated ones; the
//! authors' `nnc_score` and `nnd_score` (lib/metrics.py) are the accuracy of such a classifier and the mean distance to
//! the nearest sample. Queries stay in memory, references pass by once.
//!
//! Products `q . r` of whole blocks in f32 give `|r|^2 / 2 - q . r`, which orders references as their distance does.
//! What its rounding error could hide is computed again in f64 from the differences, so the result is that of
//! comparing every pair in f64 one after the other, whatever the sizes of blocks and the number of threads.

use dcgan_ops::{MatrixView, matmul};
use rayon::prelude::*;
use std::ops::Range;

/// Queries whose products one thread computes at a time. A tile of products (1 MiB) stays in its cache.
const QUERIES: usize = 256;
/// References of a tile.
const REFERENCES: usize = 1024;
/// Squared length of the longest vector taken: below it no sum of products overflows f32, which ends at 3.4e38.
const MAX_SQUARED_LENGTH: f64 = 1e37;

/// The reference nearest to a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its number among all references added, from 0; the earliest of those equally near.
    pub index: u64,
    /// Its label, where it came with one.
    pub label: Option<u32>,
    /// Square of the Euclidean distance, summed in f64.
    pub distance_squared: f64,
}

/// What a search cannot take or answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NearestError {
    /// The values do not fill whole rows.
    #[error("{len} values of {what} do not make rows of {width}")]
    Ragged {
        /// Queries or references.
        what: &'static str,
        /// Values given.
        len: usize,
        /// Values of a row.
        width: usize,
    },
    /// A vector that is not finite, or so long that products overflow.
    #[error("{what} {row} has squared length {length}, expected a finite one below 1e37")]
    Length {
        /// Query or reference.
        what: &'static str,
        /// Its number, from 0.
        row: u64,
        /// As printed.
        length: String,
    },
    /// Not one label a vector.
    #[error("{found} labels for {expected} {what}")]
    Labels {
        /// Queries or references.
        what: &'static str,
        /// Vectors.
        expected: usize,
        /// Labels given.
        found: usize,
    },
    /// A neighbour that came without a label.
    #[error("reference {index} came without a label, and a query is nearest to it")]
    Unlabelled {
        /// Its number.
        index: u64,
    },
    /// Nothing to be near to, or no query.
    #[error("a search needs at least one {what}")]
    Nothing {
        /// Query or reference.
        what: &'static str,
    },
}

/// A search for the nearest reference of each query.
#[derive(Debug)]
pub struct Nearest {
    queries: Vec<f32>,
    width: usize,
    /// Squared length of each query.
    lengths: Vec<f64>,
    best: Vec<Neighbour>,
    /// References added.
    references: u64,
}

impl Nearest {
    /// A search for rows of `width` values, one after the other in `queries`.
    ///
    /// # Errors
    /// No query; values that do not fill rows; a row that is not finite or longer than 3e18.
    pub fn new(queries: Vec<f32>, width: usize) -> Result<Self, NearestError> {
        let n = rows("queries", queries.len(), width)?;
        if n == 0 {
            return Err(NearestError::Nothing { what: "query" });
        }
        let lengths = squared_lengths("query", 0, &queries, width)?;
        let none = Neighbour { index: 0, label: None, distance_squared: f64::INFINITY };
        Ok(Self { queries, width, lengths, best: vec![none; n], references: 0 })
    }

    /// Queries.
    pub fn len(&self) -> usize {
        self.best.len()
    }

    /// Whether there is no query: never.
    pub fn is_empty(&self) -> bool {
        self.best.is_empty()
    }

    /// References added so far.
    pub fn references(&self) -> u64 {
        self.references
    }

    /// Compares every query with more references: rows like the queries', and a label each where they have labels.
    ///
    /// A block of a few thousand rows keeps all cores busy. After an error nothing has been added.
    ///
    /// # Errors
    /// Values that do not fill rows; not one label a row; a row that is not finite or longer than 3e18.
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
            .par_chunks_mut(QUERIES)
            .zip(self.queries.par_chunks(QUERIES * self.width))
            .zip(self.lengths.par_chunks(QUERIES))
            .for_each_init(Vec::new, |products, ((best, queries), lengths)| {
                for start in (0..n).step_by(REFERENCES) {
                    block.compare(start..(start + REFERENCES).min(n), queries, lengths, best, products);
                }
            });
        self.references += n as u64;
        Ok(())
    }

    /// The nearest reference of each query.
    ///
    /// # Errors
    /// No reference was added.
    pub fn found(&self) -> Result<&[Neighbour], NearestError> {
        if self.references == 0 {
            return Err(NearestError::Nothing { what: "reference" });
        }
        Ok(&self.best)
    }
}

/// References on their way past the queries.
struct Block<'a> {
    values: &'a [f32],
    labels: Option<&'a [u32]>,
    /// Number of the first among all references.
    first: u64,
    width: usize,
    /// Squared length of each.
    lengths: &'a [f64],
}

impl Block<'_> {
    /// Compares the references `tile` of this block with `queries`.
    fn compare(
        &self,
        tile: Range<usize>,
        queries: &[f32],
        lengths: &[f64],
        best: &mut [Neighbour],
        products: &mut Vec<f32>,
    ) {
        let (m, n, width) = (best.len(), tile.len(), self.width);
        products.resize(m * n, 0.0);
        let values = &self.values[tile.start * width..tile.end * width];
        let queries_view = MatrixView::new(queries, m, width);
        matmul(products, queries_view, MatrixView::new(values, n, width).t(), false);
        let halves: Vec<f32> = self.lengths[tile.clone()].iter().map(|length| half(*length)).collect();
        let longest = self.lengths[tile.clone()].iter().fold(0.0, |most: f64, length| most.max(*length));
        let rows = queries.chunks_exact(width).zip(lengths).zip(best).zip(products.chunks_exact(n));
        for (((query, length), best), products) in rows {
            // In exact numbers `half - product` is (distance^2 - |q|^2) / 2.
            let error = score_error(width, *length, longest);
            let lowest = f64::from(lowest_score(&halves, products));
            let to_beat = (best.distance_squared - length) / 2.0;
            // Whatever scores above this is farther than the lowest or no nearer than the best so far.
            let limit = (lowest + 2.0 * error).min(to_beat + error);
            if lowest > limit {
                continue;
            }
            for (i, (half, product)) in halves.iter().zip(products).enumerate() {
                if f64::from(half - product) > limit {
                    continue;
                }
                let row = tile.start + i;
                let distance_squared = distance_squared(query, &self.values[row * width..(row + 1) * width]);
                // Only a smaller one replaces: the earliest stays.
                if distance_squared < best.distance_squared {
                    let label = self.labels.map(|labels| labels[row]);
                    *best = Neighbour { index: self.first + row as u64, label, distance_squared };
                }
            }
        }
    }
}

/// The bound on `|computed - exact|` of `|r|^2 / 2 - q . r` for a query and references whose squared lengths are
/// `query` and at most `reference`.
///
/// With u = 2^-24, k the width and Q, R the lengths: a sum of k products in any order, fused or not, is within
/// `k u / (1 - k u) Q R` of exact (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); rounding `|r|^2 / 2` to
/// f32 adds `u R^2 / 2`, the subtraction `u (R^2 / 2 + Q R)` of nearly that. Products below f32's normal range, kept or
/// flushed to zero, add at most `2^-126` each. The last factor covers second-order terms, the lengths' own roundings
/// and those of distances in f64, all some 1e-13 relative to `(Q + R)^2`, which is why `Q^2` has a part in it.
fn score_error(width: usize, query: f64, reference: f64) -> f64 {
    let (k, u) = (width as f64, f64::from(f32::EPSILON) / 2.0);
    if k * u > 0.5 {
        return f64::INFINITY; // so wide that f32 tells nothing: all is computed in f64
    }
    let product = (query * reference).sqrt();
    let sum = k * u / (1.0 - k * u) * product;
    let rounding = u * (reference + product);
    let doubles = 4.0 * k * f64::EPSILON * (query + reference);
    (sum + rounding + doubles) * (1.0 + 1e-3) + (k + 2.0) * f64::from(f32::MIN_POSITIVE)
}

/// The lowest of `half - product`, in lanes that the compiler turns into vector instructions.
fn lowest_score(halves: &[f32], products: &[f32]) -> f32 {
    let mut lowest = [f32::INFINITY; 32];
    let mut meet = |halves: &[f32], products: &[f32]| {
        for ((lowest, half), product) in lowest.iter_mut().zip(halves).zip(products) {
            let score = half - product;
            *lowest = if score < *lowest { score } else { *lowest };
        }
    };
    let ((halves, last_halves), (products, last_products)) =
        (halves.as_chunks::<32>(), products.as_chunks::<32>());
    for (halves, products) in halves.iter().zip(products) {
        meet(halves, products);
    }
    meet(last_halves, last_products);
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
    // A length that is NaN lies in no range.
    match lengths.iter().position(|length| !(0.0..MAX_SQUARED_LENGTH).contains(length)) {
        Some(row) => {
            let length = lengths[row].to_string();
            Err(NearestError::Length { what, row: first + row as u64, length })
        }
        None => Ok(lengths),
    }
}

/// Percentage of queries whose neighbour has another label than they: 100 - the authors' `nnc_score`.
///
/// # Errors
/// Not one label a query; a neighbour without label; no query.
pub fn error_percent(neighbours: &[Neighbour], labels: &[u32]) -> Result<f64, NearestError> {
    if labels.len() != neighbours.len() {
        let (expected, found) = (neighbours.len(), labels.len());
        return Err(NearestError::Labels { what: "queries", expected, found });
    }
    let mut wrong = 0_usize;
    for (neighbour, label) in neighbours.iter().zip(labels) {
        let given = neighbour.label.ok_or(NearestError::Unlabelled { index: neighbour.index })?;
        wrong += usize::from(given != *label);
    }
    Ok(100.0 * wrong as f64 / some(neighbours)?)
}

/// Mean Euclidean distance of the queries to their neighbours: the authors' `nnd_score`, in the unit of the values.
///
/// # Errors
/// No query.
pub fn mean_distance(neighbours: &[Neighbour]) -> Result<f64, NearestError> {
    let sum: f64 = neighbours.iter().map(|neighbour| neighbour.distance_squared.sqrt()).sum();
    Ok(sum / some(neighbours)?)
}

fn some(neighbours: &[Neighbour]) -> Result<f64, NearestError> {
    if neighbours.is_empty() {
        return Err(NearestError::Nothing { what: "query" });
    }
    Ok(neighbours.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every pair in f64, one after the other.
    fn brute_force(queries: &[f32], references: &[f32], width: usize) -> Vec<(u64, f64)> {
        let nearest = |query: &[f32]| {
            let mut best = (0, f64::INFINITY);
            for (index, reference) in (0..).zip(references.chunks_exact(width)) {
                let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
                let distance: f64 = query.iter().zip(reference).map(square).sum();
                if distance < best.1 {
                    best = (index, distance);
                }
            }
            best
        };
        queries.chunks_exact(width).map(nearest).collect()
    }

    /// The search with blocks of the sizes of `cuts` in turn on `threads` threads; a reference's label is its index.
    fn search(queries: &[f32], references: &[f32], width: usize, cuts: &[usize], threads: usize) -> Nearest {
        let mut nearest = Nearest::new(queries.to_vec(), width).unwrap();
        let mut add = || {
            let (mut rest, mut cuts) = (references, cuts.iter().cycle());
            while !rest.is_empty() {
                let (block, after) = rest.split_at(rest.len().min(cuts.next().unwrap() * width));
                let n = u32::try_from(block.len() / width).unwrap();
                let first = u32::try_from(nearest.references()).unwrap();
                nearest.add(block, Some(&(first..first + n).collect::<Vec<_>>())).unwrap();
                rest = after;
            }
        };
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(&mut add);
        nearest
    }

    fn check(queries: &[f32], references: &[f32], width: usize, cuts: &[usize]) {
        let expected = brute_force(queries, references, width);
        for threads in [1, 2] {
            let nearest = search(queries, references, width, cuts, threads);
            let found = nearest.found().unwrap();
            assert_eq!(found.len(), expected.len());
            for (i, (found, (index, distance))) in found.iter().zip(&expected).enumerate() {
                let seen = (found.index, found.label.map(u64::from), found.distance_squared);
                assert_eq!(seen, (*index, Some(*index), *distance), "query {i}, {threads} threads");
            }
        }
    }

    /// Whole numbers times `step` around `offset`: their distances are exact in f64 in any order of summation.
    fn values(n: usize, around: i32, spread: i32) -> impl Strategy<Value = Vec<f32>> {
        let step = prop_oneof![Just(1.0_f32), Just(1.0 / 128.0)];
        (prop::collection::vec(around - spread..=around + spread, n), step)
            .prop_map(|(values, step)| values.into_iter().map(|value| value as f32 * step).collect())
    }

    /// Queries, references, width and sizes of blocks. Few values of few columns make many ties; far from 0 the
    /// products in f32 tell little of the distances.
    fn problems() -> impl Strategy<Value = (Vec<f32>, Vec<f32>, usize, Vec<usize>)> {
        let shape = (1..6_usize, 1..90_usize, 1..40_usize);
        let kind = prop_oneof![Just((0, 1)), Just((127, 127)), Just((60_000, 3)), Just((-60_000, 60_000))];
        (shape, kind).prop_flat_map(|((m, n, width), (around, spread))| {
            let cuts = prop::collection::vec(1..40_usize, 1..4);
            let all = values((m + n) * width, around, spread);
            (all, cuts).prop_map(move |(all, cuts)| {
                let (queries, references) = all.split_at(m * width);
                (queries.to_vec(), references.to_vec(), width, cuts)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn as_by_brute_force((queries, references, width, cuts) in problems()) {
            check(&queries, &references, width, &cuts);
        }
    }

    #[test]
    fn more_queries_and_references_than_a_tile_holds() {
        let mut state = 1_u32;
        let mut pixel = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 30) as f32
        };
        let width = 7; // 4^7 vectors: most of these queries have several nearest
        let queries: Vec<f32> = (0..(QUERIES + 3) * width).map(|_| pixel()).collect();
        let references: Vec<f32> = (0..(2 * REFERENCES + 5) * width).map(|_| pixel()).collect();
        check(&queries, &references, width, &[2 * REFERENCES + 5]);
        check(&queries, &references, width, &[REFERENCES + 1, 1, 17]);
    }

    /// Vectors far from 0 and 1e-3 apart: in f32 the products of all are the same but for rounding.
    #[test]
    fn what_f32_cannot_tell_apart() {
        let row = |i: u32| [4096.0, 4096.0, (i as f32).mul_add(1.0 / 1024.0, 4096.0)];
        let references: Vec<f32> = (0..64).rev().flat_map(row).collect();
        let queries: Vec<f32> = (0..64).flat_map(row).collect();
        check(&queries, &references, 3, &[64]);
        check(&queries, &references, 3, &[5]);
        // Near the ends of f32: tiny squares vanish in f32, large ones nearly overflow.
        for scale in [1e-30, 1e14] {
            let scaled = |values: &[f32]| values.iter().map(|v| v * scale).collect::<Vec<f32>>();
            let (queries, references) = (scaled(&queries), scaled(&references));
            let expected = brute_force(&queries, &references, 3);
            let nearest = search(&queries, &references, 3, &[9], 1);
            let indices = nearest.found().unwrap().iter().map(|found| found.index);
            assert!(indices.eq(expected.iter().map(|(index, _)| *index)), "scale {scale}");
        }
    }

    #[test]
    fn scores() {
        let mut nearest = Nearest::new(vec![0.0, 0.0, 10.0, 0.0], 2).unwrap();
        nearest.add(&[3.0, 4.0, 9.0, 0.0], Some(&[7, 8])).unwrap();
        let found = nearest.found().unwrap();
        assert_eq!(mean_distance(found).unwrap(), 3.0);
        assert_eq!(error_percent(found, &[7, 8]).unwrap(), 0.0);
        assert_eq!(error_percent(found, &[7, 1]).unwrap(), 50.0);
        nearest.add(&[], None).unwrap();
        nearest.add(&[0.0, 1.0], None).unwrap();
        let found = nearest.found().unwrap();
        assert_eq!(found[0], Neighbour { index: 2, label: None, distance_squared: 1.0 });
        assert_eq!(error_percent(found, &[7, 8]), Err(NearestError::Unlabelled { index: 2 }));
        assert!(error_percent(found, &[7]).is_err());
        assert!(mean_distance(&[]).is_err() && error_percent(&[], &[]).is_err());
    }

    #[test]
    fn searches_that_cannot_be() {
        let refused = |queries: &[f32], width| Nearest::new(queries.to_vec(), width).unwrap_err();
        assert_eq!(refused(&[], 2), NearestError::Nothing { what: "query" });
        assert_eq!(refused(&[1.0], 0), NearestError::Ragged { what: "queries", len: 1, width: 0 });
        let length = |what, row, length: &str| NearestError::Length { what, row, length: length.into() };
        assert_eq!(refused(&[1.0, f32::NAN], 1), length("query", 1, "NaN"));
        let mut nearest = Nearest::new(vec![0.0, 0.0], 2).unwrap();
        assert_eq!(nearest.found(), Err(NearestError::Nothing { what: "reference" }));
        nearest.add(&[2.0, 0.0], Some(&[1])).unwrap();
        let labels = NearestError::Labels { what: "references", expected: 1, found: 2 };
        for (values, labels, fault) in [
            (&[1.0][..], None, NearestError::Ragged { what: "references", len: 1, width: 2 }),
            (&[1.0, 1.0], Some(&[3, 4][..]), labels),
            (&[1.0, 0.0, f32::INFINITY, 0.0], None, length("reference", 2, "inf")),
        ] {
            assert_eq!(nearest.add(values, labels), Err(fault));
        }
        // A refused block has left nothing behind.
        assert_eq!((nearest.references(), nearest.found().unwrap()[0].index), (1, 0));
        assert_eq!(nearest.found().unwrap()[0].distance_squared, 4.0);
    }
}
