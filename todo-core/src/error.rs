//! Errors of operations, by how the caller can react. This file contains no SQL and no HTTP;
//! `http::problem` maps the errors to responses.

use std::{borrow::Cow, fmt, time::Duration};

/// The result of every operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One or more fields are invalid; all are listed. Correct them and try again.
    #[error("invalid input: {}", Joined(.0))]
    Invalid(Vec<FieldError>),
    /// The caller has no session, or it has ended. Log in again.
    #[error("not authenticated")]
    Unauthenticated,
    /// The e-mail or the password is wrong. The error does not distinguish them.
    #[error("wrong email or password")]
    InvalidCredentials,
    /// The resource belongs to another user.
    #[error("not allowed")]
    Forbidden,
    /// The resource does not exist.
    #[error("not found")]
    NotFound,
    /// An account with this e-mail exists.
    #[error("email is already registered")]
    EmailTaken,
    /// Too many attempts from this client; try again after the given time.
    #[error("too many attempts, try again in {} s", whole_seconds(*.retry_after))]
    RateLimited {
        /// Time until the next attempt is allowed.
        retry_after: Duration,
    },
    /// A limit of concurrent work is reached. Try again in a moment.
    #[error("too busy")]
    Busy,
    /// The database is unavailable or too slow. A write may or may not have taken effect.
    #[error("the database is unavailable")]
    Unavailable(#[source] BoxError),
    /// A bug in this library, or corrupt content of its database.
    #[error("internal error")]
    Internal(#[source] BoxError),
}

impl Error {
    pub(crate) fn invalid(errors: impl Into<Vec<FieldError>>) -> Self {
        Self::Invalid(errors.into())
    }
}

/// Whole seconds for `Retry-After` (RFC 9110, section 10.2.3), rounded up and at least one.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// The cause of [`Error::Unavailable`] and [`Error::Internal`]: for logs, never for a client. Its
/// text may contain names of tables or hosts.
#[derive(Debug)]
pub struct BoxError(Box<dyn std::error::Error + Send + Sync>);

impl BoxError {
    pub(crate) fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }

    /// The cause itself, if it is a `T`.
    #[cfg(feature = "postgres")]
    pub(crate) fn get<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for BoxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BoxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// One violated rule of a field.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// The field's name in the API, such as `title`.
    pub field: Cow<'static, str>,
    /// A machine-readable code, such as `too_long`.
    pub code: &'static str,
    /// A sentence for people, with a capital and a full stop, that states the rule and never
    /// contains the value.
    pub message: Cow<'static, str>,
}

impl FieldError {
    /// An error of `field`, with a code and a message.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), code, message: message.into() }
    }
}

impl From<FieldError> for Vec<FieldError> {
    fn from(error: FieldError) -> Self {
        vec![error]
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

/// Collects the errors of a form's fields, so that all are reported at once.
#[derive(Default)]
pub(crate) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Returns the value, or `None` after collecting its errors.
    pub(crate) fn collect<T>(
        &mut self,
        parsed: Result<T, impl Into<Vec<FieldError>>>,
    ) -> Option<T> {
        parsed.map_err(|errors| self.0.extend(errors.into())).ok()
    }

    /// All collected errors as one.
    pub(crate) fn into_error(self) -> Error {
        Error::Invalid(self.0)
    }
}

/// Joins field errors, each with the name of its field.
pub(crate) struct Joined<'a>(pub(crate) &'a [FieldError]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
