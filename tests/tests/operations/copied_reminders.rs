//! The reminders of a copied database: what was queued is sent, and what is due fires, once, by the
//! ids that it had.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, Utc};
use todo_core::{
    Clock, Core, Secret,
    auth::{self, Caller, Client, Signup},
    reminders,
    todos::{self, Change, Due, NewTodo, Reminder, Reminders},
    webhooks::{self, HttpRequest, PostFuture, WebhookClient},
};
use todo_tests::{SECRET, built, postgres::Cluster};
use tokio::process::Command;

/// A client that keeps the ids of what it is given.
#[derive(Default)]
struct Receiver(Mutex<Vec<String>>);

impl WebhookClient for Receiver {
    fn post(&self, request: HttpRequest) -> PostFuture<'_> {
        let id = request.headers().find(|(name, _)| *name == "webhook-id").expect("an id").1;
        self.0.lock().expect("a lock").push(id.to_owned());
        Box::pin(async { Ok(200) })
    }
}

/// What the databases have in common.
#[derive(Clone, Default)]
struct Site {
    seconds: Arc<AtomicI64>,
    receiver: Arc<Receiver>,
}

impl Site {
    fn set(&self, time: &str) {
        let time: DateTime<Utc> = time.parse().expect("a time");
        self.seconds.store(time.timestamp(), Ordering::Relaxed);
    }

    async fn open(&self, url: &str) -> Core {
        let seconds = Arc::clone(&self.seconds);
        let clock = Clock::from_fn(move || {
            DateTime::from_timestamp(seconds.load(Ordering::Relaxed), 0).expect("a time")
        });
        let builder = Core::builder(Secret::new(SECRET).expect("a secret")).clock(clock);
        let builder = builder.webhook_client(self.receiver.clone());
        builder.open(url).await.expect("the database opens")
    }

    /// Fires and sends what is due, and returns the ids that were received.
    async fn received(&self, core: &Core) -> Vec<String> {
        for _ in 0..2 {
            reminders::fire_due(core).await.expect("the reminders");
            webhooks::deliver_due(core).await.expect("the queue");
        }
        let mut ids = std::mem::take(&mut *self.receiver.0.lock().expect("a lock"));
        ids.sort();
        ids
    }
}

async fn copy(from: &str, to: &str) {
    let mut copy = Command::new(built("todo-server"));
    let copy = copy.args(["copy", "--from", from, "--to", to]).output().await;
    let copy = copy.expect("the program runs");
    assert!(copy.status.success(), "{}", String::from_utf8_lossy(&copy.stderr));
}

/// The ids of the reminders that are open, and of those that are queued, which SQLite has.
async fn ids(url: &str, sql: &'static str) -> Vec<String> {
    use sqlx::{Connection, SqliteConnection};

    let mut db = SqliteConnection::connect(url).await.expect("the file");
    let mut ids: Vec<String> = sqlx::query_scalar::<_, Vec<u8>>(sql)
        .fetch_all(&mut db)
        .await
        .expect("rows")
        .iter()
        .map(|id| uuid::Uuid::from_slice(id).expect("an id").to_string())
        .collect();
    ids.sort();
    ids
}

async fn create(core: &Core, user: &Caller, due: Due, minutes: &[i64]) {
    let minutes = minutes.iter().map(|minutes| Reminder::before(*minutes).expect("minutes"));
    let new = NewTodo::new("Call".parse().expect("a title")).due(due);
    let new = new.reminders(Reminders::new(minutes).expect("up to 5"));
    todos::create(core, user, new).await.expect("a todo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reminders_of_a_copy_fire_once_by_their_ids() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let file = |name: &str| format!("sqlite://{}", dir.path().join(name).display());
    let (here, there, back) = (file("a.db"), cluster.url(), file("b.db"));
    let site = Site::default();
    site.set("2026-12-01T08:00:00Z");
    let core = site.open(&here).await;
    let form = Signup::parse("ann@example.com", "Correct1horse", "Ann").expect("a form");
    let user = auth::signup(&core, Client::Trusted, form).await.expect("an account").user.id;
    let ann = Caller::trusted(user);
    let url = "https://hooks.example.com/".parse().expect("a URL");
    webhooks::set(&core, &ann, url, None).await.expect("a webhook");
    let at = |time| Due::parse("2026-12-01", Some(time), Some("UTC")).expect("a due date");
    create(&core, &ann, at("09:00"), &[0, 30]).await;
    create(&core, &ann, at("11:00"), &[0, 30]).await;
    create(&core, &ann, Due::parse("2026-12-01", None, None).expect("a due date"), &[0]).await;
    // Of the five, one is queued, and one has no time yet.
    site.set("2026-12-01T08:30:00Z");
    assert_eq!(reminders::fire_due(&core).await.expect("the reminders").fired, 1);
    core.close().await;
    let queued = ids(&here, "SELECT reminder_id FROM webhook_deliveries").await;
    let open = ids(&here, "SELECT id FROM reminders WHERE fired_at IS NULL").await;
    assert_eq!((queued.len(), open.len()), (1, 4));

    copy(&here, &there).await;
    let core = site.open(&there).await;
    assert_eq!(site.received(&core).await, queued);
    site.set("2026-12-01T09:00:00Z");
    let mut received = site.received(&core).await;
    assert_eq!(received.len(), 2);
    core.close().await;

    copy(&there, &back).await;
    let core = site.open(&back).await;
    let page = todos::changes(&core, &ann, None, None).await.expect("a page");
    assert_eq!(site.received(&core).await, Vec::<String>::new(), "they were received");
    site.set("2026-12-01T11:00:00Z");
    received.extend(site.received(&core).await);
    received.sort();
    assert_eq!(received, open);
    let page = todos::changes(&core, &ann, Some(page.next), None).await.expect("a page");
    let fired = page.changes.iter().filter(|change| matches!(change, Change::Reminder { .. }));
    assert_eq!(fired.count(), 2);
    core.close().await;
}
