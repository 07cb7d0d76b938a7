//! Traces by OTLP/HTTP, as a collector receives them: one server span per request, in the client's
//! trace, with the last spans sent at shutdown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

const TIMEOUT: Duration = Duration::from_secs(30);
const TRACE: [u8; 16] = [
    0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
];
const PARENT: [u8; 8] = [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];

/// A collector that responds with 200; returns the heads and bodies of its requests.
fn collector() -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, sender) = (stream.unwrap(), sender.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Some(request) = request(&mut reader) {
                    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    let _ = reader.get_mut().write_all(response);
                    let _ = sender.send(request);
                }
            });
        }
    });
    (address, received)
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    head.make_ascii_lowercase();
    let length = head.split("content-length: ").nth(1)?.lines().next()?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Starts the server with this collector endpoint; returns its address too.
fn server(dir: &std::path::Path, endpoint: &str) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_todo-server"))
        .current_dir(dir)
        .env_clear()
        .envs([("PORT", "0"), ("LOG_LEVEL", "trace"), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("listening on")).expect("it listens");
    thread::spawn(move || lines.for_each(drop));
    let (_, address) = line.split_once("http://").unwrap();
    let end = address.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
    (child, address[..end.unwrap_or(address.len())].parse().unwrap())
}

fn send(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

fn stop(child: &mut Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
}

fn occurrences(body: &[u8], part: &[u8]) -> usize {
    body.windows(part.len()).filter(|window| *window == part).count()
}

#[test]
fn each_request_is_one_span_in_the_clients_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, received) = collector();
    let (mut child, address) = server(dir.path(), &format!("http://{collector}"));
    let response = send(
        address,
        "GET /api/users/7/todos?secret=Sup3r HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n",
    );
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    send(address, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    // Pending spans are sent at shutdown.
    stop(&mut child);
    let mut all = Vec::new();
    while let Ok((head, body)) = received.recv_timeout(Duration::from_millis(500)) {
        assert!(head.starts_with("post /v1/traces "), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        all.extend(body);
    }
    let text = String::from_utf8_lossy(&all);
    assert_eq!(occurrences(&all, b"GET /api/users/{user_id}/todos"), 1, "{text}");
    assert_eq!(occurrences(&all, b"GET /health"), 1, "{text}");
    assert_eq!((occurrences(&all, &TRACE), occurrences(&all, &PARENT)), (1, 1), "{text}");
    assert!(occurrences(&all, b"todo-server") > 0, "no service name: {text}");
    assert_eq!(occurrences(&all, b"Sup3r"), 0, "{text}");
}

#[test]
fn an_unresponsive_collector_does_not_delay_the_server() {
    let dir = tempfile::tempdir().unwrap();
    // A listener that never responds.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let (mut child, address) = server(dir.path(), &endpoint);
    let response =
        send(address, "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let (sender, ended) = channel();
    thread::spawn(move || {
        stop(&mut child);
        let _ = sender.send(());
    });
    ended.recv_timeout(TIMEOUT).expect("it stops");
}

/// An endpoint may contain a password before its `@`.
#[test]
fn an_invalid_endpoint_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = "http://ann:hunter2@ local host";
    let output = Command::new(env!("CARGO_BIN_EXE_todo-server"))
        .current_dir(dir.path())
        .env_clear()
        .envs([("PORT", "0"), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && !printed.contains("hunter2"),
        "{printed}"
    );
}
