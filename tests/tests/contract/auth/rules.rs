//! The validation rules of e-mail, password and name, at their boundaries.

use serde_json::{Value, json};

use todo_tests::{App, Client, on_every_target, unique_email};

use super::{PASSWORD, legacy, log_in, sign_up, user_object};

async fn assert_rejected(client: &Client, body: Value, fields: &[&str]) {
    let answer = client.post("/api/auth/signup", body.clone()).await;
    assert_eq!(answer.fields(), fields, "{body}: {answer}");
    for secret in ["Correct1horse", "not-to-be-echoed"] {
        assert!(!answer.text().contains(secret), "{answer}");
    }
    answer.problem(400, "validation_error");
}

async fn assert_email_rejected(client: &Client, email: &str) {
    let body = json!({ "email": email, "password": PASSWORD, "name": "Grace" });
    assert_rejected(client, body, &["email"]).await;
}

async fn assert_password_rejected(client: &Client, password: &str) {
    let body = json!({ "email": unique_email(), "password": password, "name": "Grace" });
    assert_rejected(client, body, &["password"]).await;
}

async fn assert_name_rejected(client: &Client, name: &str) {
    let body = json!({ "email": unique_email(), "password": PASSWORD, "name": name });
    assert_rejected(client, body, &["name"]).await;
}

/// An address of this many characters, with a domain of three labels.
fn long_email(length: usize) -> String {
    let domain = format!("@{}.{}.example", "d".repeat(63), "e".repeat(63));
    format!("{}{domain}", "l".repeat(length - domain.len()))
}

on_every_target! {
    async fn a_password_that_is_tried_first_is_refused_at_signup_only(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let email = format!("grace-{}", unique_email());
        let local = email.split('@').next().expect("a local part");
        let derived = [format!("{local}2026"), email.clone()].map(|text| text.replacen('g', "G", 1));
        for password in ["Password1", "Passw0rd", "Qwerty123!?", &derived[0], &derived[1], "Todo API2026"] {
            let refused = sign_up(&client, &email, password).await;
            let problem = refused.problem(400, "validation_error");
            let detail = &problem["details"][0];
            assert_eq!(detail["code"], "common", "{password}: {problem}");
            assert_eq!(detail["field"], "password", "{problem}");
            assert!(!problem.to_string().contains(password), "{problem}");
            // It is a wrong password like any other.
            log_in(&client, &email, password).await.problem(401, "invalid_credentials");
        }
        // The passwords that the front end's own tests use.
        for password in ["SecurePass123", "SecurePass123!", "TestPass123!", "WrongPassword123!"] {
            sign_up(&client, &unique_email(), password).await.expect(201);
        }
    }

    async fn an_address_follows_the_rule_of_html_with_a_dotted_domain(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let valid = [
            "a@b.co".to_owned(),
            "first.last+tag@sub.example.com".to_owned(),
            ".dots..anywhere.@example.com".to_owned(),
            "!#$%&'*+/=?^_`{|}~-.09az@example.com".to_owned(),
            "digits@123.456".to_owned(),
            format!("a@{}.com", "x".repeat(63)),
            long_email(254),
        ];
        for email in valid {
            let user = sign_up(&client, &email, PASSWORD).await.expect(201);
            assert_eq!(user["user"]["email"], email);
        }
        let bad = [
            "", "  ", "plain", "@example.com", "a@", "a@b", "a@b@c.de", "a b@example.com",
            "a@exa mple.com", "a@-b.com", "a@b-.com", "a@b..com", "a@.com", "a@b.com.",
            "a@[127.0.0.1]", "\"quoted\"@example.com", "a@b.com(comment)", "a,b@example.com",
            "Ada <a@example.com>", "ü @example.com", "a@exä_mple.com", "a@b_c.com", "a\n@b.com",
            "a@b.com\u{200b}", "mailto:a@b.com", "a;b@example.com", "a\\b@example.com",
        ];
        for email in bad {
            assert_email_rejected(&client, email).await;
        }
        assert_email_rejected(&client, &format!("a@{}.com", "x".repeat(64))).await;
        assert_email_rejected(&client, &long_email(255)).await;
    }

    /// RFC 6531 and IDNA: all spellings of an address are one account.
    async fn all_spellings_of_an_internationalised_address_are_one_account(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let auth = sign_up(&client, " Jörg@EXÄMPLE.com ", PASSWORD).await.expect(201);
        assert_eq!(auth["user"]["email"], "jörg@exämple.com");
        for same in [
            "jörg@exämple.com", "JÖRG@exämple.com", "jo\u{308}rg@exa\u{308}mple.com",
            "jörg@xn--exmple-cua.com", "jörg@XN--EXMPLE-CUA.com",
        ] {
            let auth = log_in(&client, same, PASSWORD).await.expect(200);
            assert_eq!(auth["user"]["email"], "jörg@exämple.com", "{same}");
            sign_up(&client, same, PASSWORD).await.problem(409, "email_taken");
        }
        for other in ["jorg@exämple.com", "jörg@example.com", "用户@例え.テスト"] {
            log_in(&client, other, PASSWORD).await.problem(401, "invalid_credentials");
            let auth = sign_up(&client, other, PASSWORD).await.expect(201);
            assert_eq!(auth["user"]["email"], other);
        }
    }

    /// Earlier releases stored such domains in ASCII.
    async fn an_account_stored_with_an_ascii_domain_can_still_log_in(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let ascii = "ada@xn--exmple-cua.com";
        let hash = legacy::BCRYPT[1];
        legacy::insert(&app, ascii, hash).await;
        for same in [ascii, "Ada@exämple.com"] {
            let auth = log_in(&client, same, "Brown2fox").await.expect(200);
            assert_eq!(auth["user"]["email"], ascii);
            sign_up(&client, same, PASSWORD).await.problem(409, "email_taken");
        }
    }

    async fn an_address_is_trimmed_and_stored_in_lower_case(target) {
        let app = App::start(target).await;
        let email = unique_email();
        let typed = format!(" \t{}\n", email.to_uppercase());
        let auth = sign_up(&app.anonymous(), &typed, PASSWORD).await.expect(201);
        assert_eq!(auth["user"]["email"], email);
        let padded = format!("{}{}{}", " ".repeat(40), long_email(254), " ".repeat(40));
        sign_up(&app.anonymous(), &padded, PASSWORD).await.expect(201);
    }

    async fn a_password_has_8_to_128_characters_of_three_kinds(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let valid = [
            "Aa345678".to_owned(),
            format!("Aa1{}", "x".repeat(125)),
            "Aa1 \u{e9}\u{1f511}\u{1f512}\u{1f513}".to_owned(),
            format!("Aa1{}", "\u{1f511}".repeat(125)),
        ];
        for password in valid {
            let email = unique_email();
            sign_up(&client, &email, &password).await.expect(201);
            log_in(&client, &email, &password).await.expect(200);
        }
        let bad = [
            String::new(),
            "Aa34567".to_owned(),
            // Characters count, not bytes: 7 characters in more than 8 bytes, and 129 characters.
            format!("Aa1{}", "\u{1f511}".repeat(4)),
            format!("Aa1{}", "x".repeat(126)),
            format!("Aa1{}", "\u{e9}".repeat(126)),
            format!("Aa1{}", "x".repeat(4_000)),
            "lower1case".to_owned(),
            "UPPER1CASE".to_owned(),
            "NoDigitHere".to_owned(),
            "12345678".to_owned(),
            "not-to-be-echoed".to_owned(),
        ];
        for password in bad {
            assert_password_rejected(&client, &password).await;
        }
    }

    async fn a_password_is_not_trimmed_or_normalised(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let email = unique_email();
        sign_up(&client, &email, " Passw0rd ").await.expect(201);
        log_in(&client, &email, " Passw0rd ").await.expect(200);
        for other in ["Passw0rd", " passw0rd ", " Passw0rd  ", "", "x", &"x".repeat(4_000)] {
            log_in(&client, &email, other).await.problem(401, "invalid_credentials");
        }
    }

    /// The hash covers the whole password, without truncation.
    async fn a_long_password_is_significant_to_its_last_character(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let (email, password) = (unique_email(), format!("Aa1{}y", "x".repeat(124)));
        sign_up(&client, &email, &password).await.expect(201);
        let close = format!("Aa1{}z", "x".repeat(124));
        log_in(&client, &email, &close).await.problem(401, "invalid_credentials");
        log_in(&client, &email, &password).await.expect(200);
    }

    async fn a_name_is_trimmed_and_has_2_to_100_characters(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let longest = "\u{1f600}".repeat(100);
        let valid = [
            (" Al\t".to_owned(), "Al".to_owned()),
            ("李白".to_owned(), "李白".to_owned()),
            (format!("  {longest}  "), longest.clone()),
            ("O'Neil <b>\"x\"; -- 1".to_owned(), "O'Neil <b>\"x\"; -- 1".to_owned()),
        ];
        for (typed, kept) in valid {
            let body = json!({ "email": unique_email(), "password": PASSWORD, "name": typed });
            let auth = client.post("/api/auth/signup", body).await.expect(201);
            assert_eq!(auth["user"]["name"], kept);
        }
        for name in ["", "   ", "A", " A ", "é", &"x".repeat(101), &"é".repeat(101)] {
            assert_name_rejected(&client, name).await;
        }
        // These act as control characters where a name is shown: a terminal, a mail header.
        for name in ["Ada\nLovelace", "Ada\tL", "\u{1b}[31mAda", "Ada\u{7f}", "A\u{85}da", "A\rB"] {
            assert_name_rejected(&client, name).await;
        }
    }

    async fn a_nul_is_rejected_anywhere(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let client = app.anonymous();
        assert_email_rejected(&client, "a\0b@example.com").await;
        assert_email_rejected(&client, "\0").await;
        assert_password_rejected(&client, "Correct1\0horse").await;
        assert_name_rejected(&client, "Grace\0Hopper").await;
        for (email, password, field) in [
            (actor.email(), "Correct1horse\0", "password"),
            (actor.email(), "\0", "password"),
            ("a\0b@example.com", "Correct1horse", "email"),
        ] {
            let answer = log_in(&client, email, password).await;
            assert_eq!(answer.fields(), [field], "{answer}");
            answer.problem(400, "validation_error");
        }
    }

    async fn all_invalid_fields_are_listed_at_once(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let body = json!({ "email": "plain", "password": "short", "name": " " });
        assert_rejected(&client, body, &["email", "password", "name"]).await;
        let body = json!({ "name": "", "password": "Correct1horse", "email": "a@b" });
        assert_rejected(&client, body, &["email", "name"]).await;
    }

    /// A user should not need three attempts to find a valid password.
    async fn every_broken_rule_of_a_field_is_listed_at_once(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let messages_of = async |email: &str, password: &str, name: &str| {
            let body = json!({ "email": email, "password": password, "name": name });
            let answer = client.post("/api/auth/signup", body).await;
            let messages = answer.details("message");
            assert_eq!(answer.problem(400, "validation_error")["detail"], messages.join(" "));
            messages
        };
        let short = "Password must be at least 8 characters.";
        let upper = "Password must contain an upper-case letter.";
        let lower = "Password must contain a lower-case letter.";
        let digit = "Password must contain a digit.";
        let password = async |password: &str| messages_of(&unique_email(), password, "Grace").await;
        assert_eq!(password("weak").await, [short, upper, digit]);
        assert_eq!(password("weakweak").await, [upper, digit]);
        assert_eq!(password("").await, [short, upper, lower, digit]);
        assert_eq!(password("weakweak1").await, [upper]);
        let all = messages_of(&"x".repeat(255), "12345", "G").await;
        assert_eq!(all, [
            "Email must be at most 254 characters.", "Invalid email format.", short, upper, lower,
            "Name must be at least 2 characters.",
        ]);
    }

    async fn unknown_members_are_ignored_and_set_nothing(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let victim = app.signed_up().await;
        let email = unique_email();
        let body = json!({
            "email": email, "password": PASSWORD, "name": "Grace", "id": victim.id(),
            "user_id": victim.id(), "created_at": "2001-01-01T00:00:00Z", "password_hash": "x",
            "is_admin": true, "nested": { "email": ["x"] }, "": null,
        });
        let user = client.post("/api/auth/signup", body).await.expect(201)["user"].clone();
        user_object(&user);
        assert_ne!(user["id"], victim.id());
        let body = json!({ "email": email, "password": PASSWORD, "user_id": victim.id() });
        let again = client.post("/api/auth/login", body).await.expect(200);
        assert_eq!(again["user"], user);
    }

    async fn a_rejected_signup_creates_no_account(target) {
        let app = App::start(target).await;
        let client = app.anonymous();
        let email = unique_email();
        let body = json!({ "email": email, "password": PASSWORD, "name": "x" });
        assert_rejected(&client, body, &["name"]).await;
        log_in(&client, &email, PASSWORD).await.problem(401, "invalid_credentials");
        sign_up(&client, &email, PASSWORD).await.expect(201);
    }
}
