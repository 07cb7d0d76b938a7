//! Every response carries a request id and the security headers, in production also HSTS.

use std::collections::BTreeSet;

use todo_tests::{App, on_every_target};

use super::{ORIGIN, assert_security_headers, every_response_kind, is_request_id};

on_every_target! {
    async fn a_valid_request_id_is_echoed(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let longest = "x".repeat(128);
        for id in ["1", "abc-123", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", &longest] {
            let headers = [("x-request-id", id)];
            let answer = client.send("GET", "/health", &headers, "").await;
            assert_eq!(answer.header("x-request-id"), Some(id));
            for path in ["/nowhere", "/api/auth/me"] {
                let answer = client.send("GET", path, &headers, "").await;
                assert_eq!(answer.header("x-request-id"), Some(id));
                assert_eq!(answer.json()["request_id"], id);
            }
        }
        app.stop().await.expect("a clean stop");
    }

    async fn an_invalid_request_id_is_replaced(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let long = "x".repeat(129);
        let mut seen = BTreeSet::new();
        for id in ["", "a b", "a\tb", "caf\u{e9}", "\u{1f600}", &long] {
            let headers = [("x-request-id", id)];
            let answer = client.send("GET", "/nowhere", &headers, "").await;
            let new = answer.header("x-request-id").expect("a generated id").to_owned();
            assert!(is_request_id(&new) && new != id, "{new:?} for {id:?}");
            assert!(seen.insert(new), "a duplicate id");
            answer.problem(404, "not_found");
        }
        for _ in 0..3 {
            let answer = client.get("/health").await;
            let id = answer.header("x-request-id").expect("a generated id").to_owned();
            assert!(is_request_id(&id), "{id:?}");
            assert!(seen.insert(id), "a duplicate id");
        }
    }

    async fn every_response_carries_the_security_headers(target) {
        let app = App::start(target).await;
        for (kind, answer) in every_response_kind(&app, &[]).await {
            assert_security_headers(&answer);
            assert_eq!(answer.header("strict-transport-security"), None, "{kind} in development");
            for name in ["x-content-type-options", "x-request-id", "content-security-policy"] {
                let times = answer.headers.get_all(name).iter().count();
                assert_eq!(times, 1, "{name} of {kind}");
            }
        }
    }

    async fn production_sends_hsts_over_https(target) {
        let app = App::start_with(target, &[
            ("ENVIRONMENT", "production"),
            ("ALLOWED_ORIGINS", ORIGIN),
            ("TRUSTED_PROXIES", "127.0.0.1/32"),
        ]).await;
        let client = app.anonymous();
        let secure = [("x-forwarded-proto", "https"), ("x-forwarded-for", "192.0.2.1")];
        for path in ["/health", "/nowhere", "/api/auth/me"] {
            let answer = client.send("GET", path, &secure, "").await;
            let policy = answer.header("strict-transport-security").unwrap_or_default();
            assert!(policy.contains("max-age="), "{policy:?} of {path}");
            assert_security_headers(&answer);
        }
        let plain = client.get("/health").await;
        assert_eq!(plain.status, 200, "a health probe that bypasses the proxy: {plain}");
    }
}
