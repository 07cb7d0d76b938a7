//! Calls on many todos at once, on the store and on the model.

use proptest::{prelude::*, sample::Index, test_runner::TestCaseError};
use todo_core::{
    Core, Error, ItemError,
    auth::{Caller, UserId},
    todos::{self, Bulk, BulkOutcome, BulkRequest, NewTodo, Todo, TodoId, TodoPatch},
};

use super::{
    Fate, Model,
    calls::{new_todo, patch},
    change, check_details, failed, order,
};

/// A call on many todos at once; whether it is partial is beside it.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Create(Vec<NewTodo>),
    Patch(Vec<Index>, Box<TodoPatch>),
    Complete(Vec<Index>, bool),
    Delete(Vec<Index>),
    Restore(Vec<Index>),
}

pub(super) fn calls() -> impl Strategy<Value = Call> {
    let some = || prop::collection::vec(any::<Index>(), 1..5);
    prop_oneof![
        prop::collection::vec(new_todo(), 1..4).prop_map(Call::Create),
        (some(), patch()).prop_map(|(which, patch)| Call::Patch(which, patch.into())),
        (some(), any::<bool>()).prop_map(|(which, done)| Call::Complete(which, done)),
        some().prop_map(Call::Delete),
        some().prop_map(Call::Restore),
    ]
}

/// Makes one call on many todos on the store and on the model, and compares.
pub(super) async fn make(
    core: &Core,
    caller: &Caller,
    call: &Call,
    is_partial: bool,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    let chosen = |which: &[Index]| {
        let mut ids: Vec<TodoId> = Vec::new();
        for index in which {
            let id = model.choose(index);
            // Of a series, one todo: the model makes them one after the other.
            if !ids.iter().any(|other| model.are_together(id, *other)) {
                ids.push(id);
            }
        }
        ids
    };
    let call = &call.clone().of(user, model, &chosen);
    let (bulk, ids) = match call {
        Call::Create(new) => (Bulk::Create(new.clone()), Vec::new()),
        Call::Patch(which, patch) => {
            let ids = chosen(which);
            (Bulk::Patch { ids: ids.clone(), patch: (**patch).clone() }, ids)
        }
        Call::Complete(which, completed) => {
            let ids = chosen(which);
            (Bulk::Complete { ids: ids.clone(), completed: *completed }, ids)
        }
        Call::Delete(which) => (Bulk::Delete(chosen(which)), chosen(which)),
        Call::Restore(which) => (Bulk::Restore(chosen(which)), chosen(which)),
    };
    let name = bulk.items_name();
    let fate = |id: &TodoId| match call {
        Call::Restore(_) => match model.trash.get(id) {
            Some(todo) if todo.user_id == user => None,
            _ => Some(ItemError::NotFound),
        },
        _ => match model.fate(user, *id) {
            Fate::Done => None,
            Fate::Forbidden => Some(ItemError::Forbidden),
            Fate::NotFound => Some(ItemError::NotFound),
        },
    };
    let fates: Vec<Option<ItemError>> = ids.iter().map(fate).collect();
    let request = BulkRequest::new(bulk).map_err(|e| failed(e.into()))?.partial(is_partial);
    let results = match todos::bulk(core, caller, request).await {
        Err(Error::ItemsFailed { reason, items }) => {
            prop_assert!(!is_partial);
            prop_assert_eq!(Some(&reason), fates.iter().flatten().next());
            let all: Vec<String> = items.iter().map(|item| item.field.to_string()).collect();
            let fates = fates.iter().enumerate().filter(|(_, fate)| fate.is_some());
            let expected: Vec<_> = fates.map(|(index, _)| format!("{name}/{index}")).collect();
            prop_assert_eq!(all, expected);
            return Ok(());
        }
        results => results.map_err(failed)?,
    };
    prop_assert!(is_partial || fates.iter().all(Option::is_none));
    let indexes: Vec<usize> = results.iter().map(|result| result.index).collect();
    let count = if let Call::Create(new) = call { new.len() } else { ids.len() };
    prop_assert_eq!(indexes, (0..count).collect::<Vec<_>>());
    let mut done = Vec::new();
    for result in results {
        let changed = match (call, &result.outcome) {
            (Call::Create(new), BulkOutcome::Created(todo)) => {
                let new = &new[result.index];
                check_details(todo, &new.details)?;
                prop_assert_eq!(
                    (&todo.title, &todo.description, todo.priority),
                    (&new.title, &new.description, new.priority)
                );
                prop_assert_eq!((todo.user_id, todo.updated_at), (user, todo.created_at));
                prop_assert_eq!((todo.completed, todo.completed_at), (false, None));
                model.add(todo.clone());
                false
            }
            (_, BulkOutcome::Failed(error)) => {
                prop_assert_eq!(Some(error), fates[result.index].as_ref());
                false
            }
            (_, outcome) => {
                prop_assert!(fates[result.index].is_none(), "{:?}", outcome);
                let id = ids[result.index];
                let was_open = model.kept.get(&id).is_some_and(|todo| !todo.completed);
                let changed = model.apply(call, id, result.todo())?;
                if let Call::Complete(..) = call {
                    let next_id = result.next_id();
                    model.follow_completion(core, caller, id, was_open, next_id).await?;
                }
                done.push(id);
                changed
            }
        };
        model.add_changes(user, usize::from(changed));
    }
    if let Call::Restore(_) = call {
        order::restore_places(core, caller, &done, model).await?;
    }
    Ok(())
}

impl Call {
    /// The call with the lists of a user, and without what is not modelled of the chosen todos.
    fn of(
        mut self,
        user: UserId,
        model: &Model,
        chosen: &impl Fn(&[Index]) -> Vec<TodoId>,
    ) -> Self {
        match &mut self {
            Self::Create(all) => {
                for new in all {
                    new.details = model.details_of(user, &new.details);
                }
            }
            Self::Patch(which, patch) => {
                let details = model.details_of(user, &patch.details);
                patch.details = model.modelled(&details, &chosen(which));
            }
            Self::Complete(..) | Self::Delete(_) | Self::Restore(_) => {}
        }
        self
    }
}

impl Model {
    /// Applies a call on many todos to one of them, and compares its result. Returns whether the
    /// todo was changed.
    fn apply(
        &mut self,
        call: &Call,
        id: TodoId,
        result: Option<&Todo>,
    ) -> Result<bool, TestCaseError> {
        if let Call::Delete(_) = call {
            prop_assert_eq!(result, None);
            self.trash(id);
            return Ok(true);
        }
        if let Call::Restore(_) = call {
            self.restore(id);
        }
        let todo = self.kept.get_mut(&id).ok_or_else(|| TestCaseError::fail("no todo"))?;
        let is = result.ok_or_else(|| TestCaseError::fail("no result"))?;
        match call {
            Call::Patch(_, patch) => {
                if patch.is_empty() {
                    prop_assert_eq!(is, &*todo);
                    return Ok(false);
                }
                change(todo, patch);
            }
            Call::Complete(_, completed) => {
                super::complete(todo, *completed, is.completed_at);
                prop_assert_eq!(todo.completed, todo.completed_at.is_some());
            }
            _ => {}
        }
        prop_assert!(is.updated_at > todo.updated_at);
        todo.updated_at = is.updated_at;
        prop_assert_eq!(is, &*todo);
        Ok(true)
    }
}
