//! The plans of lists with filters, in each shape, on both databases: no statement scans a table,
//! reads todos but by a range of the caller's, or sorts todos, unless they are those of a filter's
//! own index; and a page of a user with many todos reads few. `lists.rs` is about lists without
//! filters, `filters.rs` about what is listed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::SqliteConnection;
use todo_core::{
    Core, DatabaseOptions, Secret,
    auth::{self, Caller},
    testing::{Database as Db, ListStatement},
    todos::{self, DueFilter, Limit, ListId, ListQuery, SortBy, SortOrder, Status, Todo},
};
use todo_tests::{App, Database, Server, Target};

use crate::{filters::store::Conn, plans};

/// The todos of the two callers. Each filter selects more of the first than are ever sorted, which
/// is 5,000, and less of the second.
const MANY: usize = 15_000;
const FEW: usize = 1000;
const OTHERS: &str = "1000";
/// The rows of a page, and the row that shows whether the list continues.
const PAGE: i64 = 51;
/// Maximum number of rows that a page of the first caller reads: the
/// filters of a statement select one of ten todos or more, and no other limit is near.
const MAX_READ: f64 = 3000.0;
/// The same where PostgreSQL may read a range and sort it, since there are few todos, or it expects
/// few: those of a range of due dates, those of a tag, and the completed ones.
const MAX_READ_AND_SORTED: f64 = MANY as f64;

/// Inserts a user's todos. Two thirds have the tag `a`, two thirds `b`; half are in the list; four
/// of five have a due date, most of them in the range of the tests; three of four have a place.
const TODOS: &str = "
    INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, updated_at,
        completed_at, search, tags, list_id, position, due_date, undated, due_key)
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < $count),
    made AS (SELECT n, n * 7 % 11 < 2 AS completed, $at AS at,
        CASE WHEN n * 31 % 37 > 6 THEN 20000 + n * 13 % 40 END AS day FROM n)
    SELECT $id, CAST($owner AS $type), 'T' || n % 7, 't' || n % 7, 1 + n * 41 % 101 % 3, completed, at, at,
        CASE WHEN completed THEN at END, CASE WHEN n % 2 = 0 THEN 'milk' ELSE 'milk eggs' END,
        CASE n * 17 % 3 WHEN 0 THEN '[\"a\"]' WHEN 1 THEN '[\"b\"]' ELSE '[\"a\",\"b\"]' END,
        CASE WHEN n * 19 % 23 < 12 THEN CAST($list AS $type) END, CASE WHEN n % 4 > 0 THEN 'a' || n % 97 END,
        day, day IS NULL, coalesce((day + 1) * 1440, 0)
    FROM made";

/// The filters, of which a shape has one variant each.
const TAGS: [&[&str]; 3] = [&[], &["a"], &["a", "b"]];
const ANY_TAGS: [&[&str]; 2] = [&[], &["a", "b"]];
const DUES: [Dates; 4] = [Dates::All, Dates::Any, Dates::None, Dates::Range];
const LISTS: [Place; 3] = [Place::All, Place::Inbox, Place::List];
const SEARCHES: [Option<&str>; 3] = [None, Some("milk"), Some("milk -eggs")];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Dates {
    All,
    Any,
    None,
    Range,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    All,
    Inbox,
    List,
}

/// The filters of a statement.
#[derive(Clone, Copy, Debug)]
struct Shape {
    tags: &'static [&'static str],
    any_tags: &'static [&'static str],
    due: Dates,
    list: Place,
    search: Option<&'static str>,
}

impl Shape {
    /// The shapes with at most this number of filters.
    fn all(max_filters: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for tags in TAGS {
            for any_tags in ANY_TAGS {
                for due in DUES {
                    for list in LISTS {
                        for search in SEARCHES {
                            all.push(Self { tags, any_tags, due, list, search });
                        }
                    }
                }
            }
        }
        all.retain(|shape| shape.filters() <= max_filters);
        all
    }

    fn filters(self) -> usize {
        [
            !self.tags.is_empty(),
            !self.any_tags.is_empty(),
            self.due != Dates::All,
            self.list != Place::All,
            self.search.is_some(),
        ]
        .into_iter()
        .map(usize::from)
        .sum()
    }

    fn query(self, list: ListId) -> ListQuery {
        let mut query = ListQuery::new().search(self.search.map(|q| q.parse().expect("a search")));
        for tag in self.tags {
            query = query.tag(tag.parse().expect("a tag"));
        }
        for tag in self.any_tags {
            query = query.any_tag(tag.parse().expect("a tag"));
        }
        query = match self.due {
            Dates::All => query,
            Dates::Any => query.due(DueFilter::Any),
            Dates::None => query.due(DueFilter::None),
            // Day 20003 to 20039.
            Dates::Range => query
                .due_after(Some("2024-10-08".parse().expect("a date")))
                .due_before(Some("2024-11-14".parse().expect("a date"))),
        };
        match self.list {
            Place::All => query,
            Place::Inbox => query.list(None),
            Place::List => query.list(list),
        }
    }

    /// Whether the filters exclude the todos among which a page begins: there is no such cursor.
    fn excludes(self, sort_by: SortBy, start: Start) -> bool {
        let is_excluded = match start {
            Start::First => false,
            Start::InHead => self.due == Dates::None,
            Start::InTail => matches!(self.due, Dates::Any | Dates::Range),
        };
        sort_by == SortBy::Due && is_excluded
    }
}

/// Where a page begins: in the todos with a due date or a place, or in those without one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    First,
    InHead,
    InTail,
}

impl Start {
    /// The starts of pages in an order.
    fn of(sort_by: SortBy) -> &'static [Self] {
        match sort_by {
            SortBy::Due | SortBy::Position => &[Self::First, Self::InHead, Self::InTail],
            _ => &[Self::First, Self::InHead],
        }
    }
}

/// A statement, and what its plan may do.
struct Checked {
    name: String,
    statement: ListStatement,
    /// Whether it reads todos, not only their number.
    is_page: bool,
    /// Whether all todos of the list are counted.
    counts: bool,
    is_search: bool,
    /// Whether SQLite reads only the index of due dates: PostgreSQL reads another if it has less
    /// to read there.
    is_covered: bool,
    max_read: f64,
    /// The number of its ranges that begin after a position.
    continued: usize,
}

/// A user's todos, and positions among them.
struct Owner {
    caller: Caller,
    list: ListId,
    dated: Todo,
    undated: Todo,
}

impl Owner {
    /// The page and the total of a shape.
    fn statements(&self, db: &Db, shape: Shape, status: Status, counts: bool) -> Vec<Checked> {
        let now: DateTime<Utc> = self.dated.created_at;
        let query = shape.query(self.list).status(status).include_total(counts);
        let list = format!("{shape:?} {status}, counts: {counts}");
        let is_search = shape.search.is_some();
        let statement = db.list_total(self.caller, &query, now);
        let name = format!("total of {list}");
        let total = Checked {
            name,
            statement,
            is_page: false,
            counts,
            is_search,
            is_covered: matches!(shape.due, Dates::Any | Dates::None) && shape.filters() == 1,
            max_read: 0.0,
            continued: 0,
        };
        let mut all = vec![total];
        for &sort_by in SortBy::ALL {
            for &order in SortOrder::ALL {
                for &start in Start::of(sort_by) {
                    if shape.excludes(sort_by, start) {
                        continue;
                    }
                    let query = query.clone().sort_by(sort_by).order(order);
                    let after = match start {
                        Start::First => None,
                        Start::InHead => Some((&self.dated, Some("a50".to_owned()))),
                        Start::InTail => Some((&self.undated, None)),
                    };
                    let statement = db.list_page(self.caller, &query, now, PAGE, after);
                    let name = format!("{list} by {sort_by} {order}, {start:?}");
                    let ranges = if status == Status::All { 2 } else { 1 };
                    let continued = if start == Start::First { 0 } else { ranges };
                    let is_sorted = !shape.tags.is_empty()
                        || status == Status::Completed
                        || (shape.due == Dates::Range && sort_by == SortBy::Due);
                    let max_read = if is_sorted { MAX_READ_AND_SORTED } else { MAX_READ };
                    let is_page = true;
                    all.push(Checked {
                        name,
                        statement,
                        is_page,
                        counts,
                        is_search,
                        is_covered: false,
                        max_read,
                        continued,
                    });
                }
            }
        }
        all
    }
}

/// A database with the todos of two users, and of others.
struct Filled {
    db: Db,
    conn: Conn,
    many: Owner,
    few: Owner,
    _app: App,
}

impl Filled {
    async fn create(database: Database) -> Self {
        let (app, core, mut conn) = start(database).await;
        let many = owner(&app, &core, &mut conn, MANY).await;
        let few = owner(&app, &core, &mut conn, FEW).await;
        add_others(&mut conn).await;
        if database == Database::Postgres {
            conn.execute("ANALYZE").await;
        }
        core.close().await;
        let db = Db::open(app.database_url()).await.expect("the database opens");
        Self { db, conn, many, few, _app: app }
    }

    /// The defects of a statement's plans. A page of `many` reads few rows.
    async fn defects(&mut self, checked: &Checked, is_many: bool) -> Vec<String> {
        let sql = &checked.statement.sql;
        let defects = match &mut self.conn {
            Conn::Sqlite(conn) => defects_on_sqlite(conn, checked).await,
            Conn::Postgres(conn) => {
                let mut defects = Vec::new();
                // A statement is executed only where the number of rows is of interest: a search
                // reads all todos, and sorts those that it finds.
                let executes = is_many && !checked.counts && checked.is_page && !checked.is_search;
                for plan in plans::postgres(conn, &checked.statement, executes).await {
                    let mut found = Found::default();
                    examine(&plan, true, &mut found);
                    if found.rows > checked.max_read || found.sorted > checked.max_read {
                        let Found { rows, sorted, .. } = found;
                        found.defects.push(format!("reads {rows} rows, sorts {sorted}"));
                    }
                    if checked.is_page && found.todos == 0 {
                        found.defects.push("reads no todos".to_owned());
                    }
                    if !found.defects.is_empty() {
                        defects.push(format!("{:?} of {plan:#}", found.defects));
                    }
                }
                defects
            }
        };
        defects.into_iter().map(|defect| format!("{}: {defect}\n{sql}", checked.name)).collect()
    }

    /// The defects of all statements of these shapes.
    async fn all_defects(&mut self, shapes: &[Shape], statuses: &[Status]) -> Vec<String> {
        let mut defects = Vec::new();
        for shape in shapes {
            for &status in statuses {
                for is_many in [false, true] {
                    let owner = if is_many { &self.many } else { &self.few };
                    for checked in owner.statements(&self.db, *shape, status, !is_many) {
                        defects.extend(self.defects(&checked, is_many).await);
                    }
                }
            }
        }
        defects
    }
}

/// A server, which is only for its database and for the signups, and the library on this database.
async fn start(database: Database) -> (App, Core, Conn) {
    let app = App::start(Target { server: Server::Hyper, database }).await;
    let url = app.database_url();
    let conn = Conn::open(database, url).await;
    let secret = Secret::new(app.secret()).expect("the secret of the tests is long enough");
    let options = DatabaseOptions::new().timeout(Duration::from_secs(10));
    let core = Core::builder(secret).database(options).open(url).await.expect("a core");
    (app, core, conn)
}

async fn owner(app: &App, core: &Core, conn: &mut Conn, count: usize) -> Owner {
    let actor = app.signed_up().await;
    // With a session, as a request has.
    let caller = auth::authenticate(core, actor.token()).await.expect("a session");
    let new = todos::NewList::new("List".parse().expect("a name"));
    let list = todos::create_list(core, &caller, new).await.expect("a list").id;
    let owner = conn.literal(caller.user_id());
    let literal = conn.literal(list);
    add_todos(conn, &owner, &literal, count).await;
    let some = async |due| {
        let query = ListQuery::new().due(due).limit(Limit::new(500).expect("a limit"));
        let mut page = todos::list(core, &caller, query).await.expect("a page").todos;
        page.swap_remove(page.len() / 2)
    };
    let (dated, undated) = (some(DueFilter::Any).await, some(DueFilter::None).await);
    Owner { caller, list, dated, undated }
}

async fn add_todos(conn: &mut Conn, owner: &str, list: &str, count: usize) {
    let [id, kind, at] = match conn {
        Conn::Sqlite(_) => ["randomblob(16)", "blob", "1800000000000000 + n / 3"],
        Conn::Postgres(_) => {
            let at = "timestamptz '2027-01-15' + n / 3 * interval '1 microsecond'";
            ["gen_random_uuid()", "uuid", at]
        }
    };
    let sql = TODOS.replace("$owner", owner).replace("$list", list).replace("$type", kind);
    let sql = sql.replace("$id", id).replace("$at", at).replace("$count", &count.to_string());
    conn.execute(&sql).await;
}

/// Adds other users with todos: on PostgreSQL so many that it prefers the indexes.
async fn add_others(conn: &mut Conn) {
    let [id, at, todos] = match conn {
        Conn::Sqlite(_) => ["randomblob(16)", "1", "1"],
        Conn::Postgres(_) => ["gen_random_uuid()", "now()", "60"],
    };
    let numbers = |count: &str| {
        format!("WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count})")
    };
    conn.execute(&format!(
        "INSERT INTO users (id, email, name, password_hash, created_at) {} \
         SELECT {id}, 'u' || n || '@example.com', 'Ann', 'x', {at} FROM n",
        numbers(OTHERS)
    ))
    .await;
    conn.execute(&format!(
        "INSERT INTO todos (id, user_id, title, title_key, priority, completed, created_at, \
         updated_at, search, tags) {} SELECT {id}, users.id, 'T', 't', 1, FALSE, {at}, {at}, \
         'milk', '[\"a\"]' \
         FROM users JOIN n ON users.name = 'Ann'",
        numbers(todos)
    ))
    .await;
}

/// Tables and views of which no plan reads all rows.
const TABLES: [&str; 6] = ["todos", "todo_tags", "tags", "lists", "list_counts", "todo_counts"];
/// What SQLite's steps of a sort begin with.
const SORT: &str = "USE TEMP B-TREE FOR ORDER BY";

/// The steps that read more than a range of the caller's rows, and the sorts of other rows than
/// those of a filter's own index.
async fn defects_on_sqlite(conn: &mut SqliteConnection, checked: &Checked) -> Vec<String> {
    let plan = plans::sqlite(conn, &checked.statement.sql).await;
    let mut defects = Vec::new();
    let mut todos = 0;
    let mut continued = 0;
    let mut selects = vec![&plan];
    while let Some(steps) = selects.pop() {
        let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
        let is_sorted = texts.iter().any(|text| text.starts_with(SORT));
        let reads_todos = texts.iter().any(|text| text.contains(" todos "));
        let is_narrow = texts.iter().any(|text| {
            text.contains("INDEX todos_by_list (user_id=? AND list_id=?")
                || text.contains("INDEX todos_by_due (user_id=? AND completed=? AND due_key>?")
                || text.starts_with("SEARCH todo_tags ")
                || text.starts_with("SCAN tagged")
        });
        if is_sorted && reads_todos && !is_narrow {
            defects.push(format!("sorts {texts:?}"));
        }
        for text in &texts {
            let table = text.split(' ').nth(1).unwrap_or_default();
            let is_range = text.contains("(user_id=? AND ");
            if text.starts_with("SCAN ") && TABLES.contains(&table) {
                defects.push((*text).to_owned());
            } else if table == "todos" {
                todos += 1;
                let is_found = text.contains("(id=? AND user_id=?")
                    || text.contains("INDEX todos_unfolded (user_id=?");
                let is_covered = text.contains(" COVERING INDEX ");
                if !is_range && !is_found && !checked.counts || checked.is_covered && !is_covered {
                    defects.push((*text).to_owned());
                }
            }
            // A range that begins after the position.
            continued += usize::from(!is_sorted && text.contains(")>(?") || text.contains(")<(?"));
        }
        selects.extend(steps.iter().map(|step| &step.steps));
    }
    if todos == 0 && checked.is_page {
        defects.push("reads no todos".to_owned());
    }
    if continued < checked.continued {
        defects.push(format!("{continued} of {} ranges begin there", checked.continued));
    }
    if defects.is_empty() { defects } else { vec![format!("{defects:?} of {plan:#?}")] }
}

/// What a plan does.
#[derive(Default)]
struct Found {
    /// The steps that read todos.
    todos: usize,
    /// The rows of todos that are read for a page, and those that are sorted.
    rows: f64,
    sorted: f64,
    defects: Vec<String>,
}

/// Collects what a step does, and those below it. `is_page` is whether its rows are those of the
/// page, not of a count.
fn examine(step: &Value, is_page: bool, found: &mut Found) {
    let text = |name: &str| step[name].as_str().unwrap_or_default();
    let number = |name: &str| step[name].as_f64().unwrap_or_default();
    let kind = text("Node Type");
    let table = text("Relation Name");
    let is_page = is_page && !text("Subplan Name").starts_with("CTE ");
    let steps = step["Plans"].as_array().map_or(&[][..], Vec::as_slice);
    // A user of the tests has a large part of all tags.
    if kind == "Seq Scan" && TABLES.contains(&table) && table != "todo_tags" {
        found.defects.push(format!("{kind} of {table}"));
    }
    if table == "todos" {
        found.todos += 1;
        // That of a bitmap is below it.
        let cond = [step, steps.first().unwrap_or(&Value::Null)]
            .map(|step| step["Index Cond"].as_str().unwrap_or_default().to_owned())
            .concat();
        if !cond.contains("user_id = ") && !cond.contains("(id = todo_tags") {
            found.defects.push(format!("{kind} of todos on {cond:?}"));
        }
        let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
        if is_page {
            found.rows += (number("Actual Rows") + removed) * number("Actual Loops");
        }
    }
    if kind.ends_with("Sort") && is_page {
        found.sorted += steps[0]["Actual Rows"].as_f64().unwrap_or_default();
    }
    for step in steps {
        examine(step, is_page, found);
    }
}

fn assert_none(defects: &[String]) {
    let count = defects.len();
    assert!(defects.is_empty(), "{count}: {}", defects[..count.min(5)].join("\n\n"));
}

on_both_databases! {
    async fn lists_with_filters_read_what_they_return(database) {
        let mut filled = Filled::create(database).await;
        let mut defects = filled.all_defects(&Shape::all(2), &[Status::All]).await;
        defects.extend(filled.all_defects(&Shape::all(1), &[Status::Pending]).await);
        assert_none(&defects);
        filled.db.close().await;
    }

    #[ignore = "slow: run by .ci/run --all"]
    async fn lists_with_any_filters_read_what_they_return(database) {
        let mut filled = Filled::create(database).await;
        assert_none(&filled.all_defects(&Shape::all(5), Status::ALL).await);
        filled.db.close().await;
    }

    // They are counted without the todos.
    async fn the_total_of_frequent_tags_is_exact(database) {
        let (app, core, mut conn) = start(database).await;
        let owner = owner(&app, &core, &mut conn, MANY).await;
        for (status, is_listed) in [
            (Status::All, [true, true]),
            (Status::Pending, [true, false]),
            (Status::Completed, [false, true]),
        ] {
            let query = ListQuery::new().tag("a".parse().expect("a tag")).status(status);
            let query = query.tag("b".parse().expect("a tag"));
            let total = todos::list(&core, &owner.caller, query).await.expect("a page").total;
            // As in the statement that inserts them.
            let has_both = |n: &usize| n * 17 % 3 == 2;
            let is_completed = |n: usize| n * 7 % 11 < 2;
            let both = (1..=MANY).filter(has_both);
            let expected = both.filter(|&n| is_listed[usize::from(is_completed(n))]).count();
            assert_eq!(total, i64::try_from(expected).ok(), "{status}");
        }
        core.close().await;
    }
}
