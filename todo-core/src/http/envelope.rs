//! The envelope of every response: request id, access log, metrics, CORS, security headers, the
//! https requirement, the rejection of connections over capacity, and `Connection: close` while
//! draining. The contract and a server's own pages are served in it.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header,
    request::Parts,
};
use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    clock::new_id,
    error::Error,
    http::{
        Api, Body, OverCapacity, Peer,
        access_log::RequestLog,
        budget::{Payer, Reservation, UNCHARGED_BYTES},
        dispatch,
        endpoint::HandlerResult,
        extract,
        problem::ApiError,
        proxies, respond,
    },
    request_id,
};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `Content-Security-Policy` of API responses: they are data, and a browser must run none of it.
const API_CONTENT_SECURITY_POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// Two years, as the preload lists require (RFC 6797).
const HSTS: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");
/// The methods of a server's own pages.
const PAGE_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");

/// A handler of requests inside of the envelope.
pub(crate) trait Enclosed<B>: Send + Sync {
    /// The API whose envelope it is in.
    fn api(&self) -> &Api;

    /// The pattern of the route of a request, for the log.
    fn route(&self, parts: &Parts) -> Option<&str>;

    /// Handles a request. The response is complete but for the envelope's headers.
    fn respond<'s>(
        &'s self,
        request: Request<B>,
        log: &RequestLog<'s>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A layer for a server's own pages: GET and HEAD of them get the inner service's response, and
/// everything else gets the response that the API's routes give too. That is the rejection of an
/// invalid head (RFC 9112, section 3.2), of plain http where https is required and of a connection
/// over capacity, the redirect of a path with a trailing slash, 405, and the response to OPTIONS.
///
/// Requests carry a [`Peer`] and perhaps [`OverCapacity`] in their extensions, as for
/// [`Api::handle`]. A `Content-Security-Policy` of the inner service stays.
#[derive(Clone)]
pub struct EnvelopeLayer {
    api: Api,
    route: &'static str,
}

impl EnvelopeLayer {
    /// The layer for pages beside `api`. `route` is their label in metrics and logs.
    #[must_use]
    pub fn new(api: Api, route: &'static str) -> Self {
        Self { api, route }
    }
}

impl<S> Layer<S> for EnvelopeLayer {
    type Service = Envelope<S>;

    fn layer(&self, inner: S) -> Envelope<S> {
        Envelope { api: self.api.clone(), route: self.route, inner }
    }
}

/// A service in the envelope of an [`Api`], made by [`EnvelopeLayer`].
#[derive(Clone)]
pub struct Envelope<S> {
    api: Api,
    route: &'static str,
    inner: S,
}

impl<B, S> Service<Request<B>> for Envelope<S>
where
    B: Send + 'static,
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(enclose(&this, request).await) })
    }
}

impl<B, S> Enclosed<B> for Envelope<S>
where
    B: Send,
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync,
    S::Future: Send,
{
    fn api(&self) -> &Api {
        &self.api
    }

    fn route(&self, _parts: &Parts) -> Option<&str> {
        Some(self.route)
    }

    async fn respond<'s>(&'s self, request: Request<B>, log: &RequestLog<'s>) -> Response<Body> {
        let head = RequestLine::of(&request);
        log.update(|fields| fields.route = Some(self.route));
        let handled = pin!(async {
            let (parts, body) = request.into_parts();
            let _head = self.api.check_head(&parts, log)?;
            self.api.admit(&parts, false)?;
            let path = parts.uri.path();
            let path = path.strip_prefix(self.api.mount_path()).unwrap_or_default();
            if let Some(shorter) = dispatch::without_trailing_slash(path) {
                return Ok(self.api.redirect(shorter, parts.uri.query()));
            }
            match parts.method {
                Method::GET | Method::HEAD => {}
                Method::OPTIONS => return Ok(respond::options(&PAGE_METHODS)),
                _ => return Err(ApiError::WrongMethod(PAGE_METHODS)),
            }
            let mut inner = self.inner.clone();
            let limit = self.api.config().request_timeout;
            let called = timeout(limit, async {
                match poll_fn(|cx| inner.poll_ready(cx)).await {
                    Ok(()) => {}
                }
                inner.call(Request::from_parts(parts, body)).await
            });
            match called.await {
                Ok(Ok(response)) => Ok(response),
                Err(_elapsed) => Err(ApiError::Timeout),
            }
        });
        self.api.complete(head, log, handled).await
    }
}

/// The version and whether the method is HEAD: the parts of a request line that its response
/// depends on.
#[derive(Clone, Copy)]
pub(crate) struct RequestLine {
    version: Version,
    is_head: bool,
}

impl RequestLine {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self { version: request.version(), is_head: request.method() == Method::HEAD }
    }
}

/// Handles a request with `inner`, in the envelope.
pub(crate) async fn enclose<B, I>(inner: &I, request: Request<B>) -> Response<Body>
where
    B: Send,
    I: Enclosed<B>,
{
    let api = inner.api();
    let (parts, body) = request.into_parts();
    // HTTP/2 has no such header (RFC 9113, section 8.2.2).
    let is_http1 = parts.version < Version::HTTP_2;
    let is_over_capacity = parts.extensions.get::<OverCapacity>().is_some();
    let log = api.request_log(&parts.method, &parts.headers, parts.extensions.get().copied());
    // Everything logged while the request is handled carries its id.
    let id = Arc::clone(log.shared_request_id());
    // The CORS layer treats every OPTIONS as a preflight and responds before any check.
    let is_cors = parts.headers.contains_key(header::ORIGIN)
        && (parts.method != Method::OPTIONS
            || parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
                && extract::check_request_head(&parts).is_ok());
    if is_cors && parts.method == Method::OPTIONS {
        log.update(|fields| fields.route = inner.route(&parts));
    }
    let request = Request::from_parts(parts, body);
    let mut response = if is_cors {
        let inner = CorsInner { inner, log: &log };
        match request_id::scope(id, api.cors().layer(inner).call(request)).boxed().await {
            Ok(response) => response,
        }
    } else {
        let mut response = request_id::scope(id, inner.respond(request, &log)).await;
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
        response
    };
    api.add_headers(response.headers_mut(), &log);
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_http1 && !is_upgrade && (is_over_capacity || api.is_draining()) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    if response.body().whole().is_some() {
        log.finish_with(status);
    } else {
        let is_live = response.body().is_live();
        let log = log.into_stream_log(api.clone(), status, is_live);
        response.body_mut().start(api, log);
    }
    response
}

impl Api {
    /// Completes the response of a handler, after a panic too. It has the form that the request's
    /// version and method require.
    ///
    /// The future is pinned by the caller: moved in here, it would be stored twice.
    pub(crate) async fn complete(
        &self,
        RequestLine { version, is_head }: RequestLine,
        log: &RequestLog<'_>,
        handled: Pin<&mut (impl Future<Output = HandlerResult> + Send)>,
    ) -> Response<Body> {
        let in_flight = self.metrics().start_request();
        let handled = AssertUnwindSafe(handled).catch_unwind().await;
        let result = handled.unwrap_or_else(|_panic| {
            tracing::error!(request_id = log.request_id(), "a handler panicked");
            Err(ApiError::Panicked)
        });
        if let Some(user_id) = log.fields().user_id {
            dispatch::log_token_use(log.client(), user_id, &result);
        }
        let mut response = result.unwrap_or_else(|failure| {
            self.metrics().record_failure(&failure);
            let mut response = failure.respond(log.request_id());
            if matches!(failure, ApiError::BodyMemory) && version < Version::HTTP_2 {
                // The rest of the request is not read: it would need memory too.
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            response
        });
        log.rate_limit().add_to(response.headers_mut());
        if is_head {
            respond::strip_body(&mut response);
        }
        // Before the rest of the body is drained: the response is ready now.
        log.update(|fields| fields.duration = Some(log.elapsed()));
        drop(in_flight);
        response
    }

    /// Starts the access log entry of a request.
    pub(crate) fn request_log(
        &self,
        method: &Method,
        headers: &HeaderMap,
        peer: Option<Peer>,
    ) -> RequestLog<'_> {
        let client = peer.map(|peer| self.client(peer, headers));
        RequestLog::new(self.metrics(), self.request_id(headers), method.clone(), headers, client)
    }

    /// Adds the headers of every response: the request's id and the browser security headers. A
    /// `Content-Security-Policy` that is already set stays.
    ///
    /// `Strict-Transport-Security` is added only if the request came over https (RFC 6797, section
    /// 7.2).
    pub(crate) fn add_headers(&self, headers: &mut HeaderMap, log: &RequestLog<'_>) {
        self.add_common_headers(headers, log.request_id(), log.is_https());
    }

    pub(crate) fn add_common_headers(
        &self,
        headers: &mut HeaderMap,
        request_id: &str,
        is_https: bool,
    ) {
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
    fn request_id(&self, headers: &HeaderMap) -> String {
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

    /// Checks a request head, and reserves the memory of an unusually large one for as long as its
    /// request runs.
    pub(crate) fn check_head(
        &self,
        parts: &Parts,
        log: &RequestLog<'_>,
    ) -> Result<Option<Reservation>, ApiError> {
        extract::check_request_head(parts)?;
        let size = extract::head_bytes(parts);
        if size <= UNCHARGED_BYTES {
            return Ok(None);
        }
        let held = self.budget().reserve(Payer::new(log.client(), None), size);
        held.map(Some).ok_or(ApiError::BodyMemory)
    }

    /// Rejects plain http where https is required, and requests of connections over capacity.
    /// Probes are exempt.
    pub(crate) fn admit(&self, parts: &Parts, is_probe: bool) -> Result<(), ApiError> {
        if self.config().https_only && !is_probe && !self.is_https(parts) {
            return Err(ApiError::HttpsRequired);
        }
        if !is_probe && parts.extensions.get::<OverCapacity>().is_some() {
            return Err(ApiError::Core(Error::Busy));
        }
        Ok(())
    }

    /// A redirect to `path`, below the mount path. It contains no host, which a client may forge.
    pub(crate) fn redirect(&self, path: &str, query: Option<&str>) -> Response<Body> {
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        let location = format!("{}{path}{mark}{query}", self.public_path());
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    fn is_https(&self, parts: &Parts) -> bool {
        let peer: Option<&Peer> = parts.extensions.get();
        peer.is_some_and(|peer| self.client(*peer, &parts.headers).is_tls)
    }

    /// The client of a request, behind any number of trusted proxies.
    fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        proxies::client(peer, headers, &self.config().trusted_proxies)
    }
}

/// A handler as the inner service of the CORS layer.
struct CorsInner<'a, 's, I> {
    inner: &'s I,
    log: &'a RequestLog<'s>,
}

impl<'a, 's: 'a, B, I> Service<Request<B>> for CorsInner<'a, 's, I>
where
    B: Send + 'a,
    I: Enclosed<B>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'a, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.inner;
        let log = self.log;
        Box::pin(async move { Ok(inner.respond(request, log).await) })
    }
}
