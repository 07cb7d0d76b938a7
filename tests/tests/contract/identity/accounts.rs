//! Accounts without a password: what they may do, and that a deleted one is gone for its tokens.

use serde_json::json;
use todo_tests::{on_every_target, peers::BetterAuth};

use super::{ME, add_todo, bearing, identities, me, titles, user_id};

const JSON: (&str, &str) = ("content-type", "application/json");

on_every_target! {
    async fn a_deleted_account_is_gone_and_a_new_token_makes_another(target) {
        let issuer = BetterAuth::shared().await;
        let mut app = issuer.app(target, &[]).await;
        let replica = app.replica().await;
        let header = issuer.header().await;
        let [first, unused] = ["first", "unused"].map(|jti| {
            let mut claims = issuer.claims("ann");
            claims["jti"] = json!(jti);
            claims
        });
        let token = issuer.sign(&header, &first).await;
        let id = user_id(&app, &token).await;
        me(&replica, &token).await.expect(200);
        add_todo(&bearing(&app, &token), &id, "private").await;
        let client = bearing(&app, &token);
        client.send("DELETE", ME, &[JSON], "{}").await.expect(200);
        for server in [&app, &replica] {
            me(server, &token).await.problem(401, "unauthorized");
        }
        // The owner comes again: a new account, in which nothing is.
        let token_after = issuer.sign(&header, &unused).await;
        let new = user_id(&replica, &token_after).await;
        assert_ne!(new, id);
        assert!(titles(&bearing(&app, &token_after), "ann").await.is_empty());
        let private = bearing(&app, &token_after).get(&format!("/api/users/{id}/todos")).await;
        private.problem(403, "forbidden");

        replica.stop().await.expect("a clean stop");
        app.stop_server().await.expect("a clean stop");
        let restarted = app.replica().await;
        me(&restarted, &token).await.problem(401, "unauthorized");
        assert_eq!(user_id(&restarted, &token_after).await, new);
        restarted.stop().await.expect("a clean stop");
    }

    async fn an_account_without_a_password_is_deleted_only_by_a_new_session(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let token = issuer.token_of("ann").await;
        let client = bearing(&app, &token);
        client.get(ME).await.expect(200);
        make_sessions_older(&app).await;
        let answer = client.send("DELETE", ME, &[JSON], "{}").await;
        answer.problem(403, "reauthentication_required");
        client.get(ME).await.expect(200);
    }

    async fn no_password_logs_in_to_an_account_without_one(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let token = issuer.token_of("ann").await;
        let user = me(&app, &token).await.expect(200);
        for password in ["!", "", "Correct1horse"] {
            let body = json!({"email": user["email"], "password": password});
            let answer = app.anonymous().post("/api/auth/login", body).await;
            assert!([400, 401].contains(&answer.status), "{password:?}: {answer}");
        }
        assert_eq!(identities(&bearing(&app, &token)).await.len(), 1);
    }
}

/// All sessions began 11 minutes earlier.
pub(super) async fn make_sessions_older(app: &todo_tests::App) {
    let older = if app.database_url().starts_with("sqlite:") {
        "UPDATE sessions SET created_at = created_at - 660000000"
    } else {
        "UPDATE sessions SET created_at = created_at - interval '11 minutes'"
    };
    todo_tests::execute_sql(app.database_url(), older).await;
}
