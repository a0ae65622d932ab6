//! The inner products of rows: all that a fit needs where there are fewer rows than columns.
//!
//! A weight vector that solves the problem is a combination of rows, `w = Xᵀβ`, and so is every iterate. With
//! `K = X Xᵀ + 1` (the one is the intercept's column) margins are `K β` and inner products of weight vectors `βᵀ K β'`.

use crate::SvmError;
use crate::features::Features;
use crate::kernel::{Element, MatrixView, matmul};
use crate::kernel::{LANES, Lanes, add_projection_f64, add_wide_collection};
use crate::panel::{Panel, zeros};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a square of inner products that one task computes.
const SQUARE: usize = 256;
/// Columns that are multiplied at a time.
const DEPTH: usize = 1024;
/// Rounding of f32 sums that is allowed, as a share of `1 / 2c`.
const SINGLE: f64 = 1e-4;
/// Bytes of inner products above which [`Gram::new`] refuses.
const MAX_BYTES: usize = 8 << 30;

/// Inner products of rows in f64, for several fits: with other labels, other values of c, or on some of the rows.
#[derive(Clone, Debug)]
pub struct Gram {
    features: Features,
    /// rows × rows, with the intercept's 1.
    products: Arc<Vec<f64>>,
}

/// Rows up to which inner products are taken unasked.
const MAX_ROWS: usize = 4096;

impl Gram {
    /// Whether fits are faster from inner products: there are fewer rows than columns, and at most 4,096.
    pub fn pays(features: &Features) -> bool {
        features.len() < features.width() && features.len() <= MAX_ROWS
    }

    /// All inner products: rows² values of 8 bytes, rows² × width / 2 multiplications.
    ///
    /// # Errors
    /// No rows or columns; features that are not finite; more than 8 GiB.
    pub fn new(features: &Features) -> Result<Self, SvmError> {
        Self::build(features, false)
    }

    /// Inner products for fits with a `c` up to `largest`: summed in f32, in twice the speed, where what rounding adds to the
    /// diagonal is far below the `1 / 2c` that the fits add.
    ///
    /// # Errors
    /// As [`Gram::new`].
    pub fn up_to(features: &Features, largest: f64) -> Result<Self, SvmError> {
        let mut row = vec![0.0; features.width()];
        let mut square = |index: usize| -> f64 {
            features.copy_row(index, &mut row);
            row.iter().map(|&value| f64::from(value).powi(2)).sum()
        };
        // Some of the rows tell how long they are.
        let sample = (0..features.len()).step_by(features.len().div_ceil(64).max(1));
        let longest = sample.map(&mut square).fold(1.0, f64::max);
        Self::build(features, f64::from(f32::EPSILON) * longest * 2.0 * largest < SINGLE)
    }

    fn build(features: &Features, single: bool) -> Result<Self, SvmError> {
        let (rows, width) = (features.len(), features.width());
        if rows == 0 || width == 0 {
            return Err(SvmError::Empty { rows, width });
        }
        let needed_bytes = rows.saturating_mul(rows).saturating_mul(8);
        if needed_bytes > MAX_BYTES {
            return Err(SvmError::TooManyRows { rows, needed_bytes, limit_bytes: MAX_BYTES });
        }
        let blocks = rows.div_ceil(SQUARE);
        let span = |block: usize| block * SQUARE..((block + 1) * SQUARE).min(rows);
        // The lower triangle, in squares.
        let mut squares: Vec<(usize, usize, Vec<f64>)> = (0..blocks)
            .flat_map(|i| (0..=i).map(move |j| (i, j)))
            .map(|(i, j)| (i, j, vec![1.0; span(i).len() * span(j).len()]))
            .collect();
        for start in (0..width).step_by(DEPTH) {
            let columns = start..(start + DEPTH).min(width);
            if single {
                let values = gather(features, &columns, |value| value);
                add_squares(&values, columns.len(), span, &mut squares);
            } else {
                let values = gather(features, &columns, f64::from);
                add_squares(&values, columns.len(), span, &mut squares);
            }
        }
        let mut products = vec![0.0; rows * rows];
        for (i, j, square) in &squares {
            for (row, values) in span(*i).zip(square.chunks_exact(span(*j).len())) {
                for (column, &value) in span(*j).zip(values) {
                    products[row * rows + column] = value;
                    products[column * rows + row] = value;
                }
            }
        }
        // A value that is not finite shows in its row's product with itself.
        if (0..rows).any(|row| !products[row * rows + row].is_finite()) {
            features.check_finite()?;
        }
        Ok(Self { features: features.clone(), products: Arc::new(products) })
    }

    /// The given rows among these, in the order given; a row may come twice. Nothing is computed again.
    ///
    /// # Panics
    /// Where a row does not exist: a mistake of the caller, as in [`Features::select`].
    pub fn select(&self, rows: &[usize]) -> Self {
        let size = self.features.len();
        let features = self.features.select(rows);
        let chosen =
            |row: &usize| rows.iter().map(|column| self.products[row * size + column]).collect::<Vec<_>>();
        Self { features, products: Arc::new(rows.iter().flat_map(chosen).collect()) }
    }

    /// The rows.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Inner products, the intercept's 1 among them.
    pub(super) fn products(&self) -> &[f64] {
        &self.products
    }

    /// Weights, the intercept last, that `coefficients` of rows stand for.
    pub(super) fn weights(&self, coefficients: &[Lanes]) -> Panel {
        let width = self.features.width();
        let mut weights = zeros(width + 1);
        let mut scratch = Vec::new();
        for (block, coefficients) in coefficients.chunks(SQUARE).enumerate() {
            let rows = block * SQUARE..block * SQUARE + coefficients.len();
            let values = self.features.block(rows, &mut scratch);
            weights[..width].par_chunks_mut(SQUARE).enumerate().for_each(|(chunk, weights)| {
                add_wide_collection(&values[chunk * SQUARE..], width, coefficients, weights);
            });
        }
        for coefficients in coefficients {
            for lane in 0..LANES {
                weights[width][lane] += coefficients[lane];
            }
        }
        weights
    }
}

/// Some columns of all rows.
fn gather<T: Element + Default + Send + Sync>(
    features: &Features,
    columns: &Range<usize>,
    convert: impl Fn(f32) -> T + Sync,
) -> Vec<T> {
    let mut out = vec![T::default(); features.len() * columns.len()];
    let rows = out.par_chunks_mut(columns.len()).enumerate();
    rows.for_each_init(Vec::new, |scratch, (row, out)| {
        scratch.resize(columns.len(), 0.0);
        features.copy_columns(row, columns.clone(), scratch);
        out.iter_mut().zip(scratch.iter()).for_each(|(out, &value)| *out = convert(value));
    });
    out
}

/// Adds the inner products of rows of `depth` values to squares, each of two spans of rows.
fn add_squares<T: Element + Default + Into<f64> + Send + Sync>(
    values: &[T],
    depth: usize,
    span: impl Fn(usize) -> Range<usize> + Sync,
    squares: &mut [(usize, usize, Vec<f64>)],
) {
    let block = |i: usize| {
        let rows = span(i);
        MatrixView::new(&values[rows.start * depth..rows.end * depth], rows.len(), depth)
    };
    squares.par_iter_mut().for_each(|(i, j, square)| {
        let mut part = vec![T::default(); square.len()];
        matmul(&mut part, block(*i), block(*j).t());
        square.iter_mut().zip(part).for_each(|(sum, value)| *sum += value.into());
    });
}

/// `out = matrix input`, of a square matrix.
pub(super) fn multiply(matrix: &[f64], input: &[Lanes], out: &mut [Lanes]) {
    let size = input.len();
    out.par_chunks_mut(32).zip(matrix.par_chunks(32 * size)).for_each(|(out, rows)| {
        out.fill([0.0; LANES]);
        add_projection_f64(rows, size, input, out);
    });
}
