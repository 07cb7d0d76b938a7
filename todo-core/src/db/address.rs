//! Database addresses: the only parser of `DATABASE_URL` and of every other address. It opens no
//! connection and creates no file.
//!
//! Three documents define an address: libpq's connection URIs (PostgreSQL, 34.1.1.2), SQLAlchemy's
//! database URLs, and those of sqlx. Where they differ, the scheme decides: with a driver after a
//! plus (`sqlite+aiosqlite`) it is SQLAlchemy's. An unknown part is an error that names it. No
//! error repeats a value: any part may be a piece of a password.

use std::fmt;

use percent_encoding::percent_decode_str;

#[cfg(feature = "postgres")]
pub(crate) use self::postgres::PostgresAddress;
#[cfg(feature = "sqlite")]
pub(crate) use self::sqlite::{Mode, SqliteAddress};
use super::{DatabaseUrlError, OpenError};

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

const SCHEMES: &str = "it begins with sqlite:, postgres:// or postgresql:// (of SQLAlchemy's drivers, \
                       +aiosqlite, +pysqlite, +asyncpg, +psycopg and +psycopg2 are known)";

/// The address of a database.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Address {
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteAddress),
    #[cfg(feature = "postgres")]
    Postgres(PostgresAddress),
}

impl Address {
    /// Parses an address.
    ///
    /// # Errors
    /// The defect, as the end of a sentence, without a value of the address.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once(':').ok_or(SCHEMES)?;
        match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" | "sqlite+aiosqlite" | "sqlite+pysqlite" => {
                SqliteAddress::parse(scheme != "sqlite", rest).map(Self::Sqlite)
            }
            #[cfg(feature = "postgres")]
            _ => match PostgresAddress::scheme(scheme) {
                Some(scheme) => PostgresAddress::parse(scheme, rest).map(Self::Postgres),
                None => Err(SCHEMES.into()),
            },
            #[cfg(not(feature = "postgres"))]
            _ => {
                let _ = rest;
                Err(SCHEMES.into())
            }
        }
    }

    /// [`Address::parse`] with the error of opening a database.
    pub(crate) fn read(text: &str) -> Result<Self, OpenError> {
        Self::parse(text).map_err(|defect| OpenError::Url(DatabaseUrlError::new(defect)))
    }

    /// The address without secrets, for display.
    pub(crate) fn shown(&self) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(address) => address.shown(),
            #[cfg(feature = "postgres")]
            Self::Postgres(address) => address.shown(),
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => String::new(),
        }
    }

    /// `sqlite` or `postgres`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => "none",
        }
    }

    /// The file of an embedded database, if it has one.
    pub(crate) fn file(&self) -> Option<&std::path::Path> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(address) => address.file(),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => None,
            #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
            _ => None,
        }
    }
}

/// Shows no part of the address: it may contain a password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

/// Percent-decodes `text` (RFC 3986, 2.1). A `%` without two hexadecimal digits after it is
/// literal, as in SQLAlchemy and sqlx. The error names the part by `what`.
fn decoded(text: &str, what: &str) -> Result<String, String> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| format!("{what} must be UTF-8 once it is percent-decoded"))?;
    if text.contains('\0') {
        return Err(format!("{what} must not contain U+0000"));
    }
    Ok(text.into_owned())
}

/// The decoded parameters of a query; a plus is a space, as in SQLAlchemy and sqlx. The value of a
/// parameter without `=` is `None`.
fn parameters(query: &str) -> impl Iterator<Item = Result<(String, Option<String>), String>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let part = |text: &str| decoded(&text.replace('+', " "), "a parameter");
        match pair.split_once('=') {
            Some((name, value)) => Ok((part(name)?, Some(part(value)?))),
            None => Ok((part(pair)?, None)),
        }
    })
}

/// Checks that a parameter's value is one of `allowed`, ignoring case.
fn one_of(name: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(value)) {
        return Ok(());
    }
    Err(format!("{name} must be {}", allowed.join(", ")))
}

/// The error for an unknown parameter. Names it only if it looks like a name.
fn unknown(name: &str, known: &str) -> String {
    let is_name = name.len() <= 40
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
    if is_name {
        format!("the parameter {name} is not known here ({known})")
    } else {
        format!("a parameter is not known here ({known})")
    }
}
