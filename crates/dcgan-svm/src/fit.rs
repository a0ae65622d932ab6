//! Fits behind linfa's traits: labels become binary problems, problems panels of sixteen, each with its solver.

use crate::active;
use crate::dense::{self, Dense};
use crate::direct;
use crate::dual;
use crate::features::Features;
use crate::kernel::{LANES, Lanes};
use crate::model::as_f32;
use crate::newton::{self, Problem};
use crate::panel::{Panel, zeros};
use crate::{Exit, ExitReason, FitProgress, Gram, LinearSvm, Method, SvmError, SvmValidParams};
use linfa::dataset::{DatasetBase, Records};
use linfa::traits::Fit;
use ndarray::{Array1, Array2};
use std::borrow::Cow;

/// Input of a fit: features, or their inner products, which several fits can share.
#[derive(Clone, Copy, Debug)]
pub enum Rows<'a> {
    /// Features.
    Features(&'a Features),
    /// Inner products with their features.
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
    /// Fits one classifier per class of `labels`.
    ///
    /// # Errors
    /// No rows; another number of labels than rows; fewer than two classes; features that are not finite or too large.
    pub fn fit_rows<'a>(&self, rows: impl Into<Rows<'a>>, labels: &[usize]) -> Result<LinearSvm, SvmError> {
        self.fit_with(rows, labels, None, &mut |_| {})
    }

    /// Fits from the weights of a similar model, for example one of another `c` on the same rows. Classes that `start`
    /// lacks start from zero. `on_progress` is called after every pass over the rows.
    ///
    /// # Errors
    /// As [`SvmValidParams::fit_rows`]; a start of another width.
    pub fn fit_with<'a>(
        &self,
        rows: impl Into<Rows<'a>>,
        labels: &[usize],
        start: Option<&LinearSvm>,
        on_progress: &mut dyn FnMut(FitProgress),
    ) -> Result<LinearSvm, SvmError> {
        let rows = rows.into();
        let features = rows.features();
        let width = features.width();
        let classes = Classes::new(features, labels)?;
        if let Some(found) = start.map(|start| start.weights.ncols()).filter(|&found| found != width) {
            return Err(SvmError::Start { expected: width, found });
        }
        let job = Job { params: self, features, classes: &classes, start, on_progress };
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
                let mut dense = Dense::new(features)?;
                job.solve(|problem, start, on_progress| {
                    let start = start.unwrap_or_else(|| zeros(dense.len()));
                    Ok(newton::solve(&mut dense, problem, start, on_progress))
                })
            }
        }
    }
}

/// Labels by class index.
pub(super) struct Classes {
    /// Class indices, ascending.
    pub(super) numbers: Vec<usize>,
    /// Index in `numbers` of each row.
    pub(super) indices: Vec<u32>,
    /// Index of the positive class of each problem.
    pub(super) positives: Vec<u32>,
}

impl Classes {
    /// Checks rows and labels.
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
    on_progress: &'a mut dyn FnMut(FitProgress),
}

impl Job<'_> {
    fn solve_in_rows(self, gram: &Gram) -> Result<LinearSvm, SvmError> {
        let start_c = self.start.map_or(0.0, |start| start.c);
        self.solve(|problem, start, on_progress| {
            let start = match start {
                None => zeros(problem.labels.len()),
                Some(weights) => coefficients(gram.features(), &weights, problem, start_c),
            };
            let (coefficients, exits) = direct::solve(gram, problem, &start, on_progress);
            Ok((gram.weights(&coefficients), exits))
        })
    }

    /// Dual coordinate descent, then Newton's method for classes that have not converged.
    fn solve_by_descent(self) -> Result<LinearSvm, SvmError> {
        let (features, max_passes) = (self.features, self.params.max_iterations);
        let start_c = self.start.map_or(0.0, |start| start.c);
        let mut dense = Dense::new(features)?;
        self.solve(|problem, start, on_progress| {
            let start = start.map(|weights| coefficients(features, &weights, problem, start_c));
            let unknown = vec![Exit::unknown(); problem.positives.len()];
            // One pass is reserved for the objective.
            let sweeps = max_passes.saturating_sub(1);
            let dual = dual::descend(&mut dense, problem, start.as_ref(), sweeps, &mut |sweep| {
                on_progress(&unknown, sweep)
            });
            let mut weights = dense.transposed_product(&dual.coefficients);
            let mut problem =
                Problem { bounds: dual::bounds(&dual.coefficients, &weights, problem.c), ..*problem };
            let mut steps = 0;
            if dual.few_active && dual.sweeps < sweeps {
                let mut active_progress = |step| on_progress(&unknown, dual.sweeps + step);
                (weights, problem.bounds, steps) =
                    active::solve(&mut dense, &problem, weights, &mut active_progress);
            }
            let before = dual.sweeps + steps;
            problem.max_passes = (problem.max_passes.saturating_sub(before)).max(1);
            let mut newton_progress = |exits: &[Exit], passes: usize| on_progress(exits, before + passes);
            let (weights, mut exits) = newton::solve(&mut dense, &problem, weights, &mut newton_progress);
            exits.iter_mut().for_each(|exit| exit.products += before);
            Ok((weights, exits))
        })
    }

    /// Solves all panels with `solver`, which receives the starting weights, if any.
    fn solve(
        self,
        mut solver: impl FnMut(
            &Problem<'_>,
            Option<Panel>,
            &mut dyn FnMut(&[Exit], usize),
        ) -> Result<(Panel, Vec<Exit>), SvmError>,
    ) -> Result<LinearSvm, SvmError> {
        let problems = self.classes.positives.len();
        let mut solved: Vec<(Panel, Vec<Exit>)> = Vec::new();
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
            let done: Vec<Exit> = solved.iter().flat_map(|(_, exits)| exits.clone()).collect();
            let mut passes = passes_before;
            let (weights, exits) = solver(&problem, start, &mut |exits, panel_passes| {
                passes = passes_before + panel_passes;
                let all = || done.iter().chain(exits);
                (self.on_progress)(FitProgress {
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
            solved.push((weights, exits));
        }
        self.model(&solved)
    }

    fn model(&self, solved: &[(Panel, Vec<Exit>)]) -> Result<LinearSvm, SvmError> {
        let classes = self.classes.numbers.clone();
        let exits: Vec<Exit> = solved.iter().flat_map(|(_, exits)| exits.clone()).collect();
        let at = |problem: usize, j: usize| as_f32(solved[problem / LANES].0[j][problem % LANES]);
        let width = solved.first().map_or(0, |(weights, _)| weights.len() - 1);
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

    /// Starting weights of the given classes.
    fn start_panel(&self, start: &LinearSvm, positives: &[u32]) -> Panel {
        let mut panel = zeros(start.weights.ncols() + 1);
        for (lane, &positive) in positives.iter().enumerate() {
            let number = self.classes.numbers[positive as usize];
            // Two classes are one problem, that of the greater.
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

/// Row coefficients of a model's weights; exact if the weights are optimal for `c` on these rows.
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

/// Copies an array into features.
pub(super) fn features(records: &Array2<f32>) -> Result<Features, SvmError> {
    let (rows, width) = records.dim();
    if rows == 0 || width == 0 {
        return Err(SvmError::Empty { rows, width });
    }
    Ok(Features::from_f32(records.iter().copied().collect(), width)?)
}
