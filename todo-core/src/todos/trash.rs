//! The trash: deleted todos, which their user can restore for a time.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Limit, Todo, TodoId,
    bulk::{Text, both, for_update},
    change::next_updated_at,
    create::{Limits, is_below_quota, no_room_for_reminders, quota_error, used_quota},
    reminder_quota::{coming_reminders, has_room_for_reminders, open_reminders},
    todo::{TODO_COLUMNS, todo_columns},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        DbError, FromRow, Row, RowsAffected, Statement,
        value::{OneMicrosecond, Timestamp},
    },
    error::{Error, FieldError, Quota, Result},
    ids::UserId,
    timestamp,
};

/// Maximum number of todos in a user's trash; the oldest are deleted beyond it.
pub const MAX_TRASHED: u32 = 10_000;
/// The size of a page without a limit.
const DEFAULT_LIMIT: u16 = 100;
/// Maximum number of rows that a statement deletes: so many take SQLite's writer a few ms.
const CHUNK: i64 = 500;

/// The columns of `todos` that a todo keeps in the trash, but for `updated_at`.
macro_rules! kept_columns {
    () => {
        "id, user_id, title, title_key, description, priority, completed, created_at, \
         completed_at, search, tags, list_id, parent_id, position, due_date, due_minute, due_zone, \
         due_at, undated, due_key, rule, rule_from, series_id, occurrence, reminders, ical"
    };
}
pub(super) use kept_columns;

/// The values of [`kept_columns!`]. Another todo of the series may have its day by now: a new one,
/// or one of those that `$follows` finds among them. If its list is gone, it is restored to the
/// inbox.
macro_rules! kept_values {
    ($follows:expr) => {
        concat!(
            "id, user_id, title, title_key, description, priority, completed, created_at, \
             completed_at, search, tags, (SELECT lists.id FROM lists WHERE lists.id = trash.list_id \
             AND lists.user_id = $1 AND lists.deleted_at IS NULL) AS list_id, parent_id, position, due_date, due_minute, \
             due_zone, due_at, undated, due_key, rule, rule_from, series_id, \
             CASE WHEN ",
            $follows,
            " OR EXISTS (SELECT 1 FROM todos AS other WHERE other.series_id = trash.series_id \
             AND other.occurrence = trash.occurrence) THEN NULL ELSE occurrence END, \
             reminders, ical"
        )
    };
}
pub(super) use kept_values;

/// A deleted todo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrashedTodo {
    /// The todo as it was when it was deleted.
    #[serde(flatten)]
    pub todo: Todo,
    /// When it was deleted.
    #[serde(serialize_with = "timestamp::serialize")]
    pub deleted_at: DateTime<Utc>,
    /// When it is deleted permanently.
    #[serde(serialize_with = "timestamp::serialize")]
    pub expires_at: DateTime<Utc>,
}

/// A page of the trash, the last deleted first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrashPage {
    /// The todos.
    pub todos: Vec<TrashedTodo>,
    /// The number of todos on all pages.
    pub total: i64,
    /// The cursor of the next page, or null after the last.
    pub next_cursor: Option<String>,
}

/// A row of the trash, and the total.
struct TrashRow {
    todo: Todo,
    deleted_at: DateTime<Utc>,
    total: i64,
}

impl FromRow for TrashRow {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            todo: Todo::from_row(row)?,
            deleted_at: row.get::<Timestamp>(TODO_COLUMNS)?.0,
            total: row.get(TODO_COLUMNS + 1)?,
        })
    }
}

/// Returns a page of the caller's trash: at most `limit` todos (100 without one), after the page
/// whose `next_cursor` is `cursor`.
///
/// # Errors
/// [`Error::Invalid`] if the cursor was altered, [`Error::Unauthenticated`]; else as
/// [`create`](super::create).
pub async fn list_trash(
    core: &Core,
    caller: &Caller,
    limit: Option<Limit>,
    cursor: Option<String>,
) -> Result<TrashPage> {
    // Index order; a page starts after a position. The first page starts after the end of time.
    const SQL: &str = concat!(
        "SELECT ",
        todo_columns!(),
        ", deleted_at, \
         (SELECT count(*) FROM trash WHERE user_id = $1 AND deleted_at > $4) \
         FROM trash WHERE user_id = $1 AND deleted_at > $4 AND (deleted_at, id) < ($5, $6) AND ",
        authorized!(),
        " ORDER BY deleted_at DESC, id DESC LIMIT $7"
    );
    const TOTAL: &str = concat!(
        "SELECT ",
        authorized!(),
        ", (SELECT count(*) FROM trash WHERE user_id = $1 AND deleted_at > $4)"
    );
    let db = core.db();
    let caller = *caller;
    let owner = caller.user_id();
    let lifetime = core.trash_lifetime();
    let oldest = core.now() - lifetime;
    let limit = usize::from(limit.map_or(DEFAULT_LIMIT, Limit::as_u16));
    let after = match &cursor {
        None => (END_OF_TIME, TodoId::new(Uuid::max())),
        Some(cursor) => position(core, owner, cursor).ok_or_else(bad_cursor)?,
    };
    let work = core.clone();
    core.read(owner, async move {
        // One more than the page, which shows whether there is a next one.
        let more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let select = acting_as(caller, SQL)
            .bind(Timestamp(oldest))
            .bind(Timestamp(after.0))
            .bind(after.1)
            .bind(more);
        let mut rows: Vec<TrashRow> = db.fetch(select).await?;
        let total = if let Some(row) = rows.first() {
            row.total
        } else {
            let total = acting_as(caller, TOTAL).bind(Timestamp(oldest));
            let (is_authorized, total): (bool, i64) = db.fetch_one(total).await?;
            if !is_authorized {
                return Err(Error::Unauthenticated);
            }
            total
        };
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| has_more).map(|row| seal(&work, owner, row));
        let todos = rows
            .into_iter()
            .map(|TrashRow { todo, deleted_at, .. }| TrashedTodo {
                todo,
                deleted_at,
                expires_at: deleted_at + lifetime,
            })
            .collect();
        Ok(TrashPage { todos, total, next_cursor })
    })
    .await
}

/// Restores a todo from the trash: as it was, with a new `updated_at`.
///
/// # Errors
/// [`Error::NotFound`] if it is not in the caller's trash, [`Error::QuotaExceeded`]; else as
/// [`create`](super::create).
pub async fn restore(core: &Core, caller: &Caller, id: TodoId) -> Result<Todo> {
    // A trigger takes the todo out of the trash. Its row there is locked first, as by a bulk: else
    // each could wait for what the other holds.
    macro_rules! restore {
        ($dialect:ident) => {
            concat!(
                "INSERT INTO todos (",
                kept_columns!(),
                ", updated_at) SELECT ",
                kept_values!("FALSE"),
                ", ",
                next_updated_at!("$5", "$6"),
                " FROM trash WHERE id = $4 AND user_id = $1 AND deleted_at > $7 AND ",
                authorized!(),
                " AND ",
                is_below_quota!("$8"),
                " AND (completed OR ",
                has_room_for_reminders!($dialect, "trash", "$5", "$9"),
                ")",
                for_update!($dialect, "trash"),
                " RETURNING ",
                todo_columns!()
            )
        };
    }
    const SQL: Text = both!(restore);
    macro_rules! find {
        ($dialect:ident) => {
            concat!(
                "SELECT ",
                authorized!(),
                ", EXISTS (SELECT 1 FROM trash WHERE id = $4 AND user_id = $1 \
                 AND deleted_at > $5), ",
                used_quota!(),
                ", ",
                open_reminders!(""),
                ", coalesce((SELECT ",
                coming_reminders!($dialect, "trash", "$6"),
                " FROM trash WHERE id = $4 AND NOT completed), 0)"
            )
        };
    }
    const FIND: Text = both!(find);
    let db = core.db();
    let caller = *caller;
    let now = core.now();
    let oldest = now - core.trash_lifetime();
    let limits = Limits::of(core);
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let insert = acting_as(caller, SQL.of(db.dialect()))
            .bind(id)
            .bind(Timestamp(now))
            .bind(OneMicrosecond)
            .bind(Timestamp(oldest))
            .bind(i64::from(limits.todos))
            .bind(i64::from(limits.reminders));
        let mut inserted = db.execute::<Option<Todo>>(insert.clone()).await;
        // Another todo has taken its day in a series: it comes back without one.
        if inserted.as_ref().is_err_and(DbError::is_unique_violation) {
            inserted = db.execute(insert).await;
        }
        let is_taken = match inserted {
            Ok(Some(todo)) => return Ok(todo),
            Ok(None) => false,
            // Concurrent requests have restored it, or take its day in turns.
            Err(fault) if fault.is_unique_violation() => true,
            Err(fault) if fault.is_foreign_key_violation() => return Err(Error::Unauthenticated),
            Err(fault) => return Err(fault.into()),
        };
        let find = acting_as(caller, FIND.of(db.dialect()))
            .bind(id)
            .bind(Timestamp(oldest))
            .bind(Timestamp(now));
        let found = async { Ok(db.fetch_one(find).await?) };
        let found: (bool, bool, Option<i64>, i64, i64) =
            Box::pin(work.read_in_write(caller.user_id(), found)).await?;
        Err(match found {
            (false, ..) | (_, _, None, ..) => Error::Unauthenticated,
            (true, false, ..) => Error::NotFound,
            (true, true, Some(_), ..) if is_taken => Error::Busy,
            (true, true, Some(used), open, coming) => {
                let limit = i64::from(limits.reminders);
                let is_full = limit > 0 && coming > 0 && open + coming > limit;
                let reminders = is_full.then(|| no_room_for_reminders(limits.reminders, open));
                let todos = quota_error(Quota::Todos, limits.todos, used);
                // Below both, it was deleted after the statement had looked for it.
                todos.or(reminders).unwrap_or(Error::NotFound)
            }
        })
    })
    .await
}

/// Deletes a todo in the trash permanently.
///
/// # Errors
/// [`Error::NotFound`] if it is not in the caller's trash; else as [`create`](super::create).
pub async fn delete_trashed(core: &Core, caller: &Caller, id: TodoId) -> Result<()> {
    const SQL: &str =
        concat!("DELETE FROM trash WHERE id = $4 AND user_id = $1 AND ", authorized!());
    let db = core.db();
    let caller = *caller;
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let RowsAffected(deleted) = db.execute(acting_as(caller, SQL).bind(id)).await?;
        if deleted == 0 {
            require_session(&work, caller).await?;
            return Err(Error::NotFound);
        }
        Ok(())
    })
    .await
}

/// Deletes the caller's trash permanently, in pieces, and returns the number of its todos. A todo
/// that is deleted meanwhile stays in the trash.
///
/// # Errors
/// As [`create`](super::create). Some of the todos may be deleted.
pub async fn empty_trash(core: &Core, caller: &Caller) -> Result<u64> {
    // Locked in the order of a bulk that restores todos.
    macro_rules! delete {
        ($dialect:ident) => {
            concat!(
                "WITH oldest AS MATERIALIZED (SELECT id FROM trash \
                 WHERE user_id = $1 AND deleted_at <= $4 ORDER BY deleted_at, id LIMIT $5",
                for_update!($dialect, "trash"),
                ") DELETE FROM trash \
                 WHERE user_id = $1 AND id IN (SELECT id FROM oldest) AND ",
                authorized!()
            )
        };
    }
    const SQL: Text = both!(delete);
    let caller = *caller;
    let now = core.now();
    let mut total = 0;
    loop {
        let db = core.db();
        let work = core.clone();
        // Each piece has its own turn: other writes of the caller run in between.
        let deleted = core
            .write(caller.user_id(), async move {
                let delete = acting_as(caller, SQL.of(db.dialect()));
                let delete = delete.bind(Timestamp(now)).bind(CHUNK);
                let RowsAffected(deleted) = db.execute(delete).await?;
                if deleted == 0 {
                    require_session(&work, caller).await?;
                }
                Ok(deleted)
            })
            .await?;
        total += deleted;
        if is_last(deleted) {
            return Ok(total);
        }
    }
}

/// Deletes what is no longer kept: the expired todos in the trash, the oldest of users with more
/// than [`MAX_TRASHED`], and expired idempotency keys. Servers call it every minute; expired rows
/// have no effect anyway. Each statement deletes at most 500 rows.
///
/// # Errors
/// [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn delete_expired(core: &Core) -> Result<()> {
    const TRASH: &str = "DELETE FROM trash WHERE id IN \
         (SELECT id FROM trash WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT $2)";
    const KEYS: &str = "DELETE FROM idempotency WHERE (user_id, key) IN \
         (SELECT user_id, key FROM idempotency WHERE made_at < $1 ORDER BY made_at LIMIT $2)";
    let now = core.now();
    for (sql, oldest) in
        [(TRASH, now - core.trash_lifetime()), (KEYS, now - super::idempotency::KEY_LIFETIME)]
    {
        delete_all(core, Statement::new(sql).bind(Timestamp(oldest)).bind(CHUNK)).await?;
    }
    trim(core, now).await
}

/// Deletes the oldest todos of each user with more than [`MAX_TRASHED`], of the users who deleted
/// one since the last call but one.
async fn trim(core: &Core, now: DateTime<Utc>) -> Result<()> {
    const USERS: &str = "SELECT DISTINCT user_id FROM trash WHERE deleted_at > $1";
    // Locked in the order of a bulk that restores todos.
    macro_rules! delete_surplus {
        ($dialect:ident) => {
            concat!(
                "WITH surplus AS MATERIALIZED (SELECT id FROM trash WHERE user_id = $1 \
                 ORDER BY deleted_at DESC, id DESC LIMIT $2 OFFSET $3), \
                 locked AS MATERIALIZED (SELECT id FROM trash \
                 WHERE id IN (SELECT id FROM surplus) ORDER BY deleted_at, id",
                for_update!($dialect, "trash"),
                ") DELETE FROM trash WHERE user_id = $1 AND id IN (SELECT id FROM locked)"
            )
        };
    }
    const SURPLUS: Text = both!(delete_surplus);
    let db = core.db();
    let users = Statement::new(USERS).bind(Timestamp(now - TimeDelta::minutes(3)));
    let surplus = SURPLUS.of(db.dialect());
    let users: Vec<(Uuid,)> = core.anonymous(async move { Ok(db.fetch(users).await?) }).await?;
    for (user,) in users {
        let surplus = Statement::new(surplus).bind(user).bind(CHUNK).bind(i64::from(MAX_TRASHED));
        delete_all(core, surplus).await?;
    }
    Ok(())
}

/// Runs a deletion of at most [`CHUNK`] rows until there are fewer.
async fn delete_all(core: &Core, delete: Statement) -> Result<()> {
    loop {
        let (db, delete) = (core.db(), delete.clone());
        let deleted = core
            .anonymous(async move {
                let RowsAffected(deleted) = db.execute(delete).await?;
                Ok(deleted)
            })
            .await?;
        if is_last(deleted) {
            return Ok(());
        }
    }
}

/// Whether a deletion of at most [`CHUNK`] rows found all that were left.
fn is_last(deleted: u64) -> bool {
    deleted < CHUNK.unsigned_abs()
}

/// Fails if the caller's session has ended.
async fn require_session(core: &Core, caller: Caller) -> Result<()> {
    const SQL: &str = concat!("SELECT ", authorized!());
    let session = async { Ok(core.db().fetch_one(acting_as(caller, SQL)).await?) };
    let (is_authorized,): (bool,) = core.read_in_write(caller.user_id(), session).await?;
    if is_authorized { Ok(()) } else { Err(Error::Unauthenticated) }
}

/// A time after all times of the trash.
const END_OF_TIME: DateTime<Utc> = DateTime::from_timestamp(253_402_300_799, 0).expect("a time");

/// The context of the cursors of a user's trash: authenticated with the cursor.
fn context(owner: UserId) -> [u8; 21] {
    let mut context = [0; 21];
    context[..5].copy_from_slice(b"trash");
    context[5..].copy_from_slice(owner.as_uuid().as_bytes());
    context
}

/// The cursor after a row.
fn seal(core: &Core, owner: UserId, row: &TrashRow) -> String {
    let mut bytes = row.deleted_at.timestamp_micros().to_be_bytes().to_vec();
    bytes.extend_from_slice(row.todo.id.as_uuid().as_bytes());
    core.tokens().seal(&bytes, &context(owner))
}

/// The position of a cursor of [`seal`]; `None` if it is invalid or another user's.
fn position(core: &Core, owner: UserId, cursor: &str) -> Option<(DateTime<Utc>, TodoId)> {
    let bytes = core.tokens().unseal(cursor, &context(owner))?;
    let (micros, id) = bytes.split_first_chunk::<8>()?;
    let deleted_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
    Some((deleted_at, Uuid::from_slice(id).ok()?.into()))
}

fn bad_cursor() -> Error {
    let message = "Cursor must be the next_cursor of a page of this trash.";
    FieldError::new("cursor", "invalid", message).into()
}
