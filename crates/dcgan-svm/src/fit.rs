//! Fits behind linfa's traits: labels into problems, problems into panels of sixteen, the solver for each.

use crate::active;
use crate::dense::{self, Dense};
use crate::direct;
use crate::dual;
use crate::features::Features;
use crate::kernel::{LANES, Lanes};
use crate::model::as_f32;
use crate::newton::{self, Problem};
use crate::panel::{Panel, zeros};
use crate::{Exit, ExitReason, Gram, LinearSvm, Method, Progress, SvmError, SvmValidParams};
use linfa::dataset::{DatasetBase, Records};
use linfa::traits::Fit;
use ndarray::{Array1, Array2};
use std::borrow::Cow;

/// What a fit reads: features, or their inner products where several fits share them.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Features alone.
    Features(&'a Features),
    /// Inner products and the features that they came from.
    Gram(&'a Gram),
}

impl<'a> From<&'a Features> for Rows<'a> {
    fn from(features: &'a Features) -> Self {
        Self::Features(features)
    }
}

impl<'a> From<&'a Gram> for Rows<'a> {
    fn from(gram: &'a Gram) -> Self {
        Self::Gram(gram)
    }
}

impl Rows<'_> {
    fn features(&self) -> &Features {
        match self {
            Self::Features(features) => features,
            Self::Gram(gram) => gram.features(),
        }
    }
}

impl SvmValidParams {
    /// Fits all classes that `labels` name.
    ///
    /// # Errors
    /// No rows; another number of labels; fewer than two classes; features that are not finite or too large.
    pub fn fit_rows<'a>(&self, rows: impl Into<Rows<'a>>, labels: &[usize]) -> Result<LinearSvm, SvmError> {
        self.fit_with(rows, labels, None, &mut |_| {})
    }

    /// Fits from the weights of `start`, of a like fit: of the same rows with another `c`, say. Classes that it does not
    /// have start from zero. `observe` hears of every pass over the rows.
    ///
    /// # Errors
    /// As [`SvmValidParams::fit_rows`]; a start of another width.
    pub fn fit_with<'a>(
        &self,
        rows: impl Into<Rows<'a>>,
        labels: &[usize],
        start: Option<&LinearSvm>,
        observe: &mut dyn FnMut(Progress),
    ) -> Result<LinearSvm, SvmError> {
        let rows = rows.into();
        let features = rows.features();
        let width = features.width();
        let classes = Classes::new(features, labels)?;
        if let Some(found) = start.map(|start| start.weights.ncols()).filter(|&found| found != width) {
            return Err(SvmError::Start { expected: width, found });
        }
        let job = Job { params: self, features, classes: &classes, start, observe };
        let gram = match (rows, self.method) {
            (Rows::Features(features), Method::Automatic) if !Gram::pays(features) => {
                return job.solve_by_descent();
            }
            (Rows::Features(_), Method::Features) => None,
            (Rows::Features(features), _) => Some(Cow::Owned(Gram::up_to(features, self.c)?)),
            (Rows::Gram(gram), _) => Some(Cow::Borrowed(gram)),
        };
        match gram {
            Some(gram) => job.solve_in_rows(&gram),
            None => {
                let mut space = Dense::new(features)?;
                job.solve(|problem, start, observe| {
                    let start = start.unwrap_or_else(|| zeros(space.len()));
                    Ok(newton::solve(&mut space, problem, start, observe))
                })
            }
        }
    }
}

/// Labels as the solver wants them.
pub(super) struct Classes {
    /// Class numbers, ascending.
    pub(super) numbers: Vec<usize>,
    /// Index in `numbers`, of each row.
    pub(super) indices: Vec<u32>,
    /// Index of the positive class, of each problem.
    pub(super) positives: Vec<u32>,
}

impl Classes {
    /// Refuses rows and labels that no fit can have.
    pub(super) fn new(features: &Features, labels: &[usize]) -> Result<Self, SvmError> {
        let (rows, width) = (features.len(), features.width());
        if rows == 0 || width == 0 {
            return Err(SvmError::Empty { rows, width });
        }
        if labels.len() != rows {
            return Err(SvmError::Labels { rows, labels: labels.len() });
        }
        let mut numbers = labels.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let index =
            |label: &usize| u32::try_from(numbers.partition_point(|number| number < label)).unwrap_or(count);
        let indices = labels.iter().map(index).collect();
        let positives = match count {
            0 | 1 => return Err(SvmError::Classes(numbers.len())),
            2 => vec![1],
            _ => (0..count).collect(),
        };
        Ok(Self { numbers, indices, positives })
    }
}

struct Job<'a> {
    params: &'a SvmValidParams,
    features: &'a Features,
    classes: &'a Classes,
    start: Option<&'a LinearSvm>,
    observe: &'a mut dyn FnMut(Progress),
}

impl Job<'_> {
    fn solve_in_rows(self, gram: &Gram) -> Result<LinearSvm, SvmError> {
        let start_c = self.start.map_or(0.0, |start| start.c);
        self.solve(|problem, start, observe| {
            let start = match start {
                None => zeros(problem.labels.len()),
                Some(weights) => coefficients(gram.features(), &weights, problem, start_c),
            };
            let (coefficients, exits) = direct::solve(gram, problem, &start, observe);
            Ok((gram.weights(&coefficients), exits))
        })
    }

    /// Dual coordinate descent, then Newton's method for the classes that it does not finish.
    fn solve_by_descent(self) -> Result<LinearSvm, SvmError> {
        let (features, max_passes) = (self.features, self.params.max_iterations);
        let start_c = self.start.map_or(0.0, |start| start.c);
        let mut space = Dense::new(features)?;
        self.solve(|problem, start, observe| {
            let start = start.map(|weights| coefficients(features, &weights, problem, start_c));
            let waiting = vec![Exit::unknown(); problem.positives.len()];
            // The last pass tells the objective.
            let sweeps = max_passes.saturating_sub(1);
            let found = dual::descend(&mut space, problem, start.as_ref(), sweeps, &mut |sweep| {
                observe(&waiting, sweep)
            });
            let mut weights = space.collect(&found.coefficients);
            let mut problem =
                Problem { bounds: dual::bounds(&found.coefficients, &weights, problem.c), ..*problem };
            let mut steps = 0;
            if found.few && found.sweeps < sweeps {
                let mut tell = |step| observe(&waiting, found.sweeps + step);
                (weights, problem.bounds, steps) = active::solve(&mut space, &problem, weights, &mut tell);
            }
            let before = found.sweeps + steps;
            problem.max_passes = (problem.max_passes.saturating_sub(before)).max(1);
            let mut after = |exits: &[Exit], passes: usize| observe(exits, before + passes);
            let (weights, mut exits) = newton::solve(&mut space, &problem, weights, &mut after);
            exits.iter_mut().for_each(|exit| exit.products += before);
            Ok((weights, exits))
        })
    }

    /// Solves all panels with `solver`, which gets a start where there is one.
    fn solve(
        self,
        mut solver: impl FnMut(
            &Problem<'_>,
            Option<Panel>,
            &mut dyn FnMut(&[Exit], usize),
        ) -> Result<(Panel, Vec<Exit>), SvmError>,
    ) -> Result<LinearSvm, SvmError> {
        let problems = self.classes.positives.len();
        let mut found: Vec<(Panel, Vec<Exit>)> = Vec::new();
        let mut passes_before = 0;
        for positives in self.classes.positives.chunks(LANES) {
            let start = self.start.map(|start| self.start_panel(start, positives));
            let problem = Problem {
                labels: &self.classes.indices,
                positives,
                c: self.params.c,
                tolerance: self.params.tolerance,
                max_passes: self.params.max_iterations,
                bounds: [f64::NEG_INFINITY; LANES],
            };
            let done: Vec<Exit> = found.iter().flat_map(|(_, exits)| exits.clone()).collect();
            let mut passes = passes_before;
            let (weights, exits) = solver(&problem, start, &mut |exits, panel_passes| {
                passes = passes_before + panel_passes;
                let all = || done.iter().chain(exits);
                (self.observe)(Progress {
                    passes,
                    problems,
                    converged: all().filter(|exit| exit.reason == ExitReason::Converged).count(),
                    objective: all().map(|exit| exit.objective).filter(|value| value.is_finite()).sum(),
                    gradient_norm: all()
                        .map(|e| e.gradient_norm)
                        .filter(|v| v.is_finite())
                        .fold(0.0, f64::max),
                });
            })?;
            passes_before = passes;
            found.push((weights, exits));
        }
        self.collect(&found)
    }

    fn collect(&self, found: &[(Panel, Vec<Exit>)]) -> Result<LinearSvm, SvmError> {
        let classes = self.classes.numbers.clone();
        let exits: Vec<Exit> = found.iter().flat_map(|(_, exits)| exits.clone()).collect();
        let at = |problem: usize, j: usize| as_f32(found[problem / LANES].0[j][problem % LANES]);
        let width = found.first().map_or(0, |(weights, _)| weights.len() - 1);
        for (exit, &positive) in exits.iter().zip(&self.classes.positives) {
            if !exit.objective.is_finite() {
                return Err(SvmError::Overflow { class: self.classes.numbers[positive as usize] });
            }
        }
        Ok(LinearSvm {
            classes,
            weights: Array2::from_shape_fn((exits.len(), width), |(problem, j)| at(problem, j)),
            intercepts: Array1::from_shape_fn(exits.len(), |problem| at(problem, width)),
            c: self.params.c,
            exits,
        })
    }

    /// The start's weights of the given classes.
    fn start_panel(&self, start: &LinearSvm, positives: &[u32]) -> Panel {
        let mut panel = zeros(start.weights.ncols() + 1);
        for (lane, &positive) in positives.iter().enumerate() {
            let number = self.classes.numbers[positive as usize];
            // Of two classes there is one problem, that of the greater.
            let (two, ours_two) = (start.classes.len() == 2, self.classes.numbers.len() == 2);
            let Some(class) = start.classes.iter().position(|&class| class == number) else { continue };
            if two && (class == 0 || !ours_two) {
                continue;
            }
            let problem = if two { 0 } else { class };
            let weights = start.weights.row(problem);
            for (row, &weight) in panel.iter_mut().zip(weights.iter().chain([&start.intercepts[problem]])) {
                row[lane] = f64::from(weight);
            }
        }
        panel
    }
}

/// Coefficients of rows that stand for a fit's weights: exactly, where they are the optimum of `c` on these rows.
fn coefficients(features: &Features, weights: &[Lanes], problem: &Problem<'_>, c: f64) -> Panel {
    let mut coefficients = dense::project(features, weights);
    for (row, &label) in coefficients.iter_mut().zip(problem.labels) {
        for (lane, value) in row.iter_mut().enumerate() {
            let sign = if problem.positives.get(lane) == Some(&label) { 1.0 } else { -1.0 };
            let slack = (1.0 - sign * *value).max(0.0);
            *value = if lane < problem.positives.len() { 2.0 * c * sign * slack } else { 0.0 };
        }
    }
    coefficients
}

impl Records for Features {
    type Elem = f32;

    fn nsamples(&self) -> usize {
        self.len()
    }

    fn nfeatures(&self) -> usize {
        self.width()
    }
}

impl Fit<Features, Array1<usize>, SvmError> for SvmValidParams {
    type Object = LinearSvm;

    fn fit(&self, dataset: &DatasetBase<Features, Array1<usize>>) -> Result<LinearSvm, SvmError> {
        self.fit_rows(&dataset.records, &dataset.targets.to_vec())
    }
}

impl Fit<Array2<f32>, Array1<usize>, SvmError> for SvmValidParams {
    type Object = LinearSvm;

    fn fit(&self, dataset: &DatasetBase<Array2<f32>, Array1<usize>>) -> Result<LinearSvm, SvmError> {
        self.fit_rows(&features(&dataset.records)?, &dataset.targets.to_vec())
    }
}

/// A copy of an array as features.
pub(super) fn features(records: &Array2<f32>) -> Result<Features, SvmError> {
    let (rows, width) = records.dim();
    if rows == 0 || width == 0 {
        return Err(SvmError::Empty { rows, width });
    }
    Ok(Features::from_f32(records.iter().copied().collect(), width)?)
}
