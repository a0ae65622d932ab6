//! Newton's method on the inner products of rows, with one matrix factorization per step.
//!
//! With `w = Xᵀβ`, `K = X Xᵀ + 1` and the active set A of rows within the margin, the quadratic has its minimum where β
//! is zero outside A and `(I / 2c + K_AA) β_A = y_A`. The system is solved to rounding error, so any `c` takes about
//! ten steps. Classes are independent; in the first step from zero all rows are active and the classes share one
//! factorization.

use crate::factor::{factor, solve_factored};
use crate::gram::{Gram, multiply};
use crate::kernel::Lanes;
use crate::newton::Problem;
use crate::panel::{Panel, zeros};
use crate::{Exit, ExitReason, search};
use rayon::prelude::*;

/// State of one class.
struct Lane {
    signs: Vec<f64>,
    beta: Vec<f64>,
    /// `K β`.
    margins: Vec<f64>,
    /// Whether the last step reduced the objective by less than the tolerance.
    small_step: bool,
    done: bool,
    exit: Exit,
}

/// Solves for every lane from `start`, row coefficients; returns row coefficients and exits.
pub(crate) fn solve(
    gram: &Gram,
    problem: &Problem<'_>,
    start: &[Lanes],
    on_step: &mut dyn FnMut(&[Exit], usize),
) -> (Panel, Vec<Exit>) {
    let rows = problem.labels.len();
    let mut outputs = zeros(rows);
    multiply(gram.products(), start, &mut outputs);
    let lane = |(lane, &positive): (usize, &u32)| Lane {
        signs: problem.labels.iter().map(|&label| if label == positive { 1.0 } else { -1.0 }).collect(),
        beta: start.iter().map(|lanes| lanes[lane]).collect(),
        margins: outputs.iter().map(|lanes| lanes[lane]).collect(),
        small_step: false,
        done: false,
        exit: Exit::unknown(),
    };
    let mut lanes: Vec<Lane> = problem.positives.iter().enumerate().map(lane).collect();
    for step in 1.. {
        measure(gram, problem, &mut lanes);
        let exits: Vec<Exit> = lanes.iter().map(|lane| lane.exit).collect();
        on_step(&exits, step);
        if lanes.iter().all(|lane| lane.done) || step > problem.max_passes {
            break;
        }
        let whole = lanes.iter().filter(|lane| !lane.done && lane.within().len() == rows).count();
        let shared = (whole > 1).then(|| {
            let every: Vec<usize> = (0..rows).collect();
            factored(gram, problem.c, &every)
        });
        let targets: Vec<Vec<f64>> = lanes
            .par_iter()
            .map(|lane| if lane.done { Vec::new() } else { lane.target(gram, problem, shared.as_deref()) })
            .collect();
        let mut panel = zeros(rows);
        for (index, target) in targets.iter().enumerate() {
            panel.iter_mut().zip(target).for_each(|(row, &value)| row[index] = value);
        }
        multiply(gram.products(), &panel, &mut outputs);
        lanes.par_iter_mut().zip(&targets).enumerate().filter(|(_, (lane, _))| !lane.done).for_each(
            |(index, (lane, target))| {
                let outputs: Vec<f64> = outputs.iter().map(|row| row[index]).collect();
                lane.line_search(problem, target, &outputs);
            },
        );
    }
    let mut beta = zeros(rows);
    for (index, lane) in lanes.iter().enumerate() {
        for (out, &value) in beta.iter_mut().zip(&lane.beta) {
            out[index] = value;
        }
    }
    (beta, lanes.iter().map(|lane| lane.exit).collect())
}

/// The Cholesky factor of `I / 2c + K_AA`.
fn factored(gram: &Gram, c: f64, within: &[usize]) -> Vec<f64> {
    let (size, rows) = (within.len(), gram.features().len());
    let products = gram.products();
    let mut matrix = Vec::with_capacity(size * size);
    for (i, &row) in within.iter().enumerate() {
        matrix.extend(within.iter().map(|&column| products[row * rows + column]));
        matrix[i * size + i] += 0.5 / c;
    }
    factor(&mut matrix, size);
    matrix
}

/// Updates objectives and gradients of the lanes that are not done.
fn measure(gram: &Gram, problem: &Problem<'_>, lanes: &mut [Lane]) {
    let mut gradients = zeros(problem.labels.len());
    for (index, lane) in lanes.iter().enumerate() {
        for (row, out) in gradients.iter_mut().enumerate() {
            out[index] = lane.beta[row] - 2.0 * problem.c * lane.signs[row] * lane.slack(row);
        }
    }
    let mut outputs = zeros(gradients.len());
    multiply(gram.products(), &gradients, &mut outputs);
    for (index, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| !lane.done) {
        let square: f64 = lane.beta.iter().zip(&lane.margins).map(|(beta, margin)| beta * margin).sum();
        let loss: f64 = (0..lane.beta.len()).map(|row| lane.slack(row).powi(2)).sum();
        let norm: f64 = gradients.iter().zip(&outputs).map(|(g, output)| g[index] * output[index]).sum();
        lane.exit.objective = 0.5 * square + problem.c * loss;
        lane.exit.gradient_norm = norm.max(0.0).sqrt();
        lane.exit.products += 1;
        // One more step after the tolerance is cheap and reaches rounding error.
        if lane.small_step
            || lane.exit.objective - problem.bounds[index] <= problem.tolerance * lane.exit.objective
        {
            lane.exit.reason = ExitReason::Converged;
            lane.done = true;
        }
        lane.done |= !lane.exit.objective.is_finite();
    }
}

impl Lane {
    fn slack(&self, row: usize) -> f64 {
        (1.0 - self.signs[row] * self.margins[row]).max(0.0)
    }

    /// Rows within the margin.
    fn within(&self) -> Vec<usize> {
        (0..self.beta.len()).filter(|&row| self.slack(row) > 0.0).collect()
    }

    /// The coefficients at the minimum of the quadratic.
    fn target(&self, gram: &Gram, problem: &Problem<'_>, shared: Option<&[f64]>) -> Vec<f64> {
        let (rows, within) = (self.beta.len(), self.within());
        let mut target = vec![0.0; rows];
        let mut solution: Vec<f64> = within.iter().map(|&row| self.signs[row]).collect();
        match shared {
            Some(shared) if within.len() == rows => solve_factored(shared, &mut solution),
            _ => solve_factored(&factored(gram, problem.c, &within), &mut solution),
        }
        for (&row, value) in within.iter().zip(solution) {
            target[row] = value;
        }
        target
    }

    /// Moves to the minimum on the line to `target`; `outputs` are the margins of `target`.
    fn line_search(&mut self, problem: &Problem<'_>, target: &[f64], outputs: &[f64]) {
        let rows = self.beta.len();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let change: Vec<f64> =
            outputs.iter().zip(&self.margins).map(|(output, margin)| output - margin).collect();
        let direction: Vec<f64> = target.iter().zip(&self.beta).map(|(target, beta)| target - beta).collect();
        let (wd, dd) = (dot(&self.beta, &change), dot(&direction, &change));
        let points: Vec<(f64, f64)> = (0..rows)
            .map(|row| (self.signs[row] * self.margins[row], self.signs[row] * change[row]))
            .collect();
        let t = search::minimizer(problem.c, wd, dd, &points);
        let gain = search::gain(problem.c, wd, dd, &points, t);
        for row in 0..rows {
            self.beta[row] += t * direction[row];
            self.margins[row] += t * change[row];
        }
        self.small_step = gain <= problem.tolerance * (self.exit.objective - gain);
        self.exit.iterations += 1;
    }
}
