//! Copies a whole database into an empty one, each SQLite or PostgreSQL: one snapshot of the
//! source, one transaction on the target, in batches, with both sides compared before the commit.
//! Rate limits are not copied: they expire within a minute. Nor are the logs of changes: the target
//! numbers its own, in an epoch of its own.

use sha2::{Digest, Sha256};

use self::reminders::{
    DeliveryRow, ReminderRow, WebhookRow, delivery_columns, insert_deliveries, insert_reminders,
    insert_webhooks, reminder_columns, webhook_columns,
};
use self::rows::{
    AnswerRow, Canonical, IdentityRow, ListRow, MailRow, RevokedTokenRow, SessionRow, TrashRow,
    idempotency_columns, identity_columns, insert_answers, insert_identities, insert_lists,
    insert_mails, insert_revoked_tokens, insert_sessions, insert_trash, list_columns, mail_columns,
    revoked_token_columns, session_columns, todo_columns, trash_columns, user_columns,
};
pub(super) use self::rows::{MoreColumns, TodoRow, UserRow, insert_todos, insert_users};
use super::{AdminError, Conn, epoch::renew, migrate, migrations, open_existing, refuse_same};
use crate::admin::on;

mod reminders;
mod rows;

/// Rows per batch; times 28 binds, below the limit of either database.
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

/// Copies users, identities, sessions, keys, lists, todos, reminders, webhooks, the trash, stored
/// answers, mails and revoked tokens from one database into another, which is migrated first and
/// must have no rows. Positions in logs of changes are invalid in the target. All or nothing: an
/// error or an ended process leaves the target empty.
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
    let more = "SELECT (SELECT count(*) FROM trash) + (SELECT count(*) FROM idempotency) \
                + (SELECT count(*) FROM mails) + (SELECT count(*) FROM identities) \
                + (SELECT count(*) FROM revoked_tokens) + (SELECT count(*) FROM lists) \
                + (SELECT count(*) FROM reminders) \
                + (SELECT count(*) FROM webhooks) + (SELECT count(*) FROM webhook_deliveries)";
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
    commit(&mut target).await?;
    target.close().await?;
    source.close().await?;
    let checksum = read.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    Ok(CopyReport { rows, checksum })
}

/// SQL statements that enable or disable the triggers that count and log what is inserted.
macro_rules! switch_counting {
    ($to:literal) => {
        concat!(
            "ALTER TABLE todos ",
            $to,
            " TRIGGER todos_inserted; \
             ALTER TABLE tags ",
            $to,
            " TRIGGER tags_changed; \
             ALTER TABLE lists ",
            $to,
            " TRIGGER lists_changed"
        )
    };
}

/// Begins the transaction on a target and locks out other writers; rejects a target with rows.
pub(super) async fn begin_empty(target: &mut Conn) -> Result<(), AdminError> {
    match target {
        Conn::Sqlite(_) => target.execute("BEGIN IMMEDIATE").await?,
        Conn::Postgres(_) => {
            target.execute("BEGIN").await?;
            target.execute("LOCK TABLE users, sessions, todos IN EXCLUSIVE MODE").await?;
            // In one transaction, each update of a counter reads all of its earlier versions.
            target.execute(switch_counting!("DISABLE")).await?;
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

/// Derives from the todos that were inserted since [`begin_empty`] what triggers derive, and
/// commits.
pub(super) async fn commit(target: &mut Conn) -> Result<(), AdminError> {
    const DERIVED: [&str; 4] = [
        "UPDATE todo_counts AS counts \
         SET pending = found.pending, completed = found.completed \
         FROM (SELECT user_id, count(*) FILTER (WHERE NOT completed) AS pending, \
         count(*) FILTER (WHERE completed) AS completed FROM todos GROUP BY user_id) AS found \
         WHERE counts.user_id = found.user_id",
        "INSERT INTO todo_tags (user_id, tag, completed, created_at, todo_id) \
         SELECT user_id, tag, completed, created_at, id \
         FROM todos, json_array_elements_text(CAST(tags AS json)) AS tag WHERE tags <> '[]'",
        "INSERT INTO tags (user_id, tag, pending, completed) \
         SELECT user_id, tag, count(*) FILTER (WHERE NOT completed), \
         count(*) FILTER (WHERE completed) FROM todo_tags GROUP BY user_id, tag",
        "INSERT INTO list_counts (list_id, user_id, pending, completed) \
         SELECT list_id, user_id, count(*) FILTER (WHERE NOT completed), \
         count(*) FILTER (WHERE completed) FROM todos WHERE list_id IS NOT NULL \
         GROUP BY list_id, user_id",
    ];
    if let Conn::Postgres(_) = target {
        for sql in DERIVED {
            target.execute(sql).await?;
        }
        target.execute(switch_counting!("ENABLE")).await?;
    }
    target.execute("COMMIT").await
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
    by_id!(IdentityRow, "identities", identity_columns!(), |last| last.id, insert_identities);
    by_id!(SessionRow, "sessions", session_columns!(), |last| last.id, insert_sessions);
    by_id!(ListRow, "lists", list_columns!(), |last| last.id, insert_lists);
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
    by_id!(MailRow, "mails", mail_columns!(), |last| last.id, insert_mails);
    by_id!(
        RevokedTokenRow,
        "revoked_tokens",
        revoked_token_columns!(),
        |last| last.id,
        insert_revoked_tokens
    );
    if let Some(target) = target.as_deref_mut() {
        // Those of the triggers: some have fired in the source.
        target.execute("DELETE FROM reminders").await?;
    }
    by_id!(ReminderRow, "reminders", reminder_columns!(), |last| last.id, insert_reminders);
    table!(
        source,
        target,
        sum,
        on_batch,
        WebhookRow,
        "webhooks",
        webhook_columns!(),
        BATCH_ROWS,
        "user_id" > "$2",
        |query, last| query.bind(last.user_id),
        insert_webhooks
    );
    table!(
        source,
        target,
        sum,
        on_batch,
        DeliveryRow,
        "webhook_deliveries",
        delivery_columns!(),
        BATCH_ROWS,
        "reminder_id" > "$2",
        |query, last| query.bind(last.reminder_id),
        insert_deliveries
    );
    Ok(sum.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sqlx::{Connection, SqliteConnection};

    use super::{
        delivery_columns, idempotency_columns, identity_columns, list_columns, mail_columns,
        reminder_columns, revoked_token_columns, session_columns, todo_columns, trash_columns,
        user_columns, webhook_columns,
    };
    use crate::db::sqlite::MIGRATIONS;

    /// Tables that a copy reads, writes and compares, with their columns.
    const COPIED: [(&str, &str); 12] = [
        ("users", user_columns!()),
        ("identities", identity_columns!()),
        ("sessions", session_columns!()),
        ("lists", list_columns!()),
        ("todos", todo_columns!()),
        ("trash", trash_columns!()),
        ("idempotency", idempotency_columns!()),
        ("mails", mail_columns!()),
        ("revoked_tokens", revoked_token_columns!()),
        ("reminders", reminder_columns!()),
        ("webhooks", webhook_columns!()),
        ("webhook_deliveries", delivery_columns!()),
    ];
    /// Made in the target by triggers, the migrator or a process (`jobs`), or anew (`meta`), or
    /// expired in a minute.
    const REGENERATED: [&str; 10] = [
        "todo_counts",
        "tags",
        "todo_tags",
        "list_counts",
        "changes",
        "meta",
        "_sqlx_migrations",
        "rate_limits",
        "jobs",
        "oauth_codes",
    ];
    /// Derived from another column, or of a running process.
    const DERIVED: [(&str, &str); 6] = [
        ("todos", "title_key"),
        ("trash", "title_key"),
        ("mails", "lease"),
        ("mails", "leased_until"),
        ("webhooks", "lease"),
        ("webhooks", "leased_until"),
    ];

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
