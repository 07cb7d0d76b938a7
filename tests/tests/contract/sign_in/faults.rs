//! A provider that answers what it must not, or not at all. Servers and databases do not matter
//! here.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use todo_tests::{
    Database, Server, Target, TestResponse, at_once,
    peers::{CLIENT_ID, OidcProvider},
};

use super::{Browser, CALLBACK, REDIRECT, VERIFIER, app, error, exchange, start_path, text};

const TARGET: Target = Target { server: Server::Hyper, database: Database::Sqlite };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_id_token_signs_nobody_in() {
    let provider = OidcProvider::start(&[CALLBACK]).await;
    let app = app(TARGET, &provider, &[]).await;
    let client = app.anonymous();
    let end = async |fault: Value| -> TestResponse {
        provider.control(fault).await;
        let browser = Browser::start(&client, "oidc").await;
        let callback = provider.sign_in(&browser.page, "ada").await;
        browser.back(&callback).await
    };
    for claims in [
        json!({ "nonce": "other" }),
        json!({ "nonce": null }),
        json!({ "aud": "other" }),
        json!({ "aud": [CLIENT_ID, "other"] }),
        json!({ "aud": [CLIENT_ID, "other"], "azp": "other" }),
        json!({ "azp": "other" }),
        json!({ "exp": 1 }),
        json!({ "iss": "https://other.example" }),
        json!({ "sub": null }),
        json!({ "sub": "x".repeat(256) }),
    ] {
        let answer = end(json!({ "claims": claims })).await;
        assert_eq!(answer.header("location"), None, "{claims}");
        answer.problem(400, "invalid_grant");
    }
    end(json!({ "header": { "typ": "logout+jwt" } })).await.problem(400, "invalid_grant");
    // The control.
    super::code(&end(json!({ "claims": { "aud": [CLIENT_ID, "other"], "azp": CLIENT_ID } })).await);
    // An address from the user info, which the ID token lacks.
    let code = super::code(&end(json!({ "userinfo": true })).await);
    let auth = exchange(&client, &code, VERIFIER).await.expect(200);
    assert_eq!(text(&auth["user"], "email"), "ada@example.com");
    provider.control(json!({})).await;

    // Another provider's redirect (RFC 9207).
    let browser = Browser::start(&client, "oidc").await;
    let callback = provider.sign_in(&browser.page, "ada").await;
    let issuer = provider.issuer();
    let encoded = url::form_urlencoded::byte_serialize(issuer.as_bytes());
    let issuer = format!("iss={}", encoded.collect::<String>());
    assert!(callback.contains(&issuer), "{callback}");
    for altered in ["iss=https%3A%2F%2Fother.example", "no=iss"] {
        let answer = browser.back(&callback.replace(&issuer, altered)).await;
        answer.problem(400, "invalid_grant");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_returns_to_the_app_without_the_words_of_the_provider() {
    let provider = OidcProvider::start(&[CALLBACK]).await;
    let app = app(TARGET, &provider, &[]).await;
    let browser = Browser::start(&app.anonymous(), "oidc").await;
    let declined = provider.decline(&browser.page).await;
    assert!(declined.contains("error_description="), "{declined}");
    let answer = browser.back(&declined).await;
    assert_eq!(error(&answer, 303), "access_denied");
    for (given, expected) in [
        ("server_error", "temporarily_unavailable"),
        ("login_required", "access_denied"),
        ("%3Cscript%3E", "temporarily_unavailable"),
    ] {
        let answer = browser.back(&declined.replace("access_denied", given)).await;
        assert_eq!(error(&answer, 303), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_does_not_answer_holds_nothing_else_up() {
    let provider = OidcProvider::start(&[CALLBACK]).await;
    let app = app(TARGET, &provider, &[]).await;
    let client = app.anonymous();
    provider.control(json!({ "down": [""], "how": "error" })).await;
    let start = start_path("oidc", REDIRECT, "&state=mine");
    assert_eq!(error(&client.get(&start).await, 302), "temporarily_unavailable");
    provider.control(json!({})).await;
    // It is asked again a few seconds later.
    let begins = async || client.get(&start).await.header("set-cookie").is_some();
    assert!(todo_tests::eventually(Duration::from_secs(30), begins).await);
    let browsers = at_once(20, |_| {
        let client = client.clone();
        async move { Browser::start(&client, "oidc").await }
    })
    .await;
    let mut callbacks = Vec::new();
    for browser in &browsers {
        callbacks.push(provider.sign_in(&browser.page, "ada").await);
    }
    for down in ["error", "cut"] {
        provider.control(json!({ "down": ["/token"], "how": down })).await;
        let answer = browsers[0].back(&callbacks[0]).await;
        assert_eq!(error(&answer, 303), "temporarily_unavailable", "{down}");
    }
    provider.control(json!({})).await;
    provider.freeze();
    let others = async {
        // No request waits for the provider's 5 seconds.
        let begun = Instant::now();
        for _ in 0..5 {
            app.signed_up().await.get("/api/auth/me").await.expect(200);
        }
        begun.elapsed()
    };
    let returning = at_once(20, |at| {
        let browser = browsers[at].clone();
        let callback = callbacks[at].clone();
        async move { error(&browser.back(&callback).await, 303) }
    });
    let begun = Instant::now();
    let (errors, others) = tokio::join!(returning, others);
    assert!(errors.iter().all(|error| error == "temporarily_unavailable"), "{errors:?}");
    assert!(others < begun.elapsed(), "{others:?}");
    provider.thaw();
}
