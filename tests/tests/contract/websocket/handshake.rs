//! The opening handshake: what it requires, and the responses to other requests.

use todo_tests::{App, TestResponse, WebSocket, on_every_target};

use super::path;
use crate::text;

const ORIGIN: &str = "https://app.example";
const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// The fields of a handshake, one of them with another value.
fn with<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let others = HANDSHAKE.into_iter().filter(|(other, _)| *other != name);
    others.chain([(name, value)]).collect()
}

fn assert_names_no_token(answer: &TestResponse) {
    let named = answer.headers.values().any(|value| value.as_bytes().starts_with(b"bearer."));
    assert!(!named && !answer.text().contains("eyJ"), "{answer}");
}

on_every_target! {
    async fn a_token_may_be_a_subprotocol_and_is_not_echoed(target) {
        let app = App::start_with(target, &[("ALLOWED_ORIGINS", ORIGIN)]).await;
        let ann = app.signed_up().await;
        let protocols = format!("todo.v1, bearer.{}", ann.token());
        let headers = [("sec-websocket-protocol", protocols.as_str()), ("origin", ORIGIN)];
        let socket = WebSocket::connect(app.addr(), &path(&ann), &headers).await;
        assert_eq!(socket.headers["sec-websocket-protocol"], "todo.v1");
        assert!(!socket.headers.contains_key("cache-control"));
        let bearer = format!("Bearer {}", ann.token());
        let headers = [("authorization", bearer.as_str())];
        let socket = WebSocket::connect(app.addr(), &path(&ann), &headers).await;
        assert!(!socket.headers.contains_key("sec-websocket-protocol"));
        // Other routes take no such token.
        let anonymous = app.anonymous();
        let headers = [("sec-websocket-protocol", protocols.as_str())];
        let answer = anonymous.send("GET", &ann.todos(), &headers, "").await;
        answer.problem(401, "unauthorized");
        for (protocols, status) in [
            (format!("bearer.{}", ann.token()), 400),
            (format!("todo.v2, bearer.{}", ann.token()), 400),
            ("todo.v1, bearer.x".to_owned(), 401),
            ("todo.v1".to_owned(), 401),
        ] {
            let headers = with("sec-websocket-protocol", &protocols);
            let answer = anonymous.send("GET", &path(&ann), &headers, "").await;
            assert_eq!(answer.status, status, "{protocols}: {answer}");
            assert_names_no_token(&answer);
        }
    }

    async fn a_request_without_a_valid_handshake_is_an_ordinary_error(target) {
        let app = App::start_with(target, &[("ALLOWED_ORIGINS", ORIGIN)]).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        for headers in [
            vec![],
            with("upgrade", "h2c"),
            with("connection", "keep-alive"),
        ] {
            let answer = ann.send("GET", &path(&ann), &headers, "").await;
            assert_eq!(answer.header("upgrade"), Some("websocket"), "{headers:?}: {answer}");
            assert_eq!(answer.header("connection"), Some("upgrade"), "{headers:?}: {answer}");
            answer.problem(426, "upgrade_required");
        }
        assert_eq!(ann.send("HEAD", &path(&ann), &HANDSHAKE, "").await.status, 426);
        for version in ["12", "", "013"] {
            let headers = with("sec-websocket-version", version);
            let answer = ann.send("GET", &path(&ann), &headers, "").await;
            assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{answer}");
            answer.problem(400, "bad_request");
        }
        for key in ["", "x", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZQ"] {
            let headers = with("sec-websocket-key", key);
            let answer = ann.send("GET", &path(&ann), &headers, "").await;
            answer.problem(400, "bad_request");
        }
        for origin in ["https://evil.example", "null", "https://app.example:444"] {
            let headers = with("origin", origin);
            let answer = ann.send("GET", &path(&ann), &headers, "").await;
            answer.problem(403, "forbidden");
        }
        let anonymous = app.anonymous();
        anonymous.send("GET", &path(&ann), &HANDSHAKE, "").await.problem(401, "unauthorized");
        bob.send("GET", &path(&ann), &HANDSHAKE, "").await.problem(403, "forbidden");
        ann.send("POST", &path(&ann), &HANDSHAKE, "").await.problem(405, "method_not_allowed");
        // An ended session comes first.
        ann.post("/api/auth/logout", serde_json::Value::Null).await.expect(200);
        for headers in [vec![], HANDSHAKE.to_vec(), with("origin", "null")] {
            let answer = ann.send("GET", &path(&ann), &headers, "").await;
            let problem = answer.problem(401, "unauthorized");
            assert!(!text(&problem, "detail").is_empty());
        }
    }
}
