//! Responses of handlers.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::http::Body;

/// A JSON response with `no-store`: it is personal.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let mut body = Vec::with_capacity(512);
    let mut response = match serde_json::to_writer(&mut body, value) {
        Ok(()) => bytes(status, Bytes::from(body)),
        Err(error) => {
            tracing::error!(%error, "response not serializable");
            bytes(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new())
        }
    };
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A personal response that is JSON already.
pub(crate) fn personal(status: StatusCode, json: impl Into<Body>) -> Response<Body> {
    let mut response = bytes(status, json);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) fn bytes(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    // Includes the headers of every response, so that the map does not grow.
    response.headers_mut().reserve(12);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// 204 with the methods that a path allows.
pub(crate) fn options(allow: &HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow.clone());
    response
}

/// Turns the response to a GET into that to a HEAD: the same headers, with `Content-Length` if it
/// is known (RFC 9110, 9.3.2).
pub(crate) fn strip_body(response: &mut Response<Body>) {
    if response.status() != StatusCode::NOT_MODIFIED
        && let Some(length) = response.body().whole().map(Bytes::len)
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::default();
}
