//! How long the exchanges of a training step take between the processes that a launcher starts:
//!
//! ```sh
//! mpirun -n 2 --bind-to none target/release/examples/exchange [PARAMETERS] [COLUMNS]
//! ```
//!
//! Rank 0 prints a line of JSON: milliseconds of the sum of PARAMETERS f32 gradients (default 6,342,272, both networks
//! of `pytorch64`), and of the gather of the statistics of a batch norm of COLUMNS channels (default 512); medians of
//! 50. `eval/scaling.py` reads it.

#![allow(clippy::print_stdout, reason = "an example prints")]

use dcgan_mpi::World;
use dcgan_ops::group::{Moments, barrier, combine_moments, sum_gradients};
use std::error::Error;
use std::time::Instant;

const REPETITIONS: usize = 50;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let parameters = args.next().transpose()?.unwrap_or(6_342_272);
    let columns = args.next().transpose()?.unwrap_or(512);
    let world = World::start()?;
    let group = world.group().as_ref();
    let (mut gradients, mut received) = (vec![1e-3_f32; parameters], Vec::new());
    let all_reduce = median(group, || Ok(sum_gradients(group, &mut gradients, &mut received)?))?;
    let moments = || Moments { mean: vec![0.0; columns], var: vec![1.0; columns], count: 128 };
    let gather = median(group, || Ok(combine_moments(group, vec![moments()]).map(drop)?))?;
    if group.rank() == 0 {
        let processes = group.size();
        println!(
            "{{\"processes\": {processes}, \"parameters\": {parameters}, \"all_reduce_ms\": {all_reduce:.3}, \
             \"columns\": {columns}, \"gather_ms\": {gather:.4}}}"
        );
    }
    Ok(())
}

/// Milliseconds of `work`, which all processes begin together.
fn median(
    group: &dyn dcgan_ops::ProcessGroup,
    mut work: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::with_capacity(REPETITIONS);
    for _ in 0..REPETITIONS {
        barrier(group)?;
        let started = Instant::now();
        work()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[REPETITIONS / 2])
}
