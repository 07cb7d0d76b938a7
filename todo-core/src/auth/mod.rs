//! Accounts and sessions: signup, login, logout, and the verification of tokens.

use self::events::AuthEvent;
pub(crate) use self::maintenance::load_hash_costs;
#[cfg(any(test, feature = "http"))]
pub(crate) use self::session::{end_session, verify_token};
pub use self::{
    account::{current_user, rename},
    email::{confirm_email, request_verification},
    login::login,
    maintenance::delete_expired,
    password_reset::{request_password_reset, reset_password},
    session::{authenticate, check_session, logout},
    signup::signup,
    types::{
        Client, Credentials, Email, Name, Password, Session, SessionLabel, Signup, Token, User,
    },
};
#[cfg(feature = "http")]
pub(crate) use self::{
    email::request_verification_limited, limited::Limited, login::login_limited,
    password_reset::request_password_reset_limited, signup::signup_limited,
};
pub use crate::{authz::Caller, ids::UserId};

mod account;
mod address;
mod email;
pub(crate) mod events;
mod limited;
mod login;
mod mailing;
mod maintenance;
mod password_reset;
mod session;
mod signup;
mod types;

#[cfg(all(test, feature = "sqlite"))]
mod tests;
