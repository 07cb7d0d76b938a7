//! The authentication log: each success and failure of signup, login, logout and token, with the
//! client's address and the reason. Data from the client is limited to ids that a valid signature
//! or the database confirms: never an e-mail, a password, a token or a hash.
//!
//! Each event has its request's id, if there is a request.

use std::net::IpAddr;

use tracing::field::display;

use crate::{error::Error, ids::UserId, request_id};

/// The log target of authentication events, for filters. Nothing else uses it.
const TARGET: &str = "todo_core::auth";

/// The kind of an authentication event.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AuthEvent {
    Signup,
    Login,
    Logout,
    Token,
    SessionEnd,
    Reauthentication,
    PasswordChange,
    KeyCreation,
    KeyDeletion,
    AccountDeletion,
    PasswordForgot,
    PasswordReset,
    EmailVerification,
    EmailConfirmation,
    EmailChange,
    #[cfg(feature = "identity")]
    IdentityAddition,
    IdentityRemoval,
    #[cfg(feature = "identity")]
    SignIn,
}

impl AuthEvent {
    fn as_str(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::Login => "login",
            Self::Logout => "logout",
            Self::Token => "token",
            Self::SessionEnd => "session_end",
            Self::Reauthentication => "reauthentication",
            Self::PasswordChange => "password_change",
            Self::KeyCreation => "key_creation",
            Self::KeyDeletion => "key_deletion",
            Self::AccountDeletion => "account_deletion",
            Self::PasswordForgot => "password_forgot",
            Self::PasswordReset => "password_reset",
            Self::EmailVerification => "email_verification",
            Self::EmailConfirmation => "email_confirmation",
            Self::EmailChange => "email_change",
            #[cfg(feature = "identity")]
            Self::IdentityAddition => "identity_addition",
            Self::IdentityRemoval => "identity_removal",
            #[cfg(feature = "identity")]
            Self::SignIn => "sign_in",
        }
    }
}

/// Logs a success. A valid token is logged at debug: the access log has its user at info, with
/// every request.
pub(crate) fn succeeded(event: AuthEvent, client: Option<IpAddr>, user_id: UserId) {
    let is_token = matches!(event, AuthEvent::Token);
    let attempted = event.as_str();
    let client_ip = client.map(display);
    let user_id = display(user_id);
    if is_token {
        tracing::debug!(
            target: TARGET,
            request_id = request_id::current().as_deref(),
            attempted,
            client_ip,
            user_id,
            "authentication succeeded"
        );
    } else {
        tracing::info!(
            target: TARGET,
            request_id = request_id::current().as_deref(),
            attempted,
            client_ip,
            user_id,
            "authentication succeeded"
        );
    }
}

/// Logs the request of a mail with a link. Whether there is an account with the address is not
/// known yet.
pub(crate) fn requested(event: AuthEvent, client: Option<IpAddr>, user_id: Option<UserId>) {
    let attempted = event.as_str();
    let client_ip = client.map(display);
    let user_id = user_id.map(display);
    tracing::info!(
        target: TARGET,
        request_id = request_id::current().as_deref(),
        attempted,
        client_ip,
        user_id,
        "a mail was requested"
    );
}

/// Logs a failure and its reason, which is more specific than the response.
pub(crate) fn failed(
    event: AuthEvent,
    client: Option<IpAddr>,
    user_id: Option<UserId>,
    reason: &'static str,
) {
    let attempted = event.as_str();
    let client_ip = client.map(display);
    let user_id = user_id.map(display);
    tracing::warn!(
        target: TARGET,
        request_id = request_id::current().as_deref(),
        attempted,
        client_ip,
        user_id,
        reason,
        "authentication failed"
    );
}

/// Logs a missing token at debug: a request without one is no attempt to authenticate.
#[cfg(feature = "http")]
pub(crate) fn log_missing_token(client: Option<IpAddr>) {
    let attempted = AuthEvent::Token.as_str();
    let client_ip = client.map(display);
    tracing::debug!(
        target: TARGET,
        request_id = request_id::current().as_deref(),
        attempted,
        client_ip,
        reason = "no token",
        "authentication failed"
    );
}

/// The log reason for an error without a more specific one.
pub(crate) fn reason(error: &Error) -> &'static str {
    match error {
        Error::Invalid(_) => "invalid form",
        Error::EmailTaken => "e-mail taken",
        Error::InvalidCredentials => "wrong credentials",
        Error::Unauthenticated => "session ended",
        Error::ReauthenticationRequired => "session too old",
        Error::IdentityTaken => "identity taken",
        Error::LastCredential => "last way to log in",
        Error::InvalidGrant => "invalid code",
        Error::InvalidLink => "invalid link",
        Error::EmailUnverified => "e-mail not confirmed",
        Error::AlreadyVerified => "e-mail already confirmed",
        Error::MailNotConfigured => "no mails",
        Error::RateLimited { .. } => "rate limited",
        Error::Busy => "overloaded",
        Error::Unavailable(_) => "database unavailable",
        _ => "internal error",
    }
}
