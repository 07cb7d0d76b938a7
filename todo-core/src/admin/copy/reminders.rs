//! The rows of reminders, webhooks and their deliveries.

use chrono::{DateTime, Utc};
use sha2::Sha256;
use sqlx::{ColumnIndex, Decode, FromRow, QueryBuilder, Row, Type};
use uuid::Uuid;

use super::rows::{
    Canonical, feed_bytes, feed_id, feed_number, feed_option, feed_text, feed_time, insert, time,
};
use crate::{
    admin::{AdminError, Conn, on},
    db::value::Timestamp,
};

macro_rules! reminder_columns {
    () => {
        "id, user_id, todo_id, minutes_before, due_date, due_at, fire_at, written_at, fired_at, \
         is_late"
    };
}
pub(super) use reminder_columns;

macro_rules! webhook_columns {
    () => {
        "user_id, url, secret, created_at, last_success_at, last_failure_at, last_failure, \
         failing_since, failures, off_at, paused_until"
    };
}
pub(super) use webhook_columns;

macro_rules! delivery_columns {
    () => {
        "reminder_id, user_id, created_at, attempts, next_attempt_at"
    };
}
pub(super) use delivery_columns;

pub(super) struct ReminderRow {
    pub(super) id: Uuid,
    user_id: Uuid,
    todo_id: Uuid,
    minutes_before: i64,
    due_date: Option<i64>,
    due_at: Option<DateTime<Utc>>,
    fire_at: Option<DateTime<Utc>>,
    written_at: Option<DateTime<Utc>>,
    fired_at: Option<DateTime<Utc>>,
    is_late: bool,
}

pub(super) struct WebhookRow {
    pub(super) user_id: Uuid,
    url: String,
    secret: Vec<u8>,
    created_at: DateTime<Utc>,
    last_success_at: Option<DateTime<Utc>>,
    last_failure_at: Option<DateTime<Utc>>,
    last_failure: Option<String>,
    failing_since: Option<DateTime<Utc>>,
    failures: i64,
    off_at: Option<DateTime<Utc>>,
    paused_until: Option<DateTime<Utc>>,
}

pub(super) struct DeliveryRow {
    pub(super) reminder_id: Uuid,
    user_id: Uuid,
    created_at: DateTime<Utc>,
    attempts: i64,
    next_attempt_at: DateTime<Utc>,
}

impl<'r, R> FromRow<'r, R> for ReminderRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            todo_id: row.try_get(2)?,
            minutes_before: row.try_get(3)?,
            due_date: row.try_get(4)?,
            due_at: time(row, 5)?,
            fire_at: time(row, 6)?,
            written_at: time(row, 7)?,
            fired_at: time(row, 8)?,
            is_late: row.try_get(9)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for WebhookRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            user_id: row.try_get(0)?,
            url: row.try_get(1)?,
            secret: row.try_get(2)?,
            created_at: row.try_get::<Timestamp, _>(3)?.0,
            last_success_at: time(row, 4)?,
            last_failure_at: time(row, 5)?,
            last_failure: row.try_get(6)?,
            failing_since: time(row, 7)?,
            failures: row.try_get(8)?,
            off_at: time(row, 9)?,
            paused_until: time(row, 10)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for DeliveryRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            reminder_id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            created_at: row.try_get::<Timestamp, _>(2)?.0,
            attempts: row.try_get(3)?,
            next_attempt_at: row.try_get::<Timestamp, _>(4)?.0,
        })
    }
}

impl Canonical for ReminderRow {
    fn feed(&self, sum: &mut Sha256) {
        for id in [self.id, self.user_id, self.todo_id] {
            feed_id(sum, id);
        }
        feed_number(sum, self.minutes_before);
        feed_option(sum, self.due_date, feed_number);
        for time in [self.due_at, self.fire_at, self.written_at, self.fired_at] {
            feed_option(sum, time, feed_time);
        }
        feed_number(sum, self.is_late.into());
    }
}

impl Canonical for WebhookRow {
    fn feed(&self, sum: &mut Sha256) {
        feed_id(sum, self.user_id);
        feed_text(sum, &self.url);
        feed_bytes(sum, &self.secret);
        feed_time(sum, self.created_at);
        feed_option(sum, self.last_failure.as_deref(), feed_text);
        feed_number(sum, self.failures);
        for time in [
            self.last_success_at,
            self.last_failure_at,
            self.failing_since,
            self.off_at,
            self.paused_until,
        ] {
            feed_option(sum, time, feed_time);
        }
    }
}

impl Canonical for DeliveryRow {
    fn feed(&self, sum: &mut Sha256) {
        feed_id(sum, self.reminder_id);
        feed_id(sum, self.user_id);
        feed_time(sum, self.created_at);
        feed_number(sum, self.attempts);
        feed_time(sum, self.next_attempt_at);
    }
}

pub(super) async fn insert_reminders(
    target: &mut Conn,
    rows: &[ReminderRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO reminders (", reminder_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.user_id)
        .push_bind(row.todo_id)
        .push_bind(row.minutes_before)
        .push_bind(row.due_date)
        .push_bind(row.due_at.map(Timestamp))
        .push_bind(row.fire_at.map(Timestamp))
        .push_bind(row.written_at.map(Timestamp))
        .push_bind(row.fired_at.map(Timestamp))
        .push_bind(row.is_late))
}

pub(super) async fn insert_webhooks(
    target: &mut Conn,
    rows: &[WebhookRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO webhooks (", webhook_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.user_id)
        .push_bind(row.url.clone())
        .push_bind(row.secret.clone())
        .push_bind(Timestamp(row.created_at))
        .push_bind(row.last_success_at.map(Timestamp))
        .push_bind(row.last_failure_at.map(Timestamp))
        .push_bind(row.last_failure.clone())
        .push_bind(row.failing_since.map(Timestamp))
        .push_bind(row.failures)
        .push_bind(row.off_at.map(Timestamp))
        .push_bind(row.paused_until.map(Timestamp)))
}

pub(super) async fn insert_deliveries(
    target: &mut Conn,
    rows: &[DeliveryRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO webhook_deliveries (", delivery_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.reminder_id)
        .push_bind(row.user_id)
        .push_bind(Timestamp(row.created_at))
        .push_bind(row.attempts)
        .push_bind(Timestamp(row.next_attempt_at)))
}
