//! The limits of mails: by client, and by address.

use super::*;
use todo_tests::at_once;

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
