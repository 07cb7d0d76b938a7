//! The production server, on salvo: TCP or TLS, HTTP/1.1 and HTTP/2, compression, embedded
//! documentation pages, and a graceful shutdown. `todo_core::http` defines the API; salvo's router
//! only forwards requests to it.
#![forbid(unsafe_code)]

use std::{
    convert::Infallible,
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use salvo::{
    Depot, FlowCtrl, Handler, Request, Response, Router, Server, Service, async_trait,
    conn::{Acceptor, ConnCtrl, Listener, rustls::RustlsListener, tcp::TcpAcceptor},
    fuse::FuseConfig,
    http::{ReqBody, ResBody, Version},
    hyper::{
        self,
        body::{Body, Bytes, Frame, SizeHint},
        header::UPGRADE,
    },
    rt::tokio::TokioIo,
};
use todo_core::http::{Api, EnvelopeLayer, OverCapacity, Peer, Upgrade};
use todo_runtime::{
    Admission, HEADER_TIMEOUT, InProgress, OVER_CAPACITY_CONNECTIONS, SHUTDOWN_GRACE, Timeouts,
    TrackedBody,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tower_layer::Layer;
use tower_service::Service as TowerService;

use self::{
    compress::{BufferedCompression, LiveStream},
    connections::{ConnectionTracker, ShutdownAcceptor},
    stall_guard::{CHUNK_BYTES, StallGuardBody},
    tls::Certificate,
};

/// The library and the parts around it, for embedders: [`serve`] and [`router`] take their types.
pub use todo_core;
pub use todo_runtime::{self, ServeError, Settings, Signals};

mod compress;
mod connections;
mod docs;
mod metrics;
pub mod pem;
mod stall_guard;
mod tls;

/// Maximum size and number of headers of a request head: twice the API's limits, so that the API
/// itself rejects larger heads.
const MAX_HEAD_BYTES: u32 = 64 << 10;
const MAX_HEADERS: usize = 128;
/// Maximum number of concurrent HTTP/2 requests per connection: the minimum that RFC 9113
/// recommends (section 6.5.2).
const MAX_STREAMS: u32 = 100;
/// Flow-control window of each stream and of the connection, in bytes: HTTP/2's initial value
/// (RFC 9113, section 6.9.2).
const WINDOW_BYTES: u32 = 65_535;
/// Maximum number of streams reset before they were accepted (h2's default, its mitigation of
/// CVE-2023-44487), and of streams reset by the server for errors of the client.
const MAX_PENDING_RESETS: usize = 20;
const MAX_LOCAL_RESETS: usize = 256;
/// Minimum size of a compressed response. Responses with a token are smaller: a secret is never
/// compressed together with text that the client controls.
const MIN_COMPRESSED_BYTES: usize = 2048;

/// The API and its documentation pages as a salvo router. Every other request goes to the API,
/// which does its own routing and responds with 404 or 405.
///
/// To nest the router under a path, set that path in `ApiOptions::mount_path`.
#[must_use]
pub fn router(api: &Api) -> Router {
    api.link_pages(docs::PAGES);
    let pages = Arc::new(docs::Pages::new(api.mount_path()));
    let is_page = Arc::clone(&pages);
    let documents = Router::with_filter_fn(move |req, _| is_page.serves(req.uri().path()));
    let enclosed = EnvelopeLayer::new(api.clone(), "docs").layer(docs::PagesService(pages));
    let documents = documents.push(Router::with_path("{**rest}").goal(ServiceHandler(enclosed)));
    let rest = Router::with_path("{**rest}").goal(ServiceHandler(api.clone()));
    Router::new().push(documents).push(rest)
}

/// Serves the API on `listener` until `shutdown` completes, continues for `settings.shutdown_delay`
/// while readiness reports draining, then finishes running requests, for at most 25 s.
///
/// `shutdown` is a future, or the [`Signals`] of a process, which also reload the certificate: open
/// connections continue, and new ones use the new certificate.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Into<Signals>,
) -> Result<(), ServeError> {
    let mut signals = shutdown.into();
    // An invalid certificate fails the start before a database is created.
    let tls = certificate(&settings, &mut signals)?;
    match todo_runtime::start(&settings, &mut signals).await? {
        Some(api) => {
            let timeouts = Timeouts::default();
            serve_with(&api, tls, &settings, timeouts, listener, signals).await
        }
        None => Ok(()),
    }
}

/// As [`serve`], with an API that [`Settings::open`] opened; closes its database at the end.
///
/// # Errors
/// As [`serve`], except those of the database.
pub async fn serve_api(
    api: Api,
    settings: Settings,
    timeouts: Timeouts,
    listener: TcpListener,
    shutdown: impl Into<Signals>,
) -> Result<(), ServeError> {
    let mut signals = shutdown.into();
    let tls = certificate(&settings, &mut signals)?;
    serve_with(&api, tls, &settings, timeouts, listener, signals).await
}

/// The certificate of the settings, if they have one.
fn certificate(
    settings: &Settings,
    signals: &mut Signals,
) -> Result<Option<Certificate>, ServeError> {
    let read = settings.tls().map(|files| Certificate::read(files, signals.reloads()));
    read.transpose().map_err(ServeError::Tls)
}

async fn serve_with(
    api: &Api,
    tls: Option<Certificate>,
    settings: &Settings,
    timeouts: Timeouts,
    listener: TcpListener,
    signals: Signals,
) -> Result<(), ServeError> {
    let jobs = todo_runtime::spawn_jobs(api.core());
    let mail = todo_runtime::spawn_mail(api);
    let metrics = todo_runtime::listen_for_metrics(settings).await?;
    let metrics = metrics.map(|listener| tokio::spawn(metrics::serve(listener, api.clone())));
    todo_runtime::log_listening(&listener, settings);
    todo_runtime::set_socket_options(&listener)?;
    let acceptor = TcpAcceptor::try_from(listener)?;
    match tls {
        None => serve_on(acceptor, api, settings, timeouts, signals).await?,
        Some(tls) => {
            let listener = RustlsListener::new(tls, BoundListener(acceptor));
            let acceptor =
                listener.try_bind().await.map_err(|e| ServeError::Tls(io::Error::other(e)))?;
            serve_on(acceptor, api, settings, timeouts, signals).await?;
        }
    }
    todo_runtime::finish_streams(api).await;
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    mail.finish().await;
    drop(jobs);
    api.core().close().await;
    Ok(())
}

async fn serve_on<A: Acceptor<Stream: AsyncRead + AsyncWrite + Unpin> + Send + 'static>(
    acceptor: A,
    api: &Api,
    settings: &Settings,
    timeouts: Timeouts,
    mut signals: Signals,
) -> io::Result<()> {
    let idle_timeout = settings.request_timeout + timeouts.idle_margin;
    let tracker = ConnectionTracker::new(
        Admission::new(settings),
        FuseConfig::strict()
            // The stream enforces this deadline and the one for idle HTTP/1 connections.
            .with_http1_header_timeout(None)
            .with_tls_handshake_timeout(HEADER_TIMEOUT)
            .with_write_stall_timeout(timeouts.write_stall)
            // It would close the connection of a silent live stream. The stream ends idle HTTP/1
            // connections, and the tracker those of HTTP/2.
            .with_connection_idle_timeout(None),
    );
    let service = Service::new(router(api))
        .hoop(TrackConnection(tracker.clone()))
        .hoop(BufferedCompression::min_length(MIN_COMPRESSED_BYTES));

    let (acceptor, close_handle) =
        ShutdownAcceptor::new(acceptor, api.clone(), tracker.clone(), settings.keep_alive);
    let mut server = Server::new(acceptor)
        .fuse_policy(tracker.clone())
        .max_connections(settings.max_connections + OVER_CAPACITY_CONNECTIONS);
    server
        .http1_mut()
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES as usize)
        .max_headers(MAX_HEADERS);
    server
        .http2_mut()
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        // Limits the unread body bytes per stream (the usual maximum of a body) and over all
        // streams of a connection.
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_send_buf_size(CHUNK_BYTES);
    let handle = server.handle();
    let draining = api.clone();
    let delay = settings.shutdown_delay;
    let reaper = tokio::spawn(tracker.clone().reap_idle(idle_timeout));
    let stop = tokio::spawn(async move {
        signals.stop().await;
        todo_runtime::drain(&draining, delay, &mut signals).await;
        tracing::info!("stopping");
        close_handle.close().await;
        handle.stop_graceful(SHUTDOWN_GRACE);
        tracker.close().await;
    });
    let outcome = server.try_serve(service).await;
    reaper.abort();
    stop.abort();
    outcome
}

/// A listener that is already bound: salvo's TLS listener binds its inner one itself.
struct BoundListener(TcpAcceptor);

impl Listener for BoundListener {
    type Acceptor = TcpAcceptor;

    async fn try_bind(self) -> salvo::Result<TcpAcceptor> {
        Ok(self.0)
    }
}

/// Passes a request to a service unchanged, with the peer in its extensions.
struct ServiceHandler<S>(S);

#[async_trait]
impl<S> Handler for ServiceHandler<S>
where
    S: TowerService<
            hyper::Request<ReqBody>,
            Response = hyper::Response<todo_core::http::Body>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
{
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
            // Both services are always ready.
            Ok(mut request) => {
                hand_in_upgrade(&mut request);
                match self.0.clone().call(request).await {
                    Ok(response) => send(res, response),
                }
            }
            // Converting the body into itself does not fail.
            Err(error) => tracing::error!(%error, "a request could not be converted"),
        }
    }
}

/// Hands in the connection of a request that may be upgraded. The tracker counts it as long as its
/// stream is open.
fn hand_in_upgrade(request: &mut hyper::Request<ReqBody>) {
    if request.version() != Version::HTTP_11 || !request.headers().contains_key(UPGRADE) {
        return;
    }
    let in_progress = request.extensions_mut().remove::<InProgress>();
    let upgraded = hyper::upgrade::on(&mut *request);
    let upgraded = async { Ok(TokioIo::new(upgraded.await.map_err(io::Error::other)?)) };
    request.extensions_mut().insert(Upgrade::new(upgraded, in_progress));
}

/// The peer of the connection. `is_tls` follows the connection, not the request target.
fn peer(req: &Request) -> Option<Peer> {
    let address = req.remote_addr().clone().into_std()?.ip();
    Some(Peer::new(address, req.scheme().as_str() == "https"))
}

/// Records each request of a connection, makes it the last on a connection over capacity, and
/// guards HTTP/2 responses against stalled clients. A streamed response is in progress to its end.
struct TrackConnection(ConnectionTracker);

#[async_trait]
impl Handler for TrackConnection {
    async fn handle(
        &self,
        req: &mut Request,
        depot: &mut Depot,
        res: &mut Response,
        ctrl: &mut FlowCtrl,
    ) {
        let multiplexed = req.version() == Version::HTTP_2;
        let address = req.remote_addr().clone().into_std();
        let active = address.and_then(|address| self.0.note_request(address, multiplexed));
        let Some(mut active) = active else {
            ctrl.call_next(req, depot, res).await;
            return;
        };
        let connection = req.extensions().get::<ConnCtrl>().cloned();
        if active.is_over_capacity {
            req.extensions_mut().insert(OverCapacity);
            connection.as_ref().inspect(|connection| connection.graceful_shutdown());
        }
        if req.headers().contains_key(UPGRADE) {
            // An upgraded connection is not idle.
            req.extensions_mut().insert(active.in_progress.clone());
        }
        ctrl.call_next(req, depot, res).await;
        active.mark_answered();
        let size = res.body.size();
        let body = match connection {
            Some(connection) if multiplexed => {
                if size.is_some_and(|size| size <= CHUNK_BYTES as u64) {
                    return;
                }
                let body = res.take_body();
                ResBody::Boxed(Box::pin(StallGuardBody::new(body, connection, active)))
            }
            // A body of known size is written at once.
            _ if size.is_some() => return,
            _ => ResBody::Boxed(Box::pin(TrackedBody::new(res.take_body(), active.in_progress))),
        };
        res.body(body);
    }
}

fn send(res: &mut Response, response: hyper::Response<todo_core::http::Body>) {
    let is_live = response.body().is_live();
    res.merge_hyper(response.map(|body| match body.into_bytes() {
        // salvo distinguishes no body from an empty one; a HEAD response has none.
        Ok(empty) if empty.is_empty() => ResBody::None,
        Ok(bytes) => ResBody::Once(bytes),
        Err(body) => ResBody::Boxed(Box::pin(StreamBody(body))),
    }));
    if is_live {
        res.extensions.insert(LiveStream);
    }
}

/// A streamed body, with the error type that salvo requires.
struct StreamBody(todo_core::http::Body);

impl Body for StreamBody {
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
