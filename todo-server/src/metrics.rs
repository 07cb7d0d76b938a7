//! The listener of `METRICS_ADDRESS`: HTTP/1.1 without TLS, one request a connection, for `/metrics`
//! alone. It is for operators: where it listens decides who reads it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use salvo::{
    conn::http1,
    hyper::{Request, body::Incoming, service::service_fn},
    rt::tokio::{TokioIo, TokioTimer},
};
use todo_core::{
    http::{Api, Peer},
    server::{ACCEPT_PAUSE, HEADER_TIMEOUT, METRICS_CONNECTIONS},
};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// How long a connection may last: a scrape's head and its answer.
const PATIENCE: Duration = HEADER_TIMEOUT.saturating_mul(2);

/// Answers on `listener` until it is dropped.
pub(crate) async fn serve(listener: TcpListener, api: Api) {
    let places = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let peer = Peer { address: address.ip(), https: false };
        let api = api.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer);
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.handle_metrics(request)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // Late or broken: a scraper asks again.
            let _ = timeout(PATIENCE, connection).await;
        });
    }
}
