//! The import reports each invalid row and writes nothing, unless it is told to skip them. A
//! failure half way leaves no rows.

use sqlx::{Connection, PgConnection, SqliteConnection};
use todo_tests::postgres::Cluster;

use super::{
    ADA, SQLITE, WITHOUT_ZONE, check_imported, database, file, import, run, run_program, valid_rows,
};

/// Rows that each break one rule, and the import's report of each.
const INVALID: [(&str, &str); 12] = [
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000001', 'no address', 'Bob', '$2b$12$nB4hJ6sF2gUa9kZx1oVi3emmp4v0kh0CaJP6zeWdHbZWWzYbBdI82', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000001: email: Invalid email format.",
    ),
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000002', 'ZOE@example.com', 'Bob', '$2b$12$nB4hJ6sF2gUa9kZx1oVi3emmp4v0kh0CaJP6zeWdHbZWWzYbBdI82', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000002: email: Email must not be that of another",
    ),
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000003', 'c@example.com', 'B', 'pbkdf2:sha256:hush', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000003: name: Name must be at least 2 characters. password_hash: Password hash must be a hash",
    ),
    (
        "INSERT INTO users VALUES ('0d0d0d0d-0000-4000-8000-000000000004', 'd@example.com', NULL, '$2b$12$hush', '2024-06-01')",
        "users 0d0d0d0d-0000-4000-8000-000000000004: name: Name cannot be null. password_hash: Password hash must be a hash",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000001', '0a0a0a0a-0000-4000-8000-000000000001', '  ', NULL, 'low', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000001: title: Title cannot be empty.",
    ),
    (
        "INSERT INTO todos SELECT '0e0e0e0e-0000-4000-8000-000000000002', '0a0a0a0a-0000-4000-8000-000000000001', repeat('é', 201), NULL, 'low', false, '2024-06-01', NULL",
        "todos 0e0e0e0e-0000-4000-8000-000000000002: title: Title must be at most 200",
    ),
    (
        "INSERT INTO todos SELECT '0e0e0e0e-0000-4000-8000-000000000003', '0a0a0a0a-0000-4000-8000-000000000001', 'x', repeat('x', 1001), 'low', false, '2024-06-01', NULL",
        "todos 0e0e0e0e-0000-4000-8000-000000000003: description: Description must be at most 1000",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000004', '0a0a0a0a-0000-4000-8000-000000000001', 'x', NULL, 'urgent', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000004: priority: Priority must be high",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000005', '0f0f0f0f-0000-4000-8000-000000000001', 'x', NULL, 'low', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000005: user_id: User id must be that of an existing user",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000006', '0d0d0d0d-0000-4000-8000-000000000001', 'x', NULL, 'low', false, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000006: user_id: User id must be that of an existing user",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000007', '0a0a0a0a-0000-4000-8000-000000000001', 'x', NULL, 'low', NULL, '2024-06-01', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000007: completed: Completed cannot be null.",
    ),
    (
        "INSERT INTO todos VALUES ('0e0e0e0e-0000-4000-8000-000000000008', '0a0a0a0a-0000-4000-8000-000000000001', 'x', NULL, 'low', false, 'infinity', NULL)",
        "todos 0e0e0e0e-0000-4000-8000-000000000008: created_at: Created at must be a date and time",
    ),
];

/// Hashes with excessive cost parameters, and internationalised addresses.
#[tokio::test]
async fn costly_hashes_are_reported_and_international_addresses_are_imported() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (file(dir.path(), "old.db"), file(dir.path(), "new.db"));
    let mut db = SqliteConnection::connect(&format!("{from}?mode=rwc")).await.expect("a file");
    let tail = "dG9kby1ub2JvZHktc2FsdA$ZG9lcy1ub3QtbWF0Y2gtYW55LXBhc3N3b3JkLWF0LWE";
    let users = [
        ("1", "Jörg@EXÄMPLE.com", ADA[1].to_owned()),
        ("2", "jo\u{308}rg@xn--exmple-cua.com", ADA[1].to_owned()),
        ("3", "用户@例え.テスト", format!("$argon2id$v=19$m=65536,t=3,p=4${tail}")),
        ("4", "d@example.com", ADA[1].replace("$12$", "$31$")),
        ("5", "e@example.com", ADA[1].replace("$12$", "$16$")),
        ("6", "f@example.com", format!("$argon2id$v=19$m=2097152,t=1,p=1${tail}")),
        ("7", "g@example.com", format!("$argon2id$v=19$m=65536,t=11,p=1${tail}")),
        ("8", "h@example.com", "$argon2id$v=19$m=19456,t=2,p=1".to_owned()),
    ];
    let mut sql = SQLITE.to_owned();
    for (id, email, hash) in &users {
        let id = id.repeat(32);
        sql += &format!(
            "INSERT INTO users VALUES ('{id}', '{email}', 'Some Body', '{hash}', \
             '2024-06-01 00:00:0{}');",
            &id[..1]
        );
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut db).await.expect("rows");
    let (ok, _, err) = import(&from, &to, &[]).await;
    assert!(!ok);
    let named: Vec<_> = err.lines().filter(|line| line.starts_with("users ")).collect();
    assert_eq!(named.len(), 6, "{err}");
    assert!(named[0].contains(&"2".repeat(32)) && named[0].contains("email: "), "{err}");
    for (line, id) in named[1..].iter().zip(["4", "5", "6", "7", "8"]) {
        assert!(line.contains(&id.repeat(32)) && line.contains("password_hash: "), "{line}");
        assert!(!line.contains("$2b$") && !line.contains("$argon2"), "{line}");
    }
    let (ok, out, err) = import(&from, &to, &["--skip-invalid"]).await;
    assert!(ok && out.contains("2 users"), "{out}{err}");
    let mut db = SqliteConnection::connect(&to).await.expect("the file");
    let emails: Vec<String> = sqlx::query_scalar("SELECT email FROM users ORDER BY created_at")
        .fetch_all(&mut db)
        .await
        .expect("rows");
    assert_eq!(emails, ["jörg@exämple.com", "用户@例え.テスト"]);
}

#[tokio::test]
async fn invalid_rows_are_reported_and_stop_the_import_before_any_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    let mut sql = WITHOUT_ZONE.to_owned() + &valid_rows("password_hash", "", ["low", "high"]);
    for (row, _) in INVALID {
        sql += row;
        sql += ";";
    }
    let from = database(&admin, "source", &sql).await;
    let path = dir.path().join("a.db");
    let to = file(dir.path(), "a.db");

    let (ok, out, err) = import(&from, &to, &[]).await;
    assert!(!ok && out.is_empty());
    for (_, named) in INVALID {
        assert_eq!(err.matches(named).count(), 1, "{named} in {err}");
    }
    assert_eq!(err.lines().count(), INVALID.len() + 1, "{err}");
    assert!(err.ends_with("12 of the source's rows break a rule: nothing was written\n"), "{err}");
    assert!(!err.contains("hush") && !err.contains("$2b$"), "a hash is printed: {err}");
    assert!(!path.exists(), "no file is created");

    let (ok, out, err) = import(&from, &to, &["--skip-invalid"]).await;
    assert!(ok, "{err}");
    assert_eq!(out, "imported 2 users and 1201 todos\nskipped 12 rows\n");
    assert_eq!(err.lines().count(), INVALID.len(), "{err}");
    check_imported(&to).await;

    // The report is truncated, with the number of the rest.
    let many = "INSERT INTO todos SELECT gen_random_uuid(), gen_random_uuid(), 'x', NULL, 'low', false, \
                '2024-06-01', NULL FROM generate_series(1, 1500)";
    run(&from, many).await;
    let (ok, _, err) = import(&from, &file(dir.path(), "b.db"), &[]).await;
    assert!(!ok);
    assert_eq!(err.lines().count(), 102, "{err}");
    assert!(err.contains("and 1412 more") && err.contains("1512 of the source's rows"), "{err}");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn a_failure_half_way_leaves_the_target_without_rows() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let admin = cluster.url();
    let sql = WITHOUT_ZONE.to_owned() + &valid_rows("password_hash", "", ["low", "high"]);
    let from = database(&admin, "source", &sql).await;
    let to = database(&admin, "target", "SELECT 1").await;
    assert!(run_program(&[("DATABASE_URL", &to)], &["migrate"]).await.0);
    run(
        &to,
        "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF (SELECT count(*) FROM todos) > 600 THEN RAISE EXCEPTION 'full'; END IF;
             RETURN NULL; END $$;
         CREATE TRIGGER trap AFTER INSERT ON todos EXECUTE FUNCTION trap();",
    )
    .await;
    let (ok, _, err) = import(&from, &to, &[]).await;
    assert!(!ok && err.lines().count() == 1 && err.contains("full"), "{err}");
    let mut db = PgConnection::connect(&to).await.expect("the database");
    let left: i64 =
        sqlx::query_scalar("SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM todos)")
            .fetch_one(&mut db)
            .await
            .expect("a number");
    assert_eq!(left, 0);
    cluster.stop().await.expect("it stops");
}
