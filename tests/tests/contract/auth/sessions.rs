//! `/api/auth/sessions`: the list of a user's sessions, and their end.

use serde_json::{Value, json};
use todo_tests::{Actor, App, on_every_target};
use uuid::Uuid;

use super::{members, time};

const SESSIONS: &str = "/api/auth/sessions";

/// Logs the user in again, from a program with this `User-Agent`.
async fn log_in_as(app: &App, user: &Actor, user_agent: &str) -> Actor {
    let body = json!({"email": user.email(), "password": user.password()}).to_string();
    let headers = [("content-type", "application/json"), ("user-agent", user_agent)];
    let auth = app.anonymous().send("POST", "/api/auth/login", &headers, body).await.expect(200);
    Actor::of(&app.anonymous(), &auth, user.password())
}

async fn listed(user: &Actor) -> Vec<Value> {
    let list = user.get(SESSIONS).await.expect(200);
    list["sessions"].as_array().expect("a list").clone()
}

fn path_of(session: &Value) -> String {
    format!("{SESSIONS}/{}", session["id"].as_str().expect("an id"))
}

on_every_target! {
    async fn each_login_is_a_session_of_its_user(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let phone = log_in_as(&app, &ann, "Phone/1.0 (\u{85}\tZürich)").await;
        let long = log_in_as(&app, &ann, &"é".repeat(300)).await;
        let sessions = listed(&phone).await;
        assert_eq!(sessions.len(), 3);
        let names =
            ["id", "kind", "label", "client", "created_at", "seen_at", "expires_at", "current"];
        for session in &sessions {
            assert_eq!(members(session), names.into());
            assert_eq!((&session["kind"], &session["client"]), (&json!("password"), &json!("127.0.0.1")));
            assert!(time(&session["seen_at"]) >= time(&session["created_at"]));
            assert!(time(&session["expires_at"]) > time(&session["seen_at"]));
        }
        // The newest first.
        assert_eq!(sessions[0]["label"], "é".repeat(200), "at most 200 characters");
        assert_eq!(sessions[1]["label"], "Phone/1.0 (Zürich)", "without control characters");
        assert_eq!(sessions[2]["label"], json!(null), "the client of the test sends none");
        let current: Vec<&Value> = sessions.iter().map(|session| &session["current"]).collect();
        assert_eq!(current, [false, true, false]);
        assert_eq!(listed(&long).await[0]["current"], true);
        assert_eq!(listed(&bob).await.len(), 1, "bob sees only his own");
        app.anonymous().get(SESSIONS).await.problem(401, "unauthorized");
    }

    async fn an_ended_session_is_rejected_on_every_replica(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let phone = log_in_as(&app, &ann, "phone").await;
        let there = phone.at(&replica.anonymous());
        there.get(SESSIONS).await.expect(200);
        let session = listed(&phone).await[0].clone();
        assert_eq!(session["label"], "phone");
        bob.delete(&path_of(&session)).await.problem(404, "not_found");
        there.get(SESSIONS).await.expect(200);

        let message = json!({"message": "Session ended successfully"});
        assert_eq!(ann.delete(&path_of(&session)).await.expect(200), message);
        there.get(SESSIONS).await.problem(401, "unauthorized");
        phone.delete(&path_of(&session)).await.problem(401, "unauthorized");
        for unknown in [session, json!({"id": Uuid::now_v7()}), json!({"id": "1"})] {
            let problem = ann.delete(&path_of(&unknown)).await.problem(404, "not_found");
            assert_eq!(problem["detail"], "There is no such session.");
            // An ended session comes first.
            phone.delete(&path_of(&unknown)).await.problem(401, "unauthorized");
        }
        // A user may end the session of the request.
        let own = listed(&ann).await[0].clone();
        ann.delete(&path_of(&own)).await.expect(200);
        ann.get(SESSIONS).await.problem(401, "unauthorized");
        replica.stop().await.expect("a clean stop");
    }

    async fn all_other_sessions_end(target) {
        let app = App::start(target).await;
        let replica = app.replica().await;
        let ann = app.signed_up().await;
        let bob = app.signed_up().await;
        let (phone, tablet) = (log_in_as(&app, &ann, "phone").await, log_in_as(&app, &ann, "t").await);
        phone.at(&replica.anonymous()).get(SESSIONS).await.expect(200);
        assert_eq!(tablet.delete(SESSIONS).await.expect(200), json!({"ended": 2}));
        for ended in [&ann, &phone] {
            ended.get(SESSIONS).await.problem(401, "unauthorized");
            ended.at(&replica.anonymous()).get(SESSIONS).await.problem(401, "unauthorized");
            ended.delete(SESSIONS).await.problem(401, "unauthorized");
        }
        assert_eq!(tablet.delete(SESSIONS).await.expect(200), json!({"ended": 0}));
        assert_eq!(listed(&tablet).await.len(), 1);
        assert_eq!(listed(&bob).await.len(), 1);
        replica.stop().await.expect("a clean stop");
    }

    async fn a_session_that_ends_ends_its_streams(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let phone = log_in_as(&app, &ann, "phone").await;
        let events = format!("/api/users/{}/events", ann.id());
        let stream = tokio::spawn({
            let phone = phone.clone();
            async move { phone.get(&events).await }
        });
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(!stream.is_finished());
        assert_eq!(ann.delete(SESSIONS).await.expect(200), json!({"ended": 1}));
        let ended = tokio::time::timeout(std::time::Duration::from_secs(3), stream).await;
        let answer = ended.expect("it ends in time").expect("no panic");
        let text = String::from_utf8(answer.body.clone()).expect("text");
        assert!(text.contains("session_ended"), "{text}");
    }
}
