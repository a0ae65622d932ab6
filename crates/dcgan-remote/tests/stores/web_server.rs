//! A web server with faults.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behavior {
    /// Content and version of each file; a version that is empty is not sent.
    pub(crate) files: HashMap<String, (Vec<u8>, String)>,
    pub(crate) has_no_ranges: bool,
    pub(crate) refuses_head: bool,
    /// The header `Authorization` that is wanted.
    pub(crate) authorization: Option<String>,
    /// The answer to HEAD claims this length.
    pub(crate) claimed_bytes: Option<u64>,
    /// Connections that are cut after half of a body.
    pub(crate) cuts: usize,
    /// Every request fails.
    pub(crate) is_down: bool,
}

/// The server, and what it did.
#[derive(Clone, Debug)]
pub(crate) struct WebServer {
    pub(crate) address: String,
    pub(crate) behavior: Arc<Mutex<Behavior>>,
    /// Requests since the last look, such as `GET /a bytes=0-9`.
    requests: Arc<Mutex<Vec<String>>>,
    body_bytes: Arc<Mutex<u64>>,
}

impl WebServer {
    pub(crate) fn start(behavior: Behavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            behavior: Arc::new(Mutex::new(behavior)),
            requests: Arc::default(),
            body_bytes: Arc::default(),
        };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                // A client that hangs up is no fault of the test.
                std::thread::spawn(move || drop(shared.answer(stream.unwrap())));
            }
        });
        server
    }

    /// The requests and the bytes of bodies since the last call.
    pub(crate) fn take(&self) -> (Vec<String>, u64) {
        let requests = std::mem::take(&mut *self.requests.lock().unwrap());
        (requests, std::mem::take(&mut *self.body_bytes.lock().unwrap()))
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Behavior)) {
        change(&mut self.behavior.lock().unwrap());
    }

    /// Answers one request and closes the connection.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
        let mut headers = HashMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let range = headers.get("range").cloned().unwrap_or_default();
        self.requests.lock().unwrap().push(format!("{method} {target} {range}").trim().to_owned());
        let behavior = self.behavior.lock().unwrap().clone();
        let status =
            |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        if behavior.is_down {
            return stream.write_all(status("503 Service Unavailable").as_bytes());
        }
        if behavior.authorization.is_some() && behavior.authorization.as_ref() != headers.get("authorization")
        {
            return stream.write_all(status("401 Unauthorized").as_bytes());
        }
        if method == "HEAD" && behavior.refuses_head {
            return stream.write_all(status("403 Forbidden").as_bytes());
        }
        if method != "HEAD" && method != "GET" {
            return stream.write_all(status("405 Method Not Allowed").as_bytes());
        }
        let path = target.split('?').next().unwrap_or_default();
        let Some((content, version)) = behavior.files.get(path) else {
            return stream.write_all(status("404 Not Found").as_bytes());
        };
        let mut head = "HTTP/1.1 200 OK\r\n".to_owned();
        let mut body = &content[..];
        let range = range.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        if let Some((start, end)) = range.filter(|_| !behavior.has_no_ranges) {
            let start: usize = start.parse().unwrap();
            let end = end.parse().map_or(content.len(), |end: usize| content.len().min(end + 1));
            body = &content[start..end];
            head = format!(
                "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{}\r\n",
                end - 1,
                content.len()
            );
        }
        let length = behavior.claimed_bytes.filter(|_| method == "HEAD").unwrap_or(body.len() as u64);
        head += &format!("content-length: {length}\r\nlast-modified: Sat, 28 Nov 2026 00:00:00 GMT\r\n");
        if !version.is_empty() {
            head += &format!("etag: \"{version}\"\r\n");
        }
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
        if method == "HEAD" {
            return Ok(());
        }
        let mut shared = self.behavior.lock().unwrap();
        if shared.cuts > 0 && body.len() > 1 {
            shared.cuts -= 1;
            body = &body[..body.len() / 2];
        }
        drop(shared);
        *self.body_bytes.lock().unwrap() += body.len() as u64;
        stream.write_all(body)
    }
}
