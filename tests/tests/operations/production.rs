//! `ENVIRONMENT=production` in both programs: the https requirement, trust in `X-Forwarded-*`, how
//! clients behind a proxy are distinguished, and key rotation. TLS of the server itself is tested
//! in `tls.rs`.

use std::path::Path;

use serde_json::{Value, json};
use todo_tests::{Actor, Client, PROGRAMS, Process, TestResponse, empty_dir, raw, unique_email};

const KEY: &str = "a key of more than thirty-two bytes, used in tests only";
const NEXT_KEY: &str = "another key of more than thirty-two bytes, for tests";
/// The header a proxy adds for a client that connected over https.
const SECURE: (&str, &str) = ("x-forwarded-proto", "https");
const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1/32");
const HSTS: &str = "strict-transport-security";

async fn production(program: &str, dir: &Path, settings: &[(&str, &str)]) -> Process {
    let base = [
        ("ENVIRONMENT", "production"),
        ("SECRET_KEY", KEY),
        ("ALLOWED_ORIGINS", "https://app.example"),
    ];
    Process::start(program, dir, &[&base[..], settings].concat()).await
}

/// All paths but the health probes, which orchestrators request over plain http.
fn https_only_paths(program: &str) -> Vec<&'static str> {
    let mut paths = vec!["/", "/api/auth/me", "/openapi.json", "/metrics", "/nowhere", "/healthy"];
    paths.extend(["/api/auth/me/", "/docs/"]);
    if program == "todo-server" {
        paths.extend(["/docs", "/redoc", "/docs/page.js", "/docs/swagger-ui.css"]);
    }
    paths
}

async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> TestResponse {
    client.send("GET", path, headers, "").await
}

#[tokio::test]
async fn plain_http_is_refused_whatever_untrusted_headers_claim() {
    for program in PROGRAMS {
        for proxies in [None, Some(("TRUSTED_PROXIES", "10.0.0.0/8"))] {
            let dir = empty_dir();
            let process = production(program, dir.path(), proxies.as_slice()).await;
            let client = Client::of(process.addr);
            for path in https_only_paths(program) {
                get(&client, path, &[]).await.problem(403, "https_required");
                let words = [SECURE, ("forwarded", "proto=https"), ("x-forwarded-ssl", "on")];
                get(&client, path, &words).await.problem(403, "https_required");
            }
            let account =
                json!({ "email": unique_email(), "password": "Correct1horse", "name": "Ada" });
            client.post("/api/auth/signup", account).await.problem(403, "https_required");
            // The request target is client-controlled too.
            let absolute =
                b"GET https://a/api/auth/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let answer = String::from_utf8_lossy(&raw(process.addr, absolute).await).into_owned();
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert_eq!(status, "403", "{program}: {answer}");

            for path in ["/health", "/health/db", "/health/ready"] {
                let answer = get(&client, path, &[]).await;
                assert_eq!(answer.status, 200, "{program}: {path}");
                assert_eq!(answer.header(HSTS), None, "{program}: {answer}");
            }
            // No HSTS over plain http, whatever the response (RFC 6797, section 7.2).
            for path in https_only_paths(program) {
                for words in [&[][..], &[SECURE]] {
                    let answer = get(&client, path, words).await;
                    assert_eq!(answer.header(HSTS), None, "{program}: {answer}");
                }
            }
            process.stop().await;
        }
    }
}

#[tokio::test]
async fn a_trusted_proxy_declares_https() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = production(program, dir.path(), &[TRUSTED]).await;
        let client = Client::of(process.addr);
        for path in https_only_paths(program) {
            let answer = get(&client, path, &[SECURE]).await;
            assert_ne!(answer.status, 403, "{program}: {answer}");
            let policy = answer.header(HSTS).unwrap_or_default();
            assert!(policy.contains("max-age="), "{program}: {policy:?} of {path}");
        }
        for words in ["http", "https, http", "", "nonsense"] {
            let words = [("x-forwarded-proto", words)];
            let answer = get(&client, "/api/auth/me", &words).await;
            assert_eq!(answer.header(HSTS), None, "{program}: {answer}");
            answer.problem(403, "https_required");
        }
        get(&client, "/api/auth/me", &[]).await.problem(403, "https_required");
        // The last value is the nearest proxy's and wins.
        let words = [("x-forwarded-proto", "http"), SECURE];
        get(&client, "/api/auth/me", &words).await.problem(401, "unauthorized");
        process.stop().await;
    }
}

#[tokio::test]
async fn other_environments_send_no_hsts() {
    for program in PROGRAMS {
        for environment in ["development", "staging"] {
            let dir = empty_dir();
            let settings = [("ENVIRONMENT", environment), TRUSTED];
            let process = Process::start(program, dir.path(), &settings).await;
            let client = Client::of(process.addr);
            for path in https_only_paths(program) {
                let plain = get(&client, path, &[]).await;
                assert_ne!(plain.status, 403, "{program}: {plain}");
                assert_eq!(plain.header(HSTS), None, "{program}: {plain}");
                assert_eq!(get(&client, path, &[SECURE]).await.header(HSTS), None, "{program}");
            }
            process.stop().await;
        }
    }
}

/// A client with one address of a /64 controls the whole /64.
#[tokio::test]
async fn the_addresses_of_one_64_are_one_client() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let process = production(program, dir.path(), &[TRUSTED]).await;
        let client = Client::of(process.addr);
        let wrong = async |address: &str| {
            let headers =
                [SECURE, ("x-forwarded-for", address), ("content-type", "application/json")];
            let body = json!({ "email": "nobody@example.com", "password": "Wrong1horse" });
            client.send("POST", "/api/auth/login", &headers, body.to_string()).await
        };
        for host in ["1", "2", "aaaa:bbbb:cccc:dddd", "ffff:ffff:ffff:ffff", "8000::"] {
            let address = match host {
                "8000::" => "2001:db8:1:2:8000::".to_owned(),
                host => format!("2001:db8:1:2:{}{host}", if host.contains(':') { "" } else { ":" }),
            };
            wrong(&address).await.problem(401, "invalid_credentials");
        }
        let answer = wrong("2001:db8:1:2:1234:5678:9abc:def0").await;
        let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{program}: {answer}");
        answer.problem(429, "rate_limited");
        for neighbour in ["2001:db8:1:3::1", "2001:db8:1:1:ffff:ffff:ffff:ffff", "192.0.2.1"] {
            wrong(neighbour).await.problem(401, "invalid_credentials");
        }
        process.stop().await;
    }
}

#[tokio::test]
async fn a_key_rotation_by_restarts_logs_no_user_out() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let started = async |keys: &[(&str, &str)]| Process::start(program, dir.path(), keys).await;
        let status = async |process: &Process, token: &str| -> u16 {
            Client::of(process.addr).bearing(token).get("/api/auth/me").await.status
        };
        let log_in = async |process: &Process, email: &str| -> Value {
            let credentials = json!({ "email": email, "password": "Correct1horse" });
            Client::of(process.addr).post("/api/auth/login", credentials).await.expect(200)
        };

        let process = started(&[("SECRET_KEY", KEY)]).await;
        let client = Client::of(process.addr);
        let email = unique_email();
        let account = json!({ "email": email, "password": "Correct1horse", "name": "Ada" });
        let auth = client.post("/api/auth/signup", account).await.expect(201);
        let actor = Actor::of(&client, &auth, "Correct1horse");
        process.stop().await;

        let rotating = [("SECRET_KEY", NEXT_KEY), ("SECRET_KEY_PREVIOUS", KEY)];
        let process = started(&rotating).await;
        assert_eq!(
            status(&process, actor.token()).await,
            200,
            "{program}: the session is still valid"
        );
        let list = Client::of(process.addr).bearing(actor.token()).get(&actor.todos()).await;
        assert_eq!(list.status, 200, "{program}: {list}");
        let auth = log_in(&process, &email).await;
        let fresh = auth["token"].as_str().expect("a token").to_owned();
        assert_eq!(status(&process, &fresh).await, 200);
        process.stop().await;

        let process = started(&[("SECRET_KEY", NEXT_KEY)]).await;
        assert_eq!(status(&process, &fresh).await, 200, "{program}: signed with the new key");
        assert_eq!(status(&process, actor.token()).await, 401, "{program}: its key was removed");
        process.stop().await;

        // A server without the new key rejects its tokens.
        let process = started(&[("SECRET_KEY", KEY)]).await;
        assert_eq!(status(&process, &fresh).await, 401, "{program}: signed with the new key only");
        process.stop().await;
    }
}
