//! What can go wrong, told by what the caller can do about it. This file knows no status code, no
//! SQL and no HTTP; `http::problem` turns these into answers.

use std::{borrow::Cow, fmt, time::Duration};

/// The result of every operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Values that break a rule, every one of them. Mend them and try again.
    #[error("invalid input: {}", Listed(.0))]
    Invalid(Vec<FieldError>),
    /// There is no session behind the caller (any more). Log in again.
    #[error("not authenticated")]
    Unauthenticated,
    /// E-mail and password do not belong together. Which of the two is wrong is not told.
    #[error("wrong email or password")]
    InvalidCredentials,
    /// The thing belongs to somebody else.
    #[error("not allowed")]
    Forbidden,
    /// There is no such thing.
    #[error("not found")]
    NotFound,
    /// An account with this e-mail exists.
    #[error("email is already registered")]
    EmailTaken,
    /// Too many attempts from this client; the next one can pass after the time given.
    #[error("too many attempts, try again in {} s", whole_seconds(*.retry_after))]
    RateLimited {
        /// How long until an attempt can be let through.
        retry_after: Duration,
    },
    /// As much as can be worked on is being worked on. Try again in a moment.
    #[error("too busy")]
    Busy,
    /// The database is away, or too slow. Whether a write took effect is not known.
    #[error("the database is unavailable")]
    Unavailable(#[source] Cause),
    /// A fault of this library or of its database's content.
    #[error("internal error")]
    Internal(#[source] Cause),
}

impl Error {
    pub(crate) fn invalid(errors: impl Into<Vec<FieldError>>) -> Self {
        Self::Invalid(errors.into())
    }
}

/// Whole seconds, rounded up and at least one, as `Retry-After` wants them (RFC 9110, section
/// 10.2.3).
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

/// What lies behind [`Error::Unavailable`] and [`Error::Internal`]: for logs, never for a client.
/// Its text may name tables or hosts.
#[derive(Debug)]
pub struct Cause(Box<dyn std::error::Error + Send + Sync>);

impl Cause {
    pub(crate) fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }

    /// The cause itself, if it is a `T`.
    #[cfg(all(feature = "server", feature = "postgres"))]
    pub(crate) fn get<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// One rule that a field breaks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// The field's name as the caller knows it, such as `title`.
    pub field: Cow<'static, str>,
    /// A word for programs, such as `too_long`.
    pub code: &'static str,
    /// A whole sentence for people, with a capital and a full stop, that says what is allowed;
    /// never the value itself.
    pub message: Cow<'static, str>,
}

impl FieldError {
    /// Names a field, a code and a message.
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
    /// The value, or `None` and its error noted.
    pub(crate) fn note<T>(&mut self, parsed: Result<T, impl Into<Vec<FieldError>>>) -> Option<T> {
        parsed.map_err(|errors| self.0.extend(errors.into())).ok()
    }

    /// Everything noted, as one error.
    pub(crate) fn into_error(self) -> Error {
        Error::Invalid(self.0)
    }
}

/// Joins field errors, each with the name of its field.
pub(crate) struct Listed<'a>(pub(crate) &'a [FieldError]);

impl fmt::Display for Listed<'_> {
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
