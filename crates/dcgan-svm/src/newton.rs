//! Generalized Newton's method with conjugate gradients and an exact line search, for all classes in one pass.
//!
//! The objective of a class, `1/2 |w|^2 + c Σ max(0, 1 - y_i m_i)^2` with margins `m = X w`, is piecewise quadratic.
//! With the active set A of rows within the margin, its gradient is `w + 2c X_Aᵀ(m_A - y_A)` and its Hessian `I + 2c
//! X_AᵀX_A`. Each step minimizes that quadratic by preconditioned conjugate gradients, then the objective along the
//! resulting direction (Keerthi and DeCoste, JMLR 6, 2005: finite convergence). A product with the Hessian is one pass
//! over the rows. Every class has its own state; one pass computes a gradient or a product for each of them.

use crate::dense::Dense;
use crate::kernel::{LANES, Lanes};
use crate::panel::{Panel, assign, combine, dot, sum_rows, zeros};
use crate::{Exit, ExitReason, search};
use rayon::prelude::*;

/// Maximum number of steps of conjugate gradients per Newton step.
const MAX_INNER: usize = 1000;

/// Fraction of the average gain at which conjugate gradients end. A tenth takes fewer passes in total than the half of
/// Nash and Sofer, as much of the progress of conjugate gradients is lost at the end of a Newton step.
const INNER_TOLERANCE: f64 = 0.1;

/// Fraction of the first preconditioned squared residual that must be reached as well, halved after each of seven
/// Newton steps: directions must be accurate where the objective is steep, and exact steps converge at once near the
/// optimum.
const INNER_RESIDUAL: f64 = 0.5;

/// Passes before the preconditioner is built: easy problems have converged by then.
const PREPARE_AFTER: usize = 12;

/// A panel of binary problems: up to sixteen classes against the rest.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    /// Class of each row.
    pub(crate) labels: &'a [u32],
    /// Class of each lane.
    pub(crate) positives: &'a [u32],
    pub(crate) c: f64,
    pub(crate) tolerance: f64,
    /// Maximum number of passes over the rows.
    pub(crate) max_passes: usize,
    /// Lower bound of the objective of each lane.
    pub(crate) bounds: Lanes,
}

impl Problem<'_> {
    /// Whether the lane's objective is proven to be within the tolerance of its minimum. The objective is above its
    /// minimum by at most half of the squared gradient, as the curvature is 1 or more.
    pub(crate) fn is_proven(&self, lane: usize, objective: f64, squared_gradient: f64) -> bool {
        (0.5 * squared_gradient).min(objective - self.bounds[lane]) <= self.tolerance * objective
    }
}

/// 1 for the rows of a lane's class, -1 for all others.
#[derive(Clone, Copy)]
struct Signs<'a> {
    labels: &'a [u32],
    positives: [u32; LANES],
}

impl<'a> Signs<'a> {
    fn new(problem: &Problem<'a>) -> Self {
        let positive = |lane| problem.positives.get(lane).copied().unwrap_or(u32::MAX);
        Self { labels: problem.labels, positives: std::array::from_fn(positive) }
    }

    fn at(&self, row: usize, lane: usize) -> f64 {
        if self.labels[row] == self.positives[lane] { 1.0 } else { -1.0 }
    }
}

/// What the next pass computes for a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gradient,
    /// A product with the Hessian; steps of conjugate gradients so far.
    Inner(usize),
    Done,
}

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    /// Whether the last step reduced the objective by less than the tolerance; only the gradient is still to be
    /// computed.
    closing: bool,
    /// Whether this Newton step's conjugate gradients are preconditioned.
    preconditioned: bool,
    exit: Exit,
    /// Residual times preconditioned residual, at the previous step.
    rz: f64,
    /// Its value at the first step.
    first_rz: f64,
    /// Predicted decrease of the last step; 0 if rounding left no step.
    gain: f64,
    /// Whether it is small relative to earlier steps.
    small_gain: bool,
    /// Predicted decrease of the quadratic so far.
    model: f64,
}

struct Solver<'a, 'b> {
    dense: &'a mut Dense<'b>,
    problem: &'a Problem<'a>,
    states: [State; LANES],
    // Vectors: weights, residual, preconditioned residual, direction, sum of steps along directions.
    w: Panel,
    r: Panel,
    z: Panel,
    p: Panel,
    d: Panel,
    // Images of the weights (margins) and of the sum of steps.
    m: Panel,
    xd: Panel,
}

/// Solves for every lane from `start`; returns weights and exits.
pub(crate) fn solve(
    dense: &mut Dense<'_>,
    problem: &Problem<'_>,
    start: Panel,
    on_pass: &mut dyn FnMut(&[Exit], usize),
) -> (Panel, Vec<Exit>) {
    let (len, rows) = (dense.len(), problem.labels.len());
    let exit = Exit::unknown();
    let mut states = [State {
        phase: Phase::Done,
        closing: false,
        preconditioned: false,
        exit,
        rz: 0.0,
        first_rz: 0.0,
        gain: 0.0,
        small_gain: false,
        model: 0.0,
    }; LANES];
    for state in &mut states[..problem.positives.len()] {
        state.phase = Phase::Gradient;
    }
    let mut solver = Solver {
        dense,
        problem,
        states,
        w: start,
        r: zeros(len),
        z: zeros(len),
        p: zeros(len),
        d: zeros(len),
        m: zeros(rows),
        xd: zeros(rows),
    };
    solver.dense.round(&mut solver.w);
    solver.run(on_pass);
    let exits = solver.states[..problem.positives.len()].iter().map(|state| state.exit).collect();
    (solver.w, exits)
}

/// `f(state)` of each lane.
fn lanes<T>(states: &[State; LANES], f: impl Fn(&State) -> T) -> [T; LANES] {
    std::array::from_fn(|lane| f(&states[lane]))
}

impl Solver<'_, '_> {
    fn run(&mut self, on_pass: &mut dyn FnMut(&[Exit], usize)) {
        let (mut input, mut back) = (zeros(self.w.len()), zeros(self.w.len()));
        let mut outputs = zeros(self.m.len());
        let (mut passes, mut prepared) = (0, false);
        while self.states.iter().any(|state| state.phase != Phase::Done) {
            let gradient = lanes(&self.states, |state| state.phase == Phase::Gradient);
            let inner = lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)));
            assign(&gradient, &self.w, &mut input);
            assign(&inner, &self.p, &mut input);
            self.pass(&gradient, &inner, &input, &mut outputs, &mut back);
            passes += 1;
            for state in self.states.iter_mut().filter(|state| state.phase != Phase::Done) {
                state.exit.products += 1;
            }
            let out_of_time = passes >= self.problem.max_passes;
            if gradient.contains(&true) {
                self.after_gradient(&gradient, &outputs, &back);
            }
            if inner.contains(&true) {
                self.after_product(&inner, &outputs, &back);
            }
            if passes >= PREPARE_AFTER && !prepared {
                self.dense.build_preconditioner(2.0 * self.problem.c);
                prepared = true;
            }
            self.update_directions(prepared, &mut back);
            self.line_search(&inner, out_of_time);
            if out_of_time {
                // A lane that has just moved gets a last pass for its objective; any other ends here.
                for state in &mut self.states {
                    if state.phase != Phase::Gradient {
                        state.phase = Phase::Done;
                    }
                }
            }
            let exits: Vec<Exit> =
                self.states[..self.problem.positives.len()].iter().map(|state| state.exit).collect();
            on_pass(&exits, passes);
        }
    }

    fn pass(
        &mut self,
        gradient: &[bool; LANES],
        inner: &[bool; LANES],
        input: &[Lanes],
        outputs: &mut [Lanes],
        back: &mut [Lanes],
    ) {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        let rule = |row: usize, output: &Lanes| -> Lanes {
            let mut out = [0.0; LANES];
            for lane in 0..LANES {
                let sign = signs.at(row, lane);
                // Gradients use the margins of this pass, Hessian products those of the last gradient.
                let margin = if gradient[lane] { output[lane] } else { m[row][lane] };
                let value = if gradient[lane] { output[lane] - sign } else { output[lane] };
                let counts = sign * margin < 1.0 && (gradient[lane] || inner[lane]);
                out[lane] = if counts { value } else { 0.0 };
            }
            out
        };
        self.dense.pass(input, outputs, &rule, back);
    }

    /// Stores margins and gradients at `w`.
    fn after_gradient(&mut self, chosen: &[bool; LANES], outputs: &[Lanes], back: &[Lanes]) {
        assign(chosen, outputs, &mut self.m);
        let (on, off) = (chosen.map(f64::from), chosen.map(|chosen| f64::from(!chosen)));
        let (minus, back_factor) = (on.map(|on| -on), on.map(|on| -2.0 * self.problem.c * on));
        combine(&minus, &self.w, &off, &mut self.r);
        combine(&back_factor, back, &[1.0; LANES], &mut self.r);
        let none = [0.0; LANES];
        combine(&none, &self.w, &off, &mut self.d);
        combine(&none, &self.m, &off, &mut self.xd);
        let squares = dot(&self.w, &self.w);
        let losses = self.losses();
        let norms = dot(&self.r, &self.r);
        for lane in (0..LANES).filter(|&lane| chosen[lane]) {
            let state = &mut self.states[lane];
            state.exit.objective = 0.5 * squares[lane] + self.problem.c * losses[lane];
            state.set_gradient(norms[lane], self.problem.is_proven(lane, state.exit.objective, norms[lane]));
        }
    }

    /// `Σ max(0, 1 - y m)^2` of each lane.
    fn losses(&self) -> Lanes {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        sum_rows(m.len(), |row, lane| (1.0 - signs.at(row, lane) * m[row][lane]).max(0.0).powi(2))
    }

    /// One step of conjugate gradients: `outputs` and `back` are of the direction.
    fn after_product(&mut self, chosen: &[bool; LANES], outputs: &[Lanes], back: &[Lanes]) {
        let squares = dot(&self.p, &self.p);
        let curvatures = self.curvatures(outputs);
        let twice_c = 2.0 * self.problem.c;
        let alpha: Lanes = std::array::from_fn(|lane| {
            let step = self.states[lane].rz / (squares[lane] + twice_c * curvatures[lane]);
            // Rounding error only, unless this is a positive number.
            if chosen[lane] && step > 0.0 && step.is_finite() { step } else { 0.0 }
        });
        let ones = [1.0; LANES];
        combine(&alpha, &self.p, &ones, &mut self.d);
        combine(&alpha, outputs, &ones, &mut self.xd);
        combine(&alpha.map(|alpha| -alpha), &self.p, &ones, &mut self.r);
        combine(&alpha.map(|alpha| -alpha * twice_c), back, &ones, &mut self.r);
        for lane in (0..LANES).filter(|&lane| chosen[lane]) {
            let state = &mut self.states[lane];
            let gain = 0.5 * alpha[lane] * state.rz;
            state.gain = gain;
            state.model += gain;
            let Phase::Inner(steps) = state.phase else { continue };
            state.phase = Phase::Inner(steps + 1);
            // Nash and Sofer (1990): further steps would gain less than the average so far.
            state.small_gain = (steps + 1) as f64 * gain <= INNER_TOLERANCE * state.model;
        }
    }

    /// Computes the next directions from residuals, or ends conjugate gradients.
    fn update_directions(&mut self, prepared: bool, scratch: &mut [Lanes]) {
        for state in self.states.iter_mut().filter(|state| state.phase == Phase::Inner(0)) {
            state.preconditioned = prepared;
        }
        let inner = lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)));
        if !inner.contains(&true) {
            return;
        }
        assign(&inner, &self.r, &mut self.z);
        let preconditioned =
            lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)) && state.preconditioned);
        if preconditioned.contains(&true) {
            self.dense.precondition(&self.r, scratch);
            assign(&preconditioned, scratch, &mut self.z);
        }
        let rz = dot(&self.r, &self.z);
        for lane in (0..LANES).filter(|&lane| inner[lane]) {
            let state = &mut self.states[lane];
            match state.phase {
                Phase::Inner(0) => state.first_rz = rz[lane],
                Phase::Inner(steps) => {
                    let step = i32::try_from(state.exit.iterations).unwrap_or(i32::MAX);
                    let small_residual =
                        rz[lane] <= INNER_RESIDUAL * 0.5_f64.powi(step.min(7)) * state.first_rz;
                    // The remaining gain is below the tolerance or the rounding error.
                    let nothing_left = state.model <= 0.1 * self.problem.tolerance * state.exit.objective;
                    let stuck = state.gain == 0.0;
                    if (state.small_gain && (small_residual || nothing_left)) || stuck || steps >= MAX_INNER {
                        state.phase = Phase::Gradient;
                    }
                }
                _ => {}
            }
        }
        let inner = lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)));
        // Other lanes keep their directions.
        let beta: Lanes = std::array::from_fn(|lane| match self.states[lane].phase {
            Phase::Inner(0) => 0.0,
            Phase::Inner(_) => rz[lane] / self.states[lane].rz,
            _ => 1.0,
        });
        combine(&inner.map(f64::from), &self.z, &beta, &mut self.p);
        for lane in (0..LANES).filter(|&lane| inner[lane]) {
            self.states[lane].rz = rz[lane];
        }
    }

    /// `Σ v^2` over the rows within the margin.
    fn curvatures(&self, outputs: &[Lanes]) -> Lanes {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        sum_rows(m.len(), |row, lane| {
            let within = signs.at(row, lane) * m[row][lane] < 1.0;
            if within { outputs[row][lane] * outputs[row][lane] } else { 0.0 }
        })
    }

    /// Moves the lanes of `chosen` whose conjugate gradients have ended, or all of them, to the minimum on their line.
    fn line_search(&mut self, chosen: &[bool; LANES], all: bool) {
        let moving: [bool; LANES] = std::array::from_fn(|lane| {
            chosen[lane]
                && match self.states[lane].phase {
                    Phase::Gradient => true,
                    Phase::Inner(_) => all,
                    Phase::Done => false,
                }
        });
        if !moving.contains(&true) {
            return;
        }
        let wd = dot(&self.w, &self.d);
        let dd = dot(&self.d, &self.d);
        let (c, signs, m, xd) = (self.problem.c, Signs::new(self.problem), &self.m, &self.xd);
        let line_minima: Vec<(f64, f64)> = (0..LANES)
            .into_par_iter()
            .map(|lane| {
                if !moving[lane] {
                    return (0.0, 0.0);
                }
                let points: Vec<(f64, f64)> = (0..m.len())
                    .map(|row| {
                        let sign = signs.at(row, lane);
                        (sign * m[row][lane], sign * xd[row][lane])
                    })
                    .collect();
                let t = search::minimizer(c, wd[lane], dd[lane], &points);
                (t, search::gain(c, wd[lane], dd[lane], &points, t))
            })
            .collect();
        let t: Lanes = std::array::from_fn(|lane| line_minima[lane].0);
        combine(&t, &self.d, &[1.0; LANES], &mut self.w);
        self.dense.round(&mut self.w);
        for lane in (0..LANES).filter(|&lane| moving[lane]) {
            let state = &mut self.states[lane];
            let left = state.exit.objective - line_minima[lane].1;
            state.closing = line_minima[lane].1 <= self.problem.tolerance * left;
            state.exit.iterations += 1;
            state.phase = Phase::Gradient;
            state.model = 0.0;
        }
    }
}

impl State {
    /// Sets the squared gradient norm at new weights.
    fn set_gradient(&mut self, squared: f64, proven: bool) {
        self.exit.gradient_norm = squared.max(0.0).sqrt();
        if self.closing || proven {
            self.exit.reason = ExitReason::Converged;
            self.phase = Phase::Done;
        } else if !self.exit.objective.is_finite() {
            self.phase = Phase::Done;
        } else {
            self.phase = Phase::Inner(0);
        }
    }
}
