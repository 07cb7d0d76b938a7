//! `/api/auth/keys`: API keys, and what their scopes allow on every route.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use todo_core::{
    auth::Scope,
    http::{Endpoint, KeyAccess, endpoints},
    testing::forged_key,
};
use todo_tests::{Actor, App, Client, Mailbox, TestResponse, WebSocket, at_once, on_every_target};
use uuid::Uuid;

use super::{members, time};

const KEYS: &str = "/api/auth/keys";
const ME: &str = "/api/auth/me";

fn form(user: &Actor, scopes: &[&str]) -> Value {
    json!({
        "name": " nightly backup ", "scopes": scopes, "expires_in_days": 30,
        "password": user.password(),
    })
}

async fn create(user: &Actor, scopes: &[&str]) -> Value {
    user.post(KEYS, form(user, scopes)).await.expect(201)
}

/// The client of the key in the response to its creation.
fn bearing(client: &Client, created: &Value) -> Client {
    client.bearing(created["key"].as_str().expect("a key"))
}

fn path_of(key: &Value) -> String {
    format!("{KEYS}/{}", key["id"].as_str().expect("an id"))
}

async fn listed(user: &Actor) -> Vec<Value> {
    user.get(KEYS).await.expect(200)["keys"].as_array().expect("a list").clone()
}

/// The scope that the contract requires of a key for a route; `None` if no key may use it.
fn required_scope(endpoint: &Endpoint) -> Option<Scope> {
    match endpoint.full_path("/api").as_str() {
        ME if endpoint.method() == Method::GET => Some(Scope::AccountRead),
        path if path.starts_with("/api/auth/") || path.ends_with("/webhook") => None,
        _ if endpoint.method() == Method::GET => Some(Scope::TodosRead),
        _ => Some(Scope::TodosWrite),
    }
}

/// Sends a request without a body to an endpoint, with ids that name nothing.
async fn send_to(client: &Client, endpoint: &Endpoint, user: &str) -> TestResponse {
    let nothing = Uuid::now_v7().to_string();
    let mut path = endpoint.full_path("/api").replace("{user_id}", user);
    for name in
        ["{todo_id}", "{list_id}", "{session_id}", "{key_id}", "{identity_id}", "{provider}"]
    {
        path = path.replace(name, &nothing);
    }
    assert!(!path.contains('{'), "{path}");
    // The response to a GET of events has no end.
    let method = if path.ends_with("/events") { "HEAD" } else { endpoint.method().as_str() };
    client.send(method, &path, &[], "").await
}

fn assert_insufficient(answer: &TestResponse, scope: Option<Scope>) {
    assert_eq!(answer.status, 403, "{answer}");
    let scope = scope.map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
    let challenge = format!("Bearer error=\"insufficient_scope\"{scope}");
    assert_eq!(answer.header("www-authenticate"), Some(challenge.as_str()), "{answer}");
}

on_every_target! {
    async fn a_key_lives_from_its_creation_to_its_deletion(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        assert_eq!(listed(&ann).await, [json!(null); 0]);

        let answer = ann.post(KEYS, form(&ann, &["account:read", "todos:read"])).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        let created = answer.expect(201);
        let names = ["id", "name", "scopes", "created_at", "seen_at", "expires_at", "key"];
        assert_eq!(members(&created), names.into());
        let text = created["key"].as_str().expect("a key");
        assert!(text.len() == 65 && text.starts_with("todo_"), "{text}");
        assert!(text[5..].bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
        assert_eq!(created["name"], "nightly backup", "trimmed");
        assert_eq!(created["scopes"], json!(["todos:read", "account:read"]));
        assert_eq!(created["seen_at"], json!(null));
        let days = (time(&created["expires_at"]) - time(&created["created_at"])).num_hours();
        assert!((719..=720).contains(&days), "{created}");

        let mut shown = created.clone();
        shown.as_object_mut().expect("an object").remove("key");
        let list = ann.get(KEYS).await;
        assert!(!list.text().contains(text));
        assert_eq!(list.expect(200)["keys"], json!([shown]));
        assert_eq!(listed(&bob).await, [json!(null); 0], "bob sees only his own");

        // It is no session: other routes neither list nor end it.
        let sessions = ann.get("/api/auth/sessions").await.expect(200);
        assert_eq!(sessions["sessions"].as_array().map(Vec::len), Some(1));
        let as_session = format!("/api/auth/sessions/{}", created["id"].as_str().expect("an id"));
        ann.delete(&as_session).await.problem(404, "not_found");
        ann.delete("/api/auth/sessions").await.expect(200);

        let here = bearing(&app.anonymous(), &created);
        let there = bearing(&replica.anonymous(), &created);
        for client in [&here, &there] {
            assert_eq!(client.get(ME).await.expect(200), ann.get(ME).await.expect(200));
            client.get(&ann.todos()).await.expect(200);
            client.get(&bob.todos()).await.problem(403, "forbidden");
        }
        assert_insufficient(&here.post(&ann.todos(), json!({"title": "t"})).await,
            Some(Scope::TodosWrite));

        for unknown in [json!({"id": Uuid::now_v7()}), json!({"id": "1"})] {
            let problem = ann.delete(&path_of(&unknown)).await.problem(404, "not_found");
            assert_eq!(problem["detail"], "There is no such key.");
        }
        bob.delete(&path_of(&created)).await.problem(404, "not_found");
        there.get(ME).await.expect(200);
        let message = json!({"message": "Key deleted successfully"});
        assert_eq!(ann.delete(&path_of(&created)).await.expect(200), message);
        for client in [&here, &there] {
            let answer = client.get(ME).await;
            let challenge = answer.header("www-authenticate").map(str::to_owned);
            answer.problem(401, "unauthorized");
            assert!(challenge.is_some_and(|it| it.contains("invalid_token")));
        }
        ann.delete(&path_of(&created)).await.problem(404, "not_found");
        assert_eq!(listed(&ann).await, [json!(null); 0]);
        // A session is no key.
        let own = ann.get("/api/auth/sessions").await.expect(200)["sessions"][0].clone();
        ann.delete(&path_of(&own)).await.problem(404, "not_found");
        ann.get(ME).await.expect(200);
        replica.stop().await.expect("a clean stop");
    }

    async fn a_key_may_use_the_routes_of_its_scopes_only(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let deleted = create(&ann, &["todos:read", "todos:write", "account:read"]).await;
        ann.delete(&path_of(&deleted)).await.expect(200);
        let dead = bearing(&app.anonymous(), &deleted);
        let mut keys = Vec::new();
        for scope in Scope::ALL {
            let created = create(&ann, &[scope.as_str()]).await;
            keys.push((*scope, bearing(&app.anonymous(), &created)));
        }
        let protected = || endpoints().filter(|endpoint| endpoint.key_access().is_some());
        assert!(protected().count() > 20);
        for endpoint in protected() {
            let required = required_scope(endpoint);
            let declared = match endpoint.key_access() {
                Some(KeyAccess::With(scope)) => Some(scope),
                _ => None,
            };
            assert_eq!(declared, required, "{endpoint:?}");
            for (scope, key) in &keys {
                let answer = send_to(key, endpoint, ann.id()).await;
                if required == Some(*scope) {
                    assert!(![401, 403].contains(&answer.status), "{scope}: {answer}");
                } else {
                    assert_insufficient(&answer, required);
                }
            }
            // An ended session comes first.
            let answer = send_to(&dead, endpoint, ann.id()).await;
            assert_eq!(answer.status, 401, "{answer}");
        }
        for (_, key) in &keys {
            key.post("/api/auth/logout", json!({})).await.problem(403, "insufficient_scope");
        }
        assert_eq!(listed(&ann).await.len(), 3, "no key has ended itself");
    }

    async fn a_forged_key_is_rejected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let created = create(&ann, &["todos:read"]).await;
        let key = created["key"].as_str().expect("a key");
        let client = app.anonymous();
        client.bearing(key).get(&ann.todos()).await.expect(200);
        let mut forged: Vec<String> = vec![
            format!("{key}0"),
            key[..64].to_owned(),
            "todo_".to_owned(),
            key.to_uppercase(),
            key.replacen("todo_", "", 1),
        ];
        for place in 5..key.len() {
            let other = if &key[place..=place] == "A" { "B" } else { "A" };
            forged.push(format!("{}{other}{}", &key[..place], &key[place + 1..]));
        }
        // The checksum of these is right.
        let all = forged_key(key, |payload| payload[1..3].fill(0xff)).expect("a key");
        let later = forged_key(key, |payload| payload[4] ^= 0x01).expect("a key");
        let bobs = Uuid::parse_str(bob.id()).expect("an id");
        let bobs = forged_key(key, |payload| payload[8..24].copy_from_slice(bobs.as_bytes()));
        let bobs = bobs.expect("a key");
        let random = forged_key(key, |payload| payload[39] ^= 0x01).expect("a key");
        let version = forged_key(key, |payload| payload[0] = 2).expect("a key");
        let past = forged_key(key, |payload| payload[3..8].fill(0)).expect("a key");
        assert_eq!(forged_key(key, |_| ()).as_deref(), Some(key));
        forged.extend([all, later, bobs, random, version, past]);
        for text in &forged {
            for path in [ann.todos(), bob.todos(), ME.to_owned()] {
                client.bearing(text).get(&path).await.problem(401, "unauthorized");
            }
        }
        client.bearing(key).get(&ann.todos()).await.expect(200);
    }

    async fn a_rejected_creation_creates_no_key(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let with = |name: &str, value: Value| {
            let mut form = form(&ann, &["todos:read"]);
            form[name] = value;
            form
        };
        for (name, value, code) in [
            ("name", json!(" "), "blank"),
            ("name", json!("n".repeat(101)), "too_long"),
            ("name", json!("a\nb"), "control"),
            ("name", json!("a\u{0}b"), "nul"),
            ("scopes", json!([]), "blank"),
            ("scopes", json!(["todos:read", "admin"]), "invalid"),
            ("scopes", json!([""]), "invalid"),
            ("expires_in_days", json!(0), "out_of_range"),
            ("expires_in_days", json!(366), "out_of_range"),
            ("expires_in_days", json!(-1), "out_of_range"),
            ("expires_in_days", json!(1e300), "out_of_range"),
            ("expires_in_days", json!(u64::MAX), "out_of_range"),
            ("password", json!("a\u{0}"), "nul"),
        ] {
            let problem = ann.post(KEYS, with(name, value)).await.problem(400, "validation_error");
            let detail = json!([name, code]);
            let reported = json!([problem["details"][0]["field"], problem["details"][0]["code"]]);
            assert_eq!(reported, detail, "{problem}");
        }
        for (name, value) in [
            ("scopes", json!("todos:read")),
            ("scopes", json!([1])),
            ("scopes", json!(null)),
            ("expires_in_days", json!("30")),
            ("expires_in_days", json!(1.5)),
            ("expires_in_days", json!(null)),
        ] {
            let problem = ann.post(KEYS, with(name, value)).await.problem(422, "malformed_body");
            let reported = json!([problem["details"][0]["field"], problem["details"][0]["code"]]);
            assert_eq!(reported, json!([name, "wrong_type"]), "{problem}");
        }
        let missing = ann.post(KEYS, json!({})).await.problem(422, "malformed_body");
        assert_eq!(missing["details"].as_array().map(Vec::len), Some(4));
        let wrong = ann.post(KEYS, with("password", json!("Wrong1horse"))).await;
        wrong.problem(401, "invalid_credentials");
        app.anonymous().post(KEYS, form(&ann, &["todos:read"])).await.problem(401, "unauthorized");
        assert_eq!(listed(&ann).await, [json!(null); 0]);
        for days in [json!(1), json!(365), json!(30.0)] {
            ann.post(KEYS, with("expires_in_days", days)).await.expect(201);
        }
    }

    async fn wrong_passwords_count_as_failed_logins(target) {
        let app = App::start_with(target, &[("RATE_LIMIT_PER_MINUTE", "2")]).await;
        let ann = app.signed_up().await;
        for _ in 0..4 {
            create(&ann, &["todos:read"]).await;
        }
        let mut wrong = form(&ann, &["todos:read"]);
        wrong["password"] = json!("Wrong1horse");
        for _ in 0..2 {
            ann.post(KEYS, wrong.clone()).await.problem(401, "invalid_credentials");
        }
        let answer = ann.post(KEYS, form(&ann, &["todos:read"])).await;
        assert!(answer.header("ratelimit").is_some(), "{answer}");
        answer.problem(429, "rate_limited");
        assert_eq!(listed(&ann).await.len(), 4);
    }

    async fn a_user_has_at_most_20_keys(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let statuses = at_once(21, |_| {
            let ann = ann.clone();
            async move { ann.post(KEYS, form(&ann, &["todos:read"])).await.status }
        })
        .await;
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 20, "{statuses:?}");
        assert!(statuses.contains(&409), "{statuses:?}");
        let keys = listed(&ann).await;
        assert_eq!(keys.len(), 20);
        let problem = ann.post(KEYS, form(&ann, &["todos:read"])).await;
        let problem = problem.problem(409, "too_many_keys");
        assert_eq!(problem["detail"], "You have 20 API keys already. Please delete one of them.");
        // They are not among the sessions, of which there are at most 100.
        ann.get(ME).await.expect(200);
        create(&bob, &["todos:read"]).await;
        ann.delete(&path_of(&keys[7])).await.expect(200);
        create(&ann, &["todos:read"]).await;
        assert_eq!(listed(&ann).await.len(), 20);
    }

    async fn a_key_outlives_sessions_and_ends_on_request_with_the_password(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let key = bearing(&app.anonymous(), &create(&ann, &["account:read"]).await);
        let change = |current: &str, new: &str, end_keys: bool| {
            json!({"current_password": current, "new_password": new, "end_keys": end_keys})
        };
        let path = "/api/auth/password";
        let auth = ann.post(path, change(ann.password(), "Other2battery", false)).await.expect(200);
        key.get(ME).await.expect(200);
        let ann = Actor::of(&app.anonymous(), &auth, "Other2battery");
        ann.send("POST", "/api/auth/logout", &[], "").await.expect(200);
        key.get(ME).await.expect(200);
        let login = json!({"email": ann.email(), "password": ann.password()});
        let auth = app.anonymous().post("/api/auth/login", login).await.expect(200);
        let ann = Actor::of(&app.anonymous(), &auth, "Other2battery");
        ann.post(path, change("Other2battery", "Third3staple", true)).await.expect(200);
        key.get(ME).await.problem(401, "unauthorized");
    }

    async fn a_key_of_a_deleted_user_is_rejected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let key = bearing(&app.anonymous(), &create(&ann, &["account:read", "todos:write"]).await);
        key.get(ME).await.expect(200);
        let headers = [("content-type", "application/json")];
        let body = json!({"password": ann.password()}).to_string();
        ann.send("DELETE", ME, &headers, body).await.expect(200);
        key.get(ME).await.problem(401, "unauthorized");
        key.post(&ann.todos(), json!({"title": "t"})).await.problem(401, "unauthorized");
    }

    async fn a_new_key_is_announced_by_mail_and_a_reset_ends_it(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ann, anonymous) = (app.signed_up().await, app.anonymous());
        let created = create(&ann, &["account:read"]).await;
        let mail = mailbox.arrived(ann.email(), "An API key was created").await;
        assert!(!mail.text.contains("todo_") && !mail.text.contains("backup"), "{}", mail.text);
        let key = bearing(&anonymous, &created);
        key.get(ME).await.expect(200);
        let forgotten = json!({"email": ann.email()});
        anonymous.post("/api/auth/password/forgot", forgotten).await.expect(202);
        let mail = mailbox.arrived(ann.email(), "Set a new password").await;
        let body = json!({"token": mail.token(), "password": "Other2battery"});
        anonymous.post("/api/auth/password/reset", body).await.expect(200);
        key.get(ME).await.problem(401, "unauthorized");
    }

    async fn streams_end_with_their_key(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let created = create(&ann, &["todos:read"]).await;
        let key = bearing(&app.anonymous(), &created);
        let events = format!("/api/users/{}/events", ann.id());
        let stream = tokio::spawn(async move { key.get(&events).await });
        let text = created["key"].as_str().expect("a key");
        let protocols = format!("todo.v1, bearer.{text}");
        let path = format!("/api/users/{}/ws", ann.id());
        let headers = [("sec-websocket-protocol", protocols.as_str())];
        let mut socket = WebSocket::connect(app.addr(), &path, &headers).await;
        socket.send(tokio_tungstenite::tungstenite::Message::text("{}")).await;
        assert_eq!(socket.next().await["event"], "start");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!stream.is_finished());
        ann.delete(&path_of(&created)).await.expect(200);
        let ended = tokio::time::timeout(Duration::from_secs(3), stream).await;
        let answer = ended.expect("it ends in time").expect("no panic");
        assert!(answer.text().contains("session_ended"), "{answer}");
        socket.expect_end("session_ended", 4401).await;
    }
}
