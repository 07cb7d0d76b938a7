//! Bearer tokens: valid ones are accepted; forged, malformed or misplaced ones are rejected.

mod forge;

use std::collections::BTreeMap;

use base64::Engine;
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use todo_tests::{Actor, App, TestResponse, on_every_target};

use self::forge::{Forge, signed, with};

const ME: &str = "/api/auth/me";
const OTHER_SECRET: &str = "another secret of more than thirty-two bytes for tests";

/// The actor with a token that expires at `exp`, in seconds since the Unix epoch.
pub(crate) fn expiring(app: &App, actor: &Actor, exp: i64) -> Actor {
    let token = Forge::of(app, actor).claim("exp", exp);
    let user = json!({"id": actor.id(), "email": actor.email()});
    Actor::of(&app.anonymous(), &json!({"user": user, "token": token}), actor.password())
}

/// Checks a 401 with a Bearer challenge, and that the token is not echoed.
fn assert_rejected(name: &str, answer: &TestResponse) {
    assert_eq!(answer.status, 401, "{name}: {answer}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{name}: {challenge}");
    let problem = answer.clone().problem(401, "unauthorized");
    let text = problem.to_string();
    assert!(!text.contains("eyJ"), "{name}: the token is echoed: {text}");
}

async fn get_me_with(app: &App, authorization: &str) -> TestResponse {
    let headers = [("authorization", authorization)];
    app.anonymous().send("GET", ME, &headers, "").await
}

async fn assert_all_rejected(app: &App, tokens: BTreeMap<String, String>, at_least: usize) {
    assert!(tokens.len() >= at_least, "{} kinds", tokens.len());
    for (name, token) in tokens {
        let answer = get_me_with(app, &format!("Bearer {token}")).await;
        assert_rejected(&name, &answer);
    }
}

on_every_target! {
    async fn the_claims_are_those_of_the_contract(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let forge = Forge::of(&app, &actor);
        assert_eq!(forge.header["alg"], "HS256");
        let claims = &forge.claims;
        assert_eq!((&claims["sub"], &claims["user_id"]), (&json!(actor.id()), &json!(actor.id())));
        let jti = claims["jti"].as_str().expect("a session");
        assert!(jti.parse::<Uuid>().is_ok(), "{jti}");
        let time = |name: &str| claims[name].as_i64().expect("seconds");
        assert_eq!(time("exp") - time("iat"), 7 * 24 * 3600);
        for name in ["iss", "aud"] {
            assert!(claims[name].as_str().is_some_and(|text| !text.is_empty()), "{claims}");
        }
        for secret in [actor.email(), "argon2", "Ada"] {
            assert!(!claims.to_string().contains(secret), "{claims}");
        }
    }

    /// Positive control of `Forge`: its unchanged token is accepted, so the others are rejected for
    /// their changes.
    async fn a_correctly_signed_token_is_accepted(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let forge = Forge::of(&app, &actor);
        let now = Utc::now().timestamp();
        for token in [
            signed(&forge.header, &forge.claims, &forge.secret),
            forge.claim("more", json!({ "is": "ignored" })),
            forge.claim("exp", now + 60),
            forge.claim("nbf", now - 5),
            forge.header("typ", "JWT"),
        ] {
            let user = get_me_with(&app, &format!("Bearer {token}")).await.expect(200);
            assert_eq!(user["id"], actor.id());
        }
    }

    async fn a_token_with_a_forged_header_or_key_is_refused(target) {
        let app = App::start(target).await;
        let forge = Forge::of(&app, &app.signed_up().await);
        assert_all_rejected(&app, forge.headers(), 35).await;
    }

    async fn a_token_with_invalid_claims_is_refused(target) {
        let app = App::start(target).await;
        let forge = Forge::of(&app, &app.signed_up().await);
        assert_all_rejected(&app, forge.claims(), 55).await;
    }

    async fn a_malformed_token_is_refused(target) {
        let app = App::start(target).await;
        let forge = Forge::of(&app, &app.signed_up().await);
        assert_all_rejected(&app, forge.malformed(), 30).await;
        get_me_with(&app, &format!("Bearer {}", forge.valid)).await.expect(200);
    }

    async fn a_token_of_one_user_with_the_session_of_another_is_refused(target) {
        let app = App::start(target).await;
        let (ada, eve) = (app.signed_up().await, app.signed_up().await);
        let (ada, eve) = (Forge::of(&app, &ada), Forge::of(&app, &eve));
        let stolen = eve.claim("jti", ada.claims["jti"].clone());
        assert_rejected("her session", &get_me_with(&app, &format!("Bearer {stolen}")).await);
        let claims = with(&eve.claims, "sub", ada.claims["sub"].clone());
        let claims = with(&claims, "user_id", ada.claims["sub"].clone());
        let token = signed(&eve.header, &claims, &eve.secret);
        assert_rejected("her id", &get_me_with(&app, &format!("Bearer {token}")).await);
    }

    /// Includes routes with the user's id in the path, and routes that write.
    async fn a_bad_token_is_refused_on_every_protected_route(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let forge = Forge::of(&app, &actor);
        let id = actor.todo("stays").await["id"].as_str().expect("an id").to_owned();
        let list = actor.todos();
        let (one, complete) = (format!("{list}/{id}"), format!("{list}/{id}/complete"));
        let bad = [
            forge.header("alg", "HS512"),
            forge.claim("exp", Utc::now().timestamp() - 1),
            forge.claim("jti", Uuid::now_v7().to_string()),
            signed(&forge.header, &forge.claims, OTHER_SECRET),
        ];
        for token in bad {
            let client = app.anonymous().bearing(&token);
            for (method, path, body) in [
                ("GET", ME, ""),
                ("POST", "/api/auth/logout", ""),
                ("GET", &list, ""),
                ("POST", &list, r#"{"title":"forged"}"#),
                ("GET", &one, ""),
                ("PUT", &one, r#"{"title":"forged","priority":"low"}"#),
                ("PATCH", &one, r#"{"title":"forged"}"#),
                ("PATCH", &complete, r#"{"completed":true}"#),
                ("DELETE", &one, ""),
            ] {
                let headers = [("content-type", "application/json")];
                let headers = if body.is_empty() { &headers[..0] } else { &headers };
                assert_rejected(path, &client.send(method, path, headers, body).await);
            }
        }
        let todos = actor.get(&list).await.expect(200);
        assert_eq!((&todos["total"], &todos["todos"][0]["title"]), (&json!(1), &json!("stays")));
        assert_eq!(todos["todos"][0]["completed"], false);
    }

    async fn the_challenge_follows_rfc_6750(target) {
        let app = App::start(target).await;
        let none = app.anonymous().get(ME).await;
        assert_rejected("no token", &none);
        let challenge = none.header("www-authenticate").expect("a challenge");
        assert!(!challenge.contains("error"), "no error without a token: {challenge}");
        let bad = get_me_with(&app, "Bearer a.b.c").await;
        let challenge = bad.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }

    async fn the_bearer_scheme_is_case_insensitive_and_the_only_one(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let token = actor.token();
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            get_me_with(&app, &format!("{scheme} {token}")).await.expect(200);
        }
        let basic = base64::prelude::BASE64_STANDARD
            .encode(format!("{}:{}", actor.email(), actor.password()));
        for bad in [
            token.to_owned(),
            format!("Basic {token}"),
            format!("Basic {basic}"),
            format!("JWT {token}"),
            format!("Token {token}"),
            format!("Digest {token}"),
            format!("Bearer{token}"),
            format!("Bearer:{token}"),
            format!("Bearer={token}"),
            format!("Bearer Bearer {token}"),
            format!("Bearer token=\"{token}\""),
            format!("Basic {basic}, Bearer {token}"),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            String::new(),
        ] {
            assert_rejected(&bad, &get_me_with(&app, &bad).await);
        }
    }

    async fn two_authorization_fields_are_refused(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let valid = format!("Bearer {}", actor.token());
        for other in [valid.as_str(), "Bearer a.b.c", "Basic YTpi", ""] {
            for pair in [[valid.as_str(), other], [other, valid.as_str()]] {
                let headers = pair.map(|value| ("authorization", value));
                let answer = app.anonymous().send("GET", ME, &headers, "").await;
                assert_rejected(other, &answer);
            }
        }
    }

    async fn a_token_outside_the_authorization_header_is_ignored(target) {
        let app = App::start(target).await;
        let actor = app.signed_up().await;
        let (client, token) = (app.anonymous(), actor.token());
        for name in ["token", "access_token", "auth", "jwt", "authorization"] {
            assert_rejected(name, &client.get(&format!("{ME}?{name}={token}")).await);
            let cookie = format!("{name}={token}");
            let answer = client.send("GET", ME, &[("cookie", &cookie)], "").await;
            assert_rejected(name, &answer);
        }
        let bearer = format!("Bearer {token}");
        for name in ["x-authorization", "proxy-authorization", "x-access-token", "x-auth-token"] {
            for value in [token, &bearer] {
                assert_rejected(name, &client.send("GET", ME, &[(name, value)], "").await);
            }
        }
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let body = format!("access_token={token}");
        let answer = client.send("POST", "/api/auth/logout", &form, body).await;
        assert_rejected("a form", &answer);
        actor.get(ME).await.expect(200);
    }

    async fn a_token_of_the_previous_key_is_accepted_until_that_key_is_removed(target) {
        let old = App::start(target).await;
        let actor = old.signed_up().await;
        let rotating = [("SECRET_KEY", OTHER_SECRET), ("SECRET_KEY_PREVIOUS", old.secret())];
        let both = old.replica_with(&rotating).await;
        let new = old.replica_with(&[("SECRET_KEY", OTHER_SECRET)]).await;
        let bearer = |token: &str| format!("Bearer {token}");

        get_me_with(&both, &bearer(actor.token())).await.expect(200);
        assert_rejected("the key was removed", &get_me_with(&new, &bearer(actor.token())).await);

        let credentials = json!({ "email": actor.email(), "password": actor.password() });
        let auth = both.anonymous().post("/api/auth/login", credentials).await.expect(200);
        let fresh = auth["token"].as_str().expect("a token");
        get_me_with(&both, &bearer(fresh)).await.expect(200);
        get_me_with(&new, &bearer(fresh)).await.expect(200);
        assert_rejected("the old server", &get_me_with(&old, &bearer(fresh)).await);

        // The same checks apply to tokens of the previous key.
        assert_all_rejected(&both, Forge::of(&old, &actor).claims(), 55).await;
        let forge = Forge::of(&old, &actor);
        let secret = "a third secret that was never configured";
        let third = signed(&forge.header, &forge.claims, secret);
        assert_rejected("a third key", &get_me_with(&both, &bearer(&third)).await);

        let done = both.anonymous().bearing(actor.token());
        done.send("POST", "/api/auth/logout", &[], "").await.expect(200);
        assert_rejected("logged out", &get_me_with(&both, &bearer(actor.token())).await);
        assert_rejected("logged out", &get_me_with(&old, &bearer(actor.token())).await);
    }

    async fn a_key_of_any_characters_can_be_rotated_out(target) {
        for secret in [
            "a secret, with commas, and more than thirty-two bytes",
            "a secret of more than thirty-two bytes=\"quoted\"; #'$x\\n",
            "ein Geheimnis von über zweiunddreißig Bytes",
        ] {
            let old = App::start_with(target, &[("SECRET_KEY", secret)]).await;
            let actor = old.signed_up().await;
            let rotating = [("SECRET_KEY", OTHER_SECRET), ("SECRET_KEY_PREVIOUS", secret)];
            let both = old.replica_with(&rotating).await;
            get_me_with(&both, &format!("Bearer {}", actor.token())).await.expect(200);
        }
    }

    async fn only_the_configured_algorithm_is_accepted(target) {
        for (set, other) in [("HS384", "HS256"), ("HS512", "HS384")] {
            let app = App::start_with(target, &[("ALGORITHM", set)]).await;
            let actor = app.signed_up().await;
            let forge = Forge::of(&app, &actor);
            assert_eq!(forge.header["alg"], set);
            get_me_with(&app, &format!("Bearer {}", actor.token())).await.expect(200);
            let token = forge.header("alg", other);
            assert_rejected(other, &get_me_with(&app, &format!("Bearer {token}")).await);
        }
    }

    async fn a_token_expires_after_the_configured_time(target) {
        let app = App::start_with(target, &[("ACCESS_TOKEN_EXPIRE_DAYS", "1")]).await;
        let forge = Forge::of(&app, &app.signed_up().await);
        let time = |name: &str| forge.claims[name].as_i64().expect("seconds");
        assert_eq!(time("exp") - time("iat"), 24 * 3600);
    }
}
