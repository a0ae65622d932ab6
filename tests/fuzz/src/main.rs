//! `dcgan-fuzz`: mutates the seeds of each reader at random, without coverage and on any machine.

use anyhow::{Context, bail};
use cap::Cap;
use clap::Parser;
use dcgan_cli::{LogArgs, Logging, Outcome, Progress, UsageError, print_result, run};
use dcgan_fuzz::{MEMORY_LIMIT, TARGETS, Target, fuzz};
use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// An allocation beyond the limit fails, which ends the process unless the reader handles it.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY_LIMIT);

/// Feed mutated files to every reader of untrusted bytes
#[derive(Debug, Parser)]
#[command(name = "dcgan-fuzz", version)]
struct Args {
    /// Names of targets [default: all]
    targets: Vec<String>,
    /// Mutated inputs of each target
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    inputs: u64,
    /// Seed of the mutations
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Folder with a folder of further inputs for each target
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Write the seeds of each target below this folder, and do nothing else
    #[arg(long, value_name = "DIR")]
    write_seeds: Option<PathBuf>,
    /// Folder for inputs that panic
    #[arg(long, value_name = "DIR", default_value = "fuzz-crashes")]
    crashes: PathBuf,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    run("dcgan-fuzz", || {
        let logging = Logging::init(&args.log);
        let unknown = args.targets.iter().filter(|name| !TARGETS.iter().any(|target| target.name == **name));
        let known = || TARGETS.map(|target| target.name).join(", ");
        let faults: Vec<String> =
            unknown.map(|name| format!("unknown target {name}, expected one of {}", known())).collect();
        if !faults.is_empty() {
            return Err(UsageError { faults }.into());
        }
        let is_chosen =
            |target: &&Target| args.targets.is_empty() || args.targets.iter().any(|name| name == target.name);
        let targets: Vec<&Target> = TARGETS.iter().filter(is_chosen).collect();
        if let Some(folder) = &args.write_seeds {
            targets
                .iter()
                .try_for_each(|target| save(&folder.join(target.name), "seed", &(target.seeds)()))?;
            return Ok(Outcome::Done);
        }
        let progress = Progress::new(&logging, targets.len() as u64, "targets");
        let mut panics = 0;
        for (done, target) in targets.iter().enumerate() {
            let started = Instant::now();
            let corpus = args.corpus.as_ref().map(|folder| folder.join(target.name));
            let summary = fuzz(target, corpus.as_deref(), args.inputs, args.seed)?;
            save(&args.crashes, target.name, &summary.panics)?;
            panics += summary.panics.len();
            print_result(&format!(
                "{:<14} {:>9} inputs  {:>9} accepted  {:>3} panics  {:>4} MiB at most  {:>6.1} s",
                target.name,
                summary.inputs,
                summary.accepted,
                summary.panics.len(),
                ALLOCATOR.max_allocated() >> 20,
                started.elapsed().as_secs_f64()
            ))?;
            progress.set(done as u64 + 1);
        }
        if panics > 0 {
            bail!("{panics} inputs panicked; they are in {}", args.crashes.display());
        }
        Ok(Outcome::Done)
    })
}

/// Writes `inputs` as `folder/prefix-N`.
fn save(folder: &Path, prefix: &str, inputs: &[Vec<u8>]) -> anyhow::Result<()> {
    if inputs.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (i, input) in inputs.iter().enumerate() {
        let path = folder.join(format!("{prefix}-{i}"));
        std::fs::write(&path, input).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
