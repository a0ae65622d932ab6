//! Several devices behind one queue: two workers on the CPU.

use super::{Server, folder, reference_run, tiny};
use crate::support::{assert_same_run, command};
use serde_json::{Value, json};
use std::fs;

#[test]
fn two_workers_share_one_queue() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return; // two workers need two threads
    }
    let (folder, store) = folder();
    let start = || Server::start(&store, &["--device", "cpu", "--device", "cpu"]);
    let server = start();
    let ids: Vec<String> = (0..3).map(|_| server.submit(&tiny(500, &Value::Null))).collect();
    let get = |server: &Server, id: &str| server.get(&format!("/v1/jobs/{id}"));
    for id in &ids[..2] {
        server.wait(id, "running", |job| job["step"].as_u64() > Some(10));
    }
    // Two run, each on a device; the third waits.
    let mut devices = [get(&server, &ids[0])["device"].clone(), get(&server, &ids[1])["device"].clone()];
    devices.sort_by_key(Value::to_string);
    assert_eq!(devices, [json!("cpu:0"), json!("cpu:1")]);
    assert_eq!(
        (get(&server, &ids[2])["state"].clone(), get(&server, &ids[2])["device"].clone()),
        ("queued".into(), Value::Null)
    );
    let metrics = String::from_utf8(server.request("GET", "/metrics", "").body).unwrap();
    for device in ["cpu:0", "cpu:1"] {
        for name in [
            "dcgan_device_busy{",
            "dcgan_images_per_second{",
            "dcgan_loss{",
            "dcgan_device_images_trained_total{",
        ] {
            let start = format!("{name}device=\"{device}\"");
            assert!(metrics.lines().any(|line| line.starts_with(&start)), "no {start} in {metrics}");
        }
    }
    // A kill interrupts both; both resume.
    server.kill();
    let server = start();
    for id in &ids[..2] {
        server.wait(id, "running", |job| job["step"].as_u64() > Some(100));
    }
    // A cancel stops one worker, which then takes the next job; the other one continues.
    server.json("POST", &format!("/v1/jobs/{}/cancel", ids[0]), &Value::Null);
    server.wait_state(&ids[0], "cancelled");
    server.wait(&ids[2], "running or done", |job| job["step"].as_u64() > Some(10));
    let reference = reference_run(folder.path(), 500, &[]);
    for id in &ids[1..] {
        server.wait_state(id, "done");
        assert_same_run(&reference, &store.join("runs").join(id));
    }
    // A job may name a kind of device that the service has; any worker of that kind takes it.
    let named = server.submit(&tiny(5, &json!({ "device": "cpu", "threads": 1 })));
    server.wait_state(&named, "done");
    // A resume with other options keeps it.
    server.json("POST", &format!("/v1/jobs/{named}/resume"), &json!({ "steps": 8 }));
    server.wait_state(&named, "done");
    let plan = fs::read_to_string(store.join("runs").join(&named).join("plan.toml")).unwrap();
    assert!(plan.contains("steps = 8") && plan.contains("device = \"cpu\""), "{plan}");
    let both: Vec<String> = (0..2).map(|_| server.submit(&tiny(1_000_000, &Value::Null))).collect();
    for id in &both {
        server.wait(id, "running", |job| job["step"].as_u64() > Some(10));
    }
    server.terminate();
    assert!(server.wait_for_exit().success());
    // One worker for the jobs of two.
    let server = Server::start(&store, &[]);
    server.wait_state(&both[0], "running");
    assert_eq!(get(&server, &both[0])["device"], "cpu");
    assert_eq!(get(&server, &both[1])["state"], "queued");
    for id in &both {
        let checkpoints = dcgan_model::checkpoints::list(&store.join("runs").join(id).join("checkpoints"));
        assert!(!checkpoints.unwrap().is_empty(), "no checkpoint at the shutdown");
    }
}

#[cfg(feature = "cuda")]
#[test]
fn every_gpu_has_a_worker() {
    let (folder, store) = folder();
    let libraries = crate::cuda::libraries().to_str().unwrap();
    let variables = [("LD_LIBRARY_PATH", libraries), ("SIMULATED_GPUS", "2")];
    let start = || Server::start_with(&store, &["--device", "cuda:0,cuda:1"], &variables);
    let server = start();
    let more = json!({ "batch_size": 4 });
    let ids: Vec<String> = (0..2).map(|_| server.submit(&tiny(8, &more))).collect();
    let device = |server: &Server, id: &str| server.get(&format!("/v1/jobs/{id}"))["device"].clone();
    for id in &ids {
        server.wait_state(id, "running");
    }
    let mut devices = [device(&server, &ids[0]), device(&server, &ids[1])];
    devices.sort_by_key(Value::to_string);
    assert_eq!(devices, [json!("cuda:0"), json!("cuda:1")]);
    server.kill();
    let server = start();
    for id in &ids {
        server.wait_state(id, "done");
    }
    // Which GPU trained a job, and whether it was interrupted, does not change a byte.
    let run = |id: &str| store.join("runs").join(id);
    assert_same_run(&run(&ids[0]), &run(&ids[1]));
    drop(folder);
}

#[test]
fn options_can_be_variables() {
    let (folder, store) = folder();
    let serve = || {
        let mut serve = command(&["serve"]);
        serve.env("DCGAN_STORE", &store).env("DCGAN_LISTEN", "0.0.0.0:0");
        serve
    };
    let file = folder.path().join("token");
    fs::write(&file, "hunter2").unwrap();
    for (name, value, part) in [
        ("DCGAN_TOKEN_FILE", file.to_str().unwrap(), "has 7 characters"),
        ("DCGAN_DATA_ROOT", "/nowhere", "--data-root /nowhere is not a folder"),
        ("DCGAN_ALLOW_ORIGIN", "example.com", "--allow-origin"),
        ("DCGAN_DEVICE", "cuda:0,cuda:0", "--device cuda:0 is given 2 times"),
        ("DCGAN_MAX_QUEUED", "0", "--max-queued is 0"),
        ("DCGAN_KEEP_DONE", "x", "neither a number of jobs"),
        ("DCGAN_MODEL_ROOT", "elsewhere", "0.0.0.0:0 can be reached from other machines"),
    ] {
        let output = serve().env(name, value).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(part), "{name}: {stderr}");
    }
    // An argument goes before a variable, and the help names every variable.
    let output = serve().env("DCGAN_MAX_QUEUED", "0").args(["--max-queued", "5"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stderr).contains("--max-queued"));
    let help = String::from_utf8(command(&["serve", "--help"]).output().unwrap().stdout).unwrap();
    let options = help.split("\n      --").skip(1).filter(|option| !option.starts_with("help"));
    for option in options {
        let name = option.split([' ', '\n']).next().unwrap();
        let variable = format!("[env: DCGAN_{}=", name.to_uppercase().replace('-', "_"));
        assert!(option.contains(&variable), "{option} has no {variable}");
    }
    assert!(!store.exists(), "a refused command wrote files");
}
