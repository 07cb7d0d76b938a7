//! The API and its documentation pages under `/todo` of a salvo app that has other routes.

use std::{future::Future, time::Duration};

use salvo::{Router, Server, conn::tcp::TcpAcceptor, handler};
use todo_core::{
    Core,
    http::{Api, ApiOptions},
};
use tokio::net::TcpListener;

use crate::Failure;

/// The app: one route of the host program, and the API. `todo_server` passes the client's address.
#[must_use]
pub fn app(core: Core) -> Router {
    let mut options = ApiOptions::default();
    options.mount_path = "/todo".into();
    let api = Api::new(core, options);
    Router::new().get(own_page).push(Router::with_path("todo").push(todo_server::router(&api)))
}

/// Serves the app on `listener` until `shutdown` completes, then finishes running requests, for at
/// most 10 s.
///
/// # Errors
/// Errors of salvo.
pub async fn run(
    core: Core,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    let server = Server::new(TcpAcceptor::try_from(listener)?);
    let handle = server.handle();
    let stop = tokio::spawn(async move {
        shutdown.await;
        handle.stop_graceful(Duration::from_secs(10));
    });
    let result = server.try_serve(app(core.clone())).await;
    stop.abort();
    core.close().await;
    Ok(result?)
}

#[handler]
async fn own_page() -> &'static str {
    "the host program's own page\n"
}
