//! What the processes of a run tell each other beside the values of a step: how it starts, whether to stop, and who
//! failed. Rank 0 has the run folder; the others follow it.

use crate::checkpoint::State;
use crate::config::Plan;
use crate::error::TrainError;
use crate::step::Networks;
use dcgan_base::digest::Digest;
use dcgan_ops::group::{Exchange, ExchangeClock, share_bytes, timed};
use dcgan_ops::{Device, Isa, ProcessGroup};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Time in exchanges before a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExchangeTimes {
    /// Of each process ([`ExchangeClock::times`]); empty for a single one.
    pub(crate) processes: Vec<[Duration; 3]>,
    /// How long the others have waited for rank 0 while it evaluated and wrote.
    pub(crate) excluded: Duration,
}

/// What each process says before a step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Word {
    /// It was asked to stop.
    pub(crate) stop: bool,
    /// It cannot continue.
    pub(crate) failed: bool,
    /// Digest of its parameters, after the steps at which they are compared.
    pub(crate) digest: [u8; 32],
}

/// Bytes of a word: both flags, the digest, and the times of exchanges.
const WORD: usize = TIMES + 24;
const TIMES: usize = 34;

/// Exchanges the words of all processes: whether any was asked to stop, and how long the exchanges of each took before.
///
/// # Errors
/// [`TrainError::OtherProcess`] if another one failed, [`TrainError::Diverged`] if parameters differ.
pub(crate) fn meet(
    group: &dyn ProcessGroup,
    step: u64,
    word: Word,
) -> Result<(bool, Vec<[Duration; 3]>), TrainError> {
    if group.size() == 1 {
        return Ok((word.stop, Vec::new()));
    }
    let mut own = vec![u8::from(word.stop), u8::from(word.failed)];
    own.extend(word.digest);
    for time in group.clock().map(ExchangeClock::times).unwrap_or_default() {
        own.extend(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
    }
    let mut all = vec![0; WORD * group.size()];
    timed(group, Exchange::Wait, || group.all_gather(&own, &mut all))?;
    let words = || all.chunks_exact(WORD).enumerate();
    if word.failed {
        return Ok((false, Vec::new())); // it says so itself
    }
    if let Some((rank, _)) = words().find(|(_, word)| word[1] != 0) {
        return Err(TrainError::OtherProcess { process: group.name(rank) });
    }
    if let Some((rank, _)) = words().find(|(_, word)| word[2..TIMES] != all[2..TIMES]) {
        return Err(TrainError::Diverged { process: group.name(rank), step });
    }
    let time = |word: &[u8], i: usize| {
        let bytes = word[TIMES + 8 * i..].first_chunk().copied().unwrap_or_default();
        Duration::from_nanos(u64::from_le_bytes(bytes))
    };
    let times = words().map(|(_, word)| [0, 1, 2].map(|i| time(word, i))).collect();
    Ok((words().any(|(_, word)| word[0] != 0), times))
}

/// Digest of all that both networks train.
pub(crate) fn digest(networks: &Networks) -> [u8; 32] {
    let mut digest = Digest::default();
    for network in [networks.generator.network(), networks.discriminator.network()] {
        network.parameters().digest(&mut digest);
    }
    digest.key()
}

/// What rank 0 tells the others before the first step.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Start {
    /// Steps follow, from this state on.
    Train(Box<State>),
    /// There is nothing to do.
    Finished,
    /// Rank 0 failed before the first step.
    Failed,
}

/// Sends `start` of rank 0 to all others, which give none.
///
/// # Errors
/// Those of the group.
pub(crate) fn share_start(group: &dyn ProcessGroup, start: Option<&Start>) -> Result<Start, TrainError> {
    let own = start.map(serde_json::to_vec).transpose()?.unwrap_or_default();
    Ok(serde_json::from_slice(&share_bytes(group, own)?)?)
}

/// Compares what must be the same in all processes: the program, the instruction set, the plan, the dataset.
///
/// # Errors
/// [`TrainError::OtherSetup`] with the first difference.
pub(crate) fn compare_setup(
    group: &dyn ProcessGroup,
    plan: &Plan,
    (data, device): (&str, &Device),
) -> Result<(), TrainError> {
    if group.size() == 1 {
        return Ok(());
    }
    // Threads do not change results, and paths may differ between machines.
    let mut same = plan.clone();
    (same.run.threads, same.run.processes) = (None, None);
    same.run.device = String::new();
    (same.run.data, same.run.init_from) = (None, None);
    let plan = serde_json::to_vec(&same)?;
    let isa = format!("{:?}", Isa::best());
    let device = if device.is_cpu() { "CPU" } else { "GPU" };
    let parts: [(&'static str, &[u8]); 5] = [
        ("version of the program", env!("CARGO_PKG_VERSION").as_bytes()),
        ("instruction set", isa.as_bytes()),
        ("kind of device", device.as_bytes()),
        ("plan", &plan),
        ("dataset", data.as_bytes()),
    ];
    let own: Vec<u8> = parts.iter().flat_map(|(_, bytes)| Digest::default().field(bytes).key()).collect();
    let mut all = vec![0; own.len() * group.size()];
    group.all_gather(&own, &mut all)?;
    let (first, rest) = all.split_at(own.len());
    for (rank, other) in (1..).zip(rest.chunks_exact(own.len())) {
        let differs = other.chunks_exact(32).zip(first.chunks_exact(32)).position(|(a, b)| a != b);
        if let Some((what, _)) = differs.and_then(|at| parts.get(at)) {
            return Err(TrainError::OtherSetup { process: group.name(rank), what });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../../dcgan-ops/tests/threads/mod.rs"]
mod threads;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn processes_meet() {
        let meet_as = |word: &(dyn Fn(usize) -> Word + Sync)| {
            threads::in_processes(4, |group, rank| {
                let met = meet(group.as_ref(), 7, word(rank));
                met.map(|(stop, times)| (stop, times.len())).map_err(|error| error.to_string())
            })
        };
        assert_eq!(meet_as(&|_| Word::default()), vec![Ok((false, 4)); 4]);
        assert_eq!(meet_as(&|rank| Word { stop: rank == 2, ..Word::default() }), vec![Ok((true, 4)); 4]);
        for (rank, met) in meet_as(&|rank| Word { failed: rank == 1, ..Word::default() }).iter().enumerate() {
            match met {
                Ok(met) => assert_eq!((rank, met), (1, &(false, 0))),
                Err(error) => assert!(rank != 1 && error.contains("rank 1 failed"), "{error}"),
            }
        }
        // Parameters that differ.
        let digest = |rank: usize| [u8::from(rank == 3); 32];
        for met in meet_as(&|rank| Word { digest: digest(rank), ..Word::default() }) {
            let error = met.unwrap_err();
            assert!(error.contains("rank 3 and rank 0 have different parameters after 7 steps"), "{error}");
        }
    }
}
