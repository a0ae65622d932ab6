//! Dual coordinate descent: the fast way to the neighbourhood of the optimum, and a bound that proves how near it is.
//!
//! The dual of a class is `max over α >= 0 of Σ α_i - 1/2 |Σ α_i y_i x_i|^2 - Σ α_i^2 / 4c`, where `x` has a further
//! column of ones. A sweep visits the rows in random order and sets each `α_i` to its best value, keeping
//! `w = Σ α_i y_i x_i` beside (Hsieh, Chang, Lin, Keerthi and Sundararajan, ICML 2008, with their shrinking). Any α bounds the
//! primal objective from below, so the gap between the two tells when to stop. A row that was read serves all classes of a
//! thread. Sweeps cost as much as passes of Newton's method and reach a gap of 1e-5 in a fraction of their number, unless `c` is
//! large for the features: then the gap closes slowly, and what is found is where Newton's method starts.

use crate::active;
use crate::dense::{self, Dense};
use crate::features::{Features, Storage};
use crate::kernel::{LANES, Lanes, add_scaled, dots};
use crate::newton::Problem;
use crate::panel::{Panel, zeros};
use dcgan_base::random::{self, Purpose};
use rand::seq::SliceRandom;
use rayon::prelude::*;

/// Sweeps at most.
const MAX_SWEEPS: usize = 300;

/// Sweeps before the first look at the gap, and before it is asked whether [`MAX_SWEEPS`] will do.
const FIRST_LOOK: usize = 4;
const PATIENCE: usize = 40;

/// Sweeps after which [`active`] takes over where few rows are within the margin.
const HANDOVER: usize = 12;

/// Sweeps between two looks at the gap: so many times fewer than were done.
const LOOK_PART: usize = 5;

/// Part of the tolerance that the gap has to come down to: what is left is for rounding.
const MARGIN: f64 = 0.5;

/// Bytes of rows among which the order is random. More than a machine has to spare would be read from disk row by row.
const SHUFFLED_BYTES: usize = 512 << 20;

/// What descent found.
pub(super) struct Dual {
    /// `α_i y_i` of each row and lane.
    pub(super) coefficients: Panel,
    /// Sweeps made.
    pub(super) sweeps: usize,
    /// Whether every class is done or has few rows within the margin.
    pub(super) few: bool,
}

/// One class against the rest.
struct Class {
    signs: Vec<f32>,
    alpha: Vec<f64>,
    weights: Vec<f32>,
    intercept: f64,
    /// Rows that the next sweep leaves out.
    shrunk: Vec<bool>,
    /// Largest projected gradient of the sweep before: rows whose gradient is beyond it are left out.
    bound: f64,
    largest: f64,
    done: bool,
    /// Whether the gap came down to what was asked for.
    finished: bool,
    /// Share of the objective that the gap was at the first look, and sweeps till then.
    first_gap: Option<(f64, usize)>,
    /// Rows within the margin at the last look.
    within: usize,
}

/// Descends from `start` (coefficients `α_i y_i`), or from zero; `observe` hears of the number of sweeps.
pub(super) fn descend(
    space: &mut Dense<'_>,
    problem: &Problem<'_>,
    start: Option<&Panel>,
    max_sweeps: usize,
    observe: &mut dyn FnMut(usize),
) -> Dual {
    let start_weights = start.map(|start| space.collect(start));
    let features = space.features();
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
    let (mut sweeps, mut look) = (0, FIRST_LOOK);
    while sweeps < max_sweeps.min(MAX_SWEEPS) && classes.iter().any(|class| !class.done) {
        let few = |class: &Class| class.done || class.within <= active::MAX_ROWS / 2;
        if sweeps >= HANDOVER && classes.iter().all(few) {
            break;
        }
        let order = order(features, sweeps);
        let mut active: Vec<&mut Class> = classes.iter_mut().filter(|class| !class.done).collect();
        // Classes are independent: how they are grouped changes no value.
        let group = active.len().div_ceil(rayon::current_num_threads());
        active.par_chunks_mut(group).for_each(|group| sweep(features, &squares, problem.c, &order, group));
        sweeps += 1;
        observe(sweeps);
        if sweeps >= look {
            measure(features, problem, sweeps, &mut classes);
            look = sweeps + (sweeps / LOOK_PART).max(3);
        }
    }
    let mut coefficients = zeros(rows);
    for (lane, class) in classes.iter().enumerate() {
        for (row, out) in coefficients.iter_mut().enumerate() {
            out[lane] = class.alpha[row] * f64::from(class.signs[row]);
        }
    }
    let few = classes.iter().all(|class| class.finished || class.within <= active::MAX_ROWS);
    Dual { coefficients, sweeps, few }
}

/// The dual objective of each lane, where `weights` are those of `coefficients`: no primal objective is below it.
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

/// The order of a sweep: rows are shuffled within stretches that memory holds.
fn order(features: &Features, sweep: usize) -> Vec<usize> {
    let bytes = features.width() * if features.storage() == Storage::F32 { 4 } else { 2 };
    let stretch = (SHUFFLED_BYTES / bytes).max(1);
    let mut rng = random::stream(0, Purpose::SvmOrder, sweep as u64);
    let mut order: Vec<usize> = (0..features.len()).collect();
    if stretch >= order.len() {
        order.shuffle(&mut rng);
        return order;
    }
    let mut stretches: Vec<&mut [usize]> = order.chunks_mut(stretch).collect();
    stretches.iter_mut().for_each(|stretch| stretch.shuffle(&mut rng));
    stretches.shuffle(&mut rng);
    stretches.into_iter().flat_map(|stretch| stretch.to_vec()).collect()
}

fn sweep(features: &Features, squares: &[f64], c: f64, order: &[usize], classes: &mut [&mut Class]) {
    let mut scratch = Vec::new();
    let mut products = [0.0; 4];
    let mut visited = Vec::with_capacity(classes.len());
    for class in classes.iter_mut() {
        class.largest = f64::NEG_INFINITY;
    }
    for &row in order {
        visited.clear();
        visited.extend((0..classes.len()).filter(|&class| !classes[class].shrunk[row]));
        if visited.is_empty() {
            continue;
        }
        let values = features.block(row..row + 1, &mut scratch);
        for some in visited.chunks(products.len()) {
            let weights: Vec<&[f32]> = some.iter().map(|&class| &classes[class].weights[..]).collect();
            dots(values, &weights, &mut products);
            for (&class, &product) in some.iter().zip(&products) {
                classes[class].visit(row, values, f64::from(product), squares[row], c);
            }
        }
    }
    for class in classes.iter_mut() {
        class.bound = if class.largest > 0.0 { class.largest } else { f64::INFINITY };
    }
}

impl Class {
    /// Sets the row's α to its best value; `product` is `w·x` without the intercept.
    fn visit(&mut self, row: usize, values: &[f32], product: f64, square: f64, c: f64) {
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

/// Looks at the gap of each class: those that are near enough are done, and those that will not get there.
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
        // Gaps go up and down: the speed is that since the first look.
        let speed = (gap / first).ln() / (sweeps - since) as f64;
        let hopeless = sweeps >= PATIENCE && (target / gap).ln() / speed > (MAX_SWEEPS - sweeps) as f64;
        class.finished = gap <= target;
        class.done = class.finished || hopeless || speed > 0.0 && sweeps >= PATIENCE || !gap.is_finite();
        // What each row would do now is known: those that would stay at zero are left out until the next look.
        for ((shrunk, &alpha), (margin, &sign)) in
            class.shrunk.iter_mut().zip(&class.alpha).zip(margins.iter().zip(&class.signs))
        {
            *shrunk = alpha == 0.0 && f64::from(sign) * margin[lane] > 1.0;
        }
    }
}
