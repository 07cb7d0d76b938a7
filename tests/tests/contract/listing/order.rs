//! A list contains the todos that its filter selects, in the order that its sort defines.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{FILTERS, ORDERS, SORTS, create, ids, list, pages, titles, todos, twenty};
use crate::text;

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
}
