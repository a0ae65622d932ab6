//! Generalised Newton's method with conjugate gradients and an exact line search, for all classes in one pass.
//!
//! The objective of a class, `1/2 |w|^2 + c Σ max(0, 1 - y_i m_i)^2` with margins `m = X w`, is piecewise quadratic. On
//! the piece of `w`, where A is the set of rows within the margin, its gradient is `w + 2c X_Aᵀ(m_A - y_A)` and its
//! Hessian `I + 2c X_AᵀX_A`. Each step minimises that quadratic by preconditioned conjugate gradients and then the
//! objective itself along the direction found (Keerthi and DeCoste, JMLR 6, 2005: finite convergence). A product with the
//! Hessian is one pass over the rows; every class has its own state, and a pass serves all of them, whatever each needs.

use crate::dense::Dense;
use crate::kernel::{LANES, Lanes};
use crate::panel::{Panel, assign, combine, dot, sum_rows, zeros};
use crate::{Exit, ExitReason, search};
use rayon::prelude::*;

/// Steps of conjugate gradients at which a Newton step is cut off.
const MAX_INNER: usize = 1000;

/// Share of the average gain at which conjugate gradients end. Much of what they learn is lost at the end of a step:
/// a tenth needs fewer passes in all than the half that Nash and Sofer propose.
const INNER_TOLERANCE: f64 = 0.1;

/// Share of the first residual, squared and preconditioned, that must be reached as well, halved after each of seven
/// Newton steps: a direction that is off where the objective is steep leads nowhere, and near the end exact steps arrive
/// at once.
const INNER_RESIDUAL: f64 = 0.5;

/// Passes after which the preconditioner is made: problems that need few are done by then.
const PREPARE_AFTER: usize = 12;

/// What is to be solved: up to sixteen classes against the rest.
#[derive(Debug)]
pub(crate) struct Problem<'a> {
    /// Class of each row.
    pub(crate) labels: &'a [u32],
    /// Class of each lane.
    pub(crate) positives: &'a [u32],
    pub(crate) c: f64,
    pub(crate) tolerance: f64,
    /// Passes over the rows.
    pub(crate) max_passes: usize,
    /// What no objective of a lane can be below: proves a start to be near enough.
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

/// Where a class stands: what its next pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gradient,
    /// Steps of conjugate gradients done.
    Inner(usize),
    Done,
}

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    /// The last step lowered the objective by less than the tolerance: what is left is to know the gradient.
    closing: bool,
    /// Whether this Newton step's conjugate gradients are preconditioned.
    preconditioned: bool,
    exit: Exit,
    /// Residual times preconditioned residual, of the step before.
    rz: f64,
    /// The same at the first step.
    first_rz: f64,
    /// Decrease that the last step promises, 0 where rounding left no step to make.
    gain: f64,
    /// Whether that is little against the steps before.
    small_gain: bool,
    /// Decrease that the quadratic promises so far.
    model: f64,
}

struct Solver<'a, 'b> {
    space: &'a mut Dense<'b>,
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
    space: &mut Dense<'_>,
    problem: &Problem<'_>,
    start: Panel,
    observe: &mut dyn FnMut(&[Exit], usize),
) -> (Panel, Vec<Exit>) {
    let (len, rows) = (space.len(), problem.labels.len());
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
        space,
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
    solver.space.round(&mut solver.w);
    solver.run(observe);
    let exits = solver.states[..problem.positives.len()].iter().map(|state| state.exit).collect();
    (solver.w, exits)
}

/// `f(state)` of each lane.
fn lanes<T>(states: &[State; LANES], f: impl Fn(&State) -> T) -> [T; LANES] {
    std::array::from_fn(|lane| f(&states[lane]))
}

impl Solver<'_, '_> {
    fn run(&mut self, observe: &mut dyn FnMut(&[Exit], usize)) {
        let (mut input, mut back) = (zeros(self.w.len()), zeros(self.w.len()));
        let mut images = zeros(self.m.len());
        let (mut passes, mut prepared) = (0, false);
        while self.states.iter().any(|state| state.phase != Phase::Done) {
            let gradient = lanes(&self.states, |state| state.phase == Phase::Gradient);
            let inner = lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)));
            assign(&gradient, &self.w, &mut input);
            assign(&inner, &self.p, &mut input);
            self.pass(&gradient, &inner, &input, &mut images, &mut back);
            passes += 1;
            for state in self.states.iter_mut().filter(|state| state.phase != Phase::Done) {
                state.exit.products += 1;
            }
            let out_of_time = passes >= self.problem.max_passes;
            if gradient.contains(&true) {
                self.after_gradient(&gradient, &images, &back);
            }
            if inner.contains(&true) {
                self.after_product(&inner, &images, &back);
            }
            if passes >= PREPARE_AFTER && !prepared {
                self.space.prepare(2.0 * self.problem.c);
                prepared = true;
            }
            self.turn(prepared, &mut back);
            self.search(&inner, out_of_time);
            if out_of_time {
                // A lane that has just moved gets the pass that tells its objective; any other ends here.
                for state in &mut self.states {
                    if state.phase != Phase::Gradient {
                        state.phase = Phase::Done;
                    }
                }
            }
            let exits: Vec<Exit> =
                self.states[..self.problem.positives.len()].iter().map(|state| state.exit).collect();
            observe(&exits, passes);
        }
    }

    fn pass(
        &mut self,
        gradient: &[bool; LANES],
        inner: &[bool; LANES],
        input: &[Lanes],
        images: &mut [Lanes],
        back: &mut [Lanes],
    ) {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        let rule = |row: usize, image: &Lanes| -> Lanes {
            let mut out = [0.0; LANES];
            for lane in 0..LANES {
                let sign = signs.at(row, lane);
                // The gradient is taken where this pass has arrived, the Hessian where the last gradient was.
                let margin = if gradient[lane] { image[lane] } else { m[row][lane] };
                let value = if gradient[lane] { image[lane] - sign } else { image[lane] };
                let counts = sign * margin < 1.0 && (gradient[lane] || inner[lane]);
                out[lane] = if counts { value } else { 0.0 };
            }
            out
        };
        self.space.pass(input, images, &rule, back);
    }

    /// Takes in margins and gradients at `w`.
    fn after_gradient(&mut self, chosen: &[bool; LANES], images: &[Lanes], back: &[Lanes]) {
        assign(chosen, images, &mut self.m);
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
            state.arrive(norms[lane], self.problem.is_proven(lane, state.exit.objective, norms[lane]));
        }
    }

    /// `Σ max(0, 1 - y m)^2` of each lane.
    fn losses(&self) -> Lanes {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        sum_rows(m.len(), |row, lane| (1.0 - signs.at(row, lane) * m[row][lane]).max(0.0).powi(2))
    }

    /// One step of conjugate gradients: `images` and `back` are of the direction.
    fn after_product(&mut self, chosen: &[bool; LANES], images: &[Lanes], back: &[Lanes]) {
        let squares = dot(&self.p, &self.p);
        let curvatures = self.curvatures(images);
        let twice_c = 2.0 * self.problem.c;
        let alpha: Lanes = std::array::from_fn(|lane| {
            let step = self.states[lane].rz / (squares[lane] + twice_c * curvatures[lane]);
            // Rounding alone is left where this is not a positive number.
            if chosen[lane] && step > 0.0 && step.is_finite() { step } else { 0.0 }
        });
        let ones = [1.0; LANES];
        combine(&alpha, &self.p, &ones, &mut self.d);
        combine(&alpha, images, &ones, &mut self.xd);
        combine(&alpha.map(|alpha| -alpha), &self.p, &ones, &mut self.r);
        combine(&alpha.map(|alpha| -alpha * twice_c), back, &ones, &mut self.r);
        for lane in (0..LANES).filter(|&lane| chosen[lane]) {
            let state = &mut self.states[lane];
            let gain = 0.5 * alpha[lane] * state.rz;
            state.gain = gain;
            state.model += gain;
            let Phase::Inner(steps) = state.phase else { continue };
            state.phase = Phase::Inner(steps + 1);
            // Nash and Sofer (1990): further steps would gain less than those so far did on average.
            state.small_gain = (steps + 1) as f64 * gain <= INNER_TOLERANCE * state.model;
        }
    }

    /// Turns residuals into the next directions, or ends conjugate gradients.
    fn turn(&mut self, prepared: bool, scratch: &mut [Lanes]) {
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
            self.space.precondition(&self.r, scratch);
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
                    // What is left to gain is less than what counts, or than what rounding lets through.
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
        // Lanes that take no part keep what they have.
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
    fn curvatures(&self, images: &[Lanes]) -> Lanes {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        sum_rows(m.len(), |row, lane| {
            let within = signs.at(row, lane) * m[row][lane] < 1.0;
            if within { images[row][lane] * images[row][lane] } else { 0.0 }
        })
    }

    /// Moves those of `chosen` whose conjugate gradients have ended, or all of them, to the lowest point of their line.
    fn search(&mut self, chosen: &[bool; LANES], all: bool) {
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
        let found: Vec<(f64, f64)> = (0..LANES)
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
                let t = search::lowest(c, wd[lane], dd[lane], &points);
                (t, search::gain(c, wd[lane], dd[lane], &points, t))
            })
            .collect();
        let t: Lanes = std::array::from_fn(|lane| found[lane].0);
        combine(&t, &self.d, &[1.0; LANES], &mut self.w);
        self.space.round(&mut self.w);
        for lane in (0..LANES).filter(|&lane| moving[lane]) {
            let state = &mut self.states[lane];
            let left = state.exit.objective - found[lane].1;
            state.closing = found[lane].1 <= self.problem.tolerance * left;
            state.exit.iterations += 1;
            state.phase = Phase::Gradient;
            state.model = 0.0;
        }
    }
}

impl State {
    /// The gradient at new weights is known, squared.
    fn arrive(&mut self, squared: f64, proven: bool) {
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
