//! Lists, on the store and on the model.

use proptest::test_runner::TestCaseError;
use todo_core::{
    Core,
    auth::Caller,
    todos::{self, ListId, NewList, TodoId},
};

use super::{LISTS, Model, failed};

/// Creates a list.
pub(super) async fn create(
    core: &Core,
    caller: &Caller,
    model: &mut Model,
) -> Result<ListId, TestCaseError> {
    let new = NewList::new("List".parse().expect("a name"));
    let list = todos::create_list(core, caller, new).await.map_err(failed)?;
    model.add_changes(caller.user_id(), 1);
    Ok(list.id)
}

/// Deletes the list of a user in place of one of [`LISTS`], on the store and on the model, and
/// compares. Another one takes its place.
pub(super) async fn delete(
    core: &Core,
    caller: &Caller,
    list: ListId,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    let index = LISTS.iter().position(|other| *other == list).expect("one of them");
    let list = model.list_of(user, list);
    let in_list: Vec<TodoId> = model
        .todos_of(user)
        .filter(|todo| todo.list_id == Some(list))
        .map(|todo| todo.id)
        .collect();
    let count = todos::delete_list(core, caller, list).await.map_err(failed)?;
    proptest::prop_assert_eq!(count, in_list.len() as u64);
    model.add_changes(user, 1 + in_list.len());
    for id in in_list {
        model.trash(id);
    }
    let new = create(core, caller, model).await?;
    model.lists.get_mut(&user).expect("the user's lists")[index] = new;
    Ok(())
}
