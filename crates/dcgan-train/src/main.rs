//! The binary `dcgan-train`.

mod cli;
mod commands;
mod option_args;

use cli::{Cli, Command};
use dcgan_cli::Logging;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dcgan_cli::run("dcgan-train", || {
        let Cli { log, command } = dcgan_cli::try_parse::<Cli>()?;
        let logging = Logging::init(&log);
        match command {
            None => commands::train::run(
                &cli::RunArgs::default(),
                &dcgan_mpi::command::start(&logging)?,
                &logging,
            ),
            Some(Command::Run(args)) => {
                let world = dcgan_mpi::command::start(&logging)?;
                if args.is_repeated() {
                    commands::repeat::run(&args, &world, &logging)
                } else {
                    commands::train::run(&args, &world, &logging)
                }
            }
            Some(Command::Resume(args)) => {
                commands::resume::resume(&args, &dcgan_mpi::command::start(&logging)?, &logging)
            }
            Some(Command::Compare(args)) => commands::compare::run(&args, &logging),
            Some(Command::Animate(args)) => commands::animate::run(&args, &logging),
            Some(Command::Bench(args)) => commands::bench::run(&args, &logging),
            Some(Command::Presets { name }) => commands::presets::run(name.as_deref()),
            Some(Command::Sample(args)) => commands::sample::run(&args, &logging),
            #[cfg(feature = "service")]
            Some(Command::Serve(args)) => commands::serve::run(&args, &logging),
            Some(Command::Completions { shell }) => commands::completions::run(shell),
            Some(Command::Import(args)) => commands::convert::import(&args),
            Some(Command::Export(args)) => commands::convert::export(&args),
        }
    })
}
