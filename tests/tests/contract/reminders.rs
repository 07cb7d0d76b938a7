//! The reminders of todos: which a todo has, when they fire, and their quota.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use todo_tests::{
    Actor, App, Database, EventStream, Target, TestResponse, count_rows, eventually, execute_sql,
    on_every_target,
};

use crate::text;

const OPEN: &str = "SELECT count(*) FROM reminders WHERE fired_at IS NULL";

fn path(owner: &Actor, todo: &Value) -> String {
    format!("{}/{}", owner.todos(), text(todo, "id"))
}

fn before(minutes: &[i64]) -> Value {
    minutes.iter().map(|minutes| json!({ "minutes_before": minutes })).collect()
}

/// A body of a todo that is due in the far future.
fn body(minutes: &[i64]) -> Value {
    let due = json!({"date": "2090-01-02", "time": "09:30", "time_zone": "UTC"});
    json!({"title": "Call", "priority": "low", "due": due, "reminders": before(minutes)})
}

async fn create(owner: &Actor, minutes: &[i64]) -> Value {
    owner.post(&owner.todos(), body(minutes)).await.expect(201)
}

async fn complete(owner: &Actor, todo: &Value, completed: bool) -> TestResponse {
    let path = format!("{}/complete", path(owner, todo));
    owner.patch(&path, json!({"completed": completed})).await
}

async fn restore(owner: &Actor, todo: &Value) -> TestResponse {
    let path = format!("/api/users/{}/trash/{}/restore", owner.id(), text(todo, "id"));
    owner.post(&path, Value::Null).await
}

async fn bulk(owner: &Actor, body: Value) -> TestResponse {
    owner.post(&format!("{}/bulk", owner.todos()), body).await
}

/// Moves the time of the reminders with these minutes to `seconds` ago.
pub(super) async fn make_due(app: &App, target: Target, minutes: i64, seconds: i64) {
    let time = match target.database {
        Database::Sqlite => {
            format!("CAST((unixepoch('now', 'subsec') - {seconds}) * 1000000 AS INTEGER)")
        }
        Database::Postgres => format!("now() - {seconds} * interval '1 second'"),
    };
    let sql = format!("UPDATE reminders SET fire_at = {time} WHERE minutes_before = {minutes}");
    execute_sql(app.database_url(), &sql).await;
}

on_every_target! {
    async fn a_due_reminder_is_an_event_and_a_change_once(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let changes = |user: &Actor| format!("/api/users/{}/changes", user.id());
        let start = ann.get(&changes(&ann)).await.expect(200);
        let bobs_start = bob.get(&changes(&bob)).await.expect(200);
        let todo = create(&ann, &[0, 60, 120]).await;
        let mut stream = EventStream::open(&ann, "", &[]).await;
        stream.next().await;
        make_due(&app, target, 60, 0).await;
        make_due(&app, target, 120, 3600).await;
        let mut found = Vec::new();
        for _ in 0..2 {
            let event = stream.next().await;
            assert_eq!(event.event.as_deref(), Some("reminder"), "{event:?}");
            found.push(event.data.expect("data"));
        }
        found.sort_by_key(|event| event["reminder"]["minutes_before"].as_i64());
        for (event, minutes, is_late) in [(&found[0], 60, false), (&found[1], 120, true)] {
            assert_eq!(event["type"], "reminder");
            let reminder = &event["reminder"];
            let members: Vec<_> = reminder.as_object().expect("members").keys().collect();
            assert_eq!(members, ["at", "fired_at", "id", "late", "minutes_before", "todo_id"]);
            assert_eq!(reminder["todo_id"], todo["id"]);
            let expected = (&json!(minutes), &json!(is_late));
            assert_eq!((&reminder["minutes_before"], &reminder["late"]), expected);
            assert!(reminder["at"].as_str() <= reminder["fired_at"].as_str(), "{reminder}");
        }
        // They do not fire again by a write of the same values.
        ann.patch(&path(&ann, &todo), json!({"reminders": before(&[120, 60, 0])})).await.expect(200);
        complete(&ann, &todo, true).await.expect(200);
        complete(&ann, &todo, false).await.expect(200);
        assert_eq!(count_rows(app.database_url(), OPEN).await, 1);
        let since = format!("{}?since={}", changes(&ann), text(&start, "next"));
        let page = ann.get(&since).await.expect(200);
        let listed = page["changes"].as_array().expect("changes").iter();
        let mut listed: Vec<_> = listed.filter(|change| change["type"] == "reminder").collect();
        listed.sort_by_key(|change| change["reminder"]["minutes_before"].as_i64());
        assert_eq!(listed, found.iter().collect::<Vec<_>>());
        let ids: BTreeSet<_> = listed.iter().map(|change| text(&change["reminder"], "id")).collect();
        assert_eq!(ids.len(), 2);
        let since = format!("{}?since={}", changes(&bob), text(&bobs_start, "next"));
        assert_eq!(bob.get(&since).await.expect(200)["changes"], json!([]));
    }

    async fn a_todo_has_the_reminders_that_are_to_come(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let open = async |expected: i64, what: &str| {
            assert_eq!(count_rows(app.database_url(), OPEN).await, expected, "{what}");
        };
        let todo = create(&ann, &[40_320, 0, 60, 60]).await;
        assert_eq!(todo["reminders"], before(&[0, 60, 40_320]));
        open(3, "created").await;
        complete(&ann, &todo, true).await.expect(200);
        open(0, "completed").await;
        complete(&ann, &todo, false).await.expect(200);
        open(3, "reopened").await;
        let mine = path(&ann, &todo);
        ann.delete(&mine).await.expect(200);
        open(0, "deleted").await;
        restore(&ann, &todo).await.expect(200);
        open(3, "restored").await;
        ann.put(&mine, json!({"title": "b", "priority": "low"})).await.expect(200);
        open(3, "replaced without them").await;
        ann.patch(&mine, json!({"reminders": before(&[5])})).await.expect(200);
        open(1, "patched").await;
        let moved = json!({"due": {"date": "2090-01-03"}});
        ann.patch(&mine, moved).await.expect(200);
        open(1, "moved").await;
        // A time that is past does not fire.
        ann.patch(&mine, json!({"due": body(&[])["due"], "reminders": before(&[0])})).await.expect(200);
        let past = json!({"due": {"date": "2020-01-02", "time": "09:30", "time_zone": "UTC"}});
        ann.patch(&mine, past).await.expect(200);
        open(0, "past").await;
        ann.put(&mine, body(&[1, 2, 3, 4, 5])).await.expect(200);
        open(5, "replaced").await;
        let mut cleared = body(&[]);
        cleared["reminders"] = Value::Null;
        assert_eq!(ann.put(&mine, cleared).await.expect(200)["reminders"], json!([]));
        open(0, "cleared").await;
        ann.patch(&mine, json!({"reminders": before(&[1])})).await.expect(200);
        ann.patch(&mine, json!({"reminders": null, "due": null})).await.expect(200);
        open(0, "without a date").await;

        let mut repeated = body(&[0, 60]);
        repeated["recurrence"] = json!({"rule": "FREQ=DAILY"});
        let first = ann.post(&ann.todos(), repeated).await.expect(201);
        let done = complete(&ann, &first, true).await.expect(200);
        open(2, "those of the next occurrence").await;
        let next = ann.get(&format!("{}/{}", ann.todos(), text(&done, "next_id"))).await.expect(200);
        assert_eq!(next["reminders"], before(&[0, 60]));
        complete(&ann, &first, false).await.expect(200);
        open(2, "those of the first one again").await;
        ann.get(&path(&ann, &next)).await.problem(404, "not_found");
    }

    async fn each_bad_reminder_is_named(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = create(&ann, &[0]).await;
        let mine = path(&ann, &todo);
        let named = |minutes: &[i64], fields: &[&str]| (before(minutes), fields.join(" "));
        for (reminders, fields) in [
            named(&[-1, 0, 40_321], &["reminders/0/minutes_before", "reminders/2/minutes_before"]),
            named(&[1, 2, 3, 4, 5, 6], &["reminders"]),
            named(&[1, 2, 3, 4, 5, 6, -1], &["reminders/6/minutes_before", "reminders"]),
            named(&[i64::MIN, i64::MAX], &["reminders/0/minutes_before", "reminders/1/minutes_before"]),
        ] {
            let mut body = body(&[]);
            body["reminders"] = reminders.clone();
            for response in [
                ann.post(&ann.todos(), body.clone()).await,
                ann.put(&mine, body).await,
                ann.patch(&mine, json!({"reminders": reminders})).await,
            ] {
                assert_eq!(response.status, 400, "{response}");
                assert_eq!(response.fields().join(" "), fields, "{response}");
            }
        }
        for shape in [
            json!([{"minutes_before": 1.5}]),
            json!([{"minutes_before": "5"}]),
            json!([{"minutes_before": null}]),
            json!([{}]),
            json!([null]),
            json!({"minutes_before": 5}),
        ] {
            let refused = ann.patch(&mine, json!({"reminders": shape})).await;
            assert_eq!(refused.status, 422, "{refused}");
        }
        // Neither without a date, nor of a date that is cleared.
        let undated = json!({"title": "a", "reminders": before(&[1])});
        assert_eq!(ann.post(&ann.todos(), undated).await.fields(), ["reminders"]);
        let cleared = ann.patch(&mine, json!({"due": null})).await;
        assert_eq!((cleared.status, cleared.fields()), (400, vec!["reminders".to_owned()]));
        assert_eq!(ann.get(&mine).await.expect(200), todo);
    }

    async fn no_change_exceeds_the_quota(target) {
        let app = App::start_with(target, &[("MAX_REMINDERS_PER_USER", "5")]).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let full = |response: TestResponse| {
            let problem = response.problem(409, "quota_exceeded");
            assert_eq!(problem["limit"], 5, "{problem}");
            assert!(problem["used"].as_i64() <= Some(5), "{problem}");
        };
        let done = create(&ann, &[0, 1]).await;
        complete(&ann, &done, true).await.expect(200);
        let gone = create(&ann, &[0, 1]).await;
        ann.delete(&path(&ann, &gone)).await.expect(200);
        let mut repeated = body(&[0, 1]);
        repeated["recurrence"] = json!({"rule": "FREQ=DAILY"});
        let repeated = ann.post(&ann.todos(), repeated).await.expect(201);
        make_due(&app, target, 0, 0).await;
        make_due(&app, target, 1, 0).await;
        let fired = async || count_rows(app.database_url(), OPEN).await == 0;
        assert!(eventually(Duration::from_secs(30), fired).await);
        let open = create(&ann, &[2, 3, 4, 5]).await;
        let plain = create(&ann, &[]).await;

        let (todos, two) = (ann.todos(), json!({"reminders": before(&[0, 1])}));
        full(ann.post(&todos, body(&[0, 1])).await);
        full(ann.patch(&path(&ann, &plain), two.clone()).await);
        full(ann.put(&path(&ann, &plain), body(&[0, 1])).await);
        full(complete(&ann, &done, false).await);
        full(restore(&ann, &gone).await);
        full(complete(&ann, &repeated, true).await);
        full(bulk(&ann, json!({"create": [body(&[0, 1])]})).await);
        full(bulk(&ann, json!({"patch": two, "ids": [plain["id"]]})).await);
        full(bulk(&ann, json!({"complete": [done["id"]], "completed": false})).await);
        full(bulk(&ann, json!({"complete": [repeated["id"]], "completed": true})).await);
        full(bulk(&ann, json!({"restore": [gone["id"]]})).await);
        let import = format!("/api/users/{}/import?format=json", ann.id());
        let mut row = body(&[0, 1]);
        row["completed"] = json!(false);
        full(ann.post(&import, json!({"lists": [], "todos": [row]})).await);
        let partly = json!({"partial": true, "completed": false, "complete": [plain["id"], done["id"]]});
        let partly = bulk(&ann, partly).await.expect(200);
        let statuses: Vec<_> = (0..2).map(|i| &partly["results"][i]["status"]).collect();
        assert_eq!(statuses, [200, 409]);
        assert_eq!(partly["results"][1]["of"], "reminders");
        assert_eq!(count_rows(app.database_url(), OPEN).await, 4);
        create(&bob, &[0, 1, 2, 3, 4]).await;
        ann.patch(&path(&ann, &open), json!({"reminders": before(&[7])})).await.expect(200);
        complete(&ann, &done, false).await.expect(200);
        restore(&ann, &gone).await.expect(200);
        full(complete(&ann, &repeated, true).await);
        assert_eq!(count_rows(app.database_url(), OPEN).await, 10);
    }
}
