//! Periodic work: deletion of expired rows, and the cost of the stored hashes.

use super::export::limit;
use crate::{
    core::Core,
    crypto::stored_hash,
    db::{RowsAffected, Statement, value::Timestamp},
    error::Result,
};

/// Deletes expired sessions and old rate-limit slots, in bounded batches, and reloads the cost of
/// the stored password hashes. Servers call it every minute; the interval does not matter for
/// sessions, as expired ones are rejected anyway.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal).
pub async fn delete_expired(core: &Core) -> Result<()> {
    const SESSIONS: &str = "DELETE FROM sessions WHERE id IN \
         (SELECT id FROM sessions WHERE expires_at <= $1 LIMIT 1000)";
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
        for delete in [sessions, attempts] {
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

/// Loads the cost of the stored password hashes: each failed login costs as much as the costliest.
pub(crate) async fn load_hash_costs(core: &Core) -> Result<()> {
    core.hasher().set_max_work(stored_hash::max_stored_work(&core.db()).await?);
    Ok(())
}
