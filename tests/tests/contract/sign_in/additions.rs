//! A user who is logged in adds an identity of a provider.

use serde_json::json;
use todo_tests::{App, execute_sql, on_every_target, peers::OidcProvider};

use super::{
    CALLBACK, NOWHERE, PUBLIC_URL, REDIRECT, app, code, error, github_app, signed_in, text,
};
use crate::sign_in::Browser;

const LINK: &str = "/api/auth/oauth/oidc/link";
const GITHUB_LINK: &str = "/api/auth/oauth/github/link";
const COMPLETE: &str = "/api/auth/oauth/link";

/// A browser at the provider's page, for the user of `client`.
async fn begun(client: &todo_tests::Client) -> Browser {
    let body = json!({ "redirect_uri": REDIRECT, "state": "mine" });
    let page = client.post(LINK, body).await.expect(200);
    let page = text(&page, "url").to_owned();
    Browser { client: client.clone(), cookie: String::new(), page }
}

/// The code for the app of the user of `client`; the browser has no cookie.
async fn code_of(client: &todo_tests::Client, provider: &OidcProvider, login: &str) -> String {
    let browser = begun(client).await;
    let callback = provider.sign_in(&browser.page, login).await;
    code(&browser.back_with("GET", &callback, &[]).await)
}

async fn age_sessions(app: &App) {
    let interval = match app.target().database {
        todo_tests::Database::Sqlite => "601000000",
        todo_tests::Database::Postgres => "interval '601 seconds'",
    };
    let age = format!("UPDATE sessions SET created_at = created_at - {interval}");
    execute_sql(app.database_url(), &age).await;
}

on_every_target! {
    async fn a_user_adds_an_identity(target) {
        let provider = OidcProvider::start(&[CALLBACK]).await;
        let app = app(target, &provider, &[]).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let complete = async |actor: &todo_tests::Client, code: &str| {
            actor.post(COMPLETE, json!({ "code": code })).await
        };
        let code = code_of(&ann.client, &provider, "ada").await;
        // It is of use to the user who has begun it only.
        complete(&bob.client, &code).await.problem(400, "invalid_grant");
        app.anonymous().post(COMPLETE, json!({ "code": code })).await.problem(401, "unauthorized");
        let added = complete(&ann.client, &code).await.expect(201);
        assert_eq!(added["subject"], "ada");
        let auth = signed_in(&app.anonymous(), &provider, "ada").await;
        assert_eq!(auth["user"]["id"], ann.id());
        // A retry: the provider accepts its code once.
        complete(&ann.client, &code).await.problem(400, "invalid_grant");
        let again = code_of(&ann.client, &provider, "ada").await;
        assert_eq!(complete(&ann.client, &again).await.expect(201)["id"], added["id"]);
        let taken = code_of(&bob.client, &provider, "ada").await;
        complete(&bob.client, &taken).await.problem(409, "identity_taken");
        for nothing in ["", "x", &taken[1..]] {
            complete(&bob.client, nothing).await.problem(400, "invalid_grant");
        }

        let browser = begun(&bob.client).await;
        let declined = provider.decline(&browser.page).await;
        let answer = browser.back_with("GET", &declined, &[]).await;
        assert_eq!(error(&answer, 303), "access_denied");

        let late = code_of(&ann.client, &provider, "eve").await;
        age_sessions(&app).await;
        let body = json!({ "redirect_uri": REDIRECT });
        let stale = ann.post(LINK, body).await;
        stale.problem(403, "reauthentication_required");
        complete(&ann.client, &late).await.problem(403, "reauthentication_required");
    }

    async fn an_addition_checks_its_request(target) {
        let app = github_app(target, NOWHERE, &[]).await;
        let ann = app.signed_up().await;
        let body = json!({ "redirect_uri": REDIRECT });
        app.anonymous().post(GITHUB_LINK, body.clone()).await.problem(401, "unauthorized");
        ann.post(LINK, body.clone()).await.problem(404, "not_found");
        let answer = ann.post(GITHUB_LINK, json!({ "redirect_uri": PUBLIC_URL })).await;
        assert_eq!(answer.fields(), ["redirect_uri"]);
        answer.problem(400, "validation_error");
        ann.post(GITHUB_LINK, json!({})).await.problem(422, "malformed_body");
        ann.post(COMPLETE, json!({})).await.problem(422, "malformed_body");
        ann.send("POST", "/api/auth/logout", &[], "").await.expect(200);
        ann.post(GITHUB_LINK, body).await.problem(401, "unauthorized");
        ann.post(COMPLETE, json!({ "code": "x" })).await.problem(401, "unauthorized");
        ann.post(LINK, json!({})).await.problem(401, "unauthorized");
    }
}
