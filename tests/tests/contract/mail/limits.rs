//! The limits of mails: by client, and by address.

use super::*;
use std::time::Instant;

use todo_tests::{Database, Server, Target, at_once};

on_every_target! {
    async fn an_address_gets_one_mail_a_minute(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, bob) = (app.signed_up().await, app.signed_up().await);
        let answers = at_once(20, |_| {
            let (client, email) = (app.anonymous(), ada.email().to_owned());
            async move { forgot(&client, &email).await }
        })
        .await;
        for answer in answers {
            accepted(answer);
        }
        mailbox.arrived(ada.email(), RESET).await;
        // Mails are sent in the order of their queueing.
        reset_token(&app, &mailbox, bob.email()).await;
        let to_ada = mailbox.mails().into_iter().filter(|mail| mail.to() == ada.email());
        assert_eq!(to_ada.count(), 2, "that of the signup, and one");
    }

    async fn requests_are_limited_by_client(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[("RATE_LIMIT_PER_MINUTE", "3")]).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        for n in 0..3 {
            let answer = forgot(&anonymous, &format!("a{n}@example.com")).await;
            assert_eq!(answer.header("ratelimit-policy"), Some("\"forgot\";q=3;w=60"), "{answer}");
            accepted(answer);
            accepted(verify(&ada).await);
        }
        let rejected = forgot(&anonymous, "b@example.com").await;
        assert!(rejected.header("retry-after").is_some(), "{rejected}");
        rejected.problem(429, "rate_limited");
        verify(&ada).await.problem(429, "rate_limited");
        accepted(forgot(&app.client_from([127, 0, 0, 9]), "b@example.com").await);
    }
}

/// Half of the requests are for accounts. Their time must not tell which.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: a minute; it compares times"]
async fn a_request_takes_as_long_without_an_account() {
    const REQUESTS: usize = 500;
    const ATTEMPTS: usize = 3;
    for database in [Database::Sqlite, Database::Postgres] {
        let mailbox = Mailbox::default();
        let app = mailbox.start(Target { server: Server::Hyper, database }, &[]).await;
        let anonymous = app.anonymous();
        let mut found = Vec::new();
        for _ in 0..ATTEMPTS {
            let mut known = Vec::new();
            for _ in 0..REQUESTS {
                known.push(app.signed_up().await.email().to_owned());
            }
            // The mails of the signups, which are sent one by one.
            assert!(count(&mailbox, known.last().expect("one"), 1).await);
            let mut times = [Vec::new(), Vec::new()];
            for email in known {
                for (email, times) in [email, todo_tests::unique_email()].iter().zip(&mut times) {
                    let start = Instant::now();
                    let answer = forgot(&anonymous, email).await;
                    times.push(start.elapsed());
                    accepted(answer);
                }
            }
            let [known, unknown] = times.map(|mut times| {
                times.sort();
                times[times.len() / 2].as_secs_f64()
            });
            found.push((known, unknown, (known / unknown - 1.0).abs()));
            if found.last().is_some_and(|(.., difference)| *difference <= 0.05) {
                break;
            }
        }
        println!("{database:?}: medians {found:?}");
        assert!(found.last().is_some_and(|(.., difference)| *difference <= 0.05), "{found:?}");
    }
}
