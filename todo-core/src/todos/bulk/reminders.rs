//! The quota of reminders in a bulk. Those of a patch are judged before it; those that come back
//! with todos that are reopened, restored or repeated are counted after the change, which is rolled
//! back if they have no room.

use std::collections::HashMap;

use super::{
    request::{Bulk, BulkOutcome},
    script::{Done, Run, Step},
    statements::{Circumstances, Places, Text, both, item_id, items},
};
use crate::{
    authz::authorized,
    db::{DbError, Row, Statement, batch::Next},
    error::{ItemError, Quota},
    ids::TodoId,
    todos::{Todo, details::Known, reminder_quota::open_reminders},
};

// Those of the items are replaced.
macro_rules! other_reminders {
    ($dialect:ident) => {
        concat!(
            "SELECT ",
            authorized!(),
            ", count(*) FROM reminders WHERE user_id = $1 AND fired_at IS NULL \
             AND todo_id NOT IN (SELECT ",
            item_id!($dialect),
            " FROM ",
            items!($dialect),
            ")"
        )
    };
}

macro_rules! added_reminders {
    ($dialect:ident) => {
        concat!(
            "SELECT ",
            authorized!(),
            ", ",
            open_reminders!(""),
            ", wanted_id, (SELECT count(*) FROM reminders AS own WHERE own.todo_id = wanted_id \
             AND own.fired_at IS NULL) FROM (SELECT ",
            item_id!($dialect),
            " AS wanted_id FROM ",
            items!($dialect),
            ") AS wanted"
        )
    };
}

/// The reminders of a user that have not fired.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    open: i64,
    /// Those of the todos that a change has added reminders to.
    added: HashMap<TodoId, i64>,
}

impl Counted {
    /// Receives a row of [`Step::Added`].
    pub(super) fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        self.open = row.get(1)?;
        self.added.insert(row.get::<uuid::Uuid>(2)?.into(), row.get(3)?);
        Ok(())
    }
}

impl Circumstances {
    /// Returns whether the caller is authorized, and the number of the caller's reminders that have
    /// not fired, but for those of the items.
    pub(super) fn count_other_reminders(&self, items: &Places) -> Statement {
        const SQL: Text = both!(other_reminders);
        self.about(&SQL, items)
    }

    /// The statement of a [`Counted`].
    fn count_added_reminders(&self, items: &Places) -> Statement {
        const SQL: Text = both!(added_reminders);
        self.about(&SQL, items)
    }
}

impl Run {
    /// Judges the reminders of a patch by those of the user's other todos.
    pub(super) fn judge_reminders(&mut self) -> Next<Done> {
        let items = i64::try_from(self.pending().len()).unwrap_or(i64::MAX);
        let more = match &self.request.bulk {
            Bulk::Patch { patch, .. } => patch.details.number_of_reminders().saturating_mul(items),
            _ => 0,
        };
        let reminders = self.other_reminders.unwrap_or_default();
        let others = Known { reminders, ..Known::default() };
        match others.judge_reminders(more, self.circumstances.max_reminders) {
            Ok(()) => self.survey(),
            Err(error) => Next::RollBack(Done::Failed(error)),
        }
    }

    /// Counts the reminders that the change has added, if it may have.
    pub(super) fn after_repetition(&mut self) -> Next<Done> {
        let added: Places = self.reminding().map(|(_, id)| id).zip(0..).collect();
        if added.is_empty() || self.circumstances.max_reminders == 0 {
            return self.settle();
        }
        let count = self.circumstances.count_added_reminders(&added);
        self.run(Step::Added, count)
    }

    /// The todos that the change may have given reminders, each with the item that it belongs to.
    fn reminding(&self) -> impl DoubleEndedIterator<Item = (TodoId, TodoId)> {
        self.items.iter().filter_map(|(id, _)| {
            let (BulkOutcome::Changed(Todo { reminders, completed, .. })
            | BulkOutcome::Completed { todo: Todo { reminders, completed, .. }, .. }) =
                self.outcomes.get(id)?
            else {
                return None;
            };
            if reminders.is_empty() {
                return None;
            }
            match &self.request.bulk {
                Bulk::Restore(_) => (!completed).then_some((*id, *id)),
                Bulk::Complete { completed: false, .. } => {
                    self.was_completed.contains(id).then_some((*id, *id))
                }
                Bulk::Complete { .. } => {
                    self.occurrences.inserted_after(*id).map(|next| (*id, next))
                }
                Bulk::Create(_) | Bulk::Patch { .. } | Bulk::Delete(_) => None,
            }
        })
    }

    /// Fails the last items whose reminders have no room.
    pub(super) fn after_added(&mut self) -> Next<Done> {
        let limit = i64::from(self.circumstances.max_reminders);
        let Counted { mut open, added } = std::mem::take(&mut self.counted);
        let mut crowded = Vec::new();
        for (item, todo) in self.reminding().rev() {
            if open <= limit {
                break;
            }
            let more = added.get(&todo).copied().unwrap_or_default();
            if more > 0 {
                open -= more;
                crowded.push(item);
            }
        }
        if crowded.is_empty() {
            return self.settle();
        }
        let (limit, used) = (limit.unsigned_abs(), open.unsigned_abs());
        let error = ItemError::QuotaExceeded { of: Quota::Reminders, limit, used };
        if self.request.is_partial {
            let failed = crowded.into_iter().map(|id| (id, error.clone())).collect();
            return Next::RollBack(Done::Crowded(failed));
        }
        for id in crowded {
            self.outcomes.insert(id, BulkOutcome::Failed(error.clone()));
        }
        match self.failure() {
            Some(failure) => Next::RollBack(Done::Failed(failure)),
            None => self.settle(),
        }
    }
}
