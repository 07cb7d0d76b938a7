use serde_json::{Value, json};

use super::*;
use crate::identity::{
    ForeignClaims,
    test_support::{AUDIENCE, Answer, ISSUER, KEYS_URL, NOW, Setup, TestKey, claims, encode},
};

/// The object with a member set, or removed by `null`.
fn with(object: &Value, member: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[member] = value;
    object
}

fn without(object: &Value, member: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().remove(member);
    object
}

async fn reason(setup: &Setup, token: &str) -> &'static str {
    match setup.verify(token).await {
        Err(VerifyError::Rejected(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_all_algorithms_are_accepted() {
    let setup = Setup::new();
    for algorithm in SignatureAlgorithm::ALL {
        for names_algorithm in [false, true] {
            let mut key = TestKey::new(algorithm.as_str(), algorithm);
            if names_algorithm {
                key.jwk["alg"] = algorithm.as_str().into();
            }
            key.jwk["use"] = "sig".into();
            // Microsoft's have it.
            key.jwk["x5t"] = "x".into();
            let setup = Setup::new();
            setup.issuer.publish(&[&key]);
            let claims = setup.verify(&key.token()).await.unwrap();
            let expected = ForeignClaims {
                issuer: ISSUER.into(),
                subject: "u7fRY3oZqwoIxtz0thnXSHKl7n43cCYD".into(),
                issued_at: NOW,
                expires_at: NOW + 900,
                email: Some("ada@example.com".into()),
                email_verified: true,
                name: Some("Ada Lovelace".into()),
                nonce: None,
                authorized_party: None,
                has_other_audiences: false,
                key: claims.key,
            };
            assert_eq!(claims, expected);
            assert!(setup.verifier.still_has_key(&claims.key));
        }
    }
    // One that is configured away.
    let setup_es = Setup::with(|options| options.algorithms([SignatureAlgorithm::Es256]));
    assert_eq!(reason(&setup_es, &setup.key.token()).await, "algorithm not accepted");
    assert_eq!(setup_es.issuer.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn variants_of_valid_tokens_are_accepted() {
    let setup = Setup::new();
    let header = setup.key.header();
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"] {
        let token = setup.key.token_of(&with(&header, "typ", typ.into()), &claims());
        assert!(setup.verify(&token).await.is_ok(), "{typ}");
    }
    let token = setup.key.token_of(&with(&header, "x5t", "x".into()), &claims());
    assert!(setup.verify(&token).await.is_ok());
    for (member, value) in [
        ("aud", json!([AUDIENCE])),
        ("exp", json!(NOW - 29)),
        ("exp", json!(253_402_300_799_i64)),
        ("iat", json!(NOW + 30)),
        ("iat", json!(0)),
        ("iat", json!(1_794_999_999.25)),
        ("nbf", json!(NOW + 30)),
        ("sub", json!("ü".repeat(255))),
        ("email", json!(["a"])),
        ("name", json!(7)),
    ] {
        let token = setup.key.token_of(&header, &with(&claims(), member, value.clone()));
        assert!(setup.verify(&token).await.is_ok(), "{member} {value}");
    }
    let many = json!([AUDIENCE, "https://other.example.com"]);
    let token = setup.key.token_of(&header, &with(&claims(), "aud", many));
    let other = setup.verify(&token).await.unwrap();
    assert!(other.has_other_audiences);
}

#[tokio::test(start_paused = true)]
async fn only_true_is_a_verified_address() {
    let setup = Setup::new();
    let unverified = without(&claims(), "emailVerified");
    for (member, value, expected) in [
        ("email_verified", json!(true), true),
        ("emailVerified", json!(true), true),
        ("email_verified", json!("true"), false),
        ("emailVerified", json!(1), false),
        ("emailVerified", json!(false), false),
        ("x", json!(true), false),
    ] {
        let token = setup.key.token_of(&setup.key.header(), &with(&unverified, member, value));
        assert_eq!(setup.verify(&token).await.unwrap().email_verified, expected, "{member}");
    }
}

#[tokio::test(start_paused = true)]
async fn forged_claims_are_rejected() {
    let setup = Setup::new();
    let started = with(&claims(), "nbf", json!(NOW));
    let forge = |claims: Value| setup.key.token_of(&setup.key.header(), &claims);
    for (claims, expected) in [
        (without(&claims(), "iss"), "wrong issuer"),
        (with(&claims(), "iss", json!([ISSUER])), "wrong issuer"),
        (with(&claims(), "iss", json!([ISSUER, "x"])), "wrong issuer"),
        (with(&claims(), "iss", json!(format!("{ISSUER}/"))), "wrong issuer"),
        (with(&claims(), "iss", json!("")), "wrong issuer"),
        (without(&claims(), "aud"), "wrong audience"),
        (with(&claims(), "aud", json!("other")), "wrong audience"),
        (with(&claims(), "aud", json!([])), "wrong audience"),
        (with(&claims(), "aud", json!([[AUDIENCE]])), "wrong audience"),
        (with(&claims(), "aud", json!([AUDIENCE, 7])), "wrong audience"),
        (with(&claims(), "aud", json!(null)), "wrong audience"),
        (without(&claims(), "sub"), "invalid subject"),
        (with(&claims(), "sub", json!("")), "invalid subject"),
        (with(&claims(), "sub", json!(7)), "invalid subject"),
        (with(&claims(), "sub", json!("a\nb")), "invalid subject"),
        (with(&claims(), "sub", json!("a\u{0}")), "invalid subject"),
        (with(&claims(), "sub", json!("x".repeat(256))), "invalid subject"),
        (without(&claims(), "exp"), "invalid expiry"),
        (with(&claims(), "exp", json!("2099-01-01")), "invalid expiry"),
        (with(&claims(), "exp", json!(1e300)), "invalid expiry"),
        (with(&claims(), "exp", json!(253_402_300_800_i64)), "invalid expiry"),
        (with(&claims(), "exp", json!(NOW - 30)), "token expired"),
        (with(&claims(), "exp", json!(0)), "token expired"),
        (without(&claims(), "iat"), "invalid time of issue"),
        (with(&claims(), "iat", json!(-1)), "invalid time of issue"),
        (with(&claims(), "iat", json!(NOW + 31)), "token not valid yet"),
        (with(&started, "iat", json!(NOW + 31)), "token not valid yet"),
        (with(&claims(), "nbf", json!(NOW + 31)), "token not valid yet"),
        (with(&claims(), "nbf", json!(true)), "invalid start"),
        (with(&claims(), "nbf", json!(null)), "invalid start"),
        (json!([]), "malformed token"),
        (json!("x"), "malformed token"),
    ] {
        assert_eq!(reason(&setup, &forge(claims.clone())).await, expected, "{claims}");
    }
}

#[tokio::test(start_paused = true)]
async fn forged_headers_are_rejected_without_a_fetch() {
    let setup = Setup::new();
    let header = setup.key.header();
    for (header, expected) in [
        (without(&header, "kid"), "invalid key id"),
        (with(&header, "kid", json!(null)), "invalid key id"),
        (with(&header, "kid", json!(7)), "invalid key id"),
        (with(&header, "kid", json!("")), "invalid key id"),
        (with(&header, "kid", json!("x".repeat(257))), "invalid key id"),
        (with(&header, "typ", json!("logout+jwt")), "token of another type"),
        (with(&header, "typ", json!("dpop+jwt")), "token of another type"),
        (with(&header, "typ", json!("application/application/jwt")), "token of another type"),
        (with(&header, "typ", json!(null)), "token of another type"),
        (with(&header, "crit", json!([])), "header with its own key or extension"),
        (with(&header, "crit", json!(["exp"])), "header with its own key or extension"),
        (with(&header, "jku", json!(KEYS_URL)), "header with its own key or extension"),
        (with(&header, "jwk", setup.key.jwk.clone()), "header with its own key or extension"),
        (with(&header, "x5u", json!(KEYS_URL)), "header with its own key or extension"),
        (with(&header, "x5c", json!([])), "header with its own key or extension"),
        (without(&header, "alg"), "malformed token"),
        (with(&header, "alg", json!(["EdDSA"])), "malformed token"),
        (with(&header, "alg", json!("none")), "algorithm not accepted"),
        (with(&header, "alg", json!("HS256")), "algorithm not accepted"),
        (with(&header, "alg", json!("ES512")), "algorithm not accepted"),
        (with(&header, "alg", json!("eddsa")), "algorithm not accepted"),
        (json!([]), "malformed token"),
    ] {
        let token = setup.key.token_of(&header, &claims());
        assert_eq!(reason(&setup, &token).await, expected, "{header}");
    }
    let token = setup.key.token();
    for malformed in [
        "",
        ".",
        "..",
        "a.b.c",
        &format!("{token}.x"),
        &format!("{token}."),
        &format!("={token}"),
        &token[..token.rfind('.').unwrap()],
    ] {
        assert_eq!(reason(&setup, malformed).await, "malformed token", "{malformed}");
    }
    let image = with(&claims(), "image", json!("x".repeat(MAX_TOKEN_BYTES)));
    let long = setup.key.token_of(&header, &image);
    assert_eq!(reason(&setup, &long).await, "token too long");
    assert_eq!(setup.issuer.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_forged_signature_is_rejected() {
    let setup = Setup::new();
    let token = setup.key.token();
    let parts: Vec<&str> = token.split('.').collect();
    let admin = encode(with(&claims(), "sub", json!("admin")).to_string());
    for forged in [
        format!("{}.{admin}.{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], encode([0; 64])),
        format!("{token}AA"),
        TestKey::ed("first").token(),
    ] {
        assert_eq!(reason(&setup, &forged).await, "bad signature", "{forged}");
    }
    assert!(setup.verify(&token).await.is_ok());
}

/// A signature by HMAC with a value that is public, under the header's own algorithm.
fn hmac_token(kid: &str, secret: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let header = encode(json!({"alg": "HS256", "kid": kid}).to_string());
    let message = format!("{header}.{}", encode(claims().to_string()));
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", encode(mac.finalize().into_bytes()))
}

#[tokio::test(start_paused = true)]
async fn a_symmetric_key_of_the_set_verifies_nothing() {
    let setup = Setup::new();
    let oct = json!({"kty": "oct", "kid": "oct", "k": encode("public")});
    let keys = json!({"keys": [setup.key.jwk, oct]});
    setup.issuer.answer(KEYS_URL, Answer::Json(keys));
    assert!(setup.verify(&setup.key.token()).await.is_ok());
    assert_eq!(reason(&setup, &hmac_token("oct", b"public")).await, "algorithm not accepted");
    let relabelled = TestKey::ed("oct");
    assert_eq!(reason(&setup, &relabelled.token()).await, "unknown key");
    // The public key as the secret (RFC 8725, section 2.1).
    let public = BASE64_URL_SAFE_NO_PAD.decode(setup.key.jwk["x"].as_str().unwrap()).unwrap();
    assert_eq!(reason(&setup, &hmac_token("first", &public)).await, "algorithm not accepted");
}

#[tokio::test(start_paused = true)]
async fn keys_of_different_types_may_share_an_id() {
    let setup = Setup::new();
    let other = TestKey::new("first", SignatureAlgorithm::Es256);
    setup.issuer.publish(&[&setup.key, &other]);
    let first = setup.verify(&setup.key.token()).await.unwrap();
    let second = setup.verify(&other.token()).await.unwrap();
    assert_ne!(first.key, second.key);
    let rsa = TestKey::new("first", SignatureAlgorithm::Rs256);
    assert_eq!(reason(&setup, &rsa.token()).await, "key of another algorithm");
    assert_eq!(setup.issuer.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_names_an_algorithm_is_for_that_only() {
    let mut key = TestKey::new("rsa", SignatureAlgorithm::Ps256);
    key.jwk["alg"] = "RS256".into();
    let setup = Setup::new();
    setup.issuer.publish(&[&key]);
    assert_eq!(reason(&setup, &key.token()).await, "key of another algorithm");
}

#[test]
fn tokens_with_a_key_id_are_foreign() {
    let key = TestKey::ed("first");
    assert!(is_foreign(&key.token()));
    for header in [json!({"alg": "HS256", "kid": null}), json!({"kid": 7})] {
        assert!(is_foreign(&key.token_of(&header, &claims())), "{header}");
    }
    let own = key.token_of(&json!({"typ": "JWT", "alg": "HS256"}), &claims());
    let long = format!("{}.a.b", encode(format!("{{\"kid\":\"{}\"}}", "x".repeat(9_000))));
    for token in ["", "a", ".", &own, &long, &encode("[\"kid\"]"), &encode("\"kid\"")] {
        assert!(!is_foreign(token), "{token}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_logged_once_a_minute() {
    let setup = Setup::new();
    let last = || setup.verifier.logged.lock().unwrap().clone();
    for number in 0..10 {
        let header = json!({"alg": "ES512", "kid": format!("{number}")});
        reason(&setup, &setup.key.token_of(&header, &claims())).await;
    }
    let logged = last();
    assert_eq!(logged.len(), 1);
    assert_eq!(logged["algorithm not accepted"].1, 9);
    tokio::time::advance(LOG_INTERVAL).await;
    let header = json!({"alg": "ES512", "kid": "x"});
    reason(&setup, &setup.key.token_of(&header, &claims())).await;
    assert_eq!(last()["algorithm not accepted"].1, 0);
}

#[test]
fn logged_ids_are_printable_and_short() {
    assert_eq!(printable("a\n\u{1b}[31m\"\u{202e}"), "a\\n\\u{1b}[31m\\\"\\u{202e}");
    assert_eq!(printable(&"x".repeat(256)).len(), 64);
}
