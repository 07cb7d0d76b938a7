//! An issuer for tests: keys that are generated when they are needed, tokens of any header and
//! claims, and a scripted HTTP client.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
        RsaPublicKeyComponents,
    },
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{
    ForeignClaims, HttpClient, HttpError, HttpFuture, HttpRequest, HttpResponse, IssuerOptions,
    SignatureAlgorithm, Verifier, VerifyError,
};
use crate::clock::Clock;

pub(super) const ISSUER: &str = "https://login.example.com";
pub(super) const AUDIENCE: &str = "https://todo.example.com";
pub(super) const KEYS_URL: &str = "https://login.example.com/keys";

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A key of an issuer.
pub(super) struct TestKey {
    pub(super) kid: String,
    algorithm: &'static str,
    /// The public key.
    pub(super) jwk: Value,
    sign: Sign,
}

impl TestKey {
    pub(super) fn new(kid: &str, algorithm: SignatureAlgorithm) -> Self {
        use SignatureAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256};
        let (mut jwk, sign): (Value, Sign) = match algorithm {
            EdDsa => {
                let pair = Ed25519KeyPair::generate().unwrap();
                let x = encode(pair.public_key());
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
                (jwk, Box::new(move |message| pair.sign(message).as_ref().to_vec()))
            }
            Es256 | Es384 => {
                let (curve, scheme) = match algorithm {
                    Es256 => ("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
                    _ => ("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
                };
                let pair = EcdsaKeyPair::generate(scheme).unwrap();
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let jwk = json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)});
                let sign = move |message: &[u8]| {
                    pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
                };
                (jwk, Box::new(sign))
            }
            Rs256 | Ps256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let jwk = json!({"kty": "RSA", "n": encode(&public.n), "e": encode(&public.e)});
                let padding = if algorithm == Rs256 { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
                let sign = move |message: &[u8]| {
                    let mut signature = vec![0; pair.public_modulus_len()];
                    pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
                    signature
                };
                (jwk, Box::new(sign))
            }
        };
        jwk["kid"] = kid.into();
        Self { kid: kid.to_owned(), algorithm: algorithm.as_str(), jwk, sign }
    }

    pub(super) fn ed(kid: &str) -> Self {
        Self::new(kid, SignatureAlgorithm::EdDsa)
    }

    /// The header of this key's tokens.
    pub(super) fn header(&self) -> Value {
        json!({"alg": self.algorithm, "kid": self.kid})
    }

    /// Signs a token of this header and these claims, whatever they are.
    pub(super) fn token_of(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = encode((self.sign)(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A valid token.
    pub(super) fn token(&self) -> String {
        self.token_of(&self.header(), &claims())
    }
}

/// The time of the tests, in seconds since the Unix epoch.
pub(super) const NOW: i64 = 1_795_000_000;

/// The claims of a valid token, as Better Auth makes them.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "u7fRY3oZqwoIxtz0thnXSHKl7n43cCYD",
        "iat": NOW, "exp": NOW + 900, "email": "ada@example.com", "emailVerified": true,
        "name": "Ada Lovelace", "image": null,
    })
}

/// What the issuer answers.
#[derive(Clone)]
pub(super) enum Answer {
    Json(Value),
    Raw(u16, Vec<u8>),
    /// The connection is refused or cut.
    Error,
    /// The client panics.
    Panic,
    /// There is no answer.
    Never,
}

impl Answer {
    pub(super) fn keys(keys: &[&TestKey]) -> Self {
        Self::Json(json!({"keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>()}))
    }
}

/// A scripted issuer. It answers requests of an address with the answer for that, or with a 404.
pub(super) struct FakeIssuer(Mutex<Script>);

struct Script {
    answers: Vec<(String, Answer)>,
    delay: Duration,
    requests: Vec<String>,
}

impl FakeIssuer {
    pub(super) fn new() -> Arc<Self> {
        let script = Script { answers: Vec::new(), delay: Duration::ZERO, requests: Vec::new() };
        Arc::new(Self(Mutex::new(script)))
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer(&self, url: &str, answer: Answer) {
        let mut script = self.script();
        script.answers.retain(|(known, _)| known != url);
        script.answers.push((url.to_owned(), answer));
    }

    /// Sets the answer at [`KEYS_URL`].
    pub(super) fn publish(&self, keys: &[&TestKey]) {
        self.answer(KEYS_URL, Answer::keys(keys));
    }

    /// Answers, as they are at the beginning of this time, arrive after it.
    pub(super) fn delay(&self, delay: Duration) {
        self.script().delay = delay;
    }

    /// The addresses of all requests.
    pub(super) fn requests(&self) -> Vec<String> {
        self.script().requests.clone()
    }

    pub(super) fn fetches(&self) -> usize {
        self.script().requests.len()
    }

    async fn respond(&self, url: &str) -> Result<HttpResponse, HttpError> {
        let (answer, delay) = {
            let mut script = self.script();
            script.requests.push(url.to_owned());
            let answer = script.answers.iter().find(|(known, _)| known == url);
            (answer.map(|(_, answer)| answer.clone()), script.delay)
        };
        tokio::time::sleep(delay).await;
        match answer {
            None => Ok(HttpResponse::new(404, "no such page")),
            Some(Answer::Json(json)) => Ok(HttpResponse::new(200, json.to_string())),
            Some(Answer::Raw(status, body)) => Ok(HttpResponse::new(status, body)),
            Some(Answer::Error) => Err(HttpError::new("connection reset")),
            Some(Answer::Panic) => panic!("a panic of the client"),
            Some(Answer::Never) => std::future::pending().await,
        }
    }
}

impl HttpClient for FakeIssuer {
    fn send(&self, request: HttpRequest, _max_body: usize) -> HttpFuture<'_> {
        Box::pin(async move { self.respond(request.url()).await })
    }
}

/// A clock that a test sets.
#[derive(Clone)]
pub(super) struct SetClock(Arc<Mutex<DateTime<Utc>>>);

impl SetClock {
    pub(super) fn add(&self, difference: TimeDelta) {
        *self.0.lock().unwrap() += difference;
    }
}

/// An issuer with one key, and a verifier of its tokens.
pub(super) struct Setup {
    pub(super) issuer: Arc<FakeIssuer>,
    pub(super) key: TestKey,
    pub(super) clock: SetClock,
    pub(super) verifier: Arc<Verifier>,
}

impl Setup {
    pub(super) fn new() -> Self {
        Self::with(|options| options)
    }

    pub(super) fn with(configure: impl FnOnce(IssuerOptions) -> IssuerOptions) -> Self {
        let options = IssuerOptions::new(ISSUER, AUDIENCE).unwrap().jwks_url(KEYS_URL).unwrap();
        Self::of(&configure(options))
    }

    pub(super) fn of(options: &IssuerOptions) -> Self {
        let issuer = FakeIssuer::new();
        let key = TestKey::ed("first");
        issuer.publish(&[&key]);
        let clock = SetClock(Arc::new(Mutex::new(DateTime::from_timestamp(NOW, 0).unwrap())));
        let time = Arc::clone(&clock.0);
        let now = Clock::from_fn(move || *time.lock().unwrap());
        let client: Arc<dyn HttpClient> = issuer.clone();
        let verifier = Arc::new(Verifier::new(options, client, now));
        Self { issuer, key, clock, verifier }
    }

    pub(super) async fn verify(&self, token: &str) -> Result<ForeignClaims, VerifyError> {
        self.verifier.verify(token).await
    }

    /// Verifies a token in a task.
    pub(super) fn spawn_verify(
        &self,
        token: String,
    ) -> tokio::task::JoinHandle<Result<ForeignClaims, VerifyError>> {
        let verifier = Arc::clone(&self.verifier);
        tokio::spawn(async move { verifier.verify(&token).await })
    }
}
