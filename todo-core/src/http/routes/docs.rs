//! The error responses that several routes document.

use serde_json::json;

use crate::{
    error::{BoxError, Error, FieldError, FieldErrors},
    http::{
        endpoint::{ErrorDocs, QueryParameter},
        problem::ApiError,
        schema,
    },
    scopes::Scope,
    todos::Limit,
};

/// A single invalid field.
pub(crate) fn field(name: &'static str, code: &'static str, message: &'static str) -> FieldErrors {
    FieldError::new(name, code, message).into()
}

/// The parameters of a page.
pub(crate) fn page_parameters(cursor: &'static str) -> Vec<QueryParameter> {
    vec![
        QueryParameter {
            name: "limit",
            is_required: false,
            schema: json!({ "type": "integer", "minimum": 1, "maximum": Limit::MAX }),
            description: "Maximum number of todos on the page",
        },
        QueryParameter {
            name: "cursor",
            is_required: false,
            schema: json!({ "type": "string", "minLength": 1, "pattern": schema::CURSOR }),
            description: cursor,
        },
    ]
}

/// A 400, by the route's own example.
pub(crate) const fn invalid(example: fn(usize) -> ApiError) -> ErrorDocs {
    ErrorDocs { description: "A value is invalid, or the request is malformed", example }
}

/// A 422, by the route's own example.
pub(crate) const fn malformed(example: fn(usize) -> ApiError) -> ErrorDocs {
    ErrorDocs { description: "The body is not JSON of the request's shape", example }
}

/// A 403, by the route's own example.
pub(crate) const fn forbidden(example: fn(usize) -> ApiError) -> ErrorDocs {
    let description = "It belongs to another user, an API key without the scope, or plain http \
        where https is required";
    ErrorDocs { description, example }
}

/// The 403 of a route of all of a user's rows.
pub(crate) const OTHER_USER: ErrorDocs = forbidden(|_| ApiError::OtherUser);
/// The 400 of a route of pages.
pub(crate) const INVALID_LIMIT: ErrorDocs = invalid(|_| {
    let message = "Limit must be a whole number from 1 to 500.";
    ApiError::Core(Error::Invalid(field("limit", "out_of_range", message)))
});
/// The 400 of a route without values.
pub(crate) const BAD_REQUEST: ErrorDocs =
    invalid(|_| ApiError::BadRequest("There must be a Host header."));
pub(crate) const UNAUTHORIZED: ErrorDocs = ErrorDocs {
    description: "No token, or one that is not valid",
    example: |_| ApiError::Core(Error::Unauthenticated),
};
pub(crate) const BODY_TIMEOUT: ErrorDocs = ErrorDocs {
    description: "The body did not arrive in time",
    example: |_| ApiError::BodyTimeout,
};
pub(crate) const TOO_LARGE: ErrorDocs =
    ErrorDocs { description: "The body is too large", example: ApiError::TooLarge };
pub(crate) const MEDIA_TYPE: ErrorDocs = ErrorDocs {
    description: "The body is not application/json",
    example: |_| ApiError::UnsupportedMediaType,
};
pub(crate) const INTERNAL: ErrorDocs = ErrorDocs {
    description: "Internal server error",
    example: |_| ApiError::Core(Error::Internal(BoxError::new("example"))),
};
pub(crate) const UNAVAILABLE: ErrorDocs = ErrorDocs {
    description: "The database is unavailable or the server overloaded",
    example: |_| ApiError::Core(Error::Busy),
};
pub(crate) const TIMEOUT: ErrorDocs =
    ErrorDocs { description: "The request took too long", example: |_| ApiError::Timeout };

/// The 403 of a route of the account.
pub(crate) const SCOPE_REQUIRED: ErrorDocs = ErrorDocs {
    description: "An API key without the scope, or plain http where https is required",
    example: |_| ApiError::Core(Error::InsufficientScope { required: Some(Scope::AccountRead) }),
};
/// The 403 of a route that no API key may use.
pub(crate) const NO_KEYS: ErrorDocs = ErrorDocs {
    description: "An API key, or plain http where https is required",
    example: |_| ApiError::Core(Error::InsufficientScope { required: None }),
};

/// The errors of every route: the head is too large.
pub(crate) const OF_EVERY_ROUTE: &[ErrorDocs] = &[
    ErrorDocs { description: "The request target is too long", example: |_| ApiError::UriTooLong },
    ErrorDocs { description: "The headers are too large", example: |_| ApiError::HeadTooLarge },
];
/// A 403 of a route that documents no other, except for probes.
pub(crate) const HTTPS_REQUIRED: ErrorDocs = ErrorDocs {
    description: "Plain http where https is required",
    example: |_| ApiError::HttpsRequired,
};
