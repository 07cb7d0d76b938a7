//! Rate-limit slots in the database: exact under concurrency, shared by all replicas, kept over a
//! restart. A limit of N per minute is N slots per client; an attempt takes a slot that was not
//! taken in the last minute. No slot is taken twice within a minute, so no window of a minute,
//! wherever it begins, has more than N attempts. The networks around an IPv6 client have limits
//! too: their taken slots are counted, which is exact in one process and nearly so with several.
//!
//! A login takes its slot before any hashing and frees it if the password was right. While running
//! attempts hold all slots, further ones wait: each is admitted or rejected by the outcome of
//! those.

use std::{net::IpAddr, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use self::{
    client::Client,
    semaphores::{ClientSemaphores, Permit},
};
use crate::{
    clock::Clock,
    db::{Db, RowsAffected, Statement, value::Timestamp},
    error::{Error, Result},
};

mod client;
mod semaphores;

const WINDOW: TimeDelta = TimeDelta::minutes(1);
/// A running attempt older than this counts as failed: its server has died.
const ATTEMPT_TTL: TimeDelta = TimeDelta::seconds(15);
/// Maximum wait of an attempt for others of its client.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// First and maximum interval of polling for a slot while attempts run on another replica.
const POLL_INTERVAL: Duration = Duration::from_millis(25);
const MAX_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum difference between the clocks of two replicas.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);
/// Limits of the /56 and the /48 around an IPv6 client, in multiples of the client's limit. A site
/// has a /48 (RFC 6177), which is 65,536 clients. IPv4 has no network limit: a /24 has unrelated
/// users, and one could use up the limit of the others.
const NETWORK_FACTORS: [u32; 2] = [3, 8];

/// The text by which the limits count a client: an IPv4 address, or the /64 of an IPv6 address.
pub(crate) fn client_key(address: IpAddr) -> String {
    Client::of(address).key
}

/// An action with a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Failed logins.
    Login,
    /// Signups, successful or not.
    Signup,
    /// Requests of a mail with a link that sets a new password.
    Forgot,
    /// Requests of a mail with a link that confirms the address.
    Verify,
    /// Wrong passwords of a user who has to enter it again.
    Reauthentication,
    /// Starts of sign-ins with a provider.
    #[cfg(feature = "identity")]
    SignInStart,
    /// Ends of sign-ins with a provider, which ask it. Separate, so that a user who has used up the
    /// starts can complete the last one.
    #[cfg(feature = "identity")]
    SignInEnd,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Signup => "signup",
            Self::Forgot => "forgot",
            Self::Verify => "verify",
            Self::Reauthentication => "reauth",
            #[cfg(feature = "identity")]
            Self::SignInStart => "oauth",
            #[cfg(feature = "identity")]
            Self::SignInEnd => "oauth_end",
        }
    }

    /// Whether an attempt counts from its start; else, once it has failed.
    fn counts_always(self) -> bool {
        match self {
            Self::Signup | Self::Forgot | Self::Verify => true,
            #[cfg(feature = "identity")]
            Self::SignInStart | Self::SignInEnd => true,
            Self::Login | Self::Reauthentication => false,
        }
    }
}

/// The rate limiter of one database.
pub(crate) struct RateLimiter(Arc<Shared>);

/// The parts of a rate limiter that its attempts use.
struct Shared {
    db: Db,
    clock: Clock,
    per_minute: u32,
    semaphores: Arc<ClientSemaphores>,
}

/// An attempt that holds its permits in this process but no slot in the database yet. It has cost
/// no statement.
pub(crate) struct AdmittedAttempt {
    limiter: Arc<Shared>,
    action: Action,
    client: Client,
    deadline: Instant,
    permits: Vec<Permit>,
}

/// A running attempt that has taken a slot.
pub(crate) struct RateLimitGuard {
    limiter: Arc<Shared>,
    action: Action,
    client: String,
    slot: i64,
    taken_at: DateTime<Utc>,
    limit: u32,
    others: OtherSlots,
    _permits: Vec<Permit>,
}

/// The slots that other attempts of a client had taken when an attempt took its own.
#[derive(Clone, Copy)]
struct OtherSlots {
    count: i64,
    oldest: Option<DateTime<Utc>>,
}

/// The rate limit of an action after an attempt, for its client: an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimitState {
    /// Attempts that are left in the current minute.
    pub(crate) remaining: u32,
    /// Time until the next one is free, if any is taken.
    pub(crate) reset: Option<Duration>,
}

impl RateLimitState {
    /// The state of a client whose attempt was rejected.
    pub(crate) fn exhausted(retry_after: Duration) -> Self {
        Self { remaining: 0, reset: Some(retry_after) }
    }
}

impl RateLimiter {
    /// Allows `per_minute` attempts; 0 allows any number.
    pub(crate) fn new(db: Db, clock: Clock, per_minute: u32) -> Self {
        Self(Arc::new(Shared { db, clock, per_minute, semaphores: Arc::default() }))
    }

    /// Attempts per minute; 0 allows any number.
    #[cfg(feature = "http")]
    pub(crate) fn per_minute(&self) -> u32 {
        self.0.per_minute
    }

    /// Acquires the permits of this process for an attempt of `client`, or fails with
    /// [`Error::RateLimited`] or [`Error::Busy`]. `None` if there is no limit, or no client.
    pub(crate) async fn admit(
        &self,
        action: Action,
        client: Option<IpAddr>,
    ) -> Result<Option<AdmittedAttempt>> {
        match client {
            Some(client) => self.admit_counted(action, Client::of(client)).await,
            None => Ok(None),
        }
    }

    /// As [`RateLimiter::admit`], for what is not counted by addresses: `key` names it.
    pub(crate) async fn admit_by_key(
        &self,
        action: Action,
        key: String,
    ) -> Result<Option<AdmittedAttempt>> {
        self.admit_counted(action, Client { key, prefixes: None }).await
    }

    async fn admit_counted(
        &self,
        action: Action,
        client: Client,
    ) -> Result<Option<AdmittedAttempt>> {
        if self.0.per_minute == 0 {
            return Ok(None);
        }
        let deadline = Instant::now() + MAX_WAIT;
        let acquired = async {
            let mut permits = Vec::with_capacity(1 + NETWORK_FACTORS.len());
            permits.push(self.0.semaphores.acquire(action, &client.key, self.0.per_minute).await?);
            for (prefix, factor) in client.prefixes.iter().flatten().zip(NETWORK_FACTORS) {
                let limit = self.0.per_minute.saturating_mul(factor);
                permits.push(self.0.semaphores.acquire(action, prefix, limit).await?);
            }
            Ok(permits)
        };
        let permits =
            tokio::time::timeout_at(deadline, acquired).await.unwrap_or(Err(Error::Busy))?;
        let limiter = Arc::clone(&self.0);
        Ok(Some(AdmittedAttempt { limiter, action, client, deadline, permits }))
    }
}

impl AdmittedAttempt {
    /// Takes a slot, or fails with [`Error::RateLimited`].
    pub(crate) async fn take(self) -> Result<RateLimitGuard> {
        let taken = tokio::time::timeout_at(self.deadline, self.take_slot()).await;
        let (slot, taken_at, others) = taken.unwrap_or(Err(Error::Busy))?;
        let Self { limiter, action, client, permits, .. } = self;
        let limit = limiter.per_minute;
        Ok(RateLimitGuard {
            limiter,
            action,
            client: client.key,
            slot,
            taken_at,
            limit,
            others,
            _permits: permits,
        })
    }

    async fn take_slot(&self) -> Result<(i64, DateTime<Utc>, OtherSlots)> {
        // Two replicas may pick the same slot; the unique index gives it to one, the other retries.
        // A slot is taken if its time is in the last minute. A time in the future was written
        // before the clock was set back and does not count.
        const TAKE: &str = "INSERT INTO rate_limits \
             (action, client, slot, taken_at, settled, prefix56, prefix48) \
             SELECT $1, $2, free.slot, $3, $4, $8, $9 FROM ( \
             WITH RECURSIVE slots (slot) AS \
             (SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot + 1 < $5) \
             SELECT slot FROM slots WHERE NOT EXISTS (SELECT 1 FROM rate_limits AS taken \
             WHERE taken.action = $1 AND taken.client = $2 AND taken.slot = slots.slot \
             AND taken.taken_at > $6 AND taken.taken_at <= $7) ORDER BY slot LIMIT 1) AS free \
             WHERE (SELECT count(*) FROM rate_limits AS near WHERE near.prefix48 = $9 \
             AND near.action = $1 AND near.prefix56 = $8 \
             AND near.taken_at > $6 AND near.taken_at <= $7) < $10 \
             AND (SELECT count(*) FROM rate_limits AS far WHERE far.prefix48 = $9 \
             AND far.action = $1 AND far.taken_at > $6 AND far.taken_at <= $7) < $11 \
             ON CONFLICT (action, client, slot) DO UPDATE \
             SET taken_at = excluded.taken_at, settled = excluded.settled, \
             prefix56 = excluded.prefix56, prefix48 = excluded.prefix48 \
             WHERE rate_limits.taken_at <= $6 OR rate_limits.taken_at > $7 RETURNING slot, \
             (SELECT count(*) FROM rate_limits AS held WHERE held.action = $1 \
             AND held.client = $2 AND held.slot < $5 AND held.slot <> rate_limits.slot \
             AND held.taken_at > $6 AND held.taken_at <= $7), \
             (SELECT min(held.taken_at) FROM rate_limits AS held WHERE held.action = $1 \
             AND held.client = $2 AND held.slot < $5 AND held.slot <> rate_limits.slot \
             AND held.taken_at > $6 AND held.taken_at <= $7)";
        let [near, far] = self.prefixes();
        let allowed = self.allowed();
        let settled = self.action.counts_always();
        let mut pause = POLL_INTERVAL;
        loop {
            let now = self.limiter.clock.now();
            let taken = {
                // One statement at a time keeps the counts of networks exact in this process.
                let _permit = match far {
                    Some(far) => Some(
                        self.limiter
                            .semaphores
                            .acquire(self.action, &format!("statement {far}"), 1)
                            .await?,
                    ),
                    None => None,
                };
                let take = Statement::new(TAKE)
                    .bind(self.action.as_str())
                    .bind(&*self.client.key)
                    .bind(Timestamp(now))
                    .bind(settled)
                    .bind(allowed[0])
                    .bind(Timestamp(now - WINDOW))
                    .bind(Timestamp(now + MAX_CLOCK_SKEW))
                    .bind(near)
                    .bind(far)
                    .bind(allowed[1])
                    .bind(allowed[2]);
                self.limiter.db.execute::<Option<(i64, i64, Option<Timestamp>)>>(take).await?
            };
            if let Some((slot, count, oldest)) = taken {
                let oldest = oldest.map(|oldest| oldest.0);
                return Ok((slot, now, OtherSlots { count, oldest }));
            }
            match self.occupancy(now).await? {
                Occupancy::Free => {}
                Occupancy::Running => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_POLL_INTERVAL);
                }
                Occupancy::Until(free_at) => {
                    // `free_at` can be over a minute ahead: a concurrent attempt took a later time.
                    let retry_after = (free_at - now).min(WINDOW).to_std().unwrap_or_default();
                    return Err(Error::RateLimited { retry_after });
                }
            }
        }
    }

    /// Returns how the slots of the client and its networks are taken.
    async fn occupancy(&self, now: DateTime<Utc>) -> Result<Occupancy> {
        const HELD: &str = "SELECT CAST(0 AS bigint), count(*), \
             coalesce(sum(CASE WHEN settled OR taken_at <= $5 THEN 0 ELSE 1 END), 0), \
             min(taken_at) FROM rate_limits \
             WHERE action = $1 AND client = $2 AND slot < $6 AND taken_at > $3 AND taken_at <= $4 \
             UNION ALL SELECT CAST(1 AS bigint), count(*), \
             coalesce(sum(CASE WHEN settled OR taken_at <= $5 THEN 0 ELSE 1 END), 0), \
             min(taken_at) FROM rate_limits \
             WHERE prefix48 = $8 AND action = $1 AND prefix56 = $7 \
             AND taken_at > $3 AND taken_at <= $4 \
             UNION ALL SELECT CAST(2 AS bigint), count(*), \
             coalesce(sum(CASE WHEN settled OR taken_at <= $5 THEN 0 ELSE 1 END), 0), \
             min(taken_at) FROM rate_limits \
             WHERE prefix48 = $8 AND action = $1 AND taken_at > $3 AND taken_at <= $4";
        let [near, far] = self.prefixes();
        let allowed = self.allowed();
        let select = Statement::new(HELD)
            .bind(self.action.as_str())
            .bind(&*self.client.key)
            .bind(Timestamp(now - WINDOW))
            .bind(Timestamp(now + MAX_CLOCK_SKEW))
            .bind(Timestamp(now - ATTEMPT_TTL))
            .bind(allowed[0])
            .bind(near)
            .bind(far);
        let widths: Vec<(i64, i64, i64, Option<Timestamp>)> = self.limiter.db.fetch(select).await?;
        let mut found = Occupancy::Free;
        for (width, held, running, oldest) in widths {
            let allowed = usize::try_from(width).ok().and_then(|width| allowed.get(width));
            let allowed = allowed.copied().unwrap_or(i64::MAX);
            if held - running >= allowed {
                let free_at = oldest.map_or(now, |oldest| oldest.0) + WINDOW;
                found = found.max(Occupancy::Until(free_at));
            } else if held >= allowed {
                found = found.max(Occupancy::Running);
            }
        }
        Ok(found)
    }

    /// The client's networks, the /56 first.
    fn prefixes(&self) -> [Option<&str>; 2] {
        let [near, far] = self
            .client
            .prefixes
            .as_ref()
            .map_or([None; 2], |[near, far]| [Some(near.as_str()), Some(far.as_str())]);
        [near, far]
    }

    /// The limits per minute of the client and its networks.
    fn allowed(&self) -> [i64; 3] {
        let client = i64::from(self.limiter.per_minute);
        [client, client * i64::from(NETWORK_FACTORS[0]), client * i64::from(NETWORK_FACTORS[1])]
    }
}

/// How the slots of a client and its networks are taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Occupancy {
    /// At least one is free.
    Free,
    /// All are taken, some by running attempts, which may free them.
    Running,
    /// All are taken by attempts that count; the first is free at this time.
    Until(DateTime<Utc>),
}

impl RateLimitGuard {
    /// The state of the limit once this attempt has ended, if it `counts`.
    pub(crate) fn state(&self, counts: bool) -> RateLimitState {
        let own = counts.then_some(self.taken_at);
        let held = self.others.count + i64::from(counts);
        let remaining = (i64::from(self.limit) - held).max(0);
        let oldest = self.others.oldest.into_iter().chain(own).min();
        let reset = oldest.map(|oldest| oldest + WINDOW - self.limiter.clock.now());
        RateLimitState {
            remaining: u32::try_from(remaining).unwrap_or(self.limit),
            reset: reset
                .map(|reset| reset.clamp(TimeDelta::zero(), WINDOW).to_std().unwrap_or_default()),
        }
    }

    /// Frees the slot: the attempt does not count.
    pub(crate) async fn refund(self) -> Result<()> {
        const SQL: &str = "DELETE FROM rate_limits \
             WHERE action = $1 AND client = $2 AND slot = $3 AND taken_at = $4";
        self.end(SQL).await
    }

    /// Marks the attempt as counted.
    pub(crate) async fn commit(self) -> Result<()> {
        const SQL: &str = "UPDATE rate_limits SET settled = TRUE \
             WHERE action = $1 AND client = $2 AND slot = $3 AND taken_at = $4";
        self.end(SQL).await
    }

    async fn end(self, sql: &'static str) -> Result<()> {
        let end = Statement::new(sql)
            .bind(self.action.as_str())
            .bind(&*self.client)
            .bind(self.slot)
            .bind(Timestamp(self.taken_at));
        let RowsAffected(_) = self.limiter.db.execute(end).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
