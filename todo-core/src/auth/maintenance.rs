//! Periodic work: deletion of expired rows, and the cost of the stored hashes.

use uuid::Uuid;

use super::export::limit;
use crate::{
    core::Core,
    crypto::stored_hash,
    db::{RowsAffected, Statement, value::Timestamp},
    error::Result,
};

/// Deletes expired sessions, revoked tokens, codes of sign-ins and old rate-limit slots, in bounded
/// batches, and reloads the cost of the stored password hashes. Servers call it every minute; the
/// interval does not matter for sessions, as expired ones are rejected anyway.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal).
pub async fn delete_expired(core: &Core) -> Result<()> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
         (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT 1000)";
    // Kept for an hour longer: the clock of another process may be behind.
    const TOKENS: &str = "DELETE FROM revoked_tokens WHERE id IN \
         (SELECT id FROM revoked_tokens WHERE expires_at <= $1 LIMIT 1000)";
    const CODES: &str = "DELETE FROM oauth_codes WHERE id IN \
         (SELECT id FROM oauth_codes WHERE expires_at <= $1 LIMIT 1000)";
    // A time far in the future was written before the clock was set back. The condition is there
    // again, since a slot may be taken while this waits for its row.
    macro_rules! is_old {
        () => {
            "((taken_at <= $1 AND (action <> 'export' OR taken_at <= $3)) OR taken_at > $2)"
        };
    }
    const ATTEMPTS: &str = concat!(
        "DELETE FROM rate_limits WHERE (action, client, slot) IN \
         (SELECT action, client, slot FROM rate_limits WHERE ",
        is_old!(),
        " LIMIT 1000) AND ",
        is_old!()
    );
    let db = core.db();
    let now = core.now();
    let work = core.clone();
    core.anonymous(async move {
        let sessions = Statement::new(SESSIONS).bind(Timestamp(now));
        let attempts = Statement::new(ATTEMPTS)
            .bind(Timestamp(now - chrono::TimeDelta::minutes(2)))
            .bind(Timestamp(now + chrono::TimeDelta::hours(1)))
            .bind(Timestamp(now - limit::WINDOW));
        let hour = chrono::TimeDelta::hours(1);
        let tokens = Statement::new(TOKENS).bind(Timestamp(now - hour));
        let codes = Statement::new(CODES).bind(Timestamp(now));
        for delete in [sessions, tokens, codes, attempts] {
            loop {
                let RowsAffected(deleted) = db.execute(delete.clone()).await?;
                if deleted < 1000 {
                    break;
                }
            }
        }
        load_hash_costs(&work).await
    })
    .await
}

/// Ends the sessions that were not used for
/// [`session_idle_days`](crate::CoreBuilder::session_idle_days), in bounded batches. Without this
/// limit, it does nothing. API keys stay.
///
/// # Errors
/// As [`delete_expired`].
pub async fn delete_idle_sessions(core: &Core) -> Result<()> {
    const PAGE_END: &str = "SELECT id FROM sessions WHERE id > $1 ORDER BY id LIMIT 1 OFFSET 999";
    const DELETE: &str = "DELETE FROM sessions WHERE id > $1 AND ($2 OR id <= $3) \
         AND kind <> 'key' AND coalesce(seen_at, created_at) <= $4";
    let idle_lifetime = core.session_idle_lifetime();
    if idle_lifetime.is_zero() {
        return Ok(());
    }
    // Every process writes within some minutes when sessions were used.
    let used_until = core.now() - idle_lifetime - chrono::TimeDelta::minutes(5);
    let mut after = Uuid::nil();
    loop {
        let db = core.db();
        let end = core.anonymous(async move {
            let end = Statement::new(PAGE_END).bind(after);
            let end: Option<(Uuid,)> = db.fetch(end).await?;
            let delete = Statement::new(DELETE)
                .bind(after)
                .bind(end.is_none())
                .bind(end.map_or(Uuid::nil(), |(end,)| end))
                .bind(Timestamp(used_until));
            let RowsAffected(_) = db.execute(delete).await?;
            Ok(end)
        });
        match end.await? {
            Some((end,)) => after = end,
            None => return Ok(()),
        }
    }
}

/// Loads the cost of the stored password hashes: each failed login costs as much as the costliest.
pub(crate) async fn load_hash_costs(core: &Core) -> Result<()> {
    core.hasher().set_max_work(stored_hash::max_stored_work(&core.db()).await?);
    Ok(())
}
