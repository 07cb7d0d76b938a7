//! A user reaches only their own todos. The routes check a request in the contract's order, and
//! forbid caches to store a response.

use serde_json::{Value, json};
use todo_tests::{App, on_every_target};

use super::{JSON, UNKNOWN_ID, invalid, path, sent, try_verb, verbs};
use crate::text;

const TEXT: (&str, &str) = ("content-type", "text/plain");
const TOO_LARGE: usize = 70_000;

on_every_target! {
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
