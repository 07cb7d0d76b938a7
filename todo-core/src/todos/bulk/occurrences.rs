//! The steps of a bulk that completes or reopens recurring todos: which next occurrences it inserts
//! and deletes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    recurring::{Plan, State},
    request::{Bulk, BulkOutcome},
    script::{Done, Run, Step},
    statements::Places,
};
use crate::{
    db::{Dialect, batch::Next as Then},
    error::{Error, ItemError, Quota},
    ids::TodoId,
    todos::series::Next,
};

/// What is known of the items that recur.
#[derive(Clone, Default)]
pub(super) struct Occurrences {
    /// Whether an item recurs.
    pub(super) recurs: bool,
    plan: Arc<Plan>,
    /// Whether the plan lacks a todo, or has another version of it.
    is_outdated: bool,
    /// The next occurrences that are to be inserted, and of which todos.
    next: Vec<(TodoId, Next)>,
    /// The next occurrences of the items that have some.
    next_ids: HashMap<TodoId, TodoId>,
    /// Those of `next_ids` that this bulk has inserted.
    inserted: HashMap<TodoId, TodoId>,
    /// The items that are reopened.
    reopened: HashSet<TodoId>,
    /// The number of the user's todos.
    used: u64,
}

impl Occurrences {
    pub(super) fn is_planned(&self) -> bool {
        !self.is_outdated
    }

    pub(super) fn next_id(&self, id: TodoId) -> Option<TodoId> {
        self.next_ids.get(&id).copied()
    }

    /// Decides what the completion of an item begins, or its reopening ends.
    pub(super) fn decide(&mut self, state: &State, completes: bool) {
        self.used = state.used.unsigned_abs();
        if !completes {
            self.reopened.extend(state.completed.then_some(state.id));
            return;
        }
        self.look_again(state);
        if state.completed {
            return;
        }
        match self.plan.next(state.id, state.version) {
            None => self.is_outdated = true,
            Some(Some(next)) if !state.is_followed => self.next.push((state.id, next.clone())),
            Some(_) => {}
        }
    }

    /// Notes the occurrence that was inserted.
    pub(super) fn inserted(&mut self, id: TodoId) {
        if let Some(index) = self.next.iter().position(|(_, next)| next.id == id) {
            let (done, _) = self.next.swap_remove(index);
            self.next_ids.insert(done, id);
            self.inserted.insert(done, id);
        }
    }

    /// The next occurrence of an item that this bulk has inserted.
    pub(super) fn inserted_after(&self, id: TodoId) -> Option<TodoId> {
        self.inserted.get(&id).copied()
    }

    /// Notes the occurrence after an item.
    pub(super) fn look_again(&mut self, state: &State) {
        self.next_ids.extend(state.later.map(|later| (state.id, later)));
    }
}

impl Run {
    /// As this run, with the next occurrences of its items.
    pub(super) fn planned(mut self, plan: Plan) -> Self {
        self.occurrences.plan = Arc::new(plan);
        self
    }

    /// Looks at the items that recur, if their next occurrences depend on them.
    pub(super) fn after_survey(&mut self) -> Then<Done> {
        if !self.occurrences.recurs || !matches!(self.request.bulk, Bulk::Complete { .. }) {
            return self.change();
        }
        let states = self.circumstances.states(&self.pending());
        self.run(Step::States, states)
    }

    /// Fails the items whose next occurrence has no room, in their order, and goes on.
    pub(super) fn after_states(&mut self) -> Then<Done> {
        let order: HashMap<TodoId, usize> = self.items.iter().copied().collect();
        let Occurrences { next, used, .. } = &mut self.occurrences;
        next.sort_by_key(|(id, _)| order.get(id).copied());
        let (limit, used) = (self.circumstances.max_todos.unsigned_abs(), *used);
        if limit > 0 {
            let room = usize::try_from(limit.saturating_sub(used)).unwrap_or(usize::MAX);
            for (id, _) in next.split_off(room.min(next.len())) {
                let error = ItemError::QuotaExceeded { of: Quota::Todos, limit, used };
                self.outcomes.insert(id, BulkOutcome::Failed(error));
            }
        }
        // SQLite has one writer: it locks nothing.
        if !self.occurrences.reopened.is_empty() && self.circumstances.dialect == Dialect::Postgres
        {
            let lock = self.circumstances.lock_next(&self.pending());
            return self.run(Step::LockNext, lock);
        }
        let has_failed = !self.request.is_partial && self.failure().is_some();
        if has_failed || self.occurrences.next.is_empty() {
            return self.change();
        }
        let insert = self.circumstances.insert_next(&self.occurrences.next);
        self.run(Step::InsertNext, insert)
    }

    /// Deletes the next occurrences of the items that were reopened.
    pub(super) fn after_completion(&mut self) -> Then<Done> {
        if !self.occurrences.reopened.is_empty() {
            let reopened: Places = self.occurrences.reopened.iter().copied().zip(0..).collect();
            let unmake = self.circumstances.unmake_next(&reopened);
            return self.run(Step::UnmakeNext, unmake);
        }
        self.after_repetition()
    }

    /// Finds the next occurrences of the items for which none was inserted.
    pub(super) fn after_insertion(&mut self) -> Then<Done> {
        if self.occurrences.next.is_empty() {
            return self.change();
        }
        let left: Places = self.occurrences.next.iter().map(|(id, _)| *id).zip(0..).collect();
        let states = self.circumstances.states(&left);
        self.run(Step::StatesAgain, states)
    }

    /// If the day is taken, another todo is the next one; else the room was taken meanwhile.
    pub(super) fn after_states_again(&mut self) -> Then<Done> {
        let Occurrences { next, next_ids, .. } = &self.occurrences;
        if next.iter().all(|(id, _)| next_ids.contains_key(id)) {
            return self.change();
        }
        Then::RollBack(Done::Failed(Error::Busy))
    }
}
