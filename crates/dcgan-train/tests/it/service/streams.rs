//! Event streams: every client gets every event in order, also if it is late or slow.

use super::{Server, folder, public_stats, tiny};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

/// The data of a body's events, without the end event.
fn event_data(body: &str) -> Vec<String> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|line| !line.starts_with(r#"{"state""#)).map(str::to_owned).collect()
}

/// The body of a complete response, with its chunked encoding removed.
fn decode_chunked(response: &[u8]) -> String {
    let text = std::str::from_utf8(response).unwrap();
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
fn every_stream_gets_every_event() {
    let (_folder, store) = folder();
    let server = Server::start(&store, &[]);
    // About 450 bytes per step: more than the broadcast buffers.
    let id =
        server.submit(&tiny(1500, &json!({ "log_every": 1, "checkpoint_every": 500, "sample_every": 500 })));
    let events = format!("/v1/jobs/{id}/events");
    let connect = || {
        let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
        write!(stream, "GET {events} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    // Reads nothing until the job has ended.
    let mut slow = connect();
    let bodies: Vec<String> = std::thread::scope(|scope| {
        let read = || String::from_utf8(server.request("GET", &events, "").body).unwrap();
        let mut clients: Vec<_> = (0..10).map(|_| scope.spawn(read)).collect();
        // The job is paused and resumed meanwhile, and more clients connect.
        server.wait(&id, "running", |job| job["step"].as_u64() > Some(300));
        server.json("POST", &format!("/v1/jobs/{id}/pause"), &Value::Null);
        server.wait_state(&id, "paused");
        clients.extend((0..10).map(|_| scope.spawn(read)));
        sleep(Duration::from_millis(300));
        server.json("POST", &format!("/v1/jobs/{id}/resume"), &Value::Null);
        server.wait_state(&id, "done");
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let expected = public_stats(&store.join("runs").join(&id));
    assert!(expected.len() > 1500);
    let mut response = Vec::new();
    slow.read_to_end(&mut response).unwrap();
    for body in bodies.iter().chain([&decode_chunked(&response)]) {
        assert_eq!(event_data(body), expected);
        assert!(
            body.ends_with("event: end\ndata: {\"state\":\"done\"}\n\n"),
            "{:?}",
            &body[body.len() - 100..]
        );
    }
}
