//! What the operations that mail a link have in common: they need mails, and are limited by client
//! and by address.

use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    core::Core,
    db::value::Timestamp,
    error::{Error, Result},
    mail::Mail,
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
pub(crate) async fn take_slot(
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

/// The id of a mail of this kind to `recipient`, an address or a user, which is queued now: the
/// same in each minute. So the primary key allows one of them a minute, also where concurrent
/// statements do not find each other's rows by [`within_limits`]. It need not be secret: the token
/// in a link is the id with a MAC.
pub(super) fn id_of_minute(kind: &str, recipient: &str, now: DateTime<Utc>) -> Uuid {
    let minute = now.timestamp().div_euclid(MIN_INTERVAL.num_seconds());
    let hash = Sha256::new()
        .chain_update(minute.to_be_bytes())
        .chain_update(kind)
        .chain_update([0])
        .chain_update(recipient)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
