//! API keys: credentials of programs, with scopes. Each is a row of the sessions, whose id is a
//! hash of the key: the key itself is not stored.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{
    AuthEvent, Caller, Client, Password, check_session, events,
    limited::Limited,
    reauthentication::{Reauthenticated, reauthenticate},
    sessions::end_credential,
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    crypto::api_key,
    db::{DbError, FromRow, Row, Statement, value::Timestamp},
    error::{Error, FieldError, FieldErrors, Result},
    ids::SessionId,
    parsed::{impl_credential, impl_text},
    rate_limit::{RateLimitState, client_key},
    scopes::{Scope, Scopes},
    timestamp, validate,
};

/// Maximum number of a user's API keys that have not expired.
pub const MAX_KEYS: u32 = 20;

impl Scopes {
    /// Parses the words of a set, such as `todos:read`.
    ///
    /// # Errors
    /// The [`FieldErrors`] of the field `scopes`, if there is none, or an unknown one.
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Self, FieldErrors> {
        let scope = |word: &str| Scope::ALL.iter().copied().find(|scope| scope.as_str() == word);
        let scopes: Option<Vec<Scope>> = words.iter().map(|word| scope(word.as_ref())).collect();
        let scopes = scopes.ok_or_else(|| {
            let message = "Scopes must be of todos:read, todos:write and account:read.";
            FieldError::new("scopes", "invalid", message)
        })?;
        Self::new(scopes).ok_or_else(|| {
            FieldError::new("scopes", "blank", "Scopes must have at least one scope.").into()
        })
    }
}

/// The name by which a user recognises an API key: trimmed, 1 to 100 characters (Unicode scalar
/// values), none of them a control character (Unicode's category Cc).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// Maximum number of characters (Unicode scalar values) after trimming.
    pub const MAX_CHARS: usize = 100;

    /// Parses a name.
    ///
    /// # Errors
    /// Every rule that the field `name` breaks.
    pub fn parse(name: &str) -> Result<Self, FieldErrors> {
        let name = name.trim();
        if name.is_empty() {
            return Err(FieldError::new("name", "blank", "Name cannot be empty.").into());
        }
        let broken = validate::check_line("name", name, 0, Self::MAX_CHARS);
        broken.into_result(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }
}

impl_text!(KeyName);

/// The lifetime of an API key: 1 to 365 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLifetime(u16);

impl KeyLifetime {
    /// Maximum number of days.
    pub const MAX_DAYS: u16 = 365;

    /// A lifetime of this number of days.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `expires_in_days`, if it is not 1 to 365.
    pub fn days(days: i64) -> Result<Self, FieldError> {
        let days = u16::try_from(days).ok().filter(|days| (1..=Self::MAX_DAYS).contains(days));
        days.map(Self).ok_or_else(|| {
            let message = format!("Expires in days must be from 1 to {}.", Self::MAX_DAYS);
            FieldError::new("expires_in_days", "out_of_range", message)
        })
    }

    fn after(self, now: DateTime<Utc>) -> DateTime<Utc> {
        // In whole seconds, as in the key.
        let end = now + TimeDelta::days(self.0.into());
        DateTime::from_timestamp(end.timestamp(), 0).unwrap_or(end)
    }
}

/// The data of a new API key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewKey {
    /// Its name.
    pub name: KeyName,
    /// What it allows.
    pub scopes: Scopes,
    /// When it expires.
    pub lifetime: KeyLifetime,
    /// The user's password.
    pub password: Password,
}

impl NewKey {
    /// The data of a key with these values, by a user with this password.
    #[must_use]
    pub fn new(name: KeyName, scopes: Scopes, lifetime: KeyLifetime, password: Password) -> Self {
        Self { name, scopes, lifetime, password }
    }
}

/// An API key for the `Authorization: Bearer` header (RFC 6750): 65 characters that begin with
/// `todo_`. It grants access to an account, so its `Debug` output is redacted, and it has no
/// `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl_credential!(ApiKey);

/// A new API key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CreatedKey {
    /// The key itself, which cannot be read again.
    pub key: ApiKey,
    /// What the list of keys has of it.
    pub info: KeyInfo,
}

/// An API key, without the key itself, which is not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KeyInfo {
    /// Unique id. It is no secret: the key cannot be derived from it.
    pub id: SessionId,
    /// The name that its user has given it.
    pub name: KeyName,
    /// What it allows.
    pub scopes: Scopes,
    /// When it was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it was last used, to about a minute; `None` if it was not used yet.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub seen_at: Option<DateTime<Utc>>,
    /// When it expires, in whole seconds.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: DateTime<Utc>,
}

impl FromRow for KeyInfo {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let bits = u16::try_from(row.get::<i64>(2)?).map_err(|_| DbError::Value("scopes"))?;
        Ok(Self {
            id: row.get::<Uuid>(0)?.into(),
            name: KeyName(row.get(1)?),
            scopes: Scopes::from_bits(bits),
            created_at: row.get::<Timestamp>(3)?.0,
            seen_at: row.get::<Option<Timestamp>>(4)?.map(|seen_at| seen_at.0),
            expires_at: row.get::<Timestamp>(5)?.0,
        })
    }
}

/// Creates an API key of the caller's user.
///
/// Wrong passwords count for the address of a `client`, as those of logins, and for the user.
///
/// # Errors
/// [`Error::InvalidCredentials`] if the password is wrong, [`Error::TooManyKeys`] if the user has
/// [`MAX_KEYS`], [`Error::InsufficientScope`] if the caller has a key, [`Error::RateLimited`],
/// [`Error::Busy`]; else as [`authenticate`](super::authenticate).
pub async fn create_key(
    core: &Core,
    caller: &Caller,
    client: Client,
    key: NewKey,
) -> Result<CreatedKey> {
    create_key_limited(core, caller, client.address(), key).await.result
}

/// As [`create_key`], with the state of the rate limit.
pub(crate) async fn create_key_limited(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
    key: NewKey,
) -> Limited<CreatedKey> {
    let work = core.clone();
    let caller = *caller;
    let outcome = core.anonymous(async move {
        let mut state = None;
        let created = create(&work, caller, client, key, &mut state).await;
        if created.is_ok() {
            events::succeeded(AuthEvent::KeyCreation, client, caller.user_id());
        }
        Ok((created, state))
    });
    Limited::new(outcome.await)
}

async fn create(
    core: &Core,
    caller: Caller,
    client: Option<IpAddr>,
    key: NewKey,
    state: &mut Option<RateLimitState>,
) -> Result<CreatedKey> {
    // A view, whose trigger counts again on PostgreSQL, once it has the lock of the user's row.
    const SQL: &str = concat!(
        "INSERT INTO new_sessions (id, user_id, kind, label, client, scopes, created_at, \
         expires_at, password_hash, key_limit, mail_id) \
         SELECT $4, id, 'key', $5, $6, $7, $8, $9, password_hash, $11, $12 FROM users \
         WHERE id = $1 AND password_hash = $10 AND deleted_at IS NULL \
         AND (SELECT count(*) FROM sessions \
              WHERE user_id = $1 AND kind = 'key' AND expires_at > $8) < $11 AND ",
        authorized!(),
        " RETURNING id"
    );
    caller.require_no_key()?;
    let NewKey { name, scopes, lifetime, password } = key;
    let Reauthenticated { password_hash, .. } =
        reauthenticate(core, &caller, client, password, state).await?;
    let now = core.now();
    let expires_at = lifetime.after(now);
    let (key, claims) = api_key::new_key(caller.user_id().as_uuid(), scopes, expires_at)?;
    let insert = acting_as(caller, SQL)
        .bind(claims.session)
        .bind(name.as_str())
        .bind(client.map(client_key))
        .bind(i64::from(scopes.bits()))
        .bind(Timestamp(now))
        .bind(Timestamp(expires_at))
        .bind(password_hash)
        .bind(i64::from(MAX_KEYS))
        .bind(core.notice_id(now));
    let inserted: Option<(Uuid,)> = core.db().execute(insert).await?;
    if inserted.is_none() {
        return Err(why_not_created(core, caller, now).await?);
    }
    let id = claims.session.into();
    let info = KeyInfo { id, name, scopes, created_at: now, seen_at: None, expires_at };
    Ok(CreatedKey { key: ApiKey(key), info })
}

/// The reason why no key was created. Its own errors are those of the session.
async fn why_not_created(core: &Core, caller: Caller, now: DateTime<Utc>) -> Result<Error> {
    const SQL: &str = "SELECT count(*) FROM sessions \
         WHERE user_id = $1 AND kind = 'key' AND expires_at > $2";
    check_session(core, &caller).await?;
    let count = Statement::new(SQL).bind(caller.user_id()).bind(Timestamp(now));
    let (keys,): (i64,) = core.db().fetch_one(count).await?;
    if keys >= i64::from(MAX_KEYS) {
        Ok(Error::TooManyKeys { limit: MAX_KEYS.into() })
    } else {
        // The password was changed meanwhile.
        Ok(Error::InvalidCredentials)
    }
}

/// The API keys of the caller's user that have not expired, the newest first: at most [`MAX_KEYS`].
///
/// # Errors
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn keys(core: &Core, caller: &Caller) -> Result<Vec<KeyInfo>> {
    caller.require_no_key()?;
    let keys = live_keys(core, caller, core.now()).await?;
    if keys.is_empty() {
        check_session(core, caller).await?;
    }
    Ok(keys)
}

/// The API keys of the caller's user at the time `now`, the newest first; none if the caller's
/// session has ended.
pub(super) async fn live_keys(
    core: &Core,
    caller: &Caller,
    now: DateTime<Utc>,
) -> Result<Vec<KeyInfo>> {
    const SQL: &str = concat!(
        "SELECT id, label, scopes, created_at, seen_at, expires_at FROM sessions \
         WHERE user_id = $1 AND kind = 'key' AND expires_at > $4 AND ",
        authorized!(),
        " ORDER BY created_at DESC, id DESC"
    );
    let db = core.db();
    let select = acting_as(*caller, SQL).bind(Timestamp(now));
    core.read(caller.user_id(), async move { Ok(db.fetch(select).await?) }).await
}

/// Deletes an API key of the caller's user: from now on every replica rejects it.
///
/// # Errors
/// [`Error::NotFound`] if the user has no such key, [`Error::InsufficientScope`] if the caller has
/// a key; else as [`authenticate`](super::authenticate).
pub async fn delete_key(core: &Core, caller: &Caller, id: SessionId) -> Result<()> {
    delete_key_from(core, caller, id, None).await
}

/// As [`delete_key`]. `client` is the address for the log.
pub(crate) async fn delete_key_from(
    core: &Core,
    caller: &Caller,
    id: SessionId,
    client: Option<IpAddr>,
) -> Result<()> {
    const SQL: &str = concat!(
        "DELETE FROM sessions WHERE id = $4 AND user_id = $1 AND kind = 'key' AND ",
        authorized!()
    );
    end_credential(core, caller, id, client, AuthEvent::KeyDeletion, SQL).await
}
