//! `/api/auth/identities`: an identity is added by its token and a new session, and removed unless
//! it is the last way in.

use serde_json::json;
use todo_tests::{Client, TestResponse, on_every_target, peers::BetterAuth};
use uuid::Uuid;

use super::{
    IDENTITIES, ME, accounts::make_sessions_older, bearing, identities, me, text, titles, user_id,
};

async fn add(client: &Client, token: &str) -> TestResponse {
    client.post(IDENTITIES, json!({ "token": token })).await
}

async fn remove(client: &Client, id: &str) -> TestResponse {
    client.delete(&format!("{IDENTITIES}/{id}")).await
}

on_every_target! {
    async fn an_identity_is_added_by_its_token_and_removed(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let replica = app.replica().await;
        let local = app.signed_up().await;
        local.todo("mine").await;
        let ann = issuer.sign_up().await;
        let token = issuer.token(&ann).await;
        assert!(identities(&local).await.is_empty());

        let identity = add(&local, &token).await.expect(201);
        assert_eq!(identity["issuer"], issuer.issuer());
        assert_eq!(identity["subject"], json!(ann.subject));
        assert_eq!(identity["email"], json!(ann.email));
        assert_eq!(identity["email_verified"], false);
        assert_eq!(identities(&local).await, std::slice::from_ref(&identity));
        // A retry finds it.
        assert_eq!(add(&local, &token).await.expect(201), identity);
        assert_eq!(user_id(&replica, &token).await, local.id());
        assert_eq!(titles(&bearing(&replica, &token), &ann.subject).await, ["mine"]);

        let id = text(&identity, "id");
        let stranger = app.signed_up().await;
        remove(&stranger, id).await.problem(404, "not_found");
        for unknown in [&Uuid::now_v7().to_string(), "1"] {
            remove(&local, unknown).await.problem(404, "not_found");
        }
        let done = remove(&local, id).await.expect(200);
        assert_eq!(done, json!({"message": "Identity removed successfully"}));
        for server in [&app, &replica] {
            me(server, &token).await.problem(401, "unauthorized");
        }
        assert!(identities(&local).await.is_empty());
        remove(&local, id).await.problem(404, "not_found");
        local.get(ME).await.expect(200);
        // Its next token makes another account.
        let mut claims = issuer.claims(&ann.subject);
        claims["jti"] = json!("later");
        let later = issuer.sign(&issuer.header().await, &claims).await;
        assert_ne!(user_id(&app, &later).await, local.id());
        replica.stop().await.expect("a clean stop");
    }

    async fn an_identity_of_another_account_is_taken(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let local = app.signed_up().await;
        // Added by hand to one account, made by its first request to another.
        let added = issuer.token_of("ann").await;
        add(&local, &added).await.expect(201);
        let used = issuer.token_of("bob").await;
        let bobs = user_id(&app, &used).await;
        let other = app.signed_up().await;
        for token in [&added, &used] {
            add(&other, token).await.problem(409, "identity_taken");
        }
        assert!(identities(&other).await.is_empty());
        assert_eq!(user_id(&app, &added).await, local.id());
        assert_eq!(user_id(&app, &used).await, bobs);
    }

    async fn the_last_way_in_stays(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let first = issuer.token_of("ann").await;
        let client = bearing(&app, &first);
        let [own] = &identities(&client).await[..] else { panic!("not one") };
        remove(&client, text(own, "id")).await.problem(409, "last_credential");
        client.get(ME).await.expect(200);
        // With another identity, one of both may go, and then no more.
        let second = issuer.token_of("ann at work").await;
        let added = add(&client, &second).await.expect(201);
        assert_eq!(user_id(&app, &second).await, user_id(&app, &first).await);
        remove(&client, text(own, "id")).await.expect(200);
        me(&app, &first).await.problem(401, "unauthorized");
        let client = bearing(&app, &second);
        remove(&client, text(&added, "id")).await.problem(409, "last_credential");
    }

    async fn an_old_session_adds_no_identity(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let local = app.signed_up().await;
        make_sessions_older(&app).await;
        let token = issuer.token_of("ann").await;
        add(&local, &token).await.problem(403, "reauthentication_required");
        assert!(identities(&local).await.is_empty());
    }

    async fn only_a_good_token_is_an_identity(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let local = app.signed_up().await;
        let mut claims = issuer.claims("ann");
        claims["aud"] = json!("another service");
        let other = issuer.sign(&issuer.header().await, &claims).await;
        for token in [&other, local.token(), "", "a.b.c"] {
            let answer = add(&local, token).await;
            answer.clone().problem(400, "validation_error");
            assert_eq!(answer.fields(), ["token"], "{answer}");
        }
        add(&app.anonymous(), &other).await.problem(401, "unauthorized");
        local.post(IDENTITIES, json!({"token": 1})).await.problem(422, "malformed_body");
    }
}
