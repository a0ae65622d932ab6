//! Runs side by side: what each reached, the options that differ, and means over seeds.

use crate::config::Plan;
use crate::event::{Event, EventLine};
use crate::run_folder::{RunFolder, RunFolderError};
use crate::trend::{History, last_change};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Options that differ between runs without changing what they train.
const IGNORED: [&str; 2] = ["run.seed", "run.threads"];

/// What a run does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// All steps were taken.
    Finished,
    /// A process trains it.
    Running,
    /// Stopped before its last step.
    Stopped,
}

impl RunState {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Running => "running",
            Self::Stopped => "stopped",
        }
    }
}

/// Losses at a log line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// Real images read.
    pub images: u64,
    /// Loss of D.
    pub d: Option<f64>,
    /// Loss of G.
    pub g: Option<f64>,
}

/// What a run has reached so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSummary {
    /// The run folder as it was given.
    pub run: PathBuf,
    /// Whether it is finished.
    pub state: RunState,
    /// Steps taken, by stats.jsonl.
    pub steps: u64,
    /// Steps of the whole run; 0 before the first log line.
    pub total_steps: u64,
    /// Real images read.
    pub images: u64,
    /// Seconds of training, without evaluation and checkpoints.
    pub seconds: f64,
    /// Real images a second of training.
    pub images_per_s: Option<f64>,
    /// The lowest random-feature Fréchet distance.
    pub best_frechet: Option<f64>,
    /// Its step.
    pub best_step: Option<u64>,
    /// The distance between two halves of the real images.
    pub real_frechet: Option<f64>,
    /// The last loss of D.
    pub loss_d: Option<f64>,
    /// The last loss of G.
    pub loss_g: Option<f64>,
    /// The seed.
    pub seed: u64,
    /// Lines of stats.jsonl that are damaged; an incomplete last line of a running run is none.
    pub damaged_lines: usize,
    /// The options of the plan that are not the same in all runs, by name: set by [`Comparison::new`].
    pub options: BTreeMap<String, String>,
    /// Losses at each log line.
    #[serde(skip)]
    pub losses: Vec<Losses>,
    /// Real images read, and the distance, at each measured checkpoint.
    #[serde(skip)]
    pub distances: Vec<(u64, f64)>,
}

impl RunSummary {
    /// Reads a run folder, also of a run that trains meanwhile.
    ///
    /// # Errors
    /// A folder without a valid plan; files that cannot be read.
    pub fn read(path: &Path) -> Result<Self, RunFolderError> {
        let (folder, plan) = RunFolder::open(path)?;
        let mut summary = Self::of_plan(path, &plan);
        let mut history = History::default();
        let stats = folder.stats_file();
        let bytes = match fs::read(&stats) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.map_err(|source| RunFolderError::Io { path: stats, source })?,
        };
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            match serde_json::from_slice(line) {
                Ok(EventLine { event, .. }) => {
                    history.observe(&event);
                    summary.observe(&event);
                }
                Err(_) => summary.damaged_lines += usize::from(line.ends_with(b"\n")),
            }
        }
        history.start_after(last_change(&folder)?);
        let batch_size = plan.training.batch_size as u64;
        summary.distances =
            history.distances.iter().map(|(step, frechet)| (step * batch_size, *frechet)).collect();
        let best = history.distances.iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
        (summary.best_step, summary.best_frechet) = (best.map(|best| best.0), best.map(|best| best.1));
        summary.real_frechet = history.real_frechet;
        summary.state = if folder.is_busy() {
            RunState::Running
        } else if folder.finished_step() == Some(summary.steps) && summary.steps >= summary.total_steps {
            RunState::Finished
        } else {
            RunState::Stopped
        };
        Ok(summary)
    }

    fn of_plan(path: &Path, plan: &Plan) -> Self {
        let table = toml::Value::try_from(plan).unwrap_or(toml::Value::Boolean(false));
        let mut options = BTreeMap::new();
        flatten("", &table, &mut options);
        Self {
            run: path.to_owned(),
            state: RunState::Stopped,
            steps: 0,
            total_steps: 0,
            images: 0,
            seconds: 0.0,
            images_per_s: None,
            best_frechet: None,
            best_step: None,
            real_frechet: None,
            loss_d: None,
            loss_g: None,
            seed: plan.run.seed,
            damaged_lines: 0,
            options,
            losses: Vec::new(),
            distances: Vec::new(),
        }
    }

    fn observe(&mut self, event: &Event) {
        self.steps = self.steps.max(event.step());
        let Event::Step(line) = event else { return };
        // A resumed run reads on from its checkpoint: the images of a line since the line before it.
        let images = line.images.saturating_sub(self.images);
        if line.images_per_s > 0.0 {
            self.seconds += images as f64 / line.images_per_s;
        }
        (self.images, self.total_steps) = (line.images, line.total_steps);
        (self.loss_d, self.loss_g) = (line.loss_d.or(self.loss_d), line.loss_g.or(self.loss_g));
        self.images_per_s = (self.seconds > 0.0).then(|| self.images as f64 / self.seconds);
        self.losses.push(Losses { images: line.images, d: line.loss_d, g: line.loss_g });
    }
}

/// The values of a table by dotted name, as text.
fn flatten(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, value, into);
            }
        }
        toml::Value::String(text) => drop(into.insert(prefix.to_owned(), text.clone())),
        other => drop(into.insert(prefix.to_owned(), other.to_string())),
    }
}

/// Mean of a value over runs, and the half-width of its 95 % confidence interval (Student's t; none for one run).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval.
    pub interval95: Option<f64>,
}

impl Estimate {
    /// The estimate from values that are taken as independent and normal; none without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let interval95 = (values.len() > 1).then(|| student_t(values.len() - 1) * (variance / n).sqrt());
        (!values.is_empty()).then_some(Self { mean, interval95 })
    }
}

/// The 97.5 % quantile of Student's t distribution with `df` degrees of freedom, at least 1.
fn student_t(df: usize) -> f64 {
    const EXACT: [f64; 10] =
        [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    if let Some(t) = df.checked_sub(1).and_then(|i| EXACT.get(i)) {
        return *t;
    }
    // Cornish-Fisher expansion around the normal quantile (Abramowitz and Stegun, 26.7.5).
    let (z, v) = (1.959_964_f64, df as f64);
    let g1 = (z.powi(3) + z) / 4.0;
    let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    z + g1 / v + g2 / v.powi(2) + g3 / v.powi(3)
}

/// Finished runs that differ in their seed only, one for each seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// The run folders.
    pub runs: Vec<PathBuf>,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// The lowest random-feature Fréchet distances.
    pub best_frechet: Option<Estimate>,
    /// The last losses of D.
    pub loss_d: Option<Estimate>,
    /// The last losses of G.
    pub loss_g: Option<Estimate>,
    /// Speeds.
    pub images_per_s: Option<Estimate>,
}

impl Group {
    fn of(runs: &[&RunSummary]) -> Self {
        let estimate = |value: fn(&RunSummary) -> Option<f64>| {
            Estimate::of(&runs.iter().filter_map(|run| value(run)).collect::<Vec<_>>())
        };
        Self {
            runs: runs.iter().map(|run| run.run.clone()).collect(),
            seeds: runs.iter().map(|run| run.seed).collect(),
            best_frechet: estimate(|run| run.best_frechet),
            loss_d: estimate(|run| run.loss_d),
            loss_g: estimate(|run| run.loss_g),
            images_per_s: estimate(|run| run.images_per_s),
        }
    }
}

/// Some runs, with the options that differ between them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The runs in the order given.
    pub runs: Vec<RunSummary>,
    /// Groups of two seeds or more; unfinished runs and further runs of a seed are in none.
    pub groups: Vec<Group>,
}

impl Comparison {
    /// Compares runs.
    pub fn new(mut runs: Vec<RunSummary>) -> Self {
        let mut by_options: BTreeMap<BTreeMap<String, String>, BTreeMap<u64, usize>> = BTreeMap::new();
        for (i, run) in runs.iter_mut().enumerate() {
            run.options.retain(|name, _| !IGNORED.contains(&name.as_str()));
            if run.state == RunState::Finished {
                by_options.entry(run.options.clone()).or_default().entry(run.seed).or_insert(i);
            }
        }
        let groups = by_options.into_values().filter(|runs| runs.len() > 1);
        let mut members: Vec<Vec<usize>> = groups.map(|runs| runs.into_values().collect()).collect();
        members.iter_mut().for_each(|members| members.sort_unstable());
        members.sort();
        let group = |members: &Vec<usize>| Group::of(&members.iter().map(|&i| &runs[i]).collect::<Vec<_>>());
        let groups = members.iter().map(group).collect();
        let names: BTreeSet<String> = runs.iter().flat_map(|run| run.options.keys().cloned()).collect();
        let is_common = |name: &String| {
            runs.windows(2).all(|pair| pair[0].options.get(name) == pair[1].options.get(name))
        };
        let common: BTreeSet<String> = names.into_iter().filter(is_common).collect();
        runs.iter_mut().for_each(|run| run.options.retain(|name, _| !common.contains(name)));
        Self { runs, groups }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_students_t() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[2.0]), Some(Estimate { mean: 2.0, interval95: None }));
        // scipy.stats.t.interval(0.95, n - 1, mean, sem)
        for (values, mean, half) in [
            (vec![1.0, 3.0], 2.0, 12.706_2),
            (vec![1.0, 2.0, 3.0, 4.0], 2.5, 2.054_260),
            ((0..12).map(f64::from).collect(), 5.5, 2.290_817),
            ((0..41).map(f64::from).collect(), 20.0, 3.780_783),
        ] {
            let found = Estimate::of(&values).unwrap();
            let half_found = found.interval95.unwrap();
            assert!(found.mean == mean && (half_found - half).abs() < 2e-4 * half, "{values:?}: {found:?}");
        }
    }
}
