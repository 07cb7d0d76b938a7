//! The routes store the fields of a valid todo and name each invalid one. A body of another shape
//! is a 422.

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{UNKNOWN_ID, create, instant, invalid, path, sent};
use crate::text;

fn assert_uuid_v7(id: &str) {
    let shape: String =
        id.chars().map(|c| if matches!(c, '0'..='9' | 'a'..='f') { 'h' } else { c }).collect();
    assert_eq!(shape, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "not a UUID: {id}");
    assert_eq!(&id[14..15], "7", "not version 7: {id}");
    assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "not the RFC 9562 variant: {id}");
}

on_every_target! {
    async fn a_title_is_enough(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let answer = ann.post(&ann.todos(), json!({"title": "Buy milk"})).await;
        let location = answer.header("location").expect("a Location header").to_owned();
        let todo = answer.expect(201);

        let id = text(&todo, "id");
        assert_uuid_v7(id);
        assert_eq!(location, format!("{}/{id}", ann.todos()));
        assert!(instant(&todo["updated_at"]) >= instant(&todo["created_at"]), "{todo}");
        assert_eq!(todo, json!({
            "id": id, "user_id": ann.id(), "title": "Buy milk", "description": null,
            "priority": "medium", "completed": false, "created_at": todo["created_at"],
            "updated_at": todo["updated_at"], "completed_at": null,
            "tags": [], "due": null, "recurrence": null, "reminders": [], "list_id": null,
        }));
        app.stop().await.expect("a clean stop");
    }

    async fn the_submitted_fields_are_stored(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for priority in ["high", "medium", "low"] {
            let todo = create(&ann, json!({
                "title": "Ship it", "description": "  two\nlines \u{1f680} ", "priority": priority,
            })).await;
            assert_eq!(todo["description"], "  two\nlines \u{1f680} ", "not trimmed");
            assert_eq!(todo["priority"], priority);
        }
        let todo = create(&ann, json!({"title": "x", "description": null})).await;
        assert_eq!(todo["description"], Value::Null);
    }

    async fn the_response_to_a_create_equals_a_later_get(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let titles = ["plain", "\u{130}stanbul \"quoted\" \\ \u{7f}", "\u{10400}\u{1f469}\u{200d}"];
        for title in titles {
            let body = json!({"title": title, "description": "\u{2028}\t"}).to_string();
            let created = sent(&ann, "POST", &ann.todos(), body).await;
            let location = created.header("location").expect("a Location header").to_owned();
            let read = ann.get(&location).await;
            assert_eq!((created.status, read.status), (201, 200));
            assert_eq!(created.body, read.body, "{:?}", String::from_utf8_lossy(&read.body));

            let patched = ann.patch(&location, json!({"priority": "low"})).await;
            assert_eq!(patched.body, ann.get(&location).await.body);
            let done = ann.patch(&format!("{location}/complete"), json!({"completed": true})).await;
            assert_eq!(done.body, ann.get(&location).await.body);
        }
    }

    async fn titles_are_trimmed_and_counted_in_scalar_values(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todos = ann.todos();
        let todo = create(&ann, json!({"title": " \t\n\u{3000}milk and  bread\u{a0} "})).await;
        assert_eq!(todo["title"], "milk and  bread");

        for letter in ["a", "\u{e9}", "\u{1f600}"] {
            let longest = letter.repeat(200);
            let todo = create(&ann, json!({"title": format!("  {longest}  ")})).await;
            assert_eq!(todo["title"], longest);
            let mine = path(&ann, &todo);
            let put = json!({"title": longest, "priority": "low"});
            ann.put(&mine, put).await.expect(200);

            let title = letter.repeat(201);
            invalid(ann.post(&todos, json!({"title": title})).await, &["title"]);
            invalid(ann.patch(&mine, json!({"title": title})).await, &["title"]);
            let put = json!({"title": title, "priority": "low"});
            invalid(ann.put(&mine, put).await, &["title"]);
        }
        for blank in ["", " ", "\t\r\n", "\u{3000}\u{a0}\u{2003}"] {
            invalid(ann.post(&todos, json!({"title": blank})).await, &["title"]);
        }
    }

    async fn descriptions_are_bounded(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for letter in ["a", "\u{1f600}"] {
            let longest = letter.repeat(1000);
            let todo = create(&ann, json!({"title": "x", "description": longest})).await;
            assert_eq!(todo["description"], longest);
            let body = json!({"title": "x", "description": letter.repeat(1001)});
            invalid(ann.post(&ann.todos(), body).await, &["description"]);
            let body = json!({"description": letter.repeat(1001)});
            invalid(ann.patch(&path(&ann, &todo), body).await, &["description"]);
        }
    }

    async fn only_three_priorities_are_valid(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("x").await);
        for word in ["", "HIGH", "High", " high", "urgent", "3", "none", "high\u{0}"] {
            let body = json!({"title": "x", "priority": word});
            invalid(ann.post(&ann.todos(), body.clone()).await, &["priority"]);
            invalid(ann.put(&mine, body).await, &["priority"]);
            invalid(ann.patch(&mine, json!({"priority": word})).await, &["priority"]);
        }
    }

    async fn all_bad_fields_are_named_at_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("x").await);
        let all = ["description", "priority", "title"];
        let body = json!({"title": " ", "description": "x".repeat(1001), "priority": "urgent"});
        invalid(ann.post(&ann.todos(), body.clone()).await, &all);
        invalid(ann.put(&mine, body.clone()).await, &all);
        invalid(ann.patch(&mine, body).await, &all);
    }

    async fn a_nul_is_refused_everywhere(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("x").await);
        let body = json!({"title": "a\u{0}b", "description": "\u{0}", "priority": "\u{0}"});
        let all = ["description", "priority", "title"];
        invalid(ann.post(&ann.todos(), body.clone()).await, &all);
        invalid(ann.put(&mine, body.clone()).await, &all);
        invalid(ann.patch(&mine, body).await, &all);
        for name in ["status", "sort_by", "order", "limit", "cursor"] {
            for value in ["%00", "all%00", "%00asc"] {
                let query = format!("{}?{name}={value}", ann.todos());
                ann.get(&query).await.problem(400, "validation_error");
            }
        }
        assert_eq!(ann.get(&mine).await.expect(200)["title"], "x");
    }

    async fn unknown_members_are_ignored(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let extra = json!({
            "title": "x", "priority": "low", "id": UNKNOWN_ID, "user_id": bob.id(),
            "completed": true,
            "created_at": "2001-01-01T00:00:00Z", "updated_at": "2001-01-01T00:00:00Z",
            "completed_at": "2001-01-01T00:00:00Z", "colour": ["red", {"deep": null}], "": 0,
        });
        let todo = create(&ann, extra.clone()).await;
        let mine = path(&ann, &todo);
        let patched = ann.patch(&mine, extra.clone()).await.expect(200);
        let replaced = ann.put(&mine, extra).await.expect(200);
        for seen in [&todo, &patched, &replaced] {
            assert_ne!(seen["id"], UNKNOWN_ID);
            assert_eq!((&seen["id"], &seen["user_id"]), (&todo["id"], &json!(ann.id())));
            assert_eq!((&seen["completed"], &seen["completed_at"]), (&json!(false), &Value::Null));
            assert!(instant(&seen["created_at"]).as_str() > "2002", "{seen}");
            assert!(instant(&seen["updated_at"]).as_str() > "2002", "{seen}");
        }
        let body = json!({"completed": false, "completed_at": "2001-01-01T00:00:00Z", "title": 1});
        let open = ann.patch(&format!("{mine}/complete"), body).await.expect(200);
        assert_eq!((&open["completed_at"], &open["title"]), (&Value::Null, &json!("x")));
        assert_eq!(bob.get(&bob.todos()).await.expect(200)["total"], 0);
    }

    async fn a_body_of_another_shape_is_a_422(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("x").await);
        let complete = format!("{mine}/complete");
        let unreadable = [
            "", " ", "{", "null", "[]", "[1]", "\"title\"", "1", "true", "{\"title\":\"x\"} x",
            "{\"title\":\"x\",}", "{'title':'x'}", "{\"title\":\"\\ud800\"}", "title=x",
            "{\"title\":\"a\",\"title\":\"b\",\"priority\":\"low\"}", "{\"title\":\"a\nb\"}",
        ];
        let mut cases = vec![
            ("POST", ann.todos(), "{}"),
            ("POST", ann.todos(), r#"{"priority":"low"}"#),
            ("POST", ann.todos(), r#"{"title":null}"#),
            ("POST", ann.todos(), r#"{"title":7}"#),
            ("POST", ann.todos(), r#"{"title":["x"]}"#),
            ("POST", ann.todos(), r#"{"title":"x","description":7}"#),
            ("POST", ann.todos(), r#"{"title":"x","priority":1}"#),
            ("PUT", mine.clone(), "{}"),
            ("PUT", mine.clone(), r#"{"title":"y"}"#),
            ("PUT", mine.clone(), r#"{"priority":"low"}"#),
            ("PUT", mine.clone(), r#"{"title":"y","priority":null}"#),
            ("PUT", mine.clone(), r#"{"title":null,"priority":"low"}"#),
            ("PUT", mine.clone(), r#"{"title":"y","priority":"low","description":false}"#),
            ("PATCH", mine.clone(), r#"{"title":7}"#),
            ("PATCH", mine.clone(), r#"{"description":{}}"#),
            ("PATCH", mine.clone(), r#"{"priority":true}"#),
            ("PATCH", mine.clone(), r#"{"description":null,"description":"y"}"#),
            ("PATCH", complete.clone(), "{}"),
            ("PATCH", complete.clone(), r#"{"completed":null}"#),
            ("PATCH", complete.clone(), r#"{"completed":"true"}"#),
            ("PATCH", complete.clone(), r#"{"completed":1}"#),
            ("PATCH", complete.clone(), r#"{"completed":true,"completed":true}"#),
        ];
        for body in unreadable {
            cases.push(("POST", ann.todos(), body));
            cases.push(("PUT", mine.clone(), body));
            cases.push(("PATCH", mine.clone(), body));
            cases.push(("PATCH", complete.clone(), body));
        }
        for (method, path, body) in cases {
            let answer = sent(&ann, method, &path, body).await;
            assert_eq!(answer.status, 422, "{method} {path} {body:?}");
            answer.problem(422, "malformed_body");
        }
        let latin1 = sent(&ann, "POST", &ann.todos(), b"{\"title\":\"caf\xe9\"}".to_vec()).await;
        latin1.problem(422, "malformed_body");
        let list = ann.get(&ann.todos()).await.expect(200);
        assert_eq!(list["total"], 1);
        assert_eq!(list["todos"][0]["title"], "x", "a refused request must change nothing");
        assert_eq!(list["todos"][0]["completed"], false);
    }
}
