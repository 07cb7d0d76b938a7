//! The unit of work on both databases: all of a batch or nothing, also if it fails or is dropped.

use std::{collections::BTreeMap, future::Future, pin::pin, task::Poll, time::Duration};

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_core::testing::{Database as Db, Failure, Step};
use todo_tests::{App, Database, Server, Target, count_rows, eventually};

const TABLE: &str = "CREATE TABLE cells (id bigint PRIMARY KEY, value bigint NOT NULL)";
const INSERT: &str = "INSERT INTO cells (id, value) VALUES ($1, $2)";
const SET: &str = "UPDATE cells SET value = $2 WHERE id = $1";
const ADD: &str = "UPDATE cells SET value = value + $1";
const DELETE: &str = "DELETE FROM cells WHERE id = $1";
const SUM: &str = "UPDATE cells SET value = value WHERE id = $1 RETURNING value";

type Cells = BTreeMap<i64, i64>;

/// A database with an empty table; its server is idle and only owns it.
async fn cells(database: Database) -> (App, Db) {
    let app = App::start(Target { server: Server::Hyper, database }).await;
    match database {
        Database::Sqlite => {
            let mut conn = SqliteConnection::connect(app.database_url()).await.expect("the file");
            sqlx::query(TABLE).execute(&mut conn).await.expect("a table");
        }
        Database::Postgres => {
            let mut conn = PgConnection::connect(app.database_url()).await.expect("the server");
            sqlx::query(TABLE).execute(&mut conn).await.expect("a table");
        }
    }
    let db = Db::open(app.database_url()).await.expect("the database opens");
    (app, db)
}

async fn stored(app: &App, database: Database) -> Cells {
    const ALL: &str = "SELECT id, value FROM cells";
    let rows: Vec<(i64, i64)> = match database {
        Database::Sqlite => {
            let mut conn = SqliteConnection::connect(app.database_url()).await.expect("the file");
            sqlx::query_as(ALL).fetch_all(&mut conn).await.expect("the rows")
        }
        Database::Postgres => {
            let mut conn = PgConnection::connect(app.database_url()).await.expect("the server");
            sqlx::query_as(ALL).fetch_all(&mut conn).await.expect("the rows")
        }
    };
    rows.into_iter().collect()
}

fn step(sql: &'static str, binds: &[i64], rows: Option<u64>) -> Step {
    (sql, binds.to_vec(), rows)
}

/// Polls a future until it has been pending `times` times, then drops it.
async fn drop_after<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut pending = 0;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if pending == times => Poll::Ready(None),
        Poll::Pending => {
            pending += 1;
            Poll::Pending
        }
    })
    .await
}

/// The model: the cells after the batch, or its failure.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Cells(Cells),
    Unmet(usize, u64),
    Duplicate,
}

fn model(before: &Cells, steps: &[Step]) -> Expected {
    let mut cells = before.clone();
    for (index, (sql, binds, expected)) in steps.iter().enumerate() {
        let rows = match (*sql, binds.as_slice()) {
            (INSERT, [id, value]) => match cells.insert(*id, *value) {
                None => 1,
                Some(_) => return Expected::Duplicate,
            },
            (SET, [id, value]) => cells.get_mut(id).map_or(0, |cell| {
                *cell = *value;
                1
            }),
            (ADD, [added]) => {
                cells.values_mut().for_each(|cell| *cell += added);
                cells.len() as u64
            }
            (DELETE, [id]) => cells.remove(id).map_or(0, |_| 1),
            _ => unreachable!("no such step: {sql}"),
        };
        if expected.is_some_and(|expected| expected != rows) {
            return Expected::Unmet(index, rows);
        }
    }
    Expected::Cells(cells)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0..6_i64;
    let kind = prop_oneof![
        4 => (id.clone(), 0..9_i64).prop_map(|(id, value)| (INSERT, vec![id, value])),
        2 => (id.clone(), 0..9_i64).prop_map(|(id, value)| (SET, vec![id, value])),
        1 => (0..9_i64).prop_map(|added| (ADD, vec![added])),
        2 => id.prop_map(|id| (DELETE, vec![id])),
    ];
    let rows = prop_oneof![3 => Just(None), 2 => Just(Some(1)), 1 => (0..4_u64).prop_map(Some)];
    let step = (kind, rows).prop_map(|((sql, binds), rows)| (sql, binds, rows));
    prop::collection::vec(step, 1..5)
}

fn batches_behave_like_a_map(database: Database) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (app, db) = runtime.block_on(cells(database));
    let mut runner =
        TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let result = runner.run(&prop::collection::vec(steps(), 1..8), |batches| {
        runtime.block_on(async {
            let cleared = db.batch(&[step("DELETE FROM cells", &[], None)]).await;
            cleared.map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
            let mut before = Cells::new();
            for batch in batches {
                let found = match db.batch(&batch).await {
                    Ok(_) => Expected::Cells(stored(&app, database).await),
                    Err(Failure::Unmet(statement, rows)) => Expected::Unmet(statement, rows),
                    Err(Failure::Duplicate) => Expected::Duplicate,
                    Err(Failure::Other(error)) => {
                        return Err(TestCaseError::fail(error.to_string()));
                    }
                };
                let expected = model(&before, &batch);
                prop_assert_eq!(&found, &expected, "{:?}", batch);
                if let Expected::Cells(after) = expected {
                    before = after;
                }
                prop_assert_eq!(stored(&app, database).await, before.clone(), "{:?}", batch);
            }
            Ok(())
        })
    });
    runtime.block_on(db.close());
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn batches_behave_like_a_map_on_sqlite() {
    batches_behave_like_a_map(Database::Sqlite);
}

#[test]
fn batches_behave_like_a_map_on_postgres() {
    batches_behave_like_a_map(Database::Postgres);
}

/// A batch that is dropped at any of its steps leaves all or nothing, and its connection (the only
/// one, on PostgreSQL) is used again or replaced.
async fn a_dropped_batch_leaves_all_or_nothing(database: Database) {
    let (app, db) = cells(database).await;
    // On a busy machine, the responses may be there whenever the batch is polled.
    let mut drops = 0;
    for _ in 0..50 {
        drops = drop_at_each_step(&app, &db, database).await;
        if drops > 0 {
            break;
        }
    }
    assert!(drops > 0, "no step was dropped");
    db.close().await;
}

/// Drops a batch at each of its steps, and returns the number of drops.
async fn drop_at_each_step(app: &App, db: &Db, database: Database) -> usize {
    let all = [
        step(INSERT, &[1, 1], Some(1)),
        step(INSERT, &[2, 2], Some(1)),
        step(ADD, &[10], Some(2)),
        step(SUM, &[1], Some(1)),
    ];
    let done = Cells::from([(1, 11), (2, 12)]);
    for times in 0..200 {
        let outcome = drop_after(times, db.batch(&all)).await;
        let is_done = match outcome {
            None => false,
            Some(Ok(sum)) => {
                assert_eq!(sum, Some(11), "the rows of the last statement");
                true
            }
            Some(Err(error)) => panic!("after {times} polls: {error:?}"),
        };
        // Behind the dropped batch, if that still runs. PostgreSQL may read its COMMIT after the
        // connection is closed.
        if database == Database::Postgres {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                       AND backend_type = 'client backend' AND pid <> pg_backend_pid() \
                       AND xact_start IS NOT NULL";
            let is_over = async || count_rows(app.database_url(), sql).await == 0;
            assert!(eventually(Duration::from_secs(20), is_over).await, "after {times} polls");
        }
        let probe = [step(INSERT, &[9, 0], Some(1)), step(DELETE, &[9], Some(1))];
        assert!(db.batch(&probe).await.is_ok(), "after {times} polls");
        let left = stored(app, database).await;
        assert!(left.is_empty() || left == done, "after {times} polls: {left:?}");
        db.batch(&[step("DELETE FROM cells", &[], None)]).await.expect("the table is cleared");
        if is_done {
            assert_eq!(left, done);
            return times;
        }
    }
    panic!("the batch never ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_batch_leaves_all_or_nothing_on_sqlite() {
    a_dropped_batch_leaves_all_or_nothing(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_batch_leaves_all_or_nothing_on_postgres() {
    a_dropped_batch_leaves_all_or_nothing(Database::Postgres).await;
}

/// Batches and single statements that share a commit fail alone.
async fn a_failed_batch_does_not_take_others_with_it(database: Database) {
    let (app, db) = cells(database).await;
    db.batch(&[step(INSERT, &[0, 0], Some(1))]).await.expect("a row");
    let calls = (1..=40_i64).map(|id| {
        let db = db.clone();
        tokio::spawn(async move {
            let insert = step(INSERT, &[id, id], Some(1));
            let batch = match id % 4 {
                0 => vec![insert, step(SET, &[-1, 0], Some(1))],
                1 => vec![insert, step(INSERT, &[0, 0], None)],
                2 => vec![insert, step(SET, &[id, 2 * id], Some(1))],
                _ => vec![step(INSERT, &[id, id], None)],
            };
            (id, db.batch(&batch).await)
        })
    });
    let mut expected = Cells::from([(0, 0)]);
    for call in calls.collect::<Vec<_>>() {
        let (id, outcome) = call.await.expect("no panic");
        match (id % 4, outcome) {
            (0, Err(Failure::Unmet(1, 0))) | (1, Err(Failure::Duplicate)) => {}
            (2, Ok(_)) => drop(expected.insert(id, 2 * id)),
            (3, Ok(_)) => drop(expected.insert(id, id)),
            (_, outcome) => panic!("{id}: {outcome:?}"),
        }
    }
    assert_eq!(stored(&app, database).await, expected);
    db.close().await;
}

#[tokio::test]
async fn a_failed_batch_does_not_take_others_with_it_on_sqlite() {
    a_failed_batch_does_not_take_others_with_it(Database::Sqlite).await;
}

#[tokio::test]
async fn a_failed_batch_does_not_take_others_with_it_on_postgres() {
    a_failed_batch_does_not_take_others_with_it(Database::Postgres).await;
}
