//! The HTTP contract: from an `http::Request` to an `http::Response`, without a framework, listener
//! or runtime. [`Api::handle`] owns routing, extraction, authentication, status mapping, problem
//! bodies and the headers of every response; a server only has to call it.

use std::{
    convert::Infallible,
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
};
use http_body::Body as HttpBody;
use serde_json::json;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_layer::Layer;
use tower_service::Service;
use uuid::Uuid;

#[cfg(feature = "otlp")]
pub(crate) use self::access_log::TRACE;
pub(crate) use self::budget::{Payer, Reservation};
pub use self::{
    access_log::RequestLog,
    body::{Body, BodyError},
    endpoint::{Access, Endpoint, Statements, endpoints},
    origin::Origin,
    proxies::{OverCapacity, Peer},
    public::PublicUrl,
};
use self::{
    budget::{Budget, UNCHARGED_BYTES},
    database_check::DatabaseCheck,
    endpoint::RequestContext,
    matcher::{Found, Matched, Matcher},
    metrics::Metrics,
    problem::ApiError,
    request::Incoming,
    routes::meta::{self, METRICS},
};
use crate::{
    Core,
    auth::{
        self, Caller,
        events::{self, AuthEvent},
    },
    clock::new_id,
    error::{BoxError, Error},
    request_id,
};

mod access_log;
mod body;
mod budget;
mod database_check;
mod dispatch;
mod endpoint;
mod list;
mod matcher;
mod metrics;
mod openapi;
mod origin;
mod problem;
pub(crate) mod proxies;
mod public;
mod request;
mod respond;
mod routes;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `Content-Security-Policy` of API responses: they are data, and a browser must run none of it.
const API_CONTENT_SECURITY_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Two years, as the preload lists require (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");

/// Options of the API. Start from `ApiOptions::default()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiOptions {
    /// Path prefix of the API's routes. Default: `/api`.
    pub prefix: String,
    /// The path under which the host program serves the API, such as `/todo`. Requests must still
    /// carry it. Default: none.
    pub mount_path: String,
    /// The address under which clients reach the root of the host program, if it is not the one it
    /// listens on. `Location`, the index and the document contain paths below it;
    /// [`ApiOptions::mount_path`] is appended to it. Default: none.
    pub public_url: Option<PublicUrl>,
    /// The API's name in the OpenAPI document and the index. Default: `Todo API`.
    pub name: String,
    /// Origins allowed by CORS. Default: none.
    pub allowed_origins: Vec<Origin>,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted. Default: none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Time limit of a request; beyond it, 504. Default: 30 s.
    pub request_timeout: Duration,
    /// Maximum size of a request body in bytes. Default: 65,536.
    pub max_body_bytes: usize,
    /// Maximum total size in bytes of all bodies in flight, of requests and responses; a quarter of
    /// it for one client address and for one user. Beyond it, 503. At least four times
    /// `max_body_bytes`. Default: 64 MiB.
    pub body_memory_bytes: usize,
    /// Whether plain http is rejected (except for `/health` and the paths below it) and
    /// `Strict-Transport-Security` is sent over https. Default: no.
    pub https_only: bool,
    /// Whether `/metrics` is one of the routes. If not, [`Api::handle_metrics`] serves it on
    /// another listener. Default: yes.
    pub metrics: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            prefix: "/api".into(),
            mount_path: String::new(),
            public_url: None,
            name: "Todo API".into(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            request_timeout: Duration::from_secs(30),
            max_body_bytes: 65_536,
            body_memory_bytes: 64 << 20,
            https_only: false,
            metrics: true,
        }
    }
}

/// The OpenAPI document of an API with these options; needs no database.
#[must_use]
pub fn openapi_document(options: &ApiOptions) -> serde_json::Value {
    openapi::document(options)
}

/// The whole API over a [`Core`]. A cheap clone; also a `tower` service.
///
/// A server passes the client's address as a [`Peer`] in the request's extensions. Without one
/// there is no client address, and rate limits do not apply. A server marks the requests of
/// connections above its limit as [`OverCapacity`].
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
    database_check: Arc<DatabaseCheck>,
}

impl Api {
    /// The API over `core`.
    #[must_use]
    pub fn new(core: Core, mut options: ApiOptions) -> Self {
        options.trusted_proxies = proxies::canonical(options.trusted_proxies);
        Self(Arc::new(Inner {
            matcher: Matcher::new(&options.prefix),
            cors: cors(&options.allowed_origins),
            metrics: Metrics::new().unwrap_or_else(|e| unreachable!("fixed names: {e}")),
            budget: Budget::new(options.body_memory_bytes),
            openapi: OnceLock::new(),
            pages: OnceLock::new(),
            core,
            config: options,
            draining: AtomicBool::new(false),
            database_check: Arc::default(),
        }))
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
        self.0.draining.store(true, Ordering::Relaxed);
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
        let (parts, body) = request.into_parts();
        // HTTP/2 has no such header (RFC 9113, section 8.2.2).
        let is_http1 = parts.version < Version::HTTP_2;
        let is_over_capacity = parts.extensions.get::<OverCapacity>().is_some();
        let log = self.request_log(&parts.method, &parts.headers, parts.extensions.get().copied());
        // Everything logged while the request is handled carries its id.
        let id = Arc::clone(log.shared_request_id());
        // The CORS layer treats every OPTIONS as a preflight and responds before any check.
        let is_cors = parts.headers.contains_key(header::ORIGIN)
            && (parts.method != Method::OPTIONS
                || parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
                    && request::check_request_head(&parts).is_ok());
        if is_cors && parts.method == Method::OPTIONS {
            log.update(|fields| fields.route = self.pattern(&parts.method, &parts.uri));
        }
        let request = Request::from_parts(parts, body);
        let mut response = if is_cors {
            let inner = CorsInner { api: self, log: &log };
            match request_id::scope(id, self.0.cors.layer(inner).call(request)).boxed().await {
                Ok(response) => response,
            }
        } else {
            let mut response = request_id::scope(id, self.respond(request, &log)).await;
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
            response
        };
        self.add_headers(response.headers_mut(), &log);
        if is_http1 && (is_over_capacity || self.is_draining()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let status = response.status();
        if response.body().whole().is_some() {
            log.finish_with(status);
        } else {
            response.body_mut().set_log(log.into_stream_log(self.clone(), status));
        }
        response
    }

    /// Handles a request on the metrics listener: `GET /metrics`, independent of
    /// [`ApiOptions::metrics`] and also over plain http. Anything else is a 404.
    pub fn handle_metrics<B>(&self, request: Request<B>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let log = self.request_log(&parts.method, &parts.headers, parts.extensions.get().copied());
        let found = self.0.matcher.find(&parts.method, parts.uri.path());
        let result = match (request::check_request_head(&parts), found) {
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

    /// Starts the access log entry and metrics of a request that a server handles itself.
    #[must_use]
    pub fn request_log(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> RequestLog<'_> {
        let client = peer.map(|peer| self.client(peer, headers));
        RequestLog::new(&self.0.metrics, self.request_id(headers), method.clone(), headers, client)
    }

    /// The response of a server's own page to a method that is not in `allow`: 204 with `Allow` for
    /// OPTIONS, else 405.
    #[must_use]
    pub fn method_not_allowed(
        &self,
        method: &Method,
        allow: &'static str,
        request_id: &str,
    ) -> Response<Body> {
        let allow = HeaderValue::from_static(allow);
        if method == Method::OPTIONS {
            return respond::options(&allow);
        }
        ApiError::WrongMethod(allow).respond(request_id)
    }

    /// The response that replaces a server's own page, by the rules of every route: the rejection
    /// of an invalid head (RFC 9112, section 3.2), of plain http where https is required, of a
    /// connection over capacity; the redirect of a path with a trailing slash.
    ///
    /// `head` is the request's head, with its [`Peer`] and [`OverCapacity`] in its extensions.
    #[must_use]
    pub fn preempt(&self, head: &http::request::Parts, request_id: &str) -> Option<Response<Body>> {
        let admitted = request::check_request_head(head).and_then(|()| self.admit(head, false));
        if let Err(failure) = admitted {
            return Some(failure.respond(request_id));
        }
        let path = head.uri.path().strip_prefix(&*self.config().mount_path)?;
        without_trailing_slash(path).map(|shorter| self.redirect(shorter, head.uri.query()))
    }

    /// The complete HTTP/1 response, as sent, to a request whose head does not arrive in time or is
    /// rejected for lack of memory.
    #[cfg(feature = "server")]
    pub(crate) fn head_error_response(&self, is_refused: bool) -> Vec<u8> {
        let now = self.core().now();
        let id = new_id(now).to_string();
        let failure = if is_refused { ApiError::BodyMemory } else { ApiError::HeadTimeout };
        let mut response = failure.respond(&id);
        // It is not known here whether the connection is TLS.
        self.add_common_headers(response.headers_mut(), &id, false);
        let date = now.format("%a, %d %b %Y %H:%M:%S GMT");
        let body = response.body().whole().cloned().unwrap_or_default();
        let length = body.len();
        let mut bytes = format!(
            "HTTP/1.1 {}\r\nDate: {date}\r\nConnection: close\r\nContent-Length: {length}\r\n",
            response.status(),
        )
        .into_bytes();
        for (name, value) in response.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Adds the headers of every response to a response that a server makes itself: the request's
    /// id and the browser security headers. A `Content-Security-Policy` that is already set stays.
    ///
    /// `Strict-Transport-Security` is added only if the request came over https (RFC 6797, section
    /// 7.2).
    pub fn add_headers(&self, headers: &mut HeaderMap, log: &RequestLog<'_>) {
        self.add_common_headers(headers, log.request_id(), log.is_https());
    }

    fn add_common_headers(&self, headers: &mut HeaderMap, request_id: &str, is_https: bool) {
        if let Ok(id) = HeaderValue::try_from(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // The browser filter does more harm than good; OWASP recommends turning it off.
        headers.insert(header::X_XSS_PROTECTION, HeaderValue::from_static("0"));
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(API_CONTENT_SECURITY_POLICY);
        if self.config().https_only && is_https {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
        }
    }

    /// The id of a request: the client's, if it is 1 to 128 visible ASCII characters, else a new
    /// one.
    #[must_use]
    pub fn request_id(&self, headers: &HeaderMap) -> String {
        let mut given = headers.get_all(REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(id), None)
                if (1..=128).contains(&id.len())
                    && id.as_bytes().iter().all(u8::is_ascii_graphic) =>
            {
                String::from_utf8_lossy(id.as_bytes()).into_owned()
            }
            _ => new_id(self.core().now()).to_string(),
        }
    }

    async fn respond<'s, B>(&'s self, request: Request<B>, log: &RequestLog<'s>) -> Response<Body>
    where
        B: HttpBody + Send,
        B::Data: Send,
    {
        let (parts, body) = request.into_parts();
        let version = parts.version;
        let is_head = parts.method == Method::HEAD;
        let mut body = pin!(body);
        let waits_for_continue = parts.headers.contains_key(header::EXPECT);
        let mut was_read = false;
        let in_flight = self.0.metrics.start_request();
        let dispatched = AssertUnwindSafe(tokio::time::timeout(
            self.config().request_timeout,
            self.dispatch(&parts, Incoming::new(body.as_mut(), &mut was_read), log),
        ))
        .catch_unwind()
        .await;
        // The head may be large, and the rest of the body may be slow.
        drop(parts);
        let result = match dispatched {
            Ok(Ok(result)) => result,
            Ok(Err(_elapsed)) => Err(ApiError::Timeout),
            Err(_panic) => {
                tracing::error!(request_id = log.request_id(), "a handler panicked");
                Err(ApiError::Panicked)
            }
        };
        if let Some(user_id) = log.fields().user_id {
            log_token_use(log.client(), user_id, &result);
        }
        let mut response = result.unwrap_or_else(|failure| {
            self.0.metrics.record_failure(&failure);
            let mut response = failure.respond(log.request_id());
            if matches!(failure, ApiError::BodyMemory) && version < Version::HTTP_2 {
                // The rest of the request is not read: it would need memory too.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        });
        if is_head {
            respond::strip_body(&mut response);
        }
        // Before the rest of the body is drained: the response is ready now.
        log.update(|fields| fields.duration = Some(log.elapsed()));
        drop(in_flight);
        // Unless the client waits for `100 Continue`, its sender then reads the response.
        if was_read || !waits_for_continue {
            request::drain(body).await;
        }
        response
    }

    async fn dispatch<'s: 'a, 'a>(
        &'s self,
        parts: &'a http::request::Parts,
        body: Incoming<'a>,
        log: &RequestLog<'s>,
    ) -> Result<Response<Body>, ApiError> {
        request::check_request_head(parts)?;
        let _head = self.charge_head(parts, log.client())?;
        if request::is_server_options(&parts.method, &parts.uri) {
            return Ok(respond::options(&HeaderValue::from_static(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )));
        }
        let path = parts.uri.path().strip_prefix(&*self.config().mount_path).unwrap_or_default();
        let found = self.find(&parts.method, path);
        self.admit(parts, found.as_ref().is_some_and(|found| found.is_probe))?;
        let Some(Found { pattern, matched, .. }) = found else {
            let shorter = without_trailing_slash(path).ok_or(ApiError::NoRoute)?;
            let found = self.find(&parts.method, shorter).ok_or(ApiError::NoRoute)?;
            log.update(|fields| fields.route = Some(found.pattern));
            return Ok(self.redirect(shorter, parts.uri.query()));
        };
        log.update(|fields| fields.route = Some(pattern));
        match matched {
            Matched::WrongMethod(allow) => Err(ApiError::WrongMethod(allow.clone())),
            Matched::Options(allow) => Ok(respond::options(allow)),
            Matched::Endpoint(endpoint, params) => {
                let caller = if endpoint.access() == Access::Public {
                    None
                } else {
                    let caller = self.authenticate(parts, log.client())?;
                    log.update(|fields| fields.user_id = Some(caller.user_id()));
                    Some(caller)
                };
                let client = log.client();
                let payer = Payer::new(client, caller.map(|caller| caller.user_id()));
                let max_body = endpoint.policy.max_body(self.config());
                let request =
                    RequestContext { api: self, parts, params, client, payer, body, max_body };
                dispatch::run(endpoint, caller, request).await
            }
        }
    }

    /// Reserves the memory of an unusually large head for as long as its request runs.
    fn charge_head(
        &self,
        parts: &http::request::Parts,
        client: Option<IpAddr>,
    ) -> Result<Option<Reservation>, ApiError> {
        let size = request::head_bytes(parts);
        if size <= UNCHARGED_BYTES {
            return Ok(None);
        }
        let held = self.0.budget.reserve(Payer::new(client, None), size);
        held.map(Some).ok_or(ApiError::BodyMemory)
    }

    /// The budget of the bodies in flight.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Rejects plain http where https is required, and requests of connections over capacity.
    /// Probes are exempt.
    fn admit(&self, parts: &http::request::Parts, is_probe: bool) -> Result<(), ApiError> {
        if self.config().https_only && !is_probe && !self.is_https(parts) {
            return Err(ApiError::HttpsRequired);
        }
        if !is_probe && parts.extensions.get::<OverCapacity>().is_some() {
            return Err(ApiError::Core(Error::Busy));
        }
        Ok(())
    }

    /// A redirect to `path`, below the mount path. It contains no host, which a client may forge.
    fn redirect(&self, path: &str, query: Option<&str>) -> Response<Body> {
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        let location = format!("{}{path}{mark}{query}", self.public_path());
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    /// The caller that the request's token authenticates.
    fn authenticate(
        &self,
        parts: &http::request::Parts,
        client: Option<IpAddr>,
    ) -> Result<Caller, ApiError> {
        match request::bearer(&parts.headers) {
            Ok(token) => Ok(auth::verify_token(self.core(), token, client)?),
            Err(failure) => {
                match failure {
                    ApiError::MissingToken => events::log_missing_token(client),
                    _ => events::failed(AuthEvent::Token, client, None, "malformed header"),
                }
                Err(failure)
            }
        }
    }

    fn is_https(&self, parts: &http::request::Parts) -> bool {
        let peer: Option<&Peer> = parts.extensions.get();
        peer.is_some_and(|peer| self.client(*peer, &parts.headers).is_tls)
    }

    /// The client of a request, behind any number of trusted proxies.
    fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        proxies::client(peer, headers, &self.config().trusted_proxies)
    }

    /// The pattern of the route at a target.
    fn pattern(&self, method: &Method, uri: &http::Uri) -> Option<&str> {
        let path = uri.path().strip_prefix(&*self.config().mount_path).unwrap_or_default();
        self.find(method, path).map(|found| found.pattern)
    }

    /// The route of this listener at a path.
    fn find<'p>(&self, method: &Method, path: &'p str) -> Option<Found<'_, 'p>> {
        let found = self.0.matcher.find(method, path);
        found.filter(|found| self.config().metrics || found.pattern != METRICS)
    }

    fn config(&self) -> &ApiOptions {
        &self.0.config
    }

    /// The public path in front of the routes that are not below the prefix.
    fn public_path(&self) -> String {
        let ApiOptions { public_url, mount_path, .. } = self.config();
        format!("{}{mount_path}", public_url.as_ref().map_or("", PublicUrl::path))
    }

    /// The public path in front of the API's routes.
    fn base_path(&self) -> String {
        format!("{}{}", self.public_path(), self.config().prefix)
    }

    fn openapi(&self) -> Bytes {
        let made = || openapi::document(self.config()).to_string().into();
        self.0.openapi.get_or_init(made).clone()
    }

    fn metrics_text(&self) -> Result<String, Error> {
        let text = self.0.metrics.text(self.core().stats(), &self.0.budget);
        text.map_err(|error| Error::Internal(BoxError::new(error)))
    }

    pub(crate) fn database_check(&self) -> &Arc<DatabaseCheck> {
        &self.0.database_check
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn index(&self) -> Bytes {
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

/// The API as the inner service of the CORS layer.
struct CorsInner<'a, 's> {
    api: &'s Api,
    log: &'a RequestLog<'s>,
}

impl<'a, 's: 'a, B> Service<Request<B>> for CorsInner<'a, 's>
where
    B: HttpBody + Send + 'a,
    B::Data: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'a, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.api;
        let log = self.log;
        Box::pin(async move { Ok(api.respond(request, log).await) })
    }
}

/// Headers allowed by CORS besides the safelisted ones: ours, those of traces (W3C Trace Context),
/// conditional requests, retries and event streams, and one that many clients always send.
const ALLOWED_HEADERS: [HeaderName; 10] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    REQUEST_ID,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-requested-with"),
];

fn cors(origins: &[Origin]) -> CorsLayer {
    let allowed = if origins.iter().any(Origin::is_any) {
        // `*` is invalid with credentials (Fetch standard, 3.2.5): the origin is mirrored instead.
        AllowOrigin::mirror_request()
    } else {
        let origins = origins.to_vec();
        AllowOrigin::predicate(move |header, _| {
            origins.iter().any(|origin| origin.is(header.as_bytes()))
        })
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_credentials(true)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers(ALLOWED_HEADERS)
        .expose_headers([REQUEST_ID, header::LOCATION, header::RETRY_AFTER])
        .max_age(Duration::from_mins(10))
        .vary([header::ORIGIN])
}

/// Logs the outcome of a request with a verified token: by now its session has been checked.
fn log_token_use(client: Option<IpAddr>, user_id: Uuid, result: &Result<Response<Body>, ApiError>) {
    match result {
        Err(ApiError::Core(error @ Error::Unauthenticated)) => {
            events::failed(AuthEvent::Token, client, Some(user_id), events::reason(error));
        }
        // After a server error, it is unknown whether the session is live.
        Err(failure) if failure.status().is_server_error() => {}
        _ => events::succeeded(AuthEvent::Token, client, user_id),
    }
}

/// The path without its trailing slash, if it has one and the rest is more than a slash.
fn without_trailing_slash(path: &str) -> Option<&str> {
    path.strip_suffix('/').filter(|shorter| !matches!(*shorter, "" | "/"))
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{Options, Secret};

    /// The whole future is moved into its task for every request.
    #[tokio::test]
    async fn the_future_of_a_request_is_at_most_3_kib() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let api = Api::new(core, ApiOptions::default());
        let request = Request::new(http_body_util::Full::<Bytes>::default());
        let size = size_of_val(&api.handle(request));
        assert!(size <= 3072, "{size} bytes");
    }
    /// `tests/tests/contract/statements.rs` checks the same on PostgreSQL, counted by the database.
    #[tokio::test]
    async fn a_rejected_request_takes_at_most_two_statements() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let form = auth::Signup::parse("ann@example.com", "Correct1horse", "Ann Other").unwrap();
        let ann = auth::signup(&core, None, form).await.unwrap();
        let form = auth::Signup::parse("bob@example.com", "Correct1horse", "Bob Other").unwrap();
        let bob = auth::signup(&core, None, form).await.unwrap();
        let new = crate::todos::NewTodo {
            title: crate::todos::Title::parse("t").unwrap(),
            description: None,
            priority: crate::todos::Priority::Low,
        };
        let bobs = auth::verify(&core, &bob.token).unwrap();
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
                .header(header::AUTHORIZATION, format!("Bearer {}", ann.token))
                .header(header::CONTENT_TYPE, "application/json")
                .body(http_body_util::Full::<Bytes>::from(body))
                .unwrap();
            crate::db::MADE.set(0);
            assert_eq!(api.handle(request).await.status(), status, "{method} {path}");
            assert_eq!(crate::db::MADE.get(), statements, "{method} {path} {body}");
        }
    }
}
