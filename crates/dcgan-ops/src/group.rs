//! Processes that train one network together.
//!
//! Each process has the same parameters and its own part of the batch. The processes synchronize at two places: batch
//! norm combines its statistics forward and its sums backward ([`combine_moments`], [`combine_sums`]), and gradients
//! are summed before the optimizer ([`sum_gradients`]). With one process all three do nothing.
//!
//! A part may be several shards ([`crate::ExecutorOptions::shards`]). Sums are those of shards, combined in the order
//! of the shards or as a balanced tree over them, so that a batch in the same shards has the same sums in any number of
//! processes that is a power of two.

use crate::Result;
use rayon::prelude::*;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Values that one task of a parallel loop works on.
const CHUNK: usize = 64 * 1024;

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

    /// Puts every process's `part`, all of one length, into `all` of rank `root` in the order of ranks; the `all` of
    /// others is not used.
    ///
    /// # Errors
    /// A process or the network failed.
    fn gather(&self, part: &[u8], all: &mut [u8], root: usize) -> Result<()> {
        if self.rank() == root {
            return self.all_gather(part, all);
        }
        self.all_gather(part, &mut vec![0; part.len() * self.size()])
    }

    /// Ends every process of the group; `reason` is for the person who reads the log.
    fn abort(&self, reason: &str) -> !;

    /// How messages name a process: with its host, where there are several.
    fn name(&self, rank: usize) -> String {
        format!("rank {rank}")
    }

    /// The clock of this process's exchanges, where they are timed.
    fn clock(&self) -> Option<&ExchangeClock> {
        None
    }
}

/// What processes wait for or send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Gradients, once every process has its own.
    AllReduce,
    /// Statistics and sums of batch norm, and losses, including the wait for the last process.
    BatchNorm,
    /// Waiting for the slowest process, before a step and before gradients are summed.
    Wait,
}

/// How long the exchanges of a process took so far.
#[derive(Debug, Default)]
pub struct ExchangeClock([AtomicU64; 3]);

impl ExchangeClock {
    /// Times so far: of [`Exchange::AllReduce`], [`Exchange::BatchNorm`] and [`Exchange::Wait`].
    pub fn times(&self) -> [Duration; 3] {
        [0, 1, 2].map(|i: usize| Duration::from_nanos(self.0[i].load(Ordering::Relaxed)))
    }
}

/// Does the work of an exchange on the clock of `group`.
pub fn timed<R>(group: &dyn ProcessGroup, exchange: Exchange, work: impl FnOnce() -> R) -> R {
    let started = Instant::now();
    let result = work();
    if let Some(clock) = group.clock() {
        let nanoseconds = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        clock.0[exchange as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }
    result
}

/// Waits until all processes are here.
///
/// # Errors
/// Those of the group.
pub fn barrier(group: &dyn ProcessGroup) -> Result<()> {
    timed(group, Exchange::Wait, || group.all_gather(&[0], &mut vec![0; group.size()]))
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

/// Tells all processes the bytes of rank 0, of any number; the others' are not used.
///
/// # Errors
/// Those of the group.
pub fn share_bytes(group: &dyn ProcessGroup, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let mut len = (bytes.len() as u64).to_le_bytes();
    group.broadcast(&mut len, 0)?;
    bytes.resize(usize::try_from(u64::from_le_bytes(len)).unwrap_or(0), 0);
    group.broadcast(&mut bytes, 0)?;
    Ok(bytes)
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

/// The moments of the values of all shards together, the same on every process (Chan et al. 1979). `locals` are those
/// of this process's shards, as many as on every other one.
///
/// # Errors
/// Those of the group.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounding to f32 is meant; counts are exact"
)]
pub fn combine_moments(group: &dyn ProcessGroup, mut locals: Vec<Moments>) -> Result<Moments> {
    if group.size() == 1 && locals.len() <= 1 {
        return Ok(locals.pop().unwrap_or_default());
    }
    let columns = locals.first().map_or(0, |local| local.mean.len());
    let mut parts = Vec::with_capacity(locals.len() * (1 + 2 * columns));
    for local in &locals {
        parts.push(local.count as f64);
        parts.extend(local.mean.iter().chain(&local.var).map(|&value| f64::from(value)));
    }
    let all = gather(group, &parts)?;
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

/// Sums over all shards, in their order. `locals` are those of this process's shards, as many as on every other one.
///
/// # Errors
/// Those of the group.
pub fn combine_sums<'a>(
    group: &dyn ProcessGroup,
    locals: impl IntoIterator<Item = &'a [f64]>,
) -> Result<Vec<f64>> {
    let locals: Vec<&[f64]> = locals.into_iter().collect();
    let len = locals.first().map_or(0, |local| local.len());
    if group.size() == 1 && locals.len() <= 1 {
        return Ok(locals.first().map_or_else(Vec::new, |local| local.to_vec()));
    }
    let mut sums = vec![0.0; len];
    for part in gather(group, &locals.concat())?.chunks_exact(len.max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    }
    Ok(sums)
}

/// Sums parts of `len` values each into the first one, as a balanced tree: where there are as many as a power of two,
/// the sum of a half is the same whoever computes it.
pub(crate) fn sum_tree(parts: &mut [f32], len: usize) {
    let count = parts.len() / len.max(1);
    let mut step = 1;
    while step < count {
        for i in (0..count - step).step_by(2 * step) {
            let (to, from) = parts[i * len..].split_at_mut(step * len);
            let pairs = to[..len].par_chunks_mut(CHUNK).zip(from[..len].par_chunks(CHUNK));
            pairs.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
        }
        step *= 2;
    }
}

/// Sums flat gradients over all processes: a reduction of one chunk on each process, as a balanced tree over the ranks,
/// then a gather. `received` is memory for it, kept from call to call.
///
/// # Errors
/// Those of the group.
pub fn sum_gradients(group: &dyn ProcessGroup, gradients: &mut [f32], received: &mut Vec<f32>) -> Result<()> {
    let size = group.size();
    if size == 1 {
        return Ok(());
    }
    barrier(group)?;
    timed(group, Exchange::AllReduce, || {
        let chunk = gradients.len() / size;
        let (whole, rest) = gradients.split_at_mut(chunk * size);
        received.resize(chunk * size, 0.0);
        group.all_to_all(bytemuck::cast_slice(whole), bytemuck::cast_slice_mut(received))?;
        sum_tree(received, chunk);
        group.all_gather(bytemuck::cast_slice(&received[..chunk]), bytemuck::cast_slice_mut(whole))?;
        // Fewer values than processes: each sums all of them.
        if !rest.is_empty() {
            let mut all = vec![0.0_f32; rest.len() * size];
            group.all_gather(bytemuck::cast_slice(rest), bytemuck::cast_slice_mut(&mut all))?;
            sum_tree(&mut all, rest.len());
            rest.copy_from_slice(&all[..rest.len()]);
        }
        Ok(())
    })
}

fn gather(group: &dyn ProcessGroup, part: &[f64]) -> Result<Vec<f64>> {
    let mut all = vec![0.0; part.len() * group.size()];
    let (part, bytes) = (bytemuck::cast_slice(part), bytemuck::cast_slice_mut(&mut all));
    timed(group, Exchange::BatchNorm, || group.all_gather(part, bytes))?;
    Ok(all)
}
