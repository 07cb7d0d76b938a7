//! Tags, due dates, reminders and lists in creations and changes.

use serde_json::{Value, json};
use todo_tests::{App, TestResponse, on_every_target};

use super::{create, path};
use crate::text;

on_every_target! {
    async fn details_are_stored_as_they_are_answered(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = create(&ann, json!({
            "title": "a", "tags": [" Home", "errand", "HOME"],
            "due": {"date": "2026-12-01", "time": "09:30", "time_zone": "europe/berlin"},
            "recurrence": {"rule": "FREQ=WEEKLY;BYDAY=MO"},
            "reminders": [{"minutes_before": 60}, {"minutes_before": 0}],
        })).await;
        assert_eq!(todo["tags"], json!(["errand", "home"]));
        assert_eq!(todo["due"], json!({
            "date": "2026-12-01", "time": "09:30", "time_zone": "Europe/Berlin",
            "at": "2026-12-01T08:30:00Z",
        }));
        assert_eq!(todo["recurrence"], json!({"rule": "FREQ=WEEKLY;BYDAY=MO", "from": "due"}));
        assert_eq!(todo["reminders"], json!([{"minutes_before": 0}, {"minutes_before": 60}]));
        let mine = path(&ann, &todo);
        assert_eq!(ann.get(&mine).await.expect(200), todo);
        let listed = ann.get(&ann.todos()).await.expect(200);
        assert_eq!(listed["todos"], json!([todo]));

        // A client that does not know them keeps them.
        let put = ann.put(&mine, json!({"title": "b", "priority": "low"})).await.expect(200);
        for member in ["tags", "due", "recurrence", "reminders", "list_id"] {
            assert_eq!(put[member], todo[member], "{member}");
        }
        let patched = ann.patch(&mine, json!({"tags": ["x"]})).await.expect(200);
        assert_eq!((&patched["tags"], &patched["due"]), (&json!(["x"]), &todo["due"]));
        let cleared = ann.put(&mine, json!({
            "title": "b", "priority": "low", "tags": null, "due": null, "recurrence": null,
            "reminders": null, "list_id": null,
        })).await.expect(200);
        let none = json!({
            "tags": [], "due": null, "recurrence": null, "reminders": [], "list_id": null,
        });
        for (member, value) in none.as_object().expect("members") {
            assert_eq!(&cleared[member], value, "{member}");
        }
        assert_eq!(ann.get(&mine).await.expect(200), cleared);
    }

    async fn details_survive_the_trash_and_a_repeated_request(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = json!({
            "title": "a", "tags": ["t"], "due": {"date": "2026-12-01"},
            "recurrence": {"rule": "FREQ=DAILY", "from": "completion"},
            "reminders": [{"minutes_before": 5}],
        });
        let key = [("content-type", "application/json"), ("idempotency-key", "k")];
        let first = ann.send("POST", &ann.todos(), &key, body.to_string()).await.expect(201);
        let again = ann.send("POST", &ann.todos(), &key, body.to_string()).await.expect(201);
        assert_eq!(first, again);
        let mut other = body.clone();
        other["tags"] = json!(["u"]);
        let reused = ann.send("POST", &ann.todos(), &key, other.to_string()).await;
        reused.problem(422, "idempotency_mismatch");

        let mine = path(&ann, &first);
        assert_eq!(ann.get(&mine).await.expect(200), first);
        ann.delete(&mine).await.expect(200);
        let trash = format!("/api/users/{}/trash", ann.id());
        let trashed = ann.get(&trash).await.expect(200);
        for member in ["tags", "due", "recurrence", "reminders"] {
            assert_eq!(trashed["todos"][0][member], first[member], "{member}");
        }
        let restore = format!("{trash}/{}/restore", text(&first, "id"));
        let mut restored = ann.post(&restore, Value::Null).await.expect(200);
        restored["updated_at"] = first["updated_at"].clone();
        assert_eq!(restored, first);
    }

    async fn many_have_details_as_one_has(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bulk = format!("{}/bulk", ann.todos());
        let body = json!({"create": [
            {"title": "a", "tags": ["t"], "due": {"date": "2026-12-01"},
             "reminders": [{"minutes_before": 5}]},
            {"title": "b", "due": {"date": "2026-12-01", "time": "10:00", "time_zone": "UTC"},
             "recurrence": {"rule": "FREQ=DAILY"}},
            {"title": "c"},
        ]});
        let made = ann.post(&bulk, body).await.expect(200);
        let todo = |index: usize| &made["results"][index]["todo"];
        assert_eq!((&todo(0)["tags"], &todo(2)["tags"]), (&json!(["t"]), &json!([])));
        assert_eq!(todo(1)["due"]["at"], "2026-12-01T10:00:00Z");
        for index in 0..3 {
            assert_eq!(&ann.get(&path(&ann, todo(index))).await.expect(200), todo(index));
        }
        let ids: Vec<&Value> = (0..3).map(|index| &todo(index)["id"]).collect();
        let patch = json!({"patch": {"tags": ["u", "v"], "title": "x"}, "ids": ids});
        let patched = ann.post(&bulk, patch).await.expect(200);
        for index in 0..3 {
            let todo = &patched["results"][index]["todo"];
            assert_eq!((&todo["tags"], &todo["title"]), (&json!(["u", "v"]), &json!("x")));
        }
        // Two of three need their due date.
        let patch = |partial: bool| {
            json!({"patch": {"due": null, "title": "y"}, "ids": ids, "partial": partial})
        };
        let refused = ann.post(&bulk, patch(false)).await;
        let errors = refused.problem(400, "validation_error");
        let pointers: Vec<&Value> =
            errors["details"].as_array().expect("details").iter().map(|d| &d["pointer"]).collect();
        assert_eq!(pointers, ["/ids/0/due", "/ids/1/due"]);
        let partly = ann.post(&bulk, patch(true)).await.expect(200);
        let statuses: Vec<&Value> =
            partly["results"].as_array().expect("results").iter().map(|r| &r["status"]).collect();
        assert_eq!(statuses, [400, 400, 200]);
        assert_eq!(ann.get(&path(&ann, todo(0))).await.expect(200)["title"], "x");
    }

    async fn each_rule_that_details_break_is_reported(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let plain = create(&ann, json!({"title": "plain"})).await;
        let dated = create(&ann, json!({
            "title": "dated", "due": {"date": "2026-12-01"}, "reminders": [{"minutes_before": 1}],
        })).await;
        let nobody = "00000000-0000-7000-8000-000000000000";
        let due = json!({"date": "2026-12-01"});
        for (members, pointers) in [
            (json!({"tags": ["a,b", ""]}), vec!["/tags/0", "/tags/1"]),
            (json!({"tags": (0..21).map(|i| i.to_string()).collect::<Vec<_>>()}), vec!["/tags"]),
            (json!({"due": {"date": "2026-02-30"}}), vec!["/due/date"]),
            (json!({"due": {"date": "2026-02-01", "time": "9"}}), vec!["/due/time", "/due/time_zone"]),
            (json!({"due": {"date": "2026-02-01", "time_zone": "UTC"}}), vec!["/due/time"]),
            (json!({"due": due, "recurrence": {"rule": "x"}}), vec!["/recurrence/rule"]),
            (
                json!({"due": due, "recurrence": {"rule": "FREQ=DAILY", "from": "x"}}),
                vec!["/recurrence/from"],
            ),
            (
                json!({"due": due, "reminders": [{"minutes_before": 40_321}]}),
                vec!["/reminders/0/minutes_before"],
            ),
            (json!({"list_id": "x"}), vec!["/list_id"]),
            (json!({"list_id": nobody}), vec!["/list_id"]),
            (json!({"recurrence": {"rule": "FREQ=DAILY"}}), vec!["/recurrence"]),
            (json!({"reminders": [{"minutes_before": 1}]}), vec!["/reminders"]),
        ] {
            let expect = |answer: TestResponse| {
                let errors = answer.problem(400, "validation_error");
                let details = errors["details"].as_array().expect("details");
                let found: Vec<&str> = details.iter().map(|d| text(d, "pointer")).collect();
                assert_eq!(found, pointers, "{members}");
            };
            let mut body = members.clone();
            body["title"] = json!("a");
            expect(ann.post(&ann.todos(), body.clone()).await);
            expect(ann.patch(&path(&ann, &plain), members.clone()).await);
            body["priority"] = json!("low");
            expect(ann.put(&path(&ann, &plain), body).await);
        }
        for shape in [
            json!({"tags": "a"}),
            json!({"tags": [1]}),
            json!({"due": "2026-12-01"}),
            json!({"due": {"time": "09:30"}}),
            json!({"recurrence": "FREQ=DAILY"}),
            json!({"reminders": [5]}),
            json!({"list_id": 5}),
        ] {
            let refused = ann.patch(&path(&ann, &plain), shape.clone()).await;
            assert_eq!(refused.status, 422, "{shape}: {refused}");
        }
        let refused = ann.patch(&path(&ann, &dated), json!({"due": null})).await;
        let errors = refused.problem(400, "validation_error");
        assert_eq!(errors["details"][0]["pointer"], "/reminders");
        assert_eq!(ann.get(&path(&ann, &dated)).await.expect(200), dated);
        assert_eq!(ann.get(&path(&ann, &plain)).await.expect(200), plain);
    }
}
