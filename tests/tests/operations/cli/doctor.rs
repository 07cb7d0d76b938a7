//! `doctor` checks settings, database and certificate, and changes nothing.

use todo_tests::{MAIL_SETTINGS, SmtpServer, empty_dir, postgres::Cluster};

use super::{certificate, is_empty, run};

/// The exit code and output of `doctor` with `settings`; asserts that it leaves no file.
async fn doctor(settings: &[(&str, &str)]) -> (i32, String) {
    let dir = empty_dir();
    let (code, out, err) = run("todo-server", dir.path(), settings, &["doctor"]).await;
    assert_eq!(err, "");
    assert!(is_empty(dir.path()), "it creates no file");
    assert!(!out.contains("hush"), "a secret is printed: {out}");
    let failed = out.lines().any(|line| line.starts_with("FAIL "));
    assert_eq!(failed, code == 1, "{code}: {out}");
    (code, out)
}

#[tokio::test]
async fn the_doctor_checks_and_changes_nothing() {
    const SECRET: &str = "hush-6b1f0a0d9b3c4e5f8a7d6c5b4a392817";
    let files = empty_dir();
    let (code, out) = doctor(&[]).await;
    assert_eq!(code, 0, "{out}");
    for line in
        ["DATABASE_URL=sqlite://todo.db", "SECRET_KEY=(not set)", "warn SECRET_KEY: not set"]
    {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert!(out.contains("warn database: does not exist yet"), "{out}");

    let cluster = Cluster::dedicated(&[], &[]).await.expect("PostgreSQL");
    let url = cluster.url();
    let (_, out) = doctor(&[("DATABASE_URL", &url)]).await;
    assert!(
        out.contains("ok   pooler: ") && out.contains("warn database: does not exist yet"),
        "{out}"
    );
    let migrated = run("todo-server", files.path(), &[("DATABASE_URL", &url)], &["migrate"]).await;
    assert_eq!(migrated.0, 0);
    let [cert, key] = certificate(files.path(), "own", 2090);
    let [late, late_key] = certificate(files.path(), "late", 2021);
    let production = [
        ("DATABASE_URL", &*url),
        ("SECRET_KEY", SECRET),
        ("ENVIRONMENT", "production"),
        ("TLS_CERT", &cert),
        ("TLS_KEY", &key),
    ];
    let (code, out) = doctor(&production).await;
    assert_eq!(code, 0, "{out}");
    for line in [
        "SECRET_KEY=(set, hidden)",
        "ENVIRONMENT=production",
        "ok   SECRET_KEY: ",
        "ok   production: ",
        "ok   database: reachable",
        "ok   migrations: up to date",
        "ok   TLS_CERT: readable",
        "ok   TLS_KEY: ",
        "ok   TLS dates: valid for ",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let away = "postgres://ada:hush@127.0.0.1:1/todo";
    for (name, value, line) in [
        ("DATABASE_URL", away, "FAIL database: "),
        ("DATABASE_URL", away, "postgres://ada:***@127.0.0.1:1/todo"),
        ("MIGRATIONS_DATABASE_URL", away, "FAIL MIGRATIONS_DATABASE_URL: "),
        ("TLS_KEY", &late_key, "FAIL TLS_KEY: "),
        ("TLS_KEY", "/nowhere/hm", "FAIL TLS_KEY: /nowhere/hm: "),
        ("TLS_CERT", &late, "FAIL TLS dates: expired "),
        ("TLS_CERT", &key, "FAIL TLS_CERT: "),
        ("SECRET_KEY", "hush", "FAIL settings: bad settings: SECRET_KEY "),
    ] {
        let (code, out) = doctor(&[&production[..], &[(name, value)]].concat()).await;
        assert_eq!(code, 1, "{name}={value}: {out}");
        assert!(out.contains(line), "{line} in {out}");
    }
    let plain: Vec<_> = production.into_iter().filter(|(name, _)| !name.contains("TLS")).collect();
    let (code, out) = doctor(&plain).await;
    assert!(code == 1 && out.contains("FAIL production: plain http is refused"), "{out}");
    cluster.stop().await.expect("it stops");
}

#[tokio::test]
async fn the_doctor_logs_in_at_the_mail_server_and_sends_nothing() {
    let (_, out) = doctor(&[]).await;
    assert!(out.contains("ok   SMTP_URL: not set"), "{out}");
    let mut smtp = SmtpServer::start().await;
    let url = smtp.url().replace("smtp://", "smtp://todo:hush-hush@");
    let settings = [&[("SMTP_URL", &*url)], &MAIL_SETTINGS[..]].concat();
    let shown = format!("smtp://127.0.0.1:{}?tls=off", smtp.port);
    let (code, out) = doctor(&settings).await;
    assert!(code == 0 && out.contains(&format!("SMTP_URL={shown}\n")), "{out}");
    assert!(out.contains(&format!("ok   SMTP_URL: {shown} takes mails")), "{out}");
    assert!(smtp.mails().is_empty());
    smtp.set_mode("535");
    let (_, out) = doctor(&settings).await;
    assert!(out.contains(&format!("FAIL SMTP_URL: {shown}: 535 5.7.8")), "{out}");
    smtp.stop().await;
    let (_, out) = doctor(&settings).await;
    assert!(out.contains(&format!("FAIL SMTP_URL: {shown}: Connection refused")), "{out}");
    // A server without TLS never gets the password.
    let plain = SmtpServer::start().await;
    let url = format!("smtps://todo:hush-hush@localhost:{}", plain.port);
    let (_, out) = doctor(&[&[("SMTP_URL", &*url)], &MAIL_SETTINGS[..]].concat()).await;
    assert!(out.contains("FAIL SMTP_URL: ") && out.contains("TLS: "), "{out}");
}
