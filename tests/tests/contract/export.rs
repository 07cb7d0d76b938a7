//! The export of an account: it has everything of the user and nothing of others, at most twice an
//! hour.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, clone_the_only_todo, on_every_target};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::timeout,
};

use crate::text;

const EXPORT: &str = "/api/auth/export";

/// Logs in again.
async fn another_session(app: &App, actor: &Actor) -> Actor {
    let body = json!({"email": actor.email(), "password": actor.password()});
    let auth = app.anonymous().post("/api/auth/login", body).await.expect(200);
    Actor::of(&app.anonymous(), &auth, actor.password())
}

/// The whole seconds of a 429.
fn wait(answer: &TestResponse) -> u64 {
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse().ok());
    seconds.unwrap_or_else(|| panic!("no Retry-After: {answer}"))
}

/// Reads a response in small pieces until `enough` bytes, does something, and reads the rest.
async fn read_around(
    addr: SocketAddr,
    request: &str,
    enough: usize,
    between: impl Future<Output = ()>,
) -> Vec<u8> {
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that the server is not done long before the client.
    socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
    let mut stream = socket.connect(addr).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = vec![0; enough];
    stream.read_exact(&mut answer).await.expect("the beginning");
    between.await;
    let mut rest = Vec::new();
    // The connection may also be reset.
    let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the server left the connection open");
    answer.append(&mut rest);
    answer
}

on_every_target! {
    async fn an_export_has_everything_of_the_user(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let again = another_session(&app, &ann).await;
        bob.todo("not ann's").await;
        for number in 0..5 {
            let todo = ann.todo(&format!("todo {number}")).await;
            let path = format!("{}/{}", ann.todos(), text(&todo, "id"));
            match number {
                1 => drop(ann.patch(&format!("{path}/complete"), json!({"completed": true})).await),
                2 | 3 => drop(ann.delete(&path).await),
                _ => {}
            }
        }
        let answer = ann.get(EXPORT).await;
        assert_eq!(
            answer.header("content-disposition"),
            Some("attachment; filename=\"todo-export.json\""),
        );
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let whole = answer.text();
        for secret in ["argon2", ann.token(), again.token(), "not ann's", bob.id()] {
            assert!(!whole.contains(secret), "{secret} in {whole}");
        }
        let export = answer.expect(200);
        assert_eq!((&export["format"], &export["version"]), (&json!("todo-export"), &json!(1)));
        assert_eq!(export["user"], ann.get("/api/auth/me").await.expect(200));
        assert_eq!((&export["identities"], &export["keys"]), (&json!([]), &json!([])));
        let list = ann.get(&format!("{}?order=asc", ann.todos())).await.expect(200);
        assert_eq!(export["todos"], list["todos"]);
        let mut trash = ann.get(&ann.todos().replace("/todos", "/trash")).await.expect(200);
        let trash = trash["todos"].as_array_mut().expect("the trash");
        trash.reverse();
        assert_eq!(export["trash"].as_array(), Some(&*trash));
        assert_eq!((list["total"].as_i64(), trash.len()), (Some(3), 2));
        let sessions = export["sessions"].as_array().expect("sessions");
        let current: Vec<&Value> = sessions.iter().map(|session| &session["current"]).collect();
        assert_eq!(current, [false, true], "the newest first");
        let listed = ann.get("/api/auth/sessions").await.expect(200);
        let ids = |sessions: &Value| {
            let sessions = sessions.as_array().expect("sessions").iter();
            sessions.map(|session| text(session, "id").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&export["sessions"]), ids(&listed["sessions"]));
        for session in sessions {
            assert_eq!(session["kind"], "password");
            assert_eq!(session["client"], "127.0.0.1");
        }
        let other = again.get(EXPORT).await.expect(200);
        assert_eq!(other["sessions"][0]["current"], true);
        assert_eq!(other["todos"], export["todos"]);
    }

    /// What a user plans with: lists, the details of todos, and the webhook without its secret.
    async fn an_export_has_the_planning(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let of = |actor: &Actor, what: &str| format!("/api/users/{}/{what}", actor.id());
        bob.post(&of(&bob, "lists"), json!({"name": "bob's"})).await.expect(201);
        let home = json!({"name": "Home", "color": "#ff8800"});
        let home = ann.post(&of(&ann, "lists"), home).await.expect(201);
        ann.post(&of(&ann, "lists"), json!({"name": "Empty"})).await.expect(201);
        let gone = ann.post(&of(&ann, "lists"), json!({"name": "Gone"})).await.expect(201);
        ann.delete(&format!("{}/{}", of(&ann, "lists"), text(&gone, "id"))).await.expect(200);
        let planned = json!({
            "title": "t", "tags": ["x"], "list_id": home["id"],
            "due": {"date": "2999-12-01", "time": "09:30", "time_zone": "Europe/Berlin"},
            "recurrence": {"rule": "FREQ=WEEKLY", "from": "due"},
            "reminders": [{"minutes_before": 5}],
        });
        let planned = ann.post(&ann.todos(), planned).await.expect(201);
        let hook = json!({"url": "https://example.com/hook"});
        let hook = ann.put(&of(&ann, "webhook"), hook).await.expect(200);
        let secret = text(&hook, "secret").to_owned();
        assert!(secret.starts_with("whsec_"), "{secret}");

        let answer = ann.get(EXPORT).await;
        assert!(!answer.text().contains(secret.trim_start_matches("whsec_")), "{answer}");
        let export = answer.expect(200);
        let lists = ann.get(&of(&ann, "lists")).await.expect(200);
        assert_eq!(export["lists"], lists["lists"]);
        assert_eq!(export["lists"].as_array().map(Vec::len), Some(2));
        assert_eq!(export["todos"], json!([planned]));
        let webhook = json!({"url": hook["url"], "created_at": hook["created_at"]});
        assert_eq!(export["webhook"], webhook);
        let others = bob.get(EXPORT).await.expect(200);
        assert_eq!(others["lists"][0]["name"], "bob's");
        assert_eq!(others["webhook"], json!(null));

        // Another account takes it over, with the lists.
        let carl = app.signed_up().await;
        let headers = [("content-type", "application/json")];
        let path = of(&carl, "import?format=json");
        let report = carl.send("POST", &path, &headers, export.to_string()).await.expect(200);
        assert_eq!(report["lists"], json!(["Home", "Empty"]));
        let lists = carl.get(&of(&carl, "lists")).await.expect(200);
        let home = &lists["lists"][0];
        assert_eq!((&home["color"], &home["pending"]), (&json!("#ff8800"), &json!(1)));
        let todos = carl.get(&carl.todos()).await.expect(200);
        assert_eq!(todos["todos"][0]["list_id"], lists["lists"][0]["id"]);
        for member in ["title", "tags", "due", "recurrence", "reminders", "updated_at"] {
            assert_eq!(todos["todos"][0][member], planned[member], "{member}");
        }
    }

    async fn an_empty_account_is_exported_too(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let export = ann.get(EXPORT).await.expect(200);
        assert_eq!((&export["todos"], &export["trash"]), (&json!([]), &json!([])));
        let head = ann.send("HEAD", EXPORT, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        app.anonymous().get(EXPORT).await.problem(401, "unauthorized");
    }

    async fn a_user_has_two_exports_an_hour(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let again = another_session(&app, &ann).await;
        // Without a session nothing is counted.
        let gone = another_session(&app, &ann).await;
        gone.post("/api/auth/logout", Value::Null).await.expect(200);
        for _ in 0..3 {
            gone.get(EXPORT).await.problem(401, "unauthorized");
        }
        let left = |answer: &TestResponse| {
            assert_eq!(answer.header("ratelimit-policy"), Some("\"export\";q=2;w=3600"), "{answer}");
            let field = answer.header("ratelimit").expect("what is left").to_owned();
            let (remaining, reset) = field.split_once(";t=").expect("when the next one is free");
            let reset: u64 = reset.parse().expect("seconds");
            assert!((3500..=3600).contains(&reset), "{field}");
            remaining.to_owned()
        };
        assert_eq!(left(&ann.get(EXPORT).await), "\"export\";r=1");
        assert_eq!(left(&again.at(&replica.anonymous()).get(EXPORT).await), "\"export\";r=0");
        for actor in [&ann, &again, &ann.at(&replica.anonymous())] {
            let refused = actor.get(EXPORT).await;
            assert_eq!(left(&refused), "\"export\";r=0");
            assert!((3500..=3600).contains(&wait(&refused)), "{refused}");
            refused.problem(429, "rate_limited");
        }
        bob.get(EXPORT).await.expect(200);
        replica.stop().await.expect("a clean stop");
    }

    /// Each todo that stays is exported once, while others are completed, deleted and created.
    async fn an_export_has_each_todo_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        ann.todo("t").await;
        clone_the_only_todo(app.database_url(), 2999).await;
        let ids = |export: &Value, member: &str| {
            let todos = export[member].as_array().expect("todos").iter();
            todos.map(|todo| text(todo, "id").to_owned()).collect::<Vec<_>>()
        };
        let staying = ann.get(&ann.todos()).await.expect(200);
        let staying: BTreeSet<String> = ids(&staying, "todos").into_iter().collect();
        let done = tokio::sync::watch::channel(false).0;
        let churn = async {
            // From the newest to the oldest, and back: the completed ones are in another range.
            let order: Vec<&String> = staying.iter().collect();
            let mut completed = true;
            while !*done.borrow() {
                for chunk in order.chunks(500) {
                    let body = json!({"complete": chunk, "completed": completed});
                    ann.post(&format!("{}/bulk", ann.todos()), body).await.expect(200);
                    let todo = ann.todo("new").await;
                    ann.delete(&format!("{}/{}", ann.todos(), text(&todo, "id"))).await.expect(200);
                }
                completed = !completed;
            }
        };
        let read = async {
            for _ in 0..2 {
                let export = ann.get(EXPORT).await.expect(200);
                let todos = ids(&export, "todos");
                let distinct: BTreeSet<String> = todos.iter().cloned().collect();
                assert_eq!(distinct.len(), todos.len(), "one came twice");
                let missing: Vec<_> = staying.difference(&distinct).collect();
                assert!(missing.is_empty(), "{missing:?}");
            }
            done.send_replace(true);
        };
        tokio::join!(churn, read);
    }

    async fn an_export_is_cut_when_its_session_ends(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let again = another_session(&app, &ann).await;
        let body = json!({"title": "t", "description": "\u{1}".repeat(1000)});
        ann.post(&ann.todos(), body).await.expect(201);
        clone_the_only_todo(app.database_url(), 3999).await;
        let request = format!(
            "GET {EXPORT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.token(),
        );
        let log_out = async {
            ann.post("/api/auth/logout", Value::Null).await.expect(200);
        };
        let cut = read_around(app.addr(), &request, 300_000, log_out).await;
        let text = String::from_utf8_lossy(&cut);
        assert!(text.starts_with("HTTP/1.1 200"), "{}", &text[..100]);
        assert!(!text.ends_with("0\r\n\r\n"), "the response seems complete");
        assert!(!text.contains("\"trash\":["), "{} bytes", text.len());
        let request = request.replace(ann.token(), again.token());
        let whole = read_around(app.addr(), &request, 300_000, async {}).await;
        assert!(whole.ends_with(b"0\r\n\r\n") && whole.len() > 20_000_000, "{}", whole.len());
    }
}
