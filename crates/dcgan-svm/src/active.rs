//! Newton's method with the inner products of the rows within the margin, if these are few.
//!
//! With the active set A of rows within the margin, the minimum of the quadratic is `w = X_Aᵀ β` with
//! `(I / 2c + X_A X_Aᵀ) β = y_A`. A step factors an |A| x |A| matrix, and a few steps reach the optimum. Inner products
//! are kept from step to step.

use crate::dense::{Dense, project};
use crate::dual;
use crate::factor::{factor, solve_factored};
use crate::features::Features;
use crate::kernel::{LANES, Lanes};
use crate::newton::Problem;
use crate::panel::{Panel, zeros};
use crate::search;
use dcgan_base::matrix::{MatrixView, matmul};
use rayon::prelude::*;

/// Maximum size of an active set; its inner products take 8 bytes per pair.
pub(super) const MAX_ROWS: usize = 3072;

/// Maximum number of steps; a good start needs three or four.
const MAX_STEPS: usize = 12;

/// Rows of a block of inner products per task, and columns that are summed in f32.
const BLOCK: usize = 256;
const DEPTH: usize = 1024;

/// State of the class of one lane.
struct Lane {
    signs: Vec<f64>,
    margins: Vec<f64>,
    /// Rows with stored inner products, and those products, a square matrix.
    stored: Vec<usize>,
    products: Vec<f64>,
    square: f64,
    done: bool,
}

/// Newton steps from `weights` until every step reduces its objective by less than the tolerance, or an active set has
/// more than [`MAX_ROWS`] rows; returns weights, lower bounds of the objectives, and the number of steps.
pub(super) fn solve(
    dense: &mut Dense<'_>,
    problem: &Problem<'_>,
    weights: Panel,
    on_step: &mut dyn FnMut(usize),
) -> (Panel, Lanes, usize) {
    let features = dense.features();
    let rows = features.len();
    let mut weights = weights;
    let margins = project(features, &weights);
    let lane = |(lane, &positive): (usize, &u32)| Lane {
        signs: problem.labels.iter().map(|&label| if label == positive { 1.0 } else { -1.0 }).collect(),
        margins: margins.iter().map(|row| row[lane]).collect(),
        stored: Vec::new(),
        products: Vec::new(),
        square: weights.iter().map(|row| row[lane] * row[lane]).sum(),
        done: false,
    };
    let mut lanes: Vec<Lane> = problem.positives.iter().enumerate().map(lane).collect();
    let (mut bounds, mut steps) = (problem.bounds, 0);
    while steps < MAX_STEPS && lanes.iter().any(|lane| !lane.done) {
        let mut coefficients = zeros(rows);
        for (index, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.done) {
            let within = lane.within();
            if within.len() > MAX_ROWS {
                return (weights, bounds, steps);
            }
            lane.add_rows(features, &within);
            for (row, value) in within.iter().zip(lane.solution(&within, problem.c)) {
                coefficients[*row][index] = value;
            }
        }
        let targets = dense.transposed_product(&coefficients);
        let dual_bounds = dual::bounds(&coefficients, &targets, problem.c);
        for (index, lane) in lanes.iter().enumerate().filter(|(_, lane)| !lane.done) {
            // β is feasible in the dual if no α = y β is negative, as at the correct A.
            if coefficients.iter().zip(&lane.signs).all(|(row, sign)| row[index] * sign >= 0.0) {
                bounds[index] = bounds[index].max(dual_bounds[index]);
            }
        }
        let outputs = project(dense.features(), &targets);
        let mut step = [0.0; LANES];
        let moves: Vec<f64> =
            lanes
                .par_iter_mut()
                .enumerate()
                .map(|(index, lane)| {
                    if lane.done {
                        0.0
                    } else {
                        lane.line_search(problem, index, &weights, &targets, &outputs)
                    }
                })
                .collect();
        step[..moves.len()].copy_from_slice(&moves);
        weights.par_iter_mut().zip(&targets).with_min_len(1024).for_each(|(weights, target)| {
            for lane in 0..LANES {
                weights[lane] += step[lane] * (target[lane] - weights[lane]);
            }
        });
        steps += 1;
        on_step(steps);
    }
    (weights, bounds, steps)
}

impl Lane {
    /// Rows within the margin.
    fn within(&self) -> Vec<usize> {
        (0..self.signs.len()).filter(|&row| self.signs[row] * self.margins[row] < 1.0).collect()
    }

    /// Stores the inner products of new rows.
    fn add_rows(&mut self, features: &Features, within: &[usize]) {
        let mut is_stored = vec![false; features.len()];
        self.stored.iter().for_each(|&row| is_stored[row] = true);
        let new: Vec<usize> = within.iter().copied().filter(|&row| !is_stored[row]).collect();
        if self.stored.len() + new.len() > 2 * MAX_ROWS {
            // Start over: most stored rows are not active.
            (self.stored, self.products) = (Vec::new(), Vec::new());
            return self.add_rows(features, within);
        }
        let before = self.stored.len();
        let all: Vec<usize> = self.stored.iter().chain(&new).copied().collect();
        let fresh = inner_products(features, &new, &all);
        let size = all.len();
        let mut products = vec![0.0; size * size];
        for (row, old) in self.products.chunks_exact(before.max(1)).enumerate().take(before) {
            products[row * size..row * size + before].copy_from_slice(old);
        }
        for (i, values) in fresh.chunks_exact(size.max(1)).enumerate().take(new.len()) {
            let row = before + i;
            products[row * size..(row + 1) * size].copy_from_slice(values);
            values.iter().enumerate().for_each(|(column, &value)| products[column * size + row] = value);
        }
        (self.stored, self.products) = (all, products);
    }

    /// β of the rows `within`, which must be stored.
    fn solution(&self, within: &[usize], c: f64) -> Vec<f64> {
        let mut position = vec![0; self.signs.len()];
        self.stored.iter().enumerate().for_each(|(i, &row)| position[row] = i);
        let size = within.len();
        let mut matrix = Vec::with_capacity(size * size);
        for (i, &row) in within.iter().enumerate() {
            let products = &self.products[position[row] * self.stored.len()..][..self.stored.len()];
            matrix.extend(within.iter().map(|&column| products[position[column]]));
            matrix[i * size + i] += 0.5 / c;
        }
        factor(&mut matrix, size);
        let mut solution: Vec<f64> = within.iter().map(|&row| self.signs[row]).collect();
        solve_factored(&matrix, &mut solution);
        solution
    }

    /// Moves margins to the minimum on the line to the target; returns the step length.
    fn line_search(
        &mut self,
        problem: &Problem<'_>,
        index: usize,
        weights: &Panel,
        targets: &Panel,
        outputs: &Panel,
    ) -> f64 {
        let (mut wd, mut dd) = (0.0, 0.0);
        for (weight, target) in weights.iter().zip(targets) {
            let change = target[index] - weight[index];
            wd += weight[index] * change;
            dd += change * change;
        }
        let change: Vec<f64> =
            outputs.iter().zip(&self.margins).map(|(output, margin)| output[index] - margin).collect();
        let points: Vec<(f64, f64)> = self
            .signs
            .iter()
            .zip(self.margins.iter().zip(&change))
            .map(|(sign, (margin, change))| (sign * margin, sign * change))
            .collect();
        let loss: f64 = points.iter().map(|(margin, _)| (1.0 - margin).max(0.0).powi(2)).sum();
        let objective = 0.5 * self.square + problem.c * loss;
        let t = search::minimizer(problem.c, wd, dd, &points);
        let gain = search::gain(problem.c, wd, dd, &points, t);
        self.square += 2.0 * t * wd + t * t * dd;
        self.margins.iter_mut().zip(&change).for_each(|(margin, change)| *margin += t * change);
        self.done = gain <= problem.tolerance * (objective - gain);
        t
    }
}

/// `x_i · x_j + 1` for each of `rows` and each of `columns`: (rows, columns).
fn inner_products(features: &Features, rows: &[usize], columns: &[usize]) -> Vec<f64> {
    let width = features.width();
    let mut out = vec![1.0; rows.len() * columns.len()];
    let copy = |chosen: &[usize], span: std::ops::Range<usize>| {
        let mut values = vec![0.0; chosen.len() * span.len()];
        values.par_chunks_mut(span.len()).zip(chosen).for_each(|(out, &row)| {
            features.copy_columns(row, span.clone(), out);
        });
        values
    };
    for start in (0..width).step_by(DEPTH) {
        let span = start..(start + DEPTH).min(width);
        let (a, b) = (copy(rows, span.clone()), copy(columns, span.clone()));
        out.par_chunks_mut(BLOCK * columns.len().max(1)).enumerate().for_each(|(strip, out)| {
            let height = out.len() / columns.len();
            let a = MatrixView::new(&a[strip * BLOCK * span.len()..], height, span.len());
            let mut square = vec![0.0; height * columns.len()];
            matmul(&mut square, a, MatrixView::new(&b, columns.len(), span.len()).t(), false);
            out.iter_mut().zip(square).for_each(|(out, value)| *out += f64::from(value));
        });
    }
    out
}
