//! Identifies the schema of a database before any write to it: empty, this program's, a newer
//! release's, or another program's. It reads names and checksums, and no user data.

use std::{collections::BTreeSet, fmt::Write};

use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::OpenError;
use crate::error::BoxError;

/// The table in which sqlx records the applied migrations.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";
/// A table of this program that the Python backend lacks.
const OWN_TABLE: &str = "todo_counts";
/// Maximum number of tables named in an error; there may be thousands.
const MAX_NAMED_TABLES: usize = 5;

/// The tables and the applied migrations of a database.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Names of tables and views, except SQLite's own and those of PostgreSQL's extensions.
    tables: Vec<String>,
    /// Version, checksum and success of each recorded migration.
    applied: Vec<(i64, Vec<u8>, bool)>,
}

#[cfg(feature = "sqlite")]
impl Found {
    pub(crate) async fn in_sqlite(db: &mut sqlx::SqliteConnection) -> sqlx::Result<Self> {
        let sql = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') \
                   AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
        let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *db).await?;
        // Read last: a concurrent migration's tables must not be read without its record.
        let applied = if tables.iter().any(|table| table == MIGRATIONS_TABLE) {
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
        // Read last, as above. Resolved by the search path, as sqlx does.
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
    /// The applied versions, if `migrator` can migrate from them; none for an empty database.
    ///
    /// # Errors
    /// [`OpenError::Foreign`], [`OpenError::Newer`]; [`OpenError::Migrate`] if a migration was
    /// applied with a different text, or in part.
    pub(crate) fn applied(&self, migrator: &Migrator) -> Result<BTreeSet<i64>, OpenError> {
        let known = |version| ups(migrator).find(|migration| migration.version == version);
        let is_same = |(version, checksum, _): &(i64, Vec<u8>, bool)| {
            known(*version).is_some_and(|migration| *migration.checksum == **checksum)
        };
        let has = |name: &str| self.tables.iter().any(|table| table == name);
        if !self.applied.iter().any(is_same) && !has(OWN_TABLE) {
            let others: Vec<_> =
                self.tables.iter().filter(|table| *table != MIGRATIONS_TABLE).collect();
            if has("users") && has("todos") {
                return Err(OpenError::Foreign(
                    "it has the tables users and todos of the Python backend. Nothing was \
                     written. Set DATABASE_URL to an empty database and run `todo-server import \
                     --from` with the address of this one"
                        .into(),
                ));
            }
            if !others.is_empty() || !self.applied.is_empty() {
                return Err(OpenError::Foreign(format!(
                    "it has tables of another program ({}). Nothing was written. Name an empty \
                     database, or a separate schema by the search_path",
                    list_names(&others)
                )));
            }
        }
        let wrong = |text: String| Err(OpenError::Migrate(BoxError::new(text)));
        for applied @ (version, _, success) in &self.applied {
            if !success {
                return wrong(format!("migration {version} was started and not finished"));
            }
            if known(*version).is_some() && !is_same(applied) {
                return wrong(format!(
                    "migration {version} was applied with a different text than this program's: \
                     was it built from files with changed line endings?"
                ));
            }
        }
        if let Some((version, ..)) = self.applied.iter().find(|(v, ..)| known(*v).is_none()) {
            return Err(OpenError::Newer(*version));
        }
        Ok(self.applied.iter().map(|(version, ..)| *version).collect())
    }
}

/// The up migrations, in order.
pub(crate) fn ups(migrator: &Migrator) -> impl Iterator<Item = &Migration> {
    migrator.iter().filter(|m| m.migration_type != MigrationType::ReversibleDown)
}

fn list_names(tables: &[&String]) -> String {
    let mut text = String::new();
    for (i, table) in tables.iter().take(MAX_NAMED_TABLES).enumerate() {
        let table: String = table.chars().take(64).collect();
        let comma = if i > 0 { ", " } else { "" };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}{}", table.escape_debug());
    }
    match tables.len().saturating_sub(MAX_NAMED_TABLES) {
        0 if tables.is_empty() => "unknown migrations".into(),
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
    async fn a_newer_release_reverts_its_migrations_and_the_older_one_continues() {
        let last = ups(&MIGRATIONS).map(|m| m.version).max().unwrap();
        let known = MIGRATIONS.iter().filter(|m| m.version < last).cloned();
        let older = Migrator::with_migrations(known.collect());
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        MIGRATIONS.run(&mut db).await.unwrap();
        let row = "INSERT INTO users (id, email, name, password_hash, created_at) \
                   VALUES (zeroblob(16), 'a@b.c', 'Ada', 'x', 0)";
        sqlx::query(row).execute(&mut db).await.unwrap();

        let found = Found::in_sqlite(&mut db).await.unwrap();
        assert_eq!(found.applied(&MIGRATIONS).unwrap().last(), Some(&last));
        let outcome = found.applied(&older);
        assert!(matches!(outcome, Err(OpenError::Newer(version)) if version == last));

        MIGRATIONS.undo(&mut db, last - 1).await.unwrap();
        let found = Found::in_sqlite(&mut db).await.unwrap();
        assert_eq!(found.applied(&older).unwrap().last(), Some(&(last - 1)));
        older.run(&mut db).await.unwrap();
        let users = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM users");
        assert_eq!(users.fetch_one(&mut db).await.unwrap(), 1);
    }

    #[test]
    fn an_error_names_few_tables_and_has_no_line_break() {
        let tables: Vec<_> = (0..9).map(|i| format!("t\n{i}")).collect();
        let error = Found { tables, applied: Vec::new() }.applied(&MIGRATIONS).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("t\\n0, t\\n1") && error.contains("and 4 more"), "{error}");
        assert!(!error.contains('\n'));
    }
}
