//! Streams of events on their connections: comments in silence, a client that does not read, and
//! the access log. The times of the servers are shortened. Only `todo-server` supports HTTP/2.

use std::{net::SocketAddr, time::Duration};

use http::Version;
use serde_json::{Value, json};
use todo_core::{
    Core,
    auth::{Caller, Client as AuthClient, Signup},
    http::Api,
    todos::{self, Description, NewTodo},
};
use todo_runtime::{ServeError, Settings, Timeouts};
use todo_tests::{Actor, Client, EventStream, SECRET_SETTING, Server, eventually};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

const CELLS: [(Server, Version); 3] = [
    (Server::Salvo, Version::HTTP_11),
    (Server::Salvo, Version::HTTP_2),
    (Server::Hyper, Version::HTTP_11),
];

/// The time after which an idle connection is closed, and a client that takes nothing of a
/// response.
pub(crate) const LIMIT: Duration = Duration::from_secs(1);
/// The silence after which a stream sends a comment.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(600);
/// The time in which something must happen on a busy machine.
pub(crate) const SLACK: Duration = Duration::from_secs(20);

/// A server with short times on a database in memory, and a user.
pub(crate) struct Site {
    core: Core,
    pub(crate) addr: SocketAddr,
    pub(crate) ann: Actor,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Site {
    pub(crate) async fn start(server: Server) -> Site {
        Site::start_with(server, "8192").await
    }

    /// With this maximum of connections.
    pub(crate) async fn start_with(server: Server, connections: &str) -> Site {
        let settings = Settings::from_vars([
            ("MAX_CONNECTIONS", connections),
            ("DATABASE_URL", "sqlite::memory:"),
            SECRET_SETTING,
            ("KEEP_ALIVE_SECONDS", "1"),
            ("REQUEST_TIMEOUT_SECONDS", "1"),
        ]);
        let settings = settings.expect("valid settings");
        let core = settings.open().await.expect("a database in memory").core().clone();
        let mut options = settings.api_options();
        options.event_heartbeat = HEARTBEAT;
        let api = Api::new(core.clone(), options);
        let form = Signup::parse("ann@example.com", "Correct1horse", "Ann Other");
        let form = form.expect("a form");
        let session = todo_core::auth::signup(&core, AuthClient::Trusted, form).await;
        let session = session.expect("a session");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let mut timeouts = Timeouts::default();
        timeouts.write_stall = LIMIT;
        timeouts.idle_margin = Duration::ZERO;
        let serving = tokio::spawn(async move {
            match server {
                Server::Salvo => {
                    todo_server::serve_api(api, settings, timeouts, listener, stopped).await
                }
                Server::Hyper => {
                    todo_hyper_min::serve_api(api, settings, timeouts, listener, stopped).await
                }
            }
        });
        let user = json!({"id": session.user.id.to_string(), "email": session.user.email.as_str()});
        let auth = json!({"user": user, "token": session.token.as_str()});
        let ann = Actor::of(&Client::of(addr), &auth, "Correct1horse");
        Site { core, addr, ann, stop, serving }
    }

    async fn open(&self, version: Version, query: &str) -> EventStream {
        let opened = EventStream::try_open(self.addr, version, &self.ann, query, &[]).await;
        opened.unwrap_or_else(|answer| panic!("{answer}"))
    }

    fn caller(&self) -> Caller {
        Caller::trusted(self.ann.id().parse().expect("an id"))
    }

    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = Client::of(self.addr).get("/metrics").await.text();
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        let ended = timeout(SLACK, self.serving).await.expect("it stops");
        ended.expect("no panic").expect("a clean end");
    }
}

const OPEN: &str = "change_streams{kind=\"sse\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_sends_comments_and_keeps_its_connection() {
    for (server, version) in CELLS {
        let site = Site::start(server).await;
        let mut stream = site.open(version, "").await;
        assert!(stream.next_block().await.expect("the beginning").id.is_some());
        let began = Instant::now();
        let mut comments = 0;
        // Beyond the request timeout and the time after which an idle connection is aborted.
        while began.elapsed() < 3 * LIMIT {
            let block = stream.next_block().await.expect("a comment");
            assert!(block.is_comment && block.id.is_none(), "{server:?} {version:?}: {block:?}");
            comments += 1;
        }
        let took = began.elapsed().as_secs_f64();
        let most = took / HEARTBEAT.as_secs_f64() + 1.0;
        assert!(comments >= 3 && f64::from(comments) <= most, "{comments} in {took} s");
        site.ann.todo("after a silence").await;
        let event = stream.next().await;
        assert_eq!(event.data.expect("data")["todo"]["title"], "after a silence");
        drop(stream);
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_disconnected_and_its_place_given_back() {
    // More than the buffers of the sockets: some 13 MB.
    const TODOS: usize = 1800;
    for (server, version) in CELLS {
        let site = Site::start(server).await;
        let changes = format!("/api/users/{}/changes", site.ann.id());
        let start = site.ann.get(&changes).await.expect(200)["next"].clone();
        let start = start.as_str().expect("a position");
        let caller = site.caller();
        for _ in 0..TODOS {
            // Control characters, which take six bytes as JSON.
            let new = NewTodo::new("\u{1}".repeat(200).parse().expect("a title"));
            let long = Description::parse(&"\u{1}".repeat(1000)).expect("a description");
            let new = new.description(long);
            todos::create(&site.core, &caller, new).await.expect("a todo");
        }
        let stalled = site.open(version, &format!("?since={start}")).await;
        assert_eq!(site.metric(OPEN).await, Some(1.0));
        sleep(LIMIT / 2).await;
        // One page of 64 KiB is being written, and the next one waits, beside the sockets' buffers.
        let held = site.metric("body_memory_bytes").await.expect("a metric");
        assert!(held < 140_000.0, "{server:?} {version:?}: {held}");
        let is_cut = async || site.metric(OPEN).await == Some(0.0);
        assert!(eventually(SLACK, is_cut).await, "{server:?} {version:?}: it is not disconnected");
        // The connection's own buffers are dropped a moment later.
        let is_free = async || site.metric("body_memory_bytes").await == Some(0.0);
        assert!(eventually(SLACK, is_free).await, "{server:?} {version:?}: memory is held");
        drop(stalled);
        // A client that reads has everything.
        let mut stream = site.open(version, &format!("?since={start}")).await;
        for number in 0..=TODOS {
            let id = stream.next().await.id.expect("an id");
            assert!(id.ends_with(&format!(".{number}")), "{server:?} {version:?}: {id}");
        }
        drop(stream);
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_counted_when_it_ends() {
    const ROUTE: &str =
        r#"http_requests_total{method="GET",route="/api/users/{user_id}/events",status="200"}"#;
    for (server, version) in CELLS {
        let site = Site::start(server).await;
        let mut stream = site.open(version, "").await;
        stream.next().await;
        let left = site.open(version, "").await;
        assert_eq!(site.metric(ROUTE).await, None, "{server:?} {version:?}");
        // A client that leaves, and a regular end.
        drop(left);
        site.ann.post("/api/auth/logout", Value::Null).await.expect(200);
        stream.expect_end("session_ended").await;
        let are_counted = async || site.metric(ROUTE).await == Some(2.0);
        assert!(eventually(SLACK, are_counted).await, "{server:?} {version:?}");
        drop(stream);
        site.stop().await;
    }
}
