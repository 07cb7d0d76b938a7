//! The HTTP contract: from an `http::Request` to an `http::Response`, with no framework, listener or
//! runtime in between. [`Api::handle`] owns routing, extraction, authentication, status mapping,
//! problem bodies and the headers every answer carries; a server only has to call it.

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
pub(crate) use self::access::TRACE;
pub(crate) use self::budget::{Held, Payer};
pub use self::{
    access::Asked,
    body::{Body, BodyError},
    origin::Origin,
    proxies::{Peer, Surplus},
    public::PublicUrl,
};
use self::{
    budget::{Budget, FREE},
    database_check::DatabaseCheck,
    handlers::Ask,
    metrics::Metrics,
    problem::Failure,
    request::Incoming,
    routes::{Matched, Matcher},
};
use crate::{
    Core,
    auth::{
        self, Caller,
        events::{self, Attempted},
    },
    clock::new_id,
    error::{Cause, Error},
    request_id,
};

mod access;
mod body;
mod budget;
mod database_check;
mod handlers;
mod list;
mod metrics;
mod openapi;
mod origin;
mod problem;
pub(crate) mod proxies;
mod public;
mod request;
mod routes;

/// The pattern of the route that may be on a listener of its own.
const METRICS: &str = "/metrics";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// An API answer is data; whatever a browser makes of it may do nothing.
const API_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Two years, as the preload lists ask (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");

/// How the API presents itself. Start from `ApiOptions::default()`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApiOptions {
    /// What the API's routes begin with. Default: `/api`.
    pub prefix: String,
    /// A path that the host program serves this under and that requests still carry, such as
    /// `/todo`. Default: none.
    pub mount: String,
    /// Under which address clients reach the root of the host program, if not by the one it listens
    /// on: `Location`, the index and the document name paths below it, and [`ApiOptions::mount`] comes
    /// behind it. Default: none.
    pub public_url: Option<PublicUrl>,
    /// What the document and the index call it. Default: `Todo API`.
    pub name: String,
    /// Origins that a browser may call from. Default: none.
    pub allowed_origins: Vec<Origin>,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Default: none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How long a request may take before it is answered with 504. Default: 30 s.
    pub request_timeout: Duration,
    /// The most bytes a body may have. Default: 65,536.
    pub max_body_bytes: usize,
    /// The most bytes that all bodies in flight may have together, those of requests and those of
    /// answers; a client address and a user may each have a quarter. Beyond it, 503. At least four
    /// times `max_body_bytes`. Default: 64 MiB.
    pub body_memory_bytes: usize,
    /// Whether plain http is refused (`/health` and what is below it excepted), and
    /// `Strict-Transport-Security` sent over https.
    /// Default: no.
    pub https_only: bool,
    /// Whether `/metrics` is among the routes. Where it is not, [`Api::handle_metrics`] answers it
    /// on another listener. Default: yes.
    pub metrics: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            prefix: "/api".into(),
            mount: String::new(),
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

/// The OpenAPI document as `options` present the API, without a database.
#[must_use]
pub fn openapi_document(options: &ApiOptions) -> serde_json::Value {
    openapi::document(options)
}

/// The whole API over a [`Core`]. A cheap clone; also a `tower` service.
///
/// A server tells it who is asking by putting a [`Peer`] into the request's extensions. Without one
/// there is no client address, and no rate limit is kept. A server with more connections than it
/// wants marks the requests of those beyond as [`Surplus`].
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    core: Core,
    config: ApiOptions,
    matcher: Matcher,
    cors: CorsLayer,
    metrics: Metrics,
    budget: Budget,
    /// Made when first asked for: making it takes more memory than all else at the start.
    openapi: OnceLock<Bytes>,
    /// Pages that the server has beside the API: their names and their paths below the mount.
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

    /// The core underneath.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.0.core
    }

    /// The path that the host program serves this under.
    #[must_use]
    pub fn mount(&self) -> &str {
        &self.0.config.mount
    }

    /// Names pages that a server has beside the API, for the index to link: each by a name and its
    /// path below the mount, such as `("docs", "/docs")`. The first call counts.
    pub fn link_pages(&self, pages: &'static [(&'static str, &'static str)]) {
        // A second router over one API has the same pages.
        let _ = self.0.pages.set(pages);
    }

    /// Says from now on that new work should go elsewhere: `GET /health/ready` is a 503, and every
    /// answer over HTTP/1 asks for its connection to be closed (RFC 9112, section 9.6), so that a
    /// proxy's next request goes to another server. All requests are still answered.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Api::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Answers a request. Every answer, the worst included, is one of the contract.
    ///
    /// It may be dropped at any point: what it started on the database runs on to its end.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody + Send,
        B::Data: Send,
    {
        let (parts, body) = request.into_parts();
        // HTTP/2 has no such header (RFC 9113, section 8.2.2).
        let is_http1 = parts.version < Version::HTTP_2;
        let is_surplus = parts.extensions.get::<Surplus>().is_some();
        let asked = self.asked(&parts.method, &parts.headers, parts.extensions.get().copied());
        // Whatever is logged on the way has the request's id.
        let id = Arc::clone(asked.shared_id());
        // The CORS layer takes every OPTIONS for a preflight, and answers it before any guard.
        let is_cors = parts.headers.contains_key(header::ORIGIN)
            && (parts.method != Method::OPTIONS
                || parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
                    && request::guard(&parts).is_ok());
        if is_cors && parts.method == Method::OPTIONS {
            asked.see(|seen| seen.route = self.pattern(&parts.method, &parts.uri));
        }
        let request = Request::from_parts(parts, body);
        let mut response = if is_cors {
            let answer = Answer { api: self, asked: &asked };
            match request_id::scope(id, self.0.cors.layer(answer).call(request)).boxed().await {
                Ok(response) => response,
            }
        } else {
            let mut response = request_id::scope(id, self.answer(request, &asked)).await;
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
            response
        };
        self.add_headers(response.headers_mut(), &asked);
        if is_http1 && (is_surplus || self.is_draining()) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let status = response.status();
        if response.body().whole().is_some() {
            asked.end(status);
        } else {
            response.body_mut().answers(asked.goes_on(self.clone(), status));
        }
        response
    }

    /// Answers a request on a listener that is for metrics alone: `GET /metrics`, whatever
    /// [`ApiOptions::metrics`] says, over plain http as well. Anything else is a 404.
    pub fn handle_metrics<B>(&self, request: Request<B>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let asked = self.asked(&parts.method, &parts.headers, parts.extensions.get().copied());
        let found = self.0.matcher.find(&parts.method, parts.uri.path());
        let answer = match (request::guard(&parts), found) {
            (Err(failure), _) => Err(failure),
            (Ok(()), Some((pattern @ METRICS, matched))) => {
                asked.see(|seen| seen.route = Some(pattern));
                match matched {
                    Matched::WrongMethod(allow) => Err(Failure::WrongMethod(allow.clone())),
                    Matched::Options(allow) => Ok(options(allow)),
                    Matched::Operation { .. } => handlers::metrics(self),
                }
            }
            (Ok(()), _) => Err(Failure::NoRoute),
        };
        let mut response = answer.unwrap_or_else(|failure| failure.respond(asked.request_id()));
        if parts.method == Method::HEAD {
            strip_body(&mut response);
        }
        self.add_headers(response.headers_mut(), &asked);
        asked.end(response.status());
        response
    }

    /// Begins a request that a server answers itself, for the access log and the metrics.
    #[must_use]
    pub fn asked(&self, method: &Method, headers: &HeaderMap, peer: Option<Peer>) -> Asked<'_> {
        let client = peer.map(|peer| self.client(peer, headers));
        Asked::new(&self.0.metrics, self.request_id(headers), method.clone(), headers, client)
    }

    /// The answer where a server has something of its own at a path and the method is not among
    /// those of `allow`: OPTIONS is told, anything else is a 405.
    #[must_use]
    pub fn method_not_allowed(
        &self,
        method: &Method,
        allow: &'static str,
        request_id: &str,
    ) -> Response<Body> {
        let allow = HeaderValue::from_static(allow);
        if method == Method::OPTIONS {
            return options(&allow);
        }
        Failure::WrongMethod(allow).respond(request_id)
    }

    /// The answer that comes before one that a server makes itself, by the rules of every route: the
    /// refusal of a bad head (RFC 9112, section 3.2), of plain http where https is required, of a
    /// connection too many; the redirect of a path with one trailing slash too many.
    ///
    /// `head` is that of the request, with its [`Peer`] and [`Surplus`] in its extensions.
    #[must_use]
    pub fn preempt(&self, head: &http::request::Parts, request_id: &str) -> Option<Response<Body>> {
        let admitted = request::guard(head).and_then(|()| self.admit(head, false));
        if let Err(failure) = admitted {
            return Some(failure.respond(request_id));
        }
        let path = head.uri.path().strip_prefix(&*self.config().mount)?;
        without_slash(path).map(|shorter| self.redirect(shorter, head.uri.query()))
    }

    /// All of the answer to a request of HTTP/1 whose head does not arrive in time, or is refused for
    /// want of memory, as it is sent.
    #[cfg(feature = "server")]
    pub(crate) fn without_head(&self, is_refused: bool) -> Vec<u8> {
        let now = self.core().now();
        let id = new_id(now).to_string();
        let failure = if is_refused { Failure::BodyMemory } else { Failure::HeadTimeout };
        let mut response = failure.respond(&id);
        // Whether the connection is TLS is not known here.
        self.add_common_headers(response.headers_mut(), &id, false);
        let date = now.format("%a, %d %b %Y %H:%M:%S GMT");
        let body = response.body().whole().cloned().unwrap_or_default();
        let length = body.len();
        let mut answer = format!(
            "HTTP/1.1 {}\r\nDate: {date}\r\nConnection: close\r\nContent-Length: {length}\r\n",
            response.status(),
        )
        .into_bytes();
        for (name, value) in response.headers() {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                answer.extend_from_slice(part);
            }
        }
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(&body);
        answer
    }

    /// Adds the headers that every answer carries, for answers that a server makes itself: the
    /// request's id and those that keep browsers from misusing an answer. What is set already stays.
    ///
    /// `Strict-Transport-Security` is among them only if the request came over https (RFC 6797,
    /// section 7.2).
    pub fn add_headers(&self, headers: &mut HeaderMap, asked: &Asked<'_>) {
        self.add_common_headers(headers, asked.request_id(), asked.is_https());
    }

    fn add_common_headers(&self, headers: &mut HeaderMap, request_id: &str, is_https: bool) {
        if let Ok(id) = HeaderValue::try_from(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // The filter it would turn on does harm; OWASP's advice is to turn it off.
        headers.insert(header::X_XSS_PROTECTION, HeaderValue::from_static("0"));
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(API_POLICY);
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

    async fn answer<'s, B>(&'s self, request: Request<B>, asked: &Asked<'s>) -> Response<Body>
    where
        B: HttpBody + Send,
        B::Data: Send,
    {
        let (parts, body) = request.into_parts();
        let (version, is_head) = (parts.version, parts.method == Method::HEAD);
        let mut body = pin!(body);
        let mut body = Incoming::new(body.as_mut(), &parts.headers);
        let in_flight = self.0.metrics.begin();
        let dispatched = AssertUnwindSafe(tokio::time::timeout(
            self.config().request_timeout,
            self.dispatch(&parts, &mut body, asked),
        ))
        .catch_unwind()
        .await;
        // It may be large, and the rest of the body may be slow.
        drop(parts);
        let answer = match dispatched {
            Ok(Ok(answer)) => answer,
            Ok(Err(_elapsed)) => Err(Failure::Timeout),
            Err(_panic) => {
                tracing::error!(request_id = asked.request_id(), "a handler panicked");
                Err(Failure::Panicked)
            }
        };
        if let Some(user_id) = asked.seen().user_id {
            log_session(asked.client(), user_id, &answer);
        }
        let mut response = answer.unwrap_or_else(|failure| {
            self.0.metrics.failed(&failure);
            let mut response = failure.respond(asked.request_id());
            if matches!(failure, Failure::BodyMemory) && version < Version::HTTP_2 {
                // What is left of the request is not worth its memory.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        });
        if is_head {
            strip_body(&mut response);
        }
        // Before the rest of the body is drained: the answer is ready now.
        asked.see(|seen| seen.took = Some(asked.elapsed()));
        drop(in_flight);
        body.drain().await;
        response
    }

    async fn dispatch<'s, B>(
        &'s self,
        parts: &http::request::Parts,
        body: &mut Incoming<'_, B>,
        asked: &Asked<'s>,
    ) -> Result<Response<Body>, Failure>
    where
        B: HttpBody + Send,
        B::Data: Send,
    {
        request::guard(parts)?;
        let _head = self.charge_head(parts, asked.client())?;
        if request::is_server_options(&parts.method, &parts.uri) {
            return Ok(options(&HeaderValue::from_static(
                "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )));
        }
        let path = parts.uri.path().strip_prefix(&*self.config().mount).unwrap_or_default();
        let found = self.find(&parts.method, path);
        let is_probe = matches!(found, Some((pattern, _)) if routes::is_probe(pattern));
        self.admit(parts, is_probe)?;
        let Some((pattern, matched)) = found else {
            let shorter = without_slash(path).ok_or(Failure::NoRoute)?;
            let (pattern, _) = self.find(&parts.method, shorter).ok_or(Failure::NoRoute)?;
            asked.see(|seen| seen.route = Some(pattern));
            return Ok(self.redirect(shorter, parts.uri.query()));
        };
        asked.see(|seen| seen.route = Some(pattern));
        match matched {
            Matched::WrongMethod(allow) => Err(Failure::WrongMethod(allow.clone())),
            Matched::Options(allow) => Ok(options(allow)),
            Matched::Operation { operation, auth, ids } => {
                let caller = if auth {
                    let caller = self.caller(parts, asked.client())?;
                    asked.see(|seen| seen.user_id = Some(caller.user_id()));
                    Some(caller)
                } else {
                    None
                };
                let payer = Payer::new(asked.client(), caller.map(|caller| caller.user_id()));
                handlers::run(self, operation, caller, Ask { parts, ids, body, payer }).await
            }
        }
    }

    /// Holds what a head of more than usual size takes, as long as its request runs.
    fn charge_head(
        &self,
        parts: &http::request::Parts,
        client: Option<IpAddr>,
    ) -> Result<Option<Held>, Failure> {
        let size = request::head_bytes(parts);
        if size <= FREE {
            return Ok(None);
        }
        let held = self.0.budget.take(Payer::new(client, None), size);
        held.map(Some).ok_or(Failure::BodyMemory)
    }

    /// The budget of the bodies in flight.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Refuses what may not come in whatever it asks for: plain http where https is required, and
    /// requests of connections too many. Probes pass.
    fn admit(&self, parts: &http::request::Parts, is_probe: bool) -> Result<(), Failure> {
        if self.config().https_only && !is_probe && !self.is_https(parts) {
            return Err(Failure::HttpsRequired);
        }
        if !is_probe && parts.extensions.get::<Surplus>().is_some() {
            return Err(Failure::Core(Error::Busy));
        }
        Ok(())
    }

    /// Leads to `path`, which is below the mount. The host is not named: a client may have chosen it.
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

    /// Who the request's token stands for.
    fn caller(
        &self,
        parts: &http::request::Parts,
        client: Option<IpAddr>,
    ) -> Result<Caller, Failure> {
        match request::bearer(&parts.headers) {
            Ok(token) => Ok(auth::prove(self.core(), token, client)?),
            Err(failure) => {
                match failure {
                    Failure::NoToken => events::absent(client),
                    _ => events::failed(Attempted::Token, client, None, "malformed header"),
                }
                Err(failure)
            }
        }
    }

    fn is_https(&self, parts: &http::request::Parts) -> bool {
        let peer: Option<&Peer> = parts.extensions.get();
        peer.is_some_and(|peer| self.client(*peer, &parts.headers).https)
    }

    /// Who asks, behind however many trusted proxies.
    fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        proxies::client(peer, headers, &self.config().trusted_proxies)
    }

    pub(crate) fn client_ip(&self, parts: &http::request::Parts) -> Option<IpAddr> {
        let peer: &Peer = parts.extensions.get()?;
        Some(self.client(*peer, &parts.headers).address)
    }

    /// The pattern of the route at a target.
    fn pattern(&self, method: &Method, uri: &http::Uri) -> Option<&str> {
        let path = uri.path().strip_prefix(&*self.config().mount).unwrap_or_default();
        self.find(method, path).map(|(pattern, _)| pattern)
    }

    /// What is at a path of this listener.
    fn find<'p>(&self, method: &Method, path: &'p str) -> Option<(&str, Matched<'_, 'p>)> {
        let found = self.0.matcher.find(method, path);
        found.filter(|(pattern, _)| self.config().metrics || *pattern != METRICS)
    }

    fn config(&self) -> &ApiOptions {
        &self.0.config
    }

    /// What a client puts before the paths of the table of routes that are not below the prefix.
    fn public_path(&self) -> String {
        let ApiOptions { public_url, mount, .. } = self.config();
        format!("{}{mount}", public_url.as_ref().map_or("", PublicUrl::path))
    }

    /// What a client puts before the API's paths.
    fn public_prefix(&self) -> String {
        format!("{}{}", self.public_path(), self.config().prefix)
    }

    fn openapi(&self) -> Bytes {
        let made = || openapi::document(self.config()).to_string().into();
        self.0.openapi.get_or_init(made).clone()
    }

    fn metrics(&self) -> Result<String, Error> {
        let text = self.0.metrics.text(self.core().load(), &self.0.budget);
        text.map_err(|error| Error::Internal(Cause::new(error)))
    }

    pub(crate) fn counters(&self) -> &Metrics {
        &self.0.metrics
    }

    fn index(&self) -> Bytes {
        let (path, name) = (self.public_path(), &self.config().name);
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

/// The API as the CORS layer sees it.
struct Answer<'a, 's> {
    api: &'s Api,
    asked: &'a Asked<'s>,
}

impl<'a, 's: 'a, B> Service<Request<B>> for Answer<'a, 's>
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
        let (api, asked) = (self.api, self.asked);
        Box::pin(async move { Ok(api.answer(request, asked).await) })
    }
}

/// Headers that a browser may send besides those that need no permission: ours, those of traces (W3C
/// Trace Context), of conditional and of repeated requests, of event streams, and the one that many
/// clients add to each request.
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
        // With credentials there is no `*` (Fetch standard, 3.2.5): the origin is named instead.
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

/// Logs what became of a token that was proven: by now its session was asked for.
fn log_session(client: Option<IpAddr>, user_id: Uuid, answer: &Result<Response<Body>, Failure>) {
    match answer {
        Err(Failure::Core(error @ Error::Unauthenticated)) => {
            events::failed(Attempted::Token, client, Some(user_id), events::reason(error));
        }
        // Without the database nobody knows.
        Err(failure) if failure.status().is_server_error() => {}
        _ => events::succeeded(Attempted::Token, client, user_id),
    }
}

/// A path without its last slash, if one is too many and more than a slash is left.
fn without_slash(path: &str) -> Option<&str> {
    path.strip_suffix('/').filter(|shorter| !matches!(*shorter, "" | "/"))
}

fn options(allow: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow.clone());
    response
}

/// Leaves the headers of the GET that a HEAD stands for, its length included if that is known
/// (RFC 9110, 9.3.2).
fn strip_body(response: &mut Response<Body>) {
    if let Some(length) = response.body().whole().map(Bytes::len) {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::default();
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{Options, Secret};

    /// It is moved on its way to the task that runs it, all of it, with every request.
    #[tokio::test]
    async fn the_future_of_a_request_is_small() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let api = Api::new(core, ApiOptions::default());
        let request = Request::new(http_body_util::Full::<Bytes>::default());
        let size = size_of_val(&api.handle(request));
        assert!(size <= 3072, "{size} bytes");
    }
    /// The same on PostgreSQL, and counted by the database: `tests/tests/statements.rs`.
    #[tokio::test]
    async fn a_refusal_is_at_most_two_statements() {
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
