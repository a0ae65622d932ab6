//! Processes that train one network together.
//!
//! Each process has the same parameters and its own part of the batch. The processes meet at two places: batch norm
//! combines its statistics forward and its sums backward ([`combine_moments`], [`combine_sums`]), and gradients are
//! summed before the optimizer ([`sum_gradients`]). With one process all three do nothing.

use crate::Result;
use std::fmt::Debug;

/// A fixed set of processes with collective operations: MPI, NCCL, or one process.
///
/// Every process calls the same operations in the same order. An error ends the group: no process continues alone.
pub trait ProcessGroup: Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn size(&self) -> usize;

    /// Puts every process's `part`, all of one length, into `all` in the order of ranks.
    ///
    /// # Errors
    /// A process or the network failed.
    fn all_gather(&self, part: &[u8], all: &mut [u8]) -> Result<()>;

    /// Sends the i-th of [`ProcessGroup::size`] equal chunks of `send` to rank i; chunk i of `receive` comes from rank
    /// i.
    ///
    /// # Errors
    /// A process or the network failed.
    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()>;

    /// Copies `bytes` of rank `root` to all others.
    ///
    /// # Errors
    /// A process or the network failed.
    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<()>;

    /// Ends every process of the group; `reason` is for the person who reads the log.
    fn abort(&self, reason: &str) -> !;
}

/// The group of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleProcess;

impl ProcessGroup for SingleProcess {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, part: &[u8], all: &mut [u8]) -> Result<()> {
        all.copy_from_slice(part);
        Ok(())
    }

    fn all_to_all(&self, send: &[u8], receive: &mut [u8]) -> Result<()> {
        receive.copy_from_slice(send);
        Ok(())
    }

    fn broadcast(&self, _: &mut [u8], _: usize) -> Result<()> {
        Ok(())
    }

    fn abort(&self, reason: &str) -> ! {
        panic!("{reason}")
    }
}

/// Mean, biased variance and number of values of each column of a batch norm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// Mean of each column.
    pub mean: Vec<f32>,
    /// Biased variance of each column.
    pub var: Vec<f32>,
    /// Values of each column.
    pub count: usize,
}

/// The moments of all processes' values together, the same on every process (Chan et al. 1979).
///
/// # Errors
/// Those of the group.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounding to f32 is meant; counts are exact"
)]
pub fn combine_moments(group: &dyn ProcessGroup, local: Moments) -> Result<Moments> {
    if group.size() == 1 {
        return Ok(local);
    }
    let columns = local.mean.len();
    let mut part = vec![local.count as f64];
    part.extend(local.mean.iter().chain(&local.var).map(|&value| f64::from(value)));
    let all = gather(group, &part)?;
    let (mut count, mut mean, mut squares) = (0.0, vec![0.0; columns], vec![0.0; columns]);
    for part in all.chunks_exact(1 + 2 * columns) {
        let (n, means, vars) = (part[0], &part[1..=columns], &part[1 + columns..]);
        let total = count + n;
        for c in 0..columns {
            let delta = means[c] - mean[c];
            mean[c] += delta * n / total;
            squares[c] += vars[c] * n + delta * delta * count * n / total;
        }
        count = total;
    }
    Ok(Moments {
        mean: mean.iter().map(|&m| m as f32).collect(),
        var: squares.iter().map(|&s| (s / count) as f32).collect(),
        count: count as usize,
    })
}

/// Sums `values` over all processes, in the order of ranks.
///
/// # Errors
/// Those of the group.
pub fn combine_sums(group: &dyn ProcessGroup, values: &mut [f64]) -> Result<()> {
    if group.size() == 1 {
        return Ok(());
    }
    let all = gather(group, values)?;
    values.fill(0.0);
    for part in all.chunks_exact(values.len().max(1)) {
        values.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    Ok(())
}

/// Sums flat gradients over all processes: a reduction of one chunk on each process, in the order of ranks, then a
/// gather.
///
/// # Errors
/// Those of the group.
pub fn sum_gradients(group: &dyn ProcessGroup, gradients: &mut [f32]) -> Result<()> {
    let size = group.size();
    if size == 1 {
        return Ok(());
    }
    let chunk = gradients.len().div_ceil(size);
    let mut padded = gradients.to_vec();
    padded.resize(chunk * size, 0.0);
    let mut received = vec![0.0_f32; chunk * size];
    group.all_to_all(bytemuck::cast_slice(&padded), bytemuck::cast_slice_mut(&mut received))?;
    let mut sums = vec![0.0_f32; chunk];
    for part in received.chunks_exact(chunk.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    group.all_gather(bytemuck::cast_slice(&sums), bytemuck::cast_slice_mut(&mut padded))?;
    gradients.copy_from_slice(&padded[..gradients.len()]);
    Ok(())
}

fn gather(group: &dyn ProcessGroup, part: &[f64]) -> Result<Vec<f64>> {
    let mut all = vec![0.0; part.len() * group.size()];
    group.all_gather(bytemuck::cast_slice(part), bytemuck::cast_slice_mut(&mut all))?;
    Ok(all)
}
