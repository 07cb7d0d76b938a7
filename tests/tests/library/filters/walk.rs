//! Pages of a list between whose reads other todos change: each todo that stays as it is, and
//! matches the filters, is on one page, in the order of the list.

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use todo_core::{
    Error,
    todos::{self, Limit, ListId, ListQuery, NewTodo, TodoId, TodoPatch},
};
use todo_tests::Database;

use super::{
    in_list, query,
    reference::{Row, listed},
    store::{Store, spec},
};

/// A write on a todo that may change.
#[derive(Clone, Debug)]
enum Write {
    /// New values of all that can be filtered or sorted by, and another place.
    Change(Index, Box<TodoPatch>, Option<usize>, Option<String>),
    Complete(Index, bool),
    /// A deletion, and a new todo.
    Replace(Index, Box<NewTodo>),
}

fn write() -> impl Strategy<Value = Write> {
    let change = (any::<Index>(), spec()).prop_map(|(which, (new, list, place, _))| {
        Write::Change(which, Box::new(TodoPatch::from(new)), list, place)
    });
    prop_oneof![
        4 => change,
        1 => (any::<Index>(), any::<bool>()).prop_map(|(which, done)| Write::Complete(which, done)),
        1 => (any::<Index>(), spec()).prop_map(|(which, (new, ..))| Write::Replace(which, new.into())),
    ]
}

fn failed(error: Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

/// Makes a write on one of `todos`.
async fn make(store: &mut Store, todos: &mut [TodoId], write: &Write) -> Result<(), TestCaseError> {
    let Store { core, caller, conn, lists, .. } = store;
    match write {
        Write::Change(which, patch, list, place) => {
            let id = *which.get(todos);
            let list: Option<ListId> = list.map(|list| lists[list]);
            let patch = (**patch).clone().list_id(list);
            todos::patch(core, caller, id, patch).await.map_err(failed)?;
            let place = place.as_ref().map_or("NULL".to_owned(), |place| format!("'{place}'"));
            let id = conn.literal(id);
            conn.execute(&format!("UPDATE todos SET position = {place} WHERE id = {id}")).await;
        }
        Write::Complete(which, completed) => {
            let id = *which.get(todos);
            todos::set_completed(core, caller, id, *completed).await.map_err(failed)?;
        }
        Write::Replace(which, new) => {
            let index = which.index(todos.len());
            todos::delete(core, caller, todos[index]).await.map_err(failed)?;
            todos[index] = todos::create(core, caller, (**new).clone()).await.map_err(failed)?.id;
        }
    }
    Ok(())
}

/// Reads a list page by page, with writes between the pages.
async fn walk(
    store: &mut Store,
    changing: &mut [TodoId],
    mut query: ListQuery,
    limit: u16,
    writes: &[Vec<Write>],
) -> Result<(), TestCaseError> {
    let wanted: Vec<TodoId> =
        listed(&store.todos, &query.filters, store.now()).iter().map(|todo| todo.id).collect();
    query = query.limit(Limit::new(limit).ok());
    let mut seen = Vec::new();
    for round in 0.. {
        let page = todos::list(&store.core, &store.caller, query.clone()).await.map_err(failed)?;
        prop_assert!(page.todos.len() <= usize::from(limit));
        seen.extend(page.todos.iter().map(|todo| todo.id));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            break;
        }
        for write in writes.get(round).into_iter().flatten() {
            make(store, changing, write).await?;
        }
    }
    seen.retain(|id| store.todos.iter().any(|(todo, _)| todo.id == *id));
    prop_assert_eq!(seen, wanted);
    Ok(())
}

fn a_walk_sees_each_todo_that_stays_once(database: Database) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut store = runtime.block_on(Store::create(database, 120));
    // Every other todo stays.
    let all: Vec<Row> = std::mem::take(&mut store.todos);
    let mut changing = Vec::new();
    for (index, row) in all.into_iter().enumerate() {
        if index % 2 == 0 { store.todos.push(row) } else { changing.push(row.0.id) }
    }
    let store = std::cell::RefCell::new((store, changing));
    let writes = prop::collection::vec(prop::collection::vec(write(), 0..8), 10);
    let cases = (query(), 1_u16..12, writes);
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&cases, |((query, list), limit, writes)| {
        let (store, changing) = &mut *store.borrow_mut();
        let query = in_list(query, list, &store.lists);
        runtime.block_on(walk(store, changing, query, limit, &writes))
    });
    if let Err(error) = outcome {
        panic!("{database:?}: {error}");
    }
    runtime.block_on(store.into_inner().0.core.close());
}

#[test]
fn a_walk_sees_each_todo_that_stays_once_on_sqlite() {
    a_walk_sees_each_todo_that_stays_once(Database::Sqlite);
}

#[test]
fn a_walk_sees_each_todo_that_stays_once_on_postgres() {
    a_walk_sees_each_todo_that_stays_once(Database::Postgres);
}
