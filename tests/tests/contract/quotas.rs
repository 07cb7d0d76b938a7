//! The maximum numbers of todos, lists and tags of a user, also with many writers at once.

use serde_json::{Value, json};
use todo_tests::{App, at_once, on_every_target};

use crate::text;

const LIMIT: &[(&str, &str)] = &[("MAX_TODOS_PER_USER", "3")];

on_every_target! {
    async fn a_todo_above_the_quota_is_a_409(target) {
        let app = App::start_with(target, LIMIT).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let first = ann.todo("one").await;
        for title in ["two", "three"] {
            ann.todo(title).await;
        }
        let rejected = ann.post(&ann.todos(), json!({"title": "four"})).await;
        let problem = rejected.problem(409, "quota_exceeded");
        assert_eq!((&problem["limit"], &problem["used"]), (&json!(3), &json!(3)));
        let blank = ann.post(&ann.todos(), json!({"title": ""})).await;
        blank.problem(400, "validation_error");
        bob.todo("four").await;
        // Completed todos count, deleted ones do not.
        let path = format!("{}/{}", ann.todos(), text(&first, "id"));
        ann.patch(&format!("{path}/complete"), json!({"completed": true})).await.expect(200);
        ann.post(&ann.todos(), json!({"title": "four"})).await.problem(409, "quota_exceeded");
        ann.patch(&path, json!({"title": "uno"})).await.expect(200);
        ann.delete(&path).await.expect(200);
        ann.todo("four").await;
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], 3);
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        ann.post(&ann.todos(), json!({"title": "five"})).await.problem(401, "unauthorized");
    }

    async fn a_lower_quota_keeps_the_todos(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        for title in ["one", "two", "three", "four"] {
            ann.todo(title).await;
        }
        let replica = app.replica_with(LIMIT).await;
        let limited = replica.anonymous().bearing(ann.token());
        let rejected = limited.post(&ann.todos(), json!({"title": "five"})).await;
        assert_eq!(rejected.problem(409, "quota_exceeded")["used"], 4);
        assert_eq!(limited.get(&ann.todos()).await.expect(200)["total"], 4);
        let replica = app.replica_with(&[("MAX_TODOS_PER_USER", "0")]).await;
        let unlimited = replica.anonymous().bearing(ann.token());
        unlimited.post(&ann.todos(), json!({"title": "five"})).await.expect(201);
    }

    /// SQLite has one writer, so its quota is exact; on PostgreSQL concurrent creations may exceed
    /// it by their number.
    async fn concurrent_creations_keep_the_quota(target) {
        let app = App::start_with(target, LIMIT).await;
        let ann = app.signed_up().await;
        let statuses = at_once(12, |_| {
            let ann = ann.clone();
            async move { ann.post(&ann.todos(), json!({"title": "x"})).await.status }
        })
        .await;
        let created = statuses.iter().filter(|status| **status == 201).count();
        assert_eq!(ann.get(&ann.todos()).await.expect(200)["total"], created);
        match target.database {
            todo_tests::Database::Sqlite => assert_eq!(created, 3, "{statuses:?}"),
            todo_tests::Database::Postgres => assert!(created >= 3, "{statuses:?}"),
        }
        ann.post(&ann.todos(), json!({"title": "x"})).await.problem(409, "quota_exceeded");
    }

    /// As of todos.
    async fn concurrent_creations_keep_the_quotas_of_lists_and_tags(target) {
        let limits = [("MAX_LISTS_PER_USER", "3"), ("MAX_TAGS_PER_USER", "3")];
        let app = App::start_with(target, &limits).await;
        let ann = app.signed_up().await;
        let of = |what: &str| format!("/api/users/{}/{what}", ann.id());
        let lists = at_once(12, |number| {
            let (ann, path) = (ann.clone(), of("lists"));
            async move { ann.post(&path, json!({"name": format!("l{number}")})).await.status }
        })
        .await;
        let todos = at_once(12, |number| {
            let ann = ann.clone();
            let body = json!({"title": "x", "tags": [format!("t{number}")]});
            async move { ann.post(&ann.todos(), body).await.status }
        })
        .await;
        for (what, statuses) in [("lists", lists), ("tags", todos)] {
            assert!(statuses.iter().all(|status| [201, 409].contains(status)), "{statuses:?}");
            let created = statuses.iter().filter(|status| **status == 201).count();
            let rows = ann.get(&of(what)).await.expect(200)[what].as_array().map(Vec::len);
            assert_eq!(rows, Some(created), "{what}");
            match target.database {
                todo_tests::Database::Sqlite => assert_eq!(created, 3, "{what}: {statuses:?}"),
                todo_tests::Database::Postgres => assert!(created >= 3, "{what}: {statuses:?}"),
            }
        }
        ann.post(&of("lists"), json!({"name": "x"})).await.problem(409, "quota_exceeded");
        let body = json!({"title": "x", "tags": ["another"]});
        ann.post(&ann.todos(), body).await.problem(409, "quota_exceeded");
    }
}
