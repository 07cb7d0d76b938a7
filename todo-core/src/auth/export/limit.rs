//! The limit of exports: two an hour for each user, over all replicas, also after a restart.
//!
//! It has slots in the table of the rate limiter, whose window is a minute and whose clients are
//! addresses: an export is limited by user, so that neither more sessions nor more addresses help.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{Statement, value::Timestamp},
    error::{Error, Result},
    rate_limit::RateLimitState,
};

/// Exports of a user in [`WINDOW`].
pub(crate) const EXPORTS: u32 = 2;
/// The time for which an export counts.
pub(crate) const WINDOW: TimeDelta = TimeDelta::hours(1);
/// Maximum difference between the clocks of two replicas.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);
/// How often an export tries to take a slot that another one takes at the same time.
const TRIES: usize = 3;

/// Takes one of the caller's slots. A trusted caller has no limit.
///
/// # Errors
/// [`Error::RateLimited`], [`Error::Unauthenticated`].
pub(super) async fn take(core: &Core, caller: Caller) -> Result<Option<RateLimitState>> {
    // A slot is taken if its time is in the window. A time in the future was written before the
    // clock was set back and does not count. Without a session no slot is taken.
    const TAKE: &str = concat!(
        "INSERT INTO rate_limits (action, client, slot, taken_at, settled) \
         SELECT 'export', $4, free.slot, $5, TRUE FROM ( \
         SELECT slots.slot FROM (SELECT 0 AS slot UNION ALL SELECT 1) AS slots \
         WHERE NOT EXISTS (SELECT 1 FROM rate_limits AS taken WHERE taken.action = 'export' \
         AND taken.client = $4 AND taken.slot = slots.slot \
         AND taken.taken_at > $6 AND taken.taken_at <= $7) ORDER BY slots.slot LIMIT 1) AS free \
         WHERE ",
        authorized!(),
        " ON CONFLICT (action, client, slot) DO UPDATE \
         SET taken_at = excluded.taken_at, settled = excluded.settled \
         WHERE rate_limits.taken_at <= $6 OR rate_limits.taken_at > $7 RETURNING \
         (SELECT count(*) FROM rate_limits AS held WHERE held.action = 'export' \
         AND held.client = $4 AND held.slot <> rate_limits.slot \
         AND held.taken_at > $6 AND held.taken_at <= $7), \
         (SELECT min(held.taken_at) FROM rate_limits AS held WHERE held.action = 'export' \
         AND held.client = $4 AND held.slot <> rate_limits.slot \
         AND held.taken_at > $6 AND held.taken_at <= $7)"
    );
    const HELD: &str = concat!(
        "SELECT ",
        authorized!(),
        ", count(*), min(taken_at) FROM rate_limits WHERE action = 'export' AND client = $4 \
         AND taken_at > $5 AND taken_at <= $6"
    );
    if caller.is_trusted() {
        return Ok(None);
    }
    let db = core.db();
    let now = core.now();
    let user = caller.user_id().to_string();
    core.write(caller.user_id(), async move {
        for _ in 0..TRIES {
            let take = acting_as(caller, TAKE)
                .bind(&*user)
                .bind(Timestamp(now))
                .bind(Timestamp(now - WINDOW))
                .bind(Timestamp(now + MAX_CLOCK_SKEW));
            if let Some((others, oldest)) =
                db.execute::<Option<(i64, Option<Timestamp>)>>(take).await?
            {
                return Ok(Some(state(now, others, oldest)));
            }
            let held: Statement = acting_as(caller, HELD)
                .bind(&*user)
                .bind(Timestamp(now - WINDOW))
                .bind(Timestamp(now + MAX_CLOCK_SKEW));
            let (is_authorized, count, oldest): (bool, i64, Option<Timestamp>) =
                db.fetch_one(held).await?;
            if !is_authorized {
                return Err(Error::Unauthenticated);
            }
            if count >= i64::from(EXPORTS) {
                let retry_after = free_in(now, oldest).to_std().unwrap_or_default();
                return Err(Error::RateLimited { retry_after });
            }
        }
        Err(Error::Busy)
    })
    .await
}

/// The state after an export at `now`, besides `others`.
fn state(now: DateTime<Utc>, others: i64, oldest: Option<Timestamp>) -> RateLimitState {
    let remaining = (i64::from(EXPORTS) - 1 - others).max(0);
    RateLimitState {
        remaining: u32::try_from(remaining).unwrap_or_default(),
        reset: free_in(now, oldest).to_std().ok(),
    }
}

/// The time until the oldest slot is free.
fn free_in(now: DateTime<Utc>, oldest: Option<Timestamp>) -> TimeDelta {
    let taken_at = oldest.map_or(now, |oldest| oldest.0);
    (taken_at + WINDOW - now).clamp(TimeDelta::zero(), WINDOW)
}
