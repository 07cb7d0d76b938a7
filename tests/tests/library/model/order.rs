//! The manual order, on the store and on the model.

use proptest::{prelude::*, test_runner::TestCaseError};
use todo_core::{
    Core, Error,
    auth::{Caller, UserId},
    todos::{self, ListId, SortBy, SortOrder, Status, TodoId},
};

use super::{Fate, Model, failed, filters_of};

impl Model {
    /// A user's todos in the manual order.
    fn order(&self, user: UserId) -> Vec<TodoId> {
        let mut order = self.placed.get(&user).cloned().unwrap_or_default();
        let mut others: Vec<_> =
            self.todos_of(user).filter(|todo| !order.contains(&todo.id)).collect();
        others.sort_by_key(|todo| (todo.created_at, todo.id));
        order.extend(others.iter().map(|todo| todo.id));
        order
    }

    /// The place of a todo, if it has one, as a text that sorts as the places do.
    pub(super) fn place(&self, user: UserId, id: TodoId) -> Option<String> {
        let index = self.placed.get(&user)?.iter().position(|other| *other == id)?;
        Some(format!("{index:04}"))
    }

    /// Takes a todo out of the order. Returns whether it had a place.
    pub(super) fn leave_order(&mut self, id: TodoId) -> bool {
        let mut had_place = false;
        for placed in self.placed.values_mut() {
            had_place |= placed.contains(&id);
            placed.retain(|other| *other != id);
        }
        had_place
    }

    fn move_after(&mut self, user: UserId, id: TodoId, after: Option<TodoId>) {
        let order = self.order(user);
        let placed = self.placed.entry(user).or_default();
        if let Some(after) = after
            && !placed.contains(&after)
        {
            let end = order.iter().position(|other| *other == after).expect("one of the user");
            *placed = order[..=end].to_vec();
        }
        placed.retain(|other| *other != id);
        let place = after.and_then(|after| placed.iter().position(|other| *other == after));
        placed.insert(place.map_or(0, |place| place + 1), id);
    }
}

/// Moves a todo on the store and on the model, and compares.
pub(super) async fn move_todo(
    core: &Core,
    caller: &Caller,
    [id, after]: [TodoId; 2],
    is_first: bool,
    list: Option<Option<ListId>>,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    let list = list.map(|list| list.map(|list| model.list_of(user, list)));
    let after = (!is_first).then_some(after);
    let result = todos::move_todo(core, caller, id, after, list).await;
    let is_unknown = after.is_some_and(|after| model.fate(user, after) != Fate::Done);
    if after == Some(id) || model.fate(user, id) == Fate::Done && is_unknown {
        prop_assert!(matches!(result, Err(Error::Invalid(_))), "{:?}", result);
        return Ok(());
    }
    model.changed(user, id, result, |todo| todo.list_id = list.unwrap_or(todo.list_id))?;
    if model.fate(user, id) == Fate::Done {
        model.move_after(user, id, after);
    }
    Ok(())
}

/// Takes the places of restored todos from the store: among the others, whose order is compared,
/// they depend on the keys, which may have been assigned anew.
pub(super) async fn restore_places(
    core: &Core,
    caller: &Caller,
    restored: &[TodoId],
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    let mut query = todos::ListQuery::new();
    query.filters = filters_of(Status::All, SortBy::Position, SortOrder::Asc);
    let page = todos::list(core, caller, query).await.map_err(failed)?;
    let order: Vec<TodoId> = page.todos.iter().map(|todo| todo.id).collect();
    let without = |order: &[TodoId]| -> Vec<TodoId> {
        order.iter().filter(|id| !restored.contains(id)).copied().collect()
    };
    prop_assert_eq!(without(&order), without(&model.order(user)));
    for id in restored {
        if model.trashed_places.remove(id) {
            model.placed.entry(user).or_default().push(*id);
        }
    }
    let placed = model.placed.entry(user).or_default();
    placed.sort_by_key(|id| order.iter().position(|other| other == id));
    Ok(())
}
