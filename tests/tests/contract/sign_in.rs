//! Sign-in with a provider: a real one of OpenID Connect, and a stand-in for GitHub.

mod additions;
mod faults;
mod replicas;

use serde_json::{Value, json};
use todo_tests::{
    App, Client, Target, TestResponse, execute_sql, on_every_target,
    peers::{CLIENT_ID, CLIENT_SECRET, GitHub, OidcProvider},
};
use url::Url;

use super::text;

const PUBLIC_URL: &str = "https://todo.example.com";
const CALLBACK: &str = "https://todo.example.com/api/auth/oauth/oidc/callback";
/// The app's address, and one of a native app.
const REDIRECT: &str = "https://app.example.com/signed-in";
const LOOPBACK: &str = "http://127.0.0.1/signed-in";
/// Where nothing listens.
const NOWHERE: &str = "http://127.0.0.1:1";
/// A verifier and its challenge (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A server whose provider is `provider`.
async fn app(target: Target, provider: &OidcProvider, more: &[(&str, &str)]) -> App {
    let issuer = provider.issuer();
    let redirects = format!("{REDIRECT},{LOOPBACK}");
    let settings = [
        ("PUBLIC_URL", PUBLIC_URL),
        ("OAUTH_REDIRECTS", &*redirects),
        ("OAUTH_OIDC_ISSUER", &*issuer),
        ("OAUTH_OIDC_CLIENT_ID", CLIENT_ID),
        ("OAUTH_OIDC_CLIENT_SECRET", CLIENT_SECRET),
        ("OAUTH_OIDC_NAME", "Our login"),
    ];
    App::start_with(target, &[&settings[..], more].concat()).await
}

/// A server whose provider is the GitHub at `url`.
async fn github_app(target: Target, url: &str, more: &[(&str, &str)]) -> App {
    let redirects = format!("{REDIRECT},{LOOPBACK}");
    let settings = [
        ("PUBLIC_URL", PUBLIC_URL),
        ("OAUTH_REDIRECTS", &*redirects),
        ("OAUTH_GITHUB_URL", url),
        ("OAUTH_GITHUB_CLIENT_ID", CLIENT_ID),
        ("OAUTH_GITHUB_CLIENT_SECRET", CLIENT_SECRET),
    ];
    App::start_with(target, &[&settings[..], more].concat()).await
}

/// A browser at a server: its cookie of a sign-in, and where it goes.
#[derive(Clone)]
struct Browser {
    client: Client,
    cookie: String,
    /// The provider's page.
    page: String,
}

/// The path of a start with these parameters.
fn start_path(provider: &str, redirect: &str, more: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("redirect_uri", redirect)
        .append_pair("code_challenge", CHALLENGE)
        .append_pair("code_challenge_method", "S256")
        .finish();
    format!("/api/auth/oauth/{provider}/start?{query}{more}")
}

/// The address of a redirect with this status, which no cache keeps.
#[track_caller]
fn location(answer: &TestResponse, status: u16) -> String {
    assert_eq!(answer.status, status, "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{answer}");
    answer.header("location").expect("a location").to_owned()
}

/// The parameter `name` of an address.
fn parameter(address: &str, name: &str) -> Option<String> {
    let url = Url::parse(address).expect("an address");
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

impl Browser {
    async fn start(client: &Client, provider: &str) -> Browser {
        Browser::at(client, &start_path(provider, REDIRECT, "&state=mine")).await
    }

    async fn at(client: &Client, path: &str) -> Browser {
        let answer = client.get(path).await;
        let page = location(&answer, 302);
        let set = answer.header("set-cookie").expect("a cookie");
        let attributes = "; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure";
        let cookie = set.strip_suffix(attributes).unwrap_or_else(|| panic!("{set}"));
        assert!(cookie.starts_with("__Host-todo-flow="), "{cookie}");
        Browser { client: client.clone(), cookie: cookie.to_owned(), page }
    }

    /// Comes back from the provider at `callback`.
    async fn back(&self, callback: &str) -> TestResponse {
        self.back_with("GET", callback, &[("cookie", &format!("a=b; {}", self.cookie))]).await
    }

    async fn back_with(
        &self,
        method: &str,
        callback: &str,
        headers: &[(&str, &str)],
    ) -> TestResponse {
        let path = callback.strip_prefix(PUBLIC_URL).unwrap_or_else(|| panic!("{callback}"));
        self.client.send(method, path, headers, "").await
    }

    /// The code for the app, once `login` has signed in.
    async fn code(&self, provider: &OidcProvider, login: &str) -> String {
        let callback = provider.sign_in(&self.page, login).await;
        code(&self.back(&callback).await)
    }
}

/// The code of a redirect to the app.
#[track_caller]
fn code(answer: &TestResponse) -> String {
    let app = location(answer, 303);
    assert!(app.starts_with(&format!("{REDIRECT}?code=")), "{app}");
    assert_eq!(parameter(&app, "state").as_deref(), Some("mine"));
    parameter(&app, "code").expect("a code")
}

/// The error of a redirect to the app.
#[track_caller]
fn error(answer: &TestResponse, status: u16) -> String {
    let app = location(answer, status);
    let error = parameter(&app, "error").expect("an error");
    assert_eq!(app, format!("{REDIRECT}?error={error}&state=mine"));
    error
}

async fn exchange(client: &Client, code: &str, verifier: &str) -> TestResponse {
    let body = json!({ "code": code, "code_verifier": verifier });
    client.post("/api/auth/oauth/token", body).await
}

/// The session of `login`, by all steps.
async fn signed_in(client: &Client, provider: &OidcProvider, login: &str) -> Value {
    let code = Browser::start(client, "oidc").await.code(provider, login).await;
    exchange(client, &code, VERIFIER).await.expect(200)
}

on_every_target! {
    async fn an_app_signs_a_person_in(target) {
        let provider = OidcProvider::start(&[CALLBACK]).await;
        let app = app(target, &provider, &[]).await;
        let client = app.anonymous();
        let listed = client.get("/api/auth/oauth").await.expect(200);
        let known = json!({ "providers": [{ "name": "oidc", "title": "Our login" }] });
        assert_eq!(listed, known);

        let browser = Browser::start(&client, "oidc").await;
        assert!(browser.page.starts_with(&provider.issuer()), "{}", browser.page);
        assert_ne!(parameter(&browser.page, "code_challenge").as_deref(), Some(CHALLENGE));
        let callback = provider.sign_in(&browser.page, "ada").await;
        // What does not navigate uses nothing up.
        for (method, name, value) in [
            ("HEAD", "accept", "*/*"),
            ("GET", "sec-purpose", "prefetch;prerender"),
            ("GET", "purpose", "prefetch"),
        ] {
            let headers = [("cookie", &*browser.cookie), (name, value)];
            let answer = browser.back_with(method, &callback, &headers).await;
            assert_eq!(answer.status, 400, "{answer}");
        }
        let answer = browser.back(&callback).await;
        let deleted = "__Host-todo-flow=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(answer.header("set-cookie"), Some(deleted));
        let code = code(&answer);
        let auth = exchange(&client, &code, VERIFIER).await.expect(200);
        assert_eq!(auth["user"]["email"], "ada@example.com");
        assert_eq!(auth["user"]["email_verified"], true);
        assert_eq!(auth["user"]["name"], "Ada Lovelace");
        let own = client.bearing(text(&auth, "token"));
        assert_eq!(own.get("/api/auth/me").await.expect(200), auth["user"]);
        let sessions = own.get("/api/auth/sessions").await.expect(200);
        assert_eq!(sessions["sessions"][0]["kind"], "oauth");
        let identities = own.get("/api/auth/identities").await.expect(200);
        assert_eq!(identities["identities"][0]["issuer"], provider.issuer());
        assert_eq!(identities["identities"][0]["subject"], "ada");

        exchange(&client, &code, VERIFIER).await.problem(400, "invalid_grant");
        // The provider has accepted its code once.
        browser.back(&callback).await.problem(400, "invalid_grant");
        let again = signed_in(&client, &provider, "ada").await;
        assert_eq!(again["user"], auth["user"]);
        let other = signed_in(&client, &provider, "bob").await;
        assert_ne!(other["user"]["id"], auth["user"]["id"]);
        own.send("POST", "/api/auth/logout", &[], "").await.expect(200);
        own.get("/api/auth/me").await.problem(401, "unauthorized");
    }

    async fn a_code_has_its_verifier_and_a_minute(target) {
        let provider = OidcProvider::start(&[CALLBACK]).await;
        let app = app(target, &provider, &[]).await;
        let client = app.anonymous();
        let new = async || Browser::start(&client, "oidc").await.code(&provider, "ada").await;
        let mut details = Vec::new();
        let mut refused = async |code: &str, verifier: &str| {
            let problem = exchange(&client, code, verifier).await.problem(400, "invalid_grant");
            details.push(problem["detail"].clone());
        };
        let code = new().await;
        let other = VERIFIER.replace('d', "e");
        refused(&code, &other).await;
        // It is used up.
        refused(&code, VERIFIER).await;
        let code = new().await;
        let expire = "UPDATE oauth_codes SET expires_at = created_at + ";
        let moment = match app.target().database {
            todo_tests::Database::Sqlite => "1",
            todo_tests::Database::Postgres => "interval '1 microsecond'",
        };
        execute_sql(app.database_url(), &format!("{expire}{moment}")).await;
        refused(&code, VERIFIER).await;
        // The tokens of a user who has ended all sessions do not outlive that.
        let auth = signed_in(&client, &provider, "ada").await;
        let code = new().await;
        let own = client.bearing(text(&auth, "token"));
        own.delete("/api/auth/sessions").await.expect(200);
        let now = "UPDATE identities SET not_before = (SELECT max(created_at) FROM oauth_codes)";
        execute_sql(app.database_url(), now).await;
        refused(&code, VERIFIER).await;
        for nothing in ["", "x", text(&auth, "token")] {
            refused(nothing, VERIFIER).await;
        }
        details.dedup();
        assert_eq!(details.len(), 1, "{details:?}");
        client.post("/api/auth/oauth/token", json!({})).await.problem(422, "malformed_body");
    }

    async fn a_sign_in_ends_in_the_browser_that_began_it(target) {
        let provider = OidcProvider::start(&[CALLBACK]).await;
        let app = app(target, &provider, &[]).await;
        let client = app.anonymous();
        let own = Browser::start(&client, "oidc").await;
        let other = Browser::start(&client, "oidc").await;
        let callback = provider.sign_in(&own.page, "mallory").await;
        let state = parameter(&callback, "state").expect("a state");
        for headers in [vec![], vec![("cookie", &*other.cookie)], vec![("cookie", "__Host-todo-flow=x")]]
        {
            let answer = own.back_with("GET", &callback, &headers).await;
            assert_eq!(answer.header("location"), None);
            answer.problem(400, "invalid_grant");
        }
        for altered in [
            callback.replace("/oidc/", "/github/"),
            callback.replace(&state, &state[1..]),
            callback.replace("state=", "states="),
            callback.replace("code=", "codes="),
            format!("{callback}&state={state}"),
        ] {
            let answer = own.back(&altered).await;
            assert!([400, 404].contains(&answer.status), "{altered}: {answer}");
        }
        let callback = provider.sign_in(&own.page, "ada").await;
        code(&own.back(&callback).await);
    }

    async fn an_address_is_linked_if_both_sides_have_verified_it(target) {
        let provider = OidcProvider::start(&[CALLBACK]).await;
        let app = app(target, &provider, &[]).await;
        let client = app.anonymous();
        let local = app.signed_up().await;
        let email = local.email().to_owned();
        let account = |verified: bool| {
            json!({ "accounts": { "ada": { "email": email, "email_verified": verified } } })
        };
        let end = async |app: &App| {
            let browser = Browser::start(&app.anonymous(), "oidc").await;
            let callback = provider.sign_in(&browser.page, "ada").await;
            browser.back(&callback).await
        };
        // Nobody has verified the address: the answer does not depend on its account.
        provider.control(account(false)).await;
        let auth = exchange(&client, &code(&end(&app).await), VERIFIER).await.expect(200);
        assert!(text(&auth["user"], "email").ends_with("@users.invalid"), "{auth}");
        assert_eq!(auth["user"]["email_verified"], false);
        client.bearing(text(&auth, "token")).delete("/api/auth/me").await;
        execute_sql(app.database_url(), "DELETE FROM identities").await;

        provider.control(account(true)).await;
        assert_eq!(error(&end(&app).await, 303), "account_exists");
        let linking = app.replica_with(&[("AUTH_LINK_VERIFIED_EMAIL", "true")]).await;
        assert_eq!(error(&end(&linking).await, 303), "account_exists");
        let verified = format!(
            "UPDATE users SET email_verified_at = created_at WHERE email = '{}'", local.email());
        execute_sql(app.database_url(), &verified).await;
        assert_eq!(error(&end(&app).await, 303), "account_exists");
        let auth = exchange(&client, &code(&end(&linking).await), VERIFIER).await.expect(200);
        assert_eq!(auth["user"]["id"], local.id());
        // From now on by the identity.
        let auth = exchange(&client, &code(&end(&app).await), VERIFIER).await.expect(200);
        assert_eq!(auth["user"]["id"], local.id());
    }

    async fn github_states_a_number_and_its_verified_address(target) {
        let provider = GitHub::start().await;
        let url = provider.url();
        let app = github_app(target, &url, &[]).await;
        let client = app.anonymous();
        let address = |email: &str, primary: bool, verified: bool| {
            json!({ "email": email, "primary": primary, "verified": verified })
        };
        let other = address("other@example.com", false, true);
        let accounts = json!({
            "bob": { "id": 7, "name": null, "emails": [other, address("b@example.com", true, true)] },
            "eve": { "id": 8, "name": "Eve", "emails": [other, address("e@example.com", true, false)] },
        });
        provider.control(json!({ "accounts": accounts })).await;
        let sign_in = async |login: &str| {
            let browser = Browser::start(&client, "github").await;
            let callback = provider.sign_in(&browser.page, login).await;
            let code = code(&browser.back(&callback).await);
            exchange(&client, &code, VERIFIER).await.expect(200)
        };
        let bob = sign_in("bob").await;
        assert_eq!(bob["user"]["email"], "b@example.com");
        assert_eq!(bob["user"]["name"], "bob");
        let own = client.bearing(text(&bob, "token"));
        let identities = own.get("/api/auth/identities").await.expect(200);
        assert_eq!(identities["identities"][0]["subject"], "7");
        assert_eq!(identities["identities"][0]["issuer"], url);
        let eve = sign_in("eve").await;
        assert!(text(&eve["user"], "email").ends_with("@users.invalid"), "{eve}");
        // He has another login name now.
        provider.control(json!({ "accounts": { "robert": accounts["bob"] } })).await;
        assert_eq!(sign_in("robert").await["user"]["id"], bob["user"]["id"]);
        provider.control(json!({ "accounts": accounts, "down": ["/user/emails"] })).await;
        let browser = Browser::start(&client, "github").await;
        let callback = provider.sign_in(&browser.page, "bob").await;
        assert_eq!(error(&browser.back(&callback).await, 303), "temporarily_unavailable");
        // A code that GitHub has used.
        browser.back(&callback).await.problem(400, "invalid_grant");
    }

    async fn a_start_checks_where_it_returns_to(target) {
        // A start does not ask GitHub.
        let app = github_app(target, NOWHERE, &[]).await;
        let client = app.anonymous();
        for allowed in [REDIRECT, LOOPBACK, "http://127.0.0.1:49152/signed-in"] {
            Browser::at(&client, &start_path("github", allowed, "")).await;
        }
        for refused in [
            "",
            "https://evil.example/",
            "https://app.example.com@evil.example/signed-in",
            "https://app.example.com\\@evil.example/signed-in",
            "https://APP.example.com/signed-in",
            "https://app.example.com./signed-in",
            "https://app.example.com/signed-in/",
            "http://127.0.0.1:80@evil.example/signed-in",
        ] {
            let answer = client.get(&start_path("github", refused, "")).await;
            assert_eq!(answer.header("location"), None, "{refused}");
            assert_eq!(answer.fields(), ["redirect_uri"], "{refused}");
            answer.problem(400, "validation_error");
        }
        let path = start_path("github", REDIRECT, "");
        for (altered, field) in [
            (path.replace("S256", "plain"), "code_challenge_method"),
            (path.replace("&code_challenge_method=S256", ""), "code_challenge_method"),
            (path.replace(CHALLENGE, "short"), "code_challenge"),
            (path.replace(CHALLENGE, &"x".repeat(129)), "code_challenge"),
            (format!("{path}&state={}", "x".repeat(201)), "state"),
            (format!("{path}&state=%0A"), "state"),
            (format!("{path}&redirect_uri=x"), "redirect_uri"),
        ] {
            let answer = client.get(&altered).await;
            assert_eq!(answer.fields(), [field], "{altered}");
            answer.problem(400, "validation_error");
        }
        client.get(&start_path("oidc", REDIRECT, "")).await.problem(404, "not_found");
        client.get("/api/auth/oauth/oidc/callback?state=x").await.problem(404, "not_found");
    }

    async fn starts_and_callbacks_are_limited(target) {
        let app = github_app(target, NOWHERE, &[("RATE_LIMIT_PER_MINUTE", "2")]).await;
        let client = app.anonymous();
        let first = Browser::start(&client, "github").await;
        let last = Browser::start(&client, "github").await;
        let answer = client.get(&start_path("github", REDIRECT, "")).await;
        assert_eq!(answer.header("ratelimit-policy"), Some("\"oauth\";q=2;w=60"));
        answer.problem(429, "rate_limited");
        let back = async |browser: &Browser| {
            let state = parameter(&browser.page, "state").expect("a state");
            let callback = format!("{PUBLIC_URL}/api/auth/oauth/github/callback?code=x&state=");
            browser.back(&(callback + &state)).await
        };
        // What is not of this browser does not count.
        first.back_with("GET", &format!("{PUBLIC_URL}/api/auth/oauth/github/callback?state=x"), &[])
            .await
            .problem(400, "invalid_grant");
        // The last one can be completed.
        for browser in [&first, &last] {
            assert_eq!(error(&back(browser).await, 303), "temporarily_unavailable");
        }
        back(&last).await.problem(429, "rate_limited");
    }
}
