//! A minimal but complete server: an accept loop with a connection limit, a deadline for request
//! heads, HTTP/1.1, and a graceful shutdown. `todo_core::http` defines the API.
#![forbid(unsafe_code)]

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Version, body::Incoming, header::UPGRADE, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use todo_core::http::{Api, OverCapacity, Peer, Upgrade};
use todo_runtime::{
    ACCEPT_PAUSE, Admission, ConnectionPermit, HeaderTimeoutStream, OVER_CAPACITY_CONNECTIONS,
    SHUTDOWN_GRACE, Timeouts, TrackedBody, Unanswered,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;

/// The library and the parts around it, for embedders: [`serve`] takes their types.
pub use todo_core;
pub use todo_runtime::{self, ServeError, Settings, Signals};

mod metrics;

/// Maximum size and number of headers of a request head: twice the API's limits, so that the API
/// itself rejects larger heads.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;
/// How long a shutdown waits for the first request of a connection without one.
const CLOSE_GRACE: Duration = Duration::from_millis(100);

/// Serves the API on `listener` until `shutdown` completes, continues for `settings.shutdown_delay`
/// while readiness reports draining, then finishes running requests, for at most 25 s.
///
/// `shutdown` is a future, or the [`Signals`] of a process; a second signal ends that delay.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Into<Signals>,
) -> Result<(), ServeError> {
    if settings.tls().is_some() {
        let why = "todo-hyper-min serves plain http only, use todo-server for TLS";
        return Err(ServeError::Tls(io::Error::other(why)));
    }
    let mut signals = shutdown.into();
    match todo_runtime::start(&settings, &mut signals).await? {
        Some(api) => serve_api(api, settings, Timeouts::default(), listener, signals).await,
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
    let jobs = todo_runtime::spawn_jobs(api.core());
    let mail = todo_runtime::spawn_mail(&api);
    let metrics = todo_runtime::listen_for_metrics(&settings).await?;
    let metrics = metrics.map(|listener| tokio::spawn(metrics::serve(listener, api.clone())));
    todo_runtime::log_listening(&listener, &settings);
    todo_runtime::set_socket_options(&listener)?;

    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(async {
        signals.stop().await;
        todo_runtime::drain(&api, settings.shutdown_delay, &mut signals).await;
    });
    let permits = Arc::new(Semaphore::new(settings.max_connections + OVER_CAPACITY_CONNECTIONS));
    let admission = Admission::new(&settings);
    let keep_alive = settings.keep_alive;
    let write_stall = timeouts.write_stall;
    let serve = |stream: TcpStream, address: SocketAddr, permit| {
        // Without an admission, the connection is closed here.
        let admitted = admission.admit(address.ip())?;
        let over_capacity = admitted.is_over_capacity().then_some(OverCapacity);
        Some(connection(
            api.clone(),
            stream,
            Client { address, over_capacity, keep_alive, write_stall },
            Arc::new(Held { _permit: permit, _admitted: admitted }),
            stopping.clone(),
        ))
    };
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((stream, address)) => {
                    if let Some(connection) = serve(stream, address, permit) {
                        connections.spawn(connection);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Connections in the kernel's backlog are served, not reset by the close. `TcpListener::accept`
    // may wait for an event of the reactor; a non-blocking accept reads the backlog directly.
    let backlog = listener.into_std();
    while let (Ok(backlog), Ok(permit)) = (&backlog, Arc::clone(&permits).try_acquire_owned()) {
        let Ok((stream, address)) = backlog.accept() else { break };
        match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => {
                if let Some(connection) = serve(stream, address, Ok(permit)) {
                    connections.spawn(connection);
                }
            }
            Err(error) => tracing::warn!(%error, "a waiting connection was not accepted"),
        }
    }
    if let Err(error) = &backlog {
        tracing::warn!(%error, "waiting connections were not served");
    }
    drop((backlog, stopping, stop));
    tracing::info!(connections = connections.len(), "stopping");
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_GRACE, finish).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections closed after {} s",
            SHUTDOWN_GRACE.as_secs()
        );
    }
    todo_runtime::finish_streams(&api).await;
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    mail.finish().await;
    drop((connections, jobs));
    api.core().close().await;
    Ok(())
}

/// Connection data available at accept.
#[derive(Clone, Copy)]
struct Client {
    address: SocketAddr,
    over_capacity: Option<OverCapacity>,
    keep_alive: Duration,
    write_stall: Duration,
}

/// What limits the number of connections, held until a connection is closed, be it an upgraded one.
struct Held {
    _permit: Result<OwnedSemaphorePermit, AcquireError>,
    _admitted: ConnectionPermit,
}

/// Serves one connection until it ends, or shuts it down once `stopping` is closed.
async fn connection(
    api: Api,
    stream: TcpStream,
    client: Client,
    held: Arc<Held>,
    mut stopping: watch::Receiver<()>,
) {
    let Client { address, over_capacity, keep_alive, write_stall } = client;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(write_stall));
    let peer = Peer::new(address.ip(), false);
    let unanswered = Unanswered::default();
    let has_request = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        has_request.store(true, Ordering::Relaxed);
        let in_progress = unanswered.begin();
        request.extensions_mut().insert(peer);
        if let Some(over_capacity) = over_capacity {
            request.extensions_mut().insert(over_capacity);
        }
        if request.version() == Version::HTTP_11 && request.headers().contains_key(UPGRADE) {
            let upgraded = hyper::upgrade::on(&mut request);
            let upgraded = async { Ok(TokioIo::new(upgraded.await.map_err(io::Error::other)?)) };
            let held = (in_progress.clone(), Arc::clone(&held));
            request.extensions_mut().insert(Upgrade::new(upgraded, held));
        }
        let api = api.clone();
        async move {
            let response = api.handle(request).await;
            Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, in_progress)))
        }
    });
    let stream = HeaderTimeoutStream::new(
        Box::pin(stream),
        api.clone(),
        Some(peer.address),
        keep_alive,
        unanswered.clone(),
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The stream enforces the deadlines.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        // The sender is dropped at shutdown.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            // hyper closes an idle connection, but waits for the first request of a new one.
            match tokio::time::timeout(CLOSE_GRACE, &mut connection).await {
                Ok(result) => result,
                Err(_) if has_request.load(Ordering::Relaxed) => connection.await,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %address, "a connection ended early");
    }
}
