//! The webhook of a user: its routes, its rules, and when it is off. What it receives is tested in
//! `library`, with a client that may connect to the test.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use todo_tests::{Actor, App, Database, count_rows, eventually, execute_sql, on_every_target};

use crate::{reminders::make_due, text};

const URL: &str = "https://hooks.example.com/todo?key=1";

fn path(owner: &Actor) -> String {
    format!("/api/users/{}/webhook", owner.id())
}

/// The secret of this number of bytes.
fn secret(bytes: usize) -> String {
    format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]))
}

fn without_secret(webhook: &Value) -> Value {
    let mut webhook = webhook.clone();
    webhook.as_object_mut().expect("members").remove("secret").expect("a secret");
    webhook
}

on_every_target! {
    async fn a_webhook_is_set_read_and_deleted(target) {
        let app = App::start(target).await;
        let (ann, bob) = (app.signed_up().await, app.signed_up().await);
        let mine = path(&ann);
        ann.get(&mine).await.problem(404, "not_found");
        ann.delete(&mine).await.problem(404, "not_found");
        let first = ann.put(&mine, json!({"url": URL})).await.expect(200);
        let generated = text(&first, "secret").strip_prefix("whsec_").expect("whsec_").to_owned();
        assert_eq!(BASE64_STANDARD.decode(&generated).expect("base64").len(), 32);
        let created_at = first["created_at"].clone();
        assert_eq!(without_secret(&first), json!({
            "url": URL, "state": "active", "created_at": created_at, "last_success_at": null,
            "last_failure_at": null, "last_failure": null, "failing_since": null,
        }));
        // No other answer has the secret.
        let read = ann.get(&mine).await;
        assert!(!read.text().contains(&generated), "{read}");
        assert_eq!(read.expect(200), without_secret(&first));
        let exported = ann.get("/api/auth/export").await;
        assert!(exported.status == 200 && !exported.text().contains(&generated), "{exported}");
        // Another one in its place, and one of the caller's own.
        let second = ann.put(&mine, json!({"url": URL})).await.expect(200);
        assert_ne!(second["secret"], first["secret"]);
        assert!(second["created_at"].as_str() > first["created_at"].as_str());
        for bytes in [24, 64] {
            let own = json!({"url": "https://1.1.1.1:8443", "secret": secret(bytes)});
            let own = ann.put(&mine, own).await.expect(200);
            let expected = (&json!("https://1.1.1.1:8443/"), &json!(secret(bytes)));
            assert_eq!((&own["url"], &own["secret"]), expected);
        }
        bob.get(&mine).await.problem(403, "forbidden");
        bob.delete(&mine).await.problem(403, "forbidden");
        bob.put(&mine, json!({"url": URL})).await.problem(403, "forbidden");
        bob.get(&path(&bob)).await.problem(404, "not_found");
        app.anonymous().get(&mine).await.problem(401, "unauthorized");
        let deleted = ann.delete(&mine).await.expect(200);
        assert_eq!(deleted, json!({"message": "Webhook deleted successfully"}));
        ann.get(&mine).await.problem(404, "not_found");
        ann.post("/api/auth/logout", Value::Null).await.expect(200);
        ann.put(&mine, json!({"url": URL})).await.problem(401, "unauthorized");
    }

    async fn each_rule_of_a_webhook_is_reported(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann);
        let before = ann.put(&mine, json!({"url": URL})).await.expect(200);
        let long = format!("https://a.example/{}", "x".repeat(2000));
        for (url, code) in [
            ("", "invalid"),
            ("/hook", "invalid"),
            ("http://a.example/", "invalid"),
            ("ftp://a.example/", "invalid"),
            ("https://ann@a.example/", "invalid"),
            ("https://ann:hush@a.example/", "invalid"),
            ("https://a.example/#part", "invalid"),
            (&*long, "too_long"),
            ("https://127.0.0.1/", "not_public"),
            ("https://127.1:8443/", "not_public"),
            ("https://2130706433/", "not_public"),
            ("https://10.0.0.1/", "not_public"),
            ("https://172.16.0.1/", "not_public"),
            ("https://192.168.0.1/", "not_public"),
            ("https://169.254.169.254/latest/meta-data", "not_public"),
            ("https://0.0.0.0/", "not_public"),
            ("https://[::1]/", "not_public"),
            ("https://[::ffff:10.0.0.1]/", "not_public"),
            ("https://[fd00:ec2::254]/", "not_public"),
            ("https://[fe80::1]/", "not_public"),
        ] {
            let refused = ann.put(&mine, json!({"url": url})).await;
            assert_eq!((refused.status, refused.details("code")), (400, vec![code.to_owned()]), "{url}");
            assert_eq!(refused.fields(), ["url"]);
        }
        let long = secret(32).to_uppercase();
        for bad in ["", "whsec_", "hush", "whsec_!!!!", &secret(23), &secret(65), &secret(32)[6..], &long] {
            let refused = ann.put(&mine, json!({"url": URL, "secret": bad})).await;
            assert_eq!((refused.status, refused.fields()), (400, vec!["secret".to_owned()]), "{bad}");
            assert!(bad.is_empty() || bad == "whsec_" || !refused.text().contains(bad), "{refused}");
        }
        let both = ann.put(&mine, json!({"url": "x", "secret": "y"})).await;
        assert_eq!((both.status, both.fields()), (400, vec!["url".to_owned(), "secret".to_owned()]));
        for shape in [json!({}), json!({"url": null}), json!({"url": 5}), json!({"url": URL, "secret": 5}), json!({"url": URL, "secret": null})] {
            let refused = ann.put(&mine, shape).await;
            assert_eq!(refused.status, 422, "{refused}");
        }
        assert_eq!(ann.get(&mine).await.expect(200), without_secret(&before));
    }

    /// Its name has a loopback address, which is found only when a reminder is sent.
    async fn a_webhook_that_has_failed_for_a_day_is_off_until_it_is_set(target) {
        let app = App::start(target).await;
        let ann = app.signed_up().await;
        let mine = path(&ann);
        ann.put(&mine, json!({"url": "https://localhost/"})).await.expect(200);
        let due = json!({"date": "2090-01-02", "time": "09:30", "time_zone": "UTC"});
        let todo = json!({"title": "a", "due": due, "reminders": [{"minutes_before": 0}]});
        ann.post(&ann.todos(), todo.clone()).await.expect(201);
        make_due(&app, target, 0, 0).await;
        let failed = async || ann.get(&mine).await.expect(200)["last_failure_at"].is_string();
        assert!(eventually(Duration::from_secs(30), failed).await);
        let webhook = ann.get(&mine).await.expect(200);
        assert_eq!(webhook["state"], "active");
        assert_eq!(webhook["last_failure"], "the address of the host is not public");
        assert_eq!(webhook["failing_since"], webhook["last_failure_at"]);
        // A day passes.
        let day = match target.database {
            Database::Sqlite => "86400000000",
            Database::Postgres => "interval '1 day'",
        };
        let url = app.database_url();
        execute_sql(url, &format!("UPDATE webhooks SET failing_since = failing_since - {day}")).await;
        let earlier = format!("UPDATE webhook_deliveries SET next_attempt_at = next_attempt_at - {day}");
        execute_sql(url, &earlier).await;
        let off = async || ann.get(&mine).await.expect(200)["state"] == "off";
        assert!(eventually(Duration::from_secs(30), off).await);
        let queued = "SELECT count(*) FROM webhook_deliveries";
        let emptied = async || count_rows(url, queued).await == 0;
        assert!(eventually(Duration::from_secs(30), emptied).await);
        let set = ann.put(&mine, json!({"url": URL})).await.expect(200);
        assert_eq!((&set["state"], &set["failing_since"]), (&json!("active"), &Value::Null));
        assert_eq!(ann.get(&mine).await.expect(200), without_secret(&set));
    }
}
