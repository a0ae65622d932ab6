//! The operations of the group over MPI, and the end of all processes when one panics.
//!
//! Each test starts itself again through `mpirun`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod launcher;

use dcgan_mpi::World;
use dcgan_ops::group::{barrier, sum_gradients};
use std::time::Instant;

/// In the processes that the launcher started.
fn is_started() -> bool {
    dcgan_mpi::Launcher::find().is_some()
}

/// Runs the test `name` of this program in `processes` processes.
fn restart(processes: usize, name: &str) -> std::process::Output {
    let mut launcher = launcher::mpirun(processes);
    launcher.arg(std::env::current_exe().unwrap());
    launcher.args(["--exact", name, "--nocapture"]).output().unwrap()
}

#[test]
fn operations_have_the_results_of_one_process() {
    if !is_started() {
        for processes in [2, 4] {
            let output = restart(processes, "operations_have_the_results_of_one_process");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        return;
    }
    let world = World::start().unwrap();
    let group = world.group().as_ref();
    let (rank, size) = (group.rank(), group.size());
    assert!(world.is_shared() && world.threads().unwrap() >= 1);
    assert!(group.name(rank).starts_with(&format!("rank {rank} on ")), "{}", group.name(rank));
    for len in [1, 7, 100_000] {
        let value = |of: usize, i: usize| u8::try_from((31 * of + i) % 251).unwrap();
        let part: Vec<u8> = (0..len).map(|i| value(rank, i)).collect();
        let mut all = vec![0; len * size];
        group.all_gather(&part, &mut all).unwrap();
        assert!(all.iter().enumerate().all(|(i, &byte)| byte == value(i / len, i % len)));
        let mut gathered = vec![0; if rank == 1 { len * size } else { 0 }];
        group.gather(&part, &mut gathered, 1).unwrap();
        assert!(rank != 1 || gathered == all);
        // The chunk for rank r is that of `r` in the values of the sender.
        let send: Vec<u8> = (0..len * size).map(|i| value(rank, i)).collect();
        let mut received = vec![0; len * size];
        group.all_to_all(&send, &mut received).unwrap();
        assert!(
            received.iter().enumerate().all(|(i, &byte)| byte == value(i / len, rank * len + i % len)),
            "{received:?}"
        );
        let mut bytes = part.clone();
        group.broadcast(&mut bytes, size - 1).unwrap();
        assert!(bytes.iter().enumerate().all(|(i, &byte)| byte == value(size - 1, i)));
    }
    let mut gradients: Vec<f32> = (0..1001).map(|i| (i * (rank + 1)) as f32).collect();
    sum_gradients(group, &mut gradients, &mut Vec::new()).unwrap();
    let factor = size * (size + 1) / 2;
    assert!(gradients.iter().enumerate().all(|(i, &sum)| sum == (i * factor) as f32));
    let [all_reduce, batch_norm, wait] = group.clock().unwrap().times();
    assert!(!all_reduce.is_zero() && !wait.is_zero() && batch_norm.is_zero());
}

#[test]
fn a_panic_ends_all_processes() {
    if !is_started() {
        let started = Instant::now();
        let text = launcher::failure(&restart(2, "a_panic_ends_all_processes"), started);
        assert!(text.contains("it panicked") && text.contains("one process alone"), "{text}");
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let world = World::start().unwrap();
    // The others wait for it.
    assert!(world.group().rank() != 1, "one process alone");
    barrier(world.group().as_ref()).unwrap();
}
