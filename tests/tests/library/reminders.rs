//! Reminders on both databases: each fires once, under one id, whatever number of processes there
//! is, and whatever happens to its todo, to the time zone of its user and to the clock.

mod leases;
mod processes;
mod quota;
mod webhooks;

use std::collections::BTreeSet;

use todo_core::{
    auth::{self, ProfileChange, TimeZone},
    jobs, outbox,
    todos::{self, Reminders, TodoPatch},
    webhooks::{deliver_due, set as set_webhook},
};

use processes::{Follower, OPEN, Processes, at, instant, minutes_before, on};
use todo_tests::Database;

on_both_databases! {
    async fn each_reminder_fires_once_in_its_order(database) {
        let processes = Processes::start(database, 4).await;
        let mut ann = Follower::new(&processes, "ann@example.com").await;
        let mut bob = Follower::new(&processes, "bob@example.com").await;
        // The first is due now, which is past by then.
        let todo = ann.create(&processes, at("2026-12-01", "09:00"), &[60, 30, 10, 0]).await;
        bob.create(&processes, at("2026-12-01", "09:00"), &[10]).await;
        assert_eq!(processes.count(OPEN).await, 4);
        assert_eq!(processes.fire().await, 0);
        processes.advance(29);
        assert_eq!(processes.fire().await, 0);
        processes.advance(1);
        assert_eq!(processes.fire().await, 1);
        let fired = ann.reminders(&processes).await;
        assert_eq!(fired.len(), 1);
        let first = &fired[0];
        assert_eq!((first.todo_id, first.minutes_before), (todo.id, 30));
        assert_eq!((first.at, first.late), (instant("2026-12-01T08:30:00Z"), false));
        assert_eq!(first.fired_at, first.at);
        // All processes were down for an hour.
        processes.advance(60);
        assert_eq!(processes.fire().await, 3);
        let late = ann.reminders(&processes).await;
        let minutes: Vec<i64> = late.iter().map(|reminder| reminder.minutes_before).collect();
        assert_eq!(minutes, [10, 0], "in the order of their times");
        assert!(late.iter().all(|reminder| reminder.late));
        assert_eq!(bob.minutes(&processes).await, [10]);
        let ids: BTreeSet<_> = fired.iter().chain(&late).map(|reminder| reminder.id).collect();
        assert_eq!(ids.len(), 3);
        assert_eq!((processes.fire().await, ann.minutes(&processes).await.len()), (0, 0));
        processes.stop().await;
    }

    async fn many_reminders_at_once_fire_once(database) {
        let processes = Processes::start(database, 4).await;
        let mut users = Vec::new();
        for number in 0..12 {
            let user = Follower::new(&processes, &format!("user{number}@example.com")).await;
            for _ in 0..4 {
                user.create(&processes, at("2026-12-01", "09:00"), &[0, 1, 2, 3, 4]).await;
            }
            users.push(user);
        }
        processes.advance(60);
        let mut fired = 0;
        // A row that another process holds is skipped, and fires in the next pass.
        while processes.count(OPEN).await > 0 {
            fired += processes.fire().await;
        }
        assert_eq!(fired, 240);
        for user in &mut users {
            let fired = user.reminders(&processes).await;
            let ids: BTreeSet<_> = fired.iter().map(|reminder| reminder.id).collect();
            assert_eq!((fired.len(), ids.len()), (20, 20));
        }
        processes.stop().await;
    }

    async fn a_date_begins_at_nine_in_the_zone_of_its_user(database) {
        let processes = Processes::start(database, 2).await;
        let mut ann = Follower::new(&processes, "ann@example.com").await;
        let zone = |zone: Option<&str>| {
            let zone = zone.map(|zone| TimeZone::parse(zone).expect("a zone"));
            ProfileChange::new().time_zone(zone)
        };
        // Today's 09:00 comes in UTC, and is past in Berlin as 08:00 UTC is now.
        ann.create(&processes, on("2026-12-01"), &[0]).await;
        assert_eq!(processes.fire().await, 0);
        processes.advance(60);
        assert_eq!(processes.fire().await, 1);
        assert_eq!(ann.reminders(&processes).await[0].at, instant("2026-12-01T09:00:00Z"));

        let change = auth::update_profile(processes.core(), &ann.caller, zone(Some("Europe/Berlin")));
        change.await.expect("a profile");
        ann.create(&processes, on("2026-12-01"), &[0]).await;
        assert_eq!(processes.fire().await, 0);
        assert_eq!(processes.count(OPEN).await, 0, "it was past when it was written");
        ann.create(&processes, on("2026-12-02"), &[0, 60]).await;
        assert_eq!(processes.fire().await, 0);
        processes.set("2026-12-02T07:00:00Z");
        assert_eq!(processes.fire().await, 1);
        assert_eq!(ann.reminders(&processes).await[0].at, instant("2026-12-02T07:00:00Z"));
        // The user travels: 09:00 is later.
        let change =
            auth::update_profile(processes.core(), &ann.caller, zone(Some("America/New_York")));
        change.await.expect("a profile");
        processes.set("2026-12-02T13:59:00Z");
        assert_eq!(processes.fire().await, 0);
        processes.set("2026-12-02T14:00:00Z");
        assert_eq!(processes.fire().await, 1);
        let fired = ann.reminders(&processes).await;
        assert_eq!((fired[0].minutes_before, fired[0].late), (0, false));
        // And to where it was hours ago: late rather than lost.
        ann.create(&processes, on("2026-12-03"), &[0]).await;
        assert_eq!(processes.fire().await, 0);
        processes.set("2026-12-03T08:00:00Z");
        assert_eq!(processes.fire().await, 0);
        let change = auth::update_profile(processes.core(), &ann.caller, zone(Some("Asia/Tokyo")));
        change.await.expect("a profile");
        assert_eq!(processes.fire().await, 1);
        let fired = ann.reminders(&processes).await;
        assert_eq!((fired[0].at, fired[0].late), (instant("2026-12-03T00:00:00Z"), true));
        processes.stop().await;
    }

    async fn reminders_follow_their_todo(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let mut ann = Follower::new(&processes, "ann@example.com").await;
        let todo = ann.create(&processes, at("2026-12-01", "10:00"), &[0, 30, 60]).await;
        assert_eq!(processes.count(OPEN).await, 3);
        // A completed todo does not remind, and a reopened one does again.
        todos::set_completed(core, &ann.caller, todo.id, true).await.expect("a todo");
        assert_eq!(processes.count(OPEN).await, 0);
        todos::set_completed(core, &ann.caller, todo.id, false).await.expect("a todo");
        assert_eq!(processes.count(OPEN).await, 3);
        processes.advance(60);
        assert_eq!(processes.fire().await, 1);
        // The same values again fire nothing again.
        let same = TodoPatch::new().due(at("2026-12-01", "10:00"));
        ann.patch(&processes, &todo, same.reminders(minutes_before(&[60, 30, 0]))).await;
        assert_eq!(processes.count(OPEN).await, 2);
        // Nor does the clock that was set back.
        processes.advance(-60);
        let fewer = TodoPatch::new().reminders(minutes_before(&[60, 30]));
        ann.patch(&processes, &todo, fewer).await;
        assert_eq!(processes.count(OPEN).await, 1);
        processes.advance(60);
        assert_eq!((processes.fire().await, ann.minutes(&processes).await), (0, vec![60]));
        // The trash has no reminders, and a restored todo has those that are to come.
        todos::delete(core, &ann.caller, todo.id).await.expect("deleted");
        assert_eq!(processes.count(OPEN).await, 0);
        todos::restore(core, &ann.caller, todo.id).await.expect("restored");
        assert_eq!(processes.count(OPEN).await, 1);
        // A later day: all fire again, under other ids.
        ann.patch(&processes, &todo, TodoPatch::new().due(at("2026-12-02", "10:00"))).await;
        assert_eq!(processes.count(OPEN).await, 2);
        processes.set("2026-12-02T10:00:00Z");
        assert_eq!((processes.fire().await, ann.minutes(&processes).await), (2, vec![60, 30]));
        // Without reminders, and without a date.
        let later = TodoPatch::new().due(at("2026-12-04", "10:00"));
        ann.patch(&processes, &todo, later).await;
        assert_eq!(processes.count(OPEN).await, 2);
        ann.patch(&processes, &todo, TodoPatch::new().reminders(Reminders::default())).await;
        ann.patch(&processes, &todo, TodoPatch::new().due(None)).await;
        assert_eq!(processes.count(OPEN).await, 0);
        processes.stop().await;
    }

    async fn a_clock_that_jumps_loses_and_repeats_nothing(database) {
        let processes = Processes::start(database, 2).await;
        let mut ann = Follower::new(&processes, "ann@example.com").await;
        for minute in ["08:10", "08:40", "09:10", "09:40"] {
            ann.create(&processes, at("2026-12-01", minute), &[0]).await;
        }
        let mut fired = Vec::new();
        // An hour forward and back, twice.
        for minutes in [15, 60, -60, 30, -60, 60, 60] {
            processes.advance(minutes);
            processes.fire().await;
            fired.extend(ann.reminders(&processes).await);
        }
        let ids: BTreeSet<_> = fired.iter().map(|reminder| reminder.todo_id).collect();
        assert_eq!((fired.len(), ids.len()), (4, 4), "{fired:?}");
        processes.stop().await;
    }

    async fn a_mail_reminds_those_who_want_it(database) {
        let processes = Processes::start(database, 2).await;
        let core = processes.core();
        let wants = ProfileChange::new().reminder_mail(true);
        let ann = Follower::new(&processes, "ann@example.com").await;
        let bob = Follower::new(&processes, "bob@example.com").await;
        let eve = Follower::new(&processes, "eve@example.com").await;
        for user in [&ann, &eve] {
            let change = auth::update_profile(core, &user.caller, wants.clone());
            change.await.expect("a profile");
        }
        // Eve's address is not confirmed.
        processes
            .sql("UPDATE users SET email_verified_at = created_at \
                  WHERE email IN ('ann@example.com', 'bob@example.com')")
            .await;
        let deliver = async || {
            while outbox::deliver_next(core).await.expect("the queue") {}
            processes.letters.take()
        };
        deliver().await;
        for user in [&ann, &bob, &eve] {
            user.create(&processes, at("2026-12-01", "09:00"), &[0, 30]).await;
        }
        processes.advance(30);
        assert_eq!(processes.fire().await, 3);
        let letters = deliver().await;
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(letters[0].starts_with("To ann@example.com\n"), "{letters:?}");
        assert!(letters[0].contains("\r\nSubject: Reminder: Buy milk\r\n"), "{letters:?}");
        assert!(letters[0].contains("It is due on 2026-12-01 at 09:00 (UTC)."), "{letters:?}");
        // A todo that was completed before the mail is sent is not worth one.
        processes.advance(30);
        assert_eq!(processes.fire().await, 3);
        let list = todos::list(core, &ann.caller, todos::ListQuery::new()).await.expect("a list");
        let todo = list.todos[0].id;
        todos::set_completed(core, &ann.caller, todo, true).await.expect("a todo");
        assert_eq!(deliver().await.len(), 0);
        // At most 20 in an hour.
        for _ in 0..5 {
            for _ in 0..4 {
                ann.create(&processes, at("2026-12-01", "12:00"), &[0, 1, 2, 3, 4]).await;
            }
            processes.set("2026-12-01T12:00:00Z");
            assert_eq!(processes.fire().await, 20);
            processes.set("2026-12-01T11:00:00Z");
        }
        let queued = "SELECT count(*) FROM mails WHERE kind = 'reminder' AND sent_at IS NULL \
                      AND failed_at IS NULL";
        assert_eq!(processes.count(queued).await, 20);
        processes.stop().await;
    }

    async fn what_has_fired_is_kept_for_a_month(database) {
        let processes = Processes::start(database, 1).await;
        let mut ann = Follower::new(&processes, "ann@example.com").await;
        let todo = ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
        processes.advance(60);
        assert_eq!(processes.fire().await, 1);
        todos::delete(processes.core(), &ann.caller, todo.id).await.expect("deleted");
        let kept = "SELECT count(*) FROM reminders";
        for (time, rows) in [("2026-12-31T08:59:00Z", 1), ("2026-12-31T10:00:00Z", 0)] {
            processes.set(time);
            jobs::run_due(processes.core()).await.expect("the queue");
            assert_eq!(processes.count(kept).await, rows, "at {time}");
        }
        // The entry in the log has nothing to show.
        assert_eq!(ann.minutes(&processes).await.len(), 0);
        processes.stop().await;
    }

    async fn reminders_and_webhooks_go_with_their_user(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let url = "https://hooks.example.com/".parse().expect("a URL");
        set_webhook(core, &ann.caller, url, None).await.expect("a webhook");
        ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
        ann.create(&processes, at("2026-12-01", "10:00"), &[0]).await;
        processes.advance(60);
        assert_eq!(processes.fire().await, 1);
        processes.sql("UPDATE users SET deleted_at = created_at").await;
        processes.set("2026-12-01T10:00:00Z");
        assert_eq!(processes.fire().await, 0);
        assert_eq!(deliver_due(core).await.expect("the queue").delivered, 0);
        jobs::run_due(core).await.expect("the queue");
        for table in ["reminders", "webhooks", "webhook_deliveries", "users"] {
            assert_eq!(processes.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
        }
        processes.stop().await;
    }
}
