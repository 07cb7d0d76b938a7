//! The secret and the address of a webhook: only their owner gets the address, and nobody the
//! secret, which is returned once.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use todo_tests::{Actor, Client, PROGRAMS, Process, empty_dir, eventually, execute_sql};

use super::{PLANTED, assert_absent};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_of_a_webhook_is_not_shown() {
    for program in PROGRAMS {
        let dir = empty_dir();
        let database = format!("sqlite://{}", dir.path().join("todo.db").display());
        let settings = [("DATABASE_URL", &*database), ("LOG_LEVEL", "trace")];
        let process = Process::start(program, dir.path(), &settings).await;
        let client = Client::of(process.addr);
        let ann = Actor::sign_up(&client).await;
        let webhook = format!("/api/users/{}/webhook", ann.id());
        let secret = format!("whsec_{}", BASE64_STANDARD.encode(PLANTED));
        let address = |host: &str| format!("https://{host}/{PLANTED}?key={PLANTED}");
        // What is refused is not repeated.
        for body in [
            json!({"url": address("ann:x@h"), "secret": secret}),
            json!({"url": format!("https://{PLANTED}:{PLANTED}@h/")}),
            json!({"url": address("127.0.0.1")}),
            json!({"url": address("h"), "secret": PLANTED}),
            json!({"url": address("h"), "secret": [secret]}),
        ] {
            let refused = ann.put(&webhook, body).await;
            assert!([400, 422].contains(&refused.status), "{refused}");
            assert_absent(&refused.text(), PLANTED, program);
        }
        let set = json!({"url": address("localhost"), "secret": secret});
        assert_eq!(ann.put(&webhook, set).await.expect(200)["secret"], secret);
        let due = json!({"date": "2090-01-02", "time": "09:30", "time_zone": "UTC"});
        let todo = json!({"title": "a", "due": due, "reminders": [{"minutes_before": 0}]});
        ann.post(&ann.todos(), todo).await.expect(201);
        execute_sql(&database, "UPDATE reminders SET fire_at = 1").await;
        let failed = async || process.output().contains("a webhook did not receive a reminder");
        assert!(eventually(Duration::from_secs(30), failed).await, "{}", process.output());
        let mut read = ann.get(&webhook).await.expect(200);
        assert_eq!(read["url"], address("localhost"));
        assert!(read["last_failure"].is_string(), "{read}");
        read["url"].take();
        assert_absent(&read.to_string(), PLANTED, program);
        let metrics = client.get("/metrics").await.text();
        assert!(metrics.contains("webhook_deliveries_total"), "{metrics}");
        assert_absent(&metrics, PLANTED, program);
        ann.delete(&webhook).await.expect(200);
        let printed = process.stop().await;
        assert!(printed.contains("TRACE") || printed.contains("DEBUG"), "{printed}");
        assert_absent(&printed, PLANTED, program);
    }
}
