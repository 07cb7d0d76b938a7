//! The todo routes: all their rules except the list's, access control, and the order of the checks.
//! Not here: sorting and paging (`listing.rs`), and HTTP below JSON (`protocol.rs`).

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, on_every_target};

use crate::text;

const JSON: (&str, &str) = ("content-type", "application/json");
const TEXT: (&str, &str) = ("content-type", "text/plain");
const TOO_LARGE: usize = 70_000;
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

/// The path of a todo in its owner's collection.
fn path(owner: &Actor, todo: &Value) -> String {
    format!("{}/{}", owner.todos(), text(todo, "id"))
}

/// Checks a timestamp's format (RFC 3339, `Z`, at most six decimals) and returns it in a form that
/// compares as text.
fn instant(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("not a timestamp: {value}"));
    let body = text.strip_suffix('Z').unwrap_or_else(|| panic!("not in UTC: {text}"));
    let (seconds, decimals) = body.split_once('.').unwrap_or((body, ""));
    let shape: String = seconds.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00", "not RFC 3339: {text}");
    assert!(decimals.len() <= 6, "finer than microseconds: {text}");
    assert!(decimals.bytes().all(|b| b.is_ascii_digit()), "not RFC 3339: {text}");
    format!("{seconds}.{decimals:0<6}")
}

fn assert_uuid_v7(id: &str) {
    let shape: String =
        id.chars().map(|c| if matches!(c, '0'..='9' | 'a'..='f') { 'h' } else { c }).collect();
    assert_eq!(shape, "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "not a UUID: {id}");
    assert_eq!(&id[14..15], "7", "not version 7: {id}");
    assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "not the RFC 9562 variant: {id}");
}

/// Asserts a 400 whose `details` name exactly these fields.
fn invalid(answer: TestResponse, fields: &[&str]) {
    let problem = answer.problem(400, "validation_error");
    let details = problem["details"].as_array().unwrap_or_else(|| panic!("no details: {problem}"));
    let mut named: Vec<&str> = details.iter().map(|d| text(d, "field")).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, fields, "{problem}");
}

async fn create(owner: &Actor, body: Value) -> Value {
    owner.post(&owner.todos(), body).await.expect(201)
}

async fn sent(actor: &Actor, method: &str, path: &str, body: impl Into<Vec<u8>>) -> TestResponse {
    actor.send(method, path, &[JSON], body).await
}

/// Every operation on a single todo, with a valid body.
fn verbs() -> [(&'static str, &'static str, Value); 5] {
    [
        ("GET", "", Value::Null),
        ("PUT", "", json!({"title": "taken", "priority": "low"})),
        ("PATCH", "", json!({"title": "taken"})),
        ("PATCH", "/complete", json!({"completed": true})),
        ("DELETE", "", Value::Null),
    ]
}

/// Sends one of [`verbs`].
async fn try_verb(actor: &Actor, verb: &(&str, &str, Value), path: &str) -> TestResponse {
    let (method, suffix, body) = verb;
    let path = format!("{path}{suffix}");
    match body {
        Value::Null => actor.send(method, &path, &[], "").await,
        body => sent(actor, method, &path, body.to_string()).await,
    }
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

    async fn a_put_replaces_but_does_not_reopen(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = create(&ann, json!({"title": "a", "description": "d", "priority": "low"})).await;
        let mine = path(&ann, &todo);
        let body = json!({"completed": true});
        let done = ann.patch(&format!("{mine}/complete"), body).await.expect(200);

        let put = ann.put(&mine, json!({"title": " b ", "priority": "high"})).await.expect(200);
        assert_eq!(put, json!({
            "id": todo["id"], "user_id": ann.id(), "title": "b", "description": null,
            "priority": "high", "completed": true, "created_at": todo["created_at"],
            "updated_at": put["updated_at"], "completed_at": done["completed_at"],
        }));
        assert!(instant(&put["updated_at"]) > instant(&done["updated_at"]));
        assert_eq!(ann.get(&mine).await.expect(200), put);

        let body = json!({"title": "b", "priority": "high", "description": "e"});
        assert_eq!(ann.put(&mine, body).await.expect(200)["description"], "e");
        let body = json!({"title": "b", "priority": "high", "description": null});
        assert_eq!(ann.put(&mine, body).await.expect(200)["description"], Value::Null);
    }

    async fn a_patch_keeps_the_fields_it_does_not_name(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = create(&ann, json!({"title": "a", "description": "d", "priority": "low"})).await;
        let mine = path(&ann, &todo);
        let mut expected = todo.clone();
        for (patch, field, value) in [
            (json!({"title": " b "}), "title", json!("b")),
            (json!({"priority": "high"}), "priority", json!("high")),
            (json!({"description": "e"}), "description", json!("e")),
            (json!({"description": null}), "description", Value::Null),
        ] {
            let patched = ann.patch(&mine, patch).await.expect(200);
            let (before, after) = (&expected["updated_at"], patched["updated_at"].clone());
            assert!(instant(&after) > instant(before), "{patched}");
            expected[field] = value;
            expected["updated_at"] = after;
            assert_eq!(patched, expected);
            assert_eq!(ann.get(&mine).await.expect(200), expected);
        }
        let all = json!({"title": "c", "description": "f", "priority": "medium"});
        let patched = ann.patch(&mine, all).await.expect(200);
        for (field, value) in [("title", "c"), ("description", "f"), ("priority", "medium")] {
            assert_eq!(patched[field], value);
        }
    }

    async fn an_empty_patch_changes_nothing(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = create(&ann, json!({"title": "a", "description": "d", "priority": "low"})).await;
        let mine = path(&ann, &todo);
        for body in [json!({}), json!({"colour": "red", "completed": true})] {
            let patched = ann.patch(&mine, body).await.expect(200);
            for field in ["id", "user_id", "title", "description", "priority", "completed"] {
                assert_eq!(patched[field], todo[field], "{field}");
            }
            assert_eq!(patched["created_at"], todo["created_at"]);
            assert_eq!(patched["completed_at"], Value::Null);
        }
        let missing = format!("{}/{UNKNOWN_ID}", ann.todos());
        ann.patch(&missing, json!({})).await.problem(404, "not_found");
    }

    async fn a_patch_cannot_null_a_required_field(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("a").await);
        invalid(ann.patch(&mine, json!({"title": null})).await, &["title"]);
        invalid(ann.patch(&mine, json!({"priority": null})).await, &["priority"]);
        let body = json!({"title": null, "priority": null, "description": null});
        invalid(ann.patch(&mine, body).await, &["priority", "title"]);
        assert_eq!(ann.get(&mine).await.expect(200)["title"], "a");
    }

    async fn completed_at_is_set_once_and_cleared_on_reopening(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let mine = path(&ann, &todo);
        let complete = format!("{mine}/complete");

        let done = ann.patch(&complete, json!({"completed": true})).await.expect(200);
        assert_eq!(done["completed"], true);
        assert!(instant(&done["completed_at"]) >= instant(&todo["created_at"]));
        assert!(instant(&done["updated_at"]) > instant(&todo["updated_at"]));

        let again = ann.patch(&complete, json!({"completed": true})).await.expect(200);
        assert_eq!(again["completed_at"], done["completed_at"], "the first completion is kept");
        let patched = ann.patch(&mine, json!({"title": "b"})).await.expect(200);
        assert_eq!(patched["completed_at"], done["completed_at"]);
        assert_eq!(patched["completed"], true);

        let open = ann.patch(&complete, json!({"completed": false})).await.expect(200);
        assert_eq!((&open["completed"], &open["completed_at"]), (&json!(false), &Value::Null));
        assert_eq!(ann.get(&mine).await.expect(200), open);
        let redone = ann.patch(&complete, json!({"completed": true})).await.expect(200);
        assert!(instant(&redone["completed_at"]) > instant(&done["completed_at"]));
    }

    async fn a_deleted_todo_is_gone_for_every_verb(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let kept = ann.todo("kept").await;
        let todo = ann.todo("gone").await;
        let mine = path(&ann, &todo);
        let deleted = ann.delete(&mine).await.expect(200);
        let expected = json!({
            "message": "Todo deleted successfully", "deleted_id": todo["id"],
        });
        assert_eq!(deleted, expected);
        for verb in &verbs() {
            try_verb(&ann, verb, &mine).await.problem(404, "not_found");
        }
        let list = ann.get(&ann.todos()).await.expect(200);
        assert_eq!((&list["total"], &list["todos"]), (&json!(1), &json!([kept])));
    }

    async fn updated_at_moves_forward_strictly(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let created = ann.todo("a").await;
        let mine = path(&ann, &created);
        let mut last = instant(&created["updated_at"]);
        for round in 0..100 {
            let answer = match round % 4 {
                0 => ann.patch(&mine, json!({"title": "same"})).await,
                1 => ann.patch(&format!("{mine}/complete"), json!({"completed": true})).await,
                2 => ann.put(&mine, json!({"title": "same", "priority": "low"})).await,
                _ => ann.patch(&mine, json!({"description": null})).await,
            };
            let todo = answer.expect(200);
            let now = instant(&todo["updated_at"]);
            assert!(now > last, "round {round}: {now} after {last}");
            assert_eq!(todo["created_at"], created["created_at"]);
            last = now;
        }
    }

    async fn updated_at_is_never_shared_by_two_modifications(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("a").await);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10 {
            let patch = || ann.patch(&mine, json!({"priority": "low"}));
            let (a, b, c, d) = tokio::join!(patch(), patch(), patch(), patch());
            for answer in [a, b, c, d] {
                let at = instant(&answer.expect(200)["updated_at"]);
                assert!(seen.insert(at.clone()), "{at} twice");
            }
        }
        let last = instant(&ann.get(&mine).await.expect(200)["updated_at"]);
        assert_eq!(Some(&last), seen.last());
    }

    async fn patches_of_different_fields_both_survive(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("a").await);
        let complete = format!("{mine}/complete");
        for round in 0..25 {
            let (title, description) = (format!("t{round}"), format!("d{round}"));
            let (priority, completed) = (["high", "low"][round % 2], round % 2 == 0);
            let (a, b, c, d) = tokio::join!(
                ann.patch(&mine, json!({"title": title})),
                ann.patch(&mine, json!({"description": description})),
                ann.patch(&mine, json!({"priority": priority})),
                ann.patch(&complete, json!({"completed": completed})),
            );
            for answer in [a, b, c, d] {
                answer.expect(200);
            }
            let todo = ann.get(&mine).await.expect(200);
            assert_eq!(todo["title"], title);
            assert_eq!(todo["description"], description);
            assert_eq!(todo["priority"], priority);
            assert_eq!(todo["completed"], completed);
        }
    }

    async fn only_one_of_many_deletes_succeeds(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann, &ann.todo("a").await);
        let delete = || ann.delete(&mine);
        let (a, b, c, d) = tokio::join!(delete(), delete(), delete(), delete());
        let mut statuses = [a.status, b.status, c.status, d.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404, 404, 404]);
    }

    async fn an_invalid_id_is_not_found(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let longer = format!("{}0", text(&todo, "id"));
        for id in [UNKNOWN_ID, "1", "todo", "%00", "%20", "-", "..%2f", "%F0%9F%98%80", &longer] {
            for verb in &verbs() {
                let answer = try_verb(&ann, verb, &format!("{}/{id}", ann.todos())).await;
                assert_eq!(answer.status, 404, "{} {id}{}", verb.0, verb.1);
                answer.problem(404, "not_found");
            }
        }
    }

    async fn another_users_collection_is_forbidden(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let todo = ann.todo("private").await;
        let unknown = format!("/api/users/{UNKNOWN_ID}/todos");
        let malformed = ["me", "%00"].map(|user| format!("/api/users/{user}/todos"));
        for collection in [ann.todos(), unknown].into_iter().chain(malformed) {
            bob.get(&collection).await.problem(403, "forbidden");
            bob.post(&collection, json!({"title": "mine now"})).await.problem(403, "forbidden");
            for id in [text(&todo, "id"), UNKNOWN_ID, "1"] {
                for verb in &verbs() {
                    let answer = try_verb(&bob, verb, &format!("{collection}/{id}")).await;
                    assert_eq!(answer.status, 403, "{} {collection}/{id}{}", verb.0, verb.1);
                    answer.problem(403, "forbidden");
                }
            }
        }
        assert_eq!(ann.get(&path(&ann, &todo)).await.expect(200), todo);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 1);
    }

    async fn another_users_todo_under_ones_own_path_is_forbidden(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let todo = ann.todo("private").await;
        for verb in &verbs() {
            let answer = try_verb(&bob, verb, &path(&bob, &todo)).await;
            assert_eq!(answer.status, 403, "{} {}", verb.0, verb.1);
            answer.problem(403, "forbidden");
        }
        bob.patch(&path(&bob, &todo), json!({})).await.problem(403, "forbidden");
        assert_eq!(ann.get(&path(&ann, &todo)).await.expect(200), todo);
        assert_eq!(bob.get(&bob.todos()).await.expect(200)["total"], 0);
    }

    async fn without_a_token_nothing_else_is_checked(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let anonymous = app.anonymous();
        let todo = ann.todo("private").await;
        let heavy = vec![b'x'; TOO_LARGE];
        for user in [ann.id(), UNKNOWN_ID, "me", "%00"] {
            let collection = format!("/api/users/{user}/todos");
            let one = format!("{collection}/{}", text(&todo, "id"));
            for (method, path) in [
                ("GET", format!("{collection}?limit=0&status=x&cursor=%00")),
                ("POST", collection.clone()),
                ("GET", format!("{collection}/1")),
                ("GET", one.clone()),
                ("PUT", one.clone()),
                ("PATCH", one.clone()),
                ("PATCH", format!("{one}/complete")),
                ("DELETE", one.clone()),
            ] {
                anonymous.send(method, &path, &[], "").await.problem(401, "unauthorized");
                if method.starts_with('P') {
                    let answer = anonymous.send(method, &path, &[TEXT], heavy.clone()).await;
                    answer.problem(401, "unauthorized");
                }
            }
        }
        assert_eq!(ann.get(&path(&ann, &todo)).await.expect(200), todo);
    }

    async fn checks_follow_the_order_of_the_contract(target) {
        let app = App::start(target).await;
        let anonymous = app.anonymous();
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let mine = path(&ann, &ann.todo("a").await);
        let theirs = path(&ann, &bob.todo("b").await);
        let missing = format!("{}/{UNKNOWN_ID}", ann.todos());
        let heavy = || vec![b'{'; TOO_LARGE];

        // route and method, before the token
        let users = format!("/api/users/{}", ann.id());
        anonymous.send("POST", &users, &[TEXT], heavy()).await.problem(404, "not_found");
        let refused = anonymous.send("DELETE", &ann.todos(), &[TEXT], "{").await;
        refused.problem(405, "method_not_allowed");
        // token, before the owner of the path
        anonymous.send("PUT", &mine, &[JSON], "{}").await.problem(401, "unauthorized");
        // the owner of the path, before the media type
        bob.send("PUT", &mine, &[TEXT], heavy()).await.problem(403, "forbidden");
        bob.send("POST", &ann.todos(), &[], "{").await.problem(403, "forbidden");
        for (method, path) in [
            ("POST", ann.todos()),
            ("PUT", missing.clone()),
            ("PATCH", theirs.clone()),
            ("PATCH", format!("{missing}/complete")),
        ] {
            // the media type, before the size
            let answer = ann.send(method, &path, &[TEXT], heavy()).await;
            answer.problem(415, "unsupported_media_type");
            // the size, before the shape
            let answer = ann.send(method, &path, &[JSON], heavy()).await;
            answer.problem(413, "content_too_large");
            // the shape, before the values and the resource
            let body = r#"{"title":7,"priority":"urgent","completed":"x"}"#;
            sent(&ann, method, &path, body).await.problem(422, "malformed_body");
        }
        // the values, before the resource, whether it is missing, another's or no id at all
        for target in [missing.clone(), theirs.clone(), format!("{}/1", ann.todos())] {
            let body = json!({"title": " ", "priority": "low"});
            invalid(ann.put(&target, body.clone()).await, &["title"]);
            invalid(ann.patch(&target, body).await, &["title"]);
        }
        ann.patch(&missing, json!({"title": "x"})).await.problem(404, "not_found");
        ann.patch(&theirs, json!({"title": "x"})).await.problem(403, "forbidden");
        // the values, before the conflict
        let body = json!({"email": ann.email(), "password": "weak", "name": "Ann"});
        invalid(anonymous.post("/api/auth/signup", body).await, &["password"]);
    }

    async fn a_revoked_token_is_a_401_whatever_else_is_wrong(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let mine = path(&ann, &ann.todo("a").await);
        let theirs = path(&ann, &bob.todo("b").await);
        ann.post("/api/auth/logout", Value::Null).await.expect(200);

        let unknown = format!("/api/users/{UNKNOWN_ID}/todos");
        for collection in [ann.todos(), bob.todos(), unknown, "/api/users/me/todos".into()] {
            ann.get(&collection).await.problem(401, "unauthorized");
            ann.get(&format!("{collection}?limit=0")).await.problem(401, "unauthorized");
            for body in ["{", "{}", r#"{"title":" "}"#, r#"{"title":"x"}"#] {
                sent(&ann, "POST", &collection, body).await.problem(401, "unauthorized");
            }
            let answer = ann.send("POST", &collection, &[TEXT], "x").await;
            answer.problem(401, "unauthorized");
            let answer = sent(&ann, "POST", &collection, vec![b'x'; TOO_LARGE]).await;
            answer.problem(401, "unauthorized");
        }
        let others = [UNKNOWN_ID, "1"].map(|id| format!("{}/{id}", ann.todos()));
        for target in [mine, theirs].into_iter().chain(others) {
            for verb in &verbs() {
                let answer = try_verb(&ann, verb, &target).await;
                assert_eq!(answer.status, 401, "{} {target}{}", verb.0, verb.1);
                answer.problem(401, "unauthorized");
            }
            for body in ["{", r#"{"title":null}"#, "{}"] {
                sent(&ann, "PATCH", &target, body).await.problem(401, "unauthorized");
            }
        }
        ann.get("/api/nowhere").await.problem(404, "not_found");
    }
    async fn todos_are_sent_with_no_store(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = path(&ann, &ann.todo("a").await);
        for answer in [
            ann.post(&ann.todos(), json!({"title": "b"})).await,
            ann.get(&ann.todos()).await,
            ann.get(&todo).await,
            ann.put(&todo, json!({"title": "c", "priority": "low"})).await,
            ann.patch(&todo, json!({"title": "d"})).await,
            ann.patch(&format!("{todo}/complete"), json!({"completed": true})).await,
            ann.get(&format!("{todo}0")).await,
            ann.delete(&todo).await,
        ] {
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        }
    }
}
