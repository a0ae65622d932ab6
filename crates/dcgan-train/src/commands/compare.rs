//! `dcgan-train compare`.

use crate::cli::CompareArgs;
use dcgan_cli::{Logging, Outcome, Results, UsageError, check_output};
use dcgan_data::image_file::EXTENSIONS;
use dcgan_train::compare::{Comparison, Estimate, RunSummary};
use dcgan_train::event::duration;
use serde_json::json;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &CompareArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let mut faults = Vec::new();
    let mut runs = Vec::new();
    for path in &args.runs {
        if !path.is_dir() {
            faults.push(format!("{} is not a folder, expected a run folder", path.display()));
        }
        runs.extend(below(path));
    }
    if let Some(out) = &args.out {
        faults.extend(UsageError::faults_of(check_output("--out", out, &EXTENSIONS)));
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    let results = Results::new(logging, args.json, &[args.out.as_deref()])?;
    let mut damaged = Vec::new();
    let mut summaries = Vec::new();
    for run in &runs {
        match RunSummary::read(run) {
            Ok(summary) => summaries.push(summary),
            Err(error) => damaged.push((run, error.to_string())),
        }
    }
    if summaries.is_empty() {
        return Err(UsageError { faults: damaged.into_iter().map(|(_, problem)| problem).collect() }.into());
    }
    for (_, problem) in &damaged {
        tracing::warn!("left out: {problem}");
    }
    let comparison = Comparison::new(summaries);
    if let Some(out) = &args.out {
        super::compare_plot::draw(&comparison.runs)?.save(out)?;
        tracing::info!("curves in {}", out.display());
    }
    let mut line = serde_json::to_value(&comparison)?;
    let left_out = |(run, problem): &(&PathBuf, String)| json!({ "run": run, "problem": problem });
    line["damaged"] = damaged.iter().map(left_out).collect();
    if !args.json {
        results.text(&text(&comparison))?;
    }
    results.json(&line)?;
    Ok(Outcome::Done)
}

/// The run folder `path`, or the run folders in it, sorted by name.
fn below(path: &Path) -> Vec<PathBuf> {
    let is_run = |path: &PathBuf| path.join("plan.toml").exists();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_run).collect();
    runs.sort();
    if runs.is_empty() || is_run(&path.to_owned()) { vec![path.to_owned()] } else { runs }
}

/// The table, the groups and notes.
pub(crate) fn text(comparison: &Comparison) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    let header = [
        "run",
        "state",
        "seed",
        "steps",
        "images",
        "time",
        "images/s",
        "best Fréchet",
        "at step",
        "real images",
        "Loss_D",
        "Loss_G",
        "options that differ",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for run in &comparison.runs {
        let steps = if run.steps < run.total_steps {
            format!("{}/{}", run.steps, run.total_steps)
        } else {
            run.steps.to_string()
        };
        let options: Vec<String> =
            run.options.iter().map(|(name, value)| format!("{}={value}", short(name))).collect();
        rows.push(vec![
            run.run.display().to_string(),
            run.state.name().to_owned(),
            run.seed.to_string(),
            steps,
            run.images.to_string(),
            duration(run.seconds),
            run.images_per_s.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.0}")),
            number(run.best_frechet),
            run.best_step.map_or_else(|| "-".to_owned(), |step| step.to_string()),
            number(run.real_frechet),
            number(run.loss_d),
            number(run.loss_g),
            options.join(" "),
        ]);
    }
    let mut lines = layout(&rows);
    let estimate = |estimate: Option<Estimate>, digits: usize| match estimate {
        Some(Estimate { mean, interval95: Some(half) }) => format!("{mean:.digits$} +- {half:.digits$}"),
        Some(Estimate { mean, .. }) => format!("{mean:.digits$}"),
        None => "-".to_owned(),
    };
    for group in &comparison.groups {
        let runs: Vec<String> = group.runs.iter().map(|run| run.display().to_string()).collect();
        lines.push(format!(
            "\n{} seeds of {} (mean +- 95 % interval, Student's t): best Fréchet {}, Loss_D {}, Loss_G {}, images/s {}",
            group.seeds.len(),
            runs.join(" "),
            estimate(group.best_frechet, 4),
            estimate(group.loss_d, 4),
            estimate(group.loss_g, 4),
            estimate(group.images_per_s, 0),
        ));
    }
    for run in comparison.runs.iter().filter(|run| run.damaged_lines > 0) {
        lines.push(format!(
            "{}: {} damaged line(s) of stats.jsonl are left out",
            run.run.display(),
            run.damaged_lines
        ));
    }
    lines.join("\n")
}

/// `batch_size` of `training.batch_size`; names of networks stay whole.
fn short(name: &str) -> &str {
    name.strip_prefix("run.").or_else(|| name.strip_prefix("training.")).unwrap_or(name)
}

/// Columns of equal width: the first and the last aligned left, the others right.
fn layout(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, &width))| match i {
            0 | 1 => format!("{cell:<width$}"),
            i if i + 1 == columns => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
