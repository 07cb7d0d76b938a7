//! The manual order of todos: any sequence of moves gives the order that a plain list of ids has.

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use todo_core::{
    Error,
    auth::Caller,
    todos::{self, NewTodo, TodoId},
};
use todo_tests::Database;
use uuid::Uuid;

use super::changes::{Library, failed, title};

impl Library {
    async fn created(&self, caller: &Caller, count: usize) -> Vec<TodoId> {
        let mut ids = Vec::new();
        for number in 0..count {
            let new = NewTodo::new(title(&number.to_string()));
            ids.push(todos::create(&self.core, caller, new).await.expect("a todo").id);
        }
        ids
    }

    async fn positions(&self, caller: &Caller) -> Vec<Option<String>> {
        let sql = "SELECT position FROM todos WHERE user_id = @user ORDER BY position IS NULL, \
                   position, created_at, id";
        let rows: Vec<(Option<String>,)> = self.query(sql, caller).await;
        rows.into_iter().map(|(position,)| position).collect()
    }
}

fn uuids(ids: &[TodoId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.as_uuid()).collect()
}

/// Moves in a list, as the store does.
fn moved(order: &mut Vec<TodoId>, id: TodoId, after: Option<TodoId>) {
    order.retain(|other| *other != id);
    let at = after.map_or(0, |after| {
        order.iter().position(|other| *other == after).expect("it is there") + 1
    });
    order.insert(at, id);
}

#[test]
fn moves_give_the_order_of_a_plain_list_on_both_databases() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let libraries = [Database::Sqlite, Database::Postgres]
        .map(|database| runtime.block_on(Library::open(database)));
    let step = (any::<Index>(), prop::option::of(any::<Index>()), any::<bool>());
    let steps = (2_usize..8, prop::collection::vec(step, 1..30));
    let config = Config { cases: 30, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps, |(count, steps)| {
        for library in &libraries {
            runtime.block_on(async {
                let caller = library.signed_up().await;
                let mut order = library.created(&caller, count).await;
                let core = &library.core;
                for (which, after, completes) in &steps {
                    let id = order[which.index(order.len())];
                    let after = after.as_ref().map(|after| order[after.index(order.len())]);
                    let result = todos::move_todo(core, &caller, id, after, None).await;
                    if after == Some(id) {
                        prop_assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
                        continue;
                    }
                    prop_assert_eq!(result.map_err(failed)?.id, id);
                    moved(&mut order, id, after);
                    // The order is one, of open and completed todos; new ones are at its end.
                    todos::set_completed(core, &caller, id, *completes).await.map_err(failed)?;
                    order.extend(library.created(&caller, usize::from(*completes)).await);
                    prop_assert_eq!(library.order(&caller).await, uuids(&order));
                }
                Ok(())
            })?;
        }
        Ok(())
    });
    for library in &libraries {
        runtime.block_on(library.core.close());
    }
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

on_both_databases! {
    async fn a_move_after_a_new_todo_places_those_before_it_once(database) {
        let library = Library::open(database).await;
        let caller = library.signed_up().await;
        // More than one piece.
        let count = 1_100;
        let mut ids = Vec::new();
        for part in [500, 500, 100] {
            let new = (0..part).map(|_| NewTodo::new(title("t"))).collect();
            let request = todos::BulkRequest::new(todos::Bulk::Create(new)).expect("a request");
            let results = todos::bulk(&library.core, &caller, request).await.expect("todos");
            ids.extend(results.iter().filter_map(|result| Some(result.todo()?.id)));
        }
        let before = library.order(&caller).await;
        let versions = "SELECT id, CAST(updated_at AS text) FROM todos WHERE user_id = @user \
                        AND position IS NOT NULL ORDER BY id";
        let begin = todos::changes(&library.core, &caller, None, None).await.expect("a page").next;
        let [first, last, second] = [ids[0], ids[count - 2], ids[1]];
        todos::move_todo(&library.core, &caller, first, Some(last), None).await.expect("a move");
        let mut order = ids.clone();
        moved(&mut order, first, Some(last));
        assert_eq!(library.order(&caller).await, uuids(&order));
        let placed = library.positions(&caller).await;
        assert_eq!(placed.iter().flatten().count(), count - 1, "all but the last");
        assert!(placed.iter().flatten().all(|key| key.len() <= 12), "{placed:?}");
        // One change in the log: the others are where they were.
        let page = todos::changes(&library.core, &caller, Some(begin), None).await.expect("it");
        assert_eq!(page.changes.len(), 1);
        let stamps: Vec<(Uuid, String)> = library.query(versions, &caller).await;
        todos::move_todo(&library.core, &caller, second, None, None).await.expect("a move");
        moved(&mut order, second, None);
        assert_eq!(library.order(&caller).await, uuids(&order));
        let again: Vec<(Uuid, String)> = library.query(versions, &caller).await;
        let changed = stamps.iter().zip(&again).filter(|(one, other)| one != other).count();
        assert_eq!(changed, 1);
        assert_eq!(before.len(), count);
        library.core.close().await;
    }

    async fn keys_that_grow_too_long_are_assigned_anew(database) {
        let library = Library::open(database).await;
        let caller = library.signed_up().await;
        let mut order = library.created(&caller, 4).await;
        let core = &library.core;
        // Each move halves the interval between the first two.
        let mut longest = 0;
        let mut was_shortened = false;
        for round in 0..600 {
            let (first, last) = (order[0], order[3]);
            let id = if round % 2 == 0 { order[2] } else { last };
            todos::move_todo(core, &caller, id, Some(first), None).await.expect("a move");
            moved(&mut order, id, Some(first));
            let keys = library.positions(&caller).await;
            let length = keys.iter().flatten().map(String::len).max().unwrap_or(0);
            assert!(length <= 64, "{length} in round {round}");
            was_shortened |= length + 16 < longest;
            longest = longest.max(length);
        }
        assert!(longest > 48 && was_shortened, "{longest}");
        assert_eq!(library.order(&caller).await, uuids(&order));
        library.core.close().await;
    }

    async fn long_keys_at_the_end_and_equal_keys_are_assigned_anew(database) {
        let library = Library::open(database).await;
        let caller = library.signed_up().await;
        let ids: Vec<TodoId> = {
            let new = (0..500).map(|_| NewTodo::new(title("t")));
            let mut ids = Vec::new();
            for part in [new.clone(), new.clone(), new] {
                let bulk = todos::Bulk::Create(part.collect());
                let request = todos::BulkRequest::new(bulk).expect("a request");
                let results = todos::bulk(&library.core, &caller, request).await.expect("todos");
                ids.extend(results.iter().filter_map(|result| Some(result.todo()?.id)));
            }
            ids
        };
        let (last, first) = (ids[1_499], ids[0]);
        todos::move_todo(&library.core, &caller, first, Some(last), None).await.expect("a move");
        let mut order = ids;
        moved(&mut order, first, Some(last));
        // As after thousands of moves to the end; and two todos have one key.
        let long = "f".repeat(64);
        let id = |id: TodoId| match database {
            Database::Sqlite => format!("x'{}'", id.as_uuid().simple()),
            Database::Postgres => format!("'{id}'"),
        };
        let update = format!("UPDATE todos SET position = '{long}' WHERE id = {}", id(order[1_499]));
        todo_tests::execute_sql(library.app.database_url(), &update).await;
        let update = format!(
            "UPDATE todos SET position = (SELECT position FROM todos WHERE id = {}) WHERE id = {}",
            id(order[10]), id(order[11])
        );
        todo_tests::execute_sql(library.app.database_url(), &update).await;
        assert_eq!(library.order(&caller).await, uuids(&order));
        let one = order[700];
        todos::move_todo(&library.core, &caller, one, Some(order[1_499]), None).await.expect("it");
        let end = order[1_499];
        moved(&mut order, one, Some(end));
        assert_eq!(library.order(&caller).await, uuids(&order));
        let (between, other) = (order[10], order[900]);
        todos::move_todo(&library.core, &caller, other, Some(between), None).await.expect("it");
        moved(&mut order, other, Some(between));
        assert_eq!(library.order(&caller).await, uuids(&order));
        let keys = library.positions(&caller).await;
        assert!(keys.iter().flatten().all(|key| key.len() <= 16), "{:?}", keys.last());
        library.core.close().await;
    }

    async fn equal_keys_alone_are_assigned_anew(database) {
        let library = Library::open(database).await;
        let caller = library.signed_up().await;
        let mut order = library.created(&caller, 4).await;
        let sql = "UPDATE todos SET position = '80'";
        todo_tests::execute_sql(library.app.database_url(), sql).await;
        let (last, first) = (order[3], order[0]);
        todos::move_todo(&library.core, &caller, last, Some(first), None).await.expect("a move");
        moved(&mut order, last, Some(first));
        assert_eq!(library.order(&caller).await, uuids(&order));
        library.core.close().await;
    }

    async fn moves_to_one_place_at_the_same_time_give_different_keys(database) {
        let library = Library::open(database).await;
        let caller = library.signed_up().await;
        let ids = library.created(&caller, 12).await;
        for _ in 0..5 {
            let moves = ids.iter().map(|id| todos::move_todo(&library.core, &caller, *id, None, None));
            for moved in futures_util::future::join_all(moves).await {
                moved.expect("a move");
            }
            let mut keys = library.positions(&caller).await;
            keys.dedup();
            assert_eq!(keys.len(), ids.len(), "{keys:?}");
        }
        library.core.close().await;
    }

    async fn concurrent_moves_all_succeed(database) {
        let library = Library::open(database).await;
        let caller = library.signed_up().await;
        let ids = library.created(&caller, 12).await;
        let core = &library.core;
        let moves = ids.iter().enumerate().map(|(index, id)| {
            let after = (index % 3 > 0).then(|| ids[(index * 5 + 1) % ids.len()]);
            let after = after.filter(|after| after != id);
            async move {
                for _ in 0..10 {
                    todos::move_todo(core, &caller, *id, after, None).await.expect("a move");
                }
            }
        });
        futures_util::future::join_all(moves).await;
        let mut order = library.order(&caller).await;
        order.sort_unstable();
        let mut all = uuids(&ids);
        all.sort_unstable();
        assert_eq!(order, all);
        // Later moves are exact again.
        let mut order: Vec<TodoId> = library.order(&caller).await.into_iter().map(TodoId::from).collect();
        for (id, after) in [(order[3], order[9]), (order[0], order[5]), (order[7], order[1])] {
            todos::move_todo(core, &caller, id, Some(after), None).await.expect("a move");
            moved(&mut order, id, Some(after));
            assert_eq!(library.order(&caller).await, uuids(&order));
        }
        library.core.close().await;
    }
}
