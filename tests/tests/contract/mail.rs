//! Mailed links: reset of a password, confirmation of an address, and change of an address. The
//! mails are written to a directory.

mod limits;
mod links;

use serde_json::{Value, json};
use todo_tests::{Actor, App, Client, Mailbox, TestResponse, eventually, on_every_target};

const NEW: &str = "Other2battery";
const RESET: &str = "Set a new password";
const VERIFY: &str = "Confirm your e-mail address";
const CHANGE: &str = "Confirm your new e-mail address";

async fn forgot(client: &Client, email: &str) -> TestResponse {
    client.post("/api/auth/password/forgot", json!({ "email": email })).await
}

async fn reset(client: &Client, token: &str) -> TestResponse {
    let body = json!({ "token": token, "password": NEW });
    client.post("/api/auth/password/reset", body).await
}

async fn confirm(client: &Client, token: &str) -> TestResponse {
    client.post("/api/auth/email/confirm", json!({ "token": token })).await
}

async fn verify(client: &Client) -> TestResponse {
    client.send("POST", "/api/auth/email/verify", &[], "").await
}

async fn change(actor: &Actor, email: &str, password: &str) -> TestResponse {
    actor.post("/api/auth/email", json!({ "email": email, "password": password })).await
}

async fn log_in(client: &Client, email: &str, password: &str) -> TestResponse {
    client.post("/api/auth/login", json!({ "email": email, "password": password })).await
}

/// The token of a new link that resets the password of `email`.
async fn reset_token(app: &App, mailbox: &Mailbox, email: &str) -> String {
    forgot(&app.anonymous(), email).await.expect(202);
    mailbox.arrived(email, RESET).await.token().to_owned()
}

/// Waits until a mail of this number has arrived at `email`.
async fn count(mailbox: &Mailbox, email: &str, number: usize) -> bool {
    let arrived =
        async || mailbox.mails().iter().filter(|mail| mail.to() == email).count() >= number;
    eventually(std::time::Duration::from_secs(20), arrived).await
}

fn accepted(answer: TestResponse) {
    let body: Value = answer.expect(202);
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
}

on_every_target! {
    async fn a_password_is_reset_by_a_mailed_link(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        let second = log_in(&anonymous, ada.email(), ada.password()).await.expect(200);
        let second = anonymous.bearing(second["token"].as_str().expect("a token"));
        let token = reset_token(&app, &mailbox, ada.email()).await;
        assert_eq!(token.len(), 43);
        let weak = json!({ "token": token, "password": "short" });
        anonymous.post("/api/auth/password/reset", weak).await.problem(400, "validation_error");
        let common = json!({ "token": token, "password": "Password1" });
        anonymous.post("/api/auth/password/reset", common).await.problem(400, "validation_error");

        let done = reset(&anonymous, &token).await.expect(200);
        assert_eq!(done, json!({ "message": "Password changed successfully" }));
        for gone in [&ada.client, &second] {
            gone.get("/api/auth/me").await.problem(401, "unauthorized");
        }
        let old = log_in(&anonymous, ada.email(), ada.password()).await;
        old.problem(401, "invalid_credentials");
        let session = log_in(&anonymous, ada.email(), NEW).await.expect(200);
        assert_eq!(session["user"]["email_verified"], true, "the mailbox was proved");
        reset(&anonymous, &token).await.problem(400, "invalid_link");
        log_in(&anonymous, ada.email(), NEW).await.expect(200);
        mailbox.arrived(ada.email(), "Your password was changed").await;
    }

    async fn an_unknown_address_gets_the_same_response_and_no_mail(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        let known = forgot(&anonymous, ada.email()).await;
        let unknown = forgot(&anonymous, "nobody@example.com").await;
        assert_eq!(unknown.body, known.body);
        accepted(unknown);
        forgot(&anonymous, "nobody").await.problem(400, "validation_error");
        forgot(&anonymous, "").await.problem(400, "validation_error");
        assert!(count(&mailbox, ada.email(), 2).await);
        // The mail to the known address was queued before; one more that was queued after.
        let bob = app.signed_up().await;
        mailbox.arrived(bob.email(), VERIFY).await;
        assert!(mailbox.mails().iter().all(|mail| mail.to() != "nobody@example.com"));
    }

    async fn an_address_is_confirmed_by_the_mail_of_the_signup(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        assert_eq!(ada.get("/api/auth/me").await.expect(200)["email_verified"], false);
        let mail = mailbox.arrived(ada.email(), VERIFY).await;
        assert!(mail.text.contains("https://app.example.com/confirm#token="), "{}", mail.text);
        assert!(!mail.text.contains("Ada Lovelace"), "no text of the user: {}", mail.text);
        // One a minute: nothing is mailed, and the response is the same.
        accepted(verify(&ada).await);
        let user = confirm(&anonymous, mail.token()).await.expect(200);
        assert_eq!((&user["id"], &user["email_verified"]), (&json!(ada.id()), &json!(true)));
        confirm(&anonymous, mail.token()).await.problem(400, "invalid_link");
        verify(&ada).await.problem(409, "already_verified");
        verify(&anonymous).await.problem(401, "unauthorized");
        let mails = mailbox.mails();
        assert_eq!(mails.iter().filter(|mail| mail.to() == ada.email()).count(), 1);
    }

    async fn an_address_is_changed_by_the_mail_to_the_new_one(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[]).await;
        let (ada, bob, anonymous) = (app.signed_up().await, app.signed_up().await, app.anonymous());
        let new = todo_tests::unique_email();
        change(&ada, &new, "Wrong1password").await.problem(401, "invalid_credentials");
        change(&ada, ada.email(), ada.password()).await.problem(400, "validation_error");
        change(&ada, "x", ada.password()).await.problem(400, "validation_error");
        let old_reset = reset_token(&app, &mailbox, ada.email()).await;
        accepted(change(&ada, &new, ada.password()).await);
        let mail = mailbox.arrived(&new, CHANGE).await;
        mailbox.arrived(ada.email(), "Your e-mail address is to be changed").await;
        log_in(&anonymous, ada.email(), ada.password()).await.expect(200);

        let user = confirm(&anonymous, mail.token()).await.expect(200);
        assert_eq!((&user["email"], &user["email_verified"]), (&json!(new), &json!(true)));
        mailbox.arrived(ada.email(), "Your e-mail address was changed").await;
        log_in(&anonymous, ada.email(), ada.password()).await.problem(401, "invalid_credentials");
        log_in(&anonymous, &new, ada.password()).await.expect(200);
        assert_eq!(ada.get("/api/auth/me").await.expect(200)["email"], new, "the session stays");
        // Links to the address before are dead.
        reset(&anonymous, &old_reset).await.problem(400, "invalid_link");
        let verify = mailbox.arrived(ada.email(), VERIFY).await;
        confirm(&anonymous, verify.token()).await.problem(400, "invalid_link");

        // The unique index decides when the link is used.
        let carol = todo_tests::unique_email();
        accepted(change(&bob, &carol, bob.password()).await);
        let mail = mailbox.arrived(&carol, CHANGE).await;
        let form = json!({ "email": carol, "password": NEW, "name": "Carol" });
        anonymous.post("/api/auth/signup", form).await.expect(201);
        confirm(&anonymous, mail.token()).await.problem(409, "email_taken");
        assert_eq!(bob.get("/api/auth/me").await.expect(200)["email"], bob.email());
    }

    async fn a_login_may_require_a_confirmed_address(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[("REQUIRE_VERIFIED_EMAIL", "true")]).await;
        let (ada, bob, anonymous) = (app.signed_up().await, app.signed_up().await, app.anonymous());
        let wrong = log_in(&anonymous, ada.email(), "Wrong1password").await;
        wrong.problem(401, "invalid_credentials");
        let right = log_in(&anonymous, ada.email(), ada.password()).await;
        right.problem(403, "email_unverified");
        let mail = mailbox.arrived(ada.email(), VERIFY).await;
        confirm(&anonymous, mail.token()).await.expect(200);
        log_in(&anonymous, ada.email(), ada.password()).await.expect(200);
        // The way of those who have lost that mail.
        let token = reset_token(&app, &mailbox, bob.email()).await;
        reset(&anonymous, &token).await.expect(200);
        log_in(&anonymous, bob.email(), NEW).await.expect(200);
    }

    async fn without_mails_the_routes_are_not_implemented(target) {
        let app = App::start(target).await;
        let (ada, anonymous) = (app.signed_up().await, app.anonymous());
        for answer in [
            forgot(&anonymous, ada.email()).await,
            reset(&anonymous, "x").await,
            confirm(&anonymous, "x").await,
            verify(&ada).await,
            change(&ada, "new@example.com", ada.password()).await,
        ] {
            answer.problem(501, "mail_not_configured");
        }
        reset(&anonymous, "x").await.problem(501, "mail_not_configured");
        ada.send("POST", "/api/auth/logout", &[], "").await.expect(200);
        verify(&ada).await.problem(401, "unauthorized");
        change(&ada, "new@example.com", ada.password()).await.problem(401, "unauthorized");
    }

    /// A name is never in a mail, so that it cannot add a header, and an address may have any
    /// character that it can have.
    async fn odd_names_and_addresses_get_their_mails(target) {
        let mailbox = Mailbox::default();
        let app = mailbox.start(target, &[("PROJECT_NAME", "Aufgaben für \"alle\"")]).await;
        let anonymous = app.anonymous();
        for (email, name, to) in [
            ("o'brien+x@example.com", "Bcc: x@y.z, \"a\" <b@c.d>", "o'brien+x@example.com"),
            ("jörg@exämple.com", "\u{202e}\u{200b}Ada =?utf-8?Q?x?=", "jörg@xn--exmple-cua.com"),
            ("{link}@example.com", "{link} #token=", "{link}@example.com"),
        ] {
            let form = json!({ "email": email, "password": NEW, "name": name });
            anonymous.post("/api/auth/signup", form).await.expect(201);
            let mail = mailbox.arrived(to, VERIFY).await;
            assert!(mail.text.starts_with("From: =?utf-8?B?"), "{}", mail.text);
            assert_eq!(mail.text.matches("#token=3D").count(), 1, "{}", mail.text);
            assert!(!mail.text.contains("Bcc"), "{}", mail.text);
        }
    }
}
