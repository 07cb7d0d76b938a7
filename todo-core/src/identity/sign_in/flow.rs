//! A sign-in that is under way at a provider. Nothing is stored: the browser keeps it, sealed, and
//! the secrets that the provider receives are derived from its id.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::crypto::tokens::{SealingKey, Tokens};

/// How long a user may take at the provider.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);
/// How long a client may take to complete the addition of an identity.
const LINK_CODE_LIFETIME: TimeDelta = TimeDelta::minutes(1);
/// Length of the context of a seal, as of a list's cursor: contexts of one length are unambiguous.
const CONTEXT_BYTES: usize = 19;

/// A sign-in, or the addition of an identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    id: Uuid,
    /// The name of the provider.
    pub(crate) provider: String,
    /// The address of the app to return to.
    pub(crate) redirect_uri: String,
    /// The app's `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    pub(crate) link: FlowLink,
    /// In seconds since the Unix epoch.
    expires_at: i64,
}

/// What the end of a flow does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FlowLink {
    /// Signs in, for the app with this PKCE challenge.
    SignIn(String),
    /// Adds the identity to the account of this user.
    AddTo(Uuid),
}

/// The secrets of a flow for its provider.
pub(crate) struct FlowSecrets {
    /// The PKCE verifier (RFC 7636, section 4.1).
    pub(crate) verifier: String,
    /// The nonce of the ID token (OpenID Connect Core 1.0, section 3.1.2.1).
    pub(crate) nonce: String,
}

/// The `state` of a provider's redirect, once its seal is verified.
pub(crate) enum CallbackState {
    /// Of a sign-in: the id of the flow, which the browser's cookie has.
    SignIn(Uuid),
    /// Of the addition of an identity.
    AddIdentity(Flow),
}

/// A provider's code for the addition of an identity. Whoever sees it has no use for it: the
/// provider accepts the code with this installation's secrets only, and this installation accepts
/// it from the flow's user only.
#[derive(Serialize, Deserialize)]
pub(crate) struct LinkCode {
    /// The `state` of the flow.
    state: String,
    /// The provider's code.
    pub(crate) code: String,
    /// In seconds since the Unix epoch.
    expires_at: i64,
}

impl Flow {
    /// A flow that begins at `now`.
    pub(crate) fn new(
        id: Uuid,
        provider: &str,
        redirect_uri: &str,
        state: Option<&str>,
        link: FlowLink,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            provider: provider.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            state: state.map(str::to_owned),
            link,
            expires_at: (now + LIFETIME).timestamp(),
        }
    }

    /// The `state` for the provider: of a sign-in, the sealed id; else the sealed flow.
    pub(crate) fn provider_state(&self, tokens: &Tokens) -> String {
        match self.link {
            FlowLink::SignIn(_) => tokens.seal(self.id.as_bytes(), &context("state")),
            FlowLink::AddTo(_) => self.seal(tokens, "link state"),
        }
    }

    /// The value of the cookie of a sign-in: letters, digits, `-` and `_`.
    pub(crate) fn cookie(&self, tokens: &Tokens) -> String {
        self.seal(tokens, "cookie")
    }

    /// The secrets, by the key of new seals.
    pub(crate) fn secrets(&self, tokens: &Tokens) -> Option<FlowSecrets> {
        tokens.sealing_key().map(|key| FlowSecrets::of(self.id, key))
    }

    /// The flow of a cookie, unless it has expired, if `id` is its id.
    pub(crate) fn open_cookie(
        tokens: &Tokens,
        cookie: &str,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Option<(Self, FlowSecrets)> {
        let opened = Self::open(tokens, cookie, "cookie", now)?;
        (opened.0.id == id && matches!(opened.0.link, FlowLink::SignIn(_))).then_some(opened)
    }

    fn seal(&self, tokens: &Tokens, name: &str) -> String {
        seal_json(tokens, self, name)
    }

    fn open(
        tokens: &Tokens,
        sealed: &str,
        name: &str,
        now: DateTime<Utc>,
    ) -> Option<(Self, FlowSecrets)> {
        let (key, payload) = tokens.unseal_with_key(sealed, &context(name))?;
        let flow: Self = serde_json::from_slice(&payload).ok()?;
        let secrets = FlowSecrets::of(flow.id, key);
        (flow.expires_at > now.timestamp()).then_some((flow, secrets))
    }
}

impl FlowSecrets {
    fn of(flow: Uuid, key: SealingKey<'_>) -> Self {
        let secret =
            |name| BASE64_URL_SAFE_NO_PAD.encode(key.derive(flow.as_bytes(), &context(name)));
        Self { verifier: secret("pkce"), nonce: secret("nonce") }
    }
}

impl CallbackState {
    /// The `state` of a redirect, if this installation has sealed it and it has not expired.
    pub(crate) fn open(tokens: &Tokens, state: &str, now: DateTime<Utc>) -> Option<Self> {
        if let Some(id) = tokens.unseal(state, &context("state")) {
            return Uuid::from_slice(&id).ok().map(Self::SignIn);
        }
        Flow::open(tokens, state, "link state", now).map(|(flow, _)| Self::AddIdentity(flow))
    }
}

impl LinkCode {
    /// Seals a provider's code with the `state` of its flow.
    pub(crate) fn seal(tokens: &Tokens, state: &str, code: &str, now: DateTime<Utc>) -> String {
        let code = Self {
            state: state.to_owned(),
            code: code.to_owned(),
            expires_at: (now + LINK_CODE_LIFETIME).timestamp(),
        };
        seal_json(tokens, &code, "link code")
    }

    /// The code, with its flow, unless it has expired.
    pub(crate) fn open(
        tokens: &Tokens,
        sealed: &str,
        now: DateTime<Utc>,
    ) -> Option<(Self, Flow, FlowSecrets)> {
        let code: Self = open_json(tokens, sealed, "link code")?;
        if code.expires_at <= now.timestamp() {
            return None;
        }
        let (flow, secrets) = Flow::open(tokens, &code.state, "link state", now)?;
        Some((code, flow, secrets))
    }
}

/// The code for the app at the end of a sign-in: the sealed id of its row.
pub(crate) fn seal_code(tokens: &Tokens, id: Uuid) -> String {
    tokens.seal(id.as_bytes(), &context("code"))
}

/// The id of a code of [`seal_code`].
pub(crate) fn open_code(tokens: &Tokens, code: &str) -> Option<Uuid> {
    Uuid::from_slice(&tokens.unseal(code, &context("code"))?).ok()
}

/// The challenge of a PKCE verifier by the method `S256` (RFC 7636, section 4.2).
pub(crate) fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

fn seal_json<T: Serialize>(tokens: &Tokens, value: &T, name: &str) -> String {
    // A struct of texts and numbers is always JSON; an empty payload opens as nothing.
    tokens.seal(&serde_json::to_vec(value).unwrap_or_default(), &context(name))
}

fn open_json<T: DeserializeOwned>(tokens: &Tokens, sealed: &str, name: &str) -> Option<T> {
    serde_json::from_slice(&tokens.unseal(sealed, &context(name))?).ok()
}

fn context(name: &str) -> [u8; CONTEXT_BYTES] {
    let hash = Sha256::new().chain_update(b"todo sign-in v1 ").chain_update(name).finalize();
    let mut context = [0; CONTEXT_BYTES];
    context.copy_from_slice(&hash[..CONTEXT_BYTES]);
    context
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::tokens::test_tokens,
        secret::{Algorithm, Secret},
    };

    const NOW: DateTime<Utc> = DateTime::from_timestamp_nanos(1_800_000_000_000_000_000);

    fn flow(link: FlowLink) -> Flow {
        let id = Uuid::from_u128(7);
        Flow::new(id, "oidc", "https://app.example.com/in", Some("s"), link, NOW)
    }

    fn sign_in() -> Flow {
        flow(FlowLink::SignIn("c".repeat(43)))
    }

    #[test]
    fn a_cookie_opens_for_its_flow_until_it_expires() {
        let tokens = test_tokens();
        let flow = sign_in();
        let cookie = flow.cookie(&tokens);
        let open = |cookie: &str, id, now| Flow::open_cookie(&tokens, cookie, id, now);
        let last = NOW + TimeDelta::seconds(599);
        let (opened, secrets) = open(&cookie, flow.id, last).unwrap();
        assert_eq!(opened, flow);
        assert_eq!(secrets.verifier, flow.secrets(&tokens).unwrap().verifier);
        assert_eq!(secrets.verifier.len(), 43);
        assert_ne!(secrets.verifier, secrets.nonce);
        assert!(open(&cookie, flow.id, NOW + LIFETIME).is_none());
        assert!(open(&cookie, Uuid::from_u128(8), NOW).is_none());
        // Another flow has other secrets.
        let other = Flow { id: Uuid::from_u128(8), ..flow.clone() }.secrets(&tokens).unwrap();
        assert_ne!(other.verifier, secrets.verifier);
        assert_ne!(other.nonce, secrets.nonce);
        for at in 0..cookie.len() {
            let mut altered = cookie.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            assert!(open(&String::from_utf8(altered).unwrap(), flow.id, NOW).is_none());
        }
    }

    #[test]
    fn nothing_sealed_opens_as_something_else() {
        let tokens = test_tokens();
        let added = flow(FlowLink::AddTo(Uuid::from_u128(9)));
        let sealed = [
            sign_in().cookie(&tokens),
            sign_in().provider_state(&tokens),
            added.provider_state(&tokens),
            added.cookie(&tokens),
            LinkCode::seal(&tokens, &added.provider_state(&tokens), "code", NOW),
            seal_code(&tokens, added.id),
        ];
        let opens = |text: &str| {
            let state = CallbackState::open(&tokens, text, NOW);
            [
                Flow::open_cookie(&tokens, text, added.id, NOW).is_some(),
                matches!(state, Some(CallbackState::SignIn(_))),
                matches!(state, Some(CallbackState::AddIdentity(_))),
                // The cookie of a flow that adds an identity is never valid.
                false,
                LinkCode::open(&tokens, text, NOW).is_some(),
                open_code(&tokens, text).is_some(),
            ]
        };
        for (at, text) in sealed.iter().enumerate() {
            let expected = std::array::from_fn(|other| other == at && at != 3);
            assert_eq!(opens(text), expected, "{at}");
        }
    }

    #[test]
    fn the_code_of_an_addition_expires_before_its_flow() {
        let tokens = test_tokens();
        let added = flow(FlowLink::AddTo(Uuid::from_u128(9)));
        let code = LinkCode::seal(&tokens, &added.provider_state(&tokens), "code", NOW);
        let (opened, of, _) = LinkCode::open(&tokens, &code, NOW + TimeDelta::seconds(59)).unwrap();
        assert_eq!((&*opened.code, of), ("code", added));
        assert!(LinkCode::open(&tokens, &code, NOW + LINK_CODE_LIFETIME).is_none());
    }

    /// The provider has got the challenge of the key of then.
    #[test]
    fn a_previous_key_opens_its_flows_with_their_secrets() {
        let secret = |text: &str| Secret::new(text.repeat(40)).unwrap();
        let tokens = |new: Secret, previous: &[Secret]| {
            Tokens::new(Algorithm::Hs256, &new, previous, TimeDelta::days(7))
        };
        let before = tokens(secret("ab"), &[]);
        let after = tokens(secret("cd"), &[secret("ab")]);
        let flow = sign_in();
        let sent = flow.secrets(&before).unwrap().verifier;
        let (_, secrets) = Flow::open_cookie(&after, &flow.cookie(&before), flow.id, NOW).unwrap();
        assert_eq!(secrets.verifier, sent);
        assert_ne!(flow.secrets(&after).unwrap().verifier, sent);
    }

    /// RFC 7636, appendix B.
    #[test]
    fn a_challenge_is_the_hash_of_its_verifier() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
