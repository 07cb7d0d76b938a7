//! The smallest honest server: an accept loop with a cap, a deadline for request heads, HTTP/1.1,
//! and a graceful stop. What a request means is the contract's (`todo_core::http`).

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use todo_core::{
    http::{Api, Peer, Surplus},
    server::{
        self, ACCEPT_PAUSE, Admission, Answering, GRACE, LateHead, SURPLUS, ServeError, Signals,
        Unanswered, WRITE_STALL,
    },
    settings::Settings,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;

mod metrics;

/// What a connection buffers of a request's head, and how many headers that may have: twice what
/// the contract takes, so that it is the contract that answers.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 128;
/// How long a stop waits for the first request of a connection that has not made one.
const LAST_CALL: Duration = Duration::from_millis(100);

/// Serves the API on `listener` until `shutdown` ends, goes on for `settings.shutdown_delay` while
/// it tells that it drains, then finishes what runs, for at most 25 s.
///
/// `shutdown` is a future, or the [`Signals`] of a process, of which one more ends that delay.
///
/// # Errors
/// [`ServeError`] if the server cannot start.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Into<Signals>,
) -> Result<(), ServeError> {
    if settings.tls.is_some() {
        let why = "todo-hyper-min speaks plain http, todo-server speaks TLS";
        return Err(ServeError::Tls(std::io::Error::other(why)));
    }
    let mut signals = shutdown.into();
    let Some(api) = server::open(&settings, &mut signals).await? else { return Ok(()) };
    let sweep = server::sweep(api.core());
    let metrics = server::listen_for_metrics(&settings).await?;
    let metrics = metrics.map(|listener| tokio::spawn(metrics::serve(listener, api.clone())));
    server::announce(&listener, &settings);

    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(async {
        signals.stop().await;
        server::drain(&api, settings.shutdown_delay, &mut signals).await;
    });
    let places = Arc::new(Semaphore::new(settings.max_connections + SURPLUS));
    let admission = Admission::new(&settings);
    let keep_alive = settings.keep_alive;
    let serve = |stream: TcpStream, address: SocketAddr, permit| {
        // Without a place it is closed here.
        let place = admission.admit(address.ip())?;
        let surplus = place.is_surplus().then_some(Surplus);
        let connection = connection(
            api.clone(),
            stream,
            Client { address, surplus, keep_alive },
            stopping.clone(),
        );
        Some(async move {
            let _held = (permit, place);
            connection.await;
        })
    };
    loop {
        let accepted = async {
            let permit = Arc::clone(&places).acquire_owned().await;
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
    // What the kernel has let in already is served, and not reset by the close. The loop's next
    // accept may wait for the reactor to hear of it; this asks the kernel.
    let waiting = listener.into_std();
    while let (Ok(waiting), Ok(permit)) = (&waiting, Arc::clone(&places).try_acquire_owned()) {
        let Ok((stream, address)) = waiting.accept() else { break };
        match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            Ok(stream) => {
                if let Some(connection) = serve(stream, address, Ok(permit)) {
                    connections.spawn(connection);
                }
            }
            Err(error) => tracing::warn!(%error, "a connection was not taken over"),
        }
    }
    if let Err(error) = &waiting {
        tracing::warn!(%error, "connections that waited are not served");
    }
    drop((waiting, stopping, stop));
    tracing::info!(connections = connections.len(), "stopping");
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finish).await.is_err() {
        tracing::warn!(connections = connections.len(), "cut off after {} s", GRACE.as_secs());
    }
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    drop((connections, sweep));
    api.core().close().await;
    Ok(())
}

/// What is known of a connection when it is accepted.
#[derive(Clone, Copy)]
struct Client {
    address: SocketAddr,
    surplus: Option<Surplus>,
    keep_alive: Duration,
}

/// Serves one connection until it ends, or until `stopping` says that it should.
async fn connection(
    api: Api,
    stream: TcpStream,
    client: Client,
    mut stopping: watch::Receiver<()>,
) {
    let Client { address, surplus, keep_alive } = client;
    // Answers are written whole: there is nothing to wait for before sending them.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL));
    let peer = Peer { address: address.ip(), https: false };
    let unanswered = Unanswered::default();
    let asked = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let in_progress = unanswered.begin();
        request.extensions_mut().insert(peer);
        if let Some(surplus) = surplus {
            request.extensions_mut().insert(surplus);
        }
        let api = api.clone();
        async move {
            let answer = api.handle(request).await;
            Ok::<_, Infallible>(answer.map(|body| Answering::new(body, in_progress)))
        }
    });
    let stream = LateHead::new(
        Box::pin(stream),
        api.clone(),
        Some(peer.address),
        keep_alive,
        unanswered.clone(),
    );
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The stream keeps the deadlines.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        // The sender is dropped to stop.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            // hyper lets go of an idle connection, but waits for the first request of a new one.
            match tokio::time::timeout(LAST_CALL, &mut connection).await {
                Ok(result) => result,
                Err(_) if asked.load(Ordering::Relaxed) => connection.await,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, %address, "a connection ended early");
    }
}
