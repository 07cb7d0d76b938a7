//! Migrations: listing them, applying pending ones, and reverting the last one. Losing rows
//! requires explicit confirmation.

use std::{collections::BTreeSet, fs::File};

use sqlx::migrate::Migrator;

use super::{AdminError, Conn, open, open_existing};
use crate::{
    admin::on,
    db::{DatabaseOptions, Db, address::Address, postgres, schema::ups, sqlite},
};

/// One step of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Version number; migrations are applied in ascending order.
    pub version: i64,
    /// Short description.
    pub description: String,
    /// Whether it is applied to the database.
    pub applied: bool,
}

/// Result of [`migrate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrateReport {
    /// Newly applied migrations, in order; empty if the schema was up to date.
    pub applied: Vec<Migration>,
}

/// Result of [`revert`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertReport {
    /// The reverted migration; `None` if none was applied.
    pub reverted: Option<Migration>,
    /// Number of users, sessions and todos before the revert.
    pub rows: [i64; 3],
}

/// Lists this release's migrations, applied or pending. Changes nothing.
///
/// # Errors
/// [`AdminError`], if the database is unreachable, belongs to another program or was migrated by a
/// newer release.
pub async fn migrations(url: &str) -> Result<Vec<Migration>, AdminError> {
    let Some(mut conn) = open(url).await? else {
        // Only an SQLite file can be missing.
        return Ok(listed(&sqlite::MIGRATIONS, &BTreeSet::new()));
    };
    let listed = migrations_of(&mut conn).await?;
    conn.close().await?;
    Ok(listed)
}

/// Brings the schema up to date.
///
/// # Errors
/// [`AdminError`].
pub async fn migrate(url: &str) -> Result<MigrateReport, AdminError> {
    let before = migrations(url).await?;
    let options = DatabaseOptions::new()
        .min_connections(0)
        .max_connections(1)
        .timeout(sqlite::MIGRATION_TIMEOUT);
    Db::open(url, &options).await?.close().await;
    let pending = before.into_iter().filter(|migration| !migration.applied);
    let applied = pending.map(|migration| Migration { applied: true, ..migration }).collect();
    Ok(MigrateReport { applied })
}

/// Reverts the last applied migration. Rejected if that could lose rows, unless `losing_rows`.
///
/// # Errors
/// [`AdminError`]; [`AdminError::Refused`] gives the numbers of rows at risk.
pub async fn revert(url: &str, losing_rows: bool) -> Result<RevertReport, AdminError> {
    let mut conn = open_existing(url).await?;
    // Checked before the lock file is created: no file is left beside another program's database.
    migrations_of(&mut conn).await?;
    let _lock: Option<File> = match Address::read(url)? {
        Address::Sqlite(address) => match address.file() {
            Some(file) => Some(sqlite::lock_beside(file).await?),
            None => None,
        },
        Address::Postgres(_) => None,
    };
    let migrations = migrations_of(&mut conn).await?;
    let applied: Vec<Migration> = migrations.into_iter().filter(|m| m.applied).collect();
    let Some((last, earlier)) = applied.split_last() else {
        return Ok(RevertReport { reverted: None, rows: [0; 3] });
    };
    let rows = if conn.has_table("todos").await? { conn.counts().await? } else { [0; 3] };
    if rows != [0; 3] && !losing_rows {
        let [users, sessions, todos] = rows;
        let losses = certain_losses(&mut conn, last.version).await?;
        return Err(AdminError::Refused(format!(
            "reverting migration {} ({}) may lose {users} users, {sessions} sessions and \
             {todos} todos{losses}: confirm with --yes",
            last.version, last.description
        )));
    }
    if let Some(rebuilt) = rebuilt_by(last.version)
        && let Address::Sqlite(address) = Address::read(url)?
        && let Some(file) = address.file()
    {
        sqlite::check_space(file, rebuilt)?;
    }
    let target = earlier.last().map_or(0, |migration| migration.version);
    let migrator = migrator(&conn);
    on!(&mut conn, c => migrator.undo(c, target).await)?;
    let reverted = Some(Migration { applied: false, ..last.clone() });
    conn.close().await?;
    Ok(RevertReport { reverted, rows })
}

/// The migration whose revert drops columns, the trash and stored answers.
const CHANGES_AND_TRASH: i64 = 5;
/// The migration whose revert drops keys, verifications of addresses and mails.
const ACCOUNTS: i64 = 7;
/// The migration whose revert drops identities.
const IDENTITY: i64 = 8;
/// The migration whose revert drops webhooks.
const REMINDERS: i64 = 10;
/// The migration whose revert drops lists, reminders and properties of iCalendar.
const PLANNING: i64 = 9;

/// What the revert of a migration is certain to lose, as the continuation of a sentence; empty if
/// nothing. The log of changes is derived, and not counted.
async fn certain_losses(conn: &mut Conn, version: i64) -> Result<String, AdminError> {
    const TODOS: &str = "SELECT (SELECT count(*) FROM trash), \
        (SELECT count(*) FROM todos WHERE tags <> '[]' OR due_date IS NOT NULL \
            OR rule IS NOT NULL OR series_id IS NOT NULL OR occurrence IS NOT NULL \
            OR list_id IS NOT NULL OR parent_id IS NOT NULL OR position IS NOT NULL), \
        (SELECT count(*) FROM idempotency)";
    const CREDENTIALS: &str = "SELECT (SELECT count(*) FROM sessions WHERE kind <> 'password'), \
        (SELECT count(*) FROM users WHERE email_verified_at IS NOT NULL), \
        (SELECT count(*) FROM mails WHERE sent_at IS NULL AND failed_at IS NULL)";
    const IDENTITIES: &str = "SELECT (SELECT count(*) FROM identities), \
        (SELECT count(*) FROM users WHERE password_hash = '!' AND deleted_at IS NULL), \
        (SELECT count(*) FROM users WHERE time_zone IS NOT NULL OR reminder_mail)";
    const WEBHOOKS: &str = "SELECT (SELECT count(*) FROM webhooks), \
        (SELECT count(*) FROM reminders WHERE fired_at IS NOT NULL), \
        (SELECT count(*) FROM webhook_deliveries)";
    const PLANS: &str = "SELECT (SELECT count(*) FROM lists WHERE deleted_at IS NULL), \
        (SELECT count(*) FROM todos WHERE reminders <> '[]' OR ical IS NOT NULL), \
        (SELECT count(*) FROM trash WHERE reminders <> '[]' OR ical IS NOT NULL)";
    let sql = match version {
        PLANNING => PLANS,
        CHANGES_AND_TRASH => TODOS,
        ACCOUNTS => CREDENTIALS,
        IDENTITY => IDENTITIES,
        REMINDERS => WEBHOOKS,
        _ => return Ok(String::new()),
    };
    let lost = on!(conn, c => sqlx::query_as::<_, (i64, i64, i64)>(sql).fetch_one(c).await)?;
    Ok(match (version, lost) {
        (_, (0, 0, 0)) => String::new(),
        (CHANGES_AND_TRASH, (trash, more, answers)) => format!(
            ", and certainly loses {trash} todos in the trash, the tags, due dates, lists or \
             order of {more} todos, and {answers} answers to requests with a key"
        ),
        (PLANNING, (lists, todos, trash)) => format!(
            ", and certainly loses {lists} lists, and the reminders and the properties of \
             iCalendar of {todos} todos and {trash} in the trash"
        ),
        (IDENTITY, (identities, users, settings)) => format!(
            ", and certainly loses {identities} identities, without which {users} users cannot \
             log in, and the time zone or the setting of reminders of {settings} users"
        ),
        (REMINDERS, (webhooks, fired, queued)) => format!(
            ", and certainly loses {webhooks} webhooks, {fired} reminders that have fired, and \
             {queued} that are queued for webhooks"
        ),
        (_, (keys, verified, mails)) => format!(
            ", and certainly loses {keys} API keys and sessions of other issuers, the \
             verification of {verified} addresses, and {mails} unsent mails"
        ),
    })
}

/// The space that a revert needs on SQLite, relative to the size of the file, if it writes all
/// todos again: the new table with its indexes, and temporary files that sort the indexes.
fn rebuilt_by(version: i64) -> Option<u64> {
    // Measured with a million todos: 0.9 and 0.6 times.
    (version == CHANGES_AND_TRASH).then_some(2)
}

fn migrator(conn: &Conn) -> &'static Migrator {
    match conn {
        Conn::Sqlite(_) => &sqlite::MIGRATIONS,
        Conn::Postgres(_) => &postgres::MIGRATIONS,
    }
}

pub(super) async fn migrations_of(conn: &mut Conn) -> Result<Vec<Migration>, AdminError> {
    let found = conn.found().await?;
    let migrator = migrator(conn);
    Ok(listed(migrator, &found.applied(migrator)?))
}

fn listed(migrator: &Migrator, applied: &BTreeSet<i64>) -> Vec<Migration> {
    ups(migrator)
        .map(|m| Migration {
            version: m.version,
            description: m.description.to_string(),
            applied: applied.contains(&m.version),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_revert_that_writes_all_todos_needs_their_space_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("todo.db");
        std::fs::write(&file, [0; 4096]).unwrap();
        sqlite::check_space(&file, 2).unwrap();
        let error = AdminError::from(sqlite::check_space(&file, 1 << 50).unwrap_err());
        let text = crate::ErrorChain(&error).to_string();
        assert!(text.contains("MiB") && text.contains("nothing was changed"), "{text}");
        assert_eq!(rebuilt_by(CHANGES_AND_TRASH), Some(2));
        assert_eq!(rebuilt_by(4), None);
    }
}
