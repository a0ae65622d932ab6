//! `dcgan-eval reproduce`

use super::{check_cache, neighbours, open_device, task};
use crate::cli::{BaselineArg, ComputeArgs, MnistNnArgs, ModelArgs, ReproduceArgs, Statistics, TaskArgs};
use anyhow::{Context, bail};
use dcgan_cli::{Logging, Outcome, Results, UsageError, set_threads};
use dcgan_features::claim::{CLAIMS, Claim};
use dcgan_features::neighbours::SampleStatistics;
use dcgan_features::report::layout;
use dcgan_model::shipped_model;
use serde_json::{Value, json};
use std::path::PathBuf;

pub(crate) fn run(args: &ReproduceArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    let claims: Vec<Claim> =
        CLAIMS.iter().map(|(name, text)| Claim::parse(name, text)).collect::<Result<_, _>>()?;
    if args.list {
        let rows: Vec<_> =
            claims.iter().map(|claim| Row { claim, found: Found::Skipped(String::new()) }).collect();
        results.text(table(&rows, false).trim_end())?;
        results.json(&json!({ "claims": claims.iter().map(claim_json).collect::<Vec<_>>() }))?;
        return Ok(Outcome::Done);
    }
    let chosen: Vec<&Claim> = match &args.claim {
        None => claims.iter().collect(),
        Some(name) => {
            let Some(claim) = claims.iter().find(|claim| claim.name == *name) else {
                let names: Vec<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
                let fault = format!("unknown claim {name:?}, expected one of: {}", names.join(", "));
                return Err(UsageError::one(fault).into());
            };
            vec![claim]
        }
    };
    if args.claim.is_none() && args.model.is_some() {
        return Err(UsageError::one("--model is the model of one claim: name the claim").into());
    }
    // Faults of all claims, before the first one is run.
    check_cache(args.cache.as_deref())?;
    set_threads(args.compute.threads)?;
    open_device(args.compute.device)?;
    let mut rows = Vec::new();
    for claim in chosen {
        let found = match inputs(claim, args) {
            Ok(inputs) => {
                tracing::info!("{}: {}", claim.name, claim.description);
                match reproduce(claim, inputs, args, logging) {
                    Ok(percent) => Found::Percent(percent),
                    Err(error) if args.claim.is_some() => return Err(error),
                    // The other claims are run all the same.
                    Err(error) => Found::Failed(format!("{error:#}")),
                }
            }
            Err(faults) if args.claim.is_some() => {
                let faults = faults.into_iter().map(|fault| format!("{} {fault}", claim.name)).collect();
                return Err(UsageError { faults }.into());
            }
            Err(faults) => Found::Skipped(faults.join("; ")),
        };
        rows.push(Row { claim, found });
    }
    results.text(table(&rows, true).trim_end())?;
    results.json(&json!({ "claims": rows.iter().map(Row::json).collect::<Vec<_>>() }))?;
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_reproduced() == Some(false))
        .map(|row| row.claim.name.as_str())
        .collect();
    if !failed.is_empty() {
        bail!("not reproduced: {}", failed.join(", "));
    }
    Ok(Outcome::Done)
}

/// The model and the data of a claim; absent for the embedded ones.
struct Inputs {
    model: Option<PathBuf>,
    data: Option<PathBuf>,
}

/// Finds the model and the data, or says what is missing.
fn inputs(claim: &Claim, args: &ReproduceArgs) -> Result<Inputs, Vec<String>> {
    let mut faults = Vec::new();
    if args.claim.is_some() && args.data.is_some() && claim.data.is_none() {
        faults.push("is about the embedded digits: omit --data".to_owned());
    }
    if args.model.is_some() && claim.task.task().is_none() && claim.count.is_none() {
        faults.push("compares real images: omit --model".to_owned());
    }
    let mut model = args.model.clone();
    if let (None, Some(name)) = (&model, &claim.model) {
        model = shipped_model(name);
        if model.is_none() {
            faults.push(format!("needs models/{name}: name its folder with --model"));
        }
    }
    if let (None, Some(needed)) = (&model, &claim.other_model) {
        faults.push(format!("needs {needed}: name it with --model"));
    }
    let mut data = None;
    if let (Some(name), Some(needed)) = (&claim.data, claim.data_needed()) {
        let folder = |data: &PathBuf| Some(data.join(name)).filter(|path| path.exists());
        data = match &args.data {
            Some(given) if args.claim.is_some() => folder(given).or_else(|| Some(given.clone())),
            Some(given) => folder(given),
            None => None,
        };
        if data.is_none() {
            let fault = match (&args.claim, &args.data) {
                (None, Some(given)) => {
                    format!("needs {needed}, in {}", given.join(name).display())
                }
                _ => format!("needs {needed}: name it with --data"),
            };
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(Inputs { model, data }) } else { Err(faults) }
}

/// The result in percent, in the measure of the claim.
fn reproduce(claim: &Claim, inputs: Inputs, args: &ReproduceArgs, logging: &Logging) -> anyhow::Result<f64> {
    let ComputeArgs { device, threads } = args.compute;
    let compute = ComputeArgs { device, threads };
    let model = ModelArgs { model: inputs.model, preset: claim.preset.clone(), config: None };
    let missing = || format!("the experiment {} has no result", claim.name);
    let Some(task) = claim.task.task() else {
        let statistics = claim.statistics.map(|statistics| match statistics {
            SampleStatistics::Running => Statistics::Running,
            SampleStatistics::Minibatch => Statistics::Minibatch,
        });
        let args = MnistNnArgs {
            data: inputs.data,
            samples: None,
            model,
            count: claim.count,
            sample_seed: None,
            statistics,
            read: Default::default(),
            compute,
            cache: args.cache.clone(),
            json: false,
        };
        let found = neighbours::evaluate_mnist_nn(&args, claim.count.is_some(), logging)?;
        return found.scores.last().and_then(|score| score.error_percent).with_context(missing);
    };
    let args = TaskArgs {
        model,
        data: inputs.data,
        labels_per_class: claim.labels_per_class,
        repeats: claim.repeats,
        baseline: vec![BaselineArg::None],
        cache: args.cache.clone(),
        compute,
        ..TaskArgs::default()
    };
    let report = task::evaluate(task, &args, logging)?;
    let row = report.rows.first().with_context(missing)?;
    Ok(claim.task.measure().of_error(row.outcome.error_percent))
}

/// A claim and what came out.
struct Row<'a> {
    claim: &'a Claim,
    found: Found,
}

enum Found {
    Percent(f64),
    /// Why it was not run.
    Skipped(String),
    /// Why it has no result.
    Failed(String),
}

impl Row<'_> {
    /// Whether the result is within the tolerance; `None` if the claim was not run.
    fn is_reproduced(&self) -> Option<bool> {
        match self.found {
            Found::Percent(percent) => {
                Some((percent - self.claim.expected_percent).abs() <= self.claim.tolerance)
            }
            Found::Failed(_) => Some(false),
            Found::Skipped(_) => None,
        }
    }

    fn json(&self) -> Value {
        let mut claim = claim_json(self.claim);
        match &self.found {
            Found::Percent(percent) => claim["percent"] = (*percent).into(),
            Found::Skipped(why) => claim["skipped"] = why.as_str().into(),
            Found::Failed(why) => claim["error"] = why.as_str().into(),
        }
        claim["reproduced"] = self.is_reproduced().into();
        claim
    }
}

/// Claims with the values of the paper, the recorded ones, and those of this run.
fn table(rows: &[Row<'_>], is_run: bool) -> String {
    let mut head = vec!["claim", "paper", "recorded", ""];
    if is_run {
        head.extend(["found", "result"]);
    }
    let mut lines: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    let skipped = "not run".to_owned();
    lines.extend(rows.iter().map(|row| {
        let Claim { name, paper_percent, expected_percent, tolerance, task, .. } = row.claim;
        let mut cells = vec![
            name.clone(),
            paper_percent.map_or_else(String::new, |percent| percent.to_string()),
            format!("{expected_percent} +- {tolerance}"),
            task.measure().name().to_owned(),
        ];
        if is_run {
            cells.extend(match (&row.found, row.is_reproduced()) {
                (Found::Percent(percent), Some(true)) => [format!("{percent:.2}"), "reproduced".to_owned()],
                (Found::Percent(percent), _) => [format!("{percent:.2}"), "not reproduced".to_owned()],
                (Found::Failed(_), _) => [String::new(), "failed".to_owned()],
                (Found::Skipped(_), _) => [String::new(), skipped.clone()],
            });
        }
        cells
    }));
    let mut text = layout(&lines, lines.len());
    for Row { claim: Claim { name, description, .. }, found } in rows {
        text.push_str(&format!("{name}: {description}\n"));
        match found {
            Found::Skipped(why) if !why.is_empty() => text.push_str(&format!("{name}: not run, {why}\n")),
            Found::Failed(why) => text.push_str(&format!("{name}: failed, {why}\n")),
            _ => {}
        }
    }
    text
}

fn claim_json(claim: &Claim) -> Value {
    json!({
        "name": claim.name,
        "description": claim.description,
        "measure": claim.task.measure(),
        "paper_percent": claim.paper_percent,
        "expected_percent": claim.expected_percent,
        "tolerance": claim.tolerance,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_fails_is_not_reproduced() {
        let (name, text) = CLAIMS[0];
        let claim = &Claim::parse(name, text).unwrap();
        let rows = [
            Row { claim, found: Found::Failed("damaged".to_owned()) },
            Row { claim, found: Found::Skipped("no data".to_owned()) },
            Row { claim, found: Found::Percent(claim.expected_percent) },
        ];
        assert_eq!(rows.each_ref().map(Row::is_reproduced), [Some(false), None, Some(true)]);
        assert_eq!(rows[0].json()["error"], "damaged");
        let table = table(&rows, true);
        for part in ["failed, damaged", "not run, no data", "  reproduced"] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
}
