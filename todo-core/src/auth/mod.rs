//! Accounts, sessions and API keys: signup, login, logout, and the verification of tokens.

use self::events::AuthEvent;
#[cfg(feature = "identity")]
pub use self::external::add_identity;
#[cfg(any(feature = "http", feature = "identity"))]
pub(crate) use self::limited::Limited;
#[cfg(any(test, feature = "http"))]
pub(crate) use self::session::log_out;
#[cfg(feature = "http")]
pub(crate) use self::sessions::{end_other_sessions_from, end_session_from};
pub use self::{
    account::{ProfileChange, current_user, rename, update_profile},
    deletion::{delete_account, delete_account_without_password},
    email::{confirm_email, request_email_change, request_verification},
    export::{Export, ExportHead, ExportPart, ExportedWebhook, export},
    identities::{Identity, MAX_IDENTITIES, identities, remove_identity},
    keys::{
        ApiKey, CreatedKey, KeyInfo, KeyLifetime, KeyName, MAX_KEYS, NewKey, create_key,
        delete_key, keys,
    },
    login::login,
    maintenance::{delete_expired, delete_idle_sessions},
    password::{PasswordChange, change_password},
    password_reset::{request_password_reset, reset_password},
    session::{authenticate, check_session, logout},
    sessions::{MAX_SESSIONS, SessionInfo, SessionKind, end_other_sessions, end_session, sessions},
    signup::signup,
    sweep::delete_left_rows,
    types::{
        Client, Credentials, Email, Name, Password, Session, SessionLabel, Signup, Token, User,
    },
};
#[cfg(feature = "http")]
pub(crate) use self::{
    deletion::delete_account_limited,
    email::{request_email_change_limited, request_verification_limited},
    export::export_limited,
    keys::{create_key_limited, delete_key_from},
    login::login_limited,
    password::change_password_limited,
    password_reset::request_password_reset_limited,
    signup::signup_limited,
};
#[cfg(all(feature = "http", feature = "identity"))]
pub(crate) use self::{
    external::{add_identity_from, invalid_identity_token},
    identities::remove_identity_from,
};
#[cfg(feature = "identity")]
pub(crate) use self::{
    identities::{
        NewIds, ProvedIdentity, add_proved_identity, found_or_new, found_or_new_columns,
        require_fresh_session,
    },
    mailing::take_slot,
    session::new_session,
    types::user_columns,
};
pub(crate) use self::{last_use::write_last_uses, maintenance::load_hash_costs};
pub use crate::{
    authz::Caller,
    ids::{IdentityId, SessionId, UserId},
    scopes::{Scope, Scopes},
    time_zone::TimeZone,
};

mod account;
mod address;
mod common_passwords;
pub(crate) mod credential;
mod deletion;
mod email;
pub(crate) mod events;
pub(crate) mod export;
#[cfg(feature = "identity")]
pub(crate) mod external;
mod identities;
mod keys;
pub(crate) mod known_keys;
pub(crate) mod last_use;
mod limited;
mod login;
mod mailing;
mod maintenance;
mod password;
mod password_reset;
mod reauthentication;
mod session;
mod sessions;
mod signup;
mod sweep;
mod types;

#[cfg(all(test, feature = "sqlite"))]
mod tests;
