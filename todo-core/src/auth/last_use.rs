//! When sessions were last used: kept in memory, and written for many sessions at once, so that no
//! request causes a write.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::{
    core::Core,
    db::{Dialect, RowsAffected, Statement, value::Timestamp},
    error::Result,
};

/// Maximum number of sessions that are kept until the next write; further ones are not recorded.
const MAX_SESSIONS: usize = 100_000;
/// Sessions per statement.
const BATCH_SESSIONS: usize = 1000;
/// Minimum time between two writes.
const INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// The sessions that were used since the last write.
#[derive(Default)]
pub(crate) struct LastUses(Mutex<Uses>);

#[derive(Default)]
struct Uses {
    sessions: HashSet<Uuid>,
    written_at: Option<DateTime<Utc>>,
}

impl LastUses {
    /// Records a use. The session may have ended: then the write does not find it.
    pub(crate) fn record(&self, session: Uuid) {
        let mut uses = self.uses();
        if uses.sessions.len() < MAX_SESSIONS {
            uses.sessions.insert(session);
        }
    }

    /// The sessions to write, if the last write was at least [`INTERVAL`] before `now`.
    fn take_due(&self, now: DateTime<Utc>) -> HashSet<Uuid> {
        let mut uses = self.uses();
        // An earlier time than the last one: the clock was set back.
        if uses.written_at.is_some_and(|at| now - at < INTERVAL && now >= at) {
            return HashSet::new();
        }
        uses.written_at = Some(now);
        mem::take(&mut uses.sessions)
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes when the sessions used in this process since the last call were last used: now, to about
/// a minute. Does nothing if the last call was less than a minute ago. After an error, uses may be
/// lost.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal).
pub(crate) async fn write_last_uses(core: &Core) -> Result<()> {
    const SQLITE: &str = "UPDATE sessions SET seen_at = $1 \
         WHERE id IN (SELECT unhex(value) FROM json_each($2)) \
         AND (seen_at IS NULL OR seen_at < $1)";
    // Rows that another replica writes, or that end, are skipped: this waits for nobody.
    const POSTGRES: &str = "UPDATE sessions SET seen_at = $1 WHERE id IN \
         (SELECT id FROM sessions WHERE id = ANY ($2) AND (seen_at IS NULL OR seen_at < $1) \
         FOR NO KEY UPDATE SKIP LOCKED)";
    let now = core.now();
    let used: Vec<Uuid> = core.last_uses().take_due(now).into_iter().collect();
    let db = core.db();
    let sql = match db.dialect() {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    };
    for sessions in used.chunks(BATCH_SESSIONS) {
        let update = Statement::new(sql).bind(Timestamp(now)).bind(sessions.to_vec());
        let db = db.clone();
        core.anonymous(async move {
            let RowsAffected(_) = db.execute(update).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_bounded_and_due_once_a_minute() {
        let uses = LastUses::default();
        for number in 0..=MAX_SESSIONS as u128 {
            uses.record(Uuid::from_u128(number));
        }
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1);
        assert_eq!(uses.take_due(now).len(), MAX_SESSIONS);
        uses.record(Uuid::nil());
        assert!(uses.take_due(now + TimeDelta::seconds(59)).is_empty());
        assert_eq!(uses.take_due(now + TimeDelta::seconds(60)).len(), 1);
        uses.record(Uuid::nil());
        assert_eq!(uses.take_due(now).len(), 1, "the clock was set back");
    }
}
