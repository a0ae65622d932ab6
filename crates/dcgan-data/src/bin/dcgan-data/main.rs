//! `dcgan-data`: shows what is in a data set, packs it into a cache, compares it with the publisher's hashes.

mod args;
mod inspect;
mod pack;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use dcgan_cli::{Logging, run};

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    run("dcgan-data", || {
        let logging = Logging::init(&args.log);
        match &args.command {
            Command::Inspect(inspect) => inspect::inspect(inspect),
            Command::Pack(pack) => pack::pack_command(pack, &logging),
            Command::Verify(verify) => verify::verify_command(verify),
        }
    })
}
