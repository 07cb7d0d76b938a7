//! The maximum number of a user's reminders that have not fired: no change exceeds it, also none
//! that gives a todo its reminders again.

use todo_core::{
    Core, Error, ItemError, Quota,
    auth::Caller,
    todos::{
        self, Bulk, BulkOutcome, BulkRequest, ExportFormat, ExportOptions, ImportFormat,
        ImportOptions, NewTodo, Recurrence, Todo, TodoId, TodoPatch,
    },
};
use todo_tests::Database;

use super::processes::{Follower, OPEN, Processes, at, minutes_before, on};

/// The reminders of a todo. Four such todos have as many as a user may.
const FIVE: [i64; 5] = [0, 1, 2, 3, 4];

/// Todos that are due at 10:00, with five reminders each.
async fn fill(processes: &Processes, user: &Follower, todos: usize) -> Vec<Todo> {
    let mut made = Vec::new();
    for _ in 0..todos {
        made.push(user.create(processes, at("2026-12-01", "10:00"), &FIVE).await);
    }
    made
}

async fn recurring(processes: &Processes, user: &Follower, time: &str) -> Todo {
    let rule = "FREQ=DAILY".parse().expect("a rule");
    let new = NewTodo::new("Water".parse().expect("a title")).due(at("2026-12-01", time));
    let new = new.recurrence(Recurrence::new(rule)).reminders(minutes_before(&FIVE));
    todos::create(processes.core(), &user.caller, new).await.expect("a todo")
}

#[track_caller]
fn assert_full<T: std::fmt::Debug>(result: Result<T, Error>) {
    let error = result.expect_err("a quota");
    let is_full = matches!(error, Error::QuotaExceeded { of: Quota::Reminders, limit: 20, .. });
    assert!(is_full, "{error:?}");
}

/// Runs a bulk of these todos, and returns the number of those that were changed. The others have
/// no room.
async fn partly(core: &Core, caller: &Caller, bulk: Bulk) -> usize {
    let request = BulkRequest::new(bulk).expect("a bulk").partial(true);
    let results = todos::bulk(core, caller, request).await.expect("results");
    let mut changed = 0;
    for result in results {
        match result.outcome {
            BulkOutcome::Changed(_) | BulkOutcome::Completed { .. } => changed += 1,
            BulkOutcome::Failed(ItemError::QuotaExceeded { of: Quota::Reminders, .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    changed
}

async fn together(core: &Core, caller: &Caller, bulk: Bulk) -> Result<usize, Error> {
    let request = BulkRequest::new(bulk).expect("a bulk");
    todos::bulk(core, caller, request).await.map(|results| results.len())
}

#[track_caller]
fn assert_none_fits(result: Result<usize, Error>) {
    let error = result.expect_err("a quota");
    let Error::ItemsFailed { reason, items } = &error else { panic!("{error:?}") };
    let is_full = matches!(reason, ItemError::QuotaExceeded { of: Quota::Reminders, .. });
    assert!(is_full && !items.is_empty(), "{error:?}");
}

fn ids(todos: &[Todo]) -> Vec<TodoId> {
    todos.iter().map(|todo| todo.id).collect()
}

on_both_databases! {
    async fn a_user_has_at_most_so_many_open_reminders(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let five = [0, 1, 2, 3, 4];
        let due = || at("2026-12-01", "10:00");
        let mut todos = Vec::new();
        for _ in 0..4 {
            todos.push(ann.create(&processes, due(), &five).await);
        }
        let new = |minutes: &[i64]| {
            let new = NewTodo::new("Buy milk".parse().expect("a title")).due(due());
            new.reminders(minutes_before(minutes))
        };
        let quota = |error: Error| matches!(error, Error::QuotaExceeded { limit: 20, used: 20, .. });
        let refused = todos::create(core, &ann.caller, new(&[0])).await.expect_err("a quota");
        assert!(quota(refused));
        let key = "a".parse().expect("a key");
        let refused = todos::create_once(core, &ann.caller, key, new(&[0])).await;
        assert!(quota(refused.expect_err("a quota")));
        let plain = todos::create(core, &ann.caller, new(&[])).await.expect("without reminders");
        let one = TodoPatch::new().reminders(minutes_before(&[0]));
        let refused = todos::patch(core, &ann.caller, plain.id, one.clone()).await;
        assert!(quota(refused.expect_err("a quota")));
        // Others in their place, and fewer, are allowed.
        let others = TodoPatch::new().reminders(minutes_before(&[5, 6, 7, 8, 9]));
        ann.patch(&processes, &todos[0], others).await;
        let bulk = |bulk| BulkRequest::new(bulk).expect("a bulk");
        let request = bulk(Bulk::Create(vec![new(&[]), new(&[0])]));
        let refused = todos::bulk(core, &ann.caller, request).await.expect_err("a quota");
        assert_eq!(refused.code(), "quota_exceeded");
        let ids = vec![todos[0].id, plain.id];
        let request = bulk(Bulk::Patch { patch: one.clone(), ids });
        todos::bulk(core, &ann.caller, request).await.expect("2 in place of 5");
        let ids = todos.iter().map(|todo| todo.id).chain([plain.id]).collect();
        let patch = TodoPatch::new().reminders(minutes_before(&five));
        let request = bulk(Bulk::Patch { patch, ids });
        let refused = todos::bulk(core, &ann.caller, request).await.expect_err("25 of 20");
        assert!(matches!(refused, Error::QuotaExceeded { limit: 20, .. }), "{refused:?}");
        assert_eq!(processes.count(OPEN).await, 17);
        // Those that have fired do not count.
        processes.set("2026-12-01T10:00:00Z");
        assert_eq!(processes.fire().await, 17);
        let next = new(&[]).due(at("2026-12-02", "10:00")).reminders(minutes_before(&five));
        todos::create(core, &ann.caller, next).await.expect("a todo");
        processes.stop().await;
    }

    async fn todos_that_are_reopened_need_room(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let done = fill(&processes, &ann, 4).await;
        for todo in &done {
            todos::set_completed(core, &ann.caller, todo.id, true).await.expect("a todo");
        }
        let open = fill(&processes, &ann, 4).await;
        assert_full(todos::set_completed(core, &ann.caller, done[0].id, false).await);
        let found = todos::get(core, &ann.caller, done[0].id).await.expect("a todo");
        assert!(found.completed);
        // One that is open already adds none.
        todos::set_completed(core, &ann.caller, open[0].id, false).await.expect("a todo");
        let reopen = |ids| Bulk::Complete { ids, completed: false };
        assert_none_fits(together(core, &ann.caller, reopen(ids(&done))).await);
        assert_eq!(partly(core, &ann.caller, reopen(ids(&done))).await, 0);
        todos::set_completed(core, &ann.caller, open[0].id, true).await.expect("a todo");
        assert_none_fits(together(core, &ann.caller, reopen(ids(&done))).await);
        assert_eq!(partly(core, &ann.caller, reopen(ids(&done))).await, 1);
        assert_eq!(processes.count(OPEN).await, 20);
        todos::set_completed(core, &ann.caller, open[1].id, true).await.expect("a todo");
        todos::set_completed(core, &ann.caller, done[1].id, false).await.expect("there is room");
        // Those whose time is past need none.
        processes.set("2026-12-01T11:00:00Z");
        todos::set_completed(core, &ann.caller, done[2].id, false).await.expect("a todo");
        together(core, &ann.caller, reopen(vec![done[3].id])).await.expect("a todo");
        assert_eq!(processes.count(OPEN).await, 20);
        processes.stop().await;
    }

    async fn todos_that_are_restored_need_room(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let mut gone = fill(&processes, &ann, 4).await;
        todos::set_completed(core, &ann.caller, gone[3].id, true).await.expect("a todo");
        gone.rotate_right(1);
        gone.extend(fill(&processes, &ann, 1).await);
        gone.rotate_left(1);
        // The last one is completed.
        for todo in &gone {
            todos::delete(core, &ann.caller, todo.id).await.expect("deleted");
        }
        let open = fill(&processes, &ann, 4).await;
        assert_full(todos::restore(core, &ann.caller, gone[0].id).await);
        let four = ids(&gone[..4]);
        assert_none_fits(together(core, &ann.caller, Bulk::Restore(four.clone())).await);
        assert_eq!(partly(core, &ann.caller, Bulk::Restore(four.clone())).await, 0);
        // A completed one has no reminders.
        todos::restore(core, &ann.caller, gone[4].id).await.expect("a todo");
        todos::delete(core, &ann.caller, open[0].id).await.expect("deleted");
        assert_eq!(partly(core, &ann.caller, Bulk::Restore(four)).await, 1);
        assert_eq!(processes.count(OPEN).await, 20);
        let trash = todos::list_trash(core, &ann.caller, None, None).await.expect("a page");
        assert_eq!(trash.total, 4);
        todos::delete(core, &ann.caller, open[1].id).await.expect("deleted");
        todos::restore(core, &ann.caller, open[1].id).await.expect("there is room");
        processes.set("2026-12-01T11:00:00Z");
        todos::restore(core, &ann.caller, open[0].id).await.expect("its time is past");
        assert_eq!(processes.count(OPEN).await, 20);
        processes.stop().await;
    }

    async fn next_occurrences_need_room(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let mut fired = Vec::new();
        for _ in 0..3 {
            fired.push(recurring(&processes, &ann, "08:30").await);
        }
        processes.set("2026-12-01T08:30:00Z");
        assert_eq!(processes.fire().await, 15);
        let open = fill(&processes, &ann, 3).await;
        let repeated = recurring(&processes, &ann, "10:00").await;
        let complete = |ids, completed| Bulk::Complete { ids, completed };
        assert_full(todos::set_completed(core, &ann.caller, fired[0].id, true).await);
        let three = ids(&fired);
        assert_none_fits(together(core, &ann.caller, complete(three.clone(), true)).await);
        assert_eq!(partly(core, &ann.caller, complete(three.clone(), true)).await, 0);
        let list = todos::list(core, &ann.caller, todos::ListQuery::new()).await.expect("a list");
        assert_eq!(list.todos.iter().filter(|todo| !todo.completed).count(), 7);
        // Five in place of five, and back.
        for _ in 0..2 {
            let done = todos::set_completed(core, &ann.caller, repeated.id, true).await;
            assert!(done.expect("a todo").next_id.is_some());
            todos::set_completed(core, &ann.caller, repeated.id, false).await.expect("a todo");
        }
        for completed in [true, false, true, false] {
            let changed = together(core, &ann.caller, complete(vec![repeated.id], completed));
            assert_eq!(changed.await.expect("a todo"), 1);
        }
        assert_eq!(processes.count(OPEN).await, 20);
        // Once the next one was changed, a reopening keeps both.
        let done = todos::set_completed(core, &ann.caller, repeated.id, true).await;
        let next = done.expect("a todo").next_id.expect("a next one");
        let patch = TodoPatch::new().title("Other".parse().expect("a title"));
        todos::patch(core, &ann.caller, next, patch).await.expect("a todo");
        assert_full(todos::set_completed(core, &ann.caller, repeated.id, false).await);
        assert_none_fits(together(core, &ann.caller, complete(vec![repeated.id], false)).await);
        todos::set_completed(core, &ann.caller, open[0].id, true).await.expect("a todo");
        assert_eq!(partly(core, &ann.caller, complete(three, true)).await, 1);
        assert_eq!(processes.count(OPEN).await, 20);
        processes.stop().await;
    }

    async fn a_file_needs_room(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let bob = Follower::new(&processes, "bob@example.com").await;
        let made = fill(&processes, &ann, 4).await;
        todos::set_completed(core, &ann.caller, made[0].id, true).await.expect("a todo");
        let file = exported(core, &ann).await;
        let options = || ImportOptions::new(ImportFormat::Json);
        let import = |user: &Follower, options| {
            let (core, caller, file) = (core.clone(), user.caller, file.clone());
            async move { todos::import(&core, &caller, options, file).await }
        };
        assert_full(import(&ann, options().dry_run(true)).await);
        assert_full(import(&ann, options()).await);
        assert_eq!(processes.count("SELECT count(*) FROM todos").await, 4);
        // The completed one has no reminders: 15, and then 5 that are there.
        assert_eq!(import(&bob, options()).await.expect("a report").created, 4);
        assert_full(import(&bob, options()).await);
        assert_eq!(processes.count(OPEN).await, 30);
        processes.stop().await;
    }

    async fn a_file_fires_nothing_that_is_past(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let mut bob = Follower::new(&processes, "bob@example.com").await;
        ann.create(&processes, at("2026-12-01", "10:00"), &FIVE).await;
        ann.create(&processes, on("2026-12-01"), &FIVE).await;
        ann.create(&processes, at("2026-12-03", "10:00"), &[0]).await;
        let file = exported(core, &ann).await;
        processes.sql("DELETE FROM reminders").await;
        // It is read a day later.
        processes.set("2026-12-02T10:00:00Z");
        let options = ImportOptions::new(ImportFormat::Json);
        todos::import(core, &bob.caller, options, file).await.expect("a report");
        assert_eq!(processes.fire().await, 0);
        processes.set("2026-12-03T10:00:00Z");
        assert_eq!(processes.fire().await, 1);
        assert_eq!(bob.minutes(&processes).await, [0]);
        processes.stop().await;
    }
}

async fn exported(core: &Core, user: &Follower) -> Vec<u8> {
    let options = ExportOptions::new(ExportFormat::Json);
    let mut export = todos::export(core, &user.caller, options).await.expect("a file");
    let mut file = Vec::new();
    while let Some(chunk) = export.next().await.expect("a chunk") {
        file.extend_from_slice(&chunk);
    }
    file
}
