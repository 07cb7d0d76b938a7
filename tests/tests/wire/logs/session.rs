//! A session sends valid and invalid requests to a server. It records the log lines that the server
//! must write for them, and the secrets that it must not.

use std::{collections::BTreeMap, net::SocketAddr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use todo_tests::{Client, raw};

pub(super) const KEY: &str = "a signing key of more than thirty-two bytes";
const EMAIL: &str = "ada.secret@example.com";
const PASSWORD: &str = "Sup3rSecretHorse";
const WRONG: &str = "Wr0ngSecretHorse";
/// A log injection: terminal escapes and a forged line.
const INJECTED: &str = "inj\u{1b}[31mected\r\n{\"level\":\"ERROR\"}";

/// The expected access line of a request.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) method: &'static str,
    pub(super) route: &'static str,
    pub(super) status: u16,
    pub(super) client: String,
    pub(super) has_user: bool,
}

/// The requests sent, with the expected log lines and the secrets that must not appear.
#[derive(Default)]
pub(super) struct Session {
    pub(super) lines: BTreeMap<String, Expected>,
    /// Request id, attempted action, reason of a failure, and whether the user is known.
    pub(super) events: Vec<(String, &'static str, Option<&'static str>, bool)>,
    secrets: Vec<String>,
}

/// One request of a session.
struct Probe<'a> {
    id: &'a str,
    method: &'a str,
    path: &'a str,
    from: &'a str,
    token: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
    body: Option<Value>,
}

impl<'a> Probe<'a> {
    fn new(id: &'a str, method: &'a str, path: &'a str) -> Self {
        Self { id, method, path, from: "203.0.113.1", token: None, headers: &[], body: None }
    }
}

impl Session {
    /// Sends a request and records its expected access line; returns the JSON of the response.
    async fn send(
        &mut self,
        client: &Client,
        probe: Probe<'_>,
        (method, route, status): (&'static str, &'static str, u16),
    ) -> Value {
        let authorization = probe.token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("x-request-id", probe.id),
            ("x-forwarded-for", probe.from),
            ("x-forwarded-proto", "https"),
        ];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        headers.extend(probe.headers);
        let body = probe.body.map_or(String::new(), |body| {
            headers.push(("content-type", "application/json"));
            body.to_string()
        });
        let answer = client.send(probe.method, probe.path, &headers, body).await;
        assert_eq!(answer.status, status, "{}: {answer}", probe.id);
        let client = probe.from.to_owned();
        let line = Expected { method, route, status, client, has_user: false };
        assert!(self.lines.insert(probe.id.to_owned(), line).is_none(), "{} twice", probe.id);
        serde_json::from_slice(&answer.body).unwrap_or_default()
    }

    fn event(&mut self, id: &str, tried: &'static str, reason: Option<&'static str>, user: bool) {
        self.events.push((id.to_owned(), tried, reason, user));
    }

    fn user(&mut self, id: &str) {
        self.lines.get_mut(id).expect("a request that was sent").has_user = true;
    }

    /// Asserts that no secret is in `printed`.
    pub(super) fn assert_no_secret(&self, printed: &str) {
        for secret in &self.secrets {
            assert!(!printed.contains(secret.as_str()), "{secret} is in the log: {printed}");
        }
        assert!(!printed.contains("$argon2") && !printed.contains(KEY), "{printed}");
        assert!(!printed.contains('\u{1b}') && !printed.contains("[31m"), "{printed:?}");
    }
}

/// A token signed with this installation's key.
fn signed(user: &str, expires_at: i64) -> String {
    let claims = json!({
        "sub": user, "user_id": user, "jti": user, "iat": 1, "exp": expires_at,
        "iss": "todo", "aud": "todo",
    });
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    let head = encode(br#"{"typ":"JWT","alg":"HS256"}"#);
    let text = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(text.as_bytes());
    format!("{text}.{}", encode(&mac.finalize().into_bytes()))
}

fn account(email: &str, password: &str) -> Option<Value> {
    Some(json!({ "email": email, "password": password, "name": "Ada Lovelace" }))
}

const TODOS: &str = "/api/users/{user_id}/todos";
pub(super) const LOGIN: &str = "/api/auth/login";
const SIGNUP: &str = "/api/auth/signup";
const LOGOUT: &str = "/api/auth/logout";
const ME: &str = "/api/auth/me";

/// Valid and invalid requests, with secrets in the right and the wrong places.
pub(super) async fn session(program: &str, addr: SocketAddr) -> Session {
    let mut s = Session::default();
    let client = Client::of(addr);
    s.secrets = [EMAIL, PASSWORD, WRONG, "nobody.secret"].map(str::to_owned).into();

    let probe = Probe { body: account(EMAIL, PASSWORD), ..Probe::new("signup", "POST", SIGNUP) };
    let auth = s.send(&client, probe, ("POST", SIGNUP, 201)).await;
    s.event("signup", "signup", None, true);
    let token = auth["token"].as_str().expect("a token").to_owned();
    let user = auth["user"]["id"].as_str().expect("an id").to_owned();
    s.secrets.extend(token.split('.').skip(1).map(str::to_owned));
    let todos = format!("/api/users/{user}/todos");

    let probe = Probe { body: account(EMAIL, PASSWORD), ..Probe::new("taken", "POST", SIGNUP) };
    s.send(&client, probe, ("POST", SIGNUP, 409)).await;
    s.event("taken", "signup", Some("e-mail taken"), false);
    let probe = Probe { body: account(PASSWORD, EMAIL), ..Probe::new("swapped", "POST", SIGNUP) };
    s.send(&client, probe, ("POST", SIGNUP, 400)).await;
    s.event("swapped", "signup", Some("invalid form"), false);
    let probe =
        Probe { body: account(INJECTED, PASSWORD), ..Probe::new("injected", "POST", SIGNUP) };
    s.send(&client, probe, ("POST", SIGNUP, 400)).await;
    s.event("injected", "signup", Some("invalid form"), false);

    let from = "203.0.113.2";
    let login = |id, email, password| Probe {
        body: account(email, password).map(|mut form| {
            form.as_object_mut().expect("an object").remove("name");
            form
        }),
        from,
        ..Probe::new(id, "POST", LOGIN)
    };
    let auth = s.send(&client, login("login", EMAIL, PASSWORD), ("POST", LOGIN, 200)).await;
    s.event("login", "login", None, true);
    let second = auth["token"].as_str().expect("a token").to_owned();
    s.secrets.extend(second.split('.').skip(1).map(str::to_owned));
    s.send(&client, login("wrong", EMAIL, WRONG), ("POST", LOGIN, 401)).await;
    s.event("wrong", "login", Some("wrong password"), true);
    let nobody = "nobody.secret@example.com";
    s.send(&client, login("nobody", nobody, WRONG), ("POST", LOGIN, 401)).await;
    s.event("nobody", "login", Some("no such account"), false);
    s.send(&client, login("limited", EMAIL, WRONG), ("POST", LOGIN, 429)).await;
    s.event("limited", "login", Some("rate limited"), false);
    let probe = Probe {
        headers: &[("content-type", "application/json")],
        ..Probe::new("no-json", "POST", LOGIN)
    };
    s.send(&client, probe, ("POST", LOGIN, 422)).await;
    s.event("no-json", "login", Some("unreadable form"), false);

    let token = Some(token.as_str());
    s.send(&client, Probe { token, ..Probe::new("me", "GET", ME) }, ("GET", ME, 200)).await;
    s.user("me");
    let query = format!("{todos}?access_token={second}&password={PASSWORD}&x=%0d%0a%1b%5b31m");
    let probe = Probe { token, ..Probe::new("query", "GET", &query) };
    s.send(&client, probe, ("GET", TODOS, 200)).await;
    s.user("query");
    let probe = Probe { token, ..Probe::new("foreign", "GET", "/api/users/x/todos") };
    s.send(&client, probe, ("GET", TODOS, 403)).await;
    s.user("foreign");
    let probe = Probe { headers: &[("x-api-key", PASSWORD)], ..Probe::new("no-token", "GET", ME) };
    s.send(&client, probe, ("GET", ME, 401)).await;
    let cookie = format!("session={second}");
    let probe = Probe {
        headers: &[("cookie", &cookie), ("referer", EMAIL)],
        ..Probe::new("cookie", "HEAD", "/health")
    };
    s.send(&client, probe, ("HEAD", "/health", 200)).await;
    let basic = format!("Basic {PASSWORD}");
    let probe = Probe { headers: &[("authorization", &basic)], ..Probe::new("basic", "GET", ME) };
    s.send(&client, probe, ("GET", ME, 401)).await;
    s.event("basic", "token", Some("malformed header"), false);
    for (id, token, reason, has_user) in [
        ("garbage", PASSWORD.to_owned(), "malformed token", false),
        ("altered", format!("{second}A"), "bad signature", false),
        ("expired", signed(&user, 2), "token expired", true),
        ("revoked", signed(&user, 9_999_999_999), "session ended", true),
        ("long", PASSWORD.repeat(200), "token too long", false),
    ] {
        s.secrets.extend(token.split('.').skip(1).map(str::to_owned));
        let probe = Probe { token: Some(&token), ..Probe::new(id, "GET", ME) };
        s.send(&client, probe, ("GET", ME, 401)).await;
        s.event(id, "token", Some(reason), has_user);
    }
    s.user("revoked");

    // Requests that reach no handler.
    let path = format!("/{PASSWORD}/{EMAIL}?token={second}");
    s.send(&client, Probe::new("no-route", "GET", &path), ("GET", "unmatched", 404)).await;
    let probe = Probe { token, ..Probe::new("method", "PATCH", &todos) };
    s.send(&client, probe, ("PATCH", TODOS, 405)).await;
    s.send(&client, Probe::new("made-up", "SECRET", &todos), ("other", TODOS, 405)).await;
    let headers: &[_] = &[
        ("origin", "http://localhost:3000"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let probe = Probe { headers, ..Probe::new("preflight", "OPTIONS", &todos) };
    s.send(&client, probe, ("OPTIONS", TODOS, 200)).await;
    let probe = Probe { headers, ..Probe::new("preflight-404", "OPTIONS", &path) };
    s.send(&client, probe, ("OPTIONS", "unmatched", 200)).await;
    s.send(&client, Probe::new("options", "OPTIONS", &todos), ("OPTIONS", TODOS, 204)).await;
    let body = Some(json!({ "title": PASSWORD.repeat(5000) }));
    let probe = Probe { token, body, ..Probe::new("large", "POST", &todos) };
    s.send(&client, probe, ("POST", TODOS, 413)).await;
    s.user("large");
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: {EMAIL}, x\r\nConnection: close\r\nX-Request-Id: host\r\n\
         X-Forwarded-For: 203.0.113.1\r\n\r\n"
    );
    let answer = raw(addr, head.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    let line = Expected {
        method: "GET",
        route: "unmatched",
        status: 400,
        client: "203.0.113.1".into(),
        has_user: false,
    };
    s.lines.insert("host".into(), line);
    if program == "todo-server" {
        s.send(&client, Probe::new("docs", "GET", "/docs"), ("GET", "docs", 200)).await;
        s.send(&client, Probe::new("redoc", "HEAD", "/redoc"), ("HEAD", "docs", 200)).await;
        s.send(&client, Probe::new("docs-405", "POST", "/docs"), ("POST", "docs", 405)).await;
    }

    let second = Some(second.as_str());
    s.send(
        &client,
        Probe { token: second, ..Probe::new("logout", "POST", LOGOUT) },
        ("POST", LOGOUT, 200),
    )
    .await;
    s.event("logout", "logout", None, true);
    s.user("logout");
    s.send(
        &client,
        Probe { token: second, ..Probe::new("again", "POST", LOGOUT) },
        ("POST", LOGOUT, 401),
    )
    .await;
    s.event("again", "logout", Some("session ended"), true);
    s.user("again");
    s
}
