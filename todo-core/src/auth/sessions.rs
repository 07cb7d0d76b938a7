//! The caller's sessions: a list, and their end.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{AuthEvent, Caller, check_session, events};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row, RowsAffected, value::Timestamp},
    error::{Error, Result},
    ids::SessionId,
    parsed::impl_as_str,
    timestamp,
};

/// Maximum number of a user's sessions, API keys not counted: a new one ends the oldest. It is also
/// in the schema.
pub const MAX_SESSIONS: u32 = 100;

/// How a session was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionKind {
    /// By an e-mail address and a password.
    Password,
    /// By another provider of identities, at which the user has signed in.
    #[serde(rename = "oauth")]
    OAuth,
    /// By a token of another issuer.
    External,
    /// As an API key.
    Key,
}

impl SessionKind {
    /// The name, such as `password`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::OAuth => "oauth",
            Self::External => "external",
            Self::Key => "key",
        }
    }

    fn from_stored(text: &str) -> Result<Self, DbError> {
        let all = [Self::Password, Self::OAuth, Self::External, Self::Key];
        let kind = all.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or(DbError::Value("kind"))
    }
}

impl_as_str!(SessionKind);

/// A live session of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Unique id. It is no secret: the token cannot be derived from it.
    pub id: SessionId,
    /// How it was created.
    pub kind: SessionKind,
    /// The program that it was created from, as its `User-Agent`, up to 200 characters.
    pub label: Option<String>,
    /// The address that it was created from: an IPv4 address, or the /64 of an IPv6 address.
    pub client: Option<String>,
    /// When it was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it was last used, to about a minute.
    #[serde(serialize_with = "timestamp::serialize")]
    pub seen_at: DateTime<Utc>,
    /// When its token expires.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: DateTime<Utc>,
    /// Whether it is the caller's own.
    pub current: bool,
}

struct SessionRow {
    id: Uuid,
    kind: SessionKind,
    label: Option<String>,
    client: Option<String>,
    created_at: DateTime<Utc>,
    seen_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
}

impl FromRow for SessionRow {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get(0)?,
            kind: SessionKind::from_stored(&row.get::<String>(1)?)?,
            label: row.get(2)?,
            client: row.get(3)?,
            created_at: row.get::<Timestamp>(4)?.0,
            seen_at: row.get::<Option<Timestamp>>(5)?.map(|seen_at| seen_at.0),
            expires_at: row.get::<Timestamp>(6)?.0,
        })
    }
}

/// The caller's live sessions, at most [`MAX_SESSIONS`], the newest first. API keys are not among
/// them.
///
/// # Errors
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn sessions(core: &Core, caller: &Caller) -> Result<Vec<SessionInfo>> {
    const SQL: &str = concat!(
        "SELECT id, kind, label, client, created_at, seen_at, expires_at FROM sessions \
         WHERE user_id = $1 AND kind <> 'key' AND expires_at > $4 AND ",
        authorized!(),
        " ORDER BY created_at DESC, id DESC"
    );
    caller.require_no_key()?;
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    core.read(caller.user_id(), async move {
        let select = acting_as(caller, SQL).bind(Timestamp(now));
        let rows: Vec<SessionRow> = db.fetch(select).await?;
        let sessions: Vec<_> = rows
            .into_iter()
            .map(|row| SessionInfo {
                id: row.id.into(),
                kind: row.kind,
                label: row.label,
                client: row.client,
                created_at: row.created_at,
                seen_at: row.seen_at.unwrap_or(row.created_at),
                expires_at: row.expires_at,
                current: caller.session() == Some(row.id),
            })
            .collect();
        // A session of the caller is one of them.
        if sessions.is_empty() && !caller.is_trusted() {
            return Err(Error::Unauthenticated);
        }
        Ok(sessions)
    })
    .await
}

/// Ends a session of the caller's user: from now on every replica rejects its token. It may be the
/// caller's own.
///
/// # Errors
/// [`Error::NotFound`] if the user has no such session, [`Error::InsufficientScope`] if the caller
/// has a key; else as [`authenticate`](super::authenticate).
pub async fn end_session(core: &Core, caller: &Caller, id: SessionId) -> Result<()> {
    end_session_from(core, caller, id, None).await
}

/// As [`end_session`]. `client` is the address for the log.
pub(crate) async fn end_session_from(
    core: &Core,
    caller: &Caller,
    id: SessionId,
    client: Option<IpAddr>,
) -> Result<()> {
    const SQL: &str = concat!(
        "DELETE FROM sessions WHERE id = $4 AND user_id = $1 AND kind <> 'key' AND ",
        authorized!()
    );
    end_credential(core, caller, id, client, AuthEvent::SessionEnd, SQL).await
}

/// Ends a session or a key of the caller's user by the statement `sql`, whose `$4` is its id.
pub(super) async fn end_credential(
    core: &Core,
    caller: &Caller,
    id: SessionId,
    client: Option<IpAddr>,
    event: AuthEvent,
    sql: &'static str,
) -> Result<()> {
    caller.require_no_key()?;
    let db = core.db();
    let work = core.clone();
    let caller = *caller;
    core.write_and_log(caller.user_id(), async move {
        let RowsAffected(ended) = db.execute(acting_as(caller, sql).bind(id)).await?;
        if ended == 0 {
            check_session(&work, &caller).await?;
            return Err(Error::NotFound);
        }
        work.streams().end_session(caller.user_id(), id.as_uuid());
        events::succeeded(event, client, caller.user_id());
        Ok(())
    })
    .await
}

/// Ends all sessions of the caller's user but the caller's own, and returns their number. Tokens of
/// other issuers that were issued until now are rejected, also those that were not used yet, but
/// for the caller's own. API keys stay. For a [trusted](Caller::trusted) caller, all sessions end.
///
/// # Errors
/// As [`sessions`].
pub async fn end_other_sessions(core: &Core, caller: &Caller) -> Result<u64> {
    end_other_sessions_from(core, caller, None).await
}

/// As [`end_other_sessions`]. `client` is the address for the log.
pub(crate) async fn end_other_sessions_from(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
) -> Result<u64> {
    // Before the sessions: a token of another issuer that has none yet must not get one in between.
    const TOKENS: &str =
        concat!("UPDATE identities SET not_before = $4 WHERE user_id = $1 AND ", authorized!());
    const SQL: &str = concat!(
        "DELETE FROM sessions WHERE user_id = $1 AND id <> $3 AND kind <> 'key' AND ",
        authorized!(),
        " RETURNING id"
    );
    caller.require_no_key()?;
    let db = core.db();
    let work = core.clone();
    let caller = *caller;
    core.write_and_log(caller.user_id(), async move {
        let tokens = acting_as(caller, TOKENS).bind(Timestamp(work.now()));
        let RowsAffected(_) = db.execute(tokens).await?;
        let ended: Vec<(Uuid,)> = db.execute(acting_as(caller, SQL)).await?;
        if ended.is_empty() {
            check_session(&work, &caller).await?;
        }
        for (session,) in &ended {
            work.streams().end_session(caller.user_id(), *session);
        }
        events::succeeded(AuthEvent::SessionEnd, client, caller.user_id());
        Ok(ended.len() as u64)
    })
    .await
}
