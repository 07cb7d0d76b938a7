//! The migration of identities, and its views, by SQL: what each event changes, and that the first
//! tokens of a new user at once make one user.

use todo_tests::postgres::Cluster;

use super::{
    accounts::with_both_databases,
    migrations::{down_to, migrate, rows, run, schema},
};

/// A user with a verified address, and one whose address nobody has confirmed.
const FILL: &str = "
    INSERT INTO users (id, email, name, password_hash, created_at, email_verified_at)
        VALUES (@1, 'ann@example.com', 'Ann Other', 'old', @now, @now);
    INSERT INTO users (id, email, name, password_hash, created_at)
        VALUES (@2, 'bob@example.com', 'Bob', 'old', @now);
    INSERT INTO sessions (id, user_id, created_at, expires_at) VALUES (@3, @1, @now, @later);";

/// The statement of a token's first request: of `subject`, with this address.
fn first_sight(session: &str, subject: &str, email: &str, verified: bool, links: bool) -> String {
    format!(
        "INSERT INTO external_sessions (id, issuer, subject, email, email_verified, name, user_name, links,
            identity_id, new_identity_id, user_id, new_user_id, notice_id, issued_at, created_at, expires_at)
         SELECT {session}, 'https://issuer', '{subject}', '{email}', {verified}, 'Eve', 'Eve', {links},
            coalesce((SELECT id FROM identities WHERE issuer = 'https://issuer' AND subject = '{subject}'),
                {session}),
            {session},
            coalesce((SELECT user_id FROM identities WHERE issuer = 'https://issuer' AND subject = '{subject}'),
                (SELECT id FROM users WHERE {links} AND {verified} AND email = '{email}'
                    AND email_verified_at IS NOT NULL), {session}),
            {session}, {session}, @now, @now, @later
         WHERE NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE id = {session})
           AND (EXISTS (SELECT 1 FROM sessions WHERE id = {session}) OR NOT EXISTS (
               SELECT 1 FROM identities WHERE issuer = 'https://issuer' AND subject = '{subject}'
               AND not_before >= @now))"
    )
}

const USERS: &str = "SELECT email || ' ' || CASE WHEN email_verified_at IS NULL THEN 'no' ELSE 'yes' END \
                     FROM users ORDER BY created_at, email";
const SESSIONS: &str = "SELECT kind || ' ' || email FROM sessions JOIN users ON users.id = user_id \
                        ORDER BY kind, email";
const IDENTITIES: &str = "SELECT subject || ' ' || users.email FROM identities \
                          JOIN users ON users.id = user_id ORDER BY subject";
const REVOKED: &str = "SELECT CAST(count(*) AS text) FROM revoked_tokens";
const MAILS: &str = "SELECT kind || ' ' || email FROM mails ORDER BY kind";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_sessions_are_kept_up_down_and_up() {
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        let up = schema(url).await;
        for name in down_to("identity") {
            let (ok, printed) = migrate(url, &["--revert", "--yes"]).await;
            assert!(ok && printed.contains(name), "{printed}");
        }
        let before = schema(url).await;
        run(url, FILL).await;
        assert!(migrate(url, &[]).await.0);
        assert_eq!(schema(url).await, up);
        // The statements of a replica of the version before.
        run(
            url,
            "INSERT INTO new_sessions (id, user_id, kind, scopes, created_at, expires_at, password_hash)
                 SELECT @4, id, 'password', -1, @now, @later, password_hash FROM users WHERE id = @2;
             INSERT INTO password_changes
                 (user_id, old_hash, new_hash, end_keys, session_id, changed_at, expires_at)
                 SELECT id, 'old', 'new', FALSE, @5, @now, @later FROM users WHERE id = @2",
        )
        .await;
        let sessions = ["password ann@example.com", "password bob@example.com"];
        assert_eq!(rows(url, SESSIONS).await, sessions);

        run(url, &first_sight("@6", "eve", "eve@example.com", true, false)).await;
        run(url, "UPDATE users SET time_zone = 'Europe/Berlin' WHERE id = @1").await;
        for name in down_to("planning") {
            let (ok, printed) = migrate(url, &["--revert", "--yes"]).await;
            assert!(ok && printed.contains(name), "{printed}");
        }
        let (ok, printed) = migrate(url, &["--revert"]).await;
        for named in ["1 identities", "1 users cannot", "reminders of 1 users", "--yes"] {
            assert!(!ok && printed.contains(named), "{printed}");
        }
        assert!(migrate(url, &["--revert", "--yes"]).await.0);
        assert_eq!(schema(url).await, before);
        assert_eq!(rows(url, SESSIONS).await, sessions, "no other version has sessions of issuers");
        assert_eq!(rows(url, "SELECT email FROM users").await.len(), 3);
        assert!(migrate(url, &[]).await.0);
        assert_eq!(schema(url).await, up);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_links_only_if_both_sides_have_verified_it() {
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        let again = async || {
            run(url, "DELETE FROM mails; DELETE FROM users; DELETE FROM revoked_tokens").await;
            run(url, FILL).await;
        };
        let own = |id: &str| format!("{}@users.invalid no", id.repeat(32));
        for (email, verified, links) in [
            ("ann@example.com", true, false),
            ("ann@example.com", false, true),
            ("bob@example.com", true, true),
            ("bob@example.com", false, true),
        ] {
            again().await;
            run(url, &first_sight("@6", "eve", email, verified, links)).await;
            let users = ["ann@example.com yes".to_owned(), "bob@example.com no".to_owned()];
            let expected = [&[own("6")], &users[..]].concat();
            assert_eq!(rows(url, USERS).await, expected, "{email} {verified} {links}");
            assert!(rows(url, MAILS).await.is_empty());
        }
        again().await;
        run(url, &first_sight("@6", "eve", "ann@example.com", true, true)).await;
        assert_eq!(rows(url, IDENTITIES).await, ["eve ann@example.com"]);
        assert_eq!(rows(url, USERS).await.len(), 2);
        assert_eq!(rows(url, MAILS).await, ["identity_added ann@example.com"]);
        run(url, &first_sight("@7", "eve", "new@example.com", true, true)).await;
        let stated = "SELECT email FROM identities";
        assert_eq!(rows(url, stated).await, ["new@example.com"], "as the issuer last stated it");
        assert_eq!(rows(url, MAILS).await.len(), 1);
        again().await;
        run(url, &first_sight("@6", "eve", "eve@example.com", true, false)).await;
        run(url, &first_sight("@7", "mallory", "eve@example.com", true, false)).await;
        let identities =
            ["eve eve@example.com", &format!("mallory {}@users.invalid", "7".repeat(32))];
        assert_eq!(rows(url, IDENTITIES).await, identities);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_token_stays_ended() {
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        run(url, FILL).await;
        let see = async |session: &str| {
            run(url, &first_sight(session, "eve", "eve@example.com", true, false)).await;
        };
        see("@6").await;
        see("@6").await;
        assert_eq!(rows(url, SESSIONS).await, ["external eve@example.com", "password ann@example.com"]);
        run(url, "DELETE FROM sessions").await;
        assert_eq!(rows(url, REVOKED).await, ["1"]);
        see("@6").await;
        assert!(rows(url, SESSIONS).await.is_empty(), "revoked");
        see("@7").await;
        assert_eq!(rows(url, SESSIONS).await, ["external eve@example.com"]);
        // A token that was not seen before the user ended all sessions.
        run(url, "UPDATE identities SET not_before = @now").await;
        see("@8").await;
        assert_eq!(rows(url, SESSIONS).await, ["external eve@example.com"]);
        run(url, "DELETE FROM revoked_tokens").await;
        see("@7").await;
        let kept = "SELECT CAST(count(*) AS text) FROM sessions WHERE id = @7";
        assert_eq!(rows(url, kept).await, ["1"], "the session that has ended the others");
        run(url, "INSERT INTO revoked_tokens VALUES (@6, @later)").await;

        // A removed identity takes its sessions and codes with it, unless it is the last way in.
        run(url, "UPDATE identities SET not_before = NULL").await;
        run(
            url,
            "INSERT INTO oauth_codes SELECT @9, user_id, id, 'challenge', 'https://app', @now, @later
             FROM identities",
        )
        .await;
        if url.starts_with("postgres") {
            run(url, "INSERT INTO identity_removals (id, user_id, removed_at)
                      SELECT id, user_id, @now FROM identities").await;
            assert_eq!(rows(url, IDENTITIES).await.len(), 1, "the trigger has refused");
        }
        run(url, "UPDATE users SET password_hash = 'x'").await;
        run(url, "INSERT INTO identity_removals (id, user_id, removed_at, notice_id)
                  SELECT id, user_id, @now, @9 FROM identities").await;
        assert_eq!(rows(url, IDENTITIES).await, [""; 0]);
        assert_eq!(rows(url, "SELECT challenge FROM oauth_codes").await, [""; 0]);
        assert_eq!(rows(url, SESSIONS).await, [""; 0]);
        assert_eq!(rows(url, REVOKED).await, ["2"]);
        assert_eq!(rows(url, MAILS).await, ["identity_removed eve@example.com"]);

        // The deletion of the account as well; the same subject is another user then.
        see("@8").await;
        run(url, "INSERT INTO account_deletions (user_id, password_hash, deleted_at)
                  SELECT id, password_hash, @now FROM users WHERE id = @8").await;
        assert_eq!(rows(url, IDENTITIES).await, [""; 0]);
        see("@8").await;
        assert_eq!(rows(url, SESSIONS).await, [""; 0]);
        see("@9").await;
        assert_eq!(rows(url, IDENTITIES).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_password_ends_tokens_that_were_not_seen_yet() {
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        let again = async |verified: &str| {
            run(url, "DELETE FROM mails; DELETE FROM users; DELETE FROM revoked_tokens").await;
            run(url, FILL).await;
            run(
                url,
                &format!(
                    "UPDATE users SET email_verified_at = {verified} WHERE id = @1;
                 INSERT INTO identities (id, issuer, subject, user_id, email_verified, created_at)
                     VALUES (@4, 'https://issuer', 'ann', @1, FALSE, @now);
                 INSERT INTO mails (id, kind, user_id, email, created_at, expires_at)
                     VALUES (@6, 'reset', NULL, 'ann@example.com', @now, @later)"
                ),
            )
            .await;
        };
        let not_before =
            "SELECT CASE WHEN not_before = @now THEN 'now' ELSE '-' END FROM identities";
        again("@now").await;
        run(
            url,
            "INSERT INTO password_changes
                (user_id, old_hash, new_hash, end_keys, session_id, changed_at, expires_at)
                SELECT id, 'old', 'new', FALSE, @5, @now, @later FROM users WHERE id = @1",
        )
        .await;
        assert_eq!(rows(url, not_before).await, ["now"]);
        let reset = "INSERT INTO password_resets (mail_id, user_id, password_hash, changed_at)
            SELECT @6, @1, 'reset', @now";
        again("@now").await;
        run(url, reset).await;
        assert_eq!(rows(url, not_before).await, ["now"]);
        // An identity that was added before the owner of the address had the account.
        again("NULL").await;
        run(url, reset).await;
        assert_eq!(rows(url, not_before).await, [""; 0]);
    })
    .await;
}

/// A user has 100 sessions of each kind: the tokens of an issuer, which live for minutes, do not
/// end those of logins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_an_issuer_do_not_end_logins() {
    with_both_databases(async |url| {
        assert!(migrate(url, &[]).await.0);
        run(url, FILL).await;
        let id = if url.starts_with("sqlite:") { "randomblob(16)" } else { "gen_random_uuid()" };
        run(
            url,
            &format!(
                "INSERT INTO sessions (id, user_id, kind, created_at, expires_at)
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
                 SELECT {id}, @1, 'external', @now, @later FROM n"
            ),
        )
        .await;
        let counts = "SELECT kind || ' ' || count(*) FROM sessions GROUP BY kind ORDER BY kind";
        assert_eq!(rows(url, counts).await, ["external 100", "password 1"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn first_requests_at_once_make_one_user_on_postgres() {
    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    assert!(migrate(&url, &[]).await.0);
    for verified in [true, false] {
        run(&url, "DELETE FROM users").await;
        let statement = first_sight("gen_random_uuid()", "eve", "eve@example.com", verified, false);
        todo_tests::at_once(20, |_| {
            let (url, statement) = (url.clone(), statement.clone());
            async move { run(&url, &statement).await }
        })
        .await;
        assert_eq!(rows(&url, IDENTITIES).await.len(), 1);
        assert_eq!(rows(&url, "SELECT email FROM users").await.len(), 1);
        assert_eq!(rows(&url, SESSIONS).await.len(), 20);
    }
    cluster.stop().await.expect("it stops");
}
