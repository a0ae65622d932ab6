//! Names, dates and disk space of jobs; longer runs; removal of optimizer states; deletion of many jobs.

use super::{Server, folder, images, reference_run, tiny};
use crate::support::{assert_same_run, contents, run};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The message and the fields of a refused request.
fn refused(server: &Server, path: &str, body: &Value, status: u16) -> (String, Vec<String>) {
    let response = server.request("POST", path, &body.to_string());
    let error = response.json();
    assert_eq!(response.status, status, "{path} {body}: {error}");
    let fields = error["error"]["faults"].as_array().unwrap().iter();
    let fields = fields.map(|fault| fault["field"].as_str().unwrap().to_owned()).collect();
    (error["error"]["message"].as_str().unwrap().to_owned(), fields)
}

/// Waits until a folder has `count` entries.
fn wait_for_entries(folder: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while fs::read_dir(folder).unwrap().count() != count {
        assert!(Instant::now() < deadline, "{} has not {count} entries", folder.display());
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_done_job_is_extended_to_the_bytes_of_a_longer_run() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    images(&data.join("few"), 40);
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    // A multiple of every interval: the shorter run has no other samples and checkpoints than the longer one.
    let id = server.submit(&tiny(90, &json!({ "data": "few", "ema": 0.9, "name": " short " })));
    let (job, resume) = (format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/resume"));
    let short = server.wait_state(&id, "done");
    assert_eq!((&short["name"], &short["options"]["steps"]), (&json!("short"), &json!(90)));
    for (body, status, field, message) in [
        (Value::Null, 409, "", "give a greater length"),
        (json!({ "steps": 90 }), 422, "steps", "more than the 90 steps taken"),
        (json!({ "epochs": 45 }), 422, "epochs", "a length of 90 steps"), // 40 images are two batches of 16
        (json!({ "steps": 0 }), 422, "steps", "at least 1"),
        (json!({ "steps": "60" }), 422, "steps", "string"),
        (json!({ "steps": 180, "images": 2880 }), 422, "steps", "exclude"),
        (
            json!({ "steps": 180, "seed": 4 }),
            422,
            "seed",
            "cannot be changed by a resume; options: data, skip_bad, exclude, device, threads",
        ),
        (json!({ "steps": 180, "device": "cuda:3" }), 422, "device", "no other device"),
        (json!({ "steps": 180, "threads": 4096 }), 422, "threads", "this machine"),
    ] {
        let (text, fields) = match body {
            Value::Null => {
                let response = server.request("POST", &resume, "");
                assert_eq!(response.status, status);
                (response.json()["error"]["message"].as_str().unwrap().to_owned(), vec![])
            }
            body => refused(&server, &resume, &body, status),
        };
        assert!(
            text.contains(message) && fields.first().map_or("", String::as_str) == field,
            "{text} {fields:?}"
        );
    }
    assert_eq!(server.get(&job), short, "a refused request changes nothing");
    let queued = server.json("POST", &resume, &json!({ "steps": 180, "threads": 1 }));
    assert_eq!((&queued["total_steps"], &queued["ended_unix_ms"]), (&json!(180), &Value::Null));
    assert_eq!((&queued["options"]["steps"], &queued["options"]["threads"]), (&json!(180), &json!(1)));
    server.wait_state(&id, "done");
    let few = data.join("few");
    let more = ["--data", few.to_str().unwrap(), "--ema", "0.9"];
    let run_folder = store.join("runs").join(&id);
    assert_same_run(&reference_run(folder.path(), 180, &more), &run_folder);
    // In passes over the data, and across a restart.
    server.json("POST", &resume, &json!({ "epochs": 1_000_000 }));
    let longer = server.wait(&id, "running", |job| job["step"].as_u64() > Some(190));
    assert_eq!((&longer["total_steps"], &longer["options"]["steps"]), (&json!(2_000_000), &Value::Null));
    assert_eq!(
        refused(&server, &resume, &json!({ "steps": 290 }), 409).0,
        "cannot change a running job; pause it first"
    );
    server.kill();
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    server.wait(&id, "running", |job| job["step"].as_u64() > Some(210));
    // A paused job can be shortened to what it has not taken yet.
    server.json("POST", &format!("{job}/pause"), &Value::Null);
    let steps = server.wait_state(&id, "paused")["step"].as_u64().unwrap();
    server.json("POST", &resume, &json!({ "images": (steps + 10) * 16 }));
    assert_eq!(server.wait_state(&id, "done")["step"], steps + 10);
    // A job that has not run yet.
    let busy = server.submit(&tiny(1_000_000, &Value::Null));
    server.wait_state(&busy, "running");
    let waiting = server.submit(&tiny(5, &Value::Null));
    server.json("POST", &format!("/v1/jobs/{waiting}/resume"), &json!({ "steps": 7 }));
    server.json("POST", &format!("/v1/jobs/{busy}/cancel"), &Value::Null);
    assert_eq!(server.wait_state(&waiting, "done")["step"], 7);
    let cancelled = refused(&server, &format!("/v1/jobs/{busy}/resume"), &json!({ "steps": 2_000_000 }), 409);
    assert_eq!(cancelled.0, "cannot change a cancelled job");
}

#[test]
fn jobs_have_names_dates_and_disk_space_and_lose_their_optimizer_state() {
    let (folder, store) = folder();
    let start = |keep: &[&str]| Server::start(&store, keep);
    let server = start(&[]);
    let named = server.submit(&tiny(20, &json!({ "name": "Faces, first try" })));
    let unnamed = server.submit(&tiny(20, &json!({ "name": "" })));
    let job = server.wait_state(&named, "done");
    assert_eq!((&job["name"], &job["optimizer_state"]), (&json!("Faces, first try"), &json!("kept")));
    assert!(job["options"].get("name").is_none());
    let seconds = job["created_unix_ms"].as_u64().unwrap() / 1000;
    let mut date = std::process::Command::new("date");
    let created =
        date.args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap().stdout;
    assert_eq!(job["created"].as_str().unwrap(), String::from_utf8(created).unwrap().trim());
    let other = server.wait_state(&unnamed, "done");
    assert_eq!((&other["name"], &other["device"]), (&json!("tiny on the embedded digits"), &json!("cpu")));
    for text in [
        format!("job submitted job={named} name=\"Faces, first try\""),
        format!("job started job={named} name=\"Faces, first try\" device=cpu step=0"),
        format!("job ended job={named} state=done device=cpu step=20 seconds="),
    ] {
        Server::assert_logged(&store, &text);
    }

    // Disk space: that of the files.
    let run_folder = store.join("runs").join(&named);
    let bytes = job["disk_bytes"].as_u64().unwrap();
    let length: usize = contents(&run_folder).values().map(Vec::len).sum();
    assert!(bytes > length as u64 / 2 && bytes < 20 * length as u64, "{bytes} bytes for {length}");
    let disk = server.get("/v1/store");
    let jobs = bytes + other["disk_bytes"].as_u64().unwrap();
    assert_eq!(disk["states"]["done"], json!({ "jobs": 2, "disk_bytes": jobs }));
    assert_eq!(disk["disk_bytes"].as_u64().unwrap(), jobs + disk["database_bytes"].as_u64().unwrap());
    let metrics = String::from_utf8(server.request("GET", "/metrics", "").body).unwrap();
    for line in [
        format!("dcgan_job_disk_bytes{{job=\"{named}\"}} {bytes}"),
        format!("dcgan_jobs_disk_bytes{{state=\"done\"}} {jobs}"),
        "dcgan_jobs_disk_bytes{state=\"failed\"} 0".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    }
    assert!(metrics.contains("dcgan_store_free_bytes ") && metrics.contains("dcgan_store_disk_bytes "));

    // Without its optimizer state a job keeps its model, and is not resumed.
    let model = |id: &str| server.request("GET", &format!("/v1/jobs/{id}/model"), "").body;
    let before = model(&named);
    let dropped = server.json("POST", &format!("/v1/jobs/{named}/drop-optimizer"), &Value::Null);
    assert_eq!(dropped["optimizer_state"], "dropped");
    assert!(dropped["disk_bytes"].as_u64().unwrap() < bytes, "{dropped}");
    assert!(!contents(&run_folder).keys().any(|name| name.ends_with("state.safetensors")));
    assert!(model(&named) == before);
    for body in [json!({}), json!({ "steps": 40 })] {
        let message = refused(&server, &format!("/v1/jobs/{named}/resume"), &body, 409).0;
        assert!(message.contains("cannot be resumed exactly") && message.contains("init_from"), "{message}");
    }
    let resumed = run(&["resume", run_folder.to_str().unwrap(), "--steps", "40"]);
    let stderr = String::from_utf8_lossy(&resumed.stderr);
    assert!(!resumed.status.success() && stderr.contains("optimizer state was dropped"), "{stderr}");
    assert!(model(&named) == before, "the checkpoints are not set aside as damaged");
    let next = server.submit(&tiny(5, &json!({ "init_from": named })));
    server.wait_state(&next, "done");
    let running = server.submit(&tiny(1_000_000, &Value::Null));
    server.wait_state(&running, "running");
    let message = refused(&server, &format!("/v1/jobs/{running}/drop-optimizer"), &json!({}), 409).0;
    assert_eq!(message, "cannot drop the optimizer state of a running job; cancel it first");
    server.json("POST", &format!("/v1/jobs/{running}/cancel"), &Value::Null);
    server.wait_state(&running, "cancelled");
    drop(server);

    // By policy: at the start, and when a job ends.
    let server = start(&["--keep-done", "1"]);
    let dropped = |id: &str| server.wait(id, "dropped", |job| job["optimizer_state"] == "dropped");
    dropped(&unnamed);
    assert_eq!(server.get(&format!("/v1/jobs/{next}"))["optimizer_state"], "kept");
    let last = server.submit(&tiny(5, &Value::Null));
    dropped(&next);
    assert_eq!(server.wait_state(&last, "done")["optimizer_state"], "kept");
    assert_eq!(
        server.get(&format!("/v1/jobs/{running}"))["optimizer_state"],
        "kept",
        "it is cancelled, not done"
    );
    Server::assert_logged(&store, &format!("optimizer state dropped job={next} keep_done=1"));
    // A removal that was interrupted is completed at the next start.
    drop(server);
    let state = store.join("runs").join(&next).join("checkpoints/00000005/state.safetensors");
    fs::write(&state, "x").unwrap();
    let _server = start(&[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while state.exists() {
        assert!(Instant::now() < deadline, "it was not removed");
        sleep(Duration::from_millis(5));
    }
    drop(folder);
}

#[test]
fn many_jobs_are_deleted_after_a_confirmation() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    images(&data.join("few"), 3);
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    let done: Vec<String> = (0..4).map(|_| server.submit(&tiny(2, &Value::Null))).collect();
    let failed = server.submit(&tiny(2, &json!({ "data": "few" })));
    done.iter().for_each(|id| drop(server.wait_state(id, "done")));
    server.wait_state(&failed, "failed");
    let running = server.submit(&tiny(1_000_000, &Value::Null));
    server.wait_state(&running, "running");
    let delete = |body: Value| server.json("POST", "/v1/jobs/delete", &body);
    for (body, field, message) in [
        (json!({}), "ids", "either ids or states"),
        (json!({ "ids": [], "states": [] }), "ids", "either ids or states"),
        (json!({ "states": ["running"] }), "states", "expected cancelled, failed, done"),
        (json!({ "states": ["all"], "confirm": true }), "states", "expected cancelled, failed, done"),
        (json!({ "ids": vec!["x"; 1001] }), "ids", "at most 1000"),
    ] {
        let (text, fields) = refused(&server, "/v1/jobs/delete", &body, 422);
        assert!(text.contains(message) && fields == [field], "{text}");
    }
    refused(&server, "/v1/jobs/delete", &json!({ "states": ["done"], "sure": true }), 422);
    // Without confirmation nothing is deleted.
    let listed = delete(json!({ "states": ["done", "failed"] }));
    let all: Vec<&String> = done.iter().chain([&failed]).collect();
    assert_eq!((&listed["deleted"], &listed["would_delete"]), (&json!([]), &json!(all)));
    let bytes = |id: &str| server.get(&format!("/v1/jobs/{id}"))["disk_bytes"].as_u64().unwrap();
    assert_eq!(listed["disk_bytes"], json!(all.iter().map(|id| bytes(id)).sum::<u64>()));
    assert_eq!(server.get("/v1/jobs")["jobs"].as_array().unwrap().len(), 6);
    // By selection: what cannot be deleted is reported, the rest is deleted.
    let selected = json!([done[0], running, "0000000000000000"]);
    let result = delete(json!({ "ids": selected, "confirm": true }));
    assert_eq!(result["deleted"], json!([done[0]]));
    assert_eq!(
        result["failed"],
        json!([
            { "id": running, "message": "cannot delete a running job; cancel it first" },
            { "id": "0000000000000000", "message": "no such job" },
        ])
    );
    Server::assert_logged(&store, &format!("job deleted job={}", done[0]));
    let result = delete(json!({ "states": ["failed", "done", "cancelled"], "confirm": true }));
    assert_eq!(result["deleted"].as_array().unwrap().len(), 4);
    let left = server.get("/v1/jobs");
    assert_eq!((left["jobs"].as_array().unwrap().len(), &left["jobs"][0]["id"]), (1, &json!(running)));
    wait_for_entries(&store.join("runs"), 1);
}
