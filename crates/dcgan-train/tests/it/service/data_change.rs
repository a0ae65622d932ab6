//! Jobs whose images changed or cannot be read: what the job says, and the resume that gets past it.

use super::{Server, folder, images, reference_run, tiny};
use crate::support::{assert_same_run, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Waits until the job has failed, checks its message, and returns the effect of its remedy.
fn failed(server: &Server, id: &str, message: &str, option: &str) -> String {
    let job = server.wait_state(id, "failed");
    let error = job["error"].as_str().unwrap();
    assert!(error.contains(message) && !error.contains("--"), "no {message:?} in {error}");
    assert_eq!(job["remedy"]["option"], option, "{job}");
    job["remedy"]["effect"].as_str().unwrap().to_owned()
}

/// Replaces, removes and adds an image.
fn change(data: &Path) {
    images(&data.with_extension("other"), 3);
    fs::rename(data.with_extension("other").join("002.png"), data.join("001.png")).unwrap();
    fs::remove_file(data.join("005.png")).unwrap();
    fs::copy(data.join("000.png"), data.join("more.png")).unwrap();
}

#[test]
fn changed_images_are_accepted_by_a_resume_that_says_so() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    let few = data.join("few");
    images(&few, 40);
    let start = || Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    let server = start();
    let id = server.submit(&tiny(90, &json!({ "data": "few" })));
    let (job, resume) = (format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/resume"));
    server.wait_state(&id, "done");
    let reference = reference_run(folder.path(), 90, &["--data", few.to_str().unwrap()]);
    change(&few);
    server.json("POST", &resume, &json!({ "steps": 180 }));
    let difference = "1 changed (001.png), 1 removed (005.png), 1 added (more.png)";
    let effect = failed(&server, &id, difference, "accept_data_change");
    assert!(effect.contains(difference) && effect.contains("from step 90 on"), "{effect}");
    // Without the option it fails again, and a value that is not one changes nothing.
    server.json("POST", &resume, &Value::Null);
    failed(&server, &id, difference, "accept_data_change");
    for body in [json!({ "accept_data_change": false }), json!({ "accept_data_change": null, "threads": 1 })]
    {
        server.json("POST", &resume, &body);
        failed(&server, &id, "resume it with accept_data_change", "accept_data_change");
    }
    let refused = server.request("POST", &resume, r#"{"accept_data_change": 1}"#);
    let faults = &refused.json()["error"]["faults"];
    assert_eq!((refused.status, &faults[0]["field"]), (422, &json!("accept_data_change")), "{faults}");
    // An acceptance ends when the job fails for another reason.
    let away = data.join("away");
    fs::rename(&few, &away).unwrap();
    server.json("POST", &resume, &json!({ "accept_data_change": true }));
    assert_eq!(server.wait_state(&id, "failed")["remedy"], Value::Null);
    fs::rename(&away, &few).unwrap();
    server.json("POST", &resume, &Value::Null);
    failed(&server, &id, difference, "accept_data_change");
    // It waits in the queue over a restart of the service.
    let busy = server.submit(&tiny(1_000_000, &Value::Null));
    server.wait_state(&busy, "running");
    let queued = server.json("POST", &resume, &json!({ "accept_data_change": true }));
    assert_eq!((&queued["state"], &queued["remedy"]), (&json!("queued"), &Value::Null));
    server.kill();
    let server = start();
    server.json("POST", &format!("/v1/jobs/{busy}/cancel"), &Value::Null);
    let done = server.wait_state(&id, "done");
    assert_eq!((&done["step"], &done["error"], &done["remedy"]), (&json!(180), &Value::Null, &Value::Null));
    // As by the command line.
    let arguments =
        ["resume", reference.to_str().unwrap(), "--quiet", "--steps", "180", "--accept-data-change"];
    succeed(&arguments);
    assert_same_run(&reference, &store.join("runs").join(&id));
    let summary = server.get(&format!("{job}/summary"));
    assert_eq!(summary["changes"], json!([{ "step": 90, "description": difference }]));
    assert_eq!((&summary["images"], &summary["skipped"]), (&json!(40), &json!(0)));
    // It is for one change.
    fs::remove_file(few.join("007.png")).unwrap();
    server.json("POST", &resume, &json!({ "steps": 270 }));
    failed(&server, &id, "job: 1 removed (007.png)", "accept_data_change");
}

#[test]
fn unreadable_images_are_skipped_by_a_resume_that_says_so() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    for (name, options) in [("first", json!({})), ("again", json!({ "skip_bad": true }))] {
        let images_of = data.join(name);
        images(&images_of, 40);
        let mut options = options;
        options["data"] = name.into();
        let id = server.submit(&tiny(90, &options));
        let resume = format!("/v1/jobs/{id}/resume");
        server.wait_state(&id, "done");
        // Size and name stay: the dataset is the same.
        let image = images_of.join("003.png");
        let bytes = fs::read(&image).unwrap();
        fs::write(&image, vec![0; bytes.len()]).unwrap();
        server.json("POST", &resume, &json!({ "steps": 180 }));
        let effect = failed(&server, &id, "003.png", "skip_bad");
        assert!(effect.contains("left out from step 90 on"), "{effect}");
        server.json("POST", &resume, &Value::Null);
        failed(&server, &id, "003.png", "skip_bad");
        server.json("POST", &resume, &json!({ "skip_bad": true }));
        let done = server.wait_state(&id, "done");
        assert_eq!((&done["step"], &done["options"]["skip_bad"]), (&json!(180), &json!(true)));
        let summary = server.get(&format!("/v1/jobs/{id}/summary"));
        assert_eq!((&summary["images"], &summary["skipped"]), (&json!(39), &json!(1)), "{summary}");
        assert_eq!(summary["changes"], json!([]));
    }
    // A job that never began.
    images(&data.join("new"), 40);
    fs::write(data.join("new/004.png"), "no image").unwrap();
    let id = server.submit(&tiny(9, &json!({ "data": "new", "skip_bad": 0 })));
    failed(&server, &id, "004.png", "skip_bad");
    assert_eq!(server.get(&format!("/v1/jobs/{id}/summary"))["images"], Value::Null);
    server.json("POST", &format!("/v1/jobs/{id}/resume"), &json!({ "skip_bad": true }));
    server.wait_state(&id, "done");
    assert_eq!(server.get(&format!("/v1/jobs/{id}/summary"))["skipped"], 1);
}
