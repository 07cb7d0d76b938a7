//! First positions of todos.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::keys::{Assignment, PIECE, assign};
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        DbError, Dialect, Row, Statement,
        batch::{Next, Script},
        value::Timestamp,
    },
    error::{Error, Result},
    todos::{
        bulk::{Text, both, for_update},
        order_key::OrderKey,
        version::FIRST,
    },
};

/// A place in the order of todos without a position: creation and id.
type Place = (DateTime<Utc>, Uuid);

/// Gives positions, in the present order, to the caller's todos without one until a todo: at the
/// end of those with one.
pub(super) async fn place_until(core: &Core, caller: Caller, until: Place) -> Result<()> {
    let mut after = (FIRST, Uuid::nil());
    loop {
        let db = core.db();
        let user = caller.user_id();
        let piece = Piece {
            caller,
            dialect: db.dialect(),
            after,
            until,
            step: Step::Begin,
            is_authorized: false,
            found: 0,
            last_found: after,
            todos: Vec::new(),
            last_keys: [None, None],
        };
        let done = core
            .write(user, async move { Ok(db.execute_script(Some(user.as_uuid()), piece).await?) })
            .await?;
        let Some((found, last)) = done else { return Err(Error::Unauthenticated) };
        if found < PIECE {
            return Ok(());
        }
        after = last;
    }
}

/// Finds the next todos without a position, and the last position, and assigns keys after it.
///
/// On PostgreSQL two of these, for one user, wait for each other at the first todo. So the last
/// position is read by a statement of its own, after the wait.
#[derive(Clone)]
struct Piece {
    caller: Caller,
    dialect: Dialect,
    after: Place,
    until: Place,
    step: Step,
    is_authorized: bool,
    /// The number of todos that were found, and the last one.
    found: i64,
    last_found: Place,
    /// Those that have no position yet, in their order.
    todos: Vec<Uuid>,
    /// The last keys of open and of completed todos.
    last_keys: [Option<String>; 2],
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    Find,
    Last,
    Assign,
}

/// The number of todos that were found, and the last of them; `None` without a session.
type Done = Option<(i64, Place)>;

impl Piece {
    fn find(&self) -> Statement {
        macro_rules! unplaced {
            ($completed:literal) => {
                concat!(
                    "SELECT * FROM (SELECT id, created_at FROM todos WHERE user_id = $1 \
                     AND completed = ",
                    $completed,
                    " AND position IS NULL AND (created_at, id) > ($4, $5) \
                     AND (created_at, id) <= ($6, $7) ORDER BY created_at, id LIMIT $8) AS part"
                )
            };
        }
        macro_rules! find {
            ($dialect:ident) => {
                concat!(
                    "WITH picked AS MATERIALIZED (SELECT id, created_at FROM (",
                    unplaced!("FALSE"),
                    " UNION ALL ",
                    unplaced!("TRUE"),
                    ") AS unplaced ORDER BY created_at, id LIMIT $8), \
                     locked AS MATERIALIZED (SELECT id FROM todos \
                     WHERE id IN (SELECT id FROM picked) AND position IS NULL ORDER BY id",
                    for_update!($dialect, "todos"),
                    ") SELECT ",
                    authorized!(),
                    ", picked.id, picked.created_at, locked.id IS NOT NULL \
                     FROM (SELECT 1 AS one) AS one LEFT JOIN picked ON TRUE \
                     LEFT JOIN locked ON locked.id = picked.id ORDER BY picked.created_at, picked.id"
                )
            };
        }
        const SQL: Text = both!(find);
        acting_as(self.caller, SQL.of(self.dialect))
            .bind(Timestamp(self.after.0))
            .bind(self.after.1)
            .bind(Timestamp(self.until.0))
            .bind(self.until.1)
            .bind(PIECE)
    }

    fn last(&self) -> Statement {
        macro_rules! last {
            ($completed:literal) => {
                concat!(
                    "(SELECT position FROM todos WHERE user_id = $1 AND completed = ",
                    $completed,
                    " AND position IS NOT NULL ORDER BY position DESC LIMIT 1)"
                )
            };
        }
        const SQL: &str =
            concat!("SELECT ", authorized!(), ", ", last!("FALSE"), ", ", last!("TRUE"));
        acting_as(self.caller, SQL)
    }

    fn assign(&self) -> Result<Statement, DbError> {
        let last = self.last_keys.iter().flatten().max();
        let last = match last {
            Some(key) => OrderKey::from_stored(key).ok_or(DbError::Value("position"))?,
            None => OrderKey::first(),
        };
        // All of them need one key at the end, and the others are before that.
        let end = OrderKey::after(&last);
        let keys = OrderKey::fill(&last, &end, self.todos.len());
        let assignment = |(id, key): (&Uuid, OrderKey)| -> Assignment { (*id, None, key) };
        Ok(assign(self.caller, self.dialect, self.todos.iter().zip(keys).map(assignment)))
    }

    fn done(&self) -> Done {
        self.is_authorized.then_some((self.found, self.last_found))
    }
}

impl Script for Piece {
    type Output = Done;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        match self.step {
            Step::Find => {
                self.is_authorized = row.get(0)?;
                if let Some(id) = row.get::<Option<Uuid>>(1)? {
                    self.found += 1;
                    self.last_found = (row.get::<Timestamp>(2)?.0, id);
                    if row.get(3)? {
                        self.todos.push(id);
                    }
                }
            }
            Step::Last => {
                self.is_authorized = row.get(0)?;
                self.last_keys = [row.get(1)?, row.get(2)?];
            }
            Step::Begin | Step::Assign => {}
        }
        Ok(())
    }

    fn next(&mut self, _rows: u64) -> Result<Next<Done>, DbError> {
        Ok(match self.step {
            Step::Begin => {
                self.step = Step::Find;
                Next::Run(self.find())
            }
            Step::Find if self.todos.is_empty() => Next::RollBack(self.done()),
            Step::Find => {
                self.step = Step::Last;
                Next::Run(self.last())
            }
            Step::Last if !self.is_authorized => Next::RollBack(None),
            Step::Last => {
                self.step = Step::Assign;
                Next::Run(self.assign()?)
            }
            Step::Assign => Next::Commit(self.done()),
        })
    }
}
