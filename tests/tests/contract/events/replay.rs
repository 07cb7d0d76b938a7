//! A stream that continues after a position has neither a gap nor a repetition.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};
use todo_tests::{Actor, App, EventStream, at_once, execute_sql, on_every_target};

use super::{changed, id, number, path, stream_position};
use crate::{by_id, text};

/// A client's copy of a user's todos, made from events.
struct Copy {
    todos: BTreeMap<String, Value>,
    /// The position of the last event.
    position: String,
}

impl Copy {
    /// Takes `events` events of a stream that continues this copy; fewer at the `last` position.
    async fn take(&mut self, owner: &Actor, events: usize, last: Option<u64>) {
        let headers = [("last-event-id", self.position.as_str())];
        // The position in the query is older, as after a reconnection of a browser.
        let query = format!("?since={}.0", self.position.split('.').next().expect("an epoch"));
        let mut stream = EventStream::open(owner, &query, &headers).await;
        assert_eq!(stream.next().await.id.as_deref(), Some(&*self.position));
        for _ in 0..events {
            if last.is_some_and(|last| number(&self.position) >= last) {
                return;
            }
            let event = stream.next().await;
            assert!(id(&event) > number(&self.position), "{event:?} after {}", self.position);
            self.position = event.id.clone().expect("an id");
            let data = event.data.expect("data");
            match event.event.as_deref() {
                Some("todo") => {
                    let todo = data["todo"].clone();
                    self.todos.insert(text(&todo, "id").to_owned(), todo);
                }
                Some("deleted") => drop(self.todos.remove(text(&data, "id"))),
                other => panic!("{other:?}"),
            }
        }
    }
}

on_every_target! {
    /// Writers on two servers, and followers who are cut off after a few events and continue at the
    /// other server.
    async fn the_events_of_many_cut_streams_are_the_table(target) {
        let app = App::start_with(target, &[("MAX_STREAMS_PER_USER", "0")]).await;
        let replica = app.replica().await;
        let ann = app.signed_up().await;
        let start = stream_position(&ann).await;
        let mut todos = Vec::new();
        for number in 0..10 {
            todos.push(text(&ann.todo(&format!("todo {number}")).await, "id").to_owned());
        }
        let servers = [ann.at(&app.anonymous()), ann.at(&replica.anonymous())];
        let over = Arc::new(AtomicBool::new(false));
        let followers = {
            let (servers, over) = (servers.clone(), over.clone());
            tokio::spawn(at_once(3, move |i| {
                let (servers, over, start) = (servers.clone(), over.clone(), start.clone());
                async move {
                    let mut copy = Copy { todos: BTreeMap::new(), position: start };
                    for round in 0.. {
                        let owner = &servers[(i + round) % 2];
                        // The last number is read when no writer is left.
                        let is_over = over.load(Ordering::Relaxed);
                        let last = number(&stream_position(owner).await);
                        copy.take(owner, 1 + (7 * i + 5 * round) % 23, Some(last)).await;
                        if is_over && number(&copy.position) == last {
                            break;
                        }
                    }
                    copy.todos
                }
            }))
        };
        at_once(4, |i| {
            let (writer, todos) = (servers[i % 2].clone(), todos.clone());
            async move {
                for round in 0..40 {
                    let id = &todos[(i * 7 + round * 3) % todos.len()];
                    let path = format!("{}/{id}", writer.todos());
                    let restore = format!("/api/users/{}/trash/{id}/restore", writer.id());
                    let title = json!({"title": format!("{i} {round}")});
                    let status = match (i + round) % 5 {
                        0 => writer.post(&writer.todos(), title).await.status,
                        1 => writer.delete(&path).await.status,
                        2 => writer.send("POST", &restore, &[], "").await.status,
                        _ => writer.patch(&path, title).await.status,
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

    async fn a_stream_begins_after_a_position_or_fails(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let start = stream_position(&ann).await;
        let mut todos = Vec::new();
        for title in ["one", "two", "three"] {
            todos.push(ann.todo(title).await);
        }
        let mut stream = EventStream::open(&ann, &format!("?since={start}"), &[]).await;
        assert_eq!(stream.next().await.id.as_deref(), Some(&*start));
        for (number, todo) in (1..).zip(&todos) {
            let event = stream.next().await;
            assert_eq!((id(&event), event.data), (number, Some(changed(todo))));
        }
        drop(stream);
        let (epoch, _) = start.split_once('.').expect("a position");
        let get = async |query: &str, last: &str| {
            let path = format!("{}{query}", path(&ann));
            ann.send("GET", &path, &[("last-event-id", last)], "").await
        };
        for query in [format!("?since={epoch}.4"), "?since=x.1".into()] {
            get(&query, "").await.problem(410, "cursor_expired");
            get("", &query[7..]).await.problem(410, "cursor_expired");
        }
        get("?since=x", "").await.problem(400, "validation_error");
        get("", "x").await.problem(400, "bad_request");
        for client in [&bob.client, &app.anonymous()] {
            let status = client.get(&path(&ann)).await.status;
            assert!([401, 403].contains(&status), "{status}");
        }
        bob.get(&path(&ann)).await.problem(403, "forbidden");

        // The log no longer reaches back to an open stream.
        let mut stream = EventStream::open(&ann, "", &[]).await;
        stream.next().await;
        execute_sql(app.database_url(), "UPDATE meta SET value = 'another' WHERE name = 'epoch'").await;
        ann.todo("of another epoch").await;
        stream.expect_end("cursor_expired").await;
    }
}
