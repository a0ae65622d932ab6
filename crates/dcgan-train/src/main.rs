//! The binary `dcgan-train`.

mod cli;
mod commands;
mod option_args;

use clap::Parser;
use cli::{Cli, Command};
use dcgan_cli::Logging;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dcgan_cli::run("dcgan-train", || {
        let Cli { log, command } = Cli::try_parse()?;
        let logging = Logging::init(&log);
        match command {
            None => commands::train::run(&cli::RunArgs::default(), &logging),
            Some(Command::Run(args)) => commands::train::run(&args, &logging),
            Some(Command::Resume(args)) => commands::resume::resume(&args, &logging),
            Some(Command::Bench(args)) => commands::bench::run(&args, &logging),
            Some(Command::Presets { name }) => commands::presets::run(name.as_deref()),
            Some(Command::Sample(args)) => commands::sample::run(&args),
            #[cfg(feature = "service")]
            Some(Command::Serve(args)) => commands::serve::run(&args),
            Some(Command::Completions { shell }) => commands::completions::run(shell),
            Some(Command::Import(args)) => commands::convert::import(&args),
            Some(Command::Export(args)) => commands::convert::export(&args),
        }
    })
}
