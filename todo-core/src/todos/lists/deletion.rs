//! Deletion of a list. It is marked first: from then on it does not exist for its user. Its todos
//! are moved to the trash in pieces, and its row is deleted last, by a job.
//!
//! The row stays for some time: on PostgreSQL, a write that found the list before it was marked may
//! commit after all todos were moved. The job moves that todo too. SQLite has one writer.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Duration, Instant};
use uuid::Uuid;

use super::{read::require_change, types::ListTarget};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        Statement,
        value::{OneMicrosecond, Timestamp},
    },
    error::Result,
    ids::{ListId, UserId},
    todos::{
        bulk::{Text, both, for_update},
        change::next_updated_at,
        pieces::{MAX_IDLE_PIECES, PIECE, pause},
        version::{changing_row, is_target},
    },
};

/// Time for which the row of a deleted list stays: longer than an operation may run, with some
/// minutes between the clocks of two machines.
const MARKED: TimeDelta = TimeDelta::minutes(5);
/// Deleted lists per read.
const LISTS: i64 = 100;
/// Time after which the rest is left to the next run: less than the time of an attempt of a job.
const MAX_TIME: Duration = Duration::from_secs(30);

/// Deletes a list, and moves its todos to the trash, or deletes them permanently without one
/// ([`CoreBuilder::trash_days`](crate::CoreBuilder::trash_days)). Returns the number of todos that
/// it had.
///
/// The list is gone at once. Its todos are moved 200 at a time, all with the same time of deletion.
/// If this is dropped, or fails meanwhile, a job of [`jobs::run_due`](crate::jobs::run_due) moves
/// the rest. The trash keeps [`MAX_TRASHED`](crate::todos::MAX_TRASHED) todos.
///
/// # Errors
/// [`Error::PreconditionFailed`](crate::Error::PreconditionFailed) if the list has no version that
/// `target` allows; else as [`get_list`](super::get_list).
pub async fn delete_list(
    core: &Core,
    caller: &Caller,
    target: impl Into<ListTarget>,
) -> Result<u64> {
    const SQL: &str = concat!(
        "UPDATE lists SET deleted_at = $10, updated_at = ",
        next_updated_at!("$10", "$11"),
        " WHERE ",
        is_target!(),
        " AND deleted_at IS NULL AND ",
        authorized!(),
        " RETURNING id, coalesce((SELECT pending + completed FROM list_counts \
         WHERE list_id = $4), 0)"
    );
    let db = core.db();
    let (caller, target) = (*caller, target.into());
    let now = core.now();
    let work = core.clone();
    // The job may move some of them meanwhile.
    let (_id, count) = core
        .write(caller.user_id(), async move {
            let mark = changing_row(caller, target.id.as_uuid(), target.versions, SQL)
                .bind(Timestamp(now))
                .bind(OneMicrosecond);
            let marked: Option<(Uuid, i64)> = db.execute(mark).await?;
            require_change(&work, caller, target, marked).await
        })
        .await?;
    move_todos(core, caller.user_id(), target.id, now, None).await?;
    Ok(count.unsigned_abs())
}

/// Moves the todos of deleted lists that are left, and deletes the rows of lists that were deleted
/// some minutes ago, for at most half a minute. Returns whether that is all; the next call goes on
/// with the rest. Servers call it every minute, as a job.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal).
pub async fn finish_list_deletions(core: &Core) -> Result<bool> {
    // Not of deleted accounts, whose rows another job deletes.
    const DELETED: &str = "SELECT id, user_id, deleted_at FROM lists \
         WHERE deleted_at IS NOT NULL AND (deleted_at, id) > ($1, $2) AND NOT EXISTS \
         (SELECT 1 FROM users WHERE users.id = lists.user_id AND users.deleted_at IS NOT NULL) \
         ORDER BY deleted_at, id LIMIT $3";
    let deadline = Instant::now() + MAX_TIME;
    let mut after = (crate::todos::version::FIRST, Uuid::nil());
    loop {
        let db = core.db();
        let lists = Statement::new(DELETED).bind(Timestamp(after.0)).bind(after.1).bind(LISTS);
        let lists: Vec<(Uuid, Uuid, Timestamp)> =
            core.anonymous(async move { Ok(db.fetch(lists).await?) }).await?;
        let Some((id, _, deleted_at)) = lists.last() else { return Ok(true) };
        after = (deleted_at.0, *id);
        for (id, user, Timestamp(deleted_at)) in lists {
            let (list, user) = (ListId::from(id), UserId::from(user));
            if !move_todos(core, user, list, deleted_at, Some(deadline)).await? {
                return Ok(false);
            }
            if deleted_at <= core.now() - MARKED {
                delete_row(core, user, list).await?;
            }
        }
    }
}

/// Moves the todos of a deleted list to the trash, until a deadline. Returns whether none is left.
async fn move_todos(
    core: &Core,
    user: UserId,
    list: ListId,
    deleted_at: DateTime<Utc>,
    deadline: Option<Instant>,
) -> Result<bool> {
    let mut idle = 0;
    loop {
        let began = Instant::now();
        let moved = move_piece(core, user, list, deleted_at).await?;
        // Others may be moving the todos of a piece: on PostgreSQL it then is smaller.
        if moved < PIECE.unsigned_abs() && !has_todos(core, user, list).await? {
            return Ok(true);
        }
        idle = if moved == 0 { idle + 1 } else { 0 };
        if idle == MAX_IDLE_PIECES || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        pause(began).await;
    }
}

/// Whether a list has todos.
async fn has_todos(core: &Core, user: UserId, list: ListId) -> Result<bool> {
    const SQL: &str = concat!(
        "SELECT EXISTS (SELECT 1 FROM todos WHERE user_id = $1 AND list_id = $4) AND ",
        authorized!()
    );
    let db = core.db();
    let select = acting_as(Caller::trusted(user), SQL).bind(list);
    let (has_todos,) = core.read(user, async move { Ok(db.fetch_one(select).await?) }).await?;
    Ok(has_todos)
}

/// Moves the next todos of a deleted list to the trash, and returns their number. The deletion was
/// authorized when the list was marked: it goes on if the session ends.
async fn move_piece(
    core: &Core,
    user: UserId,
    list: ListId,
    deleted_at: DateTime<Utc>,
) -> Result<u64> {
    // In the order of the index of a list.
    macro_rules! next {
        () => {
            "SELECT id FROM todos WHERE user_id = $1 AND list_id = $4 \
             ORDER BY completed, created_at, id LIMIT $5"
        };
    }
    /// SQL query of the ids of the next todos, which are locked in the order of a bulk.
    macro_rules! picked {
        ($dialect:ident) => {
            concat!(
                "SELECT id FROM todos WHERE user_id = $1 AND list_id = $4 AND id IN (",
                next!(),
                ") ORDER BY id",
                for_update!($dialect, "todos")
            )
        };
    }
    macro_rules! delete {
        ($dialect:ident) => {
            concat!(
                "WITH picked AS MATERIALIZED (",
                picked!($dialect),
                ") DELETE FROM todos WHERE user_id = $1 AND list_id = $4 \
                 AND id IN (SELECT id FROM picked) AND ",
                authorized!()
            )
        };
    }
    // As of a bulk: see there.
    macro_rules! to_trash {
        (Sqlite) => {
            concat!(
                "INSERT INTO deletions (id, user_id, deleted_at) SELECT id, $1, $6 FROM (",
                picked!(Sqlite),
                ") AS picked WHERE ",
                authorized!(),
                " ORDER BY id RETURNING id"
            )
        };
        (Postgres) => {
            concat!(
                "WITH gone AS (",
                delete!(Postgres),
                " RETURNING *) INSERT INTO trash SELECT gone.*, $6 FROM gone RETURNING id"
            )
        };
    }
    macro_rules! for_good {
        ($dialect:ident) => {
            concat!(delete!($dialect), " RETURNING id")
        };
    }
    const TRASH: Text = both!(to_trash);
    const DELETE: Text = both!(for_good);
    let db = core.db();
    let keeps = !core.trash_lifetime().is_zero();
    core.write(user, async move {
        let sql = if keeps { &TRASH } else { &DELETE };
        let piece = acting_as(Caller::trusted(user), sql.of(db.dialect())).bind(list).bind(PIECE);
        let piece = if keeps { piece.bind(Timestamp(deleted_at)) } else { piece };
        let moved: Vec<(Uuid,)> = db.execute(piece).await?;
        Ok(u64::try_from(moved.len()).unwrap_or(u64::MAX))
    })
    .await
}

/// Deletes the row of a list without todos.
async fn delete_row(core: &Core, user: UserId, list: ListId) -> Result<()> {
    const SQL: &str = concat!(
        "DELETE FROM lists WHERE id = $4 AND user_id = $1 AND deleted_at IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM todos WHERE todos.user_id = $1 AND todos.list_id = $4) AND ",
        authorized!(),
        " RETURNING id"
    );
    let db = core.db();
    core.write(user, async move {
        let delete = acting_as(Caller::trusted(user), SQL).bind(list);
        let _deleted: Option<(Uuid,)> = db.execute(delete).await?;
        Ok(())
    })
    .await
}
