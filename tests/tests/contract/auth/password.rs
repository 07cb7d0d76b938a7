//! `POST /api/auth/password`: a user who knows the password changes it.

use serde_json::{Value, json};
use todo_tests::{Actor, App, TestResponse, on_every_target};

use super::{log_in, members};

const CHANGE: &str = "/api/auth/password";
const ME: &str = "/api/auth/me";
const NEW: &str = "Other2battery";

async fn change(user: &Actor, current: &str, new: &str) -> TestResponse {
    user.post(CHANGE, json!({"current_password": current, "new_password": new})).await
}

on_every_target! {
    async fn a_new_password_ends_all_sessions_and_begins_one(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let client = app.anonymous();
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let again = log_in(&client, ann.email(), ann.password()).await.expect(200);
        let phone = Actor::of(&client, &again, ann.password());
        let before = ann.get(ME).await.expect(200);

        let answer = change(&ann, ann.password(), NEW).await;
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
        let auth = answer.expect(200);
        assert_eq!(members(&auth), members(&again));
        assert_eq!(auth["user"], before);
        let renewed = Actor::of(&client, &auth, NEW);
        for ended in [&ann, &phone] {
            ended.get(ME).await.problem(401, "unauthorized");
            ended.at(&replica.anonymous()).get(ME).await.problem(401, "unauthorized");
        }
        assert_eq!(renewed.at(&replica.anonymous()).get(ME).await.expect(200), before);
        log_in(&client, ann.email(), ann.password()).await.problem(401, "invalid_credentials");
        log_in(&client, ann.email(), NEW).await.expect(200);
        bob.get(ME).await.expect(200);
        log_in(&client, bob.email(), bob.password()).await.expect(200);
        // The same password again is a change like any other.
        change(&renewed, NEW, NEW).await.expect(200);
        renewed.get(ME).await.problem(401, "unauthorized");
        replica.stop().await.expect("a clean stop");
    }

    async fn a_rejected_change_changes_nothing(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        change(&ann, "Wrong1horse", NEW).await.problem(401, "invalid_credentials");
        // The rules of a new password are not those of the present one.
        change(&ann, "x", NEW).await.problem(401, "invalid_credentials");
        let problem = change(&ann, ann.password(), "short").await.problem(400, "validation_error");
        for detail in problem["details"].as_array().expect("details") {
            assert_eq!(detail["field"], "new_password", "{problem}");
            assert_eq!(detail["pointer"], "/new_password", "{problem}");
        }
        let common = change(&ann, ann.password(), "Password1!").await.problem(400, "validation_error");
        assert_eq!(common["details"][0]["field"], "new_password", "{common}");
        assert_eq!(common["details"][0]["code"], "common", "{common}");
        let nul = change(&ann, "a\u{0}", NEW).await.problem(400, "validation_error");
        assert_eq!(nul["details"][0]["field"], "current_password", "{nul}");
        let missing = ann.post(CHANGE, json!({})).await.problem(422, "malformed_body");
        let fields: Vec<&Value> =
            missing["details"].as_array().expect("details").iter().map(|d| &d["field"]).collect();
        assert_eq!(fields, ["current_password", "new_password"]);
        let flag = json!({"current_password": "x", "new_password": NEW, "end_keys": 1});
        ann.post(CHANGE, flag).await.problem(422, "malformed_body");
        let form = json!({"current_password": ann.password(), "new_password": NEW});
        app.anonymous().post(CHANGE, form).await.problem(401, "unauthorized");
        ann.get(ME).await.expect(200);
        log_in(&app.anonymous(), ann.email(), ann.password()).await.expect(200);
    }

    async fn wrong_passwords_count_for_the_client_and_for_the_user(target) {
        let settings = [("RATE_LIMIT_PER_MINUTE", "5"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
        let app = App::start_with(target, &settings).await;
        let ann = app.signed_up().await;
        let from = async |user: &Actor, address: &str, current: &str| {
            let body = json!({"current_password": current, "new_password": NEW}).to_string();
            let headers = [("content-type", "application/json"), ("x-forwarded-for", address)];
            user.send("POST", CHANGE, &headers, body).await
        };
        // A stolen token cannot guess from many addresses.
        for n in 1..=5 {
            let answer = from(&ann, &format!("192.0.2.{n}"), "Wrong1horse").await;
            assert!(answer.header("ratelimit").is_some_and(|limit| limit.contains("r=4")), "{answer}");
            answer.problem(401, "invalid_credentials");
        }
        let answer = from(&ann, "192.0.2.6", ann.password()).await;
        let wait = answer.header("retry-after").and_then(|wait| wait.parse::<u64>().ok());
        assert!(wait.is_some_and(|wait| (1..=60).contains(&wait)), "{answer}");
        answer.problem(429, "rate_limited");
        // One address cannot guess the passwords of many users. Logins count with it.
        for n in 0..5 {
            let client = app.anonymous();
            let headers = [("content-type", "application/json"), ("x-forwarded-for", "192.0.2.77")];
            if n < 3 {
                let body = json!({"email": ann.email(), "password": "Wrong1horse"}).to_string();
                let failed = client.send("POST", "/api/auth/login", &headers, body).await;
                failed.problem(401, "invalid_credentials");
            } else {
                let bob = app.signed_up().await;
                from(&bob, "192.0.2.77", "Wrong1horse").await.problem(401, "invalid_credentials");
            }
        }
        let eve = app.signed_up().await;
        from(&eve, "192.0.2.77", eve.password()).await.problem(429, "rate_limited");
        // A right password costs nothing.
        let mut user = eve;
        for n in 0..12 {
            let auth = from(&user, "192.0.2.78", user.password()).await.expect(200);
            user = Actor::of(&app.anonymous(), &auth, NEW);
            assert!(user.get(ME).await.status == 200, "change {n}");
        }
    }
}
