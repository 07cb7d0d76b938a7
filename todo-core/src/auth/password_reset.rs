//! A new password by a link that is mailed to the address of the account.

use std::net::IpAddr;

use uuid::Uuid;

use super::{
    AuthEvent, Client, Email, Password, UserId, common_passwords, events,
    limited::Limited,
    mailing::{id_of_minute, require_mail, since, take_slot, within_limits},
};
use crate::{
    core::Core,
    db::{RowsAffected, Statement, value::Timestamp},
    error::{Error, Result},
    mail::{MailKind, open_link},
    rate_limit::{Action, RateLimitState},
};

/// Mails a link that sets a new password to `email`, if there is an account with that address. The
/// result and its duration are the same if there is none. An address gets one such mail a minute
/// and five a day at most; beyond that nothing is mailed, and the result is the same. The rate
/// limit is per address of a `client`, as that of signups.
///
/// # Errors
/// [`Error::MailNotConfigured`], [`Error::RateLimited`]; else [`Error::Busy`],
/// [`Error::Unavailable`], [`Error::Internal`].
pub async fn request_password_reset(core: &Core, client: Client, email: Email) -> Result<()> {
    request_password_reset_limited(core, client.address(), email).await.result
}

/// As [`request_password_reset`], with the state of the rate limit.
pub(crate) async fn request_password_reset_limited(
    core: &Core,
    client: Option<IpAddr>,
    email: Email,
) -> Limited<()> {
    let work = core.clone();
    let outcome = core.anonymous(async move {
        let mut state = None;
        let requested = request(&work, client, &email, &mut state).await;
        match &requested {
            Ok(()) => events::requested(AuthEvent::PasswordForgot, client, None),
            Err(error) => {
                events::failed(AuthEvent::PasswordForgot, client, None, events::reason(error));
            }
        }
        Ok((requested, state))
    });
    Limited::new(outcome.await)
}

async fn request(
    core: &Core,
    client: Option<IpAddr>,
    email: &Email,
    state: &mut Option<RateLimitState>,
) -> Result<()> {
    // Without a look at `users`: the delivery looks for the account.
    const SQL: &str = concat!(
        "INSERT INTO mails (id, kind, email, created_at, expires_at) SELECT $1, $2, $3, $4, $5 WHERE ",
        within_limits!("$2", "$3", "$6", "$7"),
        " ON CONFLICT (id) DO NOTHING"
    );
    const KIND: MailKind = MailKind::Reset;
    let mail = require_mail(core)?;
    let _attempt = take_slot(core, Action::Forgot, client, state).await?;
    let now = core.now();
    let [minute, day] = since(now);
    let insert = Statement::new(SQL)
        .bind(id_of_minute(KIND.as_str(), email.as_str(), now))
        .bind(KIND.as_str())
        .bind(email.as_str())
        .bind(Timestamp(now))
        .bind(Timestamp(now + KIND.lifetime()))
        .bind(minute)
        .bind(day);
    let RowsAffected(_) = core.db().execute(insert).await?;
    mail.wake();
    Ok(())
}

/// Sets a new password by the token of a link from [`request_password_reset`]. The link is valid
/// once, for 30 minutes, and until the password or the address of the account is changed. All
/// sessions and keys of the account end. The address is confirmed by it. No session is created: the
/// user logs in.
///
/// # Errors
/// [`Error::MailNotConfigured`], [`Error::InvalidLink`]; [`Error::Invalid`] if the password is
/// among those that are tried first, and the link remains valid; else [`Error::Busy`],
/// [`Error::Unavailable`], [`Error::Internal`].
pub async fn reset_password(
    core: &Core,
    client: Client,
    token: &str,
    password: Password,
) -> Result<()> {
    let client = client.address();
    require_mail(core)?;
    let link = open_link(core.tokens(), &[MailKind::Reset], token);
    let work = core.clone();
    core.anonymous(async move {
        let done = match link {
            Some((_, mail_id)) => set_password(&work, client, mail_id, password).await,
            None => Err(Error::InvalidLink),
        };
        match done {
            Ok(user_id) => {
                // Its streams, whose sessions have ended.
                work.streams().end_user(user_id);
                events::succeeded(AuthEvent::PasswordReset, client, user_id);
                Ok(())
            }
            Err(error) => {
                events::failed(AuthEvent::PasswordReset, client, None, events::reason(&error));
                Err(error)
            }
        }
    })
    .await
}

/// The row of a link that is valid, with its account.
macro_rules! usable_reset {
    () => {
        "FROM mails JOIN users ON users.email = mails.email WHERE mails.id = $1 \
         AND mails.kind = 'reset' AND mails.used_at IS NULL AND mails.expires_at > $2 \
         AND users.deleted_at IS NULL"
    };
}

async fn set_password(
    core: &Core,
    client: Option<IpAddr>,
    mail_id: Uuid,
    password: Password,
) -> Result<UserId> {
    const FIND: &str = concat!("SELECT users.id, users.email ", usable_reset!());
    // A view, whose trigger finds the link used if another request has used it meanwhile.
    const SQL: &str = concat!(
        "INSERT INTO password_resets (mail_id, user_id, password_hash, changed_at, notice_id) \
         SELECT mails.id, users.id, $3, $2, $4 ",
        usable_reset!(),
        " RETURNING mail_id, user_id"
    );
    // First, so that an invalid link costs no hash.
    let find = Statement::new(FIND).bind(mail_id).bind(Timestamp(core.now()));
    let found: Option<(Uuid, String)> = core.db().fetch(find).await?;
    let (user_id, email) = found.ok_or(Error::InvalidLink)?;
    let email = Email::from_stored(email);
    common_passwords::check(&password, "password", &email, core.service_name())?;
    let hash = core.hasher().permit(client, Some(&user_id.to_string()))?.hash(password).await?;
    let now = core.now();
    let insert =
        Statement::new(SQL).bind(mail_id).bind(Timestamp(now)).bind(hash).bind(core.notice_id(now));
    let reset: Option<(Uuid, Uuid)> = core.db().execute(insert).await?;
    reset.map(|(_, user_id)| user_id.into()).ok_or(Error::InvalidLink)
}
