//! Kills, signals, pauses: no accepted job is lost or run twice, and each ends with the bytes of an uninterrupted run.

use super::{Server, folder, images, reference_run, tiny};
use crate::support::{assert_same_run, event_files, stats};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

/// Asserts that each logged step appears once and in order.
fn assert_steps_once(run: &Path, last: u64) {
    let steps: Vec<u64> = stats(run, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=last).filter(|step| step % 5 == 0 || *step == last).collect();
    assert_eq!(steps, expected, "{}", run.display());
}

/// A data root and a dataset in it, small so that jobs start quickly.
fn data(folder: &Path) -> (String, String) {
    images(&folder.join("data/few"), 40);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    (path("data"), path("data/few"))
}

#[test]
fn a_job_survives_five_kills() {
    let (folder, store) = folder();
    let (root, few) = data(folder.path());
    let more = json!({ "ema": 0.9, "order": "alternate", "data": "few" });
    let reference =
        reference_run(folder.path(), 500, &["--ema", "0.9", "--order", "alternate", "--data", &few]);
    let start = || Server::start(&store, &["--data-root", &root]);
    let mut server = start();
    let id = server.submit(&tiny(500, &more));
    for kill in 1..=5 {
        server.wait(&id, "running", |job| job["step"].as_u64() > Some(kill * 60));
        sleep(Duration::from_micros(kill * 700));
        server.kill();
        server = start();
        assert_ne!(server.get(&format!("/v1/jobs/{id}"))["state"], "done", "killed too late");
    }
    server.wait_state(&id, "done");
    let run = store.join("runs").join(&id);
    assert_same_run(&reference, &run);
    assert_steps_once(&run, 500);
    assert_eq!(event_files(&run), 6);
}

#[test]
fn a_job_survives_signals_and_pauses() {
    let (folder, store) = folder();
    let (root, few) = data(folder.path());
    let start = || Server::start(&store, &["--data-root", &root]);
    let tiny = |steps| tiny(steps, &json!({ "data": "few" }));
    let server = start();
    let id = server.submit(&tiny(500));
    let run = store.join("runs").join(&id);
    let newest = || dcgan_model::checkpoints::list(&run.join("checkpoints")).unwrap().pop().unwrap();
    let job = format!("/v1/jobs/{id}");
    let send =
        |server: &Server, command: &str| server.json("POST", &format!("{job}/{command}"), &Value::Null);
    server.wait(&id, "running", |job| job["step"].as_u64() > Some(50));
    // Paused with a checkpoint; another job runs meanwhile.
    assert_eq!(send(&server, "pause")["wanted"], "paused");
    let paused = server.wait_state(&id, "paused");
    assert_eq!((paused["step"].as_u64().unwrap(), &paused["wanted"]), (newest(), &Value::Null));
    let other = server.submit(&tiny(5));
    server.wait_state(&other, "done");
    assert_eq!(server.get(&job), paused, "a paused job does not change");
    send(&server, "resume");
    server.wait(&id, "running", |job| job["step"].as_u64() > Some(150));
    // A pause that is withdrawn at once, whether it took effect or not.
    send(&server, "pause");
    send(&server, "resume");
    let step = server.wait(&id, "running", |job| job["step"].as_u64() > Some(250))["step"].as_u64();
    // Event streams end at shutdown.
    let status = std::thread::scope(|scope| {
        let client = scope.spawn(|| server.request("GET", &format!("{job}/events"), "").status);
        sleep(Duration::from_millis(50));
        server.terminate();
        client.join().unwrap()
    });
    assert_eq!((status, server.wait_for_exit().success()), (200, true));
    assert!(Some(newest()) >= step, "no checkpoint at shutdown");
    // The running job resumes by itself.
    let server = start();
    server.wait_state(&id, "done");
    assert_same_run(&reference_run(folder.path(), 500, &["--data", &few]), &run);
    assert_steps_once(&run, 500);

    // Running and queued jobs can be cancelled, done ones cannot; deletion removes the files.
    let long = server.submit(&tiny(1_000_000));
    let queued = server.submit(&tiny(5));
    server.wait(&long, "running", |job| job["step"].as_u64() > Some(20));
    let post =
        |id: &str, command: &str| server.request("POST", &format!("/v1/jobs/{id}/{command}"), "").status;
    let delete = |id: &str| server.request("DELETE", &format!("/v1/jobs/{id}"), "").status;
    let state = |id: &str| server.get(&format!("/v1/jobs/{id}"))["state"].clone();
    assert_eq!(delete(&long), 409, "it is running");
    assert_eq!((post(&queued, "pause"), state(&queued)), (200, json!("paused")));
    assert_eq!((post(&queued, "cancel"), state(&queued)), (200, json!("cancelled")));
    assert_eq!((post(&queued, "cancel"), post(&queued, "resume"), post(&queued, "pause")), (200, 409, 409));
    assert_eq!((post(&long, "cancel"), post(&long, "resume")), (200, 409));
    server.wait_state(&long, "cancelled");
    assert_eq!((post(&id, "pause"), post(&id, "resume"), post(&id, "cancel")), (409, 409, 409), "it is done");
    for id in [&long, &queued, &id] {
        assert_eq!((delete(id), delete(id)), (204, 404));
        Server::assert_logged(&store, &format!("job submitted job={id}"));
        Server::assert_logged(&store, &format!("job deleted job={id}"));
        assert_eq!(server.request("GET", &format!("/v1/jobs/{id}/events"), "").status, 404);
    }
    let folders: Vec<String> = fs::read_dir(store.join("runs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with(".deleted-")) // they are removed in the background
        .collect();
    assert_eq!(folders, [other.as_str()]);
    // An interrupted deletion is completed at the next start.
    drop(server);
    fs::rename(store.join("runs").join(&other), store.join("runs").join(format!(".deleted-{other}")))
        .unwrap();
    let server = start();
    assert_eq!(server.request("GET", &format!("/v1/jobs/{other}"), "").status, 404);
    assert_eq!(fs::read_dir(store.join("runs")).unwrap().count(), 0);
}

#[test]
fn no_job_is_lost_or_run_twice_by_kills_at_random_moments() {
    const JOBS: usize = 36;
    let (folder, store) = folder();
    let (root, _) = data(folder.path());
    // Two workers claim jobs at the same time, where the machine has two cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let devices = if cores > 1 { "cpu,cpu" } else { "cpu" };
    let start = || Server::start(&store, &["--data-root", &root, "--devices", devices]);
    let mut server = start();
    let mut accepted: Vec<String> = Vec::new();
    // Finished jobs, and when their result was written: it must not be written again.
    let mut finished: BTreeMap<String, SystemTime> = BTreeMap::new();
    let mut random = 17_u64;
    for round in 0..12 {
        while accepted.len() < JOBS * (round + 1) / 12 {
            let id = server.submit(&tiny(23, &json!({ "seed": accepted.len(), "data": "few" })));
            assert!(!accepted.contains(&id));
            accepted.push(id);
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_millis((random >> 33) % 200));
        // Killed during one more submission, which may have been accepted or not.
        let last = std::thread::scope(|scope| {
            let submission = scope.spawn(|| {
                let options = tiny(23, &json!({ "seed": 1000 + round, "data": "few" }));
                let response = server.try_request("POST", "/v1/jobs", &[], &options.to_string());
                response.filter(|response| response.status == 202)
            });
            sleep(Duration::from_micros((random >> 40) % 6000));
            let pid = server.child.id().to_string();
            assert!(std::process::Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            submission.join().unwrap()
        });
        accepted.extend(last.map(|response| response.json()["id"].as_str().unwrap().to_owned()));
        server.kill();
        server = start();
        for job in server.get("/v1/jobs?state=done&limit=200")["jobs"].as_array().unwrap() {
            let id = job["id"].as_str().unwrap();
            let result = store.join("runs").join(id).join("result.json");
            let written = fs::metadata(result).unwrap().modified().unwrap();
            assert_eq!(*finished.entry(id.to_owned()).or_insert(written), written, "{id} was run again");
        }
    }
    for id in &accepted {
        server.wait_state(id, "done");
        assert_steps_once(&store.join("runs").join(id), 23);
    }
    // Jobs whose response was lost are done too, and no job exists twice.
    let jobs = server.get("/v1/jobs?limit=200")["jobs"].as_array().unwrap().clone();
    assert!((accepted.len()..=accepted.len() + 12).contains(&jobs.len()), "{}", jobs.len());
    for job in &jobs {
        server.wait_state(job["id"].as_str().unwrap(), "done");
    }
    for (id, written) in finished {
        let result = store.join("runs").join(&id).join("result.json");
        assert_eq!(fs::metadata(result).unwrap().modified().unwrap(), written, "{id} was run again");
    }
}
