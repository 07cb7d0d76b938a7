//! The trash: deleted todos can be restored for a time.

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, at_once, on_every_target};

use crate::text;

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

fn trash(owner: &Actor) -> String {
    format!("/api/users/{}/trash", owner.id())
}

fn trashed(owner: &Actor, id: &str) -> String {
    format!("{}/{id}", trash(owner))
}

async fn restore(owner: &Actor, id: &str) -> TestResponse {
    owner.send("POST", &format!("{}/restore", trashed(owner, id)), &[], "").await
}

/// Creates a todo and deletes it. Returns it as it was.
async fn deleted(owner: &Actor, title: &str) -> Value {
    let todo = owner.todo(title).await;
    owner.delete(&format!("{}/{}", owner.todos(), text(&todo, "id"))).await.expect(200);
    todo
}

/// The todo without `updated_at`.
fn without_version(mut todo: Value) -> Value {
    todo["updated_at"].take();
    todo
}

on_every_target! {
    async fn a_deleted_todo_is_in_the_trash_until_it_is_restored(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = json!({"title": "Caf\u{e9}", "description": "2 l", "priority": "high"});
        let todo = ann.post(&ann.todos(), body).await.expect(201);
        let id = text(&todo, "id").to_owned();
        let path = format!("{}/{id}", ann.todos());
        let todo = ann.patch(&format!("{path}/complete"), json!({"completed": true})).await.expect(200);
        ann.delete(&path).await.expect(200);
        for (method, end) in [("GET", ""), ("PUT", ""), ("PATCH", ""), ("PATCH", "/complete"), ("DELETE", "")] {
            let body = r#"{"title": "x", "priority": "low", "completed": false}"#;
            let headers = [("content-type", "application/json")];
            let gone = ann.send(method, &format!("{path}{end}"), &headers, body).await;
            gone.problem(404, "not_found");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 0);
        let page = ann.get(&trash(&ann)).await.expect(200);
        assert_eq!((&page["total"], &page["next_cursor"]), (&json!(1), &Value::Null));
        let mut listed = page["todos"][0].clone();
        let members = listed.as_object_mut().expect("a todo");
        let deleted_at = members.remove("deleted_at").expect("deleted_at");
        let expires_at = members.remove("expires_at").expect("expires_at");
        assert!(deleted_at.as_str() > todo["updated_at"].as_str());
        assert!(expires_at.as_str() > deleted_at.as_str());
        assert_eq!(listed, todo);

        let restored = restore(&ann, &id).await;
        let etag = restored.header("etag").map(str::to_owned);
        let restored = restored.expect(200);
        assert!(restored["updated_at"].as_str() > todo["updated_at"].as_str());
        assert_eq!(without_version(restored.clone()), without_version(todo));
        let read = ann.get(&path).await;
        assert_eq!(read.header("etag").map(str::to_owned), etag);
        assert_eq!(read.expect(200), restored);
        let list = ann.get(&format!("{}?status=completed", ann.todos())).await.expect(200);
        assert_eq!((&list["total"], &list["todos"][0]), (&json!(1), &restored));
        assert_eq!(ann.get(&trash(&ann)).await.expect(200)["total"], 0);
        restore(&ann, &id).await.problem(404, "not_found");
    }

    async fn the_trash_is_paged_the_last_deleted_first(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut expected = Vec::new();
        for number in 0..7 {
            expected.insert(0, deleted(&ann, &format!("todo {number}")).await["id"].clone());
        }
        let mut found = Vec::new();
        let mut query = String::new();
        loop {
            let page = ann.get(&format!("{}?limit=3{query}", trash(&ann))).await.expect(200);
            assert_eq!(page["total"], 7);
            let todos = page["todos"].as_array().expect("todos");
            assert!(todos.len() <= 3);
            found.extend(todos.iter().map(|todo| todo["id"].clone()));
            match page["next_cursor"].as_str() {
                Some(cursor) => query = format!("&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(found, expected);
        let bob = app.signed_up().await;
        for bad in ["limit=0", "limit=501", "limit=x", "cursor=x", "cursor=", "limit=1&limit=1", &query[1..]] {
            let refused = bob.get(&format!("{}?{bad}", trash(&bob))).await;
            refused.problem(400, "validation_error");
        }
    }

    async fn the_trash_is_its_owners(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let todo = deleted(&ann, "milk").await;
        let id = text(&todo, "id");
        for (method, path) in [
            ("GET", trash(&ann)),
            ("DELETE", trash(&ann)),
            ("DELETE", trashed(&ann, id)),
            ("POST", format!("{}/restore", trashed(&ann, id))),
        ] {
            bob.send(method, &path, &[], "").await.problem(403, "forbidden");
            app.anonymous().send(method, &path, &[], "").await.problem(401, "unauthorized");
        }
        for id in [id, NOBODY, "1"] {
            restore(&bob, id).await.problem(404, "not_found");
            bob.delete(&trashed(&bob, id)).await.problem(404, "not_found");
        }
        assert_eq!(bob.get(&trash(&bob)).await.expect(200)["total"], 0);
        bob.delete(&trash(&bob)).await.expect(200);
        assert_eq!(ann.get(&trash(&ann)).await.expect(200)["total"], 1);
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        for (method, path) in [
            ("GET", trash(&ann)),
            ("DELETE", trash(&ann)),
            ("DELETE", trashed(&ann, id)),
            ("POST", format!("{}/restore", trashed(&ann, id))),
        ] {
            ann.send(method, &path, &[], "").await.problem(401, "unauthorized");
        }
    }

    async fn what_is_deleted_permanently_stays_deleted(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let (one, two, three) =
            (deleted(&ann, "one").await, deleted(&ann, "two").await, deleted(&ann, "three").await);
        let gone = ann.delete(&trashed(&ann, text(&one, "id"))).await.expect(200);
        assert_eq!(gone, json!({"message": "Todo deleted permanently", "deleted_id": one["id"]}));
        ann.delete(&trashed(&ann, text(&one, "id"))).await.problem(404, "not_found");
        assert_eq!(ann.get(&trash(&ann)).await.expect(200)["total"], 2);
        let kept = ann.todo("kept").await;
        let gone = ann.delete(&trash(&ann)).await.expect(200);
        assert_eq!(gone, json!({"message": "Trash emptied successfully", "deleted_count": 2}));
        for todo in [&one, &two, &three] {
            restore(&ann, text(todo, "id")).await.problem(404, "not_found");
        }
        let list = ann.get(&ann.todos()).await.expect(200);
        assert_eq!((&list["total"], &list["todos"][0]), (&json!(1), &kept));
    }

    async fn without_a_trash_a_deletion_is_permanent(target) {
        let app = App::start_with(target, &[("TRASH_DAYS", "0")]).await;
        let ann = app.signed_up().await;
        let todo = deleted(&ann, "milk").await;
        assert_eq!(ann.get(&trash(&ann)).await.expect(200)["total"], 0);
        restore(&ann, text(&todo, "id")).await.problem(404, "not_found");
    }

    async fn a_restored_todo_keeps_the_quota(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "1")]).await;
        let ann = app.signed_up().await;
        let todo = deleted(&ann, "one").await;
        ann.todo("two").await;
        restore(&ann, text(&todo, "id")).await.problem(409, "quota_exceeded");
        assert_eq!(ann.get(&trash(&ann)).await.expect(200)["total"], 1);
    }

    async fn of_concurrent_deletions_and_restorations_one_takes_effect(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("milk").await;
        let id = text(&todo, "id").to_owned();
        let count = |statuses: &[u16]| {
            assert!(statuses.iter().all(|status| [200, 404].contains(status)), "{statuses:?}");
            statuses.iter().filter(|status| **status == 200).count()
        };
        for _ in 0..5 {
            let statuses = at_once(8, |_| {
                let (ann, path) = (ann.clone(), format!("{}/{id}", ann.todos()));
                async move { ann.delete(&path).await.status }
            })
            .await;
            assert_eq!(count(&statuses), 1, "{statuses:?}");
            let statuses = at_once(8, |_| {
                let (ann, id) = (ann.clone(), id.clone());
                async move { restore(&ann, &id).await.status }
            })
            .await;
            assert_eq!(count(&statuses), 1, "{statuses:?}");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 1);
        assert_eq!(ann.get(&trash(&ann)).await.expect(200)["total"], 0);
    }
}
