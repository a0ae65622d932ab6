//! Refused requests: all faults at once, nothing outside the roots, closed by default.

use super::{Server, folder, images, raw_request, tiny};
use crate::support::{TINY, run};
use serde_json::{Value, json};
use std::fs;

/// A refused submission.
struct BadJob {
    body: &'static str,
    status: u16,
    /// Fields of the faults.
    fields: &'static [&'static str],
    /// A part of the response.
    message: &'static str,
}

fn bad_job(
    body: &'static str,
    status: u16,
    fields: &'static [&'static str],
    message: &'static str,
) -> BadJob {
    BadJob { body, status, fields, message }
}

/// A request and the expected status.
struct Exchange {
    method: &'static str,
    /// `{id}` stands for the id of a job.
    path: &'static str,
    body: &'static str,
    status: u16,
}

fn exchange(method: &'static str, path: &'static str, body: &'static str, status: u16) -> Exchange {
    Exchange { method, path, body, status }
}

/// The fields of an error's faults.
fn fields(error: &Value) -> Vec<&str> {
    let faults = error["error"]["faults"].as_array().unwrap();
    faults.iter().map(|fault| fault["field"].as_str().unwrap()).collect()
}

#[cfg(unix)]
#[test]
fn invalid_requests_are_refused() {
    use std::os::unix::fs::symlink;
    let (folder, store) = folder();
    let path = |name: &str| folder.path().join(name);
    images(&path("data/good"), 20);
    images(&path("data/leaky"), 20);
    images(&path("outside"), 20);
    images(&path("data-too"), 20);
    symlink(path("outside"), path("data/out")).unwrap();
    symlink(path("outside/000.png"), path("data/leaky/100.png")).unwrap();
    fs::create_dir_all(path("models/bad")).unwrap();
    symlink("../../store", path("models/store")).unwrap();
    let (data, models) = (path("data"), path("models"));
    let roots = ["--data-root", data.to_str().unwrap(), "--model-root", models.to_str().unwrap()];
    let server = Server::start(&store, &roots);
    let outside = path("outside");
    let outside = outside.to_str().unwrap();

    let rows = [
        bad_job("", 400, &[], "EOF"),
        bad_job("{", 400, &[], "EOF"),
        bad_job("{\"steps\": 5,}", 400, &[], "trailing comma"),
        bad_job("[]", 422, &[], "expected a JSON object of options"),
        bad_job("7", 422, &[], "expected a JSON object of options"),
        bad_job(r#"{"steps": 5, "seed": 1, "steps": 6}"#, 422, &[], "steps is given twice"),
        bad_job(r#"{"stepz": 5}"#, 422, &["stepz"], "options: preset"),
        bad_job(r#"{"out": "x", "json": true}"#, 422, &["json", "out"], ""),
        bad_job(r#"{"steps": "5"}"#, 422, &["steps"], "string"),
        bad_job(r#"{"steps": -5}"#, 422, &["steps"], "-5"),
        bad_job(r#"{"steps": 0}"#, 422, &["steps"], "at least 1"),
        bad_job(r#"{"steps": 1000.0}"#, 422, &["steps"], "steps is 1000.0, expected an integer, at least 1"),
        bad_job(r#"{"steps": 9007199254740993}"#, 422, &["steps"], "expected at most 9007199254740992"),
        bad_job(r#"{"epochs": 18446744073709551615}"#, 422, &["epochs"], "expected at most 9007199254740992"),
        bad_job(r#"{"channels": 2, "stepz": 3}"#, 422, &["stepz", "channels"], "2 faults"),
        bad_job(r#"{"steps": 5, "epochs": 1}"#, 422, &["steps"], "images, epochs and steps exclude"),
        bad_job(r#"{"learning_rate": "fast"}"#, 422, &["learning_rate"], "fast"),
        bad_job(r#"{"learning_rate_decay": "cosine"}"#, 422, &["learning_rate_decay"], "cosine"),
        bad_job(r#"{"mirror": 1}"#, 422, &["mirror"], "boolean"),
        bad_job(r#"{"size": 30}"#, 422, &["size"], "30"),
        bad_job(r#"{"size": "abc"}"#, 422, &["size"], "abc"),
        bad_job(r#"{"size": [28]}"#, 422, &["size"], "HxW"),
        bad_job(r#"{"preset": "pytorch46"}"#, 422, &["preset"], "pytorch64"),
        bad_job(r#"{"preset": "digits", "config": "x = 1"}"#, 422, &["config"], "exclude"),
        bad_job(r#"{"config": "x = 1"}"#, 422, &["config"], "unknown field"),
        bad_job(r#"{"device": "tpu"}"#, 422, &["device"], "tpu"),
        bad_job(r#"{"device": "cuda:7"}"#, 422, &["device"], "the service has no other device"),
        bad_job(r#"{"dtype": "f8"}"#, 422, &["dtype"], "f8"),
        bad_job(r#"{"name": 7}"#, 422, &["name"], "expected a text"),
        bad_job(r#"{"name": "a\nb", "steps": 0}"#, 422, &["name", "steps"], "one line"),
        bad_job(r#"{"threads": 100000}"#, 422, &["threads"], "4096"),
        bad_job(r#"{"threads": 4096}"#, 422, &["threads"], "this machine"),
        bad_job(r#"{"crop": 4}"#, 422, &["crop"], "needs data"),
        bad_job(r#"{"data": "absent", "crop": 4}"#, 422, &["data"], "absent"),
        bad_job(r#"{"data": ""}"#, 422, &["data"], "invalid path"),
        bad_job(r#"{"data": ".."}"#, 422, &["data"], "invalid path"),
        bad_job(r#"{"data": "../outside"}"#, 422, &["data"], "invalid path"),
        bad_job(r#"{"data": "good/../../outside"}"#, 422, &["data"], "invalid path"),
        bad_job(r#"{"data": "../data-too"}"#, 422, &["data"], "invalid path"),
        bad_job(r#"{"data": "good\u0000"}"#, 422, &["data"], "invalid path"),
        bad_job(r#"{"data": "out"}"#, 422, &["data"], "outside the root"),
        bad_job(r#"{"data": "out/000.png"}"#, 422, &["data"], "outside the root"),
        bad_job(r#"{"data": "leaky"}"#, 422, &["data"], "symlink that points outside the root"),
        bad_job(r#"{"data": 7}"#, 422, &["data"], "string"),
        bad_job(r#"{"data": "good", "exclude": "../outside/list.csv"}"#, 422, &["exclude"], "invalid path"),
        bad_job(r#"{"data": "good", "exclude": "/etc/passwd"}"#, 422, &["exclude"], "invalid path"),
        bad_job(r#"{"metrics_every": 500, "inception": "/etc/passwd"}"#, 422, &["inception"], "invalid path"),
        bad_job(r#"{"metrics_every": 500}"#, 422, &["metrics_every"], "DCGAN_INCEPTION"),
        bad_job(
            r#"{"metrics_every": 7, "inception": "absent"}"#,
            422,
            &["inception", "metrics_every"],
            "2 faults",
        ),
        bad_job(r#"{"init_from": "absent"}"#, 422, &["init_from"], "is not a model"),
        bad_job(r#"{"init_from": "bad"}"#, 422, &["init_from"], "is not a model"),
        bad_job(r#"{"init_from": "store"}"#, 422, &["init_from"], "is not a model"),
        bad_job(r#"{"init_from": "../outside"}"#, 422, &["init_from"], "is not a model"),
        // All faults at once, even if the networks are unknown.
        bad_job(
            r#"{"preset": "nothing", "batch_size": 1, "ema": 1.5, "keep": 0, "seed": 1.5,
                "checkpoint_every": 0, "warmup": 3}"#,
            422,
            &["seed", "warmup", "preset", "batch_size", "ema", "checkpoint_every", "keep"],
            "7 faults",
        ),
    ];
    for BadJob { body, status, fields: expected, message } in rows {
        let response = server.request("POST", "/v1/jobs", body);
        let error = response.json();
        assert_eq!((response.status, fields(&error)), (status, expected.to_vec()), "{body}: {error}");
        assert!(error.to_string().contains(message), "{body}: no {message:?} in {error}");
        let text = error.to_string().replace("--data-root", "");
        assert!(!text.contains("--") && !text.contains(outside), "{error}");
    }
    let absolute = server.request("POST", "/v1/jobs", &json!({ "data": outside }).to_string());
    assert_eq!((absolute.status, fields(&absolute.json())), (422, vec!["data"]));
    let long = server.request("POST", "/v1/jobs", &json!({ "name": "x".repeat(101) }).to_string());
    assert_eq!((long.status, fields(&long.json())), (422, vec!["name"]));
    // The names in [run] of a configuration reach no other files or devices than those of the request.
    for (run, fields_expected, message) in [
        (format!("data = {outside:?}"), vec!["data"], "invalid path"),
        ("data = \"../outside\"".to_owned(), vec!["data"], "invalid path"),
        ("data = \"absent\"".to_owned(), vec!["data"], "does not exist"),
        ("data = \"leaky\"".to_owned(), vec!["data"], "symlink that points outside the root"),
        ("data = \"good\"\nexclude = \"/etc/passwd\"".to_owned(), vec!["exclude"], "invalid path"),
        ("inception = \"/etc/passwd\"".to_owned(), vec!["inception"], "invalid path"),
        (format!("init_from = {outside:?}"), vec!["init_from"], "is not a model"),
        ("init_from = \"../outside\"".to_owned(), vec!["init_from"], "is not a model"),
        ("device = \"cuda:7\"".to_owned(), vec!["device"], "the service has no other device"),
        ("threads = 4096".to_owned(), vec!["threads"], "this machine"),
        ("threads = 0".to_owned(), vec!["threads"], "expected 1 to 4096"),
        ("keep = 0\nlog_every = 0".to_owned(), vec!["log_every", "keep"], "2 faults"),
        ("out = \"x\"".to_owned(), vec!["config"], "unknown field"),
        (format!("data = {outside:?}\ndevice = \"tpu\""), vec!["device", "data"], "2 faults"),
    ] {
        let options =
            tiny(5, &json!({ "config": format!("{TINY}\n[run]\n{run}\n"), "keep": null, "log_every": null }));
        let response = server.request("POST", "/v1/jobs", &options.to_string());
        let error = response.json();
        assert_eq!((response.status, fields(&error)), (422, fields_expected), "{run}: {error}");
        assert!(error.to_string().contains(message), "{run}: no {message:?} in {error}");
    }
    // A value of the request goes before that of the file.
    let config = format!("{TINY}\n[run]\ndata = \"../outside\"\ndevice = \"cuda:7\"\n");
    let options = tiny(5, &json!({ "config": config, "data": "good", "device": "auto" }));
    let named = server.submit(&options);
    server.wait_state(&named, "done");
    assert_eq!(server.request("DELETE", &format!("/v1/jobs/{named}"), "").status, 204);
    // Too large a body: refused before it is sent.
    let huge = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000";
    assert!(raw_request(&server, huge).starts_with("HTTP/1.1 413"));
    if cfg!(target_os = "linux") {
        // More memory than any machine has: a failed allocation would abort the service.
        let wide = TINY.replace("channels = 4", "channels = 65536");
        let large = wide.replace("height = 8", "height = 2048").replace("width = 8", "width = 2048");
        for (options, field) in [
            (json!({ "config": TINY, "size": 4096, "batch_size": 65536 }), "batch_size"),
            (json!({ "config": wide, "size": 2048, "batch_size": 2 }), "size"),
            (json!({ "config": large }), "config"),
        ] {
            let response = server.request("POST", "/v1/jobs", &options.to_string());
            let error = response.json();
            assert_eq!((response.status, fields(&error)), (422, vec![field]), "{error}");
            assert!(error.to_string().contains("GB of memory at least"), "{error}");
        }
    }
    // A response is not many times larger than the request.
    let unknown: String = (0..9000).map(|i| format!("\"{i}\": 0,")).collect();
    let response = server.request("POST", "/v1/jobs", &format!("{{{unknown} \"steps\": 0}}"));
    assert_eq!(response.status, 422);
    let text = response.json().to_string();
    assert!(
        text.len() < unknown.len() && text.contains("8980 more") && text.contains("at least 1"),
        "{text}"
    );
    // The length of a configuration is limited; lists show its beginning.
    let config = |bytes: usize| tiny(5, &json!({ "config": format!("{}# {}", TINY, "x".repeat(bytes)) }));
    let response = server.request("POST", "/v1/jobs", &config(1 << 16).to_string());
    assert_eq!((response.status, fields(&response.json())), (422, vec!["config"]));
    assert_eq!(server.get("/v1/jobs")["jobs"], json!([]), "a refused job was stored");
    let is_run = |name: &std::ffi::OsStr| !name.to_string_lossy().starts_with(".deleted-");
    let runs = fs::read_dir(store.join("runs"))
        .unwrap()
        .filter(|entry| is_run(&entry.as_ref().unwrap().file_name()));
    assert_eq!(runs.count(), 0);

    let id = server.submit(&tiny(10, &json!({ "data": "good" })));
    server.wait_state(&id, "done");
    for Exchange { method, path, body, status } in [
        exchange("GET", "/v1/jobs/0000000000000000", "", 404),
        exchange("GET", "/v1/jobs/..", "", 404),
        exchange("GET", "/v1/jobs/%2e%2e", "", 404),
        exchange("GET", "/v1/jobs/..%2f..%2fjobs.sqlite", "", 404),
        exchange("GET", "/v1/jobs/%ff", "", 404),
        exchange("GET", "/v1/jobs?state=lost", "", 422),
        exchange("GET", "/v1/jobs?limit=0", "", 422),
        exchange("GET", "/v1/jobs?limit=201", "", 422),
        exchange("GET", "/v1/jobs?limit=x&page=2", "", 422),
        exchange("GET", "/v1/jobs/{id}/samples/0.png", "", 404),
        exchange("GET", "/v1/jobs/{id}/samples/160", "", 404),
        exchange("GET", "/v1/jobs/{id}/samples/160.png", "", 200),
        exchange("GET", "/v1/jobs/{id}/samples/reals.png", "", 200),
        exchange("GET", "/v1/jobs/{id}/samples/..%2fplan.toml", "", 404),
        exchange("GET", "/v1/jobs/{id}/samples/..%2f..%2f..%2fjobs.sqlite", "", 404),
        exchange("GET", "/v1/jobs/0000000000000000/model", "", 404),
        exchange("GET", "/v1/jobs/%2e%2e/model", "", 404),
        exchange("POST", "/v1/models/0000000000000000/samples", "{}", 404),
        exchange("POST", "/v1/models/store/samples", "{}", 404),
        exchange("POST", "/v1/models/..%2fstore/samples", "{}", 404),
        exchange("POST", "/v1/models/%2e%2e/samples", "{}", 404),
        exchange("POST", "/v1/models/bad/samples", "{}", 404),
        exchange("POST", "/v1/models/{id}/samples", "{", 400),
        exchange("POST", "/v1/models/{id}/samples", r#"{"n": 5}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"count": 0}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"count": 1025}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"seed": -1}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"format": "gif"}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"z": []}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"z": [[1, 2, 3]]}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"z": [[1, 2, 3, 1e300]]}"#, 422),
        exchange("POST", "/v1/models/{id}/samples", r#"{"z": [[1, 2, 3, 4]], "count": 2}"#, 422),
        exchange("PUT", "/v1/jobs/{id}", "{}", 405),
        exchange("GET", "/v1/nothing", "", 404),
    ] {
        let response = server.request(method, &path.replace("{id}", &id), body);
        assert_eq!(response.status, status, "{method} {path} {body}");
        assert!(status == 200 || response.json()["error"]["message"].is_string());
    }
    let long = server.submit(&config(60_000));
    let listed = server.get("/v1/jobs?limit=1")["jobs"][0].clone();
    assert_eq!(
        (&listed["id"], listed["options"]["config"].as_str().unwrap().chars().count()),
        (&json!(long), 200)
    );
    assert_eq!(server.get(&format!("/v1/jobs/{long}"))["options"], config(60_000));
    let bad_id = server.try_request("GET", &format!("/v1/jobs/{id}/events"), &[("Last-Event-ID", "7")], "");
    assert_eq!(bad_id.unwrap().status, 422);
    // Data that was replaced by a symlink out of the root after the job was accepted is not read.
    let busy = server.submit(&tiny(1_000_000, &Value::Null));
    server.wait_state(&busy, "running");
    let moved = server.submit(&tiny(10, &json!({ "data": "good" })));
    fs::rename(path("data/good"), path("was-good")).unwrap();
    symlink(path("was-good"), path("data/good")).unwrap();
    server.json("POST", &format!("/v1/jobs/{busy}/cancel"), &Value::Null);
    let failed = server.wait_state(&moved, "failed");
    assert!(failed["error"].as_str().unwrap().contains("outside the root"), "{failed}");
    assert!(
        !failed.to_string().contains(folder.path().to_str().unwrap()),
        "a folder of the machine: {failed}"
    );
    // A second service on the same store.
    let second = run(&["serve", "--store", store.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another service uses"));
}

#[test]
fn the_service_is_closed_by_default() {
    let (folder, store) = folder();
    let token = folder.path().join("token");
    fs::write(&token, "s3cret-of-this-test\n").unwrap();
    let (token, empty) = (token.to_str().unwrap(), folder.path().join("empty"));
    fs::write(&empty, "\n").unwrap();
    let weak = folder.path().join("weak");
    fs::write(&weak, "hunter2\n").unwrap();
    let weak = weak.to_str().unwrap();
    let store_text = store.to_str().unwrap();
    for (arguments, part) in [
        (vec!["--listen", "0.0.0.0:0"], "--token-file"),
        (vec!["--listen", "[::]:0"], "--token-file"),
        (vec!["--listen", "nonsense"], "expected HOST:PORT"),
        (vec!["--token-file", empty.to_str().unwrap()], "is empty"),
        (
            vec!["--token-file", weak],
            "has 7 characters, expected at least 16; make one with (umask 077; head -c 32",
        ),
        (vec!["--device", "auto,cpu"], "expected it alone"),
        (vec!["--device", "cuda:1", "--device", "cuda:1"], "--device cuda:1 is given 2 times"),
        (vec!["--keep-done", "some"], "neither a number of jobs"),
        (vec!["--token-file", "/nowhere/token"], "/nowhere/token"),
        (vec!["--data-root", "/nowhere"], "not a folder"),
        (vec!["--allow-origin", "example.com"], "--allow-origin"),
        (vec!["--device", "tpu"], "tpu"),
    ] {
        let output = run(&[&["serve", "--store", store_text][..], &arguments].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains(part), "{arguments:?}: {stderr}");
    }
    assert!(!store.exists(), "a refused command wrote files");

    let origin = ["--allow-origin", "https://lab.example"];
    let mut server = Server::start(&store, &[&["--token-file", token], &origin[..]].concat());
    let status = |server: &Server, path: &str, headers: &[(&str, &str)]| {
        server.try_request("GET", path, headers, "").unwrap().status
    };
    assert_eq!((status(&server, "/healthz", &[]), status(&server, "/readyz", &[])), (204, 204));
    assert_eq!(
        (status(&server, "/", &[]), status(&server, "/page/main.js", &[])),
        (200, 200),
        "the page prompts for the token"
    );
    for path in
        ["/v1/jobs", "/v1/presets", "/metrics", "/openapi.json", "/nothing", "/page", "/pages/main.js"]
    {
        for value in
            ["", "Bearer s3cret-of-this-tes", "Bearer s3cret-of-this-test2", "Basic s3cret-of-this-test"]
        {
            assert_eq!(status(&server, path, &[("authorization", value)]), 401, "{path} {value}");
        }
    }
    Server::assert_logged(&store, "request with an invalid token refused client=127.0.0.1:");
    Server::assert_logged(&store, "method=GET path=/v1/presets");
    Server::assert_logged(&store, "all users of this machine can read it");
    let log = fs::read_to_string(store.with_extension("log")).unwrap();
    assert!(!log.contains("s3cret"), "a token in the log: {log}");
    let refused = log.lines().filter(|line| line.contains("with an invalid token refused")).count();
    assert_eq!(refused, 20, "the lines of a minute are limited: {log}");
    assert!(
        log.lines().all(|line| line.starts_with("20") && line[..20].ends_with('Z')),
        "lines have a date: {log}"
    );
    server.token = Some("s3cret-of-this-test".into());
    assert_eq!(status(&server, "/v1/jobs", &[]), 200);
    // Origins: one is allowed, others may not change anything.
    let post =
        |origin: &str| server.try_request("POST", "/v1/jobs", &[("origin", origin)], "{").unwrap().status;
    assert_eq!((post("https://lab.example"), post("https://evil.example"), post("null")), (400, 403, 403));
    let refused =
        server.try_request("POST", "/v1/jobs", &[("origin", "https://evil.example")], "{").unwrap().json();
    let message = refused["error"]["message"].as_str().unwrap();
    for part in [
        "\"https://evil.example\"",
        "Host: \"127.0.0.1:",
        "--allow-origin https://evil.example",
        &format!("{}/", server.url),
    ] {
        assert!(message.contains(part), "no {part} in {message}");
    }
    Server::assert_logged(&store, "request from another origin refused client=127.0.0.1:");
    Server::assert_logged(&store, "origin=\"https://evil.example\"");
    assert_eq!(post(&server.url), 400, "the service's own page");
    // Behind a TLS proxy, which may change the host.
    let https = server.url.replace("http:", "https:");
    for (origin, site) in [(https.as_str(), "none"), ("https://proxy.example", "same-origin")] {
        let headers = [("origin", origin), ("sec-fetch-site", site)];
        assert_eq!(server.try_request("POST", "/v1/jobs", &headers, "{").unwrap().status, 400, "{origin}");
    }
    drop(server);

    // Without a token other host names are refused, and no CORS headers are sent.
    let server = Server::start(&store, &[]);
    let response = raw_request(&server, "GET /v1/jobs HTTP/1.1\r\nHost: rebound.example");
    for part in
        ["the Host header is \\\"rebound.example\\\"", "--token-file", &format!("open {}/", server.url)]
    {
        assert!(response.contains(part), "no {part} in {response}");
    }
    Server::assert_logged(&store, "request for another host refused client=127.0.0.1:");
    for (head, expected) in [
        ("GET /v1/jobs HTTP/1.1\r\nHost: localhost", "200"),
        ("GET /v1/jobs HTTP/1.1\r\nHost: rebound.example", "403"),
        ("GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nHost: rebound.example", "400"),
        ("GET /healthz HTTP/1.1\r\nHost: rebound.example", "204"),
        ("OPTIONS /v1/jobs HTTP/1.1\r\nHost: localhost\r\nOrigin: https://lab.example", "405"),
        (
            "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nOrigin: https://lab.example\r\nContent-Length: 2",
            "403",
        ),
        ("GET /v1/jobs/\0 HTTP/1.1\r\nHost: localhost", "400"),
        ("nonsense", "400"),
    ] {
        let response = raw_request(&server, head);
        assert!(response.starts_with(&format!("HTTP/1.1 {expected}")), "{head}: {response}");
        assert!(!response.to_lowercase().contains("access-control-allow-origin"), "{response}");
    }
}
