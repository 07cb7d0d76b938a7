//! Tokens that are not accepted: each is a good one but for one thing, and signed under the
//! issuer's real key where that is possible.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use todo_tests::{
    App, on_every_target,
    peers::{AUDIENCE, BetterAuth, now},
};

use super::{me, user_id};

/// Sets the members of `base`; null removes one, and the text "null" is null.
fn with(base: &Value, members: &Value) -> Value {
    let mut object = base.clone();
    for (name, value) in members.as_object().expect("an object") {
        match value {
            Value::Null => drop(object.as_object_mut().and_then(|object| object.remove(name))),
            Value::String(null) if null == "null" => object[name] = Value::Null,
            value => object[name] = value.clone(),
        }
    }
    object
}

/// Changes of the header.
fn headers() -> Vec<Value> {
    vec![
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"alg": "ES256"}),
        json!({"alg": "ES512"}),
        json!({"alg": null}),
        json!({"alg": ["EdDSA"]}),
        json!({"crit": ["b64"], "b64": true}),
        json!({"crit": []}),
        json!({"jku": "https://keys.example.com/jwks"}),
        json!({"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}}),
        json!({"x5u": "https://keys.example.com/chain"}),
        json!({"x5c": ["AAAA"]}),
        json!({"typ": "logout+jwt"}),
        json!({"typ": "dpop+jwt"}),
        json!({"typ": "JWT "}),
        json!({"typ": 1}),
        json!({"kid": "null"}),
        json!({"kid": ""}),
        json!({"kid": 1}),
        json!({"kid": "k".repeat(257)}),
        // Without one, it would be a token of this API.
        json!({"kid": null}),
        json!({"kid": "unknown"}),
    ]
}

/// Changes of the claims.
fn claims(now: i64) -> Vec<Value> {
    vec![
        json!({"iss": null}),
        json!({"iss": "https://another.example.com"}),
        json!({"iss": ["$issuer"]}),
        json!({"iss": "$issuer/"}),
        json!({"aud": null}),
        json!({"aud": []}),
        json!({"aud": "another service"}),
        json!({"aud": ["another service"]}),
        json!({"aud": {"any": AUDIENCE}}),
        json!({"aud": AUDIENCE.to_uppercase()}),
        json!({"exp": null}),
        json!({"exp": now - 35}),
        json!({"exp": "never"}),
        json!({"exp": 1e300}),
        json!({"exp": now + 400 * 86400}),
        json!({"iat": null}),
        json!({"iat": now + 60}),
        json!({"iat": "now"}),
        json!({"nbf": now + 60}),
        json!({"nbf": "now"}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 1}),
        json!({"sub": "a\u{7}b"}),
        json!({"sub": "s".repeat(256)}),
        json!({"image": "i".repeat(9000)}),
    ]
}

async fn rejected(app: &App, token: &str, why: &Value) {
    let answer = me(app, token).await;
    assert_eq!(answer.status, 401, "{why}: {answer}");
    answer.problem(401, "unauthorized");
}

on_every_target! {
    async fn each_forged_token_is_rejected(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[]).await;
        let header = issuer.header().await;
        let good = issuer.claims("ann");
        // The claims of all forgeries: another subject, so that none is recalled.
        let forged = issuer.claims("eve");
        me(&app, &issuer.sign(&header, &good).await).await.expect(200);
        for change in headers() {
            let token = issuer.sign(&with(&header, &change), &forged).await;
            rejected(&app, &token, &change).await;
        }
        for change in claims(now()) {
            let text = change.to_string().replace("$issuer", &issuer.issuer());
            let change = serde_json::from_str(&text).expect("JSON");
            let token = issuer.sign(&header, &with(&forged, &change)).await;
            rejected(&app, &token, &change).await;
        }
        let token = issuer.sign(&header, &forged).await;
        let [head, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("{token}")
        };
        let admin = BASE64_URL_SAFE_NO_PAD.encode(with(&forged, &json!({"sub": "admin"})).to_string());
        for text in [
            format!("{head}.{payload}"),
            format!("{head}.{payload}."),
            format!("{head}.{payload}.{signature}."),
            format!("{head}.{payload}.{signature}="),
            format!("{head}.{admin}.{signature}"),
            format!("{head}..{signature}"),
            format!("{head}.{payload}.{}", "A".repeat(signature.len())),
        ] {
            rejected(&app, &text, &json!(text)).await;
        }
        // Nothing was wrong but for the changes, and none has made a user.
        me(&app, &token).await.expect(200);
        let users = "SELECT count(*) FROM users";
        assert_eq!(todo_tests::count_rows(app.database_url(), users).await, 2);
    }

    async fn a_published_secret_key_signs_nothing(target) {
        let issuer = BetterAuth::start().await;
        issuer.serve_keys("oct").await;
        let app = issuer.app(target, &[]).await;
        // The other keys of the set are good.
        let id = user_id(&app, &issuer.token_of("ann").await).await;
        let key = issuer.header().await["kid"].clone();
        for kid in [json!("oct"), key] {
            let header = json!({"alg": "HS256", "kid": kid});
            let token = issuer.sign(&header, &issuer.claims("ann")).await;
            rejected(&app, &token, &header).await;
        }
        assert_eq!(user_id(&app, &issuer.token_of("ann").await).await, id);
    }

    async fn keys_for_another_use_sign_nothing(target) {
        let issuer = BetterAuth::start().await;
        let key = issuer.keys().await["keys"][0].clone();
        let token = issuer.token_of("ann").await;
        for change in [
            json!({"use": "enc"}),
            json!({"key_ops": ["sign"]}),
            json!({"alg": "ES256"}),
            json!({"crv": "P-256"}),
            json!({"kty": "EC"}),
            json!({"kid": 1}),
            json!({"d": "AAAA"}),
        ] {
            issuer.serve_keys_as(json!({"keys": [with(&key, &change)]})).await;
            let app = issuer.app(target, &[]).await;
            rejected(&app, &token, &change).await;
        }
        // Others in the set do not spoil it.
        let odd = json!([1, {"kty": "AKP", "kid": "new"}, with(&key, &json!({"kid": 1, "x5c": 1})), key]);
        issuer.serve_keys_as(json!({"keys": odd})).await;
        let app = issuer.app(target, &[]).await;
        me(&app, &token).await.expect(200);
    }

    async fn an_algorithm_that_is_not_set_is_rejected(target) {
        let issuer = BetterAuth::shared().await;
        let app = issuer.app(target, &[("AUTH_ALGORITHMS", "ES256,RS256")]).await;
        rejected(&app, &issuer.token_of("ann").await, &json!("EdDSA")).await;
    }
}
