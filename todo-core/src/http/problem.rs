//! Errors on the wire: RFC 9457 problem details. The one place that knows which error is which
//! status, and the one place that logs a cause. What the client reads and what the log reads are two
//! texts.

use std::{error::Error as _, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    error::{Error, FieldError, Listed},
    http::Body,
};

/// The body of every error answer (RFC 9457, section 3). `error` repeats `title` and `details`
/// lists every bad field: clients of the Python backend read these.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(example = json!({
    "type": "/problems/validation-error",
    "title": "Validation Error",
    "status": 400,
    "detail": "title: must not be blank",
    "code": "validation_error",
    "error": "Validation Error",
    "details": [{ "field": "title", "code": "blank", "message": "must not be blank" }],
    "request_id": "01938c6f-2f6c-7b6a-8d0e-3f1f2a6f5b11"
}))]
pub(crate) struct Problem<'a> {
    /// A relative URI that names the kind of problem.
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    /// The kind of problem in words.
    pub(crate) title: &'a str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What was wrong this time.
    pub(crate) detail: &'a str,
    /// The kind of problem for programs.
    pub(crate) code: &'a str,
    /// The same as `title`.
    pub(crate) error: &'a str,
    /// Every bad field, where fields are to blame (400 and 422).
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    pub(crate) details: &'a [FieldError],
    /// The answer's `X-Request-Id`: what to tell an operator.
    pub(crate) request_id: &'a str,
}

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operation failed.
    Core(Error),
    /// The request itself is not acceptable (RFC 9112, sections 3.2 and 2.2).
    BadRequest(&'static str),
    /// The target, or the headers together, are longer than anybody needs.
    UriTooLong,
    HeadTooLarge,
    /// There is a token where none is good: without one, or with one that is no good.
    NoToken,
    /// This deployment takes tokens and passwords over https only.
    HttpsRequired,
    NoRoute,
    WrongMethod(HeaderValue),
    /// The head, or the body, did not arrive in time.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "a server's to notice"))]
    HeadTimeout,
    BodyTimeout,
    TooLarge(usize),
    /// The bodies in flight, all of them or this client's, leave no memory for one more.
    BodyMemory,
    UnsupportedMediaType,
    /// The body is not JSON of the request's shape; the fields to blame, where they are known.
    Malformed(&'static str, Vec<FieldError>),
    /// The request took too long.
    Timeout,
    /// A handler panicked; what it said is in the log already.
    Panicked,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

/// Titles and the other words of each kind of problem.
struct Kind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    uri: &'static str,
}

macro_rules! kind {
    ($status:ident, $code:literal, $title:literal, $slug:literal) => {
        Kind {
            status: StatusCode::$status,
            code: $code,
            title: $title,
            uri: concat!("/problems/", $slug),
        }
    };
}

impl Failure {
    fn kind(&self) -> Kind {
        match self {
            Self::Core(Error::Invalid(_)) => {
                kind!(BAD_REQUEST, "validation_error", "Validation Error", "validation-error")
            }
            Self::BadRequest(_) => kind!(BAD_REQUEST, "bad_request", "Bad Request", "bad-request"),
            Self::NoToken | Self::Core(Error::Unauthenticated) => {
                kind!(UNAUTHORIZED, "unauthorized", "Unauthorized", "unauthorized")
            }
            Self::Core(Error::InvalidCredentials) => kind!(
                UNAUTHORIZED,
                "invalid_credentials",
                "Invalid Credentials",
                "invalid-credentials"
            ),
            Self::Core(Error::Forbidden) => {
                kind!(FORBIDDEN, "forbidden", "Forbidden", "forbidden")
            }
            Self::HttpsRequired => {
                kind!(FORBIDDEN, "https_required", "HTTPS Required", "https-required")
            }
            Self::NoRoute | Self::Core(Error::NotFound) => {
                kind!(NOT_FOUND, "not_found", "Not Found", "not-found")
            }
            Self::WrongMethod(_) => kind!(
                METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method Not Allowed",
                "method-not-allowed"
            ),
            Self::HeadTimeout | Self::BodyTimeout => {
                kind!(REQUEST_TIMEOUT, "request_timeout", "Request Timeout", "request-timeout")
            }
            Self::Core(Error::EmailTaken) => {
                kind!(CONFLICT, "email_taken", "Email Taken", "email-taken")
            }
            Self::TooLarge(_) => kind!(
                PAYLOAD_TOO_LARGE,
                "content_too_large",
                "Content Too Large",
                "content-too-large"
            ),
            Self::UriTooLong => kind!(URI_TOO_LONG, "uri_too_long", "URI Too Long", "uri-too-long"),
            Self::HeadTooLarge => kind!(
                REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_fields_too_large",
                "Request Header Fields Too Large",
                "header-fields-too-large"
            ),
            Self::UnsupportedMediaType => kind!(
                UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported Media Type",
                "unsupported-media-type"
            ),
            Self::Malformed(..) => {
                kind!(UNPROCESSABLE_ENTITY, "malformed_body", "Malformed Body", "malformed-body")
            }
            Self::Core(Error::RateLimited { .. }) => {
                kind!(TOO_MANY_REQUESTS, "rate_limited", "Too Many Requests", "rate-limited")
            }
            Self::BodyMemory | Self::Core(Error::Busy | Error::Unavailable(_)) => {
                kind!(SERVICE_UNAVAILABLE, "unavailable", "Service Unavailable", "unavailable")
            }
            Self::Timeout => {
                kind!(GATEWAY_TIMEOUT, "timeout", "Gateway Timeout", "timeout")
            }
            Self::Core(Error::Internal(_)) | Self::Panicked => {
                kind!(INTERNAL_SERVER_ERROR, "internal", "Internal Server Error", "internal")
            }
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind().status
    }

    /// What the client is told. Of causes, nothing.
    fn detail(&self) -> String {
        match self {
            Self::Core(Error::Invalid(errors)) => Listed(errors).to_string(),
            Self::Core(Error::Unauthenticated) => "the token is not valid (any more)".into(),
            Self::Core(Error::Unavailable(_)) => {
                "the service is unavailable at the moment, try again".into()
            }
            Self::BodyMemory | Self::Core(Error::Busy) => {
                "the service is overloaded, try again".into()
            }
            Self::Core(Error::Internal(_)) | Self::Panicked => "an internal error occurred".into(),
            Self::Core(Error::NotFound) => "there is no such todo".into(),
            Self::Core(Error::Forbidden) => "this belongs to another user".into(),
            Self::Core(error) => error.to_string(),
            Self::BadRequest(detail) => (*detail).into(),
            Self::NoToken => "an Authorization header with a bearer token is required".into(),
            Self::HttpsRequired => "this service speaks https only".into(),
            Self::NoRoute => "there is no such route".into(),
            Self::WrongMethod(allow) => {
                format!("the methods allowed here are {}", allow.to_str().unwrap_or_default())
            }
            Self::HeadTimeout => "the head did not arrive in time".into(),
            Self::BodyTimeout => "the body did not arrive in time".into(),
            Self::TooLarge(max) => format!("the body must be at most {max} bytes"),
            Self::UriTooLong => "the request target is too long".into(),
            Self::HeadTooLarge => "the headers are too many, or too long together".into(),
            Self::UnsupportedMediaType => "the body must be application/json in UTF-8".into(),
            Self::Malformed(detail, errors) if errors.is_empty() => (*detail).into(),
            Self::Malformed(_, errors) => Listed(errors).to_string(),
            Self::Timeout => "the request took too long".into(),
        }
    }

    /// Why it failed, for the log: never a client's own text.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Core(Error::Unavailable(cause) | Error::Internal(cause)) => {
                match cause.source() {
                    Some(source) => format!("{cause}: {source}"),
                    None => cause.to_string(),
                }
            }
            failure => failure.kind().code.to_owned(),
        }
    }

    /// The body of its answer.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let Kind { status, code, title, uri } = self.kind();
        let details = match self {
            Self::Core(Error::Invalid(errors)) | Self::Malformed(_, errors) => errors.as_slice(),
            _ => &[],
        };
        let detail = self.detail();
        let problem = Problem {
            kind: uri,
            title,
            status: status.as_u16(),
            detail: &detail,
            code,
            error: title,
            details,
            request_id,
        };
        serde_json::to_vec(&problem).unwrap_or_default()
    }

    /// Turns the failure into its answer, and logs the cause of those that are ours.
    pub(crate) fn respond(&self, request_id: &str) -> Response<Body> {
        let Kind { status, code, .. } = self.kind();
        if let Self::Core(Error::Unavailable(cause) | Error::Internal(cause)) = self {
            let source = cause.source().map(ToString::to_string);
            tracing::error!(request_id, code, %cause, source, "request failed");
        }
        let body = self.body(request_id);
        let mut response = Response::new(Body::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            // RFC 6750, section 3: no error code where no token was sent.
            Self::NoToken | Self::Core(Error::InvalidCredentials) => {
                let challenge = HeaderValue::from_static("Bearer realm=\"todo\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Core(Error::Unauthenticated) => {
                let challenge =
                    HeaderValue::from_static("Bearer realm=\"todo\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::WrongMethod(allow) => {
                headers.insert(header::ALLOW, allow.clone());
            }
            _ => {}
        }
        if let Some(retry_after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, retry_after);
        }
        response
    }

    /// When to ask again, wherever a bound was met: what is passing, and what a smaller request passes.
    pub(crate) fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Core(Error::RateLimited { retry_after }) => Some(whole_seconds(*retry_after)),
            Self::HeadTimeout
            | Self::BodyTimeout
            | Self::TooLarge(_)
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::BodyMemory
            | Self::Core(Error::Busy | Error::Unavailable(_)) => {
                Some(HeaderValue::from_static("1"))
            }
            _ => None,
        }
    }
}

/// Whole seconds, rounded up and at least one, as `Retry-After` wants them (RFC 9110, 10.2.3).
fn whole_seconds(duration: Duration) -> HeaderValue {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Cause;

    #[test]
    fn nothing_of_a_cause_is_told() {
        let cause = || Cause::new("SELECT secret FROM table at /var/lib/x");
        for failure in [
            Failure::Core(Error::Internal(cause())),
            Failure::Core(Error::Unavailable(cause())),
            Failure::Panicked,
        ] {
            let response = failure.respond("id");
            assert!(response.status().is_server_error());
            let body = format!("{:?}", response.into_body());
            assert!(!body.contains("secret") && !body.contains("/var"), "{body}");
        }
    }

    #[test]
    fn retry_after_is_whole_and_at_least_one() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (59_999, "60")] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }
}
