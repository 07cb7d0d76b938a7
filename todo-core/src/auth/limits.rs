//! Rate limits, kept in the database: exact under concurrency, shared by all replicas, there after a
//! restart. A limit of N a minute is N slots a client; an attempt takes a slot that nobody took in
//! the last minute. No slot is taken twice within any minute, so no minute, wherever it begins, has
//! more than N attempts.
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
/// How often it looks, when those others run on another replica.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

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

/// Lets N attempts of a client run at once in this process; the rest queue here instead of asking
/// the database over and over. Holds only clients with an attempt under way.
#[derive(Default)]
struct Gates(Mutex<HashMap<(Action, String), Arc<Semaphore>>>);

/// An attempt that was let in.
pub(crate) struct Attempt {
    core: Core,
    action: Action,
    client: String,
    slot: i64,
    taken_at: DateTime<Utc>,
    _pass: Pass,
}

/// A place before a gate, or, with its permit, inside.
struct Pass {
    gates: Arc<Gates>,
    key: (Action, String),
    gate: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Limits {
    /// Allows `per_minute` attempts; 0 allows any number.
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute, gates: Arc::default() }
    }

    /// Lets an attempt of `client` in, or fails with [`Error::RateLimited`]. `None` if there is no
    /// limit, or nobody to hold to it.
    pub(crate) async fn attempt(
        &self,
        core: &Core,
        action: Action,
        client: Option<IpAddr>,
    ) -> Result<Option<Attempt>> {
        let (Some(client), 1..) = (client, self.per_minute) else { return Ok(None) };
        let client = client_key(client);
        let admitted = async {
            let pass = self.gates.enter(action, &client, self.per_minute).await?;
            let (slot, taken_at) = self.take_slot(core, action, &client).await?;
            Ok(Some(Attempt { core: core.clone(), action, client, slot, taken_at, _pass: pass }))
        };
        tokio::time::timeout(PATIENCE, admitted).await.unwrap_or(Err(Error::Busy))
    }

    async fn take_slot(
        &self,
        core: &Core,
        action: Action,
        client: &str,
    ) -> Result<(i64, DateTime<Utc>)> {
        // Two replicas may pick the same slot; the index lets one have it, the other looks again.
        const TAKE: &str = "INSERT INTO rate_limits (action, client, slot, taken_at, settled) \
             SELECT $1, $2, free.slot, $3, $4 FROM ( \
             WITH RECURSIVE slots (slot) AS \
             (SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot + 1 < $5) \
             SELECT slot FROM slots WHERE NOT EXISTS (SELECT 1 FROM rate_limits AS taken \
             WHERE taken.action = $1 AND taken.client = $2 AND taken.slot = slots.slot \
             AND taken.taken_at > $6) ORDER BY slot LIMIT 1) AS free WHERE TRUE \
             ON CONFLICT (action, client, slot) DO UPDATE \
             SET taken_at = excluded.taken_at, settled = excluded.settled \
             WHERE rate_limits.taken_at <= $6 RETURNING slot";
        const HELD: &str = "SELECT count(*), \
             coalesce(sum(CASE WHEN settled OR taken_at <= $5 THEN 0 ELSE 1 END), 0), \
             min(taken_at) FROM rate_limits \
             WHERE action = $1 AND client = $2 AND slot < $3 AND taken_at > $4";
        let slots = i64::from(self.per_minute);
        // A signup counts whatever becomes of it; a login is settled when it has failed.
        let settled = action == Action::Signup;
        loop {
            let now = core.now();
            let (db, since) = (core.db(), now - WINDOW);
            let take = Statement::new(TAKE)
                .bind(action.as_str())
                .bind(client)
                .bind(Stamp(now))
                .bind(settled)
                .bind(slots)
                .bind(Stamp(since));
            if let Some((slot,)) = db.write::<Option<(i64,)>>(take).await? {
                return Ok((slot, now));
            }
            let held = Statement::new(HELD)
                .bind(action.as_str())
                .bind(client)
                .bind(slots)
                .bind(Stamp(since))
                .bind(Stamp(now - ATTEMPT));
            let (held, running, oldest): (i64, i64, Option<Stamp>) = db.one(held).await?;
            if held < slots {
                continue;
            }
            if running == 0 {
                let free_at = oldest.map_or(now, |oldest| oldest.0) + WINDOW;
                // An attempt that began a moment later may have been faster: its time is ahead.
                let retry_after = (free_at - now).min(WINDOW).to_std().unwrap_or_default();
                return Err(Error::RateLimited { retry_after });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
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

/// Who an address stands for: an IPv4 host, or an IPv6 network of /64, which is what one subscriber
/// gets (RFC 6177).
fn client_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            format!("{}/64", Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_clients_are_networks_and_mapped_ones_are_ipv4() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("192.0.2.7"), "192.0.2.7");
        assert_eq!(key("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::"));
        assert_ne!(key("2001:db8:1:3::1"), key("2001:db8:1:2::1"));
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
