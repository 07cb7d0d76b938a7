//! PUT, PATCH, completion and DELETE change what they name, also when several requests change the
//! same todo at once.

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{UNKNOWN_ID, create, instant, invalid, path, try_verb, verbs};

on_every_target! {
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
            "tags": [], "due": null, "recurrence": null, "reminders": [], "list_id": null,
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
}
