//! Copies that are edited offline: the printed lines, lost answers, a database restored from a
//! backup, and random edits on two devices.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use todo_core::{Core, Secret};
use todo_examples::{
    Failure,
    client::{Client, LoggedIn, Problem},
    in_axum,
    offline::{self, Replica},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

/// A server, and a proxy that loses answers.
struct Running {
    address: SocketAddr,
    /// The number of answers still to lose.
    lost: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
    _server: JoinHandle<Result<(), Failure>>,
}

impl Running {
    async fn start(database: &str) -> Self {
        let secret = Secret::new("two copies on a phone and a laptop").unwrap();
        let core = Core::builder(secret).rate_limit_per_minute(0).open(database).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(in_axum::run(core, listener, async { drop(stopped.await) }));
        Self { address, lost: Arc::default(), _stop: stop, _server: server }
    }

    fn client(&self) -> Client {
        Client::new(format!("http://{}/todo", self.address))
    }

    /// A client by way of the proxy.
    async fn unreliable_client(&self) -> Client {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, lost) = (self.address, Arc::clone(&self.lost));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, server, Arc::clone(&lost)));
            }
        });
        Client::new(format!("http://{address}/todo"))
    }
}

/// Forwards a connection; if an answer is to be lost, closes it once the server has answered.
async fn forward(mut client: TcpStream, server: SocketAddr, lost: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(server).await.unwrap();
    loop {
        let mut request = [0; 4096];
        let Ok(length @ 1..) = client.read(&mut request).await else { return };
        server.write_all(&request[..length]).await.unwrap();
        if lost.load(Ordering::Relaxed) > 0 {
            let mut answer = [0; 4096];
            assert!(server.read(&mut answer).await.unwrap() > 0);
            lost.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let mut answer = [0; 4096];
        let Ok(length @ 1..) = server.read(&mut answer).await else { return };
        if client.write_all(&answer[..length]).await.is_err() {
            return;
        }
        if length == answer.len() {
            // A long answer: the rest of the connection is not interrupted.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

async fn ada(client: &Client, email: &str) -> LoggedIn {
    client.sign_up(email, "Correct1horse", "Ada Lovelace").await.unwrap()
}

/// The titles on the server, in order, the completed ones in parentheses.
async fn titles(user: &LoggedIn) -> Vec<String> {
    let page = user.page(500, None).await.unwrap();
    assert_eq!(page.next_cursor, None);
    let text = |todo: todo_examples::client::Todo| {
        if todo.completed { format!("({})", todo.title) } else { todo.title }
    };
    let mut titles: Vec<String> = page.todos.into_iter().map(text).collect();
    titles.sort();
    titles
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_prints_the_expected_lines() {
    let running = Running::start("sqlite::memory:").await;
    let mut out = Vec::new();
    offline::run(ada(&running.client(), "ada@example.com").await, &mut out).await.unwrap();
    let expected = "\
        laptop: Buy milk, Water the plants\n\
        phone, offline: (Call the dentist), (Water the plants), Buy oat milk\n\
        laptop, offline: (Buy soy milk), Water all plants\n\
        not made: title \"Buy soy milk\": it is title \"Buy oat milk\" now\n\
        phone: (Buy oat milk), (Call the dentist), (Water all plants)\n\
        laptop: (Buy oat milk), (Call the dentist), (Water all plants)\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_whose_answer_is_lost_is_made_once() {
    let running = Running::start("sqlite::memory:").await;
    let user = ada(&running.unreliable_client().await, "ada@example.com").await;
    let mut phone = Replica::new(user.clone(), "phone");
    // The answer to each of the requests is lost once: a creation, a read, a change, a deletion.
    for step in ["create", "rename", "complete", "delete"] {
        match step {
            "create" => drop(phone.create("Buy milk")),
            "rename" => phone.rename(&phone.find("Buy milk").unwrap(), "Buy oat milk"),
            "complete" => phone.complete(&phone.find("Buy oat milk").unwrap()),
            _ => phone.delete(&phone.find("Buy oat milk").unwrap()),
        }
        let mut attempts = 0;
        for answers in [1, 2, 0] {
            running.lost.store(answers, Ordering::Relaxed);
            while running.lost.load(Ordering::Relaxed) > 0 {
                phone.sync().await.unwrap_err();
                attempts += 1;
            }
        }
        assert_eq!(attempts, 3, "{step}");
        phone.sync().await.unwrap();
        let expected: &[&str] = match step {
            "create" => &["Buy milk"],
            "rename" => &["Buy oat milk"],
            "complete" => &["(Buy oat milk)"],
            _ => &[],
        };
        assert_eq!((phone.titles(), titles(&user).await), (texts(expected), texts(expected)));
        assert_eq!(phone.take_rejected(), Vec::<String>::new(), "{step}");
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_begins_again_when_the_log_does_not_reach_back() {
    let file = std::env::temp_dir().join(format!("todo-offline-{}.db", std::process::id()));
    let url = format!("sqlite://{}", file.display());
    let running = Running::start(&url).await;
    let user = ada(&running.client(), "ada@example.com").await;
    let mut phone = Replica::new(user.clone(), "phone");
    phone.create("Buy milk");
    phone.sync().await.unwrap();
    // As after a backup was restored.
    todo_core::admin::new_epoch(&url).await.unwrap();
    user.create("Water the plants").await.unwrap();
    let error = phone.sync().await.unwrap_err();
    assert_eq!(error.downcast_ref::<Problem>().unwrap().status, 410);
    phone.sync().await.unwrap();
    assert_eq!(phone.titles(), texts(&["Buy milk", "Water the plants"]));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_converge_whatever_is_edited_and_lost() {
    let running = Running::start("sqlite::memory:").await;
    let client = running.unreliable_client().await;
    for seed in 1..=20_u64 {
        let user = ada(&client, &format!("ada-{seed}@example.com")).await;
        let mut copies =
            [Replica::new(user.clone(), "phone"), Replica::new(user.clone(), "laptop")];
        let mut random = seed;
        let mut next = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).unwrap() % bound
        };
        let mut created = 0;
        for step in 0..60 {
            let copy = &mut copies[next(2)];
            let todos: Vec<String> = copy.ids();
            match next(6) {
                0 | 1 => {
                    created += 1;
                    drop(copy.create(&format!("todo {step}")));
                }
                2 if !todos.is_empty() => copy.rename(&todos[next(todos.len())], &step.to_string()),
                3 if !todos.is_empty() => copy.complete(&todos[next(todos.len())]),
                4 if !todos.is_empty() => copy.delete(&todos[next(todos.len())]),
                _ => {
                    running.lost.store(next(3), Ordering::Relaxed);
                    // It may fail: the edits stay in the queue.
                    let _ = copy.sync().await;
                    running.lost.store(0, Ordering::Relaxed);
                }
            }
        }
        for round in 0..2 {
            for copy in &mut copies {
                copy.sync().await.unwrap_or_else(|error| panic!("{seed}, {round}: {error}"));
            }
        }
        let [phone, laptop] = &copies;
        let on_server = titles(&user).await;
        assert_eq!(phone.titles(), on_server, "{seed}");
        assert_eq!(laptop.titles(), on_server, "{seed}");
        let mut distinct = on_server.clone();
        distinct.retain(|title| title.contains("todo"));
        let count = distinct.len();
        distinct.dedup();
        assert_eq!(distinct.len(), count, "{seed}: a todo was created twice: {on_server:?}");
        assert!(created > 0 && on_server.len() <= created, "{seed}");
    }
}
