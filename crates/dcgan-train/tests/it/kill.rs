//! A run that is stopped anywhere and resumed writes the bytes of an uninterrupted run.

use crate::support::{TINY, assert_same_run, command, event_files, run, stats, succeed};
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// `run` arguments for the tiny networks in `folder`.
fn arguments<'a>(config: &'a str, out: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["run", "--config", config, "--out", out, "--quiet"];
    all.extend([
        "--checkpoint-every",
        "9",
        "--sample-every",
        "10",
        "--log-every",
        "5",
        "--seed",
        "3",
        "--keep",
        "2",
    ]);
    all.extend(extra);
    all
}

fn spawn(arguments: &[&str]) -> Child {
    command(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Every step is logged once, in order.
fn assert_steps_once(run: &Path, last: u64) {
    let steps: Vec<u64> = stats(run, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=last).filter(|step| step % 5 == 0 || *step == last).collect();
    assert_eq!(steps, expected);
}

/// A linear congruential generator with a fixed seed, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn twenty_kills_at_random_moments() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, whole, killed) = (path("tiny.toml"), path("whole"), path("killed"));
    fs::write(&config, TINY).unwrap();
    let extra = ["--steps", "109", "--ema", "0.9", "--order", "alternate"];
    let started = Instant::now();
    succeed(&arguments(&config, &whole, &extra));
    let uninterrupted = started.elapsed();

    let mut random = Random(17);
    let (mut kills, mut processes) = (0, 0);
    let mut child = spawn(&arguments(&config, &killed, &extra));
    loop {
        processes += 1;
        assert!(processes < 400, "no progress between kills");
        // Each process is killed within the time of an uninterrupted run; after all kills the last one finishes.
        let micros = u64::try_from(uninterrupted.as_micros()).unwrap();
        let end = Instant::now() + Duration::from_micros(random.below(micros));
        while kills < 20 && Instant::now() < end && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
        if kills < 20 && child.try_wait().unwrap().is_none() {
            child.kill().unwrap(); // SIGKILL
            kills += 1;
        }
        let status = child.wait().unwrap();
        if status.success() && kills == 20 {
            break;
        }
        if status.success() {
            // Finished before all kills: start over.
            assert_same_run(Path::new(&whole), Path::new(&killed));
            fs::remove_dir_all(&killed).unwrap();
        }
        child = if Path::new(&killed).join("plan.toml").exists() {
            spawn(&["resume", &killed, "--quiet"])
        } else {
            // Killed before the plan was written: repeat the command.
            spawn(&arguments(&config, &killed, &extra))
        };
    }
    assert_same_run(Path::new(&whole), Path::new(&killed));
    assert_steps_once(Path::new(&killed), 109);
    let hidden = fs::read_dir(Path::new(&killed).join("checkpoints")).unwrap();
    assert!(hidden.into_iter().all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with('.')));
}

#[cfg(unix)]
#[test]
fn signals_finish_the_step_and_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, whole, stopped) = (path("tiny.toml"), path("whole"), path("stopped"));
    fs::write(&config, TINY).unwrap();
    let extra = ["--steps", "600"];
    succeed(&[arguments(&config, &whole, &extra), vec!["--threads", "1"]].concat());
    let mut child = spawn(&arguments(&config, &stopped, &extra));
    for signal in ["INT", "TERM"] {
        // After training has started.
        let before = fs::read_to_string(Path::new(&stopped).join("stats.jsonl")).unwrap_or_default().len();
        let grown = || {
            fs::read_to_string(Path::new(&stopped).join("stats.jsonl"))
                .is_ok_and(|text| text.len() > before + 300)
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !grown() && Instant::now() < deadline {
            sleep(Duration::from_millis(2));
        }
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "SIG{signal}");
        child = spawn(&["resume", &stopped, "--quiet", "--threads", "2"]);
    }
    assert!(child.wait().unwrap().success());
    assert_same_run(Path::new(&whole), Path::new(&stopped));
    assert_steps_once(Path::new(&stopped), 600);

    // A finished run is reported as such; a larger length extends it.
    let output = succeed(&["resume", &stopped]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("is finished at step 600"));
    assert_eq!((event_files(Path::new(&whole)), event_files(Path::new(&stopped))), (1, 3));
    succeed(&["resume", &stopped, "--steps", "610", "--quiet"]);
    assert_steps_once(Path::new(&stopped), 610);
    assert_eq!(event_files(Path::new(&stopped)), 4);
}

#[test]
fn a_run_killed_right_after_a_checkpoint_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, whole, cut) = (path("tiny.toml"), path("whole"), path("cut"));
    fs::write(&config, TINY).unwrap();
    for out in [&whole, &cut] {
        succeed(&arguments(&config, out, &["--steps", "60"]));
    }
    // The state after a kill right after the rename of the last checkpoint.
    let checkpoints = Path::new(&cut).join("checkpoints");
    fs::create_dir(checkpoints.join(".tmp-removed-00000045")).unwrap();
    fs::create_dir(checkpoints.join("00000027")).unwrap();
    fs::remove_file(Path::new(&cut).join("result.json")).unwrap();
    fs::remove_file(Path::new(&cut).join("best")).unwrap();
    succeed(&["resume", &cut]);
    assert_same_run(Path::new(&whole), Path::new(&cut));
    assert_eq!(
        fs::read(Path::new(&cut).join("result.json")).unwrap(),
        fs::read(Path::new(&whole).join("result.json")).unwrap()
    );
}

#[test]
fn a_run_in_bf16_resumes_in_bf16() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (whole, cut, single) = (path("whole"), path("cut"), path("single"));
    let run = |out: &str, dtype: &str| {
        let preset = ["run", "--preset", "digits", "--batch-size", "8", "--steps", "8", "--quiet"];
        let extra = ["--checkpoint-every", "4", "--log-every", "4", "--dtype", dtype, "--out", out];
        succeed(&[&preset[..], &extra[..]].concat());
        fs::read(Path::new(out).join("checkpoints/00000004/discriminator.safetensors")).unwrap()
    };
    let half = run(&whole, "bf16");
    assert_eq!(run(&cut, "bf16"), half);
    assert_ne!(run(&single, "f32"), half, "bf16 rounds nothing");
    // The state after a kill after the first checkpoint.
    fs::remove_dir_all(Path::new(&cut).join("checkpoints/00000008")).unwrap();
    fs::remove_file(Path::new(&cut).join("result.json")).unwrap();
    fs::remove_file(Path::new(&cut).join("best")).unwrap();
    succeed(&["resume", &cut, "--quiet"]);
    assert_same_run(Path::new(&whole), Path::new(&cut));
}

#[test]
fn damaged_checkpoints_are_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, whole, damaged) = (path("tiny.toml"), path("whole"), path("damaged"));
    fs::write(&config, TINY).unwrap();
    for out in [&whole, &damaged] {
        succeed(&arguments(&config, out, &["--steps", "60"]));
    }
    // 54 is the last scheduled step before the end at 60.
    for (file, damage) in [
        ("state.json", &b"{"[..]),
        ("state.safetensors", b"\x10"),
        ("generator.safetensors", b""),
        ("config.json", b"{}"),
    ] {
        let newest = Path::new(&damaged).join("checkpoints/00000060");
        fs::write(newest.join(file), damage).unwrap();
        let output = run(&["resume", &damaged]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {stderr}");
        assert!(
            stderr.contains("a damaged checkpoint is set aside") && stderr.contains(file),
            "{file}: {stderr}"
        );
        fs::remove_dir_all(Path::new(&damaged).join("checkpoints/damaged-00000060")).unwrap();
        assert_same_run(Path::new(&whole), Path::new(&damaged));
    }
    // A checkpoint of another version stays; if all are damaged, the run does not start over.
    let state = Path::new(&damaged).join("checkpoints/00000060/state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"version\": 2", "\"version\": 99")).unwrap();
    let output = run(&["resume", &damaged]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("format 99") && !output.status.success());
    for checkpoint in fs::read_dir(Path::new(&damaged).join("checkpoints")).unwrap() {
        fs::write(checkpoint.unwrap().path().join("state.json"), "{").unwrap();
    }
    let before = fs::read(Path::new(&damaged).join("stats.jsonl")).unwrap();
    for _ in 0..2 {
        let output = run(&["resume", &damaged]);
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("no checkpoint in") && !output.status.success()
        );
    }
    assert_eq!(fs::read(Path::new(&damaged).join("stats.jsonl")).unwrap(), before);
}
