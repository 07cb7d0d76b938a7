//! Todos in files: those of this library, and those that other programs write.
//!
//! A reader makes a [`Draft`](draft::Draft) of each todo of a file, and the
//! [`Sink`](sink::Sink) checks it and counts its errors. A writer makes the text of todos that are
//! read in pages. Nothing here is in memory as a whole but the file of an import, which is limited.

#[cfg(feature = "http")]
pub(crate) use self::import::{MAX_IMPORT_BYTES, import_or_replay};
pub use self::{
    export::{Export, ExportOptions, export},
    format::{ExportFormat, ImportFormat},
    import::{ImportOptions, ImportReport, import},
};

mod csv;
mod draft;
mod export;
mod export_rows;
mod format;
mod google;
mod ical;
mod import;
mod json;
mod members;
mod microsoft;
mod rows;
mod sink;
mod statements;
#[cfg(test)]
mod tests;
mod todoist;
mod todotxt;
