//! The inner products of rows, which suffice for a fit with fewer rows than columns.
//!
//! The optimal weights and all iterates are linear combinations of rows, `w = Xᵀβ`. With `K = X Xᵀ + 1` (1 is the
//! intercept's column) margins are `K β` and inner products of weight vectors are `βᵀ K β'`.

use crate::SvmError;
use crate::features::Features;
use crate::kernel::{LANES, Lanes, add_product_f64, add_transposed_product_wide};
use crate::panel::{Panel, zeros};
use dcgan_base::matrix::{Element, MatrixView, matmul};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Rows of a block of inner products per task.
const BLOCK: usize = 256;
/// Columns per matrix product.
const DEPTH: usize = 1024;
/// Limit of the rounding error of f32 sums, relative to `1 / 2c`.
const SINGLE: f64 = 1e-4;
/// Memory limit of [`Gram::new`] in bytes.
const MAX_BYTES: usize = 8 << 30;

/// Inner products of rows in f64, shared by fits with different labels, values of c, or selections of rows.
#[derive(Clone, Debug)]
pub struct Gram {
    features: Features,
    /// rows × rows, with the intercept's 1.
    products: Arc<Vec<f64>>,
}

/// Maximum number of rows of [`Gram::pays`].
const MAX_ROWS: usize = 4096;

impl Gram {
    /// Whether fits are faster with inner products: fewer rows than columns, and at most 4,096 rows.
    pub fn pays(features: &Features) -> bool {
        features.len() < features.width() && features.len() <= MAX_ROWS
    }

    /// Computes all inner products: rows² values of 8 bytes, rows² × width / 2 multiplications.
    ///
    /// # Errors
    /// No rows or columns; features that are not finite; more than 8 GiB.
    pub fn new(features: &Features) -> Result<Self, SvmError> {
        Self::build(features, false)
    }

    /// Computes inner products for fits with a `c` up to `largest`: in f32, at twice the speed, if its rounding error
    /// is far below the `1 / 2c` that the fits add to the diagonal.
    ///
    /// # Errors
    /// As [`Gram::new`].
    pub fn up_to(features: &Features, largest: f64) -> Result<Self, SvmError> {
        let mut row = vec![0.0; features.width()];
        let mut square = |index: usize| -> f64 {
            features.copy_row(index, &mut row);
            row.iter().map(|&value| f64::from(value).powi(2)).sum()
        };
        // The norms of a sample of rows.
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
        let blocks = rows.div_ceil(BLOCK);
        let span = |block: usize| block * BLOCK..((block + 1) * BLOCK).min(rows);
        // The lower triangle, in blocks.
        let mut squares: Vec<(usize, usize, Vec<f64>)> = (0..blocks)
            .flat_map(|i| (0..=i).map(move |j| (i, j)))
            .map(|(i, j)| (i, j, vec![1.0; span(i).len() * span(j).len()]))
            .collect();
        for start in (0..width).step_by(DEPTH) {
            let columns = start..(start + DEPTH).min(width);
            if single {
                let values = copy_columns(features, &columns, |value| value);
                add_blocks(&values, columns.len(), span, &mut squares);
            } else {
                let values = copy_columns(features, &columns, f64::from);
                add_blocks(&values, columns.len(), span, &mut squares);
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
        // A value that is not finite makes the squared norm of its row not finite.
        if (0..rows).any(|row| !products[row * rows + row].is_finite()) {
            features.check_finite()?;
        }
        Ok(Self { features: features.clone(), products: Arc::new(products) })
    }

    /// The given rows, in the given order; rows may repeat. Products are copied.
    ///
    /// # Panics
    /// If a row does not exist, as in [`Features::select`].
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

    /// Inner products, including the intercept's 1.
    pub(super) fn products(&self) -> &[f64] {
        &self.products
    }

    /// Weights of row coefficients, the intercept last.
    pub(super) fn weights(&self, coefficients: &[Lanes]) -> Panel {
        let width = self.features.width();
        let mut weights = zeros(width + 1);
        let mut scratch = Vec::new();
        for (block, coefficients) in coefficients.chunks(BLOCK).enumerate() {
            let rows = block * BLOCK..block * BLOCK + coefficients.len();
            let values = self.features.block(rows, &mut scratch);
            weights[..width].par_chunks_mut(BLOCK).enumerate().for_each(|(chunk, weights)| {
                add_transposed_product_wide(&values[chunk * BLOCK..], width, coefficients, weights);
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

/// Copies columns of all rows.
fn copy_columns<T: Element + Default + Send + Sync>(
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

/// Adds the inner products of rows of `depth` values to blocks, each of two spans of rows.
fn add_blocks<T: Element + Default + Into<f64> + Send + Sync>(
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
        matmul(&mut part, block(*i), block(*j).t(), false);
        square.iter_mut().zip(part).for_each(|(sum, value)| *sum += value.into());
    });
}

/// `out = matrix input` for a square matrix.
pub(super) fn multiply(matrix: &[f64], input: &[Lanes], out: &mut [Lanes]) {
    let size = input.len();
    out.par_chunks_mut(32).zip(matrix.par_chunks(32 * size)).for_each(|(out, rows)| {
        out.fill([0.0; LANES]);
        add_product_f64(rows, size, input, out);
    });
}
