//! Features extracted by several processes over MPI: the bytes of one.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../dcgan-mpi/tests/launcher/mod.rs"]
mod launcher;

use launcher::{failure, mpirun};
use std::fs;
use std::time::Instant;

const EVAL: &str = env!("CARGO_BIN_EXE_dcgan-eval");

#[test]
fn any_number_of_processes_gives_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let rows: [&[&str]; 2] =
        [&["--statistics", "recalibrate", "--split", "test"], &["--statistics", "stored", "--dtype", "bf16"]];
    for (row, options) in rows.iter().enumerate() {
        let path = |processes: usize| folder.path().join(format!("{row}-{processes}.safetensors"));
        for processes in [1, 2, 3] {
            let mut launcher = mpirun(processes);
            launcher.args([EVAL, "features", "--json", "--out"]).arg(path(processes)).args(*options);
            let output = launcher.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(text.lines().filter(|line| line.starts_with('{')).count(), 1, "{text}");
        }
        assert!(fs::read(path(2)).unwrap() == fs::read(path(1)).unwrap());
        assert!(fs::read(path(3)).unwrap() == fs::read(path(1)).unwrap());
    }
}

#[test]
fn one_message_says_why_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("features.safetensors");
    // What rank 1 gets besides the options of rank 0.
    for (second, message) in [
        (&["--data", "/no/such/images"][..], "dcgan-eval (rank 1 on "),
        (&["--statistics", "recalibrate"], "dcgan-eval (rank 0 on "),
    ] {
        let is_taken = second[0] == "--statistics";
        if is_taken {
            fs::write(&out, "").unwrap();
        }
        let mut launcher = mpirun(1);
        launcher
            .args([EVAL, "features", "--out"])
            .arg(&out)
            .args([":", "-n", "1", EVAL, "features", "--out"]);
        let started = Instant::now();
        let output = launcher.arg(&out).args(second).output().unwrap();
        let text = failure(&output, started);
        assert!(text.contains(message) && text.matches("(see `dcgan-eval --help`)").count() == 1, "{text}");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(out.exists(), is_taken);
    }
}
