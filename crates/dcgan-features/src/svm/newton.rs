//! Generalised Newton's method with conjugate gradients and an exact line search, for all classes in one pass.
//!
//! The objective of a class, `1/2 |w|^2 + c Σ max(0, 1 - y_i m_i)^2` with margins `m = X w`, is piecewise quadratic. On
//! the piece of `w`, where A is the set of rows within the margin, its gradient is `w + 2c X_Aᵀ(m_A - y_A)` and its
//! Hessian `I + 2c X_AᵀX_A`. Each step minimises that quadratic by conjugate gradients and then the objective itself
//! along the direction found (Keerthi and DeCoste, JMLR 6, 2005: finite convergence). A product with the Hessian is one
//! pass over the rows; every class has its own state, and a pass serves all of them, whatever each needs.
//!
//! Conjugate gradients are in the form of Chronopoulos and Gear (1989), which multiplies the residual instead of the
//! direction. So the same code runs where vectors are combinations of rows, `w = Xᵀβ`, with `X Xᵀ` in place of `X`:
//! inner products then follow from the images that a pass gives anyway.

use super::kernel::{LANES, Lanes};
use super::panel::{Panel, assign, combine, dot, sum_rows, zeros};
use super::{Exit, ExitReason, search};
use rayon::prelude::*;

/// Steps of conjugate gradients at which a Newton step is cut off.
const MAX_INNER: usize = 1000;

/// The space that weight vectors are written in.
pub(crate) trait Space {
    /// Whether the inner product of vectors is the plain one of their coordinates, so that it needs no image.
    const PLAIN: bool;

    /// Coordinates of a vector, with that of the intercept.
    fn len(&self) -> usize;

    /// `images = X input`, then `back = Xᵀ rule(row, images[row])`.
    fn pass(
        &mut self,
        input: &[Lanes],
        images: &mut [Lanes],
        rule: &(dyn Fn(usize, &Lanes) -> Lanes + Sync),
        back: &mut [Lanes],
    );

    /// Inner products of `a` and `b`, whose image is given.
    fn inner(&self, a: &[Lanes], b: &[Lanes], image_of_b: &[Lanes]) -> Lanes;

    /// Residuals times an approximate inverse of `I + scale XᵀX`, in the given lanes.
    fn precondition(&self, lanes: &[bool; LANES], scale: &Lanes, residual: &[Lanes], out: &mut [Lanes]);

    /// Weights as they will be stored.
    fn round(&self, weights: &mut [Lanes]);
}

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
    /// The last step's decrease was below the tolerance: what is left is to know the gradient.
    closing: bool,
    exit: Exit,
    /// Residual times preconditioned residual, of the step before.
    rz: f64,
    /// Decrease that the quadratic promises so far.
    model: f64,
}

struct Solver<'a, S> {
    space: &'a mut S,
    problem: &'a Problem<'a>,
    states: [State; LANES],
    // Vectors: weights, residual, preconditioned residual, direction, Hessian times direction, their sum.
    w: Panel,
    r: Panel,
    z: Panel,
    p: Panel,
    hp: Panel,
    d: Panel,
    // Images: of the weights (margins), of the direction, of the sum of directions.
    m: Panel,
    xp: Panel,
    xd: Panel,
}

/// Solves for every lane from `start`; returns weights and exits.
pub(crate) fn solve<S: Space>(
    space: &mut S,
    problem: &Problem<'_>,
    start: Panel,
    observe: &mut dyn FnMut(&[Exit], usize),
) -> (Panel, Vec<Exit>) {
    let (len, rows) = (space.len(), problem.labels.len());
    let exit = Exit {
        reason: ExitReason::IterationLimit,
        iterations: 0,
        products: 0,
        objective: f64::INFINITY,
        gradient_norm: f64::INFINITY,
    };
    let mut states = [State { phase: Phase::Done, closing: false, exit, rz: 0.0, model: 0.0 }; LANES];
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
        hp: zeros(len),
        d: zeros(len),
        m: zeros(rows),
        xp: zeros(rows),
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

impl<S: Space> Solver<'_, S> {
    fn run(&mut self, observe: &mut dyn FnMut(&[Exit], usize)) {
        let (mut input, mut back) = (zeros(self.w.len()), zeros(self.w.len()));
        let mut images = zeros(self.m.len());
        let mut passes = 0;
        while self.states.iter().any(|state| state.phase != Phase::Done) {
            let gradient = lanes(&self.states, |state| state.phase == Phase::Gradient);
            let inner = lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)));
            assign(&gradient, &self.w, &mut input);
            assign(&inner, &self.z, &mut input);
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
                self.search(&inner, out_of_time);
            }
            if out_of_time {
                // A lane that has just moved gets the pass that tells its objective; any other ends here.
                for state in &mut self.states {
                    if state.phase != Phase::Gradient {
                        state.phase = Phase::Done;
                    }
                }
            }
            let fresh = lanes(&self.states, |state| matches!(state.phase, Phase::Inner(_)));
            let scale = self.precondition_scale();
            self.space.precondition(&fresh, &scale, &self.r, &mut self.z);
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
        let zero = [0.0; LANES];
        let keep = chosen.map(|chosen| if chosen { 0.0 } else { 1.0 });
        let (minus, twice_c) = (
            chosen.map(|c| if c { -1.0 } else { 0.0 }),
            chosen.map(|c| if c { -2.0 * self.problem.c } else { 0.0 }),
        );
        combine(&minus, &self.w, &keep, &mut self.r);
        combine(&twice_c, back, &[1.0; LANES], &mut self.r);
        for (vector, images) in [(&mut self.p, &mut self.xp), (&mut self.d, &mut self.xd)] {
            combine(&zero, &self.w, &keep, vector);
            combine(&zero, &self.m, &keep, images);
        }
        combine(&zero, &self.w, &keep, &mut self.hp);
        let squares = self.space.inner(&self.w, &self.w, &self.m);
        let losses = self.losses();
        let norms = if S::PLAIN { dot(&self.r, &self.r) } else { [f64::NAN; LANES] };
        for lane in (0..LANES).filter(|&lane| chosen[lane]) {
            let state = &mut self.states[lane];
            state.exit.objective = 0.5 * squares[lane] + self.problem.c * losses[lane];
            state.phase = Phase::Inner(0);
            if S::PLAIN {
                state.arrive(norms[lane], self.problem.tolerance);
            }
        }
    }

    /// `Σ max(0, 1 - y m)^2` of each lane.
    fn losses(&self) -> Lanes {
        let (signs, m) = (Signs::new(self.problem), &self.m);
        sum_rows(m.len(), |row, lane| (1.0 - signs.at(row, lane) * m[row][lane]).max(0.0).powi(2))
    }

    /// One step of conjugate gradients: `images` and `back` are of the preconditioned residual.
    fn after_product(&mut self, chosen: &[bool; LANES], images: &[Lanes], back: &[Lanes]) {
        let rz = self.space.inner(&self.r, &self.z, images);
        for lane in (0..LANES).filter(|&lane| chosen[lane]) {
            if !S::PLAIN && self.states[lane].phase == Phase::Inner(0) {
                self.states[lane].arrive(rz[lane], self.problem.tolerance);
            }
        }
        let active: [bool; LANES] =
            std::array::from_fn(|lane| chosen[lane] && self.states[lane].phase != Phase::Done);
        let on = active.map(|active| if active { 1.0 } else { 0.0 });
        // Lanes that take no part keep what they have.
        let beta: Lanes = std::array::from_fn(|lane| match self.states[lane].phase {
            _ if !active[lane] => 1.0,
            Phase::Inner(0) => 0.0,
            _ => rz[lane] / self.states[lane].rz,
        });
        combine(&on, &self.z, &beta, &mut self.p);
        combine(&on, images, &beta, &mut self.xp);
        combine(&on, &self.z, &beta, &mut self.hp);
        combine(&on.map(|on| 2.0 * self.problem.c * on), back, &[1.0; LANES], &mut self.hp);

        let squares = self.space.inner(&self.p, &self.p, &self.xp);
        let curvatures = self.curvatures();
        let mut alpha = [0.0; LANES];
        for lane in (0..LANES).filter(|&lane| active[lane]) {
            let php = squares[lane] + 2.0 * self.problem.c * curvatures[lane];
            let step = rz[lane] / php;
            // Rounding alone is left where these are not positive.
            alpha[lane] = if rz[lane] > 0.0 && php > 0.0 && step.is_finite() { step } else { 0.0 };
            self.states[lane].rz = rz[lane];
        }
        combine(&alpha, &self.p, &[1.0; LANES], &mut self.d);
        combine(&alpha, &self.xp, &[1.0; LANES], &mut self.xd);
        combine(&alpha.map(|alpha| -alpha), &self.hp, &[1.0; LANES], &mut self.r);
        for lane in (0..LANES).filter(|&lane| active[lane]) {
            let state = &mut self.states[lane];
            let gain = 0.5 * alpha[lane] * rz[lane];
            state.model += gain;
            let Phase::Inner(steps) = state.phase else { continue };
            state.phase = Phase::Inner(steps + 1);
            // Nash and Sofer (1990): further steps would gain less than those so far did on average.
            if (steps + 1) as f64 * gain <= INNER_TOLERANCE * state.model || steps + 1 >= MAX_INNER {
                state.phase = Phase::Gradient;
            }
        }
    }

    /// `Σ v^2` over the rows within the margin, of the direction's images.
    fn curvatures(&self) -> Lanes {
        let (signs, m, xp) = (Signs::new(self.problem), &self.m, &self.xp);
        sum_rows(m.len(), |row, lane| {
            let within = signs.at(row, lane) * m[row][lane] < 1.0;
            if within { xp[row][lane] * xp[row][lane] } else { 0.0 }
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
        let wd = self.space.inner(&self.w, &self.d, &self.xd);
        let dd = self.space.inner(&self.d, &self.d, &self.xd);
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
                let hinge = |margin: f64| (1.0 - margin).max(0.0).powi(2);
                // Differences of each row: exact where the step is small.
                let change: f64 = points.iter().map(|&(m, v)| hinge(m + t * v) - hinge(m)).sum();
                (t, -(t * wd[lane] + 0.5 * t * t * dd[lane] + c * change))
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

    /// `2c` times the share of rows within the margin.
    fn precondition_scale(&self) -> Lanes {
        [2.0 * self.problem.c; LANES]
    }
}

/// Share of the average gain at which conjugate gradients end.
const INNER_TOLERANCE: f64 = 0.5;

impl State {
    /// The gradient at new weights is known, squared.
    fn arrive(&mut self, squared: f64, tolerance: f64) {
        self.exit.gradient_norm = squared.max(0.0).sqrt();
        // The objective is above its minimum by at most half of the squared gradient, as the curvature is 1 or more.
        if self.closing || 0.5 * squared <= tolerance * self.exit.objective {
            self.exit.reason = ExitReason::Converged;
            self.phase = Phase::Done;
        }
    }
}
