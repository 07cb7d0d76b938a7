//! Whose schema a database has, before anything is written to it: none yet, this program's, that of a
//! newer release, or another program's. It reads names and checksums, and no row of anybody.

use std::{collections::BTreeSet, fmt::Write};

use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::OpenError;
use crate::error::Cause;

/// Where sqlx notes which migrations were applied.
const NOTES: &str = "_sqlx_migrations";
/// A table of this program that the Python backend does not have.
const OWN: &str = "todo_counts";
/// Tables that an error names; there may be thousands.
const NAMED: usize = 5;

/// What is in a database.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Names of tables and views, but those of SQLite itself and of PostgreSQL's extensions.
    tables: Vec<String>,
    /// Version, checksum and success of each migration that is noted there.
    applied: Vec<(i64, Vec<u8>, bool)>,
}

#[cfg(feature = "sqlite")]
impl Found {
    pub(crate) async fn in_sqlite(db: &mut sqlx::SqliteConnection) -> sqlx::Result<Self> {
        let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') \
                   AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *db).await?;
        // Asked last: of a migration that runs meanwhile, its tables must not be seen without its note.
        let applied = if tables.iter().any(|table| table == NOTES) {
            let sql = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";
            sqlx::query_as(sql).fetch_all(db).await?
        } else {
            Vec::new()
        };
        Ok(Self { tables, applied })
    }
}

#[cfg(feature = "postgres")]
impl Found {
    pub(crate) async fn in_postgres(db: &mut sqlx::PgConnection) -> sqlx::Result<Self> {
        let sql = "SELECT relname::text FROM pg_class \
                   WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) \
                   AND relkind IN ('r', 'p', 'v', 'm', 'f') \
                   AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass \
                                   AND objid = pg_class.oid AND deptype = 'e') \
                   ORDER BY relname";
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *db).await?;
        // Asked last, as above. Where the search path finds it: that is where sqlx looks.
        let sql = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
        let applied = if sqlx::query_scalar(sql).fetch_one(&mut *db).await? {
            let sql = "SELECT version, checksum, success FROM _sqlx_migrations ORDER BY version";
            sqlx::query_as(sql).fetch_all(db).await?
        } else {
            Vec::new()
        };
        Ok(Self { tables, applied })
    }
}

impl Found {
    /// The versions that are applied, if `migrator` can go on from there; none of an empty database.
    ///
    /// # Errors
    /// [`OpenError::Foreign`], [`OpenError::Newer`]; [`OpenError::Migrate`] if a migration was applied
    /// with another text, or in part.
    pub(crate) fn applied(&self, migrator: &Migrator) -> Result<BTreeSet<i64>, OpenError> {
        let known = |version| ups(migrator).find(|migration| migration.version == version);
        let is_same = |(version, checksum, _): &(i64, Vec<u8>, bool)| {
            known(*version).is_some_and(|migration| *migration.checksum == **checksum)
        };
        let has = |name: &str| self.tables.iter().any(|table| table == name);
        if !self.applied.iter().any(is_same) && !has(OWN) {
            let others: Vec<_> = self.tables.iter().filter(|table| *table != NOTES).collect();
            if has("users") && has("todos") {
                return Err(OpenError::Foreign(
                    "it has tables users and todos, as the Python backend has. Nothing was \
                     written. Set DATABASE_URL to an empty database and run `todo-server import \
                     --from` with the address of this one"
                        .into(),
                ));
            }
            if !others.is_empty() || !self.applied.is_empty() {
                return Err(OpenError::Foreign(format!(
                    "it has tables of another program ({}). Nothing was written. Name an empty \
                     database, or a schema of its own by the search_path",
                    named(&others)
                )));
            }
        }
        let wrong = |text: String| Err(OpenError::Migrate(Cause::new(text)));
        for applied @ (version, _, success) in &self.applied {
            if !success {
                return wrong(format!("migration {version} was begun and not finished"));
            }
            if known(*version).is_some() && !is_same(applied) {
                return wrong(format!(
                    "migration {version} was applied with another text than this program has: was \
                     it built from files with changed line ends?"
                ));
            }
        }
        if let Some((version, ..)) = self.applied.iter().find(|(v, ..)| known(*v).is_none()) {
            return Err(OpenError::Newer(*version));
        }
        Ok(self.applied.iter().map(|(version, ..)| *version).collect())
    }
}

/// The migrations that bring a schema up to date, in order.
pub(crate) fn ups(migrator: &Migrator) -> impl Iterator<Item = &Migration> {
    migrator.iter().filter(|m| m.migration_type != MigrationType::ReversibleDown)
}

fn named(tables: &[&String]) -> String {
    let mut text = String::new();
    for (i, table) in tables.iter().take(NAMED).enumerate() {
        let table: String = table.chars().take(64).collect();
        let comma = if i > 0 { ", " } else { "" };
        // Of a String it does not fail.
        let _ = write!(text, "{comma}{}", table.escape_debug());
    }
    match tables.len().saturating_sub(NAMED) {
        0 if tables.is_empty() => "migrations that are not known here".into(),
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::db::sqlite::MIGRATIONS;

    #[tokio::test]
    async fn a_newer_release_takes_its_migrations_back_and_the_older_one_goes_on() {
        let last = ups(&MIGRATIONS).map(|m| m.version).max().unwrap();
        let known = MIGRATIONS.iter().filter(|m| m.version < last).cloned();
        let older = Migrator::with_migrations(known.collect());
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        MIGRATIONS.run(&mut db).await.unwrap();
        let row = "INSERT INTO users VALUES (zeroblob(16), 'a@b.c', 'Ada', 'x', 0)";
        sqlx::query(row).execute(&mut db).await.unwrap();

        let found = Found::in_sqlite(&mut db).await.unwrap();
        assert_eq!(found.applied(&MIGRATIONS).unwrap().last(), Some(&last));
        let refused = found.applied(&older);
        assert!(matches!(refused, Err(OpenError::Newer(version)) if version == last));

        MIGRATIONS.undo(&mut db, last - 1).await.unwrap();
        let found = Found::in_sqlite(&mut db).await.unwrap();
        assert_eq!(found.applied(&older).unwrap().last(), Some(&(last - 1)));
        older.run(&mut db).await.unwrap();
        let users = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM users");
        assert_eq!(users.fetch_one(&mut db).await.unwrap(), 1);
    }

    #[test]
    fn few_names_are_told_and_none_breaks_the_line() {
        let tables: Vec<_> = (0..9).map(|i| format!("t\n{i}")).collect();
        let told = Found { tables, applied: Vec::new() }.applied(&MIGRATIONS).unwrap_err();
        let told = told.to_string();
        assert!(told.contains("t\\n0, t\\n1") && told.contains("and 4 more"), "{told}");
        assert!(!told.contains('\n'));
    }
}
