//! Each shape of a list on both databases, among many rows: its plan reads no more rows than its
//! page has, and its rows are those of the model. `model.rs` compares lists under random changes.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection};
use todo_core::{
    Core, DatabaseOptions, Secret,
    auth::{self, Caller},
    testing::{Database as Db, ListStatement},
    todos::{self, ListQuery, Priority, SortBy, SortOrder, Status, Todo, TodoId},
};
use todo_tests::{App, Database, Server, Target};
use uuid::Uuid;

use crate::plans;

/// The todos of the caller: more than a chunk of a list, and a multiple of its combinations.
const MANY: usize = 3000;
/// The other users, and the todos of each: so many that PostgreSQL's planner prefers the indexes.
const OTHERS: &str = "1000";
const TODOS_OF_OTHERS: &str = "20";
/// The rows of a page, and the row that shows whether the list continues.
const PAGE: f64 = 51.0;

/// Inserts other users with a session and todos each, and the todos of the caller. There are many
/// equal titles, priorities and creation times, in every combination with the state.
const SQLITE: &str = "
    INSERT INTO users (id, email, name, password_hash, created_at)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $others)
    SELECT randomblob(16), 'u' || i || '@example.com', 'Ann ' || i, 'x', i FROM n;
    INSERT INTO sessions (id, user_id, created_at, expires_at)
    SELECT randomblob(16), id, 1, 4000000000000000 FROM users WHERE name LIKE 'Ann %';
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at,
        completed_at)
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $many),
        owners(id, todos) AS (SELECT x'$caller', $many UNION ALL
            SELECT id, $each FROM users WHERE name LIKE 'Ann %')
    SELECT randomblob(16), owners.id, 'T' || (i % 7), 't' || (i % 7), 1 + i % 3, i / 3 % 2,
        1800000000000000 + i / 50, 1800000000000000 + i / 50,
        CASE WHEN i / 3 % 2 = 1 THEN 1800000000000000 + i / 50 END
    FROM owners JOIN n ON i <= todos";
const POSTGRES: &str = "
    INSERT INTO users (id, email, name, password_hash, created_at)
    SELECT gen_random_uuid(), 'u' || i || '@example.com', 'Ann ' || i, 'x', now()
    FROM generate_series(1, $others) AS i;
    INSERT INTO sessions (id, user_id, created_at, expires_at)
    SELECT gen_random_uuid(), id, now(), now() + interval '1 day' FROM users
    WHERE name LIKE 'Ann %';
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at,
        completed_at)
    SELECT gen_random_uuid(), owners.id, 'T' || (i % 7), 't' || (i % 7), 1 + i % 3, i / 3 % 2 = 1,
        at, at, CASE WHEN i / 3 % 2 = 1 THEN at END
    FROM (SELECT '$caller'::uuid AS id, $many AS todos UNION ALL
            SELECT id, $each FROM users WHERE name LIKE 'Ann %') AS owners,
        generate_series(1, todos) AS i,
        LATERAL (SELECT timestamptz '2027-01-15' + i / 50 * interval '1 microsecond' AS at) AS t;
    ANALYZE";

/// The sort keys that every todo has.
const SORTS: [SortBy; 3] = [SortBy::CreatedAt, SortBy::Priority, SortBy::Title];

/// A statement of a list without filters.
struct PlainStatement {
    /// What it reads, for messages.
    name: String,
    /// The sort key, unless it returns the total only.
    sort_by: Option<SortBy>,
    /// Whether it returns the todos after a position.
    after: bool,
    statement: ListStatement,
}

/// A statement of every list without filters, on pages from the start and after `position`.
fn plain_statements(db: &Db, caller: Caller, position: &Todo) -> Vec<PlainStatement> {
    let now = position.created_at;
    let mut all = Vec::new();
    for &status in Status::ALL {
        let query = ListQuery::new().status(status);
        let statement = db.list_total(caller, &query, now);
        let name = format!("total of {status}");
        all.push(PlainStatement { name, sort_by: None, after: false, statement });
        for sort_by in SORTS {
            for &order in SortOrder::ALL {
                for after in [false, true] {
                    let query = query.clone().sort_by(sort_by).order(order);
                    let position = after.then_some((position, None));
                    #[expect(clippy::cast_possible_truncation, reason = "a small whole number")]
                    let statement = db.list_page(caller, &query, now, PAGE as i64, position);
                    let name = format!("{status} by {sort_by} {order}, after: {after}");
                    all.push(PlainStatement { name, sort_by: Some(sort_by), after, statement });
                }
            }
        }
    }
    all
}

/// A connection to the database under test.
enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// A database with many rows.
struct Filled {
    core: Core,
    caller: Caller,
    conn: Conn,
    /// The statements of every shape.
    statements: Vec<PlainStatement>,
    /// The caller's todos.
    todos: Vec<Todo>,
    _app: App,
}

impl Filled {
    async fn create(database: Database) -> Self {
        // The server is only for its database and for the signup.
        let app = App::start(Target { server: Server::Hyper, database }).await;
        let url = app.database_url();
        let owner = app.signed_up().await;
        let conn = match database {
            Database::Sqlite => {
                let mut conn = SqliteConnection::connect(url).await.expect("the file");
                let id: Uuid = owner.id().parse().expect("a UUID");
                conn.execute(fill(SQLITE, &id.simple().to_string())).await.expect("rows");
                Conn::Sqlite(conn)
            }
            Database::Postgres => {
                let mut conn = PgConnection::connect(url).await.expect("the server");
                conn.execute(fill(POSTGRES, owner.id())).await.expect("rows");
                Conn::Postgres(conn)
            }
        };
        let secret = Secret::new(app.secret()).expect("the secret of the tests is long enough");
        let database = DatabaseOptions::new().timeout(Duration::from_secs(10));
        let core = Core::builder(secret).database(database).open(url).await;
        let core = core.expect("a core on the database");
        // With a session, as a request has.
        let caller = auth::authenticate(&core, owner.token()).await.expect("a session");
        let list = todos::list(&core, &caller, ListQuery::default()).await.expect("the list");
        let position = &list.todos[MANY / 2];
        let db = Db::open(url).await.expect("the database opens");
        let statements = plain_statements(&db, caller, position);
        db.close().await;
        Self { core, caller, conn, statements, todos: list.todos, _app: app }
    }

    /// The defects of all plans.
    async fn defects(&mut self) -> Vec<(Option<SortBy>, String)> {
        let mut defects = Vec::new();
        for statement in &self.statements {
            let found = match &mut self.conn {
                Conn::Sqlite(conn) => defects_on_sqlite(conn, statement).await,
                Conn::Postgres(conn) => defects_on_postgres(conn, statement).await,
            };
            let PlainStatement { name, statement: ListStatement { sql, .. }, .. } = statement;
            let name = |defect| (statement.sort_by, format!("{name}: {defect}\n{sql}"));
            defects.extend(found.into_iter().map(name));
        }
        defects
    }

    async fn execute(&mut self, sql: &'static str) {
        match &mut self.conn {
            Conn::Sqlite(conn) => conn.execute(sql).await.map(drop),
            Conn::Postgres(conn) => conn.execute(sql).await.map(drop),
        }
        .expect(sql);
    }
}

fn fill(sql: &str, caller: &str) -> AssertSqlSafe<String> {
    let sql = sql.replace("$caller", caller).replace("$many", &MANY.to_string());
    AssertSqlSafe(sql.replace("$others", OTHERS).replace("$each", TODOS_OF_OTHERS))
}

/// The steps of a plan that scan a table, read more of an index than one range, or sort.
async fn defects_on_sqlite(conn: &mut SqliteConnection, statement: &PlainStatement) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.statement.sql));
    let plan = match sqlx::query(explain).fetch_all(conn).await {
        Ok(plan) => plan,
        // A statement names the index of its order.
        Err(error) => return vec![error.to_string()],
    };
    let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    let reads = steps.iter().filter(|step| step.contains(" todos ")).count();
    assert_eq!(reads == 0, statement.sort_by.is_none(), "{steps:#?}");
    let range = if statement.after {
        "(user_id=? AND completed=? AND ("
    } else {
        "(user_id=? AND completed=?)"
    };
    let is_bad = |step: &String| {
        let is_range = step.contains(range);
        (step.starts_with("SCAN ") && step != "SCAN CONSTANT ROW")
            || step.contains("TEMP B-TREE")
            || (step.contains(" todos ") && !is_range)
    };
    steps.into_iter().filter(is_bad).collect()
}

/// As [`defects_on_sqlite`], and the steps that read or sort more rows than a page has, in the plan
/// for these values and in the plan for any values: a prepared statement has one of the two.
async fn defects_on_postgres(conn: &mut PgConnection, statement: &PlainStatement) -> Vec<String> {
    let mut defects = Vec::new();
    for plan in plans::postgres(conn, &statement.statement, true).await {
        let mut reads = 0;
        examine(&plan, &mut reads, &mut defects);
        assert_eq!(reads == 0, statement.sort_by.is_none(), "{plan:#}");
    }
    defects
}

/// Collects the defects of a step and of those below it; `reads` counts those that read todos.
fn examine(step: &serde_json::Value, reads: &mut usize, defects: &mut Vec<String>) {
    let kind = step["Node Type"].as_str().expect("a type");
    let number = |name: &str| step[name].as_f64().unwrap_or_default();
    let rows = (number("Actual Rows")
        + number("Rows Removed by Filter")
        + number("Rows Removed by Index Recheck"))
        * number("Actual Loops");
    let steps = step["Plans"].as_array().map_or(&[][..], Vec::as_slice);
    let table = step["Relation Name"].as_str();
    *reads += usize::from(table == Some("todos"));
    // A handful of rows, of which there is no need for an index.
    let is_small = table == Some("meta") && rows <= 10.0;
    if kind == "Seq Scan" && !is_small {
        defects.push(format!("{kind} of {table:?}"));
    } else if table.is_some() && rows > PAGE {
        defects.push(format!("{kind} of {table:?} reads {rows} rows"));
    }
    if kind.ends_with("Sort") {
        let sorted = steps[0]["Actual Rows"].as_f64().expect("a number");
        if sorted > PAGE {
            defects.push(format!("{kind} of {sorted} rows"));
        }
    }
    for step in steps {
        examine(step, reads, defects);
    }
}

/// Every list of the caller is the model's: the todos that match, in order, each once.
async fn assert_lists_equal_the_model(filled: &Filled) {
    assert_eq!(filled.todos.len(), MANY);
    for &status in Status::ALL {
        for sort_by in SORTS {
            for &order in SortOrder::ALL {
                let query = ListQuery::new().status(status).sort_by(sort_by).order(order);
                let filters = query.filters.clone();
                let list = todos::list(&filled.core, &filled.caller, query).await.expect("a list");
                let is_listed = |todo: &&Todo| match status {
                    Status::Pending => !todo.completed,
                    Status::Completed => todo.completed,
                    _ => true,
                };
                let mut expected: Vec<&Todo> = filled.todos.iter().filter(is_listed).collect();
                expected.sort_by_key(|todo| sort_key(todo, sort_by));
                if order == SortOrder::Desc {
                    expected.reverse();
                }
                assert_eq!(list.total, i64::try_from(expected.len()).ok(), "{filters:?}");
                assert!(list.todos.iter().eq(expected), "{filters:?}");
            }
        }
    }
}

fn sort_key(todo: &Todo, sort_by: SortBy) -> (Option<Priority>, String, DateTime<Utc>, TodoId) {
    let priority = (sort_by == SortBy::Priority).then_some(todo.priority);
    let title =
        if sort_by == SortBy::Title { todo.title.as_str().to_lowercase() } else { String::new() };
    (priority, title, todo.created_at, todo.id)
}

/// Without an index, the lists in its order have defects, and no other list.
async fn assert_a_missing_index_is_found(filled: &mut Filled, drop: &'static str, key: SortBy) {
    filled.execute("BEGIN").await;
    filled.execute(drop).await;
    let defects = filled.defects().await;
    filled.execute("ROLLBACK").await;
    let of_key = filled.statements.iter().filter(|statement| statement.sort_by == Some(key));
    for PlainStatement { name, .. } in of_key {
        assert!(defects.iter().any(|(_, text)| text.starts_with(name)), "{drop}: {name}");
    }
    for (sort_by, text) in &defects {
        assert_eq!(*sort_by, Some(key), "{drop}: {text}");
    }
}

async fn each_list_reads_no_more_than_its_page(
    database: Database,
    indexes: &[(&'static str, SortBy)],
) {
    let mut filled = Filled::create(database).await;
    assert_eq!(filled.defects().await, []);
    assert_lists_equal_the_model(&filled).await;
    // The check itself finds defects.
    for (drop, key) in indexes {
        assert_a_missing_index_is_found(&mut filled, drop, *key).await;
    }
    filled.core.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_list_reads_no_more_than_its_page_on_sqlite() {
    // The table itself is in the order of `created_at`.
    let indexes = [
        ("DROP INDEX todos_by_priority", SortBy::Priority),
        ("DROP INDEX todos_by_title", SortBy::Title),
    ];
    each_list_reads_no_more_than_its_page(Database::Sqlite, &indexes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_list_reads_no_more_than_its_page_on_postgres() {
    let indexes = [
        ("DROP INDEX todos_by_created", SortBy::CreatedAt),
        ("DROP INDEX todos_by_priority", SortBy::Priority),
        ("DROP INDEX todos_by_title", SortBy::Title),
    ];
    each_list_reads_no_more_than_its_page(Database::Postgres, &indexes).await;
}
