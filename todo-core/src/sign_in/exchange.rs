//! The exchange of an app's code for a session.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::callback::refuse;
use crate::{
    auth::{
        Client, Session, SessionLabel, User,
        events::{self, AuthEvent},
        new_session, user_columns,
    },
    core::Core,
    db::{Statement, value::Timestamp},
    error::Result,
    identity::sign_in::{challenge, open_code},
    rate_limit::client_key,
};

/// Exchanges `grant`, the code of [`callback`](super::callback), for a session (RFC 6749, section
/// 4.1.3): once, within a minute, with the verifier of the challenge with which the sign-in began
/// (RFC 7636, section 4.6). A wrong verifier uses the code up.
///
/// # Errors
/// [`InvalidGrant`](crate::Error::InvalidGrant) for all of these reasons; else
/// [`Busy`](crate::Error::Busy), [`Unavailable`](crate::Error::Unavailable),
/// [`Internal`](crate::Error::Internal).
pub async fn exchange(
    core: &Core,
    client: Client,
    grant: &str,
    verifier: &str,
    label: Option<SessionLabel>,
) -> Result<Session> {
    let client = client.address();
    let Some(id) = open_code(core.tokens(), grant) else {
        return Err(refuse(client, "no code of ours"));
    };
    let given = challenge(verifier);
    let work = core.clone();
    core.anonymous(async move {
        let session = match use_up(&work, id).await? {
            Err(reason) => Err(reason),
            Ok(used) if used.expires_at <= work.now() => Err("the code has expired"),
            Ok(used) if used.challenge != given => Err("another verifier"),
            Ok(used) => open_session(&work, client, used, label).await?.ok_or("ended meanwhile"),
        };
        match session {
            Ok(session) => {
                events::succeeded(AuthEvent::SignIn, client, session.user.id);
                Ok(session)
            }
            Err(reason) => Err(refuse(client, reason)),
        }
    })
    .await
}

/// A code that is used up.
struct Code {
    user_id: Uuid,
    identity_id: Uuid,
    challenge: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

async fn use_up(core: &Core, id: Uuid) -> Result<Result<Code, &'static str>> {
    const SQL: &str = "DELETE FROM oauth_codes WHERE id = $1 \
         RETURNING user_id, identity_id, challenge, created_at, expires_at";
    let delete = Statement::new(SQL).bind(id);
    let used: Option<(Uuid, Uuid, String, Timestamp, Timestamp)> =
        core.db().execute(delete).await?;
    Ok(used
        .map(|(user_id, identity_id, challenge, created_at, expires_at)| Code {
            user_id,
            identity_id,
            challenge,
            created_at: created_at.0,
            expires_at: expires_at.0,
        })
        .ok_or("the code is used, or its identity has ended"))
}

/// Creates a session; `None` if the user has ended all sessions since the code was created, or has
/// no such identity any more.
async fn open_session(
    core: &Core,
    client: Option<IpAddr>,
    used: Code,
    label: Option<SessionLabel>,
) -> Result<Option<Session>> {
    const USER: &str =
        concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1 AND deleted_at IS NULL");
    const SQL: &str = "INSERT INTO new_sessions \
         (id, user_id, kind, label, client, scopes, created_at, expires_at, identity_id) \
         SELECT $1, user_id, 'oauth', $4, $5, -1, $6, $7, id FROM identities \
         WHERE id = $3 AND user_id = $2 AND (not_before IS NULL OR not_before < $8) RETURNING id";
    let now = core.now();
    let db = core.db();
    let found: Option<User> = db.fetch(Statement::new(USER).bind(used.user_id)).await?;
    let Some(owner) = found else { return Ok(None) };
    let (id, session) = new_session(core, owner, now)?;
    let insert = Statement::new(SQL)
        .bind(id)
        .bind(used.user_id)
        .bind(used.identity_id)
        .bind(label.as_ref().map(SessionLabel::as_str))
        .bind(client.map(client_key))
        .bind(Timestamp(now))
        .bind(Timestamp(session.expires_at))
        .bind(Timestamp(used.created_at));
    let opened: Option<(Uuid,)> = db.execute(insert).await?;
    Ok(opened.map(|_| session))
}
