//! The log of changes under the library's operations: one entry for each, numbered without gaps in
//! the order of the commits; what it says about a todo is what the table says; on both databases
//! alike, and without deadlocks under concurrency.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestCaseError, TestRunner},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use todo_core::{
    Core, Secret,
    auth::Caller,
    todos::{self, NewTodo, Priority, Title, TodoId, TodoPatch},
};
use todo_tests::{App, Database, Server, Target};
use tokio::time::Instant;
use uuid::Uuid;

const TODO: i64 = 1;
const GONE: i64 = 2;
/// Duration of the concurrent writes.
const LOAD: Duration = Duration::from_secs(4);

/// An entry of a log: number, kind, todo.
type Entry = (i64, i64, Uuid);

#[derive(Clone, Copy, Debug)]
enum Call {
    Create,
    Replace,
    Patch,
    EmptyPatch,
    Complete(bool),
    Delete,
}

fn calls() -> impl Strategy<Value = Vec<(usize, Call, Index)>> {
    let call = prop_oneof![
        4 => Just(Call::Create),
        2 => Just(Call::Replace),
        2 => Just(Call::Patch),
        1 => Just(Call::EmptyPatch),
        3 => any::<bool>().prop_map(Call::Complete),
        2 => Just(Call::Delete),
    ];
    prop::collection::vec((0_usize..2, call, any::<Index>()), 1..60)
}

/// A server's database, and the library on it.
pub(super) struct Library {
    pub(super) app: App,
    pub(super) core: Core,
}

impl Library {
    pub(super) async fn open(database: Database) -> Self {
        Self::of(App::start(Target { server: Server::Hyper, database }).await).await
    }

    async fn of(app: App) -> Self {
        let secret = Secret::new(app.secret()).expect("the secret of the tests is long enough");
        let core = Core::builder(secret).open(app.database_url()).await.expect("a second core");
        Self { app, core }
    }

    /// The same with a new core.
    pub(super) async fn reopened(self) -> Self {
        Self::of(self.app).await
    }

    pub(super) async fn signed_up(&self) -> Caller {
        let actor = self.app.signed_up().await;
        Caller::trusted(actor.id().parse().expect("ids are UUIDs"))
    }

    /// Rows of a statement with the placeholder `@user`.
    pub(super) async fn query<T>(&self, sql: &str, caller: &Caller) -> Vec<T>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>
            + for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>
            + Send
            + Unpin,
    {
        let id: Uuid = caller.user_id().into();
        let (url, hex) = (self.app.database_url(), id.simple());
        if url.starts_with("sqlite:") {
            let mut db = SqliteConnection::connect(url).await.expect("the file");
            let sql = sql.replace("@user", &format!("x'{hex}'"));
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut db).await.expect("rows")
        } else {
            let mut db = PgConnection::connect(url).await.expect("the server");
            let sql = sql.replace("@user", &format!("'{hex}'"));
            sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut db).await.expect("rows")
        }
    }

    async fn log(&self, caller: &Caller) -> Vec<Entry> {
        // An entry about a tag or a list has no todo.
        let sql = "SELECT seq, CAST(kind AS bigint), coalesce(todo_id, user_id) FROM changes \
                   WHERE user_id = @user ORDER BY seq";
        self.query(sql, caller).await
    }

    /// Checks that the log has no gap and ends at the counter's number, that the table has the
    /// todos that the log says, and that the counts are those of the table.
    pub(super) async fn check(&self, caller: &Caller) -> Result<(), TestCaseError> {
        let log = self.log(caller).await;
        let is_dense = log.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1);
        prop_assert!(is_dense, "{log:?}");
        let sql = "SELECT pending, completed, seq FROM todo_counts WHERE user_id = @user";
        let counted: Vec<(i64, i64, i64)> = self.query(sql, caller).await;
        let rows = "SELECT count(*) - count(completed_at), count(completed_at) FROM todos \
                    WHERE user_id = @user";
        let rows: Vec<(i64, i64)> = self.query(rows, caller).await;
        let last = log.last().map_or(0, |entry| entry.0);
        prop_assert_eq!(counted, vec![(rows[0].0, rows[0].1, last)]);
        let is_whole = log.first().is_none_or(|entry| entry.0 == 1);
        let of_todos = log.iter().filter(|(_, kind, _)| matches!(*kind, TODO | GONE));
        let folded: BTreeMap<Uuid, i64> = of_todos.map(|(_, kind, todo)| (*todo, *kind)).collect();
        let sql = "SELECT id FROM todos WHERE user_id = @user";
        let table: Vec<(Uuid,)> = self.query(sql, caller).await;
        let table: BTreeSet<Uuid> = table.into_iter().map(|(id,)| id).collect();
        for (todo, kind) in &folded {
            prop_assert_eq!(*kind, if table.contains(todo) { TODO } else { GONE }, "{}", todo);
        }
        prop_assert!(!is_whole || table.iter().all(|todo| folded.contains_key(todo)));
        Ok(())
    }

    /// Makes the calls; returns each user's log, with todos numbered by their creation.
    async fn history(
        &self,
        calls: &[(usize, Call, Index)],
    ) -> Result<[Vec<(i64, i64, usize)>; 2], TestCaseError> {
        let callers = [self.signed_up().await, self.signed_up().await];
        let mut made: Vec<TodoId> = Vec::new();
        let mut expected = [Vec::new(), Vec::new()];
        let core = &self.core;
        for (user, call, which) in calls {
            let caller = &callers[*user];
            let at = if made.is_empty() { 0 } else { which.index(made.len()) };
            let id = made.get(at).copied().unwrap_or_else(|| Uuid::nil().into());
            // Calls on the other user's todos, and on deleted ones, change nothing.
            let entry = match call {
                Call::Create => {
                    let new = NewTodo::new(title("new")).priority(Priority::High);
                    made.push(todos::create(core, caller, new).await.map_err(failed)?.id);
                    Some((TODO, made.len() - 1))
                }
                Call::Replace => {
                    let new = NewTodo::new(title("replaced"));
                    todos::replace(core, caller, id, new).await.ok().map(|_| (TODO, at))
                }
                Call::Patch => {
                    let mut patch = TodoPatch::new();
                    patch.priority = Some(Priority::Low);
                    todos::patch(core, caller, id, patch).await.ok().map(|_| (TODO, at))
                }
                Call::EmptyPatch => {
                    let _ = todos::patch(core, caller, id, TodoPatch::new()).await;
                    None
                }
                Call::Complete(completed) => {
                    let done = todos::set_completed(core, caller, id, *completed).await;
                    done.ok().map(|_| (TODO, at))
                }
                Call::Delete => todos::delete(core, caller, id).await.ok().map(|()| (GONE, at)),
            };
            if let Some((kind, todo)) = entry {
                let number = expected[*user].len() as i64 + 1;
                expected[*user].push((number, kind, todo));
            }
        }
        let place: BTreeMap<Uuid, usize> =
            made.iter().enumerate().map(|(place, id)| ((*id).into(), place)).collect();
        for (caller, expected) in callers.iter().zip(&expected) {
            let log = self.log(caller).await;
            let log: Vec<_> = log.iter().map(|(seq, kind, id)| (*seq, *kind, place[id])).collect();
            prop_assert_eq!(&log, expected);
            self.check(caller).await?;
        }
        Ok(expected)
    }
}

pub(super) fn title(text: &str) -> Title {
    Title::parse(text).expect("a title")
}

pub(super) fn failed(error: impl std::fmt::Debug) -> TestCaseError {
    TestCaseError::fail(format!("{error:?}"))
}

#[test]
fn both_databases_log_the_same_and_what_they_log_is_so() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let [file, server] = [Database::Sqlite, Database::Postgres]
        .map(|database| runtime.block_on(Library::open(database)));
    let config = Config { cases: 30, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&calls(), |calls| {
        runtime.block_on(async {
            prop_assert_eq!(file.history(&calls).await?, server.history(&calls).await?);
            Ok(())
        })
    });
    runtime.block_on(async {
        file.core.close().await;
        server.core.close().await;
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Statements of several rows, the even ones of the first user. Where another one of the user
/// changes several rows as well, they are locked first, in order. `@digit` is that of some ids.
const BULK: [&str; 4] = [
    "UPDATE todos SET title = 'many', updated_at = updated_at + interval '1 us' \
     WHERE user_id = @user",
    "DELETE FROM todos WHERE id = ANY (ARRAY(SELECT id FROM todos WHERE user_id = @user \
         AND right(CAST(id AS text), 1) = '@digit' ORDER BY id FOR UPDATE))",
    "INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at) \
     SELECT gen_random_uuid(), @user, 'new', 'new', 1, FALSE, now(), now() \
     FROM generate_series(1, 10)",
    "UPDATE todos SET completed = NOT completed, updated_at = updated_at + interval '1 us', \
     completed_at = CASE WHEN completed THEN NULL ELSE updated_at END \
     WHERE id = ANY (ARRAY(SELECT id FROM todos WHERE user_id = @user ORDER BY id FOR UPDATE))",
];

/// Writers of one row and of many, of two users: no statement fails, and the logs stay whole. Each
/// poll of a log sees a beginning of it: no number appears later than a higher one.
///
/// With BEFORE in place of AFTER in the trigger of updates it fails within a second: a statement of
/// many rows then holds the counter while it waits for a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn concurrent_writers_do_not_deadlock_and_numbers_appear_in_order() {
    let library = Library::open(Database::Postgres).await;
    let callers = [library.signed_up().await, library.signed_up().await];
    for caller in &callers {
        for _ in 0..60 {
            let new = NewTodo::new(title("before"));
            todos::create(&library.core, caller, new).await.expect("a todo");
        }
    }
    let (ends, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let bulk = async |number: usize| {
        let mut db = PgConnection::connect(library.app.database_url()).await.expect("it");
        let id: Uuid = callers[number % 2].user_id().into();
        let digits = "0123456789abcdef".chars().cycle();
        for digit in digits.take_while(|_| !ends.load(Ordering::Relaxed)) {
            let sql = BULK[number].replace("@user", &format!("'{}'", id.simple()));
            let sql = sql.replace("@digit", &digit.to_string());
            db.execute(AssertSqlSafe(sql)).await.expect("a write of many rows");
            written.fetch_add(1, Ordering::Relaxed);
        }
    };
    let single = async |number: usize| {
        let caller = &callers[number % 2];
        let core = &library.core;
        while !ends.load(Ordering::Relaxed) {
            let todo = todos::create(core, caller, NewTodo::new(title("x"))).await.expect("a todo");
            // The other writers may have deleted it.
            let expected = |result: Result<(), todo_core::Error>| match result {
                Ok(()) | Err(todo_core::Error::NotFound) => {}
                Err(error) => panic!("{error:?}"),
            };
            expected(todos::set_completed(core, caller, todo.id, true).await.map(drop));
            expected(
                todos::replace(core, caller, todo.id, NewTodo::new(title("y"))).await.map(drop),
            );
            expected(todos::delete(core, caller, todo.id).await);
            written.fetch_add(4, Ordering::Relaxed);
        }
    };
    let poll = async {
        let mut seen = 0;
        let begin = Instant::now();
        while begin.elapsed() < LOAD {
            let log = library.log(&callers[0]).await;
            let new: Vec<i64> = log.iter().map(|entry| entry.0).filter(|n| *n > seen).collect();
            // What was pruned between two polls is below the log's beginning.
            let first = log.first().map_or(1, |entry| entry.0).max(seen + 1);
            assert!(
                new.iter().copied().eq(first..first + new.len() as i64),
                "after {seen}: {new:?}"
            );
            seen = new.last().copied().unwrap_or(seen);
        }
        ends.store(true, Ordering::Relaxed);
    };
    tokio::join!(
        poll,
        bulk(0),
        bulk(1),
        bulk(2),
        bulk(3),
        single(0),
        single(1),
        single(2),
        single(3)
    );
    println!("{written:?} writes");
    assert!(written.load(Ordering::Relaxed) > 100, "{written:?}");
    for caller in &callers {
        library.check(caller).await.expect("a whole log");
    }
    library.core.close().await;
}
