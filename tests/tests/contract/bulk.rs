//! Many todos at once: all or none, or each for itself.

mod keys;

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, on_every_target};

use crate::text;

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

async fn bulk(actor: &Actor, body: Value) -> TestResponse {
    actor.post(&format!("{}/bulk", actor.todos()), body).await
}

/// Creates todos by one bulk, and returns them.
async fn created(actor: &Actor, titles: &[&str]) -> Vec<Value> {
    let todos: Vec<Value> = titles.iter().map(|title| json!({"title": title})).collect();
    let results = bulk(actor, json!({"create": todos})).await.expect(200);
    todos_of(&results, 201)
}

/// The todos of the results, which have this status.
fn todos_of(results: &Value, status: u16) -> Vec<Value> {
    let results = results["results"].as_array().expect("results");
    let todo = |(index, result): (usize, &Value)| {
        assert_eq!((&result["index"], &result["status"]), (&json!(index), &json!(status)));
        assert!(result.get("code").is_none(), "{result}");
        result["todo"].clone()
    };
    results.iter().enumerate().map(todo).collect()
}

fn statuses(results: &Value) -> Vec<u64> {
    let results = results["results"].as_array().expect("results");
    results.iter().map(|result| result["status"].as_u64().expect("a status")).collect()
}

fn codes(results: &Value) -> Vec<Value> {
    results["results"].as_array().expect("results").iter().map(|it| it["code"].clone()).collect()
}

fn ids(todos: &[Value]) -> Vec<Value> {
    todos.iter().map(|todo| todo["id"].clone()).collect()
}

fn pointers(problem: &Value) -> Vec<(String, String)> {
    let details = problem["details"].as_array().expect("details");
    let pointer = |it: &Value| (text(it, "pointer").to_owned(), text(it, "code").to_owned());
    details.iter().map(pointer).collect()
}

/// The todo without the times that a change sets.
fn without_times(todo: &Value) -> Value {
    let mut todo = todo.clone();
    todo["updated_at"].take();
    todo
}

async fn position(actor: &Actor) -> String {
    let page = actor.get(&format!("/api/users/{}/changes", actor.id())).await.expect(200);
    text(&page, "next").to_owned()
}

/// The changes since a position: ids of todos that are new or changed, and of those that are gone.
async fn changes(actor: &Actor, since: &str) -> (Vec<Value>, u64) {
    let path = format!("/api/users/{}/changes?since={since}", actor.id());
    let page = actor.get(&path).await.expect(200);
    let changed = page["changes"].as_array().expect("changes").iter().map(|change| {
        if change["type"] == "deleted" {
            change["id"].clone()
        } else {
            change["todo"]["id"].clone()
        }
    });
    let number = |text: &str| text.split_once('.').expect("a number").1.parse::<u64>().expect("it");
    (changed.collect(), number(text(&page, "next")) - number(since))
}

on_every_target! {
    async fn many_todos_are_created_in_their_order(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let since = position(&ann).await;
        let titles: Vec<String> = (0..500).map(|number| format!("todo {number}")).collect();
        let mut todos: Vec<Value> = titles.iter().map(|title| json!({"title": title})).collect();
        todos[7] = json!({
            "title": " \u{130} \"q\" \u{1d11e}\u{1}", "description": "\\ d\u{7f}\n", "priority": "high",
        });
        todos[8]["description"] = json!("");
        let answer = bulk(&ann, json!({"create": todos})).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let made = todos_of(&answer.expect(200), 201);
        assert_eq!(made.len(), 500);
        assert_eq!(made[7]["title"], "\u{130} \"q\" \u{1d11e}\u{1}");
        assert_eq!((&made[7]["description"], &made[7]["priority"]), (&json!("\\ d\u{7f}\n"), &json!("high")));
        assert_eq!((&made[8]["description"], &made[9]["description"]), (&json!(""), &Value::Null));
        for todo in [&made[0], &made[7], &made[499]] {
            let path = format!("{}/{}", ann.todos(), text(todo, "id"));
            assert_eq!(&ann.get(&path).await.expect(200), todo);
        }
        let list = ann.get(&format!("{}?order=asc&limit=500", ann.todos())).await.expect(200);
        assert_eq!((&list["total"], &list["todos"]), (&json!(500), &json!(made)));
        let sorted = ann.get(&format!("{}?sort_by=title&order=desc&limit=1", ann.todos())).await;
        assert_eq!(sorted.expect(200)["todos"][0]["id"], made[99]["id"], "the sort key: todo 99");
        let (changed, count) = changes(&ann, &since).await;
        assert_eq!((changed, count), (ids(&made), 500));
    }

    async fn many_todos_are_changed_as_one_is(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let made = created(&ann, &["a", "b", "c", "d"]).await;
        let path = |todo: &Value| format!("{}/{}", ann.todos(), text(todo, "id"));
        // The first one is already completed.
        let complete = format!("{}/complete", path(&made[0]));
        let done = ann.patch(&complete, json!({"completed": true})).await.expect(200);
        let since = position(&ann).await;
        let reversed: Vec<Value> = ids(&made).into_iter().rev().collect();
        let completed = bulk(&ann, json!({"complete": reversed, "completed": true})).await;
        let completed = todos_of(&completed.expect(200), 200);
        assert_eq!(ids(&completed), reversed, "in the order of the request");
        for (todo, before) in completed.iter().rev().zip(&made) {
            assert_eq!(todo["completed"], true);
            assert!(todo["updated_at"].as_str() > before["updated_at"].as_str());
            assert_eq!(&ann.get(&path(todo)).await.expect(200), todo);
        }
        assert_eq!(completed[3]["completed_at"], done["completed_at"], "kept");
        assert!(completed[3]["updated_at"].as_str() > done["updated_at"].as_str());
        let (mut changed, count) = changes(&ann, &since).await;
        changed.sort_by_key(Value::to_string);
        assert_eq!((changed, count), (ids(&made), 4));
        let opened = bulk(&ann, json!({"complete": ids(&made[..2]), "completed": false})).await;
        for todo in todos_of(&opened.expect(200), 200) {
            assert_eq!((&todo["completed"], &todo["completed_at"]), (&json!(false), &Value::Null));
        }
        let list = ann.get(&format!("{}?status=completed", ann.todos())).await.expect(200);
        assert_eq!(list["total"], 2);

        let patch = json!({"title": " Z ", "description": "d", "priority": "low"});
        let patched = bulk(&ann, json!({"patch": patch, "ids": ids(&made[1..])})).await;
        let patched = todos_of(&patched.expect(200), 200);
        for todo in &patched {
            assert_eq!((&todo["title"], &todo["description"]), (&json!("Z"), &json!("d")));
            assert_eq!(todo["priority"], "low");
        }
        let cleared = json!({"patch": {"description": null}, "ids": ids(&made[3..])});
        let cleared = todos_of(&bulk(&ann, cleared).await.expect(200), 200);
        assert_eq!((&cleared[0]["title"], &cleared[0]["description"]), (&json!("Z"), &Value::Null));
        let last = ann.get(&format!("{}?sort_by=title&order=desc&limit=1", ann.todos())).await;
        assert_eq!(last.expect(200)["todos"][0]["title"], "Z", "the sort key is changed too");
        // An empty patch changes nothing.
        let since = position(&ann).await;
        let same = bulk(&ann, json!({"patch": {}, "ids": ids(&patched[..2])})).await;
        assert_eq!(todos_of(&same.expect(200), 200), patched[..2]);
        assert_eq!(changes(&ann, &since).await, (vec![], 0));
    }

    async fn many_todos_are_deleted_and_restored(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let made = created(&ann, &["a", "b", "c"]).await;
        let since = position(&ann).await;
        let order = json!([made[2]["id"], made[0]["id"]]);
        let gone = bulk(&ann, json!({"delete": order})).await.expect(200);
        assert_eq!(todos_of(&gone, 200), [Value::Null, Value::Null]);
        let (changed, count) = changes(&ann, &since).await;
        let ids_in_order = vec![made[0]["id"].clone(), made[2]["id"].clone()];
        assert_eq!((changed, count), (ids_in_order.clone(), 2), "in the order of the ids");
        let trash = format!("/api/users/{}/trash", ann.id());
        assert_eq!(ann.get(&trash).await.expect(200)["total"], 2);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 1);
        let back = bulk(&ann, json!({"restore": order})).await.expect(200);
        let back = todos_of(&back, 200);
        for (todo, before) in back.iter().zip([&made[2], &made[0]]) {
            assert_eq!(without_times(todo), without_times(before));
            assert!(todo["updated_at"].as_str() > before["updated_at"].as_str());
            let path = format!("{}/{}", ann.todos(), text(todo, "id"));
            assert_eq!(&ann.get(&path).await.expect(200), todo);
        }
        assert_eq!(ann.get(&trash).await.expect(200)["total"], 0);
        assert_eq!(changes(&ann, &since).await, (ids_in_order, 4));
    }

    async fn without_a_trash_many_deletions_are_permanent(target) {
        let app = App::start_with(target, &[("TRASH_DAYS", "0")]).await;
        let ann = app.signed_up().await;
        let made = created(&ann, &["a", "b"]).await;
        bulk(&ann, json!({"delete": ids(&made)})).await.expect(200);
        assert_eq!(ann.get(&format!("/api/users/{}/trash", ann.id())).await.expect(200)["total"], 0);
        bulk(&ann, json!({"restore": ids(&made)})).await.problem(404, "not_found");
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 0);
    }

    async fn if_an_item_fails_nothing_is_changed(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let made = created(&ann, &["a", "b"]).await;
        let theirs = bob.todo("theirs").await;
        let before = (position(&ann).await, position(&bob).await);
        let items = json!([made[0]["id"], NOBODY, made[1]["id"], theirs["id"]]);
        for (body, name) in [
            (json!({"complete": items, "completed": true}), "complete"),
            (json!({"patch": {"title": "x"}, "ids": items}), "ids"),
            (json!({"patch": {}, "ids": items}), "ids"),
            (json!({"delete": items}), "delete"),
        ] {
            let refused = bulk(&ann, body).await.problem(404, "not_found");
            let expected = [
                (format!("/{name}/1"), "not_found".to_owned()),
                (format!("/{name}/3"), "forbidden".to_owned()),
            ];
            assert_eq!(pointers(&refused), expected, "{refused}");
            let detail = "There is no such todo. You don't have access to this todo.";
            assert_eq!(refused["detail"], detail);
        }
        let refused = bulk(&ann, json!({"delete": [theirs["id"], NOBODY]})).await;
        assert_eq!(pointers(&refused.problem(403, "forbidden")).len(), 2);
        let refused = bulk(&ann, json!({"restore": [made[0]["id"], theirs["id"]]})).await;
        assert_eq!(pointers(&refused.problem(404, "not_found")).len(), 2);
        assert_eq!((position(&ann).await, position(&bob).await), before);
        let list = ann.get(&format!("{}?order=asc", ann.todos())).await.expect(200);
        assert_eq!(list["todos"], json!(made));
    }

    async fn the_values_of_all_items_are_checked_first(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let blank = json!({"create": [
            {"title": "a"}, {"title": " "}, {"title": "c", "priority": "x", "description": "\u{0}"},
        ]});
        let refused = bulk(&ann, blank).await.problem(400, "validation_error");
        let pointer = |pointer: &str, code: &str| (pointer.to_owned(), code.to_owned());
        let expected = [
            pointer("/create/1/title", "blank"),
            pointer("/create/2/description", "nul"),
            pointer("/create/2/priority", "invalid"),
        ];
        assert_eq!(pointers(&refused), expected);
        let refused = bulk(&ann, json!({"delete": [NOBODY, "1", NOBODY]})).await;
        let expected = [pointer("/delete/1", "invalid"), pointer("/delete/2", "repeated")];
        assert_eq!(pointers(&refused.problem(400, "validation_error")), expected);
        let refused = bulk(&ann, json!({"create": [{"title": "a"}, {"priority": "low"}, 3]})).await;
        let expected = [pointer("/create/1/title", "missing"), pointer("/create/2", "wrong_type")];
        assert_eq!(pointers(&refused.problem(422, "malformed_body")), expected);
        for (body, code) in [
            (json!({"create": []}), "out_of_range"),
            (json!({"delete": vec![NOBODY; 501]}), "out_of_range"),
            (json!({"delete": [NOBODY, NOBODY], "partial": true}), "repeated"),
        ] {
            let refused = bulk(&ann, body).await.problem(400, "validation_error");
            assert_eq!(refused["details"][0]["code"], code);
        }
        for body in [json!({}), json!({"delete": [NOBODY], "restore": [NOBODY]}), json!({"partial": true})] {
            bulk(&ann, body).await.problem(422, "malformed_body");
        }
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 0);
        let bob = app.signed_up().await;
        let path = format!("{}/bulk", ann.todos());
        let body = json!({"create": [{"title": ""}]});
        bob.post(&path, body.clone()).await.problem(403, "forbidden");
        app.anonymous().post(&path, body.clone()).await.problem(401, "unauthorized");
        ann.get(&path).await.problem(405, "method_not_allowed");
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        for body in [body, json!({"create": [{"title": "a"}]}), json!({"delete": [NOBODY]})] {
            ann.post(&path, body).await.problem(401, "unauthorized");
        }
        for body in [
            json!({"create": [{"title": "a"}], "partial": true}),
            json!({"create": [{"title": ""}], "partial": true}),
            json!({"restore": [NOBODY, "x"], "partial": true}),
            json!({"restore": ["x"], "partial": true}),
        ] {
            ann.post(&path, body.clone()).await.problem(401, "unauthorized");
            let headers = [("content-type", "application/json"), ("idempotency-key", "key")];
            let keyed = ann.send("POST", &path, &headers, body.to_string()).await;
            keyed.problem(401, "unauthorized");
        }
    }

    async fn of_a_partial_bulk_each_item_has_its_own_status(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let made = created(&ann, &["a", "b"]).await;
        let theirs = bob.todo("theirs").await;
        let items = json!(["x", made[1]["id"], theirs["id"], NOBODY, made[0]["id"]]);
        let body = json!({"complete": items, "completed": true, "partial": true});
        let results = bulk(&ann, body).await.expect(200);
        assert_eq!(statuses(&results), [400, 200, 403, 404, 200]);
        let expected = json!(["validation_error", null, "forbidden", "not_found", null]);
        assert_eq!(json!(codes(&results)), expected);
        let detail = json!([{
            "field": "complete/0", "pointer": "/complete/0", "code": "invalid",
            "message": "An id must be a UUID.",
        }]);
        assert_eq!(results["results"][0]["details"], detail);
        assert_eq!(results["results"][2]["todo"], Value::Null);
        assert_eq!(results["results"][4]["todo"]["id"], made[0]["id"]);
        let list = ann.get(&format!("{}?status=completed", ann.todos())).await.expect(200);
        assert_eq!(list["total"], 2);

        let body = json!({"create": [{"title": ""}, {"title": "c"}], "partial": true});
        let results = bulk(&ann, body).await.expect(200);
        assert_eq!(statuses(&results), [400, 201]);
        assert_eq!(results["results"][0]["details"][0]["pointer"], "/create/0/title");
        assert_eq!(results["results"][1]["todo"]["title"], "c");
        for body in [
            json!({"delete": items, "partial": true}),
            json!({"restore": items, "partial": true}),
        ] {
            let results = bulk(&ann, body).await.expect(200);
            let is_done: Vec<bool> = statuses(&results).iter().map(|it| *it == 200).collect();
            assert_eq!(is_done, [false, true, false, false, true], "{results}");
        }
        let results = bulk(&ann, json!({"delete": ["x"], "partial": true})).await.expect(200);
        assert_eq!(statuses(&results), [400]);
        // The patch is no item.
        let body = json!({"patch": {"title": ""}, "ids": [made[0]["id"]], "partial": true});
        bulk(&ann, body).await.problem(400, "validation_error");
    }

    async fn many_todos_keep_the_quota(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "3")]).await;
        let ann = app.signed_up().await;
        let todos = |count: usize| vec![json!({"title": "x"}); count];
        let refused = bulk(&ann, json!({"create": todos(5)})).await.problem(409, "quota_exceeded");
        assert_eq!((&refused["limit"], &refused["used"]), (&json!(3), &json!(0)));
        let beyond: Vec<_> = pointers(&refused).into_iter().map(|(pointer, _)| pointer).collect();
        assert_eq!(beyond, ["/create/3", "/create/4"]);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 0);
        let made = created(&ann, &["a", "b", "c"]).await;
        bulk(&ann, json!({"create": todos(1)})).await.problem(409, "quota_exceeded");
        bulk(&ann, json!({"delete": ids(&made)})).await.expect(200);
        created(&ann, &["d"]).await;
        let refused = bulk(&ann, json!({"restore": ids(&made)})).await;
        let refused = refused.problem(409, "quota_exceeded");
        assert_eq!(pointers(&refused), [("/restore/2".to_owned(), "quota_exceeded".to_owned())]);
        assert_eq!(refused["used"], 1);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 1);
        // The first ones have room, in the order of the items.
        let order: Vec<Value> = ids(&made).into_iter().rev().collect();
        let results = bulk(&ann, json!({"restore": order, "partial": true})).await.expect(200);
        assert_eq!(statuses(&results), [200, 200, 409]);
        assert_eq!(results["results"][2]["code"], "quota_exceeded");
        assert_eq!((&results["results"][2]["limit"], &results["results"][2]["used"]), (&json!(3), &json!(3)));
        let last = format!("/api/users/{}/trash", ann.id());
        assert_eq!(ann.get(&last).await.expect(200)["todos"][0]["id"], made[0]["id"]);
        ann.delete(&format!("{}/{}", ann.todos(), text(&made[1], "id"))).await.expect(200);
        let results = bulk(&ann, json!({"create": todos(3), "partial": true})).await.expect(200);
        assert_eq!(statuses(&results), [201, 409, 409]);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 3);
    }

    /// The memory of the response is reserved first: a quarter of 4 MiB is too little for this
    /// body and 500 todos.
    async fn a_bulk_whose_response_has_no_room_changes_nothing(target) {
        let settings = [("BODY_MEMORY_BYTES", "4194304")];
        let app = App::start_with(target, &settings).await;
        let ann = app.signed_up().await;
        let todo = json!({"title": "t", "description": "d".repeat(600)});
        let refused = bulk(&ann, json!({"create": vec![todo.clone(); 500]})).await;
        refused.problem(503, "unavailable");
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 0);
        bulk(&ann, json!({"create": vec![todo; 250]})).await.expect(200);
        let large = json!({"create": [{"title": "t"}], "padding": "x".repeat(1 << 20)});
        bulk(&ann, large).await.problem(413, "content_too_large");
    }

    async fn a_body_of_2_mib_is_read(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = json!({"title": "t".repeat(200), "description": "\u{1d11e}".repeat(1000)});
        let body = json!({"create": vec![todo; 480]});
        assert!((1 << 20..2 << 20).contains(&body.to_string().len()));
        let made = todos_of(&bulk(&ann, body).await.expect(200), 201);
        assert_eq!(made.len(), 480);
        let body = json!({"create": [{"title": "t"}], "padding": "x".repeat(2 << 20)});
        bulk(&ann, body).await.problem(413, "content_too_large");
        let large = json!({"title": "t", "padding": "x".repeat(70_000)});
        ann.post(&ann.todos(), large).await.problem(413, "content_too_large");
    }
}
