//! The binary `dcgan-train`.

mod cli;
mod commands;
mod option_args;

use cli::{Cli, Command};
use dcgan_cli::{Logging, Outcome};
use dcgan_mpi::World;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "dcgan-train";

/// Runs a command that may be one of several processes.
fn run(logging: &Logging, body: impl FnOnce(&World) -> anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
    dcgan_mpi::command::run(NAME, logging, body)
}

fn main() -> ExitCode {
    dcgan_cli::run(NAME, || {
        let Cli { log, command } = dcgan_cli::try_parse::<Cli>()?;
        let logging = Logging::init(&log);
        match command {
            None => run(&logging, |world| commands::train::run(&cli::RunArgs::default(), world, &logging)),
            Some(Command::Run(args)) if args.is_repeated() => {
                run(&logging, |world| commands::repeat::run(&args, world, &logging))
            }
            Some(Command::Run(args)) => run(&logging, |world| commands::train::run(&args, world, &logging)),
            Some(Command::Resume(args)) => {
                run(&logging, |world| commands::resume::resume(&args, world, &logging))
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
            #[cfg(feature = "hub")]
            Some(Command::Push(args)) => commands::push::push(&args),
            #[cfg(feature = "hub")]
            Some(Command::Pull(args)) => commands::push::pull(&args),
        }
    })
}
