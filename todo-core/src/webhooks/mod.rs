//! Webhooks: where the reminders of a user are sent (Standard Webhooks 1.0.0). A user has at most
//! one. Its reminders are queued when they fire, and [`deliver_due`] sends them.
//!
//! Each reminder is a POST whose `webhook-id` is the id of the reminder. It is repeated until the
//! receiver answers with a status from 200 to 299, with the same id: at least once, and rarely
//! twice. A webhook that has failed for a day is off until it is set again.

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

pub use self::{
    delivery::{DeliveryReport, deliver_due},
    secret::WebhookSecret,
    url::WebhookUrl,
};
pub use crate::http_client::{HttpError, HttpRequest, PostFuture, PublicClient, WebhookClient};
use crate::{
    auth,
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row, value::Timestamp},
    error::{Error, Result},
    timestamp,
};

mod delivery;
mod payload;
mod secret;
mod url;

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Webhook {
    /// Where reminders are sent.
    pub url: String,
    /// Whether they are sent.
    pub state: WebhookState,
    /// When it was set.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// When it last received a reminder.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub last_success_at: Option<DateTime<Utc>>,
    /// When it last failed.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Why it last failed, such as `status 500`.
    pub last_failure: Option<String>,
    /// Its first failure since it last received a reminder. A day later it is off.
    #[serde(serialize_with = "timestamp::serialize_option")]
    pub failing_since: Option<DateTime<Utc>>,
}

/// Whether a webhook receives reminders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WebhookState {
    /// It receives them.
    Active,
    /// It has failed for a day. It receives nothing until it is set again.
    Off,
}

impl WebhookState {
    /// `active` or `off`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Off => "off",
        }
    }
}

impl Serialize for WebhookState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The row of a look-up, if there is a webhook.
struct Found {
    is_authorized: bool,
    webhook: Option<Webhook>,
}

impl FromRow for Found {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let is_authorized = row.get(0)?;
        let Some(url) = row.get(1)? else { return Ok(Self { is_authorized, webhook: None }) };
        let time = |index| {
            let time = row.get::<Option<Timestamp>>(index)?;
            Ok::<_, DbError>(time.map(|time| time.0))
        };
        let is_off = time(7)?.is_some();
        let webhook = Webhook {
            url,
            state: if is_off { WebhookState::Off } else { WebhookState::Active },
            created_at: row.get::<Timestamp>(2)?.0,
            last_success_at: time(3)?,
            last_failure_at: time(4)?,
            last_failure: row.get(5)?,
            failing_since: time(6)?,
        };
        Ok(Self { is_authorized, webhook: Some(webhook) })
    }
}

/// Sets the webhook of the caller's user, in place of the present one, and turns it on. Without a
/// secret, one is generated. Returns the webhook and its secret, which is returned nowhere else.
/// Reminders that are queued for the present one are sent to the new one.
///
/// # Errors
/// [`Error::InsufficientScope`] for an API key, [`Error::Unauthenticated`] if the caller's session
/// has ended; else the errors of every operation: [`Error::Busy`], [`Error::Unavailable`],
/// [`Error::Internal`].
pub async fn set(
    core: &Core,
    caller: &Caller,
    url: WebhookUrl,
    secret: Option<WebhookSecret>,
) -> Result<(Webhook, WebhookSecret)> {
    const SQL: &str = concat!(
        "INSERT INTO webhooks (user_id, url, secret, created_at) SELECT $1, $4, $5, $6 WHERE ",
        authorized!(),
        " ON CONFLICT (user_id) DO UPDATE SET url = excluded.url, secret = excluded.secret, \
         created_at = excluded.created_at, last_success_at = NULL, last_failure_at = NULL, \
         last_failure = NULL, failing_since = NULL, failures = 0, off_at = NULL, \
         paused_until = NULL, lease = NULL, leased_until = NULL RETURNING url, created_at"
    );
    caller.require_no_key()?;
    let secret = match secret {
        Some(secret) => secret,
        None => WebhookSecret::generate()?,
    };
    let now = core.now();
    let insert = acting_as(*caller, SQL)
        .bind(url.as_str())
        .bind(secret.as_bytes().to_vec())
        .bind(Timestamp(now));
    let db = core.db();
    let row: Option<(String, Timestamp)> = core
        .write(caller.user_id(), async move {
            match db.execute(insert).await {
                Ok(row) => Ok(row),
                Err(fault) if fault.is_foreign_key_violation() => Err(Error::Unauthenticated),
                Err(fault) => Err(fault.into()),
            }
        })
        .await?;
    let (url, created_at) = row.ok_or(Error::Unauthenticated)?;
    let webhook = Webhook {
        url,
        state: WebhookState::Active,
        created_at: created_at.0,
        last_success_at: None,
        last_failure_at: None,
        last_failure: None,
        failing_since: None,
    };
    Ok((webhook, secret))
}

/// Returns the webhook of the caller's user, without its secret.
///
/// # Errors
/// [`Error::NotFound`] if there is none; else as [`set`].
pub async fn get(core: &Core, caller: &Caller) -> Result<Webhook> {
    const SQL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", url, created_at, last_success_at, last_failure_at, last_failure, failing_since, off_at \
         FROM (SELECT 1 AS one) AS one LEFT JOIN webhooks ON user_id = $1"
    );
    caller.require_no_key()?;
    let db = core.db();
    let select = acting_as(*caller, SQL);
    let found: Found =
        core.read(caller.user_id(), async move { Ok(db.fetch_one(select).await?) }).await?;
    match found {
        Found { is_authorized: false, .. } => Err(Error::Unauthenticated),
        Found { webhook, .. } => webhook.ok_or(Error::NotFound),
    }
}

/// Deletes the webhook of the caller's user, with what is queued for it.
///
/// # Errors
/// As [`get`].
pub async fn delete(core: &Core, caller: &Caller) -> Result<()> {
    const SQL: &str = concat!(
        "DELETE FROM webhooks WHERE user_id = $1 AND ",
        authorized!(),
        " RETURNING user_id"
    );
    caller.require_no_key()?;
    let db = core.db();
    let delete = acting_as(*caller, SQL);
    let deleted: Option<(uuid::Uuid,)> =
        core.write(caller.user_id(), async move { Ok(db.execute(delete).await?) }).await?;
    if deleted.is_some() {
        return Ok(());
    }
    auth::check_session(core, caller).await?;
    Err(Error::NotFound)
}
