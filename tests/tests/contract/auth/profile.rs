//! `PATCH /api/auth/me`: the name of an account, its time zone, and whether it gets reminders.

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

    async fn a_time_zone_and_reminders_are_set_and_cleared(target) {
        let app = App::start(target).await;
        let ada = app.signed_up().await;
        let eve = app.signed_up().await;
        let others = eve.get(ME).await.expect(200);
        let mut expected = ada.get(ME).await.expect(200);
        let unset = (&json!(null), &json!(false));
        assert_eq!((&expected["time_zone"], &expected["reminder_mail"]), unset);

        // Each member changes itself alone; a name is spelled as in the database.
        for (change, time_zone, reminder_mail) in [
            (json!({"time_zone": "europe/BERLIN"}), json!("Europe/Berlin"), false),
            (json!({"reminder_mail": true}), json!("Europe/Berlin"), true),
            (json!({"time_zone": "Asia/Calcutta"}), json!("Asia/Calcutta"), true),
            (json!({"time_zone": null}), json!(null), true),
            (json!({"time_zone": "UTC", "reminder_mail": false}), json!("UTC"), false),
            (json!({}), json!("UTC"), false),
        ] {
            expected["time_zone"] = time_zone;
            expected["reminder_mail"] = json!(reminder_mail);
            assert_eq!(ada.patch(ME, change.clone()).await.expect(200), expected, "{change}");
            assert_eq!(ada.get(ME).await.expect(200), expected, "{change}");
        }
        let all = json!({"name": "Ada", "time_zone": "Etc/GMT+1", "reminder_mail": true});
        for (name, value) in all.as_object().expect("members") {
            expected[name] = value.clone();
        }
        assert_eq!(ada.patch(ME, all).await.expect(200), expected);

        // Every answer with a user has them.
        let login = json!({"email": ada.email(), "password": ada.password()});
        let session = app.anonymous().post("/api/auth/login", login).await.expect(200);
        assert_eq!(session["user"], expected);
        assert_eq!(ada.get("/api/auth/export").await.expect(200)["user"], expected);
        let change = json!({"current_password": ada.password(), "new_password": "Other2battery"});
        let changed = ada.post("/api/auth/password", change).await.expect(200);
        assert_eq!(changed["user"], expected);
        assert_eq!(eve.get(ME).await.expect(200), others);
    }

    async fn other_time_zones_and_types_are_rejected(target) {
        let app = App::start(target).await;
        let ada = app.signed_up().await;
        let before = ada.get(ME).await.expect(200);
        let long = "x".repeat(65);
        for (time_zone, code) in [
            ("", "too_short"),
            (&*long, "too_long"),
            ("Europe/Berlin\0", "nul"),
            (" Europe/Berlin", "invalid"),
            ("Mars/Olympus", "invalid"),
            ("+02:00", "invalid"),
        ] {
            // The name is valid, and is not changed.
            let change = json!({"name": "Eve", "time_zone": time_zone, "reminder_mail": true});
            let problem = ada.patch(ME, change).await;
            let body = problem.clone().problem(400, "validation_error");
            let detail = &body["details"][0];
            let found = (&detail["field"], &detail["pointer"], &detail["code"]);
            assert_eq!(found, (&json!("time_zone"), &json!("/time_zone"), &json!(code)), "{body}");
        }
        let null = ada.patch(ME, json!({"reminder_mail": null})).await;
        let null = null.problem(400, "validation_error");
        assert_eq!(null["details"][0]["code"], "null", "{null}");
        for change in [
            json!({"time_zone": 1}),
            json!({"time_zone": ["UTC"]}),
            json!({"reminder_mail": "true"}),
            json!({"reminder_mail": 1}),
        ] {
            ada.patch(ME, change).await.problem(422, "malformed_body");
        }
        assert_eq!(ada.get(ME).await.expect(200), before);
    }
}
