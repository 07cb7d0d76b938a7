//! The rows that a copy moves: their columns, their decoding from either driver, their bytes in the
//! checksum, and their insertion. These are in one file, although it is long, because a new column
//! has a place in each.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{ColumnIndex, Decode, FromRow, QueryBuilder, Row, Type};
use uuid::Uuid;

use crate::{
    admin::{AdminError, Conn, on},
    db::value::Timestamp,
    validate,
};

macro_rules! user_columns {
    () => {
        "id, email, name, password_hash, created_at, email_verified_at, deleted_at, \
         time_zone, reminder_mail"
    };
}
macro_rules! session_columns {
    () => {
        "id, user_id, created_at, expires_at, kind, label, client, scopes, seen_at, \
         identity_id"
    };
}
/// The columns of a todo except `title_key`, which is derived from the title.
macro_rules! todo_columns {
    () => {
        "id, user_id, title, description, priority, completed, created_at, updated_at, \
         completed_at, search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, \
         due_at, undated, due_key, rule, rule_from, series_id, occurrence, reminders, ical"
    };
}
macro_rules! trash_columns {
    () => {
        concat!(todo_columns!(), ", deleted_at")
    };
}
macro_rules! idempotency_columns {
    () => {
        "user_id, key, fingerprint, status, answer, location, etag, made_at"
    };
}
macro_rules! identity_columns {
    () => {
        "id, issuer, subject, user_id, email, email_verified, name, created_at, not_before"
    };
}
macro_rules! revoked_token_columns {
    () => {
        "id, expires_at"
    };
}
macro_rules! list_columns {
    () => {
        "id, user_id, name, color, created_at, updated_at, deleted_at"
    };
}
macro_rules! mail_columns {
    () => {
        "id, kind, user_id, email, created_at, expires_at, used_at, sent_at, failed_at, attempts, \
         next_attempt_at, reply"
    };
}

pub(super) use {
    idempotency_columns, identity_columns, list_columns, mail_columns, revoked_token_columns,
    session_columns, todo_columns, trash_columns, user_columns,
};

pub(in crate::admin) struct UserRow {
    pub(in crate::admin) id: Uuid,
    pub(in crate::admin) email: String,
    pub(in crate::admin) name: String,
    pub(in crate::admin) password_hash: String,
    pub(in crate::admin) created_at: DateTime<Utc>,
    pub(in crate::admin) email_verified_at: Option<DateTime<Utc>>,
    pub(in crate::admin) deleted_at: Option<DateTime<Utc>>,
    pub(in crate::admin) time_zone: Option<String>,
    pub(in crate::admin) reminder_mail: bool,
}

pub(super) struct SessionRow {
    pub(super) id: Uuid,
    user_id: Uuid,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    kind: String,
    label: Option<String>,
    client: Option<String>,
    scopes: i64,
    seen_at: Option<DateTime<Utc>>,
    identity_id: Option<Uuid>,
}

/// A user of another issuer.
pub(super) struct IdentityRow {
    pub(super) id: Uuid,
    issuer: String,
    subject: String,
    user_id: Uuid,
    email: Option<String>,
    email_verified: bool,
    name: Option<String>,
    created_at: DateTime<Utc>,
    not_before: Option<DateTime<Utc>>,
}

/// A token of another issuer that is no longer accepted.
pub(super) struct RevokedTokenRow {
    pub(super) id: Uuid,
    expires_at: DateTime<Utc>,
}

pub(in crate::admin) struct TodoRow {
    pub(in crate::admin) id: Uuid,
    pub(in crate::admin) user_id: Uuid,
    pub(in crate::admin) title: String,
    pub(in crate::admin) description: Option<String>,
    pub(in crate::admin) priority: i16,
    pub(in crate::admin) completed: bool,
    pub(in crate::admin) created_at: DateTime<Utc>,
    pub(in crate::admin) updated_at: DateTime<Utc>,
    pub(in crate::admin) completed_at: Option<DateTime<Utc>>,
    pub(in crate::admin) more: MoreColumns,
}

/// The columns of a todo that have a default.
pub(in crate::admin) struct MoreColumns {
    search: Option<String>,
    tags: String,
    list_id: Option<Uuid>,
    parent_id: Option<Uuid>,
    position: Option<String>,
    due_date: Option<i64>,
    due_minute: Option<i64>,
    due_zone: Option<String>,
    due_at: Option<DateTime<Utc>>,
    undated: bool,
    due_key: i64,
    rule: Option<String>,
    rule_from: Option<i16>,
    series_id: Option<Uuid>,
    occurrence: Option<i64>,
    reminders: String,
    ical: Option<String>,
}

impl Default for MoreColumns {
    fn default() -> Self {
        Self {
            search: None,
            tags: "[]".to_owned(),
            list_id: None,
            parent_id: None,
            position: None,
            due_date: None,
            due_minute: None,
            due_zone: None,
            due_at: None,
            undated: true,
            due_key: 0,
            rule: None,
            rule_from: None,
            series_id: None,
            occurrence: None,
            reminders: "[]".to_owned(),
            ical: None,
        }
    }
}

/// A deleted todo.
pub(super) struct TrashRow {
    pub(super) todo: TodoRow,
    deleted_at: DateTime<Utc>,
}

/// A list of todos, which may be marked as deleted.
pub(super) struct ListRow {
    pub(super) id: Uuid,
    user_id: Uuid,
    name: String,
    color: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    deleted_at: Option<DateTime<Utc>>,
}

/// The stored answer to a request with a key.
pub(super) struct AnswerRow {
    pub(super) user_id: Uuid,
    pub(super) key: String,
    fingerprint: Vec<u8>,
    status: i16,
    answer: String,
    location: Option<String>,
    etag: Option<String>,
    made_at: DateTime<Utc>,
}

/// A mail, with the link in it. Its lease is not copied: the target's processes send it.
pub(super) struct MailRow {
    pub(super) id: Uuid,
    kind: String,
    user_id: Option<Uuid>,
    email: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    sent_at: Option<DateTime<Utc>>,
    failed_at: Option<DateTime<Utc>>,
    attempts: i64,
    next_attempt_at: Option<DateTime<Utc>>,
    reply: Option<String>,
}

/// The time in a column that may be NULL.
pub(super) fn time<'r, R>(row: &'r R, index: usize) -> sqlx::Result<Option<DateTime<Utc>>>
where
    R: Row,
    usize: ColumnIndex<R>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    let time = row.try_get::<Option<Timestamp>, _>(index);
    time.map(|time| time.map(|timestamp| timestamp.0))
}

impl<'r, R> FromRow<'r, R> for UserRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            email: row.try_get(1)?,
            name: row.try_get(2)?,
            password_hash: row.try_get(3)?,
            created_at: row.try_get::<Timestamp, _>(4)?.0,
            email_verified_at: time(row, 5)?,
            deleted_at: time(row, 6)?,
            time_zone: row.try_get(7)?,
            reminder_mail: row.try_get(8)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for SessionRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            created_at: row.try_get::<Timestamp, _>(2)?.0,
            expires_at: row.try_get::<Timestamp, _>(3)?.0,
            kind: row.try_get(4)?,
            label: row.try_get(5)?,
            client: row.try_get(6)?,
            scopes: row.try_get(7)?,
            seen_at: time(row, 8)?,
            identity_id: row.try_get(9)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for IdentityRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            issuer: row.try_get(1)?,
            subject: row.try_get(2)?,
            user_id: row.try_get(3)?,
            email: row.try_get(4)?,
            email_verified: row.try_get(5)?,
            name: row.try_get(6)?,
            created_at: row.try_get::<Timestamp, _>(7)?.0,
            not_before: time(row, 8)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for RevokedTokenRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self { id: row.try_get(0)?, expires_at: row.try_get::<Timestamp, _>(1)?.0 })
    }
}

impl<'r, R> FromRow<'r, R> for ListRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            name: row.try_get(2)?,
            color: row.try_get(3)?,
            created_at: row.try_get::<Timestamp, _>(4)?.0,
            updated_at: row.try_get::<Timestamp, _>(5)?.0,
            deleted_at: time(row, 6)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for MailRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            kind: row.try_get(1)?,
            user_id: row.try_get(2)?,
            email: row.try_get(3)?,
            created_at: row.try_get::<Timestamp, _>(4)?.0,
            expires_at: row.try_get::<Timestamp, _>(5)?.0,
            used_at: time(row, 6)?,
            sent_at: time(row, 7)?,
            failed_at: time(row, 8)?,
            attempts: row.try_get(9)?,
            next_attempt_at: time(row, 10)?,
            reply: row.try_get(11)?,
        })
    }
}

impl<'r, R> FromRow<'r, R> for TodoRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            title: row.try_get(2)?,
            description: row.try_get(3)?,
            priority: row.try_get(4)?,
            completed: row.try_get(5)?,
            created_at: row.try_get::<Timestamp, _>(6)?.0,
            updated_at: row.try_get::<Timestamp, _>(7)?.0,
            completed_at: time(row, 8)?,
            more: MoreColumns {
                search: row.try_get(9)?,
                tags: row.try_get(10)?,
                list_id: row.try_get(11)?,
                parent_id: row.try_get(12)?,
                position: row.try_get(13)?,
                due_date: row.try_get(14)?,
                due_minute: row.try_get(15)?,
                due_zone: row.try_get(16)?,
                due_at: time(row, 17)?,
                undated: row.try_get(18)?,
                due_key: row.try_get(19)?,
                rule: row.try_get(20)?,
                rule_from: row.try_get(21)?,
                series_id: row.try_get(22)?,
                occurrence: row.try_get(23)?,
                reminders: row.try_get(24)?,
                ical: row.try_get(25)?,
            },
        })
    }
}

impl<'r, R> FromRow<'r, R> for TrashRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        let todo = TodoRow::from_row(row)?;
        Ok(Self { todo, deleted_at: row.try_get::<Timestamp, _>(26)?.0 })
    }
}

impl<'r, R> FromRow<'r, R> for AnswerRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            user_id: row.try_get(0)?,
            key: row.try_get(1)?,
            fingerprint: row.try_get(2)?,
            status: row.try_get(3)?,
            answer: row.try_get(4)?,
            location: row.try_get(5)?,
            etag: row.try_get(6)?,
            made_at: row.try_get::<Timestamp, _>(7)?.0,
        })
    }
}

/// Canonical bytes of a row, distinct for distinct rows: each text prefixed with its length, each
/// time in microseconds.
pub(super) trait Canonical {
    fn feed(&self, sum: &mut Sha256);
}

pub(super) fn feed_bytes(sum: &mut Sha256, bytes: &[u8]) {
    sum.update((bytes.len() as u64).to_be_bytes());
    sum.update(bytes);
}

pub(super) fn feed_text(sum: &mut Sha256, text: &str) {
    feed_bytes(sum, text.as_bytes());
}

pub(super) fn feed_time(sum: &mut Sha256, time: DateTime<Utc>) {
    sum.update(time.timestamp_micros().to_be_bytes());
}

pub(super) fn feed_option<T>(
    sum: &mut Sha256,
    value: Option<T>,
    feed: impl FnOnce(&mut Sha256, T),
) {
    sum.update([u8::from(value.is_some())]);
    if let Some(value) = value {
        feed(sum, value);
    }
}

pub(super) fn feed_number(sum: &mut Sha256, number: i64) {
    sum.update(number.to_be_bytes());
}

pub(super) fn feed_id(sum: &mut Sha256, id: Uuid) {
    sum.update(id);
}

impl Canonical for UserRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        feed_text(sum, &self.email);
        feed_text(sum, &self.name);
        feed_text(sum, &self.password_hash);
        feed_time(sum, self.created_at);
        feed_option(sum, self.email_verified_at, feed_time);
        feed_option(sum, self.deleted_at, feed_time);
        feed_option(sum, self.time_zone.as_deref(), feed_text);
        sum.update([u8::from(self.reminder_mail)]);
    }
}

impl Canonical for SessionRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        sum.update(self.user_id);
        feed_time(sum, self.created_at);
        feed_time(sum, self.expires_at);
        feed_text(sum, &self.kind);
        feed_option(sum, self.label.as_deref(), feed_text);
        feed_option(sum, self.client.as_deref(), feed_text);
        feed_number(sum, self.scopes);
        feed_option(sum, self.seen_at, feed_time);
        feed_option(sum, self.identity_id, feed_id);
    }
}

impl Canonical for IdentityRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        feed_text(sum, &self.issuer);
        feed_text(sum, &self.subject);
        sum.update(self.user_id);
        feed_option(sum, self.email.as_deref(), feed_text);
        sum.update([u8::from(self.email_verified)]);
        feed_option(sum, self.name.as_deref(), feed_text);
        feed_time(sum, self.created_at);
        feed_option(sum, self.not_before, feed_time);
    }
}

impl Canonical for RevokedTokenRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        feed_time(sum, self.expires_at);
    }
}

impl Canonical for ListRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        sum.update(self.user_id);
        feed_text(sum, &self.name);
        feed_option(sum, self.color.as_deref(), feed_text);
        feed_time(sum, self.created_at);
        feed_time(sum, self.updated_at);
        feed_option(sum, self.deleted_at, feed_time);
    }
}

impl Canonical for MailRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        feed_text(sum, &self.kind);
        feed_option(sum, self.user_id, feed_id);
        feed_text(sum, &self.email);
        feed_time(sum, self.created_at);
        feed_time(sum, self.expires_at);
        for time in [self.used_at, self.sent_at, self.failed_at, self.next_attempt_at] {
            feed_option(sum, time, feed_time);
        }
        feed_number(sum, self.attempts);
        feed_option(sum, self.reply.as_deref(), feed_text);
    }
}

impl Canonical for TodoRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        sum.update(self.user_id);
        feed_text(sum, &self.title);
        sum.update([u8::from(self.description.is_some())]);
        sum.update(self.priority.to_be_bytes());
        feed_text(sum, self.description.as_deref().unwrap_or_default());
        sum.update([u8::from(self.completed), u8::from(self.completed_at.is_some())]);
        feed_time(sum, self.created_at);
        feed_time(sum, self.updated_at);
        feed_time(sum, self.completed_at.unwrap_or_default());
        self.more.feed(sum);
    }
}

impl Canonical for MoreColumns {
    fn feed(&self, sum: &mut Sha256) {
        feed_option(sum, self.search.as_deref(), feed_text);
        feed_text(sum, &self.tags);
        feed_option(sum, self.list_id, feed_id);
        feed_option(sum, self.parent_id, feed_id);
        feed_option(sum, self.position.as_deref(), feed_text);
        feed_option(sum, self.due_date, feed_number);
        feed_option(sum, self.due_minute, feed_number);
        feed_option(sum, self.due_zone.as_deref(), feed_text);
        feed_option(sum, self.due_at, feed_time);
        sum.update([u8::from(self.undated)]);
        feed_number(sum, self.due_key);
        feed_option(sum, self.rule.as_deref(), feed_text);
        feed_option(sum, self.rule_from.map(i64::from), feed_number);
        feed_option(sum, self.series_id, feed_id);
        feed_option(sum, self.occurrence, feed_number);
        feed_text(sum, &self.reminders);
        feed_option(sum, self.ical.as_deref(), feed_text);
    }
}

impl Canonical for TrashRow {
    fn feed(&self, sum: &mut Sha256) {
        self.todo.feed(sum);
        feed_time(sum, self.deleted_at);
    }
}

impl Canonical for AnswerRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.user_id);
        feed_text(sum, &self.key);
        feed_bytes(sum, &self.fingerprint);
        feed_number(sum, self.status.into());
        feed_text(sum, &self.answer);
        feed_option(sum, self.location.as_deref(), feed_text);
        feed_option(sum, self.etag.as_deref(), feed_text);
        feed_time(sum, self.made_at);
    }
}

/// Inserts rows with one statement: `insert!(target, "INSERT INTO …", rows, |values, row| …)`.
macro_rules! insert {
    ($target:expr, $into:expr, $rows:expr, |$values:ident, $row:ident| $push:expr) => {
        on!($target, c => {
            let mut query = QueryBuilder::new($into);
            query.push_values($rows, |mut $values, $row| { $push; });
            query.build().execute(c).await.map(drop)
        })
    };
}
pub(super) use insert;

pub(in crate::admin) async fn insert_users(
    target: &mut Conn,
    rows: &[UserRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO users (", user_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.email.clone())
        .push_bind(row.name.clone())
        .push_bind(row.password_hash.clone())
        .push_bind(Timestamp(row.created_at))
        .push_bind(row.email_verified_at.map(Timestamp))
        .push_bind(row.deleted_at.map(Timestamp))
        .push_bind(row.time_zone.clone())
        .push_bind(row.reminder_mail))
}

pub(super) async fn insert_identities(
    target: &mut Conn,
    rows: &[IdentityRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO identities (", identity_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.issuer.clone())
        .push_bind(row.subject.clone())
        .push_bind(row.user_id)
        .push_bind(row.email.clone())
        .push_bind(row.email_verified)
        .push_bind(row.name.clone())
        .push_bind(Timestamp(row.created_at))
        .push_bind(row.not_before.map(Timestamp)))
}

pub(super) async fn insert_revoked_tokens(
    target: &mut Conn,
    rows: &[RevokedTokenRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO revoked_tokens (", revoked_token_columns!(), ") ");
    insert!(target, into, rows, |v, row| v.push_bind(row.id).push_bind(Timestamp(row.expires_at)))
}

pub(super) async fn insert_sessions(
    target: &mut Conn,
    rows: &[SessionRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO sessions (", session_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.user_id)
        .push_bind(Timestamp(row.created_at))
        .push_bind(Timestamp(row.expires_at))
        .push_bind(row.kind.clone())
        .push_bind(row.label.clone())
        .push_bind(row.client.clone())
        .push_bind(row.scopes)
        .push_bind(row.seen_at.map(Timestamp))
        .push_bind(row.identity_id))
}

pub(super) async fn insert_lists(target: &mut Conn, rows: &[ListRow]) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO lists (", list_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.user_id)
        .push_bind(row.name.clone())
        .push_bind(row.color.clone())
        .push_bind(Timestamp(row.created_at))
        .push_bind(Timestamp(row.updated_at))
        .push_bind(row.deleted_at.map(Timestamp)))
}

pub(super) async fn insert_mails(target: &mut Conn, rows: &[MailRow]) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO mails (", mail_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.kind.clone())
        .push_bind(row.user_id)
        .push_bind(row.email.clone())
        .push_bind(Timestamp(row.created_at))
        .push_bind(Timestamp(row.expires_at))
        .push_bind(row.used_at.map(Timestamp))
        .push_bind(row.sent_at.map(Timestamp))
        .push_bind(row.failed_at.map(Timestamp))
        .push_bind(row.attempts)
        .push_bind(row.next_attempt_at.map(Timestamp))
        .push_bind(row.reply.clone()))
}

/// Pushes the values of a todo, in the order of the columns in [`insert_todos`]. A macro, since the
/// type of `v` differs between the drivers.
macro_rules! push_todo {
    ($values:expr, $row:expr) => {
        $values
            .push_bind($row.id)
            .push_bind($row.user_id)
            .push_bind($row.title.clone())
            .push_bind(validate::sort_key(&$row.title))
            .push_bind($row.description.clone())
            .push_bind($row.priority)
            .push_bind($row.completed)
            .push_bind(Timestamp($row.created_at))
            .push_bind(Timestamp($row.updated_at))
            .push_bind($row.completed_at.map(Timestamp))
            .push_bind($row.more.search.clone())
            .push_bind($row.more.tags.clone())
            .push_bind($row.more.list_id)
            .push_bind($row.more.parent_id)
            .push_bind($row.more.position.clone())
            .push_bind($row.more.due_date)
            .push_bind($row.more.due_minute)
            .push_bind($row.more.due_zone.clone())
            .push_bind($row.more.due_at.map(Timestamp))
            .push_bind($row.more.undated)
            .push_bind($row.more.due_key)
            .push_bind($row.more.rule.clone())
            .push_bind($row.more.rule_from)
            .push_bind($row.more.series_id)
            .push_bind($row.more.occurrence)
            .push_bind($row.more.reminders.clone())
            .push_bind($row.more.ical.clone())
    };
}

/// The beginning of an INSERT of todos into a table with their columns and `$more`.
macro_rules! insert_todos_into {
    ($table:literal, $more:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " (id, user_id, title, title_key, description, priority, completed, created_at, \
             updated_at, completed_at, search, tags, list_id, parent_id, position, due_date, \
             due_minute, due_zone, due_at, undated, due_key, rule, rule_from, series_id, \
             occurrence, reminders, ical",
            $more,
            ") "
        )
    };
}

pub(in crate::admin) async fn insert_todos(
    target: &mut Conn,
    rows: &[TodoRow],
) -> Result<(), AdminError> {
    let into = insert_todos_into!("todos", "");
    insert!(target, into, rows, |v, row| push_todo!(v, row))
}

pub(super) async fn insert_trash(target: &mut Conn, rows: &[TrashRow]) -> Result<(), AdminError> {
    let into = insert_todos_into!("trash", ", deleted_at");
    insert!(target, into, rows, |v, row| push_todo!(v, row.todo)
        .push_bind(Timestamp(row.deleted_at)))
}

pub(super) async fn insert_answers(
    target: &mut Conn,
    rows: &[AnswerRow],
) -> Result<(), AdminError> {
    let into = concat!("INSERT INTO idempotency (", idempotency_columns!(), ") ");
    insert!(target, into, rows, |v, row| v
        .push_bind(row.user_id)
        .push_bind(row.key.clone())
        .push_bind(row.fingerprint.clone())
        .push_bind(row.status)
        .push_bind(row.answer.clone())
        .push_bind(row.location.clone())
        .push_bind(row.etag.clone())
        .push_bind(Timestamp(row.made_at)))
}
