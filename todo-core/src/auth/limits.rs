//! Rate limits, kept in the database: exact under concurrency, shared by all replicas, there after a
//! restart. A limit of N a minute is N slots a client; an attempt takes a slot that nobody took in
//! the last minute. No slot is taken twice within any minute, so no minute, wherever it begins, has
//! more than N attempts. The networks around an IPv6 client have limits too: the slots in them are
//! counted, which is exact in one process and nearly so with several.
//!
//! A login takes its slot before any hashing and gives it back if the password was right. While all
//! slots are held by attempts that still run, further ones wait: whether they are let in depends on
//! how those end.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{
    Core,
    db::{Changed, Statement, columns::Stamp},
    error::{Error, Result},
};

const WINDOW: TimeDelta = TimeDelta::minutes(1);
/// An attempt that has not ended by then never will: its server is gone. It counts as failed.
const ATTEMPT: TimeDelta = TimeDelta::seconds(15);
/// How long an attempt waits for others of its client to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts of one client that may be under way or wait; further ones are refused at once.
const MAX_WAITING: usize = 256;
/// How soon it looks again, when those others run on another replica, and how late at most.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
const LOOK_AGAIN_MOST: Duration = Duration::from_millis(100);
/// How far the clocks of two replicas may be apart.
const SKEW: TimeDelta = TimeDelta::seconds(5);
/// What the /56 and the /48 around an IPv6 client may do in all, in multiples of the client's limit. A
/// site has a /48 (RFC 6177), which is 65,536 clients. IPv4 addresses have no such owner: neighbours in
/// a /24 are strangers, and one could use up what is the other's.
const WIDER: [u32; 2] = [3, 8];

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Failed logins.
    Login,
    /// Signups, whatever becomes of them.
    Signup,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Signup => "signup",
        }
    }
}

/// The limits of one [`Core`].
pub(crate) struct Limits {
    per_minute: u32,
    gates: Arc<Gates>,
}

/// Lets a bounded number of attempts of a client, or of a network, run at once in this process; the
/// rest queue here instead of asking the database over and over. Holds only those with an attempt
/// under way.
#[derive(Default)]
struct Gates(Mutex<HashMap<Key, Arc<Semaphore>>>);

/// Whose gate it is, and for what.
type Key = (Action, String);

/// An attempt that has passed the gates of this process and has not taken a slot yet. It has cost no
/// statement.
pub(crate) struct Entrance {
    per_minute: u32,
    gates: Arc<Gates>,
    action: Action,
    client: Client,
    deadline: Instant,
    passes: Vec<Pass>,
}

/// An attempt that was let in.
pub(crate) struct Attempt {
    core: Core,
    action: Action,
    client: String,
    slot: i64,
    taken_at: DateTime<Utc>,
    _passes: Vec<Pass>,
}

/// A place before a gate, or, with its permit, inside.
struct Pass {
    gates: Arc<Gates>,
    key: Key,
    gate: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Limits {
    /// Allows `per_minute` attempts; 0 allows any number.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, gates: Arc::default() }
    }

    /// Lets an attempt of `client` through the gates of this process, or fails with
    /// [`Error::RateLimited`] or [`Error::Busy`]. `None` if there is no limit, or no client.
    pub(crate) async fn enter(
        &self,
        action: Action,
        client: Option<IpAddr>,
    ) -> Result<Option<Entrance>> {
        let (Some(client), 1..) = (client, self.per_minute) else { return Ok(None) };
        let (client, deadline) = (Client::of(client), Instant::now() + PATIENCE);
        let entered = async {
            let mut passes = Vec::with_capacity(1 + WIDER.len());
            passes.push(self.gates.enter(action, &client.key, self.per_minute).await?);
            for (prefix, factor) in client.prefixes.iter().flatten().zip(WIDER) {
                let permits = self.per_minute.saturating_mul(factor);
                passes.push(self.gates.enter(action, prefix, permits).await?);
            }
            Ok(passes)
        };
        let passes =
            tokio::time::timeout_at(deadline, entered).await.unwrap_or(Err(Error::Busy))?;
        let (per_minute, gates) = (self.per_minute, Arc::clone(&self.gates));
        Ok(Some(Entrance { per_minute, gates, action, client, deadline, passes }))
    }
}

impl Entrance {
    /// Takes a slot, or fails with [`Error::RateLimited`].
    pub(crate) async fn take(self, core: &Core) -> Result<Attempt> {
        let taken = tokio::time::timeout_at(self.deadline, self.take_slot(core)).await;
        let (slot, taken_at) = taken.unwrap_or(Err(Error::Busy))?;
        let Self { action, client, passes, .. } = self;
        Ok(Attempt {
            core: core.clone(),
            action,
            client: client.key,
            slot,
            taken_at,
            _passes: passes,
        })
    }

    async fn take_slot(&self, core: &Core) -> Result<(i64, DateTime<Utc>)> {
        // Two replicas may pick the same slot; the index lets one have it, the other looks again.
        // A slot is taken if that was in the last minute: a time that lies ahead was written before
        // the clock was set back, and counts for nothing.
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
             WHERE rate_limits.taken_at <= $6 OR rate_limits.taken_at > $7 RETURNING slot";
        let [near, far] = self.prefixes();
        let allowed = self.allowed();
        // A signup counts whatever becomes of it; a login is settled when it has failed.
        let settled = self.action == Action::Signup;
        let mut pause = LOOK_AGAIN;
        loop {
            let now = core.now();
            let taken = {
                // The counts of networks are exact in this process: one statement at a time.
                let _turn = match far {
                    Some(far) => {
                        Some(self.gates.enter(self.action, &format!("turn {far}"), 1).await?)
                    }
                    None => None,
                };
                let take = Statement::new(TAKE)
                    .bind(self.action.as_str())
                    .bind(&*self.client.key)
                    .bind(Stamp(now))
                    .bind(settled)
                    .bind(allowed[0])
                    .bind(Stamp(now - WINDOW))
                    .bind(Stamp(now + SKEW))
                    .bind(near)
                    .bind(far)
                    .bind(allowed[1])
                    .bind(allowed[2]);
                core.db().write::<Option<(i64,)>>(take).await?
            };
            if let Some((slot,)) = taken {
                return Ok((slot, now));
            }
            match self.held(core, now).await? {
                Held::Free => {}
                Held::Running => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LOOK_AGAIN_MOST);
                }
                Held::Until(free_at) => {
                    // An attempt that began a moment later may have been faster: its time is ahead.
                    let retry_after = (free_at - now).min(WINDOW).to_std().unwrap_or_default();
                    return Err(Error::RateLimited { retry_after });
                }
            }
        }
    }

    /// Who holds the slots of the client and of its networks.
    async fn held(&self, core: &Core, now: DateTime<Utc>) -> Result<Held> {
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
        let ([near, far], allowed) = (self.prefixes(), self.allowed());
        let held = Statement::new(HELD)
            .bind(self.action.as_str())
            .bind(&*self.client.key)
            .bind(Stamp(now - WINDOW))
            .bind(Stamp(now + SKEW))
            .bind(Stamp(now - ATTEMPT))
            .bind(allowed[0])
            .bind(near)
            .bind(far);
        let widths: Vec<(i64, i64, i64, Option<Stamp>)> = core.db().read(held).await?;
        let mut found = Held::Free;
        for (width, held, running, oldest) in widths {
            let allowed = usize::try_from(width).ok().and_then(|width| allowed.get(width));
            let allowed = allowed.copied().unwrap_or(i64::MAX);
            if held - running >= allowed {
                let free_at = oldest.map_or(now, |oldest| oldest.0) + WINDOW;
                found = found.max(Held::Until(free_at));
            } else if held >= allowed {
                found = found.max(Held::Running);
            }
        }
        Ok(found)
    }

    /// The client's networks, the narrower first.
    fn prefixes(&self) -> [Option<&str>; 2] {
        let [near, far] = self
            .client
            .prefixes
            .as_ref()
            .map_or([None; 2], |[near, far]| [Some(near.as_str()), Some(far.as_str())]);
        [near, far]
    }

    /// How many attempts the client and each of its networks may make in a minute.
    fn allowed(&self) -> [i64; 3] {
        let client = i64::from(self.per_minute);
        [client, client * i64::from(WIDER[0]), client * i64::from(WIDER[1])]
    }
}

/// Who holds slots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Held {
    /// Not all are held.
    Free,
    /// Attempts that still run, which may give theirs back.
    Running,
    /// Attempts that count, until this time.
    Until(DateTime<Utc>),
}

impl Attempt {
    /// Gives the slot back: the attempt does not count.
    pub(crate) async fn forgive(self) -> Result<()> {
        const SQL: &str = "DELETE FROM rate_limits \
             WHERE action = $1 AND client = $2 AND slot = $3 AND taken_at = $4";
        self.end(SQL).await
    }

    /// Lets the attempt count.
    pub(crate) async fn count(self) -> Result<()> {
        const SQL: &str = "UPDATE rate_limits SET settled = TRUE \
             WHERE action = $1 AND client = $2 AND slot = $3 AND taken_at = $4";
        self.end(SQL).await
    }

    async fn end(self, sql: &'static str) -> Result<()> {
        let end = Statement::new(sql)
            .bind(self.action.as_str())
            .bind(&*self.client)
            .bind(self.slot)
            .bind(Stamp(self.taken_at));
        let Changed(_) = self.core.db().write(end).await?;
        Ok(())
    }
}

impl Gates {
    async fn enter(self: &Arc<Self>, action: Action, client: &str, permits: u32) -> Result<Pass> {
        let key = (action, client.to_owned());
        let gate = {
            let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let permits = usize::try_from(permits).unwrap_or(usize::MAX);
            Arc::clone(
                gates.entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(permits))),
            )
        };
        // Each attempt holds the gate once before it and once more inside.
        if Arc::strong_count(&gate) > MAX_WAITING {
            return Err(Error::RateLimited { retry_after: PATIENCE });
        }
        let mut pass =
            Pass { gates: Arc::clone(self), key, gate: Some(Arc::clone(&gate)), permit: None };
        pass.permit = Some(gate.acquire_owned().await.map_err(|_| Error::Busy)?);
        Ok(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut gates = self.gates.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Let go under the lock, so that whoever is last sees that only the map is left.
        drop((self.permit.take(), self.gate.take()));
        if gates.get(&self.key).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&self.key);
        }
    }
}

/// Who an address stands for.
struct Client {
    /// An IPv4 host, or an IPv6 network of /64, which is what one subscriber gets at least (RFC 6177).
    key: String,
    /// The /56 and the /48 around it, which are what a household and a site get; none for IPv4.
    prefixes: Option<[String; 2]>,
}

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self { key: address.to_string(), prefixes: None },
            IpAddr::V6(address) => {
                let prefix = |length: u8| {
                    let network = u128::from(address) >> (128 - length) << (128 - length);
                    format!("{}/{length}", Ipv6Addr::from(network))
                };
                Self { key: prefix(64), prefixes: Some([prefix(56), prefix(48)]) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_clients_are_networks_and_mapped_ones_are_ipv4() {
        let key = |text: &str| Client::of(text.parse().unwrap()).key;
        assert_eq!(key("192.0.2.7"), "192.0.2.7");
        assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::"));
        assert_ne!(key("2001:db8:1:3::1"), key("2001:db8:1:2::1"));
        let prefixes = |text: &str| Client::of(text.parse().unwrap()).prefixes;
        let wider = ["2001:db8:1:ab00::/56", "2001:db8:1::/48"].map(str::to_owned);
        assert_eq!(prefixes("2001:db8:1:abcd:3:4:5:6"), Some(wider));
        assert_eq!(prefixes("192.0.2.7"), None);
        assert_eq!(prefixes("::ffff:192.0.2.7"), None);
    }

    #[tokio::test]
    async fn gates_hold_only_clients_under_way() {
        let gates = Arc::new(Gates::default());
        let one = gates.enter(Action::Login, "a", 2).await.unwrap();
        let two = gates.enter(Action::Login, "a", 2).await.unwrap();
        let waiting = tokio::spawn({
            let gates = Arc::clone(&gates);
            async move { gates.enter(Action::Login, "a", 2).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "the third waits");
        let gone = tokio::spawn({
            let gates = Arc::clone(&gates);
            async move { gates.enter(Action::Login, "a", 2).await.map(drop) }
        });
        tokio::task::yield_now().await;
        gone.abort();
        assert!(gone.await.unwrap_err().is_cancelled());
        drop(one);
        waiting.await.unwrap().unwrap();
        drop(two);
        assert!(gates.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_client_cannot_fill_the_house() {
        let gates = Arc::new(Gates::default());
        let enter = |gates: Arc<Gates>| async move { gates.enter(Action::Login, "a", 1).await };
        let inside = enter(Arc::clone(&gates)).await.unwrap();
        let waiting: Vec<_> =
            (0..2 * MAX_WAITING).map(|_| tokio::spawn(enter(Arc::clone(&gates)))).collect();
        let mut refused = 0;
        drop(inside);
        for attempt in waiting {
            refused += usize::from(attempt.await.unwrap().is_err());
        }
        assert!(refused >= MAX_WAITING, "{refused}");
        assert!(gates.0.lock().unwrap().is_empty());
    }
}
