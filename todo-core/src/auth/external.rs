//! Tokens of another issuer. The first request with one verifies it, and finds or creates its
//! identity, its user and its session, which is the hash of its issuer and its signed part. Later
//! requests with it recall what was found.

use std::{
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, TimeDelta, Utc};
use hashlink::LruCache;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    AuthEvent, Caller, Identity, SessionLabel,
    credential::Known,
    events,
    identities::{NewIds, ProvedIdentity, add_proved_identity, found_or_new, found_or_new_columns},
    known_keys::queue_of,
};
use crate::{
    core::Core,
    db::{Statement, value::Timestamp},
    error::{BoxError, Error, FieldError, Result},
    identity::{CLOCK_SKEW_SECONDS, ForeignClaims, KeyId, VerifyError},
    rate_limit::client_key,
};

/// Maximum number of tokens that are recalled; another one replaces the one that was used least
/// recently.
const MAX_TOKENS: usize = 4096;
/// Maximum lifetime of a token from now on. A longer one would outlive the memory of its logout.
const MAX_LIFETIME: TimeDelta = TimeDelta::days(366);

/// The tokens of another issuer that this process has verified, by their SHA-256.
pub(crate) struct KnownTokens {
    tokens: Mutex<LruCache<[u8; 32], KnownToken>>,
    pub(crate) verified: TokenCounters,
}

/// Verifications of tokens, by their result. Recalled tokens are not counted.
#[derive(Debug, Default)]
pub(crate) struct TokenCounters {
    accepted: AtomicU64,
    rejected: AtomicU64,
    /// The issuer did not answer.
    unavailable: AtomicU64,
}

impl TokenCounters {
    /// The numbers by the names of the results.
    #[cfg(feature = "http")]
    pub(crate) fn totals(&self) -> [(&'static str, u64); 3] {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("accepted", of(&self.accepted)),
            ("rejected", of(&self.rejected)),
            ("unavailable", of(&self.unavailable)),
        ]
    }
}

#[derive(Clone)]
struct KnownToken {
    known: Known,
    /// In seconds since the Unix epoch.
    expires_at: i64,
    /// The key of its signature.
    key: KeyId,
}

impl KnownTokens {
    pub(crate) fn new() -> Self {
        Self { tokens: Mutex::new(LruCache::new(MAX_TOKENS)), verified: TokenCounters::default() }
    }

    fn get(&self, digest: &[u8; 32]) -> Option<KnownToken> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn insert(&self, digest: [u8; 32], token: KnownToken) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, token);
    }
}

/// The caller of a token that this process has verified before, if it has not expired since and the
/// issuer still publishes its key.
pub(super) fn recall(core: &Core, token: &str) -> Option<Known> {
    let found = core.known_tokens().get(&digest(token))?;
    let has_key = core.identity().verifier.as_ref()?.still_has_key(&found.key);
    (found.expires_at > core.now().timestamp() && has_key).then_some(found.known)
}

/// Verifies a token that this process has not verified yet, and finds or creates its session.
/// `client` is the address that sent it, and `label` the program.
///
/// # Errors
/// [`Error::Unauthenticated`]; [`Error::Unavailable`] if the issuer does not answer; else
/// [`Error::Busy`], [`Error::Internal`].
pub(super) async fn first_sight(
    core: &Core,
    token: &str,
    client: Option<IpAddr>,
    label: Option<SessionLabel>,
) -> Result<Known> {
    let claims = match verify(core, token).await {
        Ok(claims) => claims,
        Err(VerifyError::Rejected(reason)) => {
            events::failed(AuthEvent::Token, client, None, reason);
            return Err(Error::Unauthenticated);
        }
        Err(VerifyError::Unavailable) => return Err(unavailable()),
    };
    // Accepted until then, as the clocks may differ.
    let end = claims.expires_at.saturating_add(CLOCK_SKEW_SECONDS);
    let now = core.now();
    let Some(expires_at) =
        DateTime::from_timestamp(end, 0).filter(|end| *end - now <= MAX_LIFETIME)
    else {
        events::failed(AuthEvent::Token, client, None, "lifetime too long");
        return Err(Error::Unauthenticated);
    };
    let session = session_of(&claims.issuer, token);
    let subject = claims.subject.clone();
    let issued_at = DateTime::from_timestamp(claims.issued_at, 0).unwrap_or(now);
    let key = claims.key;
    let sight = Sight { session, issued_at, expires_at, client, label };
    let Some(caller) = open_session(core, claims, sight).await? else {
        events::failed(AuthEvent::Token, client, None, "session ended");
        return Err(Error::Unauthenticated);
    };
    core.last_uses().record(session);
    let known = Known { caller, subject: Some(subject.into()) };
    let token_known = KnownToken { known: known.clone(), expires_at: end, key };
    core.known_tokens().insert(digest(token), token_known);
    Ok(known)
}

/// Verifies a token and counts the result.
async fn verify(core: &Core, token: &str) -> Result<ForeignClaims, VerifyError> {
    let verified = match &core.identity().verifier {
        Some(verifier) => verifier.verify(token).await,
        None => Err(VerifyError::Rejected("no issuer is configured")),
    };
    let counters = &core.known_tokens().verified;
    let counter = match &verified {
        Ok(_) => &counters.accepted,
        Err(VerifyError::Rejected(_)) => &counters.rejected,
        Err(VerifyError::Unavailable) => &counters.unavailable,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    verified
}

fn unavailable() -> Error {
    Error::Unavailable(BoxError::new("the issuer of the token does not answer"))
}

/// The first request with a token.
struct Sight {
    session: Uuid,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    client: Option<IpAddr>,
    label: Option<SessionLabel>,
}

/// Opens the session of a valid token; finds it if it is open already. `None` if it has ended, or
/// the user has ended all sessions since the token was issued.
async fn open_session(core: &Core, claims: ForeignClaims, sight: Sight) -> Result<Option<Caller>> {
    // A view, which creates what is new together. On PostgreSQL its trigger looks again for the
    // identity and the user, since another request may create them meanwhile.
    const SQL: &str = concat!(
        "INSERT INTO external_sessions (id, ",
        found_or_new_columns!(),
        ", issued_at, created_at, expires_at, label, client) SELECT $1, ",
        found_or_new!(),
        ", $12, $13, $14, $15, $16 \
         WHERE NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE id = $1) \
         AND (EXISTS (SELECT 1 FROM sessions WHERE id = $1) OR NOT EXISTS \
         (SELECT 1 FROM identities WHERE issuer = $2 AND subject = $3 AND not_before >= $12)) \
         RETURNING user_id, identity_id"
    );
    let verifier = core.identity().verifier.as_ref();
    let links = verifier.is_some_and(|verifier| verifier.issuer().links_verified_email());
    let proved = proved(claims);
    let now = core.now();
    let Sight { session, issued_at, expires_at, client, label } = sight;
    let new_ids = NewIds::new(now);
    let insert = new_ids
        .bind(Statement::new(SQL).bind(session), &proved, links, core.notice_id(now))
        .bind(Timestamp(issued_at))
        .bind(Timestamp(now))
        .bind(Timestamp(expires_at))
        .bind(label.as_ref().map(SessionLabel::as_str))
        .bind(client.map(client_key));
    let db = core.db();
    core.write_and_log(queue_of(client), async move {
        let opened: Option<(Uuid, Uuid)> = db.execute(insert).await?;
        let Some((user_id, identity)) = opened else { return Ok(None) };
        new_ids.log_created(user_id, identity, client);
        Ok(Some(Caller::of_session(user_id.into(), session, expires_at.timestamp())))
    })
    .await
}

/// Adds the user of another issuer, by a token of the issuer, to the caller's account: from then on
/// its tokens authenticate the caller. The session must have begun within the last 10 minutes. An
/// identity that the user has already is returned.
///
/// # Errors
/// [`Error::Invalid`] if the token is not valid, [`Error::IdentityTaken`] if the identity belongs
/// to another account, [`Error::QuotaExceeded`] if the user has
/// [`MAX_IDENTITIES`](super::MAX_IDENTITIES), [`Error::ReauthenticationRequired`],
/// [`Error::InsufficientScope`] if the caller has a key; [`Error::Unavailable`] if the issuer does
/// not answer; else as [`authenticate`](super::authenticate).
pub async fn add_identity(core: &Core, caller: &Caller, token: &str) -> Result<Identity> {
    add_identity_from(core, caller, token, None).await
}

/// As [`add_identity`]. `client` is the address for the log.
pub(crate) async fn add_identity_from(
    core: &Core,
    caller: &Caller,
    token: &str,
    client: Option<IpAddr>,
) -> Result<Identity> {
    caller.require_no_key()?;
    match verify(core, token).await {
        Ok(claims) => add_proved_identity(core, caller, proved(claims), client).await,
        Err(VerifyError::Rejected(reason)) => {
            events::failed(AuthEvent::IdentityAddition, client, Some(caller.user_id()), reason);
            Err(Error::Invalid(invalid_identity_token().into()))
        }
        Err(VerifyError::Unavailable) => Err(unavailable()),
    }
}

/// The error of a token that the issuer has not signed for this installation.
pub(crate) fn invalid_identity_token() -> FieldError {
    FieldError::new("token", "invalid", "Token must be a valid token of the issuer.")
}

fn proved(claims: ForeignClaims) -> ProvedIdentity {
    let ForeignClaims { issuer, subject, email, email_verified, name, .. } = claims;
    ProvedIdentity::new(issuer, subject, email.as_deref(), email_verified, name.as_deref())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The session of a token: a hash of the issuer and of the part that is signed, since the signature
/// of one token can be written in several ways.
fn session_of(issuer: &str, token: &str) -> Uuid {
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let hash = Sha256::new()
        .chain_update("todo external session v1 ")
        .chain_update((issuer.len() as u64).to_be_bytes())
        .chain_update(issuer)
        .chain_update(signed)
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(id)
}
