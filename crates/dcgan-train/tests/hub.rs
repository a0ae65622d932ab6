//! `push`, `pull` and `--model hf://...` with a server that speaks the protocol of the Hugging Face Hub.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const TOKEN: &str = "hf_a_secret_that_no_message_has";

/// Repositories by their name: whether they are private, and the files of their main branch.
type Repositories = BTreeMap<String, (bool, BTreeMap<String, Vec<u8>>)>;

/// A Hub. Files are stored in commits, or said to be LFS files that no server takes.
#[derive(Clone, Default)]
struct Hub {
    repositories: Arc<Mutex<Repositories>>,
    /// Requests, as `POST /path`.
    requests: Arc<Mutex<Vec<String>>>,
}

struct Request {
    method: String,
    path: String,
    token: Option<String>,
    body: Vec<u8>,
}

/// Status, headers and body.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn json_answer(status: u16, value: &Value) -> Answer {
    (status, vec![("content-type", "application/json".to_owned())], value.to_string().into_bytes())
}

/// The commit of the main branch: all commits have one name, and files change by their ETag.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Hub {
    /// Starts it; returns its address.
    fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (hub, stream) = (hub.clone(), stream.unwrap());
                std::thread::spawn(move || while hub.answer_next(&stream).is_some() {});
            }
        });
        address
    }

    fn answer_next(&self, stream: &TcpStream) -> Option<()> {
        let request = read_request(&mut BufReader::new(stream))?;
        self.requests.lock().unwrap().push(format!("{} {}", request.method, request.path));
        let (status, headers, body) = self.answer(&request);
        let mut text = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        let body = if request.method == "HEAD" { &[][..] } else { &body[..] };
        let mut stream = stream;
        stream.write_all(text.as_bytes()).and_then(|()| stream.write_all(body)).ok()
    }

    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let mut repositories = self.repositories.lock().unwrap();
        let is_known = request.token.as_deref() == Some(&format!("Bearer {TOKEN}"));
        let writes = request.method == "POST";
        if writes && !is_known {
            return json_answer(401, &json!({ "error": "Invalid username or password." }));
        }
        if path == "/api/repos/create" {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let name =
                format!("{}/{}", body["organization"].as_str().unwrap(), body["name"].as_str().unwrap());
            assert_eq!(body["type"], "model");
            if repositories.contains_key(&name) {
                return json_answer(409, &json!({ "error": "You already created this model repo" }));
            }
            repositories.insert(name.clone(), (body["private"].as_bool().unwrap(), BTreeMap::new()));
            return json_answer(200, &json!({ "url": format!("https://hub/{name}") }));
        }
        let (id, rest) = match parts[..] {
            ["api", "models", owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest.to_vec()),
            [owner, name, ref rest @ ..] => {
                (format!("{owner}/{}", name.trim_end_matches(".git")), rest.to_vec())
            }
            _ => return json_answer(404, &json!({ "error": "no such path" })),
        };
        let Some((is_private, files)) =
            repositories.get_mut(&id).filter(|(private, _)| is_known || !*private)
        else {
            let (name, value) = ("x-error-code", "RepoNotFound".to_owned());
            return (
                401,
                vec![(name, value)],
                json!({ "error": "Repository not found" }).to_string().into_bytes(),
            );
        };
        match (request.method.as_str(), &rest[..]) {
            ("POST", ["preupload", "main"]) => {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                let mode = |file: &Value| {
                    let path = file["path"].as_str().unwrap();
                    let mode = if path.ends_with(".safetensors") { "lfs" } else { "regular" };
                    json!({ "path": path, "uploadMode": mode })
                };
                let files: Vec<Value> = body["files"].as_array().unwrap().iter().map(mode).collect();
                json_answer(200, &json!({ "files": files }))
            }
            ("POST", ["info", "lfs", "objects", "batch"]) => {
                json_answer(200, &json!({ "transfer": "basic", "objects": [] }))
            }
            ("POST", ["commit", "main"]) => {
                for line in request.body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                    let line: Value = serde_json::from_slice(line).unwrap();
                    if line["key"] == "file" {
                        let value = &line["value"];
                        assert_eq!(value["encoding"], "base64");
                        let content = STANDARD.decode(value["content"].as_str().unwrap()).unwrap();
                        files.insert(value["path"].as_str().unwrap().to_owned(), content);
                    } else if line["key"] == "deletedFile" {
                        files.remove(line["value"]["path"].as_str().unwrap());
                    }
                }
                json_answer(
                    200,
                    &json!({ "commitUrl": format!("https://hub/{id}/commit/1"), "commitOid": COMMIT }),
                )
            }
            ("GET", [] | ["revision", "main" | COMMIT]) => {
                json_answer(200, &json!({ "id": id, "sha": COMMIT, "private": is_private }))
            }
            ("GET", ["tree", COMMIT | "main"]) => {
                let entry = |(path, bytes): (&String, &Vec<u8>)| json!({ "type": "file", "oid": etag(bytes), "size": bytes.len(), "path": path });
                json_answer(200, &files.iter().map(entry).collect())
            }
            ("GET" | "HEAD", ["resolve", COMMIT, file]) => match files.get(*file) {
                None => json_answer(404, &json!({ "error": "Entry not found" })),
                Some(bytes) => {
                    let headers =
                        vec![("etag", format!("\"{}\"", etag(bytes))), ("x-repo-commit", COMMIT.to_owned())];
                    (200, headers, bytes.clone())
                }
            },
            other => panic!("{other:?}"),
        }
    }
}

fn etag(bytes: &[u8]) -> String {
    dcgan_base::digest::hex(&dcgan_base::digest::Digest::default().field(bytes).key()[..20])
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, token: headers.remove("authorization"), body })
}

/// Runs the program with a Hub, and a token.
fn run(here: &Path, endpoint: &str, token: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dcgan-train"));
    command.current_dir(here).args(arguments).env("HF_ENDPOINT", endpoint).env("HF_HOME", here.join("cache"));
    for name in [
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let output = command.output().unwrap();
    for text in [&output.stdout, &output.stderr] {
        assert!(!String::from_utf8_lossy(text).contains(TOKEN), "{arguments:?} printed the token");
    }
    output
}

/// Every file below `folder` without the token.
fn check_no_token(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_no_token(&path);
        } else {
            let bytes = fs::read(&path).unwrap();
            let found = bytes.windows(TOKEN.len()).any(|window| window == TOKEN.as_bytes());
            assert!(!found, "{} has the token", path.display());
        }
    }
}

#[test]
fn a_model_goes_to_the_hub_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let hub = Hub::default();
    let endpoint = hub.serve();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits");
    let succeed = |token: Option<&str>, arguments: &[&str]| {
        let output = run(here, &endpoint, token, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), error)
    };
    let refused = |token: Option<&str>, arguments: &[&str], words: &[&str]| {
        let output = run(here, &endpoint, token, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        for word in words {
            assert!(error.contains(word), "{arguments:?}: {word} is not in {error}");
        }
    };
    let export = ["export", digits.to_str().unwrap(), "--to", "hub", "--out", "model", "--license", "mit"];
    succeed(None, &[&export[..], &["--dtype", "bf16"]].concat());
    fs::write(here.join("model/.env"), "not for others").unwrap();
    fs::write(here.join("model/notes.txt"), "nor this").unwrap();
    fs::create_dir(here.join("model/private")).unwrap();
    fs::write(here.join("model/private/me.png"), "nor files of folders").unwrap();

    refused(None, &["push", "model", "hf://me/digits"], &["hf://me/digits", "HF_TOKEN"]);
    refused(Some(TOKEN), &["push", digits.to_str().unwrap(), "hf://me/digits"], &["export MODEL --to hub"]);
    refused(Some(TOKEN), &["push", "cache", "hf://me/digits"], &["not a model folder"]);
    refused(Some(TOKEN), &["push", "model", "hf://digits"], &["hf://OWNER/NAME"]);
    assert!(hub.repositories.lock().unwrap().is_empty());
    for _ in 0..2 {
        let (page, _) = succeed(Some(TOKEN), &["push", "model", "hf://me/digits"]);
        assert_eq!(page.trim(), "https://hub/me/digits/commit/1");
    }
    let stored: Vec<String> = hub.repositories.lock().unwrap()["me/digits"].1.keys().cloned().collect();
    let networks = ["discriminator.safetensors", "generator.safetensors"];
    assert_eq!(stored, [&["README.md", "config.json"][..], &networks, &["samples.png"]].concat());

    // The same files come back, and the same images.
    succeed(None, &["pull", "hf://me/digits", "--out", "pulled"]);
    for file in &stored {
        let read = |folder: &str| fs::read(here.join(folder).join(file)).unwrap();
        assert_eq!(read("pulled"), read("model"), "{file}");
    }
    let sample = |model: &str| {
        succeed(None, &["sample", "--model", model, "--n", "4", "--out", "out.png"]);
        fs::read(here.join("out.png")).unwrap()
    };
    assert_eq!(sample("hf://me/digits"), sample("model"));
    // Weights that are here are not copied again.
    hub.requests.lock().unwrap().clear();
    sample("hf://me/digits@main");
    let copied: Vec<String> = hub.requests.lock().unwrap().clone();
    assert!(
        !copied.iter().any(|request| request.starts_with("GET") && request.contains("resolve")),
        "{copied:?}"
    );
    // A run can start from it, and its plan keeps the address.
    let config = digits.join("train.toml");
    let start =
        ["run", "--config", config.to_str().unwrap(), "--steps", "1", "--init-from", "hf://me/digits"];
    succeed(None, &[&start[..], &["--out", "run"]].concat());
    assert!(fs::read_to_string(here.join("run/plan.toml")).unwrap().contains("\"hf://me/digits\""));

    // What was public is not private for being pushed so.
    let before = hub.repositories.lock().unwrap()["me/digits"].clone();
    fs::write(here.join("model/LICENSE"), "new").unwrap();
    let private = ["push", "model", "hf://me/digits", "--private"];
    refused(Some(TOKEN), &private, &["hf://me/digits", "public", "--private"]);
    assert_eq!(hub.repositories.lock().unwrap()["me/digits"], before);
    // The metadata, the text and the images of a card survive an export of what was pulled.
    succeed(None, &["export", "hf://me/digits", "--to", "hub", "--out", "again", "--license", "mit"]);
    for file in ["README.md", "samples.png"] {
        let read = |folder: &str| fs::read(here.join(folder).join(file)).unwrap();
        assert_eq!(read("again"), read("model"), "{file}");
    }
    // A model that has lost a network does not keep the one it had.
    fs::remove_file(here.join("model/discriminator.safetensors")).unwrap();
    succeed(Some(TOKEN), &["push", "model", "hf://me/digits"]);
    let stored: Vec<String> = hub.repositories.lock().unwrap()["me/digits"].1.keys().cloned().collect();
    assert_eq!(stored, ["LICENSE", "README.md", "config.json", "generator.safetensors", "samples.png"]);

    // A private model is there for its owner alone.
    succeed(Some(TOKEN), &["push", "model", "hf://me/secret", "--private"]);
    refused(
        None,
        &["sample", "--model", "hf://me/secret", "--out", "out.png"],
        &["hf://me/secret", "HF_TOKEN"],
    );
    succeed(Some(TOKEN), &["sample", "--model", "hf://me/secret", "--n", "1", "--out", "out.png"]);
    refused(None, &["sample", "--model", "hf://me/absent", "--out", "out.png"], &["hf://me/absent"]);
    check_no_token(here);
}

#[test]
fn a_model_that_is_here_needs_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let hub = Hub::default();
    let endpoint = hub.serve();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits");
    let files = ["config.json", "generator.safetensors"];
    let files = files.map(|file| (file.to_owned(), fs::read(digits.join(file)).unwrap()));
    hub.repositories.lock().unwrap().insert("me/digits".to_owned(), (false, BTreeMap::from(files)));
    let nowhere = "http://127.0.0.1:9";
    for model in ["hf://me/digits".to_owned(), format!("hf://me/digits@{COMMIT}")] {
        let sample = |endpoint: &str| {
            run(here, endpoint, None, &["sample", "--model", &model, "--n", "1", "--out", "out.png"])
        };
        let refused = || {
            let output = sample(nowhere);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && error.contains("HF_ENDPOINT"), "{error}");
        };
        refused();
        assert!(sample(&endpoint).status.success());
        let output = sample(nowhere);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.contains("cannot be reached"), "{error}");
        if model.contains('@') {
            // Files of a commit whose copy was interrupted.
            let snapshots = here.join("cache/hub/models--me--digits/snapshots");
            fs::remove_file(snapshots.join(COMMIT).with_extension("dcgan-complete")).unwrap();
            fs::remove_file(snapshots.join(COMMIT).join("generator.safetensors")).unwrap();
            refused();
        } else {
            fs::remove_dir_all(here.join("cache")).unwrap();
        }
    }
}
