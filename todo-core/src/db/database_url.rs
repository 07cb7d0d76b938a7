//! [`DatabaseUrl`]: the address of a database, without its secrets in any output.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::address::Address;
use crate::parsed::impl_parse;

/// Address of a database. It may contain a password, which is left out of `Debug` and of all
/// messages.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// Parses an address: `sqlite://FILE`, `sqlite::memory:`, `postgres://…`, `postgresql://…` or
    /// one of SQLAlchemy's. Opens nothing.
    ///
    /// # Errors
    /// [`DatabaseUrlError`].
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        Address::parse(text).map(|_| Self(text.to_owned())).map_err(DatabaseUrlError::new)
    }

    /// The address, including its password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address as parsed, without secrets.
    #[must_use]
    pub fn shown(&self) -> String {
        self.address().map_or_else(String::new, |address| address.shown())
    }

    /// The kind of database: `sqlite` or `postgres`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.address().map_or("none", |address| address.kind())
    }

    /// The file of an embedded database, unless it is in memory.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.address()?.file().map(Path::to_owned)
    }

    /// Whether the database is an embedded one in memory.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        self.kind() == "sqlite" && self.file().is_none()
    }

    /// The parsed address. It was parsed before, so this does not fail.
    fn address(&self) -> Option<Address> {
        Address::parse(&self.0).ok()
    }
}

impl_parse!(DatabaseUrl, DatabaseUrlError);

impl AsRef<str> for DatabaseUrl {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The defect of an address, as the end of a sentence, without a part of the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DatabaseUrlError(String);

impl DatabaseUrlError {
    pub(crate) fn new(defect: impl Into<String>) -> Self {
        Self(defect.into())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({}:…)", self.kind())
    }
}
