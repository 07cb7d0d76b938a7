//! A real Better Auth server, `tests/better-auth/server.mjs`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::node::Node;
use crate::{App, Target, unique_email};

/// The `AUTH_AUDIENCE` of the servers under test.
pub const AUDIENCE: &str = "todo";

/// An issuer of tokens for [`AUDIENCE`].
#[derive(Debug)]
pub struct BetterAuth(Node);

/// A user of a [`BetterAuth`], signed in there.
#[derive(Clone, Debug)]
pub struct IssuerUser {
    /// The address, which nobody has confirmed.
    pub email: String,
    /// The `sub` of the user's tokens.
    pub subject: String,
    session: String,
}

impl BetterAuth {
    /// Starts one that signs with Ed25519, as by default.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> BetterAuth {
        BetterAuth::start_with(&[]).await
    }

    /// As [`BetterAuth::start`], with more arguments; those are in the first lines of `server.mjs`.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_with(arguments: &[&str]) -> BetterAuth {
        BetterAuth(Node::start("better-auth", "server.mjs", &with_audience(arguments)).await)
    }

    /// As [`BetterAuth::start`], one for all tests of this process: for those that change neither
    /// its keys nor how it serves them, since a start takes half a second.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn shared() -> BetterAuth {
        BetterAuth::shared_with(&[]).await
    }

    /// As [`BetterAuth::shared`], with more arguments.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn shared_with(arguments: &[&str]) -> BetterAuth {
        BetterAuth(Node::shared("better-auth", "server.mjs", with_audience(arguments)).await)
    }

    /// Its issuer, without a slash at the end.
    pub fn issuer(&self) -> String {
        self.0.url()
    }

    /// Starts a server that accepts its tokens.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn app(&self, target: Target, more: &[(&str, &str)]) -> App {
        let issuer = self.issuer();
        let settings = [("AUTH_ISSUER", &*issuer), ("AUTH_AUDIENCE", AUDIENCE)];
        App::start_with(target, &[&settings[..], more].concat()).await
    }

    /// A new user, by its public sign-up.
    pub async fn sign_up(&self) -> IssuerUser {
        self.sign_up_as(&unique_email()).await
    }

    /// As [`BetterAuth::sign_up`], with this address.
    pub async fn sign_up_as(&self, email: &str) -> IssuerUser {
        let body = json!({ "email": email, "password": "Correct1horse", "name": "Ada Lovelace" });
        let origin = self.issuer();
        let headers = [("content-type", "application/json"), ("origin", &*origin)];
        let path = "/api/auth/sign-up/email";
        let user = self.0.client.send("POST", path, &headers, body.to_string()).await.expect(200);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let subject = text(&user["user"]["id"]);
        IssuerUser { email: email.to_owned(), subject, session: text(&user["token"]) }
    }

    /// Marks the user's address as confirmed.
    pub async fn confirm(&self, user: &IssuerUser) {
        let body = json!({ "email": user.email });
        self.0.client.post("/control/verify", body).await.expect(200);
    }

    /// A token of the user, by its public route.
    pub async fn token(&self, user: &IssuerUser) -> String {
        let token = self.0.client.bearing(&user.session).get("/api/auth/token").await.expect(200);
        token["token"].as_str().expect("a token").to_owned()
    }

    /// Signs the user out there; returns the status of a further request for a token.
    pub async fn sign_out(&self, user: &IssuerUser) -> u16 {
        let client = self.0.client.bearing(&user.session);
        let origin = self.issuer();
        let headers = [("content-type", "application/json"), ("origin", &*origin)];
        client.send("POST", "/api/auth/sign-out", &headers, "{}").await.expect(200);
        client.get("/api/auth/token").await.status
    }

    /// The header of its tokens.
    pub async fn header(&self) -> Value {
        self.0.client.get("/control/key").await.expect(200)
    }

    /// The claims of a good token of `subject`, issued now.
    pub fn claims(&self, subject: &str) -> Value {
        let now = now();
        json!({
            "iss": self.issuer(), "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 900,
        })
    }

    /// Signs exactly this header and these claims under its current key; for the algorithm `HS256`,
    /// with the key of the mode `oct` of [`BetterAuth::serve_keys`]; for `none`, not at all.
    pub async fn sign(&self, header: &Value, claims: &Value) -> String {
        let secret = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s";
        let body = json!({ "header": header, "claims": claims, "secret": secret });
        let signed = self.0.client.post("/control/sign", body).await.expect(200);
        signed["token"].as_str().expect("a token").to_owned()
    }

    /// A token of `subject`, issued now.
    pub async fn token_of(&self, subject: &str) -> String {
        self.sign(&self.header().await, &self.claims(subject)).await
    }

    /// Serves its key set in another mode: `normal`, `empty`, `error`, `html`, `oct` (an HMAC key
    /// among the others), `redirect`, `huge`, `slow` (never ends) or `cut`.
    pub async fn serve_keys(&self, mode: &str) {
        self.0.client.post("/control/jwks", json!({ "mode": mode })).await.expect(200);
    }

    /// Serves this as its key set.
    pub async fn serve_keys_as(&self, body: Value) {
        let body = json!({ "mode": "given", "body": body });
        self.0.client.post("/control/jwks", body).await.expect(200);
    }

    /// Its true key set.
    pub async fn keys(&self) -> Value {
        self.0.client.get("/control/keys").await.expect(200)
    }

    /// Makes a new key with the next token.
    pub async fn rotate(&self) {
        self.0.client.post("/control/rotate", json!({})).await.expect(200);
    }

    /// The number of requests for its key set.
    pub async fn fetches(&self) -> u64 {
        self.0.requests().await.get("/api/auth/jwks").copied().unwrap_or(0)
    }

    /// Stops the process: connections open, and nothing is answered.
    pub fn freeze(&self) {
        self.0.freeze();
    }

    /// Continues after [`BetterAuth::freeze`].
    pub fn thaw(&self) {
        self.0.thaw();
    }
}

fn with_audience(arguments: &[&str]) -> Vec<String> {
    let mut all = vec![format!("--audience={AUDIENCE}")];
    all.extend(arguments.iter().map(ToString::to_string));
    all
}

/// Now, in seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("a date")
}
