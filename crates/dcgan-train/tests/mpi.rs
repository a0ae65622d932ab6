//! Runs of several processes over MPI: bytes, signals, failures.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../dcgan-mpi/tests/launcher/mod.rs"]
mod launcher;
#[path = "../../dcgan-ops/tests/simulated/mod.rs"]
mod simulated;
#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod support;

use launcher::{failure, mpirun};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{TINY, assert_same_run};

const TRAIN: &str = env!("CARGO_BIN_EXE_dcgan-train");

/// Options of a run on the embedded digits.
const OPTIONS: &str =
    "--shards 4 --checkpoint-every 3 --sample-every 4 --log-every 2 --device cpu --batch-size 8 --steps 6";

/// Writes the small networks; the options that name them, [`OPTIONS`], and `more`, which goes before those.
fn options(folder: &Path, more: &str) -> Vec<String> {
    let config = folder.join("tiny.toml");
    fs::write(&config, TINY).unwrap();
    let more: Vec<&str> = more.split_whitespace().collect();
    let words: Vec<&str> = OPTIONS.split(' ').collect();
    let kept = words.chunks(2).filter(|option| !more.contains(&option[0])).flatten().copied();
    let all = ["--config", config.to_str().unwrap()].into_iter().chain(kept).chain(more.iter().copied());
    all.map(str::to_owned).collect()
}

fn start(processes: usize, command: &str, run: &Path, options: &[String]) -> Child {
    let mut launcher = mpirun(processes);
    launcher.args([TRAIN, command]);
    if command == "run" {
        launcher.arg("--out");
    }
    launcher.arg(run).args(options).spawn().unwrap()
}

fn train(processes: usize, command: &str, run: &Path, options: &[String]) -> Output {
    start(processes, command, run, options).wait_with_output().unwrap()
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn any_number_of_processes_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let rows = ["--ema 0.5 --mirror --conditional", "--order alternate --dtype bf16 --weight-decay 1e-4"];
    for (row, more) in rows.iter().enumerate() {
        let options = options(folder.path(), more);
        let path = |name: &str| folder.path().join(format!("{name}-{row}"));
        assert_done(&train(1, "run", &path("one"), &options));
        for processes in [2, 4] {
            let run = path(&processes.to_string());
            assert_done(&train(processes, "run", &run, &options));
            assert_same_run(&path("one"), &run);
        }
        // Extended by other numbers of processes.
        let longer: Vec<String> = ["--steps", "10"].map(str::to_owned).to_vec();
        assert_done(&train(1, "resume", &path("one"), &longer));
        assert_done(&train(2, "resume", &path("4"), &longer));
        assert_done(&train(1, "resume", &path("2"), &longer));
        assert_same_run(&path("one"), &path("4"));
        assert_same_run(&path("one"), &path("2"));
    }
    let lines = fs::read_to_string(folder.path().join("4-0/stats.jsonl")).unwrap();
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(line["processes"], 4);
    for key in ["all_reduce_share", "batch_norm_share", "wait_share"] {
        let share = line[key].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&share), "{key}: {line}");
    }
}

/// Waits for a checkpoint.
fn await_checkpoint(run: &Path) {
    let started = Instant::now();
    let has_one = || fs::read_dir(run.join("checkpoints")).is_ok_and(|mut entries| entries.next().is_some());
    while !has_one() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that train in `run`, found under /proc: launchers differ in who is their parent.
fn ranks(run: &Path) -> Vec<u32> {
    let is_rank = |pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|byte| *byte == 0);
        words.next() == Some(TRAIN.as_bytes()) && words.any(|word| word == run.as_os_str().as_encoded_bytes())
    };
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(is_rank).collect()
}

fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_signal_to_the_launcher_saves_and_a_killed_process_ends_all() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        options(folder.path(), "--steps 1500 --checkpoint-every 100 --sample-every 500 --log-every 100");
    let long = folder.path().join("long");
    assert_done(&train(1, "run", &long, &options));
    let run = folder.path().join("stopped");
    // Sent on to every process.
    let job = start(2, "run", &run, &options);
    await_checkpoint(&run);
    signal("USR1", job.id());
    let output = job.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("interrupted at step") && text.contains("dcgan-train resume"), "{text}");
    // One process is killed, and the launcher ends the others.
    let job = start(2, "resume", &run, &[]);
    let started = Instant::now();
    let ranks = loop {
        let ranks = ranks(&run);
        if ranks.len() >= 2 || started.elapsed() > Duration::from_secs(10) {
            break ranks;
        }
    };
    std::thread::sleep(Duration::from_millis(300));
    signal("KILL", *ranks.last().unwrap());
    let started = Instant::now();
    failure(&job.wait_with_output().unwrap(), started);
    assert_done(&train(4, "resume", &run, &[]));
    assert_same_run(&long, &run);
}

/// Writes 20 images.
fn images(data: &Path) {
    fs::create_dir_all(data).unwrap();
    for i in 0..20_u8 {
        image::GrayImage::from_fn(8, 8, |x, y| {
            image::Luma([i * u8::try_from(x).unwrap() + u8::try_from(y).unwrap()])
        })
        .save(data.join(format!("{i}.png")))
        .unwrap();
    }
}

/// A folder with images, one of which is damaged.
fn damaged(folder: &Path) -> PathBuf {
    let data = folder.join("damaged");
    images(&data);
    let last = data.join("19.png");
    let bytes = fs::read(&last).unwrap();
    fs::write(last, &bytes[..bytes.len() - 30]).unwrap();
    data
}

#[test]
fn one_message_names_the_process_that_cannot_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = damaged(folder.path());
    let data = data.to_str().unwrap();
    // What rank 1 gets besides the options of rank 0, and the message; nothing is written.
    let rows = [
        ("", "--learning-rate 7", "dcgan-train (rank 1 on "),
        ("", "--seed 3", "the plan of rank 1"),
        ("", "--data /no/such/images", "cannot read /no/such/images"),
        ("", "--device cuda:0", "dcgan-train (rank 1 on "),
        ("--shards 1", "--shards 1", "2 processes cannot divide 1 shard(s)"),
        ("--learning-rate 7", "--learning-rate 7", "dcgan-train (rank 0 on "),
        (&format!("--data {data}"), &format!("--data {data}"), "19.png"),
    ];
    for (first, second, message) in rows {
        let run = folder.path().join("run");
        let options = |more: &str| options(folder.path(), &format!("--out {} {more}", run.display()));
        let mut launcher = mpirun(1);
        launcher.args([TRAIN, "run"]).args(options(first)).arg(":");
        launcher.args(["-n", "1", TRAIN, "run"]).args(options(second));
        let started = Instant::now();
        let output = launcher.output().unwrap();
        let text = failure(&output, started);
        assert!(text.contains(message), "{message}: {text}");
        assert_eq!(text.matches("(see `dcgan-train --help`)").count(), 1, "{text}");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(!run.exists(), "{message}");
    }
}

/// `dcgan-train serve` on a free port; killed when dropped.
struct Service {
    child: Child,
    url: String,
}

impl Service {
    fn start(store: &Path) -> Self {
        let mut command = Command::new(TRAIN);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--quiet", "--device", "cpu", "--store"])
            .arg(store);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { child, url: line.trim().strip_prefix("listening on ").unwrap().to_owned() }
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json");
        let mut response = ureq::Agent::from(config).run(request.body(body.to_string()).unwrap()).unwrap();
        let mut text = String::new();
        response.body_mut().as_reader().read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Waits until the job meets a condition.
    fn wait(&self, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let job = self.request("GET", &format!("/v1/jobs/{id}"), &Value::Null);
            if condition(&job) {
                return job;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{job}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_job_of_the_service_trains_in_several_processes() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let options = |steps: u64| {
        json!({
            "config": TINY, "steps": steps, "shards": 2, "processes": 2, "seed": 5, "threads": 1,
            "checkpoint_every": 100, "sample_every": 500, "log_every": 50,
        })
    };
    let service = Service::start(&store);
    let refused = service.request("POST", "/v1/jobs", &json!({ "config": TINY, "processes": 2 }));
    assert!(refused.to_string().contains("processes is 2, expected a power of two"), "{refused}");
    let submitted = service.request("POST", "/v1/jobs", &options(1500));
    let id = submitted["id"].as_str().unwrap_or_else(|| panic!("{submitted}")).to_owned();
    let has_trained = |job: &Value| job["step"].as_u64() >= Some(200);
    service.wait(&id, has_trained);
    // Paused and resumed.
    service.request("POST", &format!("/v1/jobs/{id}/pause"), &json!({}));
    let paused = service.wait(&id, |job| job["state"] == "paused");
    assert!(paused["step"].as_u64() < Some(1500), "{paused}");
    service.request("POST", &format!("/v1/jobs/{id}/resume"), &json!({}));
    service.wait(&id, |job| job["state"] == "running" && job["step"].as_u64() > paused["step"].as_u64());
    // The service is killed: its processes stop, and the next service resumes.
    drop(service);
    let service = Service::start(&store);
    let done = service.wait(&id, |job| job["state"] == "done" || job["state"] == "failed");
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(done["step"], 1500);
    let alone = folder.path().join("alone");
    let words =
        "--steps 1500 --shards 2 --batch-size 16 --checkpoint-every 100 --sample-every 500 --log-every 50";
    let alone_options = self::options(folder.path(), &format!("{words} --seed 5"));
    let output = Command::new(TRAIN).args(["run", "--out"]).arg(&alone).args(alone_options).output().unwrap();
    assert_done(&output);
    for file in ["generator.safetensors", "discriminator.safetensors"] {
        let bytes = |run: &Path| fs::read(run.join("best").join(file)).unwrap();
        assert!(bytes(&store.join("runs").join(&id)) == bytes(&alone), "{file}");
    }
}

#[test]
fn a_run_that_asks_for_processes_starts_them() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), "");
    let path = |name: &str| folder.path().join(name);
    let run = |out: &str, more: &[&str]| {
        let mut command = Command::new(TRAIN);
        command.args(["run", "--out"]).arg(path(out)).args(&options).args(more).output().unwrap()
    };
    assert_done(&run("one", &[]));
    assert_done(&run("two", &["--processes", "2"]));
    let lines = fs::read_to_string(path("two/stats.jsonl")).unwrap();
    assert!(lines.contains("\"processes\":2"), "{lines}");
    // The launcher starts once for all seeds: one line of JSON.
    let seeds = run("seeds", &["--processes", "2", "--seeds", "1,2", "--json"]);
    assert_done(&seeds);
    let stdout = String::from_utf8(seeds.stdout).unwrap();
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((stdout.lines().count(), &json["groups"][0]["seeds"]), (1, &json!([1, 2])));
    for file in ["generator.safetensors", "discriminator.safetensors"] {
        assert!(
            fs::read(path("one/best").join(file)).unwrap() == fs::read(path("two/best").join(file)).unwrap()
        );
    }
}

/// `dcgan-train` as processes with a simulated GPU each.
fn on_gpus(processes: usize) -> Command {
    let mut launcher = mpirun(processes);
    let libraries = simulated::libraries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../dcgan-ops"));
    launcher.env("LD_LIBRARY_PATH", libraries).env("SIMULATED_GPUS", processes.to_string());
    launcher.env("SIMULATED_BACKGROUND", "1");
    launcher
}

#[test]
fn processes_with_a_gpu_each_train_one_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // A few images of two classes: evaluation takes time on a simulated GPU.
    let data = path("data");
    for class in ["a", "b"] {
        images(&data.join(class));
    }
    let data = data.display();
    for (row, more) in ["--ema 0.5 --conditional", "--order alternate --weight-decay 1e-4"].iter().enumerate()
    {
        let name = |name: &str| path(&format!("{name}-{row}"));
        let more = &format!("--data {data} {more}");
        let run = |out: &Path, processes: usize, more: &str| {
            let all = options(folder.path(), &format!("--device auto --shards {processes} --steps 6 {more}"));
            let mut launcher = on_gpus(processes);
            launcher.args([TRAIN, "run", "--out"]).arg(out).args(all).output().unwrap()
        };
        assert_done(&run(&name("one"), 1, more));
        assert_done(&run(&name("two"), 2, more));
        if row == 0 {
            assert_done(&run(&name("again"), 2, more));
            assert_same_run(&name("two"), &name("again"));
        }
        let log = fs::read_to_string(name("two").join("log.txt")).unwrap();
        assert!(log.contains("cuda:0 (simulated GPU)"), "{log}");
        // The losses of one process: batch norm, losses and gradients are those of the whole minibatch.
        let losses = |run: &Path| -> Vec<f64> {
            let lines = fs::read_to_string(run.join("stats.jsonl")).unwrap();
            let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let steps = lines.filter(|line| line["event"] == "step");
            let keys = ["loss_d", "loss_g", "d_x", "gradient_norm_d", "gradient_norm_g"];
            steps.flat_map(|line| keys.map(|key| line[key].as_f64().unwrap())).collect()
        };
        let (one, two) = (losses(&name("one")), losses(&name("two")));
        assert_eq!(one.len(), 15);
        let far = one.iter().zip(&two).find(|(a, b)| (*a - *b).abs() > 1e-3 * a.abs().max(1.0));
        assert_eq!(far, None, "{one:?} {two:?}");
        // Extended from step 3.
        let short = options(folder.path(), &format!("--device auto --shards 2 --steps 3 {more}"));
        let mut launcher = on_gpus(2);
        launcher.args([TRAIN, "run", "--out"]).arg(name("stopped")).args(short);
        assert_done(&launcher.output().unwrap());
        let mut launcher = on_gpus(2);
        launcher.args([TRAIN, "resume"]).arg(name("stopped")).args(["--steps", "6"]);
        assert_done(&launcher.output().unwrap());
        for file in ["generator.safetensors", "discriminator.safetensors", "state.safetensors"] {
            let bytes = |run: &str| fs::read(name(run).join("checkpoints/00000006").join(file)).unwrap();
            assert!(bytes("two") == bytes("stopped"), "{file}");
        }
    }
    // A failure of one GPU ends both; other shards are refused; NCCL is missing.
    let failing = |variables: &[(&str, &str)], shards: &str, message: &str| {
        let all = options(folder.path(), &format!("--data {data} --device auto --steps 6 --shards {shards}"));
        let mut launcher = on_gpus(2);
        launcher.envs(variables.iter().copied()).args([TRAIN, "run", "--out"]).arg(path("failed")).args(all);
        let started = Instant::now();
        let text = failure(&launcher.output().unwrap(), started);
        assert!(text.contains(message), "{text}");
        let _ = fs::remove_dir_all(path("failed"));
    };
    failing(&[("SIMULATED_NCCL_FAIL", "9")], "2", "NCCL, ");
    failing(&[], "4", "2 processes with a GPU each have one shard each: use --shards 2");
}
