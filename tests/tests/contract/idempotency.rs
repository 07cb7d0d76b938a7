//! Creations with an `Idempotency-Key`: a repetition gets the first answer.

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, at_once, on_every_target};

use crate::text;

const REPLAYED: &str = "idempotency-replayed";

async fn create(actor: &Actor, key: &str, body: &str) -> TestResponse {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    actor.send("POST", &actor.todos(), &headers, body).await
}

async fn total(actor: &Actor) -> Value {
    actor.get(&actor.todos()).await.expect(200)["total"].clone()
}

on_every_target! {
    async fn a_repetition_gets_the_first_answer(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let body = r#"{"title": " caf\u00e9 \u0001", "description": "2 l", "priority": "high"}"#;
        let first = create(&ann, "key-1", body).await;
        assert_eq!(first.header(REPLAYED), None);
        let todo = first.json();
        let path = format!("{}/{}", ann.todos(), text(&todo, "id"));
        assert_eq!(ann.get(&path).await.expect(200), todo);
        // Also after a change, in quotes, and once the todo is deleted.
        for (change, key) in [("PATCH", "key-1"), ("PATCH", "\"key-1\""), ("DELETE", "key-1")] {
            let json = [("content-type", "application/json")];
            ann.send(change, &path, &json, r#"{"title": "x"}"#).await.expect(200);
            let again = create(&ann, key, body).await;
            assert_eq!(again.status, 201);
            assert_eq!(again.header(REPLAYED), Some("true"));
            assert_eq!(again.body, first.body);
            for name in ["location", "etag", "content-type", "cache-control"] {
                assert_eq!(again.header(name), first.header(name), "{name}");
            }
        }
        assert_eq!(total(&ann).await, 0);
        create(&ann, "key-2", body).await.expect(201);
        ann.post(&ann.todos(), json!({"title": "no key"})).await.expect(201);
        assert_eq!(total(&ann).await, 2);
    }

    async fn a_key_belongs_to_one_request_of_one_user(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let first = create(&ann, "key", r#"{"title": "milk"}"#).await.expect(201);
        for other in [
            r#"{"title": "oat milk"}"#,
            r#"{"title": "milk", "description": ""}"#,
            r#"{"title": "milk", "priority": "high"}"#,
        ] {
            let refused = create(&ann, "key", other).await;
            assert_eq!(refused.header(REPLAYED), None);
            refused.problem(422, "idempotency_mismatch");
        }
        let same = create(&ann, "key", r#"{ "priority": "medium", "title": " milk " }"#).await;
        assert_eq!(same.header(REPLAYED), Some("true"), "the same creation");
        assert_eq!(same.expect(201), first);
        let theirs = create(&bob, "key", r#"{"title": "milk"}"#).await;
        assert_eq!(theirs.header(REPLAYED), None);
        assert_ne!(theirs.expect(201)["id"], first["id"]);
        assert_eq!((total(&ann).await, total(&bob).await), (json!(1), json!(1)));
    }

    async fn a_failed_request_stores_nothing(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "1")]).await;
        let ann = app.signed_up().await;
        create(&ann, "key", r#"{"title": ""}"#).await.problem(400, "validation_error");
        create(&ann, "key", r#"{"title": 1}"#).await.problem(422, "malformed_body");
        let first = create(&ann, "other", r#"{"title": "milk"}"#).await.expect(201);
        create(&ann, "key", r#"{"title": "beer"}"#).await.problem(409, "quota_exceeded");
        // A repetition comes before the quota.
        let again = create(&ann, "other", r#"{"title": "milk"}"#).await;
        assert_eq!(again.header(REPLAYED), Some("true"));
        assert_eq!(again.expect(201), first);
        create(&ann, "other", r#"{"title": "beer"}"#).await.problem(422, "idempotency_mismatch");
        ann.delete(&format!("{}/{}", ann.todos(), text(&first, "id"))).await.expect(200);
        let created = create(&ann, "key", r#"{"title": "beer"}"#).await;
        assert_eq!(created.header(REPLAYED), None);
        created.expect(201);
        let long = "k".repeat(256);
        for key in ["", " ", "a b", "\u{e9}", &long] {
            create(&ann, key, r#"{"title": "x"}"#).await.problem(400, "bad_request");
        }
        let longest = create(&ann, &long[1..], r#"{"title": "x"}"#).await;
        longest.problem(409, "quota_exceeded");
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        create(&ann, "other", r#"{"title": "milk"}"#).await.problem(401, "unauthorized");
    }

    async fn of_forty_requests_with_one_key_one_creates(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let ann = app.signed_up().await;
        let other = replica.anonymous().bearing(ann.token());
        for round in 0..5 {
            let answers = at_once(40, |i| {
                let (ann, other) = (ann.clone(), other.clone());
                async move {
                    let key = format!("round {round}").replace(' ', "-");
                    let headers =
                        [("content-type", "application/json"), ("idempotency-key", key.as_str())];
                    let client = if i % 2 == 0 { &*ann } else { &other };
                    client.send("POST", &ann.todos(), &headers, r#"{"title": "once"}"#).await
                }
            })
            .await;
            let replayed = answers.iter().filter(|answer| answer.header(REPLAYED).is_some());
            assert_eq!(replayed.count(), 39, "round {round}");
            for answer in &answers {
                assert_eq!((answer.status, &answer.body), (201, &answers[0].body), "{answer}");
            }
            assert_eq!(total(&ann).await, round + 1);
        }
    }
}
