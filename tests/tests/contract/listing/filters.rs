//! Filters by tags, due dates and lists, searches, and the orders by due date and position. The
//! tests of the library compare all combinations with a filter in memory.

use serde_json::{Value, json};
use todo_tests::{Actor, App, on_every_target};

use super::{encoded, list, titles, todos};

/// Creates a todo with further members.
async fn make(owner: &Actor, title: &str, members: Value) -> Value {
    let mut body = json!({"title": title});
    for (name, value) in members.as_object().expect("members") {
        body[name] = value.clone();
    }
    owner.post(&owner.todos(), body).await.expect(201)
}

async fn some(owner: &Actor) {
    let berlin = json!({"date": "2096-12-01", "time": "00:30", "time_zone": "Europe/Berlin"});
    make(owner, "a", json!({"tags": ["home", "x"], "due": {"date": "2096-12-01"}})).await;
    make(owner, "b", json!({"tags": ["home"], "due": berlin})).await;
    make(owner, "c", json!({"tags": ["x", "a,b".replace(',', "\"")]})).await;
    make(owner, "d", json!({"description": "100% milk", "due": {"date": "2001-02-03"}})).await;
    make(owner, "e", json!({"description": "1000 Milk"})).await;
}

on_every_target! {
    async fn filters_select_todos(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        some(&ann).await;
        make(&bob, "another's milk", json!({"tags": ["home"], "due": {"date": "2001-02-03"}})).await;
        let unknown = "list=00000000-0000-7000-8000-000000000000";
        let quote = format!("tag={}", encoded("A\"B"));
        for (query, expected) in [
            ("tag=home", &["a", "b"][..]),
            ("tag=HOME&tag=x", &["a"]),
            ("tag=unknown", &[]),
            (&quote, &["c"]),
            ("any_tag=home&any_tag=x", &["a", "b", "c"]),
            ("any_tag=x&tag=home", &["a"]),
            ("due=any", &["a", "b", "d"]),
            ("due=none", &["c", "e"]),
            ("due=overdue", &["d"]),
            ("due=today", &[]),
            ("due=none&due_after=2000-01-01", &[]),
            ("due_after=2096-12-01", &["a"]),
            ("due_after=2096-12-01&time_zone=Europe/Berlin", &["a", "b"]),
            ("due_before=2096-12-01&due_after=2096-11-30", &["b"]),
            ("due_before=2096-11-30T23:30:00Z", &["d"]),
            ("due_before=2096-11-30T23:30:01Z", &["b", "d"]),
            ("due_after=2096-11-30T23:30:00Z", &["a", "b"]),
            ("list=inbox", &["a", "b", "c", "d", "e"]),
            (unknown, &[]),
            ("q=milk", &["d", "e"]),
            ("q=MILK+-100%25", &["e"]),
            ("q=%22100%25+m%22", &["d"]),
            ("q=home+a", &["a"]),
            ("q=home&due_before=2096-12-01", &["b"]),
            ("time_zone=Europe/Berlin", &["a", "b", "c", "d", "e"]),
        ] {
            for order in ["asc", "desc"] {
                let list = list(&ann, &format!("{query}&order={order}")).await;
                let mut found = titles(&list);
                if order == "desc" {
                    found.reverse();
                }
                assert_eq!(found, expected, "{query}");
                assert_eq!(list["total"], expected.len(), "{query}");
            }
        }
    }

    async fn todos_without_a_due_date_are_last(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        some(&ann).await;
        assert_eq!(titles(&list(&ann, "sort_by=due&order=asc").await), ["d", "b", "a", "c", "e"]);
        assert_eq!(titles(&list(&ann, "sort_by=due").await), ["a", "b", "d", "e", "c"]);
        // None was moved yet.
        assert_eq!(titles(&list(&ann, "sort_by=position&order=asc").await), ["a", "b", "c", "d", "e"]);
        for sort_by in ["due", "position", "title"] {
            let whole = list(&ann, &format!("sort_by={sort_by}")).await;
            let mut query = format!("sort_by={sort_by}&limit=1");
            for title in titles(&whole) {
                let page = list(&ann, &query).await;
                assert_eq!((titles(&page), &page["total"]), (vec![title], &json!(5)));
                let next = page["next_cursor"].as_str().unwrap_or_default();
                query = format!("sort_by={sort_by}&limit=1&cursor={next}");
            }
        }
    }

    async fn a_cursor_belongs_to_all_filters(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        some(&ann).await;
        let queries = [
            "", "tag=home", "any_tag=home&any_tag=x", "due=any", "due_after=2000-01-01",
            "due_before=2100-01-01", "list=inbox", "q=-zzz", "sort_by=due", "sort_by=position",
        ];
        for query in queries {
            let page = list(&ann, &format!("{query}&limit=1")).await;
            let cursor = page["next_cursor"].as_str().expect("a cursor");
            for other in queries {
                let path = format!("{}?{other}&limit=1&cursor={cursor}", ann.todos());
                let status = if other == query { 200 } else { 400 };
                assert_eq!(ann.get(&path).await.status, status, "{query} in {other}");
            }
            // The total is no filter.
            let path = format!("{query}&include_total=false&cursor={cursor}");
            assert_eq!(list(&ann, &path).await["total"], Value::Null, "{query}");
        }
    }

    async fn a_list_names_the_filters_that_were_given(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let query = "tag=b&tag=A&any_tag=c&due=today&due_before=2096-12-01&\
            due_after=2096-12-01T01:30:00%2B01:00&time_zone=europe/berlin&list=inbox&q=a+B&\
            include_total=false";
        let list = list(&ann, query).await;
        assert_eq!(list, json!({
            "todos": [], "total": null, "next_cursor": null,
            "filters_applied": {
                "status": "all", "sort_by": "created_at", "order": "desc", "tag": ["b", "a"],
                "any_tag": ["c"], "due": "today", "due_before": "2096-12-01",
                "due_after": "2096-12-01T00:30:00Z", "time_zone": "Europe/Berlin",
                "list": "inbox", "q": "a B",
            },
        }));
    }

    async fn a_search_shows_its_matches(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        make(&ann, "Milk \u{fb01}lm", json!({"description": "no milk, MILKmilk", "tags": ["fi"]})).await;
        let found = list(&ann, "q=milk+fi").await;
        let place = |field: &str, start, end| json!({"field": field, "start": start, "end": end});
        assert_eq!(todos(&found)[0]["matches"], json!([
            place("title", 0, 4), place("title", 5, 6), place("description", 3, 7),
            place("description", 9, 17), place("tags/0", 0, 2),
        ]));
        assert_eq!(todos(&list(&ann, "q=-x").await)[0]["matches"], json!([]));
        let plain = list(&ann, "").await;
        assert_eq!(todos(&plain)[0].get("matches"), None);
        let mut listed = todos(&found)[0].clone();
        listed.as_object_mut().expect("a todo").remove("matches");
        assert_eq!(listed, todos(&plain)[0], "and is else the same");
    }

    async fn a_list_with_filters_has_its_own_version(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        some(&ann).await;
        let mut tags = std::collections::BTreeSet::new();
        let queries = [
            "", "tag=home", "any_tag=home", "due=any", "due=none", "list=inbox", "q=milk", "q=milk2",
            "due_before=2096-12-01", "due_before=2096-12-01&time_zone=Europe/Berlin",
            "include_total=false", "sort_by=due",
        ];
        for query in queries {
            let path = format!("{}?{query}", ann.todos());
            let first = ann.get(&path).await;
            let etag = first.header("etag").expect("a version").to_owned();
            let headers = [("if-none-match", etag.as_str())];
            assert_eq!(ann.send("GET", &path, &headers, "").await.status, 304, "{query}");
            tags.insert(etag);
        }
        assert_eq!(tags.len(), queries.len());
    }
}
