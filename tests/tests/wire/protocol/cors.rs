//! CORS lets the pages of the named origins, and no others, read responses.

use todo_tests::{App, TestResponse, on_every_target};

use super::{ORIGIN, UNKNOWN_ID, assert_security_headers, every_response_kind, members};

const CORS: [(&str, &str); 1] =
    [("ALLOWED_ORIGINS", "https://app.example,https://admin.example:8443")];

on_every_target! {
    async fn cors_admits_the_named_origins(target) {
        let app = App::start_with(target, &CORS).await;
        for origin in [ORIGIN, "https://admin.example:8443"] {
            for (kind, answer) in every_response_kind(&app, &[("origin", origin)]).await {
                // Neither a preflight nor a request that a preflight would allow.
                if kind == "options" {
                    continue;
                }
                let (of, allow) = (|name| answer.header(name), "access-control-allow-origin");
                assert_eq!(of(allow), Some(origin), "{kind}");
                assert_eq!(of("access-control-allow-credentials"), Some("true"), "{kind}");
                assert!(varies_by_origin(&answer), "{kind}: {:?}", answer.headers);
                assert_no_cors_wildcard(&answer);
            }
        }
    }

    async fn origins_are_compared_as_browsers_write_them(target) {
        let written = "https://Example.com,https://example.org:443/,http://[::1]:80,https://B\u{fc}cher.example,\
                       capacitor://localhost,tauri://LocalHost,chrome-extension://abcdef";
        let app = App::start_with(target, &[("ALLOWED_ORIGINS", written)]).await;
        for (origin, is_admitted) in [
            ("https://example.com", true),
            ("https://example.org", true),
            ("http://[::1]", true),
            ("https://xn--bcher-kva.example", true),
            ("capacitor://localhost", true),
            ("tauri://localhost", true),
            ("chrome-extension://abcdef", true),
            ("http://localhost", false),
            ("https://example.com:444", false),
            ("capacitor://localhost:80", false),
        ] {
            let answer = app.anonymous().send("GET", "/health", &[("origin", origin)], "").await;
            let admitted = answer.header("access-control-allow-origin");
            assert_eq!(admitted, is_admitted.then_some(origin), "{origin}");
        }
    }

    async fn cors_refuses_every_other_origin(target) {
        let app = App::start_with(target, &CORS).await;
        for origin in [
            "https://evil.example", "http://app.example", "https://app.example:444", "null", "*",
            "https://app.example.evil.example", "https://evilapp.example", "https://APP.example.",
        ] {
            let headers = [("origin", origin)];
            let answer = app.anonymous().send("GET", "/health", &headers, "").await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert!(varies_by_origin(&answer), "{origin}: {:?}", answer.headers);
        }
        let evil = [("origin", "https://evil.example")];
        for (kind, answer) in every_response_kind(&app, &evil).await {
            assert_eq!(answer.header("access-control-allow-origin"), None, "{kind}");
            assert!(varies_by_origin(&answer), "{kind}: {:?}", answer.headers);
        }
        for (kind, answer) in every_response_kind(&app, &[]).await {
            assert_eq!(answer.header("access-control-allow-origin"), None, "{kind}");
            assert!(varies_by_origin(&answer), "{kind}: {:?}", answer.headers);
        }
    }

    async fn a_preflight_names_methods_and_headers(target) {
        let app = App::start_with(target, &CORS).await;
        let path = format!("/api/users/{UNKNOWN_ID}/todos/{UNKNOWN_ID}");
        let preflight = |origin: &'static str, method: &'static str| {
            let client = app.anonymous();
            let path = path.clone();
            async move {
                let headers = [
                    ("origin", origin),
                    ("access-control-request-method", method),
                    ("access-control-request-headers", "authorization,content-type"),
                ];
                client.send("OPTIONS", &path, &headers, "").await
            }
        };
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = preflight(ORIGIN, method).await;
            assert!([200, 204].contains(&answer.status), "{answer}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
            assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
            let methods = members(answer.header("access-control-allow-methods"));
            assert!(methods.contains(method), "{methods:?}");
            let named = answer.header("access-control-allow-headers").unwrap_or_default();
            let named = members(Some(&named.to_ascii_lowercase()));
            for name in [
                "authorization", "content-type", "x-request-id", "traceparent", "tracestate",
                "idempotency-key", "if-match", "if-none-match", "last-event-id",
                "x-requested-with",
            ] {
                assert!(named.contains(name), "{name} in {named:?}");
            }
            assert_no_cors_wildcard(&answer);
            assert_security_headers(&answer);
        }
        let refused = preflight("https://evil.example", "PUT").await;
        assert_eq!(refused.header("access-control-allow-origin"), None);
        assert!(refused.status < 500);
    }
}

fn varies_by_origin(answer: &TestResponse) -> bool {
    let values = answer.headers.get_all("vary").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| members(Some(value))).any(|one| one.eq_ignore_ascii_case("origin"))
}

/// With credentials, `*` in these headers is not a wildcard but a literal name (Fetch standard).
fn assert_no_cors_wildcard(answer: &TestResponse) {
    for (name, value) in &answer.headers {
        if name.as_str().starts_with("access-control-") {
            assert!(!value.as_bytes().contains(&b'*'), "{name}: {value:?} of {answer}");
        }
    }
}
