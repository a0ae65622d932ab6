//! The binary `dcgan-eval`.

mod cli;
mod commands;

use cli::{Cli, Command, TaskArgs};
use dcgan_cli::{Logging, Outcome};
use dcgan_features::task::Task;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dcgan_cli::run("dcgan-eval", || {
        let Cli { log, command } = dcgan_cli::try_parse::<Cli>()?;
        let logging = Logging::init(&log);
        match command {
            None => commands::task::run(Task::Digits, &TaskArgs::default(), &logging).map(|_| Outcome::Done),
            Some(Command::Digits(args)) => {
                commands::task::run(Task::Digits, &args, &logging).map(|_| Outcome::Done)
            }
            Some(Command::Cifar10(args)) => {
                commands::task::run(Task::Cifar10, &args, &logging).map(|_| Outcome::Done)
            }
            Some(Command::Svhn(args)) => {
                commands::task::run(Task::Svhn, &args, &logging).map(|_| Outcome::Done)
            }
            Some(Command::MnistNn(args)) => commands::neighbours::mnist_nn(&args, &logging),
            Some(Command::Nnd(args)) => commands::neighbours::nnd(&args, &logging),
            Some(Command::Reproduce(args)) => commands::reproduce::run(&args, &logging),
            Some(Command::Features(args)) => dcgan_mpi::command::run("dcgan-eval", &logging, |world| {
                commands::features::run(&args, world, &logging)
            }),
            Some(Command::Dedup(args)) => commands::dedup::run(&args, &logging),
            Some(Command::Metrics(args)) => commands::metrics::run(&args, &logging),
            Some(Command::Bench(args)) => commands::bench::run(&args),
            Some(Command::Probe(args)) => commands::probe::run(&args, &logging),
        }
    })
}
