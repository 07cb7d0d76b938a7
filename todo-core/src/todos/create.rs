//! Creation of a todo.

use chrono::{DateTime, Utc};

use super::{
    Description, Details, NewTodo, Todo,
    bulk::{Text, both},
    details::{self, Known, detail_columns, is_below_tag_quota, is_own_list},
    fold,
    reminder_quota::{is_below_reminder_quota, number_of, open_reminders},
};
use crate::{
    authz::{Caller, acting_as, authorized},
    clock::new_id,
    core::Core,
    db::{RowsAffected, Statement, value::Timestamp},
    error::{Error, Quota, Result},
};

/// SQL expression for the number of the caller's todos, which the quota limits.
macro_rules! used_quota {
    () => {
        "(SELECT pending + completed FROM todo_counts WHERE user_id = $1)"
    };
}
pub(super) use used_quota;

/// SQL condition that the caller may have another todo: `$limit` is the quota, 0 for none.
macro_rules! is_below_quota {
    ($limit:literal) => {
        concat!("(", $limit, " = 0 OR ", used_quota!(), " < ", $limit, ")")
    };
}
pub(super) use is_below_quota;

/// Creates a todo.
///
/// # Errors
/// [`Error::Invalid`] if a recurrence or a reminder lacks a due date, or the list is none of the
/// caller; [`Error::Unauthenticated`] if the caller's session has ended or the user was deleted;
/// [`Error::QuotaExceeded`] if the user has as many todos as
/// [`CoreBuilder::max_todos`](crate::CoreBuilder::max_todos) allows, or would have more tags than
/// [`CoreBuilder::max_tags`](crate::CoreBuilder::max_tags), or more reminders than
/// [`CoreBuilder::max_reminders`](crate::CoreBuilder::max_reminders); else the errors of every
/// operation: [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn create(core: &Core, caller: &Caller, new: NewTodo) -> Result<Todo> {
    // Without RETURNING: all columns are known, and reading them took a tenth of the statement.
    const PLAIN: &str = concat!(
        "INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, \
         created_at, updated_at, search) SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9, $10 WHERE ",
        authorized!(),
        " AND ",
        is_below_quota!("$11")
    );
    macro_rules! detailed {
        ($dialect:ident) => {
            concat!(
                "INSERT INTO todos (id, user_id, title, title_key, description, priority, \
                 completed, created_at, updated_at, search, ",
                detail_columns!(),
                ") SELECT $4, $1, $5, $6, $7, $8, FALSE, $9, $9, $10, $12, $13, $14, $15, $16, \
                 $17, $18, $19, $20, $21, $22, $23, $24 WHERE ",
                authorized!(),
                " AND ",
                is_below_quota!("$11"),
                " AND ",
                is_own_list!("$13"),
                " AND ",
                is_below_tag_quota!($dialect, "$12", "$25"),
                " AND ",
                is_below_reminder_quota!($dialect, "$24", "$26")
            )
        };
    }
    const DETAILED: Text = both!(detailed);
    let now = core.now();
    new.details.check(true, now)?;
    let db = core.db();
    let caller = *caller;
    let limits = Limits::of(core);
    let work = core.clone();
    core.write(caller.user_id(), async move {
        let is_plain = new.details.is_empty();
        let sql = if is_plain { PLAIN } else { DETAILED.of(db.dialect()) };
        let todo = new_todo(caller, new, now);
        let insert = bind_todo(acting_as(caller, sql), &todo).bind(i64::from(limits.todos));
        let insert = if is_plain {
            insert
        } else {
            details::bind_new(insert, &todo)
                .bind(i64::from(limits.tags))
                .bind(i64::from(limits.reminders))
        };
        match db.execute::<RowsAffected>(insert).await {
            Ok(RowsAffected(0)) => {
                Err(Box::pin(explain_no_insert(&work, caller, &todo, limits)).await)
            }
            Ok(_) => Ok(todo),
            Err(fault) if fault.is_foreign_key_violation() => Err(Error::Unauthenticated),
            Err(fault) => Err(fault.into()),
        }
    })
    .await
}

/// The quotas of a creation; 0 is no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) todos: u32,
    pub(super) tags: u32,
    pub(super) reminders: u32,
}

impl Limits {
    pub(super) fn of(core: &Core) -> Self {
        Self { todos: core.max_todos(), tags: core.max_tags(), reminders: core.max_reminders() }
    }
}

/// The error of reminders that have no room beside `used` others.
pub(super) fn no_room_for_reminders(limit: u32, used: i64) -> Error {
    let (of, used) = (Quota::Reminders, used.unsigned_abs());
    Error::QuotaExceeded { of, limit: limit.into(), used }
}

/// Binds a new todo without its details: 7 binds.
pub(super) fn bind_todo(statement: Statement, todo: &Todo) -> Statement {
    statement
        .bind(todo.id)
        .bind(todo.title.as_str())
        .bind(crate::validate::sort_key(todo.title.as_str()))
        .bind(todo.description.as_ref().map(Description::as_str))
        .bind(todo.priority)
        .bind(Timestamp(todo.created_at))
        .bind(fold::todo(&todo.title, &todo.tags, todo.description.as_ref()))
}

/// The todo that is inserted: as a later read returns it.
pub(super) fn new_todo(caller: Caller, new: NewTodo, now: DateTime<Utc>) -> Todo {
    let NewTodo { title, description, priority, details } = new;
    Todo {
        id: new_id(now).into(),
        user_id: caller.user_id(),
        title,
        description,
        priority,
        completed: false,
        created_at: now,
        updated_at: now,
        completed_at: None,
        tags: details.tags.unwrap_or_default(),
        due: details.due.flatten(),
        recurrence: details.recurrence.flatten(),
        reminders: details.reminders.unwrap_or_default(),
        list_id: details.list_id.flatten(),
    }
}

/// Returns whether the caller is authorized, and the number of the caller's todos, if the account
/// exists.
pub(super) fn count_todos(caller: Caller) -> Statement {
    const SQL: &str = concat!("SELECT ", authorized!(), ", ", used_quota!());
    acting_as(caller, SQL)
}

/// The reason why a todo was not inserted.
pub(super) async fn explain_no_insert(
    core: &Core,
    caller: Caller,
    todo: &Todo,
    limits: Limits,
) -> Error {
    let details = Details {
        tags: Some(todo.tags.clone()),
        list_id: Some(todo.list_id),
        reminders: Some(todo.reminders.clone()),
        ..Details::default()
    };
    let reason = async {
        let db = core.db();
        let (is_authorized, used): (bool, Option<i64>) = db.fetch_one(count_todos(caller)).await?;
        // The session has ended, or a trusted caller's account does not exist.
        let (true, Some(used)) = (is_authorized, used) else {
            return Err(Error::Unauthenticated);
        };
        let known: Known = db.fetch(Known::find(caller)).await?;
        known.judge_list(&details)?;
        if let Some(error) = quota_error(Quota::Todos, limits.todos, used) {
            return Err(error);
        }
        known.judge(&details, limits.tags)?;
        known.judge_reminders(details.number_of_reminders(), limits.reminders)?;
        // A todo that was deleted meanwhile made room.
        Err(Error::Busy)
    };
    match core.read_in_write::<Error>(caller.user_id(), reason).await {
        Ok(error) | Err(error) => error,
    }
}

/// The error of a user with `used` rows of a kind, if no more are allowed.
pub(super) fn quota_error(of: Quota, limit: u32, used: i64) -> Option<Error> {
    let (limit, used) = (u64::from(limit), used.unsigned_abs());
    (limit > 0 && used >= limit).then_some(Error::QuotaExceeded { of, limit, used })
}
