//! The types of an account, constructed only by parsing: an [`Email`] is always valid.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::address::{self, Address};
use crate::{
    db::{DbError, FromRow, Row, value::Timestamp},
    error::{FieldError, FieldErrors, Result},
    ids::UserId,
    parsed::{impl_as_str, impl_credential, impl_parse, impl_text},
    time_zone::TimeZone,
    timestamp, validate,
};

/// An e-mail address: trimmed, at most 254 characters (Unicode scalar values). Valid by the rule of
/// HTML's `<input type=email>` (WHATWG HTML, "valid e-mail address") with a dot in its domain, or
/// internationalised (RFC 6531, with a domain by IDNA). Kept in NFC and lower case, the domain in
/// its Unicode form.
#[derive(Clone, Debug)]
pub struct Email {
    text: String,
    /// The text with its domain in ASCII, if that differs and is known.
    ascii: Option<String>,
}

impl Email {
    /// Maximum number of characters (RFC 5321, section 4.5.3.1.3, less the brackets).
    pub const MAX_CHARS: usize = 254;

    /// Parses an address. All spellings of one address are equal: in upper or lower case, composed
    /// or not, with the domain in its Unicode or its ASCII form.
    ///
    /// # Errors
    /// Every rule that the field `email` breaks.
    pub fn parse(email: &str) -> Result<Self, FieldErrors> {
        let email = email.trim();
        if email.is_empty() {
            return Err(FieldError::new("email", "blank", "Email cannot be empty.").into());
        }
        let mut broken = validate::check_text("email", email, 0, Self::MAX_CHARS);
        // A far too long text is not parsed.
        let is_short = email.len() <= 4 * Self::MAX_CHARS;
        let address = is_short.then(|| address::parse(email)).flatten();
        if !email.contains('\0') && is_short && address.is_none() {
            broken.push(FieldError::new("email", "invalid", "Invalid email format."));
        }
        let Some(Address { text, ascii }) = address.filter(|_| broken.is_empty()) else {
            return Err(broken);
        };
        // Lower case can be longer, so the length is checked again.
        let errors = validate::check_text("email", &text, 0, Self::MAX_CHARS);
        errors.into_result(|| Self { text, ascii })
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address with its domain in ASCII, as stored by accounts from before IDNA was applied to
    /// domains. Usually the same text.
    pub(crate) fn in_ascii(&self) -> &str {
        self.ascii.as_deref().unwrap_or(&self.text)
    }

    fn into_string(self) -> String {
        self.text
    }

    /// An address from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self { text, ascii: None }
    }
}

impl_text!(Email);

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Email {}

impl Hash for Email {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// A user's name: trimmed, 2 to 100 characters (Unicode scalar values), none of them a control
/// character (Unicode's category Cc).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    /// Minimum number of characters (Unicode scalar values) after trimming.
    pub const MIN_CHARS: usize = 2;
    /// Maximum number of characters (Unicode scalar values) after trimming.
    pub const MAX_CHARS: usize = 100;

    /// Parses a name.
    ///
    /// # Errors
    /// Every rule that the field `name` breaks.
    pub fn parse(name: &str) -> Result<Self, FieldErrors> {
        let name = name.trim();
        let broken = validate::check_line("name", name, Self::MIN_CHARS, Self::MAX_CHARS);
        broken.into_result(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn into_string(self) -> String {
        self.0
    }

    /// A name from the database, which was parsed when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl_text!(Name);

/// A password. Its `Debug` output does not contain it.
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Minimum number of characters (Unicode scalar values) of a new password.
    pub const MIN_CHARS: usize = 8;
    /// Maximum number of characters (Unicode scalar values) of a new password.
    pub const MAX_CHARS: usize = 128;

    /// Parses a new password: 8 to 128 characters (Unicode scalar values) with an upper-case
    /// letter, a lower-case letter and a digit; no U+0000.
    ///
    /// # Errors
    /// Every rule that the field `password` breaks.
    pub fn parse(password: &str) -> Result<Self, FieldErrors> {
        let mut broken =
            validate::check_text("password", password, Self::MIN_CHARS, Self::MAX_CHARS);
        for (is_there, what) in [
            (password.chars().any(char::is_uppercase), "an upper-case letter"),
            (password.chars().any(char::is_lowercase), "a lower-case letter"),
            (password.bytes().any(|b| b.is_ascii_digit()), "a digit"),
        ] {
            if !is_there {
                let message = format!("Password must contain {what}.");
                broken.push(FieldError::new("password", "weak", message));
            }
        }
        broken.into_result(|| Self(password.to_owned()))
    }

    /// Takes a password for comparison with a stored hash, without the rules for new passwords.
    ///
    /// # Errors
    /// The [`FieldError`] of the field `password`, if it has a U+0000.
    pub fn unchecked(password: &str) -> Result<Self, FieldError> {
        validate::check_nul("password", password).map_or_else(|| Ok(Self(password.to_owned())), Err)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl_parse!(Password, FieldErrors);

/// The client of a signup or a login, by which their rate limits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// A client at this address. The addresses of an IPv6 /64 are one client.
    At(IpAddr),
    /// A client that the host program vouches for: no rate limit applies.
    Trusted,
}

impl Client {
    /// The address, if the client is at one.
    #[must_use]
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::At(address) => Some(address),
            Self::Trusted => None,
        }
    }
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        Self::At(address)
    }
}

/// The name of the program that a session was created from, by which a user recognises the session:
/// at most 200 characters (Unicode scalar values), none of them a control character.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionLabel(String);

impl SessionLabel {
    /// Maximum number of characters (Unicode scalar values).
    pub const MAX_CHARS: usize = 200;

    /// The label of a program that sends `user_agent` (RFC 9110, section 10.1.5), without its
    /// control characters and shortened to the maximum. `None` if nothing is left.
    #[must_use]
    pub fn from_user_agent(user_agent: &str) -> Option<Self> {
        let printable = user_agent.chars().filter(|c| !c.is_control());
        let text: String = printable.take(Self::MAX_CHARS).collect();
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl_as_str!(SessionLabel);

/// The data of a new account.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Signup {
    /// The address that identifies the account.
    pub email: Email,
    /// The password for logins.
    pub password: Password,
    /// The user's name.
    pub name: Name,
    /// The label of the first session.
    pub label: Option<SessionLabel>,
}

impl Signup {
    /// The data of an account with these values, and without a label.
    #[must_use]
    pub fn new(email: Email, password: Password, name: Name) -> Self {
        Self { email, password, name, label: None }
    }

    /// Parses the three fields and returns every rule that they break.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`].
    pub fn parse(email: &str, password: &str, name: &str) -> Result<Self> {
        let mut errors = FieldErrors::none();
        let email = errors.collect(Email::parse(email));
        let password = errors.collect(Password::parse(password));
        let name = errors.collect(Name::parse(name));
        match (email, password, name) {
            (Some(email), Some(password), Some(name)) => Ok(Self::new(email, password, name)),
            _ => Err(errors.into()),
        }
    }
}

/// The data of a login.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// The address that identifies the account.
    pub email: Email,
    /// The password for logins.
    pub password: Password,
    /// The label of the new session.
    pub label: Option<SessionLabel>,
}

impl Credentials {
    /// The data of a login with these values, and without a label.
    #[must_use]
    pub fn new(email: Email, password: Password) -> Self {
        Self { email, password, label: None }
    }

    /// Parses the two fields and returns all invalid ones. The password need not meet the current
    /// rules: older accounts may have passwords that do not.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`].
    pub fn parse(email: &str, password: &str) -> Result<Self> {
        let mut errors = FieldErrors::none();
        let email = errors.collect(Email::parse(email));
        let password = errors.collect(Password::unchecked(password));
        match (email, password) {
            (Some(email), Some(password)) => Ok(Self::new(email, password)),
            _ => Err(errors.into()),
        }
    }
}

/// A user account. The password's hash is never sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct User {
    /// A UUIDv7.
    pub id: UserId,
    /// In NFC and lower case.
    pub email: Email,
    /// Trimmed, 2 to 100 characters.
    pub name: Name,
    /// When the account was created.
    #[serde(serialize_with = "timestamp::serialize")]
    pub created_at: DateTime<Utc>,
    /// Whether the user has confirmed the address by a link that was mailed to it.
    pub email_verified: bool,
    /// The zone by which times of day count, for example of reminders; UTC if there is none.
    pub time_zone: Option<TimeZone>,
    /// Whether the user is reminded of todos by mail.
    pub reminder_mail: bool,
}

/// The columns of a [`User`], in the order in which it is read.
macro_rules! user_columns {
    () => {
        "id, email, name, created_at, email_verified_at, time_zone, reminder_mail"
    };
}
pub(crate) use user_columns;

/// The number of [`user_columns!`], and so the index of the column after them.
pub(super) const USER_COLUMNS: usize = 7;

impl FromRow for User {
    fn from_row(row: &Row<'_>) -> Result<Self, DbError> {
        Ok(Self {
            id: row.get::<Uuid>(0)?.into(),
            email: Email::from_stored(row.get(1)?),
            name: Name::from_stored(row.get(2)?),
            created_at: row.get::<Timestamp>(3)?.0,
            email_verified: row.get::<Option<Timestamp>>(4)?.is_some(),
            time_zone: row.get::<Option<String>>(5)?.map(TimeZone::from_stored),
            reminder_mail: row.get(6)?,
        })
    }
}

/// A token: a JWT (RFC 7519) for the `Authorization: Bearer` header (RFC 6750). It grants access
/// to an account, so its `Debug` output is redacted, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(crate) fn new(token: String) -> Self {
        Self(token)
    }
}

impl_credential!(Token);

/// A new session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Session {
    /// The session's user.
    pub user: User,
    /// The token of the session.
    pub token: Token,
    /// When the token expires, in whole seconds.
    pub expires_at: DateTime<Utc>,
}

#[cfg(test)]
mod tests;
