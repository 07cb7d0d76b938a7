//! Cores on one database as in several processes, with one clock, a receiver of webhooks and a
//! transport of mails.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use todo_core::{
    Clock, Core, Secret,
    auth::{self, Caller, Client, Signup},
    mail::{self, MailOptions, Mailer, Message},
    reminders,
    todos::{
        self, Change, ChangeCursor, Due, FiredReminder, NewTodo, Reminder, Reminders, Todo,
        TodoPatch,
    },
    webhooks::{HttpError, HttpRequest, PostFuture, WebhookClient},
};
use todo_tests::{App, Database, Server, Target, at_once, count_rows, execute_sql};

/// A client that answers as the test says, and keeps what it is given.
pub(super) struct Receiver {
    status: Mutex<Result<u16, &'static str>>,
    given: Mutex<Vec<HttpRequest>>,
    delay: Mutex<Duration>,
}

impl Default for Receiver {
    fn default() -> Self {
        Self { status: Mutex::new(Ok(204)), given: Mutex::default(), delay: Mutex::default() }
    }
}

impl Receiver {
    pub(super) fn answer(&self, status: Result<u16, &'static str>) {
        *self.status.lock().expect("a lock") = status;
    }

    /// The time until each answer.
    pub(super) fn delay(&self, delay: Duration) {
        *self.delay.lock().expect("a lock") = delay;
    }

    pub(super) fn take(&self) -> Vec<HttpRequest> {
        std::mem::take(&mut self.given.lock().expect("a lock"))
    }
}

impl WebhookClient for Receiver {
    fn post(&self, request: HttpRequest) -> PostFuture<'_> {
        self.given.lock().expect("a lock").push(request);
        let status = *self.status.lock().expect("a lock");
        let delay = *self.delay.lock().expect("a lock");
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            status.map_err(HttpError::new)
        })
    }
}

/// A transport that keeps what it is given.
#[derive(Default)]
pub(super) struct Letters(Mutex<Vec<String>>);

impl Letters {
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("a lock"))
    }
}

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
    pub(super) letters: Arc<Letters>,
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

    pub(super) fn url(&self) -> &str {
        self.app.database_url()
    }

    pub(super) fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.seconds.load(Ordering::Relaxed), 0).expect("a time")
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

/// The reminders that have not fired.
pub(super) const OPEN: &str = "SELECT count(*) FROM reminders WHERE fired_at IS NULL";

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
    pub(super) async fn minutes(&mut self, processes: &Processes) -> Vec<i64> {
        let fired = self.reminders(processes).await;
        fired.iter().map(|reminder| reminder.minutes_before).collect()
    }

    pub(super) async fn create(&self, processes: &Processes, due: Due, minutes: &[i64]) -> Todo {
        let new = NewTodo::new("Buy milk".parse().expect("a title")).due(due);
        let new = new.reminders(minutes_before(minutes));
        todos::create(processes.core(), &self.caller, new).await.expect("a todo")
    }

    pub(super) async fn patch(&self, processes: &Processes, todo: &Todo, patch: TodoPatch) -> Todo {
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

pub(super) fn on(date: &str) -> Due {
    Due::parse(date, None, None).expect("a due date")
}
