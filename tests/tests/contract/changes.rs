//! The changes of a user's todos since a position.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use todo_tests::{Actor, App, at_once, execute_sql, on_every_target};

use crate::{by_id, text};

fn path(owner: &Actor) -> String {
    format!("/api/users/{}/changes", owner.id())
}

/// A client's copy of a user's todos, and its position.
struct Copy {
    owner: Actor,
    todos: BTreeMap<String, Value>,
    next: String,
}

impl Copy {
    /// The position of now, then the list.
    async fn of(owner: &Actor) -> Copy {
        let start = owner.get(&path(owner)).await.expect(200);
        assert_eq!((&start["changes"], &start["has_more"]), (&json!([]), &json!(false)));
        let list = owner.get(&owner.todos()).await.expect(200);
        let todos = list["todos"].as_array().expect("todos").iter();
        let todos = todos.map(|todo| (text(todo, "id").to_owned(), todo.clone())).collect();
        Copy { owner: owner.clone(), todos, next: text(&start, "next").to_owned() }
    }

    /// Reads a page of changes, and returns it.
    async fn follow(&mut self, limit: usize) -> Value {
        let path = format!("{}?since={}&limit={limit}", path(&self.owner), self.next);
        let page = self.owner.get(&path).await.expect(200);
        let next = text(&page, "next").to_owned();
        let number = |position: &str| -> u64 {
            position.split('.').nth(1).and_then(|number| number.parse().ok()).expect("a number")
        };
        let changes = page["changes"].as_array().expect("changes");
        assert!(number(&next) >= number(&self.next) && changes.len() <= limit, "{page}");
        assert_eq!(number(&next) == number(&self.next), changes.is_empty(), "{page}");
        let mut ids = Vec::new();
        for change in changes {
            let id = match text(change, "type") {
                "todo" => {
                    let id = text(&change["todo"], "id").to_owned();
                    self.todos.insert(id.clone(), change["todo"].clone());
                    id
                }
                "deleted" => {
                    self.todos.remove(text(change, "id"));
                    text(change, "id").to_owned()
                }
                other => panic!("{other}"),
            };
            assert!(!ids.contains(&id), "{id} twice in {page}");
            ids.push(id);
        }
        self.next = next;
        page
    }

    /// Reads all changes.
    async fn catch_up(&mut self, limit: usize) {
        while self.follow(limit).await["has_more"] == true {}
    }
}

async fn delete(owner: &Actor, id: &str) -> u16 {
    owner.send("DELETE", &format!("{}/{id}", owner.todos()), &[], "").await.status
}

async fn restore(owner: &Actor, id: &str) -> u16 {
    let path = format!("/api/users/{}/trash/{id}/restore", owner.id());
    owner.send("POST", &path, &[], "").await.status
}

on_every_target! {
    async fn each_change_is_in_the_next_page_once(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let milk = ann.todo("milk").await;
        let mut copy = Copy::of(&ann).await;
        assert_eq!(copy.follow(500).await["changes"], json!([]));
        bob.todo("not ann's").await;
        let (id, todos) = (text(&milk, "id"), ann.todos());
        let beer = ann.todo("beer").await;
        let milk = ann.patch(&format!("{todos}/{id}"), json!({"title": "oat milk"})).await.expect(200);
        let page = copy.follow(500).await;
        let changed = |todo: &Value| json!({"type": "todo", "todo": todo});
        assert_eq!(page["changes"], json!([changed(&beer), changed(&milk)]));
        assert_eq!(page["has_more"], false);
        // An empty patch and failures change nothing.
        ann.patch(&format!("{todos}/{id}"), json!({})).await.expect(200);
        ann.patch(&format!("{todos}/{id}"), json!({"title": ""})).await.problem(400, "validation_error");
        assert_eq!(copy.follow(500).await["changes"], json!([]));
        let milk = ann.patch(&format!("{todos}/{id}/complete"), json!({"completed": true})).await.expect(200);
        assert_eq!(delete(&ann, text(&beer, "id")).await, 200);
        let page = copy.follow(500).await;
        let gone = json!({"type": "deleted", "id": beer["id"]});
        assert_eq!(page["changes"], json!([changed(&milk), gone]));
        assert_eq!(restore(&ann, text(&beer, "id")).await, 200);
        let beer = ann.get(&format!("{todos}/{}", text(&beer, "id"))).await.expect(200);
        assert_eq!(copy.follow(500).await["changes"], json!([changed(&beer)]));
        // What is gone for good is gone already.
        assert_eq!(delete(&ann, id).await, 200);
        copy.follow(500).await;
        ann.delete(&format!("/api/users/{}/trash", ann.id())).await.expect(200);
        assert_eq!(copy.follow(500).await["changes"], json!([]));
    }

    async fn pages_cover_all_changes(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut copies = [Copy::of(&ann).await, Copy::of(&ann).await];
        // A todo of more than 7 KB as JSON: not all fit into one page.
        let long = json!({"title": "\u{1}".repeat(200), "description": "\u{1}".repeat(1000)});
        for _ in 0..50 {
            ann.post(&ann.todos(), long.clone()).await.expect(201);
        }
        let page = copies[0].follow(500).await;
        let covered = page["changes"].as_array().map_or(0, Vec::len);
        assert!((1..50).contains(&covered) && page["has_more"] == true, "{covered}");
        copies[0].catch_up(500).await;
        copies[1].catch_up(7).await;
        let list = ann.get(&ann.todos()).await.expect(200);
        for copy in &copies {
            assert_eq!(copy.todos.len(), 50);
            for todo in list["todos"].as_array().expect("todos") {
                assert_eq!(copy.todos.get(text(todo, "id")), Some(todo));
            }
        }
    }

    async fn a_position_out_of_the_log_has_expired(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let start = Copy::of(&ann).await.next;
        for title in ["one", "two", "three"] {
            ann.todo(title).await;
        }
        let (epoch, _) = start.split_once('.').expect("a position");
        let path = path(&ann);
        let get = |since: String| {
            let (ann, path) = (ann.clone(), path.clone());
            async move { ann.get(&format!("{path}?since={since}")).await }
        };
        let expired = async |since: String| get(since).await.problem(410, "cursor_expired");
        expired(format!("{epoch}.4")).await;
        expired(format!("{epoch}.999999999999999999")).await;
        expired(format!("{}.1", epoch.chars().rev().collect::<String>())).await;
        for bad in ["", "x", "x.", ".1", "x.-1", "x.y", "x.1.2", "x.99999999999999999999"] {
            get(bad.to_owned()).await.problem(400, "validation_error");
        }
        ann.get(&format!("{path}?limit=0")).await.problem(400, "validation_error");
        // The log has been pruned up to the second entry.
        execute_sql(app.database_url(), "DELETE FROM changes WHERE seq <= 2").await;
        expired(start.clone()).await;
        expired(format!("{epoch}.1")).await;
        assert_eq!(get(format!("{epoch}.2")).await.expect(200)["changes"][0]["todo"]["title"], "three");
        assert_eq!(get(format!("{epoch}.3")).await.expect(200)["changes"], json!([]));
        execute_sql(app.database_url(), "UPDATE meta SET value = 'another' WHERE name = 'epoch'").await;
        expired(format!("{epoch}.3")).await;
        let now = ann.get(&path).await.expect(200);
        assert_eq!(now["next"], "another.3");
    }

    async fn the_log_is_its_owners(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let next = Copy::of(&ann).await.next;
        for query in [String::new(), format!("?since={next}"), "?since=x".into()] {
            let path = format!("{}{query}", path(&ann));
            bob.get(&path).await.problem(403, "forbidden");
            app.anonymous().get(&path).await.problem(401, "unauthorized");
        }
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        for query in [String::new(), format!("?since={next}"), "?since=x".into()] {
            ann.get(&format!("{}{query}", path(&ann))).await.problem(401, "unauthorized");
        }
    }

    /// Writers on two replicas, followers who begin at different times.
    async fn followers_converge(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let ann = app.signed_up().await;
        let over = Arc::new(AtomicBool::new(false));
        let mut todos = Vec::new();
        for number in 0..10 {
            todos.push(text(&ann.todo(&format!("todo {number}")).await, "id").to_owned());
        }
        let followers = {
            let (ann, over) = (ann.clone(), over.clone());
            tokio::spawn(at_once(3, move |i| {
                let (ann, over) = (ann.clone(), over.clone());
                async move {
                    tokio::time::sleep(Duration::from_millis(100 * i as u64)).await;
                    let mut copy = Copy::of(&ann).await;
                    while !over.load(Ordering::Relaxed) {
                        copy.follow([500, 3, 1][i]).await;
                    }
                    copy.catch_up([500, 3, 1][i]).await;
                    copy.todos
                }
            }))
        };
        at_once(6, |i| {
            let client = if i % 2 == 0 { app.anonymous() } else { replica.anonymous() };
            let (client, ann, todos) = (client.bearing(ann.token()), ann.clone(), todos.clone());
            async move {
                for round in 0..40 {
                    let id = &todos[(i * 7 + round * 3) % todos.len()];
                    let path = format!("{}/{id}", ann.todos());
                    let title = json!({"title": format!("{i} {round}")});
                    let json = [("content-type", "application/json")];
                    let status = match (i + round) % 5 {
                        0 => client.post(&ann.todos(), title).await.status,
                        1 => client.send("DELETE", &path, &[], "").await.status,
                        2 => restore(&ann, id).await,
                        _ => client.send("PATCH", &path, &json, title.to_string()).await.status,
                    };
                    assert!([200, 201, 404].contains(&status), "{status}");
                }
            }
        })
        .await;
        over.store(true, Ordering::Relaxed);
        let list = ann.get(&ann.todos()).await.expect(200);
        let expected = by_id(&list);
        for copy in followers.await.expect("the followers") {
            assert_eq!(copy, expected);
        }
    }
}
