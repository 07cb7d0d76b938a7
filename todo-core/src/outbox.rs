//! The delivery of mails from their queue in the database, which all processes share.
//!
//! A mail is a row of `mails`, written in the statement that requires the mail. A process takes a
//! due one with a lease, in one statement, so that no other process sends it meanwhile. If it ends
//! before it has stored the result, the mail is sent again when the lease ends, with the same bytes
//! and the same `Message-ID`: a mail arrives at least once, and rarely twice.

use std::{fmt::Write as _, panic::AssertUnwindSafe, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{
    auth::Email,
    backoff::Backoff,
    clock::new_id,
    core::Core,
    db::{RowsAffected, Statement, value::Timestamp},
    error::Result,
    mail::{
        DueTodo, Letter, Mail, MailKind, MailResult, SendError, SendErrorKind, compose, seal_link,
    },
};

/// Duration of a lease.
const LEASE: TimeDelta = TimeDelta::seconds(60);
/// Maximum time of an attempt: less than the lease, so that two attempts do not overlap, also if
/// the clocks of two machines differ by some seconds.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// Time until a mail is sent again after a temporary failure.
const BACKOFF: Backoff = Backoff { first: TimeDelta::seconds(15), max: TimeDelta::minutes(30) };
/// How long nothing is sent after an error of the configuration.
const PAUSE: TimeDelta = TimeDelta::seconds(60);
/// How long a mail is kept after its link has expired: the limits of an address count for a day.
const KEPT: TimeDelta = TimeDelta::hours(24);
/// Maximum number of rows that one statement deletes.
const MAX_DELETED: u64 = 1000;

/// SQL condition of a mail that is to be sent and whose kind this version knows. No mail is sent to
/// the addresses that stand for none (RFC 2606 section 2).
macro_rules! unsent {
    () => {
        "sent_at IS NULL AND failed_at IS NULL AND used_at IS NULL AND expires_at > $1 \
         AND kind IN ('reset', 'verify', 'change', 'password_changed', 'email_changing', \
         'email_changed', 'key_created', 'identity_added', 'identity_removed', \
         'account_deleted', 'reminder') AND email NOT LIKE '%@users.invalid'"
    };
}

/// A mail that this process has leased.
struct Leased {
    id: Uuid,
    kind: MailKind,
    email: String,
    created_at: DateTime<Utc>,
    attempts: i64,
    lease: Uuid,
}

/// What is stored after an attempt.
enum End {
    Sent,
    /// It is due again at this time; `attempts` is the number of those that count.
    Due(DateTime<Utc>, i64),
    Failed,
}

/// Sends the next mail that is due and that no other process sends. Returns whether there was one.
/// Servers call it in a loop, and after [`until_queued`]. A failure is logged, without the address,
/// and is not an error. Without [`CoreBuilder::mail`](crate::CoreBuilder::mail) it does nothing.
///
/// An attempt takes at most 20 seconds. After a temporary failure the mail is due again after 15
/// seconds, and after twice the time with each further one, up to 30 minutes, as long as it has not
/// expired. If a setting has to be corrected, this process sends nothing for 60 seconds.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal) if the queue cannot be read or written. A mail that
/// was just sent may then be sent again.
pub async fn deliver_next(core: &Core) -> Result<bool> {
    let Some(mail) = core.mail() else { return Ok(false) };
    let leased =
        if mail.is_paused_at(Instant::now()) { None } else { lease_next(core, mail).await? };
    let Some(leased) = leased else {
        measure(core, mail).await?;
        return Ok(false);
    };
    let (result, end, reply) = attempt(core, mail, &leased).await?;
    mail.counters.count(leased.kind, result);
    release(core, &leased, end, reply).await?;
    Ok(true)
}

/// Completes when an operation of this process has queued a mail since the last call. Never without
/// [`CoreBuilder::mail`](crate::CoreBuilder::mail).
pub async fn until_queued(core: &Core) {
    match core.mail() {
        Some(mail) => mail.until_queued().await,
        None => std::future::pending().await,
    }
}

/// Deletes the mails whose link expired a day ago.
///
/// # Errors
/// As [`deliver_next`].
pub(crate) async fn delete_expired(core: &Core) -> Result<()> {
    const SQL: &str = "DELETE FROM mails WHERE id IN \
         (SELECT id FROM mails WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1000)";
    loop {
        let delete = Statement::new(SQL).bind(Timestamp(core.now() - KEPT));
        if execute(core, delete).await? < MAX_DELETED {
            return Ok(());
        }
    }
}

/// Leases the next mail that is due, if the limit of an hour allows one.
async fn lease_next(core: &Core, mail: &Mail) -> Result<Option<Leased>> {
    // The condition is repeated: on PostgreSQL another process may take the row while this
    // statement waits for it, and only the outer condition is checked again after the wait.
    const SQL: &str = concat!(
        "UPDATE mails SET lease = $2, leased_until = $3, attempts = attempts + 1 WHERE id IN \
         (SELECT id FROM mails WHERE ",
        unsent!(),
        " AND coalesce(next_attempt_at, created_at) <= $1 \
         AND (leased_until IS NULL OR leased_until <= $1) \
         AND (SELECT count(*) FROM mails WHERE sent_at > $4) < $5 AND (kind <> 'reminder' OR \
         (SELECT count(*) FROM mails WHERE sent_at > $4 AND kind = 'reminder') < $6) \
         ORDER BY coalesce(next_attempt_at, created_at) LIMIT 1) AND ",
        unsent!(),
        " AND coalesce(next_attempt_at, created_at) <= $1 \
         AND (leased_until IS NULL OR leased_until <= $1) \
         RETURNING id, kind, email, created_at, attempts"
    );
    let now = core.now();
    let lease = new_id(now);
    let update = Statement::new(SQL)
        .bind(Timestamp(now))
        .bind(lease)
        .bind(Timestamp(now + LEASE))
        .bind(Timestamp(now - TimeDelta::hours(1)))
        .bind(i64::from(mail.options.per_hour))
        // Half of them: a new password does not wait for reminders.
        .bind(i64::from(mail.options.per_hour.div_ceil(2)));
    let db = core.db();
    let row: Option<(Uuid, String, String, Timestamp, i64)> =
        core.anonymous(async move { Ok(db.execute(update).await?) }).await?;
    Ok(row.and_then(|(id, kind, email, created_at, attempts)| {
        let kind = MailKind::parse(&kind)?;
        Some(Leased { id, kind, email, created_at: created_at.0, attempts, lease })
    }))
}

/// Sends a mail, and returns what becomes of it.
async fn attempt(
    core: &Core,
    mail: &Mail,
    leased: &Leased,
) -> Result<(MailResult, End, Option<String>)> {
    let Leased { id, kind, created_at, attempts, .. } = *leased;
    let to = match kind {
        MailKind::Reset => match address_of_account(core, leased).await? {
            Some(address) => address,
            None => return Ok((MailResult::Dropped, End::Failed, Some("no account".to_owned()))),
        },
        _ => leased.email.clone(),
    };
    let todo = match kind {
        MailKind::Reminder => match open_todo(core, id).await? {
            Some(todo) => Some(todo),
            None => return Ok((MailResult::Dropped, End::Failed, Some("no open todo".to_owned()))),
        },
        _ => None,
    };
    let token = kind.has_link().then(|| seal_link(core.tokens(), kind, id));
    let message = compose(
        &mail.options,
        core.service_name(),
        &Letter { id, kind, to: &to, created_at, token, todo },
    );
    let sending = AssertUnwindSafe(mail.options.mailer.send(&message)).catch_unwind();
    let sent = match timeout(SEND_TIMEOUT, sending).await {
        Ok(Ok(sent)) => sent,
        Ok(Err(_panic)) => Err(SendError::temporary("the transport panicked")),
        Err(_elapsed) => Err(SendError::temporary("no answer in time")),
    };
    let SendError { kind: failure, reply } = match sent {
        Ok(()) => {
            tracing::debug!(mail = %id, kind = kind.as_str(), "a mail was sent");
            return Ok((MailResult::Sent, End::Sent, None));
        }
        Err(error) => error,
    };
    let now = core.now();
    let next = now + BACKOFF.after(attempts);
    let (result, end) = match failure {
        SendErrorKind::Rejected => (MailResult::Rejected, End::Failed),
        SendErrorKind::Misconfigured => {
            mail.pause_until(Instant::now() + PAUSE.to_std().unwrap_or_default());
            // It is not the mail's failure, and does not count.
            (MailResult::Misconfigured, End::Due(now, attempts - 1))
        }
        SendErrorKind::Temporary if next >= created_at + kind.lifetime() => {
            (MailResult::Expired, End::Failed)
        }
        SendErrorKind::Temporary => (MailResult::Retried, End::Due(next, attempts)),
    };
    let kind = kind.as_str();
    if result == MailResult::Misconfigured {
        tracing::error!(mail = %id, kind, reply, "no mails can be sent: check the settings");
    } else {
        tracing::warn!(mail = %id, kind, attempts, reply, ?result, "a mail was not sent");
    }
    Ok((result, end, Some(reply)))
}

/// The address of the account to which a request for a new password belongs, as it is stored with
/// the account; the mail then has it too. Here and not in the request, which takes the same time
/// whether there is an account or not.
async fn address_of_account(core: &Core, leased: &Leased) -> Result<Option<String>> {
    const SQL: &str = "UPDATE mails SET email = (SELECT email FROM users \
         WHERE email IN ($3, $4) AND deleted_at IS NULL LIMIT 1) WHERE id = $1 AND lease = $2 \
         AND EXISTS (SELECT 1 FROM users WHERE email IN ($3, $4) AND deleted_at IS NULL) \
         RETURNING email, attempts";
    // An address that was stored before the rules of now is compared as it is.
    let parsed = Email::parse(&leased.email);
    let in_ascii = parsed.as_ref().map_or(leased.email.as_str(), Email::in_ascii);
    let update = Statement::new(SQL)
        .bind(leased.id)
        .bind(leased.lease)
        .bind(leased.email.as_str())
        .bind(in_ascii);
    let db = core.db();
    let row: Option<(String, i64)> =
        core.anonymous(async move { Ok(db.execute(update).await?) }).await?;
    Ok(row.map(|(address, _)| address))
}

/// The todo of a reminder, which has the mail's id; `None` if it is completed or gone by now.
async fn open_todo(core: &Core, reminder: Uuid) -> Result<Option<DueTodo>> {
    type Found = (String, Option<i64>, Option<i64>, Option<String>);
    const SQL: &str = "SELECT title, todos.due_date, due_minute, due_zone FROM todos \
         JOIN reminders AS fired ON todos.id = fired.todo_id AND todos.user_id = fired.user_id \
         WHERE fired.id = $1 AND NOT completed";
    let db = core.db();
    let select = Statement::new(SQL).bind(reminder);
    let row: Option<Found> = core.anonymous(async move { Ok(db.fetch(select).await?) }).await?;
    Ok(row.map(|(title, day, minute, zone)| {
        let day = day.and_then(TimeDelta::try_days).unwrap_or_default();
        let mut due = format!("on {}", chrono::NaiveDate::default() + day);
        if let (Some(minute), Some(zone)) = (minute, zone) {
            let _ = write!(due, " at {:02}:{:02} ({zone})", minute / 60, minute % 60);
        }
        DueTodo { title, due }
    }))
}

/// Stores the result of an attempt, unless another process has taken the mail meanwhile.
async fn release(core: &Core, leased: &Leased, end: End, reply: Option<String>) -> Result<()> {
    const SQL: &str = "UPDATE mails SET lease = NULL, leased_until = NULL, reply = $3, \
         sent_at = $4, failed_at = $5, next_attempt_at = $6, attempts = $7 \
         WHERE id = $1 AND lease = $2";
    let now = Timestamp(core.now());
    let (sent_at, failed_at, next_attempt_at, attempts) = match end {
        End::Sent => (Some(now), None, None, leased.attempts),
        End::Failed => (None, Some(now), None, leased.attempts),
        End::Due(at, attempts) => (None, None, Some(Timestamp(at)), attempts),
    };
    let update = Statement::new(SQL)
        .bind(leased.id)
        .bind(leased.lease)
        .bind(reply.as_deref())
        .bind(sent_at)
        .bind(failed_at)
        .bind(next_attempt_at)
        .bind(attempts);
    execute(core, update).await?;
    Ok(())
}

/// Measures the age of the oldest mail that is to be sent.
async fn measure(core: &Core, mail: &Mail) -> Result<()> {
    const SQL: &str = concat!("SELECT min(created_at), count(*) FROM mails WHERE ", unsent!());
    let now = core.now();
    let db = core.db();
    let select = Statement::new(SQL).bind(Timestamp(now));
    let (oldest, _): (Option<Timestamp>, i64) =
        core.anonymous(async move { Ok(db.fetch_one(select).await?) }).await?;
    let age = oldest.map_or(0, |oldest| (now - oldest.0).num_seconds().max(0));
    mail.counters.set_oldest_unsent(age);
    Ok(())
}

async fn execute(core: &Core, statement: Statement) -> Result<u64> {
    let db = core.db();
    core.anonymous(async move {
        let RowsAffected(rows) = db.execute(statement).await?;
        Ok(rows)
    })
    .await
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
