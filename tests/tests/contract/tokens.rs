//! Bearer tokens: valid ones are accepted; forged, malformed or misplaced ones are rejected.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};
use uuid::Uuid;

use todo_tests::{Actor, App, TestResponse, on_every_target};

const ME: &str = "/api/auth/me";
const OTHER_SECRET: &str = "another secret of more than thirty-two bytes for tests";

/// The decoded JSON of a part: 0 is the header, 1 the claims.
fn part(token: &str, index: usize) -> Value {
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
fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let encode = |part: &Value| BASE64.encode(part.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let algorithm = header["alg"].as_str().unwrap_or_default();
    format!("{message}.{}", signature(algorithm, secret.as_bytes(), &message))
}

fn with(object: &Value, name: &str, value: impl Into<Value>) -> Value {
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
struct Forge {
    header: Value,
    claims: Value,
    secret: String,
    valid: String,
}

impl Forge {
    fn of(app: &App, actor: &Actor) -> Forge {
        let valid = actor.token().to_owned();
        let (header, claims) = (part(&valid, 0), part(&valid, 1));
        Forge { header, claims, secret: app.secret().to_owned(), valid }
    }

    fn header(&self, name: &str, value: impl Into<Value>) -> String {
        signed(&with(&self.header, name, value), &self.claims, &self.secret)
    }

    fn claim(&self, name: &str, value: impl Into<Value>) -> String {
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
    fn headers(&self) -> BTreeMap<String, String> {
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
    fn claims(&self) -> BTreeMap<String, String> {
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
    fn malformed(&self) -> BTreeMap<String, String> {
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
