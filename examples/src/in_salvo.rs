//! The API and its documentation pages below `/todo` of a salvo app that has routes of its own.

use std::{future::Future, time::Duration};

use salvo::{Router, Server, conn::tcp::TcpAcceptor, handler};
use todo_core::{
    Core,
    http::{Api, ApiOptions},
};
use tokio::net::TcpListener;

use crate::Failure;

/// The app: a route of its own, and the API. `todo_server` tells the API who is asking.
#[must_use]
pub fn app(core: Core) -> Router {
    let mut options = ApiOptions::default();
    options.mount = "/todo".into();
    let api = Api::new(core, options);
    Router::new().get(own_page).push(Router::with_path("todo").push(todo_server::router(&api)))
}

/// Serves the app on `listener` until `shutdown` ends, then finishes what runs, for at most 10 s.
///
/// # Errors
/// What salvo fails with.
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
    let ended = server.try_serve(app(core.clone())).await;
    stop.abort();
    core.close().await;
    Ok(ended?)
}

#[handler]
async fn own_page() -> &'static str {
    "the host program's own page\n"
}
