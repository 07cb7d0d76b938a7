//! A forge signs variants of a valid token: with another header, with other claims, malformed ones.

use std::collections::BTreeMap;

use base64::{
    Engine,
    prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD as BASE64},
};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};
use uuid::Uuid;

use todo_tests::{Actor, App};

use super::OTHER_SECRET;

/// The decoded JSON of a part: 0 is the header, 1 the claims.
pub(super) fn part(token: &str, index: usize) -> Value {
    let encoded = token.split('.').nth(index).expect("a part");
    serde_json::from_slice(&BASE64.decode(encoded).expect("base64url")).expect("JSON")
}

fn signature(algorithm: &str, secret: &[u8], message: &str) -> String {
    macro_rules! hmac {
        ($hash:ty) => {{
            let mut mac = Hmac::<$hash>::new_from_slice(secret).expect("a key of any length");
            mac.update(message.as_bytes());
            BASE64.encode(mac.finalize().into_bytes())
        }};
    }
    match algorithm {
        "HS384" => hmac!(Sha384),
        "HS512" => hmac!(Sha512),
        _ => hmac!(Sha256),
    }
}

/// A token with this header and claims, signed with the header's HMAC algorithm, else with HS256.
pub(super) fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let encode = |part: &Value| BASE64.encode(part.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let algorithm = header["alg"].as_str().unwrap_or_default();
    format!("{message}.{}", signature(algorithm, secret.as_bytes(), &message))
}

pub(super) fn with(object: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut object = object.clone();
    object[name] = value.into();
    object
}

fn without(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object.as_object_mut().expect("an object").remove(name);
    object
}

/// The parts of a valid token, and the key to sign variants of it.
pub(super) struct Forge {
    pub(super) header: Value,
    pub(super) claims: Value,
    pub(super) secret: String,
    pub(super) valid: String,
}

impl Forge {
    pub(super) fn of(app: &App, actor: &Actor) -> Forge {
        let valid = actor.token().to_owned();
        let (header, claims) = (part(&valid, 0), part(&valid, 1));
        Forge { header, claims, secret: app.secret().to_owned(), valid }
    }

    pub(super) fn header(&self, name: &str, value: impl Into<Value>) -> String {
        signed(&with(&self.header, name, value), &self.claims, &self.secret)
    }

    pub(super) fn claim(&self, name: &str, value: impl Into<Value>) -> String {
        signed(&self.header, &with(&self.claims, name, value), &self.secret)
    }

    fn no_claim(&self, name: &str) -> String {
        signed(&self.header, &without(&self.claims, name), &self.secret)
    }

    fn no_header(&self, name: &str) -> String {
        signed(&without(&self.header, name), &self.claims, &self.secret)
    }

    fn parts(&self) -> [&str; 3] {
        let parts: Vec<&str> = self.valid.split('.').collect();
        parts.try_into().expect("three parts")
    }

    /// Tokens with another header or another signature.
    pub(super) fn headers(&self) -> BTreeMap<String, String> {
        let [_, claims, mac] = self.parts();
        let mut tokens = BTreeMap::new();
        let mut add = |name: &str, token: String| tokens.insert(name.to_owned(), token);
        for none in ["none", "None", "NONE", "nOnE"] {
            let unsigned = BASE64.encode(with(&self.header, "alg", none).to_string());
            add(&format!("alg {none}, no signature"), format!("{unsigned}.{claims}."));
            add(&format!("alg {none}, the old signature"), format!("{unsigned}.{claims}.{mac}"));
            add(&format!("alg {none}, signed"), self.header("alg", none));
        }
        for other in ["HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256", "HS-256", ""] {
            add(&format!("alg {other}"), self.header("alg", other));
        }
        add("alg null", self.header("alg", Value::Null));
        add("alg a list", self.header("alg", json!(["HS256"])));
        add("no alg", self.no_header("alg"));
        add("another key", signed(&self.header, &self.claims, OTHER_SECRET));
        add("an empty key", signed(&self.header, &self.claims, ""));
        add("the key cut", signed(&self.header, &self.claims, &self.secret[..32]));
        add("a key one would guess", signed(&self.header, &self.claims, "secret"));
        let jwk = json!({ "kty": "oct", "k": BASE64.encode(OTHER_SECRET) });
        let header = with(&self.header, "jwk", jwk);
        add("jwk with its own key", signed(&header, &self.claims, OTHER_SECRET));
        for kid in ["../../../../dev/null", "' UNION SELECT ''; --"] {
            let header = with(&self.header, "kid", kid);
            add(&format!("kid {kid}, empty key"), signed(&header, &self.claims, ""));
        }
        add("kid, which our tokens do not have", self.header("kid", "1"));
        let header = with(&self.header, "jku", "https://example.com/jwks.json");
        add("jku and another key", signed(&header, &self.claims, OTHER_SECRET));
        let header = with(&self.header, "x5u", "https://example.com/cert.pem");
        add("x5u and another key", signed(&header, &self.claims, OTHER_SECRET));
        add("crit unknown", self.header("crit", json!(["exp-policy"])));
        let b64 = with(&with(&self.header, "crit", json!(["b64"])), "b64", false);
        add("crit b64", signed(&b64, &self.claims, &self.secret));
        for typ in ["JOSE", "at+jwt", "JWE", "text", ""] {
            add(&format!("typ {typ}"), self.header("typ", typ));
        }
        add("header a list", signed(&json!([]), &self.claims, &self.secret));
        tokens
    }

    /// Tokens with a valid signature over invalid claims.
    pub(super) fn claims(&self) -> BTreeMap<String, String> {
        let now = Utc::now().timestamp();
        let mut tokens = BTreeMap::new();
        let mut add = |name: &str, token: String| tokens.insert(name.to_owned(), token);
        for name in ["exp", "sub", "user_id", "jti", "iss", "aud"] {
            add(&format!("no {name}"), self.no_claim(name));
            for (kind, value) in [
                ("null", Value::Null),
                ("empty", json!("")),
                ("a list", json!([])),
                ("an object", json!({})),
                ("true", json!(true)),
            ] {
                add(&format!("{name} {kind}"), self.claim(name, value));
            }
        }
        for (name, exp) in [
            ("a second ago", json!(now - 1)),
            ("a minute ago, within common leeway", json!(now - 59)),
            ("long ago", json!(1)),
            ("zero", json!(0)),
            ("negative", json!(-1)),
            ("a string", json!((now + 3600).to_string())),
            ("a date", json!("2999-01-01T00:00:00Z")),
            ("past all integers", json!(1e300)),
        ] {
            add(&format!("exp {name}"), self.claim("exp", exp));
        }
        let huge = self.claims.to_string().replacen(
            &format!("\"exp\":{}", self.claims["exp"]),
            "\"exp\":99999999999999999999999999",
            1,
        );
        let message = format!("{}.{}", self.parts()[0], BASE64.encode(huge));
        let mac = signature("HS256", self.secret.as_bytes(), &message);
        add("exp past 64 bits", format!("{message}.{mac}"));
        add("nbf in an hour", self.claim("nbf", now + 3600));
        add("nbf in thirty seconds", self.claim("nbf", now + 30));
        add("nbf a string", self.claim("nbf", "soon"));
        let unknown = Uuid::now_v7().to_string();
        let both = with(&with(&self.claims, "sub", unknown.clone()), "user_id", unknown.clone());
        add("sub of an unknown user", signed(&self.header, &both, &self.secret));
        add("sub is not user_id", self.claim("sub", unknown.clone()));
        add("user_id is not sub", self.claim("user_id", unknown.clone()));
        add("jti unknown", self.claim("jti", unknown));
        add("jti no UUID", self.claim("jti", "1"));
        add("jti SQL", self.claim("jti", "' OR '1'='1"));
        add("jti a number", self.claim("jti", 1));
        for name in ["iss", "aud"] {
            add(&format!("another {name}"), self.claim(name, "https://example.com"));
            add(&format!("{name} as a list"), self.claim(name, json!(["https://example.com"])));
        }
        for (kind, claims) in [("a list", json!([])), ("a string", json!("x")), ("{}", json!({}))] {
            add(&format!("claims {kind}"), signed(&self.header, &claims, &self.secret));
        }
        tokens
    }

    /// Malformed variants of the valid token.
    pub(super) fn malformed(&self) -> BTreeMap<String, String> {
        let [header, claims, mac] = self.parts();
        let mut tokens = BTreeMap::new();
        let mut add = |name: &str, token: String| tokens.insert(name.to_owned(), token);
        for (index, name) in ["header", "claims", "signature"].iter().enumerate() {
            for position in ["first", "middle"] {
                let mut parts = self.parts().map(|part| BASE64.decode(part).expect("base64url"));
                let at = if position == "first" { 0 } else { parts[index].len() / 2 };
                parts[index][at] ^= 1;
                let parts = parts.map(|part| BASE64.encode(part));
                add(&format!("a bit of the {name} flipped, {position} byte"), parts.join("."));
            }
        }
        add("no signature", format!("{header}.{claims}."));
        add("no signature and no dot", format!("{header}.{claims}"));
        add("header alone", header.to_owned());
        add("no header", format!(".{claims}.{mac}"));
        add("no claims", format!("{header}..{mac}"));
        add("dots alone", "..".to_owned());
        add("parts swapped", format!("{claims}.{header}.{mac}"));
        add("signature cut by one", self.valid[..self.valid.len() - 1].to_owned());
        add("signature cut by half", self.valid[..self.valid.len() - 22].to_owned());
        add("first character cut", self.valid[1..].to_owned());
        add("signature padded", format!("{}=", self.valid));
        let padded = |part| BASE64_URL_SAFE.encode(BASE64.decode(part).expect("base64url"));
        add("all parts padded", [header, claims, mac].map(padded).join("."));
        // A 256-bit signature leaves two unused bits in the last character, which must be zero.
        let last = mac.chars().last().expect("a signature");
        let table = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let twin = table.find(last).and_then(|at| table.chars().nth(at ^ 1)).expect("base64url");
        let stem = &self.valid[..self.valid.len() - 1];
        add("spare bits of the signature set", format!("{stem}{twin}"));
        add("a fourth part", format!("{}.x", self.valid));
        add("a fourth part, empty", format!("{}.", self.valid));
        add("five parts, as JWE has", format!("{}.x.y", self.valid));
        add("twice", format!("{0}{0}", self.valid));
        add("twice with a comma", format!("{0}, {0}", self.valid));
        add("a space within", format!("{header} .{claims}.{mac}"));
        add("a tab within", format!("{header}.{claims}\t.{mac}"));
        add("quoted", format!("\"{}\"", self.valid));
        add("empty", String::new());
        add("a word", "token".to_owned());
        add("null", "null".to_owned());
        add("long", "A".repeat(8000));
        add("not ASCII", format!("{}é", self.valid));
        add("percent-encoded dots", self.valid.replace('.', "%2E"));
        tokens
    }
}
