//! The responses of the servers match the document.

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, on_every_target};

use super::{
    BULK, COMPLETE, EXPORT, IMPORT, LIST, LISTS, MOVE, RENAME_TAG, TAGS, TODO, TODOS, content,
    document, validate,
};

const SESSIONS: &str = "/api/auth/sessions";
const SESSION: &str = "/api/auth/sessions/{session_id}";
const KEYS: &str = "/api/auth/keys";
const KEY: &str = "/api/auth/keys/{key_id}";
const IDENTITIES: &str = "/api/auth/identities";
const IDENTITY: &str = "/api/auth/identities/{identity_id}";
const PASSWORD: &str = "/api/auth/password";
const ME: &str = "/api/auth/me";
const UNKNOWN_ID: &str = "00000000-0000-7000-8000-000000000000";

async fn leave(actor: &Actor, body: Value) -> TestResponse {
    let headers = [("content-type", "application/json")];
    actor.send("DELETE", ME, &headers, body.to_string()).await
}

on_every_target! {
    async fn responses_match_the_document(target) {
        let app = App::start(target).await;
        let document = document(&app).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let eve = app.signed_up().await;
        let change = |current: &str, new: &str| {
            json!({"current_password": current, "new_password": new})
        };
        let key = |password: &str, days: i64| {
            let scopes = ["todos:read"];
            json!({"name": "n", "scopes": scopes, "expires_in_days": days, "password": password})
        };
        let dan = app.signed_up().await;
        let anonymous = app.anonymous();
        let todo = ann.todo("a").await;
        let theirs = bob.todo("b").await;
        let path = |todo: &Value| {
            format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"))
        };
        let mine = path(&todo);
        let login = json!({"email": "new@example.com", "password": "Correct1horse"});
        let mut account = login.clone();
        account["name"] = json!("New");
        let put = json!({"title": "c", "priority": "low", "description": "d"});
        let done = json!({"completed": true});
        let page = format!("{}?limit=1", ann.todos());
        let user = |path: &str| path.replace("{user_id}", ann.id());
        let (tags, lists) = (user(TAGS), user(LISTS));
        let list = ann.post(&lists, json!({"name": "l", "color": "#ff8800"})).await.expect(201);
        let list = format!("{lists}/{}", list["id"].as_str().expect("an id"));
        let their_lists = LISTS.replace("{user_id}", bob.id());
        let their_list = bob.post(&their_lists, json!({"name": "l"})).await.expect(201);
        let their_list = format!("{lists}/{}", their_list["id"].as_str().expect("an id"));
        ann.post(&ann.todos(), json!({"title": "t", "tags": ["a", "b"]})).await.expect(201);
        let (rename, move_) = (format!("{tags}/rename"), format!("{mine}/move"));
        let bulk = format!("{}/bulk", ann.todos());
        let export = ann.todos().replace("/todos", "/export");
        let import = ann.todos().replace("/todos", "/import?format=json");
        let skip = format!("{import}&skip_invalid=true");
        let some = json!([todo["id"], theirs["id"], UNKNOWN_ID, "x"]);
        let some_fail = json!({"complete": some, "completed": true, "partial": true});
        ann.todo("another").await;
        let answers = [
            ("post", "/api/auth/signup", anonymous.post("/api/auth/signup", account.clone()).await),
            ("post", "/api/auth/signup", anonymous.post("/api/auth/signup", account).await),
            ("post", "/api/auth/signup", anonymous.post("/api/auth/signup", json!({})).await),
            ("post", "/api/auth/signup", anonymous.send("POST", "/api/auth/signup", &[], "").await),
            ("post", "/api/auth/login", anonymous.post("/api/auth/login", login.clone()).await),
            ("post", "/api/auth/login", anonymous.post("/api/auth/login", json!({})).await),
            ("get", "/api/auth/me", ann.get("/api/auth/me").await),
            ("get", "/api/auth/me", anonymous.get("/api/auth/me").await),
            ("get", SESSIONS, ann.get(SESSIONS).await),
            ("delete", SESSIONS, ann.delete(SESSIONS).await),
            ("delete", SESSION, ann.delete(&format!("{SESSIONS}/{UNKNOWN_ID}")).await),
            ("post", KEYS, bob.post(KEYS, key(bob.password(), 30)).await),
            ("post", KEYS, bob.post(KEYS, key("Wrong1horse", 30)).await),
            ("post", KEYS, bob.post(KEYS, key(bob.password(), 0)).await),
            ("post", KEYS, bob.post(KEYS, json!({})).await),
            ("get", KEYS, bob.get(KEYS).await),
            ("delete", KEY, bob.delete(&format!("{KEYS}/{UNKNOWN_ID}")).await),
            ("post", IDENTITIES, bob.post(IDENTITIES, json!({"token": "x"})).await),
            ("post", IDENTITIES, bob.post(IDENTITIES, json!({})).await),
            ("get", IDENTITIES, bob.get(IDENTITIES).await),
            ("delete", IDENTITY, bob.delete(&format!("{IDENTITIES}/{UNKNOWN_ID}")).await),
            ("post", PASSWORD, bob.post(PASSWORD, change("Wrong1horse", "Other2battery")).await),
            ("post", PASSWORD, bob.post(PASSWORD, change(bob.password(), "weak")).await),
            ("post", PASSWORD, bob.post(PASSWORD, json!({})).await),
            ("post", PASSWORD, eve.post(PASSWORD, change(eve.password(), "Other2battery")).await),
            ("delete", ME, leave(&ann, json!({"password": "Wrong1horse"})).await),
            ("delete", ME, leave(&ann, json!({})).await),
            ("delete", ME, leave(&dan, json!({"password": dan.password()})).await),
            ("get", "/api/auth/export", ann.get("/api/auth/export").await),
            ("get", "/api/auth/export", ann.get("/api/auth/export").await),
            ("get", "/api/auth/export", ann.get("/api/auth/export").await),
            ("post", TODOS, ann.post(&ann.todos(), json!({"title": "b"})).await),
            ("post", TODOS, ann.post(&ann.todos(), json!({"title": ""})).await),
            ("post", TODOS, bob.post(&ann.todos(), json!({"title": "b"})).await),
            ("post", TODOS, ann.post(&ann.todos(), json!({"title": "x".repeat(70_000)})).await),
            ("get", TODOS, ann.get(&ann.todos()).await),
            ("get", TODOS, ann.get(&page).await),
            ("get", TODOS, ann.get(&format!("{page}0000")).await),
            ("post", BULK, ann.post(&bulk, json!({"create": [{"title": "c"}]})).await),
            ("post", BULK, ann.post(&bulk, some_fail).await),
            ("post", BULK, ann.post(&bulk, json!({"create": [{"title": ""}]})).await),
            ("post", BULK, ann.post(&bulk, json!({"delete": [UNKNOWN_ID]})).await),
            ("post", BULK, ann.post(&bulk, json!({"delete": [theirs["id"]]})).await),
            ("get", EXPORT, ann.get(&export).await),
            ("get", EXPORT, ann.get(&format!("{export}?trash=true")).await),
            ("get", EXPORT, ann.get(&format!("{export}?format=x")).await),
            ("post", IMPORT, ann.post(&import, json!({"todos": [{"title": "i"}, 1]})).await),
            ("post", IMPORT, ann.post(&skip, json!({"todos": [{"title": "i"}, 1]})).await),
            ("post", IMPORT, ann.send("POST", &import, &[], "").await),
            ("get", TODO, ann.get(&mine).await),
            ("get", TODO, ann.get(&path(&theirs)).await),
            ("get", TODO, ann.get(&path(&json!({"id": UNKNOWN_ID}))).await),
            ("put", TODO, ann.put(&mine, put).await),
            ("post", MOVE, ann.post(&move_, json!({"after": null})).await),
            ("post", MOVE, ann.post(&move_, json!({"after": theirs["id"]})).await),
            ("post", MOVE, ann.post(&move_, json!({})).await),
            ("get", TAGS, ann.get(&tags).await),
            ("post", RENAME_TAG, ann.post(&rename, json!({"from": "a", "to": "c"})).await),
            ("post", RENAME_TAG, ann.post(&rename, json!({"from": "a", "to": "c"})).await),
            ("post", RENAME_TAG, ann.post(&rename, json!({"from": "a", "to": ","})).await),
            ("delete", TAGS, ann.delete(&format!("{tags}?name=b")).await),
            ("delete", TAGS, ann.delete(&tags).await),
            ("post", LISTS, ann.post(&lists, json!({"name": "m"})).await),
            ("post", LISTS, ann.post(&lists, json!({"name": "", "color": "red"})).await),
            ("get", LISTS, ann.get(&lists).await),
            ("get", LIST, ann.get(&list).await),
            ("get", LIST, ann.get(&their_list).await),
            ("patch", LIST, ann.patch(&list, json!({"color": null})).await),
            ("patch", LIST, {
                let headers = [("content-type", "application/json"), ("if-match", "\"x\"")];
                ann.send("PATCH", &list, &headers, r#"{"name": "n"}"#).await
            }),
            ("delete", LIST, ann.delete(&list).await),
            ("delete", LIST, ann.delete(&list).await),
            ("patch", TODO, ann.patch(&mine, json!({"description": null})).await),
            ("patch", TODO, ann.patch(&mine, json!({"title": null})).await),
            ("patch", COMPLETE, ann.patch(&format!("{mine}/complete"), done).await),
            ("patch", COMPLETE, ann.patch(&format!("{mine}/complete"), json!({})).await),
            ("delete", TODO, ann.delete(&mine).await),
            ("get", "/health", anonymous.get("/health").await),
            ("get", "/health/ready", anonymous.get("/health/ready").await),
            ("get", "/health/db", anonymous.get("/health/db").await),
            ("post", "/api/auth/logout", ann.post("/api/auth/logout", Value::Null).await),
        ];
        for (method, path, answer) in answers {
            let status = answer.status.to_string();
            let response = &document["paths"][path][method]["responses"][&status];
            assert!(response.is_object(), "{method} {path}: {status} is not described");
            let (kind, media) = content(&document, response).expect("content is described");
            assert_eq!(answer.header("content-type"), Some(kind), "{method} {path}: {status}");
            let at = format!("{method} {path} {status}");
            if let Err(error) = validate(&document, &media["schema"], &answer.json(), &at) {
                panic!("{error}");
            }
        }
    }
}
