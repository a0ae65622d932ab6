//! One command in several processes: which of them speaks, what they agree on before the first step, and what the
//! first one tells the others.

use anyhow::Context;
use dcgan_cli::{Logging, Outcome, ReportedElsewhere, UsageError, exit_code};
use dcgan_mpi::World;
use dcgan_train::config::Plan;
use dcgan_train::error::TrainError;
use dcgan_train::trainer::{self, Inputs};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Joins the processes that a launcher started together with this one.
pub(crate) fn start(logging: &Logging) -> anyhow::Result<World> {
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
pub(crate) fn is_first(world: &World) -> bool {
    world.group().rank() == 0
}

/// Goes on only if all processes can. Otherwise each ends with an error, and the first that cannot go on prints its
/// own.
pub(crate) fn agree<T>(world: &World, result: anyhow::Result<T>) -> anyhow::Result<T> {
    let group = world.group();
    let mut codes = vec![0; group.size()];
    group.all_gather(&[result.as_ref().err().map_or(0, exit_code)], &mut codes)?;
    match codes.iter().position(|code| *code != 0) {
        Some(first) if first != group.rank() => Err(ReportedElsewhere { code: codes[first] }.into()),
        _ => result,
    }
}

/// Tells all processes the value of the first one; the others have none.
pub(crate) fn share<T: Serialize + DeserializeOwned>(world: &World, value: Option<T>) -> anyhow::Result<T> {
    let group = world.group();
    let mut bytes = value.as_ref().map(serde_json::to_vec).transpose()?.unwrap_or_default();
    if let (1, Some(value)) = (group.size(), value) {
        return Ok(value);
    }
    let mut len = (bytes.len() as u64).to_le_bytes();
    group.broadcast(&mut len, 0)?;
    bytes.resize(usize::try_from(u64::from_le_bytes(len))?, 0);
    group.broadcast(&mut bytes, 0)?;
    serde_json::from_slice(&bytes).context("a message of rank 0")
}

/// Trains as another process than the first one.
pub(crate) fn follow(plan: &Plan, inputs: Inputs) -> anyhow::Result<Outcome> {
    let cancel = dcgan_cli::cancel_on_signals()?;
    let rank = inputs.group.rank();
    match trainer::follow(plan, inputs, &mut |_, _| {}, &|| cancel.is_set()) {
        Ok(true) => Ok(Outcome::Done),
        Ok(false) => Ok(Outcome::Interrupted),
        Err(error) => Err(own_error(error, rank)),
    }
}

/// What a process prints of the end of a run: what another one reports is not said twice.
pub(crate) fn own_error(error: TrainError, rank: usize) -> anyhow::Error {
    let is_setup = matches!(error, TrainError::OtherSetup { .. } | TrainError::Processes { .. });
    let is_common = is_setup || matches!(error, TrainError::Diverged { .. } | TrainError::Step { .. });
    match error {
        TrainError::OtherProcess { .. } => ReportedElsewhere { code: 1 }.into(),
        _ if is_common && rank > 0 => ReportedElsewhere { code: if is_setup { 2 } else { 1 } }.into(),
        _ if is_setup => UsageError::one(error.to_string()).into(),
        error => error.into(),
    }
}
