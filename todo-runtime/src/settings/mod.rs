//! Settings of both servers: parsed once and checked together; an error names every invalid one.
//! [`Settings::load`] reads the environment, `.env` and files; [`Settings::from_vars`] takes names
//! and values.

use std::{fmt, path::PathBuf};

pub use todo_core::DatabaseUrl;

pub use self::table::Settings;
use self::vars::Vars;

mod check;
#[cfg(test)]
mod documents;
mod dotenv;
mod kind;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod vars;

impl Settings {
    /// Parses settings from names and values. Unknown names are ignored, and an empty value counts
    /// as unset.
    ///
    /// # Errors
    /// [`SettingsError`] with every invalid setting and its allowed values, but not the given ones.
    pub fn from_vars<K: Into<String>, V: Into<String>>(
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, SettingsError> {
        let mut vars = Vars::new(vars);
        let settings = Self::parse(&mut vars);
        settings.check(&mut vars);
        if vars.errors.is_empty() { Ok(settings) } else { Err(SettingsError(vars.errors)) }
    }

    /// `TLS_CERT` and `TLS_KEY`, both or neither.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        let cert = self.tls_cert.clone()?;
        let key = self.tls_key.clone()?;
        Some(TlsFiles { cert, key })
    }
}

/// A row of the table of settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// The name of the variable.
    pub name: &'static str,
    /// The default value; `None` if there is none.
    pub default: Option<String>,
    /// A description of the default, in Markdown, if the value alone does not describe it.
    pub default_text: Option<&'static str>,
    /// The allowed values, in a form that completes `NAME must be …`.
    pub allowed: String,
    /// Whether the value is or contains a secret. Then `NAME_FILE` may name a file with the value.
    pub is_secret: bool,
    /// A value for `.env.example`, if that is not the default.
    pub example: Option<&'static str>,
    /// The meaning, in Markdown.
    pub description: &'static str,
}

/// A warning about an accepted setting, for the log. It contains no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// The setting, or its source.
    pub about: String,
    /// The problem.
    pub message: String,
}

impl Warning {
    pub(crate) fn new(about: impl Into<String>, message: impl Into<String>) -> Self {
        Self { about: about.into(), message: message.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.message)
    }
}

/// Paths of a certificate chain and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `TLS_CERT`
    pub cert: PathBuf,
    /// `TLS_KEY`
    pub key: PathBuf,
}

/// The environment of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine.
    #[default]
    Development,
    /// A test of production, without its restrictions.
    Staging,
    /// https only, and no unsafe defaults.
    Production,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// All invalid settings, on one line: their names, and the allowed values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError(pub(crate) Vec<String>);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad settings: {}", self.0.join("; "))
    }
}

impl std::error::Error for SettingsError {}
