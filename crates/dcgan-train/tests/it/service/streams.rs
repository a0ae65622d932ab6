//! Many readers of one job's events: each gets every line, in order, however late or slow it is.

use super::{Server, folder, tiny};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

/// The data of an answer's events, without the one that tells the end.
fn lines(body: &str) -> Vec<String> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|line| !line.starts_with(r#"{"state""#)).map(str::to_owned).collect()
}

/// A whole answer, taken out of its chunks.
fn unchunked(answer: &[u8]) -> String {
    let text = std::str::from_utf8(answer).unwrap();
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

#[test]
fn every_reader_gets_every_event() {
    let (_folder, store) = folder();
    let server = Server::start(&store, &[]);
    // A line of 450 bytes a step: more than a feed keeps.
    let id =
        server.submit(&tiny(1500, &json!({ "log_every": 1, "checkpoint_every": 500, "sample_every": 500 })));
    let events = format!("/v1/jobs/{id}/events");
    let connect = || {
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET {events} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    // Reads nothing before the end.
    let mut slow = connect();
    let bodies: Vec<String> = std::thread::scope(|scope| {
        let read = || String::from_utf8(server.ask("GET", &events, "").body).unwrap();
        let mut readers: Vec<_> = (0..10).map(|_| scope.spawn(read)).collect();
        // Paused and resumed while they read; others come meanwhile.
        server.wait(&id, "under way", |job| job["step"].as_u64() > Some(300));
        server.json("POST", &format!("/v1/jobs/{id}/pause"), &Value::Null);
        server.wait_state(&id, "paused");
        readers.extend((0..10).map(|_| scope.spawn(read)));
        sleep(Duration::from_millis(300));
        server.json("POST", &format!("/v1/jobs/{id}/resume"), &Value::Null);
        server.wait_state(&id, "done");
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    let file = fs::read_to_string(store.join("runs").join(&id).join("stats.jsonl")).unwrap();
    let expected: Vec<&str> = file.lines().collect();
    assert!(expected.len() > 1500);
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).unwrap();
    for body in bodies.iter().chain([&unchunked(&answer)]) {
        assert_eq!(lines(body), expected);
        assert!(
            body.ends_with("event: end\ndata: {\"state\":\"done\"}\n\n"),
            "{:?}",
            &body[body.len() - 100..]
        );
    }
}
