//! Overload, with both programs as processes: deliberately slow clients, more connections than file
//! descriptors, and a burst of logins. Other clients are served as before, and the resources held
//! by slow clients are released.
//!
//! Times are compared with a baseline of the same run. A measurement disturbed by a busy machine
//! may be repeated twice.

mod connections;
mod logins;
mod slow_sockets;

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use todo_tests::{Actor, Client, Process, at_once, built, command};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};

/// The timeout of a request head, and of an idle connection by these servers' setting.
const HEAD: Duration = Duration::from_secs(10);
/// Allowed delay of a deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// Lowest bound for a p99, whatever the baseline: the programs are debug builds and share the
/// machine's cores with all clients of this test.
const MIN_BOUND: Duration = Duration::from_millis(50);
/// Length of the measurement for one p99.
const WINDOW: Duration = Duration::from_secs(2);

const PASSWORD: &str = "Correct1horse";
/// A database file in the program's working directory.
const SQLITE: &str = "sqlite://todo.db";

/// Runs a program with a limit of open files; `-S` sets a soft limit, which it can raise itself.
fn with_descriptors(program: &str, dir: &Path, url: &str, limit: &str) -> Command {
    let settings = [
        ("DATABASE_URL", url),
        ("RATE_LIMIT_PER_MINUTE", "0"),
        ("REQUEST_TIMEOUT_SECONDS", "60"),
        ("KEEP_ALIVE_SECONDS", "10"),
        // All sockets of this test come from one address.
        ("MAX_CONNECTIONS_PER_ADDRESS", "8192"),
        // All readers are one user's, and each leaves a chunk of its list unread.
        ("BODY_MEMORY_BYTES", "1073741824"),
    ];
    let mut command = command("bash", dir, &settings);
    command.args(["-c", &format!("ulimit {limit}; exec \"$0\"")]).arg(built(program));
    command
}

/// Number of file descriptors that the server has open.
fn descriptors(server: &Process) -> usize {
    let id = server.child.id().expect("a running process");
    fs::read_dir(format!("/proc/{id}/fd")).expect("a running process").count()
}

async fn signed_up(addr: SocketAddr, email: &str) -> Actor {
    let client = Client::of(addr);
    let account = json!({"email": email, "password": PASSWORD, "name": "Ann Other"});
    let auth = client.post("/api/auth/signup", account).await.expect(201);
    Actor::of(&client, &auth, PASSWORD)
}

/// A well-behaved user who requests one todo again and again, with pauses.
#[derive(Clone)]
struct Healthy {
    actor: Actor,
    path: String,
}

impl Healthy {
    async fn of(actor: &Actor) -> Healthy {
        let todo = actor.todo("Buy milk").await;
        let path = format!("{}/{}", actor.todos(), todo["id"].as_str().expect("an id"));
        Healthy { actor: actor.clone(), path }
    }

    /// The p99 of the response times of four clients that send requests until `over`.
    async fn p99(&self, over: impl Fn() -> bool + Clone + Send + 'static) -> Duration {
        let times = at_once(4, |_| {
            let (healthy, over) = (self.clone(), over.clone());
            async move {
                let mut times = Vec::new();
                while !over() {
                    let start = Instant::now();
                    let answer = healthy.actor.get(&healthy.path).await;
                    times.push(start.elapsed());
                    assert_eq!(answer.status, 200, "{answer}");
                    sleep(Duration::from_millis(5)).await;
                }
                times
            }
        })
        .await;
        let mut times = times.concat();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }

    /// The p99 over one window.
    async fn window_p99(&self) -> Duration {
        let end = Instant::now() + WINDOW;
        self.p99(move || Instant::now() > end).await
    }

    /// The bound for a p99: three times the baseline without load.
    async fn bound(&self) -> Duration {
        let mut best = self.window_p99().await;
        for _ in 0..2 {
            best = best.min(self.window_p99().await);
        }
        MIN_BOUND.max(3 * best)
    }
}
