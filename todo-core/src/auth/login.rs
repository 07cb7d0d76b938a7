//! Login: a new session for the right password.

use std::net::IpAddr;

use uuid::Uuid;

use super::{
    AuthEvent, Client, Credentials, Session, SessionLabel, User, UserId, events,
    limited::{Limited, log_if_failed},
    session::new_session,
    types::{USER_COLUMNS, user_columns},
};
use crate::{
    core::Core,
    crypto::hashing::HashPermit,
    db::{DbError, FromRow, Row, RowsAffected, Statement, value::Timestamp},
    error::{Error, Result},
    rate_limit::{Action, RateLimitState, client_key},
};

/// How often a login reads an account that is changed concurrently.
const TRIES: usize = 3;

/// Creates a session if the e-mail and the password match. The rate limit is per address of a
/// `client`. A wrong e-mail and a wrong password are indistinguishable, in their error and in their
/// duration.
///
/// # Errors
/// [`Error::InvalidCredentials`], [`Error::RateLimited`] after too many failures,
/// [`Error::EmailUnverified`] if the core requires a confirmed address
/// ([`MailOptions`](crate::mail::MailOptions)); else as [`signup`](super::signup).
pub async fn login(core: &Core, client: Client, given: Credentials) -> Result<Session> {
    login_limited(core, client.address(), given).await.result
}

/// As [`login`], with the state of the rate limit.
pub(crate) async fn login_limited(
    core: &Core,
    client: Option<IpAddr>,
    given: Credentials,
) -> Limited<Session> {
    let work = core.clone();
    let outcome = core.anonymous(async move {
        let mut state = None;
        let session = match log_in(&work, client, given, &mut state).await {
            Ok(session) => {
                events::succeeded(AuthEvent::Login, client, session.user.id);
                Ok(session)
            }
            Err(failure) => {
                events::failed(AuthEvent::Login, client, failure.user_id, failure.reason);
                Err(failure.error)
            }
        };
        Ok((session, state))
    });
    Limited::new(outcome.await)
}

/// A failed login, with the reason and the user for the log.
struct LoginFailure {
    error: Error,
    reason: &'static str,
    user_id: Option<UserId>,
}

impl From<Error> for LoginFailure {
    fn from(error: Error) -> Self {
        Self { reason: events::reason(&error), error, user_id: None }
    }
}

/// Creates a session if the password is right, within the client's rate limit.
async fn log_in(
    core: &Core,
    client: Option<IpAddr>,
    given: Credentials,
    state: &mut Option<RateLimitState>,
) -> Result<Session, LoginFailure> {
    // The queue first: an attempt that it rejects costs no statement.
    let admitted = core.rate_limiter().admit(Action::Login, client).await?;
    let permit = core.hasher().permit(client, Some(given.email.as_str()))?;
    let attempt = match admitted {
        Some(admitted) => Some(admitted.take().await?),
        None => None,
    };
    let session = check_credentials(core, client, permit, &given).await;
    let is_failed = matches!(&session, Err(LoginFailure { error: Error::InvalidCredentials, .. }));
    if is_failed {
        core.hasher().failed(client, given.email.as_str());
    }
    if let Some(attempt) = attempt {
        *state = Some(attempt.state(is_failed));
        // Only a wrong password counts, not a right one and not an internal error.
        log_if_failed(if is_failed { attempt.commit().await } else { attempt.refund().await });
    }
    session
}

/// Creates a session if the password is right. All failures take the same time.
async fn check_credentials(
    core: &Core,
    client: Option<IpAddr>,
    mut permit: HashPermit,
    given: &Credentials,
) -> Result<Session, LoginFailure> {
    const SQL: &str = concat!(
        "SELECT ",
        user_columns!(),
        ", password_hash FROM users WHERE email IN ($1, $2) AND deleted_at IS NULL"
    );
    for _ in 0..TRIES {
        let account = Statement::new(SQL).bind(given.email.as_str()).bind(given.email.in_ascii());
        let found: Option<Account> = core.db().fetch(account).await.map_err(Error::from)?;
        let (user, stored) = found.map(|Account { user, hash }| (user, hash)).unzip();
        let verified = permit.verify(given.password.clone(), stored.clone()).await?;
        // The client gets the same error for all of them.
        let failure =
            |reason, user_id| LoginFailure { error: Error::InvalidCredentials, reason, user_id };
        let (Some(user), Some(stored)) = (user, stored) else {
            return Err(failure("no such account", None));
        };
        if !verified.matches {
            let reason =
                if verified.is_unusable { "stored hash unusable" } else { "wrong password" };
            return Err(failure(reason, Some(user.id)));
        }
        if core.requires_verified_email() && !user.email_verified {
            let error = Error::EmailUnverified;
            let reason = events::reason(&error);
            return Err(LoginFailure { error, reason, user_id: Some(user.id) });
        }
        let hash = match verified.upgrade {
            None => Some(stored),
            Some(upgrade) => upgrade_hash(core, user.id, stored, upgrade).await,
        };
        if let Some(hash) = hash
            && let Some(session) =
                open_session(core, user, &hash, client, given.label.as_ref()).await?
        {
            return Ok(session);
        }
        // The password was changed meanwhile, or the account deleted.
        permit = core.hasher().permit(client, Some(given.email.as_str()))?;
    }
    Err(Error::Busy.into())
}

/// An account and its password hash.
struct Account {
    user: User,
    hash: String,
}

impl FromRow for Account {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self { user: User::from_row(row)?, hash: row.get(USER_COLUMNS)? })
    }
}

/// Creates a session for `user`; `None` if `hash` is no longer the stored one.
pub(super) async fn open_session(
    core: &Core,
    user: User,
    hash: &str,
    client: Option<IpAddr>,
    label: Option<&SessionLabel>,
) -> Result<Option<Session>> {
    // A view, whose trigger locks the account on PostgreSQL: a password that changes meanwhile ends
    // this session, or this finds the changed one.
    const SQL: &str = "INSERT INTO new_sessions \
         (id, user_id, kind, label, client, scopes, created_at, expires_at, password_hash) \
         SELECT $1, id, 'password', $6, $7, -1, $3, $4, password_hash FROM users \
         WHERE id = $2 AND password_hash = $5 AND deleted_at IS NULL RETURNING id";
    let now = core.now();
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(id)
        .bind(session.user.id)
        .bind(Timestamp(now))
        .bind(Timestamp(session.expires_at))
        .bind(hash)
        .bind(label.map(SessionLabel::as_str))
        .bind(client.map(client_key));
    let inserted: Option<(Uuid,)> = core.db().execute(insert).await?;
    Ok(inserted.map(|_| session))
}

/// Stores a hash with the current parameters and returns the stored one; `None` if the password was
/// changed meanwhile.
async fn upgrade_hash(
    core: &Core,
    user_id: UserId,
    stored: String,
    upgrade: String,
) -> Option<String> {
    const SQL: &str = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    let update = Statement::new(SQL).bind(user_id).bind(&*stored).bind(&*upgrade);
    match core.db().execute(update).await {
        Ok(RowsAffected(0)) => None,
        Ok(_) => Some(upgrade),
        Err(fault) => {
            let error = Error::from(fault);
            tracing::warn!(%error, "password hash not upgraded, the next login retries");
            Some(stored)
        }
    }
}
