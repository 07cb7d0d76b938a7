//! Reminders while the processes that fire and send them are killed, at random and between the
//! lease of a webhook and the mark of what it received: each fires once, under one id, and is
//! received at least once.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use todo_core::{
    Clock, Core, Secret,
    auth::{self, Caller, Client, Signup},
    todos::{self, Change, ChangeCursor, Due, NewTodo, Reminder, Reminders},
    webhooks,
};
use todo_tests::{App, Database, SECRET, Server, Target, count_rows, fast_clock};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::{Instant, sleep},
};

const USERS: usize = 24;
const TODOS: usize = 3;
/// Minutes before the todos are due.
const MINUTES: [i64; 4] = [0, 1, 2, 3];
/// All reminders.
const ALL: usize = USERS * TODOS * MINUTES.len();
/// A minute takes 3 s, and a lease as well.
const SPEED: i32 = 20;
/// One of so many requests ends with the death of its sender.
const DEADLY: u32 = 30;
/// Webhooks that a process sends to at the same time.
const CONCURRENT: usize = 16;
const LIMIT: Duration = Duration::from_secs(240);

/// The processes and what was received.
struct Site {
    command: Mutex<Command>,
    running: Mutex<Vec<Child>>,
    received: Mutex<HashMap<String, usize>>,
    kills: Mutex<usize>,
    random: Mutex<u32>,
}

impl Site {
    fn start_one(&self) {
        let child = self.command.lock().expect("a lock").spawn().expect("the program runs");
        self.running.lock().expect("a lock").push(child);
    }

    fn random(&self) -> u32 {
        let mut random = self.random.lock().expect("a lock");
        *random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *random >> 8
    }

    /// Kills a process, by its id or any, and starts another one in its place.
    async fn kill(&self, id: Option<u32>) {
        let child = {
            let mut running = self.running.lock().expect("a lock");
            let index = match id {
                Some(id) => running.iter().position(|child| child.id() == Some(id)),
                None => (self.random() as usize).checked_rem(running.len()),
            };
            index.map(|index| running.swap_remove(index))
        };
        // It may have been killed meanwhile, and the next one not be there yet.
        let Some(mut child) = child else { return };
        child.kill().await.expect("it is killed");
        *self.kills.lock().expect("a lock") += 1;
        self.start_one();
    }

    /// Receives a reminder. The sender of some is killed before it has the answer.
    async fn receive(&self, mut stream: TcpStream) {
        let mut line = String::new();
        let read = BufReader::new(&mut stream).read_line(&mut line).await;
        let Some((sender, id)) = line.trim_end().split_once(' ') else { return };
        if read.is_err() || !line.ends_with('\n') {
            return;
        }
        *self.received.lock().expect("a lock").entry(id.to_owned()).or_default() += 1;
        if self.random().is_multiple_of(DEADLY) {
            self.kill(sender.parse().ok()).await;
        } else {
            sleep(Duration::from_millis(u64::from(self.random() % 20))).await;
            // It may have been killed.
            let _ = stream.write_all(b"\n").await;
        }
    }
}

/// A user, and the end of the log when the user had no todo.
type User = (Caller, ChangeCursor);

async fn sign_up(core: &Core) -> Vec<User> {
    let mut users = Vec::new();
    for user in 0..USERS {
        let email = format!("user{user}@example.com");
        let form = Signup::parse(&email, "Correct1horse", "Ada Lovelace").expect("a form");
        let session = auth::signup(core, Client::Trusted, form).await.expect("an account");
        let caller = Caller::trusted(session.user.id);
        let url = "https://hooks.example.com/".parse().expect("a URL");
        webhooks::set(core, &caller, url, None).await.expect("a webhook");
        let page = todos::changes(core, &caller, None, None).await.expect("a page");
        users.push((caller, page.next));
    }
    users
}

/// Creates the todos, which are due at `due`.
async fn fill(core: &Core, users: &[User], due: DateTime<Utc>) {
    let (date, time) = (due.format("%F").to_string(), due.format("%R").to_string());
    for (user, _) in users {
        for _ in 0..TODOS {
            let due = Due::parse(&date, Some(&time), Some("UTC")).expect("a due date");
            let minutes = MINUTES.map(|minutes| Reminder::before(minutes).expect("minutes"));
            let new = NewTodo::new("Call".parse().expect("a title")).due(due);
            let new = new.reminders(Reminders::new(minutes).expect("up to 5"));
            todos::create(core, user, new).await.expect("a todo");
        }
    }
}

/// The ids of the reminders in the logs of the users.
async fn fired(core: &Core, users: Vec<User>) -> Vec<String> {
    let mut ids = Vec::new();
    for (user, mut position) in users {
        loop {
            let page = todos::changes(core, &user, Some(position), None).await.expect("a page");
            position = page.next;
            ids.extend(page.changes.into_iter().filter_map(|change| match change {
                Change::Reminder { reminder } => Some(reminder.id.to_string()),
                _ => None,
            }));
            if !page.has_more {
                break;
            }
        }
    }
    ids
}

async fn survives(database: Database, processes: usize) {
    let mut app = App::start(Target { server: Server::Hyper, database }).await;
    app.stop_server().await.expect("a clean stop");
    let epoch = Clock::system().now().timestamp();
    let secret = Secret::new(SECRET).expect("a secret");
    let core = Core::builder(secret).clock(fast_clock(epoch, SPEED));
    let core = core.open(app.database_url()).await.expect("the database opens");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let receiver = listener.local_addr().expect("an address").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_with-jobs"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.env("DATABASE_URL", app.database_url()).env("RECEIVER", receiver);
    command.env("EPOCH", epoch.to_string()).env("SPEED", SPEED.to_string());
    let site = Arc::new(Site {
        command: Mutex::new(command),
        running: Mutex::default(),
        received: Mutex::default(),
        kills: Mutex::default(),
        random: Mutex::new(u32::try_from(epoch & 0xffff).expect("16 bits")),
    });
    let users = sign_up(&core).await;
    let begun = Instant::now();
    // The first ones are due in 12 to 15 s.
    let minute = fast_clock(epoch, SPEED).now().with_second(0).expect("a minute");
    fill(&core, &users, minute + TimeDelta::minutes(8)).await;
    let open = "SELECT count(*) FROM reminders";
    assert_eq!(count_rows(app.database_url(), open).await, ALL as i64, "none is past");
    for _ in 0..processes {
        site.start_one();
    }
    let receiving = tokio::spawn({
        let site = Arc::clone(&site);
        async move {
            loop {
                let stream = listener.accept().await.expect("a connection").0;
                let site = Arc::clone(&site);
                tokio::spawn(async move { site.receive(stream).await });
            }
        }
    });
    let left = "SELECT (SELECT count(*) FROM reminders WHERE fired_at IS NULL) \
                + (SELECT count(*) FROM webhook_deliveries)";
    loop {
        let left = count_rows(app.database_url(), left).await;
        let received = site.received.lock().expect("a lock").len();
        if left == 0 && received == ALL {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{left} are left, {received} of {ALL} were received");
        sleep(Duration::from_secs(1)).await;
        // Also while none is sent: those that fire are in a transaction.
        if left > 0 && site.random().is_multiple_of(10) {
            site.kill(None).await;
        }
    }
    receiving.abort();
    let kills = *site.kills.lock().expect("a lock");
    let received = site.received.lock().expect("a lock").clone();
    let mut ids = fired(&core, users).await;
    ids.sort();
    let mut found: Vec<String> = received.keys().cloned().collect();
    found.sort();
    assert_eq!((ids.len(), &ids), (ALL, &found), "each fires once, and is received by its id");
    let again: usize = received.values().map(|times| times - 1).sum();
    println!("{database:?}: {kills} kills, {again} of {ALL} again, {:?}", begun.elapsed());
    assert!(kills >= 5 && again <= kills * CONCURRENT, "{again} again by {kills} kills");
    core.close().await;
}

#[ignore = "takes a minute"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_replicas_lose_no_reminder() {
    survives(Database::Postgres, 4).await;
}

#[ignore = "takes a minute"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_on_sqlite_loses_no_reminder() {
    survives(Database::Sqlite, 1).await;
}
