//! The API over a core: its options, state and routes. [`Api::handle`] turns a request into a
//! response.

use std::{
    convert::Infallible,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use serde_json::json;
use tokio::sync::Notify;
use tower_http::cors::CorsLayer;
use tower_service::Service;

#[cfg(feature = "testing")]
use crate::http::routes::{self, testing::Source};
use crate::{
    Core,
    error::{BoxError, Error},
    http::{
        ApiOptions, Body, PublicUrl,
        budget::Budget,
        cors,
        database_check::DatabaseCheck,
        endpoint::endpoints,
        envelope, extract,
        matcher::{Found, Matched, Matcher},
        metrics::Metrics,
        openapi,
        problem::ApiError,
        proxies, respond,
        routes::meta::{self, METRICS},
    },
};

/// The whole API over a [`Core`]. A cheap clone; also a `tower` service.
///
/// A server passes the client's address as a [`Peer`](super::Peer) in the request's extensions.
/// Without one there is no client address, and rate limits do not apply. A server marks requests
/// of connections above its limit as [`OverCapacity`](super::OverCapacity).
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    core: Core,
    config: ApiOptions,
    matcher: Matcher,
    cors: CorsLayer,
    metrics: Metrics,
    budget: Budget,
    /// Generated on first use: that takes more memory than the rest of the startup.
    openapi: OnceLock<Bytes>,
    /// The server's own pages: names, and paths below the mount path.
    pages: OnceLock<&'static [(&'static str, &'static str)]>,
    draining: AtomicBool,
    drain_started: Notify,
    database_check: Arc<DatabaseCheck>,
    #[cfg(feature = "testing")]
    test_source: Option<Arc<Source>>,
}

impl Inner {
    fn new(core: Core, mut options: ApiOptions, matcher: Matcher) -> Self {
        options.trusted_proxies = proxies::canonical(options.trusted_proxies);
        Self {
            matcher,
            cors: cors::layer(&options.allowed_origins),
            metrics: Metrics::new(options.dropped_log_lines)
                .unwrap_or_else(|e| unreachable!("fixed names: {e}")),
            budget: Budget::new(options.body_memory_bytes),
            openapi: OnceLock::new(),
            pages: OnceLock::new(),
            core,
            config: options,
            draining: AtomicBool::new(false),
            drain_started: Notify::new(),
            database_check: Arc::default(),
            #[cfg(feature = "testing")]
            test_source: None,
        }
    }
}

impl Api {
    /// The API over `core`.
    #[must_use]
    pub fn new(core: Core, options: ApiOptions) -> Self {
        let matcher = Matcher::new(&options.prefix, endpoints());
        Self(Arc::new(Inner::new(core, options, matcher)))
    }

    /// The same API with test routes, over the same core.
    #[cfg(feature = "testing")]
    pub(crate) fn with_test_routes(&self, source: Arc<Source>) -> Self {
        let options = self.config().clone();
        let routes = endpoints().chain(routes::testing::ENDPOINTS);
        let matcher = Matcher::new(&options.prefix, routes);
        let inner = Inner::new(self.core().clone(), options, matcher);
        Self(Arc::new(Inner { test_source: Some(source), ..inner }))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn test_source(&self) -> Option<&Source> {
        self.0.test_source.as_deref()
    }

    /// The core that this API uses.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.0.core
    }

    /// The path under which the host program serves the API.
    #[must_use]
    pub fn mount_path(&self) -> &str {
        &self.0.config.mount_path
    }

    /// Adds links to the server's own pages to the index: a name and a path below the mount path
    /// each, such as `("docs", "/docs")`. Only the first call has an effect.
    pub fn link_pages(&self, pages: &'static [(&'static str, &'static str)]) {
        // A second router over one API has the same pages.
        let _ = self.0.pages.set(pages);
    }

    /// Starts draining: from now on `GET /health/ready` is a 503, and every HTTP/1 response carries
    /// `Connection: close` (RFC 9112, section 9.6), so that a proxy's next request goes to another
    /// server. All requests are still served.
    pub fn drain(&self) {
        // Ordered with the check of each waiter: it finds the flag set, or is woken.
        self.0.draining.store(true, Ordering::SeqCst);
        self.0.drain_started.notify_waiters();
    }

    /// Completes when [`Api::drain`] is called; at once, if it was called before. A live stream
    /// ends then: its client connects again, to another server.
    pub fn until_draining(&self) -> impl Future<Output = ()> + Send + 'static {
        let api = self.clone();
        async move {
            let started = api.0.drain_started.notified();
            if !api.0.draining.load(Ordering::SeqCst) {
                started.await;
            }
        }
    }

    /// Completes when no stream of changes of the core is open. After [`Api::drain`] they end; one
    /// over a WebSocket is no request in progress, so a server waits for it here.
    pub async fn until_streams_end(&self) {
        self.core().streams().until_all_closed().await;
    }

    /// Whether [`Api::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Handles a request. Every response follows the contract, even after a panic.
    ///
    /// The future may be dropped at any point: started database operations run to completion.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody + Send,
        B::Data: Send,
    {
        envelope::enclose(self, request).await
    }

    /// Handles a request on the metrics listener: `GET /metrics`, independent of
    /// [`ApiOptions::metrics`] and also over plain http. Anything else is a 404.
    pub fn handle_metrics<B>(&self, request: Request<B>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let log = self.request_log(&parts.method, &parts.headers, parts.extensions.get().copied());
        let found = self.0.matcher.find(&parts.method, parts.uri.path());
        let result = match (extract::check_request_head(&parts), found) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Some(Found { pattern: pattern @ METRICS, matched, .. })) => {
                log.update(|fields| fields.route = Some(pattern));
                match matched {
                    Matched::WrongMethod(allow) => Err(ApiError::WrongMethod(allow.clone())),
                    Matched::Options(allow) => Ok(respond::options(allow)),
                    Matched::Endpoint(..) => meta::metrics(self),
                }
            }
            (Ok(()), _) => Err(ApiError::NoRoute),
        };
        let mut response = result.unwrap_or_else(|failure| failure.respond(log.request_id()));
        if parts.method == Method::HEAD {
            respond::strip_body(&mut response);
        }
        self.add_headers(response.headers_mut(), &log);
        log.finish_with(response.status());
        response
    }

    /// The budget of the bodies in flight.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// The route of this listener at a path.
    pub(crate) fn find<'p>(&self, method: &Method, path: &'p str) -> Option<Found<'_, 'p>> {
        let found = self.0.matcher.find(method, path);
        found.filter(|found| self.config().metrics || found.pattern != METRICS)
    }

    pub(crate) fn config(&self) -> &ApiOptions {
        &self.0.config
    }

    /// The public path in front of the routes that are not below the prefix.
    pub(crate) fn public_path(&self) -> String {
        let ApiOptions { public_url, mount_path, .. } = self.config();
        format!("{}{mount_path}", public_url.as_ref().map_or("", PublicUrl::path))
    }

    /// The public path in front of the API's routes.
    pub(crate) fn base_path(&self) -> String {
        format!("{}{}", self.public_path(), self.config().prefix)
    }

    pub(crate) fn openapi(&self) -> Bytes {
        let made = || openapi::openapi_document(self.config()).to_string().into();
        self.0.openapi.get_or_init(made).clone()
    }

    pub(crate) fn metrics_text(&self) -> Result<String, Error> {
        let text = self.0.metrics.text(&self.core().stats(), &self.0.budget);
        text.map_err(|error| Error::Internal(BoxError::new(error)))
    }

    pub(crate) fn cors(&self) -> &CorsLayer {
        &self.0.cors
    }

    pub(crate) fn database_check(&self) -> &Arc<DatabaseCheck> {
        &self.0.database_check
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn index(&self) -> Bytes {
        let path = self.public_path();
        let name = &self.config().name;
        let mut links = json!({
            "health": format!("{path}/health"),
            "readiness": format!("{path}/health/ready"),
            "database_health": format!("{path}/health/db"),
            "metrics": format!("{path}/metrics"),
            "openapi": format!("{path}/openapi.json"),
        });
        if !self.config().metrics
            && let Some(links) = links.as_object_mut()
        {
            links.remove("metrics");
        }
        for (name, page) in self.0.pages.get().copied().unwrap_or_default() {
            links[name] = json!(format!("{path}{page}"));
        }
        let index = json!({
            "message": format!("{name} is running."),
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "links": links,
        });
        index.to_string().into()
    }
}

impl<B> Service<Request<B>> for Api
where
    B: HttpBody + Send + 'static,
    B::Data: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.handle(request).await) })
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use http::header;
    use uuid::Uuid;

    use super::*;
    use crate::{Secret, auth};

    /// The whole future is moved into its task for every request.
    #[tokio::test]
    async fn the_future_of_a_request_is_at_most_3_kib() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
        let api = Api::new(core, ApiOptions::default());
        let request = Request::new(http_body_util::Full::<Bytes>::default());
        let size = size_of_val(&api.handle(request));
        assert!(size <= 3072, "{size} bytes");
    }
    /// `tests/tests/contract/statements.rs` checks the same on PostgreSQL, counted by the database.
    #[tokio::test]
    async fn a_rejected_request_takes_at_most_two_statements() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
        let form = auth::Signup::parse("ann@example.com", "Correct1horse", "Ann Other").unwrap();
        let ann = auth::signup(&core, auth::Client::Trusted, form).await.unwrap();
        let form = auth::Signup::parse("bob@example.com", "Correct1horse", "Bob Other").unwrap();
        let bob = auth::signup(&core, auth::Client::Trusted, form).await.unwrap();
        let new = crate::todos::NewTodo::new("t".parse().unwrap());
        let bobs = auth::authenticate(&core, bob.token.as_str()).await.unwrap();
        let bobs = crate::todos::create(&core, &bobs, new).await.unwrap().id;
        let api = Api::new(core, ApiOptions::default());
        let todos = format!("/api/users/{}/todos", ann.user.id);
        for (method, path, body, status, statements) in [
            ("GET", format!("{todos}/1"), "", 404, 1),
            ("GET", format!("/api/users/{}/todos", bob.user.id), "", 403, 1),
            ("GET", format!("{todos}/{}", Uuid::from_u128(7)), "", 404, 2),
            ("DELETE", format!("{todos}/{}", Uuid::from_u128(7)), "", 404, 2),
            ("GET", format!("{todos}/{bobs}"), "", 403, 2),
            ("PATCH", format!("{todos}/{bobs}"), r#"{"title":"t"}"#, 403, 2),
            ("PATCH", format!("{todos}/{bobs}"), r#"{"title":""}"#, 400, 1),
            ("POST", "/api/auth/logout".to_owned(), "", 200, 1),
            ("GET", format!("{todos}/{bobs}"), "", 401, 2),
            ("GET", format!("{todos}/1"), "", 401, 1),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .header(header::HOST, "localhost")
                .header(header::AUTHORIZATION, format!("Bearer {}", ann.token.as_str()))
                .header(header::CONTENT_TYPE, "application/json")
                .body(http_body_util::Full::<Bytes>::from(body))
                .unwrap();
            crate::db::MADE.set(0);
            assert_eq!(api.handle(request).await.status(), status, "{method} {path}");
            assert_eq!(crate::db::MADE.get(), statements, "{method} {path} {body}");
        }
    }
}
