//! Authorization: the [`Caller`] of an operation, and the condition of its statements.

use std::num::NonZeroI64;

use chrono::{DateTime, Utc};
use sqlx::SqlSafeStr;
use uuid::Uuid;

use crate::{
    crypto::api_key::KeyClaims,
    db::Statement,
    error::{Error, Result},
    ids::UserId,
    scopes::{Scope, Scopes},
};

/// The authenticated user of an operation. There are two ways to get one: from the token of a live
/// session or from an API key, with [`authenticate`](crate::auth::authenticate), or from a user id
/// that the host program trusts, with [`Caller::trusted`].
///
/// Operations on todos do not check the scopes of a key: a host program that accepts keys calls
/// [`Caller::require`] first, as the HTTP API does. Operations on the account and on credentials
/// reject keys, but for [`current_user`](crate::auth::current_user).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    user_id: UserId,
    /// None for a trusted caller.
    session: Option<CallerSession>,
}

/// The session of a caller, by its token. Small: it is in the future of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CallerSession {
    id: Uuid,
    /// The expiry of the token, in seconds since the Unix epoch.
    expires_at: NonZeroI64,
    /// None unless it is an API key.
    scopes: Option<Scopes>,
}

impl Caller {
    /// A caller that the host program has authenticated by its own means. No session is checked:
    /// the host program is responsible for the user id.
    #[must_use]
    pub fn trusted(user_id: UserId) -> Self {
        Self { user_id, session: None }
    }

    /// The user's id.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.user_id
    }

    /// What the caller's API key allows; `None` if the caller has no key, and may do everything.
    #[must_use]
    pub fn scopes(&self) -> Option<Scopes> {
        self.session?.scopes
    }

    /// Fails if the caller has an API key without `scope`.
    ///
    /// # Errors
    /// [`Error::InsufficientScope`].
    pub fn require(&self, scope: Scope) -> Result<()> {
        match self.scopes() {
            Some(scopes) if !scopes.contains(scope) => {
                Err(Error::InsufficientScope { required: Some(scope) })
            }
            _ => Ok(()),
        }
    }

    /// Fails if the caller has an API key.
    ///
    /// # Errors
    /// [`Error::InsufficientScope`].
    pub fn require_no_key(&self) -> Result<()> {
        match self.scopes() {
            Some(_) => Err(Error::InsufficientScope { required: None }),
            None => Ok(()),
        }
    }

    /// The caller of a valid token. Its session may have ended: every statement checks it.
    /// `expires_at` is the expiry of the token, in seconds since the Unix epoch.
    pub(crate) fn of_session(user_id: UserId, session: Uuid, expires_at: i64) -> Self {
        let expires_at = NonZeroI64::new(expires_at).unwrap_or(NonZeroI64::MIN);
        Self { user_id, session: Some(CallerSession { id: session, expires_at, scopes: None }) }
    }

    /// The caller of an API key that has not expired. Its user is a claim until its session was
    /// found ([`find`](crate::auth::credential::find)).
    pub(crate) fn of_key(key: KeyClaims) -> Self {
        let KeyClaims { user_id, scopes, expires_at, session } = key;
        let mut caller = Self::of_session(user_id.into(), session, expires_at);
        if let Some(session) = &mut caller.session {
            session.scopes = Some(scopes);
        }
        caller
    }

    /// The time when the caller's token expires; none for a trusted caller.
    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        let session = self.session?;
        let expires_at = DateTime::from_timestamp(session.expires_at.get(), 0);
        // Beyond the year 262,000.
        Some(expires_at.unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// The session of the caller's token; none for a trusted caller.
    pub(crate) fn session(&self) -> Option<Uuid> {
        self.session.map(|session| session.id)
    }

    pub(crate) fn is_trusted(&self) -> bool {
        self.session.is_none()
    }

    pub(crate) fn session_or_nil(&self) -> Uuid {
        self.session().unwrap_or(Uuid::nil())
    }
}

/// SQL condition that the caller is authorized: `$1` is the user, `$2` whether the host program
/// trusts the caller, `$3` the session. These are the first three binds of every such statement.
macro_rules! authorized {
    () => {
        "($2 OR EXISTS (SELECT 1 FROM sessions WHERE id = $3 AND user_id = $1))"
    };
}
pub(crate) use authorized;

/// A statement with the caller as its first three binds, for [`authorized!`].
pub(crate) fn acting_as(caller: Caller, sql: impl SqlSafeStr) -> Statement {
    Statement::new(sql)
        .of(caller.user_id())
        .bind(caller.user_id())
        .bind(caller.is_trusted())
        .bind(caller.session_or_nil())
}
