//! The servers accept JSON bodies up to a limit. A client can read the refusal of its body, and
//! what follows a body is the next request.

use std::time::Duration;

use todo_tests::{App, on_every_target, raw};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{JSON, LIMIT, RawResponse, UNKNOWN_ID, find, send_raw};

const HUGE: usize = 3_000_000;

/// Far longer than any exchange here takes; only a hanging server reaches it.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Writes the whole request before reading, as simple clients do.
async fn write_then_read(app: &App, bytes: &[u8]) -> RawResponse {
    let exchange = async {
        let mut stream = TcpStream::connect(app.addr()).await.expect("the server listens");
        // In chunks, as over a network: loopback would buffer all of it before a close shows.
        for piece in bytes.chunks(64 << 10) {
            stream.write_all(piece).await.expect("the server reads the whole request");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut answered = Vec::new();
        stream.read_to_end(&mut answered).await.expect("the response arrives before a reset");
        answered
    };
    let answered = timeout(MAX_WAIT, exchange).await.expect("a response and a close in time");
    let mut rest = answered.as_slice();
    let reply = RawResponse::take(&mut rest);
    assert!(rest.is_empty(), "two responses: {}", String::from_utf8_lossy(rest));
    reply
}

/// Reads up to the end of the first head.
async fn read_head(stream: &mut TcpStream) -> String {
    let read = async {
        let mut head = Vec::new();
        while find(&head, b"\r\n\r\n").is_none() {
            let mut byte = [0];
            let count = stream.read(&mut byte).await.expect("a readable socket");
            assert_eq!(count, 1, "closed after {:?}", String::from_utf8_lossy(&head));
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).into_owned()
    };
    timeout(MAX_WAIT, read).await.expect("a response in time")
}

/// A valid JSON body for a new todo, of exactly `size` bytes.
fn todo_of_size(size: usize) -> String {
    let (start, end) = (r#"{"title":"x","padding":""#, r#""}"#);
    format!("{start}{}{end}", "p".repeat(size - start.len() - end.len()))
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in body.chunks(10_000) {
        bytes.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        bytes.extend_from_slice(part);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

on_every_target! {
    async fn the_media_type_is_json(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = r#"{"title":"x"}"#;
        for valid in [
            "application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8",
            "Application/JSON", "application/json ; charset=\"utf-8\"",
            "application/json; charset=utf8", "application/json;charset=\"UTF8\"",
            "application/json; charset=us-ascii", "application/json; charset=US-ASCII",
        ] {
            let answer = ann.send("POST", &ann.todos(), &[("content-type", valid)], body).await;
            assert_eq!(answer.status, 201, "{valid}");
        }
        for bad in [
            "", "text/plain", "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x", "text/json", "application/jsonp",
            "application", "json", "application/", "*/*",
        ] {
            let answer = ann.send("POST", &ann.todos(), &[("content-type", bad)], body).await;
            assert_eq!(answer.status, 415, "{bad}");
            answer.problem(415, "unsupported_media_type");
        }
        let answer = ann.send("POST", &ann.todos(), &[], body).await;
        answer.problem(415, "unsupported_media_type");
        let answer = app.anonymous().send("POST", "/api/auth/login", &[], "{}").await;
        answer.problem(415, "unsupported_media_type");
        for bad in ["utf-16", "utf-32", "iso-8859-1", "windows-1252", "utf-7", "utf", ""] {
            let kind = format!("application/json; charset={bad}");
            let answer = ann.send("POST", &ann.todos(), &[("content-type", &kind)], body).await;
            assert_eq!(answer.status, 415, "{kind}");
            answer.problem(415, "unsupported_media_type");
        }
        for coding in ["identity", "Identity", "IDENTITY", "identity, identity", ""] {
            let headers = [JSON, ("content-encoding", coding)];
            let answer = ann.send("POST", &ann.todos(), &headers, body).await;
            assert_eq!(answer.status, 201, "{coding}");
        }
        for coding in ["gzip", "br", "deflate", "zstd", "gzip, gzip", "identity, gzip"] {
            let headers = [JSON, ("content-encoding", coding)];
            let answer = ann.send("POST", &ann.todos(), &headers, body).await;
            assert_eq!(answer.status, 415, "{coding}");
            answer.problem(415, "unsupported_media_type");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 14);
    }

    /// Editors and PowerShell write one; RFC 8259, section 8.1, allows a parser to ignore it.
    async fn a_byte_order_mark_before_the_json_is_skipped(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let send = async |body: &[u8]| ann.send("POST", &ann.todos(), &[JSON], body).await;
        let todo = send(b"\xef\xbb\xbf{\"title\":\"x\"}").await.expect(201);
        assert_eq!(todo["title"], "x");
        for bad in [
            &b"\xef\xbb\xbf"[..], b"\xef\xbb{\"title\":\"x\"}",
            b"\xef\xbb\xbf\xef\xbb\xbf{\"title\":\"x\"}", b"{\"title\":\xef\xbb\xbf\"x\"}",
            b"\xfe\xff\0{\0}",
        ] {
            send(bad).await.problem(422, "malformed_body");
        }
    }

    async fn a_body_is_bounded_to_the_byte(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = todo_of_size(LIMIT + 1);
        let headers = [("content-type", "application/json")];
        let answer = ann.send("POST", &ann.todos(), &headers, body).await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        let line = format!("POST {} HTTP/1.1", ann.todos());
        let bearer = format!("Authorization: Bearer {}", ann.token());
        let json = "Content-Type: application/json";
        let head = [line.as_str(), "Host: a", "Connection: close", json, &bearer];
        for (size, status) in [(LIMIT, 201), (LIMIT + 1, 413)] {
            let body = todo_of_size(size);
            assert_eq!(body.len(), size);
            let length = format!("Content-Length: {size}");
            let reply = send_raw(&app, &[&head[..], &[&length]].concat(), body.as_bytes()).await;
            assert_eq!(reply.status, status, "{size} bytes");
            let chunks = chunked(body.as_bytes());
            let coded = [&head[..], &["Transfer-Encoding: chunked"]].concat();
            let reply = send_raw(&app, &coded, &chunks).await;
            assert_eq!(reply.status, status, "{size} bytes in chunks");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 2);
    }

    async fn the_body_limit_is_a_setting(target) {
        let app = App::start_with(target, &[("MAX_BODY_BYTES", "2000")]).await;
        let ann = app.signed_up().await;
        for (size, status) in [(2000, 201), (2001, 413)] {
            let answer = ann.send("POST", &ann.todos(), &[JSON], todo_of_size(size)).await;
            assert_eq!(answer.status, status, "{size} bytes");
        }
    }

    async fn a_request_that_takes_too_long_is_a_504(target) {
        let app = App::start_with(target, &[("REQUEST_TIMEOUT_SECONDS", "1")]).await;
        let json = "Content-Type: application/json";
        // The body never arrives, and its own timeout is longer than the whole request's.
        let head = ["POST /api/auth/login HTTP/1.1", "Host: a", json, "Content-Length: 9"];
        send_raw(&app, &head, b"").await.problem(504, "timeout");
    }

    async fn a_client_that_writes_first_still_reads_the_413(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = vec![b'x'; HUGE];
        let head = |length: &str| {
            format!(
                "POST {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
                 Content-Type: application/json\r\n{length}\r\n\r\n",
                ann.todos(), ann.token(),
            ).into_bytes()
        };
        let sized = [head(&format!("Content-Length: {HUGE}")), body.clone()].concat();
        write_then_read(&app, &sized).await.problem(413, "content_too_large");
        let coded = [head("Transfer-Encoding: chunked"), chunked(&body)].concat();
        write_then_read(&app, &coded).await.problem(413, "content_too_large");
    }

    async fn a_client_that_writes_first_still_reads_the_401(target) {
        let app = App::start(target).await;
        let head = format!(
            "POST /api/users/{UNKNOWN_ID}/todos HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n",
        );
        let bytes = [head.into_bytes(), vec![b'x'; 1_000_000]].concat();
        write_then_read(&app, &bytes).await.problem(401, "unauthorized");
    }

    async fn a_refused_body_is_not_parsed_as_a_request(target) {
        let app = App::start(target).await;
        let smuggled = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3000);
        let head = format!(
            "POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            smuggled.len(),
        );
        let answered = raw(app.addr(), &[head.as_bytes(), &smuggled].concat()).await;
        let mut rest = answered.as_slice();
        RawResponse::take(&mut rest).problem(413, "content_too_large");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(rest));
    }

    async fn expect_100_continue_is_answered_only_for_an_acceptable_body(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let head = |token: &str, length: usize| {
            format!(
                "POST {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\n\
                 Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n",
                ann.todos(),
            ).into_bytes()
        };
        for (request, status) in [(head(ann.token(), HUGE), 413), (head("none", 13), 401)] {
            let mut stream = TcpStream::connect(app.addr()).await.expect("the server listens");
            stream.write_all(&request).await.expect("a write");
            let first = read_head(&mut stream).await;
            assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{first}");
        }
        let mut stream = TcpStream::connect(app.addr()).await.expect("the server listens");
        stream.write_all(&head(ann.token(), 13)).await.expect("a write");
        let first = read_head(&mut stream).await;
        assert!(first.starts_with("HTTP/1.1 100 "), "{first}");
        stream.write_all(br#"{"title":"x"}"#).await.expect("a write");
        let last = read_head(&mut stream).await;
        assert!(last.starts_with("HTTP/1.1 201 "), "{last}");
    }

    async fn pipelined_requests_are_answered_in_order(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bearer = format!("Authorization: Bearer {}\r\n", ann.token());
        let json = "Content-Type: application/json\r\nContent-Length: 13\r\n";
        let todos = ann.todos();
        let requests = [
            ("GET", "/health", String::new(), "", 200),
            ("GET", "/nowhere", String::new(), "", 404),
            ("POST", &todos, format!("{bearer}{json}"), r#"{"title":"1"}"#, 201),
            ("GET", &todos, bearer.clone(), "", 200),
            ("POST", &todos, json.to_owned(), r#"{"title":"2"}"#, 401),
            ("GET", "/health/db", "Connection: close\r\n".to_owned(), "", 200),
        ];
        let mut bytes = String::new();
        for (number, (method, path, headers, body, _)) in requests.iter().enumerate() {
            let start = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {number}");
            bytes.push_str(&format!("{start}\r\n{headers}\r\n{body}"));
        }
        let answered = raw(app.addr(), bytes.as_bytes()).await;
        let mut rest = answered.as_slice();
        for (number, (method, path, _, _, status)) in requests.iter().enumerate() {
            let reply = RawResponse::take(&mut rest);
            assert_eq!(reply.status, *status, "{method} {path}");
            assert_eq!(reply.header("x-request-id"), Some(number.to_string().as_str()));
        }
        assert!(rest.is_empty());
        assert_eq!(ann.get(&todos).await.expect(200)["total"], 1);
    }
}
