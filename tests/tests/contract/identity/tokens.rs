//! Which tokens are accepted, and what their users may do.

use serde_json::json;
use todo_tests::{
    App, Target, at_once, on_every_target,
    peers::{AUDIENCE, BetterAuth},
};

use super::{ME, add_todo, bearing, me, text, titles, user_id};

/// Starts a server that accepts the issuer's tokens, with no other setting.
async fn tokens_pass(target: Target, algorithm: &str) {
    let lean = if algorithm == "RS256" { "--lean" } else { "--expiry=10m" };
    let issuer = BetterAuth::shared_with(&[&format!("--alg={algorithm}"), lean]).await;
    let user = issuer.sign_up().await;
    let token = issuer.token(&user).await;
    let mut other = issuer.claims(&user.subject);
    other["aud"] = json!("another service");
    let other = issuer.sign(&issuer.header().await, &other).await;

    let app = issuer.app(target, &[]).await;
    let found = me(&app, &token).await.expect(200);
    assert_eq!(me(&app, &token).await.expect(200), found, "{algorithm}");
    let name = if algorithm == "RS256" { "User" } else { "Ada Lovelace" };
    assert_eq!(found["name"], name, "{algorithm}");
    me(&app, &other).await.problem(401, "unauthorized");
    add_todo(&bearing(&app, &token), &user.subject, "buy milk").await;
}

on_every_target! {
    async fn tokens_of_each_algorithm_pass(target) {
        at_once(4, move |nth| {
            tokens_pass(target, ["EdDSA", "ES256", "RS256", "PS256"][nth])
        })
        .await;
    }

    async fn the_users_id_at_the_issuer_stands_for_the_users_id(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let (ann, bob) = (issuer.sign_up().await, issuer.sign_up().await);
        let (token, bobs) = (issuer.token(&ann).await, issuer.token(&bob).await);
        let client = bearing(&app, &token);
        let id = user_id(&app, &token).await;
        let todo = add_todo(&client, &ann.subject, "by sub").await;
        add_todo(&client, &id, "by id").await;
        let mut both = titles(&client, &id).await;
        both.sort();
        assert_eq!(both, ["by id", "by sub"]);
        assert_eq!(titles(&client, &ann.subject).await.len(), 2);
        let item = format!("/api/users/{}/todos/{}", ann.subject, text(&todo, "id"));
        client.get(&item).await.expect(200);

        let stranger = bearing(&app, &bobs);
        let bobs_id = user_id(&app, &bobs).await;
        for user in [&*ann.subject, &id, "me", ""] {
            let path = format!("/api/users/{user}/todos");
            let answer = stranger.get(&path).await;
            assert_eq!(answer.status, if user.is_empty() { 404 } else { 403 }, "{answer}");
        }
        stranger.get(&item).await.problem(403, "forbidden");
        for user in [&bob.subject, &bobs_id] {
            client.get(&format!("/api/users/{user}/todos")).await.problem(403, "forbidden");
        }
        // A user of this API has no other id.
        let local = app.signed_up().await;
        local.get(&format!("/api/users/{}/todos", ann.subject)).await.problem(403, "forbidden");
        client.get(&local.todos()).await.problem(403, "forbidden");
    }

    async fn an_id_of_any_characters_is_encoded_in_the_path(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let token = issuer.token_of("auth0|a/b é%41").await;
        let client = bearing(&app, &token);
        add_todo(&client, "auth0%7Ca%2Fb%20%C3%A9%2541", "encoded").await;
        assert_eq!(titles(&client, &user_id(&app, &token).await).await, ["encoded"]);
        let decoded_twice = client.get("/api/users/auth0%7Ca%2Fb%20%C3%A9A/todos").await;
        decoded_twice.problem(403, "forbidden");
    }

    async fn tokens_may_have_what_issuers_add(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let header = issuer.header().await;
        let mut with_type = header.clone();
        for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
            with_type["typ"] = json!(typ);
            with_type["x5t"] = json!("dGh1bWI");
            let token = issuer.sign(&with_type, &issuer.claims(typ)).await;
            me(&app, &token).await.expect(200);
        }
        let mut claims = issuer.claims("another");
        claims["aud"] = json!(["another service", AUDIENCE]);
        claims["image"] = json!("i".repeat(5000));
        claims["nbf"] = claims["iat"].clone();
        me(&app, &issuer.sign(&header, &claims).await).await.expect(200);
        // The clocks differ by less than 30 seconds.
        for (name, seconds) in [("iat", 20), ("nbf", 20), ("exp", -20)] {
            let mut claims = issuer.claims(name);
            claims[name] = json!(todo_tests::peers::now() + seconds);
            me(&app, &issuer.sign(&header, &claims).await).await.expect(200);
        }
    }

    async fn without_an_issuer_no_such_token_is_accepted(target) {
        let issuer = BetterAuth::shared().await;
        let app = App::start(target).await;
        let token = issuer.token_of("ann").await;
        bearing(&app, &token).get(ME).await.problem(401, "unauthorized");
    }

    async fn metrics_count_the_verifications(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let token = issuer.token_of("ann").await;
        me(&app, &token).await.expect(200);
        me(&app, &token).await.expect(200);
        me(&app, &format!("{token}AAAA")).await.problem(401, "unauthorized");
        let metrics = app.anonymous().get("/metrics").await;
        let lines = metrics.text();
        for line in ["accepted\"} 1", "rejected\"} 1"] {
            let line = format!("auth_foreign_tokens_total{{result=\"{line}");
            assert!(lines.contains(&line), "no {line} in {metrics}");
        }
    }
}
