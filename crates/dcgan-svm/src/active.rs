//! Newton's method by factors of the inner products of the rows within the margin, for starts where these are few.
//!
//! On the piece of the objective where A is the set of rows within the margin, the lowest point is `w = X_Aᵀ β` with
//! `(I / 2c + X_A X_Aᵀ) β = y_A`, so a step costs a factor of |A| x |A| whatever the number of rows and columns, and a
//! few steps end at the optimum. Inner products of rows that were within the margin before are kept from step to step.

use crate::dense::{Dense, project};
use crate::dual;
use crate::factor::{factor, solve_factored};
use crate::features::Features;
use crate::kernel::{LANES, Lanes};
use crate::kernel::{MatrixView, matmul};
use crate::newton::Problem;
use crate::panel::{Panel, zeros};
use crate::search;
use rayon::prelude::*;

/// Rows within the margin of a class up to which this pays and its inner products fit: 8 bytes for each two of them.
pub(super) const MAX_ROWS: usize = 3072;

/// Steps; a good start needs three or four.
const MAX_STEPS: usize = 12;

/// Rows of a square of inner products that one task computes, and columns that are summed in f32 at a time.
const SQUARE: usize = 256;
const DEPTH: usize = 1024;

/// The class of one lane.
struct Lane {
    signs: Vec<f64>,
    margins: Vec<f64>,
    /// Rows whose inner products are known, and those products, square.
    known: Vec<usize>,
    products: Vec<f64>,
    square: f64,
    done: bool,
}

/// Steps from `weights` until a step lowers an objective by less than the tolerance, for as long as no class has more than
/// [`MAX_ROWS`] rows within the margin; returns weights, what no objective can be below, and steps.
pub(super) fn solve(
    space: &mut Dense<'_>,
    problem: &Problem<'_>,
    weights: Panel,
    observe: &mut dyn FnMut(usize),
) -> (Panel, Lanes, usize) {
    let features = space.features();
    let rows = features.len();
    let mut weights = weights;
    let margins = project(features, &weights);
    let lane = |(lane, &positive): (usize, &u32)| Lane {
        signs: problem.labels.iter().map(|&label| if label == positive { 1.0 } else { -1.0 }).collect(),
        margins: margins.iter().map(|row| row[lane]).collect(),
        known: Vec::new(),
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
            lane.learn(features, &within);
            for (row, value) in within.iter().zip(lane.solution(&within, problem.c)) {
                coefficients[*row][index] = value;
            }
        }
        let targets = space.collect(&coefficients);
        let found = dual::bounds(&coefficients, &targets, problem.c);
        for (index, lane) in lanes.iter().enumerate().filter(|(_, lane)| !lane.done) {
            // β is a point of the dual where no α = y β is negative, as it is when A is right.
            if coefficients.iter().zip(&lane.signs).all(|(row, sign)| row[index] * sign >= 0.0) {
                bounds[index] = bounds[index].max(found[index]);
            }
        }
        let images = project(space.features(), &targets);
        let mut step = [0.0; LANES];
        let moves: Vec<f64> = lanes
            .par_iter_mut()
            .enumerate()
            .map(
                |(index, lane)| {
                    if lane.done { 0.0 } else { lane.walk(problem, index, &weights, &targets, &images) }
                },
            )
            .collect();
        step[..moves.len()].copy_from_slice(&moves);
        weights.par_iter_mut().zip(&targets).with_min_len(1024).for_each(|(weights, target)| {
            for lane in 0..LANES {
                weights[lane] += step[lane] * (target[lane] - weights[lane]);
            }
        });
        steps += 1;
        observe(steps);
    }
    (weights, bounds, steps)
}

impl Lane {
    /// Rows within the margin.
    fn within(&self) -> Vec<usize> {
        (0..self.signs.len()).filter(|&row| self.signs[row] * self.margins[row] < 1.0).collect()
    }

    /// Takes in the inner products of rows that are new.
    fn learn(&mut self, features: &Features, within: &[usize]) {
        let mut is_known = vec![false; features.len()];
        self.known.iter().for_each(|&row| is_known[row] = true);
        let new: Vec<usize> = within.iter().copied().filter(|&row| !is_known[row]).collect();
        if self.known.len() + new.len() > 2 * MAX_ROWS {
            // Begin anew: more is remembered than is used.
            (self.known, self.products) = (Vec::new(), Vec::new());
            return self.learn(features, within);
        }
        let before = self.known.len();
        let all: Vec<usize> = self.known.iter().chain(&new).copied().collect();
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
        (self.known, self.products) = (all, products);
    }

    /// β of the rows `within`, all of them known.
    fn solution(&self, within: &[usize], c: f64) -> Vec<f64> {
        let mut place = vec![0; self.signs.len()];
        self.known.iter().enumerate().for_each(|(i, &row)| place[row] = i);
        let size = within.len();
        let mut matrix = Vec::with_capacity(size * size);
        for (i, &row) in within.iter().enumerate() {
            let products = &self.products[place[row] * self.known.len()..][..self.known.len()];
            matrix.extend(within.iter().map(|&column| products[place[column]]));
            matrix[i * size + i] += 0.5 / c;
        }
        factor(&mut matrix, size);
        let mut solution: Vec<f64> = within.iter().map(|&row| self.signs[row]).collect();
        solve_factored(&matrix, &mut solution);
        solution
    }

    /// Moves margins to the lowest point on the way to the target; returns how far that is.
    fn walk(
        &mut self,
        problem: &Problem<'_>,
        index: usize,
        weights: &Panel,
        targets: &Panel,
        images: &Panel,
    ) -> f64 {
        let (mut wd, mut dd) = (0.0, 0.0);
        for (weight, target) in weights.iter().zip(targets) {
            let change = target[index] - weight[index];
            wd += weight[index] * change;
            dd += change * change;
        }
        let change: Vec<f64> =
            images.iter().zip(&self.margins).map(|(image, margin)| image[index] - margin).collect();
        let points: Vec<(f64, f64)> = self
            .signs
            .iter()
            .zip(self.margins.iter().zip(&change))
            .map(|(sign, (margin, change))| (sign * margin, sign * change))
            .collect();
        let loss: f64 = points.iter().map(|(margin, _)| (1.0 - margin).max(0.0).powi(2)).sum();
        let objective = 0.5 * self.square + problem.c * loss;
        let t = search::lowest(problem.c, wd, dd, &points);
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
    let gather = |chosen: &[usize], span: std::ops::Range<usize>| {
        let mut values = vec![0.0; chosen.len() * span.len()];
        values.par_chunks_mut(span.len()).zip(chosen).for_each(|(out, &row)| {
            features.copy_columns(row, span.clone(), out);
        });
        values
    };
    for start in (0..width).step_by(DEPTH) {
        let span = start..(start + DEPTH).min(width);
        let (a, b) = (gather(rows, span.clone()), gather(columns, span.clone()));
        out.par_chunks_mut(SQUARE * columns.len().max(1)).enumerate().for_each(|(strip, out)| {
            let height = out.len() / columns.len();
            let a = MatrixView::new(&a[strip * SQUARE * span.len()..], height, span.len());
            let mut square = vec![0.0; height * columns.len()];
            matmul(&mut square, a, MatrixView::new(&b, columns.len(), span.len()).t());
            out.iter_mut().zip(square).for_each(|(out, value)| *out += f64::from(value));
        });
    }
    out
}
