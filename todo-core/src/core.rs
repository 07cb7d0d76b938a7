//! [`Core`]: the state that every operation needs, and how operations run.

#[cfg(feature = "webhook")]
use std::sync::OnceLock;
use std::{fmt, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

#[cfg(feature = "identity")]
use crate::auth::external::KnownTokens;
#[cfg(feature = "webhook")]
use crate::http_client::{PublicClient, WebhookClient};
#[cfg(feature = "identity")]
use crate::identity::{
    HttpClient, IdentityOptions, IdentityServices, IssuerOptions, sign_in::SignInOptions,
};
use crate::{
    auth::{self, known_keys::KnownKeys, last_use::LastUses},
    caller_queue::CallerQueues,
    clock::{Clock, new_id},
    crypto::{hashing::Hasher, tokens::Tokens},
    db::{Database, DatabaseOptions, Db, OpenError},
    error::{BoxError, Error, Result},
    ids::UserId,
    job_counters::JobCounters,
    mail::{Mail, MailOptions},
    rate_limit::RateLimiter,
    reminder_counters::ReminderCounters,
    run_to_completion::RunToCompletion,
    secret::{Algorithm, Secret},
    streams::{EndReason, Streams},
};

/// Limit of callers' operations, running and queued; beyond it, [`Error::Busy`] at once.
const MAX_OPERATIONS: usize = 4096;
/// The same limit for operations without a caller, mainly signups and logins. It is separate, so
/// that they cannot use up the permits of callers.
const MAX_ANONYMOUS: usize = 1024;
/// Limit of imported files that are read at a time, each on a thread of its own.
const MAX_IMPORTS: usize = 2;
/// Maximum wait for the permit to read one.
const IMPORT_WAIT: Duration = Duration::from_secs(10);
/// Deadline of an operation, also if its future was dropped.
const OPERATION_TIMEOUT: Duration = Duration::from_mins(1);

/// The options of a [`Core`]: see [`Core::builder`]. The `Debug` output contains no secret and no
/// address.
#[derive(Clone, Debug)]
#[must_use = "it opens nothing until `open`"]
pub struct CoreBuilder {
    secret: Secret,
    previous_secrets: Vec<Secret>,
    algorithm: Algorithm,
    session_lifetime: TimeDelta,
    session_idle_days: u16,
    service_name: String,
    rate_limit_per_minute: u32,
    max_todos: u32,
    max_tags: u32,
    max_reminders: u32,
    max_lists: u32,
    trash_days: u16,
    max_streams: u32,
    mail: Option<MailOptions>,
    #[cfg(feature = "identity")]
    identity: IdentityOptions,
    #[cfg(feature = "webhook")]
    webhook_client: WebhookClientOption,
    database: DatabaseOptions,
    clock: Clock,
}

impl CoreBuilder {
    /// Sets the earlier secrets, whose signatures are still accepted. Default: none.
    pub fn previous_secrets(mut self, secrets: impl IntoIterator<Item = Secret>) -> Self {
        self.previous_secrets = secrets.into_iter().collect();
        self
    }

    /// Sets the signature algorithm of tokens. Default: HS256.
    pub fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets the lifetime of a session. Default: 7 days.
    pub fn session_lifetime(mut self, lifetime: TimeDelta) -> Self {
        self.session_lifetime = lifetime;
        self
    }

    /// Sets the number of days without use after which a session ends, by a job of
    /// [`jobs::run_due`](crate::jobs::run_due), which every process of the database must run; 0:
    /// none. Default: 0. API keys stay.
    pub fn session_idle_days(mut self, days: u16) -> Self {
        self.session_idle_days = days;
        self
    }

    /// Sets the name of the service: mails have it, and a new password must not be derived from it.
    /// Default: Todo API.
    pub fn service_name(mut self, name: impl Into<String>) -> Self {
        self.service_name = name.into();
        self
    }

    /// Sets the limit of failed logins, and of signups, per client address and minute; 0: no limit.
    /// Default: 5.
    pub fn rate_limit_per_minute(mut self, limit: u32) -> Self {
        self.rate_limit_per_minute = limit;
        self
    }

    /// Sets the maximum number of todos of a user; 0: no limit. Default: 50,000. On PostgreSQL,
    /// concurrent creations may exceed it by their number.
    pub fn max_todos(mut self, limit: u32) -> Self {
        self.max_todos = limit;
        self
    }

    /// Sets the maximum number of different tags of a user's todos; 0 is no limit. Default: 500.
    pub fn max_tags(mut self, limit: u32) -> Self {
        self.max_tags = limit;
        self
    }

    /// Sets the maximum number of a user's reminders that have not fired; 0 is no limit. Default:
    /// 500. Every write that adds reminders is checked, also one that reopens, restores or repeats
    /// a todo, which has its reminders again. On PostgreSQL, concurrent writes may exceed it.
    pub fn max_reminders(mut self, limit: u32) -> Self {
        self.max_reminders = limit;
        self
    }

    /// Sets the maximum number of a user's lists; 0: no limit. Default: 200. On PostgreSQL,
    /// concurrent creations may exceed it by their number.
    pub fn max_lists(mut self, limit: u32) -> Self {
        self.max_lists = limit;
        self
    }

    /// Sets the number of days for which deleted todos can be restored; 0: they are deleted
    /// permanently at once. Default: 30.
    pub fn trash_days(mut self, days: u16) -> Self {
        self.trash_days = days;
        self
    }

    /// Sets the maximum number of a user's open streams of changes
    /// ([`todos::follow`](crate::todos::follow)) in this process; 0: no limit. Default: 5. All
    /// users together have at most 2,000.
    pub fn max_streams(mut self, limit: u32) -> Self {
        self.max_streams = limit;
        self
    }

    /// Sets the transport and the texts of mails. Default: no mails, and the operations that need
    /// them fail with [`Error::MailNotConfigured`].
    pub fn mail(mut self, options: MailOptions) -> Self {
        self.mail = Some(options);
        self
    }

    /// Sets the issuer whose tokens are accepted beside this installation's own. Default: none.
    #[cfg(feature = "identity")]
    pub fn issuer(mut self, options: IssuerOptions) -> Self {
        self.identity.issuer = Some(options);
        self
    }

    /// Sets the providers with which users sign in. Default: none.
    #[cfg(feature = "identity")]
    pub fn sign_in(mut self, options: SignInOptions) -> Self {
        self.identity.sign_in = Some(options);
        self
    }

    /// Sets the client for requests to the issuer. Default: a
    /// [`HyperClient`](crate::identity::HyperClient).
    #[cfg(feature = "identity")]
    pub fn http_client(mut self, client: Arc<dyn HttpClient>) -> Self {
        self.identity.client = Some(client);
        self
    }

    /// Sets the client for requests to webhooks. Default: a
    /// [`PublicClient`](crate::webhooks::PublicClient).
    #[cfg(feature = "webhook")]
    pub fn webhook_client(mut self, client: Arc<dyn WebhookClient>) -> Self {
        self.webhook_client = WebhookClientOption(Some(client));
        self
    }

    /// Sets the options of the database's connections.
    pub fn database(mut self, options: DatabaseOptions) -> Self {
        self.database = options;
        self
    }

    /// Sets the source of the current time. Default: the system clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Opens the database at `url` (`sqlite://file.db`, `sqlite::memory:`, `postgres://…`) and
    /// migrates its schema. A missing SQLite file is created. Several processes may do this at the
    /// same time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(self, url: impl AsRef<str>) -> Result<Core, OpenError> {
        let database = Database::open(url, &self.database).await?;
        Ok(self.over(database).await)
    }

    /// As [`CoreBuilder::open`], with an open database, whose own options apply to its connections
    /// instead of [`CoreBuilder::database`].
    pub async fn over(self, database: Database) -> Core {
        let Database(db) = database;
        let timeout = self.database.timeout;
        let share = db.share();
        let queues = |max_running| CallerQueues::new(max_running, timeout);
        let read_queues = queues(share.reads);
        let write_queues = share.writes.map_or_else(|| Arc::clone(&read_queues), queues);
        let rate_limiter =
            RateLimiter::new(db.clone(), self.clock.clone(), self.rate_limit_per_minute);
        let streams = Streams::new(db.clone(), self.max_streams);
        let core = Core(Arc::new(Inner {
            db,
            streams,
            hasher: Hasher::new(),
            tokens: Tokens::new(
                self.algorithm,
                &self.secret,
                &self.previous_secrets,
                self.session_lifetime,
            ),
            rate_limiter,
            #[cfg(feature = "identity")]
            identity: IdentityServices::new(self.identity, &self.clock),
            clock: self.clock,
            operations: Arc::new(Semaphore::new(MAX_OPERATIONS)),
            anonymous: Arc::new(Semaphore::new(MAX_ANONYMOUS)),
            imports: Arc::new(Semaphore::new(MAX_IMPORTS)),
            read_queues,
            write_queues,
            drops_writes: share.drops_writes,
            max_todos: self.max_todos,
            max_tags: self.max_tags,
            max_reminders: self.max_reminders,
            max_lists: self.max_lists,
            trash_lifetime: TimeDelta::days(self.trash_days.into()),
            jobs: JobCounters::default(),
            reminders: ReminderCounters::default(),
            #[cfg(feature = "webhook")]
            webhook_client: self.webhook_client.0.map(OnceLock::from).unwrap_or_default(),
            last_uses: LastUses::default(),
            known_keys: KnownKeys::new(),
            #[cfg(feature = "identity")]
            known_tokens: KnownTokens::new(),
            service_name: self.service_name,
            session_idle_lifetime: TimeDelta::days(self.session_idle_days.into()),
            mail: self.mail.map(Mail::new),
        }));
        if let Err(error) = auth::load_hash_costs(&core).await {
            tracing::warn!(%error, "cannot read the cost of stored password hashes yet");
        }
        core
    }
}

/// The client of webhooks, if it is not the default one.
#[cfg(feature = "webhook")]
#[derive(Clone)]
struct WebhookClientOption(Option<Arc<dyn WebhookClient>>);

#[cfg(feature = "webhook")]
impl fmt::Debug for WebhookClientOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookClientOption").finish_non_exhaustive()
    }
}

/// A todo installation: a database and the state for working on it. Cloning is cheap. Nothing is
/// global, so one process can have several.
#[derive(Clone)]
pub struct Core(Arc<Inner>);

struct Inner {
    db: Db,
    streams: Streams,
    hasher: Hasher,
    tokens: Tokens,
    rate_limiter: RateLimiter,
    clock: Clock,
    operations: Arc<Semaphore>,
    anonymous: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    read_queues: Arc<CallerQueues>,
    /// The same queues as `read_queues` where reads and writes share connections.
    write_queues: Arc<CallerQueues>,
    drops_writes: bool,
    max_todos: u32,
    max_tags: u32,
    max_reminders: u32,
    max_lists: u32,
    /// Zero without a trash.
    trash_lifetime: TimeDelta,
    jobs: JobCounters,
    reminders: ReminderCounters,
    #[cfg(feature = "webhook")]
    webhook_client: OnceLock<Arc<dyn WebhookClient>>,
    last_uses: LastUses,
    known_keys: KnownKeys,
    #[cfg(feature = "identity")]
    known_tokens: KnownTokens,
    service_name: String,
    /// Zero without this limit.
    session_idle_lifetime: TimeDelta,
    mail: Option<Mail>,
    #[cfg(feature = "identity")]
    identity: IdentityServices,
}

impl Core {
    /// The options of a core with the default values. `secret` is the key for signing tokens and
    /// cursors.
    pub fn builder(secret: Secret) -> CoreBuilder {
        CoreBuilder {
            secret,
            previous_secrets: Vec::new(),
            algorithm: Algorithm::default(),
            session_lifetime: TimeDelta::days(7),
            session_idle_days: 0,
            service_name: "Todo API".to_owned(),
            rate_limit_per_minute: 5,
            max_todos: 50_000,
            max_tags: 500,
            max_reminders: 500,
            max_lists: 200,
            trash_days: 30,
            max_streams: 5,
            mail: None,
            #[cfg(feature = "identity")]
            identity: IdentityOptions::default(),
            #[cfg(feature = "webhook")]
            webhook_client: WebhookClientOption(None),
            database: DatabaseOptions::new(),
            clock: Clock::system(),
        }
    }

    /// Runs a query, and checks that the database role has the grants that requests need.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the query fails or times out, or a grant is missing.
    pub async fn ping(&self) -> Result<()> {
        let db = self.db();
        // All pings share one caller's queue.
        self.read(Uuid::nil().into(), async move {
            db.ping().await?;
            Ok(())
        })
        .await
    }

    /// Finishes queued work, ends the streams of changes and closes the database. Later operations
    /// fail with [`Error::Unavailable`].
    pub async fn close(&self) {
        self.0.streams.end_all(EndReason::Draining);
        self.0.db.close().await;
    }

    /// Waits for a permit of `caller`, then runs a reading operation as [`Core::anonymous`] does.
    ///
    /// Dropped before it has a permit, it does not reach the database.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        caller: UserId,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.operations)?;
        let caller_permit = self.0.read_queues.acquire(caller).await?;
        RunToCompletion::new(with_deadline((permit, caller_permit), operation)).await
    }

    /// Waits for a permit of `caller`, then runs an operation of one writing statement and any
    /// number of reading ones.
    ///
    /// Dropped before it has a permit, it does not reach the database. Dropped later, it completes
    /// in a separate task, as with [`Core::anonymous`], unless the database can skip writes that
    /// have not started.
    ///
    /// All writes of todos pass here: the streams of the caller's changes are woken at the end.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        caller: UserId,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.operations)?;
        let caller_permit = self.0.write_queues.acquire(caller).await?;
        let wake = self.0.streams.wake_later(caller);
        let operation = with_deadline((permit, caller_permit, wake), operation);
        if self.0.drops_writes {
            operation.boxed().await
        } else {
            RunToCompletion::new(operation).await
        }
    }

    /// Runs the reading statements of an operation of [`Core::write`] with a permit of `caller`'s
    /// reads: a caller may have many more writes in progress than reads, and if all of them fail,
    /// the reads that find the reasons would delay those of other callers.
    pub(crate) async fn read_in_write<T>(
        &self,
        caller: UserId,
        reading: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _permit = match self.0.separate_write_queues() {
            Some(_) => Some(self.0.read_queues.acquire(caller).await?),
            // The operation has one already.
            None => None,
        };
        reading.await
    }

    /// As [`Core::write`], but once started it completes on either database: the write is followed
    /// by a step that must not be skipped.
    pub(crate) async fn write_and_log<T: Send + 'static>(
        &self,
        caller: UserId,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.operations)?;
        let caller_permit = self.0.write_queues.acquire(caller).await?;
        RunToCompletion::new(with_deadline((permit, caller_permit), operation)).await
    }

    /// Runs an operation without a caller (a signup, a login) to completion.
    ///
    /// The future may be dropped at any point: a client disconnects, a request times out. A
    /// database call dropped with it would return its connection to the pool in the middle of a
    /// statement. So a started operation then completes in a separate task, which holds the permit
    /// and the deadline.
    pub(crate) async fn anonymous<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let permit = permit(&self.0.anonymous)?;
        RunToCompletion::new(with_deadline(permit, operation)).await
    }

    /// Waits for the permit to read an imported file.
    ///
    /// # Errors
    /// [`Error::Busy`] after 10 s.
    pub(crate) async fn import_permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.0.imports).acquire_owned();
        match tokio::time::timeout(IMPORT_WAIT, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Error::Busy),
        }
    }

    /// The current statistics.
    #[cfg(feature = "http")]
    pub(crate) fn stats(&self) -> Stats {
        let mut pool = self.0.db.stats();
        let all_queues = [Some(&self.0.read_queues), self.0.separate_write_queues()];
        for queues in all_queues.into_iter().flatten() {
            let queued = queues.waits().stats(0, 0);
            pool.waiting += queued.waiting;
            pool.waited_micros += queued.waited_micros;
        }
        let hasher = &self.0.hasher;
        let (succeeded_jobs, failed_jobs) = self.0.jobs.totals();
        Stats {
            pool,
            hashing: hasher.queued(),
            hashed: hasher.hashes_total(),
            succeeded_jobs,
            failed_jobs,
            reminders: self.0.reminders.totals(),
            foreign_tokens: self.foreign_tokens(),
            mails: self.0.mail.as_ref().map(|mail| mail.counters.totals()).unwrap_or_default(),
            streams: self.0.streams.counts(),
        }
    }

    pub(crate) fn db(&self) -> Db {
        self.0.db.clone()
    }

    pub(crate) fn hasher(&self) -> &Hasher {
        &self.0.hasher
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn rate_limiter(&self) -> &RateLimiter {
        &self.0.rate_limiter
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.0.streams
    }

    pub(crate) fn max_tags(&self) -> u32 {
        self.0.max_tags
    }

    pub(crate) fn max_reminders(&self) -> u32 {
        self.0.max_reminders
    }

    pub(crate) fn max_lists(&self) -> u32 {
        self.0.max_lists
    }

    pub(crate) fn max_todos(&self) -> u32 {
        self.0.max_todos
    }

    pub(crate) fn trash_lifetime(&self) -> TimeDelta {
        self.0.trash_lifetime
    }

    #[cfg(all(feature = "http", feature = "identity"))]
    fn foreign_tokens(&self) -> Option<[(&'static str, u64); 3]> {
        let has_issuer = self.0.identity.verifier.is_some();
        has_issuer.then(|| self.0.known_tokens.verified.totals())
    }

    #[cfg(all(feature = "http", not(feature = "identity")))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    fn foreign_tokens(&self) -> Option<[(&'static str, u64); 3]> {
        None
    }

    #[cfg(feature = "identity")]
    pub(crate) fn known_tokens(&self) -> &KnownTokens {
        &self.0.known_tokens
    }

    pub(crate) fn known_keys(&self) -> &KnownKeys {
        &self.0.known_keys
    }

    pub(crate) fn last_uses(&self) -> &LastUses {
        &self.0.last_uses
    }

    pub(crate) fn service_name(&self) -> &str {
        &self.0.service_name
    }

    /// Zero without this limit.
    pub(crate) fn session_idle_lifetime(&self) -> TimeDelta {
        self.0.session_idle_lifetime
    }

    pub(crate) fn jobs(&self) -> &JobCounters {
        &self.0.jobs
    }

    pub(crate) fn reminders(&self) -> &ReminderCounters {
        &self.0.reminders
    }

    /// The client of webhooks; the default one is made when it is first needed.
    #[cfg(feature = "webhook")]
    pub(crate) fn webhook_client(&self) -> Arc<dyn WebhookClient> {
        Arc::clone(self.0.webhook_client.get_or_init(|| Arc::new(PublicClient::new())))
    }

    pub(crate) fn mail(&self) -> Option<&Mail> {
        self.0.mail.as_ref()
    }

    #[cfg(feature = "identity")]
    pub(crate) fn identity(&self) -> &IdentityServices {
        &self.0.identity
    }

    /// Whether a login requires a confirmed address.
    pub(crate) fn requires_verified_email(&self) -> bool {
        self.0.mail.as_ref().is_some_and(|mail| mail.options.requires_verified_email)
    }

    /// The id of a mail to queue; `None` where no mail is sent. Wakes the delivery, which waits a
    /// moment for the statement that queues it.
    pub(crate) fn notice_id(&self, now: DateTime<Utc>) -> Option<Uuid> {
        self.0.mail.as_ref().map(|mail| {
            mail.wake();
            new_id(now)
        })
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }
}

impl Inner {
    /// The queues of writes, unless reads use the same ones.
    fn separate_write_queues(&self) -> Option<&Arc<CallerQueues>> {
        Some(&self.write_queues).filter(|writes| !Arc::ptr_eq(writes, &self.read_queues))
    }
}

fn permit(of: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(of).try_acquire_owned().map_err(|_| Error::Busy)
}

/// Runs an operation with its deadline and holds `held` until its end. A panic becomes an error.
async fn with_deadline<T>(
    held: impl Send,
    operation: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let operation = AssertUnwindSafe(operation).catch_unwind();
    let outcome = match tokio::time::timeout(OPERATION_TIMEOUT, operation).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Err(Error::Internal(BoxError::new("an operation panicked"))),
        Err(_elapsed) => Err(Error::Unavailable(BoxError::new("operation timed out"))),
    };
    drop(held);
    outcome
}

/// Statistics of a [`Core`].
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    /// Statistics of the database, with the calls that wait in their caller's queue.
    pub(crate) pool: crate::db::PoolStats,
    /// Passwords being hashed or queued.
    pub(crate) hashing: i64,
    /// Passwords hashed since the start.
    pub(crate) hashed: u64,
    /// Attempts of jobs since the start.
    pub(crate) succeeded_jobs: u64,
    pub(crate) failed_jobs: u64,
    /// Reminders that have fired, and their deliveries, since the start.
    pub(crate) reminders: crate::reminder_counters::ReminderTotals,
    /// Attempts to send mails since the start, and the age in seconds of the oldest unsent one.
    pub(crate) mails: (crate::mail::MailTotals, i64),
    /// Verifications of tokens of another issuer, by their results; none without an issuer.
    pub(crate) foreign_tokens: Option<[(&'static str, u64); 3]>,
    /// Open streams of changes, in the order of [`StreamKind::ALL`](crate::streams::StreamKind).
    pub(crate) streams: [i64; 3],
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Core")
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
