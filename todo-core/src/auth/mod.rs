//! Accounts and sessions: sign up, log in, log out, and who a token stands for.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

pub use self::types::{Credentials, Email, Name, Password, Session, Signup, User};
use self::{events::Attempted, limits::Action, passwords::Ticket};
use crate::{
    Core,
    clock::new_id,
    db::{Changed, Statement, columns::Stamp},
    error::{Error, Result},
    todos,
};

mod address;
pub(crate) mod events;
pub(crate) mod limits;
pub(crate) mod passwords;
mod queue;
pub(crate) mod stored;
pub(crate) mod tokens;
mod types;

/// How often a login looks at an account that is changed meanwhile.
const TRIES: usize = 3;

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

/// Deletes what has run its time: expired sessions and old attempts, a bounded number at once; and
/// learns what the stored password hashes cost. Servers call it every minute; how often does not
/// matter for sessions, expired ones are refused anyway.
///
/// # Errors
/// [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn sweep(core: &Core) -> Result<()> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
         (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT 1000)";
    // A time that lies far ahead was written before the clock was set back.
    const ATTEMPTS: &str = "DELETE FROM rate_limits WHERE (action, client, slot) IN \
         (SELECT action, client, slot FROM rate_limits \
         WHERE taken_at <= $1 OR taken_at > $2 LIMIT 1000) \
         AND (taken_at <= $1 OR taken_at > $2)"; // again: one may be taken while this waits for it
    let (db, now) = (core.db(), core.now());
    let work = core.clone();
    core.anonymous(async move {
        let sessions = Statement::new(SESSIONS).bind(Stamp(now));
        let attempts = Statement::new(ATTEMPTS)
            .bind(Stamp(now - chrono::TimeDelta::minutes(2)))
            .bind(Stamp(now + chrono::TimeDelta::hours(1)));
        for delete in [sessions, attempts] {
            loop {
                let Changed(deleted) = db.write(delete.clone()).await?;
                if deleted < 1000 {
                    break;
                }
            }
        }
        learn_costs(&work).await
    })
    .await
}

/// Learns what the stored password hashes cost, so that each refusal costs as much.
pub(crate) async fn learn_costs(core: &Core) -> Result<()> {
    core.passwords().set_most(stored::survey(&core.db()).await?);
    Ok(())
}

/// Makes an account and opens its first session, within the client's limit.
async fn sign_up(core: &Core, client: Option<IpAddr>, signup: Signup) -> Result<Session> {
    // A view, whose trigger makes both rows: there is no account whose maker was told of a failure.
    const SQL: &str = "INSERT INTO signups \
         (id, email, name, password_hash, created_at, session_id, expires_at) \
         VALUES ($1, coalesce((SELECT email FROM users WHERE email = $8), $2), $3, $4, $5, $6, $7)";
    // The queue is asked before a slot is taken: who is turned away has cost no statement and no slot.
    let entrance = core.limits().enter(Action::Signup, client).await?;
    let ticket = core.passwords().ticket(client, None)?;
    let attempt = match entrance {
        Some(entrance) => Some(entrance.take(core).await?),
        None => None,
    };
    let hash = match (ticket.hash(signup.password).await, attempt) {
        (Err(Error::Busy), Some(attempt)) => {
            settled(attempt.forgive().await);
            return Err(Error::Busy);
        }
        (hash, attempt) => (hash?, attempt),
    };
    // The attempt is under way to the end.
    let (hash, _attempt) = hash;
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
        .bind(Stamp(session.expires_at))
        .bind(signup.email.in_ascii());
    // The index decides whether the e-mail is taken: forty at once make one account. An account that
    // has the ASCII form is met by inserting just that.
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
    // The queue is asked before a slot is taken: who is turned away has cost no statement.
    let entrance = core.limits().enter(Action::Login, client).await?;
    let ticket = core.passwords().ticket(client, Some(given.email.as_str()))?;
    let attempt = match entrance {
        Some(entrance) => Some(entrance.take(core).await?),
        None => None,
    };
    let session = open_with_password(core, client, ticket, &given).await;
    let is_failed = matches!(&session, Err(Refused { error: Error::InvalidCredentials, .. }));
    if is_failed {
        core.passwords().failed(client, given.email.as_str());
    }
    if let Some(attempt) = attempt {
        // Neither a right password nor a fault of ours is charged.
        settled(if is_failed { attempt.count().await } else { attempt.forgive().await });
    }
    session
}

/// Whoever logged in is logged in; the slot frees itself, a little later.
fn settled(ended: Result<()>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "an attempt was not settled");
    }
}

/// Opens a session if the password is right. Each refusal takes as long as any other.
async fn open_with_password(
    core: &Core,
    client: Option<IpAddr>,
    mut ticket: Ticket,
    given: &Credentials,
) -> Result<Session, Refused> {
    const SQL: &str =
        "SELECT id, email, name, created_at, password_hash FROM users WHERE email IN ($1, $2)";
    for _ in 0..TRIES {
        let account = Statement::new(SQL).bind(given.email.as_str()).bind(given.email.in_ascii());
        let found: Option<(Uuid, String, String, Stamp, String)> =
            core.db().read(account).await.map_err(Error::from)?;
        let (user, stored) = match found {
            None => (None, None),
            Some((id, email, name, created_at, stored)) => {
                (Some(User { id, email, name, created_at: created_at.0 }), Some(stored))
            }
        };
        let verified = ticket.verify(given.password.clone(), stored.clone()).await?;
        // The client is told one thing for all.
        let refused =
            |reason, user_id| Refused { error: Error::InvalidCredentials, reason, user_id };
        let (Some(user), Some(stored)) = (user, stored) else {
            return Err(refused("no such account", None));
        };
        if !verified.matches {
            let reason =
                if verified.is_unusable { "stored hash unusable" } else { "wrong password" };
            return Err(refused(reason, Some(user.id)));
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
        // The account has another password since, or is gone.
        ticket = core.passwords().ticket(client, Some(given.email.as_str()))?;
    }
    Err(Error::Busy.into())
}

/// Opens a session for `user`; none if the password is no longer that of `hash`.
async fn open_session(core: &Core, user: User, hash: &str) -> Result<Option<Session>> {
    const SQL: &str = "INSERT INTO sessions (id, user_id, created_at, expires_at) \
         SELECT $1, id, $3, $4 FROM users WHERE id = $2 AND password_hash = $5";
    let now = core.now();
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(id)
        .bind(session.user.id)
        .bind(Stamp(now))
        .bind(Stamp(session.expires_at))
        .bind(hash);
    match core.db().write(insert).await {
        Ok(Changed(0)) => Ok(None),
        Ok(_) => Ok(Some(session)),
        Err(fault) if fault.is_foreign_key_violation() => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// A session that begins now, its token signed, and its id. It is good once it is stored.
fn new_session(core: &Core, user: User, now: DateTime<Utc>) -> Result<(Uuid, Session)> {
    let (id, expires_at) = (new_id(now), core.tokens().expiry(now));
    let token = core.tokens().sign(user.id, id, now, expires_at)?;
    Ok((id, Session { user, token, expires_at }))
}

/// Stores a hash of today's kind, and returns what is stored then; none if that is another password's.
async fn upgrade_hash(
    core: &Core,
    user_id: Uuid,
    stored: String,
    upgrade: String,
) -> Option<String> {
    const SQL: &str = "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2";
    let update = Statement::new(SQL).bind(user_id).bind(&*stored).bind(&*upgrade);
    match core.db().write(update).await {
        Ok(Changed(0)) => None,
        Ok(_) => Some(upgrade),
        Err(fault) => {
            let error = Error::from(fault);
            tracing::warn!(%error, "a password's hash was not upgraded, its next login will try again");
            Some(stored)
        }
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{Options, Secret};

    async fn attempts(core: &Core) -> Result<i64> {
        let count = Statement::new("SELECT count(*) FROM rate_limits");
        let (count,) = core.db().one(count).await?;
        Ok(count)
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_has_taken_no_slot() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let (email, password) = ("ann@example.com", "Correct1horse");
        let network = |n: u32| Some(IpAddr::from(std::net::Ipv4Addr::from(n << 8)));
        let held: Vec<_> =
            (0..).map_while(|n| core.passwords().ticket(network(n), None).ok()).collect();
        assert!(held.len() > 100, "each network has one place: {}", held.len());
        let client = Some("192.0.2.7".parse().unwrap());
        let form = || Signup::parse(email, password, "Ann Other").unwrap();
        for _ in 0..10 {
            let refused = signup(&core, client, form()).await;
            assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
            let refused = login(&core, client, Credentials::parse(email, password).unwrap()).await;
            assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
        }
        assert_eq!(attempts(&core).await.unwrap(), 0);
        drop(held);
        signup(&core, client, form()).await.unwrap();
        assert_eq!(attempts(&core).await.unwrap(), 1);
    }

    /// A login finds a password and opens a session by two statements, and the password may be
    /// changed, or the account deleted, between them.
    #[tokio::test]
    async fn a_session_is_opened_only_for_the_password_that_was_found() {
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::open("sqlite::memory:", Options::new(secret)).await.unwrap();
        let form = Signup::parse("ann@example.com", "Correct1horse", "Ann Other").unwrap();
        let user = signup(&core, None, form).await.unwrap().user;
        let found = Statement::new("SELECT password_hash FROM users WHERE id = $1").bind(user.id);
        let (hash,): (String,) = core.db().one(found).await.unwrap();
        assert!(open_session(&core, user.clone(), &hash).await.unwrap().is_some());
        assert!(open_session(&core, user.clone(), "another").await.unwrap().is_none());
        let delete = Statement::new("DELETE FROM users WHERE id = $1").bind(user.id);
        let Changed(_) = core.db().write(delete).await.unwrap();
        assert!(open_session(&core, user, &hash).await.unwrap().is_none());
    }
}
