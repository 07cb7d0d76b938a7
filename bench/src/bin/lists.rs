//! Times of lists: each filter in each order, the first page and a deep one, with its total, of a
//! user with 50,000 todos beside 900 others and one with 1,000,000. Through `todos::list`, on both
//! databases, one read at a time; no server and no socket.
//!
//! `lists [sqlite] [postgres]` measures these databases, or both.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};
use todo_bench::Failure;
use todo_core::{
    Core, DatabaseOptions, Secret,
    auth::{self, Caller},
    todos::{self, DueFilter, Limit, ListQuery, SortBy, SortOrder, Status, TodoList},
};
use todo_tests::postgres::Cluster;
use uuid::Uuid;

/// The todos of the user whose lists are measured, and of another.
const SIZES: [usize; 2] = [50_000, 1_000_000];
const OTHERS: usize = 900;
const TODOS_OF_OTHERS: usize = 200;
/// Todos that one statement inserts.
const PIECE: usize = 5000;
/// A deep page follows this number of todos, or half of the list if that is less.
const DEEP: usize = 25_000;
/// Reads of each list: as many as fit in the time, between these bounds.
const READS: std::ops::RangeInclusive<usize> = 20..=200;
const TIME: Duration = Duration::from_millis(300);
/// The wanted p99; longer times are printed in bold.
const WANTED: Duration = Duration::from_millis(20);

/// A name and a filter.
type Case = (&'static str, fn(ListQuery, &Lists) -> Result<ListQuery, Failure>);

/// The lists of the user.
struct Lists {
    large: Uuid,
    small: Uuid,
}

const CASES: [Case; 17] = [
    ("all", |query, _| Ok(query)),
    ("pending", |query, _| Ok(query.status(Status::Pending))),
    ("tag of 1/3", |query, _| Ok(query.tag("home".parse()?))),
    ("tag of 1/50", |query, _| Ok(query.tag("rare".parse()?))),
    ("two tags", |query, _| Ok(query.tag("home".parse()?).tag("work".parse()?))),
    ("one of two tags", |query, _| Ok(query.any_tag("home".parse()?).any_tag("work".parse()?))),
    ("due any", |query, _| Ok(query.due(DueFilter::Any))),
    ("due none", |query, _| Ok(query.due(DueFilter::None))),
    ("due today", |query, _| Ok(query.due(DueFilter::Today))),
    ("due overdue", |query, _| Ok(query.due(DueFilter::Overdue))),
    ("list of 1/3", |query, lists| Ok(query.list(Some(lists.large.into())))),
    ("list of 1/100", |query, lists| Ok(query.list(Some(lists.small.into())))),
    ("inbox", |query, _| Ok(query.list(None))),
    ("inbox, pending, due any", |query, _| {
        Ok(query.list(None).status(Status::Pending).due(DueFilter::Any))
    }),
    ("search, frequent", |query, _| Ok(query.search(Some("notes monday".parse()?)))),
    ("search, rare", |query, _| Ok(query.search(Some("zanzibar".parse()?)))),
    ("search, nothing", |query, _| Ok(query.search(Some("\"no such todo\"".parse()?)))),
];

/// Inserts todos of a user; `$owner`, `$large` and `$small` are ids, `$first` and `$last` numbers
/// of todos. A third has the tag `home`, a fifth `work`, a fiftieth `rare`; half have a date within
/// two years, a sixth a time too; a third is in a list, a hundredth in another; half have a place.
const TODOS: &str = "
    WITH RECURSIVE n(n) AS (SELECT $first UNION ALL SELECT n + 1 FROM n WHERE n < $last),
    made AS (SELECT n, n % 4 = 0 AS completed, $at AS at,
        $what || ' ' || $when || ' ' || n AS title,
        CASE WHEN n % 2 = 0 THEN 'Ask everybody beforehand, and bring coffee.' END AS description,
        '[' || CASE WHEN n % 3 = 0 THEN '\"home\"' ELSE '' END
            || CASE WHEN n % 3 = 0 AND n % 50 = 7 THEN ',' ELSE '' END
            || CASE WHEN n % 50 = 7 THEN '\"rare\"' ELSE '' END
            || CASE WHEN n % 5 = 0 AND (n % 3 = 0 OR n % 50 = 7) THEN ',' ELSE '' END
            || CASE WHEN n % 5 = 0 THEN '\"work\"' ELSE '' END || ']' AS tags,
        CASE WHEN n % 1009 * 79 % 11 < 5 THEN $today - 365 + n % 7919 * 31 % 730 END AS day,
        CASE WHEN n % 3 = 1 THEN n % 7919 * 17 % 1440 END AS minute FROM n)
    INSERT INTO todos (id, user_id, title, title_key, description, priority, completed, created_at,
        updated_at, completed_at, search, tags, list_id, position, due_date, due_minute, due_zone,
        due_at, undated, due_key)
    SELECT $id, $owner, title, lower(title), description, 1 + n % 1009 * 31 % 101 % 3, completed, at, at,
        CASE WHEN completed THEN at END,
        lower(title) || ' ' || tags || ' ' || coalesce(lower(description), ''), tags,
        CASE WHEN n % 3 = 2 THEN $large WHEN n % 100 = 1 THEN $small END,
        CASE WHEN n % 2 = 1 THEN 'a' || $place END, day,
        CASE WHEN day IS NOT NULL THEN minute END,
        CASE WHEN day IS NOT NULL AND minute IS NOT NULL THEN 'UTC' END,
        CASE WHEN day IS NOT NULL AND minute IS NOT NULL THEN $instant END,
        day IS NULL, CASE WHEN day IS NULL THEN 0 WHEN minute IS NULL THEN (day + 1) * 1440
            ELSE day * 1440 + minute END
    FROM made";
const WHAT: &str = "CASE n % 8 WHEN 0 THEN 'Prepare notes' WHEN 1 THEN 'Call the plumber' WHEN 2 \
    THEN 'Review the draft' WHEN 3 THEN 'Book the tickets' WHEN 4 THEN 'Order new parts' WHEN 5 \
    THEN 'Water the plants' WHEN 6 THEN 'Send the invoice' ELSE 'Clean the garage' END";
const WHEN: &str = "CASE n / 7 % 6 WHEN 0 THEN 'before Monday' WHEN 1 THEN 'for the whole team' \
    WHEN 2 THEN 'with Ada and Grace' WHEN 3 THEN 'as soon as possible' WHEN 4 \
    THEN 'at the old office' ELSE CASE WHEN n % 5000 = 38 THEN 'in Zanzibar' \
    ELSE 'after the holidays' END END";

/// A connection that fills a database.
enum Filler {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Filler {
    async fn open(url: &str) -> Result<Self, Failure> {
        Ok(if url.starts_with("sqlite:") {
            Self::Sqlite(SqliteConnection::connect(url).await?)
        } else {
            Self::Postgres(PgConnection::connect(url).await?)
        })
    }

    async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(conn) => statement.execute(conn).await.map(drop)?,
            Self::Postgres(conn) => statement.execute(conn).await.map(drop)?,
        }
        Ok(())
    }

    fn id(&self, id: Uuid) -> String {
        match self {
            Self::Sqlite(_) => format!("x'{}'", id.simple()),
            Self::Postgres(_) => format!("'{id}'::uuid"),
        }
    }

    async fn add_lists(&mut self, owner: Uuid, lists: &Lists) -> Result<(), Failure> {
        let owner = self.id(owner);
        for list in [lists.large, lists.small] {
            let list = self.id(list);
            let at = if matches!(self, Self::Sqlite(_)) { "1" } else { "now()" };
            let columns = "id, user_id, name, created_at, updated_at";
            let values = format!("{list}, {owner}, 'List', {at}, {at}");
            self.run(&format!("INSERT INTO lists ({columns}) VALUES ({values})")).await?;
        }
        Ok(())
    }

    async fn add_todos(&mut self, owner: &str, lists: &Lists, count: usize) -> Result<(), Failure> {
        let sql = TODOS
            .replace("$owner", owner)
            .replace("$large", &self.id(lists.large))
            .replace("$small", &self.id(lists.small))
            .replace("$what", WHAT)
            .replace("$when", WHEN);
        let [id, at, today, instant, place] = match self {
            Self::Sqlite(_) => [
                "randomblob(16)",
                "(unixepoch() * 1000000 - n * 7000000)",
                "(unixepoch() / 86400)",
                "(day * 1440 + minute) * 60000000",
                "printf('%07d', n * 7919 % 1000003)",
            ],
            Self::Postgres(_) => [
                "gen_random_uuid()",
                "(date_trunc('second', now()) - n * interval '7 seconds')",
                "(extract(epoch FROM now())::bigint / 86400)",
                "to_timestamp((day * 1440 + minute) * 60)",
                "lpad((n::bigint * 7919 % 1000003)::text, 7, '0')",
            ],
        };
        let sql = sql.replace("$id", id).replace("$at", at).replace("$today", today);
        let sql = sql.replace("$instant", instant).replace("$place", place);
        // A transaction for each piece: versions of the same counters would pile up in a long one.
        for first in (0..count).step_by(PIECE) {
            let last = count.min(first + PIECE) - 1;
            self.run(
                &sql.replace("$first", &first.to_string()).replace("$last", &last.to_string()),
            )
            .await?;
        }
        Ok(())
    }

    /// Adds the other users, who have no lists.
    async fn add_others(&mut self) -> Result<(), Failure> {
        let nowhere = Lists { large: Uuid::nil(), small: Uuid::nil() };
        for number in 0..OTHERS {
            let id = Uuid::from_u128(0x7000_8000_0000_0000_0000 + number as u128);
            let id = self.id(id);
            let at = if matches!(self, Self::Sqlite(_)) { "1" } else { "now()" };
            let columns = "id, email, name, password_hash, created_at";
            let values = format!("{id}, 'u{number}@example.com', 'Ann', 'x', {at}");
            self.run(&format!("INSERT INTO users ({columns}) VALUES ({values})")).await?;
            self.add_todos(&id, &nowhere, TODOS_OF_OTHERS).await?;
        }
        Ok(())
    }
}

/// A user and their lists.
struct User {
    caller: Caller,
    lists: Lists,
}

/// Fills an empty database, and returns the user of the measurement. All statistics are up to date
/// afterwards.
async fn fill(url: &str, core: &Core) -> Result<User, Failure> {
    let mut filler = Filler::open(url).await?;
    if matches!(filler, Filler::Sqlite(_)) {
        filler.run("PRAGMA synchronous = OFF; PRAGMA cache_size = -400000").await?;
    }
    let mut users = Vec::new();
    for (number, count) in SIZES.into_iter().enumerate() {
        let address = format!("ada{number}@example.com");
        let form = auth::Signup::parse(&address, "Correct1horse", "Ada Lovelace")?;
        let token = auth::signup(core, auth::Client::Trusted, form).await?.token;
        let caller = auth::authenticate(core, token.as_str()).await?;
        let id = |kind: u128| Uuid::from_u128((kind << 64) + number as u128);
        let lists = Lists { large: id(1), small: id(2) };
        let owner = Uuid::from(caller.user_id());
        filler.add_lists(owner, &lists).await?;
        let owner = filler.id(owner);
        filler.add_todos(&owner, &lists, count).await?;
        users.push(User { caller, lists });
    }
    filler.add_others().await?;
    match &filler {
        Filler::Sqlite(_) => filler.run("PRAGMA wal_checkpoint(TRUNCATE)").await?,
        Filler::Postgres(_) => {
            filler.run("VACUUM ANALYZE").await?;
            filler.run("CHECKPOINT").await?;
        }
    }
    Ok(users.swap_remove(0))
}

/// The p50 and the p99 of the reads of a list.
async fn measure(core: &Core, user: &User, query: &ListQuery) -> Result<[Duration; 2], Failure> {
    // Twice, so that the statement is prepared and the pages are in memory.
    for _ in 0..2 {
        todos::list(core, &user.caller, query.clone()).await?;
    }
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < *READS.end() && (times.len() < *READS.start() || began.elapsed() < TIME) {
        let before = Instant::now();
        todos::list(core, &user.caller, query.clone()).await?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    Ok([at(50), at(99)])
}

/// The query of a deep page of a list; none if the list has one page.
async fn deep(core: &Core, user: &User, query: &ListQuery) -> Result<Option<ListQuery>, Failure> {
    let first: TodoList = todos::list(core, &user.caller, query.clone()).await?;
    let total = usize::try_from(first.total.unwrap_or_default())?;
    let mut left = DEEP.min(total / 2);
    let mut walk = query.clone().include_total(false).limit(Limit::new(Limit::MAX)?);
    while left > 0 {
        let size = u16::try_from(left.min(Limit::MAX.into()))?;
        let page = todos::list(core, &user.caller, walk.limit(Limit::new(size)?)).await?;
        left = left.saturating_sub(page.todos.len().max(1));
        let Some(cursor) = page.next_cursor else { return Ok(None) };
        walk = query.clone().include_total(false).cursor(cursor);
    }
    Ok(walk.cursor.is_some().then(|| query.clone().cursor(walk.cursor)))
}

fn text([p50, p99]: [Duration; 2]) -> String {
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let bold = if p99 > WANTED { "**" } else { "" };
    format!("{bold}{} / {}{bold}", ms(p50), ms(p99))
}

/// Prints the table of a user: of each order the slower direction.
async fn print_table(core: &Core, user: &User) -> Result<(), Failure> {
    let names: Vec<String> = SortBy::ALL.iter().map(|sort_by| format!(" {sort_by} |")).collect();
    println!("| filter | page | total |{}", names.concat());
    println!("|---|---|---:|{}", "---:|".repeat(names.len()));
    for (name, filter) in CASES {
        let mut rows = [String::new(), String::new()];
        let mut total = 0;
        for &sort_by in SortBy::ALL {
            let mut slowest = [[Duration::ZERO; 2]; 2];
            for &order in SortOrder::ALL {
                let query = ListQuery::new().limit(Limit::new(50)?).sort_by(sort_by).order(order);
                let query = filter(query, &user.lists)?;
                let deep = deep(core, user, &query).await?;
                total = todos::list(core, &user.caller, query.clone()).await?.total.unwrap_or(-1);
                for (page, query) in [Some(query), deep].into_iter().enumerate() {
                    let Some(query) = query else { continue };
                    let times = measure(core, user, &query).await?;
                    slowest[page] = slowest[page].max_by_p99(times);
                }
            }
            for (row, times) in rows.iter_mut().zip(slowest) {
                row.extend([" ", &text(times), " |"]);
            }
        }
        for (page, row) in ["first", "deep"].into_iter().zip(rows) {
            println!("| {name} | {page} | {total} |{row}");
        }
    }
    Ok(())
}

trait Slower {
    fn max_by_p99(self, other: Self) -> Self;
}

impl Slower for [Duration; 2] {
    fn max_by_p99(self, other: Self) -> Self {
        if other[1] > self[1] { other } else { self }
    }
}

async fn run(database: &str, url: &str) -> Result<(), Failure> {
    let secret = Secret::new("a secret of more than 32 bytes to measure with")?;
    let options = DatabaseOptions::new().timeout(Duration::from_mins(1));
    let core = Core::builder(secret).database(options).open(url).await?;
    let began = Instant::now();
    let user = fill(url, &core).await?;
    eprintln!("{database}: filled in {:.0?}", began.elapsed());
    println!("\n### {database}\n");
    print_table(&core, &user).await?;
    core.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|other| other == name);
    if is_wanted("sqlite") {
        let dir = tempfile::Builder::new().prefix("todo-lists-").tempdir()?;
        let url = format!("sqlite://{}", dir.path().join("todo.db").display());
        run("SQLite", &url).await?;
    }
    if is_wanted("postgres") {
        let cluster = Cluster::dedicated(&[], &[]).await?;
        let port = cluster.port().ok_or("PostgreSQL is not running")?;
        run("PostgreSQL", &format!("postgres://postgres@127.0.0.1:{port}/postgres")).await?;
        cluster.stop().await?;
    }
    Ok(())
}
