//! The import copies a database without invalid rows: users log in with their old passwords and
//! find their todos.

use sqlx::{Connection, SqliteConnection};
use todo_tests::postgres::Cluster;

use super::{
    ADA_ID, SQLITE, WITH_ZONE, WITHOUT_ZONE, check_imported, database, file, import, run_program,
    valid_rows,
};

#[tokio::test]
async fn users_log_in_with_their_old_passwords_and_are_on_argon2id_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    let plain = WITHOUT_ZONE.to_owned() + &valid_rows("password_hash", "", ["low", "high"]);
    let zoned = WITH_ZONE.to_owned() + &valid_rows("hashed_password", "+00", ["LOW", "HIGH"]);
    let plain = database(&admin, "plain", &plain).await;
    let zoned = database(&admin, "zoned", &zoned).await;
    let targets = [
        (&plain, file(dir.path(), "a.db")),
        (&zoned, file(dir.path(), "b.db")),
        (&plain, database(&admin, "a", "SELECT 1").await),
        (&zoned, database(&admin, "b", "SELECT 1").await),
    ];
    for (from, to) in &targets {
        let (ok, out, err) = import(from, to, &[]).await;
        assert!(ok, "{err}");
        assert_eq!(out, "imported 2 users and 1201 todos\n");
        check_imported(to).await;
        let (ok, _, err) = import(from, to, &[]).await;
        assert!(!ok && err.contains("the target is not empty"), "{err}");
    }
    // The source under another URL is not a valid target either.
    for to in [&plain, &plain.replace("postgres://", "postgresql+asyncpg://")] {
        let (ok, _, err) = import(&plain, to, &[]).await;
        assert!(!ok && err.contains("are the same"), "{err}");
    }
    let (ok, _, err) = import(&plain, &zoned, &[]).await;
    assert!(!ok && err.contains("not of this program"), "{err}");
    let (ok, _, err) = import(&admin, &file(dir.path(), "c.db"), &[]).await;
    assert!(!ok && err.contains("no table users"), "{err}");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_file_of_the_python_backend_is_imported_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (file(dir.path(), "old.db"), file(dir.path(), "new.db"));
    let simple = |sql: String| {
        let ids = sql.split('\'').map(|part| match uuid::Uuid::try_parse(part) {
            Ok(id) => id.simple().to_string(),
            Err(_) => part.to_owned(),
        });
        ids.collect::<Vec<_>>().join("'")
    };
    let sql = SQLITE.to_owned() + &simple(valid_rows("password_hash", "", ["LOW", "high"]));
    let mut db = SqliteConnection::connect(&format!("{from}?mode=rwc")).await.expect("a file");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.expect("rows");
    let (ok, _, err) = run_program(&[("DATABASE_URL", &to)], &["import", "--from", &from]).await;
    assert!(ok, "{err}");
    check_imported(&to).await;

    let nul = simple(format!(
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000001', '{ADA_ID}', \
         'a' || char(0), NULL, 'low', 0, '2024-06-01 00:00:00', NULL)"
    ));
    sqlx::raw_sql(sqlx::AssertSqlSafe(nul)).execute(&mut db).await.expect("a row");
    let other = file(dir.path(), "other.db");
    let (ok, _, err) = import(&from, &other, &[]).await;
    assert!(
        !ok && err.contains("title: Title cannot contain the null character (U+0000)."),
        "{err}"
    );
    // Two spellings of one id are two keys in a text column.
    let twice = "UPDATE todos SET id = '0b0b0b0b-0000-4000-8000-000000000001', title = 'twice' \
                 WHERE created_at LIKE '2024-06-01%'";
    sqlx::raw_sql(twice).execute(&mut db).await.expect("a row");
    let (ok, _, err) = import(&from, &other, &[]).await;
    assert!(!ok && err.contains("id: Id must not be that of another todo"), "{err}");
    let (ok, out, err) = import(&from, &other, &["--skip-invalid"]).await;
    assert!(ok && out.contains("skipped 1 rows"), "{out}{err}");
    let (ok, _, err) = import(&from, &format!("{from}?mode=rw"), &[]).await;
    assert!(!ok && err.contains("are the same"), "{err}");
}
