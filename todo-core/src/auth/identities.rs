//! The identities of a user: the users of other issuers that log in to the account.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

#[cfg(feature = "identity")]
use super::reauthentication::{RECENT, is_recent};
use super::{AuthEvent, Caller, Email, Name, check_session, events};
#[cfg(feature = "identity")]
use crate::clock::new_id;
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row, Statement, value::Timestamp},
    error::{Error, Result},
    ids::IdentityId,
    timestamp,
};

/// Maximum number of a user's identities.
pub const MAX_IDENTITIES: u32 = 20;

/// A user of another issuer who logs in to the account (OpenID Connect Core 1.0, section 2: the
/// pair of `iss` and `sub`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Identity {
    /// Unique id.
    pub id: IdentityId,
    /// The issuer.
    pub issuer: String,
    /// The user's id at the issuer: at most 255 characters.
    pub subject: String,
    /// The user's address, as the issuer last stated it. It may differ from that of the account.
    pub email: Option<Email>,
    /// Whether the issuer has verified the address.
    pub email_verified: bool,
    /// The user's name, as the issuer last stated it.
    pub name: Option<Name>,
    /// When it was added to the account.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
}

macro_rules! identity_columns {
    () => {
        "id, issuer, subject, email, email_verified, name, created_at"
    };
}

impl FromRow for Identity {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get::<Uuid>(0)?.into(),
            issuer: row.get(1)?,
            subject: row.get(2)?,
            email: row.get::<Option<String>>(3)?.map(Email::from_stored),
            email_verified: row.get(4)?,
            name: row.get::<Option<String>>(5)?.map(Name::from_stored),
            created_at: row.get::<Timestamp>(6)?.0,
        })
    }
}

/// The identities of the caller's user, the oldest first: at most 20, and those by which
/// accounts were linked automatically.
///
/// # Errors
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn identities(core: &Core, caller: &Caller) -> Result<Vec<Identity>> {
    const SQL: &str = concat!(
        "SELECT ",
        identity_columns!(),
        " FROM identities WHERE user_id = $1 AND ",
        authorized!(),
        " ORDER BY created_at, id"
    );
    caller.require_no_key()?;
    let db = core.db();
    let select = acting_as(*caller, SQL);
    let identities: Vec<Identity> =
        core.read(caller.user_id(), async move { Ok(db.fetch(select).await?) }).await?;
    if identities.is_empty() {
        check_session(core, caller).await?;
    }
    Ok(identities)
}

/// An identity that its issuer has proved, by a signed token or by a response.
#[cfg(feature = "identity")]
#[derive(Clone, Debug)]
pub(crate) struct ProvedIdentity {
    pub(crate) issuer: String,
    /// 1 to 255 characters.
    pub(crate) subject: String,
    /// None if the issuer states none, or one that is no address here.
    pub(crate) email: Option<Email>,
    pub(crate) email_verified: bool,
    /// None if the issuer states none, or one that is no name here.
    pub(crate) name: Option<Name>,
}

#[cfg(feature = "identity")]
impl ProvedIdentity {
    /// The identity with what of the issuer's statements is valid here.
    pub(crate) fn new(
        issuer: String,
        subject: String,
        email: Option<&str>,
        email_verified: bool,
        name: Option<&str>,
    ) -> Self {
        let email = email.and_then(|email| Email::parse(email).ok());
        let email_verified = email_verified && email.is_some();
        let name = name.and_then(|name| Name::parse(name).ok());
        Self { issuer, subject, email, email_verified, name }
    }

    /// The name of a new user.
    pub(crate) fn user_name(&self) -> &str {
        self.name.as_ref().map_or("User", Name::as_str)
    }
}

/// The columns, after the id, of a view that finds or creates an identity with its user.
#[cfg(feature = "identity")]
macro_rules! found_or_new_columns {
    () => {
        "issuer, subject, email, email_verified, name, user_name, links, identity_id, \
         new_identity_id, user_id, new_user_id, notice_id"
    };
}
/// The values of [`found_or_new_columns`]: `$2` to `$11`, by [`NewIds::bind`].
#[cfg(feature = "identity")]
macro_rules! found_or_new {
    () => {
        "$2, $3, $4, $5, $6, $7, $8, \
         coalesce((SELECT id FROM identities WHERE issuer = $2 AND subject = $3), $9), $9, \
         coalesce((SELECT user_id FROM identities WHERE issuer = $2 AND subject = $3), \
         (SELECT id FROM users WHERE $8 AND $5 AND email = $4 \
         AND email_verified_at IS NOT NULL AND deleted_at IS NULL), $10), $10, $11"
    };
}
#[cfg(feature = "identity")]
pub(crate) use {found_or_new, found_or_new_columns};

/// The ids of an identity and of a user that a statement creates if it finds none.
#[cfg(feature = "identity")]
#[derive(Clone, Copy)]
pub(crate) struct NewIds {
    identity: Uuid,
    user: Uuid,
}

#[cfg(feature = "identity")]
impl NewIds {
    pub(crate) fn new(now: DateTime<Utc>) -> Self {
        Self { identity: new_id(now), user: new_id(now) }
    }

    /// Binds `$2` to `$11` for [`found_or_new`]. With `links`, the user with the same address,
    /// verified on both sides, is found.
    pub(crate) fn bind(
        self,
        statement: Statement,
        proved: &ProvedIdentity,
        links: bool,
        notice: Option<Uuid>,
    ) -> Statement {
        statement
            .bind(&*proved.issuer)
            .bind(&*proved.subject)
            .bind(proved.email.as_ref().map(Email::as_str))
            .bind(proved.email_verified)
            .bind(proved.name.as_ref().map(Name::as_str))
            .bind(proved.user_name())
            .bind(links)
            .bind(self.identity)
            .bind(self.user)
            .bind(notice)
    }

    /// Logs what a statement has created, by the ids that it returned.
    pub(crate) fn log_created(self, user_id: Uuid, identity: Uuid, client: Option<IpAddr>) {
        if user_id == self.user {
            events::succeeded(AuthEvent::Signup, client, user_id.into());
        } else if identity == self.identity {
            events::succeeded(AuthEvent::IdentityAddition, client, user_id.into());
        }
    }
}

/// Fails unless the caller's session has begun within the last 10 minutes.
///
/// # Errors
/// [`Error::ReauthenticationRequired`], [`Error::InsufficientScope`] if the caller has a key; else
/// as [`authenticate`](super::authenticate).
#[cfg(feature = "identity")]
pub(crate) async fn require_fresh_session(core: &Core, caller: &Caller) -> Result<()> {
    const SQL: &str = concat!("SELECT ", authorized!(), ", ", is_recent!("$4"));
    caller.require_no_key()?;
    let db = core.db();
    let select = acting_as(*caller, SQL).bind(Timestamp(core.now() - RECENT));
    core.read(caller.user_id(), async move {
        match db.fetch_one(select).await? {
            (false, _) => Err(Error::Unauthenticated),
            (true, false) => Err(Error::ReauthenticationRequired),
            (true, true) => Ok(()),
        }
    })
    .await
}

/// Adds an identity to the caller's account. The session must have begun within the last 10
/// minutes: whoever has stolen a token must not add a way to log in. `client` is the address for
/// the log.
///
/// # Errors
/// [`Error::IdentityTaken`], [`Error::QuotaExceeded`], [`Error::ReauthenticationRequired`],
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
#[cfg(feature = "identity")]
pub(crate) async fn add_proved_identity(
    core: &Core,
    caller: &Caller,
    proved: ProvedIdentity,
    client: Option<IpAddr>,
) -> Result<Identity> {
    const SQL: &str = concat!(
        "INSERT INTO new_identities (id, issuer, subject, user_id, email, email_verified, name, \
         created_at, identity_limit, notice_id) \
         SELECT $4, $5, $6, id, $7, $8, $9, $10, $11, $12 FROM users \
         WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!(),
        " AND ",
        is_recent!("$13"),
        " AND NOT EXISTS (SELECT 1 FROM identities WHERE issuer = $5 AND subject = $6) \
         AND (SELECT count(*) FROM identities WHERE user_id = $1) < $11 RETURNING id"
    );
    const REASON: &str = concat!(
        "SELECT ",
        authorized!(),
        ", ",
        is_recent!("$4"),
        ", (SELECT count(*) FROM identities WHERE user_id = $1), \
         (SELECT user_id FROM identities WHERE issuer = $5 AND subject = $6)"
    );
    const EXISTING: &str = concat!(
        "SELECT ",
        identity_columns!(),
        " FROM identities WHERE issuer = $4 AND subject = $5 AND user_id = $1 AND ",
        authorized!()
    );
    caller.require_no_key()?;
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let since = Timestamp(now - RECENT);
    let id = new_id(now);
    let notice = core.notice_id(now);
    core.write_and_log(caller.user_id(), async move {
        let insert = acting_as(caller, SQL)
            .bind(id)
            .bind(&*proved.issuer)
            .bind(&*proved.subject)
            .bind(proved.email.as_ref().map(Email::as_str))
            .bind(proved.email_verified)
            .bind(proved.name.as_ref().map(Name::as_str))
            .bind(Timestamp(now))
            .bind(i64::from(MAX_IDENTITIES))
            .bind(notice)
            .bind(since);
        let added: Option<(Uuid,)> = db.execute(insert).await?;
        let failure = if added.is_some() {
            events::succeeded(AuthEvent::IdentityAddition, client, caller.user_id());
            None
        } else {
            let select =
                acting_as(caller, REASON).bind(since).bind(&*proved.issuer).bind(&*proved.subject);
            let (is_authorized, is_fresh, used, owner): (bool, bool, i64, Option<Uuid>) =
                db.fetch_one(select).await?;
            match owner {
                _ if !is_authorized => Some(Error::Unauthenticated),
                _ if !is_fresh => Some(Error::ReauthenticationRequired),
                // A retry of a request whose response was lost.
                Some(owner) if owner == caller.user_id().as_uuid() => None,
                Some(_) => Some(Error::IdentityTaken),
                None => Some(Error::QuotaExceeded {
                    of: crate::error::Quota::Identities,
                    limit: MAX_IDENTITIES.into(),
                    used: u64::try_from(used).unwrap_or_default(),
                }),
            }
        };
        if let Some(failure) = failure {
            let reason = events::reason(&failure);
            events::failed(AuthEvent::IdentityAddition, client, Some(caller.user_id()), reason);
            return Err(failure);
        }
        let select = acting_as(caller, EXISTING).bind(&*proved.issuer).bind(&*proved.subject);
        let identity: Option<Identity> = db.fetch(select).await?;
        identity.ok_or(Error::Unauthenticated)
    })
    .await
}

/// Removes an identity of the caller's user. Its sessions end, the caller's own too if it is one of
/// them, and its tokens are rejected. A later token of it creates another account.
///
/// # Errors
/// [`Error::NotFound`] if the user has no such identity, [`Error::LastCredential`] if the user has
/// neither a password nor another identity, [`Error::InsufficientScope`] if the caller has a key;
/// else as [`authenticate`](super::authenticate).
pub async fn remove_identity(core: &Core, caller: &Caller, id: IdentityId) -> Result<()> {
    remove_identity_from(core, caller, id, None).await
}

/// As [`remove_identity`]. `client` is the address for the log.
pub(crate) async fn remove_identity_from(
    core: &Core,
    caller: &Caller,
    id: IdentityId,
    client: Option<IpAddr>,
) -> Result<()> {
    // A view, whose trigger locks the account on PostgreSQL: of two removals at once, the second
    // finds what the first has left.
    const SQL: &str = concat!(
        "INSERT INTO identity_removals (id, user_id, removed_at, notice_id) \
         SELECT id, user_id, $5, $6 FROM identities WHERE id = $4 AND user_id = $1 AND ",
        authorized!(),
        " AND (EXISTS (SELECT 1 FROM users WHERE id = $1 AND password_hash <> '!') \
         OR EXISTS (SELECT 1 FROM identities WHERE user_id = $1 AND id <> $4)) RETURNING id"
    );
    const EXISTS: &str = concat!(
        "SELECT ",
        authorized!(),
        ", EXISTS (SELECT 1 FROM identities WHERE id = $4 AND user_id = $1)"
    );
    caller.require_no_key()?;
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let notice = core.notice_id(now);
    core.write_and_log(caller.user_id(), async move {
        let insert = acting_as(caller, SQL).bind(id).bind(Timestamp(now)).bind(notice);
        let removed: Option<(Uuid,)> = db.execute(insert).await?;
        if removed.is_none() {
            let select: Statement = acting_as(caller, EXISTS).bind(id);
            return Err(match db.fetch_one(select).await? {
                (false, _) => Error::Unauthenticated,
                (true, false) => Error::NotFound,
                (true, true) => Error::LastCredential,
            });
        }
        events::succeeded(AuthEvent::IdentityRemoval, client, caller.user_id());
        Ok(())
    })
    .await
}
