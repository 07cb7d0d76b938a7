//! SQL statements per request, counted by PostgreSQL: one more statement per request slows a server
//! down unnoticed.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use todo_core::{http::Endpoint, testing::MAX_FIXED};
use todo_tests::{
    App, Client, Database, Mailbox, Server, Target, clone_the_only_todo, endpoint,
    peers::{CLIENT_ID, CLIENT_SECRET, GitHub},
    postgres::Cluster,
    uncovered, unique_email,
};

/// Number and texts of the statements run in all sessions since the last call.
async fn take_statements(admin: &mut PgConnection) -> (i64, Vec<String>) {
    let counted: Vec<(i64, String)> = sqlx::query_as(
        // Without those of the delivery of mails, reminders and webhooks, which runs at any time.
        "SELECT calls, query FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%' \
         AND query NOT LIKE 'UPDATE mails %' AND query NOT LIKE 'SELECT min(created_at), %' \
         AND query NOT LIKE 'SELECT reminders.id, minutes_before, %' \
         AND query NOT LIKE 'SELECT user_id FROM reminders %' \
         AND query NOT LIKE 'WITH times AS MATERIALIZED (%' \
         AND query NOT LIKE 'UPDATE webhooks SET lease = %'",
    )
    .fetch_all(&mut *admin)
    .await
    .expect("statistics");
    admin.execute("SELECT pg_stat_statements_reset()").await.expect("a reset");
    let (calls, texts): (Vec<i64>, Vec<String>) = counted.into_iter().unzip();
    (calls.iter().sum(), texts)
}

const FORGOT: &str = "/api/auth/password/forgot";

/// Counts the statements of the routes that mail links, or take their tokens; returns the routes.
async fn with_mails(
    app: &App,
    mailbox: &Mailbox,
    admin: &mut PgConnection,
) -> Vec<&'static Endpoint> {
    let (eve, dan, anonymous) = (app.signed_up().await, app.signed_up().await, app.anonymous());
    let reset = |token: &str| json!({"token": token, "password": "Other2battery"});
    let mut covered = Vec::new();
    let mut checked = async |client: &Client, path: &str, body: Value, status: u16| {
        take_statements(admin).await;
        let answer = client.post(path, body).await;
        let (calls, texts) = take_statements(admin).await;
        assert_eq!(answer.status, status, "{path}: {answer}");
        let endpoint = endpoint("POST", path);
        let most = endpoint.statements();
        let most = if status < 400 { most.success } else { most.failure };
        assert!(
            (1..=most).contains(&usize::try_from(calls).expect("a count")),
            "{path}: {texts:#?}"
        );
        // The delivery looks for the account: the time of the request must not tell of it.
        let finds = path == FORGOT && texts.iter().any(|text| text.contains("users"));
        assert!(!finds, "{path}: {texts:#?}");
        covered.push(endpoint);
    };
    let mail = "/api/auth/email";
    let confirm = "/api/auth/email/confirm";
    checked(&eve, "/api/auth/email/verify", json!(null), 202).await;
    let token = mailbox.arrived(eve.email(), "Confirm your e-mail address").await;
    checked(&anonymous, confirm, json!({"token": token.token()}), 200).await;
    checked(&anonymous, confirm, json!({"token": token.token()}), 400).await;
    checked(&eve, "/api/auth/email/verify", json!(null), 409).await;
    let body = json!({"email": unique_email(), "password": eve.password()});
    checked(&eve, mail, body.clone(), 202).await;
    checked(&eve, mail, body, 202).await;
    let body = json!({"email": unique_email(), "password": "Wrong1password"});
    checked(&eve, mail, body, 401).await;
    for email in [dan.email(), dan.email(), "nobody@example.com"] {
        checked(&anonymous, FORGOT, json!({"email": email}), 202).await;
    }
    let token = mailbox.arrived(dan.email(), "Set a new password").await;
    checked(&anonymous, "/api/auth/password/reset", reset(token.token()), 200).await;
    checked(&anonymous, "/api/auth/password/reset", reset(token.token()), 400).await;
    covered
}

/// Counts the statements of a sign-in with a provider, and of the addition of an identity; returns
/// the routes.
async fn with_a_provider(
    server: Server,
    url: &str,
    admin: &mut PgConnection,
) -> Vec<&'static Endpoint> {
    const APP: &str = "https://app.example.com/";
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let provider = GitHub::start().await;
    // The database has those of the other server.
    let [known, new] = std::array::from_fn(|_| uuid::Uuid::now_v7().simple().to_string());
    let github = provider.url();
    let settings = [
        ("DATABASE_URL", url),
        ("RATE_LIMIT_PER_MINUTE", "1000"),
        ("PUBLIC_URL", "https://todo.example.com"),
        ("OAUTH_REDIRECTS", APP),
        ("OAUTH_GITHUB_URL", &*github),
        ("OAUTH_GITHUB_CLIENT_ID", CLIENT_ID),
        ("OAUTH_GITHUB_CLIENT_SECRET", CLIENT_SECRET),
    ];
    let target = Target { server, database: Database::Sqlite };
    let app = App::start_with(target, &settings).await;
    let ann = app.signed_up().await;
    let mut covered = Vec::new();
    let mut checked = async |client: &Client, method, path: &str, cookie: &str, body: Value| {
        take_statements(admin).await;
        let headers = [("content-type", "application/json"), ("cookie", cookie)];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = client.send(method, path, &headers, body).await;
        let (calls, texts) = take_statements(admin).await;
        let endpoint = endpoint(method, path);
        let most = endpoint.statements();
        let most = if answer.status < 400 { most.success } else { most.failure };
        let calls = usize::try_from(calls).expect("a count");
        assert!((1..=most).contains(&calls), "{path}: {texts:#?}: {answer}");
        if answer.status < 400 {
            covered.push(endpoint);
        }
        answer
    };
    let path = |address: &str| {
        let url = url::Url::parse(address).expect("an address");
        format!("{}?{}", url.path(), url.query().unwrap_or_default())
    };
    let code = |answer: &todo_tests::TestResponse| {
        let address = answer.header("location").unwrap_or_else(|| panic!("{answer}"));
        let url = url::Url::parse(address).expect("an address");
        let code = url.query_pairs().find(|(name, _)| name == "code");
        code.unwrap_or_else(|| panic!("{address}")).1.into_owned()
    };
    let anonymous = app.anonymous();
    let start = format!(
        "/api/auth/oauth/github/start?redirect_uri={APP}&code_challenge_method=S256\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
    let begun = checked(&anonymous, "GET", &start, "", json!(null)).await;
    let cookie = begun.header("set-cookie").and_then(|set| set.split(';').next());
    let page = begun.header("location").expect("an address");
    let callback = path(&provider.sign_in(page, &known).await);
    let ended = checked(&anonymous, "GET", &callback, cookie.expect("a cookie"), json!(null)).await;
    let exchange = json!({"code": code(&ended), "code_verifier": VERIFIER});
    for status in [200, 400] {
        let answer =
            checked(&anonymous, "POST", "/api/auth/oauth/token", "", exchange.clone()).await;
        assert_eq!(answer.status, status, "{answer}");
    }
    for (login, status) in [(&new, 201), (&known, 409)] {
        let body = json!({"redirect_uri": APP});
        let page = checked(&ann, "POST", "/api/auth/oauth/github/link", "", body).await;
        let page = page.expect(200)["url"].as_str().expect("an address").to_owned();
        let callback = path(&provider.sign_in(&page, login).await);
        let ended = checked(&anonymous, "GET", &callback, "", json!(null)).await;
        let body = json!({"code": code(&ended)});
        let answer = checked(&ann, "POST", "/api/auth/oauth/link", "", body).await;
        assert_eq!(answer.status, status, "{answer}");
    }
    covered
}

/// Counts the statements of requests with an API key: as many as with a token, and one more for the
/// first request.
async fn by_api_keys(app: &App, admin: &mut PgConnection) {
    let eve = app.signed_up().await;
    let todos = eve.todos();
    let form = json!({
        "name": "n", "scopes": ["todos:read"], "expires_in_days": 1, "password": eve.password(),
    });
    eve.todo("one").await;
    let created = eve.post("/api/auth/keys", form).await.expect(201);
    let key = app.anonymous().bearing(created["key"].as_str().expect("a key"));
    let forged = app.anonymous().bearing("todo_0");
    for (client, method, path, status, statements) in [
        (&key, "GET", todos.as_str(), 200, 2),
        (&key, "GET", &todos, 200, 1),
        (&key, "GET", "/api/auth/me", 403, 1),
        (&key, "POST", &todos, 403, 1),
        (&key, "DELETE", "/api/auth/keys", 405, 0),
        (&key, "GET", "/api/users/1/todos", 403, 1),
        (&forged, "GET", &todos, 401, 0),
    ] {
        take_statements(admin).await;
        let answer = client.send(method, path, &[], "").await;
        let (calls, texts) = take_statements(admin).await;
        assert_eq!(answer.status, status, "{answer}");
        assert_eq!(calls, statements, "{method} {path}: {texts:#?}");
    }
    let deleted = format!("/api/auth/keys/{}", created["id"].as_str().expect("an id"));
    eve.delete(&deleted).await.expect(200);
    take_statements(admin).await;
    key.get(&todos).await.problem(401, "unauthorized");
    let (calls, texts) = take_statements(admin).await;
    assert!(calls <= 2, "{texts:#?}");
}

/// Counts the statements of requests with a key, and of lists with `If-None-Match`.
async fn with_keys_and_versions(app: &App, admin: &mut PgConnection) {
    let eve = app.signed_up().await;
    let todos = eve.todos();
    let bulk = format!("{todos}/bulk");
    let one = eve.todo("one").await["id"].clone();
    let restore = format!("/api/users/{}/trash/{}/restore", eve.id(), one.as_str().expect("an id"));
    let create = json!({"create": [{"title": "t"}]});
    let (delete, complete) =
        (json!({"delete": [one]}), json!({"complete": [one], "completed": true}));
    let (one_todo, none) = (json!({"title": "t"}), json!(null));
    for (key, path, body, status, statements) in [
        ("a", &todos, &one_todo, 201, 1),
        // A rejected statement is not counted.
        ("a", &todos, &one_todo, 201, 1),
        // BEGIN, the key, the search, the change, the answer, COMMIT.
        ("b", &bulk, &create, 200, 5),
        ("b", &bulk, &create, 200, 3),
        ("c", &bulk, &complete, 200, 6),
        ("c", &bulk, &complete, 200, 3),
        ("c", &bulk, &create, 422, 3),
        ("d", &bulk, &delete, 200, 6),
        // The last one looks whether another request has used the key meanwhile.
        ("e", &bulk, &delete, 404, 5),
        ("f", &restore, &none, 200, 6),
        ("f", &restore, &none, 200, 3),
        ("g", &restore, &none, 404, 5),
    ] {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        take_statements(admin).await;
        let answer = eve.send("POST", path, &headers, body.to_string()).await;
        let (calls, texts) = take_statements(admin).await;
        assert_eq!(answer.status, status, "{answer}");
        assert_eq!(calls, statements, "{key} {path}: {texts:#?}");
    }
    // Of an import: the key, its pieces, what the user has; BEGIN, the lock, the todos, the key of
    // the piece, the answer, each after its expired one, COMMIT. A repetition only looks the key
    // up.
    let import = format!("/api/users/{}/import?format=todotxt", eve.id());
    for statements in [11, 1] {
        let headers = [("content-type", "text/plain"), ("idempotency-key", "i")];
        take_statements(admin).await;
        let answer = eve.send("POST", &import, &headers, "Buy milk").await;
        let (calls, texts) = take_statements(admin).await;
        assert_eq!((answer.status, calls), (200, statements), "{answer} {texts:#?}");
    }
    for (query, statements) in [("", 1), ("?limit=1&sort_by=title", 1), ("?status=completed", 1)] {
        let path = format!("{todos}{query}");
        take_statements(admin).await;
        let list = eve.get(&path).await;
        assert_eq!(take_statements(admin).await.0, 1, "{path}");
        let etag = list.header("etag").expect("a version").to_owned();
        let same = eve.send("GET", &path, &[("if-none-match", &etag)], "").await;
        let (calls, texts) = take_statements(admin).await;
        assert_eq!((same.status, calls), (304, statements), "{path}: {texts:#?}");
        let reads_todos = texts.iter().any(|text| text.contains("FROM todos"));
        assert!(!reads_todos, "{path}: {texts:#?}");
        // Another list's version is not looked up.
        let other = eve.send("GET", &path, &[("if-none-match", "W/\"x.1-x\"")], "").await;
        assert_eq!((other.status, take_statements(admin).await.0), (200, 1), "{path}");
        eve.todo("another").await;
        take_statements(admin).await;
        let changed = eve.send("GET", &path, &[("if-none-match", &etag)], "").await;
        assert_eq!((changed.status, take_statements(admin).await.0), (200, 2), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_runs_no_more_statements_than_it_needs() {
    let library = "shared_preload_libraries=pg_stat_statements";
    let cluster = Cluster::dedicated(&[library], &[]).await.expect("a PostgreSQL");
    let mut admin = PgConnection::connect(&cluster.url()).await.expect("a connection");
    admin.execute("CREATE EXTENSION pg_stat_statements").await.expect("statistics");
    let url = cluster.url();
    let mailbox = Mailbox::default();
    let settings = [("DATABASE_URL", &*url)];
    let mut fixed = BTreeSet::new();
    for server in [Server::Salvo, Server::Hyper] {
        let target = Target { server, database: Database::Sqlite };
        let app = mailbox.start(target, &settings).await;
        let ann = app.signed_up().await;
        let todos = ann.todos();
        let todo = ann.todo("Buy milk").await;
        let path = format!("{todos}/{}", todo["id"].as_str().expect("an id"));
        let client = app.anonymous();
        let account = json!({"email": unique_email(), "password": "Correct1horse", "name": "Bob"});
        let login = json!({"email": account["email"], "password": "Correct1horse"});
        let complete = format!("{path}/complete");
        let user = format!("/api/users/{}", ann.id());
        let bulk = format!("{todos}/bulk");
        let export = todos.replace("/todos", "/export");
        let import = todos.replace("/todos", "/import?format=json");
        let one = json!([todo["id"]]);
        let (trash, changes) = (format!("{user}/trash"), format!("{user}/changes"));
        let events = format!("{user}/events");
        let socket = format!("{user}/ws");
        let expired = format!("{events}?since=x.1");
        let webhook = format!("{user}/webhook");
        let hook = json!({"url": "https://hooks.example.com/"});
        let (tags, lists) = (format!("{user}/tags"), format!("{user}/lists"));
        let (rename, no_tag) = (format!("{tags}/rename"), format!("{tags}?name=z"));
        let one_tag = format!("{tags}?name=c");
        let list = ann.post(&lists, json!({"name": "l"})).await.expect(201);
        let list_id = list["id"].clone();
        let list = format!("{lists}/{}", list_id.as_str().expect("an id"));
        let no_list = format!("{lists}/{}", uuid::Uuid::now_v7());
        let move_ = format!("{path}/move");
        let tagged = json!({"title": "t", "tags": ["a", "b"], "list_id": list_id});
        ann.post(&todos, tagged).await.expect(201);
        let last = ann.todo("last").await["id"].clone();
        let repeated = json!({
            "title": "r", "due": {"date": "2090-01-02"}, "recurrence": {"rule": "FREQ=DAILY"},
            "reminders": [{"minutes_before": 5}],
        });
        let repeated = ann.post(&todos, repeated).await.expect(201);
        let repeated = format!("{todos}/{}/complete", repeated["id"].as_str().expect("an id"));
        let trashed = format!("{trash}/{}", todo["id"].as_str().expect("an id"));
        let restore = format!("{trashed}/restore");
        let bob = app.signed_up().await;
        let bobs_list = bob.todos();
        let bobs = bob.todo("Sell milk").await;
        let bobs = format!("{todos}/{}", bobs["id"].as_str().expect("an id"));
        let nowhere = format!("{todos}/{}", uuid::Uuid::now_v7());
        let no_id = format!("{todos}/1");
        let again = json!({"email": ann.email(), "password": ann.password()});
        client.post("/api/auth/login", again).await.expect(200);
        let sessions = ann.get("/api/auth/sessions").await.expect(200);
        let other_session = sessions["sessions"][0]["id"].as_str().expect("an id").to_owned();
        let other_session = format!("/api/auth/sessions/{other_session}");
        let no_session = format!("/api/auth/sessions/{}", uuid::Uuid::now_v7());
        let change =
            |current: &str| json!({"current_password": current, "new_password": "Other2battery"});
        let key = |password: &str| {
            let scopes = ["todos:read"];
            json!({"name": "n", "scopes": scopes, "expires_in_days": 1, "password": password})
        };
        let created = ann.post("/api/auth/keys", key(ann.password())).await.expect(201);
        let old_key = format!("/api/auth/keys/{}", created["id"].as_str().expect("an id"));
        let no_key = format!("/api/auth/keys/{}", uuid::Uuid::now_v7());
        let no_identity = format!("/api/auth/identities/{}", uuid::Uuid::now_v7());
        let identity = uuid::Uuid::now_v7();
        let added = format!(
            "INSERT INTO identities (id, issuer, subject, user_id, email_verified, created_at) \
             VALUES ('{identity}', 'https://issuer', '{identity}', '{}', FALSE, now())",
            ann.id()
        );
        admin.execute(sqlx::AssertSqlSafe(added)).await.expect("an identity");
        let identity = format!("/api/auth/identities/{identity}");
        let edit = json!({"title": "u", "priority": "low"});
        // The limits are those that the endpoints declare; of a rejected request, some are lower.
        let mut covered = Vec::new();
        for (method, path, body, is_public, status, at_most) in [
            ("GET", "/health", json!(null), true, 200, None),
            ("GET", "/health/ready", json!(null), true, 200, None),
            ("GET", "/health/db", json!(null), true, 200, None),
            ("GET", "/metrics", json!(null), true, 200, None),
            ("GET", "/openapi.json", json!(null), true, 200, None),
            ("GET", "/", json!(null), true, 200, None),
            ("GET", "/nowhere", json!(null), true, 404, Some(0)),
            ("GET", &path, json!(null), false, 200, None),
            ("GET", &todos, json!(null), false, 200, Some(1)),
            ("GET", "/api/auth/me", json!(null), false, 200, None),
            ("PATCH", "/api/auth/me", json!({"name": "Ann Smith"}), false, 200, None),
            ("PATCH", "/api/auth/me", json!({"time_zone": "Asia/Tokyo"}), false, 200, None),
            ("PATCH", "/api/auth/me", json!({}), false, 200, None),
            ("PATCH", "/api/auth/me", json!({"name": ""}), false, 400, None),
            ("GET", "/api/auth/sessions", json!(null), false, 200, None),
            ("DELETE", "/api/auth/sessions/1", json!(null), false, 404, Some(1)),
            ("DELETE", &no_session, json!(null), false, 404, None),
            ("DELETE", &other_session, json!(null), false, 200, None),
            ("DELETE", "/api/auth/sessions", json!(null), false, 200, Some(3)),
            ("POST", "/api/auth/password", change("Wrong1horse"), false, 401, None),
            ("GET", "/api/auth/keys", json!(null), false, 200, None),
            ("POST", "/api/auth/keys", key(ann.password()), false, 201, None),
            ("POST", "/api/auth/keys", key("Wrong1horse"), false, 401, None),
            ("GET", "/api/auth/keys", json!(null), false, 200, Some(1)),
            ("DELETE", "/api/auth/keys/1", json!(null), false, 404, Some(1)),
            ("DELETE", &no_key, json!(null), false, 404, None),
            ("DELETE", &old_key, json!(null), false, 200, None),
            ("GET", "/api/auth/identities", json!(null), false, 200, Some(1)),
            ("DELETE", "/api/auth/identities/1", json!(null), false, 404, Some(1)),
            ("DELETE", &no_identity, json!(null), false, 404, None),
            ("DELETE", &identity, json!(null), false, 200, None),
            ("GET", "/api/auth/identities", json!(null), false, 200, None),
            // There is no issuer.
            ("POST", "/api/auth/identities", json!({"token": "x"}), false, 400, Some(1)),
            ("GET", "/api/auth/oauth", json!(null), true, 200, None),
            ("POST", "/api/auth/oauth/link", json!({"code": "x"}), false, 400, Some(1)),
            ("GET", "/api/auth/export", json!(null), false, 200, Some(11)),
            ("GET", "/api/auth/export", json!(null), false, 200, None),
            ("GET", "/api/auth/export", json!(null), false, 429, None),
            ("DELETE", "/api/auth/me", json!({"password": "Wrong1horse"}), false, 401, None),
            ("DELETE", "/api/auth/me", json!({"password": 1}), false, 422, Some(1)),
            // The deletion, the reason, the session.
            ("DELETE", "/api/auth/me", json!({}), false, 422, Some(3)),
            ("POST", &todos, json!({"title": "t"}), false, 201, None),
            ("PUT", &path, edit.clone(), false, 200, None),
            // Two, if the todo before the place has a position already.
            ("POST", &move_, json!({"after": null}), false, 200, Some(2)),
            ("POST", &move_, json!({"after": last}), false, 200, None),
            ("POST", &move_, json!({"after": last}), false, 200, Some(2)),
            ("POST", &move_, json!({"after": uuid::Uuid::now_v7()}), false, 400, Some(2)),
            ("GET", &tags, json!(null), false, 200, Some(1)),
            ("POST", &rename, json!({"from": "a", "to": "c"}), false, 200, None),
            ("POST", &rename, json!({"from": "a", "to": "c"}), false, 404, None),
            ("DELETE", &one_tag, json!(null), false, 200, None),
            ("DELETE", &no_tag, json!(null), false, 404, None),
            ("GET", &lists, json!(null), false, 200, Some(1)),
            ("POST", &lists, json!({"name": "m"}), false, 201, Some(1)),
            ("GET", &list, json!(null), false, 200, None),
            ("GET", &no_list, json!(null), false, 404, None),
            ("PATCH", &list, json!({"name": "n"}), false, 200, None),
            ("PATCH", &no_list, json!({"name": "n"}), false, 404, Some(2)),
            ("DELETE", &list, json!(null), false, 200, None),
            ("DELETE", &list, json!(null), false, 404, Some(2)),
            ("PATCH", &path, json!({"title": "v"}), false, 200, None),
            // One that does not recur.
            ("PATCH", &complete, json!({"completed": true}), false, 200, Some(1)),
            ("PATCH", &repeated, json!({"completed": true}), false, 200, None),
            ("PATCH", &repeated, json!({"completed": false}), false, 200, None),
            // Rejected without a statement; only the session is checked.
            ("GET", &no_id, json!(null), false, 404, Some(1)),
            ("GET", &bobs_list, json!(null), false, 403, Some(1)),
            ("POST", &todos, json!({"title": ""}), false, 400, Some(1)),
            // The first statement affects no row, the second finds the reason.
            ("GET", &nowhere, json!(null), false, 404, None),
            ("PUT", &nowhere, edit.clone(), false, 404, None),
            ("PATCH", &nowhere, json!({"title": "v"}), false, 404, None),
            ("DELETE", &nowhere, json!(null), false, 404, None),
            ("GET", &bobs, json!(null), false, 403, None),
            ("PUT", &bobs, edit, false, 403, None),
            ("PATCH", &bobs, json!({"title": "v"}), false, 403, None),
            ("DELETE", &bobs, json!(null), false, 403, None),
            // BEGIN, the search, the change, COMMIT; new todos are not searched for.
            (
                "POST",
                &bulk,
                json!({"create": [{"title": "t"}, {"title": "u"}]}),
                false,
                200,
                Some(3),
            ),
            ("POST", &bulk, json!({"patch": {"title": "v"}, "ids": one}), false, 200, Some(4)),
            ("POST", &bulk, json!({"patch": {}, "ids": one}), false, 200, Some(4)),
            ("POST", &bulk, json!({"complete": one, "completed": false}), false, 200, Some(4)),
            ("POST", &bulk, json!({"delete": one}), false, 200, Some(4)),
            ("POST", &bulk, json!({"delete": one}), false, 404, Some(3)),
            ("POST", &bulk, json!({"delete": one, "partial": true}), false, 200, Some(3)),
            ("POST", &bulk, json!({"restore": one}), false, 200, Some(4)),
            ("POST", &bulk, json!({"create": [{"title": ""}]}), false, 400, Some(1)),
            // The lists, the todos, and what the format has beside them.
            ("GET", &export, json!(null), false, 200, Some(3)),
            ("GET", &format!("{export}?format=todotxt"), json!(null), false, 200, Some(2)),
            ("GET", &format!("{export}?format=x"), json!(null), false, 400, Some(1)),
            // What the user has, BEGIN, the lock, the todos, COMMIT; for a list BEGIN, the lock,
            // the list, COMMIT, and what the user has then; for reminders those whose time is past.
            ("POST", &import, json!({"todos": [{"title": "i"}]}), false, 200, Some(5)),
            (
                "POST",
                &import,
                json!({"todos": [{"title": "i", "list": "new"}]}),
                false,
                200,
                Some(10),
            ),
            (
                "POST",
                &import,
                json!({"todos": [{
                    "title": "i", "due": {"date": "2999-12-01"}, "reminders": [{"minutes_before": 0}],
                }]}),
                false,
                200,
                Some(6),
            ),
            ("POST", &import, json!({"todos": [{"title": ""}]}), false, 400, Some(1)),
            ("DELETE", &path, json!(null), false, 200, None),
            ("GET", &trash, json!(null), false, 200, Some(1)),
            ("POST", &restore, json!(null), false, 200, Some(1)),
            ("POST", &restore, json!(null), false, 404, Some(2)),
            ("GET", &changes, json!(null), false, 200, None),
            ("PUT", &webhook, hook, false, 200, None),
            ("PUT", &webhook, json!({"url": "x"}), false, 400, Some(1)),
            ("GET", &webhook, json!(null), false, 200, None),
            ("DELETE", &webhook, json!(null), false, 200, Some(1)),
            ("GET", &webhook, json!(null), false, 404, Some(1)),
            ("DELETE", &webhook, json!(null), false, 404, None),
            // As GET, whose response has no end.
            ("HEAD", &events, json!(null), false, 200, None),
            ("GET", &expired, json!(null), false, 410, Some(1)),
            // Without a handshake.
            ("GET", &socket, json!(null), false, 426, Some(1)),
            ("DELETE", &path, json!(null), false, 200, None),
            ("DELETE", &trashed, json!(null), false, 200, None),
            ("DELETE", &trashed, json!(null), false, 404, None),
            ("DELETE", &trash, json!(null), false, 200, Some(2)),
            ("GET", &trash, json!(null), false, 200, None),
            ("POST", "/api/auth/signup", account, true, 201, None),
            ("POST", "/api/auth/login", login, true, 200, None),
            ("POST", "/api/auth/logout", json!(null), false, 200, None),
            ("GET", &path, json!(null), false, 401, None),
        ] {
            take_statements(&mut admin).await;
            let sender: &Client = if is_public { &client } else { &ann };
            let headers = [("content-type", "application/json")];
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let answer = sender.send(method, path, &headers, body).await;
            assert_eq!(answer.status, status, "{method} {path}: {answer}");
            let (calls, texts) = take_statements(&mut admin).await;
            // Its numbers, since the extension replaces some constants with parameters.
            let composed = |text: &&String| text.contains(" AS total ");
            let without_numbers =
                |text: &String| text.replace(|c| matches!(c, '$' | '0'..='9'), "");
            fixed.extend(texts.iter().filter(|text| !composed(text)).map(without_numbers));
            let most = match (path, status) {
                ("/nowhere", _) => 0,
                _ => {
                    let endpoint = endpoint(if method == "HEAD" { "GET" } else { method }, path);
                    let statements = endpoint.statements();
                    if status < 400 {
                        covered.push(endpoint);
                        at_most.unwrap_or(statements.success)
                    } else {
                        at_most.unwrap_or(statements.failure)
                    }
                }
            };
            let calls = usize::try_from(calls).expect("a count");
            println!("{server:?}: {method} {path}: {calls}");
            assert!(calls <= most, "{server:?}: {method} {path} ran {calls}: {texts:#?}");
            // Proves that statements are counted at all.
            assert_eq!(calls == 0, most == 0, "{server:?}: {method} {path}");
        }
        // The test client makes no handshake, and a new password would end the session. The tests
        // with an issuer add an identity.
        let apart = [
            endpoint("GET", &socket),
            endpoint("POST", "/api/auth/password"),
            endpoint("POST", "/api/auth/identities"),
            endpoint("DELETE", "/api/auth/me"),
        ];
        let of_mails = with_mails(&app, &mailbox, &mut admin).await;
        let of_provider = with_a_provider(server, &url, &mut admin).await;
        let covered = covered.into_iter().chain(apart).chain(of_mails).chain(of_provider);
        assert_eq!(uncovered(covered, |_| true), [""; 0]);
        take_statements(&mut admin).await;
        let password = "/api/auth/password";
        bob.post(password, change(bob.password())).await.expect(200);
        let (calls, texts) = take_statements(&mut admin).await;
        let most = endpoint("POST", password).statements().success;
        assert!(usize::try_from(calls).is_ok_and(|calls| calls <= most), "{calls}: {texts:#?}");
        by_api_keys(&app, &mut admin).await;
        let dan = app.signed_up().await;
        take_statements(&mut admin).await;
        let body = json!({"password": dan.password()}).to_string();
        let headers = [("content-type", "application/json")];
        dan.send("DELETE", "/api/auth/me", &headers, body).await.expect(200);
        let (calls, texts) = take_statements(&mut admin).await;
        let most = endpoint("DELETE", "/api/auth/me").statements().success;
        assert!(usize::try_from(calls).is_ok_and(|calls| calls <= most), "{calls}: {texts:#?}");
        with_keys_and_versions(&app, &mut admin).await;
        for (count, most) in [(500, 1), (501, 2), (1000, 2), (1001, 3)] {
            admin.execute("DELETE FROM todos").await.expect("no todos");
            let bob = app.signed_up().await;
            bob.todo("the only one").await;
            clone_the_only_todo(&url, count - 1).await;
            take_statements(&mut admin).await;
            let list = bob.get(&bob.todos()).await.expect(200);
            let (calls, texts) = take_statements(&mut admin).await;
            assert_eq!(list["todos"].as_array().map(Vec::len), usize::try_from(count).ok());
            assert_eq!(calls, most, "{server:?}: a list of {count}: {texts:#?}");
        }
        app.stop().await.expect("a clean stop");
    }
    // Besides, there are those of rate limits, of background work and of transactions.
    let most = MAX_FIXED / 2;
    assert!(fixed.len() <= most, "{}: raise MAX_FIXED: {fixed:#?}", fixed.len());
    println!("{} fixed texts", fixed.len());
    cluster.stop().await.expect("PostgreSQL stops");
}
