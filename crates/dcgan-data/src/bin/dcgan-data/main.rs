//! `dcgan-data`: shows what is in a dataset, packs it into a cache, compares it with the publisher's hashes.

mod args;
mod inspect;
mod pack;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use dcgan_cli::{Logging, UsageError, run};
use dcgan_data::DataError;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    run("dcgan-data", || {
        let logging = Logging::init(&args.log);
        let outcome = match &args.command {
            Command::Inspect(inspect) => inspect::inspect(inspect),
            Command::Pack(pack) => pack::pack_command(pack, &logging),
            Command::Verify(verify) => verify::verify_command(verify),
        };
        outcome.map_err(bad_input)
    })
}

/// Data that cannot be read is wrong input (exit code 2); a disk that cannot be written is work that failed (1).
fn bad_input(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<DataError>() {
        None | Some(DataError::Write { .. }) => error,
        Some(fault) => UsageError::one(fault.to_string()).into(),
    }
}
