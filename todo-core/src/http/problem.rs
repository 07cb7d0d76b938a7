//! Errors on the wire: RFC 9457 problem details. This is the only file that maps errors to statuses
//! and that logs causes. The text for the client and the text for the log are separate.

use std::error::Error as _;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    error::{Error, FieldError, ItemError, whole_seconds},
    http::{Body, conditions, websocket::handshake},
    scopes::Scope,
    todos::{List, Todo},
};

/// The body of every error response (RFC 9457, section 3). `error` repeats `title`, and `details`
/// lists all invalid fields: clients of the Python backend read these, and show `detail` and each
/// `message` to users unchanged.
#[derive(Debug, Serialize)]
pub(crate) struct Problem<'a> {
    /// A relative URI that identifies the problem type.
    #[serde(rename = "type")]
    pub(crate) kind: &'a str,
    /// The problem type in words.
    pub(crate) title: &'a str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// This occurrence of the problem, in whole sentences for users.
    pub(crate) detail: &'a str,
    /// The problem type for programs.
    pub(crate) code: &'a str,
    /// The same as `title`.
    pub(crate) error: &'a str,
    /// All invalid fields, with the rule that each breaks (400 and 422).
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(crate) details: &'a [Detail<'a>],
    /// The todo or list that does not match `If-Match` (412).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<Current<'a>>,
    /// The quota and its use (409 `quota_exceeded`).
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<Quota>,
    /// The number of invalid todos of an imported file, of which `details` has the first errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) invalid: Option<usize>,
    /// The response's `X-Request-Id`, for reports to an operator.
    pub(crate) request_id: &'a str,
}

/// What does not match `If-Match`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Current<'a> {
    Todo(&'a Todo),
    List(&'a List),
}

/// A quota, and the present number.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quota {
    limit: u64,
    used: u64,
}

/// A field and the rule that it breaks.
#[derive(Debug, Serialize)]
pub(crate) struct Detail<'a> {
    /// The field's name: a member of the body, or a query parameter.
    field: &'a str,
    /// The field's location, as a JSON Pointer (RFC 6901) into the body or the query parameters.
    pointer: String,
    /// The rule, for programs.
    code: &'a str,
    /// The rule in one whole sentence, for users.
    message: &'a str,
    /// The line of an imported file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

impl<'a> From<&'a FieldError> for Detail<'a> {
    fn from(error: &'a FieldError) -> Self {
        // Field names contain no `~` or `/`, which would need escaping.
        let pointer = format!("/{}", error.field);
        let (code, line) = (error.code, error.line);
        Self { field: &error.field, pointer, code, message: &error.message, line }
    }
}

/// An error that ends a request; each has a status and a problem body.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The operation failed.
    Core(Error),
    /// `If-Match` names no version of the todo, which is the current one.
    Outdated(Box<Todo>),
    /// As of a todo, of a list.
    OutdatedList(Box<List>),
    /// The request is malformed (RFC 9112, sections 3.2 and 2.2).
    BadRequest(&'static str),
    /// The target, or the headers together, are over their limit.
    UriTooLong,
    HeadTooLarge,
    /// The route needs a token and none was sent.
    MissingToken,
    /// The request came over plain http where https is required.
    HttpsRequired,
    /// The path's user is not the caller.
    OtherUser,
    /// The page's origin is not allowed.
    OriginNotAllowed,
    /// The request is not the handshake of a WebSocket over HTTP/1.1, or of another version.
    UpgradeRequired,
    WebSocketVersion,
    NoRoute,
    WrongMethod(HeaderValue),
    /// The head, or the body, did not arrive in time.
    HeadTimeout,
    BodyTimeout,
    TooLarge(usize),
    /// The memory budget of bodies in flight, in total or of this client, is used up.
    BodyMemory,
    UnsupportedMediaType,
    /// The media type of a file is none of its format.
    WrongFileType,
    /// The caller has no such thing, which is this word.
    NoSuch(&'static str),
    /// The thing, which is this word, belongs to another user.
    NotYours(&'static str),
    /// The body is not JSON of the required shape; with the invalid fields, if known.
    Malformed(&'static str, Vec<FieldError>),
    /// The request took too long.
    Timeout,
    /// A handler panicked; its message is already in the log.
    Panicked,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

/// Status, code, title and URI of a problem type.
struct ProblemKind {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    uri: &'static str,
}

macro_rules! kind {
    ($status:ident, $code:literal, $title:literal, $slug:literal) => {
        ProblemKind {
            status: StatusCode::$status,
            code: $code,
            title: $title,
            uri: concat!("/problems/", $slug),
        }
    };
}

impl ApiError {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind")]
    fn kind(&self) -> ProblemKind {
        match self {
            Self::Core(
                Error::Invalid(_)
                | Error::FileInvalid { .. }
                | Error::ItemsFailed { reason: ItemError::Invalid(_), .. },
            ) => {
                kind!(BAD_REQUEST, "validation_error", "Validation Error", "validation-error")
            }
            Self::BadRequest(_) | Self::WebSocketVersion => {
                kind!(BAD_REQUEST, "bad_request", "Bad Request", "bad-request")
            }
            Self::UpgradeRequired => {
                kind!(UPGRADE_REQUIRED, "upgrade_required", "Upgrade Required", "upgrade-required")
            }
            Self::MissingToken | Self::Core(Error::Unauthenticated) => {
                kind!(UNAUTHORIZED, "unauthorized", "Unauthorized", "unauthorized")
            }
            Self::Core(Error::InvalidCredentials) => kind!(
                UNAUTHORIZED,
                "invalid_credentials",
                "Invalid Credentials",
                "invalid-credentials"
            ),
            Self::OtherUser
            | Self::NotYours(_)
            | Self::OriginNotAllowed
            | Self::Core(
                Error::Forbidden | Error::ItemsFailed { reason: ItemError::Forbidden, .. },
            ) => {
                kind!(FORBIDDEN, "forbidden", "Forbidden", "forbidden")
            }
            Self::Core(Error::InsufficientScope { .. }) => {
                kind!(FORBIDDEN, "insufficient_scope", "Insufficient Scope", "insufficient-scope")
            }
            Self::HttpsRequired => {
                kind!(FORBIDDEN, "https_required", "HTTPS Required", "https-required")
            }
            Self::NoRoute
            | Self::NoSuch(_)
            | Self::Core(
                Error::NotFound | Error::ItemsFailed { reason: ItemError::NotFound, .. },
            ) => {
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
            Self::Outdated(_) | Self::OutdatedList(_) | Self::Core(Error::PreconditionFailed) => {
                kind!(
                    PRECONDITION_FAILED,
                    "precondition_failed",
                    "Precondition Failed",
                    "precondition-failed"
                )
            }
            Self::Core(
                Error::QuotaExceeded { .. }
                | Error::KeysFull { .. }
                | Error::ItemsFailed { reason: ItemError::QuotaExceeded { .. }, .. },
            ) => {
                kind!(CONFLICT, "quota_exceeded", "Quota Exceeded", "quota-exceeded")
            }
            Self::Core(Error::KeyReused) => kind!(
                UNPROCESSABLE_ENTITY,
                "idempotency_mismatch",
                "Idempotency Mismatch",
                "idempotency-mismatch"
            ),
            Self::Core(Error::KeyInUse) => kind!(CONFLICT, "conflict", "Conflict", "conflict"),
            Self::Core(Error::CursorExpired) => {
                kind!(GONE, "cursor_expired", "Cursor Expired", "cursor-expired")
            }
            Self::Core(Error::TooManyKeys { .. }) => {
                kind!(CONFLICT, "too_many_keys", "Too Many Keys", "too-many-keys")
            }
            Self::Core(Error::ReauthenticationRequired) => kind!(
                FORBIDDEN,
                "reauthentication_required",
                "Reauthentication Required",
                "reauthentication-required"
            ),
            Self::Core(Error::IdentityTaken) => {
                kind!(CONFLICT, "identity_taken", "Identity Taken", "identity-taken")
            }
            Self::Core(Error::LastCredential) => {
                kind!(CONFLICT, "last_credential", "Last Credential", "last-credential")
            }
            Self::Core(Error::InvalidGrant) => {
                kind!(BAD_REQUEST, "invalid_grant", "Invalid Grant", "invalid-grant")
            }
            Self::Core(Error::EmailTaken) => {
                kind!(CONFLICT, "email_taken", "Email Taken", "email-taken")
            }
            Self::Core(Error::InvalidLink) => {
                kind!(BAD_REQUEST, "invalid_link", "Invalid Link", "invalid-link")
            }
            Self::Core(Error::EmailUnverified) => {
                kind!(FORBIDDEN, "email_unverified", "Email Unverified", "email-unverified")
            }
            Self::Core(Error::AlreadyVerified) => {
                kind!(CONFLICT, "already_verified", "Already Verified", "already-verified")
            }
            Self::Core(Error::MailNotConfigured) => kind!(
                NOT_IMPLEMENTED,
                "mail_not_configured",
                "Mail Not Configured",
                "mail-not-configured"
            ),
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
            Self::UnsupportedMediaType | Self::WrongFileType => kind!(
                UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "Unsupported Media Type",
                "unsupported-media-type"
            ),
            Self::Malformed(..) => {
                kind!(UNPROCESSABLE_ENTITY, "malformed_body", "Malformed Body", "malformed-body")
            }
            Self::Core(Error::RateLimited { .. } | Error::TooManyStreams { .. }) => {
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

    /// The text for the client, without causes.
    fn detail(&self) -> String {
        match self {
            Self::Core(error) => core_detail(error),
            Self::Outdated(_) => core_detail(&Error::PreconditionFailed),
            Self::OutdatedList(_) => "This list has been changed meanwhile.".into(),
            Self::BodyMemory => core_detail(&Error::Busy),
            Self::Panicked => "Something went wrong on the server.".into(),
            Self::NoSuch(thing) => format!("There is no such {thing}."),
            Self::NotYours(thing) => format!("You don't have access to this {thing}."),
            Self::OriginNotAllowed => "This page may not use the service.".into(),
            Self::UpgradeRequired => {
                "This address takes WebSocket connections over HTTP/1.1 only.".into()
            }
            Self::WebSocketVersion => "The WebSocket version must be 13.".into(),
            Self::OtherUser => "You don't have access to this user's todos.".into(),
            Self::BadRequest(detail) => (*detail).into(),
            Self::MissingToken => "You are not logged in. Please log in.".into(),
            Self::HttpsRequired => "This service can be used over HTTPS only.".into(),
            Self::NoRoute => "There is nothing at this address.".into(),
            Self::WrongMethod(allow) => {
                let allow = allow.to_str().unwrap_or_default();
                format!("This address takes these methods only: {allow}.")
            }
            Self::HeadTimeout => "The request headers did not arrive in time.".into(),
            Self::BodyTimeout => "The request body did not arrive in time.".into(),
            Self::TooLarge(max) => format!("The request body must be at most {max} bytes."),
            Self::UriTooLong => "The request target is too long.".into(),
            Self::HeadTooLarge => "The request headers are too many or too long.".into(),
            Self::UnsupportedMediaType => {
                "The request body must be JSON in UTF-8 (application/json).".into()
            }
            Self::WrongFileType => {
                "The request body must be a file of the format, with its media type, without \
                 compression."
                    .into()
            }
            Self::Malformed(detail, errors) if errors.is_empty() => (*detail).into(),
            Self::Malformed(_, errors) => sentences(errors),
            Self::Timeout => "The request took too long.".into(),
        }
    }

    /// The cause for the log, without text from the client.
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

    /// The response body.
    pub(crate) fn body(&self, request_id: &str) -> Vec<u8> {
        let ProblemKind { status, code, title, uri } = self.kind();
        let errors: &[FieldError] = match self {
            Self::Core(
                Error::Invalid(errors)
                | Error::FileInvalid { errors, .. }
                | Error::ItemsFailed { items: errors, .. },
            ) => errors,
            Self::Malformed(_, errors) => errors,
            _ => &[],
        };
        let details: Vec<Detail> = errors.iter().map(Detail::from).collect();
        let detail = self.detail();
        let problem = Problem {
            kind: uri,
            title,
            status: status.as_u16(),
            detail: &detail,
            code,
            error: title,
            details: &details,
            current: match self {
                Self::Outdated(current) => Some(Current::Todo(current)),
                Self::OutdatedList(current) => Some(Current::List(current)),
                _ => None,
            },
            quota: match *self {
                Self::Core(
                    Error::QuotaExceeded { limit, used, .. }
                    | Error::KeysFull { limit, used }
                    | Error::ItemsFailed {
                        reason: ItemError::QuotaExceeded { limit, used, .. }, ..
                    },
                ) => Some(Quota { limit, used }),
                _ => None,
            },
            invalid: match *self {
                Self::Core(Error::FileInvalid { invalid, .. }) => Some(invalid),
                _ => None,
            },
            request_id,
        };
        serde_json::to_vec(&problem).unwrap_or_default()
    }

    /// The response for this error. Logs the cause of a server error.
    pub(crate) fn respond(&self, request_id: &str) -> Response<Body> {
        let ProblemKind { status, code, .. } = self.kind();
        if let Self::Core(Error::Unavailable(cause) | Error::Internal(cause)) = self {
            let source = cause.source().map(ToString::to_string);
            tracing::error!(request_id, code, %cause, source, "request failed");
        }
        let body = self.body(request_id);
        let mut response = Response::new(Body::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            // RFC 6750, section 3: no error code where no token was sent.
            Self::MissingToken | Self::Core(Error::InvalidCredentials) => {
                let challenge = HeaderValue::from_static("Bearer realm=\"todo\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Core(Error::Unauthenticated) => {
                let challenge =
                    HeaderValue::from_static("Bearer realm=\"todo\", error=\"invalid_token\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::Core(Error::InsufficientScope { required }) => {
                if let Some(challenge) = insufficient_scope(*required) {
                    headers.insert(header::WWW_AUTHENTICATE, challenge);
                }
            }
            Self::WrongMethod(allow) => {
                headers.insert(header::ALLOW, allow.clone());
            }
            Self::UpgradeRequired => {
                let protocol = HeaderValue::from_static("websocket");
                headers.insert(header::UPGRADE, protocol);
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            Self::WebSocketVersion => {
                headers.insert(header::SEC_WEBSOCKET_VERSION, handshake::VERSION);
            }
            Self::Outdated(current) => {
                if let Some(etag) = conditions::etag(current) {
                    headers.insert(header::ETAG, etag);
                }
            }
            Self::OutdatedList(current) => {
                if let Some(etag) = conditions::list_etag(current) {
                    headers.insert(header::ETAG, etag);
                }
            }
            _ => {}
        }
        if let Some(retry_after) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, retry_after);
        }
        response
    }

    /// `Retry-After` for transient failures and for requests over a limit.
    pub(crate) fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::Core(Error::RateLimited { retry_after }) => {
                Some(HeaderValue::from(whole_seconds(*retry_after)))
            }
            // A stream whose client is gone ends within seconds.
            Self::Core(Error::TooManyStreams { .. }) => Some(HeaderValue::from_static("5")),
            Self::HeadTimeout
            | Self::BodyTimeout
            | Self::TooLarge(_)
            | Self::UriTooLong
            | Self::HeadTooLarge
            | Self::BodyMemory
            | Self::Core(Error::KeyInUse | Error::Busy | Error::Unavailable(_)) => {
                Some(HeaderValue::from_static("1"))
            }
            _ => None,
        }
    }
}

/// The challenge of a request that requires another scope, or no key (RFC 6750, section 3.1).
fn insufficient_scope(required: Option<Scope>) -> Option<HeaderValue> {
    let scope = required.map(|scope| format!(", scope=\"{scope}\"")).unwrap_or_default();
    HeaderValue::try_from(format!("Bearer error=\"insufficient_scope\"{scope}")).ok()
}

/// The text for the client, without causes.
fn core_detail(error: &Error) -> String {
    match error {
        Error::Unauthenticated => "Your session has ended. Please log in again.".into(),
        Error::InvalidCredentials => "Invalid credentials.".into(),
        Error::PreconditionFailed => "This todo has been changed meanwhile.".into(),
        Error::QuotaExceeded { of, limit, .. } => of.message(*limit),
        Error::KeysFull { .. } => {
            "The stored answers of your keys take too much space. Please try again tomorrow, or \
             without Idempotency-Key."
                .into()
        }
        Error::KeyReused => "This Idempotency-Key was used for another request.".into(),
        Error::KeyInUse => {
            "A request with this Idempotency-Key is still running. Please try again.".into()
        }
        Error::CursorExpired => {
            "The changes since then are no longer known. Please load all todos again.".into()
        }
        Error::InsufficientScope { required: Some(scope) } => {
            format!("This API key lacks the scope {scope}.")
        }
        Error::InsufficientScope { required: None } => {
            "API keys do not allow this. Please log in.".into()
        }
        Error::TooManyKeys { limit } => {
            format!("You have {limit} API keys already. Please delete one of them.")
        }
        Error::ReauthenticationRequired => {
            "Your session began more than 10 minutes ago. Please log in again.".into()
        }
        Error::IdentityTaken => "This identity belongs to another account already.".into(),
        Error::LastCredential => {
            "You could not log in without it. Please set a password or add another identity \
             first."
                .into()
        }
        Error::InvalidGrant => {
            "This code is not valid. It may have expired, or have been used.".into()
        }
        Error::EmailTaken => "Email already registered.".into(),
        Error::InvalidLink => {
            "This link is not valid. It may have expired, or have been used.".into()
        }
        Error::EmailUnverified => {
            "Please confirm your e-mail address first, by the link that was mailed to you, or \
             by a new password."
                .into()
        }
        Error::AlreadyVerified => "Your e-mail address is confirmed already.".into(),
        Error::MailNotConfigured => "This service sends no mails.".into(),
        Error::RateLimited { retry_after } => {
            let seconds = whole_seconds(*retry_after);
            let unit = if seconds == 1 { "second" } else { "seconds" };
            format!("Rate limit exceeded. Try again in {seconds} {unit}.")
        }
        Error::TooManyStreams { limit } => {
            format!("You follow changes in {limit} places already. Please close one of them.")
        }
        Error::Unavailable(_) => {
            "The service is unavailable at the moment. Please try again.".into()
        }
        Error::Busy => "The service is too busy. Please try again.".into(),
        Error::Internal(_) => "Something went wrong on the server.".into(),
        Error::NotFound => "There is no such todo.".into(),
        Error::Forbidden => "You don't have access to this todo.".into(),
        Error::Invalid(errors)
        | Error::FileInvalid { errors, .. }
        | Error::ItemsFailed { items: errors, .. } => sentences(errors),
    }
}

/// The distinct messages of all errors, joined with spaces.
fn sentences(errors: &[FieldError]) -> String {
    let mut messages: Vec<&str> = Vec::new();
    for error in errors {
        // There are few distinct ones, although a bulk may have many errors.
        if !messages.contains(&error.message.as_ref()) {
            messages.push(&error.message);
        }
    }
    messages.join(" ")
}

#[cfg(test)]
mod tests;
