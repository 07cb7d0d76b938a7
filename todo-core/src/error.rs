//! Errors of operations, by how the caller can react. This file contains no SQL and no HTTP;
//! `http::problem` maps the errors to responses.

use std::{borrow::Cow, fmt, ops::Deref, time::Duration};

use crate::scopes::Scope;

/// The result of every operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. It displays its own level; [`ErrorChain`] displays the causes too.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One or more fields are invalid; all are listed. Correct them and try again.
    #[error("invalid input: {0}")]
    Invalid(FieldErrors),
    /// The caller has no session, or it has ended. Log in again.
    #[error("not authenticated")]
    Unauthenticated,
    /// The e-mail or the password is wrong. The error does not distinguish them.
    #[error("wrong email or password")]
    InvalidCredentials,
    /// The resource belongs to another user.
    #[error("not allowed")]
    Forbidden,
    /// The caller's API key does not allow the operation.
    #[error("the API key does not allow this")]
    InsufficientScope {
        /// The scope that is required; `None` if no key allows the operation.
        required: Option<Scope>,
    },
    /// The resource does not exist.
    #[error("not found")]
    NotFound,
    /// The todo does not have the version that a change requires
    /// ([`Target`](crate::todos::Target)): it was changed meanwhile. Nothing was changed; read it
    /// again.
    #[error("the todo was changed meanwhile")]
    PreconditionFailed,
    /// The user has as many rows of a kind as is allowed. Delete some first.
    #[error("the limit of {limit} {of} is reached")]
    QuotaExceeded {
        /// What the limit counts.
        of: Quota,
        /// Maximum number.
        limit: u64,
        /// Present number. It may exceed the limit, if the limit was lowered.
        used: u64,
    },
    /// Items of a bulk ([`bulk`](crate::todos::bulk)) failed, so that nothing was changed.
    #[error("items of the bulk failed: {reason}")]
    ItemsFailed {
        /// Why the first of them failed.
        reason: ItemError,
        /// All of them: the field of each is the item's, such as `delete/7`.
        items: FieldErrors,
    },
    /// Todos of an imported file are invalid ([`import`](crate::todos::import)), so that none was
    /// created.
    #[error("{invalid} todos of the file are invalid: {errors}")]
    FileInvalid {
        /// The number of todos that are invalid.
        invalid: usize,
        /// The first 100 errors, each with its line.
        errors: FieldErrors,
    },
    /// The answers kept for the user's idempotency keys take too much space. Keys are free again
    /// after a day; requests without a key are unaffected.
    #[error("the answers of the user's idempotency keys have {used} of {limit} bytes")]
    KeysFull {
        /// Maximum size in bytes.
        limit: u64,
        /// Present size in bytes.
        used: u64,
    },
    /// The key was used for another request ([`create_once`](crate::todos::create_once)).
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A request with the same key is still running. Try again in a moment.
    #[error("a request with this idempotency key is running")]
    KeyInUse,
    /// The log of changes does not reach back to this position: list all todos again.
    #[error("the log of changes does not reach back so far")]
    CursorExpired,
    /// The user has as many open streams of changes as is allowed. Close one first.
    #[error("the limit of {limit} open streams is reached")]
    TooManyStreams {
        /// Maximum number.
        limit: u64,
    },
    /// The user has as many API keys as is allowed. Delete one first.
    #[error("the limit of {limit} API keys is reached")]
    TooManyKeys {
        /// Maximum number.
        limit: u64,
    },
    /// The session is too old for this, which requires one that began within the last 10 minutes.
    /// Log in again.
    #[error("the session is too old, log in again")]
    ReauthenticationRequired,
    /// The identity at another issuer belongs to another account.
    #[error("the identity belongs to another account")]
    IdentityTaken,
    /// The user has no password and no other identity, and could not log in any more.
    #[error("it is the last way to log in")]
    LastCredential,
    /// The code of a sign-in at a provider is invalid: used, expired or of another client.
    #[error("the code is not valid")]
    InvalidGrant,
    /// An account with this e-mail exists.
    #[error("email is already registered")]
    EmailTaken,
    /// The token of a link in a mail is invalid: used, expired, altered or of another link.
    #[error("the link is not valid")]
    InvalidLink,
    /// The e-mail address of the account is not confirmed, as a login requires. It is confirmed by
    /// the link in a mail, or by a reset of the password.
    #[error("the e-mail address is not confirmed")]
    EmailUnverified,
    /// The e-mail address of the account is confirmed already.
    #[error("the e-mail address is already confirmed")]
    AlreadyVerified,
    /// There are no mails: [`CoreBuilder::mail`](crate::CoreBuilder::mail) was not called.
    #[error("mails are not configured")]
    MailNotConfigured,
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
    /// A machine-readable name of the variant, such as `email_taken`. The HTTP API's problem
    /// documents have the same `code`. New variants bring new codes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) | Self::FileInvalid { .. } => "validation_error",
            Self::Unauthenticated => "unauthorized",
            Self::InvalidCredentials => "invalid_credentials",
            Self::Forbidden => "forbidden",
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::NotFound => "not_found",
            Self::PreconditionFailed => "precondition_failed",
            Self::QuotaExceeded { .. } | Self::KeysFull { .. } => "quota_exceeded",
            Self::ItemsFailed { reason, .. } => reason.code(),
            Self::KeyReused => "idempotency_mismatch",
            Self::KeyInUse => "conflict",
            Self::CursorExpired => "cursor_expired",
            Self::TooManyKeys { .. } => "too_many_keys",
            Self::ReauthenticationRequired => "reauthentication_required",
            Self::IdentityTaken => "identity_taken",
            Self::LastCredential => "last_credential",
            Self::InvalidGrant => "invalid_grant",
            Self::EmailTaken => "email_taken",
            Self::InvalidLink => "invalid_link",
            Self::EmailUnverified => "email_unverified",
            Self::AlreadyVerified => "already_verified",
            Self::MailNotConfigured => "mail_not_configured",
            Self::RateLimited { .. } | Self::TooManyStreams { .. } => "rate_limited",
            Self::Busy | Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the same call may succeed later. A write may have taken effect despite
    /// [`Error::Unavailable`], and a retry would then repeat it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. }
                | Self::TooManyStreams { .. }
                | Self::KeyInUse
                | Self::Busy
                | Self::Unavailable(_)
        )
    }
}

impl From<FieldErrors> for Error {
    fn from(errors: FieldErrors) -> Self {
        Self::Invalid(errors)
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error.into())
    }
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum Quota {
    /// The todos of a user, without those in the trash.
    Todos,
    /// The different tags of a user's todos.
    Tags,
    /// The lists of a user.
    Lists,
    /// The reminders of a user that have not fired.
    Reminders,
    /// The identities with which a user logs in.
    Identities,
}

impl Quota {
    /// The name in the plural, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todos => "todos",
            Self::Tags => "tags",
            Self::Lists => "lists",
            Self::Reminders => "reminders",
            Self::Identities => "identities",
        }
    }

    /// A sentence for people with this many.
    pub(crate) fn message(self, limit: u64) -> String {
        format!("You have reached the limit of {limit} {self}. Please delete some first.")
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an item of a bulk failed ([`bulk`](crate::todos::bulk)).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ItemError {
    /// Its values are invalid.
    #[error("{0}")]
    Invalid(FieldErrors),
    /// The todo belongs to another user.
    #[error("not allowed")]
    Forbidden,
    /// The todo does not exist.
    #[error("not found")]
    NotFound,
    /// The user has as many todos, or different tags, as is allowed.
    #[error("the limit of {limit} {of} is reached")]
    QuotaExceeded {
        /// What the limit counts.
        of: Quota,
        /// Maximum number.
        limit: u64,
        /// Present number.
        used: u64,
    },
}

impl ItemError {
    /// The error of an item whose tags or list were rejected.
    pub(crate) fn of_details(error: Error) -> Self {
        match error {
            Error::QuotaExceeded { of, limit, used } => Self::QuotaExceeded { of, limit, used },
            Error::Invalid(errors) => Self::Invalid(errors),
            _ => Self::Invalid(FieldError::new("tags", "invalid", "Tags are invalid.").into()),
        }
    }

    /// The code of the same [`Error`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validation_error",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::QuotaExceeded { .. } => "quota_exceeded",
        }
    }

    /// A sentence for people.
    pub(crate) fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Invalid(errors) => {
                let messages: Vec<&str> = errors.iter().map(|e| e.message.as_ref()).collect();
                messages.join(" ").into()
            }
            Self::Forbidden => "You don't have access to this todo.".into(),
            Self::NotFound => "There is no such todo.".into(),
            Self::QuotaExceeded { of, limit, .. } => of.message(*limit).into(),
        }
    }
}

impl From<ItemError> for Error {
    fn from(error: ItemError) -> Self {
        match error {
            ItemError::Invalid(errors) => Self::Invalid(errors),
            ItemError::Forbidden => Self::Forbidden,
            ItemError::NotFound => Self::NotFound,
            ItemError::QuotaExceeded { of, limit, used } => Self::QuotaExceeded { of, limit, used },
        }
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

/// An error and its causes in one line, for a log or a terminal: each level after a colon, without
/// the levels whose text the level before repeats.
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = self.0.to_string();
        f.write_str(&above)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !above.ends_with(&text) {
                write!(f, ": {text}")?;
                above = text;
            }
            cause = error.source();
        }
        Ok(())
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
    /// The line of an imported file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

impl FieldError {
    /// An error of `field`, with a code and a message.
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), code, message: message.into(), line: None }
    }

    /// The error, on a line of an imported file.
    pub(crate) fn on_line(mut self, line: u32) -> Self {
        self.line = Some(line);
        self
    }

    /// The error, with the name of its field below `parent`.
    pub(crate) fn below(mut self, parent: &str) -> Self {
        self.field = format!("{parent}/{}", self.field).into();
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for FieldError {}

/// The violated rules of one value or of a whole form: at least one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// No error yet: the start of a collection.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Returns the value, or `None` after collecting its errors.
    pub(crate) fn collect<T>(&mut self, parsed: Result<T, impl Into<Self>>) -> Option<T> {
        parsed.map_err(|errors| self.0.extend(errors.into().0)).ok()
    }

    /// The errors, as those of the field `name`; those of a part of the field keep their place in
    /// it.
    pub(crate) fn of_field(mut self, name: &'static str) -> Self {
        for error in &mut self.0 {
            error.field = match error.field.split_once('/') {
                None => name.into(),
                Some((_, part)) => format!("{name}/{part}").into(),
            };
        }
        self
    }

    /// The errors, as those of the item at `index` of their field.
    pub(crate) fn at(mut self, index: usize) -> Self {
        for error in &mut self.0 {
            error.field = format!("{}/{index}", error.field).into();
        }
        self
    }

    /// The errors, with the names of their fields below `parent`.
    pub(crate) fn below(self, parent: &str) -> Self {
        Self(self.0.into_iter().map(|error| error.below(parent)).collect())
    }

    pub(crate) fn extend(&mut self, errors: Self) {
        self.0.extend(errors.0);
    }

    /// `value` if no error was collected.
    pub(crate) fn into_result<T>(self, value: impl FnOnce() -> T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value()) } else { Err(self) }
    }
}

impl From<FieldError> for FieldErrors {
    fn from(error: FieldError) -> Self {
        Self(vec![error])
    }
}

impl From<FieldErrors> for Vec<FieldError> {
    fn from(errors: FieldErrors) -> Self {
        errors.0
    }
}

impl Deref for FieldErrors {
    type Target = [FieldError];

    fn deref(&self) -> &[FieldError] {
        &self.0
    }
}

impl IntoIterator for FieldErrors {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a FieldErrors {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// All errors in one line, each with the name of its field.
impl fmt::Display for FieldErrors {
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

impl std::error::Error for FieldErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Level(&'static str, #[source] Option<Box<Level>>);

    #[test]
    fn a_chain_has_each_level_once() {
        let inner = Level("refused", None);
        let middle = Level("the driver failed: refused", Some(Box::new(inner)));
        let outer = Level("cannot open", Some(Box::new(middle)));
        assert_eq!(outer.to_string(), "cannot open");
        assert_eq!(ErrorChain(&outer).to_string(), "cannot open: the driver failed: refused");
        let cause = BoxError::new(outer);
        let error = Error::Unavailable(cause);
        let all = "the database is unavailable: cannot open: the driver failed: refused";
        assert_eq!(ErrorChain(&error).to_string(), all);
    }

    #[test]
    fn a_bad_field_becomes_an_error() {
        fn parse(limit: u16) -> Result<crate::todos::Limit> {
            let _title: crate::todos::Title = "a title".parse()?;
            Ok(crate::todos::Limit::new(limit)?)
        }
        assert!(parse(1).is_ok());
        let error = parse(0).unwrap_err();
        assert_eq!(error.code(), "validation_error");
        let text = "invalid input: limit: Limit must be a whole number from 1 to 500.";
        assert_eq!(error.to_string(), text);
    }
}
