//! Cross-origin requests: the origins, methods and headers that browsers may use.

use std::time::Duration;

use http::{HeaderName, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::http::{
    Origin,
    envelope::REQUEST_ID,
    idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED},
    rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY},
};

/// Headers allowed by CORS besides the safelisted ones: ours, those of traces (W3C Trace Context),
/// conditional requests, retries and event streams, and one that many clients always send.
const ALLOWED_HEADERS: [HeaderName; 10] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    REQUEST_ID,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    IDEMPOTENCY_KEY,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-requested-with"),
];

/// The CORS layer for these origins.
pub(crate) fn layer(origins: &[Origin]) -> CorsLayer {
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
        .expose_headers([
            REQUEST_ID,
            header::ETAG,
            IDEMPOTENCY_REPLAYED,
            header::LOCATION,
            header::RETRY_AFTER,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
        ])
        .max_age(Duration::from_mins(10))
        .vary([header::ORIGIN])
}
