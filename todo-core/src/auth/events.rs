//! What is logged of authentication: each success and failure of signing up, logging in, logging out
//! and of a token, with the client's address and why. Of what a client sent, only ids that a good
//! signature or the database vouches for: never an e-mail, a password, a token or a hash.
//!
//! Each has the id of its request, if it is made for one.

use std::net::IpAddr;

use tracing::field::display;
use uuid::Uuid;

use crate::{error::Error, request_id};

/// What is filtered by: the events of this project's authentication, and nothing else.
const TARGET: &str = "todo_core::auth";

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempted {
    Signup,
    Login,
    Logout,
    Token,
}

impl Attempted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Signup => "signup",
            Self::Login => "login",
            Self::Logout => "logout",
            Self::Token => "token",
        }
    }
}

/// Logs that it was let in. A good token is told at debug: the access log has its user at info, with
/// every request.
pub(crate) fn succeeded(attempted: Attempted, client: Option<IpAddr>, user_id: Uuid) {
    let is_token = matches!(attempted, Attempted::Token);
    let (attempted, client_ip) = (attempted.as_str(), client.map(display));
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

/// Logs that it was refused, and why: more than the client is told.
pub(crate) fn failed(
    attempted: Attempted,
    client: Option<IpAddr>,
    user_id: Option<Uuid>,
    reason: &'static str,
) {
    let (attempted, client_ip) = (attempted.as_str(), client.map(display));
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

/// Logs, at debug, that there was no token where one is needed: nobody tried anything.
#[cfg(feature = "http")]
pub(crate) fn absent(client: Option<IpAddr>) {
    let (attempted, client_ip) = (Attempted::Token.as_str(), client.map(display));
    tracing::debug!(
        target: TARGET,
        request_id = request_id::current().as_deref(),
        attempted,
        client_ip,
        reason = "no token",
        "authentication failed"
    );
}

/// The reason in an error, where there is no better one.
pub(crate) fn reason(error: &Error) -> &'static str {
    match error {
        Error::Invalid(_) => "invalid form",
        Error::EmailTaken => "e-mail taken",
        Error::InvalidCredentials => "wrong credentials",
        Error::Unauthenticated => "session ended",
        Error::RateLimited { .. } => "rate limited",
        Error::Busy => "overloaded",
        Error::Unavailable(_) => "database unavailable",
        _ => "internal error",
    }
}
