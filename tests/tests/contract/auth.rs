//! Accounts and sessions: the responses and the effects of signup, login, me and logout.

mod bodies;
mod gone;
mod keys;
mod legacy;
mod password;
mod profile;
mod rules;
mod sessions;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use todo_tests::{Actor, App, Client, TestResponse, at_once, on_every_target, unique_email};

const PASSWORD: &str = "Correct1horse";

fn account(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password, "name": "Grace Hopper" })
}

async fn sign_up(client: &Client, email: &str, password: &str) -> TestResponse {
    client.post("/api/auth/signup", account(email, password)).await
}

async fn log_in(client: &Client, email: &str, password: &str) -> TestResponse {
    client.post("/api/auth/login", json!({ "email": email, "password": password })).await
}

async fn log_out(actor: &Actor) {
    let done = actor.send("POST", "/api/auth/logout", &[], "").await.expect(200);
    assert_eq!(done, json!({ "message": "Successfully logged out" }));
}

fn members(object: &Value) -> BTreeSet<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().expect("a timestamp");
    assert!(text.ends_with('Z'), "{text}");
    assert!(text.split('.').nth(1).is_none_or(|part| part.len() <= 7), "{text}");
    text.parse().expect(text)
}

/// The user in an auth object; asserts the exact shape of both.
fn auth_object(answer: TestResponse, status: u16) -> Value {
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer}");
    let auth = answer.expect(status);
    let shape = ["access_token", "expires_at", "token", "token_type", "user"];
    assert_eq!(members(&auth), BTreeSet::from(shape), "{auth}");
    assert_eq!(auth["token"], auth["access_token"]);
    assert_eq!(auth["token_type"], "bearer");
    let days = time(&auth["expires_at"]) - Utc::now();
    let week = TimeDelta::days(7);
    assert!((days - week).abs() < TimeDelta::minutes(5), "a week from now: {auth}");
    user_object(&auth["user"]);
    auth["user"].clone()
}

fn user_object(user: &Value) {
    let names =
        ["created_at", "email", "email_verified", "id", "name", "reminder_mail", "time_zone"];
    assert_eq!(members(user), names.into(), "{user}");
    assert_eq!(user["email_verified"], false, "{user}");
    assert_eq!((&user["time_zone"], &user["reminder_mail"]), (&json!(null), &json!(false)));
    let id: uuid::Uuid = user["id"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(id.get_version_num(), 7, "{user}");
    assert!((Utc::now() - time(&user["created_at"])).abs() < TimeDelta::minutes(5), "{user}");
}

on_every_target! {
    async fn signup_returns_the_user_and_a_token_that_works(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let email = unique_email();
        let answer = sign_up(&client, &email, PASSWORD).await;
        for secret in [PASSWORD, "argon2", "password"] {
            assert!(!answer.text().contains(secret), "{secret} in {answer}");
        }
        let user = auth_object(answer.clone(), 201);
        assert_eq!((&user["email"], &user["name"]), (&json!(email), &json!("Grace Hopper")));

        let actor = Actor::of(&client, &answer.json(), PASSWORD);
        assert_eq!(actor.get("/api/auth/me").await.expect(200), user);
        actor.todo("a first one").await;
    }

    async fn login_returns_the_same_user_and_a_new_session(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let me = actor.get("/api/auth/me").await.expect(200);
        let answer = log_in(&app.anonymous(), actor.email(), actor.password()).await;
        assert_eq!(auth_object(answer.clone(), 200), me);
        assert!(!answer.text().contains("argon2"), "{answer}");
        assert_ne!(answer.json()["token"], actor.token());
    }

    async fn login_accepts_the_address_in_any_letter_case_and_between_spaces(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        for email in [actor.email().to_uppercase(), format!(" {}\t", actor.email())] {
            log_in(&client, &email, actor.password()).await.expect(200);
        }
    }

    async fn me_is_the_user_of_the_token_and_is_not_cacheable(target) {
        let app = App::start(target).await;
        let (ada, eve) = (app.signed_up().await, app.signed_up().await);
        for actor in [&ada, &eve] {
            let answer = actor.get("/api/auth/me").await;
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
            let user = answer.expect(200);
            user_object(&user);
            assert_eq!((&user["id"], &user["email"]), (&json!(actor.id()), &json!(actor.email())));
        }
    }

    async fn me_and_logout_need_a_token(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        client.get("/api/auth/me").await.problem(401, "unauthorized");
        client.send("POST", "/api/auth/logout", &[], "").await.problem(401, "unauthorized");
    }

    async fn logout_revokes_this_token_and_no_other(target) {
        let app = App::start(target).await;
        let first = app.signed_up().await;
        let auth = log_in(&app.anonymous(), first.email(), first.password()).await.expect(200);
        let second = Actor::of(&app.anonymous(), &auth, PASSWORD);
        let bystander = app.signed_up().await;

        log_out(&first).await;
        first.get("/api/auth/me").await.problem(401, "unauthorized");
        first.get(&first.todos()).await.problem(401, "unauthorized");
        first.post(&first.todos(), json!({ "title": "late" })).await.problem(401, "unauthorized");
        let again = first.send("POST", "/api/auth/logout", &[], "").await;
        assert!(again.header("www-authenticate").is_some(), "{again}");
        again.problem(401, "unauthorized");

        second.get("/api/auth/me").await.expect(200);
        bystander.get("/api/auth/me").await.expect(200);
        assert_eq!(second.get(&second.todos()).await.expect(200)["total"], 0);
        log_in(&app.anonymous(), first.email(), first.password()).await.expect(200);
    }

    async fn a_logout_applies_on_another_replica_from_its_next_request(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let actor = app.signed_up().await;
        for (here, there) in [(&app, &replica), (&replica, &app)].repeat(5) {
            let client = here.anonymous();
            let auth = log_in(&client, actor.email(), actor.password()).await.expect(200);
            let session = Actor::of(&client, &auth, PASSWORD);
            let elsewhere = there.anonymous().bearing(session.token());
            // Used there first, so that a cache of valid sessions would be detected.
            elsewhere.get("/api/auth/me").await.expect(200);
            elsewhere.get(&session.todos()).await.expect(200);
            log_out(&session).await;
            elsewhere.get(&session.todos()).await.problem(401, "unauthorized");
            elsewhere.get("/api/auth/me").await.problem(401, "unauthorized");
            let late = elsewhere.post(&session.todos(), json!({ "title": "late" })).await;
            late.problem(401, "unauthorized");
        }
    }

    async fn an_address_is_taken_in_any_letter_case(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        let email = actor.email().to_owned();
        for taken in [email.clone(), email.to_uppercase(), format!("  {email} ")] {
            let answer = sign_up(&client, &taken, "Another1password").await;
            assert!(!answer.text().contains(&email), "{answer}");
            answer.problem(409, "email_taken");
        }
        log_in(&client, &email, actor.password()).await.expect(200);
        log_in(&client, &email, "Another1password").await.problem(401, "invalid_credentials");
    }

    async fn forty_concurrent_signups_of_one_address_create_one_user(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let email = unique_email();
        let answers = at_once(40, |i| {
            let client = if i % 2 == 0 { app.anonymous() } else { replica.anonymous() };
            let email = if i % 3 == 0 { email.to_uppercase() } else { email.clone() };
            let password = format!("Correct{i}horse");
            async move { (sign_up(&client, &email, &password).await, password) }
        })
        .await;
        let (made, rejected): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(answer, _)| answer.status == 201);
        let [(_, password)] = &made[..] else { panic!("{} users: {made:?}", made.len()) };
        for (answer, password) in rejected {
            answer.problem(409, "email_taken");
            let denied = log_in(&app.anonymous(), &email, &password).await;
            denied.problem(401, "invalid_credentials");
        }
        log_in(&app.anonymous(), &email, password).await.expect(200);
    }

    async fn a_wrong_password_and_an_unknown_address_get_the_same_response(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        let wrong = log_in(&client, actor.email(), "Wrong1password").await;
        let unknown = log_in(&client, &unique_email(), "Wrong1password").await;

        let names = |answer: &TestResponse| -> Vec<(String, String)> {
            let fields = answer.headers.iter().map(|(name, value)| {
                let varies = name == "x-request-id" || name == "date";
                let value = if varies { "" } else { value.to_str().unwrap_or_default() };
                (name.to_string(), value.to_owned())
            });
            fields.collect()
        };
        assert_eq!(names(&wrong), names(&unknown));
        let shown = |answer: TestResponse| {
            let mut problem = answer.problem(401, "invalid_credentials");
            problem["request_id"].take();
            problem
        };
        assert_eq!(shown(wrong), shown(unknown));
    }

    /// Counts hashes; unit tests of the hashing code check that their cost is the same.
    async fn an_unknown_address_costs_a_hash_too(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        let mut hashes = Vec::new();
        for email in [actor.email().to_owned(), unique_email()] {
            let before = hashed(&client).await;
            log_in(&client, &email, "Wrong1password").await.problem(401, "invalid_credentials");
            hashes.push(hashed(&client).await - before);
        }
        assert_eq!(hashes, [1, 1], "for a known address and for an unknown one");
    }
}

/// The number of passwords hashed by the server.
async fn hashed(client: &Client) -> u64 {
    let metrics = String::from_utf8(client.get("/metrics").await.body).expect("text");
    let count = metrics.lines().find_map(|line| line.strip_prefix("password_hashes_total "));
    count.expect("a count of hashes").parse().expect("a number")
}
