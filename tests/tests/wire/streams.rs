//! Streamed responses, of test routes whose source is the test's: a live stream is no dead client,
//! however long it is silent, and a client that does not read is no live stream. The timeouts of
//! the servers are shortened. Only `todo-server` supports HTTP/2.

use std::{
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use todo_core::{
    Error, ErrorChain,
    http::{Api, with_test_routes},
};
use todo_runtime::{ServeError, Settings, Timeouts};
use todo_tests::{SECRET_SETTING, Server};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use self::Protocol::{Http1, Http2};

const CELLS: [(Server, Protocol); 3] =
    [(Server::Salvo, Http1), (Server::Salvo, Http2), (Server::Hyper, Http1)];

/// The time after which a connection without a request is closed, and a client that takes nothing
/// of a response. An idle HTTP/2 connection is aborted after twice as long.
const LIMIT: Duration = Duration::from_secs(1);
/// The time in which something must happen on a busy machine.
const SLACK: Duration = Duration::from_secs(20);
/// Time for a live stream to end by itself in a shutdown.
const LIVE_GRACE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// A stream that a client's response has started.
struct Started {
    chunks: mpsc::Sender<Bytes>,
    dropped: oneshot::Receiver<()>,
}

impl Started {
    async fn send(&self, chunk: &'static str) {
        self.chunks.send(Bytes::from_static(chunk.as_bytes())).await.expect("the stream lives");
    }

    async fn wait_for_drop(&mut self, cell: (Server, Protocol)) {
        let dropped = timeout(SLACK, &mut self.dropped).await;
        dropped.unwrap_or_else(|_| panic!("{cell:?}: the stream is not dropped")).unwrap_err();
    }
}

/// A stream of the chunks that a test sends. It announces itself when it is first polled.
struct Source {
    started: Option<(mpsc::UnboundedSender<Started>, Started)>,
    chunks: mpsc::Receiver<Bytes>,
    /// Completes when the stream ends itself, with a last event.
    end: Option<BoxFuture<'static, ()>>,
    is_done: bool,
    _dropped: oneshot::Sender<()>,
}

impl Source {
    fn new(started: mpsc::UnboundedSender<Started>, end: Option<BoxFuture<'static, ()>>) -> Self {
        let (sender, chunks) = mpsc::channel(1);
        let (_dropped, dropped) = oneshot::channel();
        let started = Some((started, Started { chunks: sender, dropped }));
        Self { started, chunks, end, is_done: false, _dropped }
    }
}

impl Stream for Source {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((announce, started)) = self.started.take() {
            let _ = announce.send(started);
        }
        if self.is_done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(chunk) = self.chunks.poll_recv(cx) {
            return Poll::Ready(chunk.map(Ok));
        }
        let Some(end) = &mut self.end else { return Poll::Pending };
        ready!(end.poll_unpin(cx));
        self.is_done = true;
        Poll::Ready(Some(Ok(Bytes::from_static(b"event: end\n\n"))))
    }
}

/// Whether the streams of a server end themselves when it drains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtDrain {
    Ends,
    Ignores,
}

/// A server with the test routes.
struct Streaming {
    addr: SocketAddr,
    started: mpsc::UnboundedReceiver<Started>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), ServeError>>,
}

fn settings() -> Settings {
    let settings = Settings::from_vars([
        ("DATABASE_URL", "sqlite::memory:"),
        SECRET_SETTING,
        ("KEEP_ALIVE_SECONDS", "1"),
        ("REQUEST_TIMEOUT_SECONDS", "1"),
    ])
    .expect("valid settings");
    assert_eq!((settings.keep_alive, settings.request_timeout), (LIMIT, LIMIT));
    settings
}

fn timeouts() -> Timeouts {
    let mut timeouts = Timeouts::default();
    timeouts.write_stall = LIMIT;
    // An idle HTTP/2 connection has the request timeout and this.
    timeouts.idle_margin = Duration::ZERO;
    timeouts
}

/// The API with the test routes, and the streams that they start.
async fn streaming_api(at_drain: AtDrain) -> (Api, mpsc::UnboundedReceiver<Started>) {
    let api = settings().open().await.expect("a database in memory");
    let (announce, started) = mpsc::unbounded_channel();
    let api = with_test_routes(&api, move |api| {
        let end = (at_drain == AtDrain::Ends).then(|| api.until_draining().boxed());
        Source::new(announce.clone(), end).boxed()
    });
    (api, started)
}

impl Streaming {
    async fn start(server: Server, at_drain: AtDrain) -> Self {
        let (api, started) = streaming_api(at_drain).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(async move {
            match server {
                Server::Salvo => {
                    todo_server::serve_api(api, settings(), timeouts(), listener, stopped).await
                }
                Server::Hyper => {
                    todo_hyper_min::serve_api(api, settings(), timeouts(), listener, stopped).await
                }
            }
        });
        Self { addr, started, stop, serving }
    }

    /// The next stream that a response has started.
    async fn next(&mut self) -> Started {
        timeout(SLACK, self.started.recv()).await.expect("a stream").expect("the server runs")
    }

    /// A response with a live stream that has delivered its first chunk.
    async fn open(&mut self, protocol: Protocol) -> (Connection, Incoming, Started) {
        let mut connection = Connection::open(self.addr, protocol).await;
        let mut body = connection.get("/testing/live").await.into_body();
        let started = self.next().await;
        started.send("first").await;
        assert_eq!(chunk(&mut body).await, "first");
        (connection, body, started)
    }

    /// Stops it, and returns the time that it took.
    async fn stop(self) -> Duration {
        let began = Instant::now();
        let _ = self.stop.send(());
        let ended = timeout(SLACK, self.serving).await.expect("it stops");
        ended.expect("no panic").expect("a clean end");
        began.elapsed()
    }
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// A client's connection.
struct Connection {
    sender: Sender,
    io: JoinHandle<hyper::Result<()>>,
    socket: std::net::TcpStream,
}

impl Connection {
    /// A connection that buffers little: at most 64 KiB in HTTP/2's windows.
    async fn open(addr: SocketAddr, protocol: Protocol) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
        let stream = socket.connect(addr).await.expect("it listens").into_std().expect("a socket");
        let socket = stream.try_clone().expect("a descriptor");
        let stream = TokioIo::new(TcpStream::from_std(stream).expect("a socket"));
        match protocol {
            Http1 => {
                let (sender, io) = http1::handshake(stream).await.expect("a connection");
                Self { sender: Sender::Http1(sender), io: tokio::spawn(io), socket }
            }
            Http2 => {
                let mut client = http2::Builder::new(TokioExecutor::new());
                let client = client.initial_stream_window_size(1 << 16);
                let client = client.initial_connection_window_size(1 << 16);
                let (sender, io) = client.handshake(stream).await.expect("a connection");
                Self { sender: Sender::Http2(sender), io: tokio::spawn(io), socket }
            }
        }
    }

    async fn request(&mut self, method: Method, path: &str) -> Response<Incoming> {
        let mut request = Request::builder().method(method);
        if path.starts_with("/testing") {
            request = request.header(header::ACCEPT_ENCODING, "gzip, br");
        }
        request = match &self.sender {
            Sender::Http1(_) => request.uri(path).header(header::HOST, "localhost"),
            Sender::Http2(_) => {
                request.uri(format!("http://localhost{path}")).version(Version::HTTP_2)
            }
        };
        let request = request.body(Empty::new()).expect("a request");
        let response = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        timeout(SLACK, response).await.expect("a response in time").expect("a response")
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.request(Method::GET, path).await
    }

    async fn text(&mut self, path: &str) -> String {
        let body = self.get(path).await.into_body().collect().await.expect("a body");
        String::from_utf8_lossy(&body.to_bytes()).into_owned()
    }

    /// Closes it at once, as a client that ends.
    fn close(&self) {
        self.socket.shutdown(Shutdown::Both).expect("it is open");
    }

    /// Waits until the server closes it.
    async fn wait_for_close(self) {
        // HTTP/1's may end with an error, if it was closed during a response.
        let _ = timeout(SLACK, self.io).await.expect("it is closed").expect("no panic");
    }
}

/// The next chunk of a response.
async fn chunk(body: &mut Incoming) -> String {
    let frame = timeout(SLACK, body.frame()).await.expect("a chunk in time").expect("a chunk");
    let data = frame.expect("no error").into_data().expect("data");
    String::from_utf8_lossy(&data).into_owned()
}

/// The rest of a response up to its regular end.
async fn rest(body: Incoming) -> String {
    let rest = timeout(SLACK, body.collect()).await.expect("it ends in time");
    String::from_utf8_lossy(&rest.expect("a regular end").to_bytes()).into_owned()
}

/// The value of a metric.
fn metric(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_live_stream_keeps_its_connection_and_an_idle_connection_ends() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let (connection, mut body, started) = streaming.open(protocol).await;
        let mut idle = Connection::open(streaming.addr, protocol).await;
        assert_eq!(idle.get("/health").await.status(), StatusCode::OK);
        idle.wait_for_close().await;
        // Beyond the time after which an HTTP/2 connection is aborted.
        sleep(3 * LIMIT).await;
        assert!(!connection.io.is_finished(), "{server:?} {protocol:?}");
        started.send("second").await;
        assert_eq!(chunk(&mut body).await, "second", "{server:?} {protocol:?}");
        // After its end, the connection is idle, and ends like any other.
        drop(started);
        assert_eq!(rest(body).await, "");
        let ended = Instant::now();
        connection.wait_for_close().await;
        let took = ended.elapsed();
        assert!(took > LIMIT / 2, "{server:?} {protocol:?}: the limit starts anew, not {took:?}");
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_a_live_stream_is_disconnected() {
    // More than what the sockets buffer.
    const MAX_BYTES: usize = 64 << 20;
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let (connection, body, mut started) = streaming.open(protocol).await;
        let chunk = Bytes::from(vec![b'x'; 10_000]);
        let mut taken = 0;
        let fill = async {
            loop {
                tokio::select! {
                    sent = started.chunks.send(chunk.clone()) => match sent {
                        Ok(()) => taken += chunk.len(),
                        Err(_) => break,
                    },
                    _ = &mut started.dropped => break,
                }
                assert!(taken < MAX_BYTES, "{server:?} {protocol:?} buffers without a bound");
            }
        };
        timeout(SLACK, fill).await.expect("the client is disconnected");
        println!("{server:?} {protocol:?} took {taken} bytes");
        drop(body);
        connection.wait_for_close().await;
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_streams_end_themselves_when_the_server_drains() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ends).await;
        let (_connection, body, _started) = streaming.open(protocol).await;
        let (took, rest) = tokio::join!(streaming.stop(), rest(body));
        assert_eq!(rest, "event: end\n\n", "{server:?} {protocol:?}");
        assert!(took < LIVE_GRACE, "{server:?} {protocol:?}: stopped after {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_streams_that_do_not_end_are_ended_early_in_the_grace_period() {
    let stop = |(server, protocol)| async move {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let (_connection, body, started) = streaming.open(protocol).await;
        let (took, rest) = tokio::join!(streaming.stop(), rest(body));
        assert_eq!(rest, "", "{server:?} {protocol:?}");
        assert!(
            took > LIVE_GRACE / 2 && took < 3 * LIVE_GRACE,
            "{server:?} {protocol:?}: stopped after {took:?}"
        );
        drop(started);
    };
    stream::iter(CELLS).map(stop).buffer_unordered(CELLS.len()).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_is_dropped_with_its_client() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        if protocol == Http2 {
            let (mut connection, body, mut started) = streaming.open(protocol).await;
            // This resets the stream, and keeps the connection.
            drop(body);
            started.wait_for_drop((server, protocol)).await;
            assert_eq!(connection.get("/health").await.status(), StatusCode::OK);
        }
        let (connection, body, mut started) = streaming.open(protocol).await;
        connection.close();
        started.wait_for_drop((server, protocol)).await;
        drop(body);
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_does_not_start_a_live_stream() {
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let mut connection = Connection::open(streaming.addr, protocol).await;
        let response = connection.request(Method::HEAD, "/testing/live").await;
        assert_eq!(response.status(), StatusCode::OK);
        let (head, body) = response.into_parts();
        assert_eq!(rest(body).await, "");
        // The connection can be used.
        assert_eq!(connection.get("/health").await.status(), StatusCode::OK);
        assert!(streaming.started.try_recv().is_err(), "{server:?} {protocol:?}: it was started");

        let got = connection.get("/testing/live").await;
        let names = |headers: &HeaderMap| {
            let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
            names.retain(|name| name != "transfer-encoding");
            names.sort();
            names
        };
        assert_eq!(names(&head.headers), names(got.headers()), "{server:?} {protocol:?}");
        // Not compressed, although the client accepts it: each chunk is sent when it is ready.
        assert_eq!(got.headers()[header::CONTENT_TYPE], "text/event-stream");
        assert!(!got.headers().contains_key(header::CONTENT_ENCODING), "{server:?} {protocol:?}");
        streaming.next().await;
        drop(got);
        streaming.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_stream_holds_no_memory_and_is_logged_when_it_ends() {
    const ROUTE: &str = r#"http_requests_total{method="GET",route="/testing/live",status="200"}"#;
    for (server, protocol) in CELLS {
        let mut streaming = Streaming::start(server, AtDrain::Ignores).await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(streaming.open(protocol).await);
        }
        let mut client = Connection::open(streaming.addr, Http1).await;
        let text = client.text("/metrics").await;
        // The response with the metrics is charged after they are read.
        assert_eq!(metric(&text, "body_memory_bytes"), Some(0.0), "{server:?} {protocol:?}");
        assert_eq!(metric(&text, ROUTE), None, "{server:?} {protocol:?}");
        // A regular end, and a client that leaves.
        let (_connection, body, started) = streams.remove(0);
        drop(started);
        rest(body).await;
        for (connection, body, mut started) in streams {
            connection.close();
            drop(body);
            started.wait_for_drop((server, protocol)).await;
        }
        let mut text = String::new();
        let counted = async {
            while metric(&text, ROUTE) != Some(3.0) {
                text = client.text("/metrics").await;
            }
        };
        let counted = timeout(SLACK, counted).await;
        assert!(counted.is_ok(), "{server:?} {protocol:?}: not three requests: {text}");
        streaming.stop().await;
    }
}

/// A response of the API, without a server.
async fn handled(api: &Api, path: &str) -> Response<todo_core::http::Body> {
    let request = Request::get(path).header(header::HOST, "localhost");
    api.handle(request.body(Empty::<Bytes>::new()).expect("a request")).await
}

#[tokio::test]
async fn a_route_has_its_own_deadline_for_its_response_and_each_chunk() {
    let (api, mut started) = streaming_api(AtDrain::Ignores).await;
    tokio::time::pause();
    let began = Instant::now();
    assert_eq!(handled(&api, "/testing/late").await.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(began.elapsed() < settings().request_timeout, "the deadline of all routes");

    let mut body = handled(&api, "/testing/finite").await.into_body();
    assert!(!body.is_live());
    let (first, source) = tokio::join!(body.frame(), async {
        let source = started.recv().await.expect("it is started");
        source.send("").await;
        source.send("first").await;
        source
    });
    let first = first.expect("a chunk").expect("no error").into_data().expect("data");
    assert_eq!(first, "first", "an empty chunk is skipped");
    let began = Instant::now();
    let error = timeout(SLACK, body.frame()).await.expect("it ends");
    let error = error.expect("an error").expect_err("no chunk in time");
    let error = ErrorChain(&error).to_string();
    assert_eq!(error, "the response was cut off: no data in time");
    assert!(began.elapsed() < settings().request_timeout, "the deadline of all routes");
    assert!(body.frame().await.is_none());
    drop(source);
}

#[tokio::test]
async fn a_live_stream_that_is_always_ready_ends_when_the_server_drains() {
    let api = settings().open().await.expect("a database in memory");
    let api = with_test_routes(&api, |_| {
        stream::repeat_with(|| Ok(Bytes::from_static(b"again"))).boxed()
    });
    let mut body = handled(&api, "/testing/live").await.into_body();
    assert!(body.is_live());
    assert_eq!(handled(&api, "/testing/excluded").await.status().as_u16(), 500);
    tokio::time::pause();
    api.until_draining().now_or_never().ok_or(()).expect_err("it does not drain yet");
    api.drain();
    api.until_draining().await;
    let began = Instant::now();
    while body.frame().await.is_some() {
        assert!(began.elapsed() < 2 * LIVE_GRACE);
        sleep(LIVE_GRACE / 10).await;
    }
    assert!(began.elapsed() >= LIVE_GRACE);
}
