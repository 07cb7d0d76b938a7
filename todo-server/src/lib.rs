//! The production server, on salvo: TCP or TLS, HTTP/1.1 and HTTP/2, compression, documentation
//! pages out of the binary, and a graceful stop. What a request means is the contract's
//! (`todo_core::http`); salvo's router only brings requests there.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use salvo::{
    Depot, FlowCtrl, Handler, Request, Response, Router, Server, Service, async_trait,
    conn::{Acceptor, ConnCtrl, Listener, rustls::RustlsListener, tcp::TcpAcceptor},
    fuse::FuseConfig,
    http::{HeaderValue, ReqBody, ResBody, StatusCode, Version, header},
    hyper::{
        body::{Body, Bytes, Frame, SizeHint},
        http::request::Parts,
    },
};
use socket2::SockRef;
use todo_core::{
    http::{Api, Peer, Surplus},
    server::{
        self, Admission, Answering, GRACE, HEADER_TIMEOUT, SURPLUS, ServeError, Signals,
        WRITE_STALL,
    },
    settings::Settings,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};

use self::{
    compress::Whole,
    connections::{Awaited, Closable},
    paced::{PIECE, Paced},
    tls::Certificate,
};

mod compress;
mod connections;
mod docs;
mod metrics;
mod paced;
pub mod pem;
mod tls;

/// What a connection buffers of a request's head, and how many headers that may have: twice what
/// the contract takes, so that it is the contract that answers.
const HEAD_BYTES: u32 = 64 << 10;
const HEADERS: usize = 128;
/// How many requests a connection may have at once over HTTP/2: the least that RFC 9113 advises
/// (section 6.5.2).
const STREAMS: u32 = 100;
/// How much of all its requests' bodies a connection may send before they are read: what HTTP/2 begins
/// with (RFC 9113, section 6.9.2).
const WINDOW: u32 = 65_535;
/// How many requests may be begun and reset before the server has seen them (h2's default, and its
/// answer to CVE-2023-44487), and how many it may have to reset for errors of the client's.
const RESETS: usize = 20;
const LOCAL_RESETS: usize = 256;
/// How long a connection may be silent, and over HTTP/2 without a request, beyond the time that a
/// request may take.
const IDLE: Duration = Duration::from_secs(30);
/// Answers from this size on are compressed for clients that ask for it. Those with a token are
/// smaller: a secret is never compressed together with a client's own text.
const COMPRESS_FROM: usize = 2048;

/// The API and its documentation pages as a salvo router. Everything the documentation does not
/// take goes to the contract, which has routes, 404s and 405s of its own.
///
/// To nest it under a path, tell the API of that path (`ApiOptions::mount`).
#[must_use]
pub fn router(api: &Api) -> Router {
    api.link_pages(docs::PAGES);
    let documents = docs::router(&NotAllowed(api.clone())).hoop(Held(api.clone()));
    let contract = Router::with_path("{**rest}").goal(Contract(api.clone()));
    Router::new().push(documents).push(contract)
}

/// Serves the API on `listener` until `shutdown` ends, goes on for `settings.shutdown_delay` while
/// it tells that it drains, then finishes what runs, for at most 25 s.
///
/// `shutdown` is a future, or the [`Signals`] of a process, which also have it
/// read its certificate again: connections go on, and new ones get the new one.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Into<Signals>,
) -> Result<(), ServeError> {
    let mut signals = shutdown.into();
    // A bad certificate is told before a database is made.
    let tls = settings.tls.clone().map(|files| Certificate::read(files, signals.reloads()));
    let tls = tls.transpose().map_err(ServeError::Tls)?;
    let Some(api) = server::open(&settings, &mut signals).await? else { return Ok(()) };
    let sweep = server::sweep(api.core());
    let metrics = server::listen_for_metrics(&settings).await?;
    let metrics = metrics.map(|listener| tokio::spawn(metrics::serve(listener, api.clone())));
    server::announce(&listener, &settings);

    // Nothing that is sent waits for the client to acknowledge what was sent before. Accepted sockets
    // inherit it.
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    let acceptor = TcpAcceptor::try_from(listener)?;
    match tls {
        None => serve_on(acceptor, &api, &settings, signals).await?,
        Some(tls) => {
            let listener = RustlsListener::new(tls, Bound(acceptor));
            let acceptor =
                listener.try_bind().await.map_err(|e| ServeError::Tls(io::Error::other(e)))?;
            serve_on(acceptor, &api, &settings, signals).await?;
        }
    }
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    drop(sweep);
    api.core().close().await;
    Ok(())
}

async fn serve_on<A: Acceptor<Stream: AsyncRead + AsyncWrite + Unpin> + Send + 'static>(
    acceptor: A,
    api: &Api,
    settings: &Settings,
    mut signals: Signals,
) -> io::Result<()> {
    let patience = settings.request_timeout + IDLE;
    let awaited = Awaited::new(
        Admission::new(settings),
        FuseConfig::strict()
            // A stream keeps this deadline itself, and another for a connection that is idle.
            .with_http1_header_timeout(None)
            .with_tls_handshake_timeout(HEADER_TIMEOUT)
            .with_write_stall_timeout(WRITE_STALL)
            // While a handler works, its connection is idle: a deadline of the request's own, and
            // time to drain its body, come before this.
            .with_connection_idle_timeout(settings.keep_alive.max(settings.request_timeout) + IDLE),
    );
    let service = Service::new(router(api))
        .hoop(Watched(awaited.clone()))
        .hoop(Whole::compressed_from(COMPRESS_FROM));

    let (acceptor, closer) =
        Closable::new(acceptor, api.clone(), awaited.clone(), settings.keep_alive);
    let mut server = Server::new(acceptor)
        .fuse_policy(awaited.clone())
        .max_connections(settings.max_connections + SURPLUS);
    server
        .http1_mut()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES as usize)
        .max_headers(HEADERS);
    server
        .http2_mut()
        .max_header_list_size(HEAD_BYTES)
        .max_concurrent_streams(STREAMS)
        // What a client may send of bodies before they are asked for: a body's usual bound, and over
        // all of a connection's streams no more.
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(PIECE);
    let handle = server.handle();
    let (draining, delay) = (api.clone(), settings.shutdown_delay);
    let idle = tokio::spawn(awaited.clone().end_idle(patience));
    let stop = tokio::spawn(async move {
        signals.stop().await;
        server::drain(&draining, delay, &mut signals).await;
        tracing::info!("stopping");
        closer.close().await;
        handle.stop_graceful(GRACE);
        awaited.close().await;
    });
    let outcome = server.try_serve(service).await;
    idle.abort();
    stop.abort();
    outcome
}

/// A listener that is bound already: salvo's TLS wants to bind the one underneath itself.
struct Bound(TcpAcceptor);

impl Listener for Bound {
    type Acceptor = TcpAcceptor;

    async fn try_bind(self) -> salvo::Result<TcpAcceptor> {
        Ok(self.0)
    }
}

/// Hands a request to the contract as it came: the path literally, the peer beside it.
struct Contract(Api);

#[async_trait]
impl Handler for Contract {
    async fn handle(
        &self,
        req: &mut Request,
        _depot: &mut Depot,
        res: &mut Response,
        _ctrl: &mut FlowCtrl,
    ) {
        if let Some(peer) = peer(req) {
            req.extensions_mut().insert::<Peer>(peer);
        }
        match req.strip_to_hyper::<ReqBody>() {
            Ok(request) => send(res, self.0.handle(request).await),
            // Converting the body into itself does not fail.
            Err(error) => tracing::error!(%error, "a request could not be taken apart"),
        }
    }
}

/// The other end of the connection. Its scheme is the connection's, whatever the target says.
fn peer(req: &Request) -> Option<Peer> {
    let address = req.remote_addr().clone().into_std()?.ip();
    Some(Peer { address, https: req.scheme().as_str() == "https" })
}

/// The head of a request, as the contract takes it.
fn head(req: &Request) -> Parts {
    let mut head = salvo::hyper::Request::new(()).into_parts().0;
    head.method.clone_from(req.method());
    head.uri.clone_from(req.uri());
    head.version = req.version();
    head.headers.clone_from(req.headers());
    if let Some(peer) = peer(req) {
        head.extensions.insert::<Peer>(peer);
    }
    if let Some(surplus) = req.extensions().get::<Surplus>() {
        head.extensions.insert::<Surplus>(*surplus);
    }
    head
}

/// Notes that a connection makes a request, which is its last if there are too many, and watches how
/// it takes an answer over HTTP/2.
struct Watched(Awaited);

#[async_trait]
impl Handler for Watched {
    async fn handle(
        &self,
        req: &mut Request,
        depot: &mut Depot,
        res: &mut Response,
        ctrl: &mut FlowCtrl,
    ) {
        let multiplexed = req.version() == Version::HTTP_2;
        let address = req.remote_addr().clone().into_std();
        let asking = address.and_then(|address| self.0.asks(address, multiplexed));
        let Some(mut asking) = asking else {
            ctrl.call_next(req, depot, res).await;
            return;
        };
        let connection = req.extensions().get::<ConnCtrl>().cloned();
        if asking.is_surplus {
            req.extensions_mut().insert(Surplus);
            connection.as_ref().inspect(|connection| connection.graceful_shutdown());
        }
        ctrl.call_next(req, depot, res).await;
        asking.is_answered();
        let size = res.body.size();
        let body = match connection {
            Some(connection) if multiplexed => {
                if size.is_some_and(|size| size <= PIECE as u64) {
                    return;
                }
                let body = res.take_body();
                ResBody::Boxed(Box::pin(Paced::new(body, connection, asking.since)))
            }
            // What is whole is written at once.
            _ if size.is_some() => return,
            _ => ResBody::Boxed(Box::pin(Answering::new(res.take_body(), asking.in_progress))),
        };
        res.body(body);
    }
}

fn send(res: &mut Response, answer: salvo::hyper::Response<todo_core::http::Body>) {
    res.merge_hyper(answer.map(|body| match body.into_bytes() {
        // To salvo, no body and an empty one are two things; HEAD has none.
        Ok(empty) if empty.is_empty() => ResBody::None,
        Ok(bytes) => ResBody::Once(bytes),
        Err(pieces) => ResBody::Boxed(Box::pin(Pieces(pieces))),
    }));
}

/// A body in pieces, with its error as salvo wants it.
struct Pieces(todo_core::http::Body);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Answers the methods that a page of the documentation does not have.
#[derive(Clone)]
struct NotAllowed(Api);

#[async_trait]
impl Handler for NotAllowed {
    async fn handle(
        &self,
        req: &mut Request,
        _depot: &mut Depot,
        res: &mut Response,
        _ctrl: &mut FlowCtrl,
    ) {
        let id = self.0.request_id(req.headers());
        send(res, self.0.method_not_allowed(req.method(), "GET, HEAD, OPTIONS", &id));
    }
}

/// Holds pages that are not the contract's to what it holds its own to: its guard, https in
/// production, its headers, an end of the connection while it drains. Logs and counts them.
struct Held(Api);

#[async_trait]
impl Handler for Held {
    async fn handle(
        &self,
        req: &mut Request,
        depot: &mut Depot,
        res: &mut Response,
        ctrl: &mut FlowCtrl,
    ) {
        let asked = self.0.asked(req.method(), req.headers(), peer(req));
        // A problem names the same id, whoever made it.
        if let Ok(id) = HeaderValue::try_from(asked.request_id()) {
            req.headers_mut().insert("x-request-id", id);
        }
        match self.0.preempt(&head(req), asked.request_id()) {
            None => drop(ctrl.call_next(req, depot, res).await),
            Some(answer) => {
                send(res, answer);
                ctrl.skip_rest();
            }
        }
        self.0.add_headers(res.headers_mut(), &asked);
        if self.0.is_draining() && req.version() < Version::HTTP_2 {
            res.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        // One label for all of it: the pages are few, and their files are not of interest.
        asked.answered("docs", res.status_code.unwrap_or(StatusCode::OK));
    }
}
