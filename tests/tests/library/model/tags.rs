//! Calls on all todos with a tag, and the counts of tags and lists, on the store and on the model.

use proptest::{prelude::*, test_runner::TestCaseError};
use todo_core::{
    Core, Error,
    auth::Caller,
    todos::{self, Tag, Todo, TodoId},
};

use super::{Model, failed};

/// A tag, one of which no todo of the tests is created with.
pub(super) fn tag() -> impl Strategy<Value = Tag> {
    prop::sample::select(vec!["a", "b", "c", "ab", "new"])
        .prop_map(|tag| tag.parse().expect("a tag"))
}

/// Renames or deletes a tag on the store and on the model, and compares.
pub(super) async fn retag(
    core: &Core,
    caller: &Caller,
    from: &Tag,
    to: Option<&Tag>,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let user = caller.user_id();
    let result = match to {
        Some(to) => todos::rename_tag(core, caller, from.clone(), to.clone()).await,
        None => todos::delete_tag(core, caller, from.clone()).await,
    };
    let has_tag = |todo: &&mut Todo| todo.user_id == user && todo.tags.iter().any(|t| t == from);
    let tagged: Vec<&mut Todo> = model.kept.values_mut().filter(has_tag).collect();
    let expected = match to {
        _ if tagged.is_empty() => {
            prop_assert!(matches!(result, Err(Error::NotFound)), "{:?}", result);
            return Ok(());
        }
        Some(to) if to == from => 0,
        _ => tagged.len(),
    };
    prop_assert_eq!(result.map_err(failed)?, expected as u64);
    if expected == 0 {
        return Ok(());
    }
    for todo in tagged {
        let mut tags: Vec<&str> = todo.tags.iter().map(Tag::as_str).collect();
        tags.retain(|tag| *tag != from.as_str());
        tags.extend(to.map(Tag::as_str));
        let tags = todos::Tags::parse(tags).expect("tags");
        todo.tags = tags;
        let is = todos::get(core, caller, todo.id).await.map_err(failed)?;
        prop_assert!(is.updated_at > todo.updated_at);
        todo.updated_at = is.updated_at;
        prop_assert_eq!(&is, &*todo);
    }
    model.add_changes(user, expected);
    Ok(())
}

/// Deletes a todo in the trash permanently, on the store and on the model.
pub(super) async fn delete_trashed(
    core: &Core,
    caller: &Caller,
    id: TodoId,
    model: &mut Model,
) -> Result<(), TestCaseError> {
    let result = todos::delete_trashed(core, caller, id).await;
    if model.trash.get(&id).is_some_and(|todo| todo.user_id == caller.user_id()) {
        model.trash.remove(&id);
        result.map_err(failed)
    } else {
        prop_assert!(matches!(result, Err(Error::NotFound)), "{:?}", result);
        Ok(())
    }
}

/// Compares the counts of the tags and of the lists of a user.
pub(super) async fn count(
    core: &Core,
    caller: &Caller,
    model: &Model,
) -> Result<(), TestCaseError> {
    let counts = |is_in: &dyn Fn(&Todo) -> bool| {
        let todos: Vec<&Todo> =
            model.todos_of(caller.user_id()).filter(|todo| is_in(todo)).collect();
        let completed = todos.iter().filter(|todo| todo.completed).count() as i64;
        (todos.len() as i64 - completed, completed)
    };
    let tags = todos::tags(core, caller).await.map_err(failed)?.tags;
    let names: Vec<&Tag> = tags.iter().map(|tag| &tag.name).collect();
    let used: Vec<&Tag> = model.tags_of(caller.user_id()).into_iter().collect();
    prop_assert_eq!(names, used);
    for tag in &tags {
        let has_tag = |todo: &Todo| todo.tags.iter().any(|other| *other == tag.name);
        prop_assert_eq!((tag.pending, tag.completed), counts(&has_tag), "{}", tag.name);
    }
    for list in todos::lists(core, caller).await.map_err(failed)?.lists {
        let is_in = |todo: &Todo| todo.list_id == Some(list.id);
        prop_assert_eq!((list.pending, list.completed), counts(&is_in), "{}", list.id);
    }
    Ok(())
}
