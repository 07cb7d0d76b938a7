//! Creation of an account.

use std::net::IpAddr;

use super::{
    AuthEvent, Client, Session, SessionLabel, Signup, User, common_passwords, events,
    limited::{Limited, log_if_failed},
    session::new_session,
};
use crate::{
    clock::new_id,
    core::Core,
    db::{RowsAffected, Statement, value::Timestamp},
    error::{Error, Result},
    rate_limit::{Action, RateLimitState, client_key},
};

/// Creates an account and its first session. The rate limit is per address of a `client`.
///
/// # Errors
/// [`Error::Invalid`] if the password is among those that are tried first: a common one, or one
/// that is derived from the address or the [service's name](crate::CoreBuilder::service_name);
/// [`Error::EmailTaken`], [`Error::RateLimited`], [`Error::Busy`] if too many passwords wait to be
/// hashed; else the errors of every operation: [`Error::Unavailable`], [`Error::Internal`].
pub async fn signup(core: &Core, client: Client, signup: Signup) -> Result<Session> {
    signup_limited(core, client.address(), signup).await.result
}

/// As [`signup`], with the state of the rate limit.
pub(crate) async fn signup_limited(
    core: &Core,
    client: Option<IpAddr>,
    signup: Signup,
) -> Limited<Session> {
    let work = core.clone();
    let outcome = core.anonymous(async move {
        let mut state = None;
        let session = sign_up(&work, client, signup, &mut state).await;
        match &session {
            Ok(session) => events::succeeded(AuthEvent::Signup, client, session.user.id),
            Err(error) => events::failed(AuthEvent::Signup, client, None, events::reason(error)),
        }
        Ok((session, state))
    });
    Limited::new(outcome.await)
}

/// Creates an account and its first session, within the client's rate limit.
async fn sign_up(
    core: &Core,
    client: Option<IpAddr>,
    signup: Signup,
    state: &mut Option<RateLimitState>,
) -> Result<Session> {
    // A view whose trigger inserts both rows: after an error there is no account.
    const SQL: &str = "INSERT INTO signups \
         (id, email, name, password_hash, created_at, session_id, expires_at, label, client, mail_id) \
         VALUES ($1, coalesce((SELECT email FROM users WHERE email = $8), $2), $3, $4, $5, $6, $7, \
         $9, $10, $11)";
    common_passwords::check(&signup.password, "password", &signup.email, core.service_name())?;
    // The queue first: an attempt that it rejects costs no statement and no rate-limit slot.
    let admitted = core.rate_limiter().admit(Action::Signup, client).await?;
    let permit = core.hasher().permit(client, None)?;
    let attempt = match admitted {
        Some(admitted) => Some(admitted.take().await?),
        None => None,
    };
    let hash = match (permit.hash(signup.password).await, attempt) {
        (Err(Error::Busy), Some(attempt)) => {
            *state = Some(attempt.state(false));
            log_if_failed(attempt.refund().await);
            return Err(Error::Busy);
        }
        (hash, attempt) => {
            *state = attempt.as_ref().map(|attempt| attempt.state(true));
            (hash?, attempt)
        }
    };
    // The guard is held until this function returns.
    let (hash, _attempt) = hash;
    let now = core.now();
    let user = User {
        id: new_id(now).into(),
        email: signup.email.clone(),
        name: signup.name,
        created_at: now,
        email_verified: false,
        time_zone: None,
        reminder_mail: false,
    };
    let (id, session) = new_session(core, user, now)?;
    let insert = Statement::new(SQL)
        .bind(session.user.id)
        .bind(session.user.email.as_str())
        .bind(session.user.name.as_str())
        .bind(hash)
        .bind(Timestamp(now))
        .bind(id)
        .bind(Timestamp(session.expires_at))
        .bind(signup.email.in_ascii())
        .bind(signup.label.as_ref().map(SessionLabel::as_str))
        .bind(client.map(client_key))
        .bind(core.notice_id(now));
    // The unique index decides whether the e-mail is taken: of forty concurrent signups one
    // succeeds. The statement inserts the ASCII form if an account has it, to conflict with that
    // account.
    match core.db().execute(insert).await {
        Ok(RowsAffected(_)) => Ok(session),
        Err(fault) if fault.is_unique_violation() => Err(Error::EmailTaken),
        Err(fault) => Err(fault.into()),
    }
}
