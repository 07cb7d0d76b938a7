//! The migration of accounts, and its views, by SQL: what each event of a credential changes, and
//! that a login and a change of the password at once leave no session of the old password.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use todo_tests::postgres::Cluster;
use tokio::time::{Duration, sleep};

use super::migrations::{down_to, in_dialect, migrate, rows, run, schema, url_in};

/// Two users, with sessions of a login and a key.
const FILL: &str = "
    INSERT INTO users (id, email, name, password_hash, created_at) VALUES
        (@1, 'ann@example.com', 'Ann Other', 'old', @now), (@2, 'bob@example.com', 'Bob', 'old', @now);
    INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES (@3, @1, @now, @later), (@4, @2, @now, @later);";
const KEY: &str = "INSERT INTO sessions (id, user_id, kind, scopes, created_at, expires_at)
    VALUES (@5, @1, 'key', 1, @now, @later);";
/// What a login writes that has verified the hash `old`.
const LOGIN: &str =
    "INSERT INTO new_sessions (id, user_id, kind, scopes, created_at, expires_at, password_hash)
    SELECT @6, id, 'password', -1, @now, @later, password_hash FROM users
    WHERE id = @1 AND password_hash = 'old' AND deleted_at IS NULL RETURNING id";
/// The same without the view.
const PLAIN_LOGIN: &str = "INSERT INTO sessions (id, user_id, created_at, expires_at)
    SELECT @6, id, @now, @later FROM users WHERE id = @1 AND password_hash = 'old' RETURNING id";
const CHANGE: &str = "INSERT INTO password_changes
    (user_id, old_hash, new_hash, end_keys, session_id, changed_at, expires_at)
    SELECT id, password_hash, 'new', FALSE, @7, @now, @later FROM users
    WHERE id = @1 AND password_hash = 'old' RETURNING session_id";
const DELETE_ACCOUNT: &str = "INSERT INTO account_deletions (user_id, password_hash, deleted_at)
    SELECT id, password_hash, @now FROM users WHERE id = @1 AND password_hash = 'old' RETURNING user_id";

/// The first digits of the ids of a user's sessions.
async fn sessions(url: &str, user: &str) -> String {
    let digit = if url.starts_with("sqlite:") {
        "substr(hex(id), 1, 1)"
    } else {
        "left(CAST(id AS text), 1)"
    };
    let sql = format!("SELECT {digit} FROM sessions WHERE user_id = {user} ORDER BY id");
    rows(url, &sql).await.concat()
}

pub(super) async fn with_both_databases(test: impl AsyncFn(&str)) {
    let dir = tempfile::tempdir().expect("a directory");
    test(&url_in(dir.path())).await;
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    test(&cluster.url()).await;
    cluster.stop().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_accounts_are_kept_up_down_and_up() {
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        let up = schema(url).await;
        for name in down_to("accounts") {
            let (ok, printed) = migrate(url, &["--revert", "--yes"]).await;
            assert!(ok && printed.contains(name), "{printed}");
        }
        let before = schema(url).await;
        run(url, FILL).await;
        assert!(migrate(url, &[]).await.0);
        assert_eq!(schema(url).await, up);
        let found = "SELECT kind || ' ' || scopes || ' ' || coalesce(label, '-') FROM sessions";
        assert_eq!(rows(url, found).await, ["password -1 -"; 2]);
        // The statement of a replica of the version before.
        run(
            url,
            "INSERT INTO signups (id, email, name, password_hash, created_at, session_id, expires_at)
                 VALUES (@8, 'eve@example.com', 'Eve', 'x', @now, @8, @later);
             INSERT INTO sessions (id, user_id, created_at, expires_at)
                 SELECT @9, id, @now, @later FROM users WHERE id = @8 AND password_hash = 'x'",
        )
        .await;
        assert_eq!(sessions(url, "@8").await, "89");

        run(url, KEY).await;
        run(url, "UPDATE users SET email_verified_at = @now WHERE id = @2").await;
        run(url, DELETE_ACCOUNT.trim_end_matches(" RETURNING user_id")).await;
        run(url, "INSERT INTO sessions (id, user_id, kind, created_at, expires_at)
                  VALUES (@5, @2, 'key', @now, @later)").await;
        for name in down_to("identity") {
            assert!(migrate(url, &["--revert", "--yes"]).await.1.contains(name));
        }
        let (ok, printed) = migrate(url, &["--revert"]).await;
        for named in ["1 API keys", "1 addresses", "0 unsent mails", "--yes"] {
            assert!(!ok && printed.contains(named), "{printed}");
        }
        assert!(migrate(url, &["--revert", "--yes"]).await.0);
        assert_eq!(schema(url).await, before);
        let users = "SELECT email FROM users ORDER BY email";
        assert_eq!(rows(url, users).await, ["bob@example.com", "eve@example.com"], "half-deleted: gone");
        assert_eq!(sessions(url, "@2").await, "4", "a key is no session of that version");
        assert_eq!(sessions(url, "@8").await, "89");
        assert!(migrate(url, &[]).await.0);
        assert_eq!(schema(url).await, up);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_view_changes_what_belongs_together() {
    const MAILS: &str = "SELECT kind || CASE WHEN used_at IS NULL THEN '' ELSE ' used' END || ' ' || email \
                         FROM mails ORDER BY kind, email";
    const LINKS: &str = "
        INSERT INTO mails (id, kind, user_id, email, created_at, expires_at) VALUES
            (@6, 'reset', NULL, 'ann@example.com', @now, @later),
            (@7, 'change', @1, 'new@example.com', @now, @later),
            (@8, 'reset', NULL, 'bob@example.com', @now, @later)";
    let reset = "INSERT INTO password_resets (mail_id, user_id, password_hash, changed_at, notice_id)
        SELECT mails.id, users.id, 'reset', @now, @9 FROM mails JOIN users ON users.email = mails.email
        WHERE mails.id = @6 AND mails.kind = 'reset' AND used_at IS NULL AND mails.expires_at > @now";
    let confirm = "INSERT INTO email_confirmations (mail_id, user_id, confirmed_at, notice_id)
        SELECT mails.id, users.id, @now, @9 FROM mails JOIN users ON users.id = mails.user_id
        WHERE mails.id = @7 AND used_at IS NULL AND mails.expires_at > @now";
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        let again = async || {
            run(url, "DELETE FROM mails; DELETE FROM users").await;
            run(url, FILL).await;
            run(url, KEY).await;
            run(url, LINKS).await;
        };
        let hashes = "SELECT password_hash FROM users ORDER BY email";

        again().await;
        let login = LOGIN.trim_end_matches(" RETURNING id");
        run(url, login).await;
        assert_eq!(sessions(url, "@1").await, "356");
        run(url, CHANGE.trim_end_matches(" RETURNING session_id")).await;
        assert_eq!(rows(url, hashes).await, ["new", "old"]);
        assert_eq!(sessions(url, "@1").await, "57", "the key stays, and a session begins");
        assert_eq!(sessions(url, "@2").await, "4");
        let used =
            ["change used new@example.com", "reset used ann@example.com", "reset bob@example.com"];
        assert_eq!(rows(url, MAILS).await, used);
        run(url, login).await;
        assert_eq!(sessions(url, "@1").await, "57", "the hash is not the stored one");

        again().await;
        run(url, reset).await;
        assert_eq!(rows(url, hashes).await, ["reset", "old"]);
        assert_eq!(sessions(url, "@1").await, "", "keys end too");
        let notice = ["password_changed ann@example.com"];
        let after = [&used[..1], &notice[..], &used[1..]].concat();
        assert_eq!(rows(url, MAILS).await, after);
        let verified = "SELECT email FROM users WHERE email_verified_at IS NOT NULL";
        assert_eq!(rows(url, verified).await, ["ann@example.com"]);
        run(url, reset).await;
        assert_eq!(rows(url, MAILS).await, after, "a link is used once");

        again().await;
        run(url, confirm).await;
        let emails = "SELECT email FROM users ORDER BY email";
        assert_eq!(rows(url, emails).await, ["bob@example.com", "new@example.com"]);
        assert_eq!(rows(url, verified).await, ["new@example.com"]);
        assert_eq!(sessions(url, "@1").await, "35");
        run(url, reset).await;
        assert_eq!(rows(url, hashes).await, ["old", "old"], "a link to the old address is invalid");

        again().await;
        run(url, DELETE_ACCOUNT.trim_end_matches(" RETURNING user_id")).await;
        assert_eq!(sessions(url, "@1").await, "");
        let ended = "SELECT email || ' ' || name || ' ' || password_hash FROM users WHERE id = @1";
        let ended = rows(url, ended).await;
        assert_eq!(ended, ["11111111111111111111111111111111@users.invalid deleted !"]);
        assert_eq!(rows(url, MAILS).await, ["reset bob@example.com"]);
        run(
            url,
            "INSERT INTO users (id, email, name, password_hash, created_at)
                  VALUES (@9, 'ann@example.com', 'Ann', 'x', @now)",
        )
        .await;
    })
    .await;
}

/// Runs two statements on PostgreSQL, the second while the first one's transaction is open, and
/// returns the user's sessions and the number of rows of the second.
async fn overlapping(url: &str, first: &str, second: &str) -> (String, usize) {
    run(url, "DELETE FROM users").await;
    run(url, FILL).await;
    let mut one = PgConnection::connect(url).await.expect("the server");
    let mut two = PgConnection::connect(url).await.expect("the server");
    let text = |sql: &str| AssertSqlSafe(in_dialect(sql, false));
    one.execute("BEGIN").await.expect("a transaction");
    assert_eq!(one.fetch_all(text(first)).await.expect(first).len(), 1);
    let second = text(second);
    let waiting = tokio::spawn(async move { two.fetch_all(second).await.expect("rows").len() });
    sleep(Duration::from_millis(200)).await;
    one.execute("COMMIT").await.expect("an end");
    let count = waiting.await.expect("no panic");
    (sessions(url, "@1").await, count)
}

/// A login that has verified the old password, and a change of the password or the end of the
/// account, in both orders: no session of the old password is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_under_way_does_not_survive_a_new_password() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    assert!(migrate(&url, &[]).await.0);
    assert_eq!(overlapping(&url, CHANGE, LOGIN).await, ("7".to_owned(), 0));
    assert_eq!(overlapping(&url, LOGIN, CHANGE).await, ("7".to_owned(), 1));
    assert_eq!(overlapping(&url, DELETE_ACCOUNT, LOGIN).await, (String::new(), 0));
    assert_eq!(overlapping(&url, LOGIN, DELETE_ACCOUNT).await, (String::new(), 1));
    assert_eq!(overlapping(&url, DELETE_ACCOUNT, CHANGE).await, (String::new(), 0));
    // Of two changes, one takes effect.
    assert_eq!(overlapping(&url, CHANGE, CHANGE).await, ("7".to_owned(), 0));
    // The control: without the view, the session of the old password is left.
    assert_eq!(overlapping(&url, CHANGE, PLAIN_LOGIN).await, ("67".to_owned(), 1));
    cluster.stop().await.expect("it stops");
}
