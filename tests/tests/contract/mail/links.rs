//! Each link works once, for what it was mailed for, and until the account changes.

use super::*;
use todo_tests::at_once;

on_every_target! {
    async fn of_forty_uses_at_once_one_succeeds(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let ada = app.signed_up().await;
        let token = reset_token(&app, &mailbox, ada.email()).await;
        let answers = at_once(40, |n| {
            let (client, token) = (app.anonymous(), token.clone());
            async move {
                let password = format!("Other{n}battery");
                let body = json!({ "token": token, "password": password });
                (client.post("/api/auth/password/reset", body).await, password)
            }
        })
        .await;
        let done: Vec<_> = answers.iter().filter(|(answer, _)| answer.status == 200).collect();
        let [(_, password)] = done[..] else { panic!("{} succeeded", done.len()) };
        // A rejected one may also be a 503: too many passwords wait to be hashed.
        for (answer, _) in answers.iter().filter(|(answer, _)| ![200, 503].contains(&answer.status)) {
            answer.clone().problem(400, "invalid_link");
        }
        log_in(&app.anonymous(), ada.email(), password).await.expect(200);

        let bob = app.signed_up().await;
        let token = mailbox.arrived(bob.email(), VERIFY).await.token().to_owned();
        let answers = at_once(40, |_| {
            let (client, token) = (app.anonymous(), token.clone());
            async move { confirm(&client, &token).await.status }
        })
        .await;
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    }

    async fn other_tokens_are_no_links(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        let link = reset_token(&app, &mailbox, ada.email()).await;
        let verify = mailbox.arrived(ada.email(), VERIFY).await.token().to_owned();
        ada.todo("a").await;
        ada.todo("b").await;
        let page = ada.get(&format!("{}?limit=1", ada.todos())).await.expect(200);
        let cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
        let mut altered: Vec<String> = Vec::new();
        for (at, bit) in [(0, 1), (10, 2), (21, 4), (22, 1), (42, 4)] {
            let mut bytes = link.clone().into_bytes();
            bytes[at] ^= bit;
            altered.push(String::from_utf8(bytes).expect("ASCII"));
        }
        let others = [String::new(), "x".repeat(5000), cursor, format!("{link}="), ada.password().into()];
        for token in altered.iter().chain(&others).chain([&verify]) {
            reset(&anonymous, token).await.problem(400, "invalid_link");
        }
        confirm(&anonymous, &link).await.problem(400, "invalid_link");
        let todos = format!("{}?cursor={link}", ada.todos());
        ada.get(&todos).await.problem(400, "validation_error");
        reset(&anonymous, &link).await.expect(200);
        confirm(&anonymous, &verify).await.expect(200);
    }

    async fn a_new_password_ends_older_links(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        let token = reset_token(&app, &mailbox, ada.email()).await;
        let new = todo_tests::unique_email();
        accepted(change(&ada, &new, ada.password()).await);
        let other = mailbox.arrived(&new, CHANGE).await.token().to_owned();
        let body = json!({ "current_password": ada.password(), "new_password": NEW });
        let session = ada.post("/api/auth/password", body).await.expect(200);
        reset(&anonymous, &token).await.problem(400, "invalid_link");
        confirm(&anonymous, &other).await.problem(400, "invalid_link");
        let session = anonymous.bearing(session["token"].as_str().expect("a token"));
        session.get("/api/auth/me").await.expect(200);
    }
}
