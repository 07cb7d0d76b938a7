//! Migrations: which there are, bringing a database up to date, and taking the last one back. Losing
//! rows takes a word of its own.

use std::{collections::BTreeSet, fs::File};

use sqlx::migrate::Migrator;

use super::{Conn, TransferError, open, open_existing};
use crate::{
    db::{Db, DbOptions, address::Address, postgres, schema::ups, sqlite},
    transfer::on,
};

/// One step of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Orders them.
    pub version: i64,
    /// What it does.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// What [`migrate`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The migrations that were applied, in order; none if the schema was up to date.
    pub applied: Vec<Migration>,
}

/// What [`revert`] took back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    /// The migration, or none if none is applied.
    pub reverted: Option<Migration>,
    /// How many users, sessions and todos there were before.
    pub rows: [i64; 3],
}

/// The migrations that this program knows, and whether the database has them. It changes nothing.
///
/// # Errors
/// [`TransferError`], if the database does not answer or this program cannot migrate it: it is
/// another's, or of a newer release.
pub async fn migrations(url: &str) -> Result<Vec<Migration>, TransferError> {
    let Some(mut conn) = open(url).await? else {
        // Only a file can be missing.
        return Ok(listed(&sqlite::MIGRATIONS, &BTreeSet::new()));
    };
    let listed = on_conn(&mut conn).await?;
    conn.close().await?;
    Ok(listed)
}

/// Brings the schema up to date.
///
/// # Errors
/// [`TransferError`].
pub async fn migrate(url: &str) -> Result<Change, TransferError> {
    let before = migrations(url).await?;
    let options = DbOptions {
        pool_min: 0,
        pool_max: 1,
        timeout: sqlite::MIGRATION_TIMEOUT,
        migrations_url: None,
    };
    Db::open(url, &options).await?.close().await;
    let pending = before.into_iter().filter(|migration| !migration.applied);
    let applied = pending.map(|migration| Migration { applied: true, ..migration }).collect();
    Ok(Change { applied })
}

/// Takes the last applied migration back. If that would lose rows it is refused, unless
/// `losing_rows`.
///
/// # Errors
/// [`TransferError`]; [`TransferError::Refused`] says how many rows are in the way.
pub async fn revert(url: &str, losing_rows: bool) -> Result<Revert, TransferError> {
    let mut conn = open_existing(url).await?;
    // Before there is a lock file: nothing is left beside another program's database.
    on_conn(&mut conn).await?;
    let _lock: Option<File> = match Address::read(url)? {
        Address::Sqlite(address) => match address.file() {
            Some(file) => Some(sqlite::lock_beside(file).await?),
            None => None,
        },
        Address::Postgres(_) => None,
    };
    let known = on_conn(&mut conn).await?;
    let applied: Vec<Migration> = known.into_iter().filter(|m| m.applied).collect();
    let Some((last, earlier)) = applied.split_last() else {
        return Ok(Revert { reverted: None, rows: [0; 3] });
    };
    let rows = if conn.has_table("todos").await? { conn.counts().await? } else { [0; 3] };
    if rows != [0; 3] && !losing_rows {
        let [users, sessions, todos] = rows;
        return Err(TransferError::Refused(format!(
            "taking back migration {} ({}) may lose {users} users, {sessions} sessions and \
             {todos} todos: add --yes if you mean it",
            last.version, last.description
        )));
    }
    let target = earlier.last().map_or(0, |migration| migration.version);
    let migrator = migrator(&conn);
    on!(&mut conn, c => migrator.undo(c, target).await)?;
    let reverted = Some(Migration { applied: false, ..last.clone() });
    conn.close().await?;
    Ok(Revert { reverted, rows })
}

fn migrator(conn: &Conn) -> &'static Migrator {
    match conn {
        Conn::Sqlite(_) => &sqlite::MIGRATIONS,
        Conn::Postgres(_) => &postgres::MIGRATIONS,
    }
}

pub(super) async fn on_conn(conn: &mut Conn) -> Result<Vec<Migration>, TransferError> {
    let (found, migrator) = (conn.found().await?, migrator(conn));
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
