//! Background work: a queue of jobs in the database, shared by all processes that use it.
//!
//! A job is a row with the time at which it is due. A process takes a due job with a lease, in one
//! statement, so that no other process runs it meanwhile. A job whose process ends is due again
//! when the lease ends: nothing is lost, and every job may run more than once.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    auth,
    backoff::Backoff,
    clock::new_id,
    core::Core,
    db::{RowsAffected, Statement, value::Timestamp},
    error::{BoxError, Error, ErrorChain, Result},
    outbox, reminders, todos,
};

/// Duration of a lease.
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// Maximum time of an attempt: less than the lease, so that two attempts do not overlap, also if
/// the clocks of two machines differ by some seconds.
const MAX_RUN: Duration = Duration::from_secs(45);
/// Maximum number of attempts of one [`run_due`].
const MAX_ATTEMPTS: usize = 100;
/// Time until a failed job runs again.
const BACKOFF: Backoff = Backoff { first: TimeDelta::seconds(5), max: TimeDelta::minutes(10) };
/// Time until a job goes on that has done a part of its work: the other jobs run in between.
const SHORT_DELAY: TimeDelta = TimeDelta::seconds(1);

/// The kinds of jobs. Each has one job, which is due again some time after it has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// [`auth::delete_expired`].
    ExpiredSessions,
    /// [`auth::delete_idle_sessions`].
    IdleSessions,
    /// [`todos::delete_expired`].
    ExpiredTodos,
    /// [`auth::delete_left_rows`].
    DeletedAccounts,
    /// [`outbox::delete_expired`].
    ExpiredMails,
    /// [`reminders::delete_fired`].
    FiredReminders,
    /// [`todos::finish_list_deletions`].
    DeletedLists,
    /// [`todos::update_due_times`].
    DueTimes,
    /// [`todos::fold_all`].
    UnfoldedTodos,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::ExpiredSessions,
        Self::IdleSessions,
        Self::ExpiredTodos,
        Self::DeletedAccounts,
        Self::ExpiredMails,
        Self::FiredReminders,
        Self::DeletedLists,
        Self::DueTimes,
        Self::UnfoldedTodos,
    ];

    /// The name in the database. A process takes no job of a kind that it does not know: it may be
    /// that of a newer version.
    fn name(self) -> &'static str {
        match self {
            Self::ExpiredSessions => "delete_expired_sessions",
            Self::IdleSessions => "delete_idle_sessions",
            Self::ExpiredTodos => "delete_expired_todos",
            Self::DeletedAccounts => "delete_accounts",
            Self::ExpiredMails => "delete_expired_mails",
            Self::FiredReminders => "delete_fired_reminders",
            Self::DeletedLists => "delete_lists",
            Self::DueTimes => "update_due_times",
            Self::UnfoldedTodos => "fold_todos",
        }
    }

    fn interval(self) -> TimeDelta {
        match self {
            Self::ExpiredSessions
            | Self::ExpiredTodos
            | Self::DeletedAccounts
            | Self::DeletedLists
            | Self::UnfoldedTodos => TimeDelta::minutes(1),
            // The first reads all sessions, and what others delete is kept for days anyway.
            Self::IdleSessions | Self::ExpiredMails | Self::DueTimes | Self::FiredReminders => {
                TimeDelta::hours(1)
            }
        }
    }

    /// Runs the job; false if it has to go on soon.
    async fn run(self, core: &Core) -> Result<bool> {
        match self {
            Self::ExpiredSessions => auth::delete_expired(core).await?,
            Self::IdleSessions => auth::delete_idle_sessions(core).await?,
            Self::ExpiredTodos => todos::delete_expired(core).await?,
            Self::ExpiredMails => outbox::delete_expired(core).await?,
            Self::FiredReminders => reminders::delete_fired(core).await?,
            Self::DueTimes => return todos::update_due_times(core).await,
            Self::DeletedAccounts => return auth::delete_left_rows(core).await,
            Self::DeletedLists => return todos::finish_list_deletions(core).await,
            Self::UnfoldedTodos => return todos::fold_all(core).await,
        }
        Ok(true)
    }
}

/// A job that this process has leased.
struct Leased {
    kind: Kind,
    attempts: i64,
    lease: Uuid,
}

/// The result of [`run_due`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobReport {
    /// Number of jobs that succeeded.
    pub succeeded: usize,
    /// Number of jobs that failed. They are due again after 5 seconds, and after twice the time
    /// with each further failure, up to 10 minutes.
    pub failed: usize,
}

/// Runs the jobs that are due and that no other process runs: the deletion of what has expired
/// (sessions, slots of rate limits, todos in the trash, idempotency keys, mails, reminders)
/// and of what deleted accounts and lists have left, the preparation of todos of an older version
/// for searches, and the recomputation of due times after a change of the time zone database. It
/// also reloads the cost of the stored password hashes. Servers call it every 15 seconds. Each
/// failure of a job is logged.
///
/// One attempt of a job takes at most 45 seconds. If this future is dropped, or the process ends,
/// a running job is due again after at most 60 seconds.
///
/// # Errors
/// [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`] if the queue cannot be read or
/// written. A job that fails is not an error.
pub async fn run_due(core: &Core) -> Result<JobReport> {
    if core.jobs().needs_registration() {
        register(core).await?;
        core.jobs().set_registered();
    }
    // Of this process, not of the database: the process that deletes sessions may be another one.
    auth::load_hash_costs(core).await?;
    auth::write_last_uses(core).await?;
    let mut report = JobReport::default();
    for _ in 0..MAX_ATTEMPTS {
        let Some(job) = lease_next(core).await? else { break };
        let outcome = tokio::time::timeout(MAX_RUN, job.kind.run(core)).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| {
            Err(Error::Unavailable(BoxError::new("the job did not end in time")))
        });
        let now = core.now();
        core.jobs().count(outcome.is_ok());
        match outcome {
            Ok(is_done) => {
                report.succeeded += 1;
                let delay = if is_done { job.kind.interval() } else { SHORT_DELAY };
                release(core, &job, now + delay, 0).await?;
            }
            Err(error) => {
                report.failed += 1;
                tracing::warn!(
                    job = job.kind.name(),
                    attempts = job.attempts,
                    error = %ErrorChain(&error),
                    "a job failed"
                );
                release(core, &job, now + BACKOFF.after(job.attempts), job.attempts).await?;
            }
        }
    }
    Ok(report)
}

/// Inserts the jobs that are not in the database yet.
async fn register(core: &Core) -> Result<()> {
    const SQL: &str = "INSERT INTO jobs (kind, run_at) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let now = core.now();
    for kind in Kind::ALL {
        execute(core, Statement::new(SQL).bind(kind.name()).bind(Timestamp(now))).await?;
    }
    Ok(())
}

/// Leases the next job that is due.
async fn lease_next(core: &Core) -> Result<Option<Leased>> {
    // The condition is repeated: on PostgreSQL another process may take the row while this
    // statement waits for it, and only the outer condition is checked again after the wait.
    const SQL: &str = "UPDATE jobs SET lease = $1, leased_until = $2, attempts = attempts + 1 \
         WHERE (kind, key) IN (SELECT kind, key FROM jobs \
         WHERE run_at <= $3 AND (leased_until IS NULL OR leased_until <= $3) \
         AND kind IN ($4, $5, $6, $7, $8, $9, $10, $11, $12) ORDER BY run_at LIMIT 1) \
         AND run_at <= $3 AND (leased_until IS NULL OR leased_until <= $3) \
         RETURNING kind, attempts";
    let db = core.db();
    let now = core.now();
    let lease = new_id(now);
    let update = Statement::new(SQL).bind(lease).bind(Timestamp(now + LEASE)).bind(Timestamp(now));
    let update = Kind::ALL.into_iter().fold(update, |update, kind| update.bind(kind.name()));
    let row: Option<(String, i64)> =
        core.anonymous(async move { Ok(db.execute(update).await?) }).await?;
    Ok(row.and_then(|(name, attempts)| {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
        Some(Leased { kind, attempts, lease })
    }))
}

/// Ends a lease, unless another process has taken the job meanwhile.
async fn release(core: &Core, job: &Leased, run_at: DateTime<Utc>, attempts: i64) -> Result<()> {
    const SQL: &str = "UPDATE jobs SET lease = NULL, leased_until = NULL, run_at = $3, \
         attempts = $4 WHERE kind = $1 AND lease = $2";
    let update = Statement::new(SQL)
        .bind(job.kind.name())
        .bind(job.lease)
        .bind(Timestamp(run_at))
        .bind(attempts);
    execute(core, update).await
}

async fn execute(core: &Core, statement: Statement) -> Result<()> {
    let db = core.db();
    core.anonymous(async move {
        let RowsAffected(_) = db.execute(statement).await?;
        Ok(())
    })
    .await
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use super::*;
    use crate::{Clock, Secret};

    #[tokio::test]
    async fn a_late_process_does_not_overwrite_a_later_attempt() {
        let seconds = Arc::new(AtomicI64::new(0));
        let now = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || {
            DateTime::UNIX_EPOCH + TimeDelta::seconds(now.load(Ordering::Relaxed))
        });
        let secret = Secret::new("at least thirty-two random bytes").unwrap();
        let core = Core::builder(secret).clock(clock).open("sqlite::memory:").await.unwrap();
        register(&core).await.unwrap();
        let mut late = Vec::new();
        while let Some(job) = lease_next(&core).await.unwrap() {
            late.push(job);
        }
        assert_eq!(late.len(), Kind::ALL.len());
        seconds.fetch_add(61, Ordering::Relaxed);
        let again = lease_next(&core).await.unwrap().unwrap();
        assert_eq!(again.attempts, 2);
        for job in &late {
            release(&core, job, core.now(), 0).await.unwrap();
        }
        // Only the other jobs, whose leases had just expired, are due.
        for _ in 1..Kind::ALL.len() {
            let other = lease_next(&core).await.unwrap().unwrap();
            assert_ne!(other.kind, again.kind);
        }
        assert!(lease_next(&core).await.unwrap().is_none());
        release(&core, &again, core.now(), 0).await.unwrap();
        assert_eq!(lease_next(&core).await.unwrap().unwrap().kind, again.kind);
    }
}
