//! Runs of several processes: the part of all but the first, and what each prints at the end.

use dcgan_cli::{Outcome, ReportedElsewhere, UsageError};
use dcgan_train::config::Plan;
use dcgan_train::error::TrainError;
use dcgan_train::trainer::{self, Inputs};

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
        // The checkpoints are known to rank 0 alone.
        TrainError::Image { step, source, .. } if rank > 0 => anyhow::anyhow!("step {step}: {source}"),
        _ if is_setup => UsageError::one(error.to_string()).into(),
        error => error.into(),
    }
}
