//! `dcgan-train completions`.

use crate::cli::Cli;
use clap::CommandFactory;
use clap_complete::{Shell, generate};
use dcgan_cli::{Outcome, print_result};

pub(crate) fn run(shell: Shell) -> anyhow::Result<Outcome> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    generate(shell, &mut command, name, &mut script);
    print_result(String::from_utf8(script)?.trim_end())?;
    Ok(Outcome::Done)
}
