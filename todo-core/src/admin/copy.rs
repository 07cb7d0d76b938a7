//! Copies a whole database into an empty one, each SQLite or PostgreSQL: one snapshot of the
//! source, one transaction on the target, in batches, with both sides compared before the commit.
//! Rate limits are not copied: they expire within a minute.

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{ColumnIndex, Decode, FromRow, QueryBuilder, Row, Type};
use uuid::Uuid;

use super::{AdminError, Conn, migrate, migrations, open_existing, refuse_same};
use crate::{admin::on, db::value::Timestamp, todos::todo_columns, validate};

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

/// Rows per batch; times ten binds, well below the limit of either database.
const BATCH_ROWS: i64 = 500;

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

/// Copies users, sessions and todos from one database into another, which is migrated first and
/// must have no rows. All or nothing: an error or an ended process leaves the target empty.
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
    let total = rows.iter().map(|n| u64::try_from(*n).unwrap_or_default()).sum();
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
    Ok(())
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
    Option<String>: Decode<'r, R::Database> + Type<R::Database>,
    i16: Decode<'r, R::Database> + Type<R::Database>,
    bool: Decode<'r, R::Database> + Type<R::Database>,
    Timestamp: Decode<'r, R::Database> + Type<R::Database>,
    Option<Timestamp>: Decode<'r, R::Database> + Type<R::Database>,
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
            completed_at: row.try_get::<Option<Timestamp>, _>(8)?.map(|timestamp| timestamp.0),
        })
    }
}

/// Canonical bytes of a row, distinct for distinct rows: each text prefixed with its length, each
/// time in microseconds.
trait Canonical {
    fn id(&self) -> Uuid;
    fn feed(&self, sum: &mut Sha256);
}

fn feed_text(sum: &mut Sha256, text: &str) {
    sum.update((text.len() as u64).to_be_bytes());
    sum.update(text);
}

fn feed_time(sum: &mut Sha256, time: DateTime<Utc>) {
    sum.update(time.timestamp_micros().to_be_bytes());
}

impl Canonical for UserRow {
    fn id(&self) -> Uuid {
        self.id
    }

    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        feed_text(sum, &self.email);
        feed_text(sum, &self.name);
        feed_text(sum, &self.password_hash);
        feed_time(sum, self.created_at);
    }
}

impl Canonical for SessionRow {
    fn id(&self) -> Uuid {
        self.id
    }

    fn feed(&self, sum: &mut Sha256) {
        sum.update(self.id);
        sum.update(self.user_id);
        feed_time(sum, self.created_at);
        feed_time(sum, self.expires_at);
    }
}

impl Canonical for TodoRow {
    fn id(&self) -> Uuid {
        self.id
    }

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

pub(super) async fn insert_todos(target: &mut Conn, rows: &[TodoRow]) -> Result<(), AdminError> {
    let into = "INSERT INTO todos (id, user_id, title, title_key, description, priority, \
                completed, created_at, updated_at, completed_at) ";
    insert!(target, into, rows, |v, row| v
        .push_bind(row.id)
        .push_bind(row.user_id)
        .push_bind(row.title.clone())
        .push_bind(validate::sort_key(&row.title))
        .push_bind(row.description.clone())
        .push_bind(row.priority)
        .push_bind(row.completed)
        .push_bind(Timestamp(row.created_at))
        .push_bind(Timestamp(row.updated_at))
        .push_bind(row.completed_at.map(Timestamp)))
}

/// Reads one table in id order: adds each batch to the checksum and inserts it into the target, if
/// given.
macro_rules! table {
    ($source:expr, $target:expr, $sum:expr, $on_batch:expr,
     $row:ty, $table:literal, $columns:expr, $insert:path) => {{
        let mut after = None;
        loop {
            let rows: Vec<$row> = on!(&mut *$source, c => match after {
                None => {
                    let sql = concat!("SELECT ", $columns, " FROM ", $table, " ORDER BY id LIMIT $1");
                    sqlx::query_as(sql).bind(BATCH_ROWS).fetch_all(c).await
                }
                Some(id) => {
                    let sql = concat!("SELECT ", $columns, " FROM ", $table,
                                      " WHERE id > $2 ORDER BY id LIMIT $1");
                    sqlx::query_as(sql).bind(BATCH_ROWS).bind::<Uuid>(id).fetch_all(c).await
                }
            })?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id());
            for row in &rows {
                row.feed(&mut $sum);
            }
            if let Some(target) = $target.as_deref_mut() {
                $insert(target, &rows).await?;
                $on_batch(rows.len());
            }
        }
    }};
}

/// Reads all rows in a fixed order and inserts them into `target`, if given. Returns their
/// checksum.
#[rustfmt::skip] // a table
async fn scan(
    source: &mut Conn,
    mut target: Option<&mut Conn>,
    on_batch: &mut impl FnMut(usize),
) -> Result<[u8; 32], AdminError> {
    let mut sum = Sha256::new();
    table!(source, target, sum, on_batch,
        UserRow, "users", user_columns!(), insert_users);
    table!(source, target, sum, on_batch,
        SessionRow, "sessions", session_columns!(), insert_sessions);
    table!(source, target, sum, on_batch, TodoRow, "todos", todo_columns!(), insert_todos);
    Ok(sum.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sqlx::{Connection, SqliteConnection};

    use crate::{db::sqlite::MIGRATIONS, todos::todo_columns};

    /// Tables that a copy reads, writes and compares, with their columns.
    const COPIED: [(&str, &str); 3] =
        [("users", user_columns!()), ("sessions", session_columns!()), ("todos", todo_columns!())];
    /// Regenerated in the target by triggers or the migrator, or expired within a minute.
    const REGENERATED: [&str; 3] = ["todo_counts", "_sqlx_migrations", "rate_limits"];
    /// Derived from another column.
    const DERIVED: [(&str, &str); 1] = [("todos", "title_key")];

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
