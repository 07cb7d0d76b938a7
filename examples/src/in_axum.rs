//! The API under `/todo` of an axum app that has other routes.

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

/// The app: one route of the host program, and the API.
pub fn app(core: Core) -> Router {
    let mut options = ApiOptions::default();
    options.mount_path = "/todo".into();
    let api = Api::new(core, options);
    // `route_service`, not `nest_service`, which strips `/todo` from the path: the paths that the
    // API returns (`Location`, the OpenAPI document) must be valid for the client.
    let todo = Router::new()
        .route_service("/todo/", api.clone())
        .route_service("/todo/{*rest}", api)
        .layer(map_request(insert_peer));
    Router::new().route("/", get(async || "the host program's own page\n")).merge(todo)
}

/// Serves the app on `listener` until `shutdown` completes, then finishes running requests.
///
/// # Errors
/// Errors of axum.
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

/// Passes the client's address to the API, which applies rate limits by it.
async fn insert_peer(
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Request {
    request.extensions_mut().insert(Peer::new(address.ip(), false));
    request
}
