//! A user's todos with tags, due dates, lists and places.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use todo_core::{
    Clock, Core, Secret,
    auth::Caller,
    todos::{self, Description, Due, ListId, NewTodo, Priority, Tags, TodoId},
};
use todo_tests::{Actor, App, Database, Server, Target};
use uuid::Uuid;

use super::reference::Row;

/// The number of lists.
pub(crate) const LISTS: usize = 2;

/// A connection to the database under test.
pub(crate) enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Conn {
    pub(crate) async fn open(database: Database, url: &str) -> Self {
        match database {
            Database::Sqlite => {
                Self::Sqlite(SqliteConnection::connect(url).await.expect("the file"))
            }
            Database::Postgres => {
                Self::Postgres(PgConnection::connect(url).await.expect("the server"))
            }
        }
    }

    pub(crate) async fn execute(&mut self, sql: &str) {
        let text = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(conn) => conn.execute(text).await.map(drop),
            Self::Postgres(conn) => conn.execute(text).await.map(drop),
        }
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// An id as a literal of this database.
    pub(crate) fn literal(&self, id: impl Into<Uuid>) -> String {
        let id: Uuid = id.into();
        match self {
            Self::Sqlite(_) => format!("x'{}'", id.simple()),
            Self::Postgres(_) => format!("'{id}'"),
        }
    }

    /// A time as a literal of this database.
    pub(crate) fn time(&self, time: DateTime<Utc>) -> String {
        match self {
            Self::Sqlite(_) => time.timestamp_micros().to_string(),
            Self::Postgres(_) => format!("'{}'", time.to_rfc3339()),
        }
    }
}

pub(crate) struct Store {
    pub(crate) core: Core,
    pub(crate) caller: Caller,
    pub(crate) lists: Vec<ListId>,
    pub(crate) todos: Vec<Row>,
    pub(crate) conn: Conn,
    clock: Arc<AtomicI64>,
    _app: App,
}

/// A todo, its list, its place in the order, and whether it is completed.
pub(super) type Spec = (NewTodo, Option<usize>, Option<String>, bool);

pub(super) fn spec() -> impl Strategy<Value = Spec> {
    let title = prop::sample::select(vec!["Milk", "eggs and MILK", "milk, Eggs", "B", "a"]);
    let description = prop::option::of(prop::sample::select(vec!["100%", "1000", "k e", "Milk e"]));
    let tags = prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "a b"]), 0..3);
    let time = (0_u32..24, prop::sample::select(vec![0_u32, 30, 59]));
    let zone =
        prop::sample::select(vec!["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Kolkata"]);
    let due = prop::option::weighted(
        0.6,
        (24_u32..=30, prop::option::weighted(0.7, (time, zone))).prop_map(|(day, time)| {
            let date = format!("2026-11-{day}");
            let time = time.map(|((h, m), zone)| (format!("{h:02}:{m:02}"), zone));
            let zone = time.as_ref().map(|(_, zone)| *zone);
            Due::parse(&date, time.as_ref().map(|(time, _)| time.as_str()), zone).expect("a date")
        }),
    );
    let place = prop::option::of(prop::sample::select(vec!["80", "8080", "81", "7f"]));
    let list = prop::option::of(0..LISTS);
    let priority = prop::sample::select(Priority::ALL);
    (title, description, tags, due, priority, list, place, prop::bool::weighted(0.4)).prop_map(
        |(title, description, tags, due, priority, list, place, completed)| {
            let description = description.map(|text| Description::parse(text).expect("a text"));
            let new = NewTodo::new(title.parse().expect("a title"))
                .description(description)
                .priority(priority)
                .tags(Tags::parse(tags).expect("tags"))
                .due(due);
            (new, list, place.map(str::to_owned), completed)
        },
    )
}

impl Store {
    /// A store with this number of random todos, beside those of another user.
    pub(crate) async fn create(database: Database, count: usize) -> Self {
        let mut store = Self::empty(database).await;
        let other = store._app.signed_up().await;
        let other = Caller::trusted(other.id().parse().expect("ids are UUIDs"));
        let mut runner = TestRunner::default();
        for number in 0..count {
            let (new, list, place, completed) =
                spec().new_tree(&mut runner).expect("one").current();
            if number % 10 == 0 {
                todos::create(&store.core, &other, new.clone()).await.expect("another's todo");
            }
            // Some have the same time.
            if number % 3 > 0 {
                store.clock.fetch_add(1, Ordering::Relaxed);
            }
            let list = list.map(|list| store.lists[list]);
            store.add(new.list_id(list), place, completed).await;
        }
        store.clock.fetch_add(1_000_000, Ordering::Relaxed);
        store
    }

    /// A store with lists, without todos.
    pub(crate) async fn empty(database: Database) -> Self {
        // The server is only for its database and for the signups.
        let app = App::start(Target { server: Server::Hyper, database }).await;
        let owner: Actor = app.signed_up().await;
        let id: Uuid = owner.id().parse().expect("ids are UUIDs");
        let start: DateTime<Utc> = "2026-11-27T20:29:59Z".parse().expect("a time");
        let clock = Arc::new(AtomicI64::new(start.timestamp_micros()));
        let now = Arc::clone(&clock);
        let time =
            move || DateTime::UNIX_EPOCH + TimeDelta::microseconds(now.load(Ordering::Relaxed));
        let secret = Secret::new(app.secret()).expect("the secret of the tests is long enough");
        let core = Core::builder(secret).clock(Clock::from_fn(time)).open(app.database_url());
        let core = core.await.expect("a core on the database");
        let mut conn = Conn::open(database, app.database_url()).await;
        app.delete_jobs().await;
        let mut lists = Vec::new();
        for number in 0..LISTS {
            let list = Uuid::from_u128(0x0193_8c6f_0000_7000_8000_0000_0000_0001 + number as u128);
            let (key, user) = (conn.literal(list), conn.literal(id));
            let time = conn.time(start);
            let columns = "id, user_id, name, created_at, updated_at";
            let values = format!("{key}, {user}, 'List', {time}, {time}");
            conn.execute(&format!("INSERT INTO lists ({columns}) VALUES ({values})")).await;
            lists.push(list.into());
        }
        let caller = Caller::trusted(id.into());
        Self { core, caller, lists, todos: Vec::new(), conn, clock, _app: app }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::microseconds(self.clock.load(Ordering::Relaxed))
    }

    /// Creates a todo.
    pub(crate) async fn add(&mut self, new: NewTodo, place: Option<String>, completed: bool) {
        let todo = todos::create(&self.core, &self.caller, new).await.expect("a todo");
        let id: TodoId = todo.id;
        if completed {
            todos::set_completed(&self.core, &self.caller, id, true).await.expect("completed");
        }
        if let Some(place) = &place {
            let id = self.conn.literal(id);
            let set = format!("UPDATE todos SET position = '{place}' WHERE id = {id}");
            self.conn.execute(&set).await;
        }
        let todo = todos::get(&self.core, &self.caller, id).await.expect("the todo");
        self.todos.push((todo, place));
    }
}
