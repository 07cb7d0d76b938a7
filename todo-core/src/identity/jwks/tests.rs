use serde_json::json;

use super::*;
use crate::identity::test_support::{TestKey, encode};

fn parse(keys: &Value) -> KeySet {
    KeySet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

/// The reason why this one key is not used.
fn reason(jwk: &Value) -> &'static str {
    let good = TestKey::ed("good");
    let set = parse(&json!([jwk, good.jwk]));
    assert_eq!(set.len(), 1, "one bad key spoils the set: {jwk}");
    set.unused[0].reason
}

#[test]
fn bad_keys_are_not_used_and_do_not_spoil_the_set() {
    use SignatureAlgorithm::{EdDsa, Es256, Rs256};
    let ed = TestKey::new("a", EdDsa).jwk;
    let ec = TestKey::new("a", Es256).jwk;
    let rsa = TestKey::new("a", Rs256).jwk;
    let set = |key: &Value, member: &str, value: Value| {
        let mut key = key.clone();
        key[member] = value;
        key
    };
    for (key, expected) in [
        (json!(7), "no object"),
        (json!(null), "no object"),
        (json!({}), "without an id"),
        (set(&ed, "kid", json!(7)), "without an id"),
        (set(&ed, "kid", json!("")), "an id that is empty or too long"),
        (set(&ed, "kid", json!("x".repeat(257))), "an id that is empty or too long"),
        (json!({"kty": "oct", "kid": "a", "k": "AAAA"}), "a private or secret key"),
        (set(&ed, "d", json!("AAAA")), "a private or secret key"),
        (set(&rsa, "p", json!("AAAA")), "a private or secret key"),
        (json!({"kty": "oct", "kid": "a"}), "another type or curve"),
        (set(&ed, "kty", json!("new")), "another type or curve"),
        (set(&ed, "crv", json!("X25519")), "another type or curve"),
        (set(&ed, "crv", json!("P-256")), "another type or curve"),
        (set(&ed, "crv", json!("Ed448")), "another type or curve"),
        (set(&ec, "crv", json!("P-521")), "another type or curve"),
        (set(&ec, "crv", json!("Ed25519")), "another type or curve"),
        (set(&ec, "crv", json!("P-384")), "malformed"),
        (set(&ed, "use", json!("enc")), "for another use"),
        (set(&ed, "use", json!(null)), "for another use"),
        (set(&ed, "key_ops", json!(["sign"])), "for another use"),
        (set(&ed, "key_ops", json!("verify")), "for another use"),
        (set(&ed, "alg", json!("HS256")), "for another algorithm"),
        (set(&ed, "alg", json!("ES256")), "for another algorithm"),
        (set(&rsa, "alg", json!("RS512")), "for another algorithm"),
        (set(&rsa, "alg", json!(7)), "for another algorithm"),
        (set(&ed, "x", json!("AAAA")), "malformed"),
        (set(&ed, "x", json!("!")), "malformed"),
        (set(&ed, "x", json!(7)), "malformed"),
        (set(&ec, "y", json!(null)), "malformed"),
        (set(&rsa, "n", json!(encode([255; 128]))), "of less than 2048 or more than 8192 bits"),
        (set(&rsa, "n", json!(encode([255; 1025]))), "of less than 2048 or more than 8192 bits"),
        (
            set(&rsa, "n", json!(encode([vec![0; 200], vec![255; 128]].concat()))),
            "of less than 2048 or more than 8192 bits",
        ),
    ] {
        assert_eq!(reason(&key), expected, "{key}");
    }
}

#[test]
fn members_that_are_not_needed_are_not_read() {
    let mut key = TestKey::ed("a").jwk;
    for member in ["x5c", "x5t", "x5u", "nbf", "ext"] {
        key[member] = json!({"of": ["any", "type"]});
    }
    key["key_ops"] = json!(["verify", "new", 7]);
    assert_eq!(parse(&json!([key])).len(), 1);
}

#[test]
fn a_set_is_bounded() {
    let key = TestKey::ed("a").jwk;
    let keys: Vec<Value> = (0..102)
        .map(|number| {
            let mut key = key.clone();
            key["kid"] = number.to_string().into();
            key
        })
        .collect();
    let set = parse(&json!(keys));
    assert_eq!(set.len(), MAX_KEYS);
    assert_eq!(set.unused[0].reason, "one of more than 100 keys");
    assert!(matches!(set.candidates("100", SignatureAlgorithm::EdDsa), Candidates::Unknown));

    let large = json!({"keys": [], "x": "x".repeat(MAX_SET_BYTES)}).to_string();
    assert!(KeySet::parse(large.as_bytes()).is_err());
    for other in
        ["", "{}", "[]", "null", "<html>", "{\"keys\":{}}", "{\"keys\":null}", "{\"keys\":[]"]
    {
        assert!(KeySet::parse(other.as_bytes()).is_err(), "{other}");
    }
    assert_eq!(KeySet::parse(b"{\"keys\":[]}").unwrap().len(), 0);
}

#[test]
fn the_identity_of_a_key_is_its_id_and_value() {
    let id = |jwk: &Value| {
        let set = parse(&json!([jwk]));
        *set.ids.iter().next().unwrap()
    };
    let one = TestKey::ed("a").jwk;
    let mut renamed = one.clone();
    renamed["kid"] = "b".into();
    let mut described = one.clone();
    described["use"] = "sig".into();
    described["alg"] = "EdDSA".into();
    assert_eq!(id(&one), id(&described));
    assert_ne!(id(&one), id(&renamed));
    assert_ne!(id(&one), id(&TestKey::ed("a").jwk));
}
