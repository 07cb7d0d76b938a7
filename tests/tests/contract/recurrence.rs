//! Recurring todos: their rules, and the next occurrence that a completion makes.

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, at_once, on_every_target};

use crate::text;

const MINUTES: i64 = 60;

fn path(owner: &Actor, todo: &Value) -> String {
    format!("{}/{}", owner.todos(), text(todo, "id"))
}

/// A todo that is due on `date` and recurs by `rule`.
async fn recurring(owner: &Actor, rule: &str, date: &str) -> Value {
    let body = json!({"title": rule, "due": {"date": date}, "recurrence": {"rule": rule}});
    owner.post(&owner.todos(), body).await.expect(201)
}

async fn complete(owner: &Actor, todo: &Value, completed: bool) -> TestResponse {
    let path = format!("{}/complete", path(owner, todo));
    owner.patch(&path, json!({"completed": completed})).await
}

/// Completes a todo, and returns the next one.
async fn next(owner: &Actor, todo: &Value) -> Value {
    let done = complete(owner, todo, true).await.expect(200);
    owner.get(&format!("{}/{}", owner.todos(), text(&done, "next_id"))).await.expect(200)
}

async fn total(owner: &Actor) -> i64 {
    owner.get(&owner.todos()).await.expect(200)["total"].as_i64().expect("a number")
}

async fn bulk(owner: &Actor, body: Value) -> TestResponse {
    owner.post(&format!("{}/bulk", owner.todos()), body).await
}

async fn restore(owner: &Actor, todo: &Value) -> TestResponse {
    let path = format!("/api/users/{}/trash/{}/restore", owner.id(), text(todo, "id"));
    owner.post(&path, Value::Null).await
}

fn due_date(todo: &Value) -> &str {
    todo["due"]["date"].as_str().unwrap_or_else(|| panic!("no due date: {todo}"))
}

/// The dates of the changes of a user's todos since `cursor`, by kind.
async fn change_kinds(owner: &Actor, cursor: &str) -> Vec<String> {
    let path = format!("/api/users/{}/changes?since={cursor}", owner.id());
    let page = owner.get(&path).await.expect(200);
    let changes = page["changes"].as_array().expect("changes");
    changes.iter().map(|change| text(change, "type").to_owned()).collect()
}

async fn cursor(owner: &Actor) -> String {
    let page = owner.get(&format!("/api/users/{}/changes", owner.id())).await.expect(200);
    text(&page, "next").to_owned()
}

on_every_target! {
    async fn a_rule_is_answered_in_one_spelling_and_a_bad_one_is_a_400(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let rule = "RRULE:byday=th,mo,TH;interval=1;freq=weekly;wkst=MO";
        let todo = recurring(&ann, rule, "2090-01-02").await;
        let expected = json!({"rule": "FREQ=WEEKLY;BYDAY=MO,TH", "from": "due"});
        assert_eq!(todo["recurrence"], expected);
        let mine = path(&ann, &todo);
        for bad in [
            "FREQ=HOURLY", "FREQ=DAILY;COUNT=1001", "FREQ=DAILY;INTERVAL=0", "FREQ=WEEKLY;BYDAY=1MO",
            "FREQ=DAILY;COUNT=1000000000", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
            "FREQ=YEARLY;INTERVAL=11", "FREQ=DAILY;UNTIL=20891231", "every monday", "",
        ] {
            let body = json!({
                "title": "a", "priority": "low", "due": {"date": "2090-01-02"},
                "recurrence": {"rule": bad},
            });
            for response in [
                ann.post(&ann.todos(), body.clone()).await,
                ann.patch(&mine, body.clone()).await,
                ann.put(&mine, body.clone()).await,
                bulk(&ann, json!({"patch": body, "ids": [todo["id"]]})).await,
                bulk(&ann, json!({"create": [body]})).await,
            ] {
                let problem = response.problem(400, "validation_error");
                let pointer = text(&problem["details"][0], "pointer");
                assert!(pointer.ends_with("/recurrence/rule"), "{bad}: {problem}");
            }
        }
        // Of a patch without a due date, the rule has a date after today.
        let bad = json!({"recurrence": {"rule": "FREQ=MONTHLY;BYMONTH=4;BYMONTHDAY=31"}});
        ann.patch(&mine, bad).await.problem(400, "validation_error");
        let partial = bulk(&ann, json!({"partial": true, "create": [
            {"title": "no due", "recurrence": {"rule": "FREQ=DAILY"}},
            {"title": "good"},
        ]})).await.expect(200);
        assert_eq!(partial["results"][0]["status"], 400, "{partial}");
        assert_eq!(partial["results"][0]["details"][0]["pointer"], "/recurrence");
        assert_eq!(partial["results"][1]["status"], 201);
        assert_eq!(ann.get(&mine).await.expect(200), todo);
    }

    async fn the_next_occurrence_is_a_copy_with_the_next_date(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.post(&ann.todos(), json!({
            "title": "Caf\u{e9}", "description": "2 l", "priority": "high", "tags": ["home", "a"],
            "due": {"date": "2090-03-25", "time": "02:30", "time_zone": "Europe/Berlin"},
            "recurrence": {"rule": "FREQ=DAILY"}, "reminders": [{"minutes_before": MINUTES}],
        })).await.expect(201);
        let since = cursor(&ann).await;
        let done = complete(&ann, &todo, true).await.expect(200);
        assert_eq!((&done["completed"], &done["due"]), (&json!(true), &todo["due"]));
        assert_eq!(change_kinds(&ann, &since).await, ["todo", "todo"]);
        let mut read = ann.get(&path(&ann, &todo)).await.expect(200);
        read["next_id"] = done["next_id"].clone();
        assert_eq!(read, done);
        let next = ann.get(&format!("{}/{}", ann.todos(), text(&done, "next_id"))).await.expect(200);
        let at = "2090-03-26T01:30:00Z";
        let due = json!({"date": "2090-03-26", "time": "02:30", "time_zone": "Europe/Berlin", "at": at});
        assert_eq!(next["due"], due, "the clock skips the time");
        for member in ["title", "description", "priority", "tags", "recurrence", "reminders", "list_id"] {
            assert_eq!(next[member], todo[member], "{member}");
        }
        assert_eq!((&next["completed"], &next["completed_at"]), (&json!(false), &Value::Null));
        assert_eq!(next["created_at"], next["updated_at"]);
        assert_eq!(total(&ann).await, 2);
        let bob = app.signed_up().await;
        complete(&bob, &todo, true).await.problem(403, "forbidden");
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        complete(&ann, &next, true).await.problem(401, "unauthorized");
    }

    async fn completing_twice_makes_one(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = recurring(&ann, "FREQ=WEEKLY", "2090-01-02").await;
        let first = complete(&ann, &todo, true).await.expect(200);
        let again = complete(&ann, &todo, true).await.expect(200);
        assert_eq!(again["next_id"], first["next_id"]);
        assert_eq!(again["completed_at"], first["completed_at"]);
        assert!(again["updated_at"].as_str() > first["updated_at"].as_str());
        assert_eq!(total(&ann).await, 2);
        // One that was deleted does not come back by a repetition.
        let next = json!({"id": first["next_id"]});
        ann.delete(&path(&ann, &next)).await.expect(200);
        let again = complete(&ann, &todo, true).await.expect(200);
        assert!(again.get("next_id").is_none(), "{again}");
        assert_eq!(total(&ann).await, 1);
    }

    async fn twenty_at_once_make_one(target) {
        let app = App::start(target).await;
        let replica = app.replica_with(&[]).await;
        let ann = app.signed_up().await;
        let other = replica.anonymous().bearing(ann.token());
        for single in [true, false] {
            let todo = recurring(&ann, "FREQ=DAILY", "2090-01-02").await;
            let before = total(&ann).await;
            let path = format!("{}/complete", path(&ann, &todo));
            let (bulk, many) = (
                format!("{}/bulk", ann.todos()),
                json!({"complete": [todo["id"]], "completed": true}),
            );
            let answers = at_once(20, |number| {
                let (ann, other) = (ann.clone(), other.clone());
                let (path, bulk, many) = (path.clone(), bulk.clone(), many.clone());
                async move {
                    let one = json!({"completed": true});
                    let is_ann = number % 2 == 0;
                    let answer = match (single, is_ann) {
                        (true, true) => ann.patch(&path, one).await,
                        (true, false) => other.patch(&path, one).await,
                        (false, true) => ann.post(&bulk, many).await,
                        (false, false) => other.post(&bulk, many).await,
                    };
                    let answer = answer.expect(200);
                    if single { answer } else { answer["results"][0].clone() }
                }
            })
            .await;
            for answer in &answers {
                assert_eq!(answer["next_id"], answers[0]["next_id"], "{answer}");
            }
            assert!(answers[0]["next_id"].is_string(), "{}", answers[0]);
            assert_eq!(total(&ann).await, before + 1);
        }
    }

    async fn reopening_deletes_a_next_that_nobody_has_touched(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = recurring(&ann, "FREQ=DAILY", "2090-01-02").await;
        let made = next(&ann, &todo).await;
        let since = cursor(&ann).await;
        let open = complete(&ann, &todo, false).await.expect(200);
        assert_eq!((&open["completed"], &open["completed_at"]), (&json!(false), &Value::Null));
        assert!(open.get("next_id").is_none());
        ann.get(&path(&ann, &made)).await.problem(404, "not_found");
        assert_eq!(total(&ann).await, 1);
        let mut kinds = change_kinds(&ann, &since).await;
        kinds.sort_unstable();
        assert_eq!(kinds, ["deleted", "todo"]);
        // Made anew, and kept as soon as it was touched.
        let made = next(&ann, &todo).await;
        assert_eq!(due_date(&made), "2090-01-03");
        ann.patch(&path(&ann, &made), json!({"title": "b"})).await.expect(200);
        complete(&ann, &todo, false).await.expect(200);
        assert_eq!(total(&ann).await, 2);
        let again = complete(&ann, &todo, true).await.expect(200);
        assert_eq!(again["next_id"], made["id"]);
        assert_eq!(total(&ann).await, 2);
        // So is one that was completed.
        let third = next(&ann, &made).await;
        complete(&ann, &todo, false).await.expect(200);
        assert_eq!(total(&ann).await, 3);
        let again = complete(&ann, &todo, true).await.expect(200);
        assert_eq!((&again["next_id"], total(&ann).await), (&made["id"], 3));
        complete(&ann, &made, false).await.expect(200);
        ann.get(&path(&ann, &third)).await.problem(404, "not_found");
    }

    async fn a_series_ends_with_count_and_until(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for (rule, rules) in [
            (
                "FREQ=DAILY;COUNT=3",
                ["FREQ=DAILY;COUNT=3", "FREQ=DAILY;COUNT=2", "FREQ=DAILY;COUNT=1"],
            ),
            ("FREQ=DAILY;UNTIL=20900104", ["FREQ=DAILY;UNTIL=20900104"; 3]),
        ] {
            let mut todo = recurring(&ann, rule, "2090-01-02").await;
            for (index, rule) in rules.into_iter().enumerate() {
                assert_eq!(todo["recurrence"]["rule"], rule);
                assert_eq!(due_date(&todo), format!("2090-01-0{}", index + 2));
                // The rule of the last one is still one that a client may send.
                let body = json!({
                    "title": "x", "priority": "low", "due": todo["due"],
                    "recurrence": todo["recurrence"],
                });
                ann.put(&path(&ann, &todo), body).await.expect(200);
                let done = complete(&ann, &todo, true).await.expect(200);
                match done.get("next_id") {
                    Some(id) => {
                        let path = format!("{}/{}", ann.todos(), id.as_str().expect("an id"));
                        todo = ann.get(&path).await.expect(200);
                    }
                    None => assert_eq!(index, 2),
                }
            }
        }
        assert_eq!(total(&ann).await, 6);
    }

    async fn the_date_of_a_late_todo_or_of_a_completion_is_after_today(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let day = |time: &str| -> chrono::NaiveDate { time[..10].parse().expect("a date") };
        let late = recurring(&ann, "FREQ=DAILY;INTERVAL=3", "2020-01-01").await;
        let done = complete(&ann, &late, true).await.expect(200);
        let next = ann.get(&format!("{}/{}", ann.todos(), text(&done, "next_id"))).await.expect(200);
        let (today, date) = (day(text(&done, "completed_at")), day(due_date(&next)));
        assert!(date > today && (date - today).num_days() <= 3, "{next}");
        let begin: chrono::NaiveDate = "2020-01-01".parse().expect("a date");
        assert_eq!((date - begin).num_days() % 3, 0);
        let body = json!({
            "title": "a", "due": {"date": "2020-01-01"},
            "recurrence": {"rule": "FREQ=DAILY;INTERVAL=3", "from": "completion"},
        });
        let todo = ann.post(&ann.todos(), body).await.expect(201);
        let done = complete(&ann, &todo, true).await.expect(200);
        let next = ann.get(&format!("{}/{}", ann.todos(), text(&done, "next_id"))).await.expect(200);
        assert_eq!((day(due_date(&next)) - day(text(&done, "completed_at"))).num_days(), 3);
        assert_eq!(next["recurrence"], todo["recurrence"]);
    }

    async fn without_room_for_the_next_nothing_changes(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "3")]).await;
        let ann = app.signed_up().await;
        let one = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let two = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let many = json!({"complete": [one["id"], two["id"]], "completed": true});
        let problem = bulk(&ann, many.clone()).await.problem(409, "quota_exceeded");
        assert_eq!(problem["details"][0]["pointer"], "/complete/1", "{problem}");
        assert_eq!(problem["details"].as_array().map(Vec::len), Some(1));
        assert_eq!(ann.get(&path(&ann, &one)).await.expect(200), one);
        let mut partial = many;
        partial["partial"] = json!(true);
        let results = bulk(&ann, partial).await.expect(200);
        assert_eq!(results["results"][0]["status"], 200, "{results}");
        assert!(results["results"][0]["next_id"].is_string());
        assert_eq!(results["results"][1]["code"], "quota_exceeded");
        assert_eq!(ann.get(&path(&ann, &two)).await.expect(200), two);
        let problem = complete(&ann, &two, true).await.problem(409, "quota_exceeded");
        assert_eq!((&problem["limit"], &problem["used"]), (&json!(3), &json!(3)));
        assert_eq!(ann.get(&path(&ann, &two)).await.expect(200), two);
        // A repetition and the end of a series need no room.
        complete(&ann, &one, true).await.expect(200);
        ann.patch(&path(&ann, &two), json!({"recurrence": {"rule": "FREQ=DAILY;COUNT=1"}}))
            .await
            .expect(200);
        let done = complete(&ann, &two, true).await.expect(200);
        assert!(done.get("next_id").is_none());
    }

    async fn a_condition_holds_for_a_recurring_todo(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let mine = path(&ann, &todo);
        let old = ann.get(&mine).await.header("etag").expect("an ETag").to_owned();
        ann.patch(&mine, json!({"title": "b"})).await.expect(200);
        let new = ann.get(&mine).await.header("etag").expect("an ETag").to_owned();
        let conditional = async |etag: &str| {
            let headers = [("content-type", "application/json"), ("if-match", etag)];
            ann.send("PATCH", &format!("{mine}/complete"), &headers, r#"{"completed":true}"#).await
        };
        let refused = conditional(&old).await.problem(412, "precondition_failed");
        assert_eq!(refused["current"]["title"], "b");
        assert_eq!(total(&ann).await, 1);
        let done = conditional(&new).await;
        let etag = done.header("etag").expect("an ETag").to_owned();
        assert!(done.expect(200)["next_id"].is_string());
        conditional(&new).await.problem(412, "precondition_failed");
        assert!(conditional(&etag).await.expect(200)["next_id"].is_string());
        assert_eq!(total(&ann).await, 2);
    }

    async fn a_bulk_completes_as_single_requests_do(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let daily = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let last = recurring(&ann, "FREQ=DAILY;COUNT=1", "2090-01-01").await;
        let plain = ann.todo("plain").await;
        let done = recurring(&ann, "FREQ=WEEKLY", "2090-01-01").await;
        let made = next(&ann, &done).await;
        let ids = json!([daily["id"], last["id"], plain["id"], done["id"]]);
        let body = json!({"complete": ids, "completed": true});
        let key = [("content-type", "application/json"), ("idempotency-key", "k")];
        let keyed = format!("{}/bulk", ann.todos());
        let answer = ann.send("POST", &keyed, &key, body.to_string()).await.expect(200);
        let again = ann.send("POST", &keyed, &key, body.to_string()).await.expect(200);
        assert_eq!(answer, again);
        let results = answer["results"].as_array().expect("results");
        let next_ids: Vec<_> = results.iter().map(|result| result.get("next_id")).collect();
        assert!(next_ids[0].is_some_and(Value::is_string), "{answer}");
        assert_eq!(next_ids[1..], [None, None, Some(&made["id"])]);
        for result in results {
            assert_eq!((&result["status"], &result["todo"]["completed"]), (&json!(200), &json!(true)));
        }
        let following = json!({"id": next_ids[0]});
        let following = ann.get(&path(&ann, &following)).await.expect(200);
        assert_eq!((due_date(&following), total(&ann).await), ("2090-01-02", 6));
        // Reopened: each untouched next is gone.
        ann.patch(&path(&ann, &made), json!({"priority": "low"})).await.expect(200);
        bulk(&ann, json!({"complete": ids, "completed": false})).await.expect(200);
        ann.get(&path(&ann, &following)).await.problem(404, "not_found");
        assert_eq!(ann.get(&path(&ann, &made)).await.expect(200)["priority"], "low");
        assert_eq!(total(&ann).await, 5);
        let missing = json!([daily["id"], "00000000-0000-7000-8000-000000000000"]);
        let body = json!({"complete": missing, "completed": true});
        bulk(&ann, body).await.problem(404, "not_found");
        assert_eq!(total(&ann).await, 5);
    }

    async fn five_hundred_are_completed_at_once(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let new: Vec<_> = (0..500)
            .map(|number| json!({
                "title": format!("todo {number}"), "recurrence": {"rule": "FREQ=MONTHLY;BYDAY=-1FR"},
                "due": {"date": "2090-01-01", "time": "09:00", "time_zone": "America/New_York"},
            }))
            .collect();
        let made = bulk(&ann, json!({"create": new})).await.expect(200);
        let ids: Vec<_> = made["results"].as_array().expect("results").iter()
            .map(|result| result["todo"]["id"].clone())
            .collect();
        let done = bulk(&ann, json!({"complete": ids, "completed": true})).await.expect(200);
        let results = done["results"].as_array().expect("results");
        let next: std::collections::HashSet<_> =
            results.iter().filter_map(|result| result["next_id"].as_str()).collect();
        assert_eq!(next.len(), 500);
        let pending = ann.get(&format!("{}?status=pending&limit=500", ann.todos())).await.expect(200);
        assert_eq!(pending["total"], 500);
        for todo in pending["todos"].as_array().expect("todos") {
            assert_eq!(due_date(todo), "2090-01-27");
            assert!(next.contains(text(todo, "id")));
        }
    }

    async fn a_restored_occurrence_stands_beside_the_one_that_took_its_day(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let mut twins = Vec::new();
        for _ in 0..3 {
            let twin = next(&ann, &todo).await;
            ann.patch(&path(&ann, &twin), json!({"title": "touched"})).await.expect(200);
            ann.delete(&path(&ann, &twin)).await.expect(200);
            complete(&ann, &todo, false).await.expect(200);
            twins.push(twin);
        }
        let third = next(&ann, &todo).await;
        let restored = restore(&ann, &twins[0]).await.expect(200);
        assert_eq!(restored["due"], third["due"]);
        assert_eq!(restored["recurrence"], todo["recurrence"]);
        let ids = json!([twins[1]["id"], twins[2]["id"]]);
        bulk(&ann, json!({"restore": ids})).await.expect(200);
        assert_eq!(total(&ann).await, 5);
        // All four of the day make one of the day after it.
        let next_id = next(&ann, &third).await["id"].clone();
        let done = complete(&ann, &restored, true).await.expect(200);
        assert_eq!(done["next_id"], next_id);
        let done = bulk(&ann, json!({"complete": ids, "completed": true})).await.expect(200);
        for result in done["results"].as_array().expect("results") {
            assert_eq!(result["next_id"], next_id, "{result}");
        }
        assert_eq!(total(&ann).await, 6);
        // Two of a day that is free are restored together.
        for id in [&third["id"], &twins[1]["id"], &twins[0]["id"], &twins[2]["id"]] {
            ann.delete(&path(&ann, &json!({"id": id}))).await.expect(200);
        }
        let ids = json!([third["id"], twins[1]["id"], twins[0]["id"]]);
        bulk(&ann, json!({"restore": ids})).await.expect(200);
        assert_eq!(total(&ann).await, 5);
    }

    async fn occurrences_move_onto_each_others_days(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let second = next(&ann, &todo).await;
        let third = next(&ann, &second).await;
        let moved = json!({"due": {"date": "2090-01-03"}});
        let moved_to = ann.patch(&path(&ann, &second), moved.clone()).await.expect(200);
        assert_eq!(moved_to["due"], third["due"]);
        let all = json!([todo["id"], second["id"], third["id"]]);
        bulk(&ann, json!({"patch": moved, "ids": all})).await.expect(200);
        let rule = json!({"recurrence": {"rule": "FREQ=WEEKLY"}});
        bulk(&ann, json!({"patch": rule, "ids": all})).await.expect(200);
        let fourth = next(&ann, &third).await;
        assert_eq!(due_date(&fourth), "2090-01-10");
        // It begins a series anew that another todo has a day of.
        let none = json!({"recurrence": null});
        ann.patch(&path(&ann, &todo), none).await.expect(200);
        ann.patch(&path(&ann, &fourth), json!({"due": {"date": "2090-01-03"}})).await.expect(200);
        let again = ann.patch(&path(&ann, &todo), rule).await.expect(200);
        assert_eq!(again["recurrence"]["rule"], "FREQ=WEEKLY");
        assert_eq!(total(&ann).await, 4);
    }

    /// A todo that does not recur any more has no next one.
    async fn a_cleared_recurrence_ends_the_series(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = recurring(&ann, "FREQ=DAILY", "2090-01-01").await;
        let made = next(&ann, &todo).await;
        ann.patch(&path(&ann, &made), json!({"recurrence": null})).await.expect(200);
        let done = complete(&ann, &made, true).await.expect(200);
        assert!(done.get("next_id").is_none(), "{done}");
        complete(&ann, &made, false).await.expect(200);
        assert_eq!(total(&ann).await, 2);
    }

    async fn today_is_a_day_of_the_users_time_zone(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let recurrence = json!({"rule": "FREQ=DAILY", "from": "completion"});
        let body = json!({"title": "a", "due": {"date": "2020-01-01"}, "recurrence": recurrence});
        // 26 hours apart: at any time the two have different days.
        let mut dates = Vec::new();
        for zone in ["Etc/GMT+12", "Etc/GMT-14"] {
            ann.patch("/api/auth/me", json!({"time_zone": zone})).await.expect(200);
            let todo = ann.post(&ann.todos(), body.clone()).await.expect(201);
            let made = next(&ann, &todo).await;
            dates.push(due_date(&made).to_owned());
        }
        assert!(dates[0] < dates[1], "{dates:?}");
    }
}
