//! What several processes do at the same moment, held there by locks of PostgreSQL.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use todo_core::{
    todos::{self, NewTodo, Recurrence, Todo, TodoPatch},
    webhooks,
};
use todo_tests::{Database, count_rows, eventually};

use super::processes::{Follower, Processes, at};

/// A transaction that holds locks.
struct Held(PgConnection);

impl Held {
    async fn by(processes: &Processes, sql: &'static str) -> Self {
        let mut connection = PgConnection::connect(processes.url()).await.expect("the server");
        connection.execute("BEGIN").await.expect("a transaction");
        connection.execute(sql).await.expect(sql);
        Self(connection)
    }

    async fn release(mut self) {
        self.0.execute("COMMIT").await.expect("the end");
        self.0.close().await.expect("closed");
    }
}

/// Waits until so many connections of the database wait for a lock.
async fn waiting(processes: &Processes, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waits = async || count_rows(processes.url(), sql).await == count;
    assert!(eventually(Duration::from_secs(20), waits).await, "{count} do not wait");
}

/// Both have found the webhook free before either of them has leased it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_find_a_webhook_free_send_once() {
    let processes = Processes::start(Database::Postgres, 2).await;
    let ann = Follower::new(&processes, "ann@example.com").await;
    let url = "https://hooks.example.com/".parse().expect("a URL");
    webhooks::set(processes.core(), &ann.caller, url, None).await.expect("a webhook");
    ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
    processes.set("2026-12-01T09:00:00Z");
    assert_eq!(processes.fire().await, 1);
    // As long as both could send.
    processes.receiver.delay(Duration::from_secs(2));
    let held = Held::by(&processes, "SELECT FROM webhooks FOR UPDATE").await;
    let sending: Vec<_> = (0..2)
        .map(|i| {
            let core = processes.cores[i].clone();
            tokio::spawn(async move { webhooks::deliver_due(&core).await })
        })
        .collect();
    waiting(&processes, 2).await;
    held.release().await;
    let mut delivered = 0;
    for sent in sending {
        delivered += sent.await.expect("no panic").expect("the queue").delivered;
    }
    assert_eq!((processes.receiver.take().len(), delivered), (1, 1));
    processes.stop().await;
}

/// Both have found the reminder before either of them has marked it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_find_a_reminder_fire_it_once() {
    let processes = Processes::start(Database::Postgres, 2).await;
    let mut ann = Follower::new(&processes, "ann@example.com").await;
    ann.create(&processes, at("2026-12-01", "09:00"), &[0, 1]).await;
    processes.set("2026-12-01T09:00:00Z");
    let held = Held::by(&processes, "SELECT FROM todo_counts FOR UPDATE").await;
    let firing: Vec<_> = (0..2)
        .map(|i| {
            let core = processes.cores[i].clone();
            tokio::spawn(async move { todo_core::reminders::fire_due(&core).await })
        })
        .collect();
    waiting(&processes, 2).await;
    held.release().await;
    let mut fired = 0;
    for report in firing {
        fired += report.await.expect("no panic").expect("the reminders").fired;
    }
    assert_eq!((fired, ann.minutes(&processes).await), (2, vec![1, 0]));
    processes.stop().await;
}

/// A user of a daily todo whose next one was made, changed and deleted.
async fn with_a_day_in_the_trash(processes: &Processes) -> (Follower, Todo, todos::TodoId) {
    let core = processes.core();
    let ann = Follower::new(processes, "ann@example.com").await;
    let rule = "FREQ=DAILY".parse().expect("a rule");
    let new = NewTodo::new("Water".parse().expect("a title")).due(at("2026-12-01", "10:00"));
    let new = new.recurrence(Recurrence::new(rule));
    let todo = todos::create(core, &ann.caller, new).await.expect("a todo");
    let done = todos::set_completed(core, &ann.caller, todo.id, true).await.expect("a todo");
    let next = done.next_id.expect("a next one");
    todos::delete(core, &ann.caller, next).await.expect("deleted");
    todos::set_completed(core, &ann.caller, todo.id, false).await.expect("a todo");
    (ann, todo, next)
}

/// The first one to take the day in a series waits for the counter of the user, the second one for
/// the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_day_and_a_completion_that_makes_it_do_not_deadlock() {
    for completes_first in [true, false] {
        for is_bulk in [false, true] {
            let processes = Processes::start(Database::Postgres, 2).await;
            let (ann, todo, next) = with_a_day_in_the_trash(&processes).await;
            let held = Held::by(&processes, "SELECT FROM todo_counts FOR UPDATE").await;
            let (core, caller) = (processes.core().clone(), ann.caller);
            let completing = async move {
                if is_bulk {
                    let bulk = todos::Bulk::Complete { ids: vec![todo.id], completed: true };
                    let request = todos::BulkRequest::new(bulk).expect("a bulk");
                    return todos::bulk(&core, &caller, request).await.map(drop);
                }
                todos::set_completed(&core, &caller, todo.id, true).await.map(drop)
            };
            let (core, caller) = (processes.cores[1].clone(), ann.caller);
            let restoring = async move {
                if is_bulk {
                    let request = todos::BulkRequest::new(todos::Bulk::Restore(vec![next]));
                    return todos::bulk(&core, &caller, request.expect("a bulk")).await.map(drop);
                }
                todos::restore(&core, &caller, next).await.map(drop)
            };
            let (completed, restored) = if completes_first {
                let completed = tokio::spawn(completing);
                waiting(&processes, 1).await;
                (completed, tokio::spawn(restoring))
            } else {
                let restored = tokio::spawn(restoring);
                waiting(&processes, 1).await;
                (tokio::spawn(completing), restored)
            };
            waiting(&processes, 2).await;
            held.release().await;
            let case = format!("completes first: {completes_first}, bulk: {is_bulk}");
            completed.await.expect("no panic").unwrap_or_else(|e| panic!("{case}: {e:?}"));
            restored.await.expect("no panic").unwrap_or_else(|e| panic!("{case}: {e:?}"));
            let open = "SELECT count(*) FROM todos WHERE NOT completed AND due_date = 20789";
            let days = "SELECT count(*) FROM todos WHERE occurrence = 20789";
            let expected = if completes_first { (2, 1) } else { (1, 1) };
            let found = (processes.count(open).await, processes.count(days).await);
            assert_eq!(found, expected, "{case}");
            processes.stop().await;
        }
    }
}

/// As [`a_restored_day_and_a_completion_that_makes_it_do_not_deadlock`].
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_todo_moved_to_a_day_and_a_completion_that_makes_it_do_not_deadlock() {
    for completes_first in [true, false] {
        let processes = Processes::start(Database::Postgres, 2).await;
        let (ann, todo, next) = with_a_day_in_the_trash(&processes).await;
        let core = processes.core();
        // It is on a day before the todo, and in its series.
        let restored = todos::restore(core, &ann.caller, next).await.expect("a todo");
        let move_to = |day: &str| TodoPatch::new().due(at(day, "10:00"));
        ann.patch(&processes, &restored, move_to("2026-11-30")).await;
        let held = Held::by(&processes, "SELECT FROM todo_counts FOR UPDATE").await;
        let (other, caller) = (core.clone(), ann.caller);
        let completing =
            async move { todos::set_completed(&other, &caller, todo.id, true).await.map(drop) };
        let (other, patch) = (processes.cores[1].clone(), move_to("2026-12-02"));
        let moving = async move { todos::patch(&other, &caller, next, patch).await.map(drop) };
        let (completed, moved) = if completes_first {
            let completed = tokio::spawn(completing);
            waiting(&processes, 1).await;
            (completed, tokio::spawn(moving))
        } else {
            let moved = tokio::spawn(moving);
            waiting(&processes, 1).await;
            (tokio::spawn(completing), moved)
        };
        waiting(&processes, 2).await;
        held.release().await;
        completed.await.expect("no panic").expect("completed");
        moved.await.expect("no panic").expect("moved");
        let days = "SELECT count(*) FROM todos WHERE occurrence = 20789";
        assert_eq!(processes.count(days).await, 1);
        processes.stop().await;
    }
}
