//! Lists of todos: filters, sort orders and paging, which neither repeats nor skips a todo under
//! concurrent changes. `todos.rs` tests the single todo.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use todo_tests::{
    Actor, App, Database, Server, Target, TestResponse, clone_the_only_todo, on_every_target,
};

use crate::text;

const SORTS: [&str; 3] = ["created_at", "priority", "title"];
const ORDERS: [&str; 2] = ["desc", "asc"];
const FILTERS: [&str; 3] = ["all", "pending", "completed"];
const MOST: usize = 10_000;

fn todos(list: &Value) -> &[Value] {
    list["todos"].as_array().unwrap_or_else(|| panic!("no todos in {list}"))
}

fn ids(list: &Value) -> Vec<String> {
    todos(list).iter().map(|todo| text(todo, "id").to_owned()).collect()
}

fn titles(list: &Value) -> Vec<&str> {
    todos(list).iter().map(|todo| text(todo, "title")).collect()
}

async fn list(owner: &Actor, query: &str) -> Value {
    owner.get(&format!("{}?{query}", owner.todos())).await.expect(200)
}

async fn create(owner: &Actor, title: &str, priority: &str, completed: bool) -> Value {
    let body = json!({"title": title, "priority": priority});
    let todo = owner.post(&owner.todos(), body).await.expect(201);
    if !completed {
        return todo;
    }
    let path = format!("{}/{}/complete", owner.todos(), text(&todo, "id"));
    owner.patch(&path, json!({"completed": true})).await.expect(200)
}

/// Twenty todos with many equal titles and priorities; every third is completed.
async fn twenty(owner: &Actor) {
    for number in 0..20 {
        let title = ["beta", "Alpha", "alpha", "\u{df}", "\u{e9}t\u{e9}"][number % 5];
        let priority = ["high", "medium", "low"][number / 2 % 3];
        create(owner, title, priority, number % 3 == 0).await;
    }
}

/// The contract's sort key, as texts that compare in its order.
fn key(todo: &Value, sort_by: &str) -> (String, String, String) {
    let first = match sort_by {
        "title" => text(todo, "title").to_lowercase(),
        "priority" => match text(todo, "priority") {
            "low" => "1".to_owned(),
            "medium" => "2".to_owned(),
            _ => "3".to_owned(),
        },
        _ => String::new(),
    };
    let created = text(todo, "created_at").trim_end_matches('Z');
    let (seconds, decimals) = created.split_once('.').unwrap_or((created, ""));
    (first, format!("{seconds}.{decimals:0<6}"), text(todo, "id").to_owned())
}

/// The ids of `all`, filtered and sorted as the contract defines.
fn expected(all: &Value, status: &str, sort_by: &str, order: &str) -> Vec<String> {
    let mut kept: Vec<&Value> = todos(all)
        .iter()
        .filter(|todo| status == "all" || (status == "completed") == (todo["completed"] == true))
        .collect();
    kept.sort_by_key(|todo| key(todo, sort_by));
    if order == "desc" {
        kept.reverse();
    }
    kept.iter().map(|todo| text(todo, "id").to_owned()).collect()
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Follows `next_cursor` from the first page to the last.
async fn pages(owner: &Actor, query: &str, limit: usize) -> Vec<Value> {
    let mut pages = vec![list(owner, &format!("{query}&limit={limit}")).await];
    while let Some(cursor) = pages[pages.len() - 1]["next_cursor"].as_str() {
        let query = format!("{query}&limit={limit}&cursor={}", encoded(cursor));
        pages.push(list(owner, &query).await);
        assert!(pages.len() <= 500, "{query}: too many pages");
    }
    assert_eq!(pages[pages.len() - 1]["next_cursor"], Value::Null);
    pages
}

/// Asserts a 400 whose `details` name exactly these query parameters.
fn invalid(answer: TestResponse, query: &str, names: &[&str]) {
    assert_eq!(answer.status, 400, "{query}");
    let problem = answer.problem(400, "validation_error");
    let details = problem["details"].as_array().unwrap_or_else(|| panic!("no details: {problem}"));
    let named: BTreeSet<&str> = details.iter().map(|d| text(d, "field")).collect();
    assert_eq!(named, names.iter().copied().collect(), "{query}: {problem}");
}

/// Titles from Unicode's edge cases of case folding and collation.
fn edge_case_titles(count: usize) -> Vec<String> {
    let corner = prop::sample::select(vec![
        '\u{130}',
        '\u{131}',
        '\u{df}',
        '\u{1e9e}',
        '\u{3a3}',
        '\u{3c2}',
        '\u{3c3}',
        '\u{fb01}',
        '\u{10400}',
        '\u{10428}',
        '\u{1f600}',
        '\u{301}',
        '\u{307}',
        '\u{345}',
        '\u{200d}',
        '\u{1c5}',
        '\u{212a}',
        '\u{2126}',
        '\u{ffff}',
        '\u{10ffff}',
        '\u{7f}',
        '\u{1}',
    ]);
    let letter = prop_oneof![
        4 => prop::char::range('a', 'c'),
        4 => prop::char::range('A', 'C'),
        2 => prop::char::ranges(vec!['0'..='9', ' '..='/', '['..='`', '{'..='~'].into()),
        4 => corner,
        1 => prop::char::ranges(vec!['\u{c0}'..='\u{24f}', '\u{370}'..='\u{3ff}'].into()),
        1 => prop::char::ranges(vec!['\u{e000}'..='\u{ffff}', '\u{1f300}'..='\u{1f6ff}'].into()),
        1 => prop::char::any().prop_filter("a NUL is invalid", |c| *c != '\0'),
    ];
    let title = prop::collection::vec(letter, 1..6)
        .prop_map(String::from_iter)
        .prop_filter("a blank title is invalid", |title: &String| !title.trim().is_empty());
    prop::collection::vec(title, count)
        .new_tree(&mut TestRunner::default())
        .expect("strategies that reject little")
        .current()
}

on_every_target! {
    async fn an_empty_list_has_no_todos(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        bob.todo("another's").await;
        let list = ann.get(&ann.todos()).await.expect(200);
        assert_eq!(list, json!({
            "todos": [], "total": 0, "next_cursor": null,
            "filters_applied": {"status": "all", "sort_by": "created_at", "order": "desc"},
        }));
        app.stop().await.expect("a clean stop");
    }

    async fn a_list_shows_todos_as_single_reads_do(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let all = ann.get(&ann.todos()).await.expect(200);
        assert_eq!((todos(&all).len(), &all["total"]), (20, &json!(20)));
        for todo in todos(&all) {
            let path = format!("{}/{}", ann.todos(), text(todo, "id"));
            assert_eq!(&ann.get(&path).await.expect(200), todo);
        }
    }

    async fn every_filter_and_every_order(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let all = ann.get(&ann.todos()).await.expect(200);
        assert_eq!(ids(&all), expected(&all, "all", "created_at", "desc"));
        for status in FILTERS {
            for sort_by in SORTS {
                for order in ORDERS {
                    let query = format!("status={status}&sort_by={sort_by}&order={order}");
                    let list = list(&ann, &query).await;
                    let wanted = expected(&all, status, sort_by, order);
                    assert_eq!(ids(&list), wanted, "{query}");
                    assert_eq!(list["total"], wanted.len(), "{query}");
                    assert_eq!(list["next_cursor"], Value::Null, "{query}");
                    let applied = json!({"status": status, "sort_by": sort_by, "order": order});
                    assert_eq!(list["filters_applied"], applied);
                }
            }
        }
    }

    async fn each_parameter_has_its_default(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let applied = async |query| list(&ann, query).await["filters_applied"].clone();
        let given = json!({"status": "pending", "sort_by": "created_at", "order": "desc"});
        assert_eq!(applied("status=pending").await, given);
        let given = json!({"status": "all", "sort_by": "title", "order": "desc"});
        assert_eq!(applied("sort_by=title").await, given);
        let given = json!({"status": "all", "sort_by": "created_at", "order": "asc"});
        assert_eq!(applied("order=asc").await, given);
    }

    async fn priorities_sort_by_rank_and_titles_by_lower_case(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for (title, priority) in [
            ("b", "low"), ("A", "high"), ("a", "medium"),
            ("B", "high"), ("Z", "low"), ("_", "medium"),
        ] {
            create(&ann, title, priority, false).await;
        }
        let shown = list(&ann, "sort_by=priority").await;
        assert_eq!(titles(&shown), ["B", "A", "_", "a", "Z", "b"], "high first, newest first");
        let shown = list(&ann, "sort_by=priority&order=asc").await;
        assert_eq!(titles(&shown), ["b", "Z", "a", "_", "A", "B"]);
        let shown = list(&ann, "sort_by=title&order=asc").await;
        assert_eq!(titles(&shown), ["_", "A", "a", "b", "B", "Z"]);
        let shown = list(&ann, "sort_by=title").await;
        assert_eq!(titles(&shown), ["Z", "B", "b", "a", "A", "_"]);
    }

    async fn any_titles_sort_by_their_unicode_lower_case(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut sent = edge_case_titles(120);
        for title in &sent {
            create(&ann, title, "low", false).await;
        }
        for title in &mut sent {
            *title = title.trim().to_owned();
        }
        for order in ORDERS {
            let shown = list(&ann, &format!("sort_by=title&order={order}")).await;
            let wanted = expected(&shown, "all", "title", order);
            assert_eq!(ids(&shown), wanted, "{order}: {:?}", titles(&shown));
            let (mut stored, mut sent) = (titles(&shown), sent.iter().collect::<Vec<_>>());
            stored.sort_unstable();
            sent.sort_unstable();
            assert_eq!(stored, sent, "titles come back as they were sent");
            let paged: Vec<String> = pages(&ann, &format!("sort_by=title&order={order}"), 17)
                .await.iter().flat_map(ids).collect();
            assert_eq!(paged, wanted, "{order}: {:?}", titles(&shown));
        }
    }

    async fn a_renamed_todo_moves(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for title in ["a", "b", "c"] {
            create(&ann, title, "low", false).await;
        }
        let shown = list(&ann, "sort_by=title&order=asc").await;
        let path = |index: usize| format!("{}/{}", ann.todos(), ids(&shown)[index]);
        ann.patch(&path(0), json!({"title": "\u{c9}"})).await.expect(200);
        ann.put(&path(2), json!({"title": "AA", "priority": "low"})).await.expect(200);
        let shown = list(&ann, "sort_by=title&order=asc").await;
        assert_eq!(titles(&shown), ["AA", "b", "\u{c9}"]);
    }

    async fn all_invalid_parameters_are_named(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let cases: &[(&str, &[&str])] = &[
            ("status=done", &["status"]),
            ("status=", &["status"]),
            ("status=ALL", &["status"]),
            ("status=%20all", &["status"]),
            ("sort_by=name", &["sort_by"]),
            ("sort_by=", &["sort_by"]),
            ("order=up", &["order"]),
            ("order=", &["order"]),
            ("limit=0", &["limit"]),
            ("limit=501", &["limit"]),
            ("limit=abc", &["limit"]),
            ("limit=-1", &["limit"]),
            ("limit=1.5", &["limit"]),
            ("limit=", &["limit"]),
            ("limit=18446744073709551617", &["limit"]),
            ("limit=99999999999999999999999999999999999999999", &["limit"]),
            ("cursor=", &["cursor"]),
            ("cursor=nonsense", &["cursor"]),
            ("cursor=%F0%9F%98%80", &["cursor"]),
            ("status=all&status=pending", &["status"]),
            ("status=all&status=all", &["status"]),
            ("sort_by=title&sort_by=title", &["sort_by"]),
            ("order=asc&order=desc", &["order"]),
            ("limit=1&limit=2", &["limit"]),
            ("status=x&sort_by=y&order=z&limit=0", &["status", "sort_by", "order", "limit"]),
            ("order=z&limit=x&foo=1", &["order", "limit"]),
        ];
        for (query, names) in cases {
            let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
            invalid(answer, query, names);
        }
        for query in ["status=%zz", "status=%ff", "order=%"] {
            let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
            assert_eq!(answer.status, 400, "{query}");
        }
    }

    async fn unknown_parameters_are_ignored(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        ann.todo("a").await;
        let plain = ann.get(&ann.todos()).await.expect(200);
        for query in ["", "page=2", "page=1&page=2", "Status=done", "x", "&&", "limits=0", "=1"] {
            assert_eq!(list(&ann, query).await, plain, "{query}");
        }
        assert_eq!(list(&ann, "status=%61ll&%6frder=desc").await, plain, "percent-encoded");
    }

    async fn limits_are_1_to_500(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for title in ["a", "b"] {
            ann.todo(title).await;
        }
        let one = list(&ann, "limit=1").await;
        assert_eq!((titles(&one), &one["total"]), (vec!["b"], &json!(2)));
        let most = list(&ann, "limit=500").await;
        assert_eq!((titles(&most), &most["next_cursor"]), (vec!["b", "a"], &Value::Null));
        let exact = list(&ann, "limit=2").await;
        assert_eq!((titles(&exact), &exact["next_cursor"]), (vec!["b", "a"], &Value::Null));
    }

    async fn pages_add_up_to_the_list(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        for status in FILTERS {
            for sort_by in SORTS {
                for order in ORDERS {
                    let query = format!("status={status}&sort_by={sort_by}&order={order}");
                    let whole = list(&ann, &query).await;
                    for limit in [1, 3, 5, 20] {
                        let pages = pages(&ann, &query, limit).await;
                        let paged: Vec<Value> =
                            pages.iter().flat_map(|page| todos(page).to_vec()).collect();
                        assert_eq!(paged, todos(&whole), "{query}&limit={limit}");
                        let wanted = paged.len().div_ceil(limit).max(1);
                        assert_eq!(pages.len(), wanted, "{query}&limit={limit}: full pages");
                        for page in &pages {
                            assert_eq!(page["total"], whole["total"]);
                            assert_eq!(page["filters_applied"], whole["filters_applied"]);
                        }
                    }
                }
            }
        }
    }

    async fn a_limit_may_change_between_pages(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let whole = list(&ann, "sort_by=title").await;
        let mut seen = Vec::new();
        let mut cursor = String::new();
        for limit in ["limit=2", "limit=7", "limit=1", ""] {
            let page = list(&ann, &format!("sort_by=title&{limit}{cursor}")).await;
            seen.extend(ids(&page));
            let next = page["next_cursor"].as_str().map(encoded).unwrap_or_default();
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, ids(&whole), "without a limit the rest is returned");
        assert_eq!(cursor, "&cursor=", "nothing is left");
    }

    async fn an_altered_cursor_is_rejected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        for sort_by in SORTS {
            let query = format!("sort_by={sort_by}&limit=4");
            let page = list(&ann, &query).await;
            let cursor = text(&page, "next_cursor").to_owned();
            let mut altered = vec![
                cursor[1..].to_owned(), cursor[..cursor.len() - 1].to_owned(),
                format!("{cursor}A"), format!("{cursor}="), format!("{cursor} "),
                format!("A{cursor}"), format!("{cursor}{cursor}"), cursor.to_uppercase(),
            ];
            for (at, was) in cursor.char_indices() {
                let next = match was {
                    'z' | 'Z' | '9' => 'B',
                    '-' | '_' | '.' | '=' | '+' | '/' | '~' => 'C',
                    // The next letter differs in the lowest bit, which lenient base64 ignores.
                    c => char::from_u32(u32::from(c) + 1).expect("an ASCII neighbour"),
                };
                let mut copy = cursor.clone();
                copy.replace_range(at..at + was.len_utf8(), &next.to_string());
                altered.push(copy);
            }
            for wrong in altered {
                let query = format!("{query}&cursor={}", encoded(&wrong));
                let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
                invalid(answer, &format!("{wrong} for {cursor}"), &["cursor"]);
            }
            list(&ann, &format!("{query}&cursor={}", encoded(&cursor))).await;
        }
    }

    async fn a_cursor_belongs_to_one_list(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        twenty(&ann).await;
        twenty(&bob).await;
        let mut cursors = BTreeMap::new();
        for status in FILTERS {
            for sort_by in SORTS {
                for order in ORDERS {
                    let query = format!("status={status}&sort_by={sort_by}&order={order}");
                    let page = list(&ann, &format!("{query}&limit=2")).await;
                    cursors.insert(query, encoded(text(&page, "next_cursor")));
                }
            }
        }
        for (owner, cursor) in &cursors {
            for query in cursors.keys() {
                let full = format!("{query}&limit=2&cursor={cursor}");
                let answer = ann.get(&format!("{}?{full}", ann.todos())).await;
                if query == owner {
                    answer.expect(200);
                } else {
                    invalid(answer, &full, &["cursor"]);
                }
            }
            let full = format!("{owner}&limit=2&cursor={cursor}");
            invalid(bob.get(&format!("{}?{full}", bob.todos())).await, &full, &["cursor"]);
        }
    }

    async fn a_cursor_works_on_every_replica_and_after_its_todo_is_deleted(target) {
        let app = App::start(target).await;
        let other = app.replica().await;
        let ann = app.signed_up().await;
        twenty(&ann).await;
        let whole = list(&ann, "sort_by=priority").await;
        let page = list(&ann, "sort_by=priority&limit=5").await;
        for id in ids(&page) {
            ann.delete(&format!("{}/{id}", ann.todos())).await.expect(200);
        }
        let cursor = encoded(text(&page, "next_cursor"));
        let path = format!("{}?sort_by=priority&limit=500&cursor={cursor}", ann.todos());
        let bearer = format!("Bearer {}", ann.token());
        let headers = [("authorization", bearer.as_str())];
        let rest = other.anonymous().send("GET", &path, &headers, "").await.expect(200);
        assert_eq!(ids(&rest), ids(&whole)[5..]);
    }

    async fn unchanged_todos_are_listed_once_while_others_change(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut staying = BTreeSet::new();
        for number in 0..24 {
            let title = ["m", "M", "n"][number % 3];
            let priority = ["high", "medium", "low"][number % 3];
            let todo = create(&ann, title, priority, false).await;
            staying.insert(text(&todo, "id").to_owned());
        }
        let finished = std::cell::Cell::new(false);
        let churn = async {
            let mut passing = VecDeque::new();
            for round in 0_usize.. {
                if finished.get() {
                    break;
                }
                let title = ["a", "m", "z", "M"][round % 4];
                let todo = create(&ann, title, ["low", "high"][round % 2], false).await;
                passing.push_back(format!("{}/{}", ann.todos(), text(&todo, "id")));
                let some = &passing[round * 7 % passing.len()];
                let title = ["z", "m", "a"][round % 3];
                ann.patch(some, json!({"title": title, "priority": "medium"})).await.expect(200);
                let body = json!({"completed": round % 2 == 0});
                ann.patch(&format!("{some}/complete"), body).await.expect(200);
                if passing.len() > 6 {
                    let oldest = passing.pop_front().expect("more than six");
                    ann.delete(&oldest).await.expect(200);
                }
            }
        };
        let read = async {
            for status in ["all", "pending"] {
                for sort_by in SORTS {
                    for order in ORDERS {
                        let query = format!("status={status}&sort_by={sort_by}&order={order}");
                        let seen: Vec<String> =
                            pages(&ann, &query, 3).await.iter().flat_map(ids).collect();
                        for id in &staying {
                            let times = seen.iter().filter(|one| *one == id).count();
                            assert_eq!(times, 1, "{query}: {id} in {seen:?}");
                        }
                    }
                }
            }
            finished.set(true);
        };
        tokio::join!(churn, read);
    }
}

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
