//! `PATCH /api/auth/me`: the name of an account.

use serde_json::json;
use todo_tests::{App, on_every_target};

const ME: &str = "/api/auth/me";

on_every_target! {
    async fn a_name_is_changed_for_its_account_alone(target) {
        let app = App::start(target).await;
        let ada = app.signed_up().await;
        let eve = app.signed_up().await;
        let before = ada.get(ME).await.expect(200);
        let others = eve.get(ME).await.expect(200);
        let todo = ada.todo("unchanged").await;

        let answer = ada.patch(ME, json!({"name": " Ada King\u{a0}", "email": "x@example.com"})).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        let mut expected = before.clone();
        expected["name"] = json!("Ada King");
        assert_eq!(answer.expect(200), expected, "trimmed, and nothing else changes");
        assert_eq!(ada.get(ME).await.expect(200), expected);
        assert_eq!(eve.get(ME).await.expect(200), others);
        let path = format!("{}/{}", ada.todos(), todo["id"].as_str().expect("an id"));
        assert_eq!(ada.get(&path).await.expect(200), todo);

        // A login returns it, and an absent member changes nothing.
        let login = json!({"email": ada.email(), "password": ada.password()});
        let session = app.anonymous().post("/api/auth/login", login).await.expect(200);
        assert_eq!(session["user"], expected);
        assert_eq!(ada.patch(ME, json!({})).await.expect(200), expected);
    }

    async fn a_name_follows_the_rules_of_signup(target) {
        let app = App::start(target).await;
        let ada = app.signed_up().await;
        let before = ada.get(ME).await.expect(200);
        let long = "x".repeat(101);
        for (name, code) in [
            (json!(""), "too_short"),
            (json!(" x "), "too_short"),
            (json!(long), "too_long"),
            (json!("a\u{7}b"), "control"),
            (json!("a\0b"), "nul"),
            (json!(null), "null"),
        ] {
            let problem = ada.patch(ME, json!({"name": name})).await;
            let body = problem.clone().problem(400, "validation_error");
            let detail = &body["details"][0];
            assert_eq!((&detail["field"], &detail["pointer"]), (&json!("name"), &json!("/name")));
            assert_eq!(detail["code"], code, "{problem}");
        }
        ada.patch(ME, json!({"name": 7})).await.problem(422, "malformed_body");
        ada.patch(ME, json!([])).await.problem(422, "malformed_body");
        ada.send("PATCH", ME, &[], "{}").await.problem(415, "unsupported_media_type");
        assert_eq!(ada.get(ME).await.expect(200), before);
    }

    async fn a_name_is_changed_with_a_live_session_only(target) {
        let app = App::start(target).await;
        let ada = app.signed_up().await;
        let name = json!({"name": "Eve"});
        app.anonymous().patch(ME, name.clone()).await.problem(401, "unauthorized");
        ada.send("POST", "/api/auth/logout", &[], "").await.expect(200);
        ada.patch(ME, name).await.problem(401, "unauthorized");
        ada.patch(ME, json!({"name": ""})).await.problem(401, "unauthorized");
        let login = json!({"email": ada.email(), "password": ada.password()});
        let session = app.anonymous().post("/api/auth/login", login).await.expect(200);
        assert_ne!(session["user"]["name"], "Eve");
    }
}
