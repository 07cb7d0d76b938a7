//! Conditional requests: the `ETag` of a todo, `If-Match` of its changes, `If-None-Match` of its
//! reads.

use serde_json::{Value, json};
use todo_tests::{Actor, App, Client, Target, TestResponse, at_once, on_every_target};

use crate::text;

const JSON: (&str, &str) = ("content-type", "application/json");

/// The path of a todo.
fn path(owner: &Actor, todo: &Value) -> String {
    format!("{}/{}", owner.todos(), text(todo, "id"))
}

fn etag(response: &TestResponse) -> String {
    response.header("etag").expect("an ETag").to_owned()
}

async fn send_if(
    client: &Client,
    method: &str,
    path: &str,
    if_match: &str,
    body: &Value,
) -> TestResponse {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    client.send(method, path, &[JSON, ("if-match", if_match)], body).await
}

/// Every change of a todo, by method, the end of the path, and body.
fn changes() -> [(&'static str, &'static str, Value); 4] {
    [
        ("PUT", "", json!({"title": "taken", "priority": "low"})),
        ("PATCH", "", json!({"title": "taken"})),
        ("PATCH", "/complete", json!({"completed": true})),
        ("DELETE", "", Value::Null),
    ]
}

on_every_target! {
    async fn every_response_that_is_a_todo_has_its_etag(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let created = ann.post(&ann.todos(), json!({"title": "milk"})).await;
        let mut tags = vec![etag(&created)];
        let milk = created.expect(201);
        let path = path(&ann, &milk);
        for (method, end, body) in &changes()[..3] {
            let changed = ann.send(method, &format!("{path}{end}"), &[JSON], body.to_string()).await;
            let tag = etag(&changed);
            assert!(!tags.contains(&tag), "{method}{end}: {tag} again");
            for read in ["GET", "HEAD"] {
                assert_eq!(etag(&ann.send(read, &path, &[], "").await), tag, "{read}");
            }
            tags.push(tag);
            changed.expect(200);
        }
        let empty = ann.patch(&path, json!({})).await;
        assert_eq!(etag(&empty), tags[3], "an empty patch changes nothing");
        for tag in &tags {
            assert!(tag.starts_with("\"2-") && tag.ends_with('"'), "{tag}");
        }
        let list = etag(&ann.get(&ann.todos()).await);
        assert!(list.starts_with("W/"), "{list} is not that of a todo");
        assert_eq!(ann.get("/api/auth/me").await.header("etag"), None, "a user");
    }

    async fn a_change_of_another_version_is_a_412_with_the_current_todo(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let created = ann.post(&ann.todos(), json!({"title": "milk", "description": "2 l"})).await;
        let old = etag(&created);
        let path = path(&ann, &created.expect(201));
        let current = ann.patch(&path, json!({"title": "oat milk"})).await;
        let (tag, current) = (etag(&current), current.expect(200));
        for (method, end, body) in changes() {
            let path = format!("{path}{end}");
            for if_match in [old.as_str(), "\"\"", "\"2-AAZg7jzg-EA\"", "\"x\", W/\"y\"", "\"\u{e9}\""] {
                let failed = send_if(&ann, method, &path, if_match, &body).await;
                assert_eq!(etag(&failed), tag, "{method}{end} {if_match}");
                let problem = failed.problem(412, "precondition_failed");
                assert_eq!(problem["current"], current, "{method}{end} {if_match}");
                assert_eq!(problem["detail"], "This todo has been changed meanwhile.");
            }
        }
        let empty = send_if(&ann, "PATCH", &path, &old, &json!({})).await;
        assert_eq!(empty.problem(412, "precondition_failed")["current"], current, "an empty patch");
        assert_eq!(ann.get(&path).await.expect(200), current, "nothing was changed");
    }

    async fn a_change_of_the_current_version_takes_effect(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for form in ["{}", "W/{}", "\"a\", {} ,\"b\",W/\"c\"", "*", " , {}"] {
            let created = ann.post(&ann.todos(), json!({"title": "milk"})).await;
            let mut tag = etag(&created);
            let path = path(&ann, &created.expect(201));
            for (method, end, body) in changes() {
                let path = format!("{path}{end}");
                let if_match = form.replace("{}", &tag);
                let changed = send_if(&ann, method, &path, &if_match, &body).await;
                if method != "DELETE" {
                    tag = etag(&changed);
                }
                changed.expect(200);
            }
            ann.get(&path).await.problem(404, "not_found");
        }
    }

    async fn the_resource_is_checked_before_the_condition_and_values_before_both(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let theirs = path(&ann, &bob.todo("theirs").await);
        let nobody = format!("{}/00000000-0000-7000-8000-000000000000", ann.todos());
        let mine = path(&ann, &ann.todo("mine").await);
        let other = "\"2-AAZg7jzg-EA\"";
        for (method, end, body) in changes() {
            let [theirs, nobody, mine] =
                [&theirs, &nobody, &mine].map(|path| format!("{path}{end}"));
            send_if(&ann, method, &theirs, other, &body).await.problem(403, "forbidden");
            send_if(&ann, method, &nobody, other, &body).await.problem(404, "not_found");
            for bad in ["", "x", "\"a", "\"a\" \"b\"", "*, \"a\"", "\"a\",\"b\",\"c\",\"d\",\"e\""] {
                let failed = send_if(&ann, method, &mine, bad, &body).await;
                assert_eq!(failed.problem(400, "bad_request").get("current"), None, "{bad}");
            }
            if method == "PATCH" {
                let blank = json!({"title": "", "completed": "x"});
                let failed = send_if(&ann, method, &mine, other, &blank).await;
                assert!(matches!(failed.status, 400 | 422), "{}", failed.status);
            }
        }
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        for (method, end, body) in changes() {
            let path = format!("{mine}{end}");
            send_if(&ann, method, &path, other, &body).await.problem(401, "unauthorized");
        }
    }

    async fn a_known_version_is_not_sent_again(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let created = ann.post(&ann.todos(), json!({"title": "milk"})).await;
        let old = etag(&created);
        let path = path(&ann, &created.expect(201));
        let current = ann.patch(&path, json!({"title": "oat milk"})).await;
        let tag = etag(&current);
        let known = [tag.clone(), format!("W/{tag}"), "*".into(), format!("{old}, {tag}")];
        for (method, if_none_match) in
            known.iter().flat_map(|value| ["GET", "HEAD"].map(|method| (method, value)))
        {
            let headers = [("if-none-match", if_none_match.as_str())];
            let response = ann.send(method, &path, &headers, "").await;
            assert_eq!((response.status, &*response.body), (304, &b""[..]), "{if_none_match}");
            assert_eq!(etag(&response), tag, "{if_none_match}");
            assert_eq!(response.header("content-type"), None, "{if_none_match}");
        }
        for if_none_match in [old.as_str(), "\"x\"", "x", ""] {
            let response = ann.send("GET", &path, &[("if-none-match", if_none_match)], "").await;
            assert_eq!(etag(&response), tag);
            assert_eq!(response.expect(200)["title"], "oat milk", "{if_none_match}");
        }
        let nobody = format!("{}/00000000-0000-7000-8000-000000000000", ann.todos());
        ann.send("GET", &nobody, &[("if-none-match", "*")], "").await.problem(404, "not_found");
    }

    async fn of_sixteen_changes_of_one_version_one_takes_effect(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for round in 0..5 {
            let created = ann.post(&ann.todos(), json!({"title": "milk"})).await;
            let tag = etag(&created);
            let path = path(&ann, &created.expect(201));
            let statuses = at_once(16, |i| {
                let (ann, path, tag) = (ann.clone(), path.clone(), tag.clone());
                async move {
                    let body = json!({"title": format!("milk {i}")});
                    send_if(&ann, "PATCH", &path, &tag, &body).await.status
                }
            })
            .await;
            let count = |status| statuses.iter().filter(|given| **given == status).count();
            assert_eq!((count(200), count(412)), (1, 15), "round {round}: {statuses:?}");
        }
    }

    async fn no_increment_is_lost(target) {
        assert_no_increment_is_lost(target, 200).await;
    }

    // 10,000 on the four targets together; with TODO_INCREMENTS, so many on each.
    #[ignore = "slow: run by .ci/run"]
    async fn none_of_ten_thousand_increments_is_lost(target) {
        let rounds = std::env::var("TODO_INCREMENTS");
        let rounds = rounds.map_or(2_500, |number| number.parse().expect("a number"));
        assert_no_increment_is_lost(target, rounds).await;
    }
}

/// A number, and a text of 4 KB: todo-server would compress it.
fn numbered(number: usize) -> String {
    format!("{number} {}", "\u{1f600}".repeat(980))
}

fn number(todo: &Value) -> usize {
    let first = text(todo, "description").split(' ').next().unwrap_or_default();
    first.parse().expect("a number")
}

/// Adds one to the number in the todo, `rounds` times: reads it and writes it back, until its
/// version is accepted. Returns how often it was not.
async fn increment(owner: Actor, path: String, rounds: usize) -> usize {
    let compressed = ("accept-encoding", "gzip, br, zstd");
    let mut conflicts = 0;
    let mut done = 0;
    while done < rounds {
        let read = owner.send("GET", &path, &[compressed], "").await;
        let tag = etag(&read);
        let next = number(&read.expect(200)) + 1;
        let body = json!({"description": numbered(next)}).to_string();
        let headers = [JSON, compressed, ("if-match", tag.as_str())];
        match owner.send("PATCH", &path, &headers, body).await.status {
            200 => done += 1,
            412 => conflicts += 1,
            status => panic!("{status}"),
        }
    }
    conflicts
}

async fn assert_no_increment_is_lost(target: Target, rounds: usize) {
    const CLIENTS: usize = 8;
    let app = App::start(target).await;
    let ann = app.signed_up().await;
    let body = json!({"title": "counter", "description": numbered(0)});
    let path = path(&ann, &ann.post(&ann.todos(), body).await.expect(201));
    let each = rounds.div_ceil(CLIENTS);
    let conflicts = at_once(CLIENTS, |_| increment(ann.clone(), path.clone(), each)).await;
    assert_eq!(number(&ann.get(&path).await.expect(200)), each * CLIENTS);
    assert!(conflicts.iter().sum::<usize>() > 0, "the clients must have met");
}
