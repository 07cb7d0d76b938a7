//! Health, index, metrics and documentation pages have the contents that the contract states.

use serde_json::json;
use todo_tests::{App, Server, on_every_target};

use super::assert_security_headers;

on_every_target! {
    async fn health_and_index_match_the_contract(target) {
        let app = App::start_with(target, &[("PROJECT_NAME", "Tasks of tests")]).await;
        let client = app.anonymous();
        let health = client.get("/health").await;
        assert_eq!(health.header("content-type"), Some("application/json"));
        let health = health.expect(200);
        let at = health["timestamp"].as_str().expect("a timestamp");
        assert!(at.ends_with('Z') && at.contains('T'), "{at}");
        assert_eq!(health, json!({"status": "healthy", "timestamp": at}));
        let database = client.get("/health/db").await.expect(200);
        assert_eq!(database, json!({"status": "healthy", "database": "connected"}));
        let index = client.get("/").await.expect(200);
        assert_eq!(index["name"], "Tasks of tests", "{index}");
        assert!(index["version"].as_str().is_some_and(|it| !it.is_empty()), "{index}");
        assert_eq!(index["message"], "Tasks of tests is running.", "{index}");
        let links = index["links"].as_object().expect("links");
        assert_eq!(links["openapi"], "/openapi.json");
        let has_pages = target.server == Server::Salvo;
        for (name, path) in [("docs", "/docs"), ("redoc", "/redoc")] {
            let path = has_pages.then(|| json!(path));
            assert_eq!(links.get(name), path.as_ref(), "{index}");
        }
        for link in links.values() {
            let path = link.as_str().expect("a path");
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
    }

    async fn metrics_name_routes_and_no_user(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let todo = ann.todo("a").await;
        let id = todo["id"].as_str().expect("an id");
        ann.get(&format!("{}/{id}", ann.todos())).await.expect(200);
        app.anonymous().get("/raw-path-of-nobody").await.problem(404, "not_found");
        app.anonymous().send("BREW-of-nobody", "/health", &[], "").await;
        let answer = app.anonymous().get("/metrics").await;
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/plain"), "{kind}");
        let text = answer.text();
        assert!(text.contains("/api/users/{user_id}/todos/{todo_id}\""), "{text}");
        for secret in [ann.id(), id, ann.email(), ann.token(), "of-nobody"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line:?}");
        }
        for part in ["# TYPE ", "_bucket{", "le=\"+Inf\""] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    async fn the_documentation_loads_nothing_from_other_hosts(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        for page in ["/docs", "/redoc"] {
            let answer = client.get(page).await;
            if target.server == Server::Hyper {
                answer.problem(404, "not_found");
                continue;
            }
            assert_eq!(answer.status, 200, "{page}");
            assert_security_headers(&answer);
            let kind = answer.header("content-type").unwrap_or_default();
            assert!(kind.starts_with("text/html"), "{kind}");
            assert_policy_is_local(answer.header("content-security-policy").unwrap_or_default());
            let html = answer.text();
            let named = referenced_files(&html);
            assert!(!named.is_empty(), "{page} loads nothing: {html}");
            for path in named {
                // Relative, so that it works below any prefix that a proxy strips.
                assert!(!path.starts_with('/') && !path.contains(':'), "{path} in {page}");
                let file = client.get(&format!("/{path}")).await;
                assert_eq!(file.status, 200, "{path} in {page}");
                assert_security_headers(&file);
            }
            let head = client.send("HEAD", page, &[], "").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {page}");
            let posted = client.post(page, json!({})).await;
            assert!([404, 405].contains(&posted.status), "{posted}");
        }
    }
}

/// Checks that every source of the policy is a keyword, a hash, a nonce, `data:` or `blob:`.
fn assert_policy_is_local(policy: &str) {
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"));
    for directive in policy.split(';') {
        for source in directive.split_ascii_whitespace().skip(1) {
            let local = source.starts_with('\'') || ["data:", "blob:"].contains(&source);
            assert!(local && source != "'unsafe-eval'", "{source} in {policy}");
        }
    }
}

/// The values of a page's `src` and `href` attributes, except `data:` URLs.
fn referenced_files(html: &str) -> Vec<String> {
    let mut named = Vec::new();
    for attribute in ["src=", "href="] {
        for (at, _) in html.match_indices(attribute) {
            let value = &html[at + attribute.len()..];
            let (quote, value) = value.split_at(1);
            assert!(["\"", "'"].contains(&quote), "an unquoted attribute in {html}");
            let value = value.split(quote).next().unwrap_or_default();
            if !value.starts_with("data:") {
                named.push(value.to_owned());
            }
        }
    }
    named
}
