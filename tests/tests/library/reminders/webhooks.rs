//! Webhooks on both databases: their requests, their failures and their end.

use std::{
    collections::BTreeSet,
    process::Stdio,
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use todo_core::{
    Core, Error, todos,
    webhooks::{self, HttpRequest, WebhookState},
};
use todo_tests::{Database, at_once};

use super::processes::{Follower, Processes, at, instant};

fn header(request: &HttpRequest, name: &str) -> String {
    let found = request.headers().find(|(other, _)| *other == name);
    found.unwrap_or_else(|| panic!("no {name}")).1.to_owned()
}

/// What a receiver does by the specification, with libraries of its own.
fn verified(request: &HttpRequest, secret: &str) -> serde_json::Value {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use hmac::{Hmac, KeyInit, Mac};

    let header = |name| header(request, name);
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").expect("whsec_"));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key.expect("base64")).expect("a key");
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(request.body());
    let signature = header("webhook-signature");
    let signature = BASE64_STANDARD.decode(signature.strip_prefix("v1,").expect("v1"));
    mac.verify_slice(&signature.expect("base64")).expect("the signature is valid");
    assert_eq!((request.method(), header("content-type").as_str()), ("POST", "application/json"));
    let payload: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
    assert_eq!(payload["type"], "reminder.fired");
    assert_eq!(payload["data"]["id"], header("webhook-id").as_str());
    payload
}

async fn deliver(core: &Core) -> (usize, usize) {
    let report = webhooks::deliver_due(core).await.expect("the queue");
    (report.delivered, report.failed)
}

on_both_databases! {
    async fn a_webhook_receives_each_reminder_signed(database) {
        let processes = Processes::start(database, 4).await;
        let core = processes.core();
        let mut ann = Follower::new(&processes, "ann@example.com").await;
        let url = "https://hooks.example.com/todo?key=1".parse().expect("a URL");
        let set = webhooks::set(core, &ann.caller, url, None).await.expect("a webhook");
        let secret = set.1.reveal();
        let found = webhooks::get(core, &ann.caller).await.expect("a webhook");
        assert_eq!(found, set.0);
        assert_eq!((found.state, found.last_success_at), (WebhookState::Active, None));
        for minute in 10..20 {
            ann.create(&processes, at("2026-12-01", &format!("09:{minute}")), &[0]).await;
        }
        let gone = ann.create(&processes, at("2026-12-01", "09:30"), &[0]).await;
        processes.advance(90);
        assert_eq!(processes.fire().await, 11);
        todos::delete(core, &ann.caller, gone.id).await.expect("deleted");
        let mut delivered = 0;
        while delivered < 11 {
            let reports = at_once(4, |i| {
                let core = processes.cores[i].clone();
                async move { webhooks::deliver_due(&core).await.expect("the queue") }
            })
            .await;
            delivered += reports.iter().map(|report| report.delivered).sum::<usize>();
        }
        assert_eq!(delivered, 11);
        let given = processes.receiver.take();
        let payloads: Vec<_> = given.iter().map(|request| verified(request, &secret)).collect();
        let ids: Vec<_> = payloads.iter().map(|payload| payload["data"]["id"].clone()).collect();
        let fired = ann.reminders(&processes).await;
        let expected: Vec<_> = fired.iter().map(|reminder| reminder.id.to_string()).collect();
        assert_eq!(ids, expected, "in their order, each once");
        assert!(given.iter().all(|request| request.url() == "https://hooks.example.com/todo?key=1"));
        assert_eq!(payloads[0]["data"]["todo"]["title"], "Buy milk");
        assert_eq!(payloads[0]["data"]["at"], "2026-12-01T09:10:00Z");
        assert_eq!(payloads[10]["data"]["todo"], serde_json::Value::Null);
        let found = webhooks::get(core, &ann.caller).await.expect("a webhook");
        assert_eq!(found.last_success_at, Some(processes.now()));
        assert_eq!(deliver(core).await, (0, 0));

        webhooks::delete(core, &ann.caller).await.expect("deleted");
        let missing = webhooks::get(core, &ann.caller).await.expect_err("deleted");
        assert!(matches!(missing, Error::NotFound));
        let missing = webhooks::delete(core, &ann.caller).await.expect_err("deleted");
        assert!(matches!(missing, Error::NotFound));
        processes.stop().await;
    }

    async fn a_failed_delivery_is_repeated_and_a_dead_webhook_is_off_after_a_day(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let bob = Follower::new(&processes, "bob@example.com").await;
        let url = || "https://hooks.example.com/".parse().expect("a URL");
        let (_, secret) = webhooks::set(core, &ann.caller, url(), None).await.expect("a webhook");
        for minute in ["08:01", "08:02", "08:03"] {
            ann.create(&processes, at("2026-12-01", minute), &[0]).await;
        }
        processes.set("2026-12-01T09:00:00Z");
        assert_eq!(processes.fire().await, 3);
        processes.receiver.answer(Ok(500));
        // One attempt each time, however many are queued.
        assert_eq!(deliver(core).await, (0, 1));
        let first = verified(&processes.receiver.take()[0], &secret.reveal());
        let found = webhooks::get(core, &ann.caller).await.expect("a webhook");
        assert_eq!(found.last_failure.as_deref(), Some("status 500"));
        assert_eq!(found.failing_since, Some(instant("2026-12-01T09:00:00Z")));
        processes.set("2026-12-01T09:00:04Z");
        assert_eq!(deliver(core).await, (0, 0));
        processes.set("2026-12-01T09:00:05Z");
        // A redirect is not followed, and is no success.
        processes.receiver.answer(Ok(307));
        assert_eq!(deliver(core).await, (0, 1));
        processes.receiver.answer(Err("refused\u{1b}"));
        processes.set("2026-12-01T09:05:04Z");
        assert_eq!(deliver(core).await, (0, 0));
        processes.set("2026-12-01T09:05:05Z");
        assert_eq!(deliver(core).await, (0, 1));
        let found = webhooks::get(core, &ann.caller).await.expect("a webhook");
        assert_eq!(found.last_failure.as_deref(), Some("refused "));
        processes.receiver.take();
        // It is there again: all are received, the first one under its id, with a new signature.
        processes.receiver.answer(Ok(200));
        processes.set("2026-12-01T10:00:00Z");
        assert_eq!(deliver(core).await, (3, 0));
        let again = processes.receiver.take();
        let again: Vec<_> = again.iter().map(|each| verified(each, &secret.reveal())).collect();
        assert!(again.contains(&first));
        let found = webhooks::get(core, &ann.caller).await.expect("a webhook");
        assert_eq!((found.failing_since, found.state), (None, WebhookState::Active));

        // A day without a success.
        webhooks::set(core, &bob.caller, url(), None).await.expect("a webhook");
        for user in [&ann, &bob] {
            user.create(&processes, at("2026-12-01", "10:30"), &[0]).await;
        }
        webhooks::delete(core, &ann.caller).await.expect("deleted");
        processes.set("2026-12-01T10:30:00Z");
        assert_eq!(processes.fire().await, 2);
        processes.receiver.answer(Err("connection refused"));
        let mut attempts = 0;
        for minute in 0..=24 * 60 {
            let time = instant("2026-12-01T10:30:00Z") + TimeDelta::minutes(minute);
            processes.set(&time.to_rfc3339());
            let (delivered, failed) = deliver(core).await;
            assert_eq!(delivered, 0);
            attempts += failed;
            let found = webhooks::get(core, &bob.caller).await.expect("a webhook");
            let expected =
                if minute < 24 * 60 { WebhookState::Active } else { WebhookState::Off };
            assert_eq!(found.state, expected, "after {minute} minutes");
        }
        assert!((8..=12).contains(&attempts), "{attempts}");
        assert_eq!(processes.count("SELECT count(*) FROM webhook_deliveries").await, 0);
        bob.create(&processes, at("2026-12-02", "11:00"), &[0]).await;
        processes.set("2026-12-02T11:00:00Z");
        assert_eq!(processes.fire().await, 1);
        processes.receiver.answer(Ok(200));
        assert_eq!(deliver(core).await, (0, 0), "it is off");
        webhooks::set(core, &bob.caller, url(), Some(secret)).await.expect("a webhook");
        let found = webhooks::get(core, &bob.caller).await.expect("a webhook");
        assert_eq!((found.state, found.last_failure), (WebhookState::Active, None));
        bob.create(&processes, at("2026-12-02", "12:00"), &[0]).await;
        processes.set("2026-12-02T12:00:00Z");
        assert_eq!(processes.fire().await, 1);
        assert_eq!(deliver(core).await, (1, 0));
        processes.stop().await;
    }

    async fn one_rejected_reminder_does_not_delay_the_others(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let url = || "https://hooks.example.com/".parse().expect("a URL");
        webhooks::set(core, &ann.caller, url(), None).await.expect("a webhook");
        ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
        processes.set("2026-12-01T09:00:00Z");
        assert_eq!(processes.fire().await, 1);
        processes.receiver.answer(Ok(400));
        for time in ["2026-12-01T09:00:00Z", "2026-12-01T09:00:05Z"] {
            processes.set(time);
            assert_eq!(deliver(core).await, (0, 1));
        }
        // What is set anew receives at once.
        processes.receiver.answer(Ok(200));
        webhooks::set(core, &ann.caller, url(), None).await.expect("a webhook");
        assert_eq!(deliver(core).await, (1, 0));
        processes.stop().await;
    }

    async fn an_abandoned_delivery_is_repeated_when_its_lease_ends(database) {
        let processes = Processes::start(database, 2).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let url = "https://hooks.example.com/".parse().expect("a URL");
        webhooks::set(core, &ann.caller, url, None).await.expect("a webhook");
        ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
        processes.set("2026-12-01T09:00:00Z");
        assert_eq!(processes.fire().await, 1);
        // A process has leased the webhook, and ended.
        let lease = match database {
            Database::Sqlite => "zeroblob(16), leased_until = 1796115660000000",
            Database::Postgres => {
                "'00000000-0000-0000-0000-000000000000', leased_until = '2026-12-01T09:01:00Z'"
            }
        };
        processes.sql(&format!("UPDATE webhooks SET lease = {lease}")).await;
        processes.set("2026-12-01T09:00:59Z");
        assert_eq!(deliver(core).await, (0, 0));
        processes.set("2026-12-01T09:01:00Z");
        assert_eq!(deliver(core).await, (1, 0));
        processes.stop().await;
    }
}

on_both_databases! {
    async fn a_receiver_that_does_not_answer_is_given_up(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let url = "https://hooks.example.com/".parse().expect("a URL");
        webhooks::set(core, &ann.caller, url, None).await.expect("a webhook");
        ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
        processes.set("2026-12-01T09:00:00Z");
        assert_eq!(processes.fire().await, 1);
        processes.receiver.delay(Duration::from_secs(60));
        let began = Instant::now();
        assert_eq!(deliver(core).await, (0, 1));
        let took = began.elapsed();
        assert!((Duration::from_secs(5)..Duration::from_secs(15)).contains(&took), "{took:?}");
        let found = webhooks::get(core, &ann.caller).await.expect("a webhook");
        assert_eq!(found.last_failure.as_deref(), Some("no response within 5 s"));
        processes.stop().await;
    }

    async fn a_clock_that_jumps_loses_and_repeats_no_delivery(database) {
        let processes = Processes::start(database, 2).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let url = "https://hooks.example.com/".parse().expect("a URL");
        webhooks::set(core, &ann.caller, url, None).await.expect("a webhook");
        for minute in ["08:10", "08:40", "09:10", "09:40", "10:10"] {
            ann.create(&processes, at("2026-12-01", minute), &[0, 5]).await;
        }
        let mut received = Vec::new();
        // An hour forward and back, thrice; some of the attempts fail.
        for (step, minutes) in [15, 60, -60, 30, -60, 60, 60, -60, 5, 60, 10, 30, 30].into_iter().enumerate() {
            processes.advance(minutes);
            processes.fire().await;
            let fails = step % 3 == 1;
            processes.receiver.answer(if fails { Ok(503) } else { Ok(200) });
            let reports = at_once(2, |i| {
                let core = processes.cores[i].clone();
                async move { deliver(&core).await }
            })
            .await;
            let given = processes.receiver.take();
            let delivered: usize = reports.iter().map(|(delivered, _)| delivered).sum();
            if !fails {
                assert_eq!(given.len(), delivered);
                received.extend(given.iter().map(|request| header(request, "webhook-id")));
            }
        }
        let ids: BTreeSet<_> = received.iter().collect();
        assert_eq!((received.len(), ids.len()), (10, 10), "{received:?}");
        processes.stop().await;
    }
}

/// What the function in Python of `docs/reminders.md` returns at this time, in seconds since 1970.
async fn documented(secret: &str, request: &HttpRequest, body: &str, now: i64) -> String {
    use tokio::{io::AsyncWriteExt, process::Command};

    let page = include_str!("../../../../docs/reminders.md");
    let after = page.split_once("```python\n").expect("a block of Python").1;
    let function = after.split_once("```").expect("its end").0;
    let script = format!(
        "{function}\nimport json, sys\ngiven = json.load(sys.stdin)\n\
         time.time = lambda: given['now']\n\
         print(is_valid(given['secret'], given['headers'], given['body'].encode()))"
    );
    let headers: serde_json::Map<_, _> = request
        .headers()
        .map(|(name, value)| (name.to_owned(), serde_json::Value::from(value)))
        .collect();
    let given = serde_json::json!({"secret": secret, "headers": headers, "body": body, "now": now});
    let mut python = Command::new("python3");
    python.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().expect("Python runs");
    let mut stdin = python.stdin.take().expect("it is piped");
    stdin.write_all(given.to_string().as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = python.wait_with_output().await.expect("it ends");
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_verification_accepts_what_is_sent_and_nothing_else() {
    let processes = Processes::start(Database::Sqlite, 1).await;
    let core = processes.core();
    let ann = Follower::new(&processes, "ann@example.com").await;
    let url = "https://hooks.example.com/".parse().expect("a URL");
    let (_, secret) = webhooks::set(core, &ann.caller, url, None).await.expect("a webhook");
    ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
    processes.set("2026-12-01T09:00:00Z");
    assert_eq!(processes.fire().await, 1);
    assert_eq!(deliver(core).await, (1, 0));
    let request = &processes.receiver.take()[0];
    let body = std::str::from_utf8(request.body()).expect("UTF-8");
    let (secret, now) = (secret.reveal(), processes.now().timestamp());
    let other = body.replace("Buy milk", "Buy beer");
    assert_eq!(documented(&secret, request, body, now).await, "True");
    assert_eq!(documented(&secret, request, &other, now).await, "False");
    assert_eq!(documented(&secret, request, body, now + 301).await, "False");
    let changed =
        secret.replace(&secret[10..12], if &secret[10..12] == "AA" { "BB" } else { "AA" });
    assert_eq!(documented(&changed, request, body, now).await, "False");
    processes.stop().await;
}
