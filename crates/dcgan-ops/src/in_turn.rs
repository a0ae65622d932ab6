//! Work on batches that do not depend on each other, divided among the processes of a group.

use crate::group::ProcessGroup;
use crate::{OpsError, Result};

/// The processes that get results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// Rank 0.
    First,
    /// All of them.
    All,
}

/// What a process says of its batch instead of its length.
const NONE: u64 = u64::MAX;
const FAILED: u64 = u64::MAX - 1;

/// Ends [`in_turn`] in the other processes, where this one cannot begin.
///
/// # Errors
/// Those of the group.
pub fn fail_in_turn(group: &dyn ProcessGroup) -> Result<()> {
    match group.size() {
        1 => Ok(()),
        size => group.all_gather(&FAILED.to_le_bytes(), &mut vec![0; 8 * size]),
    }
}

/// Gets the number and the result of a batch.
pub type Sink<'a, E> = &'a mut dyn FnMut(usize, &[f32]) -> std::result::Result<(), E>;

/// Computes `batches` batches, each in one process: batch b in rank b mod [`ProcessGroup::size`]. In the processes of
/// `receivers`, `sink` gets the number and the result of every batch, in order: the same as in one process.
///
/// # Errors
/// That of `compute` or `sink`; [`OpsError::OtherProcess`] in the processes that did not fail.
pub fn in_turn<E: From<OpsError>>(
    group: &dyn ProcessGroup,
    batches: usize,
    receivers: Receivers,
    compute: &mut dyn FnMut(usize) -> std::result::Result<Vec<f32>, E>,
    sink: Sink<'_, E>,
) -> std::result::Result<(), E> {
    let (rank, size) = (group.rank(), group.size());
    if size == 1 {
        return (0..batches).try_for_each(|batch| sink(batch, &compute(batch)?));
    }
    let receives = receivers == Receivers::All || rank == 0;
    let mut failure = None;
    // One round more, in which the failure of the last sink is told.
    for first in (0..batches + size).step_by(size) {
        let own = first + rank;
        let mut part = Vec::new();
        if failure.is_none() && own < batches {
            match compute(own) {
                Ok(values) => part = values,
                Err(error) => failure = Some(error),
            }
        }
        let word = match (&failure, own < batches) {
            (Some(_), _) => FAILED,
            (None, false) => NONE,
            (None, true) => part.len() as u64,
        };
        let mut words = vec![0; 8 * size];
        group.all_gather(&word.to_le_bytes(), &mut words)?;
        let words: Vec<u64> =
            words.chunks_exact(8).filter_map(|word| Some(u64::from_le_bytes(*word.first_chunk()?))).collect();
        if let Some(error) = failure.take() {
            return Err(error);
        }
        if let Some(failed) = words.iter().position(|&word| word == FAILED) {
            return Err(OpsError::OtherProcess { process: group.name(failed) }.into());
        }
        let lens =
            || words.iter().filter(|&&word| word != NONE).filter_map(|&word| usize::try_from(word).ok());
        let Some(longest) = lens().max() else { break };
        part.resize(longest, 0.0);
        let mut all = vec![0.0_f32; if receives { longest * size } else { 0 }];
        let (part, bytes) = (bytemuck::cast_slice(&part), bytemuck::cast_slice_mut(&mut all));
        match receivers {
            Receivers::All => group.all_gather(part, bytes)?,
            Receivers::First => group.gather(part, bytes, 0)?,
        }
        if receives {
            let parts = all.chunks_exact(longest.max(1)).zip(lens()).enumerate();
            let mut given = parts.map(|(i, (part, len))| sink(first + i, &part[..len]));
            failure = given.find_map(std::result::Result::err);
        }
    }
    failure.map_or(Ok(()), Err)
}
