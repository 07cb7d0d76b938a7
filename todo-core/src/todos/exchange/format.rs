//! The formats of files.

use serde::{Deserialize, Serialize};

use crate::parsed::impl_words;

/// The format of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// JSON with all properties: an import of it and another export give the same bytes.
    #[default]
    Json,
    /// A table (RFC 4180) with a header.
    Csv,
    /// A line for each todo (todo.txt).
    Todotxt,
    /// iCalendar (RFC 5545).
    Ics,
}

impl_words!(ExportFormat, "format", "json, csv, todotxt or ics",
    "json" => Json, "csv" => Csv, "todotxt" => Todotxt, "ics" => Ics);

/// The format of a file to import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
#[serde(rename_all = "lowercase")]
pub enum ImportFormat {
    /// As [`ExportFormat::Json`].
    Json,
    /// As [`ExportFormat::Csv`].
    Csv,
    /// As [`ExportFormat::Todotxt`].
    Todotxt,
    /// As [`ExportFormat::Ics`].
    Ics,
    /// The table of a project that Todoist exports.
    Todoist,
    /// Lists and tasks of Microsoft To Do, as Microsoft Graph returns them.
    Microsoft,
    /// The lists of Google Tasks, as Google Takeout exports them.
    Google,
}

impl_words!(ImportFormat, "format",
    "json, csv, todotxt, ics, todoist, microsoft or google",
    "json" => Json, "csv" => Csv, "todotxt" => Todotxt, "ics" => Ics, "todoist" => Todoist,
    "microsoft" => Microsoft, "google" => Google);
