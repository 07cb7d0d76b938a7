//! Migrations by the command line: up, down and up again is up, and down leaves nothing behind.

use std::path::Path;

use sqlx::{Connection, PgConnection, Row, SqliteConnection};
use todo_tests::{STARTING, command, postgres::Cluster};
use tokio::time::timeout;

async fn migrate(url: &str, arguments: &[&str]) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = command("todo-server", dir.path(), &[("DATABASE_URL", url)]);
    let output = timeout(STARTING, command.arg("migrate").args(arguments).output()).await;
    let output = output.expect("an end in time").expect("the program runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("UTF-8"))
}

/// Everything that a schema consists of, as text in a fixed order.
async fn schema(url: &str) -> Vec<String> {
    if url.starts_with("sqlite:") {
        let mut db = SqliteConnection::connect(url).await.expect("the file");
        let rows = sqlx::query(
            "SELECT name || ': ' || coalesce(sql, '') FROM sqlite_master \
             WHERE tbl_name <> '_sqlx_migrations' ORDER BY 1",
        );
        let rows = rows.fetch_all(&mut db).await.expect("rows");
        return rows.iter().map(|row| row.get(0)).collect();
    }
    let mut db = PgConnection::connect(url).await.expect("the server");
    let rows = sqlx::query(
        "SELECT t FROM ( \
           SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, \
                            collation_name, is_nullable, column_default) AS t \
           FROM information_schema.columns WHERE table_schema = 'public' \
           UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' \
           UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) \
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace \
           UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc \
             WHERE pronamespace = 'public'::regnamespace \
           UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal \
         ) AS everything WHERE t NOT LIKE '%\\_sqlx\\_migrations%' ORDER BY 1",
    );
    let rows = rows.fetch_all(&mut db).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

async fn up_down_up(url: &str) {
    let (ok, said) = migrate(url, &["--status"]).await;
    assert!(ok && said.contains("pending ") && !said.contains("applied "), "{said}");
    let (ok, said) = migrate(url, &[]).await;
    assert!(ok && said.contains("applied "), "{said}");
    let up = schema(url).await;
    assert!(!up.is_empty());
    let (ok, said) = migrate(url, &[]).await;
    assert!(ok && said.contains("up to date"), "{said}");
    let (ok, said) = migrate(url, &["--status"]).await;
    assert!(ok && said.contains("applied ") && !said.contains("pending "), "{said}");

    let steps = said.lines().count();
    for _ in 0..steps {
        let (ok, said) = migrate(url, &["--revert"]).await;
        assert!(ok && said.contains("reverted "), "{said}");
    }
    assert_eq!(schema(url).await, Vec::<String>::new(), "down leaves nothing behind");
    let (ok, said) = migrate(url, &["--revert"]).await;
    assert!(ok && said.contains("no migration is applied"), "{said}");
    assert!(migrate(url, &[]).await.0);
    assert_eq!(schema(url).await, up, "up again is up");
}

fn url_in(dir: &Path) -> String {
    format!("sqlite://{}", dir.join("todo.db").display())
}

#[tokio::test]
async fn up_down_and_up_again_on_sqlite() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url_in(dir.path());
    let (ok, _) = migrate(&url, &["--status"]).await;
    assert!(ok && dir.path().read_dir().expect("it").next().is_none(), "looking makes no file");
    up_down_up(&url).await;
}

#[tokio::test]
async fn up_down_and_up_again_on_postgres() {
    let cluster = Cluster::of_its_own(&[], &[]).await.expect("PostgreSQL");
    up_down_up(&cluster.url()).await;
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn rows_are_lost_only_by_a_word_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = url_in(dir.path());
    assert!(migrate(&url, &[]).await.0);
    let mut db = SqliteConnection::connect(&url).await.expect("the file");
    let insert = "INSERT INTO users VALUES (zeroblob(16), 'a@b.c', 'Ada', 'x', 0)";
    sqlx::query(insert).execute(&mut db).await.expect("a row");
    db.close().await.expect("closed");

    let (ok, said) = migrate(&url, &["--revert"]).await;
    assert!(!ok && said.contains("1 users") && said.contains("--yes"), "{said}");
    assert!(!schema(&url).await.is_empty(), "a refusal changes nothing");
    let (ok, said) = migrate(&url, &["--revert", "--yes"]).await;
    assert!(ok && said.contains("1 users"), "{said}");
    assert_eq!(schema(&url).await, Vec::<String>::new());
}
