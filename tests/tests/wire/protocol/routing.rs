//! The path and the method of a request select its route: any other path is a 404, any other method
//! a 405, and a trailing slash is redirected.

use std::collections::BTreeSet;

use serde_json::json;
use todo_tests::{App, Server, TestResponse, on_every_target, raw};

use super::{UNKNOWN_ID, assert_security_headers, members, request, send_raw};

/// The methods allowed on each path of the contract, except OPTIONS.
fn allowed_methods(user: &str, todo: &str) -> Vec<(String, Vec<&'static str>)> {
    let todos = format!("/api/users/{user}/todos");
    vec![
        ("/api/auth/signup".into(), vec!["POST"]),
        ("/api/auth/login".into(), vec!["POST"]),
        ("/api/auth/logout".into(), vec!["POST"]),
        ("/api/auth/me".into(), vec!["DELETE", "GET", "HEAD", "PATCH"]),
        ("/api/auth/export".into(), vec!["GET", "HEAD"]),
        ("/api/auth/sessions".into(), vec!["DELETE", "GET", "HEAD"]),
        (format!("/api/auth/sessions/{todo}"), vec!["DELETE"]),
        ("/api/auth/keys".into(), vec!["GET", "HEAD", "POST"]),
        (format!("/api/auth/keys/{todo}"), vec!["DELETE"]),
        ("/api/auth/identities".into(), vec!["GET", "HEAD", "POST"]),
        (format!("/api/auth/identities/{todo}"), vec!["DELETE"]),
        ("/api/auth/password".into(), vec!["POST"]),
        (todos.clone(), vec!["GET", "HEAD", "POST"]),
        (format!("{todos}/{todo}"), vec!["DELETE", "GET", "HEAD", "PATCH", "PUT"]),
        (format!("{todos}/{todo}/complete"), vec!["PATCH"]),
        (todos.replace("/todos", "/webhook"), vec!["DELETE", "GET", "HEAD", "PUT"]),
        ("/health".into(), vec!["GET", "HEAD"]),
        ("/health/db".into(), vec!["GET", "HEAD"]),
        ("/health/ready".into(), vec!["GET", "HEAD"]),
        ("/metrics".into(), vec!["GET", "HEAD"]),
        ("/openapi.json".into(), vec!["GET", "HEAD"]),
        ("/".into(), vec!["GET", "HEAD"]),
    ]
}

fn without_options(allow: Option<&str>) -> BTreeSet<String> {
    let mut allow = members(allow);
    allow.remove("OPTIONS");
    allow
}

on_every_target! {
    async fn head_is_get_without_the_content(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let mine = format!("{}/{}", ann.todos(), todo["id"].as_str().expect("an id"));
        let constant = ["/", "/openapi.json", "/api/auth/me", &ann.todos(), &mine, "/health/db"];
        for path in constant {
            let get = ann.get(path).await;
            let head = ann.send("HEAD", path, &[], "").await;
            assert_eq!((get.status, head.status), (200, 200), "{path}");
            assert_eq!(head.body, b"", "{path}");
            let mut names: BTreeSet<&str> = get.headers.keys().map(|name| name.as_str()).collect();
            names.extend(head.headers.keys().map(|name| name.as_str()));
            for name in names.into_iter().filter(|name| !["date", "x-request-id"].contains(name)) {
                let of = |answer: &TestResponse| {
                    answer.headers.get_all(name).iter().cloned().collect::<Vec<_>>()
                };
                assert_eq!(of(&head), of(&get), "{name} of {path}");
            }
            let length = get.body.len().to_string();
            assert_eq!(head.header("content-length"), Some(length.as_str()), "{path}");
        }
        for path in ["/health", "/metrics"] {
            let head = ann.send("HEAD", path, &[], "").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        }
        let head = app.anonymous().send("HEAD", &mine, &[], "").await;
        assert_eq!((head.status, head.body.len()), (401, 0));
        assert!(head.header("www-authenticate").is_some_and(|it| it.starts_with("Bearer")));
        let head = ann.send("HEAD", &format!("{}/{UNKNOWN_ID}", ann.todos()), &[], "").await;
        assert_eq!((head.status, head.body.len()), (404, 0));
        let bytes = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let bytes = raw(app.addr(), bytes).await;
        assert!(bytes.starts_with(b"HTTP/1.1 200 ") && bytes.ends_with(b"\r\n\r\n"));
    }

    async fn options_lists_the_allowed_methods(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for (path, methods) in allowed_methods(UNKNOWN_ID, UNKNOWN_ID) {
            let answer = client.send("OPTIONS", &path, &[], "").await;
            assert!([200, 204].contains(&answer.status), "{answer}");
            let methods: BTreeSet<String> = methods.iter().map(|one| one.to_string()).collect();
            assert_eq!(without_options(answer.header("allow")), methods, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        client.send("OPTIONS", "/nowhere", &[], "").await.problem(404, "not_found");
    }

    async fn a_method_that_is_not_allowed_is_a_405(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for (path, methods) in allowed_methods(UNKNOWN_ID, UNKNOWN_ID) {
            let expected: BTreeSet<String> = methods.iter().map(|one| one.to_string()).collect();
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW", "get"] {
                if methods.contains(&method) {
                    continue;
                }
                let answer = client.send(method, &path, &[], "").await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert_eq!(without_options(answer.header("allow")), expected, "{method} {path}");
                answer.problem(405, "method_not_allowed");
            }
            if !methods.contains(&"HEAD") {
                let answer = client.send("HEAD", &path, &[], "").await;
                assert_eq!((answer.status, answer.body.len()), (405, 0), "HEAD {path}");
                assert_eq!(without_options(answer.header("allow")), expected, "HEAD {path}");
            }
        }
        for method in ["BREW", "PROPFIND", "M-SEARCH", "%"] {
            let reply = request(&app, &format!("{method} /nowhere HTTP/1.1")).await;
            assert!((400..500).contains(&reply.status), "{method}: {reply:?}");
        }
    }

    async fn only_the_routes_themselves_are_routes(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let todos = ann.todos();
        let mine = format!("{todos}/{}", todo["id"].as_str().expect("an id"));
        let bearer = format!("Authorization: Bearer {}", ann.token());
        let mut paths: Vec<String> = [
            "/nowhere", "/api", "/api/", "/api/auth", "/api/users", "/api/auth/%73ignup",
            "/%61pi/auth/login", "//api/auth/login", "/api//auth/login", "/api/auth/login//",
            "/api/auth/./me", "/api/auth/x/../me", "/api/auth/%2e/me", "/API/auth/me",
            "/api/Auth/me", "/health//", "//health/", "/nowhere/", "/health%2Fdb", "//health",
            "/HEALTH", "/HEALTH/", "/api/auth/me;v=1", "/.", "/..", "/api/../health",
            "/.env", "/favicon.ico", "//", "///", "/auth/me", "/health/%2F",
        ].map(String::from).to_vec();
        paths.extend([
            format!("{todos}//"), format!("{mine}/nowhere/"),
            format!("{mine}/nowhere"), format!("/{todos}"),
            format!("{todos}/{UNKNOWN_ID}/complete/{UNKNOWN_ID}"),
            format!("/api/users/{}", ann.id()),
            todos.replace("/todos", "/TODOS"), todos.replace("/todos", "/%74odos"),
        ]);
        for path in &paths {
            for method in ["GET", "POST", "PATCH"] {
                let line = format!("{method} {path} HTTP/1.1");
                let head = [line.as_str(), "Host: localhost", "Connection: close", &bearer];
                let reply = send_raw(&app, &head, b"").await;
                assert_eq!(reply.status, 404, "{line}");
                reply.problem(404, "not_found");
            }
        }
        for path in ["/health?", "/health?x=1&y", "/?/nowhere", "/health/db?%00"] {
            assert_eq!(request(&app, &format!("GET {path} HTTP/1.1")).await.status, 200, "{path}");
        }
    }

    /// As in FastAPI, whose clients may send such paths.
    async fn a_trailing_slash_is_redirected(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mut paths: Vec<String> =
            allowed_methods(ann.id(), UNKNOWN_ID).into_iter().map(|(path, _)| path).collect();
        paths.retain(|path| path != "/");
        if target.server == Server::Salvo {
            paths.extend(["/docs".into(), "/redoc".into(), "/docs/page.css".into()]);
        }
        let client = app.anonymous();
        for path in &paths {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
                for query in ["", "?", "?a=1&b=%20/&c=http://d/"] {
                    let answer = client.send(method, &format!("{path}/{query}"), &[], "").await;
                    assert_eq!(answer.status, 307, "{answer}");
                    let location = answer.header("location");
                    assert_eq!(location, Some(&*format!("{path}{query}")), "{answer}");
                    assert_eq!(answer.body, b"", "{answer}");
                    assert_security_headers(&answer);
                }
            }
        }
        let slashed = format!("{}/", ann.todos());
        let answer = ann.post(&slashed, json!({"title": "x"})).await;
        let location = answer.header("location").expect("a Location").to_owned();
        ann.post(&location, json!({"title": "x"})).await.expect(201);
        let list = ann.get(&ann.todos()).await.expect(200);
        assert_eq!(list["total"], 1, "the redirected request must not be executed");
        // The Location does not repeat a foreign authority.
        let reply = request(&app, "GET http://evil.example/health/?x HTTP/1.1").await;
        assert_eq!((reply.status, reply.header("location")), (307, Some("/health?x")));
        let text = client.get("/metrics").await.text();
        assert!(text.contains("route=\"/health/db\",status=\"307\""), "{text}");
        assert!(!text.contains("/health/db/"), "{text}");
    }

    async fn routes_follow_their_prefix(target) {
        let app = App::start_with(target, &[("API_V1_PREFIX", "/v2/tasks")]).await;
        let client = app.anonymous();
        let body = json!({"email": "ann@example.com", "password": "Correct1horse", "name": "Ann"});
        client.post("/api/auth/signup", body.clone()).await.problem(404, "not_found");
        let auth = client.post("/v2/tasks/auth/signup", body).await.expect(201);
        let id = auth["user"]["id"].as_str().expect("an id");
        let todos = format!("/v2/tasks/users/{id}/todos");
        let ann = client.bearing(auth["token"].as_str().expect("a token"));
        let created = ann.post(&todos, json!({"title": "a"})).await;
        let location = created.header("location").expect("a Location header").to_owned();
        assert!(location.starts_with(&format!("{todos}/")), "{location}");
        assert_eq!(ann.get(&location).await.expect(200), created.expect(201));
        assert_eq!(client.get("/health").await.status, 200, "operational routes have no prefix");
    }
}
