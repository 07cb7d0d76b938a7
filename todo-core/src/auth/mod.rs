//! Accounts and sessions: sign up, log in, log out, and who a token stands for.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use self::types::{Credentials, Email, Name, Password, Session, Signup, User};
use self::{events::Attempted, limits::Action};
use crate::{
    Core,
    clock::new_id,
    db::{Changed, Statement, columns::Stamp},
    error::{Error, Result},
    todos,
};

pub(crate) mod events;
pub(crate) mod limits;
pub(crate) mod passwords;
pub(crate) mod tokens;
mod types;

/// Who acts. It can be made in two ways only: from a token that [`verify`] or [`authenticate`] found
/// good, or by a host program that vouches for a user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    user_id: Uuid,
    session: Option<Uuid>,
}

impl Caller {
    /// A caller whom the host program has authenticated in its own way. No session is asked for;
    /// whoever calls this answers for it.
    #[must_use]
    pub fn vouched(user_id: Uuid) -> Self {
        Self { user_id, session: None }
    }

    /// The user's id.
    #[must_use]
    pub fn user_id(&self) -> Uuid {
        self.user_id
    }

    pub(crate) fn is_vouched(&self) -> bool {
        self.session.is_none()
    }

    pub(crate) fn session_or_nil(&self) -> Uuid {
        self.session.unwrap_or(Uuid::nil())
    }
}

/// Makes an account and opens its first session. `client` is the address that the rate limit is
/// kept by; `None` is not limited.
///
/// # Errors
/// [`Error::EmailTaken`], [`Error::RateLimited`], [`Error::Busy`] if too many passwords wait to be
/// hashed; else what every operation can fail with: [`Error::Unavailable`], [`Error::Internal`].
pub async fn signup(core: &Core, client: Option<IpAddr>, signup: Signup) -> Result<Session> {
    let work = core.clone();
    core.anonymous(async move {
        let session = sign_up(&work, client, signup).await;
        match &session {
            Ok(session) => events::succeeded(Attempted::Signup, client, session.user.id),
            Err(error) => events::failed(Attempted::Signup, client, None, events::reason(error)),
        }
        session
    })
    .await
}

/// Opens a session for whoever knows the password. `client` is the address that the rate limit is
/// kept by; `None` is not limited. A wrong e-mail and a wrong password are told alike and take alike.
///
/// # Errors
/// [`Error::InvalidCredentials`], [`Error::RateLimited`] after too many failures; else as
/// [`signup`].
pub async fn login(core: &Core, client: Option<IpAddr>, given: Credentials) -> Result<Session> {
    let work = core.clone();
    core.anonymous(async move {
        let session = log_in(&work, client, given).await;
        match session {
            Ok(session) => {
                events::succeeded(Attempted::Login, client, session.user.id);
                Ok(session)
            }
            Err(refused) => {
                events::failed(Attempted::Login, client, refused.user_id, refused.reason);
                Err(refused.error)
            }
        }
    })
    .await
}

/// Ends the session behind `token`: from now on this token is refused, on every replica at once.
/// Other sessions of the user stay.
///
/// # Errors
/// [`Error::Unauthenticated`]; else as [`authenticate`].
pub async fn logout(core: &Core, token: &str) -> Result<()> {
    end_session(core, verify(core, token)?, None).await
}

/// Ends the session that `caller` acts in, whose address is `client`.
pub(crate) async fn end_session(core: &Core, caller: Caller, client: Option<IpAddr>) -> Result<()> {
    const SQL: &str = "DELETE FROM sessions WHERE id = $1 AND user_id = $2";
    let (db, user_id) = (core.db(), caller.user_id);
    core.write_and_log(user_id, async move {
        let end = Statement::new(SQL).of(user_id).bind(caller.session_or_nil()).bind(user_id);
        let ended = match db.write(end).await {
            Ok(Changed(0)) => Err(Error::Unauthenticated),
            Ok(_) => Ok(()),
            Err(fault) => Err(fault.into()),
        };
        match &ended {
            Ok(()) => events::succeeded(Attempted::Logout, client, user_id),
            Err(error) => {
                events::failed(Attempted::Logout, client, Some(user_id), events::reason(error));
            }
        }
        ended
    })
    .await
}

/// Who `token` stands for, by its signature and times alone. That its session still lives is proved
/// by the operation the caller is used for, in the same statement; use [`authenticate`] where no
/// such operation follows.
///
/// # Errors
/// [`Error::Unauthenticated`].
pub fn verify(core: &Core, token: &str) -> Result<Caller> {
    prove(core, token, None)
}

/// As [`verify`], for a client at this address.
pub(crate) fn prove(core: &Core, token: &str, client: Option<IpAddr>) -> Result<Caller> {
    match core.tokens().verify(token, core.now()) {
        Ok(proven) => Ok(Caller { user_id: proven.user_id, session: Some(proven.session) }),
        Err(rejected) => {
            events::failed(Attempted::Token, client, rejected.user_id(), rejected.reason());
            Err(Error::Unauthenticated)
        }
    }
}

/// Who `token` stands for, its session looked up in the database.
///
/// # Errors
/// [`Error::Unauthenticated`]; else [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn authenticate(core: &Core, token: &str) -> Result<Caller> {
    let caller = verify(core, token)?;
    check_session(core, &caller).await?;
    Ok(caller)
}

/// Fails unless the caller's session lives (or a host program vouches for the caller).
///
/// # Errors
/// As [`authenticate`].
pub async fn check_session(core: &Core, caller: &Caller) -> Result<()> {
    const SQL: &str = "SELECT EXISTS (SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2)";
    let Some(session) = caller.session else { return Ok(()) };
    let (db, user_id) = (core.db(), caller.user_id);
    core.read(user_id, async move {
        let (lives,): (bool,) = db.one(Statement::new(SQL).bind(session).bind(user_id)).await?;
        if lives { Ok(()) } else { Err(Error::Unauthenticated) }
    })
    .await
}

/// The caller's own account.
///
/// # Errors
/// As [`authenticate`].
pub async fn me(core: &Core, caller: &Caller) -> Result<User> {
    const SQL: &str = concat!(
        "SELECT id, email, name, created_at FROM users WHERE id = $1 AND ",
        todos::caller_lives!()
    );
    let (db, caller) = (core.db(), *caller);
    core.read(caller.user_id(), async move {
        let user: Option<User> = db.read(todos::by(caller, SQL)).await?;
        user.ok_or(Error::Unauthenticated)
    })
    .await
}

/// Deletes what has run its time: expired sessions and old attempts, a bounded number at once.
/// Servers call it every few minutes; how often does not matter, expired ones are refused anyway.
///
/// # Errors
/// [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn sweep(core: &Core) -> Result<()> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
         (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT 1000)";
    const ATTEMPTS: &str = "DELETE FROM rate_limits WHERE (action, client, slot) IN \
         (SELECT action, client, slot FROM rate_limits WHERE taken_at <= $1 LIMIT 1000) \
         AND taken_at <= $1"; // asked again: a slot may be taken anew while this waits for it
    let (db, now) = (core.db(), core.now());
    core.anonymous(async move {
        for (sql, before) in [(SESSIONS, now), (ATTEMPTS, now - chrono::TimeDelta::hours(1))] {
            loop {
                let delete = Statement::new(sql).bind(Stamp(before));
                let Changed(deleted) = db.write(delete).await?;
                if deleted < 1000 {
                    break;
                }
            }
        }
        Ok(())
    })
    .await
}

/// Makes an account and opens its first session, within the client's limit.
async fn sign_up(core: &Core, client: Option<IpAddr>, signup: Signup) -> Result<Session> {
    // A view, whose trigger makes both rows: there is no account whose maker was told of a failure.
    const SQL: &str = "INSERT INTO signups \
         (id, email, name, password_hash, created_at, session_id, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let _attempt = core.limits().attempt(core, Action::Signup, client).await?;
    let ticket = core.passwords().ticket()?;
    let hash = ticket.hash(signup.password).await?;
    let now = core.now();
    let user = User {
        id: new_id(now),
        email: signup.email.as_str().to_owned(),
        name: signup.name.as_str().to_owned(),
        created_at: now,
    };
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(session.user.id)
        .bind(&*session.user.email)
        .bind(&*session.user.name)
        .bind(hash)
        .bind(Stamp(now))
        .bind(id)
        .bind(Stamp(session.expires_at));
    // The index decides whether the e-mail is taken: forty at once make one account.
    match core.db().write(insert).await {
        Ok(Changed(_)) => Ok(session),
        Err(fault) if fault.is_unique_violation() => Err(Error::EmailTaken),
        Err(fault) => Err(fault.into()),
    }
}

/// A login that failed, with what only the log is told.
struct Refused {
    error: Error,
    reason: &'static str,
    user_id: Option<Uuid>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { reason: events::reason(&error), error, user_id: None }
    }
}

/// Opens a session if the password is right, within the client's limit.
async fn log_in(
    core: &Core,
    client: Option<IpAddr>,
    given: Credentials,
) -> Result<Session, Refused> {
    let attempt = core.limits().attempt(core, Action::Login, client).await?;
    let session = open_with_password(core, given).await;
    if let Some(attempt) = attempt {
        let ended = match &session {
            Err(Refused { error: Error::InvalidCredentials, .. }) => attempt.count().await,
            // Neither a right password nor a fault of ours is charged.
            _ => attempt.forgive().await,
        };
        // Whoever logged in is logged in; the slot frees itself, a little later.
        if let Err(error) = ended {
            tracing::warn!(%error, "an attempt to log in was not settled");
        }
    }
    session
}

/// Opens a session if the password is right. An e-mail nobody has takes as long as one that is
/// known; an account still on bcrypt takes longer, until its next login.
async fn open_with_password(core: &Core, given: Credentials) -> Result<Session, Refused> {
    const SQL: &str =
        "SELECT id, email, name, created_at, password_hash FROM users WHERE email = $1";
    let ticket = core.passwords().ticket()?;
    let account = Statement::new(SQL).bind(given.email.as_str());
    let found: Option<(Uuid, String, String, Stamp, String)> =
        core.db().read(account).await.map_err(Error::from)?;
    let (user, stored) = match found {
        None => (None, None),
        Some((id, email, name, created_at, stored)) => {
            (Some(User { id, email, name, created_at: created_at.0 }), Some(stored))
        }
    };
    let verified = ticket.verify(given.password, stored.clone()).await?;
    // The client is told one thing for both.
    let refused = |reason, user_id| Refused { error: Error::InvalidCredentials, reason, user_id };
    let user = user.ok_or_else(|| refused("no such account", None))?;
    if !verified.matches {
        return Err(refused("wrong password", Some(user.id)));
    }
    if let (Some(upgrade), Some(stored)) = (verified.upgrade, stored)
        && let Err(error) = upgrade_hash(core, user.id, stored, upgrade).await
    {
        tracing::warn!(%error, "a password's hash was not upgraded, its next login will try again");
    }
    Ok(open_session(core, user).await?)
}

/// Opens a session for `user`.
async fn open_session(core: &Core, user: User) -> Result<Session> {
    const SQL: &str =
        "INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)";
    let now = core.now();
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(id)
        .bind(session.user.id)
        .bind(Stamp(now))
        .bind(Stamp(session.expires_at));
    let Changed(_) = core.db().write(insert).await?;
    Ok(session)
}

/// A session that begins now, its token signed, and its id. It is good once it is stored.
fn new_session(core: &Core, user: User, now: DateTime<Utc>) -> Result<(Uuid, Session)> {
    let (id, expires_at) = (new_id(now), core.tokens().expiry(now));
    let token = core.tokens().sign(user.id, id, now, expires_at)?;
    Ok((id, Session { user, token, expires_at }))
}

/// Stores a hash of today's kind, unless the password was changed meanwhile.
async fn upgrade_hash(core: &Core, user_id: Uuid, stored: String, upgrade: String) -> Result<()> {
    const SQL: &str = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    let update = Statement::new(SQL).bind(user_id).bind(stored).bind(upgrade);
    let Changed(_) = core.db().write(update).await?;
    Ok(())
}
