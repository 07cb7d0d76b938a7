//! The servers refuse an invalid head of a request: its host, its target, its fields, its size.

use serde_json::Value;
use todo_tests::{App, Server, on_every_target};

use super::{RawResponse, request, send_raw};

on_every_target! {
    async fn an_invalid_host_is_refused(target) {
        let app = App::start(target).await;
        let cases: &[&[&str]] = &[
            &[],
            &["Host: localhost", "Host: localhost"],
            &["Host: localhost", "Host: evil.example"],
            &["Host: a,b"],
            &["Host: a/b"],
            &["Host: localhost/"],
            &["Host: user@localhost"],
            &["Host: a b"],
            &["Host: a\tb"],
            &["Host: http://localhost"],
            &["Host: localhost:port"],
            &["Host: localhost:80:80"],
            &["Host: [::1"],
            &["Host: localhost?x"],
            &["Host: localhost#x"],
            &["Host: a\\b"],
            &["Host: caf\u{e9}.example"],
        ];
        for hosts in cases {
            let head = [&["GET /health HTTP/1.1", "Connection: close"], *hosts].concat();
            let reply = send_raw(&app, &head, b"").await;
            assert_eq!(reply.status, 400, "{hosts:?}");
            assert_problem_or_empty(&reply);
        }
        for host in ["localhost", "localhost:8000", "127.0.0.1:80", "[::1]:8000", "a-b.Example"] {
            let host = format!("Host: {host}");
            let head = ["GET /health HTTP/1.1", "Connection: close", &host];
            assert_eq!(send_raw(&app, &head, b"").await.status, 200, "{host}");
        }
    }

    async fn a_target_is_an_ascii_path(target) {
        let app = App::start(target).await;
        for target in [
            "*", "health", "localhost:80", "/caf\u{e9}", "/health?\u{1f600}", "/a b",
            "/health\u{7f}", "?x", "", "//", "ftp://localhost/health", "file:///health",
            "ws://localhost/health", "mailto:a@localhost", "http://a@localhost/health",
            "http://a:b@localhost/health", "http://@localhost/health", "http:///health",
            "http:/health", "http:health", "http://", "http://:80/health", "http://[::1/health",
            "http://[x]/health", "http://a,b/health", "http://a:b/health",
            "http://localhost:123456/health", "http://localhost/caf\u{e9}",
            "http://caf\u{e9}.example/health", "http://a b/health",
        ] {
            let reply = request(&app, &format!("GET {target} HTTP/1.1")).await;
            // An unknown path, but a valid one.
            let status = if target == "//" { 404 } else { 400 };
            assert_eq!(reply.status, status, "{target:?}");
            assert_problem_or_empty(&reply);
        }
        // hyper may remove a fragment before our code runs: then it must be removed entirely.
        let fragment = request(&app, "GET /health#/../nowhere HTTP/1.1").await;
        assert!([200, 400].contains(&fragment.status), "{fragment:?}");
        let asterisk = request(&app, "OPTIONS * HTTP/1.1").await;
        assert!(asterisk.status < 500, "{asterisk:?}");
    }

    /// A server MUST accept it (RFC 9112, section 3.2.2) and take the host from its authority.
    async fn a_target_in_absolute_form_is_its_path(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for (target, status) in [
            ("http://localhost/health", 200),
            ("http://other.example:8080/health?x=http://y", 200),
            ("HTTPS://LOCALHOST/health/db", 200),
            ("http://127.0.0.1:1/health", 200),
            ("http://[::1]:80/health", 200),
            ("http://localhost:/health", 200),
            ("http://localhost", 200),
            ("http://localhost/", 200),
            ("http://localhost?x", 200),
            ("http://localhost/nowhere", 404),
            ("http://localhost//health", 404),
            ("http://localhost/api/auth/me", 401),
            ("http://localhost/api/auth/login", 405),
        ] {
            let reply = request(&app, &format!("GET {target} HTTP/1.1")).await;
            assert_eq!(reply.status, status, "{target}: {reply:?}");
            if status >= 400 {
                assert_problem_or_empty(&reply);
            }
        }
        let line = format!("GET http://other.example{} HTTP/1.1", ann.todos());
        let bearer = format!("Authorization: Bearer {}", ann.token());
        let head = [line.as_str(), "Host: localhost", "Connection: close", &bearer];
        assert_eq!(send_raw(&app, &head, b"").await.status, 200);
        let line = "GET http://localhost/health HTTP/1.0";
        assert_eq!(send_raw(&app, &[line], b"").await.status, 200, "HTTP/1.0 needs no Host");
        // The Host field's value is ignored, but must still be valid.
        let line = "GET http://localhost/health HTTP/1.1";
        for hosts in [&[][..], &["Host: a", "Host: a"], &["Host: a/b"], &["Host: u@a"]] {
            let head = [&[line, "Connection: close"], hosts].concat();
            let reply = send_raw(&app, &head, b"").await;
            assert_eq!(reply.status, 400, "{hosts:?}");
            assert_problem_or_empty(&reply);
        }
        let options = request(&app, "OPTIONS http://localhost/health HTTP/1.1").await;
        assert_eq!((options.status, options.header("allow").is_some()), (204, true));
    }

    /// Invalid requests are refused on every path, whichever component serves it.
    async fn documentation_pages_reject_invalid_requests(target) {
        let app = App::start(target).await;
        for path in ["/docs", "/redoc", "/docs/page.css", "/redoc/page.js", "/docs/"] {
            let line = format!("GET {path} HTTP/1.1");
            let absolute = format!("GET http://a@localhost{path} HTTP/1.1");
            let cases: &[&[&str]] = &[
                &[&line],
                &[&line, "Host: a", "Host: b"],
                &[&line, "Host: a/b"],
                &[&line, "Host: u@a"],
                &[&absolute, "Host: a"],
                &["GET ftp://localhost/docs HTTP/1.1", "Host: a"],
            ];
            for head in cases {
                let reply = send_raw(&app, &[head, &["Connection: close"][..]].concat(), b"").await;
                assert_eq!(reply.status, 400, "{head:?}");
                assert_problem_or_empty(&reply);
            }
            let long = format!("GET {path}?{} HTTP/1.1", "x".repeat(9_000));
            request(&app, &long).await.problem(414, "uri_too_long");
            let big = format!("X-Big: {}", "x".repeat(40_000));
            let head = [line.as_str(), "Host: a", "Connection: close", &big];
            send_raw(&app, &head, b"").await.problem(431, "header_fields_too_large");
        }
        if target.server == Server::Salvo {
            let reply = request(&app, "GET http://localhost/docs HTTP/1.1").await;
            assert_eq!(reply.status, 200);
        }
    }

    async fn a_broken_head_is_refused(target) {
        let app = App::start(target).await;
        let cases: &[&[&str]] = &[
            &["GET /health"],
            &["GET  /health HTTP/1.1", "Host: a"],
            &["GET /health HTTP/9.9", "Host: a"],
            &["GET /health HTTP/1.1", "Host: a", "Broken"],
            &["GET /health HTTP/1.1", "Host: a", "Space : before"],
            &["GET /health HTTP/1.1", "Host: a", ": nameless"],
            &["POST /api/auth/login HTTP/1.1", "Host: a", "Content-Length: -1"],
            &["POST /api/auth/login HTTP/1.1", "Host: a", "Content-Length: 1", "Content-Length: 2"],
            &["POST /api/auth/login HTTP/1.1", "Host: a", "Content-Length: 99999999999999999999"],
        ];
        for head in cases {
            let head = [head, &["Connection: close"][..]].concat();
            let reply = send_raw(&app, &head, b"x").await;
            assert!([400, 413, 505].contains(&reply.status), "{head:?}: {reply:?}");
        }
        assert_eq!(app.anonymous().get("/health").await.status, 200);
    }

    async fn a_head_is_bounded(target) {
        let app = App::start(target).await;
        let big = format!("X-Big: {}", "x".repeat(1_000_000));
        let many = vec!["X-Many: x"; 400];
        for extra in [vec![big.as_str()], many] {
            let head = [&["GET /health HTTP/1.1", "Host: a", "Connection: close"][..], &extra];
            let reply = send_raw(&app, &head.concat(), b"").await;
            assert_eq!(reply.status, 431, "{reply:?}");
        }
        let line = format!("GET /{} HTTP/1.1", "x".repeat(1_000_000));
        let status = request(&app, &line).await.status;
        assert!([400, 414, 431].contains(&status), "a long target: {status}");
        let line = format!("GET /health?{} HTTP/1.1", "x".repeat(4_000));
        assert_eq!(request(&app, &line).await.status, 200, "4 KB is within the limit");
    }

    async fn a_head_slightly_over_the_limit_gets_a_problem(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let big = "x".repeat(40_000);
        let answer = client.send("GET", "/health", &[("x-big", &big)], "").await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        answer.problem(431, "header_fields_too_large");
        let many = vec![("x-many", "x"); 100];
        let answer = client.send("GET", "/health", &many, "").await;
        answer.problem(431, "header_fields_too_large");
        let long = format!("/health?{}", "x".repeat(9_000));
        let answer = client.get(&long).await;
        assert_eq!(answer.header("retry-after"), Some("1"), "{answer}");
        answer.problem(414, "uri_too_long");
        let fits = vec![("x-many", "x"); 50];
        assert_eq!(client.send("GET", "/health", &fits, "").await.status, 200);
    }

    async fn http_1_0_needs_no_host(target) {
        let app = App::start(target).await;
        let reply = send_raw(&app, &["GET /health HTTP/1.0"], b"").await;
        assert_eq!(reply.status, 200);
        assert!(reply.header("transfer-encoding").is_none(), "{reply:?}");
    }
}

/// Checks that a refusal outside the routes has an empty body or a problem document.
fn assert_problem_or_empty(reply: &RawResponse) {
    if !reply.body.is_empty() {
        let problem: Value = serde_json::from_slice(&reply.body).expect("a problem document");
        assert_eq!(problem["status"], reply.status, "{problem}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}
