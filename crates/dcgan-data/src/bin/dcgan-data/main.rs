//! `dcgan-data`: inspects a dataset, packs it into a cache, times its loader, verifies its files against published
//! hashes.

mod args;
mod bench;
mod inspect;
mod pack;
mod verify;

use std::process::ExitCode;

use dcgan_cli::{Logging, UsageError, run};
use dcgan_data::DataError;

use args::{Args, Command};

fn main() -> ExitCode {
    run("dcgan-data", || {
        let args: Args = dcgan_cli::try_parse()?;
        let logging = Logging::init(&args.log);
        let outcome = match &args.command {
            Command::Inspect(inspect) => inspect::inspect(inspect, &logging),
            Command::Pack(pack) => pack::pack_command(pack, &logging),
            Command::Bench(bench) => bench::bench_command(bench, &logging),
            Command::Verify(verify) => verify::verify_command(verify),
        };
        outcome.map_err(classify)
    })
}

/// Invalid input data is a usage error (exit code 2); a failed write is a failure of the command (exit code 1).
fn classify(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<DataError>() {
        None | Some(DataError::Write { .. }) => error,
        Some(fault) => UsageError::one(fault.to_string()).into(),
    }
}
