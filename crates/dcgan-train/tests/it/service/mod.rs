//! `dcgan-train serve` as a process, tested over HTTP.

mod conditional;
mod data_change;
mod devices;
mod files;
mod preset_choice;
mod refusals;
mod session;
mod stopping;
mod streams;

use crate::support::{TINY, command};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Timeout of requests and of waiting for a job's state.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A service process; killed when dropped.
struct Server {
    child: Child,
    url: String,
    agent: ureq::Agent,
    token: Option<String>,
    /// Kept open, so that the service's stdout is not a closed pipe.
    _stdout: BufReader<ChildStdout>,
}

/// A response.
struct Response {
    status: u16,
    content_type: String,
    body: Vec<u8>,
}

impl Response {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

impl Server {
    /// Starts a service with `store` on a free port, and waits until it listens.
    fn start(store: &Path, arguments: &[&str]) -> Self {
        Self::start_with(store, arguments, &[])
    }

    /// The same with variables.
    fn start_with(store: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let all = ["serve", "--store", store.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let log = File::options().create(true).append(true).open(store.with_extension("log")).unwrap();
        let mut child = command(&[&all[..], arguments].concat())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("{line:?}, {:?}", child.wait())).to_owned();
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = config.timeout_global(Some(TIMEOUT)).build().into();
        Self { child, url, agent, token: None, _stdout: stdout }
    }

    /// Sends a request with headers and, if not empty, a body. None if there is no complete response.
    fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Response> {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = if body.is_empty() {
            self.agent.run(request.body(()).unwrap()).ok()?
        } else {
            self.agent.run(request.body(body).unwrap()).ok()?
        };
        let content_type = response.headers().get("content-type");
        let content_type = content_type.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = response.status().as_u16();
        let mut body = Vec::new();
        response.body_mut().as_reader().read_to_end(&mut body).ok()?;
        Some(Response { status, content_type, body })
    }

    fn request(&self, method: &str, path: &str, body: &str) -> Response {
        self.try_request(method, path, &[], body).unwrap_or_else(|| panic!("{method} {path}: no response"))
    }

    /// The JSON of a successful response.
    fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.request(method, path, &text);
        assert!(response.status < 300, "{method} {path}: {} {}", response.status, response.json());
        response.json()
    }

    fn get(&self, path: &str) -> Value {
        self.json("GET", path, &Value::Null)
    }

    /// Submits a job and returns its id.
    fn submit(&self, options: &Value) -> String {
        self.json("POST", "/v1/jobs", options)["id"].as_str().unwrap().to_owned()
    }

    /// Asserts that the log of the service with `store` has a line with `text`, or gets one soon: a line is written
    /// after the change that it reports.
    fn assert_logged(store: &Path, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let log = fs::read_to_string(store.with_extension("log")).unwrap();
            if log.lines().any(|line| line.contains(text)) {
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} in the log: {log}");
            sleep(Duration::from_millis(5));
        }
    }

    /// Polls a job until `condition` holds.
    fn wait(&self, id: &str, description: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let job = self.get(&format!("/v1/jobs/{id}"));
            if condition(&job) {
                return job;
            }
            assert!(Instant::now() < deadline, "{id} is not {description}: {job}");
            sleep(Duration::from_millis(5));
        }
    }

    fn wait_state(&self, id: &str, state: &str) -> Value {
        self.wait(id, state, |job| job["state"] == state)
    }

    fn kill(mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(std::process::Command::new("kill").arg(&pid).status().unwrap().success());
    }

    fn wait_for_exit(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Options of a job with the tiny networks.
fn tiny(steps: u64, more: &Value) -> Value {
    let mut options = json!({
        "config": TINY, "steps": steps, "checkpoint_every": 9, "sample_every": 10, "log_every": 5, "seed": 3, "keep": 2,
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        options[name] = value.clone();
    }
    options
}

/// A temporary folder, and the path of a store in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    (folder, store)
}

/// The run folder of an uninterrupted `dcgan-train run` with the options of [`tiny`].
fn reference_run(folder: &Path, steps: u64, more: &[&str]) -> PathBuf {
    let (config, out) = (folder.join("tiny.toml"), folder.join("reference"));
    fs::write(&config, TINY).unwrap();
    let steps = steps.to_string();
    let arguments =
        ["--quiet", "--checkpoint-every", "9", "--sample-every", "10", "--log-every", "5", "--keep", "2"];
    let paths = ["run", "--config", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--seed", "3"];
    crate::support::succeed(&[&paths[..], &["--steps", &steps], &arguments, more].concat());
    out
}

/// The lines of a run's stats.jsonl as clients get them: without the folder of the run.
fn public_stats(run: &Path) -> Vec<String> {
    let folder = format!("{}/", run.to_str().unwrap());
    let text = fs::read_to_string(run.join("stats.jsonl")).unwrap();
    text.lines().map(|line| line.replace(&folder, "")).collect()
}

/// `n` grey images in a folder.
fn images(folder: &Path, n: u8) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..n {
        let shape = dcgan_data::ImageShape { height: 8, width: 8, channels: 1 };
        dcgan_data::image_grid::ImageGrid::square(&[i % 28 * 9; 64], shape)
            .unwrap()
            .save(&folder.join(format!("{i:03}.png")))
            .unwrap();
    }
}

/// The response to a raw request head, with `{}` as the body.
fn raw_request(server: &Server, head: &str) -> String {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{{}}").as_bytes()).unwrap();
    let mut response = Vec::new();
    // If the service did not read the body, the connection is reset after the response.
    let _ = stream.read_to_end(&mut response);
    String::from_utf8(response).unwrap()
}
