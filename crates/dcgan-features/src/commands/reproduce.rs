//! `dcgan-eval reproduce`

use super::task;
use crate::cli::{ComputeArgs, ModelArgs, ReproduceArgs, TaskArgs};
use anyhow::bail;
use dcgan_cli::{Logging, Outcome, Results, UsageError};
use dcgan_features::claim::{CLAIMS, Claim};
use dcgan_features::report::layout;
use serde_json::json;

pub(crate) fn run(args: &ReproduceArgs, logging: &Logging) -> anyhow::Result<Outcome> {
    let results = Results::new(logging, args.json, &[])?;
    let claims: Vec<Claim> =
        CLAIMS.iter().map(|(name, text)| Claim::parse(name, text)).collect::<Result<_, _>>()?;
    let Some(name) = &args.claim else {
        let mut lines = vec![["claim", "expected", "description"].map(str::to_owned).to_vec()];
        lines.extend(claims.iter().map(|claim| {
            let expected =
                format!("{} +- {} {}", claim.expected_percent, claim.tolerance, claim.task.measure().name());
            vec![claim.name.clone(), expected, format!("  {}", claim.description)]
        }));
        results.text(layout(&lines, lines.len()).trim_end())?;
        let claims: Vec<_> = claims.iter().map(claim_json).collect();
        results.json(&json!({ "claims": claims }))?;
        return Ok(Outcome::Done);
    };
    let Some(claim) = claims.iter().find(|claim| claim.name == *name) else {
        let names: Vec<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
        let fault = format!("unknown claim {name:?}, expected one of: {}", names.join(", "));
        return Err(UsageError::one(fault).into());
    };
    let mut faults = Vec::new();
    for (option, given, needed) in
        [("--model", args.model.is_some(), &claim.model), ("--data", args.data.is_some(), &claim.data)]
    {
        if let (false, Some(needed)) = (given, needed) {
            faults.push(format!("{} needs {needed}: name it with {option}", claim.name));
        }
    }
    if !faults.is_empty() {
        return Err(UsageError { faults }.into());
    }
    tracing::info!("{}", claim.description);
    let ComputeArgs { device, threads } = args.compute;
    let task_args = TaskArgs {
        model: ModelArgs { model: args.model.clone(), preset: claim.preset.clone(), config: None },
        data: args.data.clone(),
        labels_per_class: claim.labels_per_class,
        repeats: claim.repeats,
        baseline: vec![crate::cli::BaselineArg::None],
        cache: args.cache.clone(),
        compute: ComputeArgs { device, threads },
        ..TaskArgs::default()
    };
    let report = task::evaluate(claim.task, &task_args, logging)?;
    results.text(report.table().trim_end())?;
    let measure = claim.task.measure();
    let Some(found) = report.rows.first().map(|row| measure.of_error(row.outcome.error_percent)) else {
        bail!("the experiment has no result");
    };
    let off = (found - claim.expected_percent).abs();
    let text = format!(
        "{}: {} {found:.2}, claimed {} +- {}",
        claim.name,
        measure.name(),
        claim.expected_percent,
        claim.tolerance
    );
    let reproduced = off <= claim.tolerance;
    results.text(&format!("{text}: {}", if reproduced { "reproduced" } else { "not reproduced" }))?;
    if results.is_json() {
        let mut result = report.json();
        result["claim"] = claim_json(claim);
        result["claim"]["reproduced"] = reproduced.into();
        results.json(&result)?;
    }
    if !reproduced {
        bail!("{text}: {off:.2} points off");
    }
    Ok(Outcome::Done)
}

fn claim_json(claim: &Claim) -> serde_json::Value {
    json!({
        "name": claim.name,
        "description": claim.description,
        "expected_percent": claim.expected_percent,
        "tolerance": claim.tolerance,
    })
}
