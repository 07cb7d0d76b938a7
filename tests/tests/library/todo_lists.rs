//! Deletion of lists: at once for the user, in pieces behind, also after the end of a process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use todo_core::{
    Clock, Core, Error, Secret,
    auth::Caller,
    todos::{self, Bulk, BulkRequest, Change, List, ListName, NewList, NewTodo, TodoPatch},
};
use todo_tests::{App, Database, Server, Target};
use uuid::Uuid;

use super::changes::{Library, title};

async fn new_list(core: &Core, caller: &Caller) -> List {
    let new = NewList::new(ListName::parse("list").expect("a name"));
    todos::create_list(core, caller, new).await.expect("a list")
}

/// Creates todos in a list.
async fn fill(core: &Core, caller: &Caller, list: &List, count: usize) {
    let mut left = count;
    while left > 0 {
        let part = left.min(500);
        left -= part;
        let new = (0..part).map(|_| NewTodo::new(title("t")).list_id(list.id)).collect();
        let request = BulkRequest::new(Bulk::Create(new)).expect("a request");
        todos::bulk(core, caller, request).await.expect("todos");
    }
}

/// A core on the database of an app, with a clock that can be set ahead.
async fn ahead(app: &App) -> (Core, Arc<AtomicI64>) {
    let minutes = Arc::new(AtomicI64::new(0));
    let shared = Arc::clone(&minutes);
    let system = Clock::system();
    let clock =
        Clock::from_fn(move || system.now() + TimeDelta::minutes(shared.load(Ordering::Relaxed)));
    let secret = Secret::new(app.secret()).expect("a secret");
    let core = Core::builder(secret).clock(clock).open(app.database_url()).await.expect("a core");
    (core, minutes)
}

on_both_databases! {
    async fn a_list_goes_at_once_and_its_todos_in_pieces(database) {
        let library = Library::open(database).await;
        let ann = library.signed_up().await;
        let core = &library.core;
        let (list, other) = (new_list(core, &ann).await, new_list(core, &ann).await);
        fill(core, &ann, &list, 450).await;
        fill(core, &ann, &other, 3).await;
        assert_eq!(todos::get_list(core, &ann, list.id).await.expect("it").pending, 450);
        let begin = todos::changes(core, &ann, None, None).await.expect("a page").next;
        assert_eq!(todos::delete_list(core, &ann, list.id).await.expect("it"), 450);
        for gone in [
            todos::get_list(core, &ann, list.id).await.map(drop),
            todos::delete_list(core, &ann, list.id).await.map(drop),
        ] {
            assert!(matches!(gone, Err(Error::NotFound)), "{gone:?}");
        }
        let into = NewTodo::new(title("late")).list_id(list.id);
        let refused = todos::create(core, &ann, into).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        let trash = todos::list_trash(core, &ann, None, None).await.expect("a page");
        assert_eq!(trash.total, 450);
        assert_eq!(trash.todos[0].todo.list_id, Some(list.id));
        // The log has the end of the list before those of its todos.
        let page = todos::changes(core, &ann, Some(begin), None).await.expect("a page");
        assert_eq!(page.changes.len(), 451);
        assert_eq!(page.changes[0], Change::List { id: list.id, list: None });
        assert!(page.changes[1..].iter().all(|change| change.kind() == "deleted"));
        // A todo of a list that is gone is restored to the inbox, alone and with others.
        let [one, two] = [&trash.todos[0].todo, &trash.todos[1].todo];
        let restored = todos::restore(core, &ann, one.id).await.expect("it");
        assert_eq!(restored.list_id, None);
        let request = BulkRequest::new(Bulk::Restore(vec![two.id])).expect("a request");
        let results = todos::bulk(core, &ann, request).await.expect("it");
        assert_eq!(results[0].todo().and_then(|todo| todo.list_id), None);
        let kept = todos::lists(core, &ann).await.expect("lists").lists;
        assert_eq!(kept.iter().map(|list| (list.id, list.pending)).collect::<Vec<_>>(), [(other.id, 3)]);
        library.core.close().await;
    }

    async fn without_a_trash_the_todos_are_deleted(database) {
        let app = App::start(Target { server: Server::Hyper, database }).await;
        let secret = Secret::new(app.secret()).expect("a secret");
        let builder = Core::builder(secret).trash_days(0);
        let core = builder.open(app.database_url()).await.expect("a core");
        let ann = Caller::trusted(app.signed_up().await.id().parse().expect("an id"));
        let list = new_list(&core, &ann).await;
        fill(&core, &ann, &list, 250).await;
        assert_eq!(todos::delete_list(&core, &ann, list.id).await.expect("it"), 250);
        assert_eq!(todos::list_trash(&core, &ann, None, None).await.expect("a page").total, 0);
        core.close().await;
    }

    // Servers run the job every minute.
    async fn a_job_beside_a_deletion_does_not_change_its_number(database) {
        let library = Library::open(database).await;
        let ann = library.signed_up().await;
        let list = new_list(&library.core, &ann).await;
        fill(&library.core, &ann, &list, 900).await;
        let mut deletion = std::pin::pin!(todos::delete_list(&library.core, &ann, list.id));
        let deleted = loop {
            tokio::select! {
                deleted = &mut deletion => break deleted,
                run = todos::finish_list_deletions(&library.core) => drop(run.expect("a run")),
            }
        };
        assert_eq!(deleted.expect("a deletion"), 900);
        let trash = todos::list_trash(&library.core, &ann, None, None).await.expect("a page");
        assert_eq!(trash.total, 900);
        library.core.close().await;
    }

    async fn a_job_moves_what_an_abandoned_deletion_has_left(database) {
        let app = App::start(Target { server: Server::Hyper, database }).await;
        let (core, minutes) = ahead(&app).await;
        let ann = Caller::trusted(app.signed_up().await.id().parse().expect("an id"));
        let list = new_list(&core, &ann).await;
        fill(&core, &ann, &list, 900).await;
        let mut deletion = Box::pin(todos::delete_list(&core, &ann, list.id));
        loop {
            let ended = tokio::time::timeout(Duration::from_millis(1), &mut deletion).await;
            assert!(ended.is_err(), "it has several pieces");
            if todos::get_list(&core, &ann, list.id).await.is_err() {
                break;
            }
        }
        drop(deletion);
        let trashed = async || {
            todos::list_trash(&core, &ann, None, None).await.expect("a page").total
        };
        assert!(todos::finish_list_deletions(&core).await.expect("a run"));
        assert_eq!(trashed().await, 900);
        let rows = async || {
            let sql = format!("SELECT count(*) FROM lists WHERE name = 'list' AND {}", match database {
                Database::Sqlite => format!("id = x'{}'", list.id.as_uuid().simple()),
                Database::Postgres => format!("id = '{}'", list.id),
            });
            todo_tests::count_rows(app.database_url(), &sql).await
        };
        // The row stays for stragglers.
        assert_eq!(rows().await, 1);
        minutes.store(6, Ordering::Relaxed);
        assert!(todos::finish_list_deletions(&core).await.expect("a run"));
        assert_eq!(rows().await, 0);
        core.close().await;
    }
}

/// A creation, a change and a move find the list before it is marked, and wait for the user's
/// counter, which the marking takes before them. They commit after all todos were moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_overtakes_the_end_of_its_list_is_found_by_the_job() {
    let library = Library::open(Database::Postgres).await;
    let ann = library.signed_up().await;
    let core = &library.core;
    let list = new_list(core, &ann).await;
    let inbox = todos::create(core, &ann, NewTodo::new(title("inbox"))).await.expect("a todo");
    let moved = todos::create(core, &ann, NewTodo::new(title("moved"))).await.expect("a todo");
    let user: Uuid = ann.user_id().into();
    let mut holder = PgConnection::connect(library.app.database_url()).await.expect("it");
    holder.execute("BEGIN").await.expect("it");
    let lock = format!("SELECT FROM todo_counts WHERE user_id = '{user}' FOR UPDATE");
    holder.execute(AssertSqlSafe(lock)).await.expect("a lock");
    let mut watcher = PgConnection::connect(library.app.database_url()).await.expect("it");
    // All of them wait on the server, in this order, until the holder ends.
    let waiting = async |count: i64, watcher: &mut PgConnection| loop {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted \
                   AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())";
        let waits: i64 = sqlx::query_scalar(sql).fetch_one(&mut *watcher).await.expect("a number");
        if waits >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let deletion = tokio::spawn({
        let core = core.clone();
        async move { todos::delete_list(&core, &ann, list.id).await }
    });
    waiting(1, &mut watcher).await;
    let creation = tokio::spawn({
        let core = core.clone();
        async move { todos::create(&core, &ann, NewTodo::new(title("late")).list_id(list.id)).await }
    });
    let patch = tokio::spawn({
        let core = core.clone();
        async move { todos::patch(&core, &ann, inbox.id, TodoPatch::new().list_id(list.id)).await }
    });
    let move_ = tokio::spawn({
        let core = core.clone();
        async move { todos::move_todo(&core, &ann, moved.id, None, Some(Some(list.id))).await }
    });
    waiting(4, &mut watcher).await;
    holder.execute("COMMIT").await.expect("it");
    let deleted = deletion.await.expect("no panic").expect("a deletion");
    let stale = [
        creation.await.expect("no panic").map(drop),
        patch.await.expect("no panic").map(drop),
        move_.await.expect("no panic").map(drop),
    ];
    let overtaken = stale.iter().filter(|result| result.is_ok()).count();
    assert!(overtaken > 0, "the race did not happen: {stale:?}");
    todos::finish_list_deletions(core).await.expect("a run");
    let trash = todos::list_trash(core, &ann, None, None).await.expect("a page");
    assert_eq!(trash.total, i64::try_from(overtaken).expect("a number"), "{deleted} at once");
    let left = "SELECT id FROM todos WHERE user_id = @user AND list_id IS NOT NULL";
    let left: Vec<(Uuid,)> = library.query(left, &ann).await;
    assert!(left.is_empty(), "{left:?}");
    library.core.close().await;
}
