//! The delivery of reminders to webhooks, from their queue in the database, which all processes
//! share.
//!
//! A process takes a webhook with a lease, in one statement, so that no other process sends to it
//! meanwhile, and then sends its due reminders one after the other. If it ends before it has
//! stored a result, the reminder is sent again when the lease ends, under the same id.
//!
//! A failure ends the turn and pauses the webhook, all of whose reminders wait: one that does not
//! answer costs one attempt each time, however many are queued.

use std::{panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::{WebhookSecret, payload};
use crate::{
    clock::new_id,
    core::Core,
    db::{DbError, FromRow, Row, RowsAffected, Statement, value::Timestamp},
    error::Result,
    ids::ReminderId,
    reminder_counters::DeliveryResult,
    todos::{FiredReminder, TODO_COLUMNS, Todo, fired_columns, todo_columns},
};

/// Duration of a lease.
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// Maximum time of an attempt.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which a turn ends: with its last attempt and its statements it is shorter than the
/// lease, also if the clocks of two machines differ by some seconds.
const MAX_TURN: Duration = Duration::from_secs(10);
/// Maximum number of reminders of a turn.
const TURN: i64 = 8;
/// Webhooks that a process sends to at the same time.
const CONCURRENT: usize = 16;
/// Maximum number of turns of one [`deliver_due`].
const MAX_TURNS: usize = 500;
/// Time after which a failing webhook is off, and a reminder that was not received is dropped.
const PATIENCE: TimeDelta = TimeDelta::hours(24);
/// Maximum number of characters of a stored reason.
const MAX_REASON: usize = 200;

/// The time until the next attempt, after this number of failures.
fn pause(failures: i64) -> TimeDelta {
    match failures {
        ..=1 => TimeDelta::seconds(5),
        2 => TimeDelta::minutes(5),
        3 => TimeDelta::minutes(30),
        4 => TimeDelta::hours(2),
        _ => TimeDelta::hours(5),
    }
}

/// The result of [`deliver_due`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// Number of reminders that were received.
    pub delivered: usize,
    /// Number of attempts that failed.
    pub failed: usize,
}

/// Sends the reminders that are due to the webhooks of their users: to 16 at the same time, and to
/// each one after the other. Servers call it every 5 seconds; several processes may.
///
/// An attempt takes at most 5 seconds. After a failure the webhook's reminders are due again after
/// 5 seconds, 5 minutes, 30 minutes, 2 hours, and then every 5 hours. A day after the first failure
/// without a success, the webhook is off and its queue is deleted. Each failure is logged, without
/// the address.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal) if the queue cannot be read or written. A reminder
/// that was just sent may then be sent again.
pub async fn deliver_due(core: &Core) -> Result<DeliveryReport> {
    let mut report = DeliveryReport::default();
    let mut turns = FuturesUnordered::new();
    let mut left = MAX_TURNS;
    let mut outcome = Ok(());
    loop {
        while left > 0 && outcome.is_ok() && turns.len() < CONCURRENT {
            match lease_next(core).await {
                Ok(Some(leased)) => {
                    left -= 1;
                    turns.push(Box::pin(async move { take_turn(core, leased).await }));
                }
                Ok(None) => left = 0,
                Err(error) => outcome = Err(error),
            }
        }
        match turns.next().await {
            Some(Ok(DeliveryReport { delivered, failed })) => {
                report.delivered += delivered;
                report.failed += failed;
            }
            Some(Err(error)) => outcome = Err(error),
            None => return outcome.map(|()| report),
        }
    }
}

/// A webhook that this process has leased.
struct Leased {
    user: Uuid,
    url: String,
    secret: WebhookSecret,
    failures: i64,
    failing_since: Option<DateTime<Utc>>,
    lease: Uuid,
}

impl FromRow for Leased {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            user: row.get(0)?,
            url: row.get(1)?,
            secret: WebhookSecret::from_stored(row.get(2)?),
            failures: row.get(3)?,
            failing_since: row.get::<Option<Timestamp>>(4)?.map(|time| time.0),
            lease: row.get(5)?,
        })
    }
}

/// A reminder to send.
struct Queued {
    reminder: FiredReminder,
    /// As it is now; `None` if it is deleted.
    todo: Option<Todo>,
    created_at: DateTime<Utc>,
    attempts: i64,
}

impl FromRow for Queued {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let reminder = FiredReminder::read(row, TODO_COLUMNS)?;
        Ok(Self {
            reminder: reminder.ok_or(DbError::Value("fired_at"))?,
            todo: match row.get::<Option<Uuid>>(0)? {
                None => None,
                Some(_) => Some(Todo::from_row(row)?),
            },
            created_at: row.get::<Timestamp>(TODO_COLUMNS + 6)?.0,
            attempts: row.get(TODO_COLUMNS + 7)?,
        })
    }
}

/// Leases the next webhook with a due reminder.
async fn lease_next(core: &Core) -> Result<Option<Leased>> {
    // The condition is repeated: on PostgreSQL another process may take the row while this
    // statement waits for it, and only the outer condition is checked again after the wait.
    const SQL: &str = "UPDATE webhooks SET lease = $1, leased_until = $2 WHERE user_id IN \
         (SELECT queued.user_id FROM webhook_deliveries AS queued \
         JOIN webhooks AS free ON free.user_id = queued.user_id \
         JOIN users ON users.id = queued.user_id \
         WHERE queued.next_attempt_at <= $3 AND free.off_at IS NULL AND users.deleted_at IS NULL \
         AND (free.leased_until IS NULL OR free.leased_until <= $3) \
         ORDER BY queued.next_attempt_at LIMIT 1) \
         AND off_at IS NULL AND (leased_until IS NULL OR leased_until <= $3) \
         RETURNING user_id, url, secret, failures, failing_since, lease";
    let now = core.now();
    let update =
        Statement::new(SQL).bind(new_id(now)).bind(Timestamp(now + LEASE)).bind(Timestamp(now));
    let db = core.db();
    core.anonymous(async move { Ok(db.execute(update).await?) }).await
}

/// Sends the due reminders of a webhook, as far as they fit into a turn.
async fn take_turn(core: &Core, leased: Leased) -> Result<DeliveryReport> {
    let began = Instant::now();
    let mut report = DeliveryReport::default();
    for queued in due(core, leased.user).await? {
        if began.elapsed() >= MAX_TURN {
            break;
        }
        let Err(reason) = attempt(core, &leased, &queued).await? else {
            delete(core, queued.reminder.id).await?;
            core.reminders().count_delivery(DeliveryResult::Delivered);
            tracing::debug!(reminder = %queued.reminder.id, "a webhook received a reminder");
            report.delivered += 1;
            continue;
        };
        report.failed += 1;
        fail(core, &leased, &queued, &reason, report.delivered > 0).await?;
        return Ok(report);
    }
    succeed(core, &leased, report.delivered > 0).await?;
    Ok(report)
}

/// The next due reminders of a user, in the order in which they fired.
async fn due(core: &Core, user: Uuid) -> Result<Vec<Queued>> {
    const SQL: &str = concat!(
        "SELECT ",
        todo_columns!(),
        ", ",
        fired_columns!(),
        ", queued_at, queued_attempts FROM (SELECT queued.created_at AS queued_at, \
         attempts AS queued_attempts, reminders.id AS fired_id, todo_id AS fired_todo_id, \
         minutes_before, fire_at, fired_at, is_late FROM webhook_deliveries AS queued \
         JOIN reminders ON reminders.id = reminder_id \
         WHERE queued.user_id = $1 AND next_attempt_at <= $2 \
         ORDER BY fire_at, todo_id, minutes_before LIMIT $3) AS fired \
         LEFT JOIN todos ON todos.id = fired_todo_id AND todos.user_id = $1 \
         ORDER BY fire_at, fired_todo_id, minutes_before"
    );
    let select = Statement::new(SQL).bind(user).bind(Timestamp(core.now())).bind(TURN);
    let db = core.db();
    core.anonymous(async move { Ok(db.fetch(select).await?) }).await
}

/// Sends a reminder.
///
/// # Errors
/// The outer one ends the turn; the inner one is why the webhook did not receive it.
async fn attempt(core: &Core, leased: &Leased, queued: &Queued) -> Result<Result<(), String>> {
    let Leased { url, secret, .. } = leased;
    let todo = queued.todo.as_ref();
    let request = payload::request(url, secret, &queued.reminder, todo, core.now())?;
    let client = core.webhook_client();
    let sending = AssertUnwindSafe(client.post(request)).catch_unwind();
    Ok(match timeout(SEND_TIMEOUT, sending).await {
        Ok(Ok(Ok(200..=299))) => Ok(()),
        Ok(Ok(Ok(status))) => Err(format!("status {status}")),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_panic)) => Err("the client panicked".to_owned()),
        Err(_elapsed) => Err(format!("no response within {} s", SEND_TIMEOUT.as_secs())),
    })
}

async fn delete(core: &Core, reminder: ReminderId) -> Result<()> {
    const SQL: &str = "DELETE FROM webhook_deliveries WHERE reminder_id = $1";
    execute(core, Statement::new(SQL).bind(reminder)).await
}

/// Ends a turn without a failure, unless another process has taken the webhook meanwhile.
async fn succeed(core: &Core, leased: &Leased, has_delivered: bool) -> Result<()> {
    const SQL: &str = "UPDATE webhooks SET lease = NULL, leased_until = NULL, \
         last_success_at = CASE WHEN $4 THEN $3 ELSE last_success_at END, \
         failing_since = CASE WHEN $4 THEN NULL ELSE failing_since END, \
         failures = CASE WHEN $4 THEN 0 ELSE failures END, \
         paused_until = CASE WHEN $4 THEN NULL ELSE paused_until END \
         WHERE user_id = $1 AND lease = $2";
    let update = Statement::new(SQL)
        .bind(leased.user)
        .bind(leased.lease)
        .bind(Timestamp(core.now()))
        .bind(has_delivered);
    execute(core, update).await
}

/// Ends a turn after a failure: the webhook is paused, or off after a day of failures.
async fn fail(
    core: &Core,
    leased: &Leased,
    queued: &Queued,
    reason: &str,
    has_delivered: bool,
) -> Result<()> {
    const WEBHOOK: &str = "UPDATE webhooks SET lease = NULL, leased_until = NULL, \
         last_success_at = CASE WHEN $4 THEN $3 ELSE last_success_at END, \
         last_failure_at = $3, last_failure = $5, failing_since = $6, failures = $7, off_at = $8, \
         paused_until = $9 WHERE user_id = $1 AND lease = $2 RETURNING user_id, failures";
    const PAUSE: &str = "UPDATE webhook_deliveries SET next_attempt_at = $2 \
         WHERE user_id = $1 AND next_attempt_at < $2";
    const RETRY: &str = "UPDATE webhook_deliveries SET next_attempt_at = $2, attempts = $3 \
         WHERE reminder_id = $1";
    const CLEAR: &str = "DELETE FROM webhook_deliveries WHERE user_id = $1";
    let Leased { user, lease, .. } = *leased;
    let now = core.now();
    let (failures, since) = match leased.failing_since {
        Some(since) if !has_delivered => (leased.failures + 1, since),
        _ => (1, now),
    };
    let end = since + PATIENCE;
    let is_off = now >= end;
    // The last attempt is at the end of the day.
    let paused_until = (now + pause(failures)).min(end);
    let update = Statement::new(WEBHOOK)
        .bind(user)
        .bind(lease)
        .bind(Timestamp(now))
        .bind(has_delivered)
        .bind(reason.chars().take(MAX_REASON).collect::<String>())
        .bind(Timestamp(since))
        .bind(failures)
        .bind(is_off.then_some(Timestamp(now)))
        .bind(Timestamp(paused_until));
    let db = core.db();
    let row: Option<(Uuid, i64)> =
        core.anonymous(async move { Ok(db.execute(update).await?) }).await?;
    let reminder = queued.reminder.id;
    let result = if is_off {
        DeliveryResult::Off
    } else if now >= queued.created_at + PATIENCE {
        DeliveryResult::Dropped
    } else {
        DeliveryResult::Failed
    };
    core.reminders().count_delivery(result);
    tracing::warn!(user_id = %user, %reminder, failures, reason, ?result,
        "a webhook did not receive a reminder");
    if row.is_none() {
        // The webhook was set anew or deleted, or another process has it.
        return Ok(());
    }
    match result {
        DeliveryResult::Off => execute(core, Statement::new(CLEAR).bind(user)).await,
        DeliveryResult::Dropped => delete(core, reminder).await,
        _ => {
            let pausing = Statement::new(PAUSE).bind(user).bind(Timestamp(paused_until));
            execute(core, pausing).await?;
            // One that fails while others are received waits for longer than those.
            let attempts = queued.attempts + 1;
            let next = paused_until.max((now + pause(attempts)).min(queued.created_at + PATIENCE));
            let retry = Statement::new(RETRY).bind(reminder).bind(Timestamp(next)).bind(attempts);
            execute(core, retry).await
        }
    }
}

async fn execute(core: &Core, statement: Statement) -> Result<()> {
    let db = core.db();
    core.anonymous(async move {
        let RowsAffected(_) = db.execute(statement).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_reach_over_a_day() {
        let pauses: Vec<i64> = (0..8).map(|failures| pause(failures).num_seconds()).collect();
        assert_eq!(pauses, [5, 5, 300, 1800, 7200, 18_000, 18_000, 18_000]);
    }
}
