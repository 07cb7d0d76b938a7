//! Accounts and sessions: signup, login, logout, and the verification of tokens.

use self::events::AuthEvent;
pub(crate) use self::maintenance::load_hash_costs;
#[cfg(any(test, feature = "http"))]
pub(crate) use self::session::{end_session, verify_token};
pub use self::{
    account::{current_user, rename},
    export::{Export, ExportHead, ExportPart, ExportedKey, ExportedSession, export},
    login::login,
    maintenance::delete_expired,
    session::{authenticate, check_session, logout},
    signup::signup,
    types::{
        Client, Credentials, Email, Name, Password, Session, SessionLabel, Signup, Token, User,
    },
};
#[cfg(feature = "http")]
pub(crate) use self::{
    export::export_limited, limited::Limited, login::login_limited, signup::signup_limited,
};
pub use crate::{authz::Caller, ids::UserId};

mod account;
mod address;
pub(crate) mod events;
pub(crate) mod export;
mod limited;
mod login;
mod maintenance;
mod session;
mod signup;
mod types;

#[cfg(all(test, feature = "sqlite"))]
mod tests;
