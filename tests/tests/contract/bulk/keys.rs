//! Bulks and restorations with an `Idempotency-Key`: a repetition gets the first answer.

use serde_json::{Value, json};
use todo_tests::{Actor, App, Database, TestResponse, at_once, execute_sql, on_every_target};

use super::{NOBODY, bulk, changes, created, ids, position, without_times};
use crate::text;

const REPLAYED: &str = "idempotency-replayed";

async fn keyed(actor: &Actor, key: &str, body: &Value) -> TestResponse {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let path = format!("{}/bulk", actor.todos());
    actor.send("POST", &path, &headers, body.to_string()).await
}

async fn restore(actor: &Actor, key: &str, id: &str) -> TestResponse {
    let path = format!("/api/users/{}/trash/{id}/restore", actor.id());
    actor.send("POST", &path, &[("idempotency-key", key)], "").await
}

on_every_target! {
    async fn a_repeated_bulk_gets_the_first_answer(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let made = created(&ann, &["a", "b", "c"]).await;
        let items = ids(&made);
        let create = json!({"create": [{"title": "d"}, {"title": ""}], "partial": true});
        for (key, body) in [
            ("create", create.clone()),
            ("complete", json!({"complete": items, "completed": true})),
            ("patch", json!({"patch": {"title": "x"}, "ids": items})),
            ("delete", json!({"delete": items})),
            ("restore", json!({"restore": items})),
            ("some", json!({"delete": [NOBODY, items[0]], "partial": true})),
        ] {
            let first = keyed(&ann, key, &body).await;
            assert_eq!(first.header(REPLAYED), None, "{key}");
            assert_eq!(first.status, 200, "{first}");
            let before = position(&ann).await;
            for _ in 0..2 {
                let again = keyed(&ann, key, &body).await;
                assert_eq!((again.status, again.header(REPLAYED)), (200, Some("true")), "{again}");
                assert_eq!(again.body, first.body, "{key}");
                assert_eq!(again.header("content-type"), first.header("content-type"));
            }
            assert_eq!(position(&ann).await, before, "{key}: a repetition changes nothing");
        }
        let other = json!({"create": [{"title": "d"}, {"title": "e"}], "partial": true});
        keyed(&ann, "create", &other).await.problem(422, "idempotency_mismatch");
        let mut all = create.clone();
        all["partial"] = json!(false);
        all["create"][1] = json!({"title": "e"});
        keyed(&ann, "create", &all).await.problem(422, "idempotency_mismatch");
        // The items come before the key, and the key before the quota.
        let missing = json!({"delete": [NOBODY]});
        keyed(&ann, "create", &missing).await.problem(404, "not_found");
        let theirs = keyed(&bob, "create", &create).await;
        assert_eq!((theirs.status, theirs.header(REPLAYED)), (200, None), "keys are a user's own");
        // Another kind of request with the same key.
        let headers = [("content-type", "application/json"), ("idempotency-key", "create")];
        let single = ann.send("POST", &ann.todos(), &headers, r#"{"title": "d"}"#).await;
        single.problem(422, "idempotency_mismatch");
        // A failure stores nothing.
        keyed(&ann, "fails", &missing).await.problem(404, "not_found");
        let done = keyed(&ann, "fails", &json!({"create": [{"title": "f"}]})).await;
        assert_eq!((done.status, done.header(REPLAYED)), (200, None));
        keyed(&ann, "a b", &missing).await.problem(400, "bad_request");
    }

    async fn a_repeated_restoration_gets_the_first_answer(target) {
        let app = App::start_with(target, &[("MAX_TODOS_PER_USER", "2")]).await;
        let ann = app.signed_up().await;
        let made = created(&ann, &["a", "b"]).await;
        let (one, two) = (text(&made[0], "id"), text(&made[1], "id"));
        bulk(&ann, json!({"delete": ids(&made)})).await.expect(200);
        restore(&ann, "none", NOBODY).await.problem(404, "not_found");
        let first = restore(&ann, "one", one).await;
        assert_eq!((first.status, first.header(REPLAYED)), (200, None), "{first}");
        let todo = first.json();
        assert_eq!(without_times(&todo), without_times(&made[0]));
        ann.patch(&format!("{}/{one}", ann.todos()), json!({"title": "z"})).await.expect(200);
        ann.todo("another").await;
        for _ in 0..2 {
            let again = restore(&ann, "one", one).await;
            assert_eq!((again.status, again.header(REPLAYED)), (200, Some("true")), "{again}");
            assert_eq!(again.body, first.body);
            assert_eq!(again.header("etag"), first.header("etag"));
            assert!(again.header("etag").is_some());
        }
        restore(&ann, "one", NOBODY).await.problem(404, "not_found");
        restore(&ann, "one", two).await.problem(422, "idempotency_mismatch");
        let full = restore(&ann, "two", two).await.problem(409, "quota_exceeded");
        assert_eq!((&full["limit"], full.get("details")), (&json!(2), None));
        restore(&ann, "", two).await.problem(400, "bad_request");
    }

    async fn of_concurrent_bulks_with_one_key_one_takes_effect(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let made = created(&ann, &["a", "b", "c"]).await;
        for (round, body) in [
            json!({"create": [{"title": "x"}, {"title": "y"}]}),
            json!({"complete": ids(&made), "completed": true}),
            json!({"delete": ids(&made)}),
            json!({"restore": ids(&made)}),
        ]
        .into_iter()
        .enumerate()
        {
            let before = position(&ann).await;
            let answers = at_once(12, |_| {
                let (ann, body) = (ann.clone(), body.clone());
                async move { keyed(&ann, &format!("round-{round}"), &body).await }
            })
            .await;
            let replayed = answers.iter().filter(|answer| answer.header(REPLAYED).is_some());
            assert_eq!(replayed.count(), 11, "{body}");
            for answer in &answers {
                assert_eq!((answer.status, &answer.body), (200, &answers[0].body), "{answer}");
            }
            let items = if round == 0 { 2 } else { 3 };
            assert_eq!(changes(&ann, &before).await.1, items, "{body}");
        }
    }

    /// The answers of a user's keys are limited in size, and none is dropped: the same request
    /// would then be done twice.
    async fn the_stored_answers_of_a_user_have_a_limit(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let create = json!({"create": [{"title": "a"}]});
        let first = keyed(&ann, "first", &create).await;
        let (blob, text_of_16_mib, now) = match target.database {
            Database::Sqlite => (
                "x'00'",
                "hex(zeroblob(8388608))",
                "CAST(strftime('%s', 'now') AS INTEGER) * 1000000",
            ),
            Database::Postgres => ("'\\x00'", "repeat('x', 16777216)", "now()"),
        };
        for key in ["large", "larger"] {
            keyed(&ann, "before", &json!({"delete": [NOBODY], "partial": true})).await.expect(200);
            let sql = format!(
                "INSERT INTO idempotency (user_id, key, fingerprint, status, answer, made_at) \
                 SELECT id, '{key}', {blob}, 200, {text_of_16_mib}, {now} FROM users \
                 WHERE email = '{}'",
                ann.email()
            );
            execute_sql(app.database_url(), &sql).await;
        }
        let refused = keyed(&ann, "second", &create).await.problem(409, "quota_exceeded");
        let limit = json!(32 << 20);
        assert_eq!((&refused["limit"], &refused["used"]), (&limit, &limit));
        let again = keyed(&ann, "first", &create).await;
        assert_eq!((again.header(REPLAYED), &again.body), (Some("true"), &first.body));
        let missing = keyed(&ann, "second", &json!({"delete": [NOBODY]})).await;
        missing.problem(404, "not_found");
        bulk(&ann, create.clone()).await.expect(200);
        keyed(&bob, "second", &create).await.expect(200);
        // Answers that are short have no limit, and are stored by the creation itself.
        let headers = [("content-type", "application/json"), ("idempotency-key", "single")];
        ann.send("POST", &ann.todos(), &headers, r#"{"title": "b"}"#).await.expect(201);
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 3);
    }
}
