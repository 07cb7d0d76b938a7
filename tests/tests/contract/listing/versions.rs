//! The `ETag` of a list, and `If-None-Match`.

use serde_json::{Value, json};
use todo_tests::{Actor, App, Client, TestResponse, on_every_target};

use super::{text, todos};

fn etag(response: &TestResponse) -> String {
    response.header("etag").unwrap_or_else(|| panic!("no ETag: {response}")).to_owned()
}

/// The number of the last change in a list's `ETag`.
fn number(etag: &str) -> usize {
    let number = etag.split_once('.').and_then(|(_epoch, rest)| rest.split_once('-'));
    number.and_then(|(number, _query)| number.parse().ok()).expect("a number")
}

async fn if_none(client: &Client, path: &str, tag: &str) -> TestResponse {
    client.send("GET", path, &[("if-none-match", tag)], "").await
}

/// Different lists of a user.
fn lists(owner: &Actor) -> Vec<String> {
    ["", "?limit=500", "?status=completed", "?sort_by=title", "?order=asc", "?limit=1&order=asc"]
        .iter()
        .map(|query| format!("{}{query}", owner.todos()))
        .collect()
}

on_every_target! {
    async fn a_list_has_another_version_after_each_change(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let todo = ann.todo("milk").await;
        let id = text(&todo, "id");
        let path = format!("{}/{id}", ann.todos());
        let bulk = format!("{}/bulk", ann.todos());
        let restore = format!("/api/users/{}/trash/{id}/restore", ann.id());
        let ids = json!([id]);
        for (method, path, body) in [
            ("PUT", &path, json!({"title": "a", "priority": "low"})),
            ("PATCH", &path, json!({"title": "b"})),
            ("PATCH", &format!("{path}/complete"), json!({"completed": true})),
            ("DELETE", &path, Value::Null),
            ("POST", &restore, Value::Null),
            ("POST", &bulk, json!({"complete": ids, "completed": false})),
            ("POST", &bulk, json!({"delete": ids})),
            ("POST", &bulk, json!({"restore": ids})),
            ("POST", &bulk, json!({"create": [{"title": "c"}]})),
        ] {
            let mut before = Vec::new();
            for list in lists(&ann) {
                let read = ann.get(&list).await;
                let tag = etag(&read);
                assert!(tag.starts_with("W/\"") && tag.ends_with('"'), "{tag}");
                assert!(!before.contains(&tag), "{tag} is that of two lists");
                let strong = tag.trim_start_matches("W/");
                for known in [&tag, strong, "*", &format!("\"x\", {tag}")] {
                    let same = if_none(&ann, &list, known).await;
                    assert_eq!((same.status, &*same.body), (304, &b""[..]), "{known}: {same}");
                    assert_eq!(etag(&same), tag);
                    assert_eq!(same.header("content-type"), None);
                    assert_eq!(same.header("cache-control"), read.header("cache-control"));
                }
                before.push(tag);
            }
            // Another user's changes do not matter.
            bob.todo("theirs").await;
            let headers = [("content-type", "application/json")];
            let body = if body.is_null() { String::new() } else { body.to_string() };
            ann.send(method, path, &headers, body).await.expect(200);
            for (list, tag) in lists(&ann).iter().zip(&before) {
                let read = if_none(&ann, list, tag).await;
                let new = etag(&read);
                assert_eq!(read.status, 200, "{method} {path}, {list}");
                assert!(!before.contains(&new), "{method} {path}, {list}");
            }
        }
        for ignored in ["x", "", "\"x\"", "W/\"x.1-x\""] {
            if_none(&ann, &ann.todos(), ignored).await.expect(200);
        }
        let head = ann.send("HEAD", &ann.todos(), &[("if-none-match", "*")], "").await;
        assert_eq!(head.status, 304);
    }

    async fn a_version_is_of_one_users_list_and_only_for_a_live_session(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        // Both have the same number of changes.
        let (empty, theirs) = (ann.get(&ann.todos()).await, bob.get(&bob.todos()).await);
        assert_eq!(number(&etag(&empty)), 0, "an empty list has a version");
        assert_eq!(etag(&empty), etag(&theirs), "they have the same todos");
        ann.todo("a").await;
        for _ in 0..2 {
            bob.todo("b").await;
        }
        let tag = etag(&ann.get(&ann.todos()).await);
        if_none(&bob, &bob.todos(), &tag).await.expect(200);
        if_none(&bob, &ann.todos(), "*").await.problem(403, "forbidden");
        if_none(&ann, &format!("{}?cursor=x", ann.todos()), "*").await.problem(400, "validation_error");
        if_none(&ann, &format!("{}?limit=0", ann.todos()), "*").await.problem(400, "validation_error");
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        for known in [&tag, "*"] {
            if_none(&ann, &ann.todos(), known).await.problem(401, "unauthorized");
        }
    }

    /// Each creation has a number: so the version of a list has that of its last todo, and is not
    /// newer than the todos.
    async fn a_version_is_that_of_the_todos_of_the_list(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let write = async {
            for number in 0..60 {
                ann.todo(&format!("todo {number}")).await;
            }
        };
        let read = async {
            let mut seen = 0;
            while seen < 60 {
                for query in ["", "?limit=500&sort_by=title"] {
                    let answer = ann.get(&format!("{}{query}", ann.todos())).await;
                    // It has none if it was empty, and a todo was added before it was counted.
                    let Some(tag) = answer.header("etag").map(str::to_owned) else { continue };
                    let list = answer.expect(200);
                    seen = todos(&list).len();
                    assert_eq!((number(&tag), &list["total"]), (seen, &json!(seen)));
                }
            }
        };
        tokio::join!(write, read);
    }

    async fn a_list_in_chunks_has_the_version_of_its_beginning(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bulk = format!("{}/bulk", ann.todos());
        for _ in 0..3 {
            let create = json!({"create": vec![json!({"title": "t"}); 500]});
            ann.post(&bulk, create).await.expect(200);
        }
        let list = ann.get(&ann.todos()).await;
        let tag = etag(&list);
        assert_eq!((number(&tag), todos(&list.expect(200)).len()), (1500, 1500));
        assert_eq!(if_none(&ann, &ann.todos(), &tag).await.status, 304);
    }

    async fn pages_have_versions(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let made = [ann.todo("a").await, ann.todo("b").await];
        let page = ann.get(&format!("{}?limit=1&order=asc", ann.todos())).await.expect(200);
        let next = format!("{}?limit=1&order=asc&cursor={}", ann.todos(), text(&page, "next_cursor"));
        let tag = etag(&ann.get(&next).await);
        assert_eq!(if_none(&ann, &next, &tag).await.status, 304);
        // A page that is empty by now is no page of a state.
        ann.delete(&format!("{}/{}", ann.todos(), text(&made[1], "id"))).await.expect(200);
        let empty = if_none(&ann, &next, &tag).await;
        assert_eq!(empty.header("etag"), None);
        assert_eq!(empty.expect(200)["todos"], json!([]));
    }
}
