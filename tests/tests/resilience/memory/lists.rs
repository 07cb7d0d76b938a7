//! The servers stream a long list: it equals its pages, and takes little memory while unread.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use todo_tests::{Actor, App, PROGRAMS, Target, clone_the_only_todo, on_every_target};

use super::{Measured, count, source, start_request};

const MANY: i64 = 10_000;

/// A text of control characters, each of which is six bytes in JSON.
fn control(length: usize) -> String {
    "\u{1}".repeat(length)
}

async fn todo_of_control_characters(actor: &Actor) -> Value {
    let body = json!({"title": format!("t{}", control(190)), "description": control(1000)});
    actor.post(&actor.todos(), body).await.expect(201)
}

fn ids(list: &Value) -> Vec<String> {
    let todos = list["todos"].as_array().expect("todos");
    todos.iter().map(|todo| todo["id"].as_str().expect("an id").to_owned()).collect()
}

/// All todos, page by page.
async fn paged(actor: &Actor, query: &str) -> Vec<Value> {
    let (mut todos, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{}?limit=500&{query}{cursor}", actor.todos());
        let page = actor.get(&path).await.expect(200);
        todos.extend(page["todos"].as_array().expect("todos").iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return todos };
        cursor = format!("&cursor={next}");
    }
}

on_every_target! {
    /// Each todo that stays is listed once, while others are created, changed and deleted.
    async fn a_streamed_list_has_each_todo_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let first = todo_of_control_characters(&ann).await;
        clone_the_only_todo(app.database_url(), 1499).await;
        let staying = paged(&ann, "").await;
        assert_eq!((staying.len(), &staying[1499]), (1500, &first));
        let done = tokio::sync::watch::channel(false).0;
        let churn = async {
            let mut last = None;
            while !*done.borrow() {
                let todo = ann.todo("m").await;
                let path = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
                ann.patch(&path, json!({"title": "z", "priority": "high"})).await.expect(200);
                if let Some(last) = last.replace(path) {
                    ann.delete(&last).await.expect(200);
                }
            }
        };
        let read = async {
            for sort_by in ["created_at", "priority", "title"] {
                for order in ["asc", "desc"] {
                    let query = format!("sort_by={sort_by}&order={order}");
                    let answer = ann.get(&format!("{}?{query}", ann.todos())).await;
                    let list = answer.expect(200);
                    let mut times = BTreeMap::new();
                    for id in ids(&list) {
                        *times.entry(id).or_insert(0) += 1;
                    }
                    assert!(times.values().all(|times| *times == 1), "{query}: one came twice");
                    for todo in &staying {
                        let id = todo["id"].as_str().expect("an id");
                        assert!(times.contains_key(id), "{query}: {id} is missing");
                    }
                    assert_eq!(list["next_cursor"], Value::Null);
                    assert_eq!(list["filters_applied"]["sort_by"], sort_by);
                }
            }
            done.send_replace(true);
        };
        tokio::join!(churn, read);
    }

    /// It has no length; HEAD and a 401 end at once.
    async fn a_streamed_list_has_the_same_head_as_any_other(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        ann.todo("one").await;
        clone_the_only_todo(app.database_url(), 499).await;
        let whole = ann.get(&ann.todos()).await;
        assert!(whole.headers.contains_key("content-length"), "500 todos are one piece");
        ann.todo("one more").await;
        let pieces = ann.get(&ann.todos()).await;
        assert!(!pieces.headers.contains_key("content-length"), "{:?}", pieces.headers);
        assert!(pieces.headers.contains_key("etag"), "{:?}", pieces.headers);
        for (name, value) in &whole.headers {
            // Another version of the list.
            if !["content-length", "x-request-id", "date", "etag"].contains(&name.as_str()) {
                assert!(pieces.headers.get_all(name).iter().any(|own| own == value), "{name}");
            }
        }
        let members: Vec<usize> = ["\"todos\":", "\"total\":501", "\"filters_applied\":", "\"next_cursor\":null}"]
            .iter()
            .map(|member| {
                let text = std::str::from_utf8(&pieces.body).expect("JSON");
                text.rfind(member).unwrap_or_else(|| panic!("no {member}"))
            })
            .collect();
        assert!(members.is_sorted(), "{members:?}");
        let head = ann.send("HEAD", &ann.todos(), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert!(!head.headers.contains_key("content-length"), "{:?}", head.headers);
        ann.post("/api/auth/logout", json!({})).await.expect(200);
        ann.get(&ann.todos()).await.problem(401, "unauthorized");
    }
}

async fn the_longest_list(target: Target) {
    let app = App::start(target).await;
    let ann = app.signed_up().await;
    todo_of_control_characters(&ann).await;
    clone_the_only_todo(app.database_url(), MANY - 1).await;
    let answer = ann.get(&ann.todos()).await;
    assert!(answer.body.len() > 70_000_000, "{} bytes", answer.body.len());
    let list = answer.expect(200);
    assert_eq!((&list["total"], &list["next_cursor"]), (&json!(MANY), &Value::Null));
    assert!(
        list["todos"].as_array() == Some(&paged(&ann, "").await),
        "the list differs from its pages"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn the_longest_list_equals_its_pages() {
    for target in Target::ALL {
        the_longest_list(target).await;
    }
}

/// An unread list takes one piece of memory, not its whole size; a user with too many of them gets
/// 503, while other users are served.
async fn unread_lists(program: &str) {
    let measured = Measured::start(program).await;
    let ann = Actor::sign_up_to(&measured.client()).await;
    todo_of_control_characters(&ann).await;
    clone_the_only_todo(&measured.database_url(), MANY - 1).await;
    let addr = measured.server.addr;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
        ann.todos(),
        ann.token()
    );
    let send = |count: usize| {
        let request = request.clone();
        async move {
            let requests = (0..count).map(|number| {
                start_request(
                    addr,
                    source(number),
                    request.clone().into_bytes(),
                    Duration::from_secs(10),
                )
            });
            futures_util::future::join_all(requests).await
        }
    };
    let forty = send(40).await;
    let statuses = count(forty.iter().map(|(_, status)| status));
    measured.assert_healthy("40 unread lists").await;
    assert_eq!(statuses, BTreeMap::from([("HTTP/1.1 200".into(), 40)]));
    let more = send(100).await;
    let statuses = count(more.iter().map(|(_, status)| status));
    println!("{program}: 100 more: {statuses:?}");
    measured.assert_healthy("140 unread lists").await;
    assert!(statuses.contains_key("HTTP/1.1 503"), "{statuses:?}");
    // Other users are not affected.
    let bob = Actor::sign_up_to(&measured.client()).await;
    for number in 0..30 {
        bob.todo(&format!("{number} {}", control(100))).await;
    }
    assert_eq!(bob.get(&bob.todos()).await.expect(200)["total"], 30);
    drop((forty, more));
    measured.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: run by .ci/run"]
async fn unread_lists_take_little_memory() {
    for program in PROGRAMS {
        unread_lists(program).await;
    }
}
