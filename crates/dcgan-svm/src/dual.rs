//! Dual coordinate descent: fast convergence to the neighbourhood of the optimum, with a lower bound of the objective.
//!
//! The dual of a class is `max over α >= 0 of Σ α_i - 1/2 |Σ α_i y_i x_i|^2 - Σ α_i^2 / 4c`, where `x` has a further
//! column of ones. A sweep visits the rows in random order, sets each `α_i` to its best value and updates
//! `w = Σ α_i y_i x_i` (Hsieh, Chang, Lin, Keerthi and Sundararajan, ICML 2008, with their shrinking). Any α bounds the
//! primal objective from below; descent stops at a small duality gap. A row is read once for all classes of a thread. A
//! sweep costs as much as a pass of Newton's method, and a gap of 1e-5 takes fewer of them, unless `c` is large for the
//! features: then the gap closes slowly, and Newton's method continues from the result.

use crate::active;
use crate::dense::{self, Dense};
use crate::features::{Features, Precision};
use crate::kernel::{LANES, Lanes, add_scaled, dots};
use crate::newton::Problem;
use crate::panel::{Panel, zeros};
use dcgan_base::random::{self, Purpose};
use rayon::prelude::*;

/// Maximum number of sweeps.
const MAX_SWEEPS: usize = 300;

/// Sweeps before the first check of the gap, and before a class may be given up as too slow for [`MAX_SWEEPS`].
const FIRST_CHECK: usize = 4;
const PATIENCE: usize = 40;

/// Sweeps after which [`active`] takes over if active sets are small.
const HANDOVER: usize = 12;

/// Checks of the gap are a fifth of the sweeps so far apart.
const CHECK_INTERVAL: usize = 5;

/// Fraction of the tolerance that the gap must reach; the rest allows for rounding.
const MARGIN: f64 = 0.5;

/// Bytes of rows that are shuffled among each other. A shuffle beyond memory would read rows from disk one by one.
const SHUFFLED_BYTES: usize = 512 << 20;

/// Result of descent.
pub(super) struct Dual {
    /// `α_i y_i` of each row and lane.
    pub(super) coefficients: Panel,
    /// Number of sweeps.
    pub(super) sweeps: usize,
    /// Whether every class has converged or has few rows within the margin.
    pub(super) few_active: bool,
}

/// One class against the rest.
struct Class {
    signs: Vec<f32>,
    alpha: Vec<f64>,
    weights: Vec<f32>,
    intercept: f64,
    /// Rows that the next sweep skips.
    shrunk: Vec<bool>,
    /// Largest projected gradient of the previous sweep: rows with a larger gradient are skipped.
    bound: f64,
    largest: f64,
    done: bool,
    /// Whether the gap reached its target.
    finished: bool,
    /// Relative gap at the first check, and the number of sweeps then.
    first_gap: Option<(f64, usize)>,
    /// Rows within the margin at the last check.
    within: usize,
}

/// Descends from `start` (coefficients `α_i y_i`), or from zero; `on_sweep` receives the number of sweeps.
pub(super) fn descend(
    dense: &mut Dense<'_>,
    problem: &Problem<'_>,
    start: Option<&Panel>,
    max_sweeps: usize,
    on_sweep: &mut dyn FnMut(usize),
) -> Dual {
    let start_weights = start.map(|start| dense.transposed_product(start));
    let features = dense.features();
    let (rows, width) = (features.len(), features.width());
    let squares = squares(features);
    let class = |(lane, &positive): (usize, &u32)| {
        let signs: Vec<f32> =
            problem.labels.iter().map(|&label| if label == positive { 1.0 } else { -1.0 }).collect();
        let alpha = match start {
            Some(start) => {
                start.iter().zip(&signs).map(|(v, &s)| (v[lane] * f64::from(s)).max(0.0)).collect()
            }
            None => vec![0.0; rows],
        };
        let weight = |j: usize| start_weights.as_ref().map_or(0.0, |weights| weights[j][lane]);
        Class {
            signs,
            alpha,
            weights: (0..width).map(|j| crate::model::as_f32(weight(j))).collect(),
            intercept: weight(width),
            shrunk: vec![false; rows],
            bound: f64::INFINITY,
            largest: f64::NEG_INFINITY,
            done: false,
            finished: false,
            first_gap: None,
            within: usize::MAX,
        }
    };
    let mut classes: Vec<Class> = problem.positives.iter().enumerate().map(class).collect();
    let (mut sweeps, mut next_check) = (0, FIRST_CHECK);
    while sweeps < max_sweeps.min(MAX_SWEEPS) && classes.iter().any(|class| !class.done) {
        let few_active = |class: &Class| class.done || class.within <= active::MAX_ROWS / 2;
        if sweeps >= HANDOVER && classes.iter().all(few_active) {
            break;
        }
        let order = order(features, sweeps);
        let mut active: Vec<&mut Class> = classes.iter_mut().filter(|class| !class.done).collect();
        // Classes are independent: how they are grouped changes no value.
        let group = active.len().div_ceil(rayon::current_num_threads());
        active.par_chunks_mut(group).for_each(|group| sweep(features, &squares, problem.c, &order, group));
        sweeps += 1;
        on_sweep(sweeps);
        if sweeps >= next_check {
            measure(features, problem, sweeps, &mut classes);
            next_check = sweeps + (sweeps / CHECK_INTERVAL).max(3);
        }
    }
    let mut coefficients = zeros(rows);
    for (lane, class) in classes.iter().enumerate() {
        for (row, out) in coefficients.iter_mut().enumerate() {
            out[lane] = class.alpha[row] * f64::from(class.signs[row]);
        }
    }
    let few_active = classes.iter().all(|class| class.finished || class.within <= active::MAX_ROWS);
    Dual { coefficients, sweeps, few_active }
}

/// The dual objective of each lane, a lower bound of the primal objective; `weights` are those of `coefficients`.
pub(super) fn bounds(coefficients: &[Lanes], weights: &[Lanes], c: f64) -> Lanes {
    let mut bounds = [0.0; LANES];
    for row in coefficients {
        for (bound, value) in bounds.iter_mut().zip(row) {
            *bound += value.abs() - value * value / (4.0 * c);
        }
    }
    for row in weights {
        for (bound, value) in bounds.iter_mut().zip(row) {
            *bound -= 0.5 * value * value;
        }
    }
    bounds
}

/// `|x_i|^2 + 1` of each row.
fn squares(features: &Features) -> Vec<f64> {
    let square = |scratch: &mut Vec<f32>, row: usize| {
        let values = features.block(row..row + 1, scratch);
        let chunk = |values: &[f32]| values.iter().map(|&v| v * v).sum::<f32>();
        1.0 + values.chunks(64).map(|values| f64::from(chunk(values))).sum::<f64>()
    };
    (0..features.len()).into_par_iter().map_init(Vec::new, square).collect()
}

/// The order of a sweep: rows are shuffled within stretches of [`SHUFFLED_BYTES`].
fn order(features: &Features, sweep: usize) -> Vec<usize> {
    let bytes = features.width() * if features.storage() == Precision::F32 { 4 } else { 2 };
    let stretch = (SHUFFLED_BYTES / bytes).max(1);
    let mut rng = random::stream(0, Purpose::SvmOrder, sweep as u64);
    let mut order: Vec<usize> = (0..features.len()).collect();
    if stretch >= order.len() {
        random::shuffle(&mut rng, &mut order);
        return order;
    }
    let mut stretches: Vec<&mut [usize]> = order.chunks_mut(stretch).collect();
    stretches.iter_mut().for_each(|stretch| random::shuffle(&mut rng, stretch));
    random::shuffle(&mut rng, &mut stretches);
    stretches.into_iter().flat_map(|stretch| stretch.to_vec()).collect()
}

fn sweep(features: &Features, squares: &[f64], c: f64, order: &[usize], classes: &mut [&mut Class]) {
    let mut scratch = Vec::new();
    let mut products = [0.0; 4];
    let mut unshrunk = Vec::with_capacity(classes.len());
    for class in classes.iter_mut() {
        class.largest = f64::NEG_INFINITY;
    }
    for &row in order {
        unshrunk.clear();
        unshrunk.extend((0..classes.len()).filter(|&class| !classes[class].shrunk[row]));
        if unshrunk.is_empty() {
            continue;
        }
        let values = features.block(row..row + 1, &mut scratch);
        for some in unshrunk.chunks(products.len()) {
            let weights: Vec<&[f32]> = some.iter().map(|&class| &classes[class].weights[..]).collect();
            dots(values, &weights, &mut products);
            for (&class, &product) in some.iter().zip(&products) {
                classes[class].update(row, values, f64::from(product), squares[row], c);
            }
        }
    }
    for class in classes.iter_mut() {
        class.bound = if class.largest > 0.0 { class.largest } else { f64::INFINITY };
    }
}

impl Class {
    /// Sets the row's α to its best value; `product` is `w·x` without the intercept.
    fn update(&mut self, row: usize, values: &[f32], product: f64, square: f64, c: f64) {
        let sign = f64::from(self.signs[row]);
        let alpha = self.alpha[row];
        let gradient = sign * (product + self.intercept) - 1.0 + alpha / (2.0 * c);
        if alpha == 0.0 && gradient > 0.0 {
            self.shrunk[row] = gradient > self.bound;
            self.largest = self.largest.max(0.0);
            return;
        }
        self.largest = self.largest.max(gradient);
        let best = (alpha - gradient / (square + 0.5 / c)).max(0.0);
        let change = (best - alpha) * sign;
        if change != 0.0 {
            self.alpha[row] = best;
            self.intercept += change;
            add_scaled(crate::model::as_f32(change), values, &mut self.weights);
        }
    }
}

/// Checks the gap of each class: classes that reached the target, or never will, are done.
fn measure(features: &Features, problem: &Problem<'_>, sweeps: usize, classes: &mut [Class]) {
    let mut panel = zeros(features.width() + 1);
    for (lane, class) in classes.iter().enumerate() {
        let weights = class.weights.iter().map(|&weight| f64::from(weight)).chain([class.intercept]);
        panel.iter_mut().zip(weights).for_each(|(row, weight)| row[lane] = weight);
    }
    let margins = dense::project(features, &panel);
    let mut coefficients = zeros(features.len());
    for (lane, class) in classes.iter().enumerate() {
        coefficients.iter_mut().zip(&class.alpha).for_each(|(row, &alpha)| row[lane] = alpha);
    }
    let lower = bounds(&coefficients, &panel, problem.c);
    for (lane, class) in classes.iter_mut().enumerate().filter(|(_, class)| !class.done) {
        let square: f64 = panel.iter().map(|row| row[lane] * row[lane]).sum();
        let slack = |(row, &sign): (&Lanes, &f32)| (1.0 - f64::from(sign) * row[lane]).max(0.0).powi(2);
        let loss: f64 = margins.iter().zip(&class.signs).map(slack).sum();
        let objective = 0.5 * square + problem.c * loss;
        let signed = margins.iter().zip(&class.signs).map(|(row, &sign)| f64::from(sign) * row[lane]);
        class.within = signed.filter(|&margin| margin < 1.0).count();
        let gap = (objective - lower[lane]) / objective;
        let target = MARGIN * problem.tolerance;
        let (first, since) = *class.first_gap.get_or_insert((gap, sweeps));
        // Gaps fluctuate: the rate is measured from the first check.
        let speed = (gap / first).ln() / (sweeps - since) as f64;
        let too_slow = sweeps >= PATIENCE && (target / gap).ln() / speed > (MAX_SWEEPS - sweeps) as f64;
        class.finished = gap <= target;
        class.done = class.finished || too_slow || speed > 0.0 && sweeps >= PATIENCE || !gap.is_finite();
        // Rows that would stay at zero are skipped until the next check.
        for ((shrunk, &alpha), (margin, &sign)) in
            class.shrunk.iter_mut().zip(&class.alpha).zip(margins.iter().zip(&class.signs))
        {
            *shrunk = alpha == 0.0 && f64::from(sign) * margin[lane] > 1.0;
        }
    }
}
