//! Moves of one todo.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{places::place_until, rekey::rekey};
use crate::{
    authz::{Caller, authorized},
    core::Core,
    db::{
        Db, DbError, FromRow, Row, Statement,
        value::{OneMicrosecond, Timestamp},
    },
    error::{Error, FieldError, FieldErrors, Result},
    ids::{ListId, TodoId},
    todos::{
        Target, Todo,
        change::next_updated_at,
        details::{is_own_list, unknown_list},
        order_key::{MAX_CHARS, OrderKey},
        todo_columns,
        version::{changing, is_target},
    },
};

/// Attempts of a move: the others prepare the order for it.
const ATTEMPTS: usize = 4;

/// Moves a todo after another one of the caller, or before all of them if `after` is `None`, in the
/// caller's one order of all todos; and into another list, if `list` is given (`Some(None)` is the
/// inbox).
///
/// Usually it is two statements. If `after` has no position yet, those todos that are older and
/// have none get one, once for each todo, 500 at a time; if there is no short key between its new
/// neighbours, all of the caller's todos with a position get new ones, also 500 at a time. Neither
/// changes the order, or another todo's `updated_at`. Moves at the same time, of several todos to
/// one place, may interleave.
///
/// # Errors
/// [`Error::Invalid`] if `after` is the todo itself or none of the caller, or the list is none of
/// the caller; [`Error::PreconditionFailed`] if the todo has no version that `target` allows; else
/// as [`get`](crate::todos::get).
pub async fn move_todo(
    core: &Core,
    caller: &Caller,
    target: impl Into<Target>,
    after: Option<TodoId>,
    list: Option<Option<ListId>>,
) -> Result<Todo> {
    let request = Move { caller: *caller, target: target.into(), after, list };
    if after == Some(request.target.id()) {
        return Err(bad_after().into());
    }
    for _ in 0..ATTEMPTS {
        let db = core.db();
        let now = core.now();
        match core.write(caller.user_id(), async move { request.run(&db, now).await }).await? {
            Outcome::Moved(todo) => return Ok(*todo),
            Outcome::NeedsPlaces { created_at, id } => {
                place_until(core, *caller, (created_at, id)).await?;
            }
            Outcome::NeedsKeys => rekey(core, *caller).await?,
        }
    }
    Err(Error::Busy)
}

/// A move.
#[derive(Clone, Copy)]
struct Move {
    caller: Caller,
    target: Target,
    after: Option<TodoId>,
    list: Option<Option<ListId>>,
}

enum Outcome {
    Moved(Box<Todo>),
    /// The todo after which it is moved has no position.
    NeedsPlaces {
        created_at: DateTime<Utc>,
        id: Uuid,
    },
    /// There is no short key between the neighbours.
    NeedsKeys,
}

/// What is known before a move.
struct Survey {
    is_authorized: bool,
    owner: Option<Uuid>,
    is_allowed: bool,
    is_own_list: bool,
    /// The creation of the todo before its place, and the key; none if the caller has no such todo.
    after: Option<(DateTime<Utc>, Option<String>)>,
    /// The keys of the todos behind its place: of the next open and the next completed one.
    next: [Option<String>; 2],
}

impl FromRow for Survey {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let after = match row.get::<Option<Timestamp>>(4)? {
            Some(Timestamp(created_at)) => Some((created_at, row.get(5)?)),
            None => None,
        };
        Ok(Self {
            is_authorized: row.get(0)?,
            owner: row.get(1)?,
            is_allowed: row.get(2)?,
            is_own_list: row.get(3)?,
            after,
            next: [row.get(6)?, row.get(7)?],
        })
    }
}

impl Move {
    async fn run(self, db: &Db, now: DateTime<Utc>) -> Result<Outcome> {
        let survey: Survey = db.fetch_one(self.survey()).await?;
        self.check(&survey)?;
        let after = match (self.after, &survey.after) {
            (Some(id), Some((created_at, None))) => {
                return Ok(Outcome::NeedsPlaces { created_at: *created_at, id: id.as_uuid() });
            }
            (Some(_), Some((_, Some(key)))) => Some(parsed(key)?),
            (None, _) | (_, None) => None,
        };
        let next = survey.next.iter().flatten().min().map(|key| parsed(key)).transpose()?;
        let key = OrderKey::between(after.as_ref(), next.as_ref())
            .map(|key| key.of_todo(self.target.id().as_uuid()).to_stored());
        let Some(key) = key.filter(|key| key.len() <= MAX_CHARS) else {
            return Ok(Outcome::NeedsKeys);
        };
        if let Some(todo) = db.execute(self.update(key, now)).await? {
            return Ok(Outcome::Moved(Box::new(todo)));
        }
        // Changed meanwhile, on PostgreSQL or between two statements of SQLite.
        let survey: Survey = db.fetch_one(self.survey()).await?;
        self.check(&survey)?;
        Err(Error::Busy)
    }

    /// The statement that returns the [`Survey`].
    fn survey(self) -> Statement {
        // The todo behind a place is the first one after it in the order; without a todo before the
        // place, the first of all, since every key is greater than the empty text.
        macro_rules! next {
            ($completed:literal) => {
                concat!(
                    "(SELECT position FROM todos WHERE user_id = $1 AND completed = ",
                    $completed,
                    " AND position IS NOT NULL AND (position, created_at, id) > \
                     (coalesce(after_position, ''), after_created_at, after_id) AND id <> $4 \
                     ORDER BY position, created_at, id LIMIT 1)"
                )
            };
        }
        const SQL: &str = concat!(
            "SELECT ",
            authorized!(),
            ", (SELECT user_id FROM todos WHERE id = $4), \
             EXISTS (SELECT 1 FROM todos WHERE ",
            is_target!(),
            "), ",
            is_own_list!("$11"),
            ", after_created_at, after_position, ",
            next!("FALSE"),
            ", ",
            next!("TRUE"),
            " FROM (SELECT 1 AS one) AS one LEFT JOIN (SELECT id AS after_id, \
             position AS after_position, created_at AS after_created_at FROM todos \
             WHERE id = $10 AND user_id = $1) AS after_todo ON TRUE"
        );
        changing(self.caller, self.target, SQL)
            .bind(self.after.map(Uuid::from))
            .bind(self.list.flatten().map(Uuid::from))
    }

    fn update(self, key: String, now: DateTime<Utc>) -> Statement {
        const SQL: &str = concat!(
            "UPDATE todos SET position = $10, \
             list_id = CASE WHEN $11 THEN $12 ELSE list_id END, updated_at = ",
            next_updated_at!("$13", "$14"),
            " WHERE ",
            is_target!(),
            " AND ",
            authorized!(),
            " AND ",
            is_own_list!("$12"),
            " RETURNING ",
            todo_columns!()
        );
        changing(self.caller, self.target, SQL)
            .bind(key)
            .bind(self.list.is_some())
            .bind(self.list.flatten().map(Uuid::from))
            .bind(Timestamp(now))
            .bind(OneMicrosecond)
    }

    /// Fails if the move is not possible.
    fn check(self, survey: &Survey) -> Result<()> {
        if !survey.is_authorized {
            return Err(Error::Unauthenticated);
        }
        match survey.owner {
            None => return Err(Error::NotFound),
            Some(owner) if owner != self.caller.user_id().as_uuid() => {
                return Err(Error::Forbidden);
            }
            Some(_) => {}
        }
        let mut errors = FieldErrors::none();
        if self.after.is_some() && survey.after.is_none() {
            errors.push(bad_after());
        }
        if !survey.is_own_list {
            errors.push(unknown_list());
        }
        errors.into_result(|| ())?;
        if survey.is_allowed { Ok(()) } else { Err(Error::PreconditionFailed) }
    }
}

fn parsed(key: &str) -> Result<OrderKey, DbError> {
    OrderKey::from_stored(key).ok_or(DbError::Value("position"))
}

fn bad_after() -> FieldError {
    FieldError::new("after", "unknown", "After must be the id of another one of your todos.")
}
