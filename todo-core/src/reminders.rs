//! Reminders of todos: when each fires, and what happens then.
//!
//! A reminder is a row with its time, which triggers keep true to its todo. When it is due, one
//! statement marks it as fired, and adds its entry to the log of changes, its delivery to the
//! user's webhook and its mail to their queues: all or nothing, so that it fires once, under one
//! id, whatever ends or repeats the attempt. Only the mark decides, and not the time since the last
//! attempt: a clock that is set forward or back neither loses nor repeats a reminder.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    core::Core,
    db::{Dialect, FromRow, Row, RowsAffected, Statement, value::Timestamp},
    error::{ErrorChain, Result},
    ids::UserId,
    time_zone::{self, TimeZone},
};

/// Maximum number of reminders of a statement.
const CHUNK: i64 = 50;
/// Maximum number of statements of one [`fire_due`] for each of its two steps.
const MAX_CHUNKS: usize = 40;
/// Users whose reminders fire at the same time.
const CONCURRENT_USERS: usize = 4;
/// The minute at which a day without a time begins: 09:00.
const MORNING: u16 = 9 * 60;
/// A reminder that fires later than this is late.
const LATE: TimeDelta = TimeDelta::seconds(60);
/// How long a reminder that has fired is kept.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Maximum number of rows that one statement deletes.
const MAX_DELETED: u64 = 500;
/// Maximum number of queued deliveries of all users together: beyond it, reminders are not queued
/// for webhooks.
const MAX_DELIVERIES: i64 = 100_000;

/// The result of [`fire_due`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FiringReport {
    /// Number of reminders that fired.
    pub fired: u64,
    /// Number of users whose reminders were due and could not fire. They are due again at once.
    pub failed: usize,
}

/// Fires the reminders that are due: each has its entry in the log of changes, is queued for the
/// webhook of its user, and by mail for a user that wants mails and has a confirmed address.
/// Servers call it every 5 seconds; several processes may. It first computes the times of the
/// reminders of todos that are due on a day, which begins at 09:00 in the time zone of the user,
/// or in UTC.
///
/// At most 2,000 reminders fire in one call. A user gets at most 20 mails about reminders in an
/// hour; a webhook has at most 500 queued reminders.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal) if the due reminders cannot be read. A failure of
/// one user's is logged and counted.
pub async fn fire_due(core: &Core) -> Result<FiringReport> {
    compute_times(core).await?;
    let mut report = FiringReport::default();
    let mut delivers = None;
    for _ in 0..MAX_CHUNKS {
        let (users, is_last) = due_users(core).await?;
        if users.is_empty() {
            break;
        }
        let delivers = match delivers {
            Some(delivers) => delivers,
            None => *delivers.insert(has_room_for_deliveries(core).await?),
        };
        let firing = users.into_iter().map(|user| async move {
            let fired = fire_those_of(core, user, delivers).await;
            if let Err(error) = &fired {
                core.reminders().count_failed();
                tracing::warn!(user_id = %user, error = %ErrorChain(error),
                    "the reminders of a user did not fire");
            }
            fired.ok()
        });
        let results: Vec<_> =
            stream::iter(firing).buffer_unordered(CONCURRENT_USERS).collect().await;
        let failed = results.iter().filter(|fired| fired.is_none()).count();
        report.failed += failed;
        report.fired += results.into_iter().flatten().sum::<u64>();
        // Those that failed are due still: another round would find them first.
        if is_last || failed > 0 {
            break;
        }
    }
    Ok(report)
}

/// Deletes the reminders that fired 30 days ago.
///
/// # Errors
/// As [`fire_due`].
pub(crate) async fn delete_fired(core: &Core) -> Result<()> {
    const SQL: &str = "DELETE FROM reminders WHERE id IN \
         (SELECT id FROM reminders WHERE fired_at <= $1 ORDER BY fired_at LIMIT 500)";
    loop {
        let delete = Statement::new(SQL).bind(Timestamp(core.now() - KEPT));
        if execute(core, delete).await? < MAX_DELETED {
            return Ok(());
        }
    }
}

/// The users of the next due reminders, and whether no others are due.
async fn due_users(core: &Core) -> Result<(Vec<UserId>, bool)> {
    const SQL: &str = "SELECT user_id FROM reminders WHERE fired_at IS NULL AND fire_at <= $1 \
         AND EXISTS (SELECT 1 FROM users WHERE users.id = user_id AND deleted_at IS NULL) \
         ORDER BY fire_at LIMIT $2";
    let select = Statement::new(SQL).bind(Timestamp(core.now())).bind(CHUNK);
    let db = core.db();
    let rows: Vec<(Uuid,)> = core.anonymous(async move { Ok(db.fetch(select).await?) }).await?;
    let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < CHUNK);
    let mut users: Vec<UserId> = Vec::new();
    for (user,) in rows {
        let user = user.into();
        if !users.contains(&user) {
            users.push(user);
        }
    }
    Ok((users, is_last))
}

/// Fires the next due reminders of a user, in the order of their times. Returns their number.
async fn fire_those_of(core: &Core, user: UserId, delivers: bool) -> Result<u64> {
    // A view, whose trigger does the rest. It checks again on PostgreSQL, where another process may
    // fire the same ones.
    const SQL: &str = "INSERT INTO reminder_firings (id, user_id, fired_at, is_late, is_delivered, \
         is_mailed) SELECT id, user_id, $2, fire_at < $3, $4, $5 FROM reminders \
         WHERE user_id = $1 AND fired_at IS NULL AND fire_at <= $2 \
         ORDER BY fire_at, todo_id, minutes_before LIMIT $6 RETURNING id";
    let mail = core.mail();
    let now = core.now();
    let insert = Statement::new(SQL)
        .of(user)
        .bind(user)
        .bind(Timestamp(now))
        .bind(Timestamp(now - LATE))
        .bind(delivers)
        .bind(mail.is_some())
        .bind(CHUNK);
    let db = core.db();
    let fired: Vec<(Uuid,)> =
        core.write(user, async move { Ok(db.execute(insert).await?) }).await?;
    let fired = u64::try_from(fired.len()).unwrap_or_default();
    core.reminders().count_fired(fired);
    if let Some(mail) = mail.filter(|_| fired > 0) {
        mail.wake();
    }
    Ok(fired)
}

/// Whether further deliveries may be queued.
async fn has_room_for_deliveries(core: &Core) -> Result<bool> {
    const SQL: &str = "SELECT count(*), CAST(0 AS bigint) FROM (SELECT 1 FROM webhook_deliveries LIMIT $1) AS queued";
    if !cfg!(feature = "webhook") {
        return Ok(false);
    }
    let count = Statement::new(SQL).bind(MAX_DELIVERIES);
    let db = core.db();
    let (queued, _): (i64, i64) =
        core.anonymous(async move { Ok(db.fetch_one(count).await?) }).await?;
    let has_room = queued < MAX_DELIVERIES;
    if !has_room {
        tracing::error!("reminders are not sent to webhooks: too many are queued");
    }
    Ok(has_room)
}

/// A reminder without a time.
struct Timeless {
    id: Uuid,
    minutes_before: i64,
    /// Days since 1970-01-01.
    day: i64,
    written_at: Option<DateTime<Utc>>,
    zone: Option<String>,
}

impl FromRow for Timeless {
    fn from_row(row: &Row<'_>) -> Result<Self, crate::db::DbError> {
        Ok(Self {
            id: row.get(0)?,
            minutes_before: row.get(1)?,
            day: row.get(2)?,
            written_at: row.get::<Option<Timestamp>>(3)?.map(|time| time.0),
            zone: row.get(4)?,
        })
    }
}

impl Timeless {
    /// The time at which it fires; `None` if that was past when its todo was written.
    fn time(&self) -> Option<DateTime<Utc>> {
        let date = NaiveDate::default() + TimeDelta::try_days(self.day)?;
        let morning = self
            .zone
            .clone()
            .and_then(|zone| time_zone::instant(&TimeZone::from_stored(zone), date, MORNING))
            // Also for a zone that this version does not know.
            .unwrap_or_else(|| {
                date.and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::hours(9)
            });
        let time = morning - TimeDelta::minutes(self.minutes_before);
        self.written_at.is_none_or(|written_at| time > written_at).then_some(time)
    }
}

/// Computes the times of the reminders of todos that are due on a day.
async fn compute_times(core: &Core) -> Result<()> {
    const SQL: &str = "SELECT reminders.id, minutes_before, due_date, written_at, time_zone \
         FROM reminders JOIN users ON users.id = user_id WHERE fire_at IS NULL \
         ORDER BY reminders.id LIMIT $1";
    for _ in 0..MAX_CHUNKS {
        let db = core.db();
        let select = Statement::new(SQL).bind(CHUNK);
        let rows: Vec<Timeless> =
            core.anonymous(async move { Ok(db.fetch(select).await?) }).await?;
        if rows.is_empty() {
            break;
        }
        let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < CHUNK);
        let mut done = 0;
        let mut by_zone: HashMap<Option<String>, Map<String, Value>> = HashMap::new();
        let mut past = Map::new();
        for row in rows {
            let key = row.id.simple().to_string();
            match row.time() {
                Some(time) => {
                    let micros = time.timestamp_micros().into();
                    by_zone.entry(row.zone).or_default().insert(key, micros);
                }
                None => {
                    past.insert(key, Value::Null);
                }
            }
        }
        for (zone, times) in by_zone {
            done += execute(core, set_times(core.db().dialect(), zone, times)).await?;
        }
        if !past.is_empty() {
            done += execute(core, drop_past(core.db().dialect(), past)).await?;
        }
        if is_last || done == 0 {
            break;
        }
        // The zones of a chunk are some milliseconds of work.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Sets the times of reminders, as far as their users have this time zone still. On PostgreSQL it
/// locks the users, so that a change of a zone comes before or after it, and waits for nobody.
fn set_times(dialect: Dialect, zone: Option<String>, times: Map<String, Value>) -> Statement {
    const SQLITE: &str = "UPDATE reminders SET fire_at = \
         (SELECT value FROM json_each($1) WHERE unhex(key) = reminders.id) \
         WHERE fire_at IS NULL AND id IN (SELECT unhex(key) FROM json_each($1)) \
         AND EXISTS (SELECT 1 FROM users WHERE users.id = user_id AND time_zone IS $2)";
    const POSTGRES: &str = "WITH times AS MATERIALIZED (\
         SELECT CAST(key AS uuid) AS id, CAST('epoch' AS timestamptz) \
         + CAST(CAST(value AS text) AS bigint) * interval '1 microsecond' AS fire_at \
         FROM json_each(CAST($1 AS json))), \
         owners AS MATERIALIZED (SELECT id FROM users WHERE id IN (SELECT user_id FROM reminders \
         WHERE id IN (SELECT id FROM times)) AND time_zone IS NOT DISTINCT FROM $2 \
         FOR SHARE SKIP LOCKED), \
         free AS MATERIALIZED (SELECT reminders.id, times.fire_at AS at FROM reminders \
         JOIN times ON times.id = reminders.id \
         WHERE reminders.fire_at IS NULL AND user_id IN (SELECT id FROM owners) \
         FOR UPDATE OF reminders SKIP LOCKED) \
         UPDATE reminders SET fire_at = free.at FROM free \
         WHERE reminders.id = free.id AND reminders.fire_at IS NULL";
    let sql = match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    Statement::new(sql).bind(Value::Object(times).to_string()).bind(zone)
}

/// Deletes reminders whose time was past when their todos were written, unless a time zone has
/// changed since.
fn drop_past(dialect: Dialect, ids: Map<String, Value>) -> Statement {
    const SQLITE: &str = "DELETE FROM reminders WHERE fire_at IS NULL AND written_at IS NOT NULL \
         AND id IN (SELECT unhex(key) FROM json_each($1))";
    const POSTGRES: &str = "DELETE FROM reminders WHERE id IN (SELECT id FROM reminders \
         WHERE fire_at IS NULL AND written_at IS NOT NULL \
         AND id IN (SELECT CAST(key AS uuid) FROM json_each(CAST($1 AS json))) \
         FOR UPDATE SKIP LOCKED) AND fire_at IS NULL AND written_at IS NOT NULL";
    let sql = match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    Statement::new(sql).bind(Value::Object(ids).to_string())
}

async fn execute(core: &Core, statement: Statement) -> Result<u64> {
    let db = core.db();
    core.anonymous(async move {
        let RowsAffected(rows) = db.execute(statement).await?;
        Ok(rows)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_nine_in_a_known_zone() {
        let time = |zone: Option<&str>, written_at: Option<&str>| {
            let timeless = Timeless {
                id: Uuid::nil(),
                minutes_before: 30,
                // 2026-12-01
                day: 20_788,
                written_at: written_at.map(|time| time.parse().unwrap()),
                zone: zone.map(str::to_owned),
            };
            timeless.time().map(|time| time.to_rfc3339())
        };
        let at = |text: &str| Some(text.to_owned());
        assert_eq!(time(None, None), at("2026-12-01T08:30:00+00:00"));
        assert_eq!(time(Some("Europe/Berlin"), None), at("2026-12-01T07:30:00+00:00"));
        assert_eq!(time(Some("Mars/Olympus"), None), at("2026-12-01T08:30:00+00:00"));
        let before = "2026-12-01T08:29:59Z";
        assert_eq!(time(None, Some(before)), at("2026-12-01T08:30:00+00:00"));
        assert_eq!(time(None, Some("2026-12-01T08:30:00Z")), None);
    }
}
