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
    // About 450 bytes per step: more than the broadcast buffers. The pause falls between two checkpoints: a job that is
    // paused at the very step of one writes the events of this step again when it is resumed, which clients that were
    // connected before do not see.
    let id = server
        .submit(&tiny(1500, &json!({ "log_every": 1, "checkpoint_every": 1400, "sample_every": 1400 })));
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

/// Anonymous memory of a process in MB.
#[cfg(target_os = "linux")]
fn memory_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Streams whose clients read nothing cost less than 1 MB each, of which the service can have 512.
#[cfg(target_os = "linux")]
#[test]
fn unread_streams_take_little_memory() {
    const STREAMS: u64 = 40;
    let (_folder, store) = folder();
    let server = Server::start(&store, &[]);
    let id = server.submit(&tiny(10, &json!({ "log_every": 1 })));
    server.wait_state(&id, "done");
    // More events than the buffers of a connection can have.
    let path = store.join("runs").join(&id).join("stats.jsonl");
    let mut lines = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(line["event"], "step");
    for step in 11..20_000 {
        let mut line = line.clone();
        line["step"] = json!(step);
        lines += &format!("{line}\n");
    }
    assert!(lines.len() > 6 << 20);
    std::fs::write(&path, lines).unwrap();
    let before = memory_mb(server.child.id());
    let address = server.url.strip_prefix("http://").unwrap();
    let clients: Vec<TcpStream> = (0..STREAMS)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET /v1/jobs/{id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            stream
        })
        .collect();
    let peak = (0..100).map(|_| {
        sleep(Duration::from_millis(10));
        memory_mb(server.child.id())
    });
    let grown = peak.max().unwrap().saturating_sub(before);
    assert!(grown < STREAMS, "{STREAMS} unread streams take {grown} MB");
    drop(clients);
}
