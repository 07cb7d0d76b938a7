//! Tags, lists of todos, and their order.

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, on_every_target};

use crate::text;

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

fn of(owner: &Actor, what: &str) -> String {
    format!("/api/users/{}/{what}", owner.id())
}

async fn list(owner: &Actor, name: &str) -> Value {
    owner.post(&of(owner, "lists"), json!({"name": name})).await.expect(201)
}

fn at(owner: &Actor, list: &Value) -> String {
    format!("{}/{}", of(owner, "lists"), text(list, "id"))
}

async fn with(
    actor: &Actor,
    method: &str,
    path: &str,
    header: (&str, &str),
    body: &str,
) -> TestResponse {
    let headers = [("content-type", "application/json"), header];
    actor.send(method, path, &headers, body.to_owned()).await
}

/// Ids of the todos in their order.
async fn order(owner: &Actor) -> Vec<Value> {
    let path = format!("{}?sort_by=position&order=asc", owner.todos());
    let list = owner.get(&path).await.expect(200);
    list["todos"].as_array().expect("todos").iter().map(|todo| todo["id"].clone()).collect()
}

on_every_target! {
    async fn tags_are_counted_renamed_merged_and_deleted(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let tags = of(&ann, "tags");
        assert_eq!(ann.get(&tags).await.expect(200), json!({"tags": []}));
        let both = ann.post(&ann.todos(), json!({"title": "t", "tags": ["b", "a"]})).await.expect(201);
        let path = format!("{}/{}", ann.todos(), text(&both, "id"));
        ann.post(&ann.todos(), json!({"title": "u", "tags": ["\u{1f600}", "a"]})).await.expect(201);
        ann.patch(&format!("{path}/complete"), json!({"completed": true})).await.expect(200);
        let listed = ann.get(&tags).await;
        let etag = listed.header("etag").expect("a version").to_owned();
        assert!(etag.starts_with("W/\""), "{etag}");
        let tag = |name: &str, pending: i64, completed: i64| {
            json!({"name": name, "pending": pending, "completed": completed})
        };
        assert_eq!(
            listed.expect(200)["tags"],
            json!([tag("a", 1, 1), tag("b", 0, 1), tag("\u{1f600}", 1, 0)])
        );
        let same = with(&ann, "GET", &tags, ("if-none-match", &etag), "").await;
        assert_eq!((same.status, same.header("etag")), (304, Some(&*etag)));
        let before = ann.get(&path).await.expect(200);
        let renamed = ann.post(&format!("{tags}/rename"), json!({"from": " B ", "to": "a"})).await;
        assert_eq!(renamed.expect(200)["changed_count"], 1);
        let after = ann.get(&path).await.expect(200);
        assert_eq!(after["tags"], json!(["a"]));
        assert!(after["updated_at"].as_str() > before["updated_at"].as_str());
        let changed = with(&ann, "GET", &tags, ("if-none-match", &etag), "").await.expect(200);
        assert_eq!(changed["tags"], json!([tag("a", 1, 1), tag("\u{1f600}", 1, 0)]));
        let gone = ann.delete(&format!("{tags}?name=%F0%9F%98%80")).await.expect(200);
        assert_eq!(gone, json!({"message": "Tag deleted successfully", "changed_count": 1}));
        for (from, to, field, code) in [("", "a", "from", "blank"), ("a", "x,y", "to", "comma")] {
            let body = json!({"from": from, "to": to});
            let bad = ann.post(&format!("{tags}/rename"), body).await;
            let bad = bad.problem(400, "validation_error");
            assert_eq!((&bad["details"][0]["field"], &bad["details"][0]["code"]), (&json!(field), &json!(code)));
        }
        ann.post(&format!("{tags}/rename"), json!({"from": "x", "to": "y"})).await.problem(404, "not_found");
        ann.delete(&format!("{tags}?name=x")).await.problem(404, "not_found");
        ann.delete(&tags).await.problem(400, "validation_error");
        let bob = app.signed_up().await;
        bob.get(&tags).await.problem(403, "forbidden");
        assert_eq!(bob.get(&of(&bob, "tags")).await.expect(200), json!({"tags": []}));
    }

    async fn lists_are_created_changed_and_deleted_with_their_todos(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let lists = of(&ann, "lists");
        let body = json!({"name": " Groceries ", "color": "#FF8800"});
        let created = ann.post(&lists, body).await;
        let etag = created.header("etag").expect("a version").to_owned();
        let location = created.header("location").expect("a path").to_owned();
        let groceries = created.expect(201);
        assert_eq!(
            (&groceries["name"], &groceries["color"], &groceries["pending"]),
            (&json!("Groceries"), &json!("#ff8800"), &json!(0))
        );
        let path = at(&ann, &groceries);
        assert_eq!(location, path);
        let other = list(&ann, "Groceries").await;
        assert_eq!(ann.get(&lists).await.expect(200)["lists"], json!([groceries, other]));
        let body = json!({"title": "milk", "list_id": groceries["id"]});
        let milk = ann.post(&ann.todos(), body).await.expect(201);
        let read = ann.get(&path).await;
        let with_todo = read.header("etag").expect("a version").to_owned();
        assert_ne!(with_todo, etag);
        assert_eq!(read.expect(200)["pending"], 1);
        assert_eq!(with(&ann, "GET", &path, ("if-none-match", &with_todo), "").await.status, 304);
        assert_eq!(with(&ann, "GET", &path, ("if-none-match", &etag), "").await.status, 200);
        // The todo that came meanwhile does not matter.
        let renamed = with(&ann, "PATCH", &path, ("if-match", &etag), r#"{"name":"Food","color":null}"#).await;
        let renamed = renamed.expect(200);
        assert_eq!((&renamed["name"], &renamed["color"], &renamed["pending"]), (&json!("Food"), &Value::Null, &json!(1)));
        let late = with(&ann, "PATCH", &path, ("if-match", &etag), r#"{"name":"x"}"#).await;
        assert!(late.header("etag").is_some());
        assert_eq!(late.problem(412, "precondition_failed")["current"], renamed);
        with(&ann, "DELETE", &path, ("if-match", &etag), "").await.problem(412, "precondition_failed");
        for (method, body) in [("GET", ""), ("PATCH", r#"{"name":"x"}"#), ("DELETE", "")] {
            let theirs = path.replace(ann.id(), bob.id());
            let json = ("accept", "application/json");
            with(&bob, method, &theirs, json, body).await.problem(403, "forbidden");
            with(&bob, method, &path, json, body).await.problem(403, "forbidden");
            for id in [NOBODY, "x"] {
                with(&ann, method, &format!("{lists}/{id}"), json, body).await.problem(404, "not_found");
            }
        }
        for (body, field) in [
            (json!({"name": " "}), "name"),
            (json!({"name": "a\nb"}), "name"),
            (json!({"name": "x".repeat(101)}), "name"),
            (json!({"name": "x", "color": "#12345g"}), "color"),
        ] {
            let bad = ann.post(&lists, body).await.problem(400, "validation_error");
            assert_eq!(bad["details"][0]["field"], field);
        }
        let deleted = ann.delete(&path).await.expect(200);
        assert_eq!(
            deleted,
            json!({"message": "List deleted successfully", "deleted_id": groceries["id"], "deleted_count": 1})
        );
        ann.get(&path).await.problem(404, "not_found");
        let body = json!({"title": "late", "list_id": groceries["id"]});
        ann.post(&ann.todos(), body).await.problem(400, "validation_error");
        let trash = ann.get(&of(&ann, "trash")).await.expect(200);
        assert_eq!((&trash["total"], &trash["todos"][0]["id"]), (&json!(1), &milk["id"]));
        let restore = format!("{}/{}/restore", of(&ann, "trash"), text(&milk, "id"));
        let restored = ann.send("POST", &restore, &[], "").await.expect(200);
        assert_eq!(restored["list_id"], Value::Null);
    }

    async fn the_creation_of_a_list_with_a_key_happens_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let lists = of(&ann, "lists");
        let send = async |body: &str| with(&ann, "POST", &lists, ("idempotency-key", "k"), body).await;
        let first = send(r#"{"name":"a"}"#).await.expect(201);
        let again = send(r#"{"name":"a"}"#).await;
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(again.expect(201), first);
        send(r#"{"name":"b"}"#).await.problem(422, "idempotency_mismatch");
        assert_eq!(ann.get(&lists).await.expect(200)["lists"].as_array().map(Vec::len), Some(1));
    }

    async fn quotas_name_what_they_count(target) {
        let limits = [("MAX_LISTS_PER_USER", "1"), ("MAX_TAGS_PER_USER", "2")];
        let app = App::start_with(target, &limits).await;
        let ann = app.signed_up().await;
        let one = list(&ann, "one").await;
        let full = ann.post(&of(&ann, "lists"), json!({"name": "two"})).await;
        let full = full.problem(409, "quota_exceeded");
        assert_eq!((&full["limit"], &full["used"]), (&json!(1), &json!(1)));
        assert!(text(&full, "detail").contains("1 lists"), "{full}");
        ann.delete(&at(&ann, &one)).await.expect(200);
        list(&ann, "two").await;
        ann.post(&ann.todos(), json!({"title": "t", "tags": ["a", "b"]})).await.expect(201);
        let full = ann.post(&ann.todos(), json!({"title": "t", "tags": ["a", "c"]})).await;
        let full = full.problem(409, "quota_exceeded");
        assert!(text(&full, "detail").contains("2 tags"), "{full}");
        // As many as before.
        let rename = format!("{}/rename", of(&ann, "tags"));
        ann.post(&rename, json!({"from": "a", "to": "c"})).await.expect(200);
    }

    async fn todos_are_moved_in_one_order_and_into_lists(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let mut ids = Vec::new();
        for title in ["a", "b", "c"] {
            ids.push(ann.todo(title).await["id"].clone());
        }
        let into = list(&ann, "list").await;
        let path = |id: &Value| format!("{}/{}/move", ann.todos(), id.as_str().expect("an id"));
        assert_eq!(order(&ann).await, ids);
        let moved = ann.post(&path(&ids[2]), json!({"after": null})).await;
        let etag = moved.header("etag").expect("a version").to_owned();
        assert_eq!(moved.expect(200)["list_id"], Value::Null);
        assert_eq!(order(&ann).await, [&ids[2], &ids[0], &ids[1]].map(Clone::clone));
        let body = json!({"after": ids[0], "list_id": into["id"]}).to_string();
        let moved = with(&ann, "POST", &path(&ids[2]), ("if-match", &etag), &body).await.expect(200);
        assert_eq!(moved["list_id"], into["id"]);
        assert_eq!(order(&ann).await, [&ids[0], &ids[2], &ids[1]].map(Clone::clone));
        let late = with(&ann, "POST", &path(&ids[2]), ("if-match", &etag), &body).await;
        assert_eq!(late.problem(412, "precondition_failed")["current"], moved);
        let theirs = bob.todo("theirs").await;
        for after in [&theirs["id"], &json!(NOBODY), &ids[0]] {
            let bad = ann.post(&path(&ids[0]), json!({"after": after})).await;
            let bad = bad.problem(400, "validation_error");
            assert_eq!(bad["details"][0]["field"], "after");
        }
        let bad = ann.post(&path(&ids[0]), json!({"after": null, "list_id": NOBODY})).await;
        assert_eq!(bad.problem(400, "validation_error")["details"][0]["field"], "list_id");
        ann.post(&path(&ids[0]), json!({})).await.problem(422, "malformed_body");
        ann.post(&path(&theirs["id"]), json!({"after": null})).await.problem(403, "forbidden");
        ann.post(&path(&json!(NOBODY)), json!({"after": null})).await.problem(404, "not_found");
    }

    async fn changes_tell_of_tags_and_lists(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let changes = of(&ann, "changes");
        let begin = ann.get(&changes).await.expect(200)["next"].clone();
        let one = list(&ann, "one").await;
        let body = json!({"title": "t", "tags": ["x"], "list_id": one["id"]});
        let todo = ann.post(&ann.todos(), body).await.expect(201);
        let since = format!("{changes}?since={}", begin.as_str().expect("a position"));
        let page = ann.get(&since).await.expect(200);
        let now = ann.get(&at(&ann, &one)).await.expect(200);
        assert_eq!(
            page["changes"],
            json!([
                {"type": "list", "id": one["id"], "list": now},
                {"type": "todo", "todo": todo},
                {"type": "tag", "name": "x", "tag": {"name": "x", "pending": 1, "completed": 0}},
            ])
        );
        ann.delete(&at(&ann, &one)).await.expect(200);
        let page = ann.get(&since).await.expect(200);
        assert_eq!(
            page["changes"],
            json!([
                {"type": "list", "id": one["id"], "list": null},
                {"type": "deleted", "id": todo["id"]},
                {"type": "tag", "name": "x", "tag": null},
            ])
        );
    }
}
