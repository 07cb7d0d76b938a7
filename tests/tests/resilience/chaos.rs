//! `kill -9` of a server and of PostgreSQL under sixteen writers loses no acknowledged write and
//! leaves no partial one. Each writer records its own todos ([`Ledger`]) and stops at its first
//! write without a 2xx, the only one whose outcome is unknown. Now and then a writer creates an
//! account, which must exist with its session, or not at all. Each creation has an idempotency key:
//! repeated after the kill, it creates the todo if the kill prevented it, and no second one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use todo_tests::{Client, PROGRAMS, Process, SECRET, STARTING, postgres::Cluster};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

const WRITERS: usize = 16;

/// The acknowledged state of one user's todos.
#[derive(Clone, Debug, Default)]
struct Ledger {
    /// Each todo as returned by the last acknowledged write or list.
    kept: BTreeMap<String, Value>,
    gone: BTreeSet<String>,
    /// The tokens of accounts created since the last check.
    accounts: Vec<String>,
    unknown: Option<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Create(Value),
    Change(String, Value),
    Complete(String, bool),
    Delete(String),
    SignUp(String),
}

const PASSWORD: &str = "Correct1horse";

fn account(email: &str) -> Value {
    json!({"email": email, "password": PASSWORD, "name": "A Writer"})
}

/// The idempotency key of a creation: its title is unique.
fn key(body: &Value) -> &str {
    body["title"].as_str().expect("a title")
}

impl Ledger {
    /// The ledger after reading a list, or the contradiction between the two.
    fn check(&self, list: &Value) -> Result<Ledger, String> {
        let todos = list["todos"].as_array().ok_or("no list")?;
        if list["total"] != todos.len() {
            return Err(format!("total is {} of {} todos", list["total"], todos.len()));
        }
        let mut seen = BTreeMap::new();
        for todo in todos {
            let id = todo["id"].as_str().ok_or("no id")?.to_owned();
            if todo["completed"] == todo["completed_at"].is_null() {
                return Err(format!("completed and completed_at differ: {todo}"));
            }
            if self.gone.contains(&id) {
                return Err(format!("a deleted todo is back: {todo}"));
            }
            let known = self.kept.get(&id);
            if known != Some(todo) && !self.explains(known, todo) {
                return Err(format!(
                    "{known:?} is now {todo}; the unacknowledged write is {:?}",
                    self.unknown
                ));
            }
            if seen.insert(id, todo.clone()).is_some() {
                return Err(format!("listed twice: {todo}"));
            }
        }
        let mut gone = self.gone.clone();
        for (id, todo) in self.kept.iter().filter(|(id, _)| !seen.contains_key(*id)) {
            if !matches!(&self.unknown, Some(Write::Delete(deleted)) if deleted == id) {
                return Err(format!("lost: {todo}"));
            }
            gone.insert(id.clone());
        }
        Ok(Ledger { kept: seen, gone, ..Ledger::default() })
    }

    /// Whether the unacknowledged write, as a whole, turns `known` into `now`.
    fn explains(&self, known: Option<&Value>, now: &Value) -> bool {
        let (mut expected, body) = match (&self.unknown, known) {
            (Some(Write::Change(id, body)), Some(known)) if known["id"] == **id => {
                (known.clone(), body.clone())
            }
            (Some(Write::Complete(id, completed)), Some(known)) if known["id"] == **id => {
                let mut expected = known.clone();
                expected["completed_at"] = now["completed_at"].clone();
                (expected, json!({ "completed": completed }))
            }
            _ => return false,
        };
        for (name, value) in body.as_object().into_iter().flatten() {
            expected[name] = value.clone();
        }
        // RFC 3339 texts do not sort by time if a fraction is missing, so this only checks for a
        // change.
        let moved = expected["updated_at"] != now["updated_at"];
        expected["updated_at"] = now["updated_at"].clone();
        moved && expected == *now
    }
}

/// A writer with its ledger.
#[derive(Clone, Debug)]
struct Writer {
    number: usize,
    token: String,
    todos: String,
    writes: usize,
    ledger: Ledger,
}

impl Writer {
    async fn sign_up(client: &Client, number: usize) -> Writer {
        let email = format!("writer{number}@example.com");
        let auth = client.post("/api/auth/signup", account(&email)).await;
        assert_eq!(auth.status, 201, "{auth}");
        let auth = auth.json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let todos = format!("/api/users/{}/todos", text(&auth["user"]["id"]));
        let (token, ledger) = (text(&auth["token"]), Ledger::default());
        Writer { number, token, todos, writes: 0, ledger }
    }

    /// The next write: four kinds in rotation, on a different todo each time, and now and then a
    /// signup.
    fn next(&mut self) -> Write {
        self.writes += 1;
        let text = format!("{}-{}", self.number, self.writes);
        if self.writes % 16 == self.number {
            return Write::SignUp(format!("by{text}@example.com"));
        }
        let body = json!({"title": format!("t{text}"), "description": format!("d{text}")});
        let nth = self.writes * 7 % self.ledger.kept.len().max(1);
        let Some((id, todo)) = self.ledger.kept.iter().nth(nth) else {
            return Write::Create(body);
        };
        match self.writes % 4 {
            0 if self.ledger.kept.len() > 5 => Write::Delete(id.clone()),
            1 => Write::Change(id.clone(), body),
            2 => Write::Complete(id.clone(), todo["completed"] == false),
            _ => Write::Create(body),
        }
    }

    /// Writes until a write is not acknowledged, and counts the acknowledged ones.
    async fn write(mut self, client: Client, acknowledged: watch::Sender<usize>) -> Writer {
        let client = client.bearing(&self.token);
        loop {
            let write = self.next();
            self.ledger.unknown = Some(write.clone());
            let (method, path, body) = match &write {
                Write::Create(body) => ("POST", self.todos.clone(), body.clone()),
                Write::Change(id, body) => ("PATCH", format!("{}/{id}", self.todos), body.clone()),
                Write::Complete(id, completed) => {
                    let path = format!("{}/{id}/complete", self.todos);
                    ("PATCH", path, json!({ "completed": completed }))
                }
                Write::Delete(id) => ("DELETE", format!("{}/{id}", self.todos), json!({})),
                Write::SignUp(email) => ("POST", "/api/auth/signup".into(), account(email)),
            };
            let key = if let Write::Create(body) = &write { key(body) } else { "unused" };
            let headers = [("content-type", "application/json"), ("idempotency-key", key)];
            let answer = client.try_send(method, &path, &headers, body.to_string()).await;
            let answer = match answer {
                Ok(answer) if (200..300).contains(&answer.status) => answer.json(),
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer}");
                    return self;
                }
                Err(_) => return self,
            };
            self.ledger.unknown = None;
            let text = |name: &str| answer[name].as_str().expect("a text").to_owned();
            match write {
                Write::Delete(id) => {
                    self.ledger.kept.remove(&id);
                    self.ledger.gone.insert(id);
                }
                Write::SignUp(_) => self.ledger.accounts.push(text("token")),
                Write::Create(_) | Write::Change(..) | Write::Complete(..) => {
                    self.ledger.kept.insert(text("id"), answer);
                }
            }
            acknowledged.send_modify(|count| *count += 1);
        }
    }

    async fn check(&mut self, client: &Client) {
        if let Some(Write::Create(body)) = self.ledger.unknown.clone() {
            let headers = [("content-type", "application/json"), ("idempotency-key", key(&body))];
            let client = client.bearing(&self.token);
            let created = client.send("POST", &self.todos, &headers, body.to_string()).await;
            assert_eq!(created.status, 201, "{created}");
            let again = client.send("POST", &self.todos, &headers, body.to_string()).await;
            assert_eq!((again.status, &again.body), (201, &created.body), "{again}");
            let created = created.json();
            let id = created["id"].as_str().expect("an id").to_owned();
            self.ledger.kept.insert(id, created);
            self.ledger.unknown = None;
        }
        let list = client.bearing(&self.token).get(&self.todos).await;
        assert_eq!(list.status, 200, "{list}");
        for token in &self.ledger.accounts {
            let me = client.bearing(token).get("/api/auth/me").await;
            assert_eq!(me.status, 200, "an account or its session is lost: {me}");
        }
        if let Some(Write::SignUp(email)) = &self.ledger.unknown {
            let again = client.post("/api/auth/signup", account(email)).await;
            if again.status != 201 {
                assert_eq!(again.status, 409, "{again}");
                let login = json!({"email": email, "password": PASSWORD});
                let login = client.post("/api/auth/login", login).await;
                assert_eq!(login.status, 200, "half an account: {login}");
            }
        }
        let checked = self.ledger.check(&list.json());
        self.ledger = checked.unwrap_or_else(|fault| panic!("writer {}: {fault}", self.number));
    }
}

/// All writers, running concurrently.
struct Load {
    running: JoinSet<Writer>,
    acknowledged: watch::Receiver<usize>,
}

impl Load {
    fn on(client: &Client, writers: Vec<Writer>) -> Load {
        let (sender, acknowledged) = watch::channel(0);
        let mut running = JoinSet::new();
        for writer in writers {
            running.spawn(writer.write(client.clone(), sender.clone()));
        }
        Load { running, acknowledged }
    }

    /// Waits for a number of acknowledged writes that differs between rounds; the kill follows.
    async fn until(&mut self, round: usize) {
        let enough = WRITERS + round * 37 % 150;
        let waited = timeout(STARTING, self.acknowledged.wait_for(|count| *count >= enough)).await;
        waited.expect("writes are acknowledged in time").expect("the writers run");
    }

    async fn join(self) -> Vec<Writer> {
        timeout(STARTING * 2, self.running.join_all()).await.expect("the writers stop")
    }
}

async fn signed_up(client: &Client) -> Vec<Writer> {
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        writers.push(Writer::sign_up(client, number).await);
    }
    writers
}

async fn check(writers: &mut [Writer], client: &Client) {
    for writer in writers {
        writer.check(client).await;
    }
}

/// Kills a server `kills` times under load; each time, the data must match the acknowledgements.
async fn kill_server(program: &str, url: &str, dir: &Path, kills: usize) {
    let settings = [("DATABASE_URL", url), ("SECRET_KEY", SECRET), ("RATE_LIMIT_PER_MINUTE", "0")];
    let mut process = Process::start(program, dir, &settings).await;
    let mut client = Client::of(process.addr);
    let mut writers = signed_up(&client).await;
    for round in 0..kills {
        let mut load = Load::on(&client, writers);
        load.until(round).await;
        process.signal("KILL");
        timeout(STARTING, process.child.wait()).await.expect("it ends").expect("a status");
        writers = load.join().await;
        process = Process::start(program, dir, &settings).await;
        client = Client::of(process.addr);
        check(&mut writers, &client).await;
    }
    process.stop().await;
}

/// Kills PostgreSQL `kills` times while the server keeps running.
async fn kill_postgres(program: &str, kills: usize) {
    let mut cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = cluster.url();
    let settings =
        [("DATABASE_URL", &*url), ("SECRET_KEY", SECRET), ("RATE_LIMIT_PER_MINUTE", "0")];
    let mut process = Process::start(program, dir.path(), &settings).await;
    let client = Client::of(process.addr);
    let mut writers = signed_up(&client).await;
    let user = client.bearing(&writers[0].token);
    for round in 0..kills {
        let mut load = Load::on(&client, writers);
        load.until(round).await;
        cluster.signal_all("KILL").expect("it is killed");
        cluster.wait_for_exit().await.expect("it ends");
        writers = load.join().await;
        let away = user.get("/api/auth/me").await;
        assert_eq!(away.status, 503, "{away}");
        // A write rejected now must not run later either: no ledger contains it.
        let rejected = user.post(&writers[0].todos, json!({"title": "rejected"})).await;
        assert_eq!(rejected.status, 503, "{rejected}");
        assert_eq!(client.get("/health").await.status, 200, "the server runs");
        assert!(process.child.try_wait().expect("a status").is_none(), "{}", process.output());
        cluster.start_again().await.expect("PostgreSQL restarts");
        let back = async {
            loop {
                let answer = user.get("/api/auth/me").await;
                match answer.status {
                    200 => return,
                    status => assert_eq!(status, 503, "{answer}"),
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(STARTING, back).await.expect("the server reconnects");
        check(&mut writers, &client).await;
    }
    process.stop().await;
    cluster.stop().await.expect("PostgreSQL stops");
}

async fn kill_on_sqlite(kills: usize) {
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a temporary directory");
        kill_server(program, "sqlite://todo.db", dir.path(), kills).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_keeps_acknowledged_writes() {
    kill_on_sqlite(2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn a_hundred_kills_on_sqlite_lose_nothing() {
    kill_on_sqlite(50).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn a_hundred_kills_on_postgres_lose_nothing() {
    for program in PROGRAMS {
        let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
        let dir = tempfile::tempdir().expect("a temporary directory");
        kill_server(program, &cluster.url(), dir.path(), 50).await;
        cluster.stop().await.expect("PostgreSQL stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn a_server_survives_fifty_kills_of_postgres() {
    for program in PROGRAMS {
        kill_postgres(program, 25).await;
    }
}

fn todo(id: &str, title: &str, at: &str) -> Value {
    json!({"id": id, "title": title, "description": title, "completed": false,
        "completed_at": null, "created_at": "a", "updated_at": at})
}

fn listed(todos: &[Value]) -> Value {
    json!({"todos": todos, "total": todos.len()})
}

/// Proves that the checks above can fail.
#[test]
fn the_ledger_detects_lost_and_partial_writes() {
    let (one, two) = (todo("1", "x", "a"), todo("2", "y", "a"));
    let body = json!({"title": "z", "description": "z"});
    let mut ledger = Ledger::default();
    ledger.kept.insert("1".into(), one.clone());
    ledger.gone.insert("0".into());
    let with = |unknown| Ledger { unknown: Some(unknown), ..ledger.clone() };
    let change = with(Write::Change("1".into(), body.clone()));
    let delete = with(Write::Delete("1".into()));
    let complete = with(Write::Complete("1".into(), true));
    let altered = |name: &str, value: Value| {
        let mut todo = todo("1", "z", "b");
        todo[name] = value;
        todo
    };
    let mut done = todo("1", "x", "b");
    done["completed"] = true.into();
    let half_done = done.clone();
    done["completed_at"] = "b".into();

    for (ledger, list) in [
        (&ledger, listed(std::slice::from_ref(&one))),
        (&change, listed(std::slice::from_ref(&one))),
        (&change, listed(&[todo("1", "z", "b")])),
        (&delete, listed(&[])),
        (&complete, listed(&[done])),
    ] {
        assert!(ledger.check(&list).is_ok(), "{list} after {ledger:?}");
    }
    for (ledger, list) in [
        (&ledger, listed(&[])),
        (&ledger, json!({"todos": [one.clone()], "total": 2})),
        (&ledger, listed(&[one.clone(), two.clone()])),
        (&ledger, listed(&[one.clone(), one.clone()])),
        (&ledger, listed(&[one.clone(), todo("0", "x", "a")])),
        (&ledger, listed(&[todo("1", "z", "b")])),
        (&change, listed(&[altered("description", "x".into())])),
        (&change, listed(&[altered("updated_at", "a".into())])),
        (&change, listed(&[])),
        (&complete, listed(&[half_done])),
    ] {
        assert!(ledger.check(&list).is_err(), "{list} after {ledger:?}");
    }
}
