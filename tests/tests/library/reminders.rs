//! Reminders on both databases: each fires once, under one id, whatever number of processes there
//! is, and whatever happens to its todo, to the time zone of its user and to the clock.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use todo_core::{
    Clock, Core, Error, Secret,
    auth::{self, Caller, Client, ProfileChange, Signup, TimeZone},
    jobs, mail,
    mail::{MailOptions, Mailer, Message},
    outbox, reminders,
    todos::{
        self, Bulk, BulkRequest, Change, ChangeCursor, Due, FiredReminder, NewTodo, Reminder,
        Reminders, Todo, TodoPatch,
    },
    webhooks::{self, HttpError, HttpRequest, PostFuture, WebhookClient, WebhookState},
};
use todo_tests::{App, Database, Server, Target, at_once, count_rows, execute_sql};

/// A client that answers as the test says, and keeps what it is given.
pub(super) struct Receiver {
    pub(super) status: Mutex<Result<u16, &'static str>>,
    pub(super) given: Mutex<Vec<HttpRequest>>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { status: Mutex::new(Ok(204)), given: Mutex::default() }
    }
}

impl Receiver {
    pub(super) fn answer(&self, status: Result<u16, &'static str>) {
        *self.status.lock().expect("a lock") = status;
    }

    pub(super) fn take(&self) -> Vec<HttpRequest> {
        std::mem::take(&mut self.given.lock().expect("a lock"))
    }
}

impl WebhookClient for Receiver {
    fn post(&self, request: HttpRequest) -> PostFuture<'_> {
        self.given.lock().expect("a lock").push(request);
        let status = *self.status.lock().expect("a lock");
        Box::pin(async move { status.map_err(HttpError::new) })
    }
}

/// A transport that keeps what it is given.
#[derive(Default)]
struct Letters(Mutex<Vec<String>>);

impl Mailer for Letters {
    fn send<'a>(&'a self, message: &'a Message) -> mail::SendFuture<'a> {
        let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
        self.0.lock().expect("a lock").push(format!("To {}\n{text}", message.to()));
        Box::pin(async { Ok(()) })
    }
}

/// Cores on one database, as in several processes, with one clock.
pub(super) struct Processes {
    app: App,
    pub(super) cores: Vec<Core>,
    seconds: Arc<AtomicI64>,
    pub(super) receiver: Arc<Receiver>,
    letters: Arc<Letters>,
}

pub(super) fn instant(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

impl Processes {
    /// The clock begins at 08:00 UTC on Tuesday, 2026-12-01.
    pub(super) async fn start(database: Database, count: usize) -> Self {
        let mut app = App::start(Target { server: Server::Hyper, database }).await;
        app.stop_server().await.expect("a clean stop");
        let begin = instant("2026-12-01T08:00:00Z").timestamp();
        let seconds = Arc::new(AtomicI64::new(begin));
        let (receiver, letters) = (Arc::<Receiver>::default(), Arc::<Letters>::default());
        let mut cores = Vec::new();
        for _ in 0..count {
            let now = Arc::clone(&seconds);
            let clock = Clock::from_fn(move || {
                DateTime::from_timestamp(now.load(Ordering::Relaxed), 0).expect("a time")
            });
            let from = "todo@example.com".parse().expect("an address");
            let options = MailOptions::new(letters.clone(), from, "https://app.example");
            let secret = Secret::new(app.secret()).expect("a secret");
            let builder = Core::builder(secret).clock(clock).mail(options).max_reminders(20);
            let builder = builder.webhook_client(receiver.clone());
            cores.push(builder.open(app.database_url()).await.expect("the database opens"));
        }
        Self { app, cores, seconds, receiver, letters }
    }

    pub(super) fn core(&self) -> &Core {
        &self.cores[0]
    }

    pub(super) fn advance(&self, minutes: i64) {
        self.seconds.fetch_add(minutes * 60, Ordering::Relaxed);
    }

    pub(super) fn set(&self, time: &str) {
        self.seconds.store(instant(time).timestamp(), Ordering::Relaxed);
    }

    pub(super) async fn signed_up(&self, email: &str) -> Caller {
        let form = Signup::parse(email, "Correct1horse", "Ada Lovelace").expect("a form");
        let session = auth::signup(self.core(), Client::Trusted, form).await.expect("an account");
        Caller::trusted(session.user.id)
    }

    /// All processes fire what is due. Returns the number of reminders.
    pub(super) async fn fire(&self) -> u64 {
        let reports = at_once(self.cores.len(), |i| {
            let core = self.cores[i].clone();
            async move { reminders::fire_due(&core).await.expect("the reminders") }
        })
        .await;
        assert!(reports.iter().all(|report| report.failed == 0), "{reports:?}");
        reports.iter().map(|report| report.fired).sum()
    }

    pub(super) async fn sql(&self, sql: &str) {
        execute_sql(self.app.database_url(), sql).await;
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        count_rows(self.app.database_url(), sql).await
    }

    pub(super) async fn stop(self) {
        for core in self.cores {
            core.close().await;
        }
    }
}

/// A user who follows the changes.
pub(super) struct Follower {
    pub(super) caller: Caller,
    position: ChangeCursor,
}

impl Follower {
    pub(super) async fn new(processes: &Processes, email: &str) -> Self {
        let caller = processes.signed_up(email).await;
        let page = todos::changes(processes.core(), &caller, None, None).await.expect("a page");
        Self { caller, position: page.next }
    }

    /// The reminders that have fired since the last call, in the order of the log.
    pub(super) async fn reminders(&mut self, processes: &Processes) -> Vec<FiredReminder> {
        let mut fired = Vec::new();
        loop {
            let since = Some(self.position.clone());
            let page = todos::changes(processes.core(), &self.caller, since, None).await;
            let page = page.expect("a page");
            self.position = page.next;
            fired.extend(page.changes.into_iter().filter_map(|change| match change {
                Change::Reminder { reminder } => Some(reminder),
                _ => None,
            }));
            if !page.has_more {
                return fired;
            }
        }
    }

    /// The minutes of those.
    async fn minutes(&mut self, processes: &Processes) -> Vec<i64> {
        let fired = self.reminders(processes).await;
        fired.iter().map(|reminder| reminder.minutes_before).collect()
    }

    pub(super) async fn create(&self, processes: &Processes, due: Due, minutes: &[i64]) -> Todo {
        let new = NewTodo::new("Buy milk".parse().expect("a title")).due(due);
        let new = new.reminders(minutes_before(minutes));
        todos::create(processes.core(), &self.caller, new).await.expect("a todo")
    }

    async fn patch(&self, processes: &Processes, todo: &Todo, patch: TodoPatch) -> Todo {
        todos::patch(processes.core(), &self.caller, todo.id, patch).await.expect("a todo")
    }
}

pub(super) fn minutes_before(minutes: &[i64]) -> Reminders {
    let each = minutes.iter().map(|minutes| Reminder::before(*minutes).expect("minutes"));
    Reminders::new(each).expect("up to 5")
}

pub(super) fn at(date: &str, time: &str) -> Due {
    Due::parse(date, Some(time), Some("UTC")).expect("a due date")
}

fn on(date: &str) -> Due {
    Due::parse(date, None, None).expect("a due date")
}

const OPEN: &str = "SELECT count(*) FROM reminders WHERE fired_at IS NULL";

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

    async fn a_user_has_at_most_so_many_open_reminders(database) {
        let processes = Processes::start(database, 1).await;
        let core = processes.core();
        let ann = Follower::new(&processes, "ann@example.com").await;
        let five = [0, 1, 2, 3, 4];
        let due = || at("2026-12-01", "10:00");
        let mut todos = Vec::new();
        for _ in 0..4 {
            todos.push(ann.create(&processes, due(), &five).await);
        }
        let new = |minutes: &[i64]| {
            let new = NewTodo::new("Buy milk".parse().expect("a title")).due(due());
            new.reminders(minutes_before(minutes))
        };
        let quota = |error: Error| matches!(error, Error::QuotaExceeded { limit: 20, used: 20, .. });
        let refused = todos::create(core, &ann.caller, new(&[0])).await.expect_err("a quota");
        assert!(quota(refused));
        let key = "a".parse().expect("a key");
        let refused = todos::create_once(core, &ann.caller, key, new(&[0])).await;
        assert!(quota(refused.expect_err("a quota")));
        let plain = todos::create(core, &ann.caller, new(&[])).await.expect("without reminders");
        let one = TodoPatch::new().reminders(minutes_before(&[0]));
        let refused = todos::patch(core, &ann.caller, plain.id, one.clone()).await;
        assert!(quota(refused.expect_err("a quota")));
        // Others in their place, and fewer, are allowed.
        let others = TodoPatch::new().reminders(minutes_before(&[5, 6, 7, 8, 9]));
        ann.patch(&processes, &todos[0], others).await;
        let bulk = |bulk| BulkRequest::new(bulk).expect("a bulk");
        let request = bulk(Bulk::Create(vec![new(&[]), new(&[0])]));
        let refused = todos::bulk(core, &ann.caller, request).await.expect_err("a quota");
        assert_eq!(refused.code(), "quota_exceeded");
        let ids = vec![todos[0].id, plain.id];
        let request = bulk(Bulk::Patch { patch: one.clone(), ids });
        todos::bulk(core, &ann.caller, request).await.expect("2 in place of 5");
        let ids = todos.iter().map(|todo| todo.id).chain([plain.id]).collect();
        let patch = TodoPatch::new().reminders(minutes_before(&five));
        let request = bulk(Bulk::Patch { patch, ids });
        let refused = todos::bulk(core, &ann.caller, request).await.expect_err("25 of 20");
        assert!(matches!(refused, Error::QuotaExceeded { limit: 20, .. }), "{refused:?}");
        assert_eq!(processes.count(OPEN).await, 17);
        // Those that have fired do not count.
        processes.set("2026-12-01T10:00:00Z");
        assert_eq!(processes.fire().await, 17);
        let next = new(&[]).due(at("2026-12-02", "10:00")).reminders(minutes_before(&five));
        todos::create(core, &ann.caller, next).await.expect("a todo");
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
            std::mem::take(&mut *processes.letters.0.lock().expect("a lock"))
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
        webhooks::set(core, &ann.caller, url, None).await.expect("a webhook");
        ann.create(&processes, at("2026-12-01", "09:00"), &[0]).await;
        ann.create(&processes, at("2026-12-01", "10:00"), &[0]).await;
        processes.advance(60);
        assert_eq!(processes.fire().await, 1);
        processes.sql("UPDATE users SET deleted_at = created_at").await;
        processes.set("2026-12-01T10:00:00Z");
        assert_eq!(processes.fire().await, 0);
        assert_eq!(webhooks::deliver_due(core).await.expect("the queue").delivered, 0);
        jobs::run_due(core).await.expect("the queue");
        for table in ["reminders", "webhooks", "webhook_deliveries", "users"] {
            assert_eq!(processes.count(&format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
        }
        processes.stop().await;
    }
}

/// What a receiver does by the specification, with libraries of its own.
fn verified(request: &HttpRequest, secret: &str) -> serde_json::Value {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use hmac::{Hmac, KeyInit, Mac};

    let header = |name: &str| {
        let found = request.headers().find(|(other, _)| *other == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.to_owned()
    };
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
        assert_eq!(found.last_success_at, Some(core_now(&processes)));
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

fn core_now(processes: &Processes) -> DateTime<Utc> {
    DateTime::from_timestamp(processes.seconds.load(Ordering::Relaxed), 0).expect("a time")
}
