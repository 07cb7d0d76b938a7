//! The listener of `METRICS_ADDRESS`: HTTP/1.1 without TLS, one request per connection, for
//! `/metrics` alone. It has no authentication: the address it listens on controls access.

use std::{convert::Infallible, sync::Arc, time::Duration};

use salvo::{
    conn::http1,
    hyper::{Request, body::Incoming, service::service_fn},
    rt::tokio::{TokioIo, TokioTimer},
};
use todo_core::http::{Api, Peer};
use todo_runtime::{ACCEPT_PAUSE, HEADER_TIMEOUT, METRICS_CONNECTIONS};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

/// Maximum duration of a connection: a request head and its response.
const CONNECTION_TIMEOUT: Duration = HEADER_TIMEOUT.saturating_mul(2);

/// Serves metrics on `listener` until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, api: Api) {
    let permits = Arc::new(Semaphore::new(METRICS_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let peer = Peer::new(address.ip(), false);
        let api = api.clone();
        tokio::spawn(async move {
            let _permit = permit;
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
            // A late or failed scrape is repeated by the scraper.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}
