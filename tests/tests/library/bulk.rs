//! Many todos at once, through the library: bulks in opposite order, beside writers of one todo,
//! do not deadlock; keys are free again after a day.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta};
use todo_core::{
    Core, DatabaseOptions, Error, ErrorChain, Secret,
    auth::Caller,
    todos::{
        self, Bulk, BulkOutcome, BulkRequest, IdempotencyKey, NewTodo, Priority, TodoId, TodoPatch,
    },
};
use todo_tests::{App, Database, Server, Target};
use tokio::time::Instant;

use crate::changes::{Library, title};

/// The number of todos that all writers of a user change.
const TODOS: usize = 60;

/// A pseudo-random order of the ids, another one for each `turn`: forward, backward, and shuffled.
fn ordered(ids: &[TodoId], turn: usize) -> Vec<TodoId> {
    let mut ids = ids.to_vec();
    match turn % 3 {
        0 => {}
        1 => ids.reverse(),
        _ => ids.sort_by_key(|id| {
            id.as_uuid().as_u128().wrapping_mul(turn as u128 | 1).rotate_left(41)
        }),
    }
    ids
}

fn request(bulk: Bulk) -> BulkRequest {
    BulkRequest::new(bulk).expect("1 to 500 items, each once")
}

/// Writers of the same todos of each user run until `load` is over. None fails, except that a todo
/// may be gone; then each log is whole, and the counts are those of the rows.
///
/// Without ORDER BY in the search for the items, it fails within seconds: two bulks then lock the
/// same rows in different orders. So it does if a bulk that deletes does not lock its rows first.
async fn bulks_do_not_deadlock(users: usize, load: Duration) {
    let library = Library::open(Database::Postgres).await;
    let secret = Secret::new(library.app.secret()).expect("the secret of the tests");
    // More connections of one user than the writers below.
    let options = DatabaseOptions::new().max_connections(48).timeout(Duration::from_secs(20));
    let core = Core::builder(secret).database(options).open(library.app.database_url()).await;
    let core = core.expect("a core");
    let mut owners: Vec<(Caller, Vec<TodoId>)> = Vec::new();
    for _ in 0..users {
        let caller = library.signed_up().await;
        let new = vec![NewTodo::new(title("before")); TODOS];
        let made = todos::bulk(&core, &caller, request(Bulk::Create(new))).await.expect("todos");
        let ids = made.iter().filter_map(|result| Some(result.todo()?.id)).collect();
        owners.push((caller, ids));
    }
    let (ends, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let check = |result: Result<(), Error>| match result {
        Ok(()) | Err(Error::NotFound | Error::ItemsFailed { .. }) => {
            written.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => panic!("{}", ErrorChain(&error)),
    };
    let many = async |caller: &Caller, ids: &[TodoId], kind: usize| {
        let mut turn = kind;
        while !ends.load(Ordering::Relaxed) {
            turn += 1;
            let ids = ordered(ids, turn);
            let patch = TodoPatch::new().priority(Priority::High);
            let bulk = match kind {
                0 | 1 => Bulk::Complete { ids, completed: turn.is_multiple_of(2) },
                2 => Bulk::Patch { ids, patch },
                3 => Bulk::Delete(ids[..TODOS / 2].to_vec()),
                4 | 5 => Bulk::Restore(ids),
                _ => Bulk::Restore(ids),
            };
            let request = request(bulk).partial(kind != 1);
            if kind == 2 {
                let key = IdempotencyKey::parse(&format!("{turn}")).expect("a key");
                check(todos::bulk_once(&core, caller, key, request).await.map(drop));
            } else {
                check(todos::bulk(&core, caller, request).await.map(drop));
            }
        }
    };
    let one = async |caller: &Caller, ids: &[TodoId]| {
        let mut turn = 0;
        while !ends.load(Ordering::Relaxed) {
            turn += 1;
            let id = ids[turn * 7 % TODOS];
            check(todos::set_completed(&core, caller, id, turn.is_multiple_of(2)).await.map(drop));
            check(todos::delete(&core, caller, id).await);
            check(todos::restore(&core, caller, id).await.map(drop));
            let new = todos::create(&core, caller, NewTodo::new(title("x"))).await.expect("a todo");
            check(todos::delete(&core, caller, new.id).await);
        }
    };
    // Creations, and restorations while the trash is emptied.
    let renew = async |caller: &Caller| {
        while !ends.load(Ordering::Relaxed) {
            let new = Bulk::Create(vec![NewTodo::new(title("new")); 50]);
            let made = todos::bulk(&core, caller, request(new)).await.expect("todos");
            let ids: Vec<TodoId> = made.iter().filter_map(|it| Some(it.todo()?.id)).collect();
            let delete = async || {
                let delete = request(Bulk::Delete(ids.clone())).partial(true);
                check(todos::bulk(&core, caller, delete).await.map(drop));
            };
            let restore = async |turn: usize| {
                let restore = request(Bulk::Restore(ordered(&ids, turn))).partial(true);
                check(todos::bulk(&core, caller, restore).await.map(drop));
            };
            delete().await;
            let empty = async { check(todos::empty_trash(&core, caller).await.map(drop)) };
            tokio::join!(restore(0), restore(1), empty, restore(2));
            delete().await;
        }
    };
    let end = async {
        tokio::time::sleep_until(Instant::now() + load).await;
        ends.store(true, Ordering::Relaxed);
    };
    let writers = owners.iter().map(|(caller, ids)| async {
        tokio::join!(
            many(caller, ids, 0),
            many(caller, ids, 1),
            many(caller, ids, 2),
            many(caller, ids, 3),
            many(caller, ids, 4),
            many(caller, ids, 5),
            one(caller, ids),
            one(caller, ids),
        )
    });
    let another = library.signed_up().await;
    let renewers = futures_util::future::join_all([renew(&another), renew(&another)]);
    tokio::join!(end, futures_util::future::join_all(writers), renewers);
    println!("{users} users: {written:?} writes");
    assert!(written.load(Ordering::Relaxed) > 100, "{written:?}");
    for caller in owners.iter().map(|(caller, _)| caller).chain([&another]) {
        library.check(caller).await.expect("a whole log");
    }
    core.close().await;
    library.core.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn bulks_of_one_user_do_not_deadlock() {
    bulks_do_not_deadlock(1, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn bulks_of_many_users_do_not_deadlock() {
    bulks_do_not_deadlock(4, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
#[ignore = "slow: run by .ci/run"]
async fn bulks_do_not_deadlock_for_a_minute() {
    bulks_do_not_deadlock(3, Duration::from_mins(1)).await;
}

/// A core on the database of `app`, at `now`, a time in microseconds.
async fn core_at(app: &App, now: &Arc<AtomicI64>) -> Core {
    let secret = Secret::new(app.secret()).expect("the secret of the tests");
    let now = Arc::clone(now);
    let clock = todo_core::Clock::from_fn(move || {
        DateTime::from_timestamp_micros(now.load(Ordering::Relaxed)).expect("a time")
    });
    Core::builder(secret).clock(clock).open(app.database_url()).await.expect("a core")
}

async fn a_key_is_free_again_after_a_day(database: Database) {
    let mut app = App::start(Target { server: Server::Hyper, database }).await;
    let caller = Caller::trusted(app.signed_up().await.id().parse().expect("an id"));
    app.stop_server().await.expect("a clean stop");
    let start = 1_800_000_000_000_000;
    let now = Arc::new(AtomicI64::new(start));
    let core = core_at(&app, &now).await;
    let new = NewTodo::new(title("a"));
    let todo = todos::create(&core, &caller, new.clone()).await.expect("a todo");
    let key = |text: &str| IdempotencyKey::parse(text).expect("a key");
    let create = async || {
        let request = request(Bulk::Create(vec![new.clone()]));
        todos::bulk_once(&core, &caller, key("create"), request).await.expect("results")
    };
    let restore = async || todos::restore_once(&core, &caller, key("restore"), todo.id).await;
    let first = create().await;
    assert!(!first.is_replay && matches!(first.results[0].outcome, BulkOutcome::Created(_)));
    todos::delete(&core, &caller, todo.id).await.expect("it is deleted");
    let restored = restore().await.expect("it is restored");
    assert!(!restored.is_replay && restored.todo.updated_at > todo.updated_at);
    let hours = |hours| TimeDelta::hours(hours).num_microseconds().expect("a number");
    now.store(start + hours(24), Ordering::Relaxed);
    let again = create().await;
    assert!(again.is_replay && again.results == first.results);
    let again = restore().await.expect("the first answer");
    assert!(again.is_replay && again.todo == restored.todo);
    now.store(start + hours(24) + 1, Ordering::Relaxed);
    let other = create().await;
    assert!(!other.is_replay && other.results != first.results);
    assert!(matches!(restore().await, Err(Error::NotFound)));
    todos::delete(&core, &caller, todo.id).await.expect("it is deleted");
    assert!(!restore().await.expect("it is restored").is_replay);
    core.close().await;
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day_on_sqlite() {
    a_key_is_free_again_after_a_day(Database::Sqlite).await;
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day_on_postgres() {
    a_key_is_free_again_after_a_day(Database::Postgres).await;
}

/// Prints how long many todos take, with `--ignored --nocapture`.
async fn time(database: Database) {
    let library = Library::open(database).await;
    let core = &library.core;
    for count in [100, 500] {
        let caller = library.signed_up().await;
        let mut best = [Duration::MAX; 4];
        for _ in 0..8 {
            let mut took = Vec::new();
            let mut bulk = async |bulk: Bulk| {
                let begin = Instant::now();
                let done = todos::bulk(core, &caller, request(bulk)).await.expect("results");
                took.push(begin.elapsed());
                done
            };
            let made = bulk(Bulk::Create(vec![NewTodo::new(title("new")); count])).await;
            let ids: Vec<TodoId> = made.iter().filter_map(|it| Some(it.todo()?.id)).collect();
            bulk(Bulk::Complete { ids: ids.clone(), completed: true }).await;
            bulk(Bulk::Delete(ids.clone())).await;
            bulk(Bulk::Restore(ids)).await;
            for (best, took) in best.iter_mut().zip(took) {
                *best = took.min(*best);
            }
        }
        println!("{database:?}, {count}: create, complete, delete, restore {best:?}");
    }
    library.core.close().await;
}

#[tokio::test]
#[ignore = "a measurement"]
async fn time_of_many_todos() {
    time(Database::Sqlite).await;
    time(Database::Postgres).await;
}
