//! Copies a whole database into an empty one, each SQLite or PostgreSQL: one snapshot of the
//! source, one transaction on the target, in batches, with both sides compared before the commit.
//! Rate limits are not copied: they expire within a minute. Nor are the logs of changes: the target
//! numbers its own, in an epoch of its own.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{ColumnIndex, Decode, FromRow, QueryBuilder, Row, Type};
use uuid::Uuid;

use super::{AdminError, Conn, epoch::renew, migrate, migrations, open_existing, refuse_same};
use crate::{admin::on, db::value::Timestamp, validate};

macro_rules! user_columns {
    () => {
        "id, email, name, password_hash, created_at"
    };
}
macro_rules! session_columns {
    () => {
        "id, user_id, created_at, expires_at"
    };
}
/// The columns of a todo except `title_key`, which is derived from the title.
macro_rules! todo_columns {
    () => {
        "id, user_id, title, description, priority, completed, created_at, updated_at, \
         completed_at, search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, \
         due_at, undated, due_key, rule, rule_from, series_id, occurrence"
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

/// Rows per batch; times 26 binds, below the limit of either database.
const BATCH_ROWS: i64 = 500;
/// Stored answers per batch: one may have some MiB.
const BATCH_ANSWERS: i64 = 10;

/// Progress of a copy, an import or a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Rows (pages for a backup) written so far.
    pub done: u64,
    /// Rows (pages for a backup) to write.
    pub total: u64,
}

/// Result of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyReport {
    /// Number of users, sessions and todos.
    pub rows: [i64; 3],
    /// SHA-256 over all rows in id order, equal on both sides; hexadecimal.
    pub checksum: String,
}

/// Copies users, sessions, todos, the trash and stored answers from one database into another,
/// which is migrated first and must have no rows. Positions in logs of changes are invalid in the
/// target. All or nothing: an error or an ended process leaves the target empty.
///
/// # Errors
/// [`AdminError`].
pub async fn copy(
    from: &str,
    to: &str,
    mut progress: impl FnMut(Progress),
) -> Result<CopyReport, AdminError> {
    refuse_same(from, to)?;
    if migrations(from).await?.iter().any(|migration| !migration.applied) {
        let why = "the source does not exist or is not up to date: run `migrate` on it first";
        return Err(AdminError::Refused(why.into()));
    }
    migrate(to).await?;
    let mut source = open_existing(from).await?;
    let mut target = open_existing(to).await?;
    source.begin_snapshot().await?;
    begin_empty(&mut target).await?;

    let rows = source.counts().await?;
    let more = "SELECT (SELECT count(*) FROM trash) + (SELECT count(*) FROM idempotency)";
    let more = on!(&mut source, c => sqlx::query_scalar::<_, i64>(more).fetch_one(c).await)?;
    let total = rows.iter().chain([&more]).map(|n| u64::try_from(*n).unwrap_or_default()).sum();
    let mut done = 0;
    let mut on_batch = |n: usize| {
        done += n as u64;
        progress(Progress { done, total });
    };
    let read = scan(&mut source, Some(&mut target), &mut on_batch).await?;
    let written = scan(&mut target, None, &mut |_| ()).await?;
    if read != written || target.counts().await? != rows {
        let why = "the copy differs from the source: nothing was written";
        return Err(AdminError::Refused(why.into()));
    }
    target.execute("COMMIT").await?;
    target.close().await?;
    source.close().await?;
    let checksum = read.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    Ok(CopyReport { rows, checksum })
}

/// Begins the transaction on a target and locks out other writers; rejects a target with rows.
pub(super) async fn begin_empty(target: &mut Conn) -> Result<(), AdminError> {
    match target {
        Conn::Sqlite(_) => target.execute("BEGIN IMMEDIATE").await?,
        Conn::Postgres(_) => {
            target.execute("BEGIN").await?;
            target.execute("LOCK TABLE users, sessions, todos IN EXCLUSIVE MODE").await?;
        }
    }
    let [users, sessions, todos] = target.counts().await?;
    if [users, sessions, todos] != [0; 3] {
        return Err(AdminError::Refused(format!(
            "the target is not empty: it has {users} users, {sessions} sessions and {todos} todos"
        )));
    }
    // A user of an earlier copy that was deleted may come again, with numbers from 1.
    renew(target).await.map(drop)
}

pub(super) struct UserRow {
    pub(super) id: Uuid,
    pub(super) email: String,
    pub(super) name: String,
    pub(super) password_hash: String,
    pub(super) created_at: DateTime<Utc>,
}

struct SessionRow {
    id: Uuid,
    user_id: Uuid,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

pub(super) struct TodoRow {
    pub(super) id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) title: String,
    pub(super) description: Option<String>,
    pub(super) priority: i16,
    pub(super) completed: bool,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) completed_at: Option<DateTime<Utc>>,
    pub(super) more: MoreColumns,
}

/// The columns of a todo that have a default.
pub(super) struct MoreColumns {
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
        }
    }
}

/// A deleted todo.
struct TrashRow {
    todo: TodoRow,
    deleted_at: DateTime<Utc>,
}

/// The stored answer to a request with a key.
struct AnswerRow {
    user_id: Uuid,
    key: String,
    fingerprint: Vec<u8>,
    status: i16,
    answer: String,
    location: Option<String>,
    etag: Option<String>,
    made_at: DateTime<Utc>,
}

impl<'r, R> FromRow<'r, R> for UserRow
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
            email: row.try_get(1)?,
            name: row.try_get(2)?,
            password_hash: row.try_get(3)?,
            created_at: row.try_get::<Timestamp, _>(4)?.0,
        })
    }
}

impl<'r, R> FromRow<'r, R> for SessionRow
where
    R: Row,
    usize: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            created_at: row.try_get::<Timestamp, _>(2)?.0,
            expires_at: row.try_get::<Timestamp, _>(3)?.0,
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
        let time = |index: usize| {
            let time = row.try_get::<Option<Timestamp>, _>(index);
            time.map(|time| time.map(|timestamp| timestamp.0))
        };
        Ok(Self {
            id: row.try_get(0)?,
            user_id: row.try_get(1)?,
            title: row.try_get(2)?,
            description: row.try_get(3)?,
            priority: row.try_get(4)?,
            completed: row.try_get(5)?,
            created_at: row.try_get::<Timestamp, _>(6)?.0,
            updated_at: row.try_get::<Timestamp, _>(7)?.0,
            completed_at: time(8)?,
            more: MoreColumns {
                search: row.try_get(9)?,
                tags: row.try_get(10)?,
                list_id: row.try_get(11)?,
                parent_id: row.try_get(12)?,
                position: row.try_get(13)?,
                due_date: row.try_get(14)?,
                due_minute: row.try_get(15)?,
                due_zone: row.try_get(16)?,
                due_at: time(17)?,
                undated: row.try_get(18)?,
                due_key: row.try_get(19)?,
                rule: row.try_get(20)?,
                rule_from: row.try_get(21)?,
                series_id: row.try_get(22)?,
                occurrence: row.try_get(23)?,
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
        Ok(Self { todo, deleted_at: row.try_get::<Timestamp, _>(24)?.0 })
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
trait Canonical {
    fn feed(&self, sum: &mut Sha256);
}

fn feed_text(sum: &mut Sha256, text: &str) {
    sum.update((text.len() as u64).to_be_bytes());
    sum.update(text);
}

fn feed_time(sum: &mut Sha256, time: DateTime<Utc>) {
    sum.update(time.timestamp_micros().to_be_bytes());
}

fn feed_option<T>(sum: &mut Sha256, value: Option<T>, feed: impl FnOnce(&mut Sha256, T)) {
    sum.update([u8::from(value.is_some())]);
    if let Some(value) = value {
        feed(sum, value);
    }
}

fn feed_number(sum: &mut Sha256, number: i64) {
    sum.update(number.to_be_bytes());
}

fn feed_id(sum: &mut Sha256, id: Uuid) {
    sum.update(id);
}

impl Canonical for UserRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        feed_text(sum, &self.email);
        feed_text(sum, &self.name);
        feed_text(sum, &self.password_hash);
        feed_time(sum, self.created_at);
    }
}

impl Canonical for SessionRow {
    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        sum.update(self.user_id);
        feed_time(sum, self.created_at);
        feed_time(sum, self.expires_at);
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
        sum.update((self.fingerprint.len() as u64).to_be_bytes());
        sum.update(&self.fingerprint);
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

pub(super) async fn insert_users(target: &mut Conn, rows: &[UserRow]) -> Result<(), AdminError> {
    let into = "INSERT INTO users (id, email, name, password_hash, created_at) ";
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.email.clone())
        .push_bind(row.name.clone())
        .push_bind(row.password_hash.clone())
        .push_bind(Timestamp(row.created_at)))
}

async fn insert_sessions(target: &mut Conn, rows: &[SessionRow]) -> Result<(), AdminError> {
    let into = "INSERT INTO sessions (id, user_id, created_at, expires_at) ";
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.user_id)
        .push_bind(Timestamp(row.created_at))
        .push_bind(Timestamp(row.expires_at)))
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
             occurrence",
            $more,
            ") "
        )
    };
}

pub(super) async fn insert_todos(target: &mut Conn, rows: &[TodoRow]) -> Result<(), AdminError> {
    let into = insert_todos_into!("todos", "");
    insert!(target, into, rows, |v, row| push_todo!(v, row))
}

async fn insert_trash(target: &mut Conn, rows: &[TrashRow]) -> Result<(), AdminError> {
    let into = insert_todos_into!("trash", ", deleted_at");
    insert!(target, into, rows, |v, row| push_todo!(v, row.todo)
        .push_bind(Timestamp(row.deleted_at)))
}

async fn insert_answers(target: &mut Conn, rows: &[AnswerRow]) -> Result<(), AdminError> {
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

/// Reads one table in the order of its key, as `"key" > "values of the key"`: adds each batch to
/// the checksum and inserts it into the target, if given.
macro_rules! table {
    ($source:expr, $target:expr, $sum:expr, $on_batch:expr, $row:ty, $table:literal, $columns:expr,
     $batch:expr, $key:literal > $values:literal, |$query:ident, $last:ident| $bind:expr,
     $insert:path) => {{
        let mut after: Option<$row> = None;
        loop {
            let mut rows: Vec<$row> = on!(&mut *$source, c => match &after {
                None => {
                    let sql = concat!("SELECT ", $columns, " FROM ", $table, " ORDER BY ", $key,
                                      " LIMIT $1");
                    sqlx::query_as(sql).bind($batch).fetch_all(c).await
                }
                Some($last) => {
                    let sql = concat!("SELECT ", $columns, " FROM ", $table, " WHERE (", $key,
                                      ") > (", $values, ") ORDER BY ", $key, " LIMIT $1");
                    let $query = sqlx::query_as(sql).bind($batch);
                    $bind.fetch_all(c).await
                }
            })?;
            for row in &rows {
                row.feed(&mut $sum);
            }
            if rows.is_empty() {
                break;
            }
            if let Some(target) = $target.as_deref_mut() {
                $insert(target, &rows).await?;
                $on_batch(rows.len());
            }
            after = rows.pop();
        }
    }};
}

/// Reads all rows in a fixed order and inserts them into `target`, if given. Returns their
/// checksum.
async fn scan(
    source: &mut Conn,
    mut target: Option<&mut Conn>,
    on_batch: &mut impl FnMut(usize),
) -> Result<[u8; 32], AdminError> {
    let mut sum = Sha256::new();
    macro_rules! by_id {
        ($row:ty, $table:literal, $columns:expr, |$last:ident| $id:expr, $insert:path) => {
            table!(
                source,
                target,
                sum,
                on_batch,
                $row,
                $table,
                $columns,
                BATCH_ROWS,
                "id" > "$2",
                |query, $last| query.bind($id),
                $insert
            )
        };
    }
    by_id!(UserRow, "users", user_columns!(), |last| last.id, insert_users);
    by_id!(SessionRow, "sessions", session_columns!(), |last| last.id, insert_sessions);
    by_id!(TodoRow, "todos", todo_columns!(), |last| last.id, insert_todos);
    by_id!(TrashRow, "trash", trash_columns!(), |last| last.todo.id, insert_trash);
    table!(
        source,
        target,
        sum,
        on_batch,
        AnswerRow,
        "idempotency",
        idempotency_columns!(),
        BATCH_ANSWERS,
        "user_id, key" > "$2, $3",
        |query, last| query.bind(last.user_id).bind(&last.key),
        insert_answers
    );
    Ok(sum.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sqlx::{Connection, SqliteConnection};

    use crate::db::sqlite::MIGRATIONS;

    /// Tables that a copy reads, writes and compares, with their columns.
    const COPIED: [(&str, &str); 5] = [
        ("users", user_columns!()),
        ("sessions", session_columns!()),
        ("todos", todo_columns!()),
        ("trash", trash_columns!()),
        ("idempotency", idempotency_columns!()),
    ];
    /// Made in the target by triggers or the migrator, or anew (`meta`), or expired in a minute.
    const REGENERATED: [&str; 5] =
        ["todo_counts", "changes", "meta", "_sqlx_migrations", "rate_limits"];
    /// Derived from another column.
    const DERIVED: [(&str, &str); 2] = [("todos", "title_key"), ("trash", "title_key")];

    #[tokio::test]
    async fn every_table_and_column_of_the_schema_is_copied_or_regenerated() {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        MIGRATIONS.run(&mut db).await.unwrap();
        let sql = "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c \
                   WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
        let found: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&mut db).await.unwrap();
        let found: BTreeSet<(&str, &str)> = found
            .iter()
            .map(|(table, column)| (&**table, &**column))
            .filter(|(table, _)| !REGENERATED.contains(table))
            .collect();
        let expected = COPIED.iter().flat_map(|(table, columns)| {
            columns.split(',').map(move |column| (*table, column.trim()))
        });
        assert_eq!(found, expected.chain(DERIVED).collect());
    }
}
