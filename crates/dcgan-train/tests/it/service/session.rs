//! A job from submission to its model; the page, pagination, the API description, failed jobs and a full disk.

use super::{Response, Server, folder, images, public_stats, raw_request, reference_run, tiny};
use crate::support::{assert_same_run, command, contents, succeed};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

/// The server-sent events of a response: id, event name, data.
fn events(response: &Response) -> Vec<(String, String, String)> {
    assert_eq!((response.status, response.content_type.as_str()), (200, "text/event-stream"));
    let text = String::from_utf8(response.body.clone()).unwrap();
    let field = |block: &str, name: &str| {
        let value = block.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim_start_matches(": ").to_owned()
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("data"));
    blocks.map(|block| (field(block, "id"), field(block, "event"), field(block, "data"))).collect()
}

/// Names and bytes of the files in a zip.
fn unzip(bytes: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let read = |i| {
        let mut file = archive.by_index(i).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        (file.name().unwrap().into_owned(), bytes)
    };
    (0..4).map(read).collect()
}

#[test]
fn a_job_is_submitted_streamed_downloaded_and_drawn_from() {
    let (folder, store) = folder();
    let path = |name: &str| folder.path().join(name);
    images(&path("data/faces"), 20);
    images(&path("data/more"), 1);
    fs::create_dir(path("models")).unwrap();
    let data = path("data");
    let (data, models) = (data.to_str().unwrap(), path("models"));
    let server = Server::start(&store, &["--data-root", data, "--model-root", models.to_str().unwrap()]);
    assert_eq!(server.request("GET", "/healthz", "").status, 204);
    assert_eq!(server.request("GET", "/readyz", "").status, 204);
    let datasets = server.get("/v1/data");
    assert_eq!(
        datasets["data"][0],
        json!({ "name": "faces", "kind": "folder", "bytes": null }),
        "{datasets}"
    );

    // The event stream starts before stats.jsonl exists, and ends with the job.
    let id = server.submit(&tiny(60, &json!({ "data": "faces", "mirror": true, "threads": 1 })));
    let job = format!("/v1/jobs/{id}");
    let received = events(&server.request("GET", &format!("{job}/events"), ""));
    let run = store.join("runs").join(&id);
    let data_of = |events: &[(String, String, String)]| -> Vec<String> {
        events.iter().filter(|(_, name, _)| name != "end").map(|(_, _, data)| data.clone()).collect()
    };
    assert_eq!(data_of(&received), public_stats(&run));
    assert_eq!(received.last().unwrap(), &(String::new(), "end".into(), r#"{"state":"done"}"#.into()));
    for (id, name, data) in &received[..received.len() - 1] {
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&event["event"], true), (&json!(name), id.starts_with(&format!("{}-", event["step"]))));
    }
    // Reverse proxies must not buffer the stream.
    let head = raw_request(&server, &format!("GET {job}/events HTTP/1.1\r\nHost: localhost")).to_lowercase();
    assert!(head.contains("x-accel-buffering: no\r\n"), "{head}");
    assert!(head.contains("cache-control: no-cache, no-transform\r\n"), "{head}");
    assert!(
        !head.contains(&folder.path().to_str().unwrap().to_lowercase()),
        "a folder of the machine: {head}"
    );
    // With Last-Event-ID: the events after it. After the last one: 204.
    for (index, (id, ..)) in received[..received.len() - 1].iter().enumerate() {
        let header = [("Last-Event-ID", id.as_str())];
        let response = server.try_request("GET", &format!("{job}/events"), &header, "").unwrap();
        if index + 2 < received.len() {
            assert_eq!(events(&response), received[index + 1..]);
        } else {
            assert_eq!(response.status, 204);
        }
    }

    // The job's files are those of `run`.
    let shown = server.get(&job);
    for (field, value) in [
        ("state", json!("done")),
        ("step", json!(60)),
        ("total_steps", json!(60)),
        ("images", json!(960)),
        ("error", Value::Null),
    ] {
        assert_eq!(shown[field], value, "{shown}");
    }
    assert_eq!(shown["options"]["data"], "faces");
    let faces = path("data/faces");
    let reference = reference_run(folder.path(), 60, &["--data", faces.to_str().unwrap(), "--mirror"]);
    assert_same_run(&reference, &run);
    let samples = server.get(&format!("{job}/samples"));
    let samples = samples["samples"].as_array().unwrap();
    assert_eq!(samples.len(), contents(&run.join("samples")).len());
    for sample in samples {
        // Relative to the URL of the list.
        let response = server.request("GET", &format!("{job}/{}", sample["url"].as_str().unwrap()), "");
        let file = run.join("samples").join(format!("{:08}.png", sample["n"].as_u64().unwrap()));
        assert!(response.content_type == "image/png" && response.body == fs::read(file).unwrap());
    }
    let response = server.request("GET", &format!("{job}/model"), "");
    assert_eq!((response.status, response.content_type.as_str()), (200, "application/zip"));
    let mut best = contents(&run.join("best"));
    best.retain(|name, _| !name.starts_with("state."));
    assert_eq!(best.len(), 4);
    let files = unzip(response.body);
    assert!(files == best, "{:?}", files.keys());

    // The unzipped model folder gives the same images as the job's model and as `sample`.
    fs::create_dir(models.join("unzipped")).unwrap();
    for (name, bytes) in &files {
        fs::write(models.join("unzipped").join(name), bytes).unwrap();
    }
    let listed = server.get("/v1/models");
    let ids: Vec<&str> =
        listed["models"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [id.as_str(), "unzipped"]);
    assert_eq!(listed["models"][1]["latent"]["size"], 4);
    assert_eq!(
        (&listed["models"][0]["job_name"], &listed["models"][1]["job_name"]),
        (&json!("tiny on faces"), &Value::Null)
    );
    let (png, unzipped) = (path("s.png"), models.join("unzipped"));
    let model = ["--model", unzipped.to_str().unwrap(), "--device", "cpu"];
    let sample = |n: &str| {
        let out = ["sample", "--seed", "7", "--n", n, "--out", png.to_str().unwrap()];
        succeed(&[&out, &model[..]].concat());
        fs::read(&png).unwrap()
    };
    let (one, png) = (sample("1"), sample("5"));
    for model in ids {
        let draw = |request: Value| {
            server.request("POST", &format!("/v1/models/{model}/samples"), &request.to_string())
        };
        assert!(draw(json!({ "seed": 7, "count": 5 })).body == png);
        // One image alone has no frame.
        let alone = draw(json!({ "seed": 7, "count": 1 })).body;
        assert_eq!(image::load_from_memory(&alone).unwrap().to_rgb8().dimensions(), (8, 8));
        assert!(alone == one);
        let response = draw(json!({ "seed": 7, "count": 5, "format": "safetensors" }));
        fs::write(path("z.safetensors"), &response.body).unwrap();
        let tensors = dcgan_model::weights::read_safetensors(&path("z.safetensors")).unwrap();
        assert_eq!(tensors["images"].shape, [5, 1, 8, 8]);
        let z: Vec<&[f32]> = tensors["z"].data.chunks(4).collect();
        assert!(draw(json!({ "z": z })).body == png);
        assert!(draw(json!({ "z": z[..1] })).body == one);
        fs::write(path("z.safetensors"), draw(json!({ "seed": 7, "count": 5, "format": "latents" })).body)
            .unwrap();
        let latents = dcgan_model::weights::read_safetensors(&path("z.safetensors")).unwrap();
        assert!(latents["z"].data == tensors["z"].data && latents.len() == 1);
        assert_eq!(server.request("POST", &format!("/v1/models/{model}/samples"), "").status, 200);
    }
    // A model whose file was replaced is loaded again.
    let draw_unzipped =
        || server.request("POST", "/v1/models/unzipped/samples", r#"{"seed": 7, "count": 5}"#).body;
    let file = unzipped.join("generator.safetensors");
    let best = fs::read(&file).unwrap();
    let others = fs::read_dir(run.join("checkpoints")).unwrap();
    let others = others.map(|folder| fs::read(folder.unwrap().path().join("generator.safetensors")).unwrap());
    fs::write(&file, others.into_iter().find(|other| *other != best).unwrap()).unwrap();
    assert!(draw_unzipped() != png);
    fs::write(&file, best).unwrap();
    assert!(draw_unzipped() == png);
    // Another job is initialized from it.
    let id = server.submit(&tiny(2, &json!({ "init_from": "unzipped" })));
    server.wait_state(&id, "done");
    assert!(store.join("runs").join(&id).join("samples/00000000.png").exists());

    let metrics = String::from_utf8(server.request("GET", "/metrics", "").body).unwrap();
    for line in [
        "dcgan_jobs{state=\"done\"} 2",
        "dcgan_queue_length 0",
        "dcgan_images_trained_total 992",
        "dcgan_device_images_trained_total{device=\"cpu\"} 992",
        "dcgan_device_busy{device=\"cpu\"} 0",
        "dcgan_http_request_duration_seconds_count{method=\"GET\",path=\"/v1/jobs/{id}/model\",status=\"200\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in {metrics}");
    }
}

/// Every file that the page refers to is served, and the page loads nothing from other origins.
#[test]
fn the_page_is_self_contained() {
    let (_folder, store) = folder();
    let server = Server::start(&store, &[]);
    let page = String::from_utf8(server.request("GET", "/", "").body).unwrap();
    assert!(!page.contains("=\"/"), "the page uses absolute URLs, which fail below a sub-path: {page}");
    let mut pending = vec![("/".to_owned(), page)];
    let mut seen = BTreeSet::new();
    while let Some((path, text)) = pending.pop() {
        let names = text.match_indices("\"page/").map(|(at, _)| at + 6);
        let imports = text.match_indices("from \"./").map(|(at, _)| at + 8);
        for at in names.chain(imports) {
            let name = &text[at..at + text[at..].find('"').unwrap()];
            if seen.insert(name.to_owned()) {
                let response = server.request("GET", &format!("/page/{name}"), "");
                assert_eq!(response.status, 200, "{path} refers to {name}");
                pending.push((name.to_owned(), String::from_utf8(response.body).unwrap()));
            }
        }
        assert!(!text.contains("innerHTML") && !text.contains("https://"), "{path}");
        assert!(!text.contains("aria-labeledby"), "{path}: the attribute is spelled aria-labelledby");
    }
    assert!(
        seen.contains("style.css") && seen.contains("explore.js") && seen.contains("latent.js"),
        "{seen:?}"
    );
    let headers = raw_request(&server, "GET / HTTP/1.1\r\nHost: localhost").to_lowercase();
    let tag = headers.split("etag: ").nth(1).unwrap().lines().next().unwrap();
    assert!(headers.contains("content-security-policy: default-src 'none'"), "{headers}");
    for (path, tag, status) in
        [("/", tag, 304), ("/", "\"other\"", 200), ("/page/main.js", tag, 200), ("/page/x.js", tag, 404)]
    {
        assert_eq!(
            server.try_request("GET", path, &[("if-none-match", tag)], "").unwrap().status,
            status,
            "{path}"
        );
    }
    let presets = server.get("/v1/presets");
    let names: Vec<&str> =
        presets["presets"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"digits") && names.contains(&"paper64"), "{names:?}");
}

#[test]
fn jobs_are_listed_in_pages() {
    let (_folder, store) = folder();
    let server = Server::start(&store, &["--max-queued", "12"]);
    // The first job occupies the worker, the others are queued.
    let first = server.submit(&tiny(1_000_000, &Value::Null));
    server.wait_state(&first, "running");
    let mut expected = vec![first.clone()];
    expected.extend((0..12).map(|_| server.submit(&tiny(5, &Value::Null))));
    expected.reverse();
    assert!(expected.is_sorted_by(|a, b| a > b), "ids sort by time");
    let full = server.request("POST", "/v1/jobs", "{}");
    assert_eq!(full.status, 429, "{}", full.json());
    for (query, total) in [("limit=5", 13), ("limit=13", 13), ("", 13), ("state=queued&limit=4", 12)] {
        let (mut ids, mut before) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/v1/jobs?{query}{before}"));
            ids.extend(
                page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else { break };
            before = format!("&before={next}");
        }
        assert_eq!(ids, expected[..total], "{query}");
    }
    assert_eq!(server.get("/v1/jobs?state=running")["jobs"][0]["id"], json!(first));
}

#[test]
fn the_api_description_matches_the_routes() {
    let (_folder, store) = folder();
    let server = Server::start(&store, &[]);
    let document = server.get("/openapi.json");
    assert_eq!(document["servers"], json!([{ "url": "." }]), "relative to the URL of the document");
    let paths = document["paths"].as_object().unwrap();
    let expected = [
        ("/", "get"),
        ("/healthz", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
        ("/page/{name}", "get"),
        ("/readyz", "get"),
        ("/v1/data", "get"),
        ("/v1/jobs", "get post"),
        ("/v1/jobs/delete", "post"),
        ("/v1/jobs/{id}", "delete get"),
        ("/v1/jobs/{id}/cancel", "post"),
        ("/v1/jobs/{id}/drop-optimizer", "post"),
        ("/v1/jobs/{id}/events", "get"),
        ("/v1/jobs/{id}/model", "get"),
        ("/v1/jobs/{id}/pause", "post"),
        ("/v1/jobs/{id}/resume", "post"),
        ("/v1/jobs/preview", "post"),
        ("/v1/jobs/{id}/samples", "get"),
        ("/v1/jobs/{id}/summary", "get"),
        ("/v1/jobs/{id}/samples/{name}", "get"),
        ("/v1/models", "get"),
        ("/v1/models/{id}/samples", "post"),
        ("/v1/presets", "get"),
        ("/v1/store", "get"),
    ];
    let methods = |path: &Value| path.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let found: BTreeMap<&str, String> = paths
        .iter()
        .map(|(path, item)| (path.as_str(), methods(item).into_iter().collect::<Vec<_>>().join(" ")))
        .collect();
    assert_eq!(found, expected.iter().map(|(path, methods)| (*path, (*methods).to_owned())).collect());
    // Described routes answer with described statuses; other methods answer with 405.
    for (path, item) in paths {
        let url = path.replace("{id}", "0000000000000000").replace("{name}", "1.png");
        for method in ["get", "post", "put", "delete", "patch"] {
            let body = if method == "get" || method == "delete" { "" } else { "nonsense" };
            let status = server.request(&method.to_uppercase(), &url, body).status;
            match item.get(method) {
                Some(operation) => assert!(
                    operation["responses"].get(status.to_string()).is_some(),
                    "{method} {path}: status {status} is not described"
                ),
                None => assert_eq!(status, 405, "{method} {path} is not described"),
            }
        }
    }
    assert_eq!(server.request("GET", "/v1", "").status, 404);
    // Every reference resolves.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = &reference[..reference.find('"').unwrap()];
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    // A job's options are those of `run`.
    let help = String::from_utf8(command(&["run", "--help"]).output().unwrap().stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.trim().trim_start_matches("-h, ").strip_prefix("--"));
    let flags: BTreeSet<String> =
        flags.map(|flag| flag.split([' ', '.', '[']).next().unwrap().replace('-', "_")).collect();
    let options = document["components"]["schemas"]["JobOptions"]["properties"].as_object().unwrap();
    let others = ["help", "json", "out", "quiet", "repeat", "resume_if_exists", "seeds", "verbose"];
    let others = others.map(str::to_owned);
    let options: BTreeSet<String> = options.keys().cloned().chain(others).collect();
    let more = ["quiet", "verbose", "help", "name"].map(str::to_owned);
    let flags: BTreeSet<String> = flags.into_iter().chain(more).collect();
    assert_eq!(options, flags);
}

#[cfg(unix)]
#[test]
fn the_queue_continues_after_failed_jobs_and_a_full_disk() {
    let (folder, store) = folder();
    let data = folder.path().join("data");
    images(&data.join("few"), 3);
    images(&data.join("broken"), 20);
    fs::write(data.join("broken/019.png"), b"\x89PNG\r\n\x1a\n no more").unwrap();
    let server = Server::start(&store, &["--data-root", data.to_str().unwrap()]);
    let jobs = [
        (tiny(40, &json!({ "data": "few" })), "failed", "3 images, fewer than one batch"),
        (tiny(40, &json!({ "data": "broken" })), "failed", "1 of 20 images cannot be read: 019.png"),
        (tiny(40, &json!({ "data": "broken", "skip_bad": true })), "done", ""),
    ];
    let ids: Vec<String> = jobs.iter().map(|(options, ..)| server.submit(options)).collect();
    for (id, (_, state, error)) in ids.iter().zip(&jobs) {
        let job = server.wait_state(id, state);
        let message = job["error"].as_str().unwrap_or_default();
        assert!(message.contains(error), "{job}");
        assert!(!job.to_string().contains(folder.path().to_str().unwrap()), "a folder of the machine: {job}");
        assert!(!message.contains("--"), "an option of the command line: {job}");
    }
    // A failed job can be resumed once the cause is fixed.
    fs::remove_file(data.join("broken/019.png")).unwrap();
    server.json("POST", &format!("/v1/jobs/{}/resume", ids[1]), &Value::Null);
    server.wait_state(&ids[1], "done");

    // The disk is full at the sample of step 300: the job is paused, the next one runs, and a resume completes the
    // first.
    let id = server.submit(&tiny(320, &Value::Null));
    let run = store.join("runs").join(&id);
    server.wait(&id, "running", |job| job["step"].as_u64() > Some(10));
    server.json("POST", &format!("/v1/jobs/{id}/pause"), &Value::Null);
    let paused = server.wait_state(&id, "paused");
    assert!(paused["step"].as_u64() < Some(290) && paused["error"].is_null(), "{paused}");
    // Samples are written through a link to a device.
    let sample = run.join("samples/00004800.png");
    std::os::unix::fs::symlink("/dev/full", &sample).unwrap();
    server.json("POST", &format!("/v1/jobs/{id}/resume"), &Value::Null);
    let next = server.submit(&tiny(5, &Value::Null));
    let full = server.wait(&id, "paused by the disk", |job| !job["error"].is_null());
    assert!(full["state"] == "paused" && full["error"].as_str().unwrap().contains("disk is full"), "{full}");
    server.wait_state(&next, "done");
    std::fs::remove_file(&sample).unwrap();
    server.json("POST", &format!("/v1/jobs/{id}/resume"), &Value::Null);
    assert!(server.wait_state(&id, "done")["error"].is_null());
    assert_same_run(&reference_run(folder.path(), 320, &[]), Path::new(&run));
}
