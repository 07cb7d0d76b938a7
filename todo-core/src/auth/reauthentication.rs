//! The password of a user who is logged in already, entered again before a change of credentials;
//! and the age of a session that takes its place for an account without a password.

use std::net::IpAddr;

use chrono::TimeDelta;

use super::{
    AuthEvent, Caller, Password, User, events,
    limited::log_if_failed,
    types::{USER_COLUMNS, user_columns},
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::{DbError, FromRow, Row},
    error::{Error, Result},
    rate_limit::{Action, RateLimitGuard, RateLimitState},
};

/// Maximum age of a session that takes the place of a password.
pub(super) const RECENT: TimeDelta = TimeDelta::minutes(10);

/// SQL condition that the caller's session has begun after `$since`.
macro_rules! is_recent {
    ($since:literal) => {
        concat!(
            "($2 OR EXISTS (SELECT 1 FROM sessions WHERE id = $3 AND user_id = $1 \
             AND created_at > ",
            $since,
            "))"
        )
    };
}
pub(super) use is_recent;

/// A user whose password is right.
pub(super) struct Reauthenticated {
    pub(super) user: User,
    /// The stored hash. A change of credentials requires that it is still the stored one.
    pub(super) password_hash: String,
}

impl FromRow for Reauthenticated {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self { user: User::from_row(row)?, password_hash: row.get(USER_COLUMNS)? })
    }
}

/// Verifies the password of the caller's user. Wrong ones count for the client, as those of logins,
/// and for the user: whoever has stolen a token cannot guess the password from many addresses.
/// Without a `client`, no limit applies. `state` becomes that of the client's limit.
///
/// # Errors
/// [`Error::InvalidCredentials`], [`Error::RateLimited`], [`Error::Busy`]; else as
/// [`authenticate`](super::authenticate).
pub(super) async fn reauthenticate(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
    password: Password,
    state: &mut Option<RateLimitState>,
) -> Result<Reauthenticated> {
    const SQL: &str = concat!(
        "SELECT ",
        user_columns!(),
        ", password_hash FROM users WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!()
    );
    let limiter = core.rate_limiter();
    let user_key = caller.user_id().to_string();
    // The queue first: an attempt that it rejects costs no statement.
    let by_client = limiter.admit(Action::Login, client).await?;
    let by_user = match client {
        Some(_) => limiter.admit_by_key(Action::Reauthentication, user_key.clone()).await?,
        None => None,
    };
    let permit = core.hasher().permit(client, Some(&user_key))?;
    // An ended session takes no slot.
    let found: Option<Reauthenticated> = core.db().fetch(acting_as(*caller, SQL)).await?;
    let found = found.ok_or(Error::Unauthenticated)?;
    let mut slots = Vec::new();
    for admitted in [by_client, by_user].into_iter().flatten() {
        match admitted.take().await {
            Ok(slot) => slots.push(slot),
            Err(error) => {
                end(slots, false).await;
                return Err(error);
            }
        }
    }
    let verified = permit.verify(password, Some(found.password_hash.clone())).await;
    let is_wrong = matches!(&verified, Ok(verified) if !verified.matches);
    if is_wrong {
        core.hasher().failed(client, &user_key);
        events::failed(
            AuthEvent::Reauthentication,
            client,
            Some(caller.user_id()),
            "wrong password",
        );
    }
    if client.is_some() {
        *state = slots.first().map(|slot| slot.state(is_wrong));
    }
    end(slots, is_wrong).await;
    verified?;
    if is_wrong { Err(Error::InvalidCredentials) } else { Ok(found) }
}

/// Ends attempts; those that `counts` keep their slots.
async fn end(slots: Vec<RateLimitGuard>, counts: bool) {
    for slot in slots {
        log_if_failed(if counts { slot.commit().await } else { slot.refund().await });
    }
}
