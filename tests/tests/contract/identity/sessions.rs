//! The session of a token: it begins with the first request and ends as any other, on all servers
//! at once and for good.

use std::time::Duration;

use serde_json::json;
use todo_tests::{App, at_once, on_every_target, peers::BetterAuth};
use tokio::time::sleep;

use super::{SESSIONS, bearing, identities, me, text, user_id};

async fn log_out(app: &App, token: &str) {
    bearing(app, token).send("POST", "/api/auth/logout", &[], "").await.expect(200);
}

on_every_target! {
    async fn a_logout_ends_the_token_everywhere_and_for_good(target) {
        let issuer = BetterAuth::shared().await;
        let mut app = issuer.app(target, &[]).await;
        let replica = app.replica().await;
        let user = issuer.sign_up().await;
        let ended = issuer.token(&user).await;
        let id = user_id(&app, &ended).await;
        assert_eq!(user_id(&replica, &ended).await, id);
        log_out(&app, &ended).await;
        for server in [&replica, &app] {
            me(server, &ended).await.problem(401, "unauthorized");
        }
        // Those that were issued with it go on.
        sleep(Duration::from_secs(1)).await;
        let other = issuer.token(&user).await;
        assert_ne!(other, ended, "issued a second later");
        assert_eq!(user_id(&replica, &other).await, id);
        // One that is ended elsewhere before its first request here.
        sleep(Duration::from_secs(1)).await;
        let unseen = issuer.token(&user).await;
        log_out(&app, &unseen).await;
        me(&replica, &unseen).await.problem(401, "unauthorized");

        replica.stop().await.expect("a clean stop");
        app.stop_server().await.expect("a clean stop");
        let restarted = app.replica().await;
        me(&restarted, &ended).await.problem(401, "unauthorized");
        me(&restarted, &unseen).await.problem(401, "unauthorized");
        assert_eq!(user_id(&restarted, &other).await, id);
        restarted.stop().await.expect("a clean stop");
    }

    async fn a_sign_out_at_the_issuer_ends_no_token(target) {
        // As docs/identity.md says: there is no way to learn of it.
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let user = issuer.sign_up().await;
        let token = issuer.token(&user).await;
        me(&app, &token).await.expect(200);
        assert_eq!(issuer.sign_out(&user).await, 401, "no more tokens");
        me(&app, &token).await.expect(200);
    }

    async fn the_end_of_all_sessions_ends_tokens_that_were_never_used(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let replica = app.replica().await;
        let header = issuer.header().await;
        let claims = |jti: &str| {
            let mut claims = issuer.claims("ann");
            claims["jti"] = json!(jti);
            claims
        };
        let current = issuer.sign(&header, &claims("current")).await;
        let used = issuer.sign(&header, &claims("used")).await;
        let unused = issuer.sign(&header, &claims("unused")).await;
        let id = user_id(&app, &current).await;
        assert_eq!(user_id(&replica, &used).await, id);
        let done = bearing(&app, &current).delete(SESSIONS).await.expect(200);
        assert_eq!(done, json!({"ended": 1}));
        for server in [&app, &replica] {
            me(server, &used).await.problem(401, "unauthorized");
            me(server, &unused).await.problem(401, "unauthorized");
            // The one that asked for it.
            assert_eq!(user_id(server, &current).await, id);
        }
        sleep(Duration::from_millis(1100)).await;
        let later = issuer.sign(&header, &issuer.claims("ann")).await;
        assert_eq!(user_id(&replica, &later).await, id);
        replica.stop().await.expect("a clean stop");
    }

    async fn the_first_requests_at_once_make_one_user(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let replica = app.replica().await;
        let header = issuer.header().await;
        let mut tokens = Vec::new();
        for nth in 0..20 {
            let mut claims = issuer.claims("ann");
            claims["jti"] = json!(nth);
            claims["email"] = json!("ann@example.com");
            claims["email_verified"] = json!(true);
            tokens.push(issuer.sign(&header, &claims).await);
        }
        // Each token twice, at both servers.
        let clients = [app.anonymous(), replica.anonymous()];
        let answers = at_once(40, |nth| {
            let client = clients[nth % 2].bearing(&tokens[nth / 2]);
            async move { client.get("/api/auth/me").await }
        })
        .await;
        let mut ids: Vec<String> = answers
            .into_iter()
            .map(|answer| text(&answer.expect(200), "id").to_owned())
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
        let client = bearing(&app, &tokens[0]);
        assert_eq!(identities(&client).await.len(), 1);
        let count = async |sql| todo_tests::count_rows(app.database_url(), sql).await;
        assert_eq!(count("SELECT count(*) FROM users").await, 1);
        assert_eq!(count("SELECT count(*) FROM identities").await, 1);
        assert_eq!(count("SELECT count(*) FROM sessions").await, 20);
        replica.stop().await.expect("a clean stop");
    }

    async fn the_list_of_sessions_has_the_token(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let token = issuer.token_of("ann").await;
        let list = bearing(&app, &token).get(SESSIONS).await.expect(200);
        let [session] = &list["sessions"].as_array().expect("a list")[..] else {
            panic!("{list}")
        };
        assert_eq!(session["kind"], "external");
        assert_eq!(session["current"], true);
        let path = format!("{SESSIONS}/{}", text(session, "id"));
        bearing(&app, &token).delete(&path).await.expect(200);
        me(&app, &token).await.problem(401, "unauthorized");
    }

    async fn a_logout_holds_for_each_signature_of_the_token(target) {
        // The signatures of ECDSA are random, and a valid one yields another (r, n - s).
        let issuer = BetterAuth::shared_with(&["--alg=ES256"]).await;
        let app = issuer.app(target, &[]).await;
        let header = issuer.header().await;
        let claims = issuer.claims("ann");
        let token = issuer.sign(&header, &claims).await;
        let again = issuer.sign(&header, &claims).await;
        let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
        assert_eq!(signed(&token), signed(&again));
        assert_ne!(token, again);
        assert_eq!(user_id(&app, &token).await, user_id(&app, &again).await);
        log_out(&app, &token).await;
        me(&app, &again).await.problem(401, "unauthorized");
        me(&app, &token).await.problem(401, "unauthorized");
    }
}
