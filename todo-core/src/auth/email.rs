//! The confirmation of an account's e-mail address, and of a new one, by a mailed link.

use std::net::IpAddr;

use uuid::Uuid;

use super::{
    AuthEvent, Caller, Client, Email, Password, User, events,
    limited::Limited,
    mailing::{id_of_minute, require_mail, since, take_slot, within_limits},
    reauthentication::{Reauthenticated, reauthenticate},
    types::user_columns,
};
use crate::{
    authz::{acting_as, authorized},
    core::Core,
    db::{Statement, value::Timestamp},
    error::{Error, FieldError, Result},
    mail::{MailKind, open_link},
    rate_limit::{Action, RateLimitState},
};

/// Mails a link that confirms the address of the caller's account, as a signup does. There is one
/// such mail a minute and there are five a day at most; beyond that nothing is mailed. The rate
/// limit is per address of a `client`, as that of signups.
///
/// # Errors
/// [`Error::MailNotConfigured`], [`Error::RateLimited`], [`Error::AlreadyVerified`],
/// [`Error::InsufficientScope`] if the caller has a key; else as
/// [`authenticate`](super::authenticate).
pub async fn request_verification(core: &Core, caller: &Caller, client: Client) -> Result<()> {
    request_verification_limited(core, caller, client.address()).await.result
}

/// As [`request_verification`], with the state of the rate limit.
pub(crate) async fn request_verification_limited(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
) -> Limited<()> {
    let work = core.clone();
    let caller = *caller;
    let outcome = core.anonymous(async move {
        let mut state = None;
        let requested = verify(&work, caller, client, &mut state).await;
        log_request(AuthEvent::EmailVerification, caller, client, &requested);
        Ok((requested, state))
    });
    Limited::new(outcome.await)
}

async fn verify(
    core: &Core,
    caller: Caller,
    client: Option<IpAddr>,
    state: &mut Option<RateLimitState>,
) -> Result<()> {
    const SQL: &str = concat!(
        "INSERT INTO mails (id, kind, user_id, email, created_at, expires_at) \
         SELECT $4, $5, id, email, $6, $7 FROM users \
         WHERE id = $1 AND deleted_at IS NULL AND email_verified_at IS NULL AND ",
        authorized!(),
        " AND ",
        within_limits!("$5", "users.email", "$8", "$9"),
        " ON CONFLICT (id) DO NOTHING RETURNING id, user_id"
    );
    const REASON: &str = concat!(
        "SELECT email_verified_at IS NOT NULL, email FROM users \
         WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!()
    );
    const KIND: MailKind = MailKind::Verify;
    caller.require_no_key()?;
    let mail = require_mail(core)?;
    let _attempt = take_slot(core, Action::Verify, client, state).await?;
    let now = core.now();
    let [minute, day] = since(now);
    let insert = acting_as(caller, SQL)
        .bind(id_of_minute(KIND.as_str(), &caller.user_id().to_string(), now))
        .bind(KIND.as_str())
        .bind(Timestamp(now))
        .bind(Timestamp(now + KIND.lifetime()))
        .bind(minute)
        .bind(day);
    let queued: Option<(Uuid, Uuid)> = core.db().execute(insert).await?;
    if queued.is_some() {
        mail.wake();
        return Ok(());
    }
    let found: Option<(bool, String)> = core.db().fetch(acting_as(caller, REASON)).await?;
    match found {
        None => Err(Error::Unauthenticated),
        Some((true, _)) => Err(Error::AlreadyVerified),
        // Over the limit of the address.
        Some((false, _)) => Ok(()),
    }
}

/// Confirms an address by the token of a link: the address of the account, or a new one that
/// replaces it. The link is valid once. That of a new address is invalid after a change of the
/// password; then the address before is told.
///
/// # Errors
/// [`Error::MailNotConfigured`], [`Error::InvalidLink`], [`Error::EmailTaken`] if another account
/// has the new address; else [`Error::Busy`], [`Error::Unavailable`], [`Error::Internal`].
pub async fn confirm_email(core: &Core, client: Client, token: &str) -> Result<User> {
    let client = client.address();
    require_mail(core)?;
    let link = open_link(core.tokens(), &[MailKind::Verify, MailKind::Change], token);
    let work = core.clone();
    core.anonymous(async move {
        let confirmed = match link {
            Some((kind, mail_id)) => confirm(&work, kind, mail_id).await,
            None => Err(Error::InvalidLink),
        };
        match &confirmed {
            Ok(user) => events::succeeded(AuthEvent::EmailConfirmation, client, user.id),
            Err(error) => {
                events::failed(AuthEvent::EmailConfirmation, client, None, events::reason(error));
            }
        }
        confirmed
    })
    .await
}

async fn confirm(core: &Core, kind: MailKind, mail_id: Uuid) -> Result<User> {
    // A view, whose trigger finds the link used if another request has used it meanwhile.
    const SQL: &str = "INSERT INTO email_confirmations (mail_id, user_id, confirmed_at, notice_id) \
         SELECT mails.id, users.id, $3, $4 FROM mails JOIN users ON users.id = mails.user_id \
         WHERE mails.id = $1 AND mails.kind = $2 AND mails.used_at IS NULL \
         AND mails.expires_at > $3 AND users.deleted_at IS NULL \
         AND (mails.kind = 'change' OR (mails.kind = 'verify' AND mails.email = users.email)) \
         RETURNING mail_id, user_id";
    const USER: &str =
        concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1 AND deleted_at IS NULL");
    let now = core.now();
    // Only a new address has a notice, to the one before.
    let notice = core.notice_id(now).filter(|_| kind == MailKind::Change);
    let insert =
        Statement::new(SQL).bind(mail_id).bind(kind.as_str()).bind(Timestamp(now)).bind(notice);
    let confirmed: Option<(Uuid, Uuid)> = match core.db().execute(insert).await {
        // The unique index decides whether the address is taken.
        Err(fault) if fault.is_unique_violation() => return Err(Error::EmailTaken),
        outcome => outcome?,
    };
    let (_, user_id) = confirmed.ok_or(Error::InvalidLink)?;
    let user: Option<User> = core.db().fetch(Statement::new(USER).bind(user_id)).await?;
    // The account was deleted meanwhile.
    user.ok_or(Error::InvalidLink)
}

/// Mails a link that makes `email` the address of the caller's account, to that address, and a
/// notice to the present one. Nothing changes until the link is used. A new address gets one such
/// mail a minute and five a day at most; beyond that nothing is mailed. Whether another account has
/// the address is found by the use of the link ([`confirm_email`]).
///
/// Wrong passwords count for the address of a `client`, as those of logins, and for the user.
///
/// # Errors
/// [`Error::MailNotConfigured`], [`Error::Invalid`] if it is the present address,
/// [`Error::InvalidCredentials`] if the password is wrong, [`Error::InsufficientScope`] if the
/// caller has a key, [`Error::RateLimited`], [`Error::Busy`]; else as
/// [`authenticate`](super::authenticate).
pub async fn request_email_change(
    core: &Core,
    caller: &Caller,
    client: Client,
    email: Email,
    password: Password,
) -> Result<()> {
    request_email_change_limited(core, caller, client.address(), email, password).await.result
}

/// As [`request_email_change`], with the state of the rate limit.
pub(crate) async fn request_email_change_limited(
    core: &Core,
    caller: &Caller,
    client: Option<IpAddr>,
    email: Email,
    password: Password,
) -> Limited<()> {
    let work = core.clone();
    let caller = *caller;
    let outcome = core.anonymous(async move {
        let mut state = None;
        let requested = change(&work, caller, client, &email, password, &mut state).await;
        log_request(AuthEvent::EmailChange, caller, client, &requested);
        Ok((requested, state))
    });
    Limited::new(outcome.await)
}

async fn change(
    core: &Core,
    caller: Caller,
    client: Option<IpAddr>,
    email: &Email,
    password: Password,
    state: &mut Option<RateLimitState>,
) -> Result<()> {
    // The link to the new address and the notice to the present one, both or neither.
    const SQL: &str = concat!(
        "INSERT INTO mails (id, kind, user_id, email, created_at, expires_at) \
         SELECT CASE WHEN mailed.is_link THEN $5 ELSE $6 END, \
         CASE WHEN mailed.is_link THEN 'change' ELSE 'email_changing' END, users.id, \
         CASE WHEN mailed.is_link THEN $7 ELSE users.email END, $8, \
         CASE WHEN mailed.is_link THEN $9 ELSE $10 END \
         FROM users CROSS JOIN (SELECT TRUE AS is_link UNION ALL SELECT FALSE) AS mailed \
         WHERE users.id = $1 AND users.password_hash = $4 AND users.deleted_at IS NULL AND ",
        authorized!(),
        " AND ",
        within_limits!("'change'", "$7", "$11", "$12"),
        " ON CONFLICT (id) DO NOTHING RETURNING id, kind"
    );
    const REASON: &str = concat!(
        "SELECT password_hash = $4, email FROM users WHERE id = $1 AND deleted_at IS NULL AND ",
        authorized!()
    );
    caller.require_no_key()?;
    let mail = require_mail(core)?;
    let Reauthenticated { user, password_hash } =
        reauthenticate(core, &caller, client, password, state).await?;
    if user.email == *email {
        let message = "This is the e-mail address of your account already.";
        return Err(FieldError::new("email", "unchanged", message).into());
    }
    let now = core.now();
    let notice = format!("{} {}", user.id, email.as_str());
    let [minute, day] = since(now);
    let insert = acting_as(caller, SQL)
        .bind(password_hash.as_str())
        .bind(id_of_minute(MailKind::Change.as_str(), email.as_str(), now))
        .bind(id_of_minute(MailKind::EmailChanging.as_str(), &notice, now))
        .bind(email.as_str())
        .bind(Timestamp(now))
        .bind(Timestamp(now + MailKind::Change.lifetime()))
        .bind(Timestamp(now + MailKind::EmailChanging.lifetime()))
        .bind(minute)
        .bind(day);
    let queued: Option<(Uuid, String)> = core.db().execute(insert).await?;
    if queued.is_some() {
        mail.wake();
        return Ok(());
    }
    let reason = acting_as(caller, REASON).bind(password_hash);
    let found: Option<(bool, String)> = core.db().fetch(reason).await?;
    match found {
        None => Err(Error::Unauthenticated),
        // The password was changed meanwhile.
        Some((false, _)) => Err(Error::InvalidCredentials),
        // Over the limit of the address.
        Some((true, _)) => Ok(()),
    }
}

/// Logs a request for a mail.
fn log_request(event: AuthEvent, caller: Caller, client: Option<IpAddr>, requested: &Result<()>) {
    match requested {
        Ok(()) => events::requested(event, client, Some(caller.user_id())),
        Err(error) => events::failed(event, client, Some(caller.user_id()), events::reason(error)),
    }
}
