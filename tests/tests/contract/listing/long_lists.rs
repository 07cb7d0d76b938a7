//! A list without a limit ends at 10,000 todos, and a page of it reads only its own rows.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use todo_tests::{App, Database, Server, Target, clone_the_only_todo, execute_sql};

use super::{FILTERS, ORDERS, SORTS, encoded, ids, list, titles, todos};
use crate::text;

const MOST: usize = 10_000;

/// An unlimited list ends at 10,000 todos, with a cursor to the rest.
async fn the_whole_list_is_capped(target: Target) {
    let app = App::start(target).await;
    let ann = app.signed_up().await;
    ann.todo("the first").await;
    let count = MOST + 7;
    clone_the_only_todo(app.database_url(), count as i64 - 1).await;

    let first = ann.get(&ann.todos()).await.expect(200);
    assert_eq!((todos(&first).len(), &first["total"]), (MOST, &json!(count)));
    let cursor = encoded(text(&first, "next_cursor"));
    let rest = list(&ann, &format!("cursor={cursor}")).await;
    assert_eq!((todos(&rest).len(), &rest["total"]), (7, &json!(count)));
    assert_eq!(rest["next_cursor"], Value::Null);
    assert_eq!(titles(&rest)[6], "the first", "newest first");
    let seen: BTreeSet<String> = ids(&first).into_iter().chain(ids(&rest)).collect();
    assert_eq!(seen.len(), count, "each exactly once");
}

#[tokio::test]
async fn the_whole_list_is_capped_on_sqlite() {
    the_whole_list_is_capped(Target { server: Server::Salvo, database: Database::Sqlite }).await;
}

#[tokio::test]
async fn the_whole_list_is_capped_on_postgres() {
    the_whole_list_is_capped(Target { server: Server::Hyper, database: Database::Postgres }).await;
}

/// A page reads only its own rows, however long the list, by PostgreSQL's counters. (A unit test of
/// the library checks SQLite's query plans.)
#[tokio::test]
async fn a_page_of_a_long_list_reads_a_page_on_postgres() {
    const LONG: i64 = 20_000;
    let app = App::start(Target { server: Server::Hyper, database: Database::Postgres }).await;
    let ann = app.signed_up().await;
    ann.todo("the first").await;
    clone_the_only_todo(app.database_url(), LONG).await;
    // As autovacuum does within a minute: without statistics PostgreSQL sorts some of the pages.
    execute_sql(app.database_url(), "ANALYZE todos").await;
    let before = rows_read(&app, |inserted, _| inserted > LONG).await;

    // A separate server: its connections report their reads when they end.
    let reader = app.replica().await;
    let client = reader.anonymous().bearing(ann.token());
    let list =
        async |query: &str| client.get(&format!("{}?{query}", ann.todos())).await.expect(200);
    let mut pages = 0;
    for status in FILTERS {
        for sort_by in SORTS {
            for order in ORDERS {
                let query = format!("limit=5&status={status}&sort_by={sort_by}&order={order}");
                let page = list(&query).await;
                pages += 1;
                if let Some(cursor) = page["next_cursor"].as_str() {
                    list(&format!("{query}&cursor={}", encoded(cursor))).await;
                    pages += 1;
                }
            }
        }
    }
    reader.stop().await.expect("a clean stop");
    let after = rows_read(&app, |_, read| read > before).await;
    // Five rows and one, of at most two ranges; other reads (a vacuum) are few.
    let most = pages * 2 * 6 + 200;
    assert!(after - before <= most, "{pages} pages read {} rows", after - before);
}

/// The number of todo rows read, once the counters are `complete`.
async fn rows_read(app: &App, complete: impl Fn(i64, i64) -> bool) -> i64 {
    use sqlx::{Connection, PgConnection};

    let sql = "SELECT n_tup_ins, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
        FROM pg_stat_user_tables WHERE relname = 'todos'";
    let mut last = (0, 0);
    for _ in 0..200 {
        let mut conn = PgConnection::connect(app.database_url()).await.expect("the server");
        last = sqlx::query_as::<_, (i64, i64)>(sql).fetch_one(&mut conn).await.expect("numbers");
        if complete(last.0, last.1) {
            return last.1;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("no complete counters: {last:?}");
}
