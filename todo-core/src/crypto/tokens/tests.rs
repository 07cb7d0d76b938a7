use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn signed(claims: &Value, header: &Header) -> String {
    let key = EncodingKey::from_secret(b"a test secret of more than 32 bytes");
    jsonwebtoken::encode(header, claims, &key).unwrap()
}

fn claims() -> Value {
    let user = Uuid::from_u128(1);
    json!({
        "sub": user, "user_id": user, "jti": Uuid::from_u128(2),
        "iat": 1_000, "exp": 2_000, "iss": "todo", "aud": "todo",
    })
}

#[test]
fn a_token_is_valid_until_its_last_second() {
    let tokens = test_tokens();
    let (user_id, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let expires_at = tokens.expiry(at(1_000));
    let token = tokens.sign(user_id, session, at(1_000), expires_at).unwrap();
    let last = expires_at - Duration::seconds(1);
    let verified = VerifiedToken { user_id, session, expires_at: expires_at.timestamp() };
    assert_eq!(tokens.verify(&token, last), Ok(verified));
    assert_eq!(tokens.verify(&token, expires_at), Err(TokenError::Expired(user_id)));
}

/// The cache holds the result of the signature check, for exactly that token.
#[test]
fn the_times_of_a_cached_token_are_still_checked() {
    let tokens = test_tokens();
    let (user_id, session) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let expires_at = tokens.expiry(at(1));
    let token = tokens.sign(user_id, session, at(1), expires_at).unwrap();
    let verified = VerifiedToken { user_id, session, expires_at: expires_at.timestamp() };
    for _ in 0..2 {
        assert_eq!(tokens.verify(&token, at(1)), Ok(verified));
        assert_eq!(tokens.verify(&token, expires_at), Err(TokenError::Expired(user_id)));
    }
    let cached = tokens.cache.slot(&token).unwrap().clone();
    let (signed, _) = token.rsplit_once('.').unwrap();
    for other in [format!("{signed}."), format!("{signed}.AAAA"), format!("{token}A")] {
        // On a hash collision the texts are compared.
        tokens.cache.slot(&other).unwrap().clone_from(&cached);
        assert!(tokens.verify(&other, at(1)).is_err(), "{other}");
    }
}

#[test]
fn claims_are_exact() {
    let tokens = test_tokens();
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    assert!(tokens.verify(&signed(&claims(), &header), at(1_500)).is_ok());
    let bad = [
        ("exp", json!("2000")),
        ("exp", json!(1_500)),
        ("exp", json!(-1)),
        ("exp", Value::Null),
        ("exp", json!(2000.5)),
        ("nbf", json!(1_501)),
        ("nbf", json!("0")),
        ("sub", json!(Uuid::from_u128(3))),
        ("sub", json!("")),
        ("user_id", Value::Null),
        ("jti", json!("x")),
        ("jti", Value::Null),
        ("iss", json!("other")),
        ("aud", json!("other")),
        ("aud", json!(["todo", "other"])),
        ("iat", json!("now")),
    ];
    for (name, value) in bad {
        let mut claims = claims();
        claims[name] = value.clone();
        assert_eq!(
            tokens.verify(&signed(&claims, &header), at(1_500)).ok(),
            None,
            "{name} {value}"
        );
        claims.as_object_mut().unwrap().remove(name);
        if name != "nbf" {
            let token = signed(&claims, &header);
            assert_eq!(tokens.verify(&token, at(1_500)).ok(), None, "no {name}");
        }
    }
}

#[test]
fn the_header_is_exact() {
    let tokens = test_tokens();
    let base = Header::new(jsonwebtoken::Algorithm::HS256);
    let mut headers = vec![
        Header { typ: None, ..base.clone() },
        Header { typ: Some("at+jwt".into()), ..base.clone() },
        Header { kid: Some("1".into()), ..base.clone() },
        Header { jku: Some("https://example.com".into()), ..base.clone() },
        Header { crit: Some(vec!["exp".into()]), ..base.clone() },
        Header { alg: jsonwebtoken::Algorithm::HS384, ..base.clone() },
        Header { alg: jsonwebtoken::Algorithm::HS512, ..base.clone() },
    ];
    let mut extra = base;
    extra.extras.insert("b64", false);
    headers.push(extra);
    for header in headers {
        let verified = tokens.verify(&signed(&claims(), &header), at(1_500));
        assert_eq!(verified, Err(TokenError::Header), "{header:?}");
    }
}

#[test]
fn an_error_has_the_reason() {
    let tokens = test_tokens();
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    let user = Uuid::from_u128(1);
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        tokens.verify(&signed(&claims, &header), at(1_500)).err()
    };
    assert_eq!(with("exp", json!(1_500)), Some(TokenError::Expired(user)));
    assert_eq!(with("nbf", json!(1_501)), Some(TokenError::NotYet(user)));
    assert_eq!(with("aud", json!("other")), Some(TokenError::Claims));
    assert_eq!(with("jti", json!("x")), Some(TokenError::Malformed));
    let rejected = |token: &str| tokens.verify(token, at(1_500)).err();
    let valid = signed(&claims(), &header);
    assert_eq!(rejected(&valid), None);
    let (signed_part, _) = valid.rsplit_once('.').unwrap();
    assert_eq!(rejected(&format!("{signed_part}.AAAA")), Some(TokenError::Signature));
    assert_eq!(rejected("x"), Some(TokenError::Malformed));
    assert_eq!(rejected(&"x".repeat(3000)), Some(TokenError::TooLong));
    let foreign = Header { kid: Some("1".into()), ..header.clone() };
    assert_eq!(rejected(&signed(&claims(), &foreign)), Some(TokenError::Header));
    let foreign = Header::new(jsonwebtoken::Algorithm::HS512);
    assert_eq!(rejected(&signed(&claims(), &foreign)), Some(TokenError::Header));
}

#[test]
fn a_previous_secret_still_verifies_and_unseals() {
    let old = Secret::new("the old secret, of at least 32 bytes").unwrap();
    let new = Secret::new("the new secret, of at least 32 bytes").unwrap();
    let week = Duration::days(7);
    let before = Tokens::new(Algorithm::Hs256, &old, &[], week);
    let after = Tokens::new(Algorithm::Hs256, &new, std::slice::from_ref(&old), week);
    let gone = Tokens::new(Algorithm::Hs256, &new, &[], week);
    let id = Uuid::from_u128(7);
    let token = before.sign(id, id, at(0), at(10)).unwrap();
    assert!(after.verify(&token, at(1)).is_ok() && gone.verify(&token, at(1)).is_err());
    let cursor = before.seal(b"x", b"c");
    assert!(after.unseal(&cursor, b"c").is_some() && gone.unseal(&cursor, b"c").is_none());
    let token = after.sign(id, id, at(0), at(10)).unwrap();
    assert!(before.verify(&token, at(1)).is_err(), "the new secret signs tokens");
}

proptest! {
    #[test]
    fn one_flipped_bit_is_rejected(bit in any::<prop::sample::Index>()) {
        let tokens = test_tokens();
        let mut token = tokens.sign(Uuid::from_u128(1), Uuid::from_u128(2), at(0), at(9)).unwrap().into_bytes();
        let bit = bit.index(token.len() * 7);
        token[bit / 7] ^= 1 << (bit % 7);
        let token = String::from_utf8(token).unwrap();
        prop_assert_eq!(tokens.verify(&token, at(1)).ok(), None);
    }

    #[test]
    fn noise_is_rejected(noise in "[a-zA-Z0-9_.-]{0,300}") {
        prop_assert_eq!(test_tokens().verify(&noise, at(1)).ok(), None);
    }
}
