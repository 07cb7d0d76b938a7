//! Accounts and sessions: signup, login, logout, and the verification of tokens.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use self::events::AuthEvent;
pub use self::types::{Client, Credentials, Email, Name, Password, Session, Signup, Token, User};
pub use crate::{authz::Caller, ids::UserId};
use crate::{
    authz::{acting_as, authorized},
    clock::new_id,
    core::Core,
    crypto::{hashing::HashPermit, stored_hash},
    db::{RowsAffected, Statement, value::Timestamp},
    error::{Error, Result},
    rate_limit::{Action, RateLimitState},
};

mod address;
pub(crate) mod events;
mod types;

/// How often a login reads an account that is changed concurrently.
const TRIES: usize = 3;

/// Creates an account and its first session. The rate limit is per address of a `client`.
///
/// # Errors
/// [`Error::EmailTaken`], [`Error::RateLimited`], [`Error::Busy`] if too many passwords wait to be
/// hashed; else the errors of every operation: [`Error::Unavailable`], [`Error::Internal`].
pub async fn signup(core: &Core, client: Client, signup: Signup) -> Result<Session> {
    signup_limited(core, client.address(), signup).await.result
}

/// The result of a rate-limited operation, with the state of the limit if it is known.
pub(crate) struct Limited<T> {
    pub(crate) result: Result<T>,
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "for fields of responses"))]
    pub(crate) state: Option<RateLimitState>,
}

impl<T> Limited<T> {
    fn new(outcome: Result<(Result<T>, Option<RateLimitState>)>) -> Self {
        let (result, state) = outcome.unwrap_or_else(|error| (Err(error), None));
        let state = match &result {
            Err(Error::RateLimited { retry_after }) => {
                Some(RateLimitState::exhausted(*retry_after))
            }
            _ => state,
        };
        Self { result, state }
    }
}

/// As [`signup`], with the state of the rate limit.
pub(crate) async fn signup_limited(
    core: &Core,
    client: Option<IpAddr>,
    signup: Signup,
) -> Limited<Session> {
    let work = core.clone();
    let outcome = core.anonymous(async move {
        let mut state = None;
        let session = sign_up(&work, client, signup, &mut state).await;
        match &session {
            Ok(session) => events::succeeded(AuthEvent::Signup, client, session.user.id),
            Err(error) => events::failed(AuthEvent::Signup, client, None, events::reason(error)),
        }
        Ok((session, state))
    });
    Limited::new(outcome.await)
}

/// Creates a session if the e-mail and the password match. The rate limit is per address of a
/// `client`. A wrong e-mail and a wrong password are indistinguishable, in their error and in their
/// duration.
///
/// # Errors
/// [`Error::InvalidCredentials`], [`Error::RateLimited`] after too many failures; else as
/// [`signup`].
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

/// Ends the session of `token`: from now on every replica rejects this token. Other sessions of the
/// user stay.
///
/// # Errors
/// [`Error::Unauthenticated`]; else as [`authenticate`].
pub async fn logout(core: &Core, token: &str) -> Result<()> {
    end_session(core, verify_token(core, token, None)?, None).await
}

/// Ends the caller's session. `client` is the address for the log.
pub(crate) async fn end_session(core: &Core, caller: Caller, client: Option<IpAddr>) -> Result<()> {
    const SQL: &str = "DELETE FROM sessions WHERE id = $1 AND user_id = $2";
    let db = core.db();
    let user_id = caller.user_id();
    core.write_and_log(user_id, async move {
        let end = Statement::new(SQL).of(user_id).bind(caller.session_or_nil()).bind(user_id);
        let ended = match db.execute(end).await {
            Ok(RowsAffected(0)) => Err(Error::Unauthenticated),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.into()),
        };
        match &ended {
            Ok(()) => events::succeeded(AuthEvent::Logout, client, user_id),
            Err(error) => {
                events::failed(AuthEvent::Logout, client, Some(user_id), events::reason(error));
            }
        }
        ended
    })
    .await
}

/// Verifies the signature and the times of `token`, and returns its caller, whose session may have
/// ended: only the operations, whose statements check the session, may take it. `client` is the
/// address for the log.
///
/// # Errors
/// [`Error::Unauthenticated`].
pub(crate) fn verify_token(core: &Core, token: &str, client: Option<IpAddr>) -> Result<Caller> {
    match core.tokens().verify(token, core.now()) {
        Ok(verified) => Ok(Caller::of_session(verified.user_id.into(), verified.session)),
        Err(rejected) => {
            events::failed(
                AuthEvent::Token,
                client,
                rejected.user_id().map(Into::into),
                rejected.reason(),
            );
            Err(Error::Unauthenticated)
        }
    }
}

/// Verifies `token` and its session in the database, and returns its caller.
///
/// # Errors
/// [`Error::Unauthenticated`]; else [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn authenticate(core: &Core, token: &str) -> Result<Caller> {
    let caller = verify_token(core, token, None)?;
    check_session(core, &caller).await?;
    Ok(caller)
}

/// Fails if the caller's session has ended meanwhile. A [trusted](Caller::trusted) caller has no
/// session.
///
/// # Errors
/// As [`authenticate`].
pub async fn check_session(core: &Core, caller: &Caller) -> Result<()> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2)";
    let Some(session) = caller.session() else { return Ok(()) };
    let db = core.db();
    let user_id = caller.user_id();
    core.read(user_id, async move {
        let (is_live,): (bool,) =
            db.fetch_one(Statement::new(SQL).bind(session).bind(user_id)).await?;
        if is_live { Ok(()) } else { Err(Error::Unauthenticated) }
    })
    .await
}

/// The caller's own account.
///
/// # Errors
/// As [`authenticate`].
pub async fn current_user(core: &Core, caller: &Caller) -> Result<User> {
    const SQL: &str =
        concat!("SELECT id, email, name, created_at FROM users WHERE id = $1 AND ", authorized!());
    let db = core.db();
    let caller = *caller;
    core.read(caller.user_id(), async move {
        let user: Option<User> = db.fetch(acting_as(caller, SQL)).await?;
        user.ok_or(Error::Unauthenticated)
    })
    .await
}

/// Sets the name of the caller's account. No todo and no session changes.
///
/// # Errors
/// As [`authenticate`].
pub async fn rename(core: &Core, caller: &Caller, name: Name) -> Result<User> {
    const SQL: &str = concat!(
        "UPDATE users SET name = $4 WHERE id = $1 AND ",
        authorized!(),
        " RETURNING id, email, name, created_at"
    );
    let db = core.db();
    let caller = *caller;
    core.write(caller.user_id(), async move {
        let update = acting_as(caller, SQL).bind(name.as_str());
        let user: Option<User> = db.execute(update).await?;
        user.ok_or(Error::Unauthenticated)
    })
    .await
}

/// Deletes expired sessions and old rate-limit slots, in bounded batches, and reloads the cost of
/// the stored password hashes. Servers call it every minute; the interval does not matter for
/// sessions, as expired ones are rejected anyway.
///
/// # Errors
/// [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn delete_expired(core: &Core) -> Result<()> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
         (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT 1000)";
    // A time far in the future was written before the clock was set back.
    const ATTEMPTS: &str = "DELETE FROM rate_limits WHERE (action, client, slot) IN \
         (SELECT action, client, slot FROM rate_limits \
         WHERE taken_at <= $1 OR taken_at > $2 LIMIT 1000) \
         AND (taken_at <= $1 OR taken_at > $2)"; // again: taken while this waits for the row
    let db = core.db();
    let now = core.now();
    let work = core.clone();
    core.anonymous(async move {
        let sessions = Statement::new(SESSIONS).bind(Timestamp(now));
        let attempts = Statement::new(ATTEMPTS)
            .bind(Timestamp(now - chrono::TimeDelta::minutes(2)))
            .bind(Timestamp(now + chrono::TimeDelta::hours(1)));
        for delete in [sessions, attempts] {
            loop {
                let RowsAffected(deleted) = db.execute(delete.clone()).await?;
                if deleted < 1000 {
                    break;
                }
            }
        }
        load_hash_costs(&work).await
    })
    .await
}

/// Loads the cost of the stored password hashes: each failed login costs as much as the costliest.
pub(crate) async fn load_hash_costs(core: &Core) -> Result<()> {
    core.hasher().set_max_work(stored_hash::max_stored_work(&core.db()).await?);
    Ok(())
}

/// Creates an account and its first session, within the client's rate limit.
async fn sign_up(
    core: &Core,
    client: Option<IpAddr>,
    signup: Signup,
    state: &mut Option<RateLimitState>,
) -> Result<Session> {
    // A view whose trigger inserts both rows: after an error there is no account.
    const SQL: &str = "INSERT INTO signups \
         (id, email, name, password_hash, created_at, session_id, expires_at) \
         VALUES ($1, coalesce((SELECT email FROM users WHERE email = $8), $2), $3, $4, $5, $6, $7)";
    // The queue first: an attempt that it rejects costs no statement and no rate-limit slot.
    let admitted = core.rate_limiter().admit(Action::Signup, client).await?;
    let permit = core.hasher().permit(client, None)?;
    let attempt = match admitted {
        Some(admitted) => Some(admitted.take().await?),
        None => None,
    };
    let hash = match (permit.hash(signup.password).await, attempt) {
        (Err(Error::Busy), Some(attempt)) => {
            *state = Some(attempt.state(false));
            log_if_failed(attempt.refund().await);
            return Err(Error::Busy);
        }
        (hash, attempt) => {
            *state = attempt.as_ref().map(|attempt| attempt.state(true));
            (hash?, attempt)
        }
    };
    // The guard is held until this function returns.
    let (hash, _attempt) = hash;
    let now = core.now();
    let user = User {
        id: new_id(now).into(),
        email: signup.email.clone(),
        name: signup.name,
        created_at: now,
    };
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(session.user.id)
        .bind(session.user.email.as_str())
        .bind(session.user.name.as_str())
        .bind(hash)
        .bind(Timestamp(now))
        .bind(id)
        .bind(Timestamp(session.expires_at))
        .bind(signup.email.in_ascii());
    // The unique index decides whether the e-mail is taken: of forty concurrent signups one
    // succeeds. The statement inserts the ASCII form if an account has it, to conflict with that
    // account.
    match core.db().execute(insert).await {
        Ok(RowsAffected(_)) => Ok(session),
        Err(fault) if fault.is_unique_violation() => Err(Error::EmailTaken),
        Err(fault) => Err(fault.into()),
    }
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

/// Logs a failed refund or commit. The login's result stands, and the slot expires on its own.
fn log_if_failed(ended: Result<()>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "rate-limit slot not updated");
    }
}

/// Creates a session if the password is right. All failures take the same time.
async fn check_credentials(
    core: &Core,
    client: Option<IpAddr>,
    mut permit: HashPermit,
    given: &Credentials,
) -> Result<Session, LoginFailure> {
    const SQL: &str =
        "SELECT id, email, name, created_at, password_hash FROM users WHERE email IN ($1, $2)";
    for _ in 0..TRIES {
        let account = Statement::new(SQL).bind(given.email.as_str()).bind(given.email.in_ascii());
        let found: Option<(Uuid, String, String, Timestamp, String)> =
            core.db().fetch(account).await.map_err(Error::from)?;
        let (user, stored) = match found {
            None => (None, None),
            Some((id, email, name, created_at, stored)) => {
                let user = User {
                    id: id.into(),
                    email: Email::from_stored(email),
                    name: Name::from_stored(name),
                    created_at: created_at.0,
                };
                (Some(user), Some(stored))
            }
        };
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
        let hash = match verified.upgrade {
            None => Some(stored),
            Some(upgrade) => upgrade_hash(core, user.id, stored, upgrade).await,
        };
        if let Some(hash) = hash
            && let Some(session) = open_session(core, user, &hash).await?
        {
            return Ok(session);
        }
        // The password was changed meanwhile, or the account deleted.
        permit = core.hasher().permit(client, Some(given.email.as_str()))?;
    }
    Err(Error::Busy.into())
}

/// Creates a session for `user`; `None` if `hash` is no longer the stored one.
async fn open_session(core: &Core, user: User, hash: &str) -> Result<Option<Session>> {
    const SQL: &str = "INSERT INTO sessions (id, user_id, created_at, expires_at) \
         SELECT $1, id, $3, $4 FROM users WHERE id = $2 AND password_hash = $5";
    let now = core.now();
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(id)
        .bind(session.user.id)
        .bind(Timestamp(now))
        .bind(Timestamp(session.expires_at))
        .bind(hash);
    match core.db().execute(insert).await {
        Ok(RowsAffected(0)) => Ok(None),
        Ok(_) => Ok(Some(session)),
        Err(fault) if fault.is_foreign_key_violation() => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// A new session with its signed token, and its id. It is valid once it is stored.
fn new_session(core: &Core, user: User, now: DateTime<Utc>) -> Result<(Uuid, Session)> {
    let id = new_id(now);
    let expires_at = core.tokens().expiry(now);
    let token = core.tokens().sign(user.id.as_uuid(), id, now, expires_at)?;
    Ok((id, Session { user, token: Token::new(token), expires_at }))
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

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::Secret;

    async fn attempts(core: &Core) -> Result<i64> {
        let count = Statement::new("SELECT count(*) FROM rate_limits");
        let (count,) = core.db().fetch_one(count).await?;
        Ok(count)
    }

    #[tokio::test]
    async fn an_attempt_rejected_by_a_full_queue_takes_no_slot() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
        let (email, password) = ("ann@example.com", "Correct1horse");
        let network = |n: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(n << 8)));
        let held: Vec<_> =
            (0..).map_while(|n| core.hasher().permit(network(n), None).ok()).collect();
        assert!(held.len() > 100, "each network has one slot: {}", held.len());
        let client = Client::At("192.0.2.7".parse().unwrap());
        let form = || Signup::parse(email, password, "Ann Other").unwrap();
        for _ in 0..10 {
            let rejected = signup(&core, client, form()).await;
            assert!(matches!(rejected, Err(Error::Busy)), "{rejected:?}");
            let rejected = login(&core, client, Credentials::parse(email, password).unwrap()).await;
            assert!(matches!(rejected, Err(Error::Busy)), "{rejected:?}");
        }
        assert_eq!(attempts(&core).await.unwrap(), 0);
        drop(held);
        signup(&core, client, form()).await.unwrap();
        assert_eq!(attempts(&core).await.unwrap(), 1);
    }

    /// A login reads the hash and inserts the session in two statements; the password may be
    /// changed, or the account deleted, between them.
    #[tokio::test]
    async fn a_session_is_created_only_for_the_verified_hash() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::builder(secret).open("sqlite::memory:").await.unwrap();
        let form = Signup::parse("ann@example.com", "Correct1horse", "Ann Other").unwrap();
        let user = signup(&core, Client::Trusted, form).await.unwrap().user;
        let found = Statement::new("SELECT password_hash FROM users WHERE id = $1").bind(user.id);
        let (hash,): (String,) = core.db().fetch_one(found).await.unwrap();
        assert!(open_session(&core, user.clone(), &hash).await.unwrap().is_some());
        assert!(open_session(&core, user.clone(), "another").await.unwrap().is_none());
        let delete = Statement::new("DELETE FROM users WHERE id = $1").bind(user.id);
        let RowsAffected(_) = core.db().execute(delete).await.unwrap();
        assert!(open_session(&core, user, &hash).await.unwrap().is_none());
    }
}
