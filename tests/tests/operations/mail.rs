//! Mails over SMTP, to a real server (aiosmtpd) with its bad modes: nothing is lost, and nothing is
//! sent twice except after an unknown outcome.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use todo_tests::{
    App, Client, Database, MAIL_SETTINGS, Mail, Process, SECRET_SETTING, Server, SmtpServer,
    Target, at_once, empty_dir, eventually, unique_email,
};

const ONE: Target = Target { server: Server::Salvo, database: Database::Sqlite };
const VERIFY: &str = "Confirm your e-mail address";
const RESET: &str = "Set a new password";
/// Longer than the delay of a second attempt.
const RETRIED: Duration = Duration::from_secs(40);

async fn start(smtp_url: &str, more: &[(&str, &str)]) -> App {
    App::start_with(ONE, &[&[("SMTP_URL", smtp_url)], &MAIL_SETTINGS[..], more].concat()).await
}

async fn sign_up(client: &Client, email: &str) {
    let form = json!({ "email": email, "password": "Correct1horse", "name": "Ada" });
    client.post("/api/auth/signup", form).await.expect(201);
}

/// The number of attempts with this result, from `/metrics`.
async fn attempts(app: &App, kind: &str, result: &str) -> u64 {
    let metrics = app.anonymous().get("/metrics").await.text();
    let name = format!("mails_total{{kind=\"{kind}\",result=\"{result}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&*name)?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name}in {metrics}"))
}

async fn until_attempted(app: &App, result: &str) {
    let attempted = async || attempts(app, "verify", result).await >= 1;
    assert!(eventually(Duration::from_secs(30), attempted).await, "no attempt was {result}");
}

fn to<'a>(mails: &'a [Mail], email: &str) -> Vec<&'a Mail> {
    mails.iter().filter(|mail| mail.to() == email).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_arrives_as_it_was_composed() {
    let smtp = SmtpServer::start().await;
    let app = start(&smtp.url(), &[]).await;
    let email = unique_email();
    sign_up(&app.anonymous(), &email).await;
    let mail = smtp.arrived(&email, VERIFY).await;
    assert_eq!(mail.header("X-Rcpt-To"), email);
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("Message-ID").ends_with("@example.com>"), "{}", mail.text);
    app.anonymous()
        .post("/api/auth/email/confirm", json!({ "token": mail.token() }))
        .await
        .expect(200);
    assert_eq!(attempts(&app, "verify", "sent").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_wait_for_a_server_that_is_away_or_refuses_for_now() {
    let mut smtp = SmtpServer::start().await;
    let url = smtp.url();
    smtp.stop().await;
    let app = start(&url, &[]).await;
    let client = app.anonymous();
    let (refused, later) = (unique_email(), unique_email());
    sign_up(&client, &refused).await;
    until_attempted(&app, "retried").await;
    smtp.resume().await;
    smtp.set_mode("451");
    sign_up(&client, &later).await;
    let both = async || attempts(&app, "verify", "retried").await >= 2;
    assert!(eventually(RETRIED, both).await);
    assert!(smtp.mails().is_empty());
    smtp.set_mode("ok");
    for email in [&refused, &later] {
        let arrived = async || to(&smtp.mails(), email).len() == 1;
        assert!(eventually(RETRIED * 2, arrived).await, "{:?}", smtp.mails());
    }
    assert_eq!(attempts(&app, "verify", "sent").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_mail_is_not_sent_again() {
    let smtp = SmtpServer::start().await;
    let app = start(&smtp.url(), &[]).await;
    for (number, mode) in [(1, "554"), (2, "550")] {
        smtp.set_mode(mode);
        sign_up(&app.anonymous(), &unique_email()).await;
        let rejected = async || attempts(&app, "verify", "rejected").await == number;
        assert!(eventually(Duration::from_secs(30), rejected).await, "{mode}");
    }
    smtp.set_mode("ok");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(smtp.mails().is_empty());
}

/// The server has the mail, but its reply is lost: the mail comes again, with the same bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_unknown_outcome_is_sent_again_unchanged() {
    let smtp = SmtpServer::start().await;
    let app = start(&smtp.url(), &[]).await;
    let email = unique_email();
    smtp.set_mode("cut");
    sign_up(&app.anonymous(), &email).await;
    until_attempted(&app, "retried").await;
    smtp.set_mode("ok");
    let again = async || smtp.mails().len() == 2;
    assert!(eventually(RETRIED, again).await, "{:?}", smtp.mails());
    let mails = smtp.mails();
    assert_eq!(mails[0], mails[1]);
    assert_eq!(attempts(&app, "verify", "sent").await, 1);
}

/// A silent server holds neither the others' mails for long, nor a stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_delays_a_mail_for_twenty_seconds() {
    let smtp = SmtpServer::start().await;
    let app = start(&smtp.url(), &[]).await;
    smtp.set_mode("stall");
    sign_up(&app.anonymous(), &unique_email()).await;
    until_attempted(&app, "retried").await;
    smtp.set_mode("ok");
    let email = unique_email();
    sign_up(&app.anonymous(), &email).await;
    smtp.arrived(&email, VERIFY).await;
    app.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_login_fails_no_mail() {
    let smtp = SmtpServer::start().await;
    let url = smtp.url().replace("smtp://", "smtp://todo:hush-hush@");
    for mode in ["535", "530"] {
        smtp.set_mode(mode);
        let app = start(&url, &[]).await;
        sign_up(&app.anonymous(), &unique_email()).await;
        until_attempted(&app, "misconfigured").await;
        for result in ["rejected", "expired", "retried", "sent"] {
            assert_eq!(attempts(&app, "verify", result).await, 0, "{mode}");
        }
        // Another process is not paused.
        smtp.set_mode("ok");
        let replica = app.replica().await;
        let sent = async || attempts(&replica, "verify", "sent").await == 1;
        assert!(eventually(Duration::from_secs(30), sent).await, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_international_address_needs_a_server_that_takes_it() {
    for (options, result) in [(&[][..], "sent"), (&["--no-smtputf8"][..], "rejected")] {
        let smtp = SmtpServer::start_with(options).await;
        let app = start(&smtp.url(), &[]).await;
        sign_up(&app.anonymous(), "jörg@exämple.com").await;
        until_attempted(&app, result).await;
        // One in ASCII is sent in any case.
        sign_up(&app.anonymous(), "a@exämple.com").await;
        smtp.arrived("a@xn--exmple-cua.com", VERIFY).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_send_each_mail_once() {
    for database in [Database::Sqlite, Database::Postgres] {
        let smtp = SmtpServer::start().await;
        let url = smtp.url();
        let settings = [&[("SMTP_URL", &*url)], &MAIL_SETTINGS[..]].concat();
        let app = App::start_with(Target { server: Server::Hyper, database }, &settings).await;
        let replica = app.replica().await;
        let emails = at_once(30, |n| {
            let client = if n % 2 == 0 { app.anonymous() } else { replica.anonymous() };
            async move {
                let email = unique_email();
                sign_up(&client, &email).await;
                email
            }
        })
        .await;
        let all = async || emails.iter().all(|email| !to(&smtp.mails(), email).is_empty());
        assert!(eventually(Duration::from_secs(60), all).await);
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(smtp.mails().len(), emails.len(), "{database:?}");
        let sent = attempts(&app, "verify", "sent").await;
        let sent_by_replica = attempts(&replica, "verify", "sent").await;
        assert_eq!(sent + sent_by_replica, emails.len() as u64);
    }
}

/// No reply of a server and no setting brings an address, a token or the password into the log.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_no_address_and_no_password() {
    let smtp = SmtpServer::start().await;
    let dir = empty_dir();
    let url = smtp.url().replace("smtp://", "smtp://todo:hush-hush@");
    let settings = [
        &[
            ("SMTP_URL", &*url),
            SECRET_SETTING,
            ("LOG_LEVEL", "trace"),
            ("RATE_LIMIT_PER_MINUTE", "0"),
        ],
        &MAIL_SETTINGS[..],
    ]
    .concat();
    let server = Process::start("todo-server", dir.path(), &settings).await;
    let client = Client::of(server.addr);
    for (number, (mode, line)) in [
        ("550", "reply=\"550 5.1.1\""),
        ("554", "reply=\"554 5.7.1\""),
        ("451", "reply=\"451 4.3.0\""),
        ("cut", "reply=\"the connection was cut\""),
        ("ok", "a mail was sent"),
        ("535", "reply=\"535 5.7.8\""),
    ]
    .into_iter()
    .enumerate()
    {
        smtp.set_mode(mode);
        sign_up(&client, &format!("planted{number}@example.com")).await;
        let logged = async || server.output().contains(line);
        assert!(eventually(Duration::from_secs(30), logged).await, "{line}: {}", server.output());
    }
    let output = server.stop().await;
    for secret in ["planted", "hush-hush", "#token=", "Correct1horse"] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
    for mail in smtp.mails() {
        assert!(!output.contains(mail.token()));
    }
}

/// Kills a server again and again while resets are requested, `rounds` times four.
async fn assert_nothing_is_lost(rounds: usize) {
    let smtp = SmtpServer::start().await;
    let dir = empty_dir();
    let url = smtp.url();
    let settings = [
        &[("SMTP_URL", &*url), SECRET_SETTING, ("RATE_LIMIT_PER_MINUTE", "0")],
        &MAIL_SETTINGS[..],
    ]
    .concat();
    let mut server = Process::start("todo-server", dir.path(), &settings).await;
    let client = Client::of(server.addr);
    let emails = at_once(4, |_| {
        let client = client.clone();
        async move {
            let mut emails = Vec::new();
            for _ in 0..rounds {
                let email = unique_email();
                sign_up(&client, &email).await;
                emails.push(email);
            }
            emails
        }
    })
    .await;
    let mut open: Vec<String> = emails.into_iter().flatten().collect();
    let all = open.clone();
    let mut kills = 0;
    while !open.is_empty() {
        let batch: Vec<String> = open.iter().take(4).cloned().collect();
        let addr = server.addr;
        let requests = tokio::spawn(async move {
            let mut accepted = Vec::new();
            for email in batch {
                let body = json!({ "email": email }).to_string();
                let json = [("content-type", "application/json")];
                let answer = Client::of(addr)
                    .try_send("POST", "/api/auth/password/forgot", &json, body)
                    .await;
                if answer.is_ok_and(|answer| answer.status == 202) {
                    accepted.push(email);
                }
            }
            accepted
        });
        // From before the first response until the mails are being sent.
        tokio::time::sleep(Duration::from_millis((kills * 37) % 450)).await;
        server.child.kill().await.expect("it is killed");
        kills += 1;
        let accepted = requests.await.expect("no panic");
        open.retain(|email| !accepted.contains(email));
        server = Process::start("todo-server", dir.path(), &settings).await;
    }
    let resets = || {
        let mails = smtp.mails().into_iter();
        mails.filter(|mail| mail.header("Subject") == RESET).collect::<Vec<_>>()
    };
    // Mails of the killed processes are due again when their leases end.
    let arrived = async || {
        let mails = resets();
        all.iter().all(|email| !to(&mails, email).is_empty())
    };
    let limit = Duration::from_secs(180);
    assert!(eventually(limit, arrived).await, "{} of {} arrived", resets().len(), all.len());
    let mut copies: BTreeMap<String, Vec<Mail>> = BTreeMap::new();
    for mail in smtp.mails() {
        copies.entry(mail.header("Message-ID").to_owned()).or_default().push(mail);
    }
    println!("{kills} kills, {} mails, {} copies", copies.len(), smtp.mails().len());
    for mails in copies.values() {
        assert!(mails.iter().all(|mail| *mail == mails[0]), "{mails:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_request_survives_a_killed_server() {
    assert_nothing_is_lost(4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: minutes"]
async fn two_hundred_accepted_requests_survive_fifty_killed_servers() {
    assert_nothing_is_lost(50).await;
}
