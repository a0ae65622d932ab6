//! The inner products of rows: all that a fit needs where there are fewer rows than columns.
//!
//! A weight vector that solves the problem is a combination of rows, `w = Xᵀβ`, and so is every iterate. With
//! `K = X Xᵀ + 1` (the one is the intercept's column) margins are `K β` and inner products of weight vectors `βᵀ K β'`.

use super::SvmError;
use super::kernel::{LANES, Lanes, add_projection_f64};
use super::panel::{Panel, zeros};
use crate::features::Features;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows of a square of inner products that one task computes.
const SQUARE: usize = 256;
/// Columns that are widened to f64 at a time.
const DEPTH: usize = 1024;
/// Bytes of inner products above which [`Gram::new`] refuses.
const MAX_BYTES: usize = 8 << 30;

/// Inner products of rows in f64, for several fits: with other labels, other values of c, or on some of the rows.
#[derive(Clone, Debug)]
pub struct Gram {
    features: Features,
    /// rows × rows, with the intercept's 1.
    products: Arc<Vec<f64>>,
}

impl Gram {
    /// All inner products: rows² values of 8 bytes, rows² × width / 2 multiplications.
    ///
    /// # Errors
    /// No rows or columns; features that are not finite; more than 8 GiB.
    pub fn new(features: &Features) -> Result<Self, SvmError> {
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
        let mut squares: Vec<(usize, usize, Array2<f64>)> = (0..blocks)
            .flat_map(|i| (0..=i).map(move |j| (i, j)))
            .map(|(i, j)| (i, j, Array2::ones((span(i).len(), span(j).len()))))
            .collect();
        let mut wide = Vec::new();
        for start in (0..width).step_by(DEPTH) {
            let columns = start..(start + DEPTH).min(width);
            let depth = columns.len();
            wide.resize(rows * depth, 0.0);
            wide.par_chunks_mut(SQUARE * depth).enumerate().for_each_init(
                || vec![0.0; depth],
                |scratch, (block, wide)| {
                    for (row, wide) in span(block).zip(wide.chunks_exact_mut(depth)) {
                        features.copy_columns(row, columns.clone(), scratch);
                        for (wide, &value) in wide.iter_mut().zip(scratch.iter()) {
                            *wide = f64::from(value);
                        }
                    }
                },
            );
            let all =
                ArrayView2::from_shape((rows, depth), &wide).map_err(|e| SvmError::Linfa(e.to_string()))?;
            squares.par_iter_mut().for_each(|(i, j, square)| {
                let (a, b) = (all.slice(s![span(*i), ..]), all.slice(s![span(*j), ..]));
                general_mat_mul(1.0, &a, &b.t(), 1.0, square);
            });
        }
        let mut products = vec![0.0; rows * rows];
        for (i, j, square) in &squares {
            for (row, values) in span(*i).zip(square.outer_iter()) {
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
        weights[..width].par_chunks_mut(SQUARE).enumerate().for_each_init(
            Vec::new,
            |scratch, (chunk, weights)| {
                let start = chunk * SQUARE;
                scratch.resize(weights.len(), 0.0);
                for (row, coefficients) in coefficients.iter().enumerate() {
                    if *coefficients == [0.0; LANES] {
                        continue;
                    }
                    self.features.copy_columns(row, start..start + weights.len(), scratch);
                    for (weight, &value) in weights.iter_mut().zip(scratch.iter()) {
                        for lane in 0..LANES {
                            weight[lane] += coefficients[lane] * f64::from(value);
                        }
                    }
                }
            },
        );
        for coefficients in coefficients {
            for lane in 0..LANES {
                weights[width][lane] += coefficients[lane];
            }
        }
        weights
    }
}

/// `out = matrix input`, of a square matrix.
pub(super) fn multiply(matrix: &[f64], input: &[Lanes], out: &mut [Lanes]) {
    let size = input.len();
    out.par_chunks_mut(32).zip(matrix.par_chunks(32 * size)).for_each(|(out, rows)| {
        out.fill([0.0; LANES]);
        add_projection_f64(rows, size, input, out);
    });
}
