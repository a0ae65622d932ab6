//! Signals as launchers, schedulers and terminals send them: each ends with a checkpoint.

use crate::support::TINY;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A step that takes a while, so that a second signal meets a process that has not ended yet.
const SLOW: [&str; 4] = ["--batch-size", "1000", "--threads", "1"];

/// Arguments of an endless run in `folder`, and its run folder.
fn endless(folder: &Path) -> (Vec<String>, PathBuf) {
    let (config, out) = (folder.join("tiny.toml"), folder.join("run"));
    fs::write(&config, TINY).unwrap();
    let mut arguments = vec!["run".to_owned(), "--quiet".to_owned()];
    for (name, value) in [("config", config.to_str()), ("out", out.to_str())] {
        arguments.extend([format!("--{name}"), value.unwrap().to_owned()]);
    }
    let options = ["--steps", "1000000", "--log-every", "1", "--checkpoint-every", "1000000"];
    arguments.extend(options.into_iter().chain(["--sample-every", "1000000"]).map(str::to_owned));
    arguments.extend(SLOW.map(str::to_owned));
    (arguments, out)
}

/// Waits until the run has taken steps.
fn wait_for_steps(run: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !fs::read_to_string(run.join("stats.jsonl")).is_ok_and(|text| text.lines().count() > 2) {
        assert!(Instant::now() < deadline, "no step was taken");
        sleep(Duration::from_millis(2));
    }
}

fn spawn(program: &str, arguments: &[String]) -> Child {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn send(signal: &str, process: &Child) {
    // The process may have ended already.
    let _ =
        Command::new("kill").args(["-s", signal, &process.id().to_string()]).stderr(Stdio::null()).status();
}

fn has_checkpoint(run: &Path) -> bool {
    dcgan_model::checkpoints::list(&run.join("checkpoints")).is_ok_and(|steps| !steps.is_empty())
}

#[test]
fn repeated_signals_are_one_request() {
    let binary = env!("CARGO_BIN_EXE_dcgan-train");
    for signals in [
        &["INT"][..],
        &["INT", "INT"],
        &["TERM", "TERM", "TERM"],
        &["HUP", "TERM"],
        &["HUP", "CONT", "TERM", "INT"],
        &["USR1"],
        &["USR1", "USR1", "TERM"],
        &["USR2"],
        &["XCPU", "TERM"],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (arguments, run) = endless(folder.path());
        let mut child = spawn(binary, &arguments);
        wait_for_steps(&run);
        for signal in signals {
            send(signal, &child);
            sleep(Duration::from_millis(3));
        }
        assert_eq!(child.wait().unwrap().code(), Some(130), "{signals:?}");
        assert!(has_checkpoint(&run), "no checkpoint after {signals:?}");
    }
}

/// The first run does not see a signal in its last step.
#[test]
fn a_signal_between_two_seeds_ends_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let (mut arguments, run) = endless(folder.path());
    let steps = arguments.iter().position(|argument| argument == "--steps").unwrap();
    arguments[steps + 1] = "40".to_owned();
    arguments.extend(["--seeds", "1,2,3"].map(str::to_owned));
    let mut child = spawn(env!("CARGO_BIN_EXE_dcgan-train"), &arguments);
    let of_seed = |seed: u64| run.with_file_name(format!("run-s{seed}"));
    let deadline = Instant::now() + Duration::from_secs(120);
    while !of_seed(1).join("result.json").exists() {
        assert!(Instant::now() < deadline, "the first run has not ended");
        sleep(Duration::from_millis(1));
    }
    send("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!of_seed(2).join("result.json").exists() && !of_seed(3).exists());
}

/// `timeout` signals the process, then its group; a shell signals the group of a job.
#[test]
fn signals_to_the_process_and_to_its_group_are_one_request() {
    let folder = tempfile::tempdir().unwrap();
    let (arguments, run) = endless(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-train"));
    command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.process_group(0).spawn().unwrap();
    wait_for_steps(&run);
    send("INT", &child);
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-s", "INT", "--", &group]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(has_checkpoint(&run));
}

/// A logout does not stop a run under `nohup`.
#[cfg(target_os = "linux")]
#[test]
fn nohup_protects_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let (arguments, run) = endless(folder.path());
    let program = env!("CARGO_BIN_EXE_dcgan-train").to_owned();
    let mut child = spawn("nohup", &[vec![program], arguments].concat());
    wait_for_steps(&run);
    send("HUP", &child);
    sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "SIGHUP stopped the run");
    send("TERM", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(has_checkpoint(&run));
}
