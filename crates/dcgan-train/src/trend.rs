//! The random-feature Fréchet distance over a run: whether it still falls, and what to do.

use crate::config::Plan;
use crate::event::{Event, EventLine};
use crate::run_folder::{RunFolder, RunFolderError, RunResult, io_error};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// A change by less than this share is none: the distance varies from checkpoint to checkpoint.
const CHANGE: f64 = 0.05;
/// Distances up to this multiple of that of real images: the samples cannot be told from them by it.
const NEAR_REAL: f64 = 1.5;

/// How the distance changed over the last third of the checkpoints, compared with the best before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    /// Still falling: samples become better.
    Falling,
    /// About the same.
    Flat,
    /// Rising: samples became worse.
    Rising,
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Falling => "falling",
            Self::Flat => "flat",
            Self::Rising => "rising",
        })
    }
}

/// The distances of a run's checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Step and distance of each checkpoint that was measured.
    pub distances: Vec<(u64, f64)>,
    /// The distance between two halves of the real images.
    pub real_frechet: Option<f64>,
}

impl History {
    /// Reads stats.jsonl of a run, from the last change of its images on: other distances cannot be compared.
    /// Incomplete lines are left out.
    ///
    /// # Errors
    /// Those of the file system; no file is an empty history.
    pub fn read(folder: &RunFolder) -> Result<Self, RunFolderError> {
        let path = folder.stats_file();
        let mut history = Self::default();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(history),
            file => file.map_err(io_error(&path))?,
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(io_error(&path))?;
            if let Ok(EventLine { event, .. }) = serde_json::from_slice(&line) {
                history.observe(&event);
            }
        }
        history.start_after(last_change(folder)?);
        Ok(history)
    }

    /// Leaves out checkpoints up to `step`.
    pub fn start_after(&mut self, step: u64) {
        self.distances.retain(|(measured, _)| *measured > step);
    }

    /// Takes the next event of the run.
    pub fn observe(&mut self, event: &Event) {
        if let Event::Checkpoint { step, frechet: Some(frechet), real_frechet, .. } = event
            && frechet.is_finite()
        {
            self.distances.push((*step, *frechet));
            self.real_frechet = real_frechet.or(self.real_frechet);
        }
    }

    /// The trend. None after fewer than three checkpoints.
    pub fn trend(&self) -> Option<Trend> {
        let n = self.distances.len();
        if n < 3 {
            return None;
        }
        let (before, last) = self.distances.split_at(n - n / 3);
        let best = |part: &[(u64, f64)]| part.iter().fold(f64::INFINITY, |best, (_, value)| best.min(*value));
        let (before, last) = (best(before), best(last));
        Some(match last {
            last if last < before * (1.0 - CHANGE) => Trend::Falling,
            last if last > before * (1.0 + CHANGE) => Trend::Rising,
            _ => Trend::Flat,
        })
    }
}

/// The step of the last accepted change of the images of a run; 0 without one.
///
/// # Errors
/// A record of the dataset that cannot be read.
pub fn last_change(folder: &RunFolder) -> Result<u64, RunFolderError> {
    let record = folder.data_record()?;
    Ok(record.and_then(|record| record.changes.last().map(|change| change.step)).unwrap_or(0))
}

/// Whom [`advice`] is for: how the run is extended, and where its best model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader<'a> {
    /// A user of the command line. The folder of the run as commands take it.
    CommandLine(&'a str),
    /// A user of the service.
    Service {
        /// Whether the job has its optimizer state.
        can_resume: bool,
    },
}

impl Reader<'_> {
    /// How to train up to `steps`, after "train longer".
    fn longer(self, steps: u64) -> String {
        match self {
            Self::CommandLine(run) => format!("with `dcgan-train resume {run} --steps {steps}`"),
            Self::Service { can_resume: true } => {
                format!("up to {steps} steps: resume the job with that length")
            }
            Self::Service { can_resume: false } => "in a new job that starts from this model".to_owned(),
        }
    }

    fn best(self) -> String {
        match self {
            Self::CommandLine(run) => format!("{run}/best has the best one"),
            Self::Service { .. } => "the model of the job is that of the best one".to_owned(),
        }
    }

    /// An option of a run as this reader gives it.
    fn option(self, flag: &str) -> String {
        match self {
            Self::CommandLine(_) => flag.to_owned(),
            Self::Service { .. } => flag.trim_start_matches('-').to_owned(),
        }
    }
}

/// What the distances of a finished run mean, and what to do: sentences for the end of the run.
pub fn advice(plan: &Plan, result: &RunResult, reader: Reader<'_>) -> Option<String> {
    let (best, step) = (result.best_frechet?, result.best_step?);
    let scale = result.real_frechet.map_or_else(String::new, |real| {
        format!("; between two halves of the real images, as for perfect samples, it is {real:.4}")
    });
    let mut text = format!("random-feature Fréchet distance {best:.4} at step {step}{scale}.");
    if result.real_frechet.is_some_and(|real| best <= NEAR_REAL * real) {
        text.push_str(" By this metric the samples cannot be told apart from real images.");
        return Some(text);
    }
    let longer = result.steps.saturating_mul(2);
    let mut options = Vec::new();
    if plan.training.ema == 0.0 {
        options.push(reader.option("--ema 0.99 (smoother samples)"));
    }
    if !plan.training.mirror {
        options.push(reader.option("--mirror (where left and right are interchangeable)"));
    }
    options.push("more images".to_owned());
    let next_run = format!("for a new run: {}", options.join(", "));
    text.push_str(&match result.frechet_trend {
        Some(Trend::Falling) => {
            format!(" It was still falling: train longer {}; {next_run}.", reader.longer(longer))
        }
        Some(Trend::Flat) => format!(
            " It changed by less than 5 % over the last checkpoints: more steps alone are unlikely to help; {next_run}."
        ),
        Some(Trend::Rising) => {
            format!(" It rose over the last checkpoints: {}; {next_run}.", reader.best())
        }
        None => format!(
            " Too few checkpoints to tell whether it still falls: train longer {}.",
            reader.longer(longer)
        ),
    });
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunOptions;

    #[test]
    fn trends_and_advice() {
        let rows: &[(&[f64], Option<Trend>)] = &[
            (&[], None),
            (&[3.0, 2.0], None),
            (&[3.0, 2.0, 1.0], Some(Trend::Falling)),
            (&[3.0, 2.0, 1.96], Some(Trend::Flat)),
            (&[3.0, 2.0, 2.5], Some(Trend::Rising)),
            // A third of the checkpoints: one bad one at the end is not a rise.
            (&[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 5.0], Some(Trend::Falling)),
            (&[9.0, 8.0, 2.0, 2.0, 2.1, 2.0, 2.05, 2.1], Some(Trend::Flat)),
        ];
        for (values, expected) in rows {
            let mut history = History::default();
            for (step, &frechet) in (1..).zip(*values) {
                let path = "checkpoints/1".into();
                let (frechet, real_frechet) = (Some(frechet), Some(0.1));
                history.observe(&Event::Checkpoint { step, path, frechet, real_frechet, best: false });
            }
            assert_eq!(history.trend(), *expected, "{values:?}");
        }
        let plan = Plan::resolve(&RunOptions { preset: Some("pytorch64".into()), ..RunOptions::default() });
        let mut plan = plan.unwrap();
        let result = |best, frechet_trend| RunResult {
            steps: 100,
            images: 6400,
            best_step: Some(90),
            best_frechet: Some(best),
            best_metric: None,
            real_frechet: Some(0.01),
            frechet_trend,
        };
        let command_line = Reader::CommandLine("runs/a");
        let text = |plan: &Plan, best, trend| advice(plan, &result(best, trend), command_line).unwrap();
        for (trend, parts) in [
            (Some(Trend::Falling), ["still falling", "dcgan-train resume runs/a --steps 200", "--ema 0.99"]),
            (Some(Trend::Flat), ["changed by less than 5 %", "--mirror", "0.0100"]),
            (Some(Trend::Rising), ["rose", "runs/a/best", "--mirror"]),
            (None, ["Too few checkpoints", "--steps 200", "0.5000 at step 90"]),
        ] {
            let found = text(&plan, 0.5, trend);
            parts.iter().for_each(|part| assert!(found.contains(part), "no {part:?} in {found}"));
        }
        // For users of the service: its names of options, and no command.
        for (trend, can_resume, parts) in [
            (Some(Trend::Falling), true, ["up to 200 steps: resume the job", " ema 0.99"]),
            (Some(Trend::Falling), false, ["in a new job that starts from this model", " mirror"]),
            (Some(Trend::Flat), true, ["changed by less than 5 %", " ema 0.99"]),
            (Some(Trend::Rising), true, ["the model of the job is that of the best one", " mirror"]),
            (None, true, ["Too few checkpoints", "up to 200 steps: resume the job"]),
        ] {
            let found = advice(&plan, &result(0.5, trend), Reader::Service { can_resume }).unwrap();
            parts.iter().for_each(|part| assert!(found.contains(part), "no {part:?} in {found}"));
            assert!(!found.contains("--") && !found.contains('`'), "{found}");
        }
        assert!(text(&plan, 0.014, Some(Trend::Falling)).ends_with("told apart from real images."));
        (plan.training.ema, plan.training.mirror) = (0.99, true);
        let found = text(&plan, 0.5, Some(Trend::Flat));
        assert!(!found.contains("--ema") && !found.contains("--mirror"), "{found}");
        let unmeasured = RunResult { best_frechet: None, ..result(0.5, None) };
        assert_eq!(advice(&plan, &unmeasured, command_line), None);
    }
}
