//! `dcgan-train run --seeds` and `--repeat`: the same run with several seeds, one after the other.

use super::{compare, resume, train};
use crate::cli::RunArgs;
use dcgan_cli::{Logging, Outcome, UsageError, print_result};
use dcgan_mpi::command::{agree, is_first, share};
use dcgan_mpi::{World, relaunch_if_asked};
use dcgan_train::compare::{Comparison, RunSummary};
use dcgan_train::config::Plan;
use dcgan_train::run_folder::RunFolder;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Maximum number of runs of one command.
const MAX_RUNS: u64 = 1000;

pub(crate) fn run(args: &RunArgs, world: &World, logging: &Logging) -> anyhow::Result<Outcome> {
    let (runs, processes) = agree(world, runs(args, is_first(world)))?;
    if let Some(outcome) = relaunch_if_asked(world, processes)? {
        return Ok(outcome);
    }
    let cancel = dcgan_cli::cancel_on_signals()?;
    for (i, (seed, out)) in runs.iter().enumerate() {
        tracing::info!("run {} of {}: seed {seed} in {}", i + 1, runs.len(), out.display());
        let part = args.part(*seed, out);
        let is_free =
            is_first(world).then(|| RunFolder::is_free(out).map_err(UsageError::because)).transpose();
        let is_free = agree(world, is_free.map_err(anyhow::Error::from))?;
        let outcome = if share(world, is_free)? {
            train::run(&part, world, logging)?
        } else {
            resume::resume(&part.resumed(out), world, logging)?
        };
        // A signal in the last step of a run, or after it, has not interrupted that run.
        let complete = if outcome == Outcome::Interrupted { i } else { i + 1 };
        let is_stopping = outcome == Outcome::Interrupted || complete < runs.len() && cancel.is_set();
        if share(world, is_first(world).then_some(is_stopping))? {
            tracing::warn!("{complete} of {} runs are complete; the same command continues", runs.len());
            return Ok(Outcome::Interrupted);
        }
    }
    if is_first(world) {
        let summaries = runs.iter().map(|(_, out)| RunSummary::read(out)).collect::<Result<_, _>>()?;
        let comparison = Comparison::new(summaries);
        let json = || serde_json::to_string(&comparison);
        print_result(&if args.json { json()? } else { compare::text(&comparison) })?;
    }
    Ok(Outcome::Done)
}

/// Seeds and folders, and the number of processes.
type Runs = (Vec<(u64, PathBuf)>, Option<usize>);

/// All runs. With `is_first`, every fault is found before the first run starts.
fn runs(args: &RunArgs, is_first: bool) -> anyhow::Result<Runs> {
    let plan = args.plan();
    let mut faults = plan.as_ref().err().cloned().unwrap_or_default();
    let first = plan.as_ref().map_or(0, |plan| plan.run.seed);
    let seeds = seeds(args, first).unwrap_or_else(|fault| {
        faults.push(fault);
        Vec::new()
    });
    let (Ok(plan), true) = (plan, faults.is_empty()) else { return Err(UsageError { faults }.into()) };
    let base = args.out.clone().unwrap_or_else(|| Path::new("runs").join(&plan.model.name));
    let runs: Vec<(u64, PathBuf)> = seeds.iter().map(|&seed| (seed, folder(&base, seed))).collect();
    let checked = runs.iter().filter(|_| is_first);
    let faults: Vec<Vec<String>> =
        checked.map(|(seed, out)| misfits(out, &plan, *seed)).collect::<Result<_, _>>()?;
    let mut faults = faults.concat();
    if !faults.is_empty() {
        faults.push("give the options of these runs, or choose another --out".to_owned());
        return Err(UsageError { faults }.into());
    }
    Ok((runs, plan.run.processes))
}

/// The seeds of `--seeds`, or `--repeat` seeds from `first` on.
fn seeds(args: &RunArgs, first: u64) -> Result<Vec<u64>, String> {
    let Some(repeat) = args.repeat else {
        let different: BTreeSet<u64> = args.seeds.iter().copied().collect();
        return if different.len() == args.seeds.len() {
            Ok(args.seeds.clone())
        } else {
            Err("--seeds names a seed twice".to_owned())
        };
    };
    if !(1..=MAX_RUNS).contains(&repeat) {
        return Err(format!("--repeat is {repeat}, expected 1 to {MAX_RUNS}"));
    }
    (0..repeat)
        .map(|i| first.checked_add(i))
        .collect::<Option<_>>()
        .ok_or_else(|| format!("--seed is {first}: too large for --repeat {repeat}"))
}

/// `NAME-s7`
fn folder(base: &Path, seed: u64) -> PathBuf {
    let name = base.file_name().unwrap_or_default().to_string_lossy();
    base.with_file_name(format!("{name}-s{seed}"))
}

/// Why the folder `out` cannot hold the run: it has other files, or a run with other options.
fn misfits(out: &Path, plan: &Plan, seed: u64) -> anyhow::Result<Vec<String>> {
    match RunFolder::is_free(out) {
        Ok(true) => return Ok(Vec::new()),
        Ok(false) => {}
        Err(error) => return Ok(vec![error.to_string()]),
    }
    let found = match RunFolder::open(out) {
        Ok((_, found)) => found,
        Err(error) => return Ok(vec![format!("{error}; choose another --out")]),
    };
    let mut expected = plan.clone();
    expected.run.seed = seed;
    resume::differences(out, &found, &expected)
}
