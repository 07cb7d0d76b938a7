//! Changes of a tag on many todos.

use todo_core::{
    Error,
    auth::Caller,
    todos::{self, Bulk, BulkRequest, NewTodo, Tag, Tags, TodoId},
};
use todo_tests::{Database, count_rows, execute_sql};
use uuid::Uuid;

use super::changes::{Library, title};

fn tag(name: &str) -> Tag {
    Tag::parse(name).expect("a tag")
}

impl Library {
    /// Creates todos with tags.
    async fn tagged(&self, caller: &Caller, count: usize, names: &[&str]) {
        let tags = Tags::parse(names).expect("tags");
        let mut left = count;
        while left > 0 {
            let part = left.min(500);
            left -= part;
            let new = (0..part).map(|_| NewTodo::new(title("t")).tags(tags.clone())).collect();
            let request = BulkRequest::new(Bulk::Create(new)).expect("a request");
            todos::bulk(&self.core, caller, request).await.expect("todos");
        }
    }

    /// The tags with the numbers of their open todos.
    async fn counts(&self, caller: &Caller) -> Vec<(String, i64)> {
        let tags = todos::tags(&self.core, caller).await.expect("tags").tags;
        tags.into_iter().map(|tag| (tag.name.into(), tag.pending)).collect()
    }
}

on_both_databases! {
    async fn a_tag_is_renamed_on_all_todos_in_pieces(database) {
        let library = Library::open(database).await;
        let (ann, bob) = (library.signed_up().await, library.signed_up().await);
        let core = &library.core;
        library.tagged(&ann, 430, &["old", "x"]).await;
        library.tagged(&ann, 70, &["old", "new"]).await;
        library.tagged(&ann, 5, &["new"]).await;
        library.tagged(&bob, 3, &["old"]).await;
        let changed = todos::rename_tag(core, &ann, tag("old"), tag("new")).await.expect("it");
        assert_eq!(changed, 500);
        assert_eq!(library.counts(&ann).await, [("new".into(), 505), ("x".into(), 430)]);
        assert_eq!(library.counts(&bob).await, [("old".into(), 3)]);
        // The text in which searches look is that of a new todo.
        let sql = "SELECT DISTINCT tags, search FROM todos WHERE user_id = @user ORDER BY tags";
        let rows: Vec<(String, Option<String>)> = library.query(sql, &ann).await;
        let expected = |tags: &str, folded: &str| {
            (tags.to_owned(), Some(format!("t\u{1e}{folded}\u{1e}")))
        };
        assert_eq!(rows, [expected(r#"["new","x"]"#, "new\nx"), expected(r#"["new"]"#, "new")]);
        let again = todos::rename_tag(core, &ann, tag("old"), tag("new")).await;
        assert!(matches!(again, Err(Error::NotFound)), "{again:?}");
        assert_eq!(todos::rename_tag(core, &ann, tag("x"), tag("x")).await.expect("it"), 0);
        let none = todos::rename_tag(core, &ann, tag("y"), tag("y")).await;
        assert!(matches!(none, Err(Error::NotFound)), "{none:?}");

        assert_eq!(todos::delete_tag(core, &ann, tag("x")).await.expect("it"), 430);
        assert_eq!(library.counts(&ann).await, [("new".into(), 505)]);
        let none = todos::delete_tag(core, &ann, tag("x")).await;
        assert!(matches!(none, Err(Error::NotFound)), "{none:?}");
        library.core.close().await;
    }

    async fn an_abandoned_renaming_is_continued_by_another_call(database) {
        let library = Library::open(database).await;
        let ann = library.signed_up().await;
        let core = &library.core;
        library.tagged(&ann, 1_000, &["old"]).await;
        // Dropped between two pieces, where it pauses.
        let mut renaming = Box::pin(todos::rename_tag(core, &ann, tag("old"), tag("new")));
        let counts = loop {
            let step = std::time::Duration::from_millis(1);
            let ended = tokio::time::timeout(step, &mut renaming).await;
            assert!(ended.is_err(), "it has several pieces");
            let counts = library.counts(&ann).await;
            if counts.len() == 2 {
                break counts;
            }
        };
        drop(renaming);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<i64>(), 1_000);
        todos::rename_tag(core, &ann, tag("old"), tag("new")).await.expect("the rest");
        assert_eq!(library.counts(&ann).await, [("new".into(), 1_000)]);
        library.core.close().await;
    }

    async fn a_renaming_and_other_writers_run_at_the_same_time(database) {
        let library = Library::open(database).await;
        let ann = library.signed_up().await;
        let core = &library.core;
        library.tagged(&ann, 800, &["old"]).await;
        let rename = async {
            let changed = todos::rename_tag(core, &ann, tag("old"), tag("new")).await;
            // The other call may have changed all of them.
            assert!(changed.is_ok() || matches!(changed, Err(Error::NotFound)), "{changed:?}");
        };
        let write = async {
            for _ in 0..30 {
                let new = NewTodo::new(title("w")).tags(Tags::parse(["w"]).expect("tags"));
                let todo = todos::create(core, &ann, new).await.expect("a todo");
                todos::set_completed(core, &ann, todo.id, true).await.expect("a change");
                todos::delete(core, &ann, todo.id).await.expect("a deletion");
            }
        };
        let twice = async {
            let changed = todos::rename_tag(core, &ann, tag("old"), tag("other")).await;
            assert!(changed.is_ok() || matches!(changed, Err(Error::NotFound)), "{changed:?}");
        };
        tokio::join!(rename, write, twice);
        let counts = library.counts(&ann).await;
        assert!(counts.iter().all(|(name, _)| name != "old" && name != "w"), "{counts:?}");
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<i64>(), 800);
        library.check(&ann).await.expect("a whole log");
        library.core.close().await;
    }
}

/// A table without statistics is one that grew a moment ago: a plan by them may read all rows of a
/// user for each row that changes.
#[tokio::test]
async fn changes_of_many_todos_read_no_more_on_postgres_without_statistics() {
    let mut library = Library::open(Database::Postgres).await;
    let url = library.app.database_url().to_owned();
    for table in ["todos", "todo_tags", "tags", "trash"] {
        let sql = format!("ALTER TABLE {table} SET (autovacuum_enabled = false)");
        execute_sql(&url, &sql).await;
    }
    let ann = library.signed_up().await;
    library.tagged(&ann, 6_000, &["old"]).await;
    let sql = "SELECT id FROM todos WHERE user_id = @user ORDER BY id LIMIT 500";
    let ids: Vec<(Uuid,)> = library.query(sql, &ann).await;
    let ids: Vec<TodoId> = ids.into_iter().map(|(id,)| id.into()).collect();
    let blocks = "SELECT CAST(sum(idx_blks_hit + idx_blks_read) AS bigint) \
                  FROM pg_statio_user_indexes";
    for work in ["rename a tag", "complete", "delete", "restore", "delete a tag"] {
        // The end of a session adds its numbers to the counters.
        library.core.close().await;
        let before = count_rows(&url, blocks).await;
        library = library.reopened().await;
        let core = &library.core;
        let bulk = |bulk| {
            let request = BulkRequest::new(bulk).expect("a request");
            async move { todos::bulk(core, &ann, request).await.expect("todos").len() as u64 }
        };
        let ids = ids.clone();
        let changed = match work {
            "rename a tag" => {
                todos::rename_tag(core, &ann, tag("old"), tag("new")).await.expect("it")
            }
            "complete" => bulk(Bulk::Complete { ids, completed: true }).await,
            "delete" => bulk(Bulk::Delete(ids)).await,
            "restore" => bulk(Bulk::Restore(ids)).await,
            _ => todos::delete_tag(core, &ann, tag("new")).await.expect("it"),
        };
        library.core.close().await;
        let read = count_rows(&url, blocks).await - before;
        let a_row = read.unsigned_abs() / changed;
        println!("{work}: {changed} rows, {a_row} blocks of indexes for each");
        assert!(a_row <= 40, "{work}: {a_row} blocks of indexes for each row");
    }
}
