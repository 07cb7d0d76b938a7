//! Recurring todos, on the store and on the model: their rules are of days, and neither their due
//! dates nor their rules are changed.

use chrono::{DateTime, Days, NaiveDate, Utc};
use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};
use todo_core::{
    Core,
    auth::Caller,
    todos::{self, Details, Due, NewTodo, Recurrence, Rule, Todo, TodoId, TodoPatch},
};

use super::{
    Model,
    calls::{self, due},
    complete_todo, failed, patch_todo,
};
use crate::filters::reference;

/// The series of a todo, and its day of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occurrence {
    /// The first todo of the series.
    first: TodoId,
    /// None if the todo was restored beside the one that took its day.
    day: Option<NaiveDate>,
}

/// A new todo that recurs.
pub(super) fn new_todo() -> impl Strategy<Value = NewTodo> {
    (calls::new_todo(), due(), 1_u32..=3).prop_map(|(mut new, due, days)| {
        let rule = Rule::parse(&format!("FREQ=DAILY;INTERVAL={days}")).expect("a rule");
        new.details.due = Some(Some(due));
        new.details.recurrence = Some(Some(Recurrence::new(rule)));
        new
    })
}

/// The day in the time zone of a due date; no user of the tests has set another.
fn today(due: &Due, now: DateTime<Utc>) -> NaiveDate {
    (now + reference::offset(due.time_zone())).date_naive()
}

/// The due date of the next occurrence: the first of the rule after that of the todo and today.
fn next_due(due: &Due, recurrence: &Recurrence, now: DateTime<Utc>) -> Due {
    let interval = recurrence.rule.as_str().strip_prefix("FREQ=DAILY");
    let interval = interval.expect("a rule of the tests").strip_prefix(";INTERVAL=");
    let interval = Days::new(interval.map_or(1, |days| days.parse().expect("a number")));
    let mut date = due.date() + interval;
    while date <= today(due, now) {
        date = date + interval;
    }
    match (due.time(), due.time_zone()) {
        (Some(time), Some(zone)) => Due::at_time(date, time, zone.clone()).expect("a due date"),
        _ => Due::on(date).expect("a due date"),
    }
}

impl Model {
    /// Begins the series of a new todo, if it recurs.
    pub(super) fn begin_series(&mut self, todo: &Todo) {
        if todo.recurrence.is_some() {
            let day = todo.due.as_ref().map(Due::date);
            self.series.insert(todo.id, Occurrence { first: todo.id, day });
        }
    }

    /// Whether two todos are of one series.
    pub(super) fn are_together(&self, one: TodoId, other: TodoId) -> bool {
        let first = |id| self.series.get(id).map(|occurrence| occurrence.first);
        one == other || first(&one).is_some_and(|one| first(&other) == Some(one))
    }

    /// The details without those that are not modelled, for a change of these todos.
    pub(super) fn modelled(&self, details: &Details, ids: &[TodoId]) -> Details {
        let mut details = details.clone();
        if ids.iter().any(|id| self.series.contains_key(id)) {
            details.due = None;
        }
        details
    }

    /// Gives a restored todo its day again, unless another one has it.
    pub(super) fn restore_day(&mut self, id: TodoId) {
        let Some(occurrence) = self.series.get(&id).copied() else { return };
        let is_taken = self.kept.keys().any(|other| {
            let day = self.series.get(other).and_then(|other| other.day);
            *other != id && self.are_together(id, *other) && day == occurrence.day
        });
        if is_taken {
            self.series.insert(id, Occurrence { day: None, ..occurrence });
        }
    }

    /// The todos of its series after a todo, by day.
    fn later(&self, todo: &Todo) -> Vec<(NaiveDate, &Todo)> {
        let date = todo.due.as_ref().map(Due::date);
        let mut later: Vec<_> = self
            .todos_of(todo.user_id)
            .filter(|other| other.id != todo.id && self.are_together(todo.id, other.id))
            .filter_map(|other| Some((self.series[&other.id].day?, other)))
            .filter(|(day, _)| Some(*day) > date)
            .collect();
        later.sort_by_key(|(day, _)| *day);
        later
    }

    /// Makes or deletes the todo after one that was completed or reopened, and compares it.
    /// `was_open` is whether the todo was open before.
    pub(super) async fn follow_completion(
        &mut self,
        core: &Core,
        caller: &Caller,
        id: TodoId,
        was_open: bool,
        next_id: Option<TodoId>,
    ) -> Result<(), TestCaseError> {
        let todo = self.kept[&id].clone();
        let (Some(due), Some(recurrence)) = (&todo.due, &todo.recurrence) else {
            prop_assert_eq!(next_id, None);
            return Ok(());
        };
        let later = self.later(&todo);
        let first = later.first().map(|(_, other)| (*other).clone());
        if !todo.completed {
            prop_assert_eq!(next_id, None);
            if let Some(first) = first.filter(|_| !was_open)
                && !first.completed
                && first.updated_at == first.created_at
            {
                self.kept.remove(&first.id);
                self.leave_order(first.id);
                self.add_changes(todo.user_id, 1);
            }
            return Ok(());
        }
        let next = next_due(due, recurrence, self.now);
        let is_followed = later.iter().any(|(day, todo)| !todo.completed || *day == next.date());
        if !was_open || is_followed {
            prop_assert_eq!(next_id, first.map(|first| first.id));
            return Ok(());
        }
        let made = next_id.ok_or_else(|| TestCaseError::fail("no next one"))?;
        let is = todos::get(core, caller, made).await.map_err(failed)?;
        let mut expected = todo.clone();
        expected.id = made;
        expected.due = Some(next.clone());
        expected.completed = false;
        expected.completed_at = None;
        expected.created_at = is.created_at;
        expected.updated_at = is.created_at;
        prop_assert_eq!(&is, &expected);
        self.add(is);
        let first = self.series[&id].first;
        self.series.insert(made, Occurrence { first, day: Some(next.date()) });
        Ok(())
    }
}

/// Completes one of the user's recurring todos, changes the one after it if there is a patch, and
/// completes or reopens the first one again; on the store and on the model.
pub(super) async fn complete_twice(
    core: &Core,
    caller: &Caller,
    which: &Index,
    patch: Option<&TodoPatch>,
    completed: bool,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let recurring = model.todos_of(caller.user_id()).filter(|todo| todo.recurrence.is_some());
    let ids: Vec<TodoId> = recurring.map(|todo| todo.id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let id = *which.get(&ids);
    let next = complete_todo(core, caller, id, true, model).await?;
    if let (Some(next), Some(patch)) = (next, patch) {
        patch_todo(core, caller, next, patch, model).await?;
    }
    complete_todo(core, caller, id, completed, model).await.map(drop)
}
