//! Every command rejects the database of another program and leaves it unchanged.

use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_tests::{PROGRAMS, postgres::Cluster, startup_error};

use super::{SQLITE, WITH_ZONE, WITHOUT_ZONE, database, file, run_program};

/// Every command that opens the database at `url` rejects it with `named` in its message.
async fn assert_all_reject(url: &str, named: &str) {
    let settings = [("DATABASE_URL", url)];
    for program in PROGRAMS {
        let dir = tempfile::tempdir().expect("a directory");
        let printed = startup_error(program, dir.path(), &settings).await;
        assert!(printed.contains(named), "{program}: {printed}");
        assert_eq!(dir.path().read_dir().expect("it").count(), 0, "{program} leaves a file");
    }
    for arguments in [
        &["migrate"][..],
        &["migrate", "--status"],
        &["migrate", "--revert", "--yes"],
        &["doctor"],
        &["copy", "--from", url, "--to", "sqlite://copy.db"],
        &["import", "--from", "sqlite://nowhere.db"],
    ] {
        let (ok, out, err) = run_program(&settings, arguments).await;
        assert!(!ok, "{arguments:?}: {out}{err}");
        if arguments[0] != "import" {
            assert!(format!("{out}{err}").contains(named), "{arguments:?}: {out}{err}");
        }
    }
}

const PYTHON: &str = "todo-server import --from";

#[tokio::test]
async fn a_file_of_another_program_is_rejected_and_left_unchanged() {
    for (sql, named) in [
        (SQLITE, PYTHON),
        ("CREATE TABLE users (id INTEGER)", "another program (users)"),
        ("CREATE TABLE notes (id INTEGER); CREATE VIEW old AS SELECT * FROM notes", "(notes, old)"),
        (
            "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
                installed_on TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
                execution_time BIGINT NOT NULL);
             INSERT INTO _sqlx_migrations VALUES (1, 'other', NULL, TRUE, x'00', 1)",
            "another program",
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let url = file(dir.path(), "old.db");
        let mut db = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.expect("a file");
        sqlx::raw_sql(sql).execute(&mut db).await.expect("tables");
        db.close().await.expect("closed");
        let before = std::fs::read(dir.path().join("old.db")).expect("a file");
        assert_all_reject(&url, named).await;
        assert!(std::fs::read(dir.path().join("old.db")).expect("a file") == before, "{named}");
        assert_eq!(dir.path().read_dir().expect("it").count(), 1, "{named}: a file is left");
    }
}

/// The names of all tables.
async fn tables(url: &str) -> Vec<String> {
    let mut db = PgConnection::connect(url).await.expect("the database");
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' \
               AND relnamespace = 'public'::regnamespace ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut db).await.expect("rows")
}

#[tokio::test]
async fn a_postgres_database_of_another_program_is_rejected_and_left_unchanged() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    // An earlier release left its own table when it failed there.
    let left =
        "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL,
        installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
        checksum bytea NOT NULL, execution_time bigint NOT NULL);";
    for (name, sql, named) in [
        ("plain", WITHOUT_ZONE.to_owned(), PYTHON),
        ("zoned", WITH_ZONE.to_owned(), PYTHON),
        ("failed", format!("{WITHOUT_ZONE}{left}"), PYTHON),
        ("other", "CREATE TABLE sessions (id int)".to_owned(), "another program (sessions)"),
    ] {
        let url = database(&admin, name, &sql).await;
        let before = tables(&url).await;
        assert_all_reject(&url, named).await;
        assert_eq!(tables(&url).await, before, "{name}");
    }
    // Another schema of that database is empty; the leftover table alone is not foreign.
    let left = database(&admin, "left_alone", left).await;
    let shared =
        database(&admin, "shared", "CREATE TABLE notes (id int); CREATE SCHEMA todo").await;
    for url in [left, format!("{shared}?options=-c%20search_path%3Dtodo")] {
        let (ok, out, err) = run_program(&[("DATABASE_URL", &url)], &["migrate"]).await;
        assert!(ok && out.contains("applied 1"), "{out}{err}");
    }
    cluster.stop().await.expect("it stops");
}
