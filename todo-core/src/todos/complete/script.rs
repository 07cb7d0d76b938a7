//! The transaction that completes or reopens a todo with a recurrence.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Completion;
use crate::{
    authz::{Caller, acting_as, authorized},
    core::Core,
    db::{
        DbError, Dialect, FromRow, Row, Statement,
        batch::{Next as Then, Script},
        value::{OneMicrosecond, Timestamp},
    },
    error::{Error, Quota},
    todos::{
        Target, Todo, TodoId,
        bulk::{Text, both, for_update},
        change::{completed_columns, next_updated_at},
        create::{is_below_quota, no_room_for_reminders, quota_error, used_quota},
        reminder_quota::open_reminders,
        series::{
            Next, is_followed, is_untouched, later_todo, next_columns, next_values, unless_taken,
        },
        todo::todo_columns,
    },
};

/// The outcome of a transaction.
pub(super) enum Outcome {
    Done(Box<Completion>),
    /// Nothing was changed: the todo is not as it was read.
    Moved,
    /// Nothing was changed.
    Failed(Error),
}

/// The statement that runs.
///
/// The next one is inserted before the todo is updated: the update locks the counter of the user,
/// and with it nothing may wait, while another transaction may hold the day of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    /// Locks the todo and the one after it.
    Lock,
    /// Inserts the next one.
    Insert,
    /// Looks for a later one.
    Look,
    Update,
    /// Deletes the next one.
    Unmake,
    /// Counts the reminders.
    Count,
}

/// The row of [`Step::Look`].
#[derive(Clone, Copy, Debug)]
struct Seen {
    is_authorized: bool,
    used: Option<i64>,
    later: Option<TodoId>,
    is_followed: bool,
}

/// The row of [`Step::Count`]: the reminders of the user that have not fired, and those among them
/// that this change has added.
#[derive(Clone, Copy, Debug)]
struct Counted {
    open: i64,
    added: i64,
}

/// The completion or reopening of a todo that was read.
#[derive(Clone)]
pub(super) struct Completing {
    caller: Caller,
    dialect: Dialect,
    max_todos: u32,
    max_reminders: u32,
    now: DateTime<Utc>,
    id: TodoId,
    completed: bool,
    /// The version that was read.
    seen: DateTime<Utc>,
    /// Whether it was as it is to be. Another version may be so too.
    is_repeated: bool,
    is_conditional: bool,
    next: Option<Next>,
    step: Step,
    todo: Option<Todo>,
    inserted: Option<TodoId>,
    found: Option<Seen>,
    counted: Option<Counted>,
}

impl Completing {
    pub(super) fn new(
        core: &Core,
        caller: Caller,
        target: Target,
        todo: &Todo,
        completed: bool,
        next: Option<Next>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            caller,
            dialect: core.db().dialect(),
            max_todos: core.max_todos(),
            max_reminders: core.max_reminders(),
            now,
            id: todo.id,
            completed,
            seen: todo.updated_at,
            is_repeated: todo.completed == completed,
            is_conditional: target.is_conditional(),
            next,
            step: Step::Begin,
            todo: None,
            inserted: None,
            found: None,
            counted: None,
        }
    }

    fn run(&mut self, step: Step, statement: Statement) -> Then<Outcome> {
        self.step = step;
        Then::Run(statement)
    }

    /// Locks in the order of a bulk: else each could wait for what the other holds.
    fn lock(&mut self) -> Then<Outcome> {
        macro_rules! lock {
            ($dialect:ident) => {
                concat!(
                    "SELECT id FROM todos WHERE user_id = $1 AND id IN \
                     (SELECT id FROM todos WHERE id = $4 UNION ALL SELECT ",
                    later_todo!("done"),
                    " FROM todos AS done WHERE done.id = $4) AND ",
                    authorized!(),
                    " ORDER BY id",
                    for_update!($dialect, "todos")
                )
            };
        }
        const SQL: Text = both!(lock);
        let lock = acting_as(self.caller, SQL.of(self.dialect)).bind(self.id);
        self.run(Step::Lock, lock)
    }

    fn update(&mut self) -> Then<Outcome> {
        const SQL: &str = concat!(
            "UPDATE todos SET ",
            completed_columns!("$5", "$6", "$7"),
            " WHERE id = $4 AND user_id = $1 AND (updated_at = $8 OR ($9 AND completed = $5)) AND ",
            authorized!(),
            " RETURNING ",
            todo_columns!()
        );
        let update = acting_as(self.caller, SQL)
            .bind(self.id)
            .bind(self.completed)
            .bind(Timestamp(self.now))
            .bind(OneMicrosecond)
            .bind(Timestamp(self.seen))
            .bind(self.is_repeated && !self.is_conditional);
        self.run(Step::Update, update)
    }

    fn after_update(&mut self) -> Then<Outcome> {
        if self.todo.is_none() {
            return Then::RollBack(Outcome::Moved);
        }
        match (self.completed, &self.next) {
            (true, Some(_)) => self.count(self.inserted),
            (true, None) => self.look(),
            (false, _) if self.is_repeated => self.done(None),
            (false, _) => self.unmake(),
        }
    }

    fn insert(&mut self, next: &Next) -> Then<Outcome> {
        const SQL: &str = concat!(
            "INSERT INTO todos (",
            next_columns!(),
            ") SELECT ",
            next_values!("$5", "$6", "$7", "$8", "$9", "$10"),
            " FROM todos AS done WHERE done.id = $4 AND done.user_id = $1 AND done.updated_at = $12 \
             AND ",
            authorized!(),
            " AND ",
            is_below_quota!("$11"),
            " AND NOT ",
            is_followed!("done", "$7"),
            unless_taken!()
        );
        let insert = acting_as(self.caller, SQL)
            .bind(self.id)
            .bind(next.id)
            .bind(Timestamp(self.now))
            .bind(next.date())
            .bind(next.at())
            .bind(next.key())
            .bind(next.rule())
            .bind(i64::from(self.max_todos))
            .bind(Timestamp(self.seen));
        self.run(Step::Insert, insert)
    }

    fn look(&mut self) -> Then<Outcome> {
        const SQL: &str = concat!(
            "SELECT ",
            authorized!(),
            ", ",
            used_quota!(),
            ", ",
            later_todo!("done"),
            ", ",
            is_followed!("done", "$5"),
            " FROM todos AS done WHERE done.id = $4 AND done.user_id = $1 \
             AND ($6 OR done.updated_at = $7)"
        );
        let date = self.next.as_ref().map(Next::date);
        let look = acting_as(self.caller, SQL)
            .bind(self.id)
            .bind(date)
            .bind(self.todo.is_some())
            .bind(Timestamp(self.seen));
        self.run(Step::Look, look)
    }

    fn after_look(&mut self) -> Then<Outcome> {
        let Some(found) = self.found else { return Then::RollBack(Outcome::Moved) };
        if !found.is_authorized {
            return Then::RollBack(Outcome::Failed(Error::Unauthenticated));
        }
        if self.todo.is_some() {
            return self.done(found.later);
        }
        if found.is_followed {
            return self.update();
        }
        let used = found.used.unwrap_or_default();
        // A todo that was deleted meanwhile made room.
        let error = quota_error(Quota::Todos, self.max_todos, used).unwrap_or(Error::Busy);
        Then::RollBack(Outcome::Failed(error))
    }

    fn unmake(&mut self) -> Then<Outcome> {
        const SQL: &str = concat!(
            "DELETE FROM todos WHERE user_id = $1 AND id IN (SELECT ",
            later_todo!("done"),
            " FROM todos AS done WHERE done.id = $4 AND done.user_id = $1) AND ",
            is_untouched!(),
            " AND ",
            authorized!()
        );
        let delete = acting_as(self.caller, SQL).bind(self.id);
        self.run(Step::Unmake, delete)
    }

    /// Counts the reminders, if `added` is a todo that may have some, by which this change exceeds
    /// the quota.
    fn count(&mut self, added: Option<TodoId>) -> Then<Outcome> {
        const SQL: &str = concat!(
            "SELECT ",
            open_reminders!(""),
            ", ",
            open_reminders!(" AND open.todo_id = $2")
        );
        let reminds = self.todo.as_ref().is_some_and(|todo| !todo.reminders.is_empty());
        let Some(added) = added.filter(|_| reminds && self.max_reminders > 0) else {
            return self.after_count();
        };
        let count = Statement::new(SQL).bind(self.caller.user_id()).bind(added);
        self.run(Step::Count, count)
    }

    fn after_count(&mut self) -> Then<Outcome> {
        match self.counted {
            Some(Counted { open, added }) if added > 0 && open > i64::from(self.max_reminders) => {
                let error = no_room_for_reminders(self.max_reminders, open - added);
                Then::RollBack(Outcome::Failed(error))
            }
            _ if self.completed => {
                let later = self.found.and_then(|found| found.later);
                self.done(self.inserted.or(later))
            }
            _ => self.done(None),
        }
    }

    fn done(&mut self, next_id: Option<TodoId>) -> Then<Outcome> {
        match self.todo.take() {
            Some(todo) => Then::Commit(Outcome::Done(Completion { todo, next_id }.into())),
            None => Then::RollBack(Outcome::Moved),
        }
    }
}

impl Script for Completing {
    type Output = Outcome;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        match self.step {
            Step::Update => self.todo = Some(Todo::from_row(row)?),
            Step::Insert => self.inserted = Some(row.get::<Uuid>(0)?.into()),
            Step::Look => {
                self.found = Some(Seen {
                    is_authorized: row.get(0)?,
                    used: row.get(1)?,
                    later: row.get::<Option<Uuid>>(2)?.map(TodoId::from),
                    is_followed: row.get(3)?,
                });
            }
            Step::Count => {
                self.counted = Some(Counted { open: row.get(0)?, added: row.get(1)? });
            }
            Step::Begin | Step::Lock | Step::Unmake => {}
        }
        Ok(())
    }

    fn next(&mut self, _rows: u64) -> Result<Then<Outcome>, DbError> {
        let next = self.next.clone().filter(|_| self.completed);
        Ok(match self.step {
            // SQLite has one writer: it locks nothing.
            Step::Begin
                if self.dialect == Dialect::Postgres && (next.is_some() || !self.completed) =>
            {
                self.lock()
            }
            Step::Begin | Step::Lock => match next {
                Some(next) => self.insert(&next),
                None => self.update(),
            },
            Step::Insert if self.inserted.is_some() => self.update(),
            Step::Insert => self.look(),
            Step::Look => self.after_look(),
            Step::Update => self.after_update(),
            Step::Unmake => self.count(Some(self.id)),
            Step::Count => self.after_count(),
        })
    }
}
