//! One command in several processes: which of them prints, what they agree on before the work, and what the first one
//! tells the others.

use crate::World;
use anyhow::Context;
use dcgan_cli::{Logging, Outcome, ReportedElsewhere, UsageError, exit_code};
use dcgan_ops::group::share_bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs `body`, a command of the binary `program`, as one of the processes that a launcher started together.
///
/// Where there are several, its error is printed before the others end: launchers end a process soon after another one
/// has failed.
///
/// # Errors
/// That of `body`, or [`ReportedElsewhere`] once it is printed; those of [`World::start`], with exit code 2.
pub fn run(
    program: &str,
    logging: &Logging,
    body: impl FnOnce(&World) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let world = start(logging)?;
    match body(&world) {
        Err(error) if world.is_shared() && !error.is::<ReportedElsewhere>() => {
            Err(ReportedElsewhere { code: dcgan_cli::report(program, &error) }.into())
        }
        result => result,
    }
}

fn start(logging: &Logging) -> anyhow::Result<World> {
    let world = World::start().map_err(|error| UsageError::one(error.to_string()))?;
    if world.is_shared() {
        let (group, rank) = (world.group(), world.group().rank());
        logging.set_process(&group.name(rank), rank == 0);
        let threads = world.threads().unwrap_or(1);
        tracing::info!("{} processes; {} has {threads} thread(s)", group.size(), group.name(rank));
    }
    Ok(world)
}

/// Whether this is the process that has the run folder.
pub fn is_first(world: &World) -> bool {
    world.group().rank() == 0
}

/// Continues only if all processes can. Otherwise each ends with an error, and the first that cannot continue prints
/// its own.
///
/// # Errors
/// That of this process; [`ReportedElsewhere`] if another one prints its own.
pub fn agree<T>(world: &World, result: anyhow::Result<T>) -> anyhow::Result<T> {
    let group = world.group();
    let mut codes = vec![0; group.size()];
    group.all_gather(&[result.as_ref().err().map_or(0, exit_code)], &mut codes)?;
    match codes.iter().position(|code| *code != 0) {
        Some(first) if first != group.rank() => Err(ReportedElsewhere { code: codes[first] }.into()),
        _ => result,
    }
}

/// Tells all processes the value of the first one; the others have none.
///
/// # Errors
/// Those of the group; a value that JSON cannot hold.
pub fn share<T: Serialize + DeserializeOwned>(world: &World, value: Option<T>) -> anyhow::Result<T> {
    let own = value.as_ref().map(serde_json::to_vec).transpose()?.unwrap_or_default();
    match value {
        Some(value) if !world.is_shared() => Ok(value),
        _ => {
            serde_json::from_slice(&share_bytes(world.group().as_ref(), own)?).context("a message of rank 0")
        }
    }
}
