//! The API below `/todo` of an axum app that has routes of its own.

use std::{future::Future, net::SocketAddr};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
    middleware::map_request,
    routing::get,
};
use todo_core::{
    Core,
    http::{Api, ApiOptions, Peer},
};
use tokio::net::TcpListener;

use crate::Failure;

/// The app: a route of its own, and the API.
pub fn app(core: Core) -> Router {
    let mut options = ApiOptions::default();
    options.mount = "/todo".into();
    let api = Api::new(core, options);
    // `route_service`, not `nest_service`: that one takes `/todo` off the path, but what the API
    // says of itself (`Location`, the document) has to be true for the client.
    let todo = Router::new()
        .route_service("/todo/", api.clone())
        .route_service("/todo/{*rest}", api)
        .layer(map_request(tell_peer));
    Router::new().route("/", get(async || "the host program's own page\n")).merge(todo)
}

/// Serves the app on `listener` until `shutdown` ends, then finishes what runs.
///
/// # Errors
/// What axum fails with.
pub async fn run(
    core: Core,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let app = app(core.clone()).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
    core.close().await;
    Ok(())
}

/// Tells the API who is asking: the rate limit is kept by this address.
async fn tell_peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(Peer { address: address.ip(), https: false });
    request
}
