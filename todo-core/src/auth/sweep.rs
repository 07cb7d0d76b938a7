//! Deletes the rows of deleted accounts, in pieces: one statement for all of them would hold
//! SQLite's writer, or exceed the timeout of PostgreSQL.
//!
//! Every piece is its own transaction, and the account's row goes last, once nothing else of the
//! user is left. So the work continues where it was after a crash, and two processes that do it at
//! the same time only share it.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    core::Core,
    db::{RowsAffected, Statement},
    error::Result,
};

/// Maximum number of rows that a statement deletes: so many todos, which have four indexes, take
/// SQLite's writer 10 ms.
const CHUNK: i64 = 200;
/// The same for stored answers, which may be long.
const ANSWERS: i64 = 20;
/// Accounts per read.
const ACCOUNTS: i64 = 100;
/// Time after which the rest is left to the next run: less than the time of an attempt of a job.
const MAX_TIME: Duration = Duration::from_secs(30);
/// Maximum pause after a piece.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// What a deleted user leaves behind: a statement, and its maximum number of rows.
const PIECES: [(&str, i64); 6] = [
    // With its deliveries, at most 500.
    (
        "DELETE FROM webhooks WHERE user_id IN \
         (SELECT user_id FROM webhooks WHERE user_id = $1 LIMIT $2)",
        CHUNK,
    ),
    (
        "DELETE FROM reminders WHERE id IN \
         (SELECT id FROM reminders WHERE user_id = $1 LIMIT $2)",
        CHUNK,
    ),
    (
        "DELETE FROM changes WHERE user_id = $1 AND seq IN \
         (SELECT seq FROM changes WHERE user_id = $1 ORDER BY seq LIMIT $2)",
        CHUNK,
    ),
    (
        "DELETE FROM idempotency WHERE user_id = $1 AND key IN \
         (SELECT key FROM idempotency WHERE user_id = $1 ORDER BY key LIMIT $2)",
        ANSWERS,
    ),
    (
        "DELETE FROM trash WHERE id IN \
         (SELECT id FROM trash WHERE user_id = $1 ORDER BY deleted_at, id LIMIT $2)",
        CHUNK,
    ),
    (
        "DELETE FROM todos WHERE id IN \
         (SELECT id FROM todos WHERE user_id = $1 \
         ORDER BY completed, created_at, id LIMIT $2)",
        CHUNK,
    ),
];

/// Deletes what is left of deleted accounts, for at most half a minute, and returns whether that is
/// all; the next call goes on with the rest. Servers call it every minute, as a job.
///
/// Between two pieces it pauses for as long as the last one took, so that it uses at most half of
/// SQLite's writer.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal).
pub async fn delete_left_rows(core: &Core) -> Result<bool> {
    const DELETED: &str = "SELECT id FROM users WHERE deleted_at IS NOT NULL AND id > $1 \
         ORDER BY id LIMIT $2";
    let deadline = Instant::now() + MAX_TIME;
    let mut is_all = true;
    let mut after = Uuid::nil();
    loop {
        let db = core.db();
        let accounts = Statement::new(DELETED).bind(after).bind(ACCOUNTS);
        let accounts: Vec<(Uuid,)> =
            core.anonymous(async move { Ok(db.fetch(accounts).await?) }).await?;
        let Some((last,)) = accounts.last().copied() else { return Ok(is_all) };
        after = last;
        for (user,) in accounts {
            is_all &= delete_rows_of(core, user, deadline).await?;
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }
}

/// Deletes the rows of one user; false if some may be left.
async fn delete_rows_of(core: &Core, user: Uuid, deadline: Instant) -> Result<bool> {
    // First: without it, the triggers of the todos neither count nor log.
    const COUNTER: &str = "DELETE FROM todo_counts WHERE user_id = $1";
    // A todo may be created until the account's row is gone: by a request that began before the
    // deletion, or for a trusted caller. Or another process has just deleted the rows of a piece,
    // which then seems to be the last one. So the row stays while there are others.
    const ACCOUNT: &str = "DELETE FROM users WHERE id = $1 AND deleted_at IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM todos WHERE user_id = $1) \
         AND NOT EXISTS (SELECT 1 FROM trash WHERE user_id = $1) \
         AND NOT EXISTS (SELECT 1 FROM changes WHERE user_id = $1) \
         AND NOT EXISTS (SELECT 1 FROM idempotency WHERE user_id = $1)";
    const SLOTS: &str =
        "DELETE FROM rate_limits WHERE action IN ('export', 'reauth') AND client = $1";
    execute(core, Statement::new(COUNTER).bind(user)).await?;
    for (sql, rows) in PIECES {
        loop {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            let deleted = execute(core, Statement::new(sql).bind(user).bind(rows)).await?;
            if deleted < rows.unsigned_abs() {
                break;
            }
        }
    }
    execute(core, Statement::new(SLOTS).bind(user.to_string())).await?;
    let deleted = execute(core, Statement::new(ACCOUNT).bind(user)).await?;
    Ok(deleted > 0)
}

/// Runs a piece, and pauses.
async fn execute(core: &Core, delete: Statement) -> Result<u64> {
    let db = core.db();
    let began = Instant::now();
    let deleted = core
        .anonymous(async move {
            let RowsAffected(deleted) = db.execute(delete).await?;
            Ok(deleted)
        })
        .await?;
    sleep(began.elapsed().min(MAX_PAUSE)).await;
    Ok(deleted)
}
