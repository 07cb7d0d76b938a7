//! Streamed responses, of test routes whose source is the test's: a live stream is no dead client,
//! however long it is silent, and a client that does not read is no live stream. The timeouts of
//! the servers are shortened. Only `todo-server` supports HTTP/2.

mod connections;
mod draining;
mod requests;

use std::{
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture};
use http::{Method, Request, Response, Version, header};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use todo_core::{
    Error,
    http::{Api, with_test_routes},
};
use todo_runtime::{ServeError, Settings, Timeouts};
use todo_tests::{SECRET_SETTING, Server};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, timeout},
};

use self::Protocol::{Http1, Http2};

const CELLS: [(Server, Protocol); 3] =
    [(Server::Salvo, Http1), (Server::Salvo, Http2), (Server::Hyper, Http1)];

/// The time after which a connection without a request is closed, and a client that takes nothing
/// of a response. An idle HTTP/2 connection is aborted after twice as long.
const LIMIT: Duration = Duration::from_secs(1);
/// The time in which something must happen on a busy machine.
const SLACK: Duration = Duration::from_secs(20);

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

/// A response of the API, without a server.
async fn handled(api: &Api, path: &str) -> Response<todo_core::http::Body> {
    let request = Request::get(path).header(header::HOST, "localhost");
    api.handle(request.body(Empty::<Bytes>::new()).expect("a request")).await
}
