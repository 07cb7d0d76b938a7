//! The run of a bulk in one transaction: it finds the items, then changes those that it may, then
//! stores the answer if the request has a key.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    occurrences::Occurrences,
    recurring::State,
    reminders::Counted,
    request::{Bulk, BulkOutcome, BulkRequest, BulkResult},
    statements::{Circumstances, Places},
};
use crate::{
    db::{
        DbError, FromRow, FromRows, Row, Statement,
        batch::{Next, Script},
    },
    error::{BoxError, Error, FieldError, FieldErrors, ItemError, Quota},
    ids::TodoId,
    todos::{
        Details, Todo,
        create::count_todos,
        details::Known,
        keyed_request::{KeyState, KeyUse, KeyedRequest, OK},
    },
};

/// The outcome of a run.
pub(in crate::todos) enum Done {
    /// The results of all items, and the answer, if it was stored.
    Results(Vec<BulkResult>, Option<String>),
    /// The stored answer to an earlier request with the same key.
    Replayed(String),
    /// Nothing was changed.
    Failed(Error),
    /// Nothing was changed: the plan lacks a todo that recurs, or has another version of it.
    Unplanned,
    /// Nothing was changed: the reminders of these items have no room.
    Crowded(Vec<(TodoId, ItemError)>),
}

/// Makes the answer of the results: what is stored with a key.
pub(in crate::todos) type Encode = fn(&[BulkResult]) -> serde_json::Result<String>;

/// The row of a survey.
#[allow(clippy::struct_excessive_bools, reason = "a column each")]
struct Surveyed {
    is_authorized: bool,
    id: TodoId,
    is_found: bool,
    /// Another user, whose row it is.
    owner: Option<Uuid>,
    recurs: bool,
    is_completed: bool,
}

impl FromRow for Surveyed {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            is_authorized: row.get(0)?,
            id: row.get::<Uuid>(1)?.into(),
            is_found: row.get(2)?,
            owner: row.get(3)?,
            recurs: row.get(5)?,
            is_completed: row.get(6)?,
        })
    }
}

/// The statement that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// None yet.
    Begin,
    /// The look-up of the key.
    Key,
    /// The look-up of the user's tags and lists.
    Known,
    /// The count of the reminders of other todos, since a patch has some.
    Reminders,
    /// The search for the items.
    Survey,
    /// The look at the items that recur.
    States,
    /// The lock of the next occurrences that a reopening may delete.
    LockNext,
    /// The insertion of next occurrences: before the change, as that of a single todo.
    InsertNext,
    /// The look at the items whose next occurrence was not inserted.
    StatesAgain,
    /// The change.
    Change,
    /// The deletion of next occurrences.
    UnmakeNext,
    /// The count of the reminders, since the change has added some.
    Added,
    /// The count of the user's todos, since fewer were added than wanted.
    Count,
    /// The deletion of the expired key.
    FreeKey,
    /// The insertion of the answer.
    StoreAnswer,
}

/// A run. Its parts that do not change are shared by its clones.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) circumstances: Circumstances,
    pub(super) request: Arc<BulkRequest>,
    key: Option<Arc<KeyedRequest>>,
    encode: Encode,
    /// The items of the request that are not rejected: their ids, in their order, and their
    /// indexes.
    pub(super) items: Arc<[(TodoId, usize)]>,
    step: Step,
    key_state: Option<KeyState>,
    key_is_expired: bool,
    /// Whether the caller's session is live, by the last statement that selects it.
    is_authorized: bool,
    /// The user's tags and lists, if the request names some.
    known: Option<Known>,
    /// The reminders of the user's other todos, if a patch has some.
    pub(super) other_reminders: Option<i64>,
    /// The number of the user's todos.
    used: Option<i64>,
    /// The items that were completed before the change.
    pub(super) was_completed: HashSet<TodoId>,
    pub(super) counted: Counted,
    pub(super) occurrences: Occurrences,
    /// What became of the item with this id.
    pub(super) outcomes: HashMap<TodoId, BulkOutcome>,
    answer: Option<String>,
}

impl Run {
    /// `new_ids` are those of the items of [`Bulk::Create`], in ascending order.
    pub(super) fn new(
        circumstances: Circumstances,
        request: BulkRequest,
        new_ids: &[TodoId],
        key: Option<KeyedRequest>,
        encode: Encode,
    ) -> Self {
        let ids = if new_ids.is_empty() { request.bulk.ids() } else { new_ids };
        let items = ids.iter().copied().zip(request.indexes()).collect();
        Self {
            circumstances,
            items,
            request: Arc::new(request),
            key: key.map(Arc::new),
            encode,
            step: Step::Begin,
            key_state: None,
            key_is_expired: false,
            is_authorized: false,
            known: None,
            other_reminders: None,
            used: None,
            was_completed: HashSet::new(),
            counted: Counted::default(),
            occurrences: Occurrences::default(),
            outcomes: HashMap::new(),
            answer: None,
        }
    }

    /// Fails the items of a creation whose values do not go together.
    pub(super) fn check(&mut self) {
        if let Bulk::Create(new) = &self.request.bulk {
            for ((id, _), new) in self.items.iter().zip(new) {
                if let Err(errors) = new.details.check(true, self.circumstances.now) {
                    let error = ItemError::Invalid(errors);
                    self.outcomes.insert(*id, BulkOutcome::Failed(error));
                }
            }
        }
    }

    /// Fails items before they are changed.
    pub(super) fn fail(&mut self, items: Vec<(TodoId, ItemError)>) {
        let failed = items.into_iter().map(|(id, error)| (id, BulkOutcome::Failed(error)));
        self.outcomes.extend(failed);
    }

    pub(super) fn run(&mut self, step: Step, statement: Statement) -> Next<Done> {
        self.step = step;
        Next::Run(statement)
    }

    /// The items without an outcome, in their order. The place of each counts towards the quota:
    /// of all or none, each item needs the room of all.
    pub(super) fn pending(&self) -> Places {
        let ids = self.items.iter().map(|(id, _)| *id);
        let mut pending: Places =
            ids.filter(|id| !self.outcomes.contains_key(id)).zip(0_i64..).collect();
        let adds = matches!(self.request.bulk, Bulk::Create(_) | Bulk::Restore(_));
        if adds && !self.request.is_partial {
            let last = pending.last().map_or(0, |(_, place)| *place);
            for (_, place) in &mut pending {
                *place = last;
            }
        }
        pending
    }

    /// Looks for the items, unless they are new.
    pub(super) fn survey(&mut self) -> Next<Done> {
        let pending = self.pending();
        if pending.is_empty() && self.key.is_none() {
            // All items are rejected, and no other statement checks the session.
            let count = count_todos(self.circumstances.caller);
            return self.run(Step::Count, count);
        }
        if self.known.is_none() && self.names_tags_or_lists() {
            self.known = Some(Known::default());
            let known = Known::find(self.circumstances.caller);
            return self.run(Step::Known, known);
        }
        if self.other_reminders.is_none()
            && let Bulk::Patch { patch, .. } = &self.request.bulk
            && patch.details.number_of_reminders() > 0
            && self.circumstances.max_reminders > 0
            && !pending.is_empty()
        {
            self.other_reminders = Some(0);
            let count = self.circumstances.count_other_reminders(&pending);
            return self.run(Step::Reminders, count);
        }
        match &self.request.bulk {
            Bulk::Create(_) => self.change(),
            _ if pending.is_empty() => self.change(),
            Bulk::Restore(_) => {
                let survey = self.circumstances.survey_trash(&pending);
                self.run(Step::Survey, survey)
            }
            _ => {
                let survey = self.circumstances.survey_todos(&pending);
                self.run(Step::Survey, survey)
            }
        }
    }

    fn names_tags_or_lists(&self) -> bool {
        let names = |details: &Details| {
            details.tags.as_ref().is_some_and(|tags| !tags.is_empty())
                || matches!(details.list_id, Some(Some(_)))
        };
        match &self.request.bulk {
            Bulk::Create(new) => {
                new.iter().any(|new| names(&new.details) || new.details.number_of_reminders() > 0)
            }
            Bulk::Patch { patch, .. } => names(&patch.details),
            _ => false,
        }
    }

    /// Judges the tags and lists that the request names by those of the user.
    fn judge(&mut self) -> Next<Done> {
        let Some(mut known) = self.known.take() else { return self.survey() };
        let Circumstances { max_tags, max_reminders, .. } = self.circumstances;
        match &self.request.bulk {
            Bulk::Create(new) => {
                for ((id, _), new) in self.items.iter().zip(new) {
                    let reminders = new.details.number_of_reminders();
                    let judged = known
                        .judge(&new.details, max_tags)
                        .and_then(|()| known.judge_reminders(reminders, max_reminders));
                    match judged {
                        Ok(()) => known.add(&new.details),
                        Err(error) => {
                            let error = ItemError::of_details(error);
                            self.outcomes.insert(*id, BulkOutcome::Failed(error));
                        }
                    }
                }
            }
            Bulk::Patch { patch, .. } => {
                if let Err(error) = known.judge(&patch.details, max_tags) {
                    return Next::RollBack(Done::Failed(below_patch(error)));
                }
            }
            _ => {}
        }
        self.known = Some(known);
        self.survey()
    }

    /// Changes the items that were found.
    pub(super) fn change(&mut self) -> Next<Done> {
        if !self.request.is_partial
            && let Some(failure) = self.failure()
        {
            return Next::RollBack(Done::Failed(failure));
        }
        // After the resource, and before the quota.
        if let (Some(key), Some(state)) = (&self.key, self.key_state.take()) {
            match key.judge(&state) {
                KeyUse::Free { is_expired } => self.key_is_expired = is_expired,
                KeyUse::Repeated(answer) => return Next::RollBack(Done::Replayed(answer)),
                KeyUse::Refused(error) => return Next::RollBack(Done::Failed(error)),
            }
        }
        let pending = self.pending();
        if pending.is_empty() {
            return self.settle();
        }
        let circumstances = &self.circumstances;
        let statement = match &self.request.bulk {
            Bulk::Create(new) => {
                let items = self.items.iter().zip(new);
                let new = items.filter(|((id, _), _)| !self.outcomes.contains_key(id));
                circumstances.create(new.map(|(_, new)| new), &pending)
            }
            Bulk::Patch { patch, .. } => circumstances.patch(patch, &pending),
            Bulk::Complete { completed, .. } => circumstances.complete(*completed, &pending),
            Bulk::Delete(_) => circumstances.delete(&pending),
            Bulk::Restore(_) => circumstances.restore(&pending),
        };
        self.run(Step::Change, statement)
    }

    /// Explains the items that were not changed.
    fn after_change(&mut self) -> Next<Done> {
        if self.pending().is_empty() {
            return self.after_completion();
        }
        match self.request.bulk {
            Bulk::Create(_) | Bulk::Restore(_) => {
                let count = count_todos(self.circumstances.caller);
                self.run(Step::Count, count)
            }
            Bulk::Patch { ref patch, .. } if !patch.details.is_empty() => {
                // They were found, and are locked: the patch leaves them without a due date that
                // they need.
                let errors = FieldErrors::from(FieldError::new(
                    "due",
                    "needed",
                    "A todo with a recurrence or reminders needs a due date.",
                ));
                for (id, _) in self.pending() {
                    let error = ItemError::Invalid(errors.clone());
                    self.outcomes.insert(id, BulkOutcome::Failed(error));
                }
                match self.failure() {
                    Some(failure) if !self.request.is_partial => {
                        Next::RollBack(Done::Failed(failure))
                    }
                    _ => self.settle(),
                }
            }
            // They were found, and are locked.
            _ => Next::RollBack(Done::Failed(Error::Internal(BoxError::new(
                "a bulk changed fewer todos than it had found",
            )))),
        }
    }

    /// The items that were not added are beyond the quota.
    fn after_count(&mut self) -> Next<Done> {
        // A trusted caller's account may not exist.
        let (true, Some(used)) = (self.is_authorized, self.used) else {
            return Next::RollBack(Done::Failed(Error::Unauthenticated));
        };
        let pending = self.pending();
        if pending.is_empty() {
            // All were rejected before: only the session was to be checked.
            return self.change();
        }
        let used = used.unsigned_abs();
        let limit = self.circumstances.max_todos.unsigned_abs();
        let room = usize::try_from(limit.saturating_sub(used)).unwrap_or(usize::MAX);
        if !self.request.is_partial && pending.len() <= room {
            // A todo that was deleted meanwhile made room.
            return Next::RollBack(Done::Failed(Error::Busy));
        }
        // Of all or none, those that would have had room do not fail.
        let fitting = if self.request.is_partial { 0 } else { room };
        for (id, _) in pending.into_iter().skip(fitting) {
            let error = ItemError::QuotaExceeded { of: Quota::Todos, limit, used };
            self.outcomes.insert(id, BulkOutcome::Failed(error));
        }
        match self.failure() {
            Some(failure) if !self.request.is_partial => Next::RollBack(Done::Failed(failure)),
            _ => self.settle(),
        }
    }

    /// Stores the answer, if there is a key.
    pub(super) fn settle(&mut self) -> Next<Done> {
        let Some(key) = self.key.clone() else { return Next::Commit(self.done()) };
        if self.key_is_expired {
            self.key_is_expired = false;
            return self.run(Step::FreeKey, key.free());
        }
        match (self.encode)(&self.results()) {
            Ok(answer) => {
                self.answer = Some(answer.clone());
                self.run(Step::StoreAnswer, key.store(OK, answer))
            }
            Err(error) => Next::RollBack(Done::Failed(Error::Internal(BoxError::new(error)))),
        }
    }

    fn done(&mut self) -> Done {
        Done::Results(self.results(), self.answer.take())
    }

    /// The results in the order of their indexes.
    fn results(&self) -> Vec<BulkResult> {
        let found = self.items.iter().filter_map(|(id, index)| {
            let outcome = self.outcomes.get(id)?.clone();
            let outcome = match (outcome, self.occurrences.next_id(*id)) {
                (BulkOutcome::Changed(todo), Some(next_id)) => {
                    BulkOutcome::Completed { todo, next_id }
                }
                (outcome, _) => outcome,
            };
            Some((*index, outcome))
        });
        let rejected = self.request.rejected.iter().map(|(index, errors)| {
            (*index, BulkOutcome::Failed(ItemError::Invalid(errors.clone())))
        });
        let mut results: Vec<BulkResult> =
            found.chain(rejected).map(|(index, outcome)| BulkResult { index, outcome }).collect();
        results.sort_by_key(|result| result.index);
        results
    }

    /// The failure of all items, if some failed.
    pub(super) fn failure(&self) -> Option<Error> {
        let name = self.request.bulk.items_name();
        let mut first = None;
        let mut items = FieldErrors::none();
        for (id, index) in self.items.iter() {
            if let Some(BulkOutcome::Failed(error)) = self.outcomes.get(id) {
                let field = format!("{name}/{index}");
                match error {
                    ItemError::Invalid(errors) => items.extend(errors.clone().below(&field)),
                    _ => items.push(FieldError::new(field, error.code(), error.message())),
                }
                first.get_or_insert_with(|| error.clone());
            }
        }
        first.map(|reason| Error::ItemsFailed { reason, items })
    }
}

/// The error of the details of a patch, whose fields are below `patch`.
fn below_patch(error: Error) -> Error {
    match error {
        Error::Invalid(errors) => Error::Invalid(errors.below("patch")),
        other => other,
    }
}

impl Script for Run {
    type Output = Done;

    fn push(&mut self, row: &Row<'_>) -> Result<(), DbError> {
        match self.step {
            Step::Key => {
                let state = KeyState::from_row(row)?;
                self.is_authorized = state.is_authorized;
                self.key_state = Some(state);
            }
            Step::Known => {
                if let Some(known) = &mut self.known {
                    known.push(row)?;
                    self.is_authorized = known.is_authorized;
                }
            }
            Step::Survey => {
                let item = Surveyed::from_row(row)?;
                self.is_authorized = item.is_authorized;
                self.occurrences.recurs |= item.recurs;
                if item.is_completed {
                    self.was_completed.insert(item.id);
                }
                if !item.is_found {
                    let caller = self.circumstances.caller.user_id().as_uuid();
                    let error = match item.owner {
                        Some(owner) if owner != caller => ItemError::Forbidden,
                        _ => ItemError::NotFound,
                    };
                    self.outcomes.insert(item.id, BulkOutcome::Failed(error));
                }
            }
            Step::Change => {
                let id: TodoId = row.get::<Uuid>(0)?.into();
                let outcome = match self.request.bulk {
                    Bulk::Delete(_) => BulkOutcome::Deleted,
                    Bulk::Create(_) => BulkOutcome::Created(Todo::from_row(row)?),
                    _ => BulkOutcome::Changed(Todo::from_row(row)?),
                };
                self.outcomes.insert(id, outcome);
            }
            Step::Reminders => {
                self.is_authorized = row.get(0)?;
                self.other_reminders = Some(row.get(1)?);
            }
            Step::States => {
                let completes = matches!(self.request.bulk, Bulk::Complete { completed: true, .. });
                self.occurrences.decide(&State::from_row(row)?, completes);
            }
            Step::InsertNext => self.occurrences.inserted(row.get::<Uuid>(0)?.into()),
            Step::StatesAgain => self.occurrences.look_again(&State::from_row(row)?),
            Step::Added => {
                self.is_authorized = row.get(0)?;
                self.counted.push(row)?;
            }
            Step::Count => {
                self.is_authorized = row.get(0)?;
                self.used = row.get(1)?;
            }
            Step::Begin | Step::LockNext | Step::UnmakeNext | Step::FreeKey | Step::StoreAnswer => {
            }
        }
        Ok(())
    }

    fn next(&mut self, rows: u64) -> Result<Next<Done>, DbError> {
        let is_checked = matches!(
            self.step,
            Step::Key | Step::Known | Step::Reminders | Step::Survey | Step::Added
        );
        if is_checked && !self.is_authorized {
            return Ok(Next::RollBack(Done::Failed(Error::Unauthenticated)));
        }
        Ok(match self.step {
            Step::Begin => match self.key.clone() {
                Some(key) => self.run(Step::Key, key.find(self.circumstances.dialect)),
                None => self.survey(),
            },
            // A repetition is answered although its items are gone.
            Step::Key => match (&self.key, &self.key_state) {
                (Some(key), Some(state)) => match key.judge(state) {
                    KeyUse::Repeated(answer) => Next::RollBack(Done::Replayed(answer)),
                    KeyUse::Free { .. } | KeyUse::Refused(_) => self.survey(),
                },
                _ => return Err(DbError::NoRow),
            },
            Step::Known => self.judge(),
            Step::Reminders => self.judge_reminders(),
            Step::Survey => self.after_survey(),
            Step::States if !self.occurrences.is_planned() => Next::RollBack(Done::Unplanned),
            Step::States => self.after_states(),
            Step::LockNext => self.change(),
            Step::InsertNext => self.after_insertion(),
            Step::StatesAgain => self.after_states_again(),
            Step::Change => self.after_change(),
            Step::Count => self.after_count(),
            Step::UnmakeNext => self.after_repetition(),
            Step::Added => self.after_added(),
            Step::FreeKey => self.settle(),
            // The session has ended meanwhile.
            Step::StoreAnswer if rows == 0 => Next::RollBack(Done::Failed(Error::Unauthenticated)),
            Step::StoreAnswer => Next::Commit(self.done()),
        })
    }
}
