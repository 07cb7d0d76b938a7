//! A running server with its own database, stopped and cleaned up on drop.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use todo_runtime::Settings;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    Actor, Client, Server, Target,
    client::causes,
    database::{TestDatabase, execute_sql},
};

/// The `SECRET_KEY` of the servers under test, where a test sets no other.
pub const SECRET: &str = "a secret of more than thirty-two bytes for tests only";

/// [`SECRET`] as a setting.
pub const SECRET_SETTING: (&str, &str) = ("SECRET_KEY", SECRET);

/// Limit for a graceful stop; then the server is aborted.
const STOPPING: Duration = Duration::from_secs(40);

/// A server on 127.0.0.1 at an ephemeral port, in its own thread and runtime.
#[derive(Debug)]
pub struct App {
    target: Target,
    addr: SocketAddr,
    settings: Vec<(String, String)>,
    database: Arc<TestDatabase>,
    stop: Option<oneshot::Sender<()>>,
    outcome: oneshot::Receiver<Result<(), String>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl App {
    /// Starts a server on a new database, with rate limits off.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(target: Target) -> App {
        App::start_with(target, &[]).await
    }

    /// As [`App::start`], with these settings in place of the defaults.
    pub async fn start_with(target: Target, settings: &[(&str, &str)]) -> App {
        match App::try_start_with(target, settings).await {
            Ok(app) => app,
            Err(reason) => panic!("{target:?} did not start: {reason}"),
        }
    }

    /// As [`App::start_with`], for a test in which the start may fail.
    ///
    /// # Errors
    /// The error of the settings or of the server.
    pub async fn try_start_with(target: Target, settings: &[(&str, &str)]) -> Result<App, String> {
        let database = Arc::new(TestDatabase::create(target.database).await);
        let defaults = [
            ("DATABASE_URL", database.url()),
            ("SECRET_KEY", SECRET),
            ("RATE_LIMIT_PER_MINUTE", "0"),
            ("DATABASE_TIMEOUT_MS", "10000"),
            ("DATABASE_POOL_MIN", "0"),
            ("DATABASE_POOL_MAX", "8"),
        ];
        App::launch(target, merged(&defaults, settings), database.clone()).await
    }

    /// A second server on the same database with the same settings, as another process would be.
    pub async fn replica(&self) -> App {
        self.replica_with(&[]).await
    }

    /// As [`App::replica`], with these settings in place of the first server's.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn replica_with(&self, settings: &[(&str, &str)]) -> App {
        let own: Vec<_> = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let launched =
            App::launch(self.target, merged(&own, settings), self.database.clone()).await;
        launched.unwrap_or_else(|reason| panic!("the replica did not start: {reason}"))
    }

    async fn launch(
        target: Target,
        settings: Vec<(String, String)>,
        database: Arc<TestDatabase>,
    ) -> Result<App, String> {
        let parsed = Settings::from_vars(settings.clone()).map_err(causes)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(causes)?;
        let addr = listener.local_addr().map_err(causes)?;
        let (stop, stopped) = oneshot::channel();
        let (done, outcome) = oneshot::channel();
        // The thread keeps a reference: the database must outlive the server.
        let held = database.clone();
        let thread = thread::spawn(move || {
            let _ = done.send(run(target.server, parsed, listener, stopped));
            drop(held);
        });
        let stop = Some(stop);
        let mut app = App { target, addr, settings, database, stop, outcome, thread: Some(thread) };
        app.wait_until_ready().await?;
        Ok(app)
    }

    /// Waits for the first response, or for the error of the start.
    async fn wait_until_ready(&mut self) -> Result<(), String> {
        let client = self.anonymous();
        tokio::select! {
            biased;
            outcome = &mut self.outcome => Err(flattened(outcome).err().unwrap_or("it stopped".into())),
            answer = client.try_send("GET", "/health", &[], "") => match answer {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("GET /health returned {}", answer.status)),
                // The listener closed: the error follows.
                Err(broken) => match timeout(Duration::from_secs(10), &mut self.outcome).await {
                    Ok(outcome) => Err(flattened(outcome).err().unwrap_or(broken)),
                    Err(_) => Err(broken),
                },
            },
        }
    }

    /// The server and the database under test.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The `DATABASE_URL` of the database created for it.
    pub fn database_url(&self) -> &str {
        self.database.url()
    }

    /// The `SECRET_KEY` it runs with.
    pub fn secret(&self) -> &str {
        let secret = self.settings.iter().find(|(name, _)| name == "SECRET_KEY");
        secret.map_or(SECRET, |(_, value)| value)
    }

    /// A client with no token.
    pub fn anonymous(&self) -> Client {
        Client::new(self.addr, None)
    }

    /// A client with no token whose connections come from `source`, a 127.x.y.z address.
    pub fn client_from(&self, source: impl Into<IpAddr>) -> Client {
        Client::new(self.addr, Some(source.into()))
    }

    /// A new user, through the public signup.
    pub async fn signed_up(&self) -> Actor {
        Actor::sign_up(&self.anonymous()).await
    }

    /// Stops the server as a supervisor would, and returns its outcome.
    ///
    /// # Errors
    /// The error of `serve`, or a timeout.
    pub async fn stop(mut self) -> Result<(), String> {
        self.end().await
    }

    /// As [`App::stop`], and keeps the database. A core of the test with a clock of its own needs
    /// this: the jobs of a server run by the system's clock, and delete what is too far from it.
    /// As [`App::delete_jobs`] besides.
    ///
    /// # Errors
    /// As [`App::stop`].
    pub async fn stop_server(&mut self) -> Result<(), String> {
        self.end().await?;
        self.delete_jobs().await;
        Ok(())
    }

    /// Deletes the jobs with their times, which are by the system's clock: a core whose clock is
    /// behind it would not run them. It adds them again.
    pub async fn delete_jobs(&self) {
        execute_sql(self.database_url(), "DELETE FROM jobs").await;
    }

    async fn end(&mut self) -> Result<(), String> {
        self.stop.take();
        flattened((&mut self.outcome).await)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The settings of `defaults`, overridden by those of `other`.
fn merged(defaults: &[(&str, &str)], other: &[(&str, &str)]) -> Vec<(String, String)> {
    let kept = defaults.iter().filter(|(name, _)| other.iter().all(|(other, _)| other != name));
    kept.chain(other).map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Serves until `stopped` resolves (or its sender is dropped), plus [`STOPPING`] at most.
fn run(
    server: Server,
    settings: Settings,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .event_interval(todo_runtime::EVENT_INTERVAL)
        .enable_all()
        .build()
        .map_err(causes)?;
    let outcome = runtime.block_on(async {
        listener.set_nonblocking(true).map_err(causes)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(causes)?;
        let (overdue, late) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
            let _ = overdue.send(());
        };
        let serving = async {
            match server {
                Server::Salvo => {
                    todo_server::serve(settings, listener, shutdown).await.map_err(causes)
                }
                Server::Hyper => {
                    todo_hyper_min::serve(settings, listener, shutdown).await.map_err(causes)
                }
            }
        };
        let limit = async {
            if late.await.is_err() {
                // The server dropped `shutdown` unresolved; its own outcome counts.
                std::future::pending::<()>().await;
            }
            sleep(STOPPING).await;
        };
        tokio::select! {
            biased;
            outcome = serving => outcome,
            () = limit => Err(format!("still serving {STOPPING:?} after the shutdown signal")),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// The server's outcome, or an error if its thread panicked.
fn flattened(outcome: Result<Result<(), String>, oneshot::error::RecvError>) -> Result<(), String> {
    outcome.unwrap_or_else(|_| Err("the server panicked".into()))
}
