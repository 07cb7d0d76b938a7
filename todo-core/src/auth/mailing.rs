//! What the operations that mail a link have in common: they need mails, and are limited by client
//! and by address.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use crate::{
    core::Core,
    db::{Statement, value::Timestamp},
    error::{Error, Result},
    mail::{Mail, MailKind},
    rate_limit::{Action, RateLimitGuard, RateLimitState},
};

/// Minimum time between two mails of a kind to an address.
const MIN_INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// The time in which an address has at most five mails of a kind.
const DAY: TimeDelta = TimeDelta::days(1);

/// SQL condition that a row of `mails` with the kind `$kind` and the address `$email` is within the
/// limits of that address, whether it has an account or not. `$minute` and `$day` are the times of
/// [`since`].
macro_rules! within_limits {
    ($kind:literal, $email:literal, $minute:literal, $day:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM mails AS recent WHERE recent.email = ",
            $email,
            " AND recent.kind = ",
            $kind,
            " AND recent.created_at > ",
            $minute,
            ") AND (SELECT count(*) FROM mails AS earlier WHERE earlier.email = ",
            $email,
            " AND earlier.kind = ",
            $kind,
            " AND earlier.created_at > ",
            $day,
            ") < 5"
        )
    };
}
pub(super) use within_limits;

/// The times for [`within_limits`]: a minute and a day ago.
pub(super) fn since(now: DateTime<Utc>) -> [Timestamp; 2] {
    [Timestamp(now - MIN_INTERVAL), Timestamp(now - DAY)]
}

/// The mails of the core.
///
/// # Errors
/// [`Error::MailNotConfigured`].
pub(super) fn require_mail(core: &Core) -> Result<&Mail> {
    core.mail().ok_or(Error::MailNotConfigured)
}

/// Takes a slot of the client's limit, which always counts. `state` becomes that of the limit.
pub(super) async fn take_slot(
    core: &Core,
    action: Action,
    client: Option<IpAddr>,
    state: &mut Option<RateLimitState>,
) -> Result<Option<RateLimitGuard>> {
    let Some(admitted) = core.rate_limiter().admit(action, client).await? else {
        return Ok(None);
    };
    let attempt = admitted.take().await?;
    *state = Some(attempt.state(true));
    Ok(Some(attempt))
}

/// Whether no mail of this kind was queued to `recipient`, an address or a user, within the last
/// minute; if so, it counts as queued now. The limit of the statement that queues it is not exact:
/// on PostgreSQL concurrent statements do not find each other's rows.
pub(super) async fn take_minute(core: &Core, kind: MailKind, recipient: &str) -> Result<bool> {
    // A time in the future was written before the clock was set back.
    const SQL: &str = "INSERT INTO rate_limits (action, client, slot, taken_at, settled) \
         VALUES ('mail_to', $1, 0, $2, TRUE) ON CONFLICT (action, client, slot) DO UPDATE \
         SET taken_at = excluded.taken_at \
         WHERE rate_limits.taken_at <= $3 OR rate_limits.taken_at > $2 RETURNING slot, taken_at";
    // Not the address itself: the table is for counting.
    let hash = Sha256::new().chain_update(kind.as_str()).chain_update([0]).chain_update(recipient);
    let key: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let now = core.now();
    let take =
        Statement::new(SQL).bind(key).bind(Timestamp(now)).bind(Timestamp(now - MIN_INTERVAL));
    let taken: Option<(i64, Timestamp)> = core.db().execute(take).await?;
    Ok(taken.is_some())
}
