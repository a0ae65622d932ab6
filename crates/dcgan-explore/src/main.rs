//! The binary `dcgan-explore`.

mod cli;
mod commands;

use cli::{Cli, Command};
use dcgan_cli::Logging;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dcgan_cli::run("dcgan-explore", || {
        let Cli { log, command } = dcgan_cli::try_parse::<Cli>()?;
        let logging = Logging::init(&log);
        match command {
            Command::Sample(args) => commands::sample::run(&args, &logging),
            Command::Interpolate(args) => commands::interpolate::run(&args, &logging),
            Command::Arithmetic(args) => commands::arithmetic::run(&args, &logging),
            Command::Turn(args) => commands::turn::run(&args, &logging),
            Command::Concept(args) => commands::concept::run(&args, &logging),
            Command::Guided(args) => commands::guided::run(&args, &logging),
            Command::Maxact(args) => commands::maxact::run(&args, &logging),
            Command::Ablate(args) => commands::ablate::run(&args, &logging),
            Command::Neighbours(args) => commands::neighbours::run(&args, &logging),
            Command::Invert(args) => commands::invert::run(&args, &logging),
        }
    })
}
